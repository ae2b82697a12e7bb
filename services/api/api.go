// Package api is the control plane: tenants' secrets, subscriptions and API keys, the audit of their deliveries, and
// redelivery, over HTTP. Every change is written to the database together with its config record, which the relay of
// this package publishes to the config topic, where router, delivery and ingest read it. No event passes through here.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/trace"

	"github.com/hookline/hookline/pkg/apikey"
	"github.com/hookline/hookline/pkg/egress"
	"github.com/hookline/hookline/pkg/health"
	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/seal"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/services/api/journal"
	"github.com/hookline/hookline/services/api/replay"
	"github.com/hookline/hookline/services/api/token"
)

// Config is what an operator sets.
type Config struct {
	Addr string `env:"HOOKLINE_API_ADDR" envDefault:"127.0.0.1:8080"`
	// BootstrapKey is the token of a key with every permission for the default tenant. Changing it ends the old one.
	BootstrapKey string        `env:"HOOKLINE_BOOTSTRAP_API_KEY"`
	DrainTimeout time.Duration `env:"HOOKLINE_DRAIN_TIMEOUT" envDefault:"20s"`
	// OutboxPoll bounds how long a change made by another process waits for this one to publish it.
	OutboxPoll time.Duration `env:"HOOKLINE_API_OUTBOX_POLL" envDefault:"500ms"`
	OIDC       token.Config
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	problems := []error{c.OIDC.Validate()}
	if _, _, err := net.SplitHostPort(c.Addr); err != nil {
		problems = append(problems, fmt.Errorf("HOOKLINE_API_ADDR: %q is not host:port", c.Addr))
	}
	if c.BootstrapKey != "" {
		if _, err := apikey.Parse(c.BootstrapKey); err != nil {
			problems = append(problems, fmt.Errorf("HOOKLINE_BOOTSTRAP_API_KEY: at least %d characters, and not beginning with %q unless Hookline made it",
				apikey.MinLength, apikey.Prefix))
		}
		if strings.ContainsFunc(c.BootstrapKey, func(r rune) bool { return r <= ' ' || r > '~' }) {
			problems = append(problems, errors.New("HOOKLINE_BOOTSTRAP_API_KEY: only visible ASCII characters fit into a header"))
		}
	}
	for name, d := range map[string]time.Duration{
		"HOOKLINE_DRAIN_TIMEOUT": c.DrainTimeout, "HOOKLINE_API_OUTBOX_POLL": c.OutboxPoll,
	} {
		if d <= 0 {
			problems = append(problems, fmt.Errorf("%s: %v is not positive", name, d))
		}
	}
	return errors.Join(problems...)
}

// Deps are the parts. All but Waiting, Listener and Mounted are needed.
type Deps struct {
	Log     *slog.Logger
	Metrics *telemetry.Metrics
	Tracer  trace.Tracer
	Health  *health.Health
	Kafka   *kafka.Cluster
	Store   Store
	// Ring seals the values of secrets.
	Ring     *seal.Ring
	Profiles Profiles
	Endpoint EndpointChecker
	// Waiting tells under which retry a delivery waits. Without it, or where it cannot be asked, that is not told.
	Waiting Waiting
	// Listener is served instead of one on Config.Addr.
	Listener net.Listener
	// Mounted says that the caller serves [Service.Handler] itself: Run listens nowhere, and still relays and drains.
	Mounted bool
}

func (d Deps) validate() error {
	var missing []string
	for name, absent := range map[string]bool{
		"Log": d.Log == nil, "Metrics": d.Metrics == nil, "Tracer": d.Tracer == nil, "Health": d.Health == nil, "Kafka": d.Kafka == nil,
		"Store": d.Store == nil, "Ring": d.Ring == nil, "Profiles": d.Profiles == nil, "Endpoint": d.Endpoint == nil,
	} {
		if absent {
			missing = append(missing, name)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("api: missing parts: %s", strings.Join(missing, ", "))
	}
	return nil
}

// Service answers requests and publishes changes.
type Service struct {
	cfg      Config
	deps     Deps
	log      *slog.Logger
	handler  http.Handler
	spec     []byte
	keys     *keyring
	tokens   *token.Verifier
	relay    *relay
	replays  *replay.Runner
	requests *gate
	database *health.Condition
	kafka    *health.Condition
	// prepared is met once the default tenant and the bootstrap key exist.
	prepared *health.Condition
	// transport makes the requests of Send Test.
	transport *egress.Transport
	// journal cannot be asked before Run.
	journal *journal.Journal
}

// New checks and assembles; it opens and starts nothing.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := errors.Join(cfg.Validate(), deps.validate()); err != nil {
		return nil, err
	}
	s := &Service{
		cfg: cfg, deps: deps,
		log:       deps.Log.With("service", "api"),
		keys:      newKeyring(deps.Store),
		tokens:    token.New(cfg.OIDC),
		requests:  newGate(),
		journal:   journal.New(deps.Kafka),
		transport: deps.Endpoint.Transport(),
		database:  deps.Health.Need("api: database", errors.New("starting")),
		kafka:     deps.Health.Need("api: kafka", errors.New("starting")),
		prepared:  deps.Health.Need("api: bootstrap key", errors.New("starting")),
	}
	s.relay = &relay{
		outbox: deps.Store, publish: s.journal.Write, topic: deps.Kafka.Topics.Config,
		poll: cfg.OutboxPoll, wake: make(chan struct{}, 1), log: s.log,
	}
	s.replays = replay.New(replay.Deps{Log: s.log, Topics: deps.Kafka.Topics, Store: deps.Store, Journal: s.journal, Profiles: deps.Profiles})
	if err := s.assemble(); err != nil {
		return nil, err
	}
	return s, nil
}

// Handler answers everything under /api/v1/event-deliveries. It may be used before Run, and then answers 503 where it
// needs Kafka.
func (s *Service) Handler() http.Handler { return s.handler }

//go:generate go test -count=1 -run TestTheCommittedOpenAPIIsTheAPI . -update

// OpenAPI is the description of the API, an OpenAPI 3.1 document in JSON.
func (s *Service) OpenAPI() []byte { return s.spec }

// Run serves and publishes until ctx ends. Then it takes no new request, finishes those under way and publishes what
// they changed, within HOOKLINE_DRAIN_TIMEOUT, and returns nil. What it has not published by then, the next process
// does.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listener, err := s.listen(ctx)
	if err != nil {
		return err
	}
	client, err := s.deps.Kafka.Client(append(s.deps.Kafka.Producer(), kgo.RecordDeliveryTimeout(produceTimeout))...)
	if err != nil {
		return err
	}
	defer client.Close()
	defer s.transport.CloseIdleConnections()
	defer s.tokens.Close()
	s.journal.Use(client)
	outliving, done := run.Outlive(ctx, s.cfg.DrainTimeout)
	defer done()

	var background sync.WaitGroup
	background.Go(func() { s.prepare(ctx) })
	background.Go(func() { s.watchDatabase(ctx) })
	background.Go(func() { s.watchKafka(ctx, client) })
	served, stopRelay := context.WithCancel(outliving)
	background.Go(func() { s.relay.run(served, outliving) })
	background.Go(func() { s.replays.Run(ctx, outliving) })

	err = s.serve(ctx, outliving, listener)
	cancel()
	stopRelay()
	background.Wait()
	return err
}

func (s *Service) listen(ctx context.Context) (net.Listener, error) {
	if s.deps.Mounted || s.deps.Listener != nil {
		return s.deps.Listener, nil
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen on HOOKLINE_API_ADDR: %w", err)
	}
	return listener, nil
}

// serve returns when ctx has ended and the requests are done, or are out of time.
func (s *Service) serve(ctx, outliving context.Context, listener net.Listener) error {
	if s.deps.Mounted {
		<-ctx.Done()
		s.requests.shut(outliving)
		return nil
	}
	s.log.InfoContext(ctx, "serving", "addr", listener.Addr().String())
	return run.Serve(ctx, s.log, listener, s.handler, s.cfg.DrainTimeout)
}

// produceTimeout bounds the wait for Kafka's acknowledgement; the caller is told to try again.
const produceTimeout = 10 * time.Second
