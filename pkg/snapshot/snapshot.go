// Package snapshot keeps the config topic in memory: tenants, subscriptions, sealed secrets, API keys, sources and connections, as
// the control plane published them. Router, delivery and ingest decide with it, so that they need Kafka only. It writes nothing.
package snapshot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
)

// Deps are the parts of a snapshot. All are needed.
type Deps struct {
	Kafka   *kafka.Cluster
	Log     *slog.Logger
	Metrics *telemetry.Metrics
}

// Snapshot is the state of the config topic as far as it has been read. All methods may be called concurrently; what
// they return is shared and must not be changed.
type Snapshot struct {
	deps  Deps
	ready chan struct{}

	mu    sync.RWMutex
	state *state
}

// New has read nothing yet: [Snapshot.Run] fills it.
func New(deps Deps) *Snapshot {
	return &Snapshot{deps: deps, ready: make(chan struct{}), state: newState()}
}

// Ready is closed once everything that the topic held when Run started has been applied. Before that an absent
// subscription means nothing.
func (s *Snapshot) Ready() <-chan struct{} { return s.ready }

// Offset is the last offset applied, -1 before the first.
func (s *Snapshot) Offset() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.state.offset
}

// Tenant finds a tenant by its id.
func (s *Snapshot) Tenant(id string) (*webhook.Tenant, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	t, ok := s.state.tenants[id]
	return t, ok
}

// APIKey finds a key by the SHA-256 of its token. It may be revoked or expired: ask [webhook.APIKey.Allows].
func (s *Snapshot) APIKey(hash [32]byte) (*webhook.APIKey, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	k, ok := s.state.keysByHash[hash]
	return k, ok
}

// Subscription finds a subscription by its id, whatever its status.
func (s *Snapshot) Subscription(id string) (*webhook.Subscription, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	sub, ok := s.state.subscriptions[id]
	return sub, ok
}

// Secret finds a secret by its id.
func (s *Snapshot) Secret(id string) (*webhook.Secret, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	secret, ok := s.state.secrets[id]
	return secret, ok
}

// Source finds a source by its id. It may be disabled.
func (s *Snapshot) Source(id string) (*Source, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	found, ok := s.state.sources[id]
	return found, ok
}

// Connection finds whose connection an owner's aggregator means.
func (s *Snapshot) Connection(tenant, aggregator, remoteID string) (*webhook.Connection, bool) {
	id := webhook.ConnectionID(tenant, aggregator, remoteID)
	s.mu.RLock()
	defer s.mu.RUnlock()
	found, ok := s.state.connections[id]
	return found, ok
}

// Wanting lists the subscriptions of a tenant, active and paused ones, whose event types cover a type, whatever they filter.
func (s *Snapshot) Wanting(tenant, eventType string) []*webhook.Subscription {
	s.mu.RLock()
	defer s.mu.RUnlock()
	index, ok := s.state.indexes[tenant]
	if !ok {
		return nil
	}
	return index.match(eventType)
}

// Match lists the subscriptions, active and paused ones, that want an event: by its type, then by their filters. They are
// ordered by id. failed counts those left out because their filter could not be evaluated for this event. The cost grows with
// the number of subscriptions whose types match, not with all.
func (s *Snapshot) Match(e *webhook.Event) (matched []*webhook.Subscription, failed int) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	index, ok := s.state.indexes[e.Tenant]
	if !ok {
		return nil, 0
	}
	candidates := index.match(e.Type)
	if !slices.ContainsFunc(candidates, filtered) {
		return candidates, 0
	}
	matched = make([]*webhook.Subscription, 0, len(candidates))
	for _, sub := range candidates {
		wants, err := s.state.wants(sub, e)
		if err != nil {
			failed++
		}
		if wants {
			matched = append(matched, sub)
		}
	}
	return matched, failed
}

func filtered(sub *webhook.Subscription) bool { return len(sub.Filter) > 0 }

var unreadable = telemetry.Labels("topic", "config", "reason", "unreadable")

// pause is before reading again after an error.
const pause = time.Second

// Run reads the topic from its start and follows it until ctx ends; then it returns nil. Kafka's absence is waited out:
// what has been applied stays in force. Call it once.
func (s *Snapshot) Run(ctx context.Context) error {
	var quiet run.Throttle
	for {
		err := s.follow(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // a stop is no failure
		}
		if quiet.Allow() {
			s.deps.Log.ErrorContext(ctx, "reading config failed, trying again", "error", err, "config_offset", s.Offset())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// follow opens a client behind the last applied offset and applies records until something is wrong with it.
func (s *Snapshot) follow(ctx context.Context) error {
	name := s.deps.Kafka.Topics.Config
	start := kgo.NewOffset().AtStart()
	if applied := s.Offset(); applied >= 0 {
		start = kgo.NewOffset().At(applied + 1)
	}
	cl, err := s.deps.Kafka.Client(
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: {0: start}}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		// The end offset may be that of a control record: it must be seen for the end to be reached.
		kgo.KeepControlRecords(),
	)
	if err != nil {
		return err
	}
	defer cl.Close()
	if err := s.deps.Kafka.WaitTopics(ctx, s.deps.Log, func(error) {}, name); err != nil {
		return err
	}
	first, end, err := bounds(ctx, cl, name)
	if err != nil {
		return err
	}
	if first >= end {
		s.setReady()
	}
	for {
		fetches := cl.PollFetches(ctx)
		s.apply(ctx, fetches.Records())
		if s.Offset()+1 >= end {
			s.setReady()
		}
		if err := errors.Join(ctx.Err(), fetchError(fetches)); err != nil {
			return err
		}
	}
}

func bounds(ctx context.Context, cl *kgo.Client, name string) (first, end int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	adm := kadm.NewClient(cl)
	starts, err := adm.ListStartOffsets(ctx, name)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return 0, 0, fmt.Errorf("find start of config: %w", err)
	}
	ends, err := adm.ListEndOffsets(ctx, name)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return 0, 0, fmt.Errorf("find end of config: %w", err)
	}
	s, okStart := starts.Lookup(name, 0)
	e, okEnd := ends.Lookup(name, 0)
	if !okStart || !okEnd {
		return 0, 0, fmt.Errorf("find ends of config: no partition 0 in %s", name)
	}
	return s.Offset, e.Offset, nil
}

func fetchError(fetches kgo.Fetches) error {
	var problems []error
	fetches.EachError(func(t string, p int32, err error) {
		problems = append(problems, fmt.Errorf("fetch %s/%d: %w", t, p, err))
	})
	return errors.Join(problems...)
}

// apply changes the state record by record. A record that cannot be read is skipped: one bad record must not hold back
// the changes after it.
func (s *Snapshot) apply(ctx context.Context, records []*kgo.Record) {
	if len(records) == 0 {
		return
	}
	for _, r := range records {
		if err := s.applyOne(r); err != nil {
			s.deps.Metrics.Rejected.Add(ctx, 1, unreadable)
			s.deps.Log.ErrorContext(ctx, "config record not understood", "offset", r.Offset, "key", string(r.Key), "error", err)
		}
	}
	s.deps.Metrics.ConfigOffset.Record(ctx, s.Offset())
}

func (s *Snapshot) applyOne(r *kgo.Record) error {
	change, err := decode(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.offset = r.Offset
	if change != nil {
		change(s.state)
	}
	return err
}

func (s *Snapshot) setReady() {
	select {
	case <-s.ready:
	default:
		close(s.ready)
		s.deps.Log.Info("config applied", "config_offset", s.Offset())
	}
}
