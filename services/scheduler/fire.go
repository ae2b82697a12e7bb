package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

const (
	// claimMost is how many due retries are taken at once.
	claimMost = 500
	// idle is how long a shard sleeps at most, so that a Redis that lost its data or whose clock was set is noticed.
	idle = time.Minute
	// Shards look when Redis's clock is at a multiple of together, so that what is due within it goes in one claim, and the claims of all
	// shards in one volley.
	together = 5 * time.Millisecond
	// After an error the next look is this much later.
	afterError = time.Second
	// largestVolley bounds what one request to Kafka and a kill's repetitions may be.
	largestVolley = 1000
	// chunkBytes is about how much is read at once.
	chunkBytes = 2 << 20
)

// fire fires what is due in one shard, until ctx ends.
func (s *Service) fire(ctx context.Context, sh *shard) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-sh.wake:
		}
		timer.Reset(s.fireDue(ctx, sh))
	}
}

// fireDue claims what is due and puts it on its way. It returns how long nothing needs to be done.
func (s *Service) fireDue(ctx context.Context, sh *shard) time.Duration {
	position := sh.awake()
	if !position.following {
		return idle
	}
	n, pause, now := 0, time.Duration(0), time.Now()
	bounds := s.path.bounds(now)
	if position.open() {
		n, pause = sh.pace.room(bounds, now)
		n = min(n, claimMost)
		if s.slots.Acquire(ctx, int64(n)) != nil {
			return idle
		}
	}
	claim, err := s.claim(ctx, sh, n, position)
	entries := sh.hold(claim.Entries)
	s.slots.Release(int64(n - len(entries)))
	if err != nil {
		return afterError
	}
	sh.pace.admit(entries, claim.Due, now)
	sh.waiting.Store(claim.Waiting)
	s.deps.Metrics.RetriesWaiting.Record(ctx, claim.Waiting, sh.label)
	s.deps.Metrics.RetriesDue.Record(ctx, claim.Due, sh.label)
	s.deps.Metrics.RetriesOverdue.Record(ctx, claim.Overdue().Seconds(), sh.label)
	s.launch(sh, claim.Token, entries)
	switch {
	case n == 0 && claim.Due > 0 && position.open(): // until something is finished, or the speed permits more
		if pause == 0 {
			s.path.crowded.Store(true)
			pause = lookAheadEvery
		}
		sh.sleepsUntil(claim.Now)
		s.lookAhead(ctx, sh, claim, bounds, now)
		return pause
	case len(claim.Entries) == n && n > 0:
		return 0
	}
	wait := idle
	if position.open() && !claim.Next.IsZero() {
		next := claim.Next.Truncate(together).Add(together)
		wait = min(max(next.Sub(claim.Now), 0), idle)
	}
	sh.sleepsUntil(claim.Now.Add(wait))
	return wait
}

// lookAhead brings forward what lanes are owed that are due behind others.
func (s *Service) lookAhead(ctx context.Context, sh *shard, claim retryqueue.Claim, b bounds, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	var moves []retryqueue.Move
	var err error
	for _, w := range sh.pace.lookAhead(claim.Due, claim.Next, now) {
		list, failed := s.deps.Index.List(ctx, sh.partition, w.from, w.count)
		err = errors.Join(err, failed)
		moves = append(moves, sh.pace.owed(list, b, s.path, now)...)
	}
	moved, failed := s.deps.Index.Move(ctx, sh.partition, moves...)
	s.redis.report(ctx, sh.asker(askAhead), errors.Join(err, failed))
	s.deps.Metrics.RetriesForward.Add(ctx, int64(moved))
}

func (s *Service) claim(ctx context.Context, sh *shard, n int, at position) (retryqueue.Claim, error) {
	asking, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	claim, err := s.deps.Index.Claim(asking, sh.partition, n, s.cfg.Lease, at.applied)
	var moved *retryqueue.MovedError
	switch {
	case err == nil:
		s.redis.report(ctx, sh.asker(askClaim), nil)
	case errors.As(err, &moved):
		s.log.InfoContext(ctx, "the timer index has gone back", "partition", sh.partition, "have", moved.Offset, "want", at.applied)
		sh.lose(false)
		s.poke()
	case errors.Is(err, retryqueue.ErrDamaged):
		s.log.ErrorContext(ctx, "the timer index contradicts itself", "partition", sh.partition, "error", err)
		sh.lose(true)
		s.poke()
	default:
		s.redis.report(ctx, sh.asker(askClaim), err)
	}
	return claim, err
}

// flight is one claimed retry on its way.
type flight struct {
	shard   *shard
	entry   retryqueue.Entry
	value   []byte      // of its record; nil where there is nothing to produce, only to mark
	record  *kgo.Record // on the deliveries topic
	written bool        // the record has been acknowledged
	marked  bool        // so has the tombstone
}

// launch reads the records of claimed retries in the order of their due times, and sends them off in chunks, which
// finish by themselves. Whatever happens, every entry's slot is released and its hold taken back or passed on.
func (s *Service) launch(sh *shard, token int64, entries []retryqueue.Entry) {
	for len(entries) > 0 {
		n := min(len(entries), max(16, int(chunkBytes/max(s.reader.average.Load(), 1))))
		chunk := entries[:n]
		entries = entries[n:]
		flights, err := s.load(sh, chunk)
		if err != nil { // the drain timeout has passed
			s.abandon(sh, chunk)
			continue
		}
		var size int64
		for _, f := range flights {
			size += int64(len(f.value))
		}
		size = min(size, inflightBytes)
		if s.bytes.Acquire(s.work, size) != nil {
			s.abandon(sh, chunk)
			continue
		}
		commands := sh.takeTurn(flights)
		s.keepBusy(sh, func() {
			defer s.bytes.Release(size)
			defer s.slots.Release(int64(n))
			s.finish(sh, token, flights, commands)
		})
	}
}

func (s *Service) abandon(sh *shard, entries []retryqueue.Entry) {
	for _, e := range entries {
		sh.release(e.Trip)
	}
	sh.pace.drop(entries...)
	s.slots.Release(int64(len(entries)))
}

// finish fires, then acknowledges. What fails on the way is let go and is due again when its lease ends.
func (s *Service) finish(sh *shard, token int64, flights []*flight, commands *turn) {
	flights = s.obey(sh, flights, commands)
	trips := make([]webhook.Trip, 0, len(flights))
	for part := range slices.Chunk(flights, s.mostInVolley()) {
		s.volleys.join(part)
		for _, f := range part {
			if f.marked {
				trips = append(trips, f.entry.Trip)
			}
		}
	}
	asking, cancel := context.WithTimeout(s.work, redisTimeout)
	defer cancel()
	// An acknowledgement that fails is made up for by the tombstone, when it is applied.
	_, err := s.deps.Index.Ack(asking, sh.partition, token, trips)
	s.redis.report(s.work, sh.asker(askAck), err)
}

// mostInVolley is how many retries may be fired and not yet marked: a thousandth of those that wait, within bounds.
func (s *Service) mostInVolley() int {
	waiting := int64(0)
	for _, sh := range s.owned() {
		waiting += sh.waiting.Load()
	}
	return max(s.cfg.Inflight, int(min(waiting/1000, largestVolley)))
}

// volley produces, then marks.
func (s *Service) volley(flights []*flight) {
	produced := s.step(flights, s.producer, func(f *flight) *kgo.Record {
		f.record = s.delivery(f)
		return f.record
	}, func(f *flight, _ *kgo.Record) { f.written = true })
	s.book(flights)
	fired := int64(0)
	for _, f := range s.mark(produced) {
		if f.marked = true; f.written {
			fired++
		}
	}
	s.deps.Metrics.RetriesFired.Add(s.work, fired)
}

// delivery is the record that fires a retry; nil where there is only something to mark.
func (s *Service) delivery(f *flight) *kgo.Record {
	if f.value == nil || f.entry.Trip.IsCommand() {
		return nil
	}
	value, trace, err := wire.DeliveryOfRetry(f.value)
	if err != nil {
		return nil // never: it has been decoded on its way into the index
	}
	record := &kgo.Record{Topic: s.deps.Kafka.Topics.Deliveries, Key: []byte(f.entry.Trip.Delivery.String()), Value: value}
	telemetry.SetRecordTrace(record, trace)
	return record
}

// mark writes the tombstones.
func (s *Service) mark(flights []*flight) []*flight {
	return s.step(flights, s.marker, func(f *flight) *kgo.Record {
		return &kgo.Record{Topic: s.deps.Kafka.Topics.Retries, Partition: f.shard.partition, Key: []byte(f.entry.Trip.String())}
	}, func(f *flight, tombstone *kgo.Record) { f.shard.fired(f.entry.Trip, tombstone.Offset) })
}

// book says where the deliveries are that have been written. One whose acknowledgement was lost counts as not written.
func (s *Service) book(flights []*flight) {
	now := time.Now()
	for _, f := range flights {
		if f.written {
			f.shard.pace.book(f.entry, f.record.Partition, f.record.Offset, now)
		} else {
			f.shard.pace.drop(f.entry)
		}
	}
	s.path.began()
}

// step produces one record of each flight and waits for the acknowledgements. It returns the flights that got theirs;
// a flight without a record passes.
func (s *Service) step(flights []*flight, client *kgo.Client, record func(*flight) *kgo.Record, done func(*flight, *kgo.Record)) []*flight {
	errs := make([]error, len(flights))
	var acks sync.WaitGroup
	for i, f := range flights {
		r := record(f)
		if r == nil {
			continue
		}
		acks.Add(1)
		client.Produce(s.work, r, func(r *kgo.Record, err error) {
			defer acks.Done()
			if errs[i] = err; err == nil {
				done(f, r)
			}
		})
	}
	acks.Wait()
	passed := flights[:0:0]
	var failed error
	for i, f := range flights {
		if errs[i] == nil {
			passed = append(passed, f)
			continue
		}
		failed = fmt.Errorf("produce: %w", errs[i])
		f.shard.release(f.entry.Trip)
	}
	s.kafka.report(s.work, askProduce, failed)
	return passed
}
