package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// sources is what the suite needs to hold sources and connections.
type sources interface {
	CreateSource(ctx context.Context, source webhook.Source) error
	Source(ctx context.Context, tenant, id string) (webhook.Source, error)
	Sources(ctx context.Context, tenant string, p store.Page) ([]webhook.Source, string, error)
	UpdateSource(ctx context.Context, tenant, id string, change func(*webhook.Source) error) (webhook.Source, error)
	DeleteSource(ctx context.Context, tenant, id string) error
	CreateConnections(ctx context.Context, connections []webhook.Connection) error
	Connection(ctx context.Context, tenant, id string) (webhook.Connection, error)
	Connections(ctx context.Context, tenant string, f store.ConnectionFilter, p store.Page) ([]webhook.Connection, string, error)
	DeleteConnection(ctx context.Context, tenant, id string) error
}

func newSource() webhook.Source {
	id := fresh("source")
	return webhook.Source{
		ID: id, Tenant: tenant, Name: "name of " + id, Spec: json.RawMessage(`{ "verify": {"scheme": "token"}, "n": 1.0}`), Version: 1,
		Versions:  []webhook.SecretVersion{{Number: 1, Sealed: []byte{0, 255}, CreatedAt: now()}},
		CreatedAt: now(), UpdatedAt: now(),
	}
}

func sourceRoundTrip(t *testing.T, s Store) {
	ctx := context.Background()
	want := newSource()
	must(t, s.CreateSource(ctx, want))
	same(t, "source", got(s.Source(ctx, tenant, want.ID))(t), want)
	wantError(t, store.ErrNotFound)(s.Source(ctx, "other", want.ID))
	again := newSource()
	again.Name = want.Name
	if err := s.CreateSource(ctx, again); !errors.Is(err, store.ErrExists) {
		t.Errorf("a name twice: %v", err)
	}
	records := got(s.Outbox(ctx, 10))(t)
	if len(records) != 1 || records[0].Key != wire.ConfigKey(wire.KindSource, want.ID) {
		t.Fatalf("outbox: %v", records)
	}
	published := got(wire.DecodeConfig(records[0].Value))(t)
	same(t, "published", published, any(&want))
	ids := []string{want.ID}
	for range 3 {
		more := newSource()
		must(t, s.CreateSource(ctx, more))
		ids = append(ids, more.ID)
	}
	pages(t, "sources", ids, func(p store.Page) ([]webhook.Source, string, error) { return s.Sources(ctx, tenant, p) },
		func(v webhook.Source) (string, time.Time) { return v.ID, v.CreatedAt })
}

func sourceUpdates(t *testing.T, s Store) {
	ctx := context.Background()
	want := newSource()
	must(t, s.CreateSource(ctx, want))
	wantError(t, errMine)(s.UpdateSource(ctx, tenant, want.ID, func(source *webhook.Source) error {
		source.Disabled = true
		return errMine
	}))
	same(t, "after an aborted change", got(s.Source(ctx, tenant, want.ID))(t), want)
	updated := got(s.UpdateSource(ctx, tenant, want.ID, func(source *webhook.Source) error {
		source.Disabled, source.Tenant, source.ID = true, "other", "other"
		source.Spec = json.RawMessage(`{}`)
		return nil
	}))(t)
	want.Disabled, want.Spec, want.Version, want.UpdatedAt = true, json.RawMessage(`{}`), 2, updated.UpdatedAt
	same(t, "returned", updated, want)
	same(t, "stored", got(s.Source(ctx, tenant, want.ID))(t), want)
	if err := s.DeleteSource(ctx, "other", want.ID); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("delete in another tenant: %v", err)
	}
	must(t, s.DeleteSource(ctx, tenant, want.ID))
	wantError(t, store.ErrNotFound)(s.Source(ctx, tenant, want.ID))
	records := got(s.Outbox(ctx, 10))(t)
	if len(records) != 3 || records[2].Value != nil {
		t.Errorf("outbox: %v", records)
	}
	changes, _, err := s.Changes(ctx, tenant, store.ChangeFilter{Kinds: []store.ChangeKind{store.ChangeSource}, ObjectID: want.ID}, store.Page{})
	must(t, err)
	var actions []store.Action
	for _, c := range changes {
		actions = append(actions, c.Action)
	}
	same(t, "actions", actions, []store.Action{store.ActionDelete, store.ActionUpdate, store.ActionCreate})
}

func connectionRoundTrip(t *testing.T, s Store) {
	ctx := context.Background()
	aggregator := fresh("aggregator")
	connect := func(remoteID string) webhook.Connection {
		return webhook.Connection{Tenant: tenant, Aggregator: aggregator, RemoteID: remoteID, ConnectionID: "connection of " + remoteID, Client: "acme", Environment: "sandbox", CreatedAt: now()}
	}
	some := []webhook.Connection{connect("a"), connect("b"), connect("c")}
	must(t, s.CreateConnections(ctx, some))
	ids := []string{}
	for _, want := range some {
		same(t, "connection", got(s.Connection(ctx, tenant, webhook.ConnectionID(tenant, aggregator, want.RemoteID)))(t), want)
		ids = append(ids, want.ID)
	}
	if err := s.CreateConnections(ctx, []webhook.Connection{connect("d"), connect("a")}); !errors.Is(err, store.ErrExists) {
		t.Errorf("a remote id twice: %v", err)
	}
	wantError(t, store.ErrNotFound)(s.Connection(ctx, tenant, webhook.ConnectionID(tenant, aggregator, "d")))
	wantError(t, store.ErrNotFound)(s.Connection(ctx, "other", some[0].ID))
	of := store.ConnectionFilter{Aggregator: aggregator}
	pages(t, "connections", ids, func(p store.Page) ([]webhook.Connection, string, error) { return s.Connections(ctx, tenant, of, p) },
		func(v webhook.Connection) (string, time.Time) { return v.ID, v.CreatedAt })
	for name, f := range map[string]store.ConnectionFilter{
		"by remote id":     {Aggregator: aggregator, RemoteID: "b"},
		"by connection id": {Aggregator: aggregator, ConnectionID: "connection of b"},
	} {
		if one, _, err := s.Connections(ctx, tenant, f, store.Page{}); err != nil || len(one) != 1 || one[0].RemoteID != "b" {
			t.Errorf("%s: %v %v", name, one, err)
		}
	}
	must(t, s.DeleteConnection(ctx, tenant, some[0].ID))
	wantError(t, store.ErrNotFound)(s.Connection(ctx, tenant, some[0].ID))
	records := got(s.Outbox(ctx, 10))(t)
	if len(records) != 4 || records[3].Value != nil {
		t.Errorf("outbox: %v", records)
	}
	published := got(wire.DecodeConfig(records[0].Value))(t)
	same(t, "published", published, any(&some[0]))
}
