// Package replay works on replays: it makes deliveries of stored events again, in chunks and at a rate of its own, and hands them to the
// delivery workers. What of a replay people may see and steer is the control plane's matter.
package replay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/offset"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/topic"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

const (
	// atOnce bounds the replays that one process works on.
	atOnce = 4
	poll   = 2 * time.Second
	// Lease is longer than everything between two writes of progress.
	Lease = time.Minute
	// MostEvents bounds the events of a chunk.
	MostEvents = 500
	// together is how far apart those of a chunk are handed over that do not go together: every time costs Kafka and the workers some
	// requests, and what goes together stands in front of live deliveries.
	together = 20 * time.Millisecond
	// settling is how far behind now the stored events are asked for: the brokers' clocks give them their times.
	settling = 5 * time.Second
	// catchUp is how far a replay that was held up may run ahead of its rate.
	catchUp    = 250 * time.Millisecond
	errorPause = time.Second
)

// Store keeps replays as they are worked on, by one process at a time, and what they are about.
type Store interface {
	Claims
	EventStore
	Subscription(ctx context.Context, tenant, id string) (webhook.Subscription, error)
	Outbox(ctx context.Context, limit int) ([]store.OutboxRecord, error)
	Offsets(ctx context.Context, topics ...string) (map[store.TopicPartition]int64, error)
}

// Claims gives a process the right to work on a replay, for as long as it says so.
type Claims interface {
	ClaimReplay(ctx context.Context, owner string, now, until time.Time) (store.Replay, error)
	AdvanceReplay(ctx context.Context, owner string, r store.Replay, until time.Time) (store.ReplayState, float64, error)
}

// Journal is Kafka: a *journal.Journal.
type Journal interface {
	Write(ctx context.Context, records ...*kgo.Record) (kgo.ProduceResults, error)
	Starts(ctx context.Context, topic string) (map[int32]int64, error)
	Ends(ctx context.Context, topic string) (map[int32]int64, error)
	At(ctx context.Context, topic string, moment time.Time) (map[int32]int64, error)
	Standings(ctx context.Context) (map[int32]offset.Standing, error)
}

// Profiles are the delivery contracts: a *profile.Catalog.
type Profiles interface {
	Get(name string) (*profile.Profile, bool)
}

// Deps are the parts; all are needed.
type Deps struct {
	Log      *slog.Logger
	Topics   topic.Names
	Store    Store
	Journal  Journal
	Profiles Profiles
}

// Runner works on the replays that it can claim. A chunk is done in this order: its plan into the database, its deliveries into
// the deliveries topic, their acknowledgements, the cursor into the database. A process that dies in between leaves the plan, by
// which the next one makes the very same records again; workers send what they have seen once.
type Runner struct {
	deps  Deps
	log   *slog.Logger
	owner string
	wake  chan struct{} // holds one signal
}

// New makes a runner that does not run yet.
func New(deps Deps) *Runner {
	return &Runner{deps: deps, log: deps.Log, owner: uuid.Must(uuid.NewV7()).String(), wake: make(chan struct{}, 1)}
}

// Changed wakes the runner: there may be a replay to work on. It does not block, and may be called concurrently.
func (p *Runner) Changed() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run claims and works until ctx ends; a chunk that has begun is finished within work.
func (p *Runner) Run(ctx, work context.Context) {
	var working sync.WaitGroup
	defer working.Wait()
	free := make(chan struct{}, atOnce)
	var quiet run.Throttle
	for ctx.Err() == nil {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		r, err := p.deps.Store.ClaimReplay(ctx, p.owner, now, now.Add(Lease))
		if err == nil {
			working.Go(func() {
				defer func() { <-free; p.Changed() }()
				(&passage{Runner: p, replay: r}).run(ctx, work)
			})
			continue
		}
		<-free
		if !errors.Is(err, store.ErrNotFound) && ctx.Err() == nil && quiet.Allow() {
			p.log.WarnContext(ctx, "replays cannot be looked for", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-p.wake:
		case <-time.After(poll):
		}
	}
}

// passage is the time for which this process holds a replay.
type passage struct {
	*Runner
	replay store.Replay
	// recorded is up to when the stored events are known to be complete.
	recorded time.Time
	// config is an offset of the config topic at which the subscription is known; -1 before it has been looked up.
	config int64
	// next is when the rate allows the next chunk.
	next  time.Time
	ahead ahead
}

var errReplayStopped = errors.New("the replay is to stop")

func (p *passage) run(ctx, work context.Context) {
	var quiet run.Throttle
	p.config = -1
	p.log.InfoContext(ctx, "replay goes on", "replay", p.replay.ID, "tenant", p.replay.Tenant, "subscription", p.replay.SubscriptionID, "done", p.replay.Done)
	for ctx.Err() == nil {
		err := p.step(ctx, work)
		switch {
		case errors.Is(err, errReplayStopped), errors.Is(err, store.ErrNotHeld):
			p.log.InfoContext(ctx, "replay left", "replay", p.replay.ID, "state", p.replay.State, "done", p.replay.Done, "matched", p.replay.Matched)
			return
		case err != nil && ctx.Err() == nil:
			if quiet.Allow() {
				p.log.WarnContext(ctx, "a replay waits", "replay", p.replay.ID, "error", err)
			}
			run.Pause(ctx, errorPause)
		}
		run.Pause(ctx, time.Until(p.next))
	}
	if _, _, err := p.deps.Store.AdvanceReplay(work, p.owner, p.replay, time.Time{}); err != nil {
		p.log.WarnContext(work, "a replay waits for the end of its lease", "replay", p.replay.ID, "error", err)
	}
}

// step does the next chunk, or waits for it. It returns errReplayStopped where there is nothing more for this process to do.
func (p *passage) step(ctx, work context.Context) error {
	r := &p.replay
	sub, err := p.deps.Store.Subscription(ctx, r.Tenant, r.SubscriptionID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return p.end(work, store.ReplayFailed, "the subscription is deleted")
	case err != nil:
		return err
	case sub.Status == webhook.SubscriptionDisabled:
		return p.end(work, store.ReplayPaused, "the subscription is disabled")
	}
	if err := p.awaitConfig(ctx); err != nil {
		return err
	}
	if room, err := p.ahead.room(ctx, p.deps.Journal); err != nil {
		return err
	} else if !room {
		return p.wait(work, "waits until the workers have come to what it has handed to them")
	}
	r.Reason = ""
	events, err := p.begin(ctx, work, &sub)
	if err != nil || r.Plan == nil {
		return err
	}
	if err := p.deliver(work, &sub, events); err != nil {
		return err
	}
	r.Cursor, r.Done, r.Matched = r.Plan.Until, r.Done+r.Plan.Events, r.Matched+int64(len(r.Plan.Generations))
	r.Plan = nil
	return p.advance(work)
}

// begin returns the events of the chunk that is planned, or plans the next one. Without a plan there is nothing to deliver now.
func (p *passage) begin(ctx, work context.Context, sub *webhook.Subscription) ([]webhook.Event, error) {
	r := &p.replay
	if r.Plan != nil { // another process died over it
		return p.planned(ctx)
	}
	until := earlier(r.Spec.To, p.recorded)
	chunk, err := Next(ctx, p.deps.Store, r, sub, until)
	var unknown *FilterError
	switch {
	case errors.As(err, &unknown):
		return nil, p.end(work, store.ReplayFailed, unknown.Error())
	case err != nil:
		return nil, err
	case chunk == nil && !until.Before(r.Spec.To):
		return nil, p.end(work, store.ReplayDone, "")
	case chunk == nil:
		return nil, p.awaitRecorder(ctx, work)
	}
	r.Plan = &chunk.Plan
	if len(chunk.Plan.Generations) == 0 {
		return nil, nil // to deliver; the cursor moves all the same
	}
	return chunk.Events, p.advance(work)
}

// planned reads the events of a plan again.
func (p *passage) planned(ctx context.Context) ([]webhook.Event, error) {
	r := &p.replay
	var events []webhook.Event
	from := Events(r, nil)
	from.Types, from.Until = nil, r.Plan.Until
	for from.After = r.Cursor; ; {
		some, err := p.deps.Store.Events(ctx, r.Tenant, from, MostEvents)
		if err != nil || len(some) == 0 {
			return events, err
		}
		events = append(events, some...)
		from.After = store.PlaceOf(&some[len(some)-1])
	}
}

// share is the time that the rate gives so many deliveries.
func (p *passage) share(deliveries int) time.Duration {
	return time.Duration(float64(deliveries) / p.replay.Rate * float64(time.Second))
}

// deliver hands the deliveries of the plan to the workers, and waits until Kafka has them. It takes the time that the rate gives them: all at
// once they would stand in front of live ones.
func (p *passage) deliver(work context.Context, sub *webhook.Subscription, events []webhook.Event) error {
	records := p.records(sub, events)
	begun := later(p.next, time.Now().Add(-catchUp))
	for sent := 0; sent < len(records); {
		if !run.Pause(work, time.Until(begun.Add(p.share(sent)))) {
			return work.Err()
		}
		due := min(len(records), sent+1+int(time.Since(begun.Add(p.share(sent))).Seconds()*p.replay.Rate))
		results, err := p.deps.Journal.Write(work, records[sent:due]...)
		if err != nil {
			return fmt.Errorf("produce replayed deliveries: %w", err)
		}
		p.ahead.add(results, time.Now())
		if sent = due; sent < len(records) {
			run.Pause(work, together)
		}
	}
	p.next = begun.Add(p.share(len(records)))
	return nil
}

// records are the deliveries of the plan.
func (p *passage) records(sub *webhook.Subscription, events []webhook.Event) []*kgo.Record {
	r := &p.replay
	records := make([]*kgo.Record, 0, len(r.Plan.Generations))
	for i := range events {
		e := events[i]
		generation, wanted := r.Plan.Generations[e.ID]
		if !wanted {
			continue
		}
		d := webhook.Delivery{
			ID: webhook.DeliveryID(e.Tenant, e.ID, sub.ID), Generation: generation, SubscriptionID: sub.ID, Profile: sub.Profile,
			CreatedAt: now(), Trigger: webhook.TriggerReplay, ConfigOffset: p.config, Event: e,
		}
		if contract, ok := p.deps.Profiles.Get(sub.Profile); ok {
			d.ProfileVersion = contract.Version
		}
		record := &kgo.Record{Topic: p.deps.Topics.Deliveries, Key: []byte(d.ID.String()), Value: wire.EncodeDelivery(&d)}
		telemetry.SetRecordTrace(record, e.Trace)
		records = append(records, record)
	}
	return records
}

// advance writes the progress. It returns errReplayStopped where the replay has ended or people have stopped it, and lets go of
// the lease then.
func (p *passage) advance(work context.Context) error {
	until := time.Now().Add(Lease)
	if p.replay.State != store.ReplayRunning {
		until = time.Time{}
	}
	state, rate, err := p.deps.Store.AdvanceReplay(work, p.owner, p.replay, until)
	if err != nil {
		return err
	}
	p.replay.State, p.replay.Rate = state, rate
	if state == store.ReplayRunning {
		return nil
	}
	if !until.IsZero() { // stopped by people: the next who resumes it need not wait for the lease
		if _, _, err := p.deps.Store.AdvanceReplay(work, p.owner, p.replay, time.Time{}); err != nil {
			return err
		}
	}
	return errReplayStopped
}

func (p *passage) end(work context.Context, state store.ReplayState, reason string) error {
	p.replay.State, p.replay.Reason = state, reason
	if state.Ended() {
		p.replay.FinishedAt = now()
	}
	return p.advance(work)
}

// awaitConfig finds an offset of the config topic behind the subscription's own record. A worker that has not applied it puts the
// deliveries back; without it, a worker would take a new subscription for a deleted one.
func (p *passage) awaitConfig(ctx context.Context) error {
	if p.config >= 0 {
		return nil
	}
	const most = 1000
	waiting, err := p.deps.Store.Outbox(ctx, most)
	for err == nil && len(waiting) > 0 {
		last := waiting[len(waiting)-1].ID
		run.Pause(ctx, 100*time.Millisecond)
		var now []store.OutboxRecord
		if now, err = p.deps.Store.Outbox(ctx, 1); len(now) == 0 || now[0].ID > last {
			break
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if err != nil {
		return err
	}
	ends, err := p.deps.Journal.Ends(ctx, p.deps.Topics.Config)
	if err != nil {
		return err
	}
	p.config = max(ends[0]-1, 0)
	return nil
}

// awaitRecorder moves on up to when the stored events are complete, or waits a moment for the recorder.
func (p *passage) awaitRecorder(ctx, work context.Context) error {
	until := earlier(p.replay.Spec.To, time.Now().Add(-settling))
	complete := false
	if until.After(p.recorded) {
		var err error
		if complete, err = p.recordedUntil(ctx, until); err != nil {
			return err
		}
	}
	if complete {
		p.recorded = until
		return nil
	}
	return p.wait(work, "waits until the newest events are recorded")
}

// wait tells people what the replay waits for, and looks again a moment later.
func (p *passage) wait(work context.Context, what string) error {
	p.next = time.Now().Add(errorPause)
	p.replay.Reason = what
	return p.advance(work)
}

// recordedUntil reports whether every event that Kafka took before a moment is stored.
func (p *passage) recordedUntil(ctx context.Context, until time.Time) (bool, error) {
	name := p.deps.Topics.Events
	wanted, err := p.deps.Journal.At(ctx, name, until)
	if err != nil {
		return false, fmt.Errorf("find where events end: %w", err)
	}
	kept, err := p.deps.Journal.Starts(ctx, name)
	if err != nil {
		return false, fmt.Errorf("find where events begin: %w", err)
	}
	stored, err := p.deps.Store.Offsets(ctx, name)
	if err != nil {
		return false, err
	}
	for partition, end := range wanted {
		if end > kept[partition] && stored[store.TopicPartition{Topic: name, Partition: partition}] < end {
			return false, nil
		}
	}
	return true, nil
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// now is the time as it is stored: in UTC and to the millisecond.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// Record is a retry as its topic has it.
func Record(topic string, r *webhook.Retry) *kgo.Record {
	record := &kgo.Record{Topic: topic, Key: []byte(r.Delivery.Key().String()), Value: wire.EncodeRetry(r)}
	telemetry.SetRecordTrace(record, r.Delivery.Event.Trace)
	return record
}
