package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/pkg/apikey"
	"github.com/hookline/hookline/pkg/config"
	"github.com/hookline/hookline/pkg/embedded"
	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/seal"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/services/api"
)

type devFlags struct {
	dataDir string
	demo    string
}

func newDev(t terminal) *cobra.Command {
	var flags devFlags
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything in this process, with embedded Kafka, Redis and SQLite",
		Long: `Runs the six services in one process, with an embedded Kafka on HOOKLINE_KAFKA_BROKERS, and the API, ingest and a page that
says what is where on HOOKLINE_API_ADDR. What was acknowledged survives a kill of the process.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			// --demo fuse: a flag that needs no value does not take the next word.
			if len(args) == 1 && cmd.Flags().Changed("demo") && flags.demo == demoOrders {
				flags.demo = args[0]
			} else if len(args) == 1 {
				return fmt.Errorf("unknown argument %q", args[0])
			}
			if _, known := demos[flags.demo]; !known && flags.demo != "" {
				return fmt.Errorf("--demo: %q is not one of %s", flags.demo, strings.Join(slices.Sorted(maps.Keys(demos)), ", "))
			}
			return dev(cmd.Context(), t, flags)
		},
	}
	cmd.Flags().StringVar(&flags.dataDir, "data-dir", ".hookline", "directory for all data; made if it does not exist")
	cmd.Flags().StringVar(&flags.demo, "demo", "", "show at once how events are delivered, also to an endpoint that fails and recovers; "+
		"fuse: how an aggregator's webhook is forwarded, called back and followed")
	cmd.Flags().Lookup("demo").NoOptDefVal = demoOrders
	return cmd
}

// dev is a configuration, not a mode: it starts servers, puts their addresses where an operator would, and runs what every other
// command runs.
func dev(ctx context.Context, t terminal, flags devFlags) error {
	environ, err := devEnvironment(t.environ, flags.dataDir)
	if err != nil {
		return err
	}
	if flags.demo != "" {
		// The demo tells of every attempt itself.
		environ = environ.With(map[string]string{"HOOKLINE_LOG_LEVEL": "warn"})
	}
	var cfg devConfig
	problems := config.Problems{}
	problems.Add(config.Load(&cfg, environ))
	problems.Add(loadAll(environ, uses()))
	if err := problems.Err(); err != nil {
		return err
	}
	servers, err := embedded.Start(embedded.Config{
		DataDir: flags.dataDir, KafkaAddr: environ["HOOKLINE_KAFKA_BROKERS"], Log: telemetry.NewLogger(t.err, cfg.Telemetry),
	})
	if err != nil {
		return err
	}
	defer servers.Close()
	environ["HOOKLINE_KAFKA_BROKERS"] = servers.Brokers
	environ["HOOKLINE_REDIS_URL"] = servers.RedisURL
	if !strings.HasPrefix(environ["HOOKLINE_DATABASE_URL"], "sqlite:") {
		environ["HOOKLINE_DATABASE_URL"] = servers.DatabaseURL
	}
	return devProcess(ctx, t, flags, environ)
}

// devConfig is what dev itself needs before it starts anything.
type devConfig struct {
	Telemetry telemetry.Config
	Kafka     devKafka
}

type devKafka struct {
	Addrs []string `env:"HOOKLINE_KAFKA_BROKERS"`
}

// Validate: the embedded broker is one, and listens on one address.
func (c devKafka) Validate() error {
	if len(c.Addrs) != 1 {
		return errors.New("HOOKLINE_KAFKA_BROKERS: dev listens on one address")
	}
	if _, _, err := net.SplitHostPort(c.Addrs[0]); err != nil {
		return fmt.Errorf("HOOKLINE_KAFKA_BROKERS: %q is not host:port", c.Addrs[0])
	}
	return nil
}

// devEnvironment is the environment with dev's defaults, and without what makes no sense for embedded servers.
func devEnvironment(given config.Environment, dataDir string) (config.Environment, error) {
	key, err := kept(filepath.Join(dataDir, "encryption-keys"), func() string { return seal.NewKey("dev") })
	if err != nil {
		return nil, err
	}
	token, err := kept(filepath.Join(dataDir, apiKeyFile), func() string { token, _ := apikey.New(); return token })
	if err != nil {
		return nil, err
	}
	environ := given.With(map[string]string{
		"HOOKLINE_KAFKA_BROKERS":     "127.0.0.1:9092",
		"HOOKLINE_TOPIC_PARTITIONS":  "4",
		"HOOKLINE_EGRESS_ALLOW":      "127.0.0.0/8,::1/128",
		"HOOKLINE_EGRESS_ALLOW_HTTP": "true",
		"HOOKLINE_ENCRYPTION_KEYS":   key,
		"HOOKLINE_BOOTSTRAP_API_KEY": token,
	})
	for _, name := range []string{"HOOKLINE_KAFKA_TLS", "HOOKLINE_KAFKA_SASL_MECHANISM", "HOOKLINE_REDIS_URL", "HOOKLINE_REDIS_URL_FILE", "HOOKLINE_DATABASE_URL_FILE"} {
		delete(environ, name)
	}
	if !strings.HasPrefix(environ["HOOKLINE_DATABASE_URL"], "sqlite:") {
		delete(environ, "HOOKLINE_DATABASE_URL")
	}
	return environ, nil
}

const apiKeyFile = "api-key"

// kept reads a file, or makes it with what fresh returns: whole or not at all, and readable by its owner only.
func kept(path string, fresh func() string) (string, error) {
	content, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(content)), nil
	}
	if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", err
	}
	value := fresh()
	if err := os.WriteFile(path+".new", []byte(value+"\n"), 0o600); err != nil {
		return "", err
	}
	return value, os.Rename(path+".new", path)
}

// devProcessConfig is what dev does itself once the servers run.
type devProcessConfig struct {
	Migrate migrateConfig
	API     api.Config
	Run     run.Config
}

// devProcess runs the six services in one process, and answers for all of them on HOOKLINE_API_ADDR.
//
// The order of what is deferred is the order of the stop: services, then clients, then telemetry; the caller's servers last.
func devProcess(ctx context.Context, t terminal, flags devFlags, environ config.Environment) error {
	p, err := openProcess(ctx, "hookline", environ, t.err)
	if err != nil {
		return err
	}
	defer p.close()
	var cfg devProcessConfig
	if err := config.Load(&cfg, environ); err != nil {
		return err
	}
	if p.admin, err = devAdmin(ctx, cfg.Run.AdminAddr, t.environ); err != nil {
		return err
	}
	if err := p.migrate(ctx, cfg.Migrate); err != nil {
		return err
	}
	p.embeddedRedis = true
	p.mux = http.NewServeMux()
	running, err := p.assembleAll(ctx)
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.API.Addr)
	if err != nil {
		return fmt.Errorf("listen on HOOKLINE_API_ADDR: %w", err)
	}
	about := guide{
		Program: t.program, URL: "http://" + listener.Addr().String(), Brokers: environ["HOOKLINE_KAFKA_BROKERS"], Topic: p.kafka.Topics.Events,
		Admin: "http://" + p.admin.Addr().String(), DataDir: flags.dataDir, Key: environ["HOOKLINE_BOOTSTRAP_API_KEY"],
		KeyGiven: t.environ["HOOKLINE_BOOTSTRAP_API_KEY"] != "",
	}
	p.mux.Handle("GET /{$}", about)
	p.mux.Handle("/", p.surroundings(cfg.Run).Admin())
	running = append(running,
		run.Service{Name: "http", Run: func(ctx context.Context) error { return run.Serve(ctx, p.log, listener, p.mux, 10*time.Second) }},
		run.Service{Name: "guide", Run: func(ctx context.Context) error { return p.guide(ctx, t, about, flags.demo) }},
	)
	return p.report(ctx, p.run(ctx, cfg.Run, running...))
}

// devAdmin listens on HOOKLINE_ADMIN_ADDR. Where nobody asked for an address, any will do when the usual one is taken.
func devAdmin(ctx context.Context, addr string, given config.Environment) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil && given["HOOKLINE_ADMIN_ADDR"] == "" {
		listener, err = new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	}
	if err != nil {
		return nil, fmt.Errorf("listen on HOOKLINE_ADMIN_ADDR: %w", err)
	}
	return listener, nil
}

// The demos by their names.
const demoOrders = "orders"

var demos = map[string]func(context.Context, io.Writer, guide, func(subscription string) bool) error{demoOrders: runDemo, "fuse": runFuseDemo}

// guide waits until everything is ready, says what is where, and shows the demo if asked to.
func (p *process) guide(ctx context.Context, t terminal, about guide, demo string) error {
	// The first thing that anybody does needs the key.
	known := p.health.Need("dev: API key", errors.New("not published yet"))
	if !poll(ctx, func() bool { _, ok := p.config().APIKey(apikey.Hash(about.Key)); return ok }) {
		return nil
	}
	known.Set(nil)
	if !poll(ctx, func() bool { return len(p.health.Unmet()) == 0 }) {
		return nil
	}
	if err := about.print(t.out); err != nil {
		return err
	}
	if run, asked := demos[demo]; asked {
		live := func(subscription string) bool { _, ok := p.config().Subscription(subscription); return ok }
		if err := run(ctx, t.out, about, live); err != nil && ctx.Err() == nil {
			return fmt.Errorf("demo: %w", err)
		}
	}
	<-ctx.Done()
	return nil
}

// poll returns true once done does, or false when ctx has ended.
func poll(ctx context.Context, done func() bool) bool {
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return false
		case <-look.C:
		}
	}
	return true
}
