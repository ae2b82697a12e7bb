package delivery

import (
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/offset"
	"github.com/hookline/hookline/pkg/webhook"
)

func testPartition() *partition {
	return newPartition(0, offset.New(0, ""), Config{WindowRecords: 2000, WindowBytes: 10_000, RememberedTrips: 100})
}

func TestAFullPartitionResumesWhenAQuarterOfItsWindowIsFree(t *testing.T) {
	p := testPartition()
	for o := range int64(minWindow) {
		p.tracker.Begin(o)
		p.hold(1)
	}
	if !p.full() {
		t.Fatal("not full at its window")
	}
	for o := range int64(minWindow/4) - 1 {
		p.finish(o, 1, false)
	}
	if p.finish(minWindow/4, 1, false) != false || !p.full() {
		t.Fatal("has room while less than a quarter is free")
	}
	if !p.finish(minWindow/4+1, 1, false) || p.full() {
		t.Fatal("has no room although a quarter is free")
	}
}

func TestWhatHasBegunDoesNotFillThePartition(t *testing.T) {
	p := testPartition()
	for range minWindow {
		p.hold(1)
	}
	if !p.full() {
		t.Fatal("not full at its window")
	}
	room := false
	for range minWindow / 2 {
		_, now := p.beginWork()
		room = room || now
	}
	if !room || p.full() {
		t.Fatal("full although half of it has begun")
	}
	for range 2000 - minWindow {
		p.hold(1)
		p.beginWork()
	}
	if !p.full() {
		t.Fatal("holds more than it may while nothing is acknowledged")
	}
}

func TestAPartitionIsFullByBytesToo(t *testing.T) {
	p := testPartition()
	p.hold(10_000)
	if !p.full() {
		t.Fatal("not full at its bytes")
	}
}

func TestManyPartitionsTogetherHoldWhatFourMayHold(t *testing.T) {
	p := testPartition()
	p.measure(time.Second, 3)
	if p.maxBytes != 10_000 {
		t.Errorf("one of three may hold %d bytes", p.maxBytes)
	}
	p.measure(time.Second, 8)
	if p.maxBytes != 5_000 {
		t.Errorf("one of eight may hold %d bytes", p.maxBytes)
	}
}

func TestAWindowFollowsTheRate(t *testing.T) {
	p := testPartition()
	for range 800 {
		p.hold(1)
		p.finish(0, 1, false)
		p.hold(1)
		p.finish(0, 1, true)
	}
	p.measure(windowTime, 1)
	if p.window != 800 {
		t.Fatalf("window %d after 800 deliveries and as many deferrals in the time of a window", p.window)
	}
	for range 20 {
		p.measure(time.Second, 1)
	}
	if p.window != minWindow {
		t.Fatalf("window %d after a quiet time, want %d", p.window, minWindow)
	}
}

func TestARevokedPartitionBeginsNothingAndWaitsForWhatHasBegun(t *testing.T) {
	p := testPartition()
	if begun, _ := p.beginWork(); !begun {
		t.Fatal("may not begin")
	}
	idle := p.revoke()
	if begun, _ := p.beginWork(); begun {
		t.Fatal("began after it was revoked")
	}
	select {
	case <-idle:
		t.Fatal("idle while an attempt is under way")
	default:
	}
	p.endWork()
	<-idle
}

func TestATripIsRememberedForTenMinutesWithinTheBound(t *testing.T) {
	r := newRecentTrips(100)
	now := time.UnixMilli(0)
	trip := webhook.Trip{Delivery: uuid.New()}
	next := trip
	next.Number++
	if !r.add(trip, now) || r.add(trip, now) || !r.add(next, now) {
		t.Fatal("a trip is new once, and the next trip is another")
	}
	if r.add(trip, now.Add(rememberFor-time.Second)) {
		t.Fatal("forgotten within ten minutes")
	}
	if !r.add(trip, now.Add(3*rememberFor)) {
		t.Fatal("still remembered after half an hour")
	}
	for range 1000 {
		r.add(webhook.Trip{Delivery: uuid.New()}, now)
	}
	if held := len(r.young) + len(r.old); held > 100 {
		t.Fatalf("%d trips held, bound 100", held)
	}
}
