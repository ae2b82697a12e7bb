package delivery

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/hookline/hookline/pkg/webhook"
)

// bench drives lanes by hand: begun has the items whose attempts are under way.
type bench struct {
	*lanes
	begun  []*item
	since  map[*item]time.Time
	now    time.Time
	config *config
}

// config is a snapshot that knows at most one subscription.
type config struct {
	Snapshot
	offset int64
	sub    *webhook.Subscription
}

func (c *config) Offset() int64                                     { return c.offset }
func (c *config) Subscription(string) (*webhook.Subscription, bool) { return c.sub, c.sub != nil }

func newBench(limit, perLane int) *bench {
	b := &bench{now: time.UnixMilli(0), since: map[*item]time.Time{}, config: new(config)}
	b.lanes = newLanes(Config{MaxInflight: limit, EndpointInflight: perLane, TenantWeights: map[string]int{"heavy": 3}}, b.config, func(it *item) {
		b.begun = append(b.begun, it)
		b.since[it] = b.now
	})
	return b
}

func (b *bench) offerTo(subscription string) (putBack, bool) {
	return b.offerOf("default", subscription)
}

func (b *bench) offerOf(tenant, subscription string) (putBack, bool) {
	return b.offer(&item{delivery: &webhook.Delivery{SubscriptionID: subscription, Event: webhook.Event{Tenant: tenant}}}, b.now)
}

// finish ends the oldest attempt of a subscription.
func (b *bench) finish(subscription string, says verdict, hold time.Duration) bool {
	for i, it := range b.begun {
		if it.lane.id == subscription {
			b.begun = append(b.begun[:i:i], b.begun[i+1:]...)
			if follower := b.release(it, b.since[it], b.now, says, hold); follower != nil {
				b.begin(follower)
			}
			return true
		}
	}
	return false
}

func (b *bench) under(subscription string) (n int) {
	for _, it := range b.begun {
		if it.lane.id == subscription {
			n++
		}
	}
	return n
}

// open lets an endpoint answer quickly until it has its whole share.
func (b *bench) open(subscription string) {
	for round := 0; round == 0 || b.byID[subscription].share.bound() < b.perLane; round++ {
		for range 1 << min(round, 10) {
			b.offerTo(subscription)
		}
		b.now = b.now.Add(time.Millisecond)
		for b.finish(subscription, answered, 0) {
		}
	}
}

func TestAnEndpointThatHangsHoldsFewRecordsAndTheRestIsPutBack(t *testing.T) {
	b := newBench(100, 4)
	b.open("slow")
	back := 0
	for i := range 1000 {
		b.now = b.now.Add(20 * time.Millisecond)
		if p, queued := b.offerTo("slow"); !queued {
			back++
			if p.delay < minDeferral || p.delay > maxDeferral*12/10 || p.reason != webhook.ReasonConcurrency {
				t.Fatalf("put back by %v for %s", p.delay, p.reason)
			}
		}
		if i%25 == 24 {
			back += len(b.sweep(b.now))
		}
	}
	if b.under("slow") != 4 {
		t.Fatalf("%d attempts under way, want the lane's 4", b.under("slow"))
	}
	if held := 1000 - back - 4; held > 2 {
		t.Fatalf("%d records queued for an endpoint that does not answer", held)
	}
}

// Endpoints that answer may have more to do than there are slots, for hours.
func TestAnEndpointThatIsNewOrSlowHasItsTurnWhileOthersTakeEverySlot(t *testing.T) {
	b := newBench(64, 8)
	b.offerTo("slow")
	b.now = b.now.Add(5 * time.Second)
	b.finish("slow", answered, 0)
	var busy []string
	for n := range 20 {
		busy = append(busy, fmt.Sprint("busy-", n))
		b.open(busy[n])
	}
	turns := map[string]bool{}
	for round := range 40 {
		for _, subscription := range busy {
			for range 8 {
				b.offerTo(subscription)
			}
		}
		if round == 5 {
			if b.running != b.max {
				t.Fatalf("%d slots of %d are taken", b.running, b.max)
			}
			b.offerTo("new")
			b.offerTo("slow")
		}
		b.now = b.now.Add(time.Millisecond)
		b.finish(busy[round%len(busy)], answered, 0)
		for _, subscription := range []string{"new", "slow"} {
			turns[subscription] = turns[subscription] || b.under(subscription) > 0
		}
	}
	if !turns["new"] || !turns["slow"] {
		t.Errorf("had a turn: %v", turns)
	}
}

// Whoever is new may hang. Those before it have turned out to be slow meanwhile, and hold what they have.
func TestWavesOfEndpointsThatHangLeaveSlotsToOneThatAnswers(t *testing.T) {
	b := newBench(64, 8)
	b.open("quick")
	for n := range 400 {
		b.offerTo(fmt.Sprint("hangs-", n))
		if n%10 == 9 {
			b.now = b.now.Add(2 * slowHold)
			b.sweep(b.now)
		}
	}
	if b.running > b.room(fresh) {
		t.Errorf("%d slots of %d hang", b.running, b.max)
	}
	for range 8 {
		b.offerTo("quick")
	}
	if got := b.under("quick"); got != 8 {
		t.Errorf("the endpoint that answers has %d slots", got)
	}
}

// Two hundred such endpoints would otherwise fill the windows of a worker in the moment in which their first attempts end.
func TestAnAnswerAfterTenSecondsDoesNotMakeAnEndpointQuick(t *testing.T) {
	b := newBench(100, 4)
	b.sweep(b.now)
	b.offerTo("slow")
	for range 40 {
		b.now = b.now.Add(measureInterval)
		b.sweep(b.now)
	}
	b.finish("slow", answered, 0)
	b.now = b.now.Add(measureInterval)
	b.sweep(b.now)
	queued := 0
	for range 20 {
		if _, taken := b.offerTo("slow"); taken {
			queued++
		}
	}
	if held := queued - b.under("slow"); held > 2 {
		t.Errorf("%d deliveries wait for an endpoint that takes ten seconds", held)
	}
}

func TestDeferralsAreSpacedAtTheRateOfTheEndpoint(t *testing.T) {
	now := time.UnixMilli(0)
	ln := &lane{share: newShare(1), running: 1, progressed: now}
	ln.share.steady, ln.share.latency = true, 5*time.Second
	var last time.Duration
	for range 8 {
		last = ln.deferral(now, webhook.ReasonConcurrency)
	}
	if last < 40*time.Second || last > 48*time.Second {
		t.Fatalf("the eighth deferral is %v, want about 8 times 5 s", last)
	}
	for range 1000 {
		last = ln.deferral(now, webhook.ReasonConcurrency)
	}
	ln.share.latency, ln.running = 10*time.Millisecond, 0
	if later := ln.deferral(now.Add(maxDeferral), webhook.ReasonConcurrency); last > 60*time.Second || later > minDeferral*12/10 {
		t.Fatalf("%v at most, and %v when everything has come back", last, later)
	}
}

func TestABusyButFastEndpointIsNotPutBack(t *testing.T) {
	b := newBench(64, 64)
	for i := range 5000 {
		if _, queued := b.offerTo("fast"); !queued {
			t.Fatalf("delivery %d is put back", i)
		}
		if i%8 == 7 {
			b.now = b.now.Add(time.Millisecond)
			for range 64 {
				b.finish("fast", answered, 0)
			}
			if late := b.sweep(b.now); len(late) > 0 {
				t.Fatalf("%d are put back at delivery %d", len(late), i)
			}
		}
	}
}

func TestAMomentInWhichNothingMovesPutsNothingBack(t *testing.T) {
	for name, stands := range map[string]time.Duration{"a moment": 600 * time.Millisecond, "for good": 6 * time.Second} {
		b := newBench(64, 64)
		b.open("fast")
		for i := range 2000 {
			b.now = b.now.Add(time.Millisecond)
			b.offerTo("fast")
			b.finish("fast", answered, 0)
			if i%250 == 0 {
				b.sweep(b.now)
			}
		}
		for range 64 + 500 {
			b.offerTo("fast")
		}
		late := 0
		for range stands / measureInterval {
			b.now = b.now.Add(measureInterval)
			late += len(b.sweep(b.now))
		}
		if gone := late > 400; gone != (name == "for good") || !gone && late > 0 {
			t.Errorf("%d of 500 are put back when nothing has moved for %v", late, stands)
		}
	}
}

func TestASlotIsGivenToWhoeverGivesOneBack(t *testing.T) {
	b := newBench(1, 1)
	b.offerTo("a")
	b.offerTo("a")
	first := b.begun[0]
	if follower := b.release(first, b.now, b.now.Add(time.Millisecond), answered, 0); follower == nil || follower == first || len(b.begun) != 1 {
		t.Errorf("followed by %v, and %d were begun by others", follower, len(b.begun)-1)
	}
}

func TestAnEndpointThatAnswersAtOnceKeepsASlotAFewTimesInARow(t *testing.T) {
	for name, test := range map[string]struct {
		takes time.Duration
		other string // that is in line
		want  string // who has the slot, one after the other
	}{
		"beside its like":            {time.Millisecond, "b", "aaaaabbbbbaaaaabbbbb"},
		"beside one that is new":     {time.Millisecond, "new", "aN"},
		"one that takes its time":    {3 * atOnce / 2, "b", "abababab"},
		"one that has nothing to do": {time.Millisecond, "", "aaaaaaaaaa"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(1, 1)
			for _, id := range []string{"a", "b"} {
				b.open(id)
				b.byID[id].share.latency = test.takes
			}
			for range 10 {
				b.offerTo("a")
				if test.other == "b" {
					b.offerTo("b")
				}
			}
			if test.other == "new" {
				b.offerTo("new")
			}
			order := ""
			for len(b.begun) > 0 && len(order) < len(test.want) {
				id := b.begun[0].lane.id
				order += strings.Replace(id, "new", "N", 1)
				b.now = b.now.Add(test.takes)
				b.finish(id, answered, 0)
			}
			if order != test.want {
				t.Errorf("%s, want %s", order, test.want)
			}
		})
	}
}

// What a lane begins in a row counts for its tenant as much as what many lanes of another begin in turn.
func TestATenantOfOneEndpointGetsNoMoreThanOneOfMany(t *testing.T) {
	const lanes = 100
	b := newBench(2, 2)
	b.open("one")
	b.byID["one"].tenant = "one"
	for n := range lanes {
		b.open(fmt.Sprint("many-", n))
	}
	for n := range lanes {
		b.offerOf("one", "one")
		b.offerTo(fmt.Sprint("many-", n))
	}
	turns := map[string]int{}
	for range lanes {
		first := b.begun[0].lane
		turns[first.tenant]++
		b.now = b.now.Add(time.Millisecond)
		b.finish(first.id, answered, 0)
	}
	if turns["one"] < lanes*45/100 || turns["one"] > lanes*55/100 {
		t.Errorf("turns %v, want half each", turns)
	}
}

func TestWhatComesFasterThanItsEndpointTakesItIsPutBack(t *testing.T) {
	b := newBench(64, 4)
	back := 0
	for i := range 4000 {
		b.now = b.now.Add(time.Millisecond)
		b.offerTo("fast")
		b.finish("fast", answered, 0)
		if _, queued := b.offerTo("slow"); !queued {
			back++
		}
		if i%100 == 0 {
			b.finish("slow", answered, 0)
			back += len(b.sweep(b.now))
		}
	}
	if back < 3000 {
		t.Fatalf("%d of 4000 put back for an endpoint that takes 10 a second", back)
	}
}

func TestAnEndpointThatAnswersGetsSlotsHoweverManyHang(t *testing.T) {
	b := newBench(100, 16)
	b.open("healthy")
	for range 16 {
		for e := range 300 {
			b.now = b.now.Add(10 * time.Millisecond)
			b.sweep(b.now)
			b.offerTo(fmt.Sprintf("hangs-%d", e))
		}
	}
	if n := len(b.begun); n > 100-100/8 {
		t.Fatalf("%d of 100 slots taken by endpoints that hang", n)
	}
	for i := range 500 {
		if _, queued := b.offerTo("healthy"); !queued {
			t.Fatal("the healthy endpoint's delivery is put back")
		}
		if !b.finish("healthy", answered, 0) {
			t.Fatalf("the healthy endpoint got no slot for its delivery %d; %d slots taken", i, len(b.begun))
		}
	}
}

func TestTenantsHaveTurnsByTheirWeight(t *testing.T) {
	b := newBench(4, 4)
	for _, id := range []string{"light-1", "light-2", "light-3", "heavy-1"} {
		b.open(id)
	}
	b.byID["heavy-1"].tenant = "heavy"
	for i := range 400 {
		b.offerOf("default", fmt.Sprintf("light-%d", i%3+1))
		b.offerOf("heavy", "heavy-1")
	}
	turns := map[string]int{}
	for range 200 {
		first := b.begun[0].lane
		turns[first.tenant]++
		b.now = b.now.Add(time.Millisecond)
		b.finish(first.id, answered, 0)
	}
	if turns["heavy"] < 140 || turns["heavy"] > 160 {
		t.Errorf("turns %v, want three of four for the tenant that weighs three", turns)
	}
}

func TestLanesLoseNothingAndKeepTheirBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBench(rapid.IntRange(1, 12).Draw(t, "slots"), rapid.IntRange(1, 6).Draw(t, "perLane"))
		offered, back, finished := 0, 0, 0
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			b.now = b.now.Add(time.Duration(rapid.IntRange(0, 900).Draw(t, "ms")) * time.Millisecond)
			id := fmt.Sprint(rapid.IntRange(0, 8).Draw(t, "lane"))
			switch rapid.IntRange(0, 8).Draw(t, "step") {
			case 0, 1, 2, 3:
				offered++
				if _, queued := b.offerOf("tenant"+id[:1], id); !queued {
					back++
				}
			case 4:
				back += len(b.sweep(b.now))
			default:
				if b.finish(id, rapid.SampledFrom([]verdict{noVerdict, answered, overloaded, silent}).Draw(t, "says"), 0) {
					finished++
				}
			}
			if len(b.begun) != b.running || len(b.begun) > b.max || b.held[quick]+b.held[fresh]+b.held[slow] != b.running || min(b.held[quick], b.held[fresh], b.held[slow]) < 0 {
				t.Fatalf("%d begun, %d counted, %v by class, bound %d", len(b.begun), b.running, b.held, b.max)
			}
			for _, ln := range b.byID {
				if ln.running > b.perLane {
					t.Fatalf("lane runs %d of %d", ln.running, b.perLane)
				}
			}
		}
		for range 10_000 {
			if len(b.begun) == 0 {
				break
			}
			b.now = b.now.Add(longestPause)
			b.finish(b.begun[0].lane.id, answered, 0)
			finished++
		}
		back += len(b.sweep(b.now))
		for len(b.begun) > 0 {
			b.finish(b.begun[0].lane.id, answered, 0)
			finished++
		}
		if finished+back != offered {
			t.Fatalf("%d offered, %d finished, %d put back: the rest is stuck", offered, finished, back)
		}
	})
}

func TestASecondTryGoesBeforeTheQueueEvenWhileClosing(t *testing.T) {
	b := newBench(1, 1)
	b.offerTo("a")
	b.offerTo("a")
	first := b.begun[0]
	b.close()
	b.finish("a", answered, 0)
	if len(b.begun) != 0 {
		t.Fatal("a queued item began although the worker is stopping")
	}
	b.resume(first, b.now)
	if len(b.begun) != 1 || b.begun[0] != first {
		t.Fatal("the second try did not begin")
	}
}

func TestAnEndpointThatDoesNotAnswerGetsOneProbeAtATime(t *testing.T) {
	b := newBench(64, 8)
	b.open("dead")
	for range breakAfter {
		b.offerTo("dead")
		b.now = b.now.Add(time.Second)
		b.finish("dead", silent, 0)
	}
	for i := range 20 {
		if p, queued := b.offerTo("dead"); queued || p.reason != webhook.ReasonBreaker || p.delay < minDeferral {
			t.Fatalf("delivery %d to a dead endpoint: %+v, queued: %v", i, p, queued)
		}
	}
	b.now = b.now.Add(firstPause)
	_, first := b.offerTo("dead")
	_, second := b.offerTo("dead")
	if !first || second || b.under("dead") != 1 {
		t.Fatalf("after the pause: first taken: %v, second taken: %v, %d under way", first, second, b.under("dead"))
	}
	b.finish("dead", answered, 0)
	if _, queued := b.offerTo("dead"); !queued || b.under("dead") != 1 {
		t.Fatal("closed to an endpoint that answers again")
	}
}

func TestAChangedSubscriptionStartsAnew(t *testing.T) {
	b := newBench(64, 8)
	b.open("a")
	for range breakAfter {
		b.offerTo("a")
		b.now = b.now.Add(time.Second)
		b.finish("a", silent, time.Hour)
	}
	it := &item{delivery: &webhook.Delivery{SubscriptionID: "a"}}
	b.config.offset, b.config.sub = 1, &webhook.Subscription{ID: "a"}
	if _, queued := b.offer(it, b.now); !queued || b.under("a") != 1 {
		t.Error("what was learnt about an endpoint is held against another")
	}
}

func TestRetryAfterHoldsTheEndpointsOtherDeliveries(t *testing.T) {
	b := newBench(64, 8)
	b.open("a")
	b.offerTo("a")
	b.finish("a", overloaded, 20*time.Second)
	p, queued := b.offerTo("a")
	if queued || p.reason != webhook.ReasonRate || p.delay < 20*time.Second || p.delay > 25*time.Second {
		t.Fatalf("within the time: %+v, queued: %v", p, queued)
	}
	b.now = b.now.Add(20 * time.Second)
	if _, queued := b.offerTo("a"); !queued || b.under("a") != 1 {
		t.Error("still held when the time is over")
	}
}

func TestARateIsKeptByWaitingAndByPuttingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var begun []time.Duration
		l := newLanes(Config{MaxInflight: 64, EndpointInflight: 64}, new(config), nil)
		l.begin = func(it *item) {
			begun = append(begun, time.Since(began))
			go func() {
				if follower := l.release(it, time.Now(), time.Now(), answered, 0); follower != nil {
					l.begin(follower)
				}
			}()
		}
		offer := func() bool {
			_, queued := l.offer(&item{delivery: &webhook.Delivery{SubscriptionID: "a"}}, time.Now())
			synctest.Wait()
			return queued
		}
		offer()
		l.limit(l.byID["a"], 12, 0)
		l.own(0.25) // three a second here
		back := 0
		for range 100 {
			if !offer() {
				back++
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if taken := len(begun) - 1; taken < 6 || taken > 9 || back != 100-taken {
			t.Fatalf("%d of 100 taken and %d put back, want what three a second make of two seconds", taken, back)
		}
		for i := 2; i < len(begun); i++ {
			if gap := begun[i] - begun[i-1]; gap < time.Second/3 {
				t.Errorf("request %d came %v after the one before it", i, gap)
			}
		}
	})
}

// What is swept four times a second is what may need it, however many endpoints there are.
func TestLanesAtRestAreNotSweptAndForgottenInTime(t *testing.T) {
	b := newBench(64, 8)
	const endpoints = 100
	for round := range 20 {
		for n := range endpoints {
			id := fmt.Sprint(n)
			b.offerTo(id)
			b.now = b.now.Add(time.Millisecond)
			b.finish(id, answered, 0)
		}
		if b.sweep(b.now); round > 0 && b.byID["0"].pace < 1 {
			t.Fatalf("round %d: ten attempts a second are a pace of %v", round, b.byID["0"].pace)
		}
	}
	b.now = b.now.Add(time.Minute)
	if b.sweep(b.now); len(b.awake) != 0 {
		t.Errorf("%d lanes are swept in which there is nothing to do", len(b.awake))
	}
	b.offerTo("0")
	if b.sweep(b.now); len(b.awake) != 1 || b.byID["0"].pace != 0 {
		t.Errorf("%d lanes are swept of which one works; its pace is %v after a minute's rest", len(b.awake), b.byID["0"].pace)
	}
	b.now = b.now.Add(forgetLane + time.Second)
	b.sweep(b.now)
	if len(b.byID) != 1 || b.under("0") != 1 {
		t.Errorf("%d lanes are known, want the one at work", len(b.byID))
	}
}
