package store

// The kinds of changes that are about sources.
const (
	ChangeSource     ChangeKind = "source"
	ChangeConnection ChangeKind = "connection"
)

// ConnectionFilter selects connections of one tenant. Zero fields select everything.
type ConnectionFilter struct {
	Aggregator   string
	RemoteID     string
	ConnectionID string
}
