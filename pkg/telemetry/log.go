package telemetry

import (
	"context"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

// Config is what an operator sets of the logs. Traces follow the standard OTEL_* variables.
type Config struct {
	LogLevel slog.Level `env:"HOOKLINE_LOG_LEVEL" envDefault:"info"`
}

// NewLogger writes JSON lines. A line logged with the context of a span carries trace_id and span_id.
func NewLogger(w io.Writer, cfg Config) *slog.Logger {
	return slog.New(traced{slog.NewJSONHandler(w, &slog.HandlerOptions{Level: cfg.LogLevel})})
}

type traced struct{ slog.Handler }

func (t traced) Handle(ctx context.Context, record slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		record.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	return t.Handler.Handle(ctx, record)
}

func (t traced) WithAttrs(attrs []slog.Attr) slog.Handler { return traced{t.Handler.WithAttrs(attrs)} }
func (t traced) WithGroup(name string) slog.Handler       { return traced{t.Handler.WithGroup(name)} }
