package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel/attribute"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Identity says which process the telemetry is of.
type Identity struct {
	Service string // service.name, for example "hookline-delivery"; OTEL_SERVICE_NAME wins
	Version string // service.version
}

// Telemetry is the running OpenTelemetry of one process.
type Telemetry struct {
	Metrics *Metrics
	// Tracer makes the spans. It makes none, but passes on the trace context it is given, where no OTEL_* variable
	// names an exporter.
	Tracer trace.Tracer
	// Handler serves the metrics in the Prometheus text format.
	Handler http.Handler

	shutdown []func(context.Context) error
}

// Start assembles the metrics, which are read through [Telemetry.Handler], and the traces, which are exported as the
// standard OTEL_* variables say and not at all without them. It does not wait for the collector of the traces.
func Start(ctx context.Context, id Identity) (*Telemetry, error) {
	// A detector that fails leaves a resource of what the others found; that is no reason not to start.
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", id.Service), attribute.String("service.version", id.Version)),
		resource.WithTelemetrySDK(), resource.WithHost(), resource.WithFromEnv())
	if about == nil {
		return nil, fmt.Errorf("start telemetry: describe the process: %w", err)
	}
	t := &Telemetry{}
	if err := t.startMetrics(about); err != nil {
		return nil, fmt.Errorf("start telemetry: metrics: %w", err)
	}
	if err := t.startTraces(ctx, about, id.Version); err != nil {
		return nil, errors.Join(fmt.Errorf("start telemetry: traces: %w", err), t.Shutdown(ctx))
	}
	return t, nil
}

// Shutdown exports what is left, within the context's deadline, and stops.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var problems []error
	for _, stop := range t.shutdown {
		problems = append(problems, stop(ctx))
	}
	t.shutdown = nil
	return errors.Join(problems...)
}

func (t *Telemetry) startMetrics(about *resource.Resource) error {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := otelprom.New(otelprom.WithRegisterer(registry), otelprom.WithoutScopeInfo())
	if err != nil {
		return err
	}
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithResource(about))
	t.shutdown = append(t.shutdown, provider.Shutdown)
	t.Handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	t.Metrics, err = NewMetrics(provider)
	return err
}

func (t *Telemetry) startTraces(ctx context.Context, about *resource.Resource, version string) error {
	var provider trace.TracerProvider = noop.NewTracerProvider()
	if tracesWanted(os.Getenv) {
		exporter, err := autoexport.NewSpanExporter(ctx)
		if err != nil {
			return err
		}
		exporting := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter), sdktrace.WithResource(about))
		t.shutdown = append(t.shutdown, exporting.Shutdown)
		provider = exporting
	}
	t.Tracer = provider.Tracer("hookline", trace.WithInstrumentationVersion(version))
	return nil
}

// tracesWanted reports whether the standard variables ask for traces: an exporter by name, or where to send them.
func tracesWanted(getenv func(string) string) bool {
	if getenv("OTEL_SDK_DISABLED") == "true" {
		return false
	}
	if exporter := getenv("OTEL_TRACES_EXPORTER"); exporter != "" {
		return exporter != "none"
	}
	return getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != "" || getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != ""
}
