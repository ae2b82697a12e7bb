package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/tests/engine"
)

// rig is one installation under measurement.
type rig struct {
	*engine.Installation
	*engineBench
	dir      string
	env      map[string]string // of the services, besides what they need
	receiver engineReceiver
	running  map[string]*process
	next     int // number of the next event
	mu       sync.Mutex
	unsent   error
}

// with makes a rig for one measurement, and removes it afterwards.
func (b *engineBench) with(ctx context.Context, measure func(*rig) error) error {
	r := &rig{engineBench: b, running: map[string]*process{}, env: map[string]string{"HOOKLINE_REDIS_URL": b.RedisURL}}
	name := "engine-" + strings.ToLower(rand.Text())[:10]
	var err error
	if r.dir, err = os.MkdirTemp(b.dir, name); err != nil {
		return err
	}
	if r.Installation, err = engine.Open(ctx, b.Brokers, name+".", partitions, 6*time.Second); err != nil {
		return err
	}
	defer r.close()
	if err := r.receive(ctx); err != nil {
		return err
	}
	return measure(r)
}

func (r *rig) receive(ctx context.Context) error {
	address, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	_, r.receiver.port, _ = net.SplitHostPort(address)
	p, err := part(ctx, r.dir, partEngineReceiver, "0.0.0.0:"+r.receiver.port)
	if err != nil {
		return err
	}
	r.running[partEngineReceiver] = p
	return p.listening(ctx, address)
}

// close ends the processes, the receiver first so that nobody waits for it, and removes the topics.
func (r *rig) close() {
	if p := r.running[partEngineReceiver]; p != nil {
		p.stop()
	}
	for _, p := range r.running {
		p.stop()
	}
	defer r.Close()
	if err := (&producer{client: r.Client}).deleteTopics(strings.TrimSuffix(r.Topics.Deliveries, "deliveries")); err != nil {
		fmt.Fprintln(os.Stderr, "bench: delete topics:", err)
	}
}

// start runs `hookline service` under a name and returns when it is ready.
func (r *rig) start(ctx context.Context, name, service string) (*process, error) {
	env := r.Env()
	maps.Copy(env, r.env)
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

// startAll starts services under their own names.
func (r *rig) startAll(ctx context.Context, services ...string) error {
	for _, service := range services {
		if _, err := r.start(ctx, service, service); err != nil {
			return err
		}
	}
	return nil
}

// profile takes a CPU profile of a worker where the run asks for them; the returned function waits for it.
func (r *rig) profile(ctx context.Context, p *process, name string) (wait func() error) {
	if r.profiles == "" {
		return func() error { return nil }
	}
	done := make(chan error, 1)
	go func() {
		text, err := fetch(ctx, "http://"+p.admin+"/debug/pprof/profile?seconds=5")
		if err == nil {
			err = errors.Join(os.MkdirAll(r.profiles, 0o755), os.WriteFile(filepath.Join(r.profiles, name+".cpu.pprof"), text, 0o644))
		}
		done <- err
	}()
	return func() error { return <-done }
}

// subscribe publishes subscriptions named group-n, each with an endpoint of its own that answers after so long.
func (r *rig) subscribe(ctx context.Context, group string, count, ms int) error {
	subscriptions := make([]*webhook.Subscription, count)
	for n := range subscriptions {
		subscriptions[n] = engine.Subscription(fmt.Sprintf("%s-%d", group, n), r.receiver.hook(2*n, group, ms))
	}
	return r.Publish(ctx, subscriptions...)
}

// data is 350 bytes that say when they were written.
func data() []byte {
	return fmt.Appendf(nil, `{%s%0*d","note":"%s"}`, sentMark, sentDigits, time.Now().UnixNano(), strings.Repeat("x", 300))
}

func (r *rig) record(subscription string) *kgo.Record {
	r.next++
	return r.Delivery(subscription, r.next, data())
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

// flush returns when everything produced is acknowledged.
func (r *rig) flush(ctx context.Context) error {
	if err := r.Client.Flush(ctx); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.unsent
}

// preload writes deliveries to subscriptions as pick says.
func (r *rig) preload(ctx context.Context, count int, pick func(n int) string) error {
	for n := range count {
		r.produce(ctx, r.record(pick(n)))
	}
	return r.flush(ctx)
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
	return r.flush(ctx)
}

// arrived waits until so many events have come to a group, and gives up where no more come.
func (r *rig) arrived(ctx context.Context, group string, want int) (tally, error) {
	const patience = 2 * time.Minute
	last, changed := -1, time.Now()
	for {
		events, err := r.receiver.events(ctx, group)
		switch {
		case err != nil:
			return tally{}, err
		case events >= want:
			return r.receiver.tally(ctx, group)
		case events != last:
			last, changed = events, time.Now()
		case time.Since(changed) > patience:
			return tally{}, fmt.Errorf("%d of %d arrived at %s, and no more came", events, want, group)
		}
		select {
		case <-ctx.Done():
			return tally{}, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func one(group string) func(int) string { return func(int) string { return group + "-0" } }

func among(group string, count int) func(int) string {
	return func(n int) string { return fmt.Sprintf("%s-%d", group, n%count) }
}
