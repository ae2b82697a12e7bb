// Package telemetry declares every metric, starts OpenTelemetry, and carries trace context through Kafka records. Ids,
// codes, sizes and times only: no payload, no response body, no URL query, no secret.
package telemetry

import (
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// Metrics are all of Hookline's metrics. Their Prometheus names are the names given in [NewMetrics] with dots as
// underscores, then the unit where one is set, then _total for counters. Some of them are part of the outside interface:
// a test holds the names that Prometheus sees.
type Metrics struct {
	Events            metric.Int64Counter       // outcome: routed, unmatched, rejected
	Rejected          metric.Int64Counter       // topic, reason
	FilterErrors      metric.Int64Counter       // filters that could not be evaluated for an event
	Deliveries        metric.Int64Counter       // status
	Attempts          metric.Int64Counter       // outcome: delivered, retry, dead_letter, cancelled
	AttemptDuration   metric.Float64Histogram   // seconds
	Inflight          metric.Int64UpDownCounter // HTTP attempts under way
	Deferred          metric.Int64Counter       // reason
	Duplicates        metric.Int64Counter       // trips dropped because they had been seen
	RetriesWaiting    metric.Int64Gauge         // partition
	RetriesOverdue    metric.Float64Gauge       // seconds the oldest due retry has waited; partition
	RetriesDue        metric.Int64Gauge         // retries that are due and not taken to fire; partition
	RetriesFired      metric.Int64Counter       //
	RetriesForward    metric.Int64Counter       // due retries that went before others
	RebuildRemaining  metric.Int64Gauge         // records to apply before anything fires; partition
	SchedulerRewinds  metric.Int64Counter       // reason
	ConsumerLag       metric.Int64Gauge         // group
	RecorderLag       metric.Float64Gauge       // seconds between a record's timestamp and its commit
	RecorderRows      metric.Int64Counter       // table
	ConfigOffset      metric.Int64Gauge         // offset of the config topic that is applied
	IngestRequests    metric.Int64Counter       // code
	SourceRequests    metric.Int64Counter       // outcome: accepted, rejected, refused; reason
	Callbacks         metric.Int64Counter       // outcome: accepted, repeated, refused; reason
	FollowUps         metric.Int64Counter       // follow-ups released
	FollowUpsWaiting  metric.Int64Gauge         // follow-ups that wait for what is before them
	CallbacksExpected metric.Int64Gauge         // deliveries that may be called back
	InvalidEventField metric.Int64Counter       // unknown envelope fields, ignored
	UnackedBytes      metric.Int64UpDownCounter // bytes of deliveries held by workers
}

// NewMetrics makes the instruments.
func NewMetrics(provider metric.MeterProvider) (*Metrics, error) {
	b := builder{meter: provider.Meter("hookline")}
	m := &Metrics{
		Events:            b.counter("hookline.events", "Events read from the events topic, by what became of them."),
		Rejected:          b.counter("hookline.rejected", "Records moved to the rejected topic, by topic and reason."),
		FilterErrors:      b.counter("hookline.filter.errors", "Filters of subscriptions that could not be evaluated for an event, which then does not match."),
		Deliveries:        b.counter("hookline.deliveries", "Deliveries that reached a status."),
		Attempts:          b.counter("hookline.attempts", "Attempts by outcome."),
		AttemptDuration:   b.seconds("hookline.attempt.duration", "Time of an attempt's HTTP exchange."),
		Inflight:          b.upDown("hookline.inflight", "HTTP requests under way."),
		Deferred:          b.counter("hookline.deferred", "Deliveries put back without an attempt, by reason."),
		Duplicates:        b.counter("hookline.duplicates", "Trips dropped because they had been seen."),
		RetriesWaiting:    b.gauge("hookline.retries.waiting", "Retries waiting, by partition."),
		RetriesOverdue:    b.secondsGauge("hookline.retries.overdue.seconds", "Age of the oldest retry that is due, by partition."),
		RetriesDue:        b.gauge("hookline.retries.due", "Retries that are due and have not been taken to fire, by partition."),
		RetriesFired:      b.counter("hookline.retries.fired", "Retries put back on the deliveries topic."),
		RetriesForward:    b.counter("hookline.retries.brought.forward", "Due retries that went before those of other subscriptions, behind which their own had no turn."),
		RebuildRemaining:  b.gauge("hookline.scheduler.rebuild.remaining", "Records to apply to the timer index before anything of it fires, by partition."),
		SchedulerRewinds:  b.counter("hookline.scheduler.rewinds", "Rebuilds of a timer index from its topic, by reason."),
		ConsumerLag:       b.gauge("hookline.consumer.lag.records", "Records a group has not finished, by group."),
		RecorderLag:       b.secondsGauge("hookline.recorder.lag.seconds", "Age of the newest recorded record when it was written."),
		RecorderRows:      b.counter("hookline.recorder.rows", "Rows written by the recorder, by table."),
		ConfigOffset:      b.gauge("hookline.config.offset", "Offset of the config topic that is applied."),
		IngestRequests:    b.counter("hookline.ingest.requests", "Requests to ingest, by status code."),
		SourceRequests:    b.counter("hookline.source.requests", "Requests of third parties to sources, by outcome and reason."),
		Callbacks:         b.counter("hookline.callbacks", "Requests of receivers that call back, by outcome and reason."),
		FollowUps:         b.counter("hookline.follow.ups", "Events released after a verified callback."),
		FollowUpsWaiting:  b.gauge("hookline.follow.ups.waiting", "Events that wait for those before them."),
		CallbacksExpected: b.gauge("hookline.callbacks.expected", "Deliveries that their receivers may call back."),
		InvalidEventField: b.counter("hookline.event.unknown.fields", "Unknown envelope fields of events, ignored."),
		UnackedBytes:      b.upDown("hookline.delivery.held.bytes", "Bytes of delivery records that a worker holds."),
	}
	return m, b.err
}

// Label makes the attribute set of one label: build it once where a value is known beforehand.
func Label(key, value string) metric.MeasurementOption {
	return metric.WithAttributeSet(attribute.NewSet(attribute.String(key, value)))
}

// Labels makes the attribute set of pairs of keys and values.
func Labels(pairs ...string) metric.MeasurementOption {
	attributes := make([]attribute.KeyValue, 0, len(pairs)/2)
	for i := 0; i+1 < len(pairs); i += 2 {
		attributes = append(attributes, attribute.String(pairs[i], pairs[i+1]))
	}
	return metric.WithAttributeSet(attribute.NewSet(attributes...))
}

type builder struct {
	meter metric.Meter
	err   error
}

func (b *builder) keep(name string, err error) {
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("declare metric %s: %w", name, err)
	}
}

func (b *builder) counter(name, help string) metric.Int64Counter {
	i, err := b.meter.Int64Counter(name, metric.WithDescription(help))
	b.keep(name, err)
	return i
}

func (b *builder) upDown(name, help string) metric.Int64UpDownCounter {
	i, err := b.meter.Int64UpDownCounter(name, metric.WithDescription(help))
	b.keep(name, err)
	return i
}

func (b *builder) gauge(name, help string) metric.Int64Gauge {
	i, err := b.meter.Int64Gauge(name, metric.WithDescription(help))
	b.keep(name, err)
	return i
}

func (b *builder) secondsGauge(name, help string) metric.Float64Gauge {
	i, err := b.meter.Float64Gauge(name, metric.WithDescription(help))
	b.keep(name, err)
	return i
}

func (b *builder) seconds(name, help string) metric.Float64Histogram {
	i, err := b.meter.Float64Histogram(name, metric.WithDescription(help), metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 15))
	b.keep(name, err)
	return i
}
