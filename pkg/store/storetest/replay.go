package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// replays is what replays and the search for stored events need.
type replays interface {
	Events(ctx context.Context, tenant string, f store.EventFilter, limit int) ([]webhook.Event, error)
	NewestEvents(ctx context.Context, tenant string, f store.EventFilter, limit int) ([]webhook.Event, error)
	CountEvents(ctx context.Context, tenant string, f store.EventFilter) (int64, error)
	EventAt(ctx context.Context, tenant string, at webhook.Position) (webhook.Event, error)
	Copies(ctx context.Context, tenant, id string) ([]webhook.Event, error)
	DeliveriesByID(ctx context.Context, tenant string, ids ...uuid.UUID) (map[uuid.UUID]store.Delivery, error)
	Matched(ctx context.Context, tenant string, ids ...string) (map[string]bool, error)
	CreateReplay(ctx context.Context, r store.Replay) error
	Replay(ctx context.Context, tenant, id string) (store.Replay, error)
	Replays(ctx context.Context, tenant, subscriptionID string, p store.Page) ([]store.Replay, string, error)
	SteerReplay(ctx context.Context, tenant, id string, change func(*store.Replay) error) (store.Replay, error)
	ClaimReplay(ctx context.Context, owner string, now, until time.Time) (store.Replay, error)
	AdvanceReplay(ctx context.Context, owner string, r store.Replay, until time.Time) (store.ReplayState, float64, error)
}

// newEvents are n events of a tenant, each a minute after the one before; every third is of another type.
func newEvents(tenant string, n int) []webhook.Event {
	begin, topic := now().Add(-24*time.Hour), fresh("topic")
	events := make([]webhook.Event, n)
	for i := range events {
		at := begin.Add(time.Duration(i) * time.Minute)
		events[i] = webhook.Event{
			ID: fmt.Sprintf("%s-%02d", topic, i), Type: "card.issued", Tenant: tenant, Timestamp: at, RecordedAt: at,
			Data: json.RawMessage(`{"n":1.00}`), Source: webhook.Position{Topic: topic, Partition: int32(i % 2), Offset: int64(i / 2)},
		}
		if i%3 == 0 {
			events[i].Type = "balance.extracted.late"
		}
	}
	return events
}

func eventIDs(events []webhook.Event) (ids []string) {
	for i := range events {
		ids = append(ids, events[i].ID)
	}
	return ids
}

func eventsInOrder(t *testing.T, s Store) {
	ctx := context.Background()
	mine := fresh("tenant")
	events := newEvents(mine, 10)
	events[5].RecordedAt = events[4].RecordedAt // the id decides
	must(t, s.Record(ctx, &store.Batch{Events: append(append([]webhook.Event{}, events[5:]...), events[:5]...)}))
	must(t, s.Record(ctx, &store.Batch{Events: newEvents("other", 3)}))
	var read []webhook.Event
	var after store.EventPlace
	for {
		chunk := got(s.Events(ctx, mine, store.EventFilter{After: after}, 3))(t)
		if len(chunk) == 0 {
			break
		}
		read = append(read, chunk...)
		after = store.PlaceOf(&chunk[len(chunk)-1])
	}
	same(t, "in chunks", read, events)
	same(t, "between two places", got(s.Events(ctx, mine, store.EventFilter{After: store.PlaceOf(&events[3]), Until: store.PlaceOf(&events[5])}, 10))(t), events[4:6])
	same(t, "before a place", eventIDs(got(s.NewestEvents(ctx, mine, store.EventFilter{Before: store.PlaceOf(&events[8])}, 2))(t)), []string{events[7].ID, events[6].ID})
	same(t, "from the newest", eventIDs(got(s.NewestEvents(ctx, mine, store.EventFilter{}, 2))(t)), []string{events[9].ID, events[8].ID})

	large := newEvents(fresh("tenant"), 30)
	for i := range large {
		large[i].Data = json.RawMessage(`"` + string(make([]byte, 1<<20)) + `"`)
	}
	must(t, s.Record(ctx, &store.Batch{Events: large}))
	if n := len(got(s.Events(ctx, large[0].Tenant, store.EventFilter{}, 30))(t)); n == 0 || n > 20 {
		t.Errorf("%d events of 1 MiB at once", n)
	}
}

func eventsSelected(t *testing.T, s Store) {
	ctx := context.Background()
	mine := fresh("tenant")
	e := newEvents(mine, 9)
	e[6].Type = "balance.extractedlate"
	must(t, s.Record(ctx, &store.Batch{Events: e}))
	topic := e[0].Source.Topic
	for name, c := range map[string]struct {
		filter store.EventFilter
		want   []webhook.Event
	}{
		"everything":    {store.EventFilter{}, e},
		"every type":    {store.EventFilter{Types: []string{"card.issued", "*"}}, e},
		"one type":      {store.EventFilter{Types: []string{"balance.extracted.late"}}, []webhook.Event{e[0], e[3]}},
		"a prefix":      {store.EventFilter{Types: []string{"balance.extracted.*", "x"}}, []webhook.Event{e[0], e[3]}},
		"an id":         {store.EventFilter{ID: e[4].ID, Types: []string{"*"}}, e[4:5]},
		"a time":        {store.EventFilter{From: e[2].RecordedAt, To: e[4].RecordedAt}, e[2:4]},
		"offsets":       {store.EventFilter{Offsets: []store.OffsetRange{{Topic: topic, Partition: 0, From: 1, To: 3}, {Topic: topic, Partition: 1, From: 3}}}, []webhook.Event{e[2], e[4], e[7]}},
		"another topic": {store.EventFilter{Offsets: []store.OffsetRange{{Topic: "other"}}}, nil},
	} {
		same(t, name, eventIDs(got(s.Events(ctx, mine, c.filter, 100))(t)), eventIDs(c.want))
		if n := got(s.CountEvents(ctx, mine, c.filter))(t); n != int64(len(c.want)) {
			t.Errorf("%s: counted %d", name, n)
		}
	}
}

func eventByPlace(t *testing.T, s Store) {
	ctx := context.Background()
	mine := fresh("tenant")
	events := newEvents(mine, 3)
	again := events[1]
	again.RecordedAt, again.Source.Offset = again.RecordedAt.Add(time.Hour), 77
	must(t, s.Record(ctx, &store.Batch{Events: append(events, again)}))
	same(t, "event", got(s.EventAt(ctx, mine, events[1].Source))(t), events[1])
	wantError(t, store.ErrNotFound)(s.EventAt(ctx, "other", events[1].Source))
	wantError(t, store.ErrNotFound)(s.EventAt(ctx, mine, webhook.Position{Topic: events[1].Source.Topic, Partition: 1, Offset: 5}))
	copies := got(s.Copies(ctx, mine, again.ID))(t)
	if len(copies) != 2 || copies[0].Source != events[1].Source || copies[1].Source != again.Source || !copies[1].RecordedAt.Equal(again.RecordedAt) {
		t.Errorf("copies %+v", copies)
	}
}

func deliveriesByID(t *testing.T, s Store) {
	ctx := context.Background()
	at := now().Add(-96 * time.Hour)
	mine := fresh("tenant")
	first := store.Delivery{ID: uuid.New(), Tenant: mine, EventID: "e", SubscriptionID: "s", Status: webhook.Delivered, CreatedAt: at, UpdatedAt: at}
	later := first
	later.CreatedAt, later.UpdatedAt, later.Status = at.Add(80*time.Hour), at.Add(80*time.Hour), webhook.DeadLetter
	other := first
	other.ID, other.Generation = uuid.New(), 3
	must(t, s.Record(ctx, &store.Batch{Deliveries: []store.Delivery{first, later, other}}))
	found := got(s.DeliveriesByID(ctx, mine, first.ID, other.ID, uuid.New()))(t)
	if len(found) != 2 || found[first.ID].Status != webhook.DeadLetter || found[other.ID].Generation != 3 {
		t.Errorf("found %+v", found)
	}
	if n := len(got(s.DeliveriesByID(ctx, "other", first.ID))(t)); n != 0 {
		t.Errorf("%d of another tenant", n)
	}
	same(t, "nothing asked", len(got(s.DeliveriesByID(ctx, mine))(t)), 0)

	same(t, "matched", got(s.Matched(ctx, mine, "e", "nobody's"))(t), map[string]bool{"e": true})
	same(t, "matched in another tenant", got(s.Matched(ctx, "other", "e"))(t), map[string]bool{})
	same(t, "matched of nothing", got(s.Matched(ctx, mine))(t), map[string]bool{})
}

func newReplay(sub webhook.Subscription) store.Replay {
	return store.Replay{
		ID: fresh("replay"), Tenant: sub.Tenant, SubscriptionID: sub.ID, State: store.ReplayRunning, Rate: 12.5, Total: 100,
		CreatedBy: "key", CreatedAt: now(), UpdatedAt: now(),
		Spec: store.ReplaySpec{From: now().Add(-time.Hour), To: now(), EventTypes: []string{"a.*"}, Filter: json.RawMessage(`{"data":{"n":[1.00]}}`),
			Statuses: []webhook.Status{webhook.DeadLetter, store.NoDelivery}, Offsets: []store.OffsetRange{{Topic: "t", Partition: 1, From: 5, To: 9}}},
	}
}

// subscribed makes a subscription of a tenant of its own.
func subscribed(t *testing.T, s Store, replays ...store.Replay) webhook.Subscription {
	t.Helper()
	tenant := fresh("tenant")
	secret := newSecret(tenant)
	must(t, s.CreateSecret(context.Background(), secret))
	sub := newSubscription(tenant, secret.ID)
	for i := range replays {
		replays[i].Tenant, replays[i].SubscriptionID = tenant, sub.ID
	}
	must(t, s.CreateSubscription(context.Background(), sub, nil, replays...))
	return sub
}

// endAll ends the replays of other tests, which the database may still have.
func endAll(t *testing.T, s Store) {
	t.Helper()
	far := now().AddDate(1, 0, 0)
	for {
		r, err := s.ClaimReplay(context.Background(), "the test", far, far.Add(time.Hour))
		if errors.Is(err, store.ErrNotFound) {
			return
		}
		must(t, err)
		r.State = store.ReplayDone
		_, _, err = s.AdvanceReplay(context.Background(), "the test", r, time.Time{})
		must(t, err)
	}
}

func replayRoundTrip(t *testing.T, s Store) {
	ctx := context.Background()
	sub := subscribed(t, s)
	want := newReplay(sub)
	must(t, s.CreateReplay(ctx, want))
	same(t, "replay", got(s.Replay(ctx, sub.Tenant, want.ID))(t), want)
	wantError(t, store.ErrNotFound)(s.Replay(ctx, "other", want.ID))
	second := newSubscription(sub.Tenant, sub.SecretID)
	must(t, s.CreateSubscription(ctx, second, nil))
	another := newReplay(second)
	another.CreatedAt = want.CreatedAt.Add(time.Second)
	must(t, s.CreateReplay(ctx, another))
	items, _, err := s.Replays(ctx, sub.Tenant, "", store.Page{})
	must(t, err)
	same(t, "list", items, []store.Replay{another, want})
	items, _, err = s.Replays(ctx, sub.Tenant, sub.ID, store.Page{})
	must(t, err)
	same(t, "of a subscription", items, []store.Replay{want})
	nobodys := newReplay(webhook.Subscription{ID: "nobody", Tenant: sub.Tenant})
	if err := s.CreateReplay(ctx, nobodys); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("without a subscription: %v", err)
	}
}

func replayWithSubscription(t *testing.T, s Store) {
	ctx := context.Background()
	replay := newReplay(webhook.Subscription{})
	sub := subscribed(t, s, replay)
	if r := got(s.Replay(ctx, sub.Tenant, replay.ID))(t); r.SubscriptionID != sub.ID {
		t.Errorf("replay of %q", r.SubscriptionID)
	}
	second := newSubscription(sub.Tenant, sub.SecretID)
	replay.Tenant, replay.SubscriptionID = sub.Tenant, second.ID
	if err := s.CreateSubscription(ctx, second, nil, replay); !errors.Is(err, store.ErrExists) {
		t.Errorf("a replay that exists: %v", err)
	}
	wantError(t, store.ErrNotFound)(s.Subscription(ctx, sub.Tenant, second.ID))
}

func replayLease(t *testing.T, s Store) {
	ctx := context.Background()
	endAll(t, s)
	want := newReplay(subscribed(t, s))
	must(t, s.CreateReplay(ctx, want))
	begin, until := now(), now().Add(time.Minute)
	var claimed []store.Replay
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			r, err := s.ClaimReplay(ctx, fmt.Sprint("process ", i), begin, until)
			if err == nil {
				mu.Lock()
				claimed = append(claimed, r)
				mu.Unlock()
			} else if !errors.Is(err, store.ErrNotFound) {
				t.Errorf("claim: %v", err)
			}
		})
	}
	all.Wait()
	same(t, "claimed once", claimed, []store.Replay{want})
	r := got(s.ClaimReplay(ctx, "later", until, until.Add(time.Minute)))(t)
	if r.ID != want.ID {
		t.Errorf("claimed %s after the lease", r.ID)
	}
	_, _, err := s.AdvanceReplay(ctx, "another", r, until)
	if !errors.Is(err, store.ErrNotHeld) {
		t.Errorf("advanced without the lease: %v", err)
	}
	r.Done, r.Matched, r.Cursor = 10, 4, store.EventPlace{At: begin, ID: "e"}
	r.Plan = &store.ReplayPlan{Until: store.EventPlace{At: until, ID: "f"}, Events: 7, Generations: map[string]uint32{"f": 2}}
	if state, rate, err := s.AdvanceReplay(ctx, "later", r, time.Time{}); state != store.ReplayRunning || rate != 12.5 || err != nil {
		t.Errorf("advance: %v %v %v", state, rate, err)
	}
	next := got(s.ClaimReplay(ctx, "next", begin, until))(t) // it was released
	r.UpdatedAt = next.UpdatedAt
	same(t, "with its plan", next, r)
	next.Plan, next.State, next.FinishedAt = nil, store.ReplayDone, now()
	if _, _, err := s.AdvanceReplay(ctx, "next", next, time.Time{}); err != nil {
		t.Error(err)
	}
	wantError(t, store.ErrNotFound)(s.ClaimReplay(ctx, "more", until.Add(time.Hour), until.Add(2*time.Hour)))
	if r := got(s.Replay(ctx, want.Tenant, want.ID))(t); r.State != store.ReplayDone || r.Plan != nil || r.FinishedAt.IsZero() {
		t.Errorf("at the end: %+v", r)
	}
}

func replaySteered(t *testing.T, s Store) {
	ctx := context.Background()
	endAll(t, s)
	want := newReplay(subscribed(t, s))
	must(t, s.CreateReplay(ctx, want))
	r := got(s.ClaimReplay(ctx, "me", now(), now().Add(time.Minute)))(t)
	paused := got(s.SteerReplay(ctx, want.Tenant, r.ID, func(r *store.Replay) error {
		r.State, r.Reason, r.Rate = store.ReplayPaused, "lunch", 3
		r.Done = 999 // not theirs to say
		return nil
	}))(t)
	if paused.State != store.ReplayPaused {
		t.Errorf("paused: %+v", paused)
	}
	r.Done = 10
	if state, rate, err := s.AdvanceReplay(ctx, "me", r, time.Time{}); state != store.ReplayPaused || rate != 3 || err != nil {
		t.Errorf("advance: %v %v %v", state, rate, err)
	}
	if r := got(s.Replay(ctx, want.Tenant, r.ID))(t); r.State != store.ReplayPaused || r.Reason != "lunch" || r.Done != 10 || r.Rate != 3 {
		t.Errorf("both: %+v", r)
	}
	wantError(t, store.ErrNotFound)(s.ClaimReplay(ctx, "other", now().Add(time.Hour), now().Add(2*time.Hour)))
	_, err := s.SteerReplay(ctx, want.Tenant, r.ID, func(*store.Replay) error { return errMine })
	if err != errMine { //nolint:errorlint // the contract is that it comes back as it is
		t.Errorf("aborted: %v", err)
	}
	wantError(t, store.ErrNotFound)(s.SteerReplay(ctx, "other", r.ID, func(*store.Replay) error { return nil }))
}
