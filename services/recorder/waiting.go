package recorder

import (
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// That a delivery exists is written shortestWait after it was read at the soonest, and longestWait at the latest.
const (
	shortestWait = time.Second
	longestWait  = 10 * time.Second
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
	// usual is how long after its delivery a first attempt comes at present, as a moving average.
	usual time.Duration
}

type waitingRow struct {
	record *kgo.Record
	row    store.Delivery
	read   time.Time
	told   bool // an attempt has told as much
}

func (w *waiting) add(r *kgo.Record, row store.Delivery, now time.Time) {
	if w.byID == nil {
		w.byID = map[uuid.UUID]int{}
	}
	w.byID[row.ID] = w.first + len(w.rows)
	w.rows = append(w.rows, waitingRow{record: r, row: row, read: now})
	w.bytes += len(r.Value)
}

// absorb takes note of what an attempt says. A waiting delivery that says nothing beyond it is not written any more.
func (w *waiting) absorb(a *webhook.Attempt, row store.Delivery, at time.Time) {
	if a.Number == 1 && a.Try == 1 && a.Generation == 0 {
		w.usual += (min(max(at.Sub(a.DeliveryCreatedAt), 0), longestWait) - w.usual) / 256
	}
	i, waits := w.byID[row.ID]
	if !waits {
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

// due is when the oldest has waited long enough; zero where none waits.
func (w *waiting) due() time.Time {
	if len(w.rows) == 0 {
		return time.Time{}
	}
	return w.rows[0].read.Add(w.wait())
}

// next is the oldest one if it is not to wait any longer.
func (w *waiting) next(now time.Time, all bool) (out waitingRow, ok bool) {
	if len(w.rows) == 0 {
		return waitingRow{}, false
	}
	if !all && !w.rows[0].told && now.Before(w.due()) && len(w.rows) <= mostWaiting && w.bytes <= mostWaitingBytes {
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
