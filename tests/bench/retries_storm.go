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

// stormResult is what a storm of retries did to the delivery path, and it to the storm.
type stormResult struct {
	Retries    int
	Answers    time.Duration // how long receivers take for an answer
	Path       float64       // delivered a second, without a storm and without a bound
	Offered    float64       // new events a second beside the storm: more than half of that
	New        tally         // of them
	Share      float64       // that new events had of all that was delivered while they came
	Together   float64       // delivered a second, storm and new events, until all were
	Took       time.Duration
	Behind     time.Duration // until what one endpoint had due behind the storm was delivered
	Duplicates int
}

const (
	stormEndpoints = 100
	behindStorm    = 200
	// offeredOfPath is so much that half of the path is less than what new events want: of exactly half, what is under way at the end is missing.
	offeredOfPath = 0.6
	// longestBeside is for how long new events come beside a storm at most.
	longestBeside = time.Minute
	// unhurried is what receivers take where the path waits for them and not for the processors.
	unhurried = 100 * time.Millisecond
)

// storms measures a storm where the workers need the processors that the scheduler, Redis and Kafka share with them, and a
// larger one where they wait for their receivers.
func (b *retryBench) storms(ctx context.Context) error {
	for _, s := range []stormResult{{Retries: b.Storm / 10}, {Retries: b.Storm, Answers: unhurried}} {
		if err := b.storm(ctx, &s); err != nil {
			return fmt.Errorf("answers after %v: %w", s.Answers, err)
		}
		b.report.Storms = append(b.report.Storms, s)
	}
	return nil
}

// storm lets retries of a hundred endpoints be due in the same second, offers new events at more than half of the speed of the path, and looks
// who gets through. Workers and receiver are real.
func (b *retryBench) storm(ctx context.Context, s *stormResult) error {
	e := &engineBench{Servers: b.servers, hookline: b.hookline, dir: b.dir, scale: 1}
	if err := b.redis.FlushAll(ctx).Err(); err != nil {
		return err
	}
	return e.with(ctx, func(r *rig) error {
		answers := int(s.Answers.Milliseconds())
		if err := errors.Join(r.subscribe(ctx, "storm", stormEndpoints, answers), r.subscribe(ctx, "new", stormEndpoints, answers),
			r.subscribe(ctx, "path", stormEndpoints, answers), r.subscribe(ctx, "behind", 1, answers), r.startAll(ctx, "delivery", "scheduler")); err != nil {
			return err
		}
		calm := min(s.Retries/4, 50_000)
		if err := r.preload(ctx, calm, among("path", stormEndpoints)); err != nil {
			return err
		}
		path, err := r.arrived(ctx, "path", calm)
		if err != nil {
			return err
		}
		s.Path, s.Offered = path.PerSecond, offeredOfPath*path.PerSecond
		due := time.Now().Add(5*time.Second + time.Duration(s.Retries)*60*time.Microsecond)
		if err := errors.Join(r.retries(ctx, s.Retries, due, among("storm", stormEndpoints)),
			r.retries(ctx, behindStorm, due.Add(time.Second), one("behind"))); err != nil {
			return err
		}
		return b.weather(ctx, r, due, s)
	})
}

// weather watches the storm from its first moment to its end.
func (b *retryBench) weather(ctx context.Context, r *rig, due time.Time, s *stormResult) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(due)):
	}
	// As long as half of the storm's time, if it gets the other half of the path.
	beside := min(time.Duration(float64(s.Retries)/s.Path*float64(time.Second)), longestBeside)
	behind := make(chan error, 1)
	go func() {
		_, err := r.arrived(ctx, "behind", behindStorm)
		s.Behind = time.Since(due)
		behind <- err
	}()
	if err := r.pace(ctx, beside, flow{int(s.Offered), among("new", stormEndpoints)}); err != nil {
		return err
	}
	amid, err := r.receiver.events(ctx, "storm")
	if err != nil {
		return err
	}
	fresh, err := r.receiver.events(ctx, "new")
	if err != nil {
		return err
	}
	s.Share = float64(fresh) / float64(max(fresh+amid, 1))
	end, err := r.arrived(ctx, "storm", s.Retries)
	if err != nil {
		return err
	}
	s.Took, s.Duplicates = time.Since(due), end.Requests-end.Events
	if s.New, err = r.arrived(ctx, "new", int(s.Offered*beside.Seconds())*99/100); err != nil {
		return err
	}
	s.Together = float64(end.Events+s.New.Events) / time.Since(due).Seconds()
	if err := <-behind; err != nil {
		return err
	}
	b.say(fmt.Sprintf("storm of %d: the path does %.0f/s; beside the storm new ones (%.0f/s, p99 %s) had %.0f %% of it; both together %.0f/s, all after %v, those behind after %v, %d twice",
		s.Retries, s.Path, s.Offered, ms(time.Duration(s.New.P99)), 100*s.Share, s.Together, s.Took, s.Behind, s.Duplicates))
	return nil
}

// retries writes retries that are all due at one moment.
func (r *rig) retries(ctx context.Context, count int, due time.Time, pick func(n int) string) error {
	for n := range count {
		d, err := wire.DecodeDelivery(r.record(pick(n)).Value)
		if err != nil {
			return err
		}
		d.Trip++
		retry := &webhook.Retry{Delivery: *d, Delay: max(time.Until(due), 0), Reason: webhook.ReasonHTTPStatus}
		r.produce(ctx, &kgo.Record{Topic: r.Topics.Retries, Key: []byte(d.Key().String()), Value: wire.EncodeRetry(retry)})
	}
	return r.flush(ctx)
}
