package router

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/topic"
)

const (
	pollRecords    = 1000
	commitInterval = time.Second
	commitTimeout  = 10 * time.Second

	// Deliveries that are not acknowledged yet, of all events together: beyond that producing waits.
	maxBufferedRecords = 20_000
	maxBufferedBytes   = 64 << 20
)

// session is one life of the Kafka clients: from joining the group until the service stops or the producer cannot go on.
//
// One goroutine polls and routes: it sends the deliveries of a whole poll without waiting, then waits once until all are
// acknowledged, and only then moves the positions that are committed. A rebalance takes partitions away only between
// polls, when nothing is under way, or with what is under way forgotten.
type session struct {
	*Service
	topics   topic.Names
	consumer *kgo.Client
	producer *kgo.Client
	at       *positions

	// work outlives the stop signal by the drain timeout, and ends when the producer cannot go on.
	work context.Context
	// fail ends the session.
	fail context.CancelCauseFunc

	// sent are the events whose records are on their way.
	sent   []*passage
	flight flight
	held   held
	// wanted says that a rebalance waits for this member.
	wanted atomic.Bool

	committing sync.Mutex
	unread     run.Throttle // of the log
}

// session consumes until ctx ends (nil) or the clients cannot go on (the error).
func (s *Service) session(ctx context.Context) error {
	outliving, stopWork := run.Outlive(ctx, s.cfg.DrainTimeout)
	defer stopWork()
	work, failWork := context.WithCancelCause(outliving)
	defer failWork(nil)
	running, failRunning := context.WithCancelCause(ctx)
	defer failRunning(nil)
	ss := &session{Service: s, topics: s.deps.Kafka.Topics, at: newPositions(), work: work}
	ss.fail = func(cause error) { failWork(cause); failRunning(cause) }
	if err := ss.open(); err != nil {
		return err
	}
	defer ss.producer.Close()
	var helpers sync.WaitGroup
	helpers.Go(func() { ss.tick(running) })
	helpers.Go(func() { s.deps.Kafka.Watch(running, ss.producer, s.kafka.Set) })
	ss.poll(running)
	helpers.Wait()
	if err := ss.commit(nil); err != nil {
		s.deps.Log.WarnContext(ctx, "commit events at the end", "error", err)
	}
	ss.consumer.CloseAllowingRebalance()
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(running)
}

func (ss *session) open() error {
	producer, err := ss.deps.Kafka.Client(append(ss.deps.Kafka.Producer(),
		kgo.MaxBufferedRecords(maxBufferedRecords), kgo.MaxBufferedBytes(maxBufferedBytes))...)
	if err != nil {
		return err
	}
	ss.producer = producer
	ss.consumer, err = ss.deps.Kafka.Client(append(ss.deps.Kafka.Group("router", ss.topics.Events),
		kgo.BlockRebalanceOnPoll(),
		kgo.FetchMaxBytes(16<<20),
		kafka.OnFetched(ss.assign),
		kgo.OnPartitionsCallbackBlocked(func(context.Context, *kgo.Client) { ss.wanted.Store(true) }),
		kgo.OnPartitionsRevoked(func(ctx context.Context, _ *kgo.Client, gone map[string][]int32) {
			ss.release(ctx, gone[ss.topics.Events])
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
			ss.at.forget(gone[ss.topics.Events])
		}),
	)...)
	if err != nil {
		producer.Close()
		return err
	}
	return nil
}

// assign notes where the group stands in a partition that has come.
func (ss *session) assign(partition int32, at kafka.Point) {
	ss.at.assign(partition, position{offset: at.Offset, cursor: parseCursor(at.Metadata)})
}

// release commits what is done of partitions that go, and forgets them.
func (ss *session) release(ctx context.Context, partitions []int32) {
	if len(partitions) == 0 {
		return
	}
	if err := ss.commit(partitions); err != nil {
		ss.deps.Log.WarnContext(ctx, "commit events on release", "error", err)
	}
	ss.at.forget(partitions)
}

// poll reads and routes until ctx ends. When a rebalance waits, it lets it through with the rest of the records kept:
// the clients would not hand them out again.
func (ss *session) poll(ctx context.Context) {
	var queue []*kgo.Record
	for ctx.Err() == nil {
		if len(queue) == 0 {
			queue = ss.fetch(ctx)
		}
		queue = ss.routeSome(ctx, queue)
		ss.wanted.Store(false)
		ss.consumer.AllowRebalance()
		queue = slices.DeleteFunc(queue, func(r *kgo.Record) bool { return !ss.at.owns(r.Partition) })
	}
}

func (ss *session) fetch(ctx context.Context) []*kgo.Record {
	fetches := ss.consumer.PollRecords(ctx, pollRecords)
	fetches.EachError(func(_ string, partition int32, err error) {
		if ctx.Err() == nil && ss.unread.Allow() {
			ss.deps.Log.WarnContext(ctx, "read events", "partition", partition, "error", err)
		}
	})
	fetches.EachPartition(func(p kgo.FetchTopicPartition) { ss.at.seen(p.Partition, p.HighWatermark) })
	return fetches.Records()
}

// routeSome routes records in their order until ctx ends or a rebalance waits, and returns the rest. What it has begun is
// acknowledged when it returns, or the session has failed.
func (ss *session) routeSome(ctx context.Context, queue []*kgo.Record) (rest []*kgo.Record) {
	for len(queue) > 0 && ctx.Err() == nil && !ss.wanted.Load() {
		if done := ss.route(ctx, queue[0]); !done {
			break
		}
		queue = queue[1:]
	}
	ss.settle()
	return queue
}

// tick commits and measures until ctx ends.
func (ss *session) tick(ctx context.Context) {
	ticker := time.NewTicker(commitInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			ss.deps.Metrics.ConsumerLag.Record(ctx, ss.at.lag(), groupLabel)
			if err := ss.commit(nil); err != nil {
				// The same positions are committed at the next tick.
				ss.deps.Log.WarnContext(ctx, "commit events", "error", err)
			}
		}
	}
}

// commit writes the positions of these partitions, or of all with nil, with the cursors as metadata.
//
// Commits are one after another: an older position must not overwrite a newer one.
func (ss *session) commit(partitions []int32) error {
	ss.committing.Lock()
	defer ss.committing.Unlock()
	positions := ss.at.uncommitted(partitions)
	points := make(map[int32]kafka.Point, len(positions))
	for partition, at := range positions {
		points[partition] = kafka.Point{Offset: at.offset, Metadata: at.cursor.String()}
	}
	// A commit is worth its time even when the service is about to end.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ss.work), commitTimeout)
	defer cancel()
	return kafka.Commit(ctx, ss.consumer, ss.topics.Events, points, func(partition int32, _ kafka.Point) {
		ss.at.committed(partition, positions[partition])
	})
}
