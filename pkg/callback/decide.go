package callback

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/source"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// Patience is how long the next follow-up waits for the end of what is before it. It is longer than the schedules of the built-in
// profiles; an end that nobody has told of by then has got lost with what it was about.
const Patience = 24 * time.Hour

// grace is how long a delivery that is called back too late is still known, so that the answer can say so.
const grace = 24 * time.Hour

// Rules say what follows from a call, and who will get an event.
type Rules interface {
	// Follow evaluates the rules of the call's profile. What could not be evaluated is left out.
	Follow(c *webhook.Call) (key string, requested, followUps []source.FollowUp)
	// Deliveries are those that an event will become.
	Deliveries(e *webhook.Event) []uuid.UUID
}

// Act is what is to be done about a group. Events are produced first; once they are acknowledged, the records are, in their order.
// Doing it again, or only the beginning of it, is harmless: it has the same ids, and is decided again.
type Act struct {
	Events  []Emission
	Records []Record
	// What it is about, for metrics.
	Matched, Repeated, Released int
}

// Emission is an event, and the trace context of the call that it follows from where that is another trace.
type Emission struct {
	Event webhook.Event
	Link  string
}

// Record is one of the callbacks topic; a nil value deletes.
type Record struct {
	Key   string
	Value []byte
}

// Decide says what is to be done about a group now. It changes nothing: what is done comes back through [Book.Apply].
func (b *Book) Decide(name string, now time.Time, rules Rules) Act {
	b.mu.Lock()
	defer b.mu.Unlock()
	g := b.groups[name]
	if g == nil {
		return Act{}
	}
	d := &decision{
		name: name, now: now, rules: rules, ended: b.ended,
		expectations: slices.Clone(g.expectations), queue: slices.Clone(g.followUps), flight: g.flight,
	}
	for _, c := range g.calls {
		d.match(c)
	}
	d.land()
	d.release()
	d.expire()
	return d.act
}

// decision works on copies of a group's lists.
type decision struct {
	name  string
	now   time.Time
	rules Rules
	ended map[uuid.UUID]end

	expectations []*webhook.Expectation
	queue        []*webhook.FollowUp
	flight       *webhook.Flight
	act          Act
}

func (d *decision) record(key string, value []byte) {
	d.act.Records = append(d.act.Records, Record{Key: key, Value: value})
}

// match gives a call the oldest delivery that it may be about: bodies may be alike, and then nothing tells their deliveries apart.
func (d *decision) match(c *webhook.Call) {
	defer func() { d.record(CallKey(d.name, c.ID), nil) }()
	if slices.ContainsFunc(d.expectations, func(x *webhook.Expectation) bool { return x.Call == c.ID }) {
		return
	}
	i := slices.IndexFunc(d.expectations, func(x *webhook.Expectation) bool {
		return x.Call == uuid.Nil && x.SubscriptionID == c.SubscriptionID && x.Sent == c.Sent && c.At.Before(x.Until)
	})
	if i < 0 {
		d.act.Repeated++
		return
	}
	matched := *d.expectations[i]
	matched.Call = c.ID
	d.expectations[i] = &matched
	d.act.Matched++
	key, requested, followUps := d.rules.Follow(c)
	within, link := matched.Trace.Join(c.TraceParent)
	event := func(f source.FollowUp) webhook.Event {
		return webhook.Event{
			ID: webhook.FollowUpID(matched.Delivery, f.Rule), Type: f.Type, Tenant: c.Tenant, OrderingKey: key, Timestamp: c.At, Data: f.Data, Trace: within,
			Metadata: webhook.Follows{EventID: matched.EventID, DeliveryID: matched.Delivery, Rule: f.Rule}.Metadata(),
		}
	}
	for _, f := range requested {
		d.act.Events = append(d.act.Events, Emission{Event: event(f), Link: link})
	}
	for _, f := range followUps {
		next := &webhook.FollowUp{Event: event(f), Delivery: matched.Delivery, At: c.At}
		if !slices.ContainsFunc(d.queue, func(q *webhook.FollowUp) bool { return q.Event.ID == next.Event.ID }) {
			d.queue = append(d.queue, next)
			d.record(followUpKey(d.name, next.Event.ID), wire.EncodeFollowUp(next))
		}
	}
	d.record(matchKey(d.name, matched.Delivery), wire.EncodeExpectation(&matched))
}

// land ends the flight whose deliveries have ended. One whose subscription wants it no more is not waited for.
func (d *decision) land() {
	if d.flight == nil {
		return
	}
	i := slices.IndexFunc(d.queue, func(f *webhook.FollowUp) bool { return f.Event.ID == d.flight.EventID })
	if i >= 0 && d.now.Sub(d.flight.Since) < Patience {
		wanted := d.rules.Deliveries(&d.queue[i].Event)
		for _, delivery := range d.flight.Deliveries {
			if _, ended := d.ended[delivery]; !ended && slices.Contains(wanted, delivery) {
				return
			}
		}
	}
	if i >= 0 {
		d.pop(i)
	}
	d.record(flightKey(d.name), nil)
	for _, delivery := range d.flight.Deliveries {
		d.record(EndedKey(delivery), nil)
	}
	d.flight = nil
}

func (d *decision) pop(i int) {
	d.record(followUpKey(d.name, d.queue[i].Event.ID), nil)
	d.queue = slices.Delete(d.queue, i, i+1)
}

// release sends the next follow-up on its way, and those that nobody wants.
func (d *decision) release() {
	for d.flight == nil && len(d.queue) > 0 {
		next := d.queue[0]
		if _, ended := d.ended[next.Delivery]; !ended && d.now.Sub(next.At) < Patience {
			return
		}
		d.act.Released++
		d.act.Events = append(d.act.Events, Emission{Event: next.Event})
		deliveries := d.rules.Deliveries(&next.Event)
		if len(deliveries) == 0 {
			d.pop(0)
			continue
		}
		d.flight = &webhook.Flight{EventID: next.Event.ID, Deliveries: deliveries, Since: d.now}
		d.record(flightKey(d.name), wire.EncodeFlight(d.flight))
	}
}

// expire forgets deliveries that can be called back no more, once nothing waits for them.
func (d *decision) expire() {
	for _, x := range d.expectations {
		if d.now.Before(x.Until.Add(grace)) || slices.ContainsFunc(d.queue, func(f *webhook.FollowUp) bool { return f.Delivery == x.Delivery }) {
			continue
		}
		d.record(matchKey(d.name, x.Delivery), nil)
		d.record(ExpectationKey(d.name, x.Delivery), nil)
		d.record(EndedKey(x.Delivery), nil)
	}
}
