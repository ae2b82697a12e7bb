package api

import (
	"log/slog"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	tracenoop "go.opentelemetry.io/otel/trace/noop"

	"github.com/hookline/hookline/pkg/egress"
	"github.com/hookline/hookline/pkg/health"
	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/seal"
	"github.com/hookline/hookline/pkg/telemetry"
)

func testConfig() Config {
	return Config{Addr: "127.0.0.1:0", BootstrapKey: bootstrapToken, DrainTimeout: 5 * time.Second, OutboxPoll: 20 * time.Millisecond}
}

const bootstrapToken = "bootstrap-key-of-the-tests"

// assembled is a service that has not been run and has no store.
func assembled(t *testing.T) *Service {
	t.Helper()
	s, err := New(testConfig(), testDeps(t, struct{ Store }{}))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testDeps(t *testing.T, db Store) Deps {
	t.Helper()
	metrics, err := telemetry.NewMetrics(noop.NewMeterProvider())
	if err != nil {
		t.Fatal(err)
	}
	ring, err := seal.ParseRing(seal.NewKey("k1"))
	if err != nil {
		t.Fatal(err)
	}
	guard, err := egress.New(egress.Config{})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	return Deps{
		Log: log, Metrics: metrics, Tracer: tracenoop.NewTracerProvider().Tracer(""), Health: health.New(),
		Kafka: kafka.New(kafka.Config{Brokers: []string{"127.0.0.1:1"}, SessionTimeout: 10 * time.Second, TopicPrefix: "hookline."}, log),
		Store: db, Ring: ring, Profiles: profile.Builtin(), Endpoint: guard,
	}
}
