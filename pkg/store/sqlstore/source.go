package sqlstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"time"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

const sourceColumns = `id, tenant, name, disabled, spec, versions, version, created_at, updated_at`

// CreateSource inserts a source; [store.ErrExists] where the name is taken.
func (s *Store) CreateSource(ctx context.Context, source webhook.Source) error {
	return s.change(ctx, "create source", func(tx *sql.Tx) error {
		s.trimSource(&source)
		if _, err := tx.ExecContext(ctx, `INSERT INTO sources (`+sourceColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`, s.sourceArgs(&source)...); err != nil {
			return err
		}
		return s.afterSource(ctx, tx, nil, &source)
	})
}

// Source returns a source of the tenant, or [store.ErrNotFound].
func (s *Store) Source(ctx context.Context, tenant, id string) (webhook.Source, error) {
	source, err := source(ctx, s.read, tenant, id)
	return source, s.wrap("read source", err)
}

func source(ctx context.Context, q querier, tenant, id string) (webhook.Source, error) {
	return scanSource(q.QueryRowContext(ctx, `SELECT `+sourceColumns+` FROM sources WHERE tenant = $1 AND id = $2`, store.Text(tenant), store.Text(id)))
}

// Sources lists the tenant's sources, newest first.
func (s *Store) Sources(ctx context.Context, tenant string, p store.Page) (items []webhook.Source, next string, err error) {
	l := list[webhook.Source]{
		query: query{text: `SELECT ` + sourceColumns + ` FROM sources`},
		scan:  scanSource,
		place: func(source webhook.Source) (time.Time, string) { return source.CreatedAt, source.ID },
		id:    textID,
	}
	l.where("tenant = ", store.Text(tenant))
	items, next, err = l.page(ctx, s, p)
	return items, next, s.wrap("list sources", err)
}

// UpdateSource changes a source under a lock that all changes of the control plane share, so change must be quick and must not call
// the store. What change returns as an error is returned as it is, and nothing is written. ID, Tenant and CreatedAt stay, Version
// grows by one.
func (s *Store) UpdateSource(ctx context.Context, tenant, id string, change func(*webhook.Source) error) (webhook.Source, error) {
	var updated webhook.Source
	err := s.change(ctx, "update source", func(tx *sql.Tx) error {
		old, err := source(ctx, tx, tenant, id)
		if err != nil {
			return err
		}
		updated = old
		if err := change(&updated); err != nil {
			return aborted{err}
		}
		updated.ID, updated.Tenant, updated.CreatedAt = old.ID, old.Tenant, old.CreatedAt
		updated.Version, updated.UpdatedAt = old.Version+1, time.Now()
		s.trimSource(&updated)
		if _, err := tx.ExecContext(ctx, `UPDATE sources SET (`+sourceColumns+`) = ($1, $2, $3, $4, $5, $6, $7, $8, $9) WHERE id = $1`, s.sourceArgs(&updated)...); err != nil {
			return err
		}
		return s.afterSource(ctx, tx, &old, &updated)
	})
	if err != nil {
		return webhook.Source{}, err
	}
	return updated, nil
}

// DeleteSource deletes a source of the tenant, or returns [store.ErrNotFound].
func (s *Store) DeleteSource(ctx context.Context, tenant, id string) error {
	return s.change(ctx, "delete source", func(tx *sql.Tx) error {
		old, err := source(ctx, tx, tenant, id)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM sources WHERE id = $1`, old.ID); err != nil {
			return err
		}
		return s.afterSource(ctx, tx, &old, nil)
	})
}

type sourceState struct {
	Name     string               `json:"name"`
	Disabled bool                 `json:"disabled"`
	Spec     json.RawMessage      `json:"spec"`
	Versions []secretVersionState `json:"secretVersions"`
	Version  int64                `json:"version"`
}

// afterSource logs a change of a source and leaves its config record.
func (s *Store) afterSource(ctx context.Context, tx *sql.Tx, before, after *webhook.Source) error {
	state := func(source *webhook.Source) any {
		if source == nil {
			return nil
		}
		out := sourceState{Name: source.Name, Disabled: source.Disabled, Spec: source.Spec, Versions: []secretVersionState{}, Version: source.Version}
		for _, v := range source.Versions {
			out.Versions = append(out.Versions, secretVersionState{Number: v.Number, CreatedAt: v.CreatedAt, ExpiresAt: v.ExpiresAt})
		}
		return out
	}
	one, action, value := after, store.ActionUpdate, []byte(nil)
	switch {
	case after == nil:
		one, action = before, store.ActionDelete
	case before == nil:
		action = store.ActionCreate
	}
	if after != nil {
		value = wire.EncodeSource(after)
	}
	change := store.Change{Tenant: one.Tenant, Kind: store.ChangeSource, ObjectID: one.ID, Action: action}
	if err := s.log(ctx, tx, change, state(before), state(after)); err != nil {
		return err
	}
	return s.emit(ctx, tx, wire.KindSource, one.ID, value)
}

func (s *Store) trimSource(source *webhook.Source) {
	source.CreatedAt, source.UpdatedAt = dated(source.CreatedAt), dated(source.UpdatedAt)
	for i := range source.Versions {
		v := &source.Versions[i]
		v.CreatedAt, v.ExpiresAt = milli(v.CreatedAt), milli(v.ExpiresAt)
	}
}

func (s *Store) sourceArgs(source *webhook.Source) []any {
	return []any{
		source.ID, source.Tenant, source.Name, source.Disabled, []byte(source.Spec), asJSON{source.Versions}, source.Version,
		s.d.Time(source.CreatedAt), s.d.Time(source.UpdatedAt),
	}
}

func scanSource(row scanner) (source webhook.Source, err error) {
	var spec []byte
	err = row.Scan(&source.ID, &source.Tenant, &source.Name, &source.Disabled, &spec, asJSON{&source.Versions}, &source.Version,
		at{&source.CreatedAt}, at{&source.UpdatedAt})
	source.Spec = spec
	return source, err
}

const connectionColumns = `id, tenant, aggregator, remote_id, connection_id, client, environment, created_at`

// CreateConnections inserts connections of one tenant, all of them or none: [store.ErrExists] where one of their remote ids has a
// connection already. Their IDs are set.
func (s *Store) CreateConnections(ctx context.Context, connections []webhook.Connection) error {
	return s.change(ctx, "create connections", func(tx *sql.Tx) error {
		for i := range connections {
			c := &connections[i]
			c.ID, c.CreatedAt = webhook.ConnectionID(c.Tenant, c.Aggregator, c.RemoteID), dated(c.CreatedAt)
			if _, err := tx.ExecContext(ctx, `INSERT INTO connections (`+connectionColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
				c.ID, c.Tenant, c.Aggregator, c.RemoteID, c.ConnectionID, c.Client, c.Environment, s.d.Time(c.CreatedAt)); err != nil {
				return err
			}
			if err := s.afterConnection(ctx, tx, nil, c); err != nil {
				return err
			}
		}
		return nil
	})
}

// Connection returns a connection of the tenant, or [store.ErrNotFound].
func (s *Store) Connection(ctx context.Context, tenant, id string) (webhook.Connection, error) {
	c, err := connection(ctx, s.read, tenant, id)
	return c, s.wrap("read connection", err)
}

func connection(ctx context.Context, q querier, tenant, id string) (webhook.Connection, error) {
	return scanConnection(q.QueryRowContext(ctx, `SELECT `+connectionColumns+` FROM connections WHERE tenant = $1 AND id = $2`, store.Text(tenant), store.Text(id)))
}

// Connections lists the tenant's connections, newest first.
func (s *Store) Connections(ctx context.Context, tenant string, f store.ConnectionFilter, p store.Page) (items []webhook.Connection, next string, err error) {
	l := list[webhook.Connection]{
		query: query{text: `SELECT ` + connectionColumns + ` FROM connections`},
		scan:  scanConnection,
		place: func(c webhook.Connection) (time.Time, string) { return c.CreatedAt, c.ID },
		id:    textID,
	}
	l.where("tenant = ", store.Text(tenant))
	for _, by := range [][2]string{{"aggregator = ", f.Aggregator}, {"remote_id = ", f.RemoteID}, {"connection_id = ", f.ConnectionID}} {
		if by[1] != "" {
			l.where(by[0], store.Text(by[1]))
		}
	}
	items, next, err = l.page(ctx, s, p)
	return items, next, s.wrap("list connections", err)
}

// DeleteConnection deletes a connection of the tenant, or returns [store.ErrNotFound].
func (s *Store) DeleteConnection(ctx context.Context, tenant, id string) error {
	return s.change(ctx, "delete connection", func(tx *sql.Tx) error {
		old, err := connection(ctx, tx, tenant, id)
		if err != nil {
			return err
		}
		if _, err := tx.ExecContext(ctx, `DELETE FROM connections WHERE id = $1`, old.ID); err != nil {
			return err
		}
		return s.afterConnection(ctx, tx, &old, nil)
	})
}

type connectionState struct {
	Aggregator   string `json:"aggregator"`
	RemoteID     string `json:"remoteId"`
	ConnectionID string `json:"connectionId"`
	Client       string `json:"client"`
	Environment  string `json:"environment"`
}

func (s *Store) afterConnection(ctx context.Context, tx *sql.Tx, before, after *webhook.Connection) error {
	state := func(c *webhook.Connection) any {
		if c == nil {
			return nil
		}
		return connectionState{Aggregator: c.Aggregator, RemoteID: c.RemoteID, ConnectionID: c.ConnectionID, Client: c.Client, Environment: c.Environment}
	}
	one, action, value := after, store.ActionCreate, []byte(nil)
	if after == nil {
		one, action = before, store.ActionDelete
	} else {
		value = wire.EncodeConnection(after)
	}
	if err := s.log(ctx, tx, store.Change{Tenant: one.Tenant, Kind: store.ChangeConnection, ObjectID: one.ID, Action: action}, state(before), state(after)); err != nil {
		return err
	}
	return s.emit(ctx, tx, wire.KindConnection, one.ID, value)
}

func scanConnection(row scanner) (c webhook.Connection, err error) {
	return c, row.Scan(&c.ID, &c.Tenant, &c.Aggregator, &c.RemoteID, &c.ConnectionID, &c.Client, &c.Environment, at{&c.CreatedAt})
}
