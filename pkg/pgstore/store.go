// Package pgstore keeps the control plane and the audit in Postgres. Batches of the recorder go in with COPY, into tables that
// are partitioned by day. The queries are sqlstore's.
package pgstore

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/store/sqlstore"
)

// Keys of the advisory locks.
const (
	lockControl  = 0x486f6f6b6c01 // changes of the control plane, one after the other
	lockRelay    = 0x486f6f6b6c02 // the one outbox relay
	lockMaintain = 0x486f6f6b6c03 // the one maker of partitions
)

// Store is a pool of connections. All methods may be called concurrently. Errors wrap [store.ErrUnavailable] while the
// database is away, read-only, full, or not migrated.
type Store struct {
	*sqlstore.Store
	pool *pgxpool.Pool
	db   *sql.DB
}

// leastConns is what one process holds at once: two for a batch, one for the relay's lock, one for everything else.
const leastConns = 4

// Option changes how connections are made.
type Option func(*pgxpool.Config)

// Open makes a pool for a postgres:// URL. It neither connects nor migrates: a database that is away is no error here.
//
// Unless the URL says otherwise, there are at most 10 connections (4 at least), a connection must be made within 5 s, and a
// statement ends after 30 s.
func Open(_ context.Context, rawURL string, options ...Option) (*Store, error) {
	cfg, err := config(rawURL)
	if err != nil {
		return nil, err
	}
	for _, option := range options {
		option(cfg)
	}
	// The pool lives until Close; the context given to NewWithConfig would only serve its first connections.
	pool, err := pgxpool.NewWithConfig(context.Background(), cfg)
	if err != nil {
		return nil, fmt.Errorf("open database: %w", err)
	}
	db := stdlib.OpenDBFromPool(pool)
	return &Store{
		Store: sqlstore.New(db, db, sqlstore.Dialect{
			Time:  argument,
			UUID:  func(id uuid.UUID) any { return id.String() },
			Lock:  fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", lockControl),
			Error: classify,
		}),
		pool: pool,
		db:   db,
	}, nil
}

func config(rawURL string) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(rawURL)
	if err != nil {
		// The parser's error may quote the URL, which has a password.
		return nil, errors.New("open database: the URL is not a Postgres connection string")
	}
	given := func(string) bool { return false }
	if u, err := url.Parse(rawURL); err == nil && strings.HasPrefix(u.Scheme, "postgres") {
		given = u.Query().Has
	}
	if !given("pool_max_conns") {
		cfg.MaxConns = 10
	}
	if cfg.MaxConns < leastConns {
		return nil, fmt.Errorf("open database: pool_max_conns is %d in the URL, want at least %d", cfg.MaxConns, leastConns)
	}
	if !given("connect_timeout") {
		cfg.ConnConfig.ConnectTimeout = 5 * time.Second
	}
	if !given("statement_timeout") {
		cfg.ConnConfig.RuntimeParams["statement_timeout"] = "30000"
	}
	// A plan for any values expects a few rows of a subscription that has a million, and sorts them all.
	if !given("plan_cache_mode") {
		cfg.ConnConfig.RuntimeParams["plan_cache_mode"] = "force_custom_plan"
	}
	if !given("application_name") {
		cfg.ConnConfig.RuntimeParams["application_name"] = "hookline"
	}
	return cfg, nil
}

func argument(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}

// Close closes every connection. It waits for calls that are under way.
func (s *Store) Close() {
	_ = s.db.Close() // closes nothing of its own: the connections are the pool's
	s.pool.Close()
}

// OutboxLock runs f while holding the one relay lock of the database, and reports false where another process holds it. The
// context of f ends when the lock may have been lost with its connection, within 6 s: f must then publish nothing more.
func (s *Store) OutboxLock(ctx context.Context, f func(ctx context.Context) error) (ran bool, err error) {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return false, fmt.Errorf("take relay lock: %w", classify(err))
	}
	defer conn.Release()
	if err := conn.QueryRow(ctx, "SELECT pg_try_advisory_lock($1)", int64(lockRelay)).Scan(&ran); err != nil {
		return false, fmt.Errorf("take relay lock: %w", classify(err))
	}
	if !ran {
		return false, nil
	}
	defer func() {
		unlock, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if _, err := conn.Exec(unlock, "SELECT pg_advisory_unlock($1)", int64(lockRelay)); err != nil {
			// A connection that cannot unlock must not go back into the pool with the lock.
			_ = conn.Conn().Close(unlock)
		}
	}()
	return true, s.guarded(ctx, conn, f)
}

// guarded runs f with a context that ends when the connection does.
func (s *Store) guarded(ctx context.Context, conn *pgxpool.Conn, f func(ctx context.Context) error) error {
	const interval, timeout = time.Second, 5 * time.Second
	held, lost := context.WithCancelCause(ctx)
	watch, stop := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-watch.Done():
				return
			case <-time.After(interval):
			}
			// Not under watch's context: a query cut off by stop would close the connection.
			ping, cancel := context.WithTimeout(context.WithoutCancel(ctx), timeout)
			err := conn.Ping(ping)
			cancel()
			if err != nil {
				lost(fmt.Errorf("relay lock lost: %w: %w", store.ErrUnavailable, err))
				return
			}
		}
	}()
	err := f(held)
	stop()
	<-done
	lost(nil)
	if cause := context.Cause(held); err != nil && errors.Is(cause, store.ErrUnavailable) {
		return cause
	}
	return err
}
