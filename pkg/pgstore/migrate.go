package pgstore

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/hookline/hookline/pkg/store"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrate brings the schema to the current version and makes the partitions of the days around now. It drops nothing, and is
// safe to run again and at the same time as another one.
func (s *Store) Migrate(ctx context.Context) error {
	if err := s.migrate(ctx); err != nil {
		return fmt.Errorf("migrate database: %w", classify(err))
	}
	return s.Maintain(ctx, time.Now(), store.Retention{})
}

// Behind reports whether migrations of this version are missing. It changes nothing.
func (s *Store) Behind(ctx context.Context) (behind bool, err error) {
	err = s.withMigrations(func(p *goose.Provider) error {
		behind, err = p.HasPending(ctx)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("read version of database: %w", classify(err))
	}
	return behind, nil
}

func (s *Store) migrate(ctx context.Context) error {
	return s.withMigrations(func(p *goose.Provider) error {
		_, err := p.Up(ctx)
		return err
	})
}

func (s *Store) withMigrations(do func(*goose.Provider) error) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return err
	}
	// Its own connections: a migration may take longer than the pool lets a statement.
	cfg := s.pool.Config().ConnConfig.Copy()
	cfg.RuntimeParams["statement_timeout"] = "0"
	db := stdlib.OpenDB(*cfg)
	defer func() { _ = db.Close() }()
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker))
	if err != nil {
		return err
	}
	return do(provider)
}
