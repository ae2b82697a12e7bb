package delivery

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// lanes decides which queued item begins its attempt next. Every subscription has a lane with a queue and a bound on its
// own requests; all share the process's slots. While slots are plenty a lane may use as many as its bound permits. The
// last quarter of them is for lanes that give theirs back soon and have less than their fair share, so that however many
// endpoints hang, one that answers still gets slots.
//
//	idle ──offer──▶ ready ──(slot)──▶ running …
//	                  └──(slots scarce and share used up)──▶ starved ──(a slot of its own or of all is free)──▶ ready
type lanes struct {
	mu      sync.Mutex
	byID    map[string]*lane
	ready   fifo[*lane]
	starved fifo[*lane]
	running int
	max     int
	perLane int
	closed  bool
	begin   func(*item)
}

type laneState int

const (
	laneIdle laneState = iota
	laneReady
	laneStarved
)

type lane struct {
	id      string
	state   laneState
	queue   fifo[*item]
	urgent  fifo[*item] // second tries of attempts that have begun
	running int
	limit   int
	// latency is a moving average of how long a slot is held; progressed is when one was last given back, or when the
	// lane began to work.
	latency    time.Duration
	progressed time.Time
	// rate is a moving average of attempts finished in a second while there were any to make; finished counts them
	// since the last measure.
	rate     float64
	finished int
	// clearsAt is when what was deferred so far will have drained, at the lane's rate.
	clearsAt time.Time
	usedAt   time.Time
	resolved atomic.Pointer[resolved]
}

// Bounds of waiting in a lane, and of deferral.
const (
	maxWait      = 2 * time.Second
	minDeferral  = 5 * time.Second
	maxDeferral  = 10 * time.Minute
	firstLatency = 100 * time.Millisecond
	slowHold     = time.Second
	leastRate    = 0.1 // a second
	forgetLane   = 5 * time.Minute
)

func newLanes(limit, perLane int, begin func(*item)) *lanes {
	return &lanes{byID: map[string]*lane{}, max: limit, perLane: perLane, begin: begin}
}

// offer queues an item, or says how long to defer it where its endpoint would not come to it soon.
func (l *lanes) offer(it *item, now time.Time) (deferral time.Duration, queued bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.byID[it.delivery.SubscriptionID]
	if ln == nil {
		ln = &lane{
			id: it.delivery.SubscriptionID, limit: l.perLane, latency: firstLatency,
			rate: float64(l.perLane) / firstLatency.Seconds(),
		}
		l.byID[ln.id] = ln
	}
	ln.usedAt = now
	if ln.queue.len() > 0 && ln.wait() > maxWait {
		return ln.deferral(now), false
	}
	it.lane = ln
	ln.queue.push(it)
	l.wake(ln, now)
	l.dispatch(now)
	return 0, true
}

// resume queues the second try of an attempt, before everything else of its lane.
func (l *lanes) resume(it *item, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	it.lane.urgent.push(it)
	l.wake(it.lane, now)
	l.dispatch(now)
}

// release gives back the slot of an item that took held.
func (l *lanes) release(ln *lane, now time.Time, held time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
	ln.running--
	ln.latency += (held - ln.latency) / 8
	ln.progressed = now
	ln.finished++
	l.wake(ln, now)
	l.dispatch(now)
}

// setLimit bounds the requests of a lane; 0 is the default of the process.
func (l *lanes) setLimit(ln *lane, limit int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if limit <= 0 {
		limit = l.perLane
	}
	ln.limit = limit
}

// measure takes the rates of all lanes over the time since the last measure, and takes what would wait too long from
// their queues, with a deferral for each item. It also forgets lanes that nobody uses.
func (l *lanes) measure(now time.Time, elapsed time.Duration) map[*item]time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	late := map[*item]time.Duration{}
	for id, ln := range l.byID {
		ln.measure(elapsed)
		for ln.queue.len() > 0 && ln.wait() > maxWait {
			late[ln.queue.popBack()] = ln.deferral(now)
		}
		if ln.running == 0 && ln.queue.len() == 0 && ln.urgent.len() == 0 && now.Sub(ln.usedAt) > forgetLane {
			delete(l.byID, id)
		}
	}
	return late
}

// close lets nothing queued begin any more, except the second tries of attempts that have begun.
func (l *lanes) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}

// wake makes a lane ready where it has something to begin.
func (l *lanes) wake(ln *lane, now time.Time) {
	if ln.state == laneReady || ln.queue.len()+ln.urgent.len() == 0 || ln.running >= ln.limit {
		return
	}
	if ln.state == laneStarved && l.starves(ln, now) {
		return
	}
	// A lane that was starved is still in that list; its entry is skipped when it is met there.
	ln.state = laneReady
	l.ready.push(ln)
}

func (l *lanes) dispatch(now time.Time) {
	if !l.scarce() {
		for l.starved.len() > 0 {
			if ln := l.starved.pop(); ln.state == laneStarved {
				ln.state = laneIdle
				l.wake(ln, now)
			}
		}
	}
	for l.running < l.max && l.ready.len() > 0 {
		ln := l.ready.pop()
		ln.state = laneIdle
		if l.starves(ln, now) {
			ln.state = laneStarved
			l.starved.push(ln)
			continue
		}
		it := l.next(ln)
		if it == nil {
			continue
		}
		if ln.running == 0 {
			ln.progressed = now
		}
		l.running++
		ln.running++
		l.wake(ln, now)
		l.begin(it)
	}
}

func (l *lanes) next(ln *lane) *item {
	switch {
	case ln.running >= ln.limit:
		return nil
	case ln.urgent.len() > 0:
		return ln.urgent.pop()
	case ln.queue.len() > 0 && !l.closed:
		return ln.queue.pop()
	default:
		return nil
	}
}

func (l *lanes) scarce() bool { return l.running >= l.max-l.max/4 }

// starves reports whether a lane must leave the slots that are left to others.
func (l *lanes) starves(ln *lane, now time.Time) bool {
	share := max(l.max/max(len(l.byID), 1), 1)
	return l.scarce() && (ln.running >= share || ln.holds(now) > slowHold)
}

// holds estimates how long an attempt holds its slot: the average, or how long none has been given back where that is
// longer.
func (ln *lane) holds(now time.Time) time.Duration {
	if ln.running == 0 {
		return ln.latency
	}
	return max(ln.latency, now.Sub(ln.progressed))
}

// measure moves the rate towards what was finished. A lane that was idle or short of work keeps its rate; one that has
// work and finishes nothing loses it quickly.
func (ln *lane) measure(elapsed time.Duration) {
	if elapsed <= 0 || (ln.running == 0 && ln.finished == 0) {
		return
	}
	now := float64(ln.finished) / elapsed.Seconds()
	ln.finished = 0
	switch {
	case now >= ln.rate:
		ln.rate = now
	case now == 0:
		ln.rate = max(ln.rate/4, leastRate)
	case ln.queue.len() > 0:
		ln.rate += (now - ln.rate) / 2
	}
}

// wait estimates how long a further item would be queued.
func (ln *lane) wait() time.Duration {
	return time.Duration(float64(ln.queue.len()+1) / ln.rate * float64(time.Second))
}

// deferral spaces what is put back at the rate at which the lane drains, so that it does not all come back at once.
func (ln *lane) deferral(now time.Time) time.Duration {
	if ln.clearsAt.Before(now) {
		ln.clearsAt = now
	}
	ln.clearsAt = ln.clearsAt.Add(time.Duration(float64(time.Second) / ln.rate))
	wait := min(max(ln.clearsAt.Sub(now), minDeferral), maxDeferral)
	return wait + time.Duration(rand.Float64()*0.2*float64(wait))
}

// fifo is a queue whose memory follows its length.
type fifo[T any] struct {
	items []T
	head  int
}

func (q *fifo[T]) len() int { return len(q.items) - q.head }
func (q *fifo[T]) push(v T) { q.items = append(q.items, v) }

func (q *fifo[T]) popBack() (v T) {
	var zero T
	last := len(q.items) - 1
	v, q.items[last] = q.items[last], zero
	q.items = q.items[:last]
	return v
}

func (q *fifo[T]) pop() (v T) {
	var zero T
	v, q.items[q.head] = q.items[q.head], zero
	q.head++
	switch {
	case q.head == len(q.items):
		q.items, q.head = q.items[:0], 0
	case q.head > 64 && q.head > len(q.items)/2:
		rest := copy(q.items, q.items[q.head:])
		clear(q.items[rest:])
		q.items, q.head = q.items[:rest], 0
	}
	return v
}
