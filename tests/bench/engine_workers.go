package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// fewSlots keeps so little under way in a worker that it waits for the endpoints and not for a processor.
const fewSlots, waitingMs, waitingMany = 32, 50, 8

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
		b.add(fmt.Sprintf("deliveries/s of %d workers with %d slots each to %d endpoints that take %d ms", workers, fewSlots, waitingMany, waitingMs),
			fmt.Sprintf("%.0f, %.2f of proportional", perSecond, ratio), "at least 0.90", ratio >= 0.9)
	}
	return nil
}

func (b *engineBench) withWorkers(ctx context.Context, workers int) (perSecond float64, err error) {
	err = b.with(ctx, func(r *rig) error {
		r.env["HOOKLINE_DELIVERY_MAX_INFLIGHT"] = fmt.Sprint(fewSlots)
		// Ready is not yet balanced: when the first deliveries have come, every worker has its partitions.
		err := errors.Join(r.subscribe(ctx, "waits", waitingMany, waitingMs), r.workers(ctx, workers),
			r.pace(ctx, 8*time.Second, flow{200, among("waits", waitingMany)}))
		if err != nil {
			return err
		}
		count := b.amount(8000) * workers
		if err := errors.Join(r.subscribe(ctx, "full", waitingMany, waitingMs), r.preload(ctx, count, among("full", waitingMany))); err != nil {
			return err
		}
		t, err := r.arrived(ctx, "full", count*95/100)
		perSecond = t.PerSecond
		return err
	})
	return perSecond, err
}

func (r *rig) workers(ctx context.Context, count int) error {
	for w := range count {
		if _, err := r.start(ctx, fmt.Sprintf("delivery-%d", w), "delivery"); err != nil {
			return err
		}
	}
	return nil
}

// kill ends one of three workers under load, and looks at what came twice and what waited.
func (b *engineBench) kill(ctx context.Context) error {
	return b.with(ctx, func(r *rig) error {
		load := flow{300, one("s")}
		err := errors.Join(r.subscribe(ctx, "s", 1, 20), r.workers(ctx, 3), r.pace(ctx, 8*time.Second, load))
		if err != nil {
			return err
		}
		died := make(chan time.Time, 1)
		timer := time.AfterFunc(2*time.Second, func() {
			_ = r.running["delivery-0"].cmd.Process.Kill() // it is there: nobody else ends it
			died <- time.Now()
		})
		defer timer.Stop()
		if err := r.pace(ctx, 20*time.Second, load); err != nil {
			return err
		}
		t, err := r.arrived(ctx, "s", r.next)
		if err != nil {
			return err
		}
		oldest, at := time.Duration(0), <-died
		for _, first := range t.Repeats {
			oldest = max(oldest, at.Sub(time.Unix(0, first)))
		}
		b.add("requests repeated after SIGKILL of one of three workers at 300/s", fmt.Sprintf("%d, the oldest made %s before it", len(t.Repeats), ms(oldest)), "those of the last 200 ms", oldest <= 200*time.Millisecond)
		b.add("longest that a delivery waited for another worker to take over", ms(time.Duration(t.Longest)), "at most 10 s (session timeout 6 s)", t.Longest <= int64(10*time.Second))
		return nil
	})
}
