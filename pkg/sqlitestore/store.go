// Package sqlitestore keeps the control plane and the audit in one SQLite file, for development and for tests in virtual
// time. The queries are sqlstore's. It is for one process: there is one writer, and readers that never wait for it.
package sqlitestore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/store/sqlstore"
)

// Store is an open database file. All methods may be called concurrently: changes wait for each other, in the order of the
// connection pool, and a function given to UpdateSecret or UpdateSubscription must not call the store.
type Store struct {
	*sqlstore.Store
	read, write *sql.DB
	relay       sync.Mutex
}

// Open opens the file of a sqlite:///path URL and makes it where it is missing; its directory must exist. It does not
// migrate.
func Open(ctx context.Context, rawURL string) (*Store, error) {
	path, ok := strings.CutPrefix(rawURL, "sqlite://")
	if !ok || path == "" {
		return nil, fmt.Errorf("open database: %q is not a sqlite:///path URL", rawURL)
	}
	// One connection writes, so no writer ever meets another one's lock within the process; the busy timeout is for
	// people who look into the file with another program.
	write, err := open(path, 1, "_txlock=immediate", "_pragma=journal_mode(WAL)", "_pragma=synchronous(NORMAL)", "_pragma=foreign_keys(1)")
	if err != nil {
		return nil, err
	}
	read, err := open(path, 4, "_pragma=query_only(1)")
	if err != nil {
		return nil, errors.Join(err, write.Close())
	}
	// WAL is a property of the file that the writer must have set before a reader looks.
	if err := write.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open database: %w", classify(err)), write.Close(), read.Close())
	}
	return &Store{
		Store: sqlstore.New(read, write, sqlstore.Dialect{
			Time:  argument,
			UUID:  func(id uuid.UUID) any { return id[:] },
			Error: classify,
		}),
		read: read, write: write,
	}, nil
}

func open(path string, connections int, params ...string) (*sql.DB, error) {
	params = append(params, "_pragma=busy_timeout(10000)")
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+strings.Join(params, "&"))
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	return db, nil
}

// Close waits for calls that are under way.
func (s *Store) Close() { _ = errors.Join(s.read.Close(), s.write.Close()) }

// OutboxLock runs f while holding the one relay lock, and reports false where another goroutine holds it.
func (s *Store) OutboxLock(ctx context.Context, f func(ctx context.Context) error) (ran bool, err error) {
	if !s.relay.TryLock() {
		return false, nil
	}
	defer s.relay.Unlock()
	return true, f(ctx)
}

func argument(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMicro()
}

// classify makes a driver's error one that wraps store's errors, as pgstore does.
func classify(err error) error {
	var failed *sqlite.Error
	if !errors.As(err, &failed) {
		if errors.Is(err, sql.ErrConnDone) {
			return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
		}
		return err
	}
	switch failed.Code() {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY:
		return fmt.Errorf("%w: %w", store.ErrExists, err)
	case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
		return fmt.Errorf("%w: %w", store.ErrInUse, err)
	}
	switch failed.Code() & 0xff {
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH:
		return fmt.Errorf("%w: %w", store.ErrRefused, err)
	case sqlite3.SQLITE_INTERRUPT: // the caller's context ended
		return err
	}
	// Busy, locked, full, read-only, I/O, not migrated: the same call may succeed later.
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}
