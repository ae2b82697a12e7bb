package store

import (
	"context"
	"encoding/json"
	"time"
)

// Actor is who changes the control plane.
type Actor struct {
	Kind ActorKind
	// ID is an API key's id or a token's subject; empty for Hookline itself.
	ID string
	// Name is for people: the key's name, the subject, or the part of Hookline that acted.
	Name string
}

// ActorKind says what an actor's ID is an id of.
type ActorKind string

// The kinds of actors.
const (
	ActorAPIKey   ActorKind = "api_key"
	ActorUser     ActorKind = "user"
	ActorHookline ActorKind = "hookline"
)

type actorKey struct{}

// By gives the changes made under the context their actor. Without one they are Hookline's own.
func By(ctx context.Context, a Actor) context.Context { return context.WithValue(ctx, actorKey{}, a) }

// ActorOf is whose changes those under the context are.
func ActorOf(ctx context.Context) Actor {
	a, ok := ctx.Value(actorKey{}).(Actor)
	if !ok {
		return Actor{Kind: ActorHookline, Name: string(ActorHookline)}
	}
	return a
}

// Change is an entry of the log of changes, written in the transaction of the change itself and never changed or deleted.
type Change struct {
	ID     string
	Tenant string
	At     time.Time
	Actor  Actor
	Kind   ChangeKind
	// ObjectID is the id of what was changed.
	ObjectID string
	Action   Action
	// Before and After are JSON objects, nil before it existed and after it was deleted. They carry no secret: no value of a
	// secret, no token, no value of a header.
	Before, After json.RawMessage
}

// ChangeKind says what was changed.
type ChangeKind string

// The kinds of changes.
const (
	ChangeSubscription ChangeKind = "subscription"
	ChangeSecret       ChangeKind = "secret"
	ChangeAPIKey       ChangeKind = "api_key"
	ChangeTenant       ChangeKind = "tenant"
	ChangeReplay       ChangeKind = "replay"
)

// Action says what was done to it.
type Action string

// The actions. Enable, disable and pause are of subscriptions, rotate, expire (the end of an overlap) and bind (to the profile of
// its first use) of secrets, revoke of API keys, pause, resume and cancel of replays.
const (
	ActionCreate  Action = "create"
	ActionUpdate  Action = "update"
	ActionDelete  Action = "delete"
	ActionEnable  Action = "enable"
	ActionDisable Action = "disable"
	ActionPause   Action = "pause"
	ActionRotate  Action = "rotate"
	ActionExpire  Action = "expire"
	ActionBind    Action = "bind"
	ActionRevoke  Action = "revoke"
	ActionResume  Action = "resume"
	ActionCancel  Action = "cancel"
)

// ChangeFilter selects changes of one tenant. Zero fields select everything.
type ChangeFilter struct {
	Kinds    []ChangeKind
	ObjectID string
	From, To time.Time // From inclusive, To exclusive
}
