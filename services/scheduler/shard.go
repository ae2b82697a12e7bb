package scheduler

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
)

// inFlight marks a held trip whose tombstone has no offset yet.
const inFlight int64 = -1

// shard is one owned partition of the retries topic. The goroutine that consumes moves its position; the one that fires
// reads it.
type shard struct {
	partition int32
	label     metric.MeasurementOption
	// wake is sent to, without waiting, when the firing goroutine should look again.
	wake chan struct{}
	// stop ends the firing goroutine; busy counts it and its flights.
	stop context.CancelFunc
	busy sync.WaitGroup
	pace *pace
	// waiting is how many retries the index had when it was last asked.
	waiting atomic.Int64
	// lastTurn is closed when all commands so far are carried out; of the firing goroutine.
	lastTurn chan struct{}

	mu sync.Mutex
	position
	// joined is set once the group has given the partition to the client, so that it can be sought.
	joined  bool
	damaged bool
	// end is the end of the log as last seen.
	end int64
	// heard is when a record was last taken or the position found.
	heard time.Time
	// until is when the firing goroutine looks again by itself.
	until time.Time
	// held are the trips that this process has fired and whose tombstones it has not applied yet: -1 or the offset of
	// the tombstone. An index that was lost and built again meanwhile has them waiting, and they must not fire again.
	held map[webhook.Trip]int64
	// rejected is the highest offset of a record that was moved to the rejected topic: a rebuild does not move it again.
	rejected int64
	rebuild  time.Time
}

func newShard(partition int32, stop context.CancelFunc) *shard {
	first := make(chan struct{})
	close(first)
	return &shard{
		lastTurn:  first,
		partition: partition,
		label:     telemetry.Label("partition", strconv.Itoa(int(partition))),
		wake:      make(chan struct{}, 1),
		stop:      stop,
		pace:      newPace(partition),
		position:  unknown(),
		held:      map[webhook.Trip]int64{},
		rejected:  -1,
	}
}

// asker names the shard in the books of an outage.
func (sh *shard) asker(what string) string { return what + " " + strconv.Itoa(int(sh.partition)) }

func (sh *shard) wakeUp() {
	select {
	case sh.wake <- struct{}{}:
	default:
	}
}

// lose stops taking and firing until the position has been found again. It may be called by anybody; a finding that has
// been overtaken only has the position found once more.
func (sh *shard) lose(damaged bool) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.following = false
	sh.damaged = sh.damaged || damaged
}

// join says that the client has been given the partition; leave that it has gone.
func (sh *shard) join() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.joined = true
}

func (sh *shard) leave() {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.joined, sh.following = false, false
}

// lost reports whether the position has to be found.
func (sh *shard) lost() bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.joined && !sh.following
}

func (sh *shard) at() position {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.position
}

// found takes up a new position.
func (sh *shard) found(p plan) {
	sh.mu.Lock()
	sh.position = p.position
	sh.letGo()
	sh.damaged = false
	sh.heard = time.Now()
	sh.end = p.gate
	if p.reason != "" {
		sh.rebuild = time.Now()
	}
	sh.mu.Unlock()
	sh.wakeUp()
}

// took says that records up to last are in the index. It wakes the firing goroutine if it sleeps past the earliest
// of them, and reports whether the gate opened, and how long the rebuild took that opened it, if it was one.
func (sh *shard) took(last int64, earliest time.Time) (opened bool, rebuilt time.Duration) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	closed := !sh.open()
	sh.advance(last)
	sh.heard = time.Now()
	sh.end = max(sh.end, last+1)
	sh.letGo()
	opened = closed && sh.open()
	if opened && !sh.rebuild.IsZero() {
		rebuilt = time.Since(sh.rebuild)
		sh.rebuild = time.Time{}
	}
	if opened || (!earliest.IsZero() && earliest.Before(sh.until)) {
		sh.wakeUp()
	}
	return opened, rebuilt
}

// letGo ends the holds whose tombstones the index has: they have been applied, by this process or by another, or compaction
// has removed them because their trips were scheduled again. A hold that stayed would keep such a trip from firing.
func (sh *shard) letGo() {
	for trip, at := range sh.held {
		if at != inFlight && at < sh.next {
			delete(sh.held, trip)
		}
	}
}

// awake says that the firing goroutine is about to look, so that everything that is applied from now on wakes it again.
func (sh *shard) awake() position {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.until = time.Unix(1<<40, 0)
	return sh.position
}

func (sh *shard) sleepsUntil(t time.Time) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	sh.until = t
}

// hold takes the claimed trips that are not in flight, and returns them.
func (sh *shard) hold(claimed []retryqueue.Entry) []retryqueue.Entry {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	fresh := claimed[:0:0]
	for _, e := range claimed {
		if _, held := sh.held[e.Trip]; !held {
			sh.held[e.Trip] = inFlight
			fresh = append(fresh, e)
		}
	}
	return fresh
}

// holds reports whether a trip is held.
func (sh *shard) holds(trip webhook.Trip) bool {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	_, held := sh.held[trip]
	return held
}

// fired says that a held trip has its tombstone; it stays held until the tombstone is applied.
func (sh *shard) fired(trip webhook.Trip, tombstone int64) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if sh.following && sh.next > tombstone {
		delete(sh.held, trip)
	} else {
		sh.held[trip] = tombstone
	}
}

// release lets go of a held trip that was not fired. It is due again when its lease ends.
func (sh *shard) release(trip webhook.Trip) {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	delete(sh.held, trip)
}

// lag is how many records have not been applied.
func (sh *shard) lag() int64 {
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if !sh.following {
		return max(0, sh.end-max(sh.applied+1, 0))
	}
	return max(0, sh.end-sh.next)
}
