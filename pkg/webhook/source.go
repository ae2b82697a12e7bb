package webhook

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// Source is where a third party posts its webhooks to. What it accepts and which events come of it is its Spec.
type Source struct {
	ID     string
	Tenant string
	Name   string
	// Disabled refuses everything, as if the source did not exist.
	Disabled bool
	// Spec is read by package source.
	Spec json.RawMessage
	// Versions are the sealed values of what the third party verifies itself with, newest first. See [Source.Secret].
	Versions []SecretVersion
	// Version grows by one with every change; it is the ETag of the source.
	Version   int64
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Secret is the source's secret as packages seal and open secrets. No subscription can name it.
func (s *Source) Secret() *Secret {
	return &Secret{ID: "source/" + s.ID, Tenant: s.Tenant, Name: s.Name, Versions: s.Versions}
}

// Connection says whose a third party's account is: what the third party calls it, and what Hookline's tenants do.
type Connection struct {
	// ID is [ConnectionID] of the next three, so that each remote id stands once.
	ID string
	// Tenant owns the sources that find the connection.
	Tenant     string
	Aggregator string
	RemoteID   string
	// ConnectionID is what receivers know the connection by.
	ConnectionID string
	// Client is the tenant whose events they become: the owner itself, or another one where the owner is the operator.
	Client      string
	Environment string
	CreatedAt   time.Time
}

// ConnectionID is the identity of what one aggregator calls one remote id, for one owner.
func ConnectionID(tenant, aggregator, remoteID string) string {
	return uuid.NewSHA1(space, []byte("connection\x00"+tenant+"\x00"+aggregator+"\x00"+remoteID)).String()
}

// SourceEventID is the id of the event that a third party's message becomes: the same however often it is sent.
func SourceEventID(sourceID, messageID string) string {
	return uuid.NewSHA1(space, []byte("source\x00"+sourceID+"\x00"+messageID)).String()
}

// FollowUpID is the id of an event that a rule makes of a delivery that was called back.
func FollowUpID(delivery uuid.UUID, rule string) string {
	return uuid.NewSHA1(space, []byte("follow-up\x00"+delivery.String()+"\x00"+rule)).String()
}
