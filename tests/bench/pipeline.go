package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"
)

// services are the processes of the pipeline besides the router, which starts when the events are there.
var services = []string{"api", "recorder", "scheduler", "delivery"}

const (
	router      = "router"
	apiKey      = "bench-key-of-thirty-two-characters"
	controlPath = "/api/v1/event-deliveries"
)

// installation is a whole Hookline: topics and a database of its own, every service its own process.
type installation struct {
	*stage
	env      map[string]string
	database string
	api      string
}

// pipeline measures the whole way from the events topic to the receiver and into the audit, and where asked for also how
// long it takes.
func (b *bench) pipeline(ctx context.Context, latency bool) (Stage, error) {
	i, err := b.install(ctx)
	if err != nil {
		return Stage{}, err
	}
	defer i.remove()
	measured, err := i.throughput(ctx)
	if err != nil {
		return measured, err
	}
	if latency {
		if b.report.Paced, err = i.paced(ctx); err != nil {
			return measured, fmt.Errorf("at %d events/s: %w", b.Pace, err)
		}
		if b.report.Saturated, b.report.SaturatedPerSecond, err = i.saturated(ctx); err != nil {
			return measured, fmt.Errorf("at full speed: %w", err)
		}
	}
	if err := i.audited(ctx); err != nil {
		return measured, err
	}
	measured.Audited = i.next
	return measured, i.exactly(ctx)
}

func (b *bench) install(ctx context.Context) (*installation, error) {
	s, err := b.open(ctx, "events")
	if err != nil {
		return nil, err
	}
	i := &installation{stage: s, database: strings.ReplaceAll(s.name, "-", "_")}
	if err := i.start(ctx); err != nil {
		i.remove()
		return nil, err
	}
	return i, nil
}

func (i *installation) start(ctx context.Context) error {
	if err := i.sql(ctx, "CREATE DATABASE "+i.database); err != nil {
		return err
	}
	if err := i.environment(ctx); err != nil {
		return err
	}
	migrate, err := start(ctx, i.dir, "migrate", i.env, i.Hookline, "migrate")
	if err != nil {
		return err
	}
	<-migrate.done
	if !migrate.cmd.ProcessState.Success() {
		return fmt.Errorf("migrate: %s\n%s", migrate.cmd.ProcessState, migrate.tail())
	}
	group, waiting := errgroup.WithContext(ctx)
	for _, name := range services {
		p, err := i.service(ctx, name)
		if err != nil {
			return errors.Join(err, group.Wait())
		}
		group.Go(func() error { return p.ready(waiting) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	// The bootstrap key may come a moment after readiness.
	err = i.running["api"].wait(ctx, "accept the bootstrap key", func() bool {
		_, err := i.counts(ctx)
		return err == nil
	})
	if err != nil {
		return err
	}
	return i.subscribe(ctx)
}

func (i *installation) environment(ctx context.Context) error {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // it ends the program where there is no randomness
	database, err := url.Parse(i.DatabaseURL)
	if err != nil {
		return err
	}
	database.Path = "/" + i.database
	i.env = map[string]string{
		"HOOKLINE_KAFKA_BROKERS":     strings.Join(i.Brokers, ","),
		"HOOKLINE_REDIS_URL":         i.RedisURL,
		"HOOKLINE_DATABASE_URL":      database.String(),
		"HOOKLINE_TOPIC_PREFIX":      i.name + ".",
		"HOOKLINE_TOPIC_PARTITIONS":  strconv.Itoa(partitions),
		"HOOKLINE_ENCRYPTION_KEYS":   "bench:" + base64.StdEncoding.EncodeToString(key),
		"HOOKLINE_BOOTSTRAP_API_KEY": apiKey,
		"HOOKLINE_EGRESS_ALLOW":      "127.0.0.0/8",
		"HOOKLINE_EGRESS_ALLOW_HTTP": "true",
	}
	if i.Profiles != "" {
		i.env["HOOKLINE_PPROF"] = "true"
	}
	i.api, err = freeAddress(ctx)
	i.env["HOOKLINE_API_ADDR"] = i.api
	return err
}

// service starts one service with an admin address of its own.
func (i *installation) service(ctx context.Context, name string) (*process, error) {
	env := maps.Clone(i.env)
	var err error
	if env["HOOKLINE_ADMIN_ADDR"], err = freeAddress(ctx); err != nil {
		return nil, err
	}
	p, err := start(ctx, i.dir, name, env, i.Hookline, name)
	if err == nil {
		i.running[name] = p
	}
	return p, err
}

// subscribe makes the one subscription, and returns when a router that starts now will know it.
func (i *installation) subscribe(ctx context.Context) error {
	var made struct {
		ID string `json:"id"`
	}
	err := i.call(ctx, http.MethodPost, "/subscriptions", http.StatusCreated, map[string]any{
		"name": "bench", "endpointUrl": i.client.hook(), "eventTypes": []string{eventType}, "profile": "fynapse",
	}, &made)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(i.Brokers...), kgo.ConsumeTopics(i.name+".config"),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return fmt.Errorf("the subscription has not reached the config topic: %w", ctx.Err())
		}
		for r := range fetches.RecordsAll() {
			if bytes.HasSuffix(r.Key, []byte(made.ID)) {
				return nil
			}
		}
	}
}

// throughput writes the events and then starts the router, so that all stages have work until the end. The time of the
// processors is read when the audit is complete: it is work of these deliveries too.
func (i *installation) throughput(ctx context.Context) (Stage, error) {
	if err := i.expect(ctx, i.PipelineEvents); err != nil {
		return Stage{}, err
	}
	if err := i.producer.preload(ctx); err != nil {
		return Stage{}, err
	}
	before := measure(i.pids())
	routing, err := i.service(ctx, router)
	if err != nil {
		return Stage{}, err
	}
	profiled := i.profile(ctx)
	n, err := i.arrived(ctx, i.PipelineEvents)
	if err != nil {
		return Stage{}, fmt.Errorf("%w\nrouter: %s\ndelivery: %s", err, routing.tail(), i.running["delivery"].tail())
	}
	i.next += i.PipelineEvents
	if err := i.audited(ctx); err != nil {
		return Stage{}, err
	}
	complete := time.Now()
	measured := newStage(i.PipelineEvents, before, measure(i.pids()))
	measured.Repeated = n.Repeated
	var first time.Time
	if measured.PerSecond, first, err = i.speed(ctx); err != nil {
		return measured, err
	}
	measured.AuditedPerSecond = float64(i.PipelineEvents) / complete.Sub(first).Seconds()
	if measured.Deferred, err = i.deferred(ctx); err != nil {
		return measured, err
	}
	return measured, profiled()
}

// counts of deliveries by status, as the audit has them.
func (i *installation) counts(ctx context.Context) (map[string]int, error) {
	var answer struct {
		Counts map[string]int `json:"counts"`
	}
	err := i.call(ctx, http.MethodGet, "/deliveries/count", http.StatusOK, nil, &answer)
	return answer.Counts, err
}

// audited waits until the audit has everything that was produced as DELIVERED.
func (i *installation) audited(ctx context.Context) error {
	return i.progress(ctx, 100*time.Millisecond, i.next, "are in the audit as DELIVERED", func() (int, error) {
		counts, err := i.counts(ctx)
		return counts["DELIVERED"], err
	})
}

// exactly fails unless the audit has what was produced, all of it DELIVERED, and nothing else.
func (i *installation) exactly(ctx context.Context) error {
	counts, err := i.counts(ctx)
	if err != nil {
		return err
	}
	for status, n := range counts {
		if want := map[string]int{"DELIVERED": i.next}[status]; n != want {
			return fmt.Errorf("the audit has %d deliveries %s, want %d", n, status, want)
		}
	}
	return nil
}

// deferred is how often a delivery was put back without an attempt.
func (i *installation) deferred(ctx context.Context) (int, error) {
	text, err := fetch(ctx, "http://"+i.running["delivery"].admin+"/metrics")
	if err != nil {
		return 0, err
	}
	sum := 0.0
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "hookline_deferred_total") {
			continue
		}
		value, err := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(strings.TrimSpace(line), ' '):]), 64)
		if err != nil {
			return 0, err
		}
		sum += value
	}
	return int(sum), nil
}

// profile takes CPU profiles of the services from the first arrival on, where the run asks for them. The returned
// function waits for them, and adds where memory was allocated.
func (i *installation) profile(ctx context.Context) (wait func() error) {
	if i.Profiles == "" {
		return func() error { return nil }
	}
	group, ctx := errgroup.WithContext(ctx)
	begun := func() error { _, err := i.arrived(ctx, 1); return err }
	for name, p := range i.running {
		if p.admin == "" {
			continue
		}
		group.Go(func() error {
			if err := begun(); err != nil {
				return err
			}
			return i.save(ctx, p.admin, "profile?seconds=8", name+".cpu.pprof")
		})
	}
	return func() error {
		if err := group.Wait(); err != nil {
			return err
		}
		for name, p := range i.running {
			if p.admin == "" {
				continue
			}
			if err := i.save(context.WithoutCancel(ctx), p.admin, "allocs", name+".allocs.pprof"); err != nil {
				return err
			}
		}
		return nil
	}
}

func (i *installation) save(ctx context.Context, admin, what, name string) error {
	profile, err := fetch(ctx, "http://"+admin+"/debug/pprof/"+what)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(i.Profiles, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(i.Profiles, name), profile, 0o644)
}

// call asks the API.
func (i *installation) call(ctx context.Context, method, path string, want int, in, out any) error {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+i.api+controlPath+path, body)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+apiKey)
	request.Header.Set("Content-Type", "application/json")
	answer, err := exchange(request, want)
	if err != nil {
		return err
	}
	return json.Unmarshal(answer, out)
}

// remove ends the processes and removes topics and database.
func (i *installation) remove() {
	i.close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := i.sql(ctx, "DROP DATABASE IF EXISTS "+i.database+" WITH (FORCE)"); err != nil {
		i.say(err.Error())
	}
}

// sql executes a statement in the server's first database.
func (b *bench) sql(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, b.DatabaseURL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, statement); err != nil {
		return fmt.Errorf("%s: %w", statement, err)
	}
	return nil
}
