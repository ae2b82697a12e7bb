package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

const healthyRate, slowRate, slowMany, slowSleep = 100, 50, 200, 10_000

// beside is what goes on while a healthy endpoint is measured.
type beside struct {
	name, title string
	flows       []flow
	storm       int
}

// isolation measures a healthy endpoint alone, beside one and beside many that take 10 s, and while a storm of their
// retries comes due. Each time the healthy endpoint is another one, and each round has workers and topics of its own.
func (b *engineBench) isolation(ctx context.Context) error {
	storm := b.amount(100_000)
	besides := []beside{
		{"alone", "alone", nil, 0},
		{"beside-one", "beside one that takes 10 s and gets 50/s", []flow{{slowRate, one("slow")}}, 0},
		{"beside-many", "beside 200 that take 10 s and get 200/s together", []flow{{slowMany, among("slow", slowMany)}}, 0},
		{"in-storm", fmt.Sprintf("while %d retries of those 200 come due", storm), []flow{{slowRate, one("slow")}}, storm},
	}
	rounds, err := calmest(b, func() (besidesRound, error) { return b.besides(ctx, besides) })
	if err != nil {
		return err
	}
	calm := rounds[0]
	for i, t := range calm {
		target, ratios := "", make([]float64, len(rounds))
		for n, round := range rounds {
			ratios[n] = float64(round[i].P99) / float64(round[0].P99)
		}
		ratio := median(ratios)
		measured := fmt.Sprintf("%.1f/s, p50 %s, p99 %s, longest %s", t.PerSecond, ms(time.Duration(t.P50)), ms(time.Duration(t.P99)), ms(time.Duration(t.Longest)))
		if i > 0 {
			target = "100/s, p99 at most twice that alone"
			measured = fmt.Sprintf("%.2f of its p99 alone, median of %s; the first of them %s", ratio, figures(ratios), measured)
		}
		b.add("healthy endpoint at 100/s "+besides[i].title, measured, target, i == 0 || ratio <= 2 && t.PerSecond > 0.97*healthyRate)
	}
	return nil
}

// besidesRound are the tallies of one round.
type besidesRound []tally

func (r besidesRound) String() string {
	text := "p99"
	for _, t := range r {
		text += " " + ms(time.Duration(t.P99))
	}
	return text
}

func (b *engineBench) besides(ctx context.Context, besides []beside) (round besidesRound, err error) {
	err = b.with(ctx, func(r *rig) error {
		err := errors.Join(r.subscribe(ctx, "warm", 1, 0), r.subscribe(ctx, "slow", slowMany, slowSleep), r.startAll(ctx, "delivery", "scheduler"))
		if err == nil {
			err = r.pace(ctx, b.span(5*time.Second), flow{healthyRate, one("warm")})
		}
		for _, beside := range besides {
			if err == nil {
				err = r.subscribe(ctx, beside.name, 1, 0)
			}
			if err == nil {
				err = r.storm(ctx, beside.storm, b.span(8*time.Second))
			}
			if err != nil {
				return err
			}
			profiled := r.profile(ctx, r.running["delivery"], beside.name)
			t, measuring := r.healthy(ctx, beside.name, beside.flows)
			err = errors.Join(measuring, profiled())
			round = append(round, t)
		}
		return err
	})
	return round, err
}

// healthy measures an endpoint beside other flows.
func (r *rig) healthy(ctx context.Context, name string, flows []flow) (tally, error) {
	long := r.span(20 * time.Second)
	if err := r.pace(ctx, long, append(flows, flow{healthyRate, one(name)})...); err != nil {
		return tally{}, err
	}
	return r.arrived(ctx, name, int(long.Seconds()*healthyRate)*99/100)
}

// storm writes retries of the slow endpoints that are all due when it returns.
func (r *rig) storm(ctx context.Context, count int, ahead time.Duration) error {
	if count == 0 {
		return nil
	}
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
	if err := r.flush(ctx); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(due)):
		return nil
	}
}

// memory measures a worker that has read what slow endpoints have not taken.
func (b *engineBench) memory(ctx context.Context) error {
	return b.with(ctx, func(r *rig) error {
		count := b.amount(50_000)
		if err := errors.Join(r.subscribe(ctx, "slow", slowMany, slowSleep), r.preload(ctx, count, among("slow", slowMany))); err != nil {
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
	})
}
