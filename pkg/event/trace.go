package event

import (
	oteltrace "go.opentelemetry.io/otel/trace"

	"github.com/hookline/hookline/pkg/webhook"
)

// trace is the first of the trace contexts whose traceparent is valid, and its tracestate if that is valid too. One that
// is not valid is dropped: a trace is no reason to refuse an event.
func trace(contexts ...webhook.TraceContext) webhook.TraceContext {
	for _, c := range contexts {
		if !validParent(c.Parent) {
			continue
		}
		if c.State != "" {
			if _, err := oteltrace.ParseTraceState(c.State); err != nil {
				c.State = ""
			}
		}
		return c
	}
	return webhook.TraceContext{}
}

// validParent holds a traceparent to W3C Trace Context, section 3.2: version-trace-parent-flags in lower-case hex, ids
// not all zero, version not ff; a later version may go on behind another dash.
func validParent(s string) bool {
	const size = 55
	if len(s) < size || s[2] != '-' || s[35] != '-' || s[52] != '-' {
		return false
	}
	if len(s) > size && (s[:2] == "00" || s[size] != '-' || len(s) > 512) {
		return false
	}
	return lowerHex(s[:2]) && s[:2] != "ff" && lowerHex(s[3:35]) && !zeros(s[3:35]) && lowerHex(s[36:52]) && !zeros(s[36:52]) && lowerHex(s[53:size])
}

func lowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

func zeros(s string) bool {
	for i := range len(s) {
		if s[i] != '0' {
			return false
		}
	}
	return true
}
