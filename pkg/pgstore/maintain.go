package pgstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/hookline/hookline/pkg/store"
)

// Partitions exist from behind days before today, which is what Kafka's topics keep, to ahead days after it.
const (
	behind = 7
	ahead  = 3
	day    = 24 * time.Hour
)

// Maintain makes the daily partitions that will be needed and drops the ones that retention has passed. It is safe to run
// again; where another process is at it, it does nothing. A busy table is left for the next time rather than waited for.
func (s *Store) Maintain(ctx context.Context, now time.Time, keep store.Retention) error {
	var problems []error
	for _, t := range []struct {
		name store.Table
		keep time.Duration
	}{{store.TableDeliveries, keep.Deliveries}, {store.TableAttempts, keep.Attempts}, {store.TableEvents, keep.Events}} {
		if err := s.maintain(ctx, string(t.name), now.UTC(), t.keep); err != nil {
			problems = append(problems, fmt.Errorf("maintain partitions of %s: %w", t.name, classify(err)))
		}
	}
	if _, err := s.pool.Exec(ctx, "DELETE FROM subscription_health WHERE updated_at < $1", now.Add(-store.KeepHealth)); err != nil {
		problems = append(problems, fmt.Errorf("delete old health: %w", classify(err)))
	}
	return errors.Join(problems...)
}

func (s *Store) maintain(ctx context.Context, table string, now time.Time, keep time.Duration) error {
	existing, err := s.partitions(ctx, table)
	if err != nil {
		return err
	}
	today := now.Truncate(day)
	oldest := today.AddDate(0, 0, -behind)
	if keep > 0 {
		cutoff := now.Add(-keep)
		if err := s.drop(ctx, table, existing, cutoff); err != nil {
			return err
		}
		if from := cutoff.Truncate(day); from.After(oldest) {
			oldest = from
		}
	}
	var missing []time.Time
	for at := oldest; !at.After(today.AddDate(0, 0, ahead)); at = at.AddDate(0, 0, 1) {
		if !existing[partition(table, at)] {
			missing = append(missing, at)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return s.alone(ctx, func(tx pgx.Tx) error {
		for _, at := range missing {
			if err := create(ctx, tx, table, at); err != nil {
				return fmt.Errorf("make %s: %w", partition(table, at), err)
			}
		}
		return nil
	})
}

func partition(table string, at time.Time) string { return table + "_" + at.Format("20060102") }

func (s *Store) partitions(ctx context.Context, table string) (map[string]bool, error) {
	rows, err := s.pool.Query(ctx, `SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
		WHERE i.inhparent = to_regclass($1)`, table)
	if err != nil {
		return nil, err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	existing := make(map[string]bool, len(names))
	for _, name := range names {
		existing[name] = true
	}
	return existing, err
}

// create makes the partition of one day. Rows of that day which had to go to the DEFAULT partition move into it.
func create(ctx context.Context, tx pgx.Tx, table string, at time.Time) error {
	name, from, to := partition(table, at), bound(at), bound(at.AddDate(0, 0, 1))
	var made bool // by another process, since the partitions were listed
	if err := tx.QueryRow(ctx, "SELECT to_regclass($1) IS NOT NULL", name).Scan(&made); err != nil || made {
		return err
	}
	for _, statement := range []string{
		fmt.Sprintf("CREATE TABLE %s (LIKE %s INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING COMPRESSION)", name, table),
		fmt.Sprintf("LOCK TABLE %s_default IN ACCESS EXCLUSIVE MODE", table),
		fmt.Sprintf(`WITH moved AS (DELETE FROM %s_default WHERE created_at >= '%s' AND created_at < '%s' RETURNING *)
			INSERT INTO %s SELECT * FROM moved`, table, from, to, name),
		fmt.Sprintf("ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')", table, name, from, to),
	} {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// bound is a day as it bounds a partition. The zone is said, or the server's would count.
func bound(at time.Time) string { return at.Format("2006-01-02") + " 00:00:00+00" }

func (s *Store) drop(ctx context.Context, table string, existing map[string]bool, cutoff time.Time) error {
	for name := range existing {
		suffix, ok := strings.CutPrefix(name, table+"_")
		at, err := time.Parse("20060102", suffix)
		if !ok || err != nil || at.AddDate(0, 0, 1).After(cutoff) {
			continue
		}
		if err := s.alone(ctx, func(tx pgx.Tx) error {
			_, err := tx.Exec(ctx, "DROP TABLE IF EXISTS "+name)
			return err
		}); err != nil {
			return fmt.Errorf("drop %s: %w", name, err)
		}
		delete(existing, name)
	}
	_, err := s.pool.Exec(ctx, fmt.Sprintf("DELETE FROM %s_default WHERE created_at < $1", table), cutoff)
	return err
}

// alone runs f in a transaction, unless another process maintains. Its locks stop readers and the recorder, so it gives up
// after a short wait.
func (s *Store) alone(ctx context.Context, f func(tx pgx.Tx) error) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '3s'"); err != nil {
			return err
		}
		var mine bool
		if err := tx.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock($1)", int64(lockMaintain)).Scan(&mine); err != nil || !mine {
			return err
		}
		return f(tx)
	})
}
