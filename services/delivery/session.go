package delivery

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/topic"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

const (
	pollRecords     = 200
	measureInterval = 250 * time.Millisecond
	outcomeLinger   = 25 * time.Millisecond
	// With plenty to do, records may gather before the next poll: a fetch for every few of them costs the broker and this
	// process more than the records. Plenty is what is being sent at such a rate, not what waits for slow endpoints: then a
	// healthy one would wait for each of these pauses.
	plenty     = 256
	busyRate   = 1000 // a second
	gatherTime = 5 * time.Millisecond
)

// session is one life of the Kafka clients: from joining the group until the service stops or the producer cannot go on.
type session struct {
	*Service
	topics   topic.Names
	consumer *kgo.Client
	producer *kgo.Client
	lanes    *lanes
	// work outlives the stop signal by the drain timeout: attempts and outcomes under way use it.
	work context.Context
	// lasting has no end: a record that was given to the producer must not be given up.
	lasting context.Context
	// fail ends the session: the producer cannot go on.
	fail context.CancelCauseFunc
	// room wakes the polling goroutine when a full partition has room again.
	room chan struct{}
	// finished wakes the committing goroutine.
	finished chan struct{}

	// hands are goroutines that wait for an item to run, until over is closed.
	hands chan *item
	over  chan struct{}

	// total is how many partitions the topic has.
	total int

	mu         sync.Mutex
	partitions map[int32]*partition

	// committing makes commits one after another: an older one must not overwrite a newer one.
	committing sync.Mutex
}

// item is a delivery record on its way through the worker.
type item struct {
	part     *partition
	offset   int64
	size     int
	delivery *webhook.Delivery
	lane     *lane
	// try is the number of the request within the attempt, from 1.
	try      uint32
	deferred bool
	// row is how many others of its lane had its slot just before it.
	row int
}

// session consumes until ctx ends (nil) or the clients cannot go on (the error).
func (s *Service) session(ctx context.Context) error {
	work, stopWork := run.Outlive(ctx, s.cfg.DrainTimeout)
	defer stopWork()
	running, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	ss := &session{
		Service: s, topics: s.deps.Kafka.Topics, work: work, lasting: context.WithoutCancel(ctx), fail: fail,
		room: make(chan struct{}, 1), finished: make(chan struct{}, 1), hands: make(chan *item), over: make(chan struct{}), partitions: map[int32]*partition{},
	}
	defer close(ss.over)
	ss.lanes = newLanes(s.cfg, s.deps.Snapshot, ss.begin)
	if err := ss.open(ctx); err != nil {
		return err
	}
	s.kafka.Set(nil)
	var helpers sync.WaitGroup
	helpers.Go(func() { ss.commits(running) })
	helpers.Go(func() { ss.measure(running) })
	helpers.Go(func() { s.deps.Kafka.Watch(running, ss.producer, s.kafka.Set) })
	ss.poll(running)
	helpers.Wait()
	ss.drain()
	ss.consumer.CloseAllowingRebalance()
	ss.producer.Close()
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(running)
}

func (ss *session) open(ctx context.Context) error {
	// No receiver waits for an outcome, so outcomes may wait for each other: a request for each of them costs the broker
	// more than all else it does for a delivery. Not for long: where a worker is killed, what is waiting is sent again.
	//
	// How many may wait for Kafka is bounded by the windows. The client's own bound would hold the poll up, and with it the
	// deliveries of healthy endpoints, when many are put back at once.
	producer, err := ss.deps.Kafka.Client(append(ss.deps.Kafka.Producer(), kgo.ProducerLinger(outcomeLinger), kgo.MaxBufferedRecords(math.MaxInt32))...)
	if err != nil {
		return err
	}
	ss.producer = producer
	if ss.total, err = kafka.Partitions(ctx, producer, ss.topics.Deliveries); err != nil {
		producer.Close()
		return err
	}
	ss.consumer, err = ss.deps.Kafka.Client(append(ss.deps.Kafka.Group("delivery", ss.topics.Deliveries),
		kgo.BlockRebalanceOnPoll(),
		// No more than a window: what has been fetched of a partition that is then paused is thrown away. And little, as
		// batches are compressed: nothing new is fetched until all of it has been taken, the backlog of a slow endpoint before
		// a healthy one's delivery.
		kgo.FetchMaxPartitionBytes(64<<10),
		kafka.OnFetched(ss.assign),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
			ss.release(gone[ss.topics.Deliveries], revokeTimeout)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
			ss.forget(gone[ss.topics.Deliveries])
		}),
	)...)
	if err != nil {
		producer.Close()
		return err
	}
	return nil
}

// poll reads and takes records until ctx ends.
func (ss *session) poll(ctx context.Context) {
	for ctx.Err() == nil {
		if !ss.makeRoom(ctx) {
			continue
		}
		fetches := ss.fetch(ctx)
		fetches.EachError(func(_ string, partition int32, err error) {
			if !errors.Is(err, context.Canceled) {
				ss.deps.Log.WarnContext(ctx, "read deliveries", "partition", partition, "error", err)
			}
		})
		now := time.Now()
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if part := ss.partition(p.Partition); part != nil {
				part.seen(p.HighWatermark)
				for _, r := range p.Records {
					ss.take(part, r, now)
				}
			}
		})
		ss.consumer.AllowRebalance()
		if ss.busy() {
			run.Pause(ctx, gatherTime)
		}
	}
}

// busy reports whether this worker has plenty to do.
func (ss *session) busy() bool {
	held, rate := 0, 0.0
	for _, p := range ss.owned() {
		records, perSecond := p.load()
		held, rate = held+records, rate+perSecond
	}
	return held >= plenty && rate >= busyRate
}

// fetch waits for records, or until a paused partition has room: it must not stay paused because the others are quiet.
func (ss *session) fetch(ctx context.Context) kgo.Fetches {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	polled := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-ss.room:
			cancel()
		case <-polled:
		}
	})
	fetches := ss.consumer.PollRecords(ctx, pollRecords)
	close(polled)
	watching.Wait()
	return fetches
}

// makeRoom pauses the partitions whose window is full and resumes the others. Where all are full it waits for one to have
// room instead, and reports false: a pause would throw away what has been fetched ahead.
func (ss *session) makeRoom(ctx context.Context) bool {
	var full, free []int32
	for number, p := range ss.owned() {
		if p.full() {
			full = append(full, number)
		} else {
			free = append(free, number)
		}
	}
	if len(free) == 0 && len(full) > 0 {
		select {
		case <-ss.room:
		case <-ctx.Done():
		case <-time.After(measureInterval):
		}
		return false
	}
	if paused := ss.consumer.PauseFetchPartitions(nil)[ss.topics.Deliveries]; len(paused) > 0 {
		ss.consumer.ResumeFetchPartitions(map[string][]int32{ss.topics.Deliveries: free})
	}
	if len(full) > 0 {
		ss.consumer.PauseFetchPartitions(map[string][]int32{ss.topics.Deliveries: full})
	}
	return true
}

func (ss *session) owned() map[int32]*partition {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return maps.Clone(ss.partitions)
}

func (ss *session) partition(number int32) *partition {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.partitions[number]
}

// take puts one record to work: queued in its lane, put back, dropped as seen, or rejected as unreadable.
func (ss *session) take(p *partition, r *kgo.Record, now time.Time) {
	if !p.tracker.Begin(r.Offset) {
		return
	}
	it := &item{part: p, offset: r.Offset, size: len(r.Key) + len(r.Value), try: 1}
	p.hold(it.size)
	delivery, err := decode(r.Value)
	if err != nil {
		ss.reject(it, r, err)
		return
	}
	it.delivery = delivery
	if !p.recent.add(delivery.Key(), now) {
		ss.deps.Metrics.Duplicates.Add(ss.work, 1)
		ss.finish(it)
		return
	}
	if back, queued := ss.lanes.offer(it, now); !queued {
		ss.putBack(back, r.Value)
	}
}

// decode takes a panic for what it is here: a record that cannot be read.
func decode(value []byte) (d *webhook.Delivery, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("decode delivery: panic: %v", cause)
		}
	}()
	return wire.DecodeDelivery(value)
}

// begin has an item that has got a slot run by a goroutine that waits for work, whose stack is large enough already, or
// by a new one. It does not block.
func (ss *session) begin(it *item) {
	select {
	case ss.hands <- it:
	default:
		go ss.hand(it)
	}
}

func (ss *session) hand(it *item) {
	for {
		for it != nil {
			it = ss.run(it)
		}
		select {
		case it = <-ss.hands:
		case <-ss.over:
			return
		}
	}
}

// beginWork reports whether work on an item may begin, and has the next records read where that makes room.
func (ss *session) beginWork(it *item) bool {
	begun, room := it.part.beginWork()
	if room {
		ss.hasRoom()
	}
	return begun
}

// finish ends the item's stay in this worker.
func (ss *session) finish(it *item) {
	if it.part.finish(it.offset, it.size, it.deferred) {
		ss.hasRoom()
	}
	ss.hasFinished()
}

// hasRoom has the polling goroutine look again which partitions are to be paused.
func (ss *session) hasRoom() {
	select {
	case ss.room <- struct{}{}:
	default:
	}
}

// measure follows how fast partitions and endpoints are, and puts back what waits too long, until ctx ends.
func (ss *session) measure(ctx context.Context) {
	ticker := time.NewTicker(measureInterval)
	defer ticker.Stop()
	inflight := int64(0)
	defer func() { ss.deps.Metrics.Inflight.Add(ctx, -inflight) }()
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			var lag int64
			owned := ss.owned()
			for _, p := range owned {
				p.measure(now.Sub(last), len(owned))
				p.recent.limit(ss.cfg.RememberedTrips / len(owned))
				lag += p.lag()
			}
			ss.deps.Metrics.ConsumerLag.Record(ctx, lag, groupLabel)
			under := int64(ss.lanes.underway())
			ss.deps.Metrics.Inflight.Add(ctx, under-inflight)
			inflight = under
			for _, back := range ss.lanes.sweep(now) {
				ss.putBack(back, nil)
			}
			last = now
		}
	}
}
