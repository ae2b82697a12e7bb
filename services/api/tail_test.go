package api

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

func (r *running) attempted(tenant, subscription string) {
	r.t.Helper()
	a := webhook.Attempt{
		ID: uuid.Must(uuid.NewV7()), DeliveryID: uuid.New(), Tenant: tenant, EventID: "e1", EventType: "order.created", SubscriptionID: subscription,
		Number: 1, Try: 1, StartedAt: time.Now(), StatusCode: http.StatusOK, Outcome: webhook.Outcome{Status: webhook.Delivered},
	}
	record := &kgo.Record{Topic: r.kafka.Topics.Attempts, Key: []byte(subscription), Value: wire.EncodeAttempt(&a)}
	if _, err := r.service.journal.Write(r.t.Context(), record); err != nil {
		r.t.Fatal(err)
	}
}

func TestTheTailGoesOnWhereTheCallBeforeEnded(t *testing.T) {
	r := start(t)
	const path = "/attempts/tail?wait=0"
	r.attempted("default", "before")
	cursor := r.must(http.StatusOK, http.MethodGet, path, nil).str("nextCursor")
	r.attempted("default", "one")
	r.attempted("other", "one")
	r.attempted("default", "two")

	seen := map[string]int{}
	for len(seen) < 2 {
		answer := r.must(http.StatusOK, http.MethodGet, "/attempts/tail?wait=1&cursor="+cursor, nil)
		cursor = answer.str("nextCursor")
		for _, item := range answer.items() {
			seen[item["subscriptionId"].(string)]++
		}
	}
	if seen["one"] != 1 || seen["two"] != 1 {
		t.Errorf("seen %v, wanted what happened after the first call, of this tenant, once each", seen)
	}
}

func TestATailRefusesACursorThatItDidNotMake(t *testing.T) {
	r := start(t)
	for _, cursor := range []string{"!", "_w", "____________"} {
		if code := r.call(http.MethodGet, "/attempts/tail?cursor="+cursor, nil).code(); code != "bad_cursor" {
			t.Errorf("cursor %q: code %q", cursor, code)
		}
	}
}
