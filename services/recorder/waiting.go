package recorder

import (
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// That a delivery exists is written shortestWait after it was made at the soonest, and longestWait at the latest, where the recorder
// keeps up.
const (
	shortestWait = time.Second
	longestWait  = 10 * time.Second
	// In a backlog nothing waits for longer than hardWait after it was read.
	hardWait = time.Minute
	// What waits is bounded: beyond this the oldest go at once.
	mostWaiting      = 100_000
	mostWaitingBytes = 64 << 20
)

// waiting are deliveries that were read and not yet written. Most deliveries end within moments; one that has waited for its attempt
// is then written once, in the state that the attempt has brought it to, instead of inserted as PENDING and soon changed. Their
// positions wait with them. It is used by one goroutine.
type waiting struct {
	rows  []waitingRow // in the order in which they were read
	first int          // how many have gone before rows[0]
	byID  map[uuid.UUID]int
	bytes int
	// said is what attempts said of deliveries that had not been read yet: the newer half and the older one.
	said, saidBefore map[uuid.UUID]said
	// usual is how long after its delivery a first attempt comes at present, as a moving average.
	usual time.Duration
	// behind says that there are attempts to be read, and horizon up to which time all of them have been.
	behind  bool
	horizon time.Time
}

type waitingRow struct {
	record *kgo.Record
	row    store.Delivery
	read   time.Time
	told   bool // an attempt has told as much
}

// said is how far an attempt has brought a delivery.
type said struct {
	progress   int64
	created    time.Time
	generation uint32
	attempts   uint32
}

// covers reports whether nothing is left for the delivery's own record to say.
func (s said) covers(row *store.Delivery) bool {
	return s.generation == row.Generation && s.created.Equal(row.CreatedAt) && s.progress > row.Progress() && s.attempts >= row.AttemptCount
}

// mostSaid bounds each half of what is said ahead.
const mostSaid = 200_000

func (w *waiting) add(r *kgo.Record, row store.Delivery, now time.Time) {
	if w.byID == nil {
		w.byID = map[uuid.UUID]int{}
	}
	entry := waitingRow{record: r, row: row, read: now}
	for _, half := range []map[uuid.UUID]said{w.said, w.saidBefore} {
		if s, ok := half[row.ID]; ok && s.covers(&row) {
			entry.told = true
		}
	}
	if !entry.told {
		w.byID[row.ID] = w.first + len(w.rows)
	}
	w.rows = append(w.rows, entry)
	w.bytes += len(r.Value)
}

// say remembers what an attempt said of a delivery that has not been read yet, or was read long ago.
func (w *waiting) say(row *store.Delivery) {
	if w.said == nil || len(w.said) >= mostSaid {
		w.said, w.saidBefore = make(map[uuid.UUID]said, len(w.said)), w.said
	}
	w.said[row.ID] = said{progress: row.Progress(), created: row.CreatedAt, generation: row.Generation, attempts: row.AttemptCount}
}

// absorb takes note of what an attempt says. A waiting delivery that says nothing beyond it is not written any more.
func (w *waiting) absorb(a *webhook.Attempt, row store.Delivery, at time.Time) {
	if a.Number == 1 && a.Try == 1 && a.Generation == 0 {
		w.usual += (min(max(at.Sub(a.DeliveryCreatedAt), 0), longestWait) - w.usual) / 256
	}
	i, waits := w.byID[row.ID]
	if !waits {
		w.say(&row)
		return
	}
	held := &w.rows[i-w.first]
	merged := row
	if merged.Merge(held.row); held.row.Generation == row.Generation && merged == row {
		held.told = true
		delete(w.byID, row.ID)
	}
}

// wait is how long a delivery waits for its attempt at present.
func (w *waiting) wait() time.Duration { return min(max(shortestWait, 2*w.usual), longestWait) }

// over reports whether the oldest has waited long enough. As long as there are attempts to be read, the time of the records counts: in a
// backlog an attempt is read as much later as it was made later, however long that takes.
func (w *waiting) over(now time.Time) bool {
	oldest := &w.rows[0]
	if waited := now.Sub(oldest.read); !w.behind || waited >= hardWait {
		return waited >= w.wait()
	}
	return w.horizon.Sub(oldest.record.Timestamp) >= w.wait()
}

// due is when to look again whether the oldest has waited long enough; zero where none waits.
func (w *waiting) due(now time.Time) time.Time {
	if len(w.rows) == 0 {
		return time.Time{}
	}
	if at := w.rows[0].read.Add(w.wait()); at.After(now) {
		return at
	}
	return now.Add(shortestWait)
}

// crowded reports that so much waits that no further deliveries should be read; roomy that they may be again.
func (w *waiting) crowded() bool { return len(w.rows) > mostWaiting/2 || w.bytes > mostWaitingBytes/2 }
func (w *waiting) roomy() bool   { return len(w.rows) < mostWaiting/4 && w.bytes < mostWaitingBytes/4 }

// next is the oldest one if it is not to wait any longer.
func (w *waiting) next(now time.Time, all bool) (out waitingRow, ok bool) {
	if len(w.rows) == 0 {
		return waitingRow{}, false
	}
	if !all && !w.rows[0].told && !w.over(now) && len(w.rows) <= mostWaiting && w.bytes <= mostWaitingBytes {
		return waitingRow{}, false
	}
	out = w.rows[0]
	w.rows[0] = waitingRow{}
	w.rows = w.rows[1:]
	if w.byID[out.row.ID] == w.first {
		delete(w.byID, out.row.ID)
	}
	w.first++
	w.bytes -= len(out.record.Value)
	return out, true
}
