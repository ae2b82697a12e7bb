package scheduler

import (
	"context"
	"maps"
	"slices"
	"sort"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/pkg/offset"
	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/webhook"
)

// road is a delivery path as plain values: a queue that finishes so many a second, in their order, and commits twice a
// second. One shard fires into it what is due, and new events come besides.
type road struct {
	now      time.Time
	capacity int                  // a second
	events   int                  // new ones a second
	due      []retryqueue.Waiting // in the order of due times
	path     *path
	pace     *pace

	// The retries of full lanes are put back when they come to the end, which the scheduler reads a little later.
	full    map[uint16]bool
	putBack []passing

	queue     []passing
	done      int // of queue
	finished  map[string]int
	forward   map[uint16]int // brought forward, by lane
	slowest   time.Duration  // that a new event has waited
	lastRetry map[uint16]time.Time
}

type passing struct {
	kind  string
	lane  uint16
	since time.Time
}

func newRoad(capacity, events int) *road {
	r := &road{
		now: time.UnixMilli(1_763_772_000_000), capacity: capacity, events: events, path: newPath(), pace: newPace(0),
		finished: map[string]int{}, forward: map[uint16]int{}, lastRetry: map[uint16]time.Time{},
	}
	r.path.saw(map[int32]offset.Standing{0: {}}, 0, 1, r.now)
	return r
}

// add lets n retries be due at a moment, of one lane or of so many from it on, in turn.
func (r *road) add(n int, at time.Time, first, lanes uint16) {
	for i := range n {
		trip := webhook.Trip{Number: uint32(len(r.due))}
		r.due = append(r.due, retryqueue.Waiting{Trip: trip, Due: at, Lane: first + uint16(i)%lanes})
	}
}

// left is how many retries of a lane have not been fired.
func (r *road) left(lane uint16) (n int) {
	for _, w := range r.due {
		if w.Lane == lane {
			n++
		}
	}
	return n
}

const (
	tick = 50 * time.Millisecond
	// seenAfter is the interval of looks with that of the workers' commits, and as much again for both.
	seenAfter = 300 * time.Millisecond
	readAfter = 150 * time.Millisecond
)

func (r *road) run(d time.Duration) {
	for began := r.now; r.now.Sub(began) < d; r.now = r.now.Add(tick) {
		for range r.events / int(time.Second/tick) {
			r.queue = append(r.queue, passing{kind: "event", since: r.now})
		}
		r.fire()
		r.deliver()
		for len(r.putBack) > 0 && r.now.Sub(r.putBack[0].since) >= readAfter {
			r.path.deferred(webhook.Trip{Number: 2}, r.putBack[0].lane, webhook.ReasonConcurrency, r.now)
			r.putBack = r.putBack[1:]
		}
		if r.now.UnixMilli()%seenAfter.Milliseconds() == 0 {
			points := map[int32]offset.Standing{0: offset.StandingOf(int64(r.done), "")}
			r.path.saw(points, r.pace.settle(points, r.now).finished, 1, r.now)
		}
	}
}

func (r *road) deliver() {
	for range min(r.capacity/int(time.Second/tick), len(r.queue)-r.done) {
		p := r.queue[r.done]
		r.done++
		r.finished[p.kind]++
		switch {
		case p.kind == "event":
			r.slowest = max(r.slowest, r.now.Sub(p.since))
		case r.full[p.lane]:
			r.finished["put back"]++
			r.putBack = append(r.putBack, passing{lane: p.lane, since: r.now})
		default:
			r.lastRetry[p.lane] = r.now
		}
	}
}

func (r *road) fire() {
	bounds := r.path.bounds(r.now)
	due := r.dueNow()
	room, pause := r.pace.room(bounds, r.now)
	n := min(due, room)
	entries := make([]retryqueue.Entry, n)
	for i, w := range r.due[:n] {
		entries[i] = retryqueue.Entry{Trip: w.Trip, Lane: w.Lane}
	}
	r.due = r.due[n:]
	r.pace.admit(entries, int64(due-n), r.now)
	for _, e := range entries {
		r.pace.book(e, 0, int64(len(r.queue)), r.now)
		r.queue = append(r.queue, passing{kind: "retry", lane: e.Lane, since: r.now})
	}
	if due == n {
		return
	}
	if pause == 0 {
		r.path.crowded.Store(true)
	}
	var moves []retryqueue.Move
	for _, w := range r.pace.lookAhead(int64(due-n), r.due[0].Due, r.now) {
		moves = append(moves, r.pace.owed(r.due[w.from:w.from+w.count], bounds, r.path, r.now)...)
	}
	r.move(moves)
}

// move does what the index does.
func (r *road) move(moves []retryqueue.Move) {
	to := map[webhook.Trip]time.Time{}
	for _, m := range moves {
		to[m.Trip] = m.To
	}
	for i, w := range r.due {
		if at, moved := to[w.Trip]; moved {
			r.due[i].Due = at
			r.forward[w.Lane]++
		}
	}
	if len(moves) > 0 {
		slices.SortStableFunc(r.due, func(a, b retryqueue.Waiting) int { return a.Due.Compare(b.Due) })
	}
}

// dueNow is how many are due.
func (r *road) dueNow() int {
	return sort.Search(len(r.due), func(i int) bool { return r.due[i].Due.After(r.now) })
}

func TestAStormLeavesNewEventsAtLeastHalfOfThePath(t *testing.T) {
	for name, test := range map[string]struct{ capacity, events int }{
		"a fast path": {4000, 2000}, "a slow path": {1000, 500}, "few events": {2000, 100},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoad(test.capacity, test.events)
			r.add(40*test.capacity, r.now, 1, 1)
			r.run(20 * time.Second)
			began := r.finished["event"]
			r.slowest = 0
			r.run(20 * time.Second)
			if got := r.finished["event"] - began; got < 20*test.events*95/100 {
				t.Errorf("%d events finished in 20 s of %d a second", got, test.events)
			}
			if r.slowest > 2*ahead {
				t.Errorf("a new event waited %v", r.slowest)
			}
		})
	}
}

func TestAStormDrainsAsFastAsThePathTakesIt(t *testing.T) {
	for name, test := range map[string]struct {
		capacity int
		lanes    uint16
	}{"one endpoint": {4000, 1}, "many endpoints": {4000, 200}, "a slow path": {400, 3}} {
		t.Run(name, func(t *testing.T) {
			r := newRoad(test.capacity, 0)
			r.add(60*test.capacity, r.now, 1, test.lanes)
			r.run(time.Minute)
			if got, want := r.finished["retry"], 60*test.capacity*85/100; got < want {
				t.Errorf("%d retries finished in a minute, want %d", got, want)
			}
		})
	}
}

func TestAStormToEndpointsWithoutRoomIsNotFiredAsFastAsItComesBack(t *testing.T) {
	for name, test := range map[string]struct {
		lanes, full uint16
		events      int
		back        int // that may come back in a second
		through     int // that must pass in a second
	}{
		"to those only":                   {200, 200, 100, leastSpeed, 0},
		"to those only, beside many":      {200, 200, 2000, leastSpeed, 0},
		"to some others":                  {100, 90, 100, 600, 160},
		"to as many others":               {100, 50, 0, 2000, 1700},
		"to as many others, beside many":  {100, 50, 1000, 2000, 800},
		"to others, of which one is full": {100, 1, 0, 60, 3400},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoad(4000, test.events)
			r.full = map[uint16]bool{}
			for lane := range test.full {
				r.full[1+lane] = true
			}
			r.add(90_000, r.now, 1, test.lanes)
			r.run(5 * time.Second)
			clear(r.finished)
			r.slowest, r.forward = 0, map[uint16]int{}
			r.run(15 * time.Second)
			for lane, n := range r.forward {
				if r.full[lane] && n > 1 {
					t.Errorf("%d of lane %d, which is full, were brought forward", n, lane)
				}
			}
			back, through := r.finished["put back"]/15, r.finished["retry"]/15-r.finished["put back"]/15
			if back > test.back*11/10 || through < test.through {
				t.Errorf("%d a second came back, of which %d may; %d passed, at least %d should", back, test.back, through, test.through)
			}
			if events := r.finished["event"] / 15; events < test.events*95/100 || r.slowest > 2*ahead {
				t.Errorf("%d of %d new events a second, the slowest after %v", events, test.events, r.slowest)
			}
		})
	}
}

func TestAnEndpointIsNotHeldUpByTheStormOfOthers(t *testing.T) {
	const storm, few = 20_000, 20 // the storm takes 40 s
	for name, test := range map[string]struct {
		lanes  uint16
		after  time.Duration // that the few are due
		within time.Duration
		left   int // that may be, because an equal share is no more
	}{
		"of one":                            {1, 0, 15 * time.Second, 0},
		"of one, and new ones fall due":     {1, 5 * time.Second, 12 * time.Second, 0},
		"of a hundred":                      {100, time.Second, 15 * time.Second, 0},
		"of so many that a turn takes long": {2000, time.Second, 35 * time.Second, few - 34*500/2001},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoad(500, 0)
			r.add(storm, r.now, 1, test.lanes)
			r.add(few, r.now.Add(test.after), 0, 1)
			began := r.now
			for r.left(0) > 0 && r.now.Sub(began) < test.within {
				r.run(time.Second)
			}
			if left := r.left(0); left > test.left {
				t.Errorf("%d still wait after %v", left, test.within)
			}
			if passed := int(r.now.Sub(began).Seconds()) - 2; r.finished["retry"] < passed*500*9/10 {
				t.Errorf("%d finished in %v", r.finished["retry"], r.now.Sub(began))
			}
		})
	}
}

func TestWorkersThatStandStillAreNotFiredAtWithoutEnd(t *testing.T) {
	r := newRoad(0, 0)
	r.add(100_000, r.now, 1, 1)
	r.run(time.Minute)
	if len(r.queue) > firstRate*int(ahead.Seconds()) {
		t.Errorf("%d fired to nobody", len(r.queue))
	}
	r.capacity = 10_000
	r.run(time.Minute)
	if got := r.finished["retry"]; got < 90_000 {
		t.Errorf("%d finished after the workers came back", got)
	}
}

func TestWhatIsFiredToATopicThatWasMadeAnewIsForgotten(t *testing.T) {
	p, now := newPace(0), time.UnixMilli(0)
	entries := []retryqueue.Entry{{Lane: 1}, {Lane: 1}}
	p.admit(entries, 0, now)
	p.book(entries[0], 0, 1000, now)
	p.drop(entries[1])
	for _, test := range []struct {
		after time.Duration
		left  bool
	}{{time.Minute, true}, {forgotten + time.Second, false}} {
		if got := p.settle(map[int32]offset.Standing{0: offset.StandingOf(5, "")}, now.Add(test.after)); got.left != test.left {
			t.Errorf("after %v: left %v", test.after, got.left)
		}
	}
}

// What the workers put back for want of room did not pass them, or a storm would be fired ever faster only to come back.
func TestWhatIsPutBackDoesNotCountAsFinished(t *testing.T) {
	p := newPath()
	now := time.UnixMilli(1_763_772_000_000)
	for n := range int64(200) {
		p.crowded.Store(true)
		for range 4000 {
			p.deferred(webhook.Trip{Number: 2}, 1, webhook.ReasonConcurrency, now)
		}
		p.deferred(webhook.Trip{Number: 2}, 1, webhook.ReasonHTTPStatus, now)
		p.saw(map[int32]offset.Standing{0: offset.StandingOf(n*5000, "")}, 5000, 1, now.Add(time.Duration(n)*time.Second))
	}
	if b := p.bounds(now.Add(200 * time.Second)); b.rate < 900 || b.rate > 1100 || b.speed < 3600 || b.speed > 4400 {
		t.Errorf("%v a second, want 1,000 for each 4,000 that are tried", b)
	}
}

// What comes back is seen on another topic than what is finished, now sooner and now later.
func TestWhatIsPutBackDoesNotCountAsFinishedHoweverItIsSeen(t *testing.T) {
	p := newPath()
	now := time.UnixMilli(1_763_772_000_000)
	finished := int64(0)
	for n := range 600 {
		now = now.Add(lookEvery)
		p.crowded.Store(true)
		if n%2 == 0 {
			for range 1000 {
				p.deferred(webhook.Trip{Number: 2}, 1, webhook.ReasonBreaker, now)
			}
			p.saw(map[int32]offset.Standing{0: offset.StandingOf(finished, "")}, 0, 1, now)
		} else {
			finished += 1000
			p.saw(map[int32]offset.Standing{0: offset.StandingOf(finished, "")}, 1000, 1, now)
		}
	}
	if b := p.bounds(now); b.unfinished > least*21/20 || b.speed > tries*least*21/20 {
		t.Errorf("%+v", b)
	}
}

func TestWhatHasRoomGoesBeforeWhatHasNoneAsFarAsATurnTakesIt(t *testing.T) {
	paths, p, now := newPath(), newPace(0), time.UnixMilli(1_763_772_000_000)
	b := bounds{speed: 100, scarce: true, turn: 100 * time.Millisecond, rate: 1}
	const turn, refused = 11, 1
	due := make([]retryqueue.Waiting, 100)
	for i := range due {
		due[i] = retryqueue.Waiting{Trip: webhook.Trip{Number: uint32(i)}, Due: now, Lane: refused + uint16(i)%2}
	}
	p.admit(nil, 100, now)
	p.lookAhead(100, now, now)
	forward := func(want int, lanes ...uint16) {
		t.Helper()
		moves := p.owed(due, b, paths, now)
		of := map[uint16]bool{}
		for _, m := range moves {
			of[due[m.Trip.Number].Lane] = true
		}
		if got := slices.Sorted(maps.Keys(of)); len(moves) != want || !slices.Equal(got, lanes) {
			t.Errorf("%d brought forward of the lanes %v, want %d of %v", len(moves), got, want, lanes)
		}
	}
	paths.deferred(webhook.Trip{Number: 2}, refused, webhook.ReasonConcurrency, now)
	paths.deferred(webhook.Trip{Number: 1}, refused+1, webhook.ReasonConcurrency, now) // a new event
	forward(turn, refused+1)
	forward(0)
	p.admit(make([]retryqueue.Entry, turn), 90, now)
	now = now.Add(full)
	forward(turn, refused, refused+1)
	b.scarce = false
	p.admit(make([]retryqueue.Entry, turn), 90, now)
	forward(0)
}

func TestNoMoreIsFiredThanTheSpeedPermitsAndInTurns(t *testing.T) {
	const turn = 6 * turnEvery
	for _, speed := range []float64{0.5, 3, 166, 1000, 20_000} {
		p, now, fired := newPace(4), time.UnixMilli(1_763_772_000_000), 0
		began := now
		for now.Sub(began) < time.Minute {
			room, pause := p.room(bounds{unfinished: unbounded, speed: speed, turn: turn}, now)
			room = min(room, claimMost)
			p.admit(make([]retryqueue.Entry, room), 1, now)
			if fired += room; float64(fired) > 2*speed*60+2 {
				t.Fatalf("%d fired in %v at %v a second", fired, now.Sub(began), speed)
			}
			if room > 0 {
				continue
			}
			if now = now.Add(pause); pause <= 0 || now.UnixMilli()%turn.Milliseconds() != (4*turnEvery).Milliseconds() {
				t.Fatalf("at %v a second it pauses for %v", speed, pause)
			}
		}
		if want := speed * 60; float64(fired) > want+speed*turn.Seconds()+2 || float64(fired) < 0.9*want {
			t.Errorf("%d fired in a minute at %v a second", fired, speed)
		}
	}
}

func TestAPathOfWhichNothingIsKnownOfLateGetsAsMuchAsAnyPathTakes(t *testing.T) {
	now := time.UnixMilli(1_763_772_000_000)
	const first = firstRate * int(ahead/time.Second)
	never, fast, uncommitted := newPath(), newPath(), newPath()
	for n := range int64(100) {
		fast.crowded.Store(true)
		fast.saw(map[int32]offset.Standing{0: offset.StandingOf(n*5000, "")}, 5000, 1, now.Add(time.Duration(n-99)*time.Second))
	}
	uncommitted.saw(nil, 0, 1, now)
	later := now.Add(stale + time.Second)
	for name, test := range map[string]struct {
		path    *path
		at      time.Time
		atLeast int
		atMost  int
		speed   float64
	}{
		"never looked at":                {never, now, first, first, firstRate},
		"fast":                           {fast, now, 4 * first, 6 * first, unbounded},
		"fast, some time ago":            {fast, later, first, first, firstRate},
		"without a commit":               {uncommitted, now, unbounded, unbounded, unbounded},
		"without a commit some time ago": {uncommitted, later, first, first, firstRate},
	} {
		if b := test.path.bounds(test.at); b.unfinished < test.atLeast || b.unfinished > test.atMost || b.speed != test.speed {
			t.Errorf("%s: %+v, want %d to %d unfinished and %v a second", name, b, test.atLeast, test.atMost, test.speed)
		}
	}
}

// To ask the group is work for Kafka, which is worth it only where somebody waits for the answer.
func TestWorkersAreLookedAtSeldomWhileThereIsRoomAndOftenWhileThereIsNone(t *testing.T) {
	inBubble(t, func(r *rig) {
		var looks atomic.Int32
		r.broker.ControlKey(kmsg.OffsetFetch.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
			r.broker.KeepControl()
			looks.Add(1)
			return nil, nil, false
		})
		r.start()
		r.after(20 * time.Second)
		r.must(kadm.NewClient(r.client).CommitAllOffsets(context.Background(), r.cluster.GroupID("delivery"), kadm.OffsetsFromFetches(kgo.Fetches{{
			Topics: []kgo.FetchTopic{{Topic: r.cluster.Topics.Deliveries, Partitions: []kgo.FetchPartition{{Records: []*kgo.Record{{Topic: r.cluster.Topics.Deliveries}}}}}},
		}})))
		for n := range 100 {
			r.retry(30*time.Second+time.Duration(n)*100*time.Millisecond, trip(n))
		}
		var storm []webhook.Trip
		for n := 100; n < 5000; n += 500 {
			storm = append(storm, tripsTo(n, n+500)...)
			r.retry(45*time.Second, storm[len(storm)-500:]...)
		}
		for _, test := range []struct {
			name        string
			begins      time.Duration
			least, most int32
		}{{"a trickle", 30 * time.Second, 15, 25}, {"a storm", 6 * time.Second, 80, 125}} {
			r.after(test.begins)
			before := looks.Load()
			r.after(10 * time.Second)
			if got := looks.Load() - before; got < test.least || got > test.most {
				t.Errorf("%s: asked %d times in ten seconds, want %d to %d", test.name, got, test.least, test.most)
			}
		}
	})
}

// The workers commit nothing for a while: what is due waits in the index, not in front of what is new. Then they go on.
func TestAStormWaitsForTheWorkers(t *testing.T) {
	inBubble(t, func(r *rig) {
		workers := kadm.NewClient(r.client)
		commit := func() {
			ends, err := workers.ListEndOffsets(context.Background(), r.cluster.Topics.Deliveries)
			r.must(err)
			r.must(workers.CommitAllOffsets(context.Background(), r.cluster.GroupID("delivery"), ends.Offsets()))
		}
		r.start()
		r.after(20 * time.Second)
		commit()
		r.retry(time.Second, trip(-1))
		r.after(10 * time.Second)
		var trips []webhook.Trip
		for n := range 20 {
			trips = append(trips, tripsTo(n*500, n*500+500)...)
			r.retry(30*time.Second, trips[n*500:]...)
		}
		behind := tripsTo(20_000, 20_010)
		for _, trip := range behind {
			retry := retryOf(trip, 31*time.Second)
			retry.Delivery.SubscriptionID = "another"
			r.must(r.client.ProduceSync(context.Background(), r.record(retry)).FirstErr())
		}
		r.after(45 * time.Second)
		r.mu.Lock()
		fired := len(r.fired)
		r.mu.Unlock()
		if fired < 2 || fired > firstRate*int(ahead.Seconds()) {
			t.Errorf("%d fired while nobody took them", fired)
		}
		for n := range 60 {
			commit()
			r.after(time.Second)
			if n == 5 {
				r.want(1, 1, behind...)
				if left := len(trips) - r.tombstones(); left < len(trips)/4 {
					t.Errorf("%d of the storm were left when the others had their turn", left)
				}
			}
		}
		r.want(1, 1, append(trips, behind...)...)
	})
}
