package main

import (
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

const partRetries = "retries"

// retrySettings are how much of the retry engine is measured.
type retrySettings struct {
	Waiting   int // twice as many in the end
	Firing    int
	PerSecond int           // due, where lateness is measured
	Lateness  time.Duration // for how long
	Storm     int           // due in the same second, with workers
	Idle      time.Duration
}

// retryBench is a scheduler alone, between Kafka and a Redis that it empties.
type retryBench struct {
	retrySettings
	servers  Servers
	hookline string
	profiles string // folder for CPU profiles, or ""
	dir      string
	say      func(string)
	redis    *redis.Client
	report   retryReport

	// Of the installation that is measured; each has topics of its own.
	cluster *kafka.Cluster
	client  *kgo.Client
	admin   *kadm.Client
}

// runRetries measures what waiting retries cost, and how fast and how exactly they are fired. The Redis that the
// environment names must be empty, and is emptied again and again.
func runRetries(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench retries", flag.ExitOnError)
	short := flags.Bool("short", false, "few retries: shows that the bench works, says nothing about speed")
	hookline := flags.String("hookline", "bin/hookline", "Hookline's binary")
	out := flags.String("out", "tests/bench/results-retries.md", "where the results go; empty prints them only")
	only := flags.String("only", "", "one step: waiting, uncached, cached, lateness or storm; writes no results")
	profiles := flags.String("profile", "", "folder for CPU profiles of the scheduler while it fires; costs some of its speed")
	firing := flags.Int("firing", 500_000, "how many are due at once")
	storm := flags.Int("storm", 1_000_000, "how many are due in the same second, with workers and receivers that take a while; a tenth with quick ones")
	if err := flags.Parse(args); err != nil {
		return err
	}
	b := &retryBench{
		retrySettings: retrySettings{Waiting: 1_000_000, Firing: *firing, PerSecond: 1000, Lateness: 30 * time.Second, Idle: time.Minute, Storm: *storm},
		hookline:      *hookline, profiles: *profiles, say: func(text string) { fmt.Fprintln(os.Stderr, "bench:", text) },
	}
	if *short {
		b.retrySettings = retrySettings{Waiting: 5000, Firing: 5000, PerSecond: 200, Lateness: 3 * time.Second, Idle: 3 * time.Second, Storm: 4000}
	}
	var err error
	if b.servers, err = serversFromEnvironment(); err != nil {
		return err
	}
	options, err := redis.ParseURL(b.servers.RedisURL)
	if err != nil {
		return err
	}
	b.redis = redis.NewClient(options)
	defer b.redis.Close()
	if keys, err := b.redis.DBSize(ctx).Result(); err != nil || keys > 0 {
		return errors.Join(err, fmt.Errorf("redis has %d keys: the bench empties it, and must be given one of its own", keys))
	}
	if b.dir, err = os.MkdirTemp("", "hookline-bench-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(b.dir) }() // a leftover in the temporary folder harms nobody
	began := time.Now()
	b.report = retryReport{retrySettings: b.retrySettings, Machine: describeMachine(ctx)}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"waiting", b.waiting},
		{"uncached", func(ctx context.Context) error { return b.rounds(ctx, &b.report.Uncached, "uncached", "0") }},
		{"cached", func(ctx context.Context) error { return b.rounds(ctx, &b.report.Cached, "cached", strconv.Itoa(1<<30)) }},
		{"lateness", b.lateness},
		{"storm", b.storms},
	} {
		if *only != "" && *only != step.name {
			continue
		}
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	if *only != "" {
		return nil // what it has said on the way is all there is
	}
	b.report.Took = time.Since(began)
	text := b.report.markdown()
	fmt.Print(text)
	if *out == "" {
		return nil
	}
	return os.WriteFile(*out, []byte(text), 0o644)
}

// open makes an installation with topics of its own and an empty Redis, and returns how to end it.
func (b *retryBench) open(ctx context.Context, name string) (end func(), err error) {
	b.cluster = kafka.New(kafka.Config{Brokers: b.servers.Brokers, SessionTimeout: 10 * time.Second, TopicPrefix: fmt.Sprintf("bench%d.%s.", os.Getpid(), name)},
		slog.New(slog.DiscardHandler))
	if b.client, err = b.cluster.Client(append(b.cluster.Producer(), kgo.ProducerLinger(20*time.Millisecond), kgo.MaxBufferedRecords(100_000), kgo.UnknownTopicRetries(-1))...); err != nil {
		return nil, err
	}
	b.admin = kadm.NewClient(b.client)
	end = func() {
		// What is left of topics harms nobody; the servers are a bench's own.
		_, _ = b.admin.DeleteTopics(context.WithoutCancel(ctx), b.cluster.Topics.All()...)
		b.client.Close()
	}
	const partitions = 12
	if err := kafka.Ensure(ctx, b.client, b.cluster.Topics.Specs(partitions), 0); err != nil {
		end()
		return nil, err
	}
	return end, b.redis.FlushAll(ctx).Err()
}

func (b *retryBench) scheduler(ctx context.Context, name, cache string) (*process, error) {
	env := map[string]string{
		"HOOKLINE_KAFKA_BROKERS": strings.Join(b.servers.Brokers, ","), "HOOKLINE_TOPIC_PREFIX": b.cluster.Topics.Deliveries[:len(b.cluster.Topics.Deliveries)-len("deliveries")],
		"HOOKLINE_REDIS_URL": b.servers.RedisURL, "HOOKLINE_LOG_LEVEL": "info", "HOOKLINE_PPROF": strconv.FormatBool(b.profiles != ""),
	}
	var err error
	if env["HOOKLINE_ADMIN_ADDR"], err = freeAddress(ctx); err != nil {
		return nil, err
	}
	if cache != "" {
		env["HOOKLINE_SCHEDULER_CACHE_BYTES"] = cache
	}
	return start(ctx, b.dir, "scheduler-"+name, env, b.hookline, "scheduler")
}

// write schedules retries; delay says how long the nth waits from now on. The data of their events is 400 bytes.
func (b *retryBench) write(ctx context.Context, from, to int, delay func(n int) time.Duration) error {
	var mu sync.Mutex
	var failed error
	data := make([]byte, 192)
	for n := from; n < to; n++ {
		for i := range data {
			data[i] = byte(rand.Uint32())
		}
		retry := &webhook.Retry{Delay: delay(n), Reason: webhook.ReasonHTTPStatus, Delivery: webhook.Delivery{
			ID: uuid.NewSHA1(uuid.Nil, strconv.AppendInt(nil, int64(n), 10)), Trip: 1, Attempts: 1, SubscriptionID: "subscription-" + strconv.Itoa(n%100),
			Profile: "fynapse", ProfileVersion: 1, CreatedAt: time.Now(), Trigger: webhook.TriggerEvent,
			Event: webhook.Event{ID: "event-" + strconv.Itoa(n), Type: "balance.extracted", Tenant: "default", Data: []byte(`{"x":"` + hex.EncodeToString(data) + `"}`)},
		}}
		b.client.Produce(ctx, &kgo.Record{Topic: b.cluster.Topics.Retries, Key: []byte(retry.Delivery.Key().String()), Value: wire.EncodeRetry(retry)},
			func(_ *kgo.Record, err error) {
				if err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
				}
			})
	}
	if err := b.client.Flush(ctx); err != nil {
		return err
	}
	mu.Lock()
	defer mu.Unlock()
	return failed
}

// indexed is how many trips the index has.
func (b *retryBench) indexed(ctx context.Context) int {
	pipe := b.redis.Pipeline()
	sizes := make([]*redis.IntCmd, 12)
	for p := range sizes {
		sizes[p] = pipe.ZCard(ctx, b.cluster.Topics.Retries+":{"+strconv.Itoa(p)+"}:due")
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return 0
	}
	total := 0
	for _, size := range sizes {
		total += int(size.Val())
	}
	return total
}

// until asks every 50 ms, and gives up after some minutes or when the process has ended.
func until(ctx context.Context, p *process, what string, reached func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !reached() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, ctx.Err())
		case <-p.done:
			return fmt.Errorf("%s: the scheduler has ended", what)
		case <-tick.C:
		}
	}
	return nil
}

// waiting measures memory with so many and twice as many waiting, idleness, and a rebuild.
func (b *retryBench) waiting(ctx context.Context) error {
	end, err := b.open(ctx, "waiting")
	if err != nil {
		return err
	}
	defer end()
	empty, err := b.info(ctx, "memory", "used_memory")
	if err != nil {
		return err
	}
	later := func(int) time.Duration { return 2*time.Hour + time.Duration(rand.Int64N(int64(18*time.Hour))) }
	if err := b.write(ctx, 0, b.Waiting, later); err != nil {
		return err
	}
	scheduler, err := b.scheduler(ctx, "waiting", "")
	if err != nil {
		return err
	}
	defer scheduler.stop()
	if err := until(ctx, scheduler, "fill the index", func() bool { return b.indexed(ctx) == b.Waiting }); err != nil {
		return err
	}
	b.say("filled")
	full, err := b.info(ctx, "memory", "used_memory")
	if err != nil {
		return err
	}
	b.report.Memory = full - empty
	if err := b.idle(ctx, scheduler); err != nil {
		return err
	}
	if err := b.redis.FlushAll(ctx).Err(); err != nil {
		return err
	}
	began := time.Now()
	if err := until(ctx, scheduler, "build the index again", func() bool { return b.indexed(ctx) == b.Waiting }); err != nil {
		return err
	}
	// Without an event in sight the loss is noticed within a minute; what follows is the rebuild.
	b.report.Rebuild = time.Since(began)
	b.report.RebuildWork = b.lastRebuild(scheduler)
	b.say(fmt.Sprintf("rebuilt in %v", b.report.Rebuild))
	b.report.RSS = peakMemory(scheduler.pid())
	if err := b.write(ctx, b.Waiting, 2*b.Waiting, later); err != nil {
		return err
	}
	if err := until(ctx, scheduler, "fill the index twice", func() bool { return b.indexed(ctx) == 2*b.Waiting }); err != nil {
		return err
	}
	twice, err := b.info(ctx, "memory", "used_memory")
	b.report.MemoryTwice, b.report.RSSTwice = twice-empty, peakMemory(scheduler.pid())
	return err
}

// lastRebuild reads from the log how long the last rebuild took: from its first warning to the last word that a partition is built.
func (b *retryBench) lastRebuild(p *process) time.Duration {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return 0
	}
	var first, last time.Time
	for line := range strings.Lines(string(text)) {
		_, rest, _ := strings.Cut(line, `"time":"`)
		stamp, _, _ := strings.Cut(rest, `"`)
		at, err := time.Parse(time.RFC3339Nano, stamp)
		switch {
		case err != nil:
		case strings.Contains(line, "building the timer index again"):
			if first.IsZero() || last.After(first) && at.Sub(last) > b.Idle/2 {
				first = at
			}
		case strings.Contains(line, "the timer index is built again"):
			last = at
		}
	}
	return last.Sub(first)
}

func (b *retryBench) idle(ctx context.Context, scheduler *process) error {
	pids := map[string]int{"scheduler": scheduler.pid()}
	commands, err := b.info(ctx, "stats", "total_commands_processed")
	if err != nil {
		return err
	}
	before := measure(pids)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(b.Idle):
	}
	b.report.IdleCPU = measure(pids).since(before).cpu["scheduler"].Seconds() / b.Idle.Seconds()
	after, err := b.info(ctx, "stats", "total_commands_processed")
	b.report.IdleCommands = float64(after-commands) / b.Idle.Seconds()
	b.say(fmt.Sprintf("idle: %.2f %% of a core, %.1f commands/s", 100*b.report.IdleCPU, b.report.IdleCommands))
	return err
}

func (b *retryBench) info(ctx context.Context, section, name string) (int64, error) {
	text, err := b.redis.Info(ctx, section).Result()
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		}
	}
	return 0, fmt.Errorf("redis does not tell %s", name)
}

// lateness compares when retries arrive on the deliveries topic with when they were due.
func (b *retryBench) lateness(ctx context.Context) error {
	end, err := b.open(ctx, "lateness")
	if err != nil {
		return err
	}
	defer end()
	scheduler, err := b.scheduler(ctx, "lateness", "")
	if err != nil {
		return err
	}
	defer scheduler.stop()
	total := b.PerSecond * int(b.Lateness.Seconds())
	first := time.Now().Add(25 * time.Second)
	came := map[webhook.Trip]time.Time{}
	arriving := make(chan error, 1)
	reading, stop := context.WithTimeout(ctx, time.Until(first)+b.Lateness+time.Minute)
	defer stop()
	go func() {
		arriving <- b.read(reading, b.cluster.Topics.Deliveries, func(r *kgo.Record, now time.Time) bool {
			if d, err := wire.DecodeDelivery(r.Value); err == nil {
				came[d.Key()] = now
			}
			return len(came) < total
		})
	}()
	if err := b.write(ctx, 0, total, func(n int) time.Duration {
		return time.Until(first.Add(time.Duration(n) * time.Second / time.Duration(b.PerSecond)))
	}); err != nil {
		return err
	}
	if err := <-arriving; err != nil {
		return fmt.Errorf("%d of %d arrived: %w", len(came), total, err)
	}
	due := map[webhook.Trip]time.Time{}
	if err := b.read(reading, b.cluster.Topics.Retries, func(r *kgo.Record, _ time.Time) bool {
		if retry, err := wire.DecodeRetry(r.Value); err == nil && len(r.Value) > 0 {
			due[retry.Delivery.Key()] = r.Timestamp.Add(retry.Delay)
		}
		return len(due) < total
	}); err != nil {
		return err
	}
	for trip, at := range came {
		b.report.Late = append(b.report.Late, at.Sub(due[trip]))
	}
	slices.Sort(b.report.Late)
	b.say(fmt.Sprintf("late: p50 %v, p99 %v, earliest %v", b.report.Late[total/2], b.report.Late[total*99/100], b.report.Late[0]))
	return nil
}

// read gives the records of a topic from its start on, and when they came, until each has enough.
func (b *retryBench) read(ctx context.Context, topic string, each func(*kgo.Record, time.Time) (more bool)) error {
	reader, err := b.cluster.Client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		return err
	}
	defer reader.Close()
	for more := true; more; {
		fetches := reader.PollFetches(ctx)
		now := time.Now()
		if err := ctx.Err(); err != nil {
			return err
		}
		fetches.EachRecord(func(r *kgo.Record) { more = more && each(r, now) })
	}
	return nil
}
