package scheduler

import (
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/retryqueue/indextest"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// world is one partition with everything that can happen to it, one step at a time: the log, the index as its model,
// and owners, of which a second may exist while the first does not know that it has been replaced.
type world struct {
	now    int64 // ms
	log    []logged
	start  int64 // the log begins here
	index  *indextest.Model
	backup *indextest.Model
	owners []*owner
	fired  map[webhook.Trip]int
	trips  int
	// exact is false once something has happened after which a trip may fire twice.
	exact bool
}

type logged struct {
	trip      webhook.Trip
	tombstone bool
	due       int64
	gone      bool // compacted
}

// owner is a scheduler's view of the partition, moved by the code under test.
type owner struct {
	*shard
	buffer  []int64 // offsets that were fetched and not yet applied
	fetched int64   // where the next fetch begins
	flights []*modelFlight
}

type modelFlight struct {
	trip   webhook.Trip
	token  int64
	stages int // produced, marked
}

const modelLease = 30 * time.Second

func newWorld() *world {
	w := &world{now: 1_000_000, index: indextest.NewModel(), fired: map[webhook.Trip]int{}, exact: true}
	w.backup = w.index.Clone()
	w.takeOver()
	return w
}

func (w *world) takeOver() *owner {
	o := &owner{shard: newShard(0, func() {})}
	o.join()
	w.owners = append(w.owners, o)
	return o
}

func (w *world) end() int64 { return int64(len(w.log)) }

func (w *world) find(o *owner) {
	if o.following {
		return
	}
	p := resync(o.applied, w.index.Offset, extent{start: w.start, end: w.end()}, o.damaged)
	if p.reset {
		w.index = indextest.NewModel()
	}
	o.found(p)
	o.buffer, o.fetched = nil, p.next
}

func (w *world) fetch(o *owner, most int) {
	if !o.following {
		return
	}
	for ; most > 0 && o.fetched < w.end(); o.fetched++ {
		if !w.log[o.fetched].gone {
			o.buffer = append(o.buffer, o.fetched)
			most--
		}
	}
}

func (w *world) apply(o *owner, most int) {
	batch := o.buffer[:min(most, len(o.buffer))]
	o.buffer = o.buffer[len(batch):]
	var ops []retryqueue.Op
	last := o.next - 1
	for _, offset := range batch {
		if !o.takes(offset) {
			continue
		}
		last = offset
		record := w.log[offset]
		ops = append(ops, retryqueue.Op{Trip: record.trip, Remove: record.tombstone, Due: time.UnixMilli(record.due), Offset: offset})
	}
	if len(ops) == 0 {
		w.passGap(o)
		return
	}
	if !w.index.Apply(o.applied, last, ops) {
		o.lose(false)
		return
	}
	o.took(last, time.Time{})
}

// passGap goes to the end of a log whose last records are gone.
func (w *world) passGap(o *owner) {
	if o.following && !o.open() && len(o.buffer) == 0 && o.fetched == w.end() {
		if !w.index.Apply(o.applied, o.fetched-1, nil) {
			o.lose(false)
			return
		}
		o.took(o.fetched-1, time.Time{})
	}
}

func (w *world) claim(o *owner, n int) {
	if !o.open() {
		return
	}
	entries, ok := w.index.Claim(w.now, n, modelLease, o.applied)
	if !ok {
		o.lose(false)
		return
	}
	for _, e := range o.hold(entries) {
		o.flights = append(o.flights, &modelFlight{trip: e.Trip, token: w.now + modelLease.Milliseconds()})
	}
}

// step takes one flight one stage on: produce, mark, acknowledge.
func (w *world) step(o *owner, i int) {
	f := o.flights[i]
	switch f.stages {
	case 0:
		w.fired[f.trip]++
	case 1:
		w.log = append(w.log, logged{trip: f.trip, tombstone: true})
		o.shard.fired(f.trip, w.end()-1)
	case 2:
		w.index.Ack(f.token, []webhook.Trip{f.trip})
		o.flights = append(o.flights[:i], o.flights[i+1:]...)
	}
	f.stages++
}

// compact removes records that a later one of the same key covers, as Kafka may at any time.
func (w *world) compact() {
	latest := map[webhook.Trip]int{}
	for offset, record := range w.log {
		latest[record.trip] = offset
	}
	for offset, record := range w.log {
		if latest[record.trip] != offset {
			w.log[offset].gone = true
		}
	}
}

// settle lets everything that was begun come to its end, with nothing more going wrong.
func (w *world) settle() {
	for range 200 {
		w.now += modelLease.Milliseconds() / 4
		for _, o := range w.owners {
			w.find(o)
			w.fetch(o, 1000)
			w.apply(o, 1000)
			w.claim(o, 1000)
			for len(o.flights) > 0 {
				w.step(o, 0)
			}
		}
	}
}

func TestEveryRetryFiresAndExactlyOnceWhereNothingDied(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		someone := func(t *rapid.T) *owner { return rapid.SampledFrom(w.owners).Draw(t, "owner") }
		many := rapid.IntRange(1, 5)
		delay := rapid.SampledFrom([]int64{0, 1000, 20_000, 100_000})
		act := map[string]func(*rapid.T){
			// What mostly happens, so that histories get far enough for the rest to hurt.
			"work": func(t *rapid.T) {
				o := someone(t)
				w.now += 50_000
				w.find(o)
				w.fetch(o, 1000)
				w.apply(o, 1000)
				w.claim(o, 1000)
				for stages := rapid.IntRange(0, 3).Draw(t, "stages"); stages > 0; stages-- {
					for i := len(o.flights) - 1; i >= 0; i-- {
						w.step(o, i)
					}
				}
			},
			"begin again": func(t *rapid.T) {
				o := someone(t)
				w.claim(o, 1)
				w.find(o)
				w.fetch(o, many.Draw(t, "records"))
				w.apply(o, many.Draw(t, "records"))
				w.claim(o, 5)
			},
			"schedule": func(t *rapid.T) {
				w.log = append(w.log, logged{trip: indextest.Trip(w.trips), due: w.now + delay.Draw(t, "delay")})
				w.trips++
			},
			"schedule the same again": func(t *rapid.T) {
				if w.trips == 0 {
					return
				}
				// A worker that died between the retry and its commit: the trip may have fired in between.
				n := rapid.IntRange(0, w.trips-1).Draw(t, "trip")
				w.log = append(w.log, logged{trip: indextest.Trip(n), due: w.now + delay.Draw(t, "delay")})
				w.exact = false
			},
			"time":    func(t *rapid.T) { w.now += rapid.Int64Range(1, 40_000).Draw(t, "ms") },
			"find":    func(t *rapid.T) { w.find(someone(t)) },
			"fetch":   func(t *rapid.T) { w.fetch(someone(t), many.Draw(t, "records")) },
			"apply":   func(t *rapid.T) { w.apply(someone(t), many.Draw(t, "records")) },
			"claim":   func(t *rapid.T) { w.claim(someone(t), many.Draw(t, "entries")) },
			"compact": func(*rapid.T) { w.compact() },
			"step": func(t *rapid.T) {
				o := someone(t)
				if len(o.flights) == 0 {
					return
				}
				w.step(o, rapid.IntRange(0, len(o.flights)-1).Draw(t, "flight"))
			},
			"flush":   func(*rapid.T) { w.index = indextest.NewModel() },
			"backup":  func(*rapid.T) { w.backup = w.index.Clone() },
			"restore": func(*rapid.T) { w.index = w.backup.Clone() },
			"die": func(t *rapid.T) {
				i := rapid.IntRange(0, len(w.owners)-1).Draw(t, "owner")
				w.exact = w.exact && len(w.owners[i].flights) == 0 && len(w.owners[i].held) == 0
				w.owners = append(w.owners[:i], w.owners[i+1:]...)
				if len(w.owners) == 0 {
					w.takeOver()
				}
			},
			"take over from one that does not know": func(t *rapid.T) {
				if len(w.owners) > 1 {
					return
				}
				w.takeOver()
				w.exact = false
			},
		}
		names := slices.Sorted(maps.Keys(act))
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			act[rapid.SampledFrom(names).Draw(t, "action")](t)
		}
		w.settle()
		for n := range w.trips {
			if got := w.fired[indextest.Trip(n)]; got == 0 || (got > 1 && w.exact) {
				t.Fatalf("trip %d fired %d times; exact: %v", n, got, w.exact)
			}
		}
		if len(w.index.Waiting) > 0 {
			t.Fatalf("the index still has %v", w.index.Waiting)
		}
	})
}

func TestAPositionIsFoundFromTheIndexAndTheLog(t *testing.T) {
	const none = retryqueue.None
	for name, test := range map[string]struct {
		known, stored int64
		log           extent
		damaged       bool
		next, applied int64
		reset         bool
		reason        string
	}{
		"a new installation":                      {none, none, extent{0, 0}, false, 0, none, true, ""},
		"an empty index, a full log":              {none, none, extent{0, 50}, false, 0, none, true, rewindMissing},
		"an index that was lost":                  {40, none, extent{10, 50}, false, 10, none, true, rewindMissing},
		"an index that is lost with an empty log": {40, none, extent{50, 50}, false, 50, none, true, rewindMissing},
		"a restart":                               {none, 40, extent{0, 50}, false, 41, 40, false, ""},
		"a restart at the end":                    {none, 49, extent{0, 50}, false, 50, 49, false, ""},
		"an older copy":                           {45, 40, extent{0, 50}, false, 41, 40, false, rewindBehind},
		"somebody else went on":                   {35, 40, extent{0, 50}, false, 41, 40, false, ""},
		"the log has gone on without":             {none, 5, extent{10, 50}, false, 10, none, true, rewindExpired},
		"just not yet":                            {none, 9, extent{10, 50}, false, 10, 9, false, ""},
		"another log":                             {none, 90, extent{0, 50}, false, 0, none, true, rewindTruncated},
		"a damaged index":                         {49, 49, extent{0, 50}, true, 0, none, true, rewindDamaged},
	} {
		got := resync(test.known, test.stored, test.log, test.damaged)
		want := plan{position: position{applied: test.applied, next: test.next, gate: test.log.end, following: true}, reset: test.reset, reason: test.reason}
		if got != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
}

func TestARetryIsDueAfterItsDelayWithinBounds(t *testing.T) {
	appended := time.UnixMilli(1_763_772_000_000)
	for delay, want := range map[time.Duration]time.Duration{
		0: 0, -time.Hour: 0, 30 * time.Second: 30 * time.Second, 24 * time.Hour: 24 * time.Hour, 28 * time.Hour: 28 * time.Hour,
		100 * time.Hour: 28*time.Hour + 48*time.Minute, 1<<63 - 1: 28*time.Hour + 48*time.Minute, -1 << 63: 0,
	} {
		if got := dueAt(appended, delay, 24*time.Hour).Sub(appended); got != want {
			t.Errorf("delay %v: due after %v, want %v", delay, got, want)
		}
	}
}

// What had no room comes back together with others, never earlier than was asked and never much later. An attempt's schedule is the contract's.
func TestOnlyWhatHadNoRoomIsDueOnTheGrid(t *testing.T) {
	now := time.UnixMilli(1_763_772_000_000)
	for reason, rounded := range map[webhook.Reason]bool{
		webhook.ReasonConcurrency: true, webhook.ReasonRate: true, webhook.ReasonBreaker: true,
		webhook.ReasonPaused: false, webhook.ReasonConfig: false, webhook.ReasonHTTPStatus: false, webhook.ReasonTimeout: false,
	} {
		for late, want := range map[time.Duration]time.Duration{0: 0, time.Millisecond: grid, 99 * time.Millisecond: grid, grid: grid, grid + time.Millisecond: 2 * grid} {
			if !rounded {
				want = late
			}
			retry := retryOf(trip(1), 5*time.Second+late)
			retry.Reason = reason
			record := &kgo.Record{Key: []byte(trip(1).String()), Value: wire.EncodeRetry(retry), Timestamp: now}
			op, got, err := readRetry(record, time.Hour, now)
			if err != nil || got != reason || op.Due.Sub(now)-5*time.Second != want {
				t.Errorf("%s, %v past the grid: due after %v (%s, %v)", reason, late, op.Due.Sub(now), got, err)
			}
		}
	}
}

func TestATopicThatForgetsRetriesBeforeTheyAreDueIsRefused(t *testing.T) {
	for name, test := range map[string]struct {
		settings map[string]string
		refused  bool
	}{
		"a week":         {map[string]string{"retention.ms": "604800000", "cleanup.policy": "compact,delete"}, false},
		"a day":          {map[string]string{"retention.ms": "86400000", "cleanup.policy": "compact,delete"}, true},
		"for ever":       {map[string]string{"retention.ms": "-1", "cleanup.policy": "compact,delete"}, false},
		"only compacted": {map[string]string{"retention.ms": "1", "cleanup.policy": "compact"}, false},
		"unknown":        {map[string]string{}, false},
	} {
		if err := checkRetention("retries", test.settings, 24*time.Hour); (err != nil) != test.refused {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheCacheKeepsWhatFitsAndForgetsWhatItGives(t *testing.T) {
	c := newCache(2*overhead + 20)
	c.put(0, trip(1), 1, make([]byte, 10))
	c.put(0, trip(2), 2, make([]byte, 10))
	c.put(1, trip(3), 3, make([]byte, 10))
	if _, ok := c.take(trip(3), 3); ok {
		t.Error("kept more than fits")
	}
	if _, ok := c.take(trip(1), 9); ok {
		t.Error("gave the record of another offset")
	}
	if _, ok := c.take(trip(1), 1); ok {
		t.Error("kept a record that has been overtaken")
	}
	c.put(1, trip(3), 3, make([]byte, 10))
	c.forgetPartition(0)
	if _, ok := c.take(trip(2), 2); ok {
		t.Error("kept a partition that has gone")
	}
	if value, ok := c.take(trip(3), 3); !ok || len(value) != 10 {
		t.Error("lost what fitted")
	}
	if c.free != 2*overhead+20 || len(c.kept) != 0 {
		t.Errorf("%d bytes free, %d kept", c.free, len(c.kept))
	}
}

func TestAConfigurationReportsEverythingThatIsWrong(t *testing.T) {
	if err := (Config{Inflight: 1, Lease: 5 * time.Second}).Validate(); err != nil {
		t.Error(err)
	}
	err := Config{CacheBytes: -1, DrainTimeout: -1}.Validate()
	if joined, ok := err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) != 4 {
		t.Errorf("got %v", err)
	}
}

// The index is lost and built again between a delivery and its tombstone: the gate does not wait for the tombstone, only
// the hold keeps the trip from firing again until it has been applied.
func TestAHoldLastsUntilTheTombstoneIsApplied(t *testing.T) {
	w := newWorld()
	o := w.owners[0]
	w.log = append(w.log, logged{trip: indextest.Trip(0), due: w.now})
	w.find(o)
	w.fetch(o, 1)
	w.apply(o, 1)
	w.claim(o, 1)
	w.step(o, 0)
	w.index = indextest.NewModel()
	w.claim(o, 1)
	w.find(o)
	w.fetch(o, 1)
	w.apply(o, 1)
	w.step(o, 0)
	w.now += 1000
	w.claim(o, 1)
	if len(o.flights) != 1 || !o.open() || len(w.index.Waiting) != 1 {
		t.Fatalf("%d flights, open %v, %d waiting: want the one that has its tombstone", len(o.flights), o.open(), len(w.index.Waiting))
	}
	w.fetch(o, 1)
	w.apply(o, 1)
	if len(o.held) != 0 || len(w.index.Waiting) != 0 {
		t.Fatalf("still held %v, waiting %v", o.held, w.index.Waiting)
	}
}

// The index moves past a tombstone without this owner applying it: another owner did, or the reply to its own apply was lost.
// The trip was scheduled again meanwhile, and a hold that stayed would keep it waiting for ever.
func TestAHoldEndsWhereTheIndexHasPassedTheTombstone(t *testing.T) {
	w := newWorld()
	o := w.owners[0]
	schedule := func() { w.log = append(w.log, logged{trip: indextest.Trip(0), due: w.now}) }
	schedule()
	w.find(o)
	w.fetch(o, 1)
	w.apply(o, 1)
	w.claim(o, 1)
	w.step(o, 0)
	w.step(o, 0)
	schedule()
	other := w.takeOver()
	w.find(other)
	w.fetch(other, 5)
	w.apply(other, 5)
	o.lose(false)
	w.find(o)
	w.now += modelLease.Milliseconds()
	w.claim(o, 1)
	if len(o.held) != 1 || o.held[indextest.Trip(0)] != inFlight || len(o.flights) != 2 {
		t.Fatalf("held %v, %d flights: want the trip taken again", o.held, len(o.flights))
	}
}
