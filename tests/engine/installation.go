// Package engine holds delivery workers to their promises on a real Kafka, by themselves: it writes what router and API
// would write, and reads what workers write. The bench of the engine uses the same installation.
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/seal"
	"github.com/hookline/hookline/pkg/topic"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// Installation is the topics of a Hookline of its own, and a client that writes to them.
type Installation struct {
	Topics topic.Names
	Client *kgo.Client

	brokers []string
	prefix  string
	keys    string
	ring    *seal.Ring
}

// secretValue signs for every subscription.
const secretValue = "0123456789abcdef0123456789abcdef"

// Open makes the topics under a prefix. The session timeout is how long the group of workers waits for one that was
// killed. Close ends the client and leaves the topics.
func Open(ctx context.Context, brokers []string, prefix string, partitions int32, session time.Duration) (*Installation, error) {
	cluster := kafka.New(kafka.Config{Brokers: brokers, SessionTimeout: session, TopicPrefix: prefix}, slog.New(slog.DiscardHandler))
	client, err := cluster.Client(append(cluster.Producer(), kgo.ProducerLinger(time.Millisecond))...)
	if err != nil {
		return nil, err
	}
	i := &Installation{Topics: cluster.Topics, Client: client, brokers: brokers, prefix: prefix, keys: seal.NewKey("test")}
	if i.ring, err = seal.ParseRing(i.keys); err == nil {
		err = kafka.Ensure(ctx, client, cluster.Topics.Specs(partitions), 1)
	}
	if err == nil {
		err = setSession(ctx, client, cluster.GroupID("delivery"), session)
	}
	if err != nil {
		client.Close()
		return nil, err
	}
	return i, nil
}

// setSession sets what KIP-848 leaves to the broker.
func setSession(ctx context.Context, client *kgo.Client, group string, session time.Duration) error {
	resource := kmsg.NewIncrementalAlterConfigsRequestResource()
	resource.ResourceType, resource.ResourceName = kmsg.ConfigResourceTypeGroupConfig, group
	for name, d := range map[string]time.Duration{"consumer.session.timeout.ms": session, "consumer.heartbeat.interval.ms": session / 4} {
		config := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		config.Name, config.Value = name, kmsg.StringPtr(strconv.FormatInt(max(d.Milliseconds(), 0), 10))
		resource.Configs = append(resource.Configs, config)
	}
	request := kmsg.NewPtrIncrementalAlterConfigsRequest()
	request.Resources = append(request.Resources, resource)
	answer, err := request.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	for _, r := range answer.Resources {
		if r.ErrorCode != 0 {
			return fmt.Errorf("set the session timeout of %s: code %d: %s", group, r.ErrorCode, deref(r.ErrorMessage))
		}
	}
	return nil
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// Close ends the client.
func (i *Installation) Close() { i.Client.Close() }

// Env is what a worker needs besides an admin address.
func (i *Installation) Env() map[string]string {
	return map[string]string{
		"HOOKLINE_KAFKA_BROKERS":     strings.Join(i.brokers, ","),
		"HOOKLINE_TOPIC_PREFIX":      i.prefix,
		"HOOKLINE_ENCRYPTION_KEYS":   i.keys,
		"HOOKLINE_EGRESS_ALLOW":      "127.0.0.0/8",
		"HOOKLINE_EGRESS_ALLOW_HTTP": "true",
		"HOOKLINE_PPROF":             "true",
	}
}

// Subscription is an active one under the contract standard, which has no second tries.
func Subscription(id, endpoint string) *webhook.Subscription {
	return &webhook.Subscription{
		ID: id, Tenant: webhook.DefaultTenant, Name: id, Status: webhook.SubscriptionActive, EndpointURL: endpoint,
		SecretID: "secret", SecretRef: "secret", Profile: "standard", Ordering: webhook.OrderingNone,
	}
}

// Publish writes subscriptions to the config topic, and the secret that they share.
func (i *Installation) Publish(ctx context.Context, subscriptions ...*webhook.Subscription) error {
	records := []*kgo.Record{i.Secret(1, secretValue)}
	for _, sub := range subscriptions {
		value, err := wire.EncodeSubscription(sub)
		if err != nil {
			return err
		}
		records = append(records, &kgo.Record{Topic: i.Topics.Config, Key: []byte(wire.ConfigKey(wire.KindSubscription, sub.ID)), Value: value})
	}
	return i.Client.ProduceSync(ctx, records...).FirstErr()
}

// Secret is the record of the secret that all subscriptions share, with one version.
func (i *Installation) Secret(version int, value string) *kgo.Record {
	secret := &webhook.Secret{ID: "secret", Tenant: webhook.DefaultTenant, Name: "secret", Profile: "standard"}
	secret.Versions = []webhook.SecretVersion{{Number: version, Sealed: i.ring.Seal(seal.Value(value), secret, version)}}
	return &kgo.Record{Topic: i.Topics.Config, Key: []byte(wire.ConfigKey(wire.KindSecret, secret.ID)), Value: wire.EncodeSecret(secret)}
}

// Delivery is a record of the deliveries topic: event n, with the data, to a subscription.
func (i *Installation) Delivery(subscription string, n int, data []byte) *kgo.Record {
	now := time.Now()
	event := webhook.Event{
		ID: fmt.Sprintf("event-%d", n), Type: "engine.measured", Tenant: webhook.DefaultTenant, Timestamp: now, RecordedAt: now, Data: data,
	}
	d := &webhook.Delivery{
		ID: webhook.DeliveryID(event.Tenant, event.ID, subscription), SubscriptionID: subscription, Profile: "standard", ProfileVersion: 1,
		CreatedAt: now, Trigger: webhook.TriggerEvent, Event: event,
	}
	return &kgo.Record{Topic: i.Topics.Deliveries, Key: []byte(d.ID.String()), Value: wire.EncodeDelivery(d)}
}

// Attempts calls each with every attempt from the topic's start, as they come, until it returns false or ctx ends.
func (i *Installation) Attempts(ctx context.Context, each func(*webhook.Attempt) bool) error {
	return i.read(ctx, i.Topics.Attempts, func(r *kgo.Record) (bool, error) {
		a, err := wire.DecodeAttempt(r.Value)
		return err == nil && each(a), err
	})
}

// Retries calls each with every retry from the topic's start, as they come, until it returns false or ctx ends.
func (i *Installation) Retries(ctx context.Context, each func(*webhook.Retry) bool) error {
	return i.read(ctx, i.Topics.Retries, func(r *kgo.Record) (bool, error) {
		if r.Value == nil {
			return true, nil
		}
		retry, err := wire.DecodeRetry(r.Value)
		return err == nil && each(retry), err
	})
}

func (i *Installation) read(ctx context.Context, name string, each func(*kgo.Record) (more bool, err error)) error {
	client, err := kgo.NewClient(kgo.SeedBrokers(i.brokers...), kgo.ConsumeTopics(name), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		fetches := client.PollFetches(ctx)
		if err := errors.Join(ctx.Err(), fetches.Err()); err != nil {
			return err
		}
		for r := range fetches.RecordsAll() {
			if more, err := each(r); err != nil || !more {
				return err
			}
		}
	}
}
