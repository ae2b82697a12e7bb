package recorder

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
)

const (
	lagInterval = 15 * time.Second
	// revokeTimeout bounds how long a rebalance waits for what has been taken. Nothing depends on it: what is written after a
	// partition has gone changes nothing that its new owner writes too.
	revokeTimeout = 10 * time.Second
	// After a poll that brought few records the next one comes a breath later: nobody waits for the audit at once, and every
	// poll is a fetch, which costs the broker as much as a hundred records.
	few    = 500
	breath = 50 * time.Millisecond
)

var groupLabel = telemetry.Label("group", "recorder")

// session is one life of the Kafka client: from joining the group until the service stops or the database turns out to have
// lost commits.
//
// One goroutine takes batches, another writes them, one after the other and none left out: a position in the database
// therefore says that everything before it is written, whoever read it.
type session struct {
	*Service
	cl *kgo.Client
	// work outlives the stop signal by the drain timeout.
	work context.Context
	// opened is closed when cl is set: the group calls back before that.
	opened chan struct{}
	// ended is closed when nothing more will be written.
	ended chan struct{}

	waiting waiting         // of the taker
	paused  bool            // deliveries are not read: so many wait; of the taker
	unread  run.Throttle    // of the log, of the taker
	tenants map[string]bool // that are known to exist; of the writer

	mu sync.Mutex
	// next is where the database will be when everything that was taken is written, done where it is.
	next, done map[store.TopicPartition]int64
	// taken counts the batches begun, written those written; moved is closed when written changes.
	taken, written int
	moved          chan struct{}
	readings       map[int32]reading // of the attempts topic
	// fares are what is remembered of subscriptions, by partition of the attempts topic and in step with what is written. The
	// writer alone changes what is in them.
	fares map[int32]map[subscription]*fare
}

// session consumes until ctx ends (nil), or until what it has in memory no longer continues what is in the database.
func (s *Service) session(ctx context.Context) error {
	work, stopWork := run.Outlive(ctx, s.cfg.DrainTimeout)
	defer stopWork()
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	ss := &session{
		Service: s, work: work, opened: make(chan struct{}), ended: make(chan struct{}), moved: make(chan struct{}),
		next: map[store.TopicPartition]int64{}, done: map[store.TopicPartition]int64{}, fares: map[int32]map[subscription]*fare{},
		readings: map[int32]reading{}, tenants: map[string]bool{webhook.DefaultTenant: true},
	}
	cl, err := s.deps.Kafka.Client(ss.options()...)
	if err != nil {
		return err
	}
	ss.cl = cl
	close(ss.opened)
	batches := make(chan *batch)
	var helpers sync.WaitGroup
	helpers.Go(func() { s.deps.Kafka.Watch(running, cl, s.kafka.Set) })
	helpers.Go(func() { ss.watch(running, stop) })
	helpers.Go(func() { ss.take(running, batches) })
	err = ss.write(batches)
	close(ss.ended)
	stop(err)
	helpers.Wait()
	cl.Close()
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(running)
}

func (ss *session) options() []kgo.Opt {
	options := append(ss.deps.Kafka.Group("recorder", ss.topics()...), ss.deps.Kafka.Producer()...)
	return append(options,
		kgo.FetchMaxBytes(16<<20),
		// A little of each: the rows of different topics are written side by side, and a batch of one topic has nothing beside it.
		kgo.FetchMaxPartitionBytes(128<<10),
		kgo.AdjustFetchOffsetsFn(ss.assign),
		kgo.OnPartitionsRevoked(func(ctx context.Context, _ *kgo.Client, gone map[string][]int32) {
			ss.settle(ctx)
			ss.forget(gone)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) { ss.forget(gone) }),
	)
}

// assign starts partitions where the database stands, and those it does not know at their beginning. It waits for the database
// until the group takes the partitions away again.
func (ss *session) assign(ctx context.Context, partitions map[string]map[int32]kgo.Offset) (map[string]map[int32]kgo.Offset, error) {
	var stored map[store.TopicPartition]int64
	if err := ss.persist(ctx, "read positions", func(ctx context.Context) (err error) {
		if stored, err = ss.deps.Store.Offsets(ctx, ss.topics()...); err != nil {
			return err
		}
		return ss.recall(ctx, slices.Collect(maps.Keys(partitions[ss.deps.Kafka.Topics.Attempts])))
	}); err != nil {
		return nil, err
	}
	<-ss.opened
	// Without an answer the attempts count as read: deliveries then wait by the clock.
	ends, _ := kadm.NewClient(ss.cl).ListEndOffsets(ctx, ss.deps.Kafka.Topics.Attempts)
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for name, offsets := range partitions {
		for p := range offsets {
			place := store.TopicPartition{Topic: name, Partition: p}
			at, known := stored[place]
			ss.done[place] = at
			if end, ok := ends.Lookup(name, p); ok {
				ss.readings[p] = reading{behind: end.Offset > at}
			}
			if !known {
				delete(ss.next, place)
				offsets[p] = kgo.NewOffset().AtStart()
				continue
			}
			ss.next[place] = at
			offsets[p] = kgo.NewOffset().At(at)
		}
	}
	return partitions, nil
}

// settle waits until everything that has been taken so far is written.
func (ss *session) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, revokeTimeout)
	defer cancel()
	ss.mu.Lock()
	taken := ss.taken
	ss.mu.Unlock()
	for {
		ss.mu.Lock()
		written, moved := ss.written, ss.moved
		ss.mu.Unlock()
		if written >= taken {
			return
		}
		select {
		case <-moved:
		case <-ss.ended:
			return
		case <-ctx.Done():
			return
		}
	}
}

func (ss *session) forget(gone map[string][]int32) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for name, partitions := range gone {
		for _, p := range partitions {
			delete(ss.done, store.TopicPartition{Topic: name, Partition: p})
			if name == ss.deps.Kafka.Topics.Attempts {
				delete(ss.readings, p)
			}
		}
	}
}

// take reads batches until ctx ends. The last one may be cut short by that; it is written all the same.
func (ss *session) take(ctx context.Context, batches chan<- *batch) {
	defer close(batches)
	var before room
	for ctx.Err() == nil {
		b := newBatch(before)
		ss.fill(ctx, b)
		if b.records == 0 {
			continue
		}
		ss.chain(b)
		before = b.room()
		select {
		case batches <- b:
		case <-ss.ended:
			return
		}
	}
}

// fill reads records into a batch until it is full, or has waited for more for as long as the linger, or ctx ends. Then the last
// batch takes in what still waits.
func (ss *session) fill(ctx context.Context, b *batch) {
	var lingered time.Time
	for ctx.Err() == nil {
		now := time.Now()
		ss.release(b, now, false)
		if b.records > 0 && lingered.IsZero() {
			lingered = now.Add(ss.cfg.Linger)
		}
		if b.records >= ss.cfg.Batch || b.bytes >= maxBytes || !lingered.IsZero() && !now.Before(lingered) {
			return
		}
		until := ss.waiting.due(now)
		if !lingered.IsZero() && (until.IsZero() || lingered.Before(until)) {
			until = lingered
		}
		ss.poll(ctx, b, until)
	}
	ss.release(b, time.Now(), true)
}

// poll adds what there is to a batch. It waits for the first record until a moment, if one is given.
func (ss *session) poll(ctx context.Context, b *batch, until time.Time) {
	switch deliveries := ss.deps.Kafka.Topics.Deliveries; {
	case !ss.paused && ss.waiting.crowded():
		ss.paused = true
		ss.cl.PauseFetchTopics(deliveries)
	case ss.paused && ss.waiting.roomy():
		ss.paused = false
		ss.cl.ResumeFetchTopics(deliveries)
	}
	polling, cancel := context.WithCancel(ctx)
	if !until.IsZero() {
		polling, cancel = context.WithDeadline(ctx, until)
	}
	defer cancel()
	fetches := ss.cl.PollRecords(polling, ss.cfg.Batch-b.records)
	fetches.EachError(func(name string, partition int32, err error) {
		if polling.Err() == nil && ss.unread.Allow() {
			ss.deps.Log.WarnContext(ctx, "read records", "topic", name, "partition", partition, "error", err)
		}
	})
	// Deliveries first: an attempt among the rest may be of one of them.
	for _, deliveries := range []bool{true, false} {
		fetches.EachRecord(func(r *kgo.Record) {
			if (r.Topic == ss.deps.Kafka.Topics.Deliveries) == deliveries {
				b.add(r, ss.deps.Kafka.Topics, &ss.waiting)
			}
		})
	}
	if b.records > 0 {
		ss.begin(b)
	}
	ss.look(fetches)
	if n := fetches.NumRecords(); n > 0 && n < few {
		run.Pause(ctx, breath)
	}
}

// reading is how far a partition of the attempts topic has been read.
type reading struct {
	behind bool
	at     time.Time // of the last record
}

// look finds out how far the attempts have been read.
func (ss *session) look(fetches kgo.Fetches) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if p.Topic == ss.deps.Kafka.Topics.Attempts && len(p.Records) > 0 {
			last := p.Records[len(p.Records)-1]
			ss.readings[p.Partition] = reading{behind: last.Offset+1 < p.HighWatermark, at: last.Timestamp}
		}
	})
	ss.waiting.behind = false
	for _, r := range ss.readings {
		if r.behind && (!ss.waiting.behind || r.at.Before(ss.waiting.horizon)) {
			ss.waiting.behind, ss.waiting.horizon = true, r.at
		}
	}
}

// release adds the deliveries that have waited long enough, or all of them.
func (ss *session) release(b *batch, now time.Time, all bool) {
	for all || b.records < ss.cfg.Batch {
		row, ok := ss.waiting.next(now, all)
		if !ok {
			return
		}
		ss.begin(b)
		b.addWaited(row)
	}
}

// begin counts the batch once.
func (ss *session) begin(b *batch) {
	if b.number > 0 {
		return
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.taken++
	b.number = ss.taken
}

// chain says where the batch continues what was taken before it.
func (ss *session) chain(b *batch) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for place, offset := range b.Offsets {
		if from, known := ss.next[place]; known {
			b.From[place] = from
			offset = max(offset, from)
		}
		ss.next[place] = offset
	}
}

// wrote notes that a batch is in the database.
func (ss *session) wrote(b *batch) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for place, offset := range b.Offsets {
		if at, mine := ss.done[place]; mine {
			ss.done[place] = max(at, offset)
		}
	}
	ss.written = b.number
	close(ss.moved)
	ss.moved = make(chan struct{})
}

// watch says how far the database is behind, until ctx ends. It ends the session where the database has lost commits: a batch
// would find out too, but only where there is one.
func (ss *session) watch(ctx context.Context, fail context.CancelCauseFunc) {
	adm := kadm.NewClient(ss.cl)
	ticker := time.NewTicker(lagInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		asked, cancel := context.WithTimeout(ctx, lagInterval)
		if place, lost := ss.lost(asked); lost {
			fail(fmt.Errorf("%w: %s/%d", store.ErrGap, place.Topic, place.Partition))
		}
		if ends, err := adm.ListEndOffsets(asked, ss.topics()...); err == nil {
			ss.deps.Metrics.ConsumerLag.Record(ctx, ss.lag(ends), groupLabel)
		}
		cancel()
	}
}

// lost finds a partition in which the database has fallen behind what was written.
func (ss *session) lost(ctx context.Context) (store.TopicPartition, bool) {
	ss.mu.Lock()
	done := maps.Clone(ss.done)
	ss.mu.Unlock()
	stored, err := ss.deps.Store.Offsets(ctx, ss.topics()...)
	if err != nil {
		return store.TopicPartition{}, false // the database is away, which is said elsewhere
	}
	for place, at := range done {
		if stored[place] < at {
			return place, true
		}
	}
	return store.TopicPartition{}, false
}

// lag is how many records of this member's partitions are not written.
func (ss *session) lag(ends kadm.ListedOffsets) int64 {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	var lag int64
	for place, at := range ss.done {
		if end, ok := ends.Lookup(place.Topic, place.Partition); ok && end.Err == nil {
			lag += max(0, end.Offset-at)
		}
	}
	return lag
}
