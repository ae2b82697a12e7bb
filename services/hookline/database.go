package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/hookline/hookline/pkg/pgstore"
	"github.com/hookline/hookline/pkg/sqlitestore"
	"github.com/hookline/hookline/services/api"
	"github.com/hookline/hookline/services/recorder"
)

// database is what the services and the migration together need of one.
type database interface {
	api.Store
	recorder.Store
	Migrate(ctx context.Context) error
	// Behind reports whether migrations are missing.
	Behind(ctx context.Context) (bool, error)
	Close()
}

// openDatabase opens the database that the URL's scheme names: once for all services of the process. A server that is away is no
// error here.
func (p *process) openDatabase(ctx context.Context, cfg databaseConfig) (database, error) {
	if p.database != nil {
		return p.database, nil
	}
	db, err := dialDatabase(ctx, cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("HOOKLINE_DATABASE_URL: %w", err)
	}
	p.atClose(db.Close)
	p.database = db
	return db, nil
}

func dialDatabase(ctx context.Context, url string) (database, error) {
	if strings.HasPrefix(url, "sqlite:") {
		return sqlitestore.Open(ctx, url)
	}
	return pgstore.Open(ctx, url)
}
