package profile

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/hookline/hookline/pkg/webhook"
)

// Problem is something wrong with a subscription's overrides: where (a JSON pointer into them), and what to do.
type Problem struct {
	Pointer string
	Detail  string
}

func (p Problem) Error() string { return p.Pointer + ": " + p.Detail }

type problems []Problem

func (p *problems) add(pointer, format string, args ...any) {
	*p = append(*p, Problem{Pointer: pointer, Detail: fmt.Sprintf(format, args...)})
}

func (p *problems) duration(pointer string, d time.Duration, r durationRange) {
	if d < r.min || d > r.max {
		p.add(pointer, "must be from %v to %v", r.min, r.max)
	}
}

// Check reports what in a subscription's overrides is outside the profile's bounds; nil means that they are fine.
func (p *Profile) Check(o webhook.Overrides) []Problem {
	s, list := p.settings.override(&o)
	list = append(list, s.check(&p.bounds)...)
	return append(list, p.checkHeaders(o.Headers)...)
}

// override is the settings with the overrides in them, and what is contradictory in these.
func (s settings) override(o *webhook.Overrides) (settings, problems) {
	var list problems
	if o.Timeout != 0 {
		s.timeout = time.Duration(o.Timeout)
	}
	if o.Retry != nil {
		s.retry = s.retry.override(o.Retry, &list)
	}
	if m := o.MicroRetry; m != nil {
		if m.Attempts < 1 {
			list.add("/microRetry/attempts", "must be at least 1; 1 means no micro-retry")
		}
		s.micro = microRetry{max(m.Attempts, 1), time.Duration(m.Min), time.Duration(m.Max)}
	}
	if o.Rate != nil {
		s.perSecond = o.Rate.PerSecond
		if s.perSecond == 0 {
			list.add("/rate/perSecond", "must be greater than 0; leave rate out for no limit")
		}
	}
	if o.Concurrency != 0 {
		s.concurrency = o.Concurrency
	}
	return s, list
}

// override applies a schedule of a subscription's own. A list has no jitter unless it gives one; an exponential one that
// leaves something out takes it from the profile, or doubles up to 24 h where the profile has a list.
func (s schedule) override(o *webhook.RetryOverride, list *problems) schedule {
	exponential := o.Base != 0 || o.Factor != 0 || o.Max != 0
	switch {
	case len(o.Delays) > 0:
		s = schedule{delays: durations(o.Delays), attempts: len(o.Delays) + 1, window: s.window}
		if exponential || o.Attempts != 0 && o.Attempts != s.attempts {
			list.add("/retry", "delays say everything: leave out base, factor, max and attempts")
		}
	case exponential:
		if len(s.delays) > 0 {
			s.delays, s.factor, s.max = nil, 2, 24*time.Hour
		}
		s.base = orDefault(time.Duration(o.Base), s.base)
		s.max = orDefault(time.Duration(o.Max), s.max)
		if o.Factor != 0 {
			s.factor = o.Factor
		}
	}
	if len(o.Delays) == 0 && o.Attempts != 0 {
		if len(s.delays) > 0 && o.Attempts > s.attempts {
			list.add("/retry/attempts", "the profile's list has %d attempts: give delays for more", s.attempts)
		}
		s.attempts = o.Attempts
	}
	if o.Jitter != nil {
		s.jitter = *o.Jitter
	}
	if o.Window != 0 {
		s.window = time.Duration(o.Window)
	}
	return s
}

// checkHeaders accepts static headers that can be sent exactly as given and take nothing from the contract.
func (p *Profile) checkHeaders(headers map[string]string) problems {
	var list problems
	if len(headers) > p.bounds.headers {
		list.add("/headers", "at most %d", p.bounds.headers)
	}
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		at, value := "/headers/"+escapePointer(name), headers[name]
		canonical := http.CanonicalHeaderKey(name)
		switch {
		case name == "" || !httpguts.ValidHeaderFieldName(name):
			list.add(at, "not a header name")
		case forbiddenHeader(canonical) || identityHeader(canonical) || canonical == "Authorization" && !p.bounds.authorization:
			list.add(at, "this header is not a subscription's to set")
		case p.reserved[canonical]:
			list.add(at, "the profile %s sets this header itself", p.Name)
		case seen[canonical]:
			list.add(at, "given twice")
		case len(name)+len(value) > p.bounds.headerBytes:
			list.add(at, "longer than %d bytes", p.bounds.headerBytes)
		case !printable(value):
			list.add(at, "the value must be printable ASCII without space at its ends")
		}
		seen[canonical] = true
	}
	return list
}

// notOurs are headers that belong to HTTP itself or to the identity of a delivery.
var notOurs = map[string]bool{
	"Host": true, "Transfer-Encoding": true, "Connection": true, "Te": true, "Trailer": true, "Upgrade": true,
	"Keep-Alive": true, "Proxy-Connection": true, "Proxy-Authorization": true, "Proxy-Authenticate": true, "Expect": true,
	"Traceparent": true, "Tracestate": true, "Baggage": true, "Cookie": true, "Forwarded": true, "Accept-Encoding": true,
}

// forbiddenHeader reports whether neither a subscription nor a profile may set a header, given in canonical form.
func forbiddenHeader(canonical string) bool {
	return notOurs[canonical] || strings.HasPrefix(canonical, "Content-") || strings.HasPrefix(canonical, "X-Forwarded-")
}

// identityHeader reports whether a header carries the identity or signature of some contract.
func identityHeader(canonical string) bool {
	return canonical == "Idempotency-Key" || strings.HasPrefix(canonical, "Webhook-")
}

// printable reports whether a header value arrives as it was given: visible ASCII, spaces only inside.
func printable(value string) bool {
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' {
			return false
		}
	}
	return strings.Trim(value, " ") == value
}
