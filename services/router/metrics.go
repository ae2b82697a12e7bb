package router

import (
	"go.opentelemetry.io/otel/metric"

	"github.com/hookline/hookline/pkg/telemetry"
)

var groupLabel = telemetry.Label("group", "router")

// outcome is what became of an event.
type outcome struct {
	name  string
	label metric.MeasurementOption
}

func newOutcome(name string) outcome { return outcome{name, telemetry.Label("outcome", name)} }

var (
	routed    = newOutcome("routed")
	unmatched = newOutcome("unmatched")
	rejected  = newOutcome("rejected")
)
