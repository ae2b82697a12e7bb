package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
	"github.com/hookline/hookline/services/api/replay"
)

// replayed are the deliveries on their topic, by event.
func (r *running) replayed(n int) map[string][]*webhook.Delivery {
	r.t.Helper()
	made := map[string][]*webhook.Delivery{}
	for _, record := range r.records(r.kafka.Topics.Deliveries, n) {
		d, err := wire.DecodeDelivery(record.Value)
		if err != nil {
			r.t.Fatal(err)
		}
		if string(record.Key) != d.ID.String() || d.Trip != 0 {
			r.t.Errorf("record %s: %+v", record.Key, d)
		}
		made[d.Event.ID] = append(made[d.Event.ID], d)
	}
	return made
}

func (r *running) awaitReplay(id string, state store.ReplayState) answer {
	r.t.Helper()
	var last answer
	eventually(r.t, "the replay is "+string(state), func() bool {
		last = r.must(http.StatusOK, http.MethodGet, "/replays/"+id, nil)
		return last.str("state") == string(state)
	})
	return last
}

func TestAReplayDeliversEveryMatchingEventOfTheRangeAsTheNextGeneration(t *testing.T) {
	t.Parallel()
	r := start(t)
	events := r.keep(30)
	sub := r.must(http.StatusCreated, http.MethodPost, "/subscriptions", map[string]any{"name": "s", "endpointUrl": endpoint, "eventTypes": []string{"card.*"}}).str("id")
	// Deliveries that were there before: one has ended, one is under way.
	r.deliver(sub, events[10].ID, webhook.DeadLetter)
	r.deliver(sub, events[11].ID, webhook.Pending)
	body := map[string]any{"subscriptionId": sub, "from": events[5].RecordedAt, "to": events[20].RecordedAt, "ratePerSecond": 1000,
		"filter": map[string]any{"data": map[string]any{"amount": []any{map[string]any{"numeric": []any{"<", 16}}}}}}
	var want []string
	for _, e := range events[5:16] {
		if e.Type == "card.issued" && e.ID != events[11].ID {
			want = append(want, e.ID)
		}
	}
	body["dryRun"] = true
	counted := r.must(http.StatusOK, http.MethodPost, "/replays", body)
	if counted.body["total"] != 10.0 || counted.body["matched"] != float64(len(want)) || counted.body["complete"] != true || counted.body["id"] != nil || counted.str("state") != "dry_run" {
		t.Errorf("counted: %s", counted.text)
	}
	body["dryRun"] = false
	id := r.must(http.StatusAccepted, http.MethodPost, "/replays", body).str("id")
	done := r.awaitReplay(id, store.ReplayDone)
	if done.body["total"] != 10.0 || done.body["done"] != 10.0 || done.body["matched"] != float64(len(want)) || done.body["finishedAt"] == nil {
		t.Errorf("done: %s", done.text)
	}
	made := r.replayed(len(want))
	if len(made) != len(want) {
		t.Errorf("%d events, want %v", len(made), want)
	}
	for _, event := range want {
		if len(made[event]) != 1 {
			t.Fatalf("%s: %d deliveries", event, len(made[event]))
		}
		d, generation := made[event][0], uint32(1)
		if d.ID != webhook.DeliveryID(webhook.DefaultTenant, event, sub) || d.Generation != generation || d.Trigger != webhook.TriggerReplay || d.SubscriptionID != sub {
			t.Errorf("%s: %+v", event, d)
		}
	}
	if list := r.must(http.StatusOK, http.MethodGet, "/replays?subscriptionId="+sub, nil).items(); len(list) != 1 || list[0]["id"] != id {
		t.Errorf("list: %v", list)
	}
	if a := r.call(http.MethodPost, "/replays/"+id+"/cancel", nil); a.status != http.StatusConflict || a.code() != "replay_ended" {
		t.Errorf("cancel after the end: %d %s", a.status, a.text)
	}
	changes := r.must(http.StatusOK, http.MethodGet, "/changes?kind=replay", nil).items()
	if len(changes) != 1 || changes[0]["action"] != "create" || changes[0]["objectId"] != id {
		t.Errorf("log of changes: %v", changes)
	}
}

func TestAReplayIsSelectedByStatusAndOffsets(t *testing.T) {
	t.Parallel()
	r := start(t)
	events := r.keep(8)
	sub := r.subscribe("s")
	for i, status := range []webhook.Status{webhook.Delivered, webhook.DeadLetter, webhook.Cancelled, webhook.Pending} {
		r.deliver(sub, events[i].ID, status)
	}
	count := func(selection map[string]any) []float64 {
		t.Helper()
		selection["subscriptionId"], selection["dryRun"] = sub, true
		a := r.must(http.StatusOK, http.MethodPost, "/replays", selection)
		return []float64{a.body["total"].(float64), a.body["matched"].(float64)}
	}
	range_ := func(more ...any) map[string]any {
		m := map[string]any{"offsets": []any{map[string]any{"partition": 0, "from": 0, "to": 6}}}
		for i := 0; i < len(more); i += 2 {
			m[more[i].(string)] = more[i+1]
		}
		return m
	}
	for name, c := range map[string]struct {
		selection map[string]any
		want      []float64
	}{
		"all but pending":       {range_(), []float64{6, 5}},
		"dead letters":          {range_("statuses", []string{"DEAD_LETTER"}), []float64{6, 1}},
		"without a delivery":    {range_("statuses", []string{"NONE"}), []float64{6, 2}},
		"pending and cancelled": {range_("statuses", []string{"PENDING", "CANCELLED"}), []float64{6, 2}},
		"a type":                {range_("eventTypes", []string{"balance.*"}), []float64{2, 1}},
		"a time as well":        {range_("from", events[4].RecordedAt), []float64{2, 2}},
	} {
		if got := count(c.selection); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}

func TestABadReplayIsRefused(t *testing.T) {
	t.Parallel()
	r := start(t)
	sub, disabled := r.subscribe("s"), r.subscribe("d")
	r.must(http.StatusOK, http.MethodPost, "/subscriptions/"+disabled+"/disable", nil)
	for body, want := range map[string]string{
		`{"subscriptionId":"` + sub + `"}`: "422 /from",
		`{"subscriptionId":"` + sub + `","from":"2026-01-02T00:00:00Z","to":"2026-01-01T00:00:00Z"}`:       "422 /to",
		`{"subscriptionId":"` + sub + `","offsets":[{"partition":0,"from":5,"to":5}]}`:                     "422 /offsets/0/to",
		`{"subscriptionId":"` + sub + `","from":"2026-01-01T00:00:00Z","filter":{"data":{"a":[{"x":1}]}}}`: "422 /filter/data/a/0/x",
		`{"subscriptionId":"` + sub + `","from":"2026-01-01T00:00:00Z","statuses":["pending"]}`:            "422 /statuses/0",
		`{"subscriptionId":"` + sub + `","from":"2026-01-01T00:00:00Z","ratePerSecond":0.01}`:              "422 /ratePerSecond",
		`{"subscriptionId":"` + sub + `","from":"2026-01-01T00:00:00Z","ratePerSecond":10001}`:             "422 /ratePerSecond",
		`{"subscriptionId":"nobody","from":"2026-01-01T00:00:00Z"}`:                                        "422 ",
		`{"subscriptionId":"` + disabled + `","from":"2026-01-01T00:00:00Z"}`:                              "409 ",
	} {
		a := r.call(http.MethodPost, "/replays", body)
		if want != strconv.Itoa(a.status)+" "+strings.Join(a.pointers(), " ") {
			t.Errorf("%s: got %d %s", body, a.status, a.text)
		}
	}
}

func TestAReplayIsPausedResumedAndCancelled(t *testing.T) {
	t.Parallel()
	r := start(t)
	events := r.keep(50)
	sub := r.subscribe("s")
	id := r.must(http.StatusAccepted, http.MethodPost, "/replays", map[string]any{"subscriptionId": sub, "from": events[0].RecordedAt, "ratePerSecond": 0.1}).str("id")
	matched := func() float64 {
		return r.must(http.StatusOK, http.MethodGet, "/replays/"+id, nil).body["matched"].(float64)
	}
	eventually(t, "the first one is made", func() bool { return matched() == 1 })
	// At this rate the next one would follow in 10 s: it is the rate that holds it back.
	paused := r.must(http.StatusOK, http.MethodPost, "/replays/"+id+"/pause", nil)
	if paused.str("state") != "paused" || !strings.HasPrefix(paused.str("reason"), "paused by API key") || paused.body["etaSeconds"] != nil {
		t.Errorf("paused: %s", paused.text)
	}
	if again := r.must(http.StatusOK, http.MethodPost, "/replays/"+id+"/pause", nil); again.str("state") != "paused" {
		t.Errorf("paused again: %s", again.text)
	}
	if resumed := r.must(http.StatusOK, http.MethodPost, "/replays/"+id+"/resume", nil); resumed.str("state") != "running" || resumed.body["reason"] != nil || resumed.body["etaSeconds"] != 490.0 {
		t.Errorf("resumed: %s", resumed.text)
	}
	cancelled := r.must(http.StatusOK, http.MethodPost, "/replays/"+id+"/cancel", nil)
	if cancelled.str("state") != "cancelled" || cancelled.body["finishedAt"] == nil {
		t.Errorf("cancelled: %s", cancelled.text)
	}
	r.must(http.StatusConflict, http.MethodPost, "/replays/"+id+"/resume", nil)
	if n := len(r.replayed(1)); n != 1 || matched() != 1 {
		t.Errorf("%d deliveries", n)
	}
}

func TestAReplayToASubscriptionThatGoesOrIsDisabledStops(t *testing.T) {
	t.Parallel()
	r := start(t)
	events := r.keep(50)
	for verb, want := range map[string]store.ReplayState{"disable": store.ReplayPaused, "delete": store.ReplayFailed} {
		sub := r.subscribe(verb)
		if verb == "disable" {
			r.must(http.StatusOK, http.MethodPost, "/subscriptions/"+sub+"/disable", nil)
		}
		waiting := store.Replay{ID: newID(), Tenant: webhook.DefaultTenant, SubscriptionID: sub, State: store.ReplayRunning, Rate: 1, Total: -1,
			Spec: store.ReplaySpec{From: events[0].RecordedAt, To: now()}, CreatedAt: now(), UpdatedAt: now()}
		if verb == "delete" { // before anybody has claimed it
			waiting.State = store.ReplayPaused
		}
		if err := r.db.CreateReplay(t.Context(), waiting); err != nil {
			t.Fatal(err)
		}
		if verb == "delete" {
			r.must(http.StatusNoContent, http.MethodDelete, "/subscriptions/"+sub, nil)
			r.must(http.StatusOK, http.MethodPost, "/replays/"+waiting.ID+"/resume", nil)
		}
		if a := r.awaitReplay(waiting.ID, want); !strings.Contains(a.str("reason"), "subscription") {
			t.Errorf("%s: %s", verb, a.text)
		}
	}
}

// The events of the range may be in Kafka and not yet in the database.
func TestAReplayWaitsUntilTheEventsOfItsRangeAreRecorded(t *testing.T) {
	t.Parallel()
	r := start(t)
	sub := r.subscribe("s")
	client, err := r.kafka.Client(r.kafka.Producer()...)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for range 3 {
		at := now().Add(-time.Hour)
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: r.kafka.Topics.Events, Value: []byte(`{"event_type":"a.b","data":{}}`), Timestamp: at}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	// The broker of the test gives its own times: the range ends after them, and has settled.
	waiting := store.Replay{ID: newID(), Tenant: webhook.DefaultTenant, SubscriptionID: sub, State: store.ReplayRunning, Rate: 1000, Total: -1,
		Spec: store.ReplaySpec{From: now().Add(-24 * time.Hour), To: now().Add(time.Second)}, CreatedAt: now(), UpdatedAt: now()}
	if err := r.db.CreateReplay(t.Context(), waiting); err != nil {
		t.Fatal(err)
	}
	r.service.replays.Changed()
	eventually(t, "it waits", func() bool {
		return strings.Contains(r.must(http.StatusOK, http.MethodGet, "/replays/"+waiting.ID, nil).str("reason"), "recorded")
	})
	batch := &store.Batch{Offsets: map[store.TopicPartition]int64{{Topic: r.kafka.Topics.Events}: 3}}
	for _, id := range []string{"a", "b", "c"} {
		batch.Events = append(batch.Events, webhook.Event{ID: id, Type: "a.b", Tenant: webhook.DefaultTenant, RecordedAt: now().Add(-time.Minute), Data: json.RawMessage("1")})
	}
	if err := r.db.Record(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if a := r.awaitReplay(waiting.ID, store.ReplayDone); a.body["matched"] != 3.0 || a.body["reason"] != nil {
		t.Errorf("got %s", a.text)
	}
}

func TestANewSubscriptionBeginsWhereItIsAskedTo(t *testing.T) {
	t.Parallel()
	r := start(t)
	events := r.keep(6)
	subscribe := func(name, start string) answer {
		return r.call(http.MethodPost, "/subscriptions", `{"name":"`+name+`","endpointUrl":"`+endpoint+`","eventTypes":["card.issued"],"startFrom":`+start+`}`)
	}
	if a := subscribe("now", `"now"`); a.status != http.StatusCreated || a.str("replayId") != "" {
		t.Errorf("from now: %d %s", a.status, a.text)
	}
	for name, start := range map[string]string{"time": `"` + events[2].RecordedAt.Format(time.RFC3339) + `"`, "offsets": `{"0":2}`} {
		a := subscribe(name, start)
		if a.status != http.StatusCreated || a.str("replayId") == "" {
			t.Fatalf("%s: %d %s", name, a.status, a.text)
		}
		replay := r.must(http.StatusOK, http.MethodGet, "/replays/"+a.str("replayId"), nil)
		if replay.str("subscriptionId") != a.str("id") || replay.body["total"] != 3.0 {
			t.Errorf("%s: %s", name, replay.text)
		}
		eventually(t, "the stored events are delivered", func() bool {
			return r.must(http.StatusOK, http.MethodGet, "/replays/"+a.str("replayId"), nil).body["matched"] == 3.0
		})
	}
	for _, d := range r.replayed(6)[events[4].ID] {
		if d.ConfigOffset <= 0 || d.Generation != 1 {
			t.Errorf("a worker may not know the subscription yet: %+v", d)
		}
	}
	for name, start := range map[string]string{"word": `"yesterday"`, "future": `"2999-01-01T00:00:00Z"`, "number": `5`, "empty": `{}`, "list": `[1]`, "negative": `{"0":-1}`, "name": `{"x":1}`} {
		if a := subscribe(name, start); a.status != http.StatusUnprocessableEntity || !strings.HasPrefix(a.pointers()[0], "/startFrom") {
			t.Errorf("%s: %d %s", name, a.status, a.text)
		}
	}
}

// mortal is a database that one process loses at a moment of its choice.
type mortal struct {
	database
	dead atomic.Bool
	// dies says whether the process dies instead of writing this progress.
	dies func(store.Replay) bool
}

var errDead = errors.New("the process is dead")

func (m *mortal) AdvanceReplay(ctx context.Context, owner string, r store.Replay, until time.Time) (store.ReplayState, float64, error) {
	if m.dead.Load() || m.dies(r) {
		m.dead.Store(true)
		return "", 0, errDead
	}
	return m.database.AdvanceReplay(ctx, owner, r, until)
}

func (m *mortal) ClaimReplay(ctx context.Context, owner string, now, until time.Time) (store.Replay, error) {
	if m.dead.Load() {
		return store.Replay{}, store.ErrNotFound
	}
	return m.database.ClaimReplay(ctx, owner, now, until)
}

// later is a database to a process that looks after the leases of others are over.
type later struct{ database }

func (l later) ClaimReplay(ctx context.Context, owner string, now, until time.Time) (store.Replay, error) {
	return l.database.ClaimReplay(ctx, owner, now.Add(2*replay.Lease), until.Add(2*replay.Lease))
}

func TestAReplayWhoseProcessDiesBetweenKafkaAndItsCursorLosesNothing(t *testing.T) {
	t.Parallel()
	const n = 1700
	want := n - (n+2)/3
	for name, dies := range map[string]func(r store.Replay) bool{
		"after the deliveries, before the cursor": func(r store.Replay) bool { return r.Plan == nil && r.Done >= 2*replay.MostEvents },
		"in the first chunk":                      func(r store.Replay) bool { return r.Plan == nil && r.Done >= 1 },
		"before the plan":                         func(r store.Replay) bool { return r.Plan != nil && r.Done >= replay.MostEvents },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := &mortal{database: openStore(t), dies: dies}
			r := start(t, func(_ *Config, d *Deps) { d.Store = db })
			r.db = db
			events := r.keep(n)
			sub := r.must(http.StatusCreated, http.MethodPost, "/subscriptions", map[string]any{"name": "s", "endpointUrl": endpoint, "eventTypes": []string{"card.*"}}).str("id")
			id := r.must(http.StatusAccepted, http.MethodPost, "/replays", map[string]any{"subscriptionId": sub, "from": events[0].RecordedAt,
				"to": events[n-1].RecordedAt.Add(time.Second), "ratePerSecond": 10000}).str("id")
			eventually(t, "the process dies", db.dead.Load)
			if err := r.stop(); err != nil {
				t.Fatal(err)
			}
			// What has been delivered of it meanwhile must not make further generations.
			var rows []store.Delivery
			for event, deliveries := range r.replayed(replay.MostEvents / 2) {
				rows = append(rows, store.Delivery{ID: deliveries[0].ID, Tenant: webhook.DefaultTenant, EventID: event, SubscriptionID: sub, Generation: 1,
					Trigger: webhook.TriggerReplay, Status: webhook.Delivered, CreatedAt: when, UpdatedAt: when})
			}
			if err := db.database.Record(t.Context(), &store.Batch{Deliveries: rows}); err != nil {
				t.Fatal(err)
			}
			second := launch(t, testConfig(), testDeps(t, later{db.database}, r.kafka))
			second.db, second.kafka = db.database, r.kafka
			eventually(t, "the key works", func() bool { return second.call(http.MethodGet, "/secrets", nil).status == http.StatusOK })
			done := second.awaitReplay(id, store.ReplayDone)
			if done.body["done"] == nil || int(done.body["matched"].(float64)) != want {
				t.Errorf("done: %s", done.text)
			}
			made := second.replayed(want)
			if len(made) != want {
				t.Errorf("%d events, want %d", len(made), want)
			}
			for event, deliveries := range made {
				for _, d := range deliveries {
					if d.Generation != 1 || d.ID != webhook.DeliveryID(webhook.DefaultTenant, event, sub) {
						t.Fatalf("%s: %d deliveries, one of generation %d", event, len(deliveries), d.Generation)
					}
				}
				if len(deliveries) > 2 {
					t.Errorf("%s: %d times", event, len(deliveries))
				}
			}
		})
	}
}
