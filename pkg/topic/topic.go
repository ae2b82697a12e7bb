// Package topic names the Kafka topics through which the services meet, says how each is keyed, partitioned and kept,
// and lists the record headers. It opens no connection.
package topic

import (
	"strconv"
	"strings"
	"time"
)

// Names are the topics of one installation.
type Names struct {
	Events      string
	Rejected    string
	Deliveries  string
	Retries     string
	Attempts    string
	DeadLetters string
	Config      string
	// Callbacks holds what is expected to be called back, and what follows from it. It is its own state.
	Callbacks string
	// SourceRequests tells what became of requests to sources, for people.
	SourceRequests string
}

// WithPrefix gives the names under HOOKLINE_TOPIC_PREFIX.
func WithPrefix(prefix string) Names {
	return Names{
		Events:      prefix + "events",
		Rejected:    prefix + "events.rejected",
		Deliveries:  prefix + "deliveries",
		Retries:     prefix + "retries",
		Attempts:    prefix + "attempts",
		DeadLetters: prefix + "dead-letters",
		Config:      prefix + "config",

		Callbacks:      prefix + "callbacks",
		SourceRequests: prefix + "source-requests",
	}
}

// All lists the names in the order of an event's path.
func (n Names) All() []string {
	return []string{n.Config, n.Events, n.Rejected, n.Deliveries, n.Retries, n.Attempts, n.DeadLetters, n.Callbacks, n.SourceRequests}
}

// Spec is a topic as it must exist.
type Spec struct {
	Name       string
	Partitions int32
	Settings   map[string]string
}

// Retention bounds that the topics' settings follow from. Events and deliveries are kept long enough to survive a long
// outage of their reader; retries longer than the longest delay of any contract (24 h is the bound of an override).
const (
	keepEvents  = 7 * 24 * time.Hour
	keepRetries = 7 * 24 * time.Hour
	maxRecord   = 4 << 20
)

// Specs says how every topic must exist. All but config have the given number of partitions; config has one, so that
// its records have one order and one offset.
func (n Names) Specs(partitions int32) []Spec {
	kept := func(name string, policy string, keep time.Duration) Spec {
		return Spec{Name: name, Partitions: partitions, Settings: map[string]string{
			"cleanup.policy":    policy,
			"retention.ms":      strconv.FormatInt(keep.Milliseconds(), 10),
			"max.message.bytes": strconv.Itoa(maxRecord),
		}}
	}
	config := Spec{Name: n.Config, Partitions: 1, Settings: map[string]string{
		"cleanup.policy":      "compact",
		"delete.retention.ms": strconv.FormatInt((7 * 24 * time.Hour).Milliseconds(), 10),
		"max.message.bytes":   strconv.Itoa(maxRecord),
	}}
	retries := kept(n.Retries, "compact,delete", keepRetries)
	retries.Settings["message.timestamp.type"] = "LogAppendTime"
	// An event's record time starts the retry windows of its deliveries, so that no producer's clock, nor the age of what
	// it republishes, may set it.
	events := kept(n.Events, "delete", keepEvents)
	events.Settings["message.timestamp.type"] = "LogAppendTime"
	callbacks := kept(n.Callbacks, "compact", 0)
	delete(callbacks.Settings, "retention.ms")
	return []Spec{
		config,
		events,
		kept(n.Rejected, "delete", keepEvents),
		kept(n.Deliveries, "delete", keepEvents),
		retries,
		kept(n.Attempts, "delete", keepEvents),
		kept(n.DeadLetters, "delete", 4*keepEvents),
		callbacks,
		kept(n.SourceRequests, "delete", keepEvents),
	}
}

// PartitionKey is the part of a record's key that decides its partition: all of it, except that the trips of one
// delivery (delivery/generation/number, in retries) stay together with the delivery's own key (delivery, in deliveries).
func PartitionKey(key string) string {
	delivery, _, _ := strings.Cut(key, "/")
	return delivery
}

// Record headers.
const (
	HeaderContentType = "content-type"
	HeaderTraceParent = "traceparent"
	HeaderTraceState  = "tracestate"

	// On rejected records: a stable code, a sentence, and where the original was read.
	HeaderReason          = "hookline-reason"
	HeaderDetail          = "hookline-detail"
	HeaderSourceTopic     = "hookline-source-topic"
	HeaderSourcePartition = "hookline-source-partition"
	HeaderSourceOffset    = "hookline-source-offset"

	// On what a third party sent to a source and was rejected: what it takes to read it again.
	HeaderSourceID      = "hookline-source-id"
	HeaderSourceTenant  = "hookline-source-tenant"
	HeaderSourceRequest = "hookline-source-request"
	HeaderSourceEvent   = "hookline-source-event"
	// HeaderSourceHeader begins the names of the headers that the third party sent.
	HeaderSourceHeader = "hookline-http-"
)
