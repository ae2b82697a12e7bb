package scheduler

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// turn is the place of a chunk's commands among those of its shard, which are carried out in the order in which they were written: a
// "now" that comes after a cancellation finds nothing any more.
type turn struct {
	before <-chan struct{} // closed when the turn has come
	over   chan struct{}
}

// takeTurn is for the firing goroutine alone. A chunk without commands has no turn.
func (sh *shard) takeTurn(flights []*flight) *turn {
	if !slices.ContainsFunc(flights, (*flight).isCommand) {
		return nil
	}
	t := &turn{before: sh.lastTurn, over: make(chan struct{})}
	sh.lastTurn = t.over
	return t
}

func (f *flight) isCommand() bool { return f.entry.Trip.IsCommand() && f.value != nil }

// obey carries out the commands among claimed flights when their turn has come, and returns the flights without those that could not
// be: they are due again when their lease ends. A command is a retry like any other, with a life of its own in log and index, so that
// neither a crash nor a lost index loses it; instead of being produced it is carried out, and then has its tombstone.
//
// A command is about what waits at that moment. A trip that is already on its way is not stopped.
func (s *Service) obey(sh *shard, flights []*flight, t *turn) []*flight {
	if t == nil {
		return flights
	}
	<-t.before
	defer close(t.over)
	var commands []*flight
	for _, f := range flights {
		if f.isCommand() {
			commands = append(commands, f)
		}
	}
	slices.SortFunc(commands, func(a, b *flight) int { return cmp.Compare(a.entry.Offset, b.entry.Offset) })
	waits := map[*flight]bool{}
	for _, f := range commands {
		if err := s.carryOut(sh, f); err != nil {
			s.log.WarnContext(s.work, "a command about retries waits", "trip", f.entry.Trip.String(), "error", err)
			sh.release(f.entry.Trip)
			sh.pace.drop(f.entry)
			waits[f] = true
		}
	}
	return slices.DeleteFunc(flights, func(f *flight) bool { return waits[f] })
}

func (s *Service) carryOut(sh *shard, f *flight) error {
	command, err := wire.DecodeRetry(f.value)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.work, redisTimeout)
	defer cancel()
	found, now, err := s.deps.Index.Find(ctx, sh.partition, command.Delivery.ID, command.Delivery.Generation)
	s.redis.report(ctx, sh.asker(askAck), err)
	if err != nil {
		return err
	}
	found = slices.DeleteFunc(found, func(w retryqueue.Waiting) bool { return w.Trip.IsCommand() || sh.holds(w.Trip) })
	if command.Reason == webhook.ReasonCancelled {
		return s.cancel(sh, &command.Delivery, found)
	}
	var moves []retryqueue.Move
	for _, w := range found {
		if w.Due.After(now) {
			moves = append(moves, retryqueue.Move{Trip: w.Trip, From: w.Due, To: now})
		}
	}
	if _, err := s.deps.Index.Move(ctx, sh.partition, moves...); err != nil {
		return err
	}
	sh.wakeUp()
	return nil
}

// cancel tells the audit that the delivery is cancelled, and then marks its waiting trips as if they had fired.
func (s *Service) cancel(sh *shard, d *webhook.Delivery, waiting []retryqueue.Waiting) error {
	entries := make([]retryqueue.Entry, len(waiting))
	for i, w := range waiting {
		entries[i] = retryqueue.Entry{Trip: w.Trip, Offset: w.Offset}
	}
	entries = sh.hold(entries)
	flights := make([]*flight, len(entries))
	for i, e := range entries {
		flights[i] = &flight{shard: sh, entry: e}
	}
	told := s.step(flights, s.producer, func(*flight) *kgo.Record {
		return &kgo.Record{Topic: s.deps.Kafka.Topics.Attempts, Key: []byte(d.SubscriptionID), Value: wire.EncodeAttempt(cancelled(d))}
	}, func(*flight, *kgo.Record) {})
	if marked := s.mark(told); len(marked) < len(entries) {
		return fmt.Errorf("cancel %d trips of delivery %s: %d are", len(entries), d.ID, len(marked))
	}
	return nil
}

// cancelled is the decision without a request.
func cancelled(d *webhook.Delivery) *webhook.Attempt {
	return &webhook.Attempt{
		ID: uuid.Must(uuid.NewV7()), DeliveryID: d.ID, Generation: d.Generation, Tenant: d.Event.Tenant, EventID: d.Event.ID, EventType: d.Event.Type,
		SubscriptionID: d.SubscriptionID, Profile: d.Profile, ProfileVersion: d.ProfileVersion, Trigger: d.Trigger, DeliveryCreatedAt: d.CreatedAt,
		StartedAt: time.Now(), Outcome: webhook.Outcome{Status: webhook.Cancelled, Reason: webhook.ReasonCancelled},
	}
}
