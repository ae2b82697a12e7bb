package indextest

import (
	"cmp"
	"slices"
	"time"

	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/webhook"
)

// Model is what the timer index of one partition means, in plain Go: the reference that random histories are compared
// with. Times are in ms. It is not safe for concurrent use.
type Model struct {
	Offset  int64
	Waiting map[webhook.Trip]Place
}

// Place is one waiting trip of a [Model].
type Place struct {
	Score, Offset int64
	// Turn orders what has the same score: by record, until it is claimed or moved.
	Turn int64
	Lane uint16
}

// NewModel is an index to which nothing has been applied.
func NewModel() *Model {
	return &Model{Offset: retryqueue.None, Waiting: map[webhook.Trip]Place{}}
}

// Apply is [retryqueue.Index.Apply]; it reports whether the offset was the expected one.
func (m *Model) Apply(expected, last int64, ops []retryqueue.Op) bool {
	if m.Offset != expected {
		return false
	}
	for _, op := range ops {
		if op.Remove {
			delete(m.Waiting, op.Trip)
			continue
		}
		place, waits := m.Waiting[op.Trip]
		if !waits {
			place.Score, place.Turn = op.Due.UnixMilli(), op.Offset/64%4096
		}
		place.Offset, place.Lane = op.Offset, op.Lane
		m.Waiting[op.Trip] = place
	}
	m.Offset = last
	return true
}

// Claim is [retryqueue.Index.Claim] at a moment; false means that the index is behind applied.
func (m *Model) Claim(now int64, n int, lease time.Duration, applied int64) ([]retryqueue.Entry, bool) {
	if m.Offset < applied {
		return nil, false
	}
	var due []webhook.Trip
	for trip, place := range m.Waiting {
		if place.Score <= now {
			due = append(due, trip)
		}
	}
	slices.SortFunc(due, func(a, b webhook.Trip) int {
		x, y := m.Waiting[a], m.Waiting[b]
		return cmp.Or(cmp.Compare(x.Score, y.Score), cmp.Compare(x.Turn, y.Turn), slices.Compare(a.Compact(), b.Compact()))
	})
	entries := make([]retryqueue.Entry, 0, n)
	for _, trip := range due[:min(n, len(due))] {
		place := m.Waiting[trip]
		place.Score, place.Turn = now+lease.Milliseconds(), 0
		m.Waiting[trip] = place
		entries = append(entries, retryqueue.Entry{Trip: trip, Offset: place.Offset, Lane: place.Lane})
	}
	return entries, true
}

// Ack is [retryqueue.Index.Ack].
func (m *Model) Ack(token int64, trips []webhook.Trip) int {
	removed := 0
	for _, trip := range trips {
		if place, waits := m.Waiting[trip]; waits && place.Score == token {
			delete(m.Waiting, trip)
			removed++
		}
	}
	return removed
}

// Move is [retryqueue.Index.Move].
func (m *Model) Move(moves ...retryqueue.Move) (moved int) {
	for _, v := range moves {
		if place, waits := m.Waiting[v.Trip]; waits && place.Score == v.From.UnixMilli() {
			place.Score, place.Turn = v.To.UnixMilli(), 0
			m.Waiting[v.Trip] = place
			moved++
		}
	}
	return moved
}

// Clone is a copy, as a snapshot on disk or a replica would be.
func (m *Model) Clone() *Model {
	c := NewModel()
	c.Offset = m.Offset
	for trip, place := range m.Waiting {
		c.Waiting[trip] = place
	}
	return c
}
