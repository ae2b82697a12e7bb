package scheduler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/run"
)

const (
	// handOver is how long a partition that goes to another scheduler may take to finish what it has in flight.
	handOver = 5 * time.Second
	// A lost position is looked for again after retryFirst, then after twice as long, up to retryMost.
	retryFirst = 100 * time.Millisecond
	retryMost  = 5 * time.Second
	// pollMost is how many records are taken at once, of several partitions where several have some.
	pollMost = 4 * retryqueue.MaxOps
	// breath is how long nothing is polled after a poll that brought little: what is put back, and the tombstones of what is firing, come in
	// trickles, each a fetch and a call of Redis otherwise. A retry that is due sooner than it is read is late by that.
	breath = 100 * time.Millisecond
	// quiet is how long a gated partition may hear nothing before its log is asked whether anything is left.
	quiet = time.Second
)

// consume applies the retries topic to the index until ctx ends. Only this goroutine seeks, and only between polls; what a poll
// brought is applied for all partitions side by side.
func (s *Service) consume(ctx context.Context) {
	backoff := retryFirst
	for ctx.Err() == nil {
		fetches := s.poll(ctx, backoff)
		if ctx.Err() != nil {
			break
		}
		fetches.EachError(func(_ string, partition int32, err error) { s.fetchFailed(ctx, partition, err) })
		var taking sync.WaitGroup
		fetches.EachPartition(func(p kgo.FetchTopicPartition) { taking.Go(func() { s.take(ctx, p) }) })
		taking.Wait()
		s.passGaps(ctx)
		if s.findLost(ctx) {
			backoff = min(2*backoff, retryMost)
		} else {
			backoff = retryFirst
		}
		s.group.AllowRebalance()
		if n := fetches.NumRecords(); n > 0 && n < retryqueue.MaxOps {
			run.Pause(ctx, breath)
		}
	}
	s.group.AllowRebalance()
}

// poll returns when there are records, when somebody pokes, or when there is something to try again.
func (s *Service) poll(ctx context.Context, backoff time.Duration) kgo.Fetches {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if wait := s.patience(backoff); wait > 0 {
		defer time.AfterFunc(wait, cancel).Stop()
	}
	s.mu.Lock()
	s.cancelPoll = cancel
	if s.poked {
		cancel()
	}
	s.mu.Unlock()
	fetches := s.group.PollRecords(ctx, pollMost)
	s.mu.Lock()
	s.poked = false
	s.cancelPoll = nil
	s.mu.Unlock()
	return fetches
}

// patience is how long a poll may take; 0 is for ever.
func (s *Service) patience(backoff time.Duration) time.Duration {
	var wait time.Duration
	for _, sh := range s.owned() {
		p := sh.at()
		switch {
		case sh.lost():
			return backoff
		case p.following && !p.open():
			wait = quiet
		}
	}
	return wait
}

// poke ends the current poll, or the next one if there is none.
func (s *Service) poke() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.poked = true
	if s.cancelPoll != nil {
		s.cancelPoll()
	}
}

func (s *Service) shard(partition int32) *shard {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shards[partition]
}

// assigned starts the shards of partitions that have come. They are paused until their positions have been found.
func (s *Service) assigned(ctx context.Context, group *kgo.Client, partitions map[string][]int32) {
	for topic, list := range partitions {
		group.PauseFetchPartitions(map[string][]int32{topic: list})
		for _, partition := range list {
			firing, stop := context.WithCancel(ctx)
			sh := newShard(partition, stop)
			s.mu.Lock()
			s.shards[partition] = sh
			s.mu.Unlock()
			s.keepBusy(sh, func() { s.fire(firing, sh) })
		}
	}
}

// joined is asked by the client where to begin. It never begins where the group's commits say: what it answers is only a place
// for the paused partition to stand until the consuming goroutine has asked the index.
func (s *Service) joined(_ context.Context, offsets map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	for _, partitions := range offsets {
		for partition := range partitions {
			partitions[partition] = kgo.NewOffset().At(0)
			if sh := s.shard(partition); sh != nil {
				sh.join()
			}
		}
	}
	s.poke()
	return offsets, nil
}

// revoked ends the shards of partitions that have gone. What is in flight may finish within a bound; what does not is
// finished without the shard, and a new owner may fire it again.
func (s *Service) revoked(ctx context.Context, partitions map[string][]int32, bound time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	var gone []*shard
	for _, list := range partitions {
		for _, partition := range list {
			if sh := s.shard(partition); sh != nil {
				sh.leave()
				sh.stop()
				gone = append(gone, sh)
			}
		}
	}
	for _, sh := range gone {
		waitFor(ctx, &sh.busy)
		s.mu.Lock()
		if s.shards[sh.partition] == sh {
			delete(s.shards, sh.partition)
		}
		s.mu.Unlock()
		s.cache.forgetPartition(sh.partition)
		s.forgetMetrics(sh)
	}
}

func (s *Service) forgetMetrics(sh *shard) {
	ctx := context.WithoutCancel(s.work)
	s.deps.Metrics.RetriesWaiting.Record(ctx, 0, sh.label)
	s.deps.Metrics.RetriesOverdue.Record(ctx, 0, sh.label)
	s.deps.Metrics.RetriesDue.Record(ctx, 0, sh.label)
	s.deps.Metrics.RebuildRemaining.Record(ctx, 0, sh.label)
	for _, what := range []string{askApply, askClaim, askAck, askAhead} {
		s.redis.report(ctx, sh.asker(what), nil)
	}
}

const (
	askApply = "apply"
	askClaim = "claim"
	askAck   = "ack"
	askAhead = "look ahead"
	askFind  = "find"
	askFetch = "fetch"
	askWatch = "watch"
	askPath  = "path"

	askProduce = "produce"
)

func (s *Service) fetchFailed(ctx context.Context, partition int32, err error) {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, kgo.ErrClientClosed):
	case errors.Is(err, kerr.OffsetOutOfRange):
		if sh := s.shard(partition); sh != nil {
			sh.lose(false)
		}
	default:
		s.kafka.report(ctx, askFetch, fmt.Errorf("consume %s/%d: %w", s.deps.Kafka.Topics.Retries, partition, err))
	}
}

// take applies the polled records of one partition.
func (s *Service) take(ctx context.Context, fetched kgo.FetchTopicPartition) {
	sh := s.shard(fetched.Partition)
	if sh == nil || len(fetched.Records) == 0 {
		return
	}
	for records := fetched.Records; len(records) > 0; {
		n := min(len(records), retryqueue.MaxOps)
		if !s.apply(ctx, sh, records[:n]) {
			return // the rest was fetched for a position that is lost
		}
		records = records[n:]
	}
	sh.mu.Lock()
	sh.end = max(sh.end, fetched.HighWatermark)
	sh.mu.Unlock()
}

// apply brings records into the index, all or none, and reports whether the position still holds.
func (s *Service) apply(ctx context.Context, sh *shard, records []*kgo.Record) bool {
	from := sh.at()
	batch, err := s.decode(ctx, sh, from, records)
	if err != nil {
		sh.lose(false)
		s.kafka.report(ctx, askFind, err)
		return false
	}
	if batch.last < from.next {
		return from.following
	}
	if !s.put(ctx, sh, from, batch.last, batch.ops) {
		return false
	}
	for _, record := range batch.soon {
		s.cache.put(sh.partition, record.trip, record.offset, record.value)
	}
	for _, trip := range batch.tombstones {
		s.cache.forget(trip)
	}
	s.opened(ctx, sh, batch.last, batch.earliest)
	return true
}

// put changes the index, if it stands where the shard thinks. If it does not, the shard has lost its position.
func (s *Service) put(ctx context.Context, sh *shard, from position, last int64, ops []retryqueue.Op) bool {
	asking, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	err := s.deps.Index.Apply(asking, sh.partition, from.applied, last, ops)
	var moved *retryqueue.MovedError
	switch {
	case err == nil:
		s.redis.report(ctx, sh.asker(askApply), nil)
		return true
	case errors.As(err, &moved):
		s.log.InfoContext(ctx, "the timer index is elsewhere", "partition", sh.partition, "have", moved.Offset, "want", from.applied)
	default:
		s.redis.report(ctx, sh.asker(askApply), err)
	}
	sh.lose(errors.Is(err, retryqueue.ErrDamaged))
	return false
}

func (s *Service) opened(ctx context.Context, sh *shard, last int64, earliest time.Time) {
	opened, rebuilt := sh.took(last, earliest)
	if opened && rebuilt > 0 {
		s.log.InfoContext(ctx, "the timer index is built again", "partition", sh.partition, "offset", last, "took", rebuilt)
	}
	s.deps.Metrics.RebuildRemaining.Record(ctx, sh.at().remaining(), sh.label)
}

// passGaps opens gates whose last records are gone: compaction and transactions leave offsets without a record, which no
// poll returns.
func (s *Service) passGaps(ctx context.Context) {
	for _, sh := range s.owned() {
		sh.mu.Lock()
		p, silent := sh.position, time.Since(sh.heard) >= quiet
		sh.mu.Unlock()
		if !p.following || p.open() || !silent {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, kafkaTimeout)
		records, next, err := s.reader.fetch(asking, sh.partition, p.next, smallFetch)
		cancel()
		switch {
		case errors.Is(err, kerr.OffsetOutOfRange):
			sh.lose(false)
		case err != nil:
			s.kafka.report(ctx, askFind, err)
		case len(records) == 0 && next > p.next && s.put(ctx, sh, p, next-1, nil):
			s.opened(ctx, sh, next-1, time.Time{})
		}
	}
}

// findLost looks for the positions of shards that have lost theirs, and reports whether any is left.
func (s *Service) findLost(ctx context.Context) bool {
	var lost []*shard
	for _, sh := range s.owned() {
		if sh.lost() {
			lost = append(lost, sh)
			s.group.PauseFetchPartitions(map[string][]int32{s.deps.Kafka.Topics.Retries: {sh.partition}})
		}
	}
	if len(lost) == 0 {
		return false
	}
	extents, err := s.extents(ctx)
	s.kafka.report(ctx, askFind, err)
	if err != nil {
		return true
	}
	plans := map[*shard]plan{}
	for _, sh := range lost {
		if log, ok := extents[sh.partition]; ok {
			if p, ok := s.find(ctx, sh, log); ok {
				plans[sh] = p
			}
		}
	}
	return s.seek(ctx, plans) < len(lost)
}

// find asks the index where it stands, and makes it ready to go on.
func (s *Service) find(ctx context.Context, sh *shard, log extent) (plan, bool) {
	asking, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	p, err := s.plan(asking, sh, log)
	s.redis.report(ctx, sh.asker(askApply), err)
	return p, err == nil
}

// plan decides how the shard goes on, and makes the index ready for it. The index is written to even where nothing
// changes: one that is full or read-only would otherwise look well.
func (s *Service) plan(ctx context.Context, sh *shard, log extent) (plan, error) {
	stored, err := s.deps.Index.Offset(ctx, sh.partition)
	sh.mu.Lock()
	known, damaged := sh.applied, sh.damaged || errors.Is(err, retryqueue.ErrDamaged)
	sh.mu.Unlock()
	if err != nil {
		return plan{}, err
	}
	p := resync(known, stored, log, damaged)
	if p.reset {
		return p, s.deps.Index.Reset(ctx, sh.partition, stored)
	}
	return p, s.deps.Index.Apply(ctx, sh.partition, stored, stored, nil)
}

// seek moves the client to where the shards go on, and reports how many of them it has: it cannot move before it has
// begun with a partition. What it had fetched of them is thrown away.
//
// All go at once, and a partition that already is where it goes is moved away first: to the client that would be nothing,
// and having been paused, the partition would wait for a fetch of the others to run out.
func (s *Service) seek(ctx context.Context, plans map[*shard]plan) int {
	topic := s.deps.Kafka.Topics.Retries
	to, aside, resumed := map[int32]kgo.EpochOffset{}, map[int32]kgo.EpochOffset{}, []int32{}
	at := s.group.CommittedOffsets()[topic]
	for sh, p := range plans {
		now, begun := at[sh.partition]
		if !begun {
			continue
		}
		to[sh.partition] = kgo.EpochOffset{Epoch: -1, Offset: p.next}
		if now.Offset == p.next {
			aside[sh.partition] = kgo.EpochOffset{Epoch: -1, Offset: p.next + 1}
		}
		resumed = append(resumed, sh.partition)
	}
	s.group.SetOffsets(map[string]map[int32]kgo.EpochOffset{topic: aside})
	s.group.ResumeFetchPartitions(map[string][]int32{topic: resumed})
	s.group.SetOffsets(map[string]map[int32]kgo.EpochOffset{topic: to})
	at = s.group.CommittedOffsets()[topic]
	moved := 0
	for sh, p := range plans {
		if now, begun := at[sh.partition]; begun && now.Offset == p.next {
			s.found(ctx, sh, p)
			moved++
		}
	}
	return moved
}

func (s *Service) found(ctx context.Context, sh *shard, p plan) {
	if p.reason != "" {
		s.deps.Metrics.SchedulerRewinds.Add(ctx, 1, rewindLabel(p.reason))
		s.log.WarnContext(ctx, "building the timer index again", "partition", sh.partition, "reason", p.reason, "from", p.next, "to", p.gate)
	}
	sh.found(p)
	s.deps.Metrics.RebuildRemaining.Record(ctx, p.remaining(), sh.label)
}

// extents asks what the log of every partition holds. Partitions whose leader does not answer are missing.
func (s *Service) extents(ctx context.Context) (map[int32]extent, error) {
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	topic := s.deps.Kafka.Topics.Retries
	// The start first: what is deleted between the two questions is then found out by fetching.
	starts, err := s.admin.ListStartOffsets(ctx, topic)
	var ends kadm.ListedOffsets
	if err == nil {
		ends, err = s.admin.ListCommittedOffsets(ctx, topic)
	}
	if err != nil {
		return nil, fmt.Errorf("list offsets of %s: %w", topic, err)
	}
	found := map[int32]extent{}
	starts.Each(func(start kadm.ListedOffset) {
		if end, ok := ends.Lookup(topic, start.Partition); ok && start.Err == nil && end.Err == nil {
			found[start.Partition] = extent{start: start.Offset, end: end.Offset}
		}
	})
	s.path.has(len(found))
	return found, nil
}
