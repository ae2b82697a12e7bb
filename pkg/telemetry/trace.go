package telemetry

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/hookline/hookline/pkg/topic"
	"github.com/hookline/hookline/pkg/webhook"
)

// StartConsumer starts the span of working on something that was read, as a child of the trace context that came with it.
// Without one, or with one that is not valid, the parent is the span in ctx, if any.
func StartConsumer(ctx context.Context, tracer trace.Tracer, name string, from webhook.TraceContext, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	return tracer.Start(WithRemote(ctx, from), name, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(attributes...)) //nolint:spancheck // the caller ends it
}

// StartProducer starts the span of sending something on, as a child of the trace context that it belongs to: of the
// attempt's request, or of a record written outside the span that read its cause.
func StartProducer(ctx context.Context, tracer trace.Tracer, name string, from webhook.TraceContext, attributes ...attribute.KeyValue) (context.Context, trace.Span) {
	if _, none := tracer.(noop.Tracer); none && from.Parent == "" {
		return ctx, noop.Span{} // where nothing is made and nothing passed on, it costs nothing
	}
	return tracer.Start(WithRemote(ctx, from), name, trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(attributes...)) //nolint:spancheck // the caller ends it
}

// WithRemote returns ctx with the trace context as the parent of the next span; ctx itself where the trace context is empty or not valid.
func WithRemote(ctx context.Context, from webhook.TraceContext) context.Context {
	if from.Parent == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, carrier{&from})
}

// TraceContext is the trace context of the span in ctx, to be sent on: empty where there is no span and no remote parent.
func TraceContext(ctx context.Context) webhook.TraceContext {
	var to webhook.TraceContext
	propagation.TraceContext{}.Inject(ctx, carrier{&to})
	return to
}

// RecordTrace reads the trace context from a record's headers, unchecked. Where a header is given twice, the last one counts.
func RecordTrace(r *kgo.Record) webhook.TraceContext {
	var found webhook.TraceContext
	for _, h := range r.Headers {
		switch h.Key {
		case topic.HeaderTraceParent:
			found.Parent = string(h.Value)
		case topic.HeaderTraceState:
			found.State = string(h.Value)
		}
	}
	return found
}

// SetRecordTrace writes the trace context to a record's headers, in place of one that is there. An empty one removes it.
func SetRecordTrace(r *kgo.Record, to webhook.TraceContext) {
	setHeader(r, topic.HeaderTraceParent, to.Parent)
	setHeader(r, topic.HeaderTraceState, to.State)
}

func setHeader(r *kgo.Record, key, value string) {
	// A fresh slice: records of one batch may share theirs.
	kept := make([]kgo.RecordHeader, 0, len(r.Headers)+1)
	for _, h := range r.Headers {
		if h.Key != key {
			kept = append(kept, h)
		}
	}
	if value != "" {
		kept = append(kept, kgo.RecordHeader{Key: key, Value: []byte(value)})
	}
	r.Headers = kept
}

// carrier lets the propagator read and write a trace context.
type carrier struct{ *webhook.TraceContext }

func (c carrier) Get(key string) string {
	switch key {
	case topic.HeaderTraceParent:
		return c.Parent
	case topic.HeaderTraceState:
		return c.State
	default:
		return ""
	}
}

func (c carrier) Set(key, value string) {
	switch key {
	case topic.HeaderTraceParent:
		c.Parent = value
	case topic.HeaderTraceState:
		c.State = value
	}
}

func (carrier) Keys() []string { return []string{topic.HeaderTraceParent, topic.HeaderTraceState} }
