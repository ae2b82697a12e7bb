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
	provider, err := s.provider()
	if err == nil {
		_, err = provider.Up(ctx)
	}
	if err != nil {
		return fmt.Errorf("migrate database: %w", classify(err))
	}
	return nil
}

// Behind reports whether migrations of this version are missing. It changes nothing.
func (s *Store) Behind(ctx context.Context) (bool, error) {
	provider, err := s.provider()
	if err != nil {
		return false, fmt.Errorf("read version of database: %w", err)
	}
	behind, err := provider.HasPending(ctx)
	if err != nil {
		return false, fmt.Errorf("read version of database: %w", classify(err))
	}
	return behind, nil
}

func (s *Store) provider() (*goose.Provider, error) {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectSQLite3, s.write, files)
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
	if _, err := s.write.ExecContext(ctx, `DELETE FROM subscription_health WHERE updated_at < $1`, argument(now.Add(-store.KeepHealth))); err != nil {
		problems = append(problems, fmt.Errorf("delete old health: %w", classify(err)))
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
