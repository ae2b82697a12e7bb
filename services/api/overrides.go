package api

import (
	"github.com/danielgtaylor/huma/v2"

	"github.com/hookline/hookline/pkg/webhook"
)

// durationSchema describes webhook.Duration: what time.ParseDuration reads, short enough that it cannot overflow.
type durationSchema struct{}

// Schema is for huma.
func (durationSchema) Schema(huma.Registry) *huma.Schema {
	most := 64
	return &huma.Schema{
		Type: huma.TypeString, MaxLength: &most, Examples: []any{"5s"},
		Pattern:            `^(0|([0-9]{1,8}(\.[0-9]{1,9})?(ns|us|ms|s)|[0-9]{1,5}(\.[0-9]{1,9})?(m|h)){1,4})$`,
		PatternDescription: "a duration such as 250ms or 1h30m",
	}
}

// overridesView is webhook.Overrides with the bounds that hold under every profile; the profile's own are checked
// besides. The structs below have the same fields, so that they convert.
type overridesView struct {
	Timeout     webhook.Duration  `json:"timeout,omitzero" example:"5s" doc:"From dialling to the end of the response."`
	Retry       *retryView        `json:"retry,omitempty"`
	MicroRetry  *microRetryView   `json:"microRetry,omitempty"`
	Headers     map[string]string `json:"headers,omitempty" maxProperties:"20" doc:"Sent with every request."`
	Rate        *rateView         `json:"rate,omitempty"`
	Concurrency int               `json:"concurrency,omitempty" minimum:"1" maximum:"1000" doc:"Requests under way at once."`
	Traceparent *bool             `json:"traceparent,omitempty" doc:"Send the trace context to the receiver."`
}

type retryView struct {
	Delays   []webhook.Duration `json:"delays,omitempty" maxItems:"50" doc:"n delays are n+1 attempts; 50ms to 24h each."`
	Base     webhook.Duration   `json:"base,omitzero" example:"30s" doc:"The first delay of an exponential schedule."`
	Factor   float64            `json:"factor,omitempty" minimum:"1" maximum:"100"`
	Max      webhook.Duration   `json:"max,omitzero" example:"4h"`
	Jitter   *float64           `json:"jitter,omitempty" minimum:"0" maximum:"1" doc:"0.2 is 20 % more or less. A list of delays has none unless given."`
	Attempts int                `json:"attempts,omitempty" minimum:"1" maximum:"1000"`
	Window   webhook.Duration   `json:"window,omitzero" example:"72h" doc:"No attempt later than this after the delivery was made."`
}

type microRetryView struct {
	Attempts int              `json:"attempts" minimum:"1" maximum:"10" doc:"Tries within one attempt, in total."`
	Min      webhook.Duration `json:"min" example:"200ms"`
	Max      webhook.Duration `json:"max" example:"2s"`
}

type rateView struct {
	PerSecond float64 `json:"perSecond" exclusiveMinimum:"0" maximum:"100000" doc:"Attempts a second."`
}

func viewOverrides(o webhook.Overrides) overridesView {
	return overridesView{
		Timeout: o.Timeout, Retry: (*retryView)(o.Retry), MicroRetry: (*microRetryView)(o.MicroRetry), Headers: o.Headers,
		Rate: (*rateView)(o.Rate), Concurrency: o.Concurrency, Traceparent: o.Traceparent,
	}
}

func (o *overridesView) overrides() webhook.Overrides {
	if o == nil {
		return webhook.Overrides{}
	}
	return webhook.Overrides{
		Timeout: o.Timeout, Retry: (*webhook.RetryOverride)(o.Retry), MicroRetry: (*webhook.MicroRetry)(o.MicroRetry), Headers: o.Headers,
		Rate: (*webhook.Rate)(o.Rate), Concurrency: o.Concurrency, Traceparent: o.Traceparent,
	}
}
