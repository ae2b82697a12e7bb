package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
	"github.com/hookline/hookline/tests/engine"
)

const partEngine = "engine"

// runEngine measures the delivery engine by itself: workers and, where retries come due, a scheduler, on topics that the
// bench fills. Each measurement has topics, processes and a receiver of its own.
func runEngine(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet(partEngine, flag.ExitOnError)
	hookline := flags.String("hookline", "bin/hookline", "Hookline's binary")
	out := flags.String("out", "tests/bench/results-engine.md", "where the results go; empty prints them only")
	only := flags.String("only", "", "names of measurements, comma separated; empty runs all")
	short := flags.Bool("short", false, "a hundredth of the work: shows that it works, says nothing about speed")
	if err := flags.Parse(args); err != nil {
		return err
	}
	servers, err := serversFromEnvironment()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "hookline-engine-")
	if err != nil {
		return err
	}
	b := &engineBench{Servers: servers, hookline: *hookline, dir: dir, scale: 1}
	if *short {
		b.scale = 0.02
	}
	b.machine = describeMachine(ctx)
	for _, m := range engineMeasurements {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), m.name) {
			continue
		}
		fmt.Fprintln(os.Stderr, "bench:", m.name)
		began := len(b.rows)
		if err := m.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w (logs of the processes: %s)", m.name, err, dir)
		}
		for _, r := range b.rows[began:] {
			fmt.Fprintln(os.Stderr, "bench:  ", r)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	text := b.markdown()
	fmt.Print(text)
	if *out == "" {
		return nil
	}
	return os.WriteFile(*out, []byte(text), 0o644)
}

var engineMeasurements = []struct {
	name string
	run  func(*engineBench, context.Context) error
}{
	{"isolation", (*engineBench).isolation},
	{"endpoints", (*engineBench).endpoints},
	{"memory", (*engineBench).memory},
	{"path", (*engineBench).path},
	{"scale", (*engineBench).scaling},
	{"kill", (*engineBench).kill},
}

type engineBench struct {
	Servers
	hookline string
	dir      string
	scale    float64 // of the amounts
	machine  Machine
	rows     []engineRow
}

func (b *engineBench) amount(n int) int { return max(int(float64(n)*b.scale), 20) }

// span is a time of measuring.
func (b *engineBench) span(d time.Duration) time.Duration {
	return max(time.Duration(float64(d)*b.scale), 2*time.Second)
}

// rig is one installation under measurement.
type rig struct {
	*engine.Installation
	*engineBench
	dir      string
	receiver engineReceiver
	running  map[string]*process
	next     int // number of the next event
	mu       sync.Mutex
	unsent   error
}

func (b *engineBench) rig(ctx context.Context) (*rig, error) {
	r := &rig{engineBench: b, running: map[string]*process{}}
	name := "engine-" + strings.ToLower(rand.Text())[:10]
	var err error
	if r.dir, err = os.MkdirTemp(b.dir, name); err != nil {
		return nil, err
	}
	if r.Installation, err = engine.Open(ctx, b.Brokers, name+".", partitions, 6*time.Second); err != nil {
		return nil, err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	_, r.receiver.port, _ = net.SplitHostPort(address)
	p, err := part(ctx, r.dir, partEngineReceiver, "0.0.0.0:"+r.receiver.port)
	if err == nil {
		r.running[partEngineReceiver] = p
		err = p.listening(ctx, address)
	}
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// close ends the processes, the receiver first so that nobody waits for it, and removes the topics.
func (r *rig) close() error {
	if p := r.running[partEngineReceiver]; p != nil {
		p.stop()
	}
	for _, p := range r.running {
		p.stop()
	}
	defer r.Close()
	return (&producer{client: r.Client}).deleteTopics(strings.TrimSuffix(r.Topics.Deliveries, "deliveries"))
}

// start runs `hookline service` under a name and returns when it is ready.
func (r *rig) start(ctx context.Context, name, service string) (*process, error) {
	env := maps.Clone(r.Env())
	env["HOOKLINE_REDIS_URL"] = r.RedisURL
	var err error
	if env["HOOKLINE_ADMIN_ADDR"], err = freeAddress(ctx); err != nil {
		return nil, err
	}
	p, err := start(ctx, r.dir, name, env, r.hookline, service)
	if err != nil {
		return nil, err
	}
	r.running[name] = p
	return p, p.ready(ctx)
}

// subscribe publishes subscriptions named group-n, each with an endpoint of its own that answers after so long.
func (r *rig) subscribe(ctx context.Context, group string, count, ms int) error {
	subscriptions := make([]*webhook.Subscription, count)
	for n := range subscriptions {
		subscriptions[n] = engine.Subscription(fmt.Sprintf("%s-%d", group, n), r.receiver.hook(2*n, group, ms))
	}
	return r.Publish(ctx, subscriptions...)
}

func (r *rig) record(subscription string) *kgo.Record {
	r.next++
	return r.Delivery(subscription, r.next, fmt.Appendf(nil, `{%s%0*d","note":"%s"}`, sentMark, sentDigits, time.Now().UnixNano(), strings.Repeat("x", 300)))
}

func (r *rig) produce(ctx context.Context, record *kgo.Record) {
	r.Client.Produce(context.WithoutCancel(ctx), record, func(_ *kgo.Record, err error) {
		if err != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.unsent = err
		}
	})
}

// preload writes deliveries to subscriptions as pick says.
func (r *rig) preload(ctx context.Context, count int, pick func(n int) string) error {
	for n := range count {
		r.produce(ctx, r.record(pick(n)))
	}
	return errors.Join(r.Client.Flush(ctx), r.unsent)
}

// flow is deliveries at a rate.
type flow struct {
	perSecond int
	pick      func(n int) string
}

// pace writes flows side by side for so long.
func (r *rig) pace(ctx context.Context, long time.Duration, flows ...flow) error {
	began := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	written := make([]int, len(flows))
	for elapsed := time.Duration(0); elapsed < long; elapsed = time.Since(began) {
		for i, f := range flows {
			for ; written[i] < int(elapsed.Seconds()*float64(f.perSecond)); written[i]++ {
				r.produce(ctx, r.record(f.pick(written[i])))
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return errors.Join(r.Client.Flush(ctx), r.unsent)
}

// arrived waits until so many requests have come to a group, and gives up where no more come.
func (r *rig) arrived(ctx context.Context, group string, want int, patience time.Duration) (tally, error) {
	last, changed := -1, time.Now()
	for {
		t, err := r.receiver.tally(ctx, group)
		switch {
		case err != nil || t.Events >= want:
			return t, err
		case t.Events != last:
			last, changed = t.Events, time.Now()
		case time.Since(changed) > patience:
			return t, fmt.Errorf("%d of %d arrived at %s, and no more came", t.Events, want, group)
		}
		select {
		case <-ctx.Done():
			return t, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func one(group string) func(int) string { return func(int) string { return group + "-0" } }

func among(group string, count int) func(int) string {
	return func(n int) string { return fmt.Sprintf("%s-%d", group, n%count) }
}

const healthyRate, slowRate, slowMany, slowSleep = 100, 50, 200, 10_000

// isolation measures a healthy endpoint alone, beside one and beside many that take 10 s, and while a storm of their
// retries comes due.
func (b *engineBench) isolation(ctx context.Context) error {
	r, err := b.rig(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = r.close() }() // the topics are of this run alone
	phases := []string{"alone", "beside-one", "beside-many", "in-storm"}
	for _, name := range phases {
		if err := r.subscribe(ctx, name, 1, 0); err != nil {
			return err
		}
	}
	if err := errors.Join(r.subscribe(ctx, "warm", 1, 0), r.subscribe(ctx, "slow", slowMany, slowSleep)); err != nil {
		return err
	}
	for _, service := range []string{"delivery", "scheduler"} {
		if _, err := r.start(ctx, service, service); err != nil {
			return err
		}
	}
	storm := b.amount(100_000)
	flows := [][]flow{nil, {{slowRate, one("slow")}}, {{slowMany, among("slow", slowMany)}}, {{slowRate, one("slow")}}}
	if err := r.pace(ctx, b.span(5*time.Second), flow{healthyRate, one("warm")}); err != nil {
		return err
	}
	var alone tally
	for i, name := range phases {
		if name == "in-storm" {
			if err := r.storm(ctx, storm, b.span(8*time.Second)); err != nil {
				return err
			}
		}
		long := b.span(30 * time.Second)
		if err := r.pace(ctx, long, append(flows[i], flow{healthyRate, one(name)})...); err != nil {
			return err
		}
		want := int(long.Seconds()*healthyRate) * 99 / 100
		t, err := r.arrived(ctx, name, want, 20*time.Second)
		if err != nil {
			return err
		}
		if i == 0 {
			alone = t
		}
		target, reached := "", true
		if i > 0 {
			target, reached = "100/s, p99 at most twice that alone", t.P99 <= 2*alone.P99 && t.PerSecond > 0.97*healthyRate
		}
		b.add("healthy endpoint at 100/s "+map[string]string{
			"alone": "alone", "beside-one": "beside one that takes 10 s and gets 50/s", "beside-many": "beside 200 that take 10 s and get 200/s together",
			"in-storm": fmt.Sprintf("while %d retries of those 200 come due", storm),
		}[name], fmt.Sprintf("%.1f/s, p50 %s, p99 %s, longest %s", t.PerSecond, ms(time.Duration(t.P50)), ms(time.Duration(t.P99)), ms(time.Duration(t.Longest))), target, reached)
	}
	return nil
}

// storm writes retries of the slow endpoints that are all due when it returns.
func (r *rig) storm(ctx context.Context, count int, ahead time.Duration) error {
	due := time.Now().Add(ahead)
	for n := range count {
		record := r.record(fmt.Sprintf("slow-%d", n%slowMany))
		d, err := wire.DecodeDelivery(record.Value)
		if err != nil {
			return err
		}
		d.Trip++
		retry := &webhook.Retry{Delivery: *d, Delay: max(time.Until(due), 0), Reason: webhook.ReasonConcurrency}
		r.produce(ctx, &kgo.Record{Topic: r.Topics.Retries, Key: []byte(d.Key().String()), Value: wire.EncodeRetry(retry)})
	}
	if err := errors.Join(r.Client.Flush(ctx), r.unsent); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(due)):
		return nil
	}
}

// endpoints compares ten thousand endpoints, some of them dead, with one.
func (b *engineBench) endpoints(ctx context.Context) error {
	const all, deadEvery = 10_000, 100
	count := b.amount(60_000)
	speed := func(many bool) (float64, error) {
		r, err := b.rig(ctx)
		if err != nil {
			return 0, err
		}
		defer func() { _ = r.close() }() // the topics are of this run alone
		var subscriptions []*webhook.Subscription
		for n := range all {
			group, wait := "live", 0
			if n%deadEvery == deadEvery/2 {
				group, wait = "dead", -1
			}
			subscriptions = append(subscriptions, engine.Subscription(fmt.Sprintf("s-%d", n), r.receiver.hook(2*n, group, wait)))
		}
		if err := r.Publish(ctx, subscriptions...); err != nil {
			return 0, err
		}
		zipf := mathrand.NewZipf(mathrand.New(mathrand.NewPCG(1, 2)), 1.1, 8, all-1)
		live := 0
		pick := func(int) string {
			n := uint64(0)
			if many {
				n = zipf.Uint64()
			}
			if n%deadEvery != deadEvery/2 {
				live++
			}
			return fmt.Sprintf("s-%d", n)
		}
		if err := r.preload(ctx, count, pick); err != nil {
			return 0, err
		}
		for _, service := range []string{"scheduler", "delivery"} {
			if _, err := r.start(ctx, service, service); err != nil {
				return 0, err
			}
		}
		t, err := r.arrived(ctx, "live", live*98/100, 30*time.Second)
		return t.PerSecond, err
	}
	single, err := speed(false)
	if err != nil {
		return err
	}
	spread, err := speed(true)
	if err != nil {
		return err
	}
	b.add("deliveries/s to 10,000 endpoints, zipf, 1 % of them dead : to one", fmt.Sprintf("%.0f : %.0f = %.2f", spread, single, spread/single), "at least 0.80", spread/single >= 0.8)
	return nil
}

// memory measures a worker that has read what slow endpoints have not taken.
func (b *engineBench) memory(ctx context.Context) error {
	r, err := b.rig(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = r.close() }() // the topics are of this run alone
	if err := r.subscribe(ctx, "slow", slowMany, slowSleep); err != nil {
		return err
	}
	count := b.amount(50_000)
	if err := r.preload(ctx, count, among("slow", slowMany)); err != nil {
		return err
	}
	p, err := r.start(ctx, "delivery", "delivery")
	if err != nil {
		return err
	}
	// The others are under way.
	waiting, most := 0, max(count*9/10-512, 1)
	within, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if err := r.Retries(within, func(*webhook.Retry) bool { waiting++; return waiting < most }); err != nil {
		return fmt.Errorf("%d of %d put back: %w", waiting, most, err)
	}
	peak := peakMemory(p.pid())
	b.add(fmt.Sprintf("peak RSS of a worker with %d deliveries waiting for 200 endpoints that take 10 s", count), fmt.Sprintf("%d MiB", peak>>20), "at most 300 MiB", peak <= 300<<20)
	return nil
}

// path compares the worker with a bare loop that reads the same records and POSTs them.
func (b *engineBench) path(ctx context.Context) error {
	count := b.amount(100_000)
	for _, loop := range []struct{ name, title, target string }{
		{partFloor, "fasthttp", "at least 0.60"},
		{partStandardFloor, "net/http, as the worker does", ""},
	} {
		bare, worker, err := b.pathOnce(ctx, count, loop.name)
		if err != nil {
			return err
		}
		b.add("deliveries/s, delivery path alone : bare loop with "+loop.title, fmt.Sprintf("%.0f : %.0f = %.2f", worker, bare, worker/bare), loop.target, loop.target == "" || worker/bare >= 0.6)
	}
	return nil
}

func (b *engineBench) pathOnce(ctx context.Context, count int, loop string) (bare, worker float64, err error) {
	r, err := b.rig(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = r.close() }() // the topics are of this run alone
	if err := errors.Join(r.subscribe(ctx, "worker", 1, 0), r.preload(ctx, count, one("worker"))); err != nil {
		return 0, 0, err
	}
	p, err := part(ctx, r.dir, loop, strings.Join(b.Brokers, ","), r.Topics.Deliveries, r.receiver.hook(0, "bare", 0))
	if err != nil {
		return 0, 0, err
	}
	// The loop tells the receiver no event's id: they count as one.
	t, err := r.requests(ctx, "bare", count)
	p.stop()
	if err != nil {
		return 0, 0, fmt.Errorf("%w\n%s", err, p.tail())
	}
	bare = t.PerSecond
	if _, err := r.start(ctx, "delivery", "delivery"); err != nil {
		return 0, 0, err
	}
	t, err = r.arrived(ctx, "worker", count, 30*time.Second)
	return bare, t.PerSecond, err
}

func (r *rig) requests(ctx context.Context, group string, want int) (tally, error) {
	for {
		t, err := r.receiver.tally(ctx, group)
		if err != nil || t.Requests >= want {
			return t, err
		}
		select {
		case <-ctx.Done():
			return t, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// scaling measures 1, 2 and 3 workers where the work is waiting.
func (b *engineBench) scaling(ctx context.Context) error {
	var first float64
	for workers := 1; workers <= 3; workers++ {
		perSecond, err := b.withWorkers(ctx, workers)
		if err != nil {
			return err
		}
		if workers == 1 {
			first = perSecond
		}
		ratio := perSecond / first / float64(workers)
		b.add(fmt.Sprintf("deliveries/s of %d workers to an endpoint that takes 50 ms", workers), fmt.Sprintf("%.0f, %.2f of proportional", perSecond, ratio), "at least 0.90", ratio >= 0.9)
	}
	return nil
}

func (b *engineBench) withWorkers(ctx context.Context, workers int) (float64, error) {
	r, err := b.rig(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { _ = r.close() }() // the topics are of this run alone
	if err := r.subscribe(ctx, "waits", 1, 50); err != nil {
		return 0, err
	}
	for w := range workers {
		if _, err := r.start(ctx, fmt.Sprintf("delivery-%d", w), "delivery"); err != nil {
			return 0, err
		}
	}
	// Ready is not yet balanced: the first deliveries tell when every worker has its partitions.
	if err := r.pace(ctx, 10*time.Second, flow{200, one("waits")}); err != nil {
		return 0, err
	}
	before, err := r.receiver.tally(ctx, "waits")
	if err != nil {
		return 0, err
	}
	if err := r.subscribe(ctx, "full", 1, 50); err != nil {
		return 0, err
	}
	count := b.amount(12_000) * workers
	if err := r.preload(ctx, count, one("full")); err != nil {
		return 0, err
	}
	t, err := r.arrived(ctx, "full", count*95/100, 20*time.Second)
	if before.Events == 0 {
		err = errors.Join(err, errors.New("nothing was delivered before"))
	}
	return t.PerSecond, err
}

// kill ends one of three workers under load, and looks at what came twice and what waited.
func (b *engineBench) kill(ctx context.Context) error {
	r, err := b.rig(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = r.close() }() // the topics are of this run alone
	if err := r.subscribe(ctx, "s", 1, 20); err != nil {
		return err
	}
	for w := range 3 {
		if _, err := r.start(ctx, fmt.Sprintf("delivery-%d", w), "delivery"); err != nil {
			return err
		}
	}
	load := flow{300, one("s")}
	if err := r.pace(ctx, 8*time.Second, load); err != nil {
		return err
	}
	var died time.Time
	timer := time.AfterFunc(2*time.Second, func() {
		_ = r.running["delivery-0"].cmd.Process.Kill() // it is there: nobody else ends it
		died = time.Now()
	})
	defer timer.Stop()
	if err := r.pace(ctx, 20*time.Second, load); err != nil {
		return err
	}
	t, err := r.arrived(ctx, "s", r.next, 30*time.Second)
	if err != nil {
		return err
	}
	oldest := time.Duration(0)
	for _, at := range t.Repeats {
		oldest = max(oldest, died.Sub(time.Unix(0, at)))
	}
	b.add("requests repeated after SIGKILL of one of three workers at 300/s", fmt.Sprintf("%d, the oldest made %s before it", len(t.Repeats), ms(oldest)), "those of the last 200 ms", oldest <= 200*time.Millisecond)
	b.add("longest that a delivery waited for another worker to take over", ms(time.Duration(t.Longest)), "at most 10 s (session timeout 6 s)", t.Longest <= int64(10*time.Second))
	return nil
}
