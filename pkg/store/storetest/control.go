package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

const tenant = "default"

func newSecret(tenant string) webhook.Secret {
	id := fresh("secret")
	return webhook.Secret{ID: id, Tenant: tenant, Name: "name of " + id, CreatedAt: now(), UpdatedAt: now(), Versions: []webhook.SecretVersion{
		{Number: 2, Sealed: []byte{0, 1, 255}, CreatedAt: now()},
		{Number: 1, Sealed: []byte("old"), CreatedAt: now().Add(-time.Hour), ExpiresAt: now().Add(time.Hour)},
	}}
}

func newSubscription(tenant, secretID string) webhook.Subscription {
	id := fresh("subscription")
	jitter, traced, created := 0.2, true, now()
	return webhook.Subscription{
		ID: id, Tenant: tenant, Name: "name of " + id, Status: webhook.SubscriptionActive, EndpointURL: "https://example.com/hooks",
		EventTypes: []string{"balance.*", "card.issued"}, Filter: json.RawMessage(`{"data": {"n": 1.00}}`), SecretID: secretID, Profile: "fynapse",
		Ordering: webhook.OrderingPerKey, Version: 1, CreatedAt: created, UpdatedAt: created, StatusSince: created,
		Overrides: webhook.Overrides{
			Timeout: webhook.Duration(5 * time.Second), Headers: map[string]string{"X-Team": "a"}, Concurrency: 3, Traceparent: &traced,
			Retry: &webhook.RetryOverride{Delays: []webhook.Duration{webhook.Duration(time.Second)}, Jitter: &jitter}, Rate: &webhook.Rate{PerSecond: 2.5},
		},
	}
}

func migratingAgainChangesNothing(t *testing.T, s Store) {
	ctx := context.Background()
	must(t, s.PutTenant(ctx, webhook.Tenant{ID: tenant}))
	must(t, s.Migrate(ctx))
	got(s.Tenant(ctx, tenant))(t)
	must(t, s.Ping(ctx))
}

func tenantPutUnchanged(t *testing.T, s Store) {
	ctx := context.Background()
	want := webhook.Tenant{ID: tenant, Name: "Default", DefaultProfile: "fynapse", CreatedAt: now()}
	must(t, s.PutTenant(ctx, want))
	again := want
	again.CreatedAt = now().Add(time.Hour)
	must(t, s.PutTenant(ctx, again))
	same(t, "tenant", got(s.Tenant(ctx, tenant))(t), want)
	if n := len(got(s.Outbox(ctx, 10))(t)); n != 1 {
		t.Errorf("%d outbox rows, want 1", n)
	}
	want.DefaultProfile = "standard"
	must(t, s.PutTenant(ctx, want))
	same(t, "changed tenant", got(s.Tenant(ctx, tenant))(t), want)
	if n := len(got(s.Outbox(ctx, 10))(t)); n != 2 {
		t.Errorf("%d outbox rows, want 2", n)
	}
	wantError(t, store.ErrNotFound)(s.Tenant(ctx, "nobody"))
}

func apiKeyByHash(t *testing.T, s Store) {
	ctx := context.Background()
	key := webhook.APIKey{ID: "key", Tenant: tenant, Name: "ci", Hash: [32]byte{1, 2, 3}, Permissions: webhook.Permissions(), CreatedAt: now(), ExpiresAt: now().Add(time.Hour)}
	must(t, s.PutAPIKey(ctx, key))
	must(t, s.PutAPIKey(ctx, key))
	same(t, "key", got(s.APIKeyByHash(ctx, key.Hash))(t), key)
	if n := len(got(s.Outbox(ctx, 10))(t)); n != 1 {
		t.Errorf("%d outbox rows, want 1", n)
	}
	key.Revoked, key.ExpiresAt = true, time.Time{}
	must(t, s.PutAPIKey(ctx, key))
	same(t, "revoked key", got(s.APIKeyByHash(ctx, key.Hash))(t), key)
	same(t, "by id", got(s.APIKey(ctx, tenant, key.ID))(t), key)
	wantError(t, store.ErrNotFound)(s.APIKeyByHash(ctx, [32]byte{9}))
	wantError(t, store.ErrNotFound)(s.APIKey(ctx, "other", key.ID))
	key.ID = "other"
	if err := s.PutAPIKey(ctx, key); !errors.Is(err, store.ErrExists) {
		t.Errorf("another key with the same hash: %v", err)
	}
}

func secretsAreOfATenant(t *testing.T, s Store) {
	ctx := context.Background()
	want := newSecret(tenant)
	must(t, s.CreateSecret(ctx, want))
	same(t, "by id", got(s.Secret(ctx, tenant, want.ID))(t), want)
	same(t, "by name", got(s.SecretByName(ctx, tenant, want.Name))(t), want)
	wantError(t, store.ErrNotFound)(s.Secret(ctx, "other", want.ID))
	wantError(t, store.ErrNotFound)(s.SecretByName(ctx, "other", want.Name))
	if err := s.DeleteSecret(ctx, "other", want.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("delete in another tenant: %v", err)
	}
	must(t, s.DeleteSecret(ctx, tenant, want.ID))
	wantError(t, store.ErrNotFound)(s.Secret(ctx, tenant, want.ID))
}

var errMine = errors.New("mine")

func secretUpdates(t *testing.T, s Store) {
	ctx := context.Background()
	want := newSecret(tenant)
	must(t, s.CreateSecret(ctx, want))
	_, err := s.UpdateSecret(ctx, tenant, want.ID, func(secret *webhook.Secret) error {
		secret.Versions = nil
		return errMine
	})
	if err != errMine { //nolint:errorlint // the contract is that it comes back as it is
		t.Errorf("aborted change: %v", err)
	}
	same(t, "after an aborted change", got(s.Secret(ctx, tenant, want.ID))(t), want)

	updated := got(s.UpdateSecret(ctx, tenant, want.ID, func(secret *webhook.Secret) error {
		secret.Versions = secret.Versions[:1]
		secret.Name, secret.Tenant = "another", "another"
		return nil
	}))(t)
	want.Versions, want.UpdatedAt = want.Versions[:1], updated.UpdatedAt
	same(t, "returned", updated, want)
	same(t, "stored", got(s.Secret(ctx, tenant, want.ID))(t), want)
	wantError(t, store.ErrNotFound)(s.UpdateSecret(ctx, "other", want.ID, func(*webhook.Secret) error { return nil }))
}

func secretInUse(t *testing.T, s Store) {
	ctx := context.Background()
	secret := newSecret(tenant)
	must(t, s.CreateSecret(ctx, secret))
	sub := newSubscription(tenant, secret.ID)
	must(t, s.CreateSubscription(ctx, sub, nil))
	if err := s.DeleteSecret(ctx, tenant, secret.ID); !errors.Is(err, store.ErrInUse) {
		t.Errorf("delete a secret in use: %v", err)
	}
	must(t, s.DeleteSubscription(ctx, tenant, sub.ID))
	must(t, s.DeleteSecret(ctx, tenant, secret.ID))
}

func subscriptionRoundTrip(t *testing.T, s Store) {
	ctx := context.Background()
	secret := newSecret(tenant)
	want := newSubscription(tenant, "")
	must(t, s.CreateSubscription(ctx, want, &secret))
	want.SecretID, want.SecretRef = secret.ID, secret.Name
	same(t, "subscription", got(s.Subscription(ctx, tenant, want.ID))(t), want)
	secret.Profile = want.Profile
	same(t, "its secret", got(s.Secret(ctx, tenant, secret.ID))(t), secret)

	bare := newSubscription(tenant, secret.ID)
	bare.EventTypes, bare.Filter, bare.Overrides = nil, nil, webhook.Overrides{}
	must(t, s.CreateSubscription(ctx, bare, nil))
	bare.SecretRef = secret.Name
	same(t, "bare subscription", got(s.Subscription(ctx, tenant, bare.ID))(t), bare)
	wantError(t, store.ErrNotFound)(s.Subscription(ctx, "other", want.ID))
	for _, missing := range []webhook.Subscription{newSubscription(tenant, "nothing"), newSubscription("other", secret.ID)} {
		if err := s.CreateSubscription(ctx, missing, nil); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("with a secret that is not there: %v", err)
		}
	}
}

func profileBinding(t *testing.T, s Store) {
	ctx := context.Background()
	secret := newSecret(tenant)
	must(t, s.CreateSecret(ctx, secret))
	first := newSubscription(tenant, "")
	first.SecretRef = secret.Name
	must(t, s.CreateSubscription(ctx, first, nil))
	if p := got(s.Secret(ctx, tenant, secret.ID))(t).Profile; p != "fynapse" {
		t.Errorf("the secret is bound to %q", p)
	}
	other := newSubscription(tenant, secret.ID)
	other.Profile = "fynex"
	if err := s.CreateSubscription(ctx, other, nil); !errors.Is(err, store.ErrProfileMismatch) {
		t.Errorf("create under another profile: %v", err)
	}
	toFynex := func(sub *webhook.Subscription) error {
		sub.Profile = "fynex"
		return nil
	}
	wantError(t, store.ErrProfileMismatch)(s.UpdateSubscription(ctx, tenant, first.ID, toFynex))
	wantError(t, store.ErrNotFound)(s.UpdateSubscription(ctx, tenant, first.ID, func(sub *webhook.Subscription) error {
		sub.SecretRef = "nothing"
		return nil
	}))

	free := newSecret(tenant)
	must(t, s.CreateSecret(ctx, free))
	moved := got(s.UpdateSubscription(ctx, tenant, first.ID, func(sub *webhook.Subscription) error {
		sub.SecretRef = free.Name
		return toFynex(sub)
	}))(t)
	if moved.SecretID != free.ID || moved.SecretRef != free.Name || moved.Profile != "fynex" {
		t.Errorf("moved to %s (%s) under %s", moved.SecretID, moved.SecretRef, moved.Profile)
	}
	if p := got(s.Secret(ctx, tenant, free.ID))(t).Profile; p != "fynex" {
		t.Errorf("the new secret is bound to %q", p)
	}
}

func subscriptionUpdates(t *testing.T, s Store) {
	ctx := context.Background()
	secret := newSecret(tenant)
	want := newSubscription(tenant, "")
	must(t, s.CreateSubscription(ctx, want, &secret))
	want = got(s.Subscription(ctx, tenant, want.ID))(t)
	_, err := s.UpdateSubscription(ctx, tenant, want.ID, func(sub *webhook.Subscription) error {
		sub.Status = webhook.SubscriptionDisabled
		return errMine
	})
	if err != errMine { //nolint:errorlint // the contract is that it comes back as it is
		t.Errorf("aborted change: %v", err)
	}
	same(t, "after an aborted change", got(s.Subscription(ctx, tenant, want.ID))(t), want)

	updated := got(s.UpdateSubscription(ctx, tenant, want.ID, func(sub *webhook.Subscription) error {
		sub.Status, sub.StatusReason, sub.Version, sub.Tenant = webhook.SubscriptionDisabled, "asked for", 99, "another"
		return nil
	}))(t)
	want.Status, want.StatusReason, want.Version, want.UpdatedAt = webhook.SubscriptionDisabled, "asked for", 2, updated.UpdatedAt
	want.StatusSince = updated.UpdatedAt
	same(t, "returned", updated, want)
	same(t, "stored", got(s.Subscription(ctx, tenant, want.ID))(t), want)
	renamed := got(s.UpdateSubscription(ctx, tenant, want.ID, func(sub *webhook.Subscription) error {
		sub.Name, sub.StatusSince = fresh("name"), time.Time{}
		return nil
	}))(t)
	if !renamed.StatusSince.Equal(want.StatusSince) {
		t.Errorf("renaming moved StatusSince from %v to %v", want.StatusSince, renamed.StatusSince)
	}
	wantError(t, store.ErrNotFound)(s.UpdateSubscription(ctx, "other", want.ID, func(*webhook.Subscription) error { return nil }))
	if err := s.DeleteSubscription(ctx, "other", want.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("delete in another tenant: %v", err)
	}
}

func concurrentUpdates(t *testing.T, s Store) {
	const writers, each = 4, 10
	ctx := context.Background()
	secret := newSecret(tenant)
	sub := newSubscription(tenant, "")
	must(t, s.CreateSubscription(ctx, sub, &secret))
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range each {
				if _, err := s.UpdateSubscription(ctx, tenant, sub.ID, func(sub *webhook.Subscription) error {
					sub.Overrides.Concurrency++
					return nil
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	end := got(s.Subscription(ctx, tenant, sub.ID))(t)
	if end.Overrides.Concurrency != 3+writers*each || end.Version != 1+writers*each {
		t.Errorf("concurrency %d, version %d after %d changes", end.Overrides.Concurrency, end.Version, writers*each)
	}
	var last int64
	for _, r := range got(s.Outbox(ctx, 1000))(t) {
		if kind, _, err := wire.ParseConfigKey(r.Key); err != nil || kind != wire.KindSubscription {
			continue
		}
		published := got(wire.DecodeConfig(r.Value))(t).(*webhook.Subscription)
		if published.Version != last+1 {
			t.Fatalf("outbox row %d has version %d after %d", r.ID, published.Version, last)
		}
		last = published.Version
	}
}

func namesAreTaken(t *testing.T, s Store) {
	ctx := context.Background()
	secret := newSecret(tenant)
	must(t, s.CreateSecret(ctx, secret))
	twin := newSecret(tenant)
	twin.Name = secret.Name
	if err := s.CreateSecret(ctx, twin); !errors.Is(err, store.ErrExists) {
		t.Errorf("second secret of a name: %v", err)
	}
	twin.Tenant = "other"
	must(t, s.CreateSecret(ctx, twin))

	sub := newSubscription(tenant, secret.ID)
	must(t, s.CreateSubscription(ctx, sub, nil))
	double := newSubscription(tenant, "")
	double.Name = sub.Name
	made := newSecret(tenant)
	if err := s.CreateSubscription(ctx, double, &made); !errors.Is(err, store.ErrExists) {
		t.Errorf("second subscription of a name: %v", err)
	}
	wantError(t, store.ErrNotFound)(s.Secret(ctx, tenant, made.ID))
}

func listsAreComplete(t *testing.T, s Store) {
	ctx := context.Background()
	at := now()
	var secrets, subs, keys []string
	for i := range 7 {
		secret, sub := newSecret(tenant), newSubscription(tenant, "")
		// Two of each time, so that pages are cut between equal times too.
		secret.CreatedAt, sub.CreatedAt = at.Add(time.Duration(i/2)*time.Millisecond), at.Add(time.Duration(i/2)*time.Millisecond)
		must(t, s.CreateSubscription(ctx, sub, &secret))
		must(t, s.PutAPIKey(ctx, webhook.APIKey{ID: fresh("key"), Tenant: tenant, Hash: [32]byte{byte(i)}, CreatedAt: sub.CreatedAt}))
		secrets, subs, keys = append(secrets, secret.ID), append(subs, sub.ID), append(keys, fmt.Sprintf("key-%d", serial))
	}
	foreign := newSecret("other")
	must(t, s.CreateSecret(ctx, foreign))
	pages(t, "secrets", secrets, func(p store.Page) ([]webhook.Secret, string, error) { return s.Secrets(ctx, tenant, p) },
		func(v webhook.Secret) (string, time.Time) { return v.ID, v.CreatedAt })
	pages(t, "subscriptions", subs, func(p store.Page) ([]webhook.Subscription, string, error) { return s.Subscriptions(ctx, tenant, p) },
		func(v webhook.Subscription) (string, time.Time) { return v.ID, v.CreatedAt })
	pages(t, "API keys", keys, func(p store.Page) ([]webhook.APIKey, string, error) { return s.APIKeys(ctx, tenant, p) },
		func(v webhook.APIKey) (string, time.Time) { return v.ID, v.CreatedAt })
}

// pages reads a list page by page, for several sizes of a page, and wants every row once, newest first.
func pages[T any](t *testing.T, what string, want []string, read func(store.Page) ([]T, string, error), place func(T) (string, time.Time)) {
	t.Helper()
	for _, size := range []int{1, 2, 3, len(want), len(want) + 1} {
		seen := map[string]bool{}
		var p store.Page
		last := time.Now().AddDate(1, 0, 0)
		for {
			p.Limit = size
			items, next, err := read(p)
			must(t, err)
			for _, item := range items {
				id, at := place(item)
				if seen[id] || at.After(last) {
					t.Fatalf("%s, %d a page: %s comes twice or too late", what, size, id)
				}
				seen[id], last = true, at
			}
			if next == "" {
				break
			}
			if len(items) != size {
				t.Fatalf("%s, %d a page: a page of %d that is not the last", what, size, len(items))
			}
			p.Cursor = next
		}
		for _, id := range want {
			if !seen[id] {
				t.Errorf("%s, %d a page: %s is missing", what, size, id)
			}
		}
		if len(seen) != len(want) {
			t.Errorf("%s, %d a page: %d rows, want %d", what, size, len(seen), len(want))
		}
	}
}

func outboxOrder(t *testing.T, s Store) {
	ctx := context.Background()
	secret, sub := newSecret(tenant), newSubscription(tenant, "")
	must(t, s.PutTenant(ctx, webhook.Tenant{ID: tenant}))
	must(t, s.CreateSubscription(ctx, sub, &secret))
	got(s.UpdateSubscription(ctx, tenant, sub.ID, func(sub *webhook.Subscription) error { sub.Status = webhook.SubscriptionPaused; return nil }))(t)
	must(t, s.DeleteSubscription(ctx, tenant, sub.ID))
	must(t, s.DeleteSecret(ctx, tenant, secret.ID))

	records := got(s.Outbox(ctx, 100))(t)
	var keys []string
	for i, r := range records {
		keys = append(keys, fmt.Sprintf("%s %t", r.Key, r.Value != nil))
		if i > 0 && r.ID <= records[i-1].ID {
			t.Errorf("outbox id %d after %d", r.ID, records[i-1].ID)
		}
	}
	subKey, secretKey := wire.ConfigKey(wire.KindSubscription, sub.ID), wire.ConfigKey(wire.KindSecret, secret.ID)
	same(t, "outbox", keys, []string{
		wire.ConfigKey(wire.KindTenant, tenant) + " true", secretKey + " true", subKey + " true", subKey + " true", subKey + " false", secretKey + " false",
	})
	paused := got(wire.DecodeConfig(records[3].Value))(t).(*webhook.Subscription)
	if paused.Status != webhook.SubscriptionPaused || paused.Version != 2 || paused.SecretID != secret.ID {
		t.Errorf("published %+v", paused)
	}
	if first := got(s.Outbox(ctx, 2))(t); len(first) != 2 || first[0].ID != records[0].ID {
		t.Errorf("the oldest two are %v", first)
	}
	must(t, s.Published(ctx, records[3].ID))
	if left := got(s.Outbox(ctx, 100))(t); len(left) != 2 || left[0].ID != records[4].ID {
		t.Errorf("left after publishing four: %v", left)
	}
}

func outboxLock(t *testing.T, s Store) {
	ctx := context.Background()
	ran, err := s.OutboxLock(ctx, func(ctx context.Context) error {
		inner, err := s.OutboxLock(ctx, func(context.Context) error { t.Error("two hold the lock"); return nil })
		if inner || err != nil {
			t.Errorf("second holder: %t, %v", inner, err)
		}
		_, err = s.Outbox(ctx, 1)
		must(t, err)
		return errMine
	})
	if !ran || !errors.Is(err, errMine) {
		t.Errorf("first holder: %t, %v", ran, err)
	}
	if ran, err := s.OutboxLock(ctx, func(context.Context) error { return nil }); !ran || err != nil {
		t.Errorf("the lock is not free again: %t, %v", ran, err)
	}
}

// wantError checks the error of a call that returns a value too.
func wantError(t *testing.T, want error) func(any, error) {
	t.Helper()
	return func(_ any, err error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("got error %v, want %v", err, want)
		}
	}
}
