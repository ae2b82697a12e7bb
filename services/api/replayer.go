package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

const (
	// replaysAtOnce bounds the replays that one process works on.
	replaysAtOnce = 4
	replayPoll    = 2 * time.Second
	// replayLease is longer than everything between two writes of progress.
	replayLease = time.Minute
	// replayChunk bounds the events of a chunk.
	replayChunk = 500
	// settling is how far behind now the stored events are asked for: the brokers' clocks give them their times.
	settling   = 5 * time.Second
	errorPause = time.Second
)

// replayer works on the replays that it can claim. A chunk is done in this order: its plan into the database, its deliveries into
// the retries topic, their acknowledgements, the cursor into the database. A process that dies in between leaves the plan, by
// which the next one makes the very same records again; workers send what they have seen once.
type replayer struct {
	*Service
	owner string
	wake  chan struct{} // holds one signal
}

func newReplayer(s *Service) *replayer {
	return &replayer{Service: s, owner: newID(), wake: make(chan struct{}, 1)}
}

// changed wakes the replayer: there may be a replay to work on. It does not block.
func (p *replayer) changed() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run claims and works until ctx ends; a chunk that has begun is finished within work.
func (p *replayer) run(ctx, work context.Context) {
	var working sync.WaitGroup
	defer working.Wait()
	free := make(chan struct{}, replaysAtOnce)
	var quiet throttle
	for ctx.Err() == nil {
		select {
		case free <- struct{}{}:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		r, err := p.deps.Store.ClaimReplay(ctx, p.owner, now, now.Add(replayLease))
		if err == nil {
			working.Go(func() {
				defer func() { <-free; p.changed() }()
				(&passage{replayer: p, replay: r}).run(ctx, work)
			})
			continue
		}
		<-free
		if !errors.Is(err, store.ErrNotFound) && ctx.Err() == nil && quiet.allow() {
			p.log.WarnContext(ctx, "replays cannot be looked for", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-p.wake:
		case <-time.After(replayPoll):
		}
	}
}

// passage is the time for which this process holds a replay.
type passage struct {
	*replayer
	replay store.Replay
	// recorded is up to when the stored events are known to be complete.
	recorded time.Time
	// config is an offset of the config topic at which the subscription is known; -1 before it has been looked up.
	config int64
	// next is when the rate allows the next chunk.
	next time.Time
}

var errReplayStopped = errors.New("the replay is to stop")

func (p *passage) run(ctx, work context.Context) {
	var quiet throttle
	p.config = -1
	p.log.InfoContext(ctx, "replay goes on", "replay", p.replay.ID, "tenant", p.replay.Tenant, "subscription", p.replay.SubscriptionID, "done", p.replay.Done)
	for ctx.Err() == nil {
		err := p.step(ctx, work)
		switch {
		case errors.Is(err, errReplayStopped), errors.Is(err, store.ErrNotHeld):
			p.log.InfoContext(ctx, "replay left", "replay", p.replay.ID, "state", p.replay.State, "done", p.replay.Done, "matched", p.replay.Matched)
			return
		case err != nil && ctx.Err() == nil:
			if quiet.allow() {
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
	events, err := p.begin(ctx, work, &sub)
	if err != nil || r.Plan == nil {
		return err
	}
	if err := p.deliver(work, &sub, events); err != nil {
		return err
	}
	r.Cursor, r.Done, r.Matched = r.Plan.Until, r.Done+r.Plan.Events, r.Matched+int64(len(r.Plan.Generations))
	p.next = time.Now().Add(time.Duration(float64(len(r.Plan.Generations)) / r.Rate * float64(time.Second)))
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
	chunk, err := p.planChunk(ctx, r, sub, until)
	var unknown *filterError
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
	r.Plan = &chunk.plan
	if len(chunk.plan.Generations) == 0 {
		return nil, nil // to deliver; the cursor moves all the same
	}
	return chunk.events, p.advance(work)
}

// planned reads the events of a plan again.
func (p *passage) planned(ctx context.Context) ([]webhook.Event, error) {
	r := &p.replay
	var events []webhook.Event
	from := eventsOf(r, nil)
	from.Types, from.Until = nil, r.Plan.Until
	for from.After = r.Cursor; ; {
		some, err := p.deps.Store.Events(ctx, r.Tenant, from, replayChunk)
		if err != nil || len(some) == 0 {
			return events, err
		}
		events = append(events, some...)
		from.After = store.PlaceOf(&some[len(some)-1])
	}
}

// deliver produces the deliveries of the plan and waits until Kafka has them.
func (p *passage) deliver(work context.Context, sub *webhook.Subscription, events []webhook.Event) error {
	r := &p.replay
	records := make([]*kgo.Record, 0, len(r.Plan.Generations))
	for i := range events {
		e := events[i]
		generation, wanted := r.Plan.Generations[e.ID]
		if !wanted {
			continue
		}
		d := &webhook.Delivery{
			ID: webhook.DeliveryID(e.Tenant, e.ID, sub.ID), Generation: generation, Trip: 1, SubscriptionID: sub.ID, Profile: sub.Profile,
			CreatedAt: now(), Trigger: webhook.TriggerReplay, ConfigOffset: p.config, Event: e,
		}
		if contract, ok := p.deps.Profiles.Get(sub.Profile); ok {
			d.ProfileVersion = contract.Version
		}
		records = append(records, retryRecord(p.deps.Kafka.Topics.Retries, d, webhook.ReasonManual))
	}
	if len(records) == 0 {
		return nil
	}
	if _, err := p.produce(work, records...); err != nil {
		return fmt.Errorf("produce replayed deliveries: %w", err)
	}
	return nil
}

// advance writes the progress. It returns errReplayStopped where the replay has ended or people have stopped it, and lets go of
// the lease then.
func (p *passage) advance(work context.Context) error {
	until := time.Now().Add(replayLease)
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
	ends, err := p.ends(ctx, p.deps.Kafka.Topics.Config)
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
		p.recorded, p.replay.Reason = until, ""
		return nil
	}
	p.next = time.Now().Add(errorPause)
	p.replay.Reason = "waits until the newest events are recorded"
	return p.advance(work)
}

// recordedUntil reports whether every event that Kafka took before a moment is stored.
func (p *passage) recordedUntil(ctx context.Context, until time.Time) (bool, error) {
	client := p.client.Load()
	if client == nil {
		return false, errNotRunning
	}
	name := p.deps.Kafka.Topics.Events
	admin := kadm.NewClient(client)
	wanted, err := admin.ListOffsetsAfterMilli(ctx, until.UnixMilli(), name)
	if err == nil {
		err = wanted.Error()
	}
	if err != nil {
		return false, fmt.Errorf("find where events end: %w", err)
	}
	kept, err := admin.ListStartOffsets(ctx, name)
	if err == nil {
		err = kept.Error()
	}
	if err != nil {
		return false, fmt.Errorf("find where events begin: %w", err)
	}
	stored, err := p.deps.Store.Offsets(ctx, name)
	if err != nil {
		return false, err
	}
	complete := true
	wanted.Each(func(o kadm.ListedOffset) {
		start, _ := kept.Lookup(name, o.Partition)
		complete = complete && (o.Offset <= start.Offset || stored[store.TopicPartition{Topic: name, Partition: o.Partition}] >= o.Offset)
	})
	return complete, nil
}

// filterError: a filter was saved by a process that knows more.
type filterError struct{ err error }

func (e *filterError) Error() string { return "a filter is not understood: " + e.err.Error() }

// chunk is what comes next of a replay.
type chunk struct {
	plan   store.ReplayPlan
	events []webhook.Event
}

// planChunk looks at the next events up to a moment, and decides which of them are delivered and as which generation. It is nil
// where there are none. It ends early where the rate allows no more in a second.
func (s *Service) planChunk(ctx context.Context, r *store.Replay, sub *webhook.Subscription, until time.Time) (*chunk, error) {
	if until.IsZero() {
		return nil, nil
	}
	own, err := selectionOf(sub.EventTypes, sub.Filter)
	if err != nil {
		return nil, &filterError{err}
	}
	asked, err := selectionOf(r.Spec.EventTypes, r.Spec.Filter)
	if err != nil {
		return nil, &filterError{err}
	}
	from := eventsOf(r, sub)
	from.To = until
	quota := max(int(r.Rate), 1)
	events, err := s.deps.Store.Events(ctx, r.Tenant, from, min(max(4*quota, 50), replayChunk))
	if err != nil || len(events) == 0 {
		return nil, err
	}
	ids := make([]uuid.UUID, 0, len(events)) // of the events that are wanted
	wanted := make([]bool, len(events))
	for i := range events {
		if wanted[i] = own.wants(&events[i]) && asked.wants(&events[i]); wanted[i] {
			ids = append(ids, webhook.DeliveryID(r.Tenant, events[i].ID, sub.ID))
		}
	}
	rows, err := s.deps.Store.DeliveriesByID(ctx, r.Tenant, ids...)
	if err != nil {
		return nil, err
	}
	c := &chunk{plan: store.ReplayPlan{Generations: map[string]uint32{}}}
	for i := range events {
		e := &events[i]
		c.plan.Until, c.plan.Events = store.PlaceOf(e), int64(i+1)
		row, known := rows[webhook.DeliveryID(r.Tenant, e.ID, sub.ID)]
		if wanted[i] && repeats(r.Spec.Statuses, row.Status, known) {
			c.plan.Generations[e.ID] = row.Generation + 1
		}
		if len(c.plan.Generations) >= quota {
			break
		}
	}
	c.events = events[:c.plan.Events]
	return c, nil
}

// repeats reports whether a delivery of this status is made again. One that is under way is left alone unless asked for.
func repeats(statuses []webhook.Status, status webhook.Status, known bool) bool {
	if !known {
		status = store.NoDelivery
	}
	if len(statuses) == 0 {
		return status != webhook.Pending
	}
	return slices.Contains(statuses, status)
}

// eventsOf are the events that a replay still has to look at; sub may be nil.
func eventsOf(r *store.Replay, sub *webhook.Subscription) store.EventFilter {
	f := store.EventFilter{From: r.Spec.From, To: r.Spec.To, Offsets: r.Spec.Offsets, Types: r.Spec.EventTypes, After: r.Cursor}
	if len(f.Types) == 0 && sub != nil {
		f.Types = sub.EventTypes
	}
	return f
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
