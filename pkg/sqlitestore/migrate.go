package sqlitestore

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/hookline/hookline/pkg/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate brings the schema to the current version. It is safe to run again.
func (s *Store) Migrate(ctx context.Context) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return fmt.Errorf("migrate database: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, s.write, files)
	if err != nil {
		return fmt.Errorf("migrate database: %w", err)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate database: %w", classify(err))
	}
	return nil
}

// Maintain deletes the rows that retention has passed, some at a time, so that other writers get their turn.
func (s *Store) Maintain(ctx context.Context, now time.Time, keep store.Retention) error {
	var problems []error
	for _, t := range []struct {
		name store.Table
		keep time.Duration
	}{{store.TableDeliveries, keep.Deliveries}, {store.TableAttempts, keep.Attempts}, {store.TableEvents, keep.Events}} {
		if t.keep <= 0 {
			continue
		}
		if err := s.trim(ctx, string(t.name), now.Add(-t.keep)); err != nil {
			problems = append(problems, fmt.Errorf("delete old %s: %w", t.name, classify(err)))
		}
	}
	return errors.Join(problems...)
}

func (s *Store) trim(ctx context.Context, table string, cutoff time.Time) error {
	const some = 2000
	for {
		result, err := s.write.ExecContext(ctx, `DELETE FROM `+table+` WHERE rowid IN
			(SELECT rowid FROM `+table+` WHERE created_at < $1 LIMIT $2)`, argument(cutoff), some)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n < some {
			return err
		}
	}
}
