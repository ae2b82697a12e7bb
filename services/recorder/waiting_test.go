package recorder

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
	"pgregory.net/rapid"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/topic"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// Whatever waits, and for however long: every delivery's row ends as if each record had been written at once, and a position is
// never further than what was written or told.
func TestWaitingChangesNothingThatIsWritten(t *testing.T) {
	names := topic.WithPrefix("")
	rapid.Check(t, func(t *rapid.T) {
		var w waiting
		now := noon
		want, got := map[uuid.UUID]store.Delivery{}, map[uuid.UUID]store.Delivery{}
		written := map[string]bool{}
		merge := func(rows map[uuid.UUID]store.Delivery, row store.Delivery) {
			old, known := rows[row.ID]
			if known {
				old.Merge(row)
				row = old
			}
			rows[row.ID] = row
		}
		offset := map[string]int64{}
		record := func(name string, value []byte) *kgo.Record {
			now = now.Add(time.Millisecond)
			offset[name]++
			return &kgo.Record{Topic: name, Offset: offset[name] - 1, Value: value, Timestamp: now}
		}
		check := func(b *batch) {
			for i, row := range b.Deliveries {
				merge(got, row)
				if r := b.deliveryOf[i]; r.Topic == names.Deliveries {
					written[fmt.Sprint(r.Offset)] = true
				}
			}
		}
		b := newBatch(room{})
		for range rapid.IntRange(1, 40).Draw(t, "records") {
			now = now.Add(time.Duration(rapid.IntRange(0, 1500).Draw(t, "ms")) * time.Millisecond)
			event := fmt.Sprint("event", rapid.IntRange(0, 3).Draw(t, "event"))
			d := &webhook.Delivery{ID: webhook.DeliveryID("t", event, "s"), SubscriptionID: "s", CreatedAt: noon, Event: webhook.Event{ID: event, Tenant: "t"},
				Attempts: rapid.Uint32Range(0, 2).Draw(t, "attempts"), Generation: rapid.Uint32Range(0, 1).Draw(t, "generation")}
			if rapid.Bool().Draw(t, "an attempt") {
				a := newAttempt(d, d.Attempts+1, rapid.SampledFrom(webhook.Statuses()).Draw(t, "status"))
				r := record(names.Attempts, wire.EncodeAttempt(a))
				one := newBatch(room{})
				one.add(r, names, &waiting{})
				merge(want, one.Deliveries[0])
				b.add(r, names, &w)
			} else {
				r := record(names.Deliveries, wire.EncodeDelivery(d))
				merge(want, delivery(d, r))
				b.add(r, names, &w)
				w.rows[len(w.rows)-1].read = now
			}
			for row, ok := w.next(now, false); ok; row, ok = w.next(now, false) {
				if !row.told && now.Sub(row.read) < shortestWait {
					t.Fatalf("a delivery waited %v", now.Sub(row.read))
				}
				b.addWaited(row)
			}
			if due := w.due(now); !due.IsZero() && due.After(now.Add(longestWait)) {
				t.Fatal("a delivery may wait for too long")
			}
			if next := b.Offsets[store.TopicPartition{Topic: names.Deliveries}]; int(next)+len(w.rows) != int(offset[names.Deliveries]) {
				t.Fatalf("position %d with %d waiting of %d", next, len(w.rows), offset[names.Deliveries])
			}
			check(b)
		}
		for row, ok := w.next(now, true); ok; row, ok = w.next(now, true) {
			b.addWaited(row)
		}
		check(b)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("got  %v\nwant %v", got, want)
		}
		if len(w.byID) > 0 || w.bytes != 0 {
			t.Fatalf("left behind: %d ids, %d bytes", len(w.byID), w.bytes)
		}
	})
}

func TestWhatWaitsIsBounded(t *testing.T) {
	var w waiting
	row := store.Delivery{ID: uuid.New()}
	for range mostWaiting + 10 {
		w.add(&kgo.Record{}, row, noon)
	}
	w.add(&kgo.Record{Value: make([]byte, mostWaitingBytes+1)}, row, noon)
	released := 0
	for _, ok := w.next(noon, false); ok; _, ok = w.next(noon, false) {
		released++
	}
	if len(w.rows) > 0 || released != mostWaiting+11 {
		t.Errorf("%d released, %d wait with a record beyond all bounds among them", released, len(w.rows))
	}
}

func TestADeliveryThatEndsSoonIsWrittenOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stop := w.start()
		defer stop()
		soon, late := newDelivery("soon"), newDelivery("late")
		w.produce(w.delivery(soon), w.delivery(late))
		time.Sleep(500 * time.Millisecond)
		w.produce(w.attempt(newAttempt(soon, 1, webhook.Delivered)))
		time.Sleep(300 * time.Millisecond)
		if n := len(w.rows()); n != 1 {
			t.Errorf("%d rows before the second has waited, want the one that ended", n)
		}
		time.Sleep(time.Second)
		if row := w.row(late); row.Status != webhook.Pending {
			t.Errorf("the one that waits is %s", row.Status)
		}
		if n := w.value("hookline.recorder.rows", "table=deliveries"); n != 2 {
			t.Errorf("%v rows were written for two deliveries", n)
		}
	})
}

func TestWhatWaitsWhenItStopsIsWrittenOrReadAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stop := w.start()
		time.Sleep(time.Second)
		w.produce(w.deliveries(0, 10)...)
		time.Sleep(200 * time.Millisecond)
		stop()
		if n := len(w.rows()); n != 10 {
			t.Errorf("%d rows after a stop, want 10", n)
		}
		killed := w.service()
		killed.cfg.DrainTimeout = 0
		stop = w.run(killed)
		time.Sleep(time.Second)
		w.produce(w.deliveries(10, 20)...)
		time.Sleep(200 * time.Millisecond)
		w.db.readOnly.Store(true)
		stop()
		w.db.readOnly.Store(false)
		stop = w.start()
		defer stop()
		time.Sleep(5 * time.Second)
		if n := len(w.rows()); n != 20 {
			t.Errorf("%d rows after a kill, want 20", n)
		}
	})
}

func TestEventsAreFoundWhetherAnybodyWantedThemOrNot(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		must(t, w.db.PutTenant(ctx, webhook.Tenant{ID: "known"}))
		stop := w.start()
		defer stop()
		events := func(value string) *kgo.Record {
			return &kgo.Record{Topic: w.topics.Events, Partition: 1, Value: []byte(value)}
		}
		nameless := events(`{"event_type":"a.b","data":{"n":1.0}}`)
		w.produce(nameless, events(`{"event_id":"mine","event_type":"a.b","tenant":"known","data":1}`),
			events(`{"event_id":"theirs","event_type":"a.b","tenant":"nobody","data":1}`), events(`not an event`))
		// A fan-out: each delivery carries its event, which has been on the topic.
		var records []*kgo.Record
		for i := range 5 {
			d := newDelivery("mine")
			d.ID, d.Event.Source = webhook.DeliveryID("known", "mine", fmt.Sprint(i)), webhook.Position{Topic: w.topics.Events, Offset: 1}
			records = append(records, w.delivery(d))
		}
		tested := newDelivery("never on the topic")
		w.produce(append(records, w.delivery(tested))...)
		time.Sleep(5 * time.Second)
		id := webhook.DerivedEventID(webhook.Position{Topic: nameless.Topic, Partition: nameless.Partition, Offset: nameless.Offset})
		for tenant, want := range map[string]string{webhook.DefaultTenant: id, "known": "mine"} {
			if _, err := w.db.Event(ctx, tenant, want); err != nil {
				t.Errorf("event %s of %s: %v", want, tenant, err)
			}
		}
		if _, err := w.db.Event(ctx, webhook.DefaultTenant, tested.Event.ID); err != nil {
			t.Errorf("an event that was only in a delivery: %v", err)
		}
		if _, err := w.db.Event(ctx, "nobody", "theirs"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("an event of a tenant that does not exist: %v", err)
		}
		if n := w.value("hookline.recorder.rows", "table=events"); n != 3 {
			t.Errorf("%v event rows were written, want each once", n)
		}
		must(t, w.db.PutTenant(ctx, webhook.Tenant{ID: "nobody"}))
		w.produce(events(`{"event_id":"theirs now","event_type":"a.b","tenant":"nobody","data":1}`))
		time.Sleep(5 * time.Second)
		if _, err := w.db.Event(ctx, "nobody", "theirs now"); err != nil {
			t.Errorf("once the tenant exists: %v", err)
		}
	})
}

func TestABacklogLargerThanWhatMayWaitIsWritten(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var records []*kgo.Record
		for i := range 60 {
			d := newDelivery(fmt.Sprintf("event-%03d", i))
			d.Event.Data = []byte(`"` + strings.Repeat("x", 900_000) + `"`)
			records = append(records, w.delivery(d), w.attempt(newAttempt(d, 1, webhook.Delivered)))
		}
		w.produce(records...)
		time.Sleep(time.Minute)
		stop := w.start()
		defer stop()
		time.Sleep(time.Minute)
		delivered := 0
		for _, row := range w.rows() {
			if row.Status == webhook.Delivered {
				delivered++
			}
		}
		time.Sleep(lagInterval)
		if lag := w.value("hookline.consumer.lag.records", "group=recorder"); delivered != 60 || lag != 0 {
			t.Errorf("%d of 60 deliveries are recorded, and %v records are not", delivered, lag)
		}
	})
}
