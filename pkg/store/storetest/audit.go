package storetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// newDelivery is a delivery as the first record of it makes it.
func newDelivery(tenant string, at time.Time) store.Delivery {
	event, sub := fresh("event"), "subscription-a"
	return store.Delivery{
		ID: webhook.DeliveryID(tenant, event, sub), Tenant: tenant, EventID: event, EventType: "balance.extracted", SubscriptionID: sub,
		Profile: "fynapse", ProfileVersion: 3, Trigger: webhook.TriggerEvent, Status: webhook.Pending, CreatedAt: at, UpdatedAt: at,
	}
}

func newAttempt(d store.Delivery, number uint32) webhook.Attempt {
	return webhook.Attempt{
		ID: uuid.Must(uuid.NewV7()), DeliveryID: d.ID, Generation: d.Generation, Tenant: d.Tenant, EventID: d.EventID, EventType: d.EventType,
		SubscriptionID: d.SubscriptionID, Profile: d.Profile, ProfileVersion: d.ProfileVersion, Trigger: d.Trigger, DeliveryCreatedAt: d.CreatedAt,
		Number: number, Try: 1, StartedAt: now().Add(123 * time.Microsecond), Duration: 1234 * time.Microsecond,
		Phases:     webhook.Phases{DNS: 1 * time.Microsecond, Connect: 2 * time.Microsecond, TLS: 3 * time.Microsecond, FirstByte: 4 * time.Microsecond},
		StatusCode: 503, Error: webhook.ErrorNone, Response: []byte("\x00try \xff later"), RequestBytes: 10, ResponseBytes: 1 << 33,
		Outcome:     webhook.Outcome{Status: webhook.Pending, Reason: webhook.ReasonHTTPStatus, NextAttemptAt: now().Add(time.Minute), DisableSubscription: true},
		TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	}
}

func record(t *testing.T, s Store, rows ...store.Delivery) {
	t.Helper()
	must(t, s.Record(context.Background(), &store.Batch{Deliveries: slices.Clone(rows)}))
}

// rowsOf are all rows of the delivery's event.
func rowsOf(t *testing.T, s Store, d store.Delivery) []store.Delivery {
	t.Helper()
	rows, _, err := s.Deliveries(context.Background(), d.Tenant, store.DeliveryFilter{EventID: d.EventID}, store.Page{})
	must(t, err)
	return rows
}

func deliveryRoundTrip(t *testing.T, s Store) {
	ctx := context.Background()
	want := newDelivery(tenant, now())
	want.Generation, want.Trigger, want.Reason, want.AttemptCount = 2, webhook.TriggerManual, webhook.ReasonTimeout, 7
	want.NextAttemptAt, want.UpdatedAt = want.CreatedAt.Add(time.Hour), want.CreatedAt.Add(time.Minute)
	want.LastAttempt, want.LastTry, want.LastStatusCode, want.LastError = 7, 2, 504, webhook.ErrorTimeout
	record(t, s, want)
	same(t, "delivery", got(s.Delivery(ctx, tenant, want.ID))(t), want)
	same(t, "in a list", rowsOf(t, s, want), []store.Delivery{want})
	wantError(t, store.ErrNotFound)(s.Delivery(ctx, tenant, uuid.New()))
}

func attemptRoundTrip(t *testing.T, s Store) {
	ctx := context.Background()
	d, e := newDelivery(tenant, now()), newDelivery(tenant, now())
	first, second, decision := newAttempt(d, 1), newAttempt(d, 2), newAttempt(d, 3)
	decision.Number, decision.Try, decision.StartedAt, decision.Response, decision.Outcome = 0, 0, time.Time{}, nil, webhook.Outcome{Status: webhook.Cancelled}
	other := newAttempt(e, 1)
	batch := &store.Batch{Attempts: []webhook.Attempt{decision, other, second, first}}
	must(t, s.Record(ctx, batch))
	must(t, s.Record(ctx, batch))
	found := got(s.Attempts(ctx, tenant, d.ID, e.ID, uuid.New()))(t)
	same(t, "attempts", found, map[uuid.UUID][]webhook.Attempt{d.ID: {first, second, decision}, e.ID: {other}})
	same(t, "of nothing", got(s.Attempts(ctx, tenant))(t), map[uuid.UUID][]webhook.Attempt{})
	same(t, "in another tenant", got(s.Attempts(ctx, "other", d.ID))(t), map[uuid.UUID][]webhook.Attempt{})
}

func eventRoundTrip(t *testing.T, s Store) {
	ctx := context.Background()
	want := webhook.Event{
		ID: fresh("event"), Type: "balance.extracted", Tenant: tenant, OrderingKey: "acct-7", Timestamp: now().Add(-time.Minute + 5*time.Microsecond),
		Metadata: []byte(`{"b":1,"a":"\u0000"}`), Data: []byte(`{"n": 1.10, "n": 123456789012345678901234567890, "s":"\u0000"}`),
		Trace: webhook.TraceContext{Parent: "p", State: "s"}, Source: webhook.Position{Topic: "hookline.events", Partition: 3, Offset: 1 << 40}, RecordedAt: now(),
	}
	later := want
	later.RecordedAt, later.Data, later.Metadata, later.Timestamp = want.RecordedAt.Add(time.Hour), []byte(`null`), nil, time.Time{}
	must(t, s.Record(ctx, &store.Batch{Events: []webhook.Event{want, want}}))
	must(t, s.Record(ctx, &store.Batch{Events: []webhook.Event{want}}))
	same(t, "event", got(s.Event(ctx, tenant, want.ID))(t), want)
	must(t, s.Record(ctx, &store.Batch{Events: []webhook.Event{later, want}}))
	same(t, "latest event", got(s.Event(ctx, tenant, want.ID))(t), later)
	wantError(t, store.ErrNotFound)(s.Event(ctx, "other", want.ID))
}

// anyOrder is the property that the recorder rests on: whichever of a delivery's records is read first, how often, and in which
// batches, the row ends the same.
func anyOrder(t *testing.T, s Store) {
	ctx := context.Background()
	base := now().Add(-24 * time.Hour)
	// A test in a bubble must not be asked for its deadline.
	rapid.Check(struct{ rapid.TB }{t}, func(rt *rapid.T) {
		var records, want []store.Delivery
		for range rapid.IntRange(1, 3).Draw(rt, "deliveries") {
			of := history(rt, newDelivery(tenant, base))
			row := of[0]
			for _, r := range of[1:] {
				row.Merge(r)
			}
			records, want = append(records, of...), append(want, row)
		}
		stream := rapid.Permutation(append(slices.Clone(records), rapid.SliceOfN(rapid.SampledFrom(records), 0, 6).Draw(rt, "again")...)).Draw(rt, "stream")
		for len(stream) > 0 {
			n := rapid.IntRange(1, len(stream)).Draw(rt, "batch")
			if err := s.Record(ctx, &store.Batch{Deliveries: slices.Clone(stream[:n])}); err != nil {
				rt.Fatal(err)
			}
			stream = stream[n:]
		}
		for _, w := range want {
			rows := rowsOf(t, s, w)
			if len(rows) != 1 || rows[0] != w {
				rt.Fatalf("rows %+v\nwant %+v", rows, w)
			}
		}
	})
}

// history draws records about one delivery, as the three topics may have them, each written at another time.
func history(rt *rapid.T, d store.Delivery) []store.Delivery {
	var records []store.Delivery
	for i := range rapid.IntRange(1, 6).Draw(rt, "records") {
		r := d
		r.UpdatedAt = d.CreatedAt.Add(time.Duration(rapid.IntRange(0, 1000).Draw(rt, "minutes")*100+i) * time.Minute)
		if r.Generation = rapid.Uint32Range(0, 2).Draw(rt, "generation"); r.Generation == 0 {
			// The event may have been produced twice within a day or two.
			r.CreatedAt = d.CreatedAt.Add(rapid.SampledFrom([]time.Duration{0, 0, time.Hour, store.SameRow}).Draw(rt, "produced"))
		} else {
			r.CreatedAt = d.CreatedAt.Add(time.Duration(r.Generation) * rapid.SampledFrom([]time.Duration{time.Hour, 100 * time.Hour}).Draw(rt, "redelivered"))
			r.Trigger = webhook.TriggerManual
		}
		r.AttemptCount = rapid.Uint32Range(0, 3).Draw(rt, "attempts")
		r.Status = rapid.SampledFrom(webhook.Statuses()).Draw(rt, "status")
		r.Reason = rapid.SampledFrom([]webhook.Reason{"", webhook.ReasonTimeout, webhook.ReasonHTTPStatus}).Draw(rt, "reason")
		if r.Status == webhook.Pending && rapid.Bool().Draw(rt, "scheduled") {
			r.NextAttemptAt = r.UpdatedAt.Add(time.Minute)
		}
		if r.AttemptCount > 0 && rapid.Bool().Draw(rt, "response") {
			r.LastAttempt, r.LastTry = r.AttemptCount, rapid.Uint32Range(0, 2).Draw(rt, "try")
			r.LastStatusCode = rapid.SampledFrom([]int{0, 200, 404, 503}).Draw(rt, "code")
			r.LastError = rapid.SampledFrom([]webhook.ErrorClass{"", webhook.ErrorTimeout, webhook.ErrorDNS}).Draw(rt, "error")
		}
		records = append(records, r)
	}
	return records
}

func producedAgain(t *testing.T, s Store) {
	ctx := context.Background()
	at := now()
	first := newDelivery(tenant, at.Add(-store.SameRow-time.Minute))
	first.Status = webhook.Delivered
	again := first
	again.CreatedAt, again.UpdatedAt, again.Status = at, at, webhook.Pending
	record(t, s, first)
	record(t, s, again)
	same(t, "rows", rowsOf(t, s, first), []store.Delivery{again, first})
	same(t, "by id", got(s.Delivery(ctx, tenant, first.ID))(t), again)

	ended := again
	ended.Status, ended.UpdatedAt = webhook.DeadLetter, at.Add(time.Minute)
	record(t, s, ended, first)
	same(t, "rows after the second ended", rowsOf(t, s, first), []store.Delivery{ended, first})
}

func redeliveryMovesTheRow(t *testing.T, s Store) {
	at := now()
	ended := newDelivery(tenant, at.Add(-20*24*time.Hour))
	ended.Status, ended.AttemptCount, ended.LastAttempt, ended.LastStatusCode = webhook.DeadLetter, 20, 20, 500
	record(t, s, ended)
	redelivered := ended
	redelivered.Generation, redelivered.Trigger, redelivered.CreatedAt, redelivered.UpdatedAt = 1, webhook.TriggerManual, at, at
	redelivered.Status, redelivered.AttemptCount, redelivered.LastAttempt, redelivered.LastStatusCode = webhook.Pending, 0, 0, 0
	record(t, s, redelivered)
	want := redelivered
	want.CreatedAt = ended.CreatedAt
	same(t, "rows", rowsOf(t, s, ended), []store.Delivery{want})
}

func earlierRecord(t *testing.T, s Store) {
	at := now()
	redelivered := newDelivery(tenant, at)
	redelivered.Generation, redelivered.Status, redelivered.AttemptCount = 1, webhook.Delivered, 1
	record(t, s, redelivered)
	original := redelivered
	original.Generation, original.CreatedAt, original.Status = 0, at.Add(-5*24*time.Hour), webhook.DeadLetter
	record(t, s, original)
	want := redelivered
	want.CreatedAt = original.CreatedAt
	same(t, "rows", rowsOf(t, s, original), []store.Delivery{want})
}

func batchTwice(t *testing.T, s Store) {
	ctx := context.Background()
	d := newDelivery(tenant, now())
	ended := d
	ended.Status, ended.AttemptCount = webhook.Delivered, 1
	batch := func() *store.Batch {
		return &store.Batch{
			Deliveries: []store.Delivery{ended, d}, Attempts: []webhook.Attempt{newAttempt(d, 1)},
			Events:  []webhook.Event{{ID: d.EventID, Type: d.EventType, Tenant: tenant, Data: []byte(`1`), RecordedAt: d.CreatedAt}},
			Offsets: map[store.TopicPartition]int64{{Topic: "attempts", Partition: 1}: 5},
		}
	}
	b := batch()
	must(t, s.Record(ctx, b))
	must(t, s.Record(ctx, b))
	// Half of it is new: what was there already must not keep the rest out.
	b.Attempts = append(b.Attempts, newAttempt(d, 2))
	must(t, s.Record(ctx, b))
	same(t, "rows", rowsOf(t, s, d), []store.Delivery{ended})
	if n := len(got(s.Attempts(ctx, tenant, d.ID))(t)[d.ID]); n != 2 {
		t.Errorf("%d attempts, want 2", n)
	}
	must(t, s.Record(ctx, &store.Batch{}))
}

func offsetsMoveForward(t *testing.T, s Store) {
	ctx := context.Background()
	a, b, c := store.TopicPartition{Topic: "x.a", Partition: 0}, store.TopicPartition{Topic: "x.a", Partition: 1}, store.TopicPartition{Topic: "x.b"}
	must(t, s.Record(ctx, &store.Batch{Offsets: map[store.TopicPartition]int64{a: 10, b: 20, c: 30}}))
	must(t, s.Record(ctx, &store.Batch{Offsets: map[store.TopicPartition]int64{a: 9, b: 21}}))
	same(t, "offsets", got(s.Offsets(ctx, "x.a"))(t), map[store.TopicPartition]int64{a: 10, b: 21})
	same(t, "offsets of two topics", got(s.Offsets(ctx, "x.b", "x.a"))(t), map[store.TopicPartition]int64{a: 10, b: 21, c: 30})
	same(t, "offsets of no topic", got(s.Offsets(ctx))(t), map[store.TopicPartition]int64{})
}

func gapIsRefused(t *testing.T, s Store) {
	ctx := context.Background()
	a, b := store.TopicPartition{Topic: "gap", Partition: 0}, store.TopicPartition{Topic: "gap", Partition: 1}
	d := newDelivery(tenant, now())
	must(t, s.Record(ctx, &store.Batch{Offsets: map[store.TopicPartition]int64{a: 10}}))
	for _, from := range []map[store.TopicPartition]int64{{a: 11}, {b: 1}, {a: 10, b: 0}} {
		err := s.Record(ctx, &store.Batch{Deliveries: []store.Delivery{d}, From: from, Offsets: map[store.TopicPartition]int64{a: 12, b: 2}})
		if !errors.Is(err, store.ErrGap) {
			t.Errorf("from %v: %v", from, err)
		}
	}
	wantError(t, store.ErrNotFound)(s.Delivery(ctx, tenant, d.ID))
	must(t, s.Record(ctx, &store.Batch{From: map[store.TopicPartition]int64{a: 9}, Offsets: map[store.TopicPartition]int64{a: 12}}))
	same(t, "offsets", got(s.Offsets(ctx, "gap"))(t), map[store.TopicPartition]int64{a: 12})
}

func healthMovesForward(t *testing.T, s Store) {
	ctx := context.Background()
	at := func(id string, partition int32, next int64, state string) store.Health {
		h := store.Health{Tenant: tenant, SubscriptionID: id, Partition: partition, Next: next, UpdatedAt: now()}
		if state != "" {
			h.State = []byte(state)
		}
		return h
	}
	put := func(healths ...store.Health) {
		t.Helper()
		must(t, s.Record(ctx, &store.Batch{Health: slices.Clone(healths)}))
	}
	stored := func(partitions ...int32) []string {
		t.Helper()
		var out []string
		for _, h := range got(s.Health(ctx, partitions...))(t) {
			out = append(out, fmt.Sprintf("%s %d@%d %s", h.SubscriptionID, h.Partition, h.Next, h.State))
		}
		slices.Sort(out)
		return out
	}
	put(at("b", 1, 10, "b10"), at("a", 1, 20, "a20"), at("c", 2, 30, "c30"))
	put(at("b", 1, 9, "b9"), at("a", 1, 20, "a20 again"), at("c", 2, 31, ""))
	same(t, "health", stored(1, 2), []string{"a 1@20 a20 again", "b 1@10 b10"})
	same(t, "of another partition", stored(2), []string{})
	same(t, "of none", stored(), []string{})
	put(at("b", 3, 1, "b1"), at("c", 2, 30, "c30"))
	same(t, "after the topic got more partitions", stored(1, 2, 3), []string{"a 1@20 a20 again", "b 3@1 b1"})
	must(t, s.Maintain(ctx, now().Add(store.KeepHealth+time.Hour), store.Retention{}))
	same(t, "after a month without a change", stored(1, 2, 3), []string{})
}

func hostileBytes(t *testing.T, s Store) {
	ctx := context.Background()
	bad := "nul \x00 bad \xff" + strings.Repeat("é", 4096)
	d := newDelivery(tenant, now())
	d.EventID, d.EventType, d.SubscriptionID, d.Profile, d.Reason, d.LastError = bad, bad, bad, bad, webhook.Reason(bad), webhook.ErrorClass(bad)
	d.Generation, d.AttemptCount, d.ProfileVersion, d.LastTry, d.LastStatusCode = math.MaxUint32, math.MaxUint32, math.MaxUint32, math.MaxUint32, math.MaxInt
	d.NextAttemptAt, d.UpdatedAt = time.Unix(1<<60, 0), time.Time{}
	a := newAttempt(d, math.MaxUint32)
	a.TraceParent, a.Response, a.StatusCode, a.Try = bad, []byte(strings.Repeat(bad, 100)), math.MinInt, math.MaxUint32
	a.Outcome.NextAttemptAt = time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC)
	e := webhook.Event{ID: bad, Type: bad, Tenant: tenant, OrderingKey: bad, Data: []byte{0xff, 0}, Trace: webhook.TraceContext{Parent: bad, State: bad}}
	ancient := newDelivery(tenant, time.Time{})
	must(t, s.Record(ctx, &store.Batch{Deliveries: []store.Delivery{d, ancient}, Attempts: []webhook.Attempt{a}, Events: []webhook.Event{e}}))

	row := got(s.Delivery(ctx, tenant, d.ID))(t)
	if row.EventID != store.Text(bad) || row.LastStatusCode != math.MaxInt16 || row.AttemptCount != math.MaxUint32 || row.NextAttemptAt.Year() != 9998 {
		t.Errorf("stored %+v", row)
	}
	if rows := rowsOf(t, s, store.Delivery{Tenant: tenant, EventID: bad}); len(rows) != 1 {
		t.Errorf("%d rows are found by the original id", len(rows))
	}
	same(t, "payload", string(got(s.Event(ctx, tenant, bad))(t).Data), "\xff\x00")
	got(s.Delivery(ctx, tenant, ancient.ID))(t)
	wantError(t, store.ErrNotFound)(s.Subscription(ctx, bad, bad))
}

func filters(t *testing.T, s Store) {
	ctx := context.Background()
	at := now()
	var all []store.Delivery
	for i, status := range []webhook.Status{webhook.Pending, webhook.Delivered, webhook.DeadLetter, webhook.Cancelled, webhook.Delivered} {
		d := newDelivery(tenant, at.Add(time.Duration(-i)*time.Hour))
		d.Status, d.SubscriptionID, d.EventType = status, "s"+string(rune('0'+i%2)), "t"+string(rune('0'+i%3))
		d.Trigger = []webhook.Trigger{webhook.TriggerEvent, webhook.TriggerTest}[i/3]
		all = append(all, d)
	}
	record(t, s, all...)
	for _, c := range []struct {
		name   string
		filter store.DeliveryFilter
		want   []int
	}{
		{"all", store.DeliveryFilter{}, []int{0, 1, 2, 3, 4}},
		{"pending", store.DeliveryFilter{Status: webhook.Pending}, []int{0}},
		{"delivered", store.DeliveryFilter{Status: webhook.Delivered}, []int{1, 4}},
		{"dead letters", store.DeliveryFilter{Status: webhook.DeadLetter}, []int{2}},
		{"subscription", store.DeliveryFilter{SubscriptionID: "s1"}, []int{1, 3}},
		{"event", store.DeliveryFilter{EventID: all[2].EventID}, []int{2}},
		{"event type", store.DeliveryFilter{EventType: "t0"}, []int{0, 3}},
		{"tests", store.DeliveryFilter{Trigger: webhook.TriggerTest}, []int{3, 4}},
		{"of events", store.DeliveryFilter{Trigger: webhook.TriggerEvent}, []int{0, 1, 2}},
		{"tests of a subscription", store.DeliveryFilter{Trigger: webhook.TriggerTest, SubscriptionID: "s1"}, []int{3}},
		{"of events, of a subscription", store.DeliveryFilter{Trigger: webhook.TriggerEvent, SubscriptionID: "s1"}, []int{1}},
		{"delivered, of a subscription", store.DeliveryFilter{Status: webhook.Delivered, SubscriptionID: "s0"}, []int{4}},
		{"from, inclusive", store.DeliveryFilter{From: all[2].CreatedAt}, []int{0, 1, 2}},
		{"to, exclusive", store.DeliveryFilter{To: all[2].CreatedAt}, []int{3, 4}},
		{"together", store.DeliveryFilter{Status: webhook.Delivered, SubscriptionID: "s1", EventType: "t1", From: all[4].CreatedAt, To: at}, []int{1}},
		{"nothing", store.DeliveryFilter{EventType: "none"}, nil},
	} {
		var want []store.Delivery
		counts := map[webhook.Status]int64{}
		for _, i := range c.want {
			want = append(want, all[i])
			counts[all[i].Status]++
		}
		rows, next, err := s.Deliveries(ctx, tenant, c.filter, store.Page{})
		must(t, err)
		same(t, c.name, rows, want)
		same(t, c.name+": next page", next, "")
		same(t, c.name+": counts", got(s.CountDeliveries(ctx, tenant, c.filter))(t), counts)
		for status := range counts {
			counts[status] = min(counts[status], 1)
		}
		same(t, c.name+": counts up to one", got(s.CountDeliveriesUpTo(ctx, tenant, c.filter, 1))(t), counts)
	}
}

func deliveryPages(t *testing.T, s Store) {
	at := now()
	var want, mixed []string
	var rows []store.Delivery
	for i := range 9 {
		// Three of each time, over several days, so that pages are cut within a time and between partitions.
		d := newDelivery(tenant, at.Add(time.Duration(-i/3)*20*time.Hour))
		rows, want = append(rows, d), append(want, d.ID.String())
		d = newDelivery(tenant, d.CreatedAt)
		d.SubscriptionID, d.Status = "mixed", []webhook.Status{webhook.Delivered, webhook.DeadLetter}[i%2]
		rows, mixed = append(rows, d), append(mixed, d.ID.String())
	}
	record(t, s, rows...)
	place := func(d store.Delivery) (string, time.Time) { return d.ID.String(), d.CreatedAt }
	pages(t, "deliveries of a subscription, delivered and not", mixed, func(p store.Page) ([]store.Delivery, string, error) {
		return s.Deliveries(context.Background(), tenant, store.DeliveryFilter{SubscriptionID: "mixed"}, p)
	}, place)
	read := func(p store.Page) ([]store.Delivery, string, error) {
		return s.Deliveries(context.Background(), tenant, store.DeliveryFilter{Status: webhook.Pending}, p)
	}
	pages(t, "deliveries", want, read, place)
	record(t, s, newDelivery(tenant, at.Add(time.Second)))
	_, next, err := read(store.Page{Limit: 4})
	must(t, err)
	record(t, s, newDelivery(tenant, at.Add(2*time.Second)))
	rest, _, err := read(store.Page{Cursor: next, Limit: 100})
	must(t, err)
	if len(rest) != 6 {
		t.Errorf("a row inserted between two pages: the second has %d rows, want 6", len(rest))
	}
}

func badCursors(t *testing.T, s Store) {
	ctx := context.Background()
	for _, cursor := range []string{"?", "AA", "AQ", store.Cursor(now(), "no uuid"), store.Cursor(now(), "x\x00"), store.Cursor(time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC), uuid.NewString())} {
		if _, _, err := s.Deliveries(ctx, tenant, store.DeliveryFilter{}, store.Page{Cursor: cursor}); !errors.Is(err, store.ErrBadCursor) {
			t.Errorf("cursor %q: %v", cursor, err)
		}
	}
	if _, _, err := s.Secrets(ctx, tenant, store.Page{Cursor: "?"}); !errors.Is(err, store.ErrBadCursor) {
		t.Errorf("secrets: %v", err)
	}
}

func deliveriesAreOfATenant(t *testing.T, s Store) {
	ctx := context.Background()
	d := newDelivery(tenant, now())
	record(t, s, d)
	wantError(t, store.ErrNotFound)(s.Delivery(ctx, "other", d.ID))
	rows, _, err := s.Deliveries(ctx, "other", store.DeliveryFilter{}, store.Page{})
	must(t, err)
	if len(rows) > 0 {
		t.Errorf("another tenant sees %v", rows)
	}
	same(t, "counts of another tenant", got(s.CountDeliveries(ctx, "other", store.DeliveryFilter{}))(t), map[webhook.Status]int64{})
}

func retention(t *testing.T, s Store) {
	ctx := context.Background()
	at := now()
	const day = 24 * time.Hour
	var rows []store.Delivery
	b := &store.Batch{}
	for _, age := range []time.Duration{0, 3 * day, 9 * day, 100 * day, -2 * day, -300 * day} {
		d := newDelivery(tenant, at.Add(-age))
		rows = append(rows, d)
		b.Events = append(b.Events, webhook.Event{ID: d.EventID, Tenant: tenant, Data: []byte(`1`), RecordedAt: d.CreatedAt})
	}
	b.Deliveries = slices.Clone(rows)
	must(t, s.Record(ctx, b))
	count := func() int64 {
		return got(s.CountDeliveries(ctx, tenant, store.DeliveryFilter{}))(t)[webhook.Pending]
	}
	must(t, s.Maintain(ctx, at, store.Retention{}))
	if n := count(); n != 6 {
		t.Errorf("%d deliveries where nothing expires, want 6", n)
	}
	keep := store.Retention{Deliveries: 8 * day, Events: 2 * day}
	for range 2 {
		must(t, s.Maintain(ctx, at, keep))
		if n := count(); n != 4 {
			t.Errorf("%d deliveries are left, want 4", n)
		}
		got(s.Event(ctx, tenant, rows[0].EventID))(t)
		wantError(t, store.ErrNotFound)(s.Event(ctx, tenant, rows[2].EventID))
		wantError(t, store.ErrNotFound)(s.Event(ctx, tenant, rows[3].EventID))
	}
	// As time goes on, the days come nearer for which rows had come too early.
	must(t, s.Maintain(ctx, at.Add(300*day), store.Retention{Deliveries: 2 * day}))
	if n := count(); n != 1 {
		t.Errorf("%d deliveries are left 300 days later, want 1", n)
	}
}

func concurrentRecorders(t *testing.T, s Store) {
	const writers, deliveries = 3, 40
	ctx := context.Background()
	var rows []store.Delivery
	for range deliveries {
		rows = append(rows, newDelivery(tenant, now()))
	}
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for round := range 5 {
				b := &store.Batch{Offsets: map[store.TopicPartition]int64{{Topic: "x", Partition: int32(w)}: int64(round)}}
				for i := range rows {
					d := rows[(i+w*7)%deliveries]
					d.AttemptCount, d.UpdatedAt = uint32(round), d.CreatedAt.Add(time.Duration(round)*time.Second)
					b.Deliveries = append(b.Deliveries, d)
				}
				if err := s.Record(ctx, b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Go(func() {
		for range 20 {
			if _, _, err := s.Deliveries(ctx, tenant, store.DeliveryFilter{}, store.Page{}); err != nil {
				t.Error(err)
			}
			if err := s.PutTenant(ctx, webhook.Tenant{ID: fresh("tenant")}); err != nil {
				t.Error(err)
			}
		}
	})
	all.Wait()
	found, _, err := s.Deliveries(ctx, tenant, store.DeliveryFilter{}, store.Page{Limit: 1000})
	must(t, err)
	if len(found) != deliveries {
		t.Errorf("%d rows, want %d", len(found), deliveries)
	}
	for _, d := range found {
		if d.AttemptCount != 4 {
			t.Errorf("%s stands at attempt %d", d.ID, d.AttemptCount)
		}
	}
}
