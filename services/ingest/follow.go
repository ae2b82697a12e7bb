package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/callback"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/source"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

const (
	// followGroup shares the partitions of callbacks, and of the outcomes, among the processes.
	followGroup = "callbacks"
	// look is how often what only time changes is looked at.
	lookInterval   = time.Minute
	commitInterval = time.Second
	// actGroups bounds how many connections are acted on before their records are read back.
	actGroups = 500
	// keepEnds is how long an end is kept that nobody asks for; it is longer than any profile's callback may take.
	keepEnds = 31 * 24 * time.Hour
)

// unmadeFollowUp counts calls of which not everything could be made that their rules ask for.
var unmadeFollowUp = telemetry.Labels("topic", "callbacks", "reason", string(source.MappingFailed))

var unreadableCallback = telemetry.Labels("topic", "callbacks", "reason", "unreadable")

// follow keeps account of what is called back, and releases what follows, until ctx ends. While it cannot, callbacks get a 503 or
// their follow-ups wait; events and sources are not held up.
func (s *Service) follow(ctx context.Context) {
	names := s.deps.Kafka.Topics
	ignore := func(error) {}
	if s.deps.Kafka.WaitTopics(ctx, s.deps.Log, ignore, names.Callbacks, names.Attempts, names.Events) != nil {
		return
	}
	select {
	case <-s.deps.Snapshot.Ready():
	case <-ctx.Done():
		return
	}
	run.Sessions(ctx, s.deps.Log, ignore, s.followSession)
}

// follower is one life of the clients.
//
// Three goroutines: one reads all of callbacks into the book; one reads the outcomes of the partitions that the group gave this
// process and writes down which deliveries have ended; one acts on the connections in the partitions of callbacks that are its own.
// It reads back what it has written before it acts on a connection again, so that it never decides on what it has changed already.
type follower struct {
	*Service
	ledger *ledger
	member *kgo.Client

	// acting has room for who decides and does something, or gives partitions up: never both at once, or the next owner would decide
	// the same before it can read what was done.
	acting chan struct{}
	// unmade is how many calls of the present act could not be followed as their rules ask.
	unmade int64

	mu    sync.Mutex
	owned map[int32]bool // false until the book has all that the owner before has written
	came  chan struct{}  // something has come
}

func (s *Service) followSession(ctx context.Context) error {
	l, err := s.openLedger(ctx)
	if err != nil {
		return err
	}
	defer l.client.Close()
	f := &follower{Service: s, ledger: l, owned: map[int32]bool{}, came: make(chan struct{}, 1), acting: make(chan struct{}, 1)}
	running, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var all sync.WaitGroup
	begin := func(work func(context.Context) error) {
		all.Go(func() {
			if err := work(running); err != nil && running.Err() == nil {
				fail(err)
			}
		})
	}
	begin(func(ctx context.Context) error { return l.read(ctx, s) })
	s.ledger.Store(l)
	defer s.ledger.Store(nil)
	if err := f.join(); err != nil {
		fail(err)
	} else {
		begin(f.hear)
		begin(f.work)
	}
	<-running.Done()
	all.Wait()
	if f.member != nil {
		f.member.Close()
	}
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(running)
}

func (f *follower) join() (err error) {
	topics := f.deps.Kafka.Topics
	f.member, err = f.deps.Kafka.Client(append(append(f.deps.Kafka.Group(followGroup, topics.Attempts, topics.Callbacks), f.deps.Kafka.Producer()...),
		kgo.RecordDeliveryTimeout(ackTimeout),
		kgo.OnPartitionsAssigned(func(_ context.Context, cl *kgo.Client, came map[string][]int32) {
			// Owning a partition of callbacks is the right to act on it; its records come through the ledger.
			cl.PauseFetchTopics(topics.Callbacks)
			f.own(came[topics.Callbacks], true)
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) {
			f.acting <- struct{}{}
			defer func() { <-f.acting }()
			f.own(gone[topics.Callbacks], false)
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, gone map[string][]int32) { f.own(gone[topics.Callbacks], false) }),
	)...)
	return err
}

func (f *follower) own(partitions []int32, mine bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range partitions {
		if mine {
			f.owned[p] = false
		} else {
			delete(f.owned, p)
		}
	}
	select {
	case f.came <- struct{}{}:
	default:
	}
}

func (f *follower) mine(partition int32) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.owned[partition]
}

// settle waits until the book has all that was there when partitions came, and takes them over.
func (f *follower) settle(ctx context.Context) error {
	f.mu.Lock()
	var fresh []int32
	for p, settled := range f.owned {
		if !settled {
			fresh = append(fresh, p)
		}
	}
	f.mu.Unlock()
	if len(fresh) == 0 {
		return nil
	}
	ends, err := f.ledger.ends(ctx)
	if err != nil {
		return err
	}
	if err := f.ledger.await(ctx, ends); err != nil {
		return err
	}
	f.mu.Lock()
	for _, p := range fresh {
		if _, still := f.owned[p]; still {
			f.owned[p] = true
		}
	}
	f.mu.Unlock()
	f.ledger.book.Touch(f.mine)
	return nil
}

// hear writes down the ends of deliveries that somebody may wait for, and commits behind them.
func (f *follower) hear(ctx context.Context) error {
	last := time.Now()
	for {
		fetches := f.member.PollRecords(ctx, 5000)
		if err := ctx.Err(); err != nil {
			return err
		}
		var ends []*kgo.Record
		fetches.EachRecord(func(r *kgo.Record) {
			if end := f.endOf(r); end != nil {
				ends = append(ends, end)
			}
		})
		if err := f.member.ProduceSync(context.WithoutCancel(ctx), ends...).FirstErr(); err != nil {
			return fmt.Errorf("write ends of deliveries: %w", err)
		}
		if fetches.NumRecords() > 0 || time.Since(last) >= commitInterval {
			last = time.Now()
			if err := f.member.CommitUncommittedOffsets(ctx); err != nil && ctx.Err() == nil {
				// The same offsets are committed with the next ones; until then they may be read again.
				f.deps.Log.WarnContext(ctx, "commit outcomes", "error", err)
			}
		}
	}
}

func (f *follower) endOf(r *kgo.Record) *kgo.Record {
	a, err := wire.DecodeAttempt(r.Value)
	if err != nil || a.Outcome.Status == webhook.Pending {
		return nil // what cannot be read is the recorder's to reject
	}
	contract, ok := f.deps.Profiles.Get(a.Profile)
	if !ok || contract.Callback() == nil || !contract.Callback().Concerns(a.EventType) {
		return nil
	}
	return &kgo.Record{Topic: f.deps.Kafka.Topics.Callbacks, Key: []byte(callback.EndedKey(a.DeliveryID)), Value: wire.EncodeEnded(time.Now())}
}

// work acts on what has changed.
func (f *follower) work(ctx context.Context) error {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		news := f.ledger.news()
		if err := f.settle(ctx); err != nil {
			return err
		}
		for again := true; again; {
			var err error
			if again, err = f.actOnSome(ctx); err != nil {
				return err
			}
		}
		select {
		case <-news:
		case <-f.came:
		case <-tick.C:
			if err := f.look(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look takes everything for changed, forgets ends that nobody asked for, and measures.
func (f *follower) look(ctx context.Context) error {
	f.ledger.book.Touch(f.mine)
	sizes := f.ledger.book.Sizes()
	f.deps.Metrics.CallbacksExpected.Record(ctx, int64(sizes.Expectations))
	f.deps.Metrics.FollowUpsWaiting.Record(ctx, int64(sizes.FollowUps))
	var forgotten []*kgo.Record
	for _, key := range f.ledger.book.Forgotten(f.mine, time.Now(), keepEnds) {
		forgotten = append(forgotten, &kgo.Record{Topic: f.deps.Kafka.Topics.Callbacks, Key: []byte(key)})
	}
	return f.member.ProduceSync(context.WithoutCancel(ctx), forgotten...).FirstErr()
}

// actOnSome acts on connections in which something has changed, and reports whether there were any.
func (f *follower) actOnSome(ctx context.Context) (some bool, err error) {
	f.acting <- struct{}{}
	defer func() { <-f.acting }()
	names := f.ledger.book.TakeDirty(f.mine, actGroups)
	if len(names) == 0 {
		return false, nil
	}
	return true, f.act(ctx, names)
}

// act does what is to be done about some connections: events first, then the records that say so, and then it reads those back.
func (f *follower) act(ctx context.Context, names []string) error {
	var events, records []*kgo.Record
	var total callback.Act
	f.unmade = 0
	for _, name := range names {
		act := f.ledger.book.Decide(name, time.Now(), f)
		for i := range act.Events {
			r, err := f.eventRecord(ctx, "follow up", &act.Events[i].Event, act.Events[i].Link)
			if err != nil {
				f.deps.Log.ErrorContext(ctx, "a follow-up cannot be written", "event", act.Events[i].Event.ID, "error", err)
				continue
			}
			events = append(events, r)
		}
		for _, r := range act.Records {
			records = append(records, &kgo.Record{Topic: f.deps.Kafka.Topics.Callbacks, Key: []byte(r.Key), Value: r.Value})
		}
		total.Matched, total.Repeated, total.Released = total.Matched+act.Matched, total.Repeated+act.Repeated, total.Released+act.Released
	}
	outliving := context.WithoutCancel(ctx)
	if err := f.member.ProduceSync(outliving, events...).FirstErr(); err != nil {
		return fmt.Errorf("write follow-ups: %w", err)
	}
	results := f.member.ProduceSync(outliving, records...)
	if err := results.FirstErr(); err != nil {
		return fmt.Errorf("write what was followed: %w", err)
	}
	f.deps.Metrics.FollowUps.Add(ctx, int64(total.Released))
	f.deps.Metrics.Rejected.Add(ctx, f.unmade, unmadeFollowUp)
	f.countCallback(ctx, total.Matched, "accepted", "")
	f.countCallback(ctx, total.Repeated, "repeated", "")
	ends := map[int32]int64{}
	for _, r := range results {
		ends[r.Record.Partition] = max(ends[r.Record.Partition], r.Record.Offset+1)
	}
	return f.ledger.await(ctx, ends)
}

// Follow evaluates the rules of the call's profile.
func (f *follower) Follow(c *webhook.Call) (key string, requested, followUps []source.FollowUp) {
	contract, ok := f.deps.Profiles.Get(c.Profile)
	if !ok || contract.Callback() == nil {
		f.deps.Log.Error("a callback's profile is not loaded", "profile", c.Profile)
		return "", nil, nil
	}
	key, requested, followUps, err := follow(contract.Callback(), c.Body)
	if err != nil {
		f.unmade++
		f.deps.Log.Error("rules of a callback cannot be evaluated", "profile", c.Profile, "subscription", c.SubscriptionID, "error", err)
	}
	return key, requested, followUps
}

func follow(c *profile.Callback, body []byte) (key string, requested, followUps []source.FollowUp, err error) {
	key, first := c.Key(body)
	requested, followUps, second := c.Follow(body)
	return key, requested, followUps, errors.Join(first, second)
}

// Deliveries are those that an event will become.
func (f *follower) Deliveries(e *webhook.Event) (ids []uuid.UUID) {
	matched, _ := f.deps.Snapshot.Match(e)
	for _, sub := range matched {
		ids = append(ids, webhook.DeliveryID(e.Tenant, e.ID, sub.ID))
	}
	return ids
}
