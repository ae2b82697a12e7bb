// Package router turns events into deliveries: it reads the events topic, finds the subscriptions that want each event in
// the config snapshot, and writes one delivery per match, under ids that are the same however often it does so. What
// cannot be read goes to the rejected topic with its reason. It needs Kafka and the config snapshot only, and calls no
// endpoint.
package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/hookline/hookline/pkg/health"
	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
)

// Config is what an operator sets.
type Config struct {
	DrainTimeout time.Duration `env:"HOOKLINE_DRAIN_TIMEOUT" envDefault:"20s"`
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	if c.DrainTimeout < 0 {
		return fmt.Errorf("HOOKLINE_DRAIN_TIMEOUT: %v is negative", c.DrainTimeout)
	}
	return nil
}

// Snapshot is the applied configuration.
type Snapshot interface {
	Ready() <-chan struct{}
	Offset() int64
	Tenant(id string) (*webhook.Tenant, bool)
	// Match lists the subscriptions that want an event in the order of their ids, and counts those whose filter fails for it.
	Match(e *webhook.Event) (matched []*webhook.Subscription, failed int)
}

// Profiles are the delivery contracts, by name in their newest version.
type Profiles interface {
	Get(name string) (*profile.Profile, bool)
}

// Deps are the parts.
type Deps struct {
	Log      *slog.Logger
	Metrics  *telemetry.Metrics
	Tracer   trace.Tracer // may be nil
	Health   *health.Health
	Kafka    *kafka.Cluster
	Snapshot Snapshot
	Profiles Profiles
}

// bounds keep a fan-out in memory small, and what a crash repeats of it.
type bounds struct {
	deliveries int // of one event, unacknowledged
	bytes      int // of their values
}

// Service is a router.
type Service struct {
	cfg    Config
	deps   Deps
	chunk  bounds
	kafka  *health.Condition
	config *health.Condition
}

// New checks and assembles; it opens and starts nothing.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Tracer == nil {
		deps.Tracer = noop.NewTracerProvider().Tracer("")
	}
	starting := errors.New("starting")
	return &Service{
		cfg: cfg, deps: deps, chunk: bounds{deliveries: 5_000, bytes: 8 << 20},
		kafka:  deps.Health.Need("router: kafka", starting),
		config: deps.Health.Need("router: config", starting),
	}, nil
}

// Run routes until ctx ends. Then it takes nothing new, waits within the drain timeout until what it has sent is
// acknowledged, commits and leaves the group. It routes nothing before the snapshot is ready: an empty table would lose
// matches without a trace.
func (s *Service) Run(ctx context.Context) error {
	if err := s.waitUntilReady(ctx); err != nil {
		return nil //nolint:nilerr // stopped before it was ready: there is nothing to finish
	}
	run.Sessions(ctx, s.deps.Log, s.kafka.Set, s.session)
	return nil
}

func (s *Service) waitUntilReady(ctx context.Context) error {
	names := s.deps.Kafka.Topics
	err := s.deps.Kafka.WaitTopics(ctx, s.deps.Log, s.kafka.Set, names.Events, names.Rejected, names.Deliveries, names.Callbacks)
	if err != nil {
		return err
	}
	return s.config.Await(ctx, s.deps.Snapshot.Ready())
}
