package sqlstore

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hookline/hookline/pkg/store"
)

// query builds a statement whose conditions are known only at run time. Every placeholder is numbered in the order of its
// argument, which both databases read the same way.
type query struct {
	text  string
	args  []any
	conds []string
}

// arg adds an argument and returns its placeholder.
func (q *query) arg(v any) string {
	q.args = append(q.args, v)
	return "$" + strconv.Itoa(len(q.args))
}

// where adds a condition that ends in an argument.
func (q *query) where(cond string, v any) { q.conds = append(q.conds, cond+q.arg(v)) }

// in adds a condition on one of several values.
func (q *query) in(column string, values []any) {
	places := make([]string, len(values))
	for i, v := range values {
		places[i] = q.arg(v)
	}
	q.conds = append(q.conds, column+" IN ("+strings.Join(places, ", ")+")")
}

// end completes the statement.
func (q *query) end(tail string) string {
	if len(q.conds) == 0 {
		return q.text + " " + tail
	}
	return q.text + " WHERE " + strings.Join(q.conds, " AND ") + " " + tail
}

// after continues behind a row of a list that is newest first. The first condition follows from the second; by it alone Postgres
// leaves out the partitions that are newer.
func (q *query) after(at, id any) {
	place := q.arg(at)
	q.conds = append(q.conds, "created_at <= "+place, "(created_at, id) < ("+place+", "+q.arg(id)+")")
}

// list is a paginated query, newest first, over rows that have created_at and id.
type list[T any] struct {
	query
	scan func(scanner) (T, error)
	// place is the time and id of a row, id the argument of an id in a cursor.
	place func(T) (time.Time, string)
	id    func(string) (any, error)
	// halves are two conditions of which every row meets one, where each has an index in the list's order: a page is of both their first rows.
	halves []string
}

// page reads one row more than the page has, which shows whether there is a next one.
func (l list[T]) page(ctx context.Context, s *Store, p store.Page) (items []T, next string, err error) {
	statement, err := l.statement(s, p)
	if err != nil {
		return nil, "", err
	}
	size := p.Size()
	items, err = collect(ctx, s.read, l.scan, statement, l.args...)
	if err != nil {
		return nil, "", err
	}
	if len(items) > size {
		items = items[:size]
		next = store.Cursor(l.place(items[size-1]))
	}
	return items, next, nil
}

// statement completes the query for a page, and its arguments.
func (l *list[T]) statement(s *Store, p store.Page) (string, error) {
	if p.Cursor != "" {
		at, text, err := store.ParseCursor(p.Cursor)
		if err != nil {
			return "", err
		}
		id, err := l.id(text)
		if err != nil {
			return "", store.ErrBadCursor
		}
		l.after(s.d.Time(at), id)
	}
	tail := "ORDER BY created_at DESC, id DESC LIMIT " + l.arg(p.Size()+1)
	if len(l.halves) == 0 {
		return l.end(tail), nil
	}
	parts := make([]string, len(l.halves))
	for i, cond := range l.halves {
		part := query{text: l.text, conds: append(slices.Clone(l.conds), cond)}
		parts[i] = "SELECT * FROM (" + part.end(tail) + ") AS part"
	}
	return strings.Join(parts, " UNION ALL ") + " " + tail, nil
}

func textID(id string) (any, error) { return id, nil }
