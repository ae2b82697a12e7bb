package profile

import (
	"strconv"
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

// settings are what a subscription may override.
type settings struct {
	timeout     time.Duration
	retry       schedule
	retryAfter  retryAfter
	micro       microRetry
	perSecond   float64
	concurrency int
}

// microRetry is quick tries within one attempt: how many in total, and the bounds of the wait between them.
type microRetry struct {
	attempts int
	min, max time.Duration
}

// bounds is how far overrides may go.
type bounds struct {
	timeout, delay, window durationRange
	attempts               int
	jitter                 float64
	micro                  durationRange
	microAttempts          int
	perSecond              float64
	concurrency            int
	headers                int
	headerBytes            int
	authorization          bool
}

type durationRange struct{ min, max time.Duration }

// widest are Hookline's own bounds; a profile may only narrow them.
var widest = bounds{
	timeout:       durationRange{50 * time.Millisecond, 30 * time.Second},
	delay:         durationRange{50 * time.Millisecond, 24 * time.Hour},
	window:        durationRange{50 * time.Millisecond, 30 * 24 * time.Hour},
	attempts:      51,
	jitter:        1,
	micro:         durationRange{0, 10 * time.Second},
	microAttempts: 5,
	perSecond:     10_000,
	concurrency:   1_000,
	headers:       20,
	headerBytes:   1024,
}

func (c *compiler) bounds(sp *boundSpec) bounds {
	b := widest
	c.narrow("/bounds/timeout", sp.Timeout, &b.timeout)
	c.narrow("/bounds/delay", sp.Delay, &b.delay)
	c.narrow("/bounds/window", sp.Window, &b.window)
	if sp.Attempts > 0 {
		b.attempts = sp.Attempts
	}
	b.authorization = sp.Authorization
	return b
}

func (c *compiler) narrow(at string, sp *rangeSpec, r *durationRange) {
	if sp == nil {
		return
	}
	own := durationRange{time.Duration(sp.Min), time.Duration(sp.Max)}
	if own.min > own.max {
		c.fail(at, "min is greater than max")
	}
	if own.min < r.min || own.max > r.max {
		c.fail(at, "must lie within %v and %v", r.min, r.max)
	}
	*r = own
}

// settings reads the parts that overrides may change, and holds them to the same bounds.
func (c *compiler) settings(p *Profile, sp *spec) settings {
	s := settings{
		timeout:     time.Duration(sp.Timeout),
		retryAfter:  retryAfter{use: retryAfterNames[sp.RetryAfter.Use], jitter: sp.RetryAfter.Jitter},
		perSecond:   sp.Limits.PerSecond,
		concurrency: sp.Limits.Concurrency,
	}
	if s.retryAfter.jitter != 0 && s.retryAfter.use != retryAfterBase {
		c.fail("/retryAfter/jitter", "only use: base has a jitter")
	}
	if m := sp.MicroRetry; m != nil {
		s.micro = microRetry{m.Attempts, time.Duration(m.Min), time.Duration(m.Max)}
	}
	s.retry = c.schedule(&sp.Retry)
	for _, problem := range s.check(&p.bounds) {
		c.fail(problem.Pointer, "%s", problem.Detail)
	}
	return s
}

func (c *compiler) schedule(sp *retrySpec) schedule {
	s := schedule{
		base: time.Duration(sp.Base), factor: sp.Factor, max: time.Duration(sp.Max),
		attempts: sp.Attempts, jitter: sp.Jitter, window: time.Duration(sp.Window),
	}
	exponential := sp.Base != 0 || sp.Factor != 0 || sp.Max != 0 || sp.Attempts != 0
	switch {
	case len(sp.Delays) > 0 && exponential:
		c.fail("/retry", "give either delays, or base, factor, max and attempts")
	case len(sp.Delays) > 0:
		s.delays, s.attempts = durations(sp.Delays), len(sp.Delays)+1
	case sp.Base == 0 || sp.Factor == 0 || sp.Max == 0 || sp.Attempts == 0:
		c.fail("/retry", "needs delays, or all of base, factor, max and attempts")
	}
	return s
}

func durations(list []webhook.Duration) []time.Duration {
	out := make([]time.Duration, len(list))
	for i, d := range list {
		out[i] = time.Duration(d)
	}
	return out
}

// check holds settings to bounds; the pointers are those of overrides and of profile files alike.
func (s *settings) check(b *bounds) []Problem {
	var out problems
	out.duration("/timeout", s.timeout, b.timeout)
	r := &s.retry
	for i, d := range r.delays {
		out.duration("/retry/delays/"+strconv.Itoa(i), d, b.delay)
	}
	if len(r.delays) == 0 {
		out.duration("/retry/base", r.base, b.delay)
		out.duration("/retry/max", r.max, b.delay)
		if r.base > r.max {
			out.add("/retry/base", "is greater than max")
		}
		if !(r.factor >= 1 && r.factor <= 100) {
			out.add("/retry/factor", "must be a number from 1 to 100")
		}
	}
	if r.attempts < 1 || r.attempts > b.attempts {
		out.add(attemptsPointer(r), "must be from 1 to %d attempts", b.attempts)
	}
	if !(r.jitter >= 0 && r.jitter <= b.jitter) {
		out.add("/retry/jitter", "must be a number from 0 to %v", b.jitter)
	}
	if r.window != 0 {
		out.duration("/retry/window", r.window, b.window)
	}
	out.micro(&s.micro, b)
	if !(s.perSecond >= 0 && s.perSecond <= b.perSecond) {
		out.add("/rate/perSecond", "must be greater than 0 and at most %v", b.perSecond)
	}
	if s.concurrency < 0 || s.concurrency > b.concurrency {
		out.add("/concurrency", "must be from 1 to %d", b.concurrency)
	}
	return out
}

func attemptsPointer(r *schedule) string {
	if len(r.delays) > 0 {
		return "/retry/delays"
	}
	return "/retry/attempts"
}

func (p *problems) micro(m *microRetry, b *bounds) {
	if *m == (microRetry{}) {
		return
	}
	if m.attempts < 1 || m.attempts > b.microAttempts {
		p.add("/microRetry/attempts", "must be from 1 to %d", b.microAttempts)
	}
	p.duration("/microRetry/min", m.min, b.micro)
	p.duration("/microRetry/max", m.max, b.micro)
	if m.min > m.max {
		p.add("/microRetry/min", "is greater than max")
	}
}
