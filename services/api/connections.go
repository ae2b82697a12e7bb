package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// Connections keeps whose accounts third parties speak of.
type Connections interface {
	CreateConnections(ctx context.Context, connections []webhook.Connection) error
	Connection(ctx context.Context, tenant, id string) (webhook.Connection, error)
	Connections(ctx context.Context, tenant string, f store.ConnectionFilter, p store.Page) (items []webhook.Connection, next string, err error)
	DeleteConnection(ctx context.Context, tenant, id string) error
}

// ConnectionView is a connection as it is answered.
type ConnectionView struct {
	ID           string    `json:"id"`
	Aggregator   string    `json:"aggregator"`
	RemoteID     string    `json:"remoteId" doc:"What the aggregator calls it."`
	ConnectionID string    `json:"connectionId" doc:"What receivers know it by."`
	Client       string    `json:"client" doc:"The tenant whose events they become."`
	Environment  string    `json:"environment"`
	CreatedAt    time.Time `json:"createdAt"`
}

type createConnection struct {
	Aggregator   string `json:"aggregator" minLength:"1" maxLength:"64" pattern:"^[!-~]+$" patternDescription:"visible ASCII characters"`
	RemoteID     string `json:"remoteId" minLength:"1" maxLength:"256" pattern:"^[^\\x00-\\x1f\\x7f]+$" patternDescription:"text without control characters"`
	ConnectionID string `json:"connectionId" minLength:"1" maxLength:"256" pattern:"^[^\\x00-\\x1f\\x7f]+$" patternDescription:"text without control characters"`
	Client       string `json:"client,omitempty" nullable:"true" maxLength:"64" doc:"Left out: the caller's own tenant. Another one may be named by an admin of the tenant default."`
	Environment  string `json:"environment,omitempty" nullable:"true" maxLength:"64" pattern:"^[!-~]*$" patternDescription:"visible ASCII characters" doc:"Such as sandbox or production."`
}

type createConnections struct {
	Items []createConnection `json:"items" minItems:"1" maxItems:"1000"`
}

type connectionsOutput struct {
	Body struct {
		Items []ConnectionView `json:"items"`
	}
}

type connectionOutput struct{ Body ConnectionView }

type listConnectionsInput struct {
	PageInput
	Aggregator   string `query:"aggregator" maxLength:"64"`
	RemoteID     string `query:"remoteId" maxLength:"256"`
	ConnectionID string `query:"connectionId" maxLength:"256"`
}

func (s *Service) registerConnections(a huma.API) {
	tags := []string{"Sources"}
	read, edit := webhook.PermissionSubscriptionRead, webhook.PermissionSubscriptionEdit
	route(s, a, huma.Operation{OperationID: "create-connections", Method: http.MethodPost, Path: "/connections", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Say whose connections an aggregator's remote ids are", Description: "All of them or none."}, edit, s.createConnections)
	route(s, a, huma.Operation{OperationID: "list-connections", Method: http.MethodGet, Path: "/connections", Tags: tags,
		Summary: "List connections"}, read, s.listConnections)
	route(s, a, huma.Operation{OperationID: "get-connection", Method: http.MethodGet, Path: "/connections/{id}", Tags: tags,
		Summary: "Get a connection"}, read, s.getConnection)
	route(s, a, huma.Operation{OperationID: "delete-connection", Method: http.MethodDelete, Path: "/connections/{id}", Tags: tags,
		Summary: "Delete a connection", Description: "What its aggregator sends about it from then on is rejected, and may be replayed."}, edit, s.deleteConnection)
}

func (s *Service) createConnections(ctx context.Context, who caller, in *struct{ Body createConnections }) (*connectionsOutput, error) {
	at := now()
	var f fieldErrors
	made := make([]webhook.Connection, len(in.Body.Items))
	known, seen := map[string]bool{who.Tenant: true, webhook.DefaultTenant: true}, map[string]bool{}
	for i, item := range in.Body.Items {
		made[i] = webhook.Connection{
			ID:     webhook.ConnectionID(who.Tenant, item.Aggregator, item.RemoteID),
			Tenant: who.Tenant, Aggregator: item.Aggregator, RemoteID: item.RemoteID, ConnectionID: item.ConnectionID, Client: item.Client,
			Environment: item.Environment, CreatedAt: at,
		}
		if made[i].Client == "" {
			made[i].Client = who.Tenant
		}
		if seen[made[i].ID] {
			f.add(fmt.Sprintf("/items/%d/remoteId", i), "remote_id_taken", "the remote id is given twice")
		}
		seen[made[i].ID] = true
		if err := s.checkClient(ctx, who, made[i].Client, known); err != nil {
			if !errors.Is(err, errClient) {
				return nil, err
			}
			f.add(fmt.Sprintf("/items/%d/client", i), "unknown_tenant", "there is no such tenant, or it is not the caller's to name")
		}
	}
	if err := f.problem(); err != nil {
		return nil, err
	}
	out := &connectionsOutput{}
	for i := range made {
		out.Body.Items = append(out.Body.Items, viewConnection(&made[i]))
	}
	promise(ctx, out)
	if err := s.deps.Store.CreateConnections(ctx, made); errors.Is(err, store.ErrExists) {
		return nil, problem(http.StatusConflict, "remote_id_taken", "one of the remote ids has a connection already")
	} else if err != nil {
		return nil, err
	}
	s.relay.changed()
	return out, nil
}

var errClient = errors.New("not a client")

// checkClient lets a caller name its own tenant, and the operator any that exists.
func (s *Service) checkClient(ctx context.Context, who caller, client string, known map[string]bool) error {
	if client == who.Tenant {
		return nil
	}
	if !who.operator() {
		return errClient
	}
	if known[client] {
		return nil
	}
	_, err := s.deps.Store.Tenant(ctx, client)
	if errors.Is(err, store.ErrNotFound) {
		return errClient
	}
	known[client] = err == nil
	return err
}

func (s *Service) listConnections(ctx context.Context, who caller, in *listConnectionsInput) (*pageOutput[ConnectionView], error) {
	f := store.ConnectionFilter{Aggregator: in.Aggregator, RemoteID: in.RemoteID, ConnectionID: in.ConnectionID}
	rows, next, err := s.deps.Store.Connections(ctx, who.Tenant, f, in.page())
	if err != nil {
		return nil, err
	}
	return paged(rows, next, viewConnection), nil
}

func (s *Service) getConnection(ctx context.Context, who caller, in *IDInput) (*connectionOutput, error) {
	found, err := s.deps.Store.Connection(ctx, who.Tenant, in.ID)
	if err != nil {
		return nil, err
	}
	return &connectionOutput{Body: viewConnection(&found)}, nil
}

func (s *Service) deleteConnection(ctx context.Context, who caller, in *IDInput) (*struct{}, error) {
	if err := s.deps.Store.DeleteConnection(ctx, who.Tenant, in.ID); err != nil {
		return nil, err
	}
	s.relay.changed()
	return nil, nil
}

func viewConnection(c *webhook.Connection) ConnectionView {
	return ConnectionView{
		ID: c.ID, Aggregator: c.Aggregator, RemoteID: c.RemoteID, ConnectionID: c.ConnectionID, Client: c.Client, Environment: c.Environment,
		CreatedAt: c.CreatedAt.UTC(),
	}
}
