package main

import (
	"context"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/pkg/config"
	"github.com/hookline/hookline/pkg/egress"
	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/services/api"
	"github.com/hookline/hookline/services/delivery"
	"github.com/hookline/hookline/services/ingest"
	"github.com/hookline/hookline/services/recorder"
	"github.com/hookline/hookline/services/router"
	"github.com/hookline/hookline/services/scheduler"
)

// services are the six, in the order of an event's path.
var services = []service{
	define("ingest", "Take events over HTTP", assembleIngest),
	define("router", "Decide who wants each event, and make a delivery for each", assembleRouter),
	define("delivery", "Sign and send deliveries, and decide what follows", assembleDelivery),
	define("scheduler", "Put retries back to work when they are due", assembleScheduler),
	define("recorder", "Write what became of deliveries to the database", assembleRecorder),
	define("api", "Serve the control plane and the audit, and publish changes", assembleAPI),
}

// runner is a service of one of the six packages.
type runner interface {
	Run(ctx context.Context) error
}

type ingestConfig struct {
	Process  processConfig
	Ingest   ingest.Config
	Keys     keysConfig
	Profiles profilesConfig
}

func assembleIngest(_ context.Context, p *process, cfg *ingestConfig) (runner, error) {
	s, err := ingest.New(cfg.Ingest, ingest.Deps{
		Log: p.log.With("service", "ingest"), Metrics: p.telemetry.Metrics, Tracer: p.telemetry.Tracer, Health: p.health, Kafka: p.kafka,
		Snapshot: p.config(), Keys: cfg.Keys.ring(), Profiles: cfg.Profiles.catalog(), Mounted: p.mux != nil,
	})
	if err != nil {
		return nil, err
	}
	p.mount("/v1/", s.Handler())
	return s, nil
}

type routerConfig struct {
	Process  processConfig
	Router   router.Config
	Profiles profilesConfig
}

func assembleRouter(_ context.Context, p *process, cfg *routerConfig) (runner, error) {
	return router.New(cfg.Router, router.Deps{
		Log: p.log.With("service", "router"), Metrics: p.telemetry.Metrics, Tracer: p.telemetry.Tracer, Health: p.health, Kafka: p.kafka,
		Snapshot: p.config(), Profiles: cfg.Profiles.catalog(),
	})
}

type deliveryConfig struct {
	Process  processConfig
	Delivery delivery.Config
	Egress   egress.Config
	Keys     keysConfig
	Profiles profilesConfig
}

func assembleDelivery(ctx context.Context, p *process, cfg *deliveryConfig) (runner, error) {
	p.useMemory()
	guard, err := p.guard(ctx, cfg.Egress)
	if err != nil {
		return nil, err
	}
	transport := guard.Transport()
	p.atClose(transport.CloseIdleConnections)
	return delivery.New(cfg.Delivery, delivery.Deps{
		Log: p.log.With("service", "delivery"), Metrics: p.telemetry.Metrics, Tracer: p.telemetry.Tracer, Health: p.health, Kafka: p.kafka,
		Snapshot: p.config(), Profiles: cfg.Profiles.catalog(), Keys: cfg.Keys.ring(), Transport: transport,
	})
}

// useMemory trades memory for speed, as a delivery worker can, unless the operator has set how much there is. The collector waits
// until there is garbage for 64 MiB more than is alive: a worker holds little and throws much away, so that collecting took a
// sixteenth of its processor time; one that holds connections to thousands of endpoints must not be given a multiple of them. What
// it does hold it touches seldom, which is what huge pages help.
func (p *process) useMemory() {
	if p.environ["GOGC"] == "" && p.environ["GOMEMLIMIT"] == "" {
		// It counts as alive. Nobody writes to it, so it takes address space and no memory.
		ballast := make([]byte, 64<<20)
		p.atClose(func() { runtime.KeepAlive(ballast) })
		run.PreferHugePages(256 << 20)
	}
}

type schedulerConfig struct {
	Process   processConfig
	Scheduler scheduler.Config
	Redis     redisConfig
	Profiles  profilesConfig
}

func assembleScheduler(_ context.Context, p *process, cfg *schedulerConfig) (runner, error) {
	index, err := p.openIndex(cfg.Redis)
	if err != nil {
		return nil, err
	}
	return scheduler.New(cfg.Scheduler, scheduler.Deps{
		Log: p.log, Metrics: p.telemetry.Metrics, Health: p.health, Kafka: p.kafka,
		Index: index, LongestDelay: cfg.Profiles.catalog().LongestDelay(),
	})
}

// openIndex makes no connection before one is needed.
func (p *process) openIndex(cfg redisConfig) (*retryqueue.Index, error) {
	index, err := retryqueue.Open(cfg.URL, retryqueue.Options{Prefix: p.cfg.Kafka.TopicPrefix, Embedded: p.embeddedRedis})
	if err != nil {
		return nil, fmt.Errorf("HOOKLINE_REDIS_URL: %w", err)
	}
	p.atClose(func() {
		// Its connections end with the process in any case.
		_ = index.Close()
	})
	return index, nil
}

type recorderConfig struct {
	Process  processConfig
	Recorder recorder.Config
	Database databaseConfig
	Profiles profilesConfig
}

func assembleRecorder(ctx context.Context, p *process, cfg *recorderConfig) (runner, error) {
	db, err := p.openDatabase(ctx, cfg.Database)
	if err != nil {
		return nil, err
	}
	return recorder.New(cfg.Recorder, recorder.Deps{
		Log: p.log.With("service", "recorder"), Metrics: p.telemetry.Metrics, Health: p.health, Kafka: p.kafka, Store: db,
		Profiles: cfg.Profiles.catalog(),
	})
}

type apiConfig struct {
	Process  processConfig
	API      api.Config
	Database databaseConfig
	Redis    redisConfig // only to tell why deliveries wait
	Egress   egress.Config
	Keys     keysConfig
	Profiles profilesConfig
}

func assembleAPI(ctx context.Context, p *process, cfg *apiConfig) (runner, error) {
	guard, err := egress.New(cfg.Egress)
	if err != nil {
		return nil, err
	}
	db, err := p.openDatabase(ctx, cfg.Database)
	if err != nil {
		return nil, err
	}
	index, err := p.openIndex(cfg.Redis)
	if err != nil {
		return nil, err
	}
	s, err := api.New(cfg.API, api.Deps{
		Log: p.log, Metrics: p.telemetry.Metrics, Tracer: p.telemetry.Tracer, Health: p.health, Kafka: p.kafka,
		Store: db, Ring: cfg.Keys.ring(), Profiles: cfg.Profiles.catalog(), Endpoint: guard, Waiting: index, Mounted: p.mux != nil,
	})
	if err != nil {
		return nil, err
	}
	p.mount("/api/", s.Handler())
	return s, nil
}

// guard says loudly what it lets through besides public addresses over HTTPS.
func (p *process) guard(ctx context.Context, cfg egress.Config) (*egress.Guard, error) {
	if len(cfg.Allow) > 0 || cfg.AllowHTTP {
		p.log.WarnContext(ctx, "endpoints may be more than public addresses over HTTPS", "allow", cfg.Allow, "http", cfg.AllowHTTP)
	}
	return egress.New(cfg)
}

// command runs the service alone.
func (s service) command(t terminal) *cobra.Command {
	return &cobra.Command{
		Use: s.name, Short: s.short, Args: cobra.NoArgs, GroupID: groupServices,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			cfg, err := s.load(t.environ)
			if err != nil {
				return err
			}
			p, err := openProcess(ctx, "hookline-"+s.name, t.environ, t.err)
			if err != nil {
				return err
			}
			defer p.close()
			one, err := s.assemble(ctx, p, cfg)
			if err != nil {
				return err
			}
			var surroundings run.Config
			if err := config.Load(&surroundings, t.environ); err != nil {
				return err
			}
			p.log.InfoContext(ctx, "starting", "service", s.name, "version", buildVersion())
			return p.report(ctx, p.run(ctx, surroundings, one))
		},
	}
}

// assembleAll assembles the six for this process.
func (p *process) assembleAll(ctx context.Context) ([]run.Service, error) {
	var all []run.Service
	for _, s := range services {
		cfg, err := s.load(p.environ)
		if err != nil {
			return nil, err
		}
		one, err := s.assemble(ctx, p, cfg)
		if err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, nil
}

// report logs why the process ends, as its last line.
func (p *process) report(ctx context.Context, err error) error {
	if err != nil {
		p.log.ErrorContext(ctx, "failed", "error", err)
		return fmt.Errorf("%w: %w", errReported, err)
	}
	p.log.InfoContext(ctx, "stopped")
	return nil
}

// loadAll reads the configuration of several commands, and reports each problem once.
func loadAll(environ config.Environment, some []config.Use) error {
	var problems config.Problems
	for _, use := range some {
		problems.Add(config.Load(use.Target, environ))
	}
	return problems.Err()
}
