package delivery

import (
	"sync"
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

// lanes decides which delivery begins its attempt next, and which is put back instead. Every subscription has a lane; all
// share the process's slots, in turns by tenant and lane. The last quarter of the slots is closed to lanes that hold
// theirs for long, and half of that also to lanes nothing is known of, so that however many endpoints hang or are new, one
// that answers still gets slots. Where those that answer take all there are, the others still have a few.
type lanes struct {
	snapshot Snapshot
	begin    func(*item)

	mu      sync.Mutex
	byID    map[string]*lane
	awake   []*lane // those in which something may be to be done
	rings   [classes]*ring
	turn    class
	running int
	held    [classes]int // of these, by the class of their lanes
	max     int
	perLane int
	part    float64 // of the topic's partitions, owned by this worker
	closed  bool
	// lookedOver is when lanes that nobody uses were forgotten last.
	lookedOver time.Time

	// direct is set while whoever gives a slot back may take it again: the first item to begin is then left in follower.
	direct   bool
	follower *item
}

const (
	// inARow is how often a lane may keep a slot.
	inARow = 4
	// atOnce is how long an attempt may take where that is so: others wait for all of them.
	atOnce = 100 * time.Millisecond
)

// putBack is a delivery that waits elsewhere.
type putBack struct {
	it     *item
	delay  time.Duration
	reason webhook.Reason
}

func newLanes(cfg Config, snapshot Snapshot, begin func(*item)) *lanes {
	l := &lanes{snapshot: snapshot, begin: begin, byID: map[string]*lane{}, max: cfg.MaxInflight, perLane: cfg.EndpointInflight, part: 1}
	for i := range l.rings {
		l.rings[i] = newRing(cfg.TenantWeights)
	}
	return l
}

// room is how many slots may be taken when a lane of a class begins something.
func (l *lanes) room(c class) int {
	return l.max - [classes]int{quick: 0, fresh: l.max / 8, slow: l.max / 4}[c]
}

// may reports whether a lane of a class may have a slot.
func (l *lanes) may(c class) bool {
	if l.running < l.room(c) {
		return true
	}
	return l.running < l.max && l.held[c] < max(1, l.max/16) && l.held[fresh]+l.held[slow] < l.room(fresh)
}

// mayBegin reports whether a lane of a class is in line and may have a slot.
func (l *lanes) mayBegin(c class) bool { return l.rings[c].turns.len() > 0 && l.may(c) }

// reclassify notes what class a lane has become, and counts its slots under that.
func (l *lanes) reclassify(ln *lane, now time.Time) class {
	l.held[ln.holding] -= ln.running
	ln.holding = ln.classify(now)
	l.held[ln.holding] += ln.running
	return ln.holding
}

// offer queues an item, or says why and for how long to put it back where its endpoint would not come to it soon.
func (l *lanes) offer(it *item, now time.Time) (putBack, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := l.of(it.delivery)
	ln.usedAt = now
	l.rouse(ln, now)
	if reason := ln.refusal(now, ln.queue.len()); reason != webhook.ReasonNone {
		return putBack{it, ln.deferral(now, reason), reason}, false
	}
	it.lane = ln
	ln.queue.push(it)
	l.wake(ln, now)
	l.dispatch(now)
	return putBack{}, true
}

// of is the lane of a delivery. The config is asked only where it has changed: with many endpoints a look-up costs several
// accesses to memory that no cache holds.
func (l *lanes) of(d *webhook.Delivery) *lane {
	at := l.snapshot.Offset()
	ln := l.byID[d.SubscriptionID]
	if ln != nil && ln.seen == at {
		return ln
	}
	sub, _ := l.snapshot.Subscription(d.SubscriptionID) // nil where it is unknown
	if ln == nil {
		ln = &lane{id: d.SubscriptionID, tenant: d.Event.Tenant}
		l.byID[ln.id] = ln
		ln.forget(sub, l.perLane)
	} else if ln.subscription != sub {
		ln.forget(sub, l.perLane)
	}
	ln.seen = at
	return ln
}

// resume queues the second try of an attempt, before everything else of its lane.
func (l *lanes) resume(it *item, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	it.lane.urgent.push(it)
	l.rouse(it.lane, now)
	l.wake(it.lane, now)
	l.dispatch(now)
}

// release gives back the slot of an item's attempt, with what it says about the endpoint. hold is how long the endpoint has asked
// for nothing more. It returns an item that has got a slot thereby, for the caller to begin, or nil: to hand it to another
// goroutine costs more than what is left to do with the attempt.
func (l *lanes) release(it *item, begun, now time.Time, says verdict, hold time.Duration) *item {
	l.mu.Lock()
	defer l.mu.Unlock()
	ln := it.lane
	busy := ln.running >= ln.share.bound()
	l.running--
	l.held[ln.holding]--
	ln.running--
	ln.progressed = now
	ln.ended++
	ln.share.learn(begun, now, says, busy)
	ln.breaker.learn(begun, now, says)
	if until := now.Add(min(hold, longestHold)); hold > 0 && until.After(ln.heldUntil) {
		ln.heldUntil = until
	}
	l.direct, l.follower = true, nil
	kept := l.keep(it, now)
	l.wake(ln, now)
	if kept {
		l.rings[quick].charge(ln.tenant)
	}
	l.dispatch(now)
	l.direct = false
	return l.follower
}

// keep has a lane whose endpoint answers at once keep the slot of an item for its next one, a few times in a row, unless lanes of
// another class may have it. What there is about the endpoint, down to the connection, is in the processor's caches then, which counts
// where there are thousands. The lane's tenant is to be charged for it.
func (l *lanes) keep(it *item, now time.Time) bool {
	ln := it.lane
	if it.row >= inARow || ln.holds(now) > atOnce || ln.waiting() == 0 || !ln.share.known() || !ln.free(now) || l.mayBegin(fresh) || l.mayBegin(slow) {
		return false
	}
	l.beginNext(ln, now)
	if l.follower == nil {
		return false
	}
	l.follower.row = it.row + 1
	return true
}

// deferral is how long to put back a delivery whose turn had come.
func (l *lanes) deferral(ln *lane, now time.Time, reason webhook.Reason) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return ln.deferral(now, reason)
}

// limit bounds a lane: requests a second in all workers together, 0 for any number, and requests under way, 0 for the
// default of the process.
func (l *lanes) limit(ln *lane, perSecond float64, concurrency int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if concurrency <= 0 {
		concurrency = l.perLane
	}
	ln.share.ceiling, ln.perSecond = concurrency, perSecond
	ln.rate.set(perSecond, l.part)
}

// own sets which part of the topic's partitions this worker has: so much of every rate is its own.
func (l *lanes) own(part float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.part == part {
		return
	}
	l.part = part
	for _, ln := range l.byID {
		ln.rate.set(ln.perSecond, part)
	}
}

// underway is how many slots are taken.
func (l *lanes) underway() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.running
}

// rouse has a lane swept from now on, until it rests.
func (l *lanes) rouse(ln *lane, now time.Time) {
	if !ln.awake {
		ln.measure(now)
		ln.awake = true
		l.awake = append(l.awake, ln)
	}
}

// sweep takes what would wait too long from the queues, looks again at lanes that were waiting, and forgets lanes that
// nobody uses.
func (l *lanes) sweep(now time.Time) []putBack {
	l.mu.Lock()
	defer l.mu.Unlock()
	var late []putBack
	awake := l.awake[:0]
	for _, ln := range l.awake {
		ln.measure(now)
		if ln.awake = !ln.rests(); !ln.awake {
			continue
		}
		awake = append(awake, ln)
		for ln.queue.len() > 0 {
			reason := ln.refusal(now, ln.queue.len()-1)
			if reason == webhook.ReasonNone {
				break
			}
			late = append(late, putBack{ln.queue.popBack(), ln.deferral(now, reason), reason})
		}
		l.wake(ln, now)
	}
	clear(l.awake[len(awake):])
	l.awake = awake
	l.dispatch(now)
	l.forgetUnused(now)
	return late
}

func (l *lanes) forgetUnused(now time.Time) {
	if now.Sub(l.lookedOver) < forgetLane/10 {
		return
	}
	l.lookedOver = now
	for id, ln := range l.byID {
		if !ln.awake && now.Sub(ln.usedAt) > forgetLane {
			delete(l.byID, id)
		}
	}
}

// close lets nothing queued begin any more, except the second tries of attempts that have begun.
func (l *lanes) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}

// wake puts a lane in line for a slot where it has something to begin, now or when its rate permits.
func (l *lanes) wake(ln *lane, now time.Time) {
	class := l.reclassify(ln, now)
	if ln.queued || ln.waiting() == 0 || !ln.free(now) {
		return
	}
	if ln.urgent.len() == 0 {
		if l.closed {
			return
		}
		if wait := ln.startsAt().Sub(now); wait > 0 {
			l.wakeLater(ln, wait)
			return
		}
	}
	ln.queued, ln.class = true, class
	l.rings[ln.class].push(ln)
}

func (l *lanes) wakeLater(ln *lane, wait time.Duration) {
	if ln.timer != nil {
		ln.timer.Reset(wait)
		return
	}
	ln.timer = time.AfterFunc(wait, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		now := time.Now()
		l.wake(ln, now)
		l.dispatch(now)
	})
}

// dispatch gives free slots to the lanes whose turn it is.
func (l *lanes) dispatch(now time.Time) {
	for ln := l.pick(); ln != nil; ln = l.pick() {
		ln.queued = false
		// Much may have changed since the lane was put in line.
		if ln.class == l.reclassify(ln, now) && ln.free(now) {
			l.beginNext(ln, now)
		}
		l.wake(ln, now)
	}
}

// pick is a lane that may have a slot. The classes take turns, as far as there is room for each.
func (l *lanes) pick() *lane {
	for range classes {
		l.turn = (l.turn + 1) % classes
		if l.may(l.turn) {
			if ln := l.rings[l.turn].pop(); ln != nil {
				return ln
			}
		}
	}
	return nil
}

func (l *lanes) beginNext(ln *lane, now time.Time) {
	var it *item
	switch {
	case ln.urgent.len() > 0:
		it = ln.urgent.pop()
	case ln.queue.len() > 0 && !l.closed && !ln.startsAt().After(now):
		it = ln.queue.pop()
	default:
		return
	}
	if ln.running == 0 {
		ln.progressed = now
	}
	it.row = 0
	l.running++
	l.held[ln.holding]++
	ln.running++
	ln.rate.take(now)
	if l.direct && l.follower == nil {
		l.follower = it
		return
	}
	l.begin(it)
}
