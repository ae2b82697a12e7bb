package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"go.opentelemetry.io/otel"

	"github.com/hookline/hookline/pkg/config"
	"github.com/hookline/hookline/pkg/health"
	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/snapshot"
	"github.com/hookline/hookline/pkg/telemetry"
)

// baseConfig is what every command reads that works on the system.
type baseConfig struct {
	Telemetry telemetry.Config
	Kafka     kafka.Config
}

// processConfig is what every process that goes on reads besides, whatever it runs.
type processConfig struct {
	Base baseConfig
	Run  run.Config
}

// process holds the parts that the services of one process share. Opening it starts telemetry only; clients of servers are opened
// when a service asks for them, and closed in the opposite order.
type process struct {
	environ   config.Environment
	cfg       baseConfig
	log       *slog.Logger
	health    *health.Health
	telemetry *telemetry.Telemetry
	kafka     *kafka.Cluster
	admin     net.Listener // nil: HOOKLINE_ADMIN_ADDR

	// embeddedRedis says that the Redis is of this process, and has no memory policy to be asked for.
	embeddedRedis bool
	// mux is where services of this process answer that share one address; nil where each listens on its own.
	mux *http.ServeMux

	snapshot *snapshot.Snapshot // nil until a service asks for it
	database database           // nil until a service asks for it
	closers  []func()
}

// openProcess reads the base configuration, which the caller has found to be valid.
func openProcess(ctx context.Context, name string, environ config.Environment, logs io.Writer) (*process, error) {
	p := &process{environ: environ, health: health.New()}
	if err := config.Load(&p.cfg, environ); err != nil {
		return nil, err
	}
	p.log = telemetry.NewLogger(logs, p.cfg.Telemetry)
	// The SDK reports what it cannot export; it must not end up between the JSON lines.
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { p.log.Warn("telemetry", "error", err) }))
	for _, u := range environ.Unknown(config.All(uses())) {
		p.log.WarnContext(ctx, "unknown setting", "name", u.Name, "suggestion", u.Suggestion)
	}
	var err error
	p.telemetry, err = telemetry.Start(ctx, telemetry.Identity{Service: name, Version: buildVersion()})
	if err != nil {
		return nil, err
	}
	p.atClose(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := p.telemetry.Shutdown(ctx); err != nil {
			p.log.WarnContext(ctx, "telemetry was not sent", "error", err)
		}
	})
	p.kafka = kafka.New(p.cfg.Kafka, quiet(p.log))
	return p, nil
}

func (p *process) atClose(f func()) { p.closers = append(p.closers, f) }

func (p *process) close() {
	for i := len(p.closers) - 1; i >= 0; i-- {
		p.closers[i]()
	}
}

// run runs the services, and the snapshot if one of them reads it, until ctx ends.
func (p *process) run(ctx context.Context, cfg run.Config, services ...run.Service) error {
	if p.snapshot != nil {
		services = append(services, run.Service{Name: "snapshot", Run: p.snapshot.Run})
	}
	return p.surroundings(cfg).Run(ctx, services...)
}

func (p *process) surroundings(cfg run.Config) run.Process {
	return run.Process{Config: cfg, Log: p.log, Health: p.health, Metrics: p.telemetry.Handler, Listener: p.admin}
}

// config is the applied configuration: one for all services of the process.
func (p *process) config() *snapshot.Snapshot {
	if p.snapshot == nil {
		p.snapshot = snapshot.New(snapshot.Deps{Kafka: p.kafka, Log: p.log, Metrics: p.telemetry.Metrics})
	}
	return p.snapshot
}

// mount answers under a path of the shared address, where there is one.
func (p *process) mount(path string, handler http.Handler) {
	if p.mux != nil {
		p.mux.Handle(path, handler)
	}
}

// service is a command that runs one of the six.
type service struct {
	name  string
	short string
	// config makes an empty struct of the service's whole configuration, the common part included.
	config func() any
	// assemble makes the service of the loaded struct.
	assemble func(ctx context.Context, p *process, cfg any) (run.Service, error)
}

// define ties a configuration to the function that assembles from it.
func define[C any](name, short string, assemble func(context.Context, *process, *C) (runner, error)) service {
	return service{
		name: name, short: short,
		config: func() any { return new(C) },
		assemble: func(ctx context.Context, p *process, cfg any) (run.Service, error) {
			s, err := assemble(ctx, p, cfg.(*C))
			if err != nil {
				return run.Service{}, fmt.Errorf("assemble %s: %w", name, err)
			}
			return run.Service{Name: name, Run: s.Run}, nil
		},
	}
}

// load reads the configuration of the service, and reports all that is wrong with it.
func (s service) load(environ config.Environment) (any, error) {
	cfg := s.config()
	return cfg, config.Load(cfg, environ)
}

// quiet drops what a chatty component says below warning, unless everything is wanted.
func quiet(log *slog.Logger) *slog.Logger {
	if log.Enabled(context.Background(), slog.LevelDebug) {
		return log
	}
	return slog.New(atLeastWarn{log.Handler()})
}

type atLeastWarn struct{ slog.Handler }

func (h atLeastWarn) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && h.Handler.Enabled(ctx, level)
}
func (h atLeastWarn) WithAttrs(attrs []slog.Attr) slog.Handler {
	return atLeastWarn{h.Handler.WithAttrs(attrs)}
}
func (h atLeastWarn) WithGroup(name string) slog.Handler {
	return atLeastWarn{h.Handler.WithGroup(name)}
}
