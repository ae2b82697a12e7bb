// Package recorder writes the audit: it reads the events, deliveries, attempts and dead-letters topics and brings the database's rows
// forward by what they say, in batches. Its positions are in the database, written with the rows. It counts the failures of each
// subscription, disables one as its contract says, and tells of that by operational events. It decides nothing about a delivery:
// while the database is away it waits, and deliveries go on.
package recorder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hookline/hookline/pkg/health"
	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
)

// Config is what an operator sets.
type Config struct {
	// Batch is how many records, and Linger for how long from the first, are written together.
	Batch  int           `env:"HOOKLINE_RECORDER_BATCH" envDefault:"10000"`
	Linger time.Duration `env:"HOOKLINE_RECORDER_LINGER" envDefault:"200ms"`
	// How long rows are kept; 0 keeps them for ever.
	KeepDeliveries time.Duration `env:"HOOKLINE_RETENTION_DELIVERIES" envDefault:"720h"`
	KeepAttempts   time.Duration `env:"HOOKLINE_RETENTION_ATTEMPTS" envDefault:"720h"`
	KeepEvents     time.Duration `env:"HOOKLINE_RETENTION_EVENTS" envDefault:"720h"`
	// A subscription is told to be failing after so many failed attempts in a row that last so long; 0 attempts tell none.
	FailingAfter int           `env:"HOOKLINE_FAILING_AFTER" envDefault:"3"`
	FailingSpan  time.Duration `env:"HOOKLINE_FAILING_SPAN" envDefault:"1m"`
	// Quiet is the least time between two operational events of one kind about a subscription.
	Quiet        time.Duration `env:"HOOKLINE_OPERATIONAL_QUIET" envDefault:"5m"`
	DrainTimeout time.Duration `env:"HOOKLINE_DRAIN_TIMEOUT" envDefault:"20s"`
}

// shortestRetention is above the longest retry window of the built-in profiles, so that no row goes under a delivery that is
// still under way.
const shortestRetention = 4 * 24 * time.Hour

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var problems []error
	if c.Batch < 1 || c.Batch > 100_000 {
		problems = append(problems, fmt.Errorf("HOOKLINE_RECORDER_BATCH: %d is not between 1 and 100000", c.Batch))
	}
	if c.Linger < 0 || c.Linger > 10*time.Second {
		problems = append(problems, fmt.Errorf("HOOKLINE_RECORDER_LINGER: %v is not between 0 and 10s", c.Linger))
	}
	for _, keep := range []struct {
		name  string
		value time.Duration
	}{
		{"HOOKLINE_RETENTION_DELIVERIES", c.KeepDeliveries}, {"HOOKLINE_RETENTION_ATTEMPTS", c.KeepAttempts}, {"HOOKLINE_RETENTION_EVENTS", c.KeepEvents},
	} {
		if keep.value != 0 && keep.value < shortestRetention {
			problems = append(problems, fmt.Errorf("%s: %v is below %v; 0 keeps for ever", keep.name, keep.value, shortestRetention))
		}
	}
	if c.FailingAfter < 0 {
		problems = append(problems, fmt.Errorf("HOOKLINE_FAILING_AFTER: %d is negative", c.FailingAfter))
	}
	if c.FailingSpan < 0 {
		problems = append(problems, fmt.Errorf("HOOKLINE_FAILING_SPAN: %v is negative", c.FailingSpan))
	}
	if c.Quiet < 0 {
		problems = append(problems, fmt.Errorf("HOOKLINE_OPERATIONAL_QUIET: %v is negative", c.Quiet))
	}
	if c.DrainTimeout < 0 {
		problems = append(problems, fmt.Errorf("HOOKLINE_DRAIN_TIMEOUT: %v is negative", c.DrainTimeout))
	}
	return errors.Join(problems...)
}

// Store is the database as the recorder needs it: package pgstore or sqlitestore.
type Store interface {
	Ping(ctx context.Context) error
	Record(ctx context.Context, b *store.Batch) error
	Offsets(ctx context.Context, topics ...string) (map[store.TopicPartition]int64, error)
	Health(ctx context.Context, partitions ...int32) ([]store.Health, error)
	Maintain(ctx context.Context, now time.Time, keep store.Retention) error
	Tenant(ctx context.Context, id string) (webhook.Tenant, error)
	UpdateSubscription(ctx context.Context, tenant, id string, change func(*webhook.Subscription) error) (webhook.Subscription, error)
}

// Profiles are the delivery contracts, which say when a subscription is to be disabled.
type Profiles interface {
	Get(name string) (*profile.Profile, bool)
	Version(name string, version uint32) (*profile.Profile, bool)
}

// Deps are the parts.
type Deps struct {
	Log      *slog.Logger
	Metrics  *telemetry.Metrics
	Health   *health.Health
	Kafka    *kafka.Cluster
	Store    Store
	Profiles Profiles
}

// Service is a recorder.
type Service struct {
	cfg  Config
	deps Deps
	// What readiness depends on: that Kafka and the database are there, and that what is read can be written.
	kafka, database, writing *health.Condition
}

// New checks and assembles; it opens and starts nothing.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	starting := errors.New("starting")
	return &Service{
		cfg: cfg, deps: deps,
		kafka:    deps.Health.Need("recorder: kafka", starting),
		database: deps.Health.Need("recorder: database", starting),
		writing:  deps.Health.Need("recorder: writing", nil),
	}, nil
}

// Run records until ctx ends. Then it takes nothing new, and writes within the drain timeout what it has taken; what it cannot
// write any more is read again by whoever comes next.
func (s *Service) Run(ctx context.Context) error {
	var helpers sync.WaitGroup
	defer helpers.Wait()
	helpers.Go(func() { s.watchDatabase(ctx) })
	helpers.Go(func() { s.maintain(ctx) })
	if err := s.deps.Kafka.WaitTopics(ctx, s.deps.Log, s.kafka.Set, append(s.topics(), s.deps.Kafka.Topics.Rejected)...); err != nil {
		return nil //nolint:nilerr // stopped before it was ready: there is nothing to finish
	}
	run.Sessions(ctx, s.deps.Log, func(error) {}, s.session) // what failed may be the database, which is watched
	return nil
}

// topics are what the recorder reads.
func (s *Service) topics() []string {
	names := s.deps.Kafka.Topics
	return []string{names.Events, names.Deliveries, names.Attempts, names.DeadLetters}
}

// watchDatabase asks whether the database is there until ctx ends: seldom while it is, often while it is not.
func (s *Service) watchDatabase(ctx context.Context) {
	const seldom, often, patience = 15 * time.Second, 2 * time.Second, 5 * time.Second
	for ctx.Err() == nil {
		asked, cancel := context.WithTimeout(ctx, patience)
		err := s.deps.Store.Ping(asked)
		cancel()
		if ctx.Err() != nil {
			return
		}
		s.database.Set(err)
		if err != nil {
			run.Pause(ctx, often)
		} else {
			run.Pause(ctx, seldom)
		}
	}
}

// maintain makes partitions ahead and drops old rows, every hour until ctx ends.
func (s *Service) maintain(ctx context.Context) {
	const interval, again, patience = time.Hour, time.Minute, 10 * time.Minute
	keep := store.Retention{Deliveries: s.cfg.KeepDeliveries, Attempts: s.cfg.KeepAttempts, Events: s.cfg.KeepEvents}
	for ctx.Err() == nil {
		bounded, cancel := context.WithTimeout(ctx, patience)
		err := s.deps.Store.Maintain(bounded, time.Now(), keep)
		cancel()
		switch {
		case ctx.Err() != nil:
		case err != nil:
			s.deps.Log.WarnContext(ctx, "maintain audit tables", "error", err)
			run.Pause(ctx, again)
		default:
			run.Pause(ctx, interval)
		}
	}
}
