package store_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

var noon = time.Date(2026, 4, 14, 12, 0, 0, 0, time.UTC)

// record draws what one record may say. Each has a time of its own, as records in Kafka nearly always do.
func record(t *rapid.T, i int) store.Delivery {
	d := store.Delivery{
		Generation:   rapid.Uint32Range(0, 2).Draw(t, "generation"),
		Status:       rapid.SampledFrom(webhook.Statuses()).Draw(t, "status"),
		AttemptCount: rapid.Uint32Range(0, 3).Draw(t, "attempts"),
		CreatedAt:    noon.Add(time.Duration(rapid.IntRange(0, 48).Draw(t, "created")) * time.Hour),
		UpdatedAt:    noon.Add(time.Duration(rapid.IntRange(0, 9).Draw(t, "updated")*100+i) * time.Minute),
	}
	if d.Status == webhook.Pending && rapid.Bool().Draw(t, "scheduled") {
		d.NextAttemptAt = d.UpdatedAt.Add(time.Minute)
	}
	if d.AttemptCount > 0 && rapid.Bool().Draw(t, "response") {
		d.LastAttempt, d.LastTry = d.AttemptCount, rapid.Uint32Range(0, 2).Draw(t, "try")
		d.LastStatusCode = rapid.SampledFrom([]int{0, 200, 503}).Draw(t, "code")
	}
	return d
}

func merged(records []store.Delivery) store.Delivery {
	row := records[0]
	for _, r := range records[1:] {
		row.Merge(r)
	}
	return row
}

func TestMergingIsTheSameInAnyOrderAndHoweverOften(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var records []store.Delivery
		for i := range rapid.IntRange(1, 6).Draw(t, "records") {
			records = append(records, record(t, i))
		}
		want := merged(records)
		again := append(slices.Clone(records), rapid.SampledFrom(records).Draw(t, "again"))
		if got := merged(rapid.Permutation(again).Draw(t, "order")); got != want {
			t.Fatalf("got  %+v\nwant %+v", got, want)
		}
		// Merging parts first, as batches do, makes no difference either.
		cut := rapid.IntRange(1, len(records)).Draw(t, "cut")
		left := merged(records[:cut])
		if cut < len(records) {
			left.Merge(merged(records[cut:]))
		}
		if left != want {
			t.Fatalf("in parts %+v\nwant     %+v", left, want)
		}
	})
}

func TestARowMovesForwardOnly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before := record(t, 0)
		after := before
		after.Merge(record(t, 1))
		if after.Progress() < before.Progress() || after.LastSeen() < before.LastSeen() || after.CreatedAt.After(before.CreatedAt) {
			t.Fatalf("before %+v\nafter %+v", before, after)
		}
	})
}

func TestWhatARecordSaysAboutADelivery(t *testing.T) {
	row := store.Delivery{Status: webhook.Pending, AttemptCount: 2, CreatedAt: noon, UpdatedAt: noon, Reason: webhook.ReasonHTTPStatus,
		NextAttemptAt: noon.Add(time.Minute), LastAttempt: 2, LastTry: 1, LastStatusCode: 503}
	for _, c := range []struct {
		name   string
		record store.Delivery
		want   func(*store.Delivery)
	}{
		{"the scheduler put it back: the known retry stays", store.Delivery{Status: webhook.Pending, AttemptCount: 2, UpdatedAt: noon.Add(time.Hour)}, func(*store.Delivery) {}},
		{"cancelled without a request: count and response stay", store.Delivery{Status: webhook.Cancelled, Reason: webhook.ReasonSubscriptionInactive, UpdatedAt: noon.Add(time.Hour)},
			func(d *store.Delivery) {
				d.Status, d.Reason, d.UpdatedAt, d.NextAttemptAt = webhook.Cancelled, webhook.ReasonSubscriptionInactive, noon.Add(time.Hour), time.Time{}
			}},
		{"an attempt of before", store.Delivery{Status: webhook.Pending, AttemptCount: 1, LastAttempt: 1, LastTry: 1, LastStatusCode: 500, UpdatedAt: noon.Add(time.Hour)}, func(*store.Delivery) {}},
		{"a success that a stale worker saw", store.Delivery{Status: webhook.Delivered, AttemptCount: 1, LastAttempt: 1, LastTry: 1, LastStatusCode: 200, UpdatedAt: noon.Add(-time.Hour)},
			func(d *store.Delivery) {
				d.Status, d.Reason, d.UpdatedAt, d.NextAttemptAt = webhook.Delivered, "", noon.Add(-time.Hour), time.Time{}
			}},
		{"a redelivery", store.Delivery{Generation: 1, Trigger: webhook.TriggerManual, Status: webhook.Pending, UpdatedAt: noon.Add(time.Hour)},
			func(d *store.Delivery) {
				*d = store.Delivery{Generation: 1, Trigger: webhook.TriggerManual, Status: webhook.Pending, CreatedAt: noon, UpdatedAt: noon.Add(time.Hour)}
			}},
	} {
		got, want := row, row
		c.record.CreatedAt = noon.Add(time.Minute)
		got.Merge(c.record)
		c.want(&want)
		if got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", c.name, got, want)
		}
	}
}

func TestRecordsOfOneRowBecomeOneAndOthersStayApart(t *testing.T) {
	a, b := uuid.New(), uuid.New()
	at := func(id uuid.UUID, generation uint32, created time.Time) store.Delivery {
		return store.Delivery{ID: id, Generation: generation, CreatedAt: created, UpdatedAt: created}
	}
	later := noon.Add(store.SameRow + time.Hour)
	layers := store.Coalesce([]store.Delivery{at(a, 0, noon), at(b, 0, noon), at(a, 0, later), at(a, 0, noon.Add(time.Hour)), at(a, 1, later.Add(time.Hour))})
	if len(layers) != 2 || len(layers[0]) != 2 || len(layers[1]) != 1 {
		t.Fatalf("layers %v", layers)
	}
	if r := layers[1][0]; r.ID != a || r.Generation != 1 || !r.CreatedAt.Equal(later) {
		t.Errorf("the second row is %+v", r)
	}
}

func TestRowsThatAreRefusedAreFoundAmongManyAndOtherErrorsEndTheSearch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := &store.Batch{
			Deliveries: make([]store.Delivery, rapid.IntRange(0, 20).Draw(t, "deliveries")),
			Attempts:   make([]webhook.Attempt, rapid.IntRange(0, 20).Draw(t, "attempts")),
			Events:     make([]webhook.Event, rapid.IntRange(0, 20).Draw(t, "events")),
		}
		bad := 0
		for i := range b.Deliveries {
			if rapid.Bool().Draw(t, "bad") {
				b.Deliveries[i].Tenant, bad = "bad", bad+1
			}
		}
		for i := range b.Events {
			if rapid.Bool().Draw(t, "bad") {
				b.Events[i].Tenant, bad = "bad", bad+1
			}
		}
		err := store.Isolate(b, store.ErrRefused, func(part *store.Batch) error {
			if slices.ContainsFunc(part.Deliveries, func(d store.Delivery) bool { return d.Tenant == "bad" }) ||
				slices.ContainsFunc(part.Events, func(e webhook.Event) bool { return e.Tenant == "bad" }) {
				return store.ErrRefused
			}
			return nil
		})
		var refused *store.RefusedError
		if !errors.As(err, &refused) {
			if bad > 0 || !errors.Is(err, store.ErrRefused) {
				t.Fatalf("%d bad rows: %v", bad, err)
			}
			return
		}
		if len(refused.Rows) != bad {
			t.Fatalf("%d refused, want %d", len(refused.Rows), bad)
		}
		for _, r := range refused.Rows {
			if r.Table == store.TableDeliveries && b.Deliveries[r.Index].Tenant != "bad" || r.Table == store.TableEvents && b.Events[r.Index].Tenant != "bad" || r.Table == store.TableAttempts {
				t.Fatalf("refused %+v", r)
			}
		}
	})
	err := store.Isolate(&store.Batch{Deliveries: make([]store.Delivery, 3)}, store.ErrRefused, func(*store.Batch) error { return store.ErrUnavailable })
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("the database went away: %v", err)
	}
}

func FuzzACursorIsReadOrRefused(f *testing.F) {
	f.Add(store.Cursor(noon, "id"))
	f.Add("")
	f.Fuzz(func(t *testing.T, cursor string) {
		at, id, err := store.ParseCursor(cursor)
		if err != nil {
			if !errors.Is(err, store.ErrBadCursor) {
				t.Fatal(err)
			}
			return
		}
		if again, same, err := store.ParseCursor(store.Cursor(at, id)); err != nil || !again.Equal(at) || same != id {
			t.Fatalf("%v %q becomes %v %q, %v", at, id, again, same, err)
		}
	})
}

func FuzzTextIsStorable(f *testing.F) {
	f.Add("a\x00\xffb")
	f.Fuzz(func(t *testing.T, s string) {
		text := store.Text(s)
		if len(text) > 1<<10 || store.Text(text) != text {
			t.Fatalf("%q becomes %q", s, text)
		}
	})
}
