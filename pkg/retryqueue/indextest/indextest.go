// Package indextest is the suite that every Redis behind the timer index must pass: the embedded one and real servers.
package indextest

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/webhook"
)

// Fixture is an empty index and the means to do to it what happens to a Redis.
type Fixture struct {
	Index *retryqueue.Index
	// Redis is a client of the same server, and Prefix the prefix of the index's keys.
	Redis  redis.UniversalClient
	Prefix string
	// Advance lets the server's clock go on by at least d. A real server's is waited for, so the suite asks for little.
	Advance func(d time.Duration)
}

// Run runs the suite; open is called for every test.
func Run(t *testing.T, open func(t *testing.T) Fixture) {
	for name, test := range map[string]func(*testing.T, Fixture){
		"DueTripsAreClaimedInOrderAndNeverEarly":      dueInOrder,
		"WhatIsDueTogetherGoesInTheOrderOfItsRecords": dueTogether,
		"AnIndexElsewhereIsNotChanged":                applyComparesOffsets,
		"ASecondRecordOfATripMovesOnlyThePointer":     secondRecord,
		"ATombstoneRemovesTheTripAndNoOther":          tombstone,
		"AClaimIsALease":                              lease,
		"AnAckRemovesOnlyWhatIsUnderItsLease":         ack,
		"ALostIndexRefusesToBeClaimedFrom":            lost,
		"AResetEmptiesThePartitionAlone":              reset,
		"TheScriptCacheMayBeLost":                     scriptCache,
		"AMissingPointerIsReported":                   damaged,
		"AFullBatchFitsInOneRoundTrip":                fullBatch,
		"NumbersOfAnySizeSurvive":                     largeNumbers,
		"LookingInsideCountsWhatWaits":                look,
		"RandomHistoriesMeanTheSameAsInTheModel":      random,
		"AnEmptyIndexHasNothingAndSaysSo":             empty,
		"RepeatingAnAppliedBatchFindsTheIndexMoved":   repeated,
		"AClaimOfNothingOnlyLooks":                    claimNothing,
		"PartitionsDoNotSeeEachOther":                 partitions,
		"OnlyWhatIsDueWhenItIsThoughtToBeIsMoved":     move,
		"TheWaitingTripsOfAGenerationAreFound":        find,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

const (
	partition = 7
	hold      = 40 * time.Millisecond // a lease short enough to wait for on a real server
	long      = time.Hour
)

// Trip is the trip number n of as many as are wanted.
func Trip(n int) webhook.Trip {
	var name [8]byte
	binary.BigEndian.PutUint64(name[:], uint64(n))
	return webhook.Trip{Delivery: uuid.NewSHA1(uuid.Nil, name[:]), Number: 1}
}

func (f Fixture) now(t *testing.T) time.Time {
	t.Helper()
	stats, err := f.Index.Stats(t.Context(), partition)
	if err != nil {
		t.Fatal(err)
	}
	return stats.Now
}

func (f Fixture) apply(t *testing.T, expected, last int64, ops ...retryqueue.Op) {
	t.Helper()
	if err := f.Index.Apply(t.Context(), partition, expected, last, ops); err != nil {
		t.Fatal(err)
	}
}

func (f Fixture) claim(t *testing.T, n int, lease time.Duration) retryqueue.Claim {
	t.Helper()
	claim, err := f.Index.Claim(t.Context(), partition, n, lease, retryqueue.None)
	if err != nil {
		t.Fatal(err)
	}
	return claim
}

func (f Fixture) wantMoved(t *testing.T, err error, offset int64) {
	t.Helper()
	var moved *retryqueue.MovedError
	if !errors.As(err, &moved) || moved.Offset != offset || moved.Partition != partition {
		t.Fatalf("got %v, want moved to %d", err, offset)
	}
}

func add(n int, due time.Time, offset int64) retryqueue.Op {
	return retryqueue.Op{Trip: Trip(n), Due: due, Offset: offset}
}

func remove(n int) retryqueue.Op { return retryqueue.Op{Trip: Trip(n), Remove: true} }

func trips(entries []retryqueue.Entry) []webhook.Trip {
	list := make([]webhook.Trip, len(entries))
	for i, e := range entries {
		list[i] = e.Trip
	}
	return list
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("-want +got\n%s", diff)
	}
}

func dueInOrder(t *testing.T, f Fixture) {
	now := f.now(t)
	f.apply(t, retryqueue.None, 9,
		add(1, now.Add(-time.Second), 5), add(2, now.Add(-3*time.Second), 6), add(3, now.Add(long), 7), add(4, now.Add(-2*time.Second), 8))
	first := f.claim(t, 2, long)
	equal(t, first.Entries, []retryqueue.Entry{{Trip: Trip(2), Offset: 6}, {Trip: Trip(4), Offset: 8}})
	if first.Overdue() < time.Second || first.Due != 1 {
		t.Fatalf("%d overdue by %v, want what was not claimed", first.Due, first.Overdue())
	}
	second := f.claim(t, 2, long)
	equal(t, second.Entries, []retryqueue.Entry{{Trip: Trip(1), Offset: 5}})
	if second.Waiting != 4 || second.Due != 0 || second.Overdue() != 0 || !second.Next.After(second.Now) {
		t.Fatalf("claim says %+v", second)
	}
	if early := f.claim(t, 10, long).Entries; len(early) != 0 {
		t.Fatalf("claimed early: %v", early)
	}
}

func dueTogether(t *testing.T, f Fixture) {
	const n = 200
	due := f.now(t).Truncate(time.Millisecond).Add(-time.Second)
	ops := make([]retryqueue.Op, n)
	for i := range ops {
		ops[i] = add(i, due, int64(i*37%n)*64)
	}
	f.apply(t, retryqueue.None, n*64, ops...)
	for first := 0; first < n; first += 50 {
		for i, e := range f.claim(t, 50, long).Entries {
			if want := int64(first+i) * 64; e.Offset != want {
				t.Fatalf("claimed the record at %d, want %d", e.Offset, want)
			}
		}
	}
}

func applyComparesOffsets(t *testing.T, f Fixture) {
	now := f.now(t)
	f.apply(t, retryqueue.None, 3, add(1, now, 3))
	for _, expected := range []int64{retryqueue.None, 2, 4} {
		err := f.Index.Apply(t.Context(), partition, expected, 10, []retryqueue.Op{add(2, now, 10), remove(1)})
		f.wantMoved(t, err, 3)
	}
	equal(t, f.claim(t, 10, long).Entries, []retryqueue.Entry{{Trip: Trip(1), Offset: 3}})
	if err := f.Redis.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	f.wantMoved(t, f.Index.Apply(t.Context(), partition, 3, 4, nil), retryqueue.None)
}

func repeated(t *testing.T, f Fixture) {
	now := f.now(t)
	ops := []retryqueue.Op{add(1, now.Add(-time.Second), 0)}
	f.apply(t, retryqueue.None, 0, ops...)
	f.wantMoved(t, f.Index.Apply(t.Context(), partition, retryqueue.None, 0, ops), 0)
}

func secondRecord(t *testing.T, f Fixture) {
	now := f.now(t)
	f.apply(t, retryqueue.None, 0, add(1, now.Add(-time.Second), 0))
	f.apply(t, 0, 5, add(1, now.Add(long), 5))
	equal(t, f.claim(t, 10, long).Entries, []retryqueue.Entry{{Trip: Trip(1), Offset: 5}})
	f.apply(t, 5, 6, add(1, now.Add(-time.Second), 6))
	if again := f.claim(t, 10, long); len(again.Entries) != 0 || again.Waiting != 1 {
		t.Fatalf("a record of a leased trip ended its lease: %+v", again)
	}
}

func tombstone(t *testing.T, f Fixture) {
	now := f.now(t)
	next := Trip(1)
	next.Number++
	f.apply(t, retryqueue.None, 2, add(1, now.Add(-time.Second), 0),
		retryqueue.Op{Trip: next, Due: now.Add(-time.Second), Offset: 1}, remove(1), remove(99))
	equal(t, f.claim(t, 10, long).Entries, []retryqueue.Entry{{Trip: next, Offset: 1}})
	f.apply(t, 2, 3, retryqueue.Op{Trip: next, Remove: true})
	if stats, err := f.Index.Stats(t.Context(), partition); err != nil || stats.Waiting != 0 {
		t.Fatalf("%+v, %v", stats, err)
	}
}

func lease(t *testing.T, f Fixture) {
	now := f.now(t)
	f.apply(t, retryqueue.None, 0, add(1, now.Add(-time.Second), 0))
	first := f.claim(t, 1, hold)
	if len(first.Entries) != 1 || first.Token != first.Next.UnixMilli() {
		t.Fatalf("%+v", first)
	}
	f.Advance(2 * hold)
	second := f.claim(t, 1, hold)
	if len(second.Entries) != 1 || second.Token <= first.Token {
		t.Fatalf("after the lease: %+v", second)
	}
}

func ack(t *testing.T, f Fixture) {
	now := f.now(t)
	f.apply(t, retryqueue.None, 2, add(1, now.Add(-time.Second), 0), add(2, now.Add(-time.Second), 1))
	first := f.claim(t, 10, hold)
	f.Advance(2 * hold)
	second := f.claim(t, 10, long)
	removed, err := f.Index.Ack(t.Context(), partition, first.Token, trips(first.Entries))
	if err != nil || removed != 0 {
		t.Fatalf("a late ack removed %d, %v", removed, err)
	}
	removed, err = f.Index.Ack(t.Context(), partition, second.Token, append(trips(second.Entries), Trip(3)))
	if err != nil || removed != 2 {
		t.Fatalf("removed %d, %v", removed, err)
	}
	if keys := f.Redis.Keys(t.Context(), f.Prefix+"*").Val(); len(keys) != 1 {
		t.Fatalf("an empty index keeps %v", keys)
	}
}

func move(t *testing.T, f Fixture) {
	now := f.now(t).Truncate(time.Millisecond)
	f.apply(t, retryqueue.None, 2, add(1, now.Add(-time.Second), 0), add(2, now.Add(-time.Second), 1), add(3, now.Add(long), 2))
	claim := f.claim(t, 10, 2*long)
	if removed, err := f.Index.Ack(t.Context(), partition, claim.Token, []webhook.Trip{Trip(2)}); err != nil || removed != 1 {
		t.Fatalf("removed %d, %v", removed, err)
	}
	due := claim.Now.Add(-hold)
	for want, from := range [][]time.Time{{time.UnixMilli(claim.Token + 1)}, {time.UnixMilli(claim.Token), now.Add(long)}} {
		var moves []retryqueue.Move
		for i, at := range append(from, now) {
			moves = append(moves, retryqueue.Move{Trip: Trip(2*i + 1), From: at, To: due}, retryqueue.Move{Trip: Trip(2), From: at, To: due})
		}
		want *= len(from)
		moved, err := f.Index.Move(t.Context(), partition, moves...)
		if again := f.claim(t, 10, 3*long); err != nil || moved != want || len(again.Entries) != want || again.Waiting != 2 {
			t.Fatalf("%d moved, %d claimed of %d, want %d of 2: %v", moved, len(again.Entries), again.Waiting, want, err)
		}
	}
	if moved, err := f.Index.Move(t.Context(), partition); err != nil || moved != 0 {
		t.Fatalf("%d of none moved, %v", moved, err)
	}
}

func find(t *testing.T, f Fixture) {
	now := f.now(t).Truncate(time.Millisecond)
	second, later := Trip(1), Trip(1)
	second.Number, later.Generation = 300, 1
	f.apply(t, retryqueue.None, 5, add(1, now.Add(long), 1), retryqueue.Op{Trip: second, Due: now.Add(-time.Second), Offset: 2},
		retryqueue.Op{Trip: later, Due: now, Offset: 3}, add(2, now, 4))
	claim := f.claim(t, 1, long)
	found, at, err := f.Index.Find(t.Context(), partition, Trip(1).Delivery, 0)
	if err != nil || at.Before(now) {
		t.Fatalf("%v, at %v", err, at)
	}
	slices.SortFunc(found, func(a, b retryqueue.Waiting) int { return int(a.Offset - b.Offset) })
	equal(t, found, []retryqueue.Waiting{{Trip: Trip(1), Due: now.Add(long), Offset: 1}, {Trip: second, Due: time.UnixMilli(claim.Token), Offset: 2}})
	if found, _, err = f.Index.Find(t.Context(), partition, Trip(3).Delivery, 0); err != nil || len(found) != 0 {
		t.Fatalf("%v, %v", found, err)
	}
}

func lost(t *testing.T, f Fixture) {
	now := f.now(t)
	f.apply(t, retryqueue.None, 20, add(1, now.Add(-time.Second), 20))
	_, err := f.Index.Claim(t.Context(), partition, 10, long, 21)
	f.wantMoved(t, err, 20)
	if err := f.Redis.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	_, err = f.Index.Claim(t.Context(), partition, 10, long, 20)
	f.wantMoved(t, err, retryqueue.None)
	_, err = f.Index.Claim(t.Context(), partition, 10, long, 0)
	f.wantMoved(t, err, retryqueue.None)
}

func reset(t *testing.T, f Fixture) {
	now := f.now(t)
	f.apply(t, retryqueue.None, 0, add(1, now.Add(-time.Second), 0))
	if err := f.Index.Apply(t.Context(), partition+1, retryqueue.None, 4, []retryqueue.Op{add(2, now, 4)}); err != nil {
		t.Fatal(err)
	}
	f.wantMoved(t, f.Index.Reset(t.Context(), partition, retryqueue.None), 0)
	if err := f.Index.Reset(t.Context(), partition, 0); err != nil {
		t.Fatal(err)
	}
	if offset, err := f.Index.Offset(t.Context(), partition); err != nil || offset != retryqueue.None {
		t.Fatalf("%d, %v", offset, err)
	}
	if keys := f.Redis.Keys(t.Context(), f.Prefix+"*").Val(); len(keys) != 3 {
		t.Fatalf("want the keys of the other partition, got %v", keys)
	}
}

func scriptCache(t *testing.T, f Fixture) {
	now := f.now(t)
	for i := range int64(3) {
		if err := f.Redis.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		f.apply(t, i-1, i, add(int(i), now.Add(-time.Second), i))
	}
	if err := f.Redis.ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if claim := f.claim(t, 10, long); len(claim.Entries) != 3 {
		t.Fatalf("%+v", claim)
	}
}

func damaged(t *testing.T, f Fixture) {
	f.apply(t, retryqueue.None, 0, add(1, f.now(t).Add(-time.Second), 0))
	for _, key := range f.Redis.Keys(t.Context(), f.Prefix+"*:at:*").Val() {
		if err := f.Redis.Del(t.Context(), key).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := f.Index.Claim(t.Context(), partition, 10, long, 0); !errors.Is(err, retryqueue.ErrDamaged) {
		t.Fatalf("got %v", err)
	}
}

func fullBatch(t *testing.T, f Fixture) {
	now := f.now(t)
	ops := make([]retryqueue.Op, retryqueue.MaxOps)
	for i := range ops {
		ops[i] = add(i, now.Add(-time.Second), int64(i))
	}
	f.apply(t, retryqueue.None, retryqueue.MaxOps, ops...)
	seen := map[webhook.Trip]bool{}
	for range 2 {
		claim := f.claim(t, retryqueue.MaxClaim, long)
		if removed, err := f.Index.Ack(t.Context(), partition, claim.Token, trips(claim.Entries)); err != nil || removed != retryqueue.MaxClaim {
			t.Fatalf("removed %d, %v", removed, err)
		}
		for _, e := range claim.Entries {
			seen[e.Trip] = true
		}
	}
	if len(seen) != retryqueue.MaxOps {
		t.Fatalf("claimed %d different trips", len(seen))
	}
	if err := f.Index.Apply(t.Context(), partition, retryqueue.MaxOps, retryqueue.MaxOps+1, append(ops, ops[0])); err == nil {
		t.Fatal("a batch over the bound was taken")
	}
}

func largeNumbers(t *testing.T, f Fixture) {
	trip := webhook.Trip{Delivery: uuid.Max, Generation: math.MaxUint32, Number: math.MaxUint32}
	const offset, lane = int64(1)<<47 - 1, math.MaxUint16
	f.apply(t, retryqueue.None, offset, retryqueue.Op{Trip: trip, Due: time.UnixMilli(1), Offset: offset, Lane: lane})
	claim, err := f.Index.Claim(t.Context(), partition, 1, 200*24*time.Hour, 1)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, claim.Entries, []retryqueue.Entry{{Trip: trip, Offset: offset, Lane: lane}})
	if removed, err := f.Index.Ack(t.Context(), partition, claim.Token, []webhook.Trip{trip}); err != nil || removed != 1 {
		t.Fatalf("removed %d, %v", removed, err)
	}
	if got, err := f.Index.Offset(t.Context(), partition); err != nil || got != offset {
		t.Fatalf("%d, %v", got, err)
	}
}

func look(t *testing.T, f Fixture) {
	now := f.now(t).Truncate(time.Millisecond)
	f.apply(t, retryqueue.None, 4, add(1, now.Add(-2*time.Minute), 1), add(2, now.Add(time.Minute), 2),
		add(3, now.Add(time.Hour), 3), add(4, now.Add(80*time.Hour), 4))
	stats, err := f.Index.Stats(t.Context(), partition)
	if err != nil || stats.Waiting != 4 || stats.Offset != 4 || stats.Overdue() < 2*time.Minute || !stats.First.Equal(now.Add(-2*time.Minute)) {
		t.Fatalf("%+v, %v", stats, err)
	}
	histogram, err := f.Index.Histogram(t.Context(), partition, now, []time.Duration{0, time.Minute, 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, histogram, []int64{1, 1, 1, 1})
	list, err := f.Index.List(t.Context(), partition, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, list, []retryqueue.Waiting{
		{Trip: Trip(2), Due: now.Add(time.Minute), Offset: 2}, {Trip: Trip(3), Due: now.Add(time.Hour), Offset: 3},
	})
}

func empty(t *testing.T, f Fixture) {
	stats, err := f.Index.Stats(t.Context(), partition)
	if err != nil || stats.Waiting != 0 || stats.Offset != retryqueue.None || !stats.First.IsZero() || stats.Overdue() != 0 {
		t.Fatalf("%+v, %v", stats, err)
	}
	claim := f.claim(t, 10, long)
	if len(claim.Entries) != 0 || claim.Waiting != 0 || !claim.Next.IsZero() || claim.Overdue() != 0 {
		t.Fatalf("%+v", claim)
	}
	if list, err := f.Index.List(t.Context(), partition, 0, 10); err != nil || len(list) != 0 {
		t.Fatalf("%v, %v", list, err)
	}
	if removed, err := f.Index.Ack(t.Context(), partition, 1, nil); err != nil || removed != 0 {
		t.Fatalf("%d, %v", removed, err)
	}
	if err := f.Index.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func claimNothing(t *testing.T, f Fixture) {
	f.apply(t, retryqueue.None, 0, add(1, f.now(t).Add(-time.Minute), 0))
	claim := f.claim(t, 0, long)
	if len(claim.Entries) != 0 || claim.Waiting != 1 || claim.Overdue() < time.Minute {
		t.Fatalf("%+v", claim)
	}
}

func partitions(t *testing.T, f Fixture) {
	f.apply(t, retryqueue.None, 0, add(1, f.now(t).Add(-time.Minute), 0))
	claim, err := f.Index.Claim(t.Context(), partition+1, 10, long, retryqueue.None)
	if err != nil || len(claim.Entries) != 0 || claim.Waiting != 0 {
		t.Fatalf("%+v, %v", claim, err)
	}
}
