package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var upstream = webhook.TraceContext{
	Parent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	State:  "vendor=value",
}

func start(t *testing.T) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.Start(t.Context(), telemetry.Identity{Service: "hookline-test", Version: "v0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tel.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return tel
}

func scrape(tel *telemetry.Telemetry) string {
	answer := httptest.NewRecorder()
	tel.Handler.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return answer.Body.String()
}

func TestMetricsHaveTheNamesThatOthersRelyOn(t *testing.T) {
	tel := start(t)
	m := tel.Metrics
	ctx := t.Context()
	for _, c := range []metric.Int64Counter{
		m.Events, m.Rejected, m.Deliveries, m.Attempts, m.Deferred, m.Duplicates, m.RetriesFired, m.RetriesForward,
		m.SchedulerRewinds, m.RecorderRows, m.IngestRequests, m.InvalidEventField, m.FilterErrors,
	} {
		c.Add(ctx, 1, telemetry.Label("outcome", "x"))
	}
	for _, g := range []metric.Int64Gauge{m.RetriesWaiting, m.RetriesDue, m.RebuildRemaining, m.ConsumerLag, m.ConfigOffset} {
		g.Record(ctx, 1)
	}
	for _, g := range []metric.Float64Gauge{m.RetriesOverdue, m.RecorderLag} {
		g.Record(ctx, 1)
	}
	m.Inflight.Add(ctx, 1)
	m.UnackedBytes.Add(ctx, 1)
	m.AttemptDuration.Record(ctx, 1)

	exposed := map[string]string{}
	for line := range strings.Lines(scrape(tel)) {
		if fields := strings.Fields(line); len(fields) == 4 && fields[1] == "TYPE" && strings.HasPrefix(fields[2], "hookline_") {
			exposed[fields[2]] = fields[3]
		}
	}
	want := map[string]string{
		"hookline_events_total":                  "counter",
		"hookline_rejected_total":                "counter",
		"hookline_deliveries_total":              "counter",
		"hookline_attempts_total":                "counter",
		"hookline_inflight":                      "gauge",
		"hookline_deferred_total":                "counter",
		"hookline_retries_waiting":               "gauge",
		"hookline_retries_overdue_seconds":       "gauge",
		"hookline_scheduler_rewinds_total":       "counter",
		"hookline_consumer_lag_records":          "gauge",
		"hookline_recorder_lag_seconds":          "gauge",
		"hookline_config_offset":                 "gauge",
		"hookline_attempt_duration_seconds":      "histogram",
		"hookline_duplicates_total":              "counter",
		"hookline_filter_errors_total":           "counter",
		"hookline_retries_fired_total":           "counter",
		"hookline_retries_due":                   "gauge",
		"hookline_retries_brought_forward_total": "counter",
		"hookline_scheduler_rebuild_remaining":   "gauge",
		"hookline_recorder_rows_total":           "counter",
		"hookline_ingest_requests_total":         "counter",
		"hookline_event_unknown_fields_total":    "counter",
		"hookline_delivery_held_bytes":           "gauge",
	}
	for name, kind := range want {
		if exposed[name] != kind {
			t.Errorf("%s is exposed as %q, want %q", name, exposed[name], kind)
		}
	}
}

func TestMetricsCarryTheirLabelsAndNoOthers(t *testing.T) {
	tel := start(t)
	tel.Metrics.Events.Add(t.Context(), 3, telemetry.Label("outcome", "routed"))
	if text := scrape(tel); !strings.Contains(text, "\nhookline_events_total{outcome=\"routed\"} 3\n") {
		t.Errorf("no hookline_events_total{outcome=\"routed\"} 3 in:\n%s", text)
	}
}

func TestWithoutAnExporterTheTraceContextIsPassedOn(t *testing.T) {
	tel := start(t)
	ctx, span := telemetry.StartConsumer(t.Context(), tel.Tracer, "deliver", upstream)
	defer span.End()
	if diff := cmp.Diff(upstream, telemetry.TraceContext(ctx)); diff != "" {
		t.Error(diff)
	}
}

func TestASpanIsAChildOfTheRecordsTrace(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	defer func() { _ = provider.Shutdown(context.WithoutCancel(t.Context())) }()
	ctx, span := telemetry.StartConsumer(t.Context(), provider.Tracer("t"), "deliver", upstream)
	out := telemetry.TraceContext(ctx)
	span.End()

	ended := recorder.Ended()[0]
	if got := ended.Parent().SpanID().String(); got != "00f067aa0ba902b7" {
		t.Errorf("parent is %s", got)
	}
	if ended.SpanKind() != trace.SpanKindConsumer {
		t.Errorf("kind is %v", ended.SpanKind())
	}
	want := "00-4bf92f3577b34da6a3ce929d0e0e4736-" + ended.SpanContext().SpanID().String() + "-01"
	if out.Parent != want || out.State != upstream.State {
		t.Errorf("sent on %+v, want parent %s", out, want)
	}
}

func TestATraceContextThatIsNotValidIsIgnored(t *testing.T) {
	for _, parent := range []string{"", "nonsense", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", strings.Repeat("f", 1<<12)} {
		ctx, span := telemetry.StartProducer(t.Context(), noop.NewTracerProvider().Tracer(""), "send", webhook.TraceContext{Parent: parent})
		span.End()
		if got := telemetry.TraceContext(ctx); got != (webhook.TraceContext{}) {
			t.Errorf("%q gave %+v", parent, got)
		}
	}
}

func TestARecordCarriesOneTraceContext(t *testing.T) {
	shared := []kgo.RecordHeader{{Key: "traceparent", Value: []byte("old")}, {Key: "content-type", Value: []byte("x")}}
	r := &kgo.Record{Headers: shared}
	telemetry.SetRecordTrace(r, upstream)
	if diff := cmp.Diff(upstream, telemetry.RecordTrace(r)); diff != "" {
		t.Error(diff)
	}
	if len(r.Headers) != 3 || string(shared[0].Value) != "old" {
		t.Errorf("headers are %v, the shared ones %v", r.Headers, shared)
	}
	telemetry.SetRecordTrace(r, webhook.TraceContext{})
	if len(r.Headers) != 1 || r.Headers[0].Key != "content-type" {
		t.Errorf("headers after removing are %v", r.Headers)
	}
}

func TestALogLineIsJSONAndNamesItsTrace(t *testing.T) {
	var out bytes.Buffer
	log := telemetry.NewLogger(&out, telemetry.Config{LogLevel: slog.LevelInfo}).With("service", "delivery")
	log.DebugContext(t.Context(), "not wanted")
	log.InfoContext(telemetry.WithRemote(t.Context(), upstream), "attempt", "status", 200)

	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v in %q", err, out.String())
	}
	if line["trace_id"] != "4bf92f3577b34da6a3ce929d0e0e4736" || line["service"] != "delivery" || line["status"] != 200.0 {
		t.Errorf("line is %v", line)
	}
}

func TestTracesAreExportedOnlyWhenAskedFor(t *testing.T) {
	tests := map[string]struct {
		environ map[string]string
		spans   bool
	}{
		"nothing set":        {nil, false},
		"an endpoint":        {map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, true},
		"exporter none":      {map[string]string{"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, false},
		"the SDK turned off": {map[string]string{"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			for key, value := range tt.environ {
				t.Setenv(key, value)
			}
			tel := start(t)
			_, span := tel.Tracer.Start(t.Context(), "attempt")
			// The span is not ended: there is nobody to export it to.
			if got := span.SpanContext().IsValid(); got != tt.spans {
				t.Errorf("spans are made: %t, want %t", got, tt.spans)
			}
		})
	}
}

func TestAnUnknownExporterIsAnError(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "carrier-pigeon")
	if _, err := telemetry.Start(t.Context(), telemetry.Identity{}); err == nil {
		t.Error("started")
	}
}
