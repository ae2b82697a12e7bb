// Package storetest holds every implementation of the database to the same behaviour.
package storetest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// Store is all that an implementation offers. Its users declare the few methods they need.
type Store interface {
	Migrate(ctx context.Context) error
	Ping(ctx context.Context) error
	ControlLog
	Maintain(ctx context.Context, now time.Time, keep store.Retention) error

	PutTenant(ctx context.Context, t webhook.Tenant) error
	Tenant(ctx context.Context, id string) (webhook.Tenant, error)
	PutAPIKey(ctx context.Context, k webhook.APIKey) error
	APIKey(ctx context.Context, tenant, id string) (webhook.APIKey, error)
	APIKeys(ctx context.Context, tenant string, p store.Page) ([]webhook.APIKey, string, error)
	APIKeyByHash(ctx context.Context, hash [32]byte) (webhook.APIKey, error)
	CreateSecret(ctx context.Context, secret webhook.Secret) error
	Secret(ctx context.Context, tenant, id string) (webhook.Secret, error)
	SecretByName(ctx context.Context, tenant, name string) (webhook.Secret, error)
	Secrets(ctx context.Context, tenant string, p store.Page) ([]webhook.Secret, string, error)
	UpdateSecret(ctx context.Context, tenant, id string, change func(*webhook.Secret) error) (webhook.Secret, error)
	DeleteSecret(ctx context.Context, tenant, id string) error
	CreateSubscription(ctx context.Context, sub webhook.Subscription, fresh *webhook.Secret, replays ...store.Replay) error
	Subscription(ctx context.Context, tenant, id string) (webhook.Subscription, error)
	Subscriptions(ctx context.Context, tenant string, p store.Page) ([]webhook.Subscription, string, error)
	UpdateSubscription(ctx context.Context, tenant, id string, change func(*webhook.Subscription) error) (webhook.Subscription, error)
	DeleteSubscription(ctx context.Context, tenant, id string, checks ...func(*webhook.Subscription) error) error
	Outbox(ctx context.Context, limit int) ([]store.OutboxRecord, error)
	Published(ctx context.Context, upTo int64) error
	OutboxLock(ctx context.Context, f func(ctx context.Context) error) (bool, error)

	Record(ctx context.Context, b *store.Batch) error
	Offsets(ctx context.Context, topics ...string) (map[store.TopicPartition]int64, error)
	Health(ctx context.Context, partitions ...int32) ([]store.Health, error)
	Deliveries(ctx context.Context, tenant string, f store.DeliveryFilter, p store.Page) ([]store.Delivery, string, error)
	CountDeliveries(ctx context.Context, tenant string, f store.DeliveryFilter) (map[webhook.Status]int64, error)
	CountDeliveriesUpTo(ctx context.Context, tenant string, f store.DeliveryFilter, most int64) (map[webhook.Status]int64, error)
	Delivery(ctx context.Context, tenant string, id uuid.UUID) (store.Delivery, error)
	Attempts(ctx context.Context, tenant string, deliveries ...uuid.UUID) (map[uuid.UUID][]webhook.Attempt, error)
	Event(ctx context.Context, tenant, id string) (webhook.Event, error)

	replays
	retries
	sources
}

// Run runs the suite. The function opens a store with an empty, migrated database, and closes it when the test ends.
func Run(t *testing.T, open func(t *testing.T) Store) {
	RunIn(t, func(t *testing.T, f func(t *testing.T)) { f(t) }, open)
}

// RunIn runs each test of the suite inside something, such as [synctest.Test].
func RunIn(t *testing.T, inside func(t *testing.T, f func(t *testing.T)), open func(t *testing.T) Store) {
	for _, c := range []struct {
		name string
		test func(t *testing.T, s Store)
	}{
		{"MigratingAgainChangesNothing", migratingAgainChangesNothing},
		{"ATenantPutUnchangedPublishesNothing", tenantPutUnchanged},
		{"AnAPIKeyIsFoundByItsHash", apiKeyByHash},
		{"ASecretIsFoundByIDAndNameInItsTenantOnly", secretsAreOfATenant},
		{"ASecretIsChangedOrLeftAsItIs", secretUpdates},
		{"ASecretInUseCannotBeDeleted", secretInUse},
		{"ASubscriptionComesBackAsItWasCreated", subscriptionRoundTrip},
		{"ASubscriptionBindsItsSecretToItsProfile", profileBinding},
		{"ASubscriptionIsChangedOrLeftAsItIs", subscriptionUpdates},
		{"ConcurrentChangesOfASubscriptionAllCount", concurrentUpdates},
		{"NamesAreTakenPerTenant", namesAreTaken},
		{"ListsGoThroughEveryRowOnce", listsAreComplete},
		{"TheOutboxHasEveryChangeInOrder", outboxOrder},
		{"OneRelayHoldsTheOutboxLock", outboxLock},
		{"ATenantIsMadeOnceAndChanged", tenants},
		{"EveryChangeIsLoggedWithItsActorAndWithoutSecrets", changesAreLogged},
		{"TheLogOfChangesIsFilteredAndPaged", changesAreFiltered},
		{"ARepeatedRequestGetsItsAnswerAndAnotherIsRefused", repeatedRequests},
		{"AnAnswerIsKeptWithTheChangeOrNotAtAll", answersComeWithTheChange},
		{"OneOfManyEqualRequestsRuns", oneOfManyRuns},

		{"ASourceComesBackAsItWasCreated", sourceRoundTrip},
		{"ASourceIsChangedOrLeftAsItIs", sourceUpdates},
		{"AConnectionIsFoundByWhatItsAggregatorCallsIt", connectionRoundTrip},

		{"ADeliveryComesBackAsItWasRecorded", deliveryRoundTrip},
		{"AnAttemptComesBackAsItWasRecorded", attemptRoundTrip},
		{"AnEventComesBackByteForByte", eventRoundTrip},
		{"AnyOrderOfRecordsMakesTheSameRow", anyOrder},
		{"AnEventProducedAgainLaterHasARowOfItsOwn", producedAgain},
		{"ARedeliveryMovesTheOldRow", redeliveryMovesTheRow},
		{"AnEarlierRecordReadLaterMovesTheRowBack", earlierRecord},
		{"WritingABatchTwiceChangesNothing", batchTwice},
		{"OffsetsNeverGoBack", offsetsMoveForward},
		{"ABatchBehindAGapIsRefused", gapIsRefused},
		{"HealthNeverGoesBackInItsPartition", healthMovesForward},
		{"BytesThatNoDatabaseTakesAreMadeStorable", hostileBytes},
		{"FiltersSelect", filters},
		{"PagesOfDeliveriesGoThroughEveryRowOnce", deliveryPages},
		{"ACursorOfSomethingElseIsRefused", badCursors},
		{"DeliveriesAreOfATenant", deliveriesAreOfATenant},
		{"WhatWaitsForARetryIsListedAndCounted", waitingIsListedAndCounted},
		{"MaintenanceDropsWhatRetentionHasPassed", retention},
		{"ConcurrentRecordersAndReadersAgree", concurrentRecorders},

		{"EventsAreReadInTheOrderInWhichTheyWereRecorded", eventsInOrder},
		{"EventsAreSelectedByTypeTimeAndOffset", eventsSelected},
		{"AnEventIsFoundByItsPlaceInKafkaInItsTenantOnly", eventByPlace},
		{"TheFurthestRowOfEachDeliveryIsFoundByID", deliveriesByID},
		{"AReplayComesBackAsItWasCreated", replayRoundTrip},
		{"AReplayIsCreatedWithItsSubscriptionOrNotAtAll", replayWithSubscription},
		{"OneProcessHoldsAReplay", replayLease},
		{"WhatPeopleAskOfAReplayAndItsProgressDoNotOverwriteEachOther", replaySteered},
	} {
		t.Run(c.name, func(t *testing.T) { inside(t, func(t *testing.T) { c.test(t, open(t)) }) })
	}
}

// now is a time as it comes from Kafka: UTC, whole milliseconds.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func got[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func same(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

var serial int

// fresh makes a name that no other part of the suite uses; the suite runs one test at a time.
func fresh(prefix string) string {
	serial++
	return fmt.Sprintf("%s-%d", prefix, serial)
}
