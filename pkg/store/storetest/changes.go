package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// ControlLog is what the suite needs besides to hold the log of changes and the answers of repeated requests.
type ControlLog interface {
	CreateTenant(ctx context.Context, t webhook.Tenant) error
	UpdateTenant(ctx context.Context, id string, change func(*webhook.Tenant) error) (webhook.Tenant, error)
	Tenants(ctx context.Context, p store.Page) ([]webhook.Tenant, string, error)
	Changes(ctx context.Context, tenant string, f store.ChangeFilter, p store.Page) ([]store.Change, string, error)
	ClaimRequest(ctx context.Context, c store.Claim) ([]byte, error)
	KeepAnswer(ctx context.Context, c store.Claim, answer []byte, until time.Time) error
	ReleaseClaim(ctx context.Context, c store.Claim) error
}

func tenants(t *testing.T, s Store) {
	ctx := context.Background()
	want := webhook.Tenant{ID: fresh("tenant"), Name: "Acme", DefaultProfile: "fynapse", CreatedAt: now()}
	must(t, s.CreateTenant(ctx, want))
	same(t, "made", got(s.Tenant(ctx, want.ID))(t), want)
	if err := s.CreateTenant(ctx, want); !errors.Is(err, store.ErrExists) {
		t.Errorf("made twice: %v", err)
	}
	updated := got(s.UpdateTenant(ctx, want.ID, func(t *webhook.Tenant) error {
		t.DefaultProfile, t.ID = "standard", "another"
		return nil
	}))(t)
	want.DefaultProfile = "standard"
	same(t, "returned", updated, want)
	same(t, "stored", got(s.Tenant(ctx, want.ID))(t), want)
	wantError(t, errMine)(s.UpdateTenant(ctx, want.ID, func(*webhook.Tenant) error { return errMine }))
	wantError(t, store.ErrNotFound)(s.UpdateTenant(ctx, "nobody", func(*webhook.Tenant) error { return nil }))
	if n := len(got(s.Outbox(ctx, 10))(t)); n != 2 {
		t.Errorf("%d outbox rows, want 2", n)
	}
	ids := []string{want.ID}
	for range 3 {
		more := webhook.Tenant{ID: fresh("tenant"), CreatedAt: want.CreatedAt}
		must(t, s.CreateTenant(ctx, more))
		ids = append(ids, more.ID)
	}
	pages(t, "tenants", ids, func(p store.Page) ([]webhook.Tenant, string, error) { return s.Tenants(ctx, p) },
		func(v webhook.Tenant) (string, time.Time) { return v.ID, v.CreatedAt })
}

func changesAreLogged(t *testing.T, s Store) {
	ctx := context.Background()
	who := store.Actor{Kind: store.ActorAPIKey, ID: "key-id", Name: "ci"}
	mine := store.By(ctx, who)
	secret, sub := newSecret(tenant), newSubscription(tenant, "")
	sub.Overrides.Headers = map[string]string{"X-Token": "hush-1"}
	must(t, s.CreateSubscription(mine, sub, &secret))
	got(s.UpdateSubscription(ctx, tenant, sub.ID, func(sub *webhook.Subscription) error {
		sub.Status, sub.StatusReason = webhook.SubscriptionDisabled, "too many failures"
		sub.Overrides.Headers = map[string]string{"X-Token": "hush-2"}
		return nil
	}))(t)
	wantError(t, errMine)(s.UpdateSubscription(mine, tenant, sub.ID, func(*webhook.Subscription) error { return errMine }))
	got(s.UpdateSecret(mine, tenant, secret.ID, func(secret *webhook.Secret) error {
		secret.Versions = secret.Versions[:1]
		return nil
	}))(t)
	must(t, s.DeleteSubscription(mine, tenant, sub.ID))
	must(t, s.DeleteSecret(mine, tenant, secret.ID))
	key := webhook.APIKey{ID: fresh("key"), Tenant: tenant, Name: "ci", Prefix: "hk_abc", Hash: [32]byte{7}, Permissions: webhook.Permissions()}
	must(t, s.PutAPIKey(mine, key))
	must(t, s.PutAPIKey(mine, key))
	key.Revoked = true
	must(t, s.PutAPIKey(mine, key))
	must(t, s.PutTenant(mine, webhook.Tenant{ID: tenant, Name: "Default"}))
	must(t, s.PutTenant(mine, webhook.Tenant{ID: "other", Name: "Other"}))

	changes, next, err := s.Changes(ctx, tenant, store.ChangeFilter{}, store.Page{})
	must(t, err)
	var log []string
	for i := len(changes) - 1; i >= 0; i-- {
		c := changes[i]
		log = append(log, fmt.Sprintf("%s %s %s by %s %s: before %t, after %t", c.Action, c.Kind, c.ObjectID, c.Actor.Kind, c.Actor.ID, c.Before != nil, c.After != nil))
		if text := string(c.Before) + string(c.After); strings.Contains(text, "hush") || strings.Contains(text, "sealed") {
			t.Errorf("a secret is in the log: %s", text)
		}
		if c.Tenant != tenant || c.ID == "" || time.Since(c.At) > time.Hour {
			t.Errorf("change %+v", c)
		}
	}
	key1, sub1, secret1 := " api_key "+key.ID, " subscription "+sub.ID, " secret "+secret.ID
	same(t, "log", log, []string{
		"create" + secret1 + " by api_key key-id: before false, after true", "create" + sub1 + " by api_key key-id: before false, after true",
		"disable" + sub1 + " by hookline : before true, after true", "expire" + secret1 + " by api_key key-id: before true, after true",
		"delete" + sub1 + " by api_key key-id: before true, after false", "delete" + secret1 + " by api_key key-id: before true, after false",
		"create" + key1 + " by api_key key-id: before false, after true", "revoke" + key1 + " by api_key key-id: before true, after true",
		"create tenant " + tenant + " by api_key key-id: before false, after true",
	})
	if next != "" {
		t.Errorf("a next page after %d changes", len(changes))
	}
	var after struct {
		Status       string            `json:"status"`
		StatusReason string            `json:"statusReason"`
		Overrides    webhook.Overrides `json:"overrides"`
	}
	must(t, json.Unmarshal(changes[6].After, &after))
	if after.Status != "disabled" || after.StatusReason != "too many failures" || after.Overrides.Headers["X-Token"] != "[redacted, changed]" {
		t.Errorf("after the disabling: %s", changes[6].After)
	}
}

func changesAreFiltered(t *testing.T, s Store) {
	ctx := context.Background()
	var ids []string
	secret := newSecret(tenant)
	must(t, s.CreateSecret(ctx, secret))
	for i := range 5 {
		got(s.UpdateSecret(ctx, tenant, secret.ID, func(secret *webhook.Secret) error {
			secret.Versions[0].Number = 10 + i
			return nil
		}))(t)
		must(t, s.CreateTenant(ctx, webhook.Tenant{ID: fresh("tenant")}))
	}
	of := store.ChangeFilter{Kinds: []store.ChangeKind{store.ChangeSecret, store.ChangeTenant}, ObjectID: secret.ID}
	all, _, err := s.Changes(ctx, tenant, of, store.Page{})
	must(t, err)
	for _, c := range all {
		ids = append(ids, c.ID)
		if want := store.ActionRotate; c.Action != want && c.Action != store.ActionCreate {
			t.Errorf("action %s, want %s", c.Action, want)
		}
	}
	if len(ids) != 6 {
		t.Fatalf("%d changes of the secret, want 6", len(ids))
	}
	pages(t, "changes", ids, func(p store.Page) ([]store.Change, string, error) { return s.Changes(ctx, tenant, of, p) },
		func(c store.Change) (string, time.Time) { return c.ID, c.At })
	for name, f := range map[string]store.ChangeFilter{
		"another kind":   {Kinds: []store.ChangeKind{store.ChangeSubscription}},
		"another object": {ObjectID: "nothing"},
		"later":          {From: now().Add(time.Hour)},
		"earlier":        {To: now().Add(-time.Hour)},
	} {
		if none, _, err := s.Changes(ctx, tenant, f, store.Page{}); err != nil || len(none) != 0 {
			t.Errorf("%s: %d changes, %v", name, len(none), err)
		}
	}
	if _, _, err := s.Changes(ctx, tenant, of, store.Page{Cursor: "nonsense"}); !errors.Is(err, store.ErrBadCursor) {
		t.Errorf("bad cursor: %v", err)
	}
}

func newClaim() store.Claim {
	return store.Claim{Tenant: tenant, Key: fresh("idempotency"), Request: [32]byte{1}, Run: fresh("run"), ExpiresAt: now().Add(time.Minute)}
}

func repeatedRequests(t *testing.T, s Store) {
	ctx := context.Background()
	first := newClaim()
	again, other, elsewhere := first, first, first
	again.Run, other.Request, elsewhere.Tenant = "again", [32]byte{2}, "other"
	claim := func(c store.Claim, answer string, want error) {
		t.Helper()
		if kept, err := s.ClaimRequest(ctx, c); string(kept) != answer || !errors.Is(err, want) {
			t.Errorf("got %q %v, want %q %v", kept, err, answer, want)
		}
	}
	claim(first, "", nil)
	claim(again, "", store.ErrClaimed)
	claim(other, "", store.ErrOtherRequest)
	claim(elsewhere, "", nil)

	must(t, s.ReleaseClaim(ctx, again)) // not the one that has it
	claim(again, "", store.ErrClaimed)
	must(t, s.ReleaseClaim(ctx, first))
	claim(again, "", nil)
	must(t, s.KeepAnswer(ctx, first, []byte("late"), now().Add(time.Hour))) // has lost it
	claim(first, "", store.ErrClaimed)
	must(t, s.KeepAnswer(ctx, again, []byte{0, 255}, now().Add(time.Hour)))
	must(t, s.ReleaseClaim(ctx, again))
	claim(first, "\x00\xff", nil)
	claim(other, "", store.ErrOtherRequest)

	died := newClaim()
	died.ExpiresAt = now().Add(-time.Second)
	claim(died, "", nil)
	died.Request = [32]byte{3}
	claim(died, "", nil)
	must(t, s.KeepAnswer(ctx, died, []byte("old"), now().Add(-time.Second)))
	claim(died, "", nil)
}

func answersComeWithTheChange(t *testing.T, s Store) {
	ctx := context.Background()
	c := newClaim()
	got(s.ClaimRequest(ctx, c))(t)
	answer := []byte(nil)
	answering := store.Answering(ctx, c, now().Add(time.Hour), func() []byte { return answer })
	secret := newSecret(tenant)
	must(t, s.CreateSecret(answering, secret))
	wantError(t, store.ErrClaimed)(s.ClaimRequest(ctx, c))

	answer = []byte("made")
	if err := s.CreateSecret(answering, secret); !errors.Is(err, store.ErrExists) {
		t.Errorf("made twice: %v", err)
	}
	wantError(t, store.ErrClaimed)(s.ClaimRequest(ctx, c))
	must(t, s.CreateSecret(answering, newSecret(tenant)))
	if kept := got(s.ClaimRequest(ctx, c))(t); string(kept) != "made" {
		t.Errorf("kept %q", kept)
	}
}

func oneOfManyRuns(t *testing.T, s Store) {
	c := newClaim()
	var all sync.WaitGroup
	var mu sync.Mutex
	ran := 0
	for i := range 8 {
		all.Go(func() {
			mine := c
			mine.Run = fmt.Sprint(i)
			_, err := s.ClaimRequest(context.Background(), mine)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				ran++
			} else if !errors.Is(err, store.ErrClaimed) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if ran != 1 {
		t.Errorf("%d of 8 ran", ran)
	}
}
