package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// keep stores n events, a minute apart, of amounts from 0 on; every third is of another type. Only the recorder sees them.
func (r *running) keep(n int) []webhook.Event {
	r.t.Helper()
	events := make([]webhook.Event, n)
	for i := range events {
		events[i] = webhook.Event{
			ID: fmt.Sprintf("kept-%04d", i), Type: "card.issued", Tenant: webhook.DefaultTenant, Timestamp: when, RecordedAt: when.Add(time.Duration(i) * time.Minute),
			Data: json.RawMessage(fmt.Sprintf(`{"amount":%d.50}`, i)), Source: webhook.Position{Topic: r.kafka.Topics.Events, Partition: 0, Offset: int64(i)},
		}
		if i%3 == 0 {
			events[i].Type = "balance.extracted"
		}
	}
	if err := r.db.Record(r.t.Context(), &store.Batch{Events: slices.Clone(events)}); err != nil {
		r.t.Fatal(err)
	}
	return events
}

func TestAFilterIsSavedShownChangedAndRemoved(t *testing.T) {
	t.Parallel()
	r := start(t)
	made := r.must(http.StatusCreated, http.MethodPost, "/subscriptions", `{"name":"f","endpointUrl":"`+endpoint+`","filter":{"data":{"n":[1.00,{"prefix":"x"}]}}}`)
	path := "/subscriptions/" + made.str("id")
	shows := func(want string) {
		t.Helper()
		var view struct{ Filter json.RawMessage }
		if err := json.Unmarshal([]byte(r.must(http.StatusOK, http.MethodGet, path, nil).text), &view); err != nil || string(view.Filter) != want {
			t.Errorf("got %s %v, want %s", view.Filter, err, want)
		}
	}
	shows(`{"data":{"n":[1.00,{"prefix":"x"}]}}`)
	r.must(http.StatusOK, http.MethodPatch, path, `{"name":"g"}`)
	shows(`{"data":{"n":[1.00,{"prefix":"x"}]}}`)
	r.must(http.StatusOK, http.MethodPatch, path, `{"filter":{"cel":"event.data.n > 1"}}`)
	shows(`{"cel":"event.data.n > 1"}`)
	for filter, pointer := range map[string]string{`{"cel":"event.data.n >"}`: "/filter/cel", `{"datum":[1]}`: "/filter/datum", `[1]`: "/filter", `"x"`: "/filter"} {
		if a := r.call(http.MethodPatch, path, `{"filter":`+filter+`}`); a.status != http.StatusUnprocessableEntity || !slices.Equal(a.pointers(), []string{pointer}) {
			t.Errorf("%s: got %d %s", filter, a.status, a.text)
		}
	}
	shows(`{"cel":"event.data.n > 1"}`)
	r.must(http.StatusOK, http.MethodPatch, path, `{"filter":{}}`)
	shows("null")
}

func TestADryRunTellsWhichStoredEventsMatchAndWhyOthersDoNot(t *testing.T) {
	t.Parallel()
	r := start(t)
	events := r.keep(10)
	got := r.must(http.StatusOK, http.MethodPost, "/subscriptions/dry-run",
		`{"eventTypes":["card.*"],"filter":{"data":{"amount":[{"numeric":[">",6.5]}]}},"last":5}`)
	if got.body["looked"] != 5.0 || got.body["matched"] != 2.0 || got.body["complete"] != true {
		t.Errorf("got %s", got.text)
	}
	var view dryRunView
	if err := json.Unmarshal([]byte(got.text), &view); err != nil || len(view.Events) != 5 {
		t.Fatalf("got %v %s", err, got.text)
	}
	if e := view.Events[0]; e.EventID != events[9].ID || e.Matched || e.Clauses[0].Pointer != "/eventTypes" || len(e.Clauses) != 1 {
		t.Errorf("the newest is of another type: %+v", e)
	}
	if e := view.Events[4]; e.EventID != events[5].ID || e.Matched || len(e.Clauses) != 1 || e.Clauses[0].Pointer != "/filter/data/amount" {
		t.Errorf("the last is too small: %+v", e)
	}
	span := r.must(http.StatusOK, http.MethodPost, "/subscriptions/dry-run", map[string]any{"from": events[2].RecordedAt, "to": events[4].RecordedAt})
	if span.body["looked"] != 2.0 || span.body["matched"] != 2.0 {
		t.Errorf("a span of time: %s", span.text)
	}
	if other := r.callAs(r.key("other", webhook.PermissionAuditRead), http.MethodPost, "/subscriptions/dry-run", "{}"); other.body["looked"] != 0.0 {
		t.Errorf("another tenant sees %s", other.text)
	}
}

func TestADryRunTriesGivenEvents(t *testing.T) {
	t.Parallel()
	r := start(t)
	got := r.must(http.StatusOK, http.MethodPost, "/subscriptions/dry-run",
		`{"filter":{"data":{"n":[1]}},"events":[{"event_type":"a","data":{"n":1.0}},{"event_id":"x","event_type":"a","data":{"n":2}}]}`)
	if got.body["looked"] != 2.0 || got.body["matched"] != 1.0 {
		t.Errorf("got %s", got.text)
	}
	for body, pointers := range map[string][]string{
		`{"events":[{"event_type":"a","data":1},{"data":1},5]}`: {"/events/1/event_type", "/events/2"},
		`{"filter":{"x":[1]},"last":5,"events":[]}`:             {"/filter/x"},
		`{"events":[{"event_type":"a","data":1}],"last":5}`:     {"/events"},
		`{"last":1001}`:                                             {"/last"},
		`{"filter":{"data":[1]},"colour":"red"}`:                    {"/colour"},
		`{"filter":{"data":[` + strings.Repeat("1,", 8000) + `1]}}`: {"/filter"},
		`{"filter":{"cel":"event.data.a.map(x, event.data.b.map(y, event.data.c.map(z, x)))==[]"}}`: {"/filter/cel"},
	} {
		a := r.call(http.MethodPost, "/subscriptions/dry-run", body)
		if a.status != http.StatusUnprocessableEntity || !slices.Equal(a.pointers(), pointers) {
			t.Errorf("%.80s: got %d %s", body, a.status, a.text)
		}
	}
}

// explained is what an answer says about each subscription, by name.
func explained(t *testing.T, a answer) (view explanationView, outcomes map[string]explainedSubView) {
	t.Helper()
	if err := json.Unmarshal([]byte(a.text), &view); err != nil || a.status != http.StatusOK {
		t.Fatalf("got %d %s: %v", a.status, a.text, err)
	}
	outcomes = map[string]explainedSubView{}
	for _, sub := range view.Subscriptions {
		outcomes[sub.Name] = sub
	}
	return view, outcomes
}

func TestAnExplanationHasAnOutcomeForEverySubscription(t *testing.T) {
	t.Parallel()
	r := start(t)
	subscribe := func(name, more string) string {
		return r.must(http.StatusCreated, http.MethodPost, "/subscriptions", `{"name":"`+name+`","endpointUrl":"`+endpoint+`"`+more+`}`).str("id")
	}
	subscribe("type", `,"eventTypes":["card.*"]`)
	subscribe("filter", `,"filter":{"data":{"a":[1]}}`)
	disabled := subscribe("disabled", ``)
	r.must(http.StatusOK, http.MethodPost, "/subscriptions/"+disabled+"/disable", `{"reason":"broken"}`)
	pausedID, doneID, goneID := subscribe("paused", ``), subscribe("done", ``), subscribe("gone", ``)
	subscribe("waiting", ``)
	made := now()
	r.must(http.StatusOK, http.MethodPatch, "/subscriptions/"+pausedID, `{"status":"paused"}`)
	for id, status := range map[string]webhook.Status{pausedID: webhook.Pending, doneID: webhook.DeadLetter, goneID: webhook.Delivered} {
		r.deliver(id, "e1", status)
	}
	// The same event again, after the subscriptions were made, and once more soon after.
	again := webhook.Event{ID: "e1", Type: "balance.extracted", Tenant: webhook.DefaultTenant, RecordedAt: made.Add(time.Hour), Data: json.RawMessage(`{"a":2}`),
		Source: webhook.Position{Topic: r.kafka.Topics.Events, Partition: 3, Offset: 50}}
	third := again
	third.RecordedAt, third.Source.Offset = made.Add(time.Hour+time.Minute), 51
	if err := r.db.Record(t.Context(), &store.Batch{Events: []webhook.Event{again, third}}); err != nil {
		t.Fatal(err)
	}
	r.must(http.StatusNoContent, http.MethodDelete, "/subscriptions/"+goneID, nil)

	view, outcomes := explained(t, r.call(http.MethodGet, "/events/e1/explain", nil))
	for name, want := range map[string]string{
		"type": becameOtherType, "filter": becameFiltered, "disabled": becameInactive, "paused": becameDelivery, "done": becameDelivery, "waiting": becameUnrecorded,
	} {
		if got := outcomes[name]; got.Outcome != want || got.Detail == "" {
			t.Errorf("%s: got %+v, want %s", name, got, want)
		}
	}
	if c := outcomes["filter"].Clauses; len(c) != 1 || c[0].Pointer != "/filter/data/a" || !strings.Contains(c[0].Detail, "data.a is 2, wanted [1]") {
		t.Errorf("clauses %+v", c)
	}
	if !strings.Contains(outcomes["disabled"].Detail, "broken") {
		t.Errorf("disabled: %s", outcomes["disabled"].Detail)
	}
	if d := outcomes["paused"].Delivery; d == nil || d.WaitsFor == nil || !strings.Contains(*d.WaitsFor, "paused") || len(d.Attempts) != 2 {
		t.Errorf("paused: %+v", d)
	}
	if len(view.Deleted) != 1 || view.Deleted[0].SubscriptionID != goneID || view.Deleted[0].Delivery.Status != "DELIVERED" {
		t.Errorf("deleted: %+v", view.Deleted)
	}
	if c := view.Event.Copies; len(c) != 3 || c[0].Duplicate || c[1].Duplicate || !c[2].Duplicate || c[2].Source.Offset != 51 {
		t.Errorf("copies: %+v", c)
	}

	_, outcomes = explained(t, r.call(http.MethodGet, "/events/explain?partition=3&offset=42&topic="+r.kafka.Topics.Events, nil))
	if outcomes["waiting"].Outcome != becameCreatedLater || outcomes["done"].Outcome != becameDelivery {
		t.Errorf("by the first place: %+v", outcomes)
	}
	first, _ := explained(t, r.call(http.MethodGet, "/events/e1/explain?limit=2", nil))
	if len(first.Subscriptions) != 2 || first.NextCursor == nil || len(first.Deleted) != 1 {
		t.Errorf("a page: %+v", first)
	}
	if last, _ := explained(t, r.call(http.MethodGet, "/events/e1/explain?limit=100&cursor="+*first.NextCursor, nil)); len(last.Subscriptions) != 4 || len(last.Deleted) != 0 {
		t.Errorf("the next page: %+v", last)
	}
}

func TestARecordIsExplainedByItsPlaceBeforeItIsRecordedAndWhenItWasRejected(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.subscribe("s")
	client, err := r.kafka.Client(r.kafka.Producer()...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, value := range []string{`{"event_type":"a.b","data":{}}`, `{"data":{}}`, `{"event_type":"a.b","tenant":"other","data":{}}`} {
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: r.kafka.Topics.Events, Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	view, outcomes := explained(t, r.call(http.MethodGet, "/events/explain?partition=0&offset=0", nil))
	if view.Event == nil || view.Event.Recorded || view.Event.EventType != "a.b" || outcomes["s"].Outcome != becameUnrecorded {
		t.Errorf("not recorded: %+v", view)
	}
	view, _ = explained(t, r.call(http.MethodGet, "/events/explain?partition=0&offset=1", nil))
	if view.Event != nil || view.Rejected == nil || view.Rejected.Code != "missing_event_type" {
		t.Errorf("rejected: %+v", view)
	}
	for _, place := range []string{"partition=0&offset=2", "partition=0&offset=3", "partition=9&offset=0", "partition=0&offset=0&topic=other"} {
		r.must(http.StatusNotFound, http.MethodGet, "/events/explain?"+place, nil)
	}
	for _, place := range []string{"offset=0", "partition=0", "partition=-1&offset=0", "partition=0&offset=x"} {
		r.must(http.StatusUnprocessableEntity, http.MethodGet, "/events/explain?"+place, nil)
	}
}
