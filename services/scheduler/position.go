package scheduler

import (
	"time"

	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/webhook"
)

// position is where one partition's shard stands between its log and its index. It is the core of the protocol as plain
// values; only the goroutine that consumes changes it.
//
//	        resynced                      next reaches gate
//	lost ─────────────▶ following, gated ─────────────────▶ following, open
//	 ▲                        │                                   │
//	 └── the index is elsewhere, damaged or away; the log moved ──┘
//
// Nothing is taken from the log while lost: records that were fetched before a rewind would be applied after it, and
// the head of the log skipped. Nothing fires while gated: a trip whose tombstone has not been applied yet looks as if
// it waited.
type position struct {
	// applied is the offset that the index had when it was last seen, or None.
	applied int64
	// next is the offset to take next. Offsets below it have been applied or are gone.
	next int64
	// gate is the end of the log when the position was found.
	gate      int64
	following bool
}

func unknown() position { return position{applied: retryqueue.None} }

// open reports whether due trips may be fired.
func (p position) open() bool { return p.following && p.next >= p.gate }

// remaining is how many offsets there are to the gate.
func (p position) remaining() int64 { return max(0, p.gate-p.next) }

// takes reports whether a record is to be applied.
func (p position) takes(offset int64) bool { return p.following && offset >= p.next }

// advance says that the index now has everything up to and including an offset.
func (p *position) advance(last int64) { p.applied, p.next = last, last+1 }

// extent is what a log holds: the first offset, and the one after the last.
type extent struct{ start, end int64 }

// Reasons for building an index again, a metric label.
const (
	rewindMissing   = "missing"   // the index is gone, or has never been there
	rewindBehind    = "behind"    // the index has gone back in time
	rewindExpired   = "expired"   // the log no longer has what the index needs next
	rewindTruncated = "truncated" // the index is ahead of the log, which is another one
	rewindDamaged   = "damaged"   // the index contradicts itself
)

// plan is how to go on after a position was lost.
type plan struct {
	position
	// reset empties the index first: what it has does not belong to the log from start on.
	reset bool
	// reason is empty where nothing has to be built again.
	reason string
}

// resync decides how to go on: known is the highest offset that this process has seen applied, or None; stored is the
// offset that the index has.
func resync(known, stored int64, log extent, damaged bool) plan {
	fromStart := func(reason string) plan {
		return plan{position: position{applied: retryqueue.None, next: log.start, gate: log.end, following: true}, reset: true, reason: reason}
	}
	switch {
	case damaged:
		return fromStart(rewindDamaged)
	case stored == retryqueue.None && log.start == log.end && known == retryqueue.None:
		return fromStart("")
	case stored == retryqueue.None:
		return fromStart(rewindMissing)
	case stored+1 < log.start:
		return fromStart(rewindExpired)
	case stored+1 > log.end:
		return fromStart(rewindTruncated)
	}
	p := plan{position: position{applied: stored, next: stored + 1, gate: log.end, following: true}}
	if stored < known {
		p.reason = rewindBehind
	}
	return p
}

// dueAt is when a retry is due: its delay after the broker appended it, whatever delay a worker with a wrong clock or a
// defect wrote. longest is the longest delay that a contract has; a fifth is added for jitter.
func dueAt(appended time.Time, delay, longest time.Duration) time.Time {
	return appended.Add(min(max(delay, 0), longest+longest/5))
}

// grid is what the due times of deliveries without room are rounded up to. When there will be room is an estimate, and what is due at
// the same moment is fired with the same requests.
const grid = 100 * time.Millisecond

func onGrid(t time.Time) time.Time { return t.Add(grid - 1).Truncate(grid) }

// noRoom reports whether a delivery waits because its endpoint takes no more for now.
func noRoom(why webhook.Reason) bool {
	return why == webhook.ReasonConcurrency || why == webhook.ReasonRate || why == webhook.ReasonBreaker
}
