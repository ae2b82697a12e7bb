package delivery

import (
	"sync"
	"time"

	"github.com/hookline/hookline/pkg/offset"
	"github.com/hookline/hookline/pkg/webhook"
)

// partition is what this worker holds of one partition of the deliveries topic while it owns it.
type partition struct {
	number  int32
	tracker *offset.Tracker
	recent  *recentTrips

	mu        sync.Mutex
	records   int
	bytes     int
	window    int
	delivered int // finished since the last measure, and not deferred
	rate      float64
	paused    bool
	revoked   bool
	working   int // attempts that have begun
	idle      chan struct{}
	cfg       Config
	maxBytes  int
	end       int64 // the partition's end when it was last read
}

// minWindow is the least a window shrinks to.
const minWindow = 256

// windowTime is how much work a window holds: enough to keep the worker busy, little enough that what comes behind a
// busy endpoint is seen soon.
//
// A worker whose speed falls to a quarter still comes to all of it within maxWait, so that a busy machine does not look
// like slow endpoints.
const windowTime = maxWait / 4

func newPartition(number int32, tracker *offset.Tracker, cfg Config) *partition {
	return &partition{
		number: number, tracker: tracker, recent: newRecentTrips(cfg.RememberedTrips),
		window: min(minWindow, cfg.WindowRecords), cfg: cfg, maxBytes: cfg.WindowBytes,
	}
}

// hold counts a record that was begun.
func (p *partition) hold(size int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.records++
	p.bytes += size
}

// finish marks a record as finished: its outcome is acknowledged by Kafka, or it needs none. It reports whether a paused
// partition has room again.
//
// What was deferred is no speed: the window would grow with it, more would wait too long, and still more be deferred.
func (p *partition) finish(recordOffset int64, size int, deferred bool) (room bool) {
	p.tracker.Finish(recordOffset)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.records--
	p.bytes -= size
	if !deferred {
		p.delivered++
	}
	return p.paused && !p.fullLocked()
}

// load is how many records are held, and how many are delivered a second.
func (p *partition) load() (records int, perSecond float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.records, p.rate
}

// seen notes the end of the partition.
func (p *partition) seen(end int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end = end
}

// lag is how many offsets lie between the lowest unfinished record and the partition's end.
func (p *partition) lag() int64 {
	at := p.tracker.Lowest()
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(p.end-at, 0)
}

// full reports whether to stop reading the partition. Once it is paused, it stays so until a quarter of the window is free.
// What is left keeps the worker busy until records come again: a fetch that was under way when the partition was resumed
// does not ask for it.
func (p *partition) full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = p.fullLocked()
	return p.paused
}

// The window is of what waits. What has begun is bounded by the slots: if it counted, endpoints that hang would hold the
// partition with it. It counts only against the most that may be held, which is reached where Kafka takes no outcomes.
func (p *partition) fullLocked() bool {
	waiting, records, bytes := p.window, p.cfg.WindowRecords, p.maxBytes
	if p.paused {
		waiting, records, bytes = waiting*3/4, records*3/4, bytes*3/4
	}
	return p.records-p.working >= waiting || p.records >= records || p.bytes >= bytes
}

// fullWindows is how many partitions may hold as many bytes as one may. Where a worker has more of them, each holds less.
const fullWindows = 4

// measure sets the window to about what the partition finishes in windowTime, as one of so many that are owned.
func (p *partition) measure(elapsed time.Duration, owned int) {
	if elapsed <= 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.maxBytes = p.cfg.WindowBytes * fullWindows / max(owned, fullWindows)
	now := float64(p.delivered) / elapsed.Seconds()
	p.delivered = 0
	p.rate = max(now, p.rate+(now-p.rate)/4)
	p.window = min(max(int(p.rate*windowTime.Seconds()), minWindow), p.cfg.WindowRecords)
}

// beginWork reports whether an attempt may begin: not after the partition has been revoked. It also reports whether a
// paused partition has room again, now that it does not wait any more.
func (p *partition) beginWork() (begun, room bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.revoked {
		return false, false
	}
	p.working++
	return true, p.paused && !p.fullLocked()
}

func (p *partition) endWork() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.working--
	if p.working == 0 && p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
}

// revoke lets no further attempt begin; the channel closes when those that have begun are over.
func (p *partition) revoke() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.revoked = true
	idle := make(chan struct{})
	if p.working == 0 {
		close(idle)
	} else {
		p.idle = idle
	}
	return idle
}

// recentTrips is a bounded memory of trips, in two halves: when the younger one is full or old, the elder is forgotten.
// Methods may be called concurrently.
//
// It lives as long as the ownership of the partition: a later owner reads again what was not committed, and must not
// take it for something it has already done.
type recentTrips struct {
	mu         sync.Mutex
	young, old map[webhook.Trip]struct{}
	half       int
	turned     time.Time
}

// rememberFor is how long a trip is remembered at least, as long as there is room.
const rememberFor = 10 * time.Minute

func newRecentTrips(limit int) *recentTrips {
	return &recentTrips{young: map[webhook.Trip]struct{}{}, half: max(limit/2, 1)}
}

// limit sets how many trips are remembered at most, from the next turn of the halves on.
func (r *recentTrips) limit(trips int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.half = max(trips/2, 1)
}

// add reports whether the trip is new.
func (r *recentTrips) add(t webhook.Trip, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.young) >= r.half || now.Sub(r.turned) >= rememberFor {
		r.old = r.young
		if now.Sub(r.turned) >= 2*rememberFor {
			r.old = nil
		}
		r.young, r.turned = make(map[webhook.Trip]struct{}, len(r.old)), now
	}
	if _, seen := r.young[t]; seen {
		return false
	}
	if _, seen := r.old[t]; seen {
		return false
	}
	r.young[t] = struct{}{}
	return true
}
