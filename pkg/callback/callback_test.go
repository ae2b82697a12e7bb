package callback

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/source"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

var began = time.Date(2026, 4, 14, 9, 0, 0, 0, time.UTC)

// world is the topic, and what is written to it. Every subscription in wants gets every event.
type world struct {
	t       *testing.T
	book    *Book
	log     []Record
	now     time.Time
	wants   []string
	emitted []string
	made    map[string]*webhook.Event
}

func newWorld(t *testing.T) *world {
	return &world{t: t, book: NewBook(), now: began, wants: []string{"s"}, made: map[string]*webhook.Event{}}
}

func (w *world) write(key string, value []byte) {
	w.t.Helper()
	w.log = append(w.log, Record{key, value})
	if err := w.book.Apply(0, key, value); err != nil {
		w.t.Fatal(err)
	}
}

// Follow makes one event at once and as many in order as the body says.
func (w *world) Follow(c *webhook.Call) (string, []source.FollowUp, []source.FollowUp) {
	var followUps []source.FollowUp
	for i := range int(c.Body[0] - '0') {
		followUps = append(followUps, source.FollowUp{Rule: fmt.Sprint(i), Type: "follow." + fmt.Sprint(i), Data: json.RawMessage(`{}`)})
	}
	return "key", []source.FollowUp{{Rule: "requested", Type: "requested", Data: json.RawMessage(`{}`)}}, followUps
}

func (w *world) Deliveries(e *webhook.Event) (ids []uuid.UUID) {
	for _, sub := range w.wants {
		ids = append(ids, webhook.DeliveryID(e.Tenant, e.ID, sub))
	}
	return ids
}

const testGroup = "group"

func delivery(n int) uuid.UUID { return webhook.DeliveryID("t", fmt.Sprint("event", n), "s") }

// body is a body's fingerprint; the same in another order of its keys differs in the order alone.
func body(hash, order byte) (sent, signed [32]byte) { return [32]byte{hash, order}, [32]byte{hash} }

func (w *world) expect(n int, hash byte) {
	sent, signed := body(hash, 0)
	w.write(ExpectationKey(testGroup, delivery(n)), wire.EncodeExpectation(&webhook.Expectation{
		Delivery: delivery(n), Tenant: "t", SubscriptionID: "s", Profile: "fuse", EventID: fmt.Sprint("event", n), Sent: sent, Signed: signed,
		Until: w.now.Add(72 * time.Hour), Trace: webhook.TraceContext{Parent: traceOf(n, 0)},
	}))
}

// traceOf is the n-th trace, at one of its spans.
func traceOf(n, span int) string { return fmt.Sprintf("00-%032x-%016x-01", n+1, span+1) }

func (w *world) call(hash byte, followUps int) {
	c := &webhook.Call{ID: uuid.New(), Tenant: "t", SubscriptionID: "s", Profile: "fuse", Sent: [32]byte{hash}, Body: []byte(fmt.Sprint(followUps)), At: w.now}
	w.write(CallKey(testGroup, c.ID), wire.EncodeCall(c))
}

func (w *world) ends(id uuid.UUID) { w.write(EndedKey(id), wire.EncodeEnded(w.now)) }

// endsEvent ends the deliveries of an event that was emitted.
func (w *world) endsEvent(id string) {
	for _, d := range w.Deliveries(w.made[id]) {
		w.ends(d)
	}
}

// act does what is decided, until nothing is left to do, and returns the events in their order.
func (w *world) act() (names []string) {
	w.t.Helper()
	for range 100 {
		act := w.book.Decide(testGroup, w.now, w)
		if len(act.Events)+len(act.Records) == 0 {
			return names
		}
		names = append(names, w.emit(act)...)
		for _, r := range act.Records {
			w.write(r.Key, r.Value)
		}
	}
	w.t.Fatal("there is always something left to do")
	return nil
}

func (w *world) emit(act Act) (names []string) {
	for _, e := range act.Events {
		w.made[e.Event.ID] = &e.Event
		w.emitted = append(w.emitted, e.Event.ID)
		names = append(names, e.Event.Type)
	}
	return names
}

func (w *world) expectEvents(got []string, want ...string) {
	w.t.Helper()
	if !slices.Equal(got, want) {
		w.t.Errorf("events %v, want %v", got, want)
	}
}

func (w *world) last() string { return w.emitted[len(w.emitted)-1] }

func TestFollowUpsComeAfterTheirSyncAndOneAfterTheOther(t *testing.T) {
	w := newWorld(t)
	w.expect(1, 1)
	w.expectEvents(w.act())
	w.call(1, 2)
	w.expectEvents(w.act(), "requested")
	w.ends(delivery(1))
	w.expectEvents(w.act(), "follow.0")
	w.expectEvents(w.act())
	w.endsEvent(w.last())
	w.expectEvents(w.act(), "follow.1")
	w.endsEvent(w.last())
	w.expectEvents(w.act())
	if s := w.book.Sizes(); s != (Sizes{Expectations: 1}) {
		t.Errorf("left: %+v", s)
	}
	w.now = w.now.Add(72*time.Hour + grace)
	w.act()
	if s := w.book.Sizes(); s != (Sizes{}) {
		t.Errorf("left after the window: %+v", s)
	}
	if len(w.book.ended)+len(w.book.waiting)+len(w.book.groups) > 0 {
		t.Errorf("left after the window: %v %v", w.book.ended, w.book.waiting)
	}
}

func TestASecondCallReleasesNothingAgain(t *testing.T) {
	w := newWorld(t)
	w.expect(1, 1)
	w.call(1, 1)
	w.call(1, 1)
	w.expectEvents(w.act(), "requested")
	w.ends(delivery(1))
	w.expectEvents(w.act(), "follow.0")
	w.call(1, 1)
	w.endsEvent(w.last())
	w.expectEvents(w.act())
}

func TestAnEventThatCameTwiceIsCalledBackOnce(t *testing.T) {
	w := newWorld(t)
	w.expect(1, 1)
	w.call(1, 1)
	w.expectEvents(w.act(), "requested")
	w.expect(1, 1)
	if got, _ := w.book.Look(testGroup, "s", [32]byte{1}, [32]byte{1}, w.now); got != Done {
		t.Errorf("standing %d", got)
	}
	log := compacted(w.log)
	w.book, w.log = NewBook(), nil
	for _, record := range log {
		w.write(record.Key, record.Value)
	}
	w.call(1, 1)
	w.expectEvents(w.act())
}

func TestTwoDeliveriesOfOneBodyAreCalledBackTwice(t *testing.T) {
	w := newWorld(t)
	w.expect(1, 1)
	w.expect(2, 1)
	w.call(1, 1)
	w.expectEvents(w.act(), "requested")
	first := w.last()
	w.call(1, 1)
	w.expectEvents(w.act(), "requested")
	if w.last() == first {
		t.Error("the second delivery's event has the id of the first's")
	}
	w.call(1, 1)
	w.expectEvents(w.act())
}

func TestACallOfAnotherSubscriptionOrAnotherBodyMatchesNothing(t *testing.T) {
	w := newWorld(t)
	w.expect(1, 1)
	w.call(2, 1)
	c := &webhook.Call{ID: uuid.New(), Tenant: "t", SubscriptionID: "another", Sent: [32]byte{1}, Body: []byte("1"), At: w.now}
	w.write(CallKey(testGroup, c.ID), wire.EncodeCall(c))
	w.expectEvents(w.act())
	w.now = w.now.Add(72 * time.Hour)
	w.call(1, 1)
	w.expectEvents(w.act())
}

func TestWhatABodyIsKnownAs(t *testing.T) {
	w := newWorld(t)
	lookFor := func(subscription string, hash, order byte, want Standing, about uuid.UUID) {
		t.Helper()
		sent, signed := body(hash, order)
		got, x := w.book.Look(testGroup, subscription, sent, signed, w.now)
		if got != want || (x == nil) != (about == uuid.Nil) || x != nil && x.Delivery != about {
			t.Errorf("standing %d of %+v, want %d of %s", got, x, want, about)
		}
	}
	look := func(hash byte, want Standing) {
		t.Helper()
		lookFor("s", hash, 0, want, uuid.Nil)
	}
	look(1, Unknown)
	w.expect(1, 1)
	lookFor("s", 1, 0, Open, delivery(1))
	lookFor("s", 1, 1, Reordered, uuid.Nil)
	look(2, Unknown)
	lookFor("another", 1, 0, Unknown, uuid.Nil)
	lookFor("another", 1, 1, Unknown, uuid.Nil)
	w.call(1, 1)
	look(1, Done)
	w.expect(2, 1)
	lookFor("s", 1, 0, Open, delivery(2))
	w.act()
	lookFor("s", 1, 0, Open, delivery(2))
	w.call(1, 1)
	w.act()
	look(1, Done)
	w.expect(3, 3)
	w.now = w.now.Add(72 * time.Hour)
	look(3, Late)
	look(1, Done)
}

func TestAFollowUpThatNobodyWantsDoesNotHoldTheNext(t *testing.T) {
	w := newWorld(t)
	w.expect(1, 1)
	w.call(1, 3)
	w.ends(delivery(1))
	w.wants = nil
	w.expectEvents(w.act(), "requested", "follow.0", "follow.1", "follow.2")
}

func TestASubscriptionThatIsGoneIsNotWaitedFor(t *testing.T) {
	w := newWorld(t)
	w.wants = []string{"s", "gone"}
	w.expect(1, 1)
	w.call(1, 2)
	w.ends(delivery(1))
	w.expectEvents(w.act(), "requested", "follow.0")
	w.ends(webhook.DeliveryID("t", w.last(), "s"))
	w.expectEvents(w.act())
	w.wants = []string{"s"}
	w.expectEvents(w.act(), "follow.1")
}

func TestAnEndThatNobodyTellsOfIsWaitedForADay(t *testing.T) {
	w := newWorld(t)
	w.expect(1, 1)
	w.call(1, 2)
	w.expectEvents(w.act(), "requested")
	w.now = w.now.Add(Patience)
	w.expectEvents(w.act(), "follow.0")
	w.now = w.now.Add(Patience)
	w.expectEvents(w.act(), "follow.1")
}

func TestEndsThatNobodyAskedForAreForgotten(t *testing.T) {
	w := newWorld(t)
	w.expect(1, 1)
	w.ends(delivery(1))
	w.ends(delivery(2))
	mine := func(int32) bool { return true }
	if keys := w.book.Forgotten(mine, w.now.Add(time.Minute), time.Hour); len(keys) != 0 {
		t.Errorf("too early: %v", keys)
	}
	if keys := w.book.Forgotten(mine, w.now.Add(2*time.Hour), time.Hour); !slices.Equal(keys, []string{EndedKey(delivery(2))}) {
		t.Errorf("forgotten: %v", keys)
	}
	if keys := w.book.Forgotten(func(int32) bool { return false }, w.now.Add(2*time.Hour), time.Hour); len(keys) != 0 {
		t.Errorf("of another's partition: %v", keys)
	}
}

func TestOnlyWhatIsOwnedIsDirty(t *testing.T) {
	w := newWorld(t)
	w.expect(1, 1)
	dirty := func(owned int32, most int) []string {
		return w.book.TakeDirty(func(p int32) bool { return p == owned }, most)
	}
	if names := dirty(1, 10); len(names) != 0 {
		t.Errorf("dirty %v", names)
	}
	if names := dirty(0, 10); len(names) != 0 {
		t.Errorf("dirty %v after somebody else's look", names)
	}
	for _, group := range []string{"b", "c"} {
		w.write(ExpectationKey(group, delivery(2)), wire.EncodeExpectation(&webhook.Expectation{Delivery: delivery(2)}))
	}
	w.book.Touch(func(p int32) bool { return p == 0 })
	names := append(dirty(0, 2), dirty(0, 2)...)
	if slices.Sort(names); !slices.Equal(names, []string{"b", "c", testGroup}) || len(dirty(0, 2)) != 0 {
		t.Errorf("dirty, two at a time: %v", names)
	}
}

// compacted is the log as a reader may find it: of each key the last record, and deletions perhaps gone.
func compacted(log []Record) (kept []Record) {
	last := map[string]int{}
	for i, r := range log {
		last[r.Key] = i
	}
	for i, r := range log {
		if last[r.Key] == i && r.Value != nil {
			kept = append(kept, r)
		}
	}
	return kept
}

// TestWhereverTheOwnerDiesEachFollowUpComesOnceInOrder lets an owner die between any two records of an act; the next one knows only
// what the topic holds, whole or compacted.
func TestWhereverTheOwnerDiesEachFollowUpComesOnceInOrder(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := newWorld(t)
		const syncs = 3
		var order []int // in which they were first called back
		call := func(n int) {
			w.call(byte(n), 1+n)
			if !slices.Contains(order, n) {
				order = append(order, n)
			}
		}
		for n := range syncs {
			w.expect(n, byte(n))
		}
		for range 120 {
			w.now = w.now.Add(time.Second)
			switch r.IntN(6) {
			case 0:
				call(r.IntN(syncs))
			case 1:
				w.ends(delivery(r.IntN(syncs)))
			case 2:
				if len(w.emitted) > 0 {
					w.endsEvent(w.emitted[r.IntN(len(w.emitted))])
				}
			case 3: // dies
				act := w.book.Decide(testGroup, w.now, w)
				if r.IntN(2) == 0 {
					w.emit(act)
					for _, record := range act.Records[:r.IntN(len(act.Records)+1)] {
						w.write(record.Key, record.Value)
					}
				}
				log := w.log
				if r.IntN(2) == 0 {
					log = compacted(log)
				}
				w.book, w.log = NewBook(), nil
				for _, record := range log {
					w.write(record.Key, record.Value)
				}
			default:
				w.act()
			}
		}
		for n := range syncs {
			call(n)
			w.ends(delivery(n))
		}
		for range 20 {
			w.act()
			for _, id := range slices.Clone(w.emitted) {
				w.endsEvent(id)
			}
		}
		w.check(seed, order)
		if t.Failed() {
			return
		}
	}
}

// check: of every sync, in the order in which they were called back, each follow-up came, and first came after those before it.
func (w *world) check(seed uint64, order []int) {
	if s := w.book.Sizes(); s.Calls+s.FollowUps+s.InFlight > 0 {
		w.t.Errorf("seed %d: left: %+v", seed, s)
	}
	var want, got []string
	requested := map[string]bool{}
	for _, n := range order {
		requested[webhook.FollowUpID(delivery(n), "requested")] = true
		for i := range 1 + n {
			want = append(want, webhook.FollowUpID(delivery(n), fmt.Sprint(i)))
		}
	}
	for _, id := range w.emitted {
		if w.made[id].Type == "requested" {
			delete(requested, id)
		} else if !slices.Contains(got, id) {
			got = append(got, id)
		}
	}
	if !slices.Equal(got, want) || len(requested) > 0 {
		w.t.Errorf("seed %d: %d follow-ups, want %d in the order of the calls; %d requests are missing", seed, len(got), len(want), len(requested))
	}
}

func FuzzRecordsOfAnyBytesAreRefusedOrTaken(f *testing.F) {
	f.Add("group/x/"+delivery(1).String(), wire.EncodeExpectation(&webhook.Expectation{Delivery: delivery(1)}))
	f.Add("group/i", wire.EncodeFlight(&webhook.Flight{EventID: "e", Deliveries: []uuid.UUID{delivery(1)}}))
	f.Add(EndedKey(delivery(1)), wire.EncodeEnded(began))
	f.Add("group/f/e", wire.EncodeFollowUp(&webhook.FollowUp{Event: webhook.Event{ID: "e"}}))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		b := NewBook()
		if err := b.Apply(0, key, value); err != nil {
			if s := b.Sizes(); s != (Sizes{}) {
				t.Errorf("refused, and still there: %+v", s)
			}
			return
		}
		if err := b.Apply(0, key, nil); err != nil {
			t.Errorf("deleting it: %v", err)
		}
		if s := b.Sizes(); s != (Sizes{}) || len(b.ended) > 0 {
			t.Errorf("left after deleting it: %+v", s)
		}
	})
}

func TestAnOwnerThatDiesBeforeACallIsForgottenMatchesItOnce(t *testing.T) {
	w := newWorld(t)
	w.expect(1, 1)
	w.expect(2, 1)
	w.call(1, 1)
	act := w.book.Decide(testGroup, w.now, w)
	w.emit(act)
	for _, record := range act.Records[:len(act.Records)-1] {
		w.write(record.Key, record.Value)
	}
	w.expectEvents(w.act())
}
