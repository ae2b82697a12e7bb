// Package delivery sends deliveries: it consumes work from the deliveries topic, signs and POSTs each event as the
// subscription's contract says, and writes what came of it to the attempts, retries and dead-letters topics. Records of a
// partition finish out of order; one is finished when its outcome has been acknowledged by Kafka, and only then may it be
// committed. It needs Kafka and the config snapshot, neither Redis nor a database.
package delivery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/hookline/hookline/pkg/egress"
	"github.com/hookline/hookline/pkg/health"
	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/seal"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
)

// Config is what an operator sets.
type Config struct {
	// MaxInflight bounds the HTTP requests under way in this process.
	MaxInflight int `env:"HOOKLINE_DELIVERY_MAX_INFLIGHT" envDefault:"512"`
	// EndpointInflight bounds those to one subscription, unless its overrides set another bound.
	EndpointInflight int `env:"HOOKLINE_DELIVERY_ENDPOINT_INFLIGHT" envDefault:"64"`
	// WindowRecords and WindowBytes bound what is held of one partition; all together hold at most four times as many bytes.
	WindowRecords int `env:"HOOKLINE_DELIVERY_WINDOW_RECORDS" envDefault:"2000"`
	WindowBytes   int `env:"HOOKLINE_DELIVERY_WINDOW_BYTES" envDefault:"33554432"`
	// RememberedTrips bounds the memory of recent trips, by which a trip seen twice is sent once.
	RememberedTrips int `env:"HOOKLINE_DELIVERY_REMEMBERED_TRIPS" envDefault:"1000000"`
	// TenantWeights are how many turns tenants have for those slots while there are not enough; 1 where none is named.
	TenantWeights map[string]int `env:"HOOKLINE_DELIVERY_TENANT_WEIGHTS"`
	// ResponseBytes is how much of a response body is kept in the audit.
	ResponseBytes int           `env:"HOOKLINE_DELIVERY_RESPONSE_BYTES" envDefault:"1024"`
	DrainTimeout  time.Duration `env:"HOOKLINE_DRAIN_TIMEOUT" envDefault:"20s"`
}

const maxWeight = 1000

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var problems []error
	atLeast := func(name string, value, least int) {
		if value < least {
			problems = append(problems, fmt.Errorf("%s: %d is below %d", name, value, least))
		}
	}
	atLeast("HOOKLINE_DELIVERY_MAX_INFLIGHT", c.MaxInflight, 1)
	atLeast("HOOKLINE_DELIVERY_ENDPOINT_INFLIGHT", c.EndpointInflight, 1)
	atLeast("HOOKLINE_DELIVERY_WINDOW_RECORDS", c.WindowRecords, minWindow)
	atLeast("HOOKLINE_DELIVERY_WINDOW_BYTES", c.WindowBytes, 4<<20)
	atLeast("HOOKLINE_DELIVERY_REMEMBERED_TRIPS", c.RememberedTrips, 1000)
	atLeast("HOOKLINE_DELIVERY_RESPONSE_BYTES", c.ResponseBytes, 0)
	if c.ResponseBytes > egress.MaxResponse {
		problems = append(problems, fmt.Errorf("HOOKLINE_DELIVERY_RESPONSE_BYTES: %d is above %d", c.ResponseBytes, egress.MaxResponse))
	}
	for tenant, weight := range c.TenantWeights {
		if weight < 1 || weight > maxWeight {
			problems = append(problems, fmt.Errorf("HOOKLINE_DELIVERY_TENANT_WEIGHTS: the weight of %s is %d, want 1 to %d", tenant, weight, maxWeight))
		}
	}
	if c.DrainTimeout < 0 {
		problems = append(problems, fmt.Errorf("HOOKLINE_DRAIN_TIMEOUT: %v is negative", c.DrainTimeout))
	}
	return errors.Join(problems...)
}

// Snapshot is the applied configuration.
type Snapshot interface {
	Ready() <-chan struct{}
	Offset() int64
	Subscription(id string) (*webhook.Subscription, bool)
	Secret(id string) (*webhook.Secret, bool)
}

// Profiles are the delivery contracts.
type Profiles interface {
	Get(name string) (*profile.Profile, bool)
	Version(name string, version uint32) (*profile.Profile, bool)
}

// Keys open sealed secrets.
type Keys interface {
	Open(s *webhook.Secret, v webhook.SecretVersion) (seal.Value, error)
}

// Deps are the parts.
type Deps struct {
	Log      *slog.Logger
	Metrics  *telemetry.Metrics
	Tracer   trace.Tracer
	Health   *health.Health
	Kafka    *kafka.Cluster
	Snapshot Snapshot
	Profiles Profiles
	Keys     Keys
	// Transport sends requests. It must check where it connects to; package egress makes one.
	Transport http.RoundTripper
}

// Service is a delivery worker.
type Service struct {
	cfg      Config
	deps     Deps
	outcomes outcomeLabels
	kafka    *health.Condition
	config   *health.Condition
}

// New checks and assembles; it opens and starts nothing.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	starting := errors.New("starting")
	return &Service{
		cfg: cfg, deps: deps, outcomes: newOutcomeLabels(),
		kafka:  deps.Health.Need("delivery: kafka", starting),
		config: deps.Health.Need("delivery: config", starting),
	}, nil
}

// Run delivers until ctx ends. Then it takes nothing new, lets the attempts under way finish within the drain timeout,
// commits and leaves the group. What had not begun is left to the next owner.
func (s *Service) Run(ctx context.Context) error {
	if err := s.waitUntilReady(ctx); err != nil {
		return nil //nolint:nilerr // stopped before it was ready: there is nothing to finish
	}
	run.Sessions(ctx, s.deps.Log, s.kafka.Set, s.session)
	return nil
}

func (s *Service) waitUntilReady(ctx context.Context) error {
	names := s.deps.Kafka.Topics
	err := s.deps.Kafka.WaitTopics(ctx, s.deps.Log, s.kafka.Set, names.Deliveries, names.Attempts, names.Retries, names.DeadLetters, names.Rejected)
	if err != nil {
		return err
	}
	return s.config.Await(ctx, s.deps.Snapshot.Ready())
}
