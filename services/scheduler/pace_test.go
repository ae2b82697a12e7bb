package scheduler

import (
	"container/heap"
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hookline/hookline/pkg/offset"
	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/webhook"
)

// road is a delivery path as plain values: a queue that finishes so many a second, in their order, and commits twice a
// second. One shard fires into it what is due, and new events come besides.
type road struct {
	now      time.Time
	capacity int // a second
	events   int // new ones a second
	due      waiting
	path     *path
	pace     *pace
	resume   time.Time

	queue     []passing
	done      int // of queue
	finished  map[string]int
	slowest   time.Duration // that a new event has waited
	lastRetry map[uint16]time.Time
}

type passing struct {
	kind  string
	lane  uint16
	since time.Time
}

type dueTrip struct {
	at   time.Time
	nth  int
	lane uint16
}

// waiting is a timer index, as a heap.
type waiting []dueTrip

func (w waiting) Len() int { return len(w) }
func (w waiting) Less(i, j int) bool {
	return w[i].at.Before(w[j].at) || (w[i].at.Equal(w[j].at) && w[i].nth < w[j].nth)
}
func (w waiting) Swap(i, j int) { w[i], w[j] = w[j], w[i] }
func (w *waiting) Push(x any)   { *w = append(*w, x.(dueTrip)) }
func (w *waiting) Pop() any {
	last := (*w)[len(*w)-1]
	*w = (*w)[:len(*w)-1]
	return last
}

func newRoad(capacity, events int) *road {
	r := &road{
		now: time.UnixMilli(1_763_772_000_000), capacity: capacity, events: events, path: newPath(), pace: newPace(),
		finished: map[string]int{}, lastRetry: map[uint16]time.Time{},
	}
	r.path.saw(map[int32]offset.Standing{0: {}}, 1, r.now)
	return r
}

func (r *road) add(n int, lane uint16) {
	for range n {
		r.due = append(r.due, dueTrip{at: r.now, nth: len(r.due), lane: lane})
	}
	heap.Init(&r.due)
}

const (
	tick = 50 * time.Millisecond
	// seenAfter is the interval of looks with that of the workers' commits, and as much again for both.
	seenAfter = 300 * time.Millisecond
)

func (r *road) run(d time.Duration) {
	for began := r.now; r.now.Sub(began) < d; r.now = r.now.Add(tick) {
		for range r.events / int(time.Second/tick) {
			r.queue = append(r.queue, passing{kind: "event", since: r.now})
		}
		r.fire()
		r.deliver()
		if r.now.UnixMilli()%seenAfter.Milliseconds() == 0 {
			points := map[int32]offset.Standing{0: offset.StandingOf(int64(r.done), "")}
			r.path.saw(points, 1, r.now)
			r.pace.settle(points, r.path.stay(), r.now)
		}
	}
}

func (r *road) deliver() {
	for range min(r.capacity/int(time.Second/tick), len(r.queue)-r.done) {
		p := r.queue[r.done]
		r.done++
		r.finished[p.kind]++
		if p.kind == "event" {
			r.slowest = max(r.slowest, r.now.Sub(p.since))
		} else {
			r.lastRetry[p.lane] = r.now
		}
	}
}

func (r *road) fire() {
	for !r.now.Before(r.resume) {
		budget, rate := r.path.bounds(r.now)
		n := r.pace.wants(budget, rate, r.now)
		byTrip := map[webhook.Trip]dueTrip{}
		var entries []retryqueue.Entry
		for len(entries) < n && len(r.due) > 0 && !r.due[0].at.After(r.now) {
			d := heap.Pop(&r.due).(dueTrip)
			e := retryqueue.Entry{Trip: webhook.Trip{Number: uint32(d.nth)}, Lane: d.lane}
			byTrip[e.Trip] = d
			entries = append(entries, e)
		}
		if n == 0 {
			r.path.crowded.Store(true)
		}
		if len(entries) == 0 {
			return
		}
		claim := retryqueue.Claim{Now: r.now}
		if len(r.due) > 0 && !r.due[0].at.After(r.now) {
			claim.Due = 1
		}
		admitted, later := r.pace.admit(claim, entries, budget, rate)
		for _, e := range admitted {
			r.pace.book(e, 0, int64(len(r.queue)), r.now)
			r.queue = append(r.queue, passing{kind: "retry", lane: e.Lane, since: r.now})
		}
		for _, l := range later {
			d := byTrip[l.Trip]
			d.at = l.Due
			heap.Push(&r.due, d)
		}
		if len(later) > 0 {
			r.path.crowded.Store(true)
			r.resume = r.now.Add(breather)
		}
	}
}

func TestAStormLeavesNewEventsAtLeastHalfOfThePath(t *testing.T) {
	for name, test := range map[string]struct{ capacity, events int }{
		"a fast path": {4000, 2000}, "a slow path": {1000, 500}, "few events": {2000, 100},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRoad(test.capacity, test.events)
			r.add(40*test.capacity, 1)
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
			for lane := range test.lanes {
				r.add(60*test.capacity/int(test.lanes), lane)
			}
			r.run(time.Minute)
			if got, want := r.finished["retry"], 60*test.capacity*85/100; got < want {
				t.Errorf("%d retries finished in a minute, want %d", got, want)
			}
		})
	}
}

func TestAnEndpointIsNotHeldUpByTheStormOfAnother(t *testing.T) {
	r := newRoad(2000, 0)
	r.add(100_000, 1)
	r.add(200, 2)
	r.run(20 * time.Second)
	if at, ok := r.lastRetry[2]; !ok || r.finished["retry"] < 20*2000*8/10 {
		t.Errorf("the storm of one endpoint kept another from firing: last %v, %d finished", at, r.finished["retry"])
	}
	for _, d := range r.due {
		if d.lane == 2 {
			t.Fatal("retries of the small endpoint still wait")
		}
	}
}

// None of the hundred has more than its share, so that nothing of theirs is put off for its own sake.
func TestAnEndpointIsNotHeldUpByTheStormOfAHundredOthers(t *testing.T) {
	r := newRoad(500, 0)
	for n := range 25_000 {
		r.due = append(r.due, dueTrip{at: r.now, nth: n, lane: uint16(n % 100)})
	}
	for n := range 50 {
		r.due = append(r.due, dueTrip{at: r.now.Add(time.Second), nth: 25_000 + n, lane: 100})
	}
	heap.Init(&r.due)
	r.run(25 * time.Second) // half of the storm's time
	if r.finished["retry"] < 25*500*85/100 {
		t.Errorf("%d finished", r.finished["retry"])
	}
	waiting := 0
	for _, d := range r.due {
		if d.lane == 100 {
			waiting++
		}
	}
	if at := r.lastRetry[100]; at.IsZero() || waiting > 0 {
		t.Errorf("%d retries of the small endpoint still wait, the last came at %v", waiting, at)
	}
}

func TestWorkersThatStandStillAreNotFiredAtWithoutEnd(t *testing.T) {
	r := newRoad(0, 0)
	r.add(100_000, 1)
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
	p, now := newPace(), time.UnixMilli(0)
	entries := []retryqueue.Entry{{Lane: 1}, {Lane: 1}}
	p.admit(retryqueue.Claim{}, entries, 10, 1)
	p.book(entries[0], 0, 1000, now)
	p.drop(entries[1])
	for _, test := range []struct {
		after time.Duration
		left  bool
	}{{time.Minute, true}, {forgotten + time.Second, false}} {
		if left, _ := p.settle(map[int32]offset.Standing{0: offset.StandingOf(5, "")}, 0, now.Add(test.after)); left != test.left {
			t.Errorf("after %v: left %v", test.after, left)
		}
	}
}

func TestWhatIsFinishedStaysOnTheBooksForAsLongAsItIsAskedTo(t *testing.T) {
	p, now := newPace(), time.UnixMilli(0)
	entry := retryqueue.Entry{Lane: 1}
	p.admit(retryqueue.Claim{}, []retryqueue.Entry{entry}, 1, 1)
	p.book(entry, 0, 4, now)
	for _, test := range []struct {
		after time.Duration
		left  bool
	}{{ahead - 1, true}, {ahead, false}} {
		if left, _ := p.settle(map[int32]offset.Standing{0: offset.StandingOf(5, "")}, ahead, now.Add(test.after)); left != test.left {
			t.Errorf("after %v: left %v", test.after, left)
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
			p.deferred(webhook.ReasonConcurrency)
		}
		p.deferred(webhook.ReasonHTTPStatus)
		p.saw(map[int32]offset.Standing{0: offset.StandingOf(n*5000, "")}, 1, now.Add(time.Duration(n)*time.Second))
	}
	if _, rate := p.bounds(now.Add(200 * time.Second)); rate < 900 || rate > 1100 {
		t.Errorf("%v a second, want 1,000", rate)
	}
	if p.stay() != ahead {
		t.Error("what is put back makes room at once")
	}
	p.saw(map[int32]offset.Standing{0: offset.StandingOf(200*5000, "")}, 1, now.Add(200*time.Second))
	if p.stay() != 0 {
		t.Error("what is delivered does not make room at once")
	}
}

func TestAPathOfWhichNothingIsKnownOfLateGetsAsMuchAsAnyPathTakes(t *testing.T) {
	now := time.UnixMilli(1_763_772_000_000)
	const first = firstRate * int(ahead/time.Second)
	never, fast, uncommitted := newPath(), newPath(), newPath()
	for n := range int64(100) {
		fast.crowded.Store(true)
		fast.saw(map[int32]offset.Standing{0: offset.StandingOf(n*5000, "")}, 1, now.Add(time.Duration(n-99)*time.Second))
	}
	uncommitted.saw(nil, 1, now)
	later := now.Add(stale + time.Second)
	for name, test := range map[string]struct {
		path    *path
		at      time.Time
		atLeast int
		atMost  int
	}{
		"never looked at": {never, now, first, first}, "fast": {fast, now, 4 * first, 6 * first}, "fast, some time ago": {fast, later, first, first},
		"without a commit": {uncommitted, now, unbounded, unbounded}, "without a commit some time ago": {uncommitted, later, first, first},
	} {
		if budget, _ := test.path.bounds(test.at); budget < test.atLeast || budget > test.atMost {
			t.Errorf("%s: %d at once, want %d to %d", name, budget, test.atLeast, test.atMost)
		}
	}
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
		r.after(2 * time.Minute)
		r.mu.Lock()
		fired := len(r.fired)
		r.mu.Unlock()
		if fired < 2 || fired > firstRate*int(ahead.Seconds()) {
			t.Errorf("%d fired while nobody took them", fired)
		}
		for range 60 {
			commit()
			r.after(time.Second)
		}
		r.want(1, 1, trips...)
	})
}
