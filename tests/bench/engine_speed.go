package main

import (
	"context"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/tests/engine"
)

// endpoints compares ten thousand endpoints, some of them dead, with one.
func (b *engineBench) endpoints(ctx context.Context) error {
	one := func() (lap, error) { return b.speedTo(ctx, 1, func() uint64 { return 0 }) }
	before, err := one()
	if err != nil {
		return err
	}
	rounds, err := calmest(b, func() (r endpointsRound, err error) {
		zipf := mathrand.NewZipf(mathrand.New(mathrand.NewPCG(1, 2)), zipfS, zipfV, endpointCount-1)
		if r.spread, err = b.speedTo(ctx, endpointCount, zipf.Uint64); err != nil {
			return r, err
		}
		r.before = before
		r.after, err = one()
		before = r.after
		return r, err
	})
	if err != nil {
		return err
	}
	ratios := make([]float64, len(rounds))
	for i, r := range rounds {
		ratios[i] = r.ratio()
	}
	first := rounds[0]
	ratio := median(ratios)
	b.add("deliveries/s to 10,000 endpoints, zipf, 1 % of them dead : to one", fmt.Sprintf("%.2f, median of %s; the first of them %.0f : %.0f", ratio, figures(ratios), first.spread.perSecond, first.single()), "at least 0.80", ratio >= 0.8)
	b.add("processor time a delivery of it, worker, 10,000 endpoints : one", first.spread.cost+" : "+first.after.cost, "", true)
	for _, name := range []string{partStandardFloor, partFloor} {
		if err := b.bareEndpoints(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// endpointsRound is a lap to many endpoints between two to one: the machine becomes faster and slower within minutes.
type endpointsRound struct{ before, spread, after lap }

// single is how many deliveries a second one endpoint would have got meanwhile.
func (r endpointsRound) single() float64 { return (r.before.perSecond + r.after.perSecond) / 2 }
func (r endpointsRound) ratio() float64  { return r.spread.perSecond / r.single() }
func (r endpointsRound) String() string {
	return fmt.Sprintf("%.2f, %.0f between %.0f and %.0f", r.ratio(), r.spread.perSecond, r.before.perSecond, r.after.perSecond)
}

// bareEndpoints makes the same comparison with a bare loop, of which no endpoint is dead: how much of the speed the connections
// cost by themselves, at both of their ends.
func (b *engineBench) bareEndpoints(ctx context.Context, name string) error {
	return b.with(ctx, func(r *rig) error {
		var laps [2]lap
		for i, endpoints := range []int{1, endpointCount} {
			var err error
			if laps[i], err = bareLoop(name, endpoints)(ctx, r, b.amount(200_000)); err != nil {
				return err
			}
		}
		title := map[string]string{partStandardFloor: "net/http", partFloor: "fasthttp"}[name]
		b.add("the same, bare loop with "+title+", none dead", fmt.Sprintf("%.0f : %.0f = %.2f", laps[1].perSecond, laps[0].perSecond, laps[1].perSecond/laps[0].perSecond), "", true)
		b.add("processor time a request of it, 10,000 endpoints : one", laps[1].cost+" : "+laps[0].cost, "", true)
		return nil
	})
}

const (
	endpointCount, deadEvery = 10_000, 100
	// speedDeliveries are so many that the middle half comes after the start: connections are opened in the first seconds, and while
	// processes grow they touch memory for the first time, for which a virtual machine may have to ask its host.
	speedDeliveries = 600_000
	// Of Zipf's law.
	zipfS, zipfV = 1.1, 8
)

func dead(n uint64) bool { return n%deadEvery == deadEvery/2 }

// speedTo measures deliveries a second to endpoints as pick says. All are there, of the dead ones only requests count that
// were made to others. The first deliveries, before what is measured, go to as many different endpoints as pick knows, so that all
// have a connection: as one endpoint has them.
func (b *engineBench) speedTo(ctx context.Context, among uint64, pick func() uint64) (measured lap, err error) {
	err = b.with(ctx, func(r *rig) error {
		var subscriptions []*webhook.Subscription
		for n := range uint64(endpointCount) {
			group, wait := "live", 0
			if dead(n) {
				group, wait = "dead", -1
			}
			subscriptions = append(subscriptions, engine.Subscription(fmt.Sprintf("s-%d", n), r.receiver.hook(2*int(n), group, wait)))
		}
		live := 0
		err := errors.Join(r.Publish(ctx, subscriptions...), r.preload(ctx, b.amount(speedDeliveries), func(i int) string {
			n := pick()
			if i < endpointCount {
				n = uint64(i) % among
			}
			if !dead(n) {
				live++
			}
			return fmt.Sprintf("s-%d", n)
		}), r.startAll(ctx, "scheduler", "delivery"))
		if err != nil {
			return err
		}
		pids := r.pids()
		pids["it"], pids["receiver"] = r.running["delivery"].pid(), r.running[partEngineReceiver].pid()
		before := measure(pids)
		profiled := r.profile(ctx, r.running["delivery"], fmt.Sprintf("endpoints-%d", live))
		t, err := r.arrived(ctx, "live", live*98/100)
		measured = lapOf(t, newStage(max(t.Events, 1), before, measure(pids)))
		return errors.Join(err, profiled())
	})
	return measured, err
}

func lapOf(t tally, spent Stage) lap {
	each := func(name string) string { return micro(spent.perDelivery(name)) }
	return lap{t.PerSecond, fmt.Sprintf("%s; receiver %s, Kafka %s", each("it"), each("receiver"), each("kafka"))}
}

// pathRounds is how often worker and bare loops are measured, in turn.
const pathRounds = 3

// path compares the worker with bare loops that read what it sends and send it.
func (b *engineBench) path(ctx context.Context) error {
	return b.with(ctx, func(r *rig) error {
		// On a machine that others keep busy, some of what waits may be put back.
		if err := r.startAll(ctx, "scheduler"); err != nil {
			return err
		}
		var ratios, fast []float64
		var last [3]lap
		for range pathRounds {
			for i, loop := range []func(context.Context, *rig, int) (lap, error){
				bareLoop(partStandardFloor, 1), workerLoop, bareLoop(partFloor, 1),
			} {
				var err error
				if last[i], err = loop(ctx, r, b.amount(60_000)); err != nil {
					return err
				}
			}
			ratios, fast = append(ratios, last[1].perSecond/last[0].perSecond), append(fast, last[1].perSecond/last[2].perSecond)
		}
		ratio := median(ratios)
		b.add("deliveries/s, delivery path alone : bare loop with net/http", fmt.Sprintf("%.2f, median of %s; last %.0f : %.0f", ratio, figures(ratios), last[1].perSecond, last[0].perSecond), "at least 0.60", ratio >= 0.6)
		b.add("the same : bare loop with fasthttp", fmt.Sprintf("%.2f, median of %s; last %.0f : %.0f", median(fast), figures(fast), last[1].perSecond, last[2].perSecond), "", true)
		for i, title := range []string{"bare loop with net/http", "worker", "bare loop with fasthttp"} {
			b.add("processor time a delivery, "+title, last[i].cost, "", true)
		}
		return nil
	})
}

func figures(values []float64) string {
	var text []string
	for _, v := range values {
		text = append(text, fmt.Sprintf("%.2f", v))
	}
	return strings.Join(text, ", ")
}

// lap is one process that sent so many requests.
type lap struct {
	perSecond float64
	cost      string
}

// bareLoop measures a part of this program on a topic of its own, with as many bodies as a worker would send, to so many endpoints.
func bareLoop(name string, endpoints int) func(context.Context, *rig, int) (lap, error) {
	return func(ctx context.Context, r *rig, count int) (lap, error) {
		group := fmt.Sprintf("%s-%d", name, r.next)
		p := &producer{client: r.Client, topic: strings.TrimSuffix(r.Topics.Deliveries, "deliveries") + group}
		if err := p.createTopic(ctx); err != nil {
			return lap{}, err
		}
		for range count {
			r.next++
			r.produce(ctx, &kgo.Record{Topic: p.topic, Key: fmt.Appendf(nil, "event-%d", r.next),
				Value: fmt.Appendf(nil, `{"type":"engine.measured","timestamp":"%s","data":%s}`, time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), data())})
		}
		if err := r.flush(ctx); err != nil {
			return lap{}, err
		}
		return r.lap(ctx, group, count, func() (*process, error) {
			return part(ctx, r.dir, name, strings.Join(r.Brokers, ","), p.topic, r.receiver.hook(0, group, 0), strconv.Itoa(endpoints))
		})
	}
}

func workerLoop(ctx context.Context, r *rig, count int) (lap, error) {
	group := fmt.Sprintf("worker-%d", r.next)
	if err := errors.Join(r.subscribe(ctx, group, 1, 0), r.preload(ctx, count, one(group))); err != nil {
		return lap{}, err
	}
	return r.lap(ctx, group, count, func() (*process, error) { return r.start(ctx, group, "delivery") })
}

// lap starts a process that sends requests to a group, waits for all of them and stops it.
func (r *rig) lap(ctx context.Context, group string, count int, begin func() (*process, error)) (lap, error) {
	pids := r.pids()
	pids["receiver"] = r.running[partEngineReceiver].pid()
	p, err := begin()
	if err != nil {
		return lap{}, err
	}
	r.running[group] = p
	defer p.stop()
	pids["it"] = p.pid()
	before := measure(pids)
	profiled := func() error { return nil }
	if p.admin != "" {
		profiled = r.profile(ctx, p, group)
	}
	t, err := r.arrived(ctx, group, count)
	spent := newStage(count, before, measure(pids))
	if err = errors.Join(err, profiled()); err != nil {
		return lap{}, fmt.Errorf("%w\n%s", err, p.tail())
	}
	return lapOf(t, spent), nil
}
