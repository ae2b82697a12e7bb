package delivery

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hookline/hookline/pkg/webhook"
)

// bench drives lanes by hand: begun has the items whose attempts are under way.
type bench struct {
	*lanes
	begun []*item
	now   time.Time
}

func newBench(limit, perLane int) *bench {
	b := &bench{now: time.UnixMilli(0)}
	b.lanes = newLanes(limit, perLane, func(it *item) { b.begun = append(b.begun, it) })
	return b
}

func (b *bench) offerTo(subscription string) (time.Duration, bool) {
	return b.offer(&item{delivery: &webhook.Delivery{SubscriptionID: subscription}}, b.now)
}

// finish ends the oldest attempt of a subscription.
func (b *bench) finish(subscription string, held time.Duration) bool {
	for i, it := range b.begun {
		if it.lane.id == subscription {
			b.begun = append(b.begun[:i:i], b.begun[i+1:]...)
			b.release(it.lane, b.now, held)
			return true
		}
	}
	return false
}

func (b *bench) running(subscription string) (n int) {
	for _, it := range b.begun {
		if it.lane.id == subscription {
			n++
		}
	}
	return n
}

func TestAnEndpointThatHangsHoldsFewRecordsAndTheRestIsDeferred(t *testing.T) {
	b := newBench(100, 4)
	deferred := 0
	for i := range 400 {
		b.now = b.now.Add(20 * time.Millisecond)
		if wait, queued := b.offerTo("slow"); !queued {
			deferred++
			if wait < minDeferral || wait > maxDeferral*12/10 {
				t.Fatalf("deferred by %v", wait)
			}
		}
		if i%25 == 24 {
			deferred += len(b.measure(b.now, 500*time.Millisecond))
		}
	}
	if b.running("slow") != 4 {
		t.Fatalf("%d attempts under way, want the lane's 4", b.running("slow"))
	}
	if held := 400 - deferred - 4; held > 2 {
		t.Fatalf("%d records queued for an endpoint that does not answer", held)
	}
}

func TestDeferralsAreSpacedAtTheRateOfTheEndpoint(t *testing.T) {
	ln := &lane{rate: 0.2}
	now := time.UnixMilli(0)
	var last time.Duration
	for range 100 {
		last = ln.deferral(now)
	}
	if last < 500*time.Second || last > maxDeferral*12/10 {
		t.Fatalf("the hundredth deferral is %v, want about 100 / 0.2 s", last)
	}
}

func TestABusyButFastEndpointIsNotDeferred(t *testing.T) {
	b := newBench(64, 64)
	for range 5000 {
		if _, queued := b.offerTo("fast"); !queued {
			t.Fatal("deferred")
		}
		if len(b.begun) == 64 {
			b.now = b.now.Add(time.Millisecond)
			for range 32 {
				b.finish("fast", 2*time.Millisecond)
			}
		}
	}
}

func TestWhatComesFasterThanItsEndpointTakesItIsDeferred(t *testing.T) {
	b := newBench(64, 4)
	deferred := 0
	for i := range 4000 {
		b.now = b.now.Add(time.Millisecond)
		b.offerTo("fast")
		b.finish("fast", 5*time.Millisecond)
		if _, queued := b.offerTo("slow"); !queued {
			deferred++
		}
		if i%100 == 0 {
			b.finish("slow", 400*time.Millisecond)
			deferred += len(b.measure(b.now, 100*time.Millisecond))
		}
	}
	if deferred < 3000 {
		t.Fatalf("%d of 4000 deferred for an endpoint that takes 10 a second", deferred)
	}
}

func TestAnEndpointThatAnswersGetsSlotsHoweverManyHang(t *testing.T) {
	b := newBench(100, 16)
	for range 16 {
		for e := range 50 {
			b.now = b.now.Add(50 * time.Millisecond)
			b.measure(b.now, 50*time.Millisecond)
			b.offerTo(fmt.Sprintf("slow-%d", e))
		}
	}
	if len(b.begun) > 100 {
		t.Fatalf("%d attempts under way with 100 slots", len(b.begun))
	}
	for i := range 500 {
		if _, queued := b.offerTo("healthy"); !queued {
			t.Fatal("the healthy endpoint's delivery is deferred")
		}
		if !b.finish("healthy", time.Millisecond) {
			t.Fatalf("the healthy endpoint got no slot for its delivery %d; %d slots taken", i, len(b.begun))
		}
	}
}

func TestLanesLoseNothingAndKeepTheirBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBench(rapid.IntRange(1, 12).Draw(t, "slots"), rapid.IntRange(1, 6).Draw(t, "perLane"))
		offered, deferred, finished := 0, 0, 0
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			b.now = b.now.Add(time.Duration(rapid.IntRange(0, 50).Draw(t, "ms")) * time.Millisecond)
			id := fmt.Sprint(rapid.IntRange(0, 8).Draw(t, "lane"))
			if rapid.Bool().Draw(t, "offer") {
				offered++
				if _, queued := b.offerTo(id); !queued {
					deferred++
				}
			} else if b.finish(id, time.Millisecond) {
				finished++
			}
			if len(b.begun) != b.lanes.running || len(b.begun) > b.max {
				t.Fatalf("%d begun, %d counted, bound %d", len(b.begun), b.lanes.running, b.max)
			}
			for _, ln := range b.byID {
				if ln.running > ln.limit {
					t.Fatalf("lane runs %d of %d", ln.running, ln.limit)
				}
			}
		}
		for len(b.begun) > 0 {
			b.finish(b.begun[0].lane.id, time.Millisecond)
			finished++
		}
		if finished+deferred != offered {
			t.Fatalf("%d offered, %d finished, %d deferred: the rest is stuck", offered, finished, deferred)
		}
	})
}

func TestASecondTryGoesBeforeTheQueueEvenWhileClosing(t *testing.T) {
	b := newBench(1, 1)
	b.offerTo("a")
	b.offerTo("a")
	first := b.begun[0]
	b.close()
	b.finish("a", time.Millisecond)
	if len(b.begun) != 0 {
		t.Fatal("a queued item began although the worker is stopping")
	}
	b.resume(first, b.now)
	if len(b.begun) != 1 || b.begun[0] != first {
		t.Fatal("the second try did not begin")
	}
}
