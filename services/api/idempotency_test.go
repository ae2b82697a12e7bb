package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

func TestARepeatedPostIsAnsweredAsBeforeAndDoesNothingAgain(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.must(http.StatusCreated, http.MethodPost, "/secrets", map[string]any{"name": "given"})
	secret := r.must(http.StatusCreated, http.MethodPost, "/secrets", map[string]any{"name": "to rotate"}).str("id")
	sub := r.subscribe("to disable")
	ended := r.deliver(sub, "e1", webhook.Delivered)
	for i, c := range []struct{ path, body string }{
		{"/secrets", `{"name":"billing"}`},
		{"/secrets/" + secret + "/rotate", `{"overlap":"1h"}`},
		{"/secrets/" + secret + "/expire-previous", ""},
		{"/subscriptions", `{"name":"s","endpointUrl":"` + endpoint + `"}`},
		{"/subscriptions/" + sub + "/disable", `{"reason":"maintenance"}`},
		{"/subscriptions/" + sub + "/enable", ""},
		{"/deliveries/" + ended + "/redeliver", ""},
		{"/api-keys", `{"name":"k","permissions":["event_publish"]}`},
		{"/tenants", `{"id":"acme"}`},
	} {
		key := fmt.Sprintf("key-%d", i)
		first := r.call(http.MethodPost, c.path, c.body, "Idempotency-Key", key)
		again := r.call(http.MethodPost, c.path, c.body, "Idempotency-Key", key)
		if first.status/100 != 2 || first.header.Get("Idempotency-Replayed") != "" {
			t.Errorf("%s: %d %s", c.path, first.status, first.text)
		}
		if again.status != first.status || again.text != first.text || again.header.Get("Idempotency-Replayed") != "true" {
			t.Errorf("%s again: %d %s, before %d %s", c.path, again.status, again.text, first.status, first.text)
		}
		for _, name := range []string{"Content-Type", "ETag", "Cache-Control"} {
			if again.header.Get(name) != first.header.Get(name) {
				t.Errorf("%s again: %s %q, before %q", c.path, name, again.header.Get(name), first.header.Get(name))
			}
		}
	}
	if list := r.must(http.StatusOK, http.MethodGet, "/api-keys", nil); strings.Count(list.text, `"name":"k"`) != 1 {
		t.Errorf("keys: %s", list.text)
	}
}

func TestAnIdempotencyKeyBelongsToItsRequest(t *testing.T) {
	t.Parallel()
	r := start(t)
	body := map[string]any{"name": "billing"}
	r.must(http.StatusCreated, http.MethodPost, "/secrets", body, "Idempotency-Key", "k")
	for path, other := range map[string]any{"/secrets": map[string]any{"name": "other"}, "/subscriptions": body, "/secrets?x=1": body} {
		a := r.must(http.StatusUnprocessableEntity, http.MethodPost, path, other, "Idempotency-Key", "k")
		if a.code() != "idempotency_key_reused" || !slices.Equal(a.pointers(), []string{"?Idempotency-Key"}) {
			t.Errorf("%s: %s", path, a.text)
		}
	}
	stranger := r.key("other", webhook.Permissions()...)
	if a := r.callAs(stranger, http.MethodPost, "/secrets", body, "Idempotency-Key", "k"); a.status != http.StatusCreated || a.header.Get("Idempotency-Replayed") != "" {
		t.Errorf("another tenant: %d %s", a.status, a.text)
	}
	for _, bad := range []string{"", " ", strings.Repeat("x", 256), "a b", "é"} {
		if a := r.must(http.StatusUnprocessableEntity, http.MethodPost, "/secrets", map[string]any{"name": "n"}, "Idempotency-Key", bad); !slices.Equal(a.pointers(), []string{"?Idempotency-Key"}) {
			t.Errorf("%q: %s", bad, a.text)
		}
	}
}

func TestARefusalIsRepeatedUnderItsKeyAndOtherwiseJudgedAnew(t *testing.T) {
	t.Parallel()
	r := start(t)
	taken := r.must(http.StatusCreated, http.MethodPost, "/secrets", map[string]any{"name": "billing"}).str("id")
	for key, c := range map[string]struct {
		path, body string
		status     int
	}{
		"conflict": {"/secrets", `{"name":"billing"}`, 409},
		"invalid":  {"/secrets", `{"name":""}`, 422},
		"nothing":  {"/secrets/none/rotate", ``, 404},
	} {
		first := r.must(c.status, http.MethodPost, c.path, c.body, "Idempotency-Key", key)
		again := r.must(c.status, http.MethodPost, c.path, c.body, "Idempotency-Key", key)
		if first.header.Get("Idempotency-Replayed") != "" || again.header.Get("Idempotency-Replayed") != "true" || again.text != first.text ||
			again.header.Get("Content-Type") != first.header.Get("Content-Type") {
			t.Errorf("%s: %s, then %v %s", key, first.text, again.header, again.text)
		}
	}
	r.must(http.StatusNoContent, http.MethodDelete, "/secrets/"+taken, nil)
	if a := r.must(http.StatusConflict, http.MethodPost, "/secrets", `{"name":"billing"}`, "Idempotency-Key", "conflict"); a.code() != "name_taken" {
		t.Errorf("under its key: %s", a.text)
	}
	if a := r.must(http.StatusUnprocessableEntity, http.MethodPost, "/secrets", `{"name":"billing 2"}`, "Idempotency-Key", "conflict"); a.code() != "idempotency_key_reused" {
		t.Errorf("another body: %s", a.text)
	}
	r.must(http.StatusCreated, http.MethodPost, "/secrets", `{"name":"billing"}`, "Idempotency-Key", "another-key")
}

func TestWhatMayChangeWithoutAnotherRequestIsNotKept(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]bool{200: true, 202: true, 404: true, 409: true, 422: true, 401: false, 403: false, 408: false, 429: false, 500: false, 503: false} {
		if settles(status) != want {
			t.Errorf("%d: kept %v", status, !want)
		}
	}
	r := start(t)
	if err := r.db.CreateTenant(t.Context(), webhook.Tenant{ID: "acme", Name: "acme", DefaultProfile: defaultProfile, CreatedAt: now()}); err != nil {
		t.Fatal(err)
	}
	reader := r.key("acme", webhook.PermissionSubscriptionRead)
	create := func(token string) answer {
		return r.callAs(token, http.MethodPost, "/secrets", `{"name":"s"}`, "Idempotency-Key", "k")
	}
	if a := create(reader); a.status != http.StatusForbidden {
		t.Errorf("a reader: %d %s", a.status, a.text)
	}
	if a := create(r.key("acme", webhook.PermissionSubscriptionEdit)); a.status != http.StatusCreated {
		t.Errorf("with the permission: %d %s", a.status, a.text)
	}
	// Kafka is away while it is asked for, and there again.
	sub := r.subscribe("sub")
	ended := r.deliver(sub, "e1", webhook.DeadLetter)
	client := r.service.journal.Use(nil)
	redeliver := func() answer {
		return r.call(http.MethodPost, "/deliveries/"+ended+"/redeliver", nil, "Idempotency-Key", "again")
	}
	if a := redeliver(); a.status != http.StatusServiceUnavailable {
		t.Errorf("without Kafka: %d %s", a.status, a.text)
	}
	r.service.journal.Use(client)
	if a := redeliver(); a.status != http.StatusAccepted {
		t.Errorf("with Kafka: %d %s", a.status, a.text)
	}
}

func TestOfConcurrentRepetitionsOneRuns(t *testing.T) {
	t.Parallel()
	r := start(t)
	var all sync.WaitGroup
	var mu sync.Mutex
	answers := map[string]int{}
	for range 8 {
		all.Go(func() {
			a := r.call(http.MethodPost, "/api-keys", map[string]any{"name": "k", "permissions": []string{"admin"}}, "Idempotency-Key", "k")
			mu.Lock()
			defer mu.Unlock()
			if a.status != http.StatusCreated && (a.status != http.StatusConflict || a.code() != "idempotency_key_in_use" || a.header.Get("Retry-After") == "") {
				t.Errorf("got %d %s", a.status, a.text)
			}
			answers[a.str("key")]++
		})
	}
	all.Wait()
	delete(answers, "")
	if len(answers) != 1 {
		t.Errorf("%d keys were made", len(answers))
	}
}

func TestAStoredAnswerHidesItsSecret(t *testing.T) {
	t.Parallel()
	keeping := &keepingStore{}
	r := start(t, func(_ *Config, d *Deps) { keeping.Store = d.Store; d.Store = keeping })
	made := r.must(http.StatusCreated, http.MethodPost, "/secrets", map[string]any{"name": "billing"}, "Idempotency-Key", "k")
	if len(keeping.kept) == 0 {
		t.Fatal("nothing was kept")
	}
	for _, answer := range keeping.kept {
		if strings.Contains(string(answer), made.str("value")) || strings.Contains(string(answer), "billing") {
			t.Errorf("in the clear: %q", answer)
		}
	}
}

// keepingStore sees what is kept, and may lose it.
type keepingStore struct {
	Store
	kept  [][]byte
	loses bool
}

var errLost = errors.New("lost")

func (k *keepingStore) KeepAnswer(ctx context.Context, c store.Claim, answer []byte, until time.Time) error {
	k.kept = append(k.kept, answer)
	if k.loses {
		return errLost
	}
	return k.Store.KeepAnswer(ctx, c, answer, until)
}

func (k *keepingStore) ReleaseClaim(ctx context.Context, c store.Claim) error {
	if k.loses {
		return errLost
	}
	return k.Store.ReleaseClaim(ctx, c)
}

func TestAnAnswerIsKeptWithItsChangeEvenIfTheProcessDiesThen(t *testing.T) {
	t.Parallel()
	r := start(t, func(_ *Config, d *Deps) { d.Store = &keepingStore{Store: d.Store, loses: true} })
	secret := r.must(http.StatusCreated, http.MethodPost, "/secrets", map[string]any{"name": "billing"}).str("id")
	for i, c := range []struct{ path, body string }{
		{"/secrets", `{"name":"another"}`},
		{"/secrets/" + secret + "/rotate", ""},
		{"/subscriptions", `{"name":"s","endpointUrl":"` + endpoint + `"}`},
		{"/api-keys", `{"name":"k","permissions":["event_publish"]}`},
		{"/tenants", `{"id":"acme"}`},
	} {
		key := fmt.Sprintf("key-%d", i)
		first := r.call(http.MethodPost, c.path, c.body, "Idempotency-Key", key)
		again := r.call(http.MethodPost, c.path, c.body, "Idempotency-Key", key)
		if first.status/100 != 2 || again.status != first.status || again.text != first.text {
			t.Errorf("%s: %d %s, then %d %s", c.path, first.status, first.text, again.status, again.text)
		}
	}
}

// awayStore has no answers to give.
type awayStore struct{ keepingStore }

func (*awayStore) ClaimRequest(context.Context, store.Claim) ([]byte, error) {
	return nil, store.ErrUnavailable
}
