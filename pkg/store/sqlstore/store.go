// Package sqlstore is what Postgres and SQLite have in common: the control plane with its outbox, and the queries of the
// audit, in the SQL that both understand. pgstore and sqlitestore embed its Store and add what differs: how a database is
// opened and migrated, how batches are written, and how old rows go.
package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/store"
)

// Dialect is what differs between the databases for this package.
type Dialect struct {
	// Time and UUID turn a value into an argument of the column type that the schema gives it.
	Time func(time.Time) any
	UUID func(uuid.UUID) any
	// Lock is the statement at the start of each transaction that changes the control plane. It makes these transactions one
	// after the other, so that outbox ids grow in the order of the commits. Empty where writers are one anyway.
	Lock string
	// Error turns a driver's error into one that wraps store's errors. It returns others as they are.
	Error func(error) error
}

// Store is the control plane and the queries. All methods may be called concurrently.
type Store struct {
	read, write *sql.DB
	d           Dialect
}

// New takes the handles for reading and for writing, which may be one. Closing them is the caller's matter.
func New(read, write *sql.DB, d Dialect) *Store { return &Store{read: read, write: write, d: d} }

// Ping returns an error wrapping [store.ErrUnavailable] while the database is away.
func (s *Store) Ping(ctx context.Context) error {
	return s.wrap("ping database", s.read.PingContext(ctx))
}

// wrap says once what was being done. A nil error stays nil.
func (s *Store) wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, sql.ErrNoRows) {
		err = store.ErrNotFound
	}
	return fmt.Errorf("%s: %w", doing, s.d.Error(err))
}

// aborted carries an error of a caller's function through [Store.change] unchanged.
type aborted struct{ err error }

func (a aborted) Error() string { return a.err.Error() }

// change runs f in a transaction of the control plane, with the answer that the context wants kept. It rolls back on any error.
func (s *Store) change(ctx context.Context, doing string, f func(tx *sql.Tx) error) error {
	err := s.inTx(ctx, func(tx *sql.Tx) error {
		if err := f(tx); err != nil {
			return err
		}
		if claim, answer, until := store.AnswerOf(ctx); answer != nil {
			return s.keep(ctx, tx, claim, answer, until)
		}
		return nil
	})
	var abort aborted
	if errors.As(err, &abort) {
		return abort.err
	}
	return s.wrap(doing, err)
}

func (s *Store) inTx(ctx context.Context, f func(tx *sql.Tx) error) error {
	tx, err := s.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	// After a commit this does nothing.
	defer func() { _ = tx.Rollback() }()
	if s.d.Lock != "" {
		if _, err := tx.ExecContext(ctx, s.d.Lock); err != nil {
			return err
		}
	}
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// querier is a transaction or a handle.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// scanner is a row or rows.
type scanner interface{ Scan(into ...any) error }

// collect reads all rows of a query.
func collect[T any](ctx context.Context, q querier, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	var items []T
	for rows.Next() {
		item, err := scan(rows)
		if err != nil {
			return nil, err
		}
		items = append(items, item)
	}
	return items, rows.Err()
}

// milli is a time of the control plane: whole milliseconds, as on the config topic.
func milli(t time.Time) time.Time { return store.Time(t).Truncate(time.Millisecond) }

// dated is a time that lists are ordered by: now, where none is given.
func dated(t time.Time) time.Time {
	if t.IsZero() {
		t = time.Now()
	}
	return milli(t)
}

// at scans a time column of either database: a time, or microseconds since 1970; NULL is the zero time.
type at struct{ t *time.Time }

func (a at) Scan(src any) error {
	switch v := src.(type) {
	case nil:
		*a.t = time.Time{}
	case time.Time:
		*a.t = v.UTC()
	case int64:
		*a.t = time.UnixMicro(v).UTC()
	default:
		return fmt.Errorf("scan time: got %T", src)
	}
	return nil
}

// asJSON is a column that holds a value as JSON text.
type asJSON struct{ v any }

func (j asJSON) Value() (driver.Value, error) {
	b, err := json.Marshal(j.v)
	return string(b), err
}

func (j asJSON) Scan(src any) error {
	switch v := src.(type) {
	case string:
		return json.Unmarshal([]byte(v), j.v)
	case []byte:
		return json.Unmarshal(v, j.v)
	default:
		return fmt.Errorf("scan JSON: got %T", src)
	}
}
