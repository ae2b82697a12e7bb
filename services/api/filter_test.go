package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
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

	_, outcomes = explained(t, r.call(http.MethodGet, "/explain?at="+r.kafka.Topics.Events+":3:42", nil))
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

// published puts values on the events topic, as upstream would.
func (r *running) published(records ...*kgo.Record) {
	r.t.Helper()
	client, err := r.kafka.Client(r.kafka.Producer()...)
	if err != nil {
		r.t.Fatal(err)
	}
	defer client.Close()
	for _, record := range records {
		record.Topic = r.kafka.Topics.Events
		if err := client.ProduceSync(r.t.Context(), record).FirstErr(); err != nil {
			r.t.Fatal(err)
		}
	}
}

func TestARecordIsExplainedByItsPlaceBeforeItIsRecordedAndWhenItWasRejected(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.subscribe("s")
	for _, value := range []string{`{"event_type":"a.b","data":{}}`, `{"data":{}}`} {
		r.published(&kgo.Record{Value: []byte(value)})
	}
	view, outcomes := explained(t, r.call(http.MethodGet, "/explain?at=0:0", nil))
	if view.Event == nil || view.Event.Recorded || view.Event.EventType != "a.b" || outcomes["s"].Outcome != becameUnrecorded {
		t.Errorf("not recorded: %+v", view)
	}
	view, _ = explained(t, r.call(http.MethodGet, "/explain?at=0:1", nil))
	if view.Event != nil || view.Rejected == nil || view.Rejected.Code != "missing_event_type" {
		t.Errorf("rejected: %+v", view)
	}
	for _, place := range []string{"at=0:3", "at=9:0", "at=other:0:0", "at=99999999999:0", "at=0:99999999999999999999", "eventId=nothing"} {
		r.must(http.StatusNotFound, http.MethodGet, "/explain?"+place, nil)
	}
	for _, place := range []string{"", "at=0", "at=-1:0", "at=0:x", "eventId=e&at=0:0"} {
		r.must(http.StatusUnprocessableEntity, http.MethodGet, "/explain?"+place, nil)
	}
}

func TestWhyARecordWasRejectedIsToldToItsTenantAndToOperatorsOnly(t *testing.T) {
	t.Parallel()
	r := start(t)
	tokens := map[string]string{"operator": bootstrapToken, "default": r.key(webhook.DefaultTenant, webhook.PermissionAuditRead)}
	for _, tenant := range []string{"acme", "other"} {
		if err := r.db.CreateTenant(t.Context(), webhook.Tenant{ID: tenant, Name: tenant, DefaultProfile: defaultProfile, CreatedAt: now()}); err != nil {
			t.Fatal(err)
		}
		tokens[tenant] = r.key(tenant, webhook.Permissions()...)
	}
	for i, c := range []struct {
		what   string
		record kgo.Record
		code   string
		seen   []string
	}{
		{"of a tenant", kgo.Record{Value: []byte(`{"tenant":"acme","data":{}}`)}, "missing_event_type", []string{"acme", "operator"}},
		{"of a tenant, by a header", kgo.Record{Value: []byte(`1`), Headers: []kgo.RecordHeader{{Key: "ce_tenant", Value: []byte("acme")}, {Key: "ce_id", Value: []byte("1")}}},
			"invalid_cloudevent", []string{"acme", "operator"}},
		{"that names no tenant", kgo.Record{Value: []byte(`{"data":{}}`)}, "missing_event_type", []string{"default", "operator"}},
		{"cut off", kgo.Record{Value: []byte(`{"tenant":"acme","data":`)}, "invalid_json", []string{"operator"}},
		{"that names two", kgo.Record{Value: []byte(`{"tenant":"acme","tenant":"other","event_type":"a"}`)}, "duplicate_key", []string{"operator"}},
		{"that means another by its case", kgo.Record{Value: []byte(`{"Tenant":"acme"}`)}, "missing_event_type", []string{"default", "operator"}},
		{"of a tenant that does not exist", kgo.Record{Value: []byte(`{"tenant":"nobody","event_type":"a","data":1}`)}, "unknown_tenant", []string{"operator"}},
		{"that is an event of another tenant", kgo.Record{Value: []byte(`{"tenant":"acme","event_type":"a","data":1}`)}, "", []string{"acme"}},
	} {
		r.published(&c.record)
		for name, token := range tokens {
			a := r.callAs(token, http.MethodGet, fmt.Sprintf("/explain?at=0:%d", i), nil)
			may := slices.Contains(c.seen, name)
			if may != (a.status == http.StatusOK) || !may && a.status != http.StatusNotFound {
				t.Errorf("%s, to %s: %d %s", c.what, name, a.status, a.text)
			}
			if why, _ := a.body["rejected"].(map[string]any); may && c.code != "" && why["code"] != c.code {
				t.Errorf("%s: %v, want %s", c.what, why, c.code)
			}
		}
	}
}

func TestEveryLegalEventIDIsReachable(t *testing.T) {
	t.Parallel()
	r := start(t)
	sub := r.subscribe("s")
	for _, id := range []string{
		"explain", "count", "events", ".", "..", "...", "a/b", "/", "//", "a//b", "../../subscriptions", "%", "%2F", "%2e%2e", "a%00b", "a b", "+", "?x=1", "#", ";", "&", "3:1207",
		"Grüße", "事件", "e\u0301", "\U0001F4E6", "{id}", "\\", "\"", "explain/explain", strings.Repeat("x", 256),
	} {
		r.deliver(sub, id, webhook.Delivered)
		segment := strings.ReplaceAll(url.PathEscape(id), ".", "%2E")
		paths := []string{"/explain?eventId=" + url.QueryEscape(id), "/events/" + segment + "/explain"}
		if id == "/" { // which the router of the standard library takes for the end of a path
			paths = paths[:1]
		} else if a := r.call(http.MethodGet, "/events/"+segment, nil); a.status != http.StatusOK || a.str("id") != id || a.body["data"] == nil {
			t.Errorf("GET %q: %d %s", id, a.status, a.text)
		}
		a := r.call(http.MethodGet, "/events?include=data&id="+url.QueryEscape(id), nil)
		if a.status != http.StatusOK || len(a.items()) != 1 || a.items()[0]["id"] != id || a.items()[0]["data"] == nil {
			t.Errorf("GET by query %q: %d %s", id, a.status, a.text)
		}
		for _, path := range paths {
			view, outcomes := explained(t, r.call(http.MethodGet, path, nil))
			if view.Event == nil || view.Event.ID != id || outcomes["s"].Outcome != becameDelivery {
				t.Errorf("GET %s: %+v", path, view)
			}
		}
	}
}

func TestEventsThatNobodyWantedAreFound(t *testing.T) {
	t.Parallel()
	r := start(t)
	sub := r.subscribe("s")
	stored := make([]webhook.Event, 500)
	for i := range stored {
		stored[i] = webhook.Event{ID: fmt.Sprintf("e%03d", i), Type: "order.paid", Tenant: webhook.DefaultTenant, RecordedAt: when.Add(time.Duration(i-500) * time.Second),
			Data: json.RawMessage("1"), Source: webhook.Position{Topic: r.kafka.Topics.Events, Offset: int64(i)}}
	}
	stranger := stored[0]
	stranger.Tenant, stranger.ID = "other", "not ours"
	if err := r.db.Record(t.Context(), &store.Batch{Events: append(slices.Clone(stored), stranger)}); err != nil {
		t.Fatal(err)
	}
	r.deliver(sub, "wanted", webhook.Delivered)
	list := func(query string) (ids []string) {
		for cursor := ""; ; {
			a := r.must(http.StatusOK, http.MethodGet, "/events?"+query+"&cursor="+cursor, nil)
			for _, item := range a.items() {
				ids = append(ids, item["id"].(string))
			}
			if cursor = a.str("nextCursor"); cursor == "" {
				return ids
			}
		}
	}
	if all := list("limit=7"); len(all) != 501 || all[0] != "wanted" || all[500] != "e000" {
		t.Errorf("all: %d, from %v", len(all), all[:1])
	}
	if lost := list("limit=150&unmatched=true"); len(lost) != 500 || lost[0] != "e499" {
		t.Errorf("unmatched: %d, from %v", len(lost), lost[:1])
	}
	if none := list("eventType=card.*"); len(none) != 0 {
		t.Errorf("of another type: %v", none)
	}
	if some := list("eventType=order.*&to=" + when.Add(-490*time.Second).Format(time.RFC3339Nano)); len(some) != 10 {
		t.Errorf("of a time: %v", some)
	}
}
