package recorder

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/topic"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// maxBytes bounds the values of a batch, whatever their number.
const maxBytes = 32 << 20

// batch is what is written together: the rows that records make, and where they bring the positions.
type batch struct {
	store.Batch
	// The records that the rows of Deliveries, Attempts and Events came from.
	deliveryOf, attemptOf, eventOf []*kgo.Record
	// unreadable records go to the rejected topic before the positions pass them.
	unreadable []rejection
	// disable are the subscriptions whose contract or receiver asks for it, by the latest attempt that does.
	disable map[subscription]request

	records int
	bytes   int
	newest  time.Time
	number  int // counts the batches of a session
}

type subscription struct{ tenant, id string }

// room is how many rows of each kind a batch has.
type room struct{ deliveries, attempts, events int }

func (b *batch) room() room { return room{len(b.Deliveries), len(b.Attempts), len(b.Events)} }

// newBatch makes room for as much as the one before it had.
func newBatch(r room) *batch {
	return &batch{
		Batch: store.Batch{
			Deliveries: make([]store.Delivery, 0, r.deliveries), Attempts: make([]webhook.Attempt, 0, r.attempts), Events: make([]webhook.Event, 0, r.events),
			Offsets: map[store.TopicPartition]int64{}, From: map[store.TopicPartition]int64{},
		},
		deliveryOf: make([]*kgo.Record, 0, r.deliveries), attemptOf: make([]*kgo.Record, 0, r.attempts), eventOf: make([]*kgo.Record, 0, r.events),
		disable: map[subscription]request{},
	}
}

// add takes a record in, or lets it wait. It cannot fail: what cannot be read is taken in as unreadable.
func (b *batch) add(r *kgo.Record, names topic.Names, w *waiting) {
	var reason string
	var err error
	switch r.Topic {
	case names.Events:
		b.addEventRecord(r)
	case names.Deliveries:
		var d *webhook.Delivery
		if d, err = wire.DecodeDelivery(r.Value); err == nil {
			if d.Event.Source.Topic != names.Events {
				b.addEvent(r, &d.Event)
			}
			w.add(r, delivery(d, r), time.Now())
			return
		}
		reason = reasonDelivery
	case names.Attempts:
		reason, err = reasonAttempt, b.addAttempt(r, w)
	case names.DeadLetters:
		reason, err = reasonDeadLetter, b.addDeadLetter(r, names)
	}
	b.passed(r)
	if err != nil {
		b.unreadable = append(b.unreadable, rejection{record: r, reason: reason, err: err})
	}
}

// passed moves the position of the record's partition behind it.
func (b *batch) passed(r *kgo.Record) {
	place := store.TopicPartition{Topic: r.Topic, Partition: r.Partition}
	b.Offsets[place] = max(b.Offsets[place], r.Offset+1)
	b.records++
	b.bytes += len(r.Value)
	if r.Timestamp.After(b.newest) {
		b.newest = r.Timestamp
	}
}

// addWaited takes in a delivery that has waited.
func (b *batch) addWaited(w waitingRow) {
	b.passed(w.record)
	if !w.told {
		b.addRow(w.record, w.row)
	}
}

// addEventRecord takes in an event as the router reads it. What the router refuses is no event, and the router says so.
func (b *batch) addEventRecord(r *kgo.Record) {
	if e, err := event.FromRecord(r); err == nil {
		b.addEvent(r, &e.Event)
	}
}

// delivery is what a deliveries record says: the delivery exists, and is pending.
func delivery(d *webhook.Delivery, r *kgo.Record) store.Delivery {
	return store.Delivery{
		ID: d.ID, Tenant: d.Event.Tenant, EventID: d.Event.ID, EventType: d.Event.Type, SubscriptionID: d.SubscriptionID,
		Profile: d.Profile, ProfileVersion: d.ProfileVersion, Generation: d.Generation, Trigger: d.Trigger, Status: webhook.Pending,
		CreatedAt: d.CreatedAt, UpdatedAt: r.Timestamp, AttemptCount: d.Attempts,
	}
}

func (b *batch) addAttempt(r *kgo.Record, w *waiting) error {
	a, err := wire.DecodeAttempt(r.Value)
	if err != nil {
		return err
	}
	row := store.Delivery{
		ID: a.DeliveryID, Tenant: a.Tenant, EventID: a.EventID, EventType: a.EventType, SubscriptionID: a.SubscriptionID,
		Profile: a.Profile, ProfileVersion: a.ProfileVersion, Generation: a.Generation, Trigger: a.Trigger,
		Status: a.Outcome.Status, Reason: a.Outcome.Reason, CreatedAt: a.DeliveryCreatedAt, UpdatedAt: r.Timestamp,
		AttemptCount: a.Number, NextAttemptAt: a.Outcome.NextAttemptAt,
	}
	if a.Number > 0 {
		row.LastAttempt, row.LastTry, row.LastStatusCode, row.LastError = a.Number, a.Try, a.StatusCode, a.Error
	}
	b.addRow(r, row)
	w.absorb(a, row, r.Timestamp)
	b.Attempts = append(b.Attempts, *a)
	b.attemptOf = append(b.attemptOf, r)
	return nil
}

func (b *batch) addDeadLetter(r *kgo.Record, names topic.Names) error {
	l, err := wire.DecodeDeadLetter(r.Value)
	if err != nil {
		return err
	}
	row := delivery(&l.Delivery, r)
	row.Status, row.Reason = webhook.DeadLetter, l.Reason
	if l.StatusCode != 0 || l.Error != webhook.ErrorNone {
		row.LastAttempt, row.LastStatusCode, row.LastError = l.Delivery.Attempts, l.StatusCode, l.Error
	}
	b.addRow(r, row)
	if l.Delivery.Event.Source.Topic != names.Events {
		b.addEvent(r, &l.Delivery.Event)
	}
	return nil
}

func (b *batch) addRow(r *kgo.Record, row store.Delivery) {
	b.Deliveries = append(b.Deliveries, row)
	b.deliveryOf = append(b.deliveryOf, r)
}

// addEvent takes in an event: from the events topic, or from a delivery whose event has never been there.
func (b *batch) addEvent(r *kgo.Record, e *webhook.Event) {
	b.Events = append(b.Events, *e)
	b.eventOf = append(b.eventOf, r)
}

// without leaves out the rows that the database refuses, and returns their records, each once.
func (b *batch) without(refused []store.RefusedRow) []rejection {
	out := map[store.Table]map[int]error{store.TableDeliveries: {}, store.TableAttempts: {}, store.TableEvents: {}}
	for _, row := range refused {
		out[row.Table][row.Index] = row.Err
	}
	causes := map[*kgo.Record]error{}
	b.Deliveries, b.deliveryOf = keep(b.Deliveries, b.deliveryOf, out[store.TableDeliveries], causes)
	b.Attempts, b.attemptOf = keep(b.Attempts, b.attemptOf, out[store.TableAttempts], causes)
	b.Events, b.eventOf = keep(b.Events, b.eventOf, out[store.TableEvents], causes)
	rejections := make([]rejection, 0, len(causes))
	for r, err := range causes {
		rejections = append(rejections, rejection{record: r, reason: reasonRefused, err: err})
	}
	return rejections
}

func keep[T any](rows []T, records []*kgo.Record, refused map[int]error, causes map[*kgo.Record]error) ([]T, []*kgo.Record) {
	if len(refused) == 0 {
		return rows, records
	}
	var keptRows []T
	var keptRecords []*kgo.Record
	for i := range rows {
		if err, gone := refused[i]; gone {
			causes[records[i]] = err
			continue
		}
		keptRows, keptRecords = append(keptRows, rows[i]), append(keptRecords, records[i])
	}
	return keptRows, keptRecords
}
