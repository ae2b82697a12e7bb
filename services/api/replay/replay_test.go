package replay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/pkg/offset"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/topic"
	"github.com/hookline/hookline/pkg/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// shelf is a store of events, of which some have deliveries.
type shelf struct {
	events     []webhook.Event
	deliveries map[uuid.UUID]store.Delivery
}

func (s *shelf) Events(_ context.Context, _ string, f store.EventFilter, limit int) ([]webhook.Event, error) {
	var out []webhook.Event
	for _, e := range s.events {
		if len(out) < limit && e.RecordedAt.After(f.After.At) && e.RecordedAt.Before(f.To) {
			out = append(out, e)
		}
	}
	return out, nil
}

func (s *shelf) DeliveriesByID(_ context.Context, _ string, ids ...uuid.UUID) (map[uuid.UUID]store.Delivery, error) {
	found := map[uuid.UUID]store.Delivery{}
	for _, id := range ids {
		if row, ok := s.deliveries[id]; ok {
			found[id] = row
		}
	}
	return found, nil
}

var begin = time.Date(2026, 4, 14, 9, 0, 0, 0, time.UTC)

func TestAChunkHasTheNextGenerationsOfWhatIsAskedForUpToTheRate(t *testing.T) {
	sub := &webhook.Subscription{ID: "sub", EventTypes: []string{"card.*"}}
	db := &shelf{deliveries: map[uuid.UUID]store.Delivery{}}
	for i, status := range []webhook.Status{webhook.Delivered, webhook.DeadLetter, webhook.Pending, "", webhook.DeadLetter} {
		e := webhook.Event{ID: fmt.Sprint("e", i), Type: "card.issued", RecordedAt: begin.Add(time.Duration(i) * time.Minute)}
		db.events = append(db.events, e)
		if id := webhook.DeliveryID("", e.ID, sub.ID); status != "" {
			db.deliveries[id] = store.Delivery{ID: id, Status: status, Generation: uint32(i)}
		}
	}
	db.events[4].Type = "order.paid"
	end := begin.Add(time.Hour)
	for name, c := range map[string]struct {
		statuses []webhook.Status
		rate     float64
		until    time.Time
		want     map[string]uint32
		looked   int64
	}{
		"everything that is not under way": {nil, 100, end, map[string]uint32{"e0": 1, "e1": 2, "e3": 1}, 5},
		"of one status":                    {[]webhook.Status{webhook.DeadLetter}, 100, end, map[string]uint32{"e1": 2}, 5},
		"without a delivery":               {[]webhook.Status{store.NoDelivery}, 100, end, map[string]uint32{"e3": 1}, 5},
		"no more than a second's":          {nil, 2, end, map[string]uint32{"e0": 1, "e1": 2}, 2},
		"up to a moment":                   {nil, 100, begin.Add(time.Minute), map[string]uint32{"e0": 1}, 1},
		"of no time":                       {nil, 100, time.Time{}, nil, 0},
		"of nothing":                       {nil, 100, begin, nil, 0},
	} {
		next, err := Next(t.Context(), db, &store.Replay{Rate: c.rate, Spec: store.ReplaySpec{Statuses: c.statuses}}, sub, c.until)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if next == nil {
			next = &Chunk{}
		}
		if fmt.Sprint(next.Plan.Generations) != fmt.Sprint(c.want) || next.Plan.Events != c.looked || len(next.Events) != int(c.looked) {
			t.Errorf("%s: %+v, want %v of %d", name, next.Plan, c.want, c.looked)
		}
	}
	_, err := Next(t.Context(), db, &store.Replay{Rate: 1, Spec: store.ReplaySpec{Filter: []byte(`{"magic":1}`)}}, sub, end)
	if unknown := new(FilterError); !errors.As(err, &unknown) {
		t.Errorf("a filter of the future: %v", err)
	}
}

// idle has no replay to work on.
type idle struct {
	Store
	asked atomic.Int64
}

func (s *idle) ClaimReplay(context.Context, string, time.Time, time.Time) (store.Replay, error) {
	s.asked.Add(1)
	return store.Replay{}, store.ErrNotFound
}

func TestARunnerLooksForWorkWhenItIsWokenAndStopsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &idle{}
		runner := New(Deps{Log: slog.New(slog.DiscardHandler), Topics: topic.WithPrefix(""), Store: db})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { runner.Run(ctx, t.Context()); close(ended) }()
		synctest.Wait()
		runner.Changed()
		synctest.Wait()
		if asked := db.asked.Load(); asked != 2 {
			t.Errorf("asked %d times before any time has passed", asked)
		}
		time.Sleep(3 * poll)
		synctest.Wait()
		if asked := db.asked.Load(); asked != 5 {
			t.Errorf("asked %d times", asked)
		}
		cancel()
		<-ended
	})
}

// topicOf is a deliveries topic of one partition, of which the workers finish what the test says.
type topicOf struct {
	Journal
	written  []time.Duration // when, since the beginning
	finished atomic.Int64    // -1 while the workers have never committed
	begun    time.Time
}

func (j *topicOf) Write(_ context.Context, records ...*kgo.Record) (kgo.ProduceResults, error) {
	results := make(kgo.ProduceResults, 0, len(records))
	for _, r := range records {
		r.Offset = int64(len(j.written))
		j.written = append(j.written, time.Since(j.begun))
		results = append(results, kgo.ProduceResult{Record: r})
	}
	return results, nil
}

func (j *topicOf) Standings(context.Context) (map[int32]offset.Standing, error) {
	finished := j.finished.Load()
	if finished < 0 {
		return nil, nil
	}
	return map[int32]offset.Standing{0: offset.StandingOf(finished, "")}, nil
}

// hand has a passage deliver so many events at once.
func hand(t *testing.T, j *topicOf, p *passage, events int) {
	t.Helper()
	var list []webhook.Event
	p.replay.Plan = &store.ReplayPlan{Generations: map[string]uint32{}}
	for range events {
		e := webhook.Event{ID: fmt.Sprint("e", len(list)), Type: "a.b"}
		list, p.replay.Plan.Generations[e.ID] = append(list, e), 1
	}
	if err := p.deliver(t.Context(), &webhook.Subscription{ID: "sub"}, list); err != nil {
		t.Fatal(err)
	}
}

func passageOf(j *topicOf, rate float64) *passage {
	j.begun = time.Now()
	return &passage{Runner: New(Deps{Topics: topic.WithPrefix(""), Journal: j, Profiles: &profile.Catalog{}}), replay: store.Replay{Rate: rate}, next: j.begun}
}

func TestTheDeliveriesOfAChunkAreSpreadOverTheTimeThatTheRateGivesThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &topicOf{}
		p := passageOf(j, 250)
		hand(t, j, p, 100)
		hand(t, j, p, 100)
		for i, at := range j.written {
			// Four milliseconds each: none comes early, and none waits for more than one step.
			if late := at - time.Duration(i)*4*time.Millisecond; late < 0 || late > together+4*time.Millisecond {
				t.Fatalf("delivery %d was handed over after %v", i, at)
			}
		}
		if len(j.written) != 200 || p.next.Sub(j.begun) != 800*time.Millisecond {
			t.Errorf("%d, and more after %v", len(j.written), p.next.Sub(j.begun))
		}
	})
}

func TestAReplayThatWasHeldUpCatchesUpALittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &topicOf{}
		p := passageOf(j, 100)
		time.Sleep(time.Hour)
		hand(t, j, p, 100)
		atOnce := 0
		for _, at := range j.written {
			if at == time.Hour {
				atOnce++
			}
		}
		if want := int(catchUp.Seconds()*100) + 1; atOnce != want {
			t.Errorf("%d at once, want %d", atOnce, want)
		}
	})
}

func TestAReplayGoesNoFasterThanTheWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &topicOf{}
		p := passageOf(j, 1e6)
		room := func(want bool, why string) {
			t.Helper()
			if got, err := p.ahead.room(t.Context(), j); err != nil || got != want {
				t.Errorf("%s: %v %v", why, got, err)
			}
		}
		hand(t, j, p, mostAhead)
		room(true, "as many as they may have")
		hand(t, j, p, 2)
		room(false, "more, and none is finished")
		j.finished.Store(2)
		room(true, "enough are finished")
		hand(t, j, p, 1)
		room(false, "one too many again")
		go func() {
			time.Sleep(patience / 2)
			j.finished.Store(3)
		}()
		room(true, "one is finished meanwhile")
		hand(t, j, p, 1)
		j.finished.Store(-1)
		room(true, "workers that never commit")
		hand(t, j, p, mostAhead+1)
		j.finished.Store(0)
		time.Sleep(forgotten)
		room(true, "a topic that has been made anew")
	})
}
