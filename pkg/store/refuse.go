package store

import "errors"

// Isolate finds the rows of a batch that the database refuses, by bisecting it. The function write is to write a part of
// the batch and undo it; it returns an error wrapping [ErrRefused] for a row that the database refuses, any other one ends
// the search. The result is a [RefusedError], or the error that ended the search; or, where every part alone is accepted,
// the first refusal itself.
func Isolate(b *Batch, refusal error, write func(*Batch) error) error {
	found := &RefusedError{}
	if err := isolate(b, 0, b.len(), found, write); err != nil {
		return err
	}
	if len(found.Rows) == 0 {
		return refusal
	}
	return found
}

// ErrRefused marks a driver's error as being about the data of a row.
var ErrRefused = errors.New("row refused")

func isolate(b *Batch, from, to int, found *RefusedError, write func(*Batch) error) error {
	if from == to {
		return nil
	}
	err := write(b.part(from, to))
	switch {
	case err == nil:
		return nil
	case !errors.Is(err, ErrRefused):
		return err
	case to-from == 1:
		found.Rows = append(found.Rows, b.row(from, err))
		return nil
	}
	middle := from + (to-from)/2
	if err := isolate(b, from, middle, found, write); err != nil {
		return err
	}
	return isolate(b, middle, to, found, write)
}

func (b *Batch) len() int { return len(b.Deliveries) + len(b.Attempts) + len(b.Events) }

// part is the rows from..to of the batch, counted through deliveries, attempts and events, without offsets.
func (b *Batch) part(from, to int) *Batch {
	d, a := len(b.Deliveries), len(b.Deliveries)+len(b.Attempts)
	return &Batch{
		Deliveries: cut(b.Deliveries, from, to),
		Attempts:   cut(b.Attempts, from-d, to-d),
		Events:     cut(b.Events, from-a, to-a),
	}
}

func cut[T any](rows []T, from, to int) []T {
	from, to = max(0, min(from, len(rows))), max(0, min(to, len(rows)))
	return rows[from:to]
}

func (b *Batch) row(i int, err error) RefusedRow {
	d, a := len(b.Deliveries), len(b.Deliveries)+len(b.Attempts)
	switch {
	case i < d:
		return RefusedRow{Table: TableDeliveries, Index: i, Err: err}
	case i < a:
		return RefusedRow{Table: TableAttempts, Index: i - d, Err: err}
	default:
		return RefusedRow{Table: TableEvents, Index: i - a, Err: err}
	}
}
