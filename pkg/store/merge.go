package store

import (
	"cmp"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Bounds of the numbers inside Progress and LastSeen; larger ones count as the bound.
const (
	maxGeneration = 1<<22 - 1
	maxAttempts   = 1<<32 - 1
	maxTry        = 1<<8 - 1
)

// Progress orders what two records say about one delivery; the higher one is the truth:
//
//	generation | rank of the status | attempts, while PENDING | whether the next attempt is known
//
// Equal ones are decided by UpdatedAt, then by Reason. It is stored with the row.
func (d *Delivery) Progress() int64 {
	p := int64(min(d.Generation, maxGeneration))<<35 | int64(d.Status.Rank())<<33
	if d.Status.Rank() == 0 {
		p |= int64(d.AttemptCount) << 1
		if !d.NextAttemptAt.IsZero() {
			p |= 1
		}
	}
	return p
}

// LastSeen orders what two records say about the last response: generation | attempt | try | whether it was a success.
// Equal ones are decided by the status code, then by the error. It is stored with the row.
func (d *Delivery) LastSeen() int64 {
	p := int64(min(d.Generation, maxGeneration))<<41 | int64(d.LastAttempt)<<9 | int64(min(d.LastTry, maxTry))<<1
	if d.LastStatusCode >= 200 && d.LastStatusCode < 300 {
		p |= 1
	}
	return p
}

// SetLastSeen reads LastAttempt and LastTry out of a stored [Delivery.LastSeen].
func (d *Delivery) SetLastSeen(p int64) {
	d.LastAttempt, d.LastTry = uint32(p>>9&maxAttempts), uint32(p>>1&maxTry)
}

// Merge moves the row forward by what another record, or row, says about the same delivery. It is commutative,
// associative and idempotent: the same records in any order, any number of times, make the same row. The databases do
// the same in SQL, and the conformance suite compares them with this.
//
// Three things move independently: where the delivery stands (by Progress), the count of attempts of the generation, and the
// last response (by LastSeen), because a decision without a request knows neither count nor response.
func (d *Delivery) Merge(o Delivery) {
	createdAt := d.CreatedAt
	if o.CreatedAt.Before(createdAt) {
		createdAt = o.CreatedAt
	}
	attempts := d.AttemptCount
	switch {
	case o.Generation > d.Generation:
		attempts = o.AttemptCount
	case o.Generation == d.Generation:
		attempts = max(attempts, o.AttemptCount)
	}
	last := *d
	if d.compareLast(&o) < 0 {
		last = o
	}
	if d.compareState(&o) < 0 {
		*d = o
	}
	d.CreatedAt, d.AttemptCount = createdAt, attempts
	d.LastAttempt, d.LastTry, d.LastStatusCode, d.LastError = last.LastAttempt, last.LastTry, last.LastStatusCode, last.LastError
}

func (d *Delivery) compareState(o *Delivery) int {
	return cmp.Or(
		cmp.Compare(d.Progress(), o.Progress()),
		d.UpdatedAt.Compare(o.UpdatedAt),
		strings.Compare(string(d.Reason), string(o.Reason)),
	)
}

func (d *Delivery) compareLast(o *Delivery) int {
	return cmp.Or(
		cmp.Compare(d.LastSeen(), o.LastSeen()),
		cmp.Compare(d.LastStatusCode, o.LastStatusCode),
		strings.Compare(string(d.LastError), string(o.LastError)),
	)
}

// SharesRow reports whether a record and a row, or another record, of the same ID belong together; see [Delivery].
func (d *Delivery) SharesRow(o *Delivery) bool {
	return d.Generation > 0 || o.Generation > 0 || d.CreatedAt.Sub(o.CreatedAt).Abs() <= SameRow
}

// Nearest is the row, of several of the same ID, that the record belongs to; nil where it belongs to none.
func (d *Delivery) Nearest(rows []Delivery) (nearest *Delivery) {
	for i := range rows {
		nearest = d.nearer(nearest, &rows[i])
	}
	return nearest
}

func (d *Delivery) nearer(nearest, row *Delivery) *Delivery {
	if row.SharesRow(d) && (nearest == nil || distance(row, d) < distance(nearest, d)) {
		return row
	}
	return nearest
}

// Coalesce merges the records that share a row. A second row of the same ID, which hardly ever is, comes in a further layer: in
// one layer each ID is there once.
func Coalesce(records []Delivery) (layers [][]Delivery) {
	type place struct{ layer, index int }
	rows := make(map[uuid.UUID][]place, len(records))
	for i := range records {
		r := &records[i]
		var nearest *Delivery
		for _, p := range rows[r.ID] {
			nearest = r.nearer(nearest, &layers[p.layer][p.index])
		}
		if nearest != nil {
			nearest.Merge(*r)
			continue
		}
		layer := len(rows[r.ID])
		if layer == len(layers) {
			layers = append(layers, nil)
		}
		rows[r.ID] = append(rows[r.ID], place{layer, len(layers[layer])})
		layers[layer] = append(layers[layer], *r)
	}
	return layers
}

func distance(a, b *Delivery) time.Duration { return a.CreatedAt.Sub(b.CreatedAt).Abs() }
