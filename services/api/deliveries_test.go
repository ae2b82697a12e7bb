package api

import (
	"encoding/json"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

var when = time.Date(2026, 4, 14, 9, 54, 45, 40_000_000, time.UTC)

// deliver records an event and where its delivery stands, as the recorder would, and returns the delivery's id.
func (r *running) deliver(subscription, event string, status webhook.Status) string {
	r.t.Helper()
	id := webhook.DeliveryID(webhook.DefaultTenant, event, subscription)
	row := store.Delivery{
		ID: id, Tenant: webhook.DefaultTenant, EventID: event, EventType: "balance.extracted", SubscriptionID: subscription,
		Profile: "fynapse", ProfileVersion: 1, Trigger: webhook.TriggerEvent, Status: status, CreatedAt: when, UpdatedAt: when.Add(time.Second),
		AttemptCount: 2, LastAttempt: 2, LastTry: 1, LastStatusCode: 503,
	}
	attempts := []webhook.Attempt{attemptOf(&row, 1, "first"), attemptOf(&row, 2, "bad \xff bytes")}
	if status == webhook.Pending {
		row.NextAttemptAt, row.Reason = when.Add(time.Hour), webhook.ReasonHTTPStatus
	}
	if status == webhook.Cancelled {
		row.Reason, row.AttemptCount, row.LastAttempt, row.LastTry, row.LastStatusCode = webhook.ReasonSubscriptionInactive, 0, 0, 0, 0
		decision := attemptOf(&row, 0, "")
		decision.StatusCode = 0
		attempts = []webhook.Attempt{decision}
	}
	err := r.db.Record(r.t.Context(), &store.Batch{
		Deliveries: []store.Delivery{row},
		Attempts:   attempts,
		Events: []webhook.Event{{
			ID: event, Type: "balance.extracted", Tenant: webhook.DefaultTenant, Timestamp: when, RecordedAt: when,
			Data: json.RawMessage(`{"b":1.10,"a":12345678901234567890}`), Trace: webhook.TraceContext{Parent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
			Source: webhook.Position{Topic: "hookline.events", Partition: 3, Offset: 42},
		}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return id.String()
}

func attemptOf(row *store.Delivery, number uint32, response string) webhook.Attempt {
	return webhook.Attempt{
		ID: uuid.Must(uuid.NewV7()), DeliveryID: row.ID, Tenant: row.Tenant, EventID: row.EventID, EventType: row.EventType,
		SubscriptionID: row.SubscriptionID, Profile: row.Profile, ProfileVersion: row.ProfileVersion, Trigger: row.Trigger,
		DeliveryCreatedAt: row.CreatedAt, Number: number, Try: 1, StartedAt: when.Add(time.Duration(number) * time.Minute),
		Duration: 12500 * time.Microsecond, StatusCode: 503, Response: []byte(response), RequestBytes: 10, ResponseBytes: len(response),
		Outcome: webhook.Outcome{Status: row.Status, Reason: row.Reason},
	}
}

func TestDeliveriesAreFoundByEachFilter(t *testing.T) {
	t.Parallel()
	r := start(t)
	delivered := r.deliver("s1", "e1", webhook.Delivered)
	pending := r.deliver("s1", "e2", webhook.Pending)
	dead := r.deliver("s2", "e1", webhook.DeadLetter)
	cancelled := r.deliver("s3", "e3", webhook.Cancelled)
	for query, want := range map[string][]string{
		"":                                   {delivered, pending, dead, cancelled},
		"status=PENDING":                     {pending},
		"subscriptionId=s1":                  {delivered, pending},
		"eventId=e1":                         {delivered, dead},
		"eventId=e1&subscriptionId=s2":       {dead},
		"eventType=balance.extracted":        {delivered, pending, dead, cancelled},
		"eventType=other":                    {},
		"from=2026-04-14T09:54:45.040Z":      {delivered, pending, dead, cancelled},
		"from=2026-04-14T09:54:45.041Z":      {},
		"to=2026-04-14T09:54:45.040Z":        {},
		"to=2026-04-14T11:54:45.041%2B02:00": {delivered, pending, dead, cancelled},
	} {
		list := r.must(http.StatusOK, http.MethodGet, "/deliveries?"+query, nil)
		var got []string
		for _, item := range list.items() {
			got = append(got, item["id"].(string))
			if _, shown := item["attempts"]; shown {
				t.Errorf("%s: attempts without asking", query)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", query, got, want)
		}
	}
	counts := r.must(http.StatusOK, http.MethodGet, "/deliveries/count?eventId=e1", nil)
	if counts.text != `{"counts":{"CANCELLED":0,"DEAD_LETTER":1,"DELIVERED":1,"PENDING":0},"atLeast":false}`+"\n" {
		t.Errorf("counts: %s", counts.text)
	}
	for query, parameter := range map[string]string{
		"status=pending": "?status", "limit=0": "?limit", "limit=1001": "?limit", "limit=x": "?limit", "from=yesterday": "?from",
		"include=body": "?include", "colour=red": "?colour", "cursor=!": "?cursor",
	} {
		a := r.call(http.MethodGet, "/deliveries?"+query, nil)
		if a.status != http.StatusUnprocessableEntity || !slices.Equal(a.pointers(), []string{parameter}) {
			t.Errorf("%s: got %d %s", query, a.status, a.text)
		}
	}
	if r.must(http.StatusOK, http.MethodGet, "/deliveries?limit=1000", nil).body["nextCursor"] != nil {
		t.Error("there is more after the end")
	}
}

func TestADeliveryIsShownWithItsAttempts(t *testing.T) {
	t.Parallel()
	r := start(t)
	id := r.deliver("s1", "e1", webhook.Pending)
	got := r.must(http.StatusOK, http.MethodGet, "/deliveries/"+id, nil)
	for name, want := range map[string]any{
		"id": id, "status": "PENDING", "eventId": "e1", "eventType": "balance.extracted", "subscriptionId": "s1", "attemptCount": 2.0,
		"createdAt": "2026-04-14T09:54:45.04Z", "nextAttemptAt": "2026-04-14T10:54:45.04Z", "lastStatusCode": 503.0, "reason": "http_status",
		"generation": 0.0, "trigger": "event", "profile": "fynapse",
	} {
		if got.body[name] != want {
			t.Errorf("%s: got %v, want %v", name, got.body[name], want)
		}
	}
	attempts := got.body["attempts"].([]any)
	if len(attempts) != 2 {
		t.Fatalf("attempts: %v", attempts)
	}
	second := attempts[1].(map[string]any)
	if second["number"] != 2.0 || second["durationMs"] != 12.5 || second["statusCode"] != 503.0 || second["error"] != nil || second["response"] != "bad \uFFFD bytes" {
		t.Errorf("attempt: %v", second)
	}
	inline := r.must(http.StatusOK, http.MethodGet, "/deliveries?include=attempts", nil)
	if n := len(inline.items()[0]["attempts"].([]any)); n != 2 {
		t.Errorf("%d attempts inline", n)
	}
	cancelled := r.deliver("s2", "e2", webhook.Cancelled)
	if n := len(r.must(http.StatusOK, http.MethodGet, "/deliveries/"+cancelled, nil).body["attempts"].([]any)); n != 0 {
		t.Errorf("a decision without a request is shown as %d attempts", n)
	}
	for _, unknown := range []string{uuid.NewString(), "nonsense", "urn:uuid:" + id, "{" + id + "}"} {
		r.must(http.StatusNotFound, http.MethodGet, "/deliveries/"+unknown, nil)
	}
}

func TestAnEventIsShownAsItWasProduced(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.deliver("s1", "e1", webhook.Delivered)
	got := r.must(http.StatusOK, http.MethodGet, "/events/e1", nil)
	var event struct{ Data, Metadata json.RawMessage }
	if err := json.Unmarshal([]byte(got.text), &event); err != nil || string(event.Data) != `{"b":1.10,"a":12345678901234567890}` || string(event.Metadata) != "null" {
		t.Errorf("got %v %s", err, got.text)
	}
	if got.str("eventType") != "balance.extracted" || got.body["source"].(map[string]any)["offset"] != 42.0 {
		t.Errorf("got %s", got.text)
	}
	r.must(http.StatusNotFound, http.MethodGet, "/events/e9", nil)
}

func TestARedeliveryIsANewGenerationOnTheRetriesTopic(t *testing.T) {
	t.Parallel()
	r := start(t)
	for _, status := range []webhook.Status{webhook.Delivered, webhook.DeadLetter, webhook.Cancelled} {
		id := r.deliver(string(status), "e1", status)
		got := r.must(http.StatusAccepted, http.MethodPost, "/deliveries/"+id+"/redeliver", nil)
		if got.str("id") != id || got.str("status") != "PENDING" || got.body["generation"] != 1.0 || got.body["attemptCount"] != 0.0 {
			t.Errorf("%s: %s", status, got.text)
		}
	}
	for _, record := range r.records(r.kafka.Topics.Retries, 3) {
		retry, err := wire.DecodeRetry(record.Value)
		if err != nil {
			t.Fatal(err)
		}
		d := retry.Delivery
		if string(record.Key) != d.Key().String() || d.Generation != 1 || d.Trip != 1 || d.Attempts != 0 || retry.Delay != 0 ||
			retry.Reason != webhook.ReasonManual || d.Trigger != webhook.TriggerManual || time.Since(d.CreatedAt) > time.Minute {
			t.Errorf("got %+v", retry)
		}
		if d.ID != webhook.DeliveryID(webhook.DefaultTenant, "e1", d.SubscriptionID) || string(d.Event.Data) != `{"b":1.10,"a":12345678901234567890}` {
			t.Errorf("another delivery: %+v", d)
		}
		if header(record, "traceparent") != d.Event.Trace.Parent || d.Event.Trace.Parent == "" {
			t.Errorf("trace: %q", header(record, "traceparent"))
		}
	}
}

func header(record *kgo.Record, key string) string {
	for _, h := range record.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

func TestAPendingDeliveryIsNotRepeated(t *testing.T) {
	t.Parallel()
	r := start(t)
	id := r.deliver("s1", "e1", webhook.Pending)
	if a := r.must(http.StatusConflict, http.MethodPost, "/deliveries/"+id+"/redeliver", nil); a.code() != "delivery_pending" {
		t.Errorf("got %s", a.text)
	}
	r.must(http.StatusNotFound, http.MethodPost, "/deliveries/"+uuid.NewString()+"/redeliver", nil)
}

func TestProfilesAndEventTypesAreListed(t *testing.T) {
	t.Parallel()
	r := start(t)
	profiles := r.must(http.StatusOK, http.MethodGet, "/profiles", nil).items()
	if len(profiles) != len(r.service.deps.Profiles.Names()) || profiles[0]["name"] == "" || profiles[0]["definition"] == nil {
		t.Errorf("profiles: %v", profiles)
	}
	types := r.must(http.StatusOK, http.MethodGet, "/event-types", nil).items()
	if !slices.ContainsFunc(types, func(e map[string]any) bool { return e["name"] == "balance.extracted" && e["sample"] != nil }) {
		t.Errorf("event types: %v", types)
	}
}

func TestWhatDoesNotExistIsAProblem(t *testing.T) {
	t.Parallel()
	r := start(t)
	for _, path := range []string{"/replays/r1", "/events/e1/explain", "/explain?at=0:0", "/subscriptions/dry-run/x", "/nonsense", "", "/secrets/a/b"} {
		if a := r.call(http.MethodGet, path, nil); a.status != http.StatusNotFound || a.code() != "not_found" {
			t.Errorf("%s: got %d %s", path, a.status, a.text)
		}
	}
	if a := r.call(http.MethodPut, "/subscriptions", nil); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != "GET, POST" {
		t.Errorf("got %d %q", a.status, a.header.Get("Allow"))
	}
	if a := r.callAs("", http.MethodGet, "/openapi.json", nil); a.status != http.StatusOK || a.str("openapi") != "3.1.0" {
		t.Errorf("got %d", a.status)
	}
}
