// Package ingest takes events over HTTP and writes them to the events topic: POST /v1/events, for producers that do not
// speak Kafka; POST /v1/sources/{id}, for third parties' webhooks; and POST /v1/callbacks/…, for receivers that send back what they
// got, after which it releases what follows. It answers 2xx only when every in-sync replica has what the answer promises. It needs
// Kafka and the config snapshot, from which it knows the API keys, and no database.
package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/pkg/health"
	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/seal"
	"github.com/hookline/hookline/pkg/snapshot"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
)

// Config is what an operator sets.
type Config struct {
	Addr string `env:"HOOKLINE_INGEST_ADDR" envDefault:"127.0.0.1:8081"`
	// BufferBytes bounds the bodies of the requests under way, and what waits for Kafka. Beyond it requests get a 503.
	BufferBytes  int           `env:"HOOKLINE_INGEST_BUFFER_BYTES" envDefault:"67108864"`
	DrainTimeout time.Duration `env:"HOOKLINE_DRAIN_TIMEOUT" envDefault:"20s"`
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var problems []error
	if _, _, err := net.SplitHostPort(c.Addr); err != nil {
		problems = append(problems, fmt.Errorf("HOOKLINE_INGEST_ADDR: %q is not host:port", c.Addr))
	}
	if c.BufferBytes < event.MaxBatchSize {
		problems = append(problems, fmt.Errorf("HOOKLINE_INGEST_BUFFER_BYTES: %d is below %d, the size of one batch", c.BufferBytes, event.MaxBatchSize))
	}
	if c.DrainTimeout < 0 {
		problems = append(problems, fmt.Errorf("HOOKLINE_DRAIN_TIMEOUT: %v is negative", c.DrainTimeout))
	}
	return errors.Join(problems...)
}

// Snapshot is the applied configuration.
type Snapshot interface {
	Ready() <-chan struct{}
	APIKey(hash [32]byte) (*webhook.APIKey, bool)
	Sources
	Subscriptions
}

// Sources are where third parties post to, and whose connections they speak of.
type Sources interface {
	Source(id string) (*snapshot.Source, bool)
	Connection(tenant, aggregator, remoteID string) (*webhook.Connection, bool)
}

// Subscriptions say who calls back, and who gets what follows.
type Subscriptions interface {
	Wanting(tenant, eventType string) []*webhook.Subscription
	Match(e *webhook.Event) (matched []*webhook.Subscription, failed int)
	Secret(id string) (*webhook.Secret, bool)
}

// Keys open secrets: a *seal.Ring.
type Keys interface {
	Open(s *webhook.Secret, v webhook.SecretVersion) (seal.Value, error)
}

// Profiles are the delivery contracts: a *profile.Catalog.
type Profiles interface {
	Names() []string
	Get(name string) (*profile.Profile, bool)
}

// Deps are the parts. Tracer, Listener and Mounted may be zero.
type Deps struct {
	Log      *slog.Logger
	Metrics  *telemetry.Metrics
	Tracer   trace.Tracer
	Health   *health.Health
	Kafka    *kafka.Cluster
	Snapshot Snapshot
	Keys     Keys
	Profiles Profiles
	// Listener is served instead of one on Config.Addr. Run closes it.
	Listener net.Listener
	// Mounted says that the caller serves [Service.Handler] itself: Run listens nowhere, and still writes and drains.
	Mounted bool
}

// Service takes events.
type Service struct {
	cfg    Config
	deps   Deps
	kafka  *health.Condition
	config *health.Condition

	// producer is nil while nothing can be written: before the topic is there, and when the service stops.
	producer atomic.Pointer[producer]
	held     atomic.Int64 // bytes of the requests under way
	under    gate
	unhappy  once
	told     told

	callbacks map[string]*profile.Profile // by the path that is called
	// ledger is nil while what may be called back is not known.
	ledger atomic.Pointer[ledger]
}

// producer is a client and the way to say that it cannot go on.
type producer struct {
	*kgo.Client
	fail context.CancelCauseFunc
}

// New checks and assembles; it opens and starts nothing.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Tracer == nil {
		deps.Tracer = noop.NewTracerProvider().Tracer("")
	}
	called, err := callbacks(deps.Profiles)
	if err != nil {
		return nil, err
	}
	starting := errors.New("starting")
	return &Service{
		cfg: cfg, deps: deps, callbacks: called, told: told{sources: map[string]*second{}},
		kafka:  deps.Health.Need("ingest: kafka", starting),
		config: deps.Health.Need("ingest: config", starting),
	}, nil
}

// Run takes events until ctx ends. Then it takes nothing new, and lets the requests under way finish within the drain
// timeout. Requests that come before Kafka and the configuration are there get a 503.
func (s *Service) Run(ctx context.Context) error {
	listener := s.deps.Listener
	if listener == nil && !s.deps.Mounted {
		var err error
		if listener, err = new(net.ListenConfig).Listen(ctx, "tcp", s.cfg.Addr); err != nil {
			return fmt.Errorf("listen on HOOKLINE_INGEST_ADDR: %w", err)
		}
	}
	served := make(chan error, 1)
	running, stop := context.WithCancel(ctx)
	defer stop()
	if s.deps.Mounted {
		served <- nil
	} else {
		s.deps.Log.InfoContext(ctx, "ingest", "addr", listener.Addr().String())
		go func() {
			defer stop() // a listener that failed ends the service
			served <- run.Serve(running, s.deps.Log, listener, s.Handler(), s.cfg.DrainTimeout)
		}()
	}
	var following sync.WaitGroup
	following.Go(func() { s.follow(running) })
	s.produce(running)
	following.Wait()
	return <-served
}

// produce keeps a producer open until ctx ends, a fresh one whenever one cannot go on.
func (s *Service) produce(ctx context.Context) {
	if s.waitUntilReady(ctx) != nil {
		return
	}
	run.Sessions(ctx, s.deps.Log, s.kafka.Set, s.session)
}

func (s *Service) waitUntilReady(ctx context.Context) error {
	names := s.deps.Kafka.Topics
	if err := s.deps.Kafka.WaitTopics(ctx, s.deps.Log, s.kafka.Set, names.Events, names.Rejected, names.SourceRequests, names.Callbacks); err != nil {
		return err
	}
	return s.config.Await(ctx, s.deps.Snapshot.Ready())
}

// session is the life of one producer. What it has been given is acknowledged or answered with a 503 before it is closed.
func (s *Service) session(ctx context.Context) error {
	cl, err := s.deps.Kafka.Client(append(s.deps.Kafka.Producer(),
		kgo.RecordDeliveryTimeout(ackTimeout), kgo.MaxBufferedBytes(s.cfg.BufferBytes), kgo.MaxBufferedRecords(maxBufferedRecords))...)
	if err != nil {
		return err
	}
	defer cl.Close()
	running, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	s.kafka.Set(nil)
	s.producer.Store(&producer{Client: cl, fail: fail})
	s.deps.Kafka.Watch(running, cl, s.kafka.Set)
	s.producer.Store(nil)
	if ctx.Err() == nil {
		return context.Cause(running)
	}
	s.drain(ctx)
	return nil
}

// drain waits for the requests under way, at most for the drain timeout.
func (s *Service) drain(ctx context.Context) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.DrainTimeout)
	defer cancel()
	select {
	case <-s.under.idle():
	case <-bounded.Done():
	}
}

// gate counts the requests under way.
type gate struct {
	mu    sync.Mutex
	count int
	empty chan struct{} // closed when count falls to 0; nil while nobody waits
}

func (g *gate) enter() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count++
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.count--; g.count == 0 && g.empty != nil {
		close(g.empty)
		g.empty = nil
	}
}

// idle is closed at the next moment without a request.
func (g *gate) idle() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.count == 0 {
		now := make(chan struct{})
		close(now)
		return now
	}
	if g.empty == nil {
		g.empty = make(chan struct{})
	}
	return g.empty
}

// Handler answers /v1/events, /v1/sources/{id} and /v1/callbacks/. It may be used before Run and after it: then it answers 503.
func (s *Service) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/events", s.answer(http.StatusAccepted, s.take))
	mux.HandleFunc("/v1/sources/{id}", s.answer(http.StatusAccepted, s.takeFromSource))
	mux.HandleFunc("/v1/callbacks/{path...}", s.answer(http.StatusOK, s.takeCallback))
	mux.HandleFunc("/", notFound)
	return mux
}
