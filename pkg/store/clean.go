package store

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hookline/hookline/pkg/webhook"
)

// Bounds of what is stored. Text is indexed, and an index row has at most 2,700 bytes; bodies are bounded long before.
const (
	maxText = 1 << 10
	maxBody = 64 << 10
	maxData = 4 << 20
)

var (
	earliest = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	latest   = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)
)

// Text makes a string storable as text: valid UTF-8 without U+0000, at most 1 KiB.
func Text(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	if strings.IndexByte(s, 0) >= 0 {
		s = strings.ReplaceAll(s, "\x00", "")
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "")
	}
	return s
}

// Time makes a time storable: UTC, whole microseconds, within the years 1970 to 9998. A zero time stays zero.
func Time(t time.Time) time.Time {
	switch {
	case t.IsZero():
		return time.Time{}
	case t.Before(earliest):
		return earliest
	case !t.Before(latest):
		return latest.Add(-time.Microsecond)
	}
	return t.UTC().Truncate(time.Microsecond)
}

// Clean makes the rows storable in place, so that no receiver or producer can wedge the audit with bytes that a database
// refuses. What is cut off is lost to the audit alone; the records in Kafka keep it.
func (b *Batch) Clean() {
	for i := range b.Deliveries {
		b.Deliveries[i].clean()
	}
	for i := range b.Attempts {
		cleanAttempt(&b.Attempts[i])
	}
	for i := range b.Events {
		cleanEvent(&b.Events[i])
	}
	for i := range b.Health {
		h := &b.Health[i]
		h.Tenant, h.SubscriptionID, h.UpdatedAt = Text(h.Tenant), Text(h.SubscriptionID), created(h.UpdatedAt)
	}
}

func (d *Delivery) clean() {
	for _, s := range []*string{&d.Tenant, &d.EventID, &d.EventType, &d.SubscriptionID, &d.Profile} {
		*s = Text(*s)
	}
	d.Status = webhook.Status(Text(string(d.Status)))
	d.Reason = webhook.Reason(Text(string(d.Reason)))
	d.Trigger = webhook.Trigger(Text(string(d.Trigger)))
	d.LastError = webhook.ErrorClass(Text(string(d.LastError)))
	d.LastStatusCode = statusCode(d.LastStatusCode)
	d.Generation = min(d.Generation, maxGeneration)
	d.LastTry = min(d.LastTry, maxTry)
	d.CreatedAt, d.UpdatedAt, d.NextAttemptAt = created(d.CreatedAt), created(d.UpdatedAt), Time(d.NextAttemptAt)
}

func cleanAttempt(a *webhook.Attempt) {
	for _, s := range []*string{&a.Tenant, &a.EventID, &a.EventType, &a.SubscriptionID, &a.Profile, &a.TraceParent} {
		*s = Text(*s)
	}
	a.Trigger = webhook.Trigger(Text(string(a.Trigger)))
	a.Error = webhook.ErrorClass(Text(string(a.Error)))
	a.Outcome.Status = webhook.Status(Text(string(a.Outcome.Status)))
	a.Outcome.Reason = webhook.Reason(Text(string(a.Outcome.Reason)))
	a.StatusCode = statusCode(a.StatusCode)
	a.Response = a.Response[:min(len(a.Response), maxBody)]
	a.DeliveryCreatedAt, a.StartedAt, a.Outcome.NextAttemptAt = created(a.DeliveryCreatedAt), Time(a.StartedAt), Time(a.Outcome.NextAttemptAt)
}

func cleanEvent(e *webhook.Event) {
	for _, s := range []*string{&e.ID, &e.Type, &e.Tenant, &e.OrderingKey, &e.Trace.Parent, &e.Trace.State, &e.Source.Topic} {
		*s = Text(*s)
	}
	// A payload that was cut would pass for the real one: none is better.
	if len(e.Data) > maxData {
		e.Data = nil
	}
	if len(e.Metadata) > maxData {
		e.Metadata = nil
	}
	e.Timestamp, e.RecordedAt = Time(e.Timestamp), created(e.RecordedAt)
}

// created is the time of a column that partitions or orders rows, which is never null.
func created(t time.Time) time.Time {
	if t.IsZero() {
		return earliest
	}
	return Time(t)
}

func statusCode(code int) int { return max(0, min(code, 1<<15-1)) }

// AttemptCreatedAt is the time that says in which time partition an attempt is: the one in its UUIDv7, so that the same
// record is always the same row.
func AttemptCreatedAt(a *webhook.Attempt) time.Time {
	if a.ID.Version() == 7 {
		seconds, nanos := a.ID.Time().UnixTime()
		return created(time.Unix(seconds, nanos))
	}
	if !a.StartedAt.IsZero() {
		return created(a.StartedAt)
	}
	return created(a.DeliveryCreatedAt)
}
