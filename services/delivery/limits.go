package delivery

import (
	"math"
	"time"
)

// The three values below decide how fast one endpoint is sent to. They are pure: time is an argument, nothing else is
// read, and whoever holds the lane's lock may call them.

// verdict is what an attempt says about its endpoint.
type verdict int

const (
	noVerdict  verdict = iota // no request was made
	answered                  // a response came, whatever its status
	overloaded                // 429, or 503 with Retry-After: a receiver at work that wants less
	silent                    // no usable response came
)

// share is how many requests an endpoint may have under way. It grows by one an answered round, doubling until the first
// sign of trouble, and halves when the endpoint asks for less, does not answer, or takes much longer than it used to.
type share struct {
	ceiling int
	limit   float64
	// steady is set by the first cut: from then on the share grows by one a round.
	steady bool
	// latency is a moving average. usual is the least it was since there was last one request at a time: then nothing of it
	// is this worker's doing, so that an endpoint that has become slower for good is measured by what it is now.
	latency, usual time.Duration
	cutAt          time.Time
}

const (
	firstLatency = 10 * time.Millisecond
	// An average beyond this and beyond congestion times the usual means that requests wait for each other at the receiver.
	congestedFrom = 200 * time.Millisecond
	congestion    = 3
)

func newShare(ceiling int) share { return share{ceiling: ceiling, limit: 1, latency: firstLatency} }

// known reports whether an attempt has ever told something about the endpoint.
func (s *share) known() bool { return s.usual > 0 }

func (s *share) bound() int { return max(1, min(int(s.limit), s.ceiling)) }

// learn takes what an attempt says. busy is whether the share was used up while it was under way: only then is there
// reason to permit more.
func (s *share) learn(begun, now time.Time, says verdict, busy bool) {
	if says == noVerdict {
		return
	}
	took := max(now.Sub(begun), time.Microsecond)
	if says == silent {
		// A connection that is refused is quick, but the endpoint is not.
		took = max(took, s.latency)
	}
	if !s.known() {
		s.latency, s.usual = took, took
	}
	s.latency += (took - s.latency) / 8
	if s.latency < s.usual || s.bound() == 1 {
		s.usual = s.latency
	}
	switch {
	case says != answered, s.latency > congestedFrom && s.latency > congestion*s.usual:
		// What began before the last cut says nothing about the share since.
		if begun.After(s.cutAt) {
			s.limit, s.steady, s.cutAt = max(s.limit/2, 1), true, now
		}
	case busy && s.steady:
		s.limit = min(s.limit+1/s.limit, float64(s.ceiling))
	case busy:
		s.limit = min(s.limit+1, float64(s.ceiling))
	}
}

// rate spaces requests by the generic cell rate algorithm: next is when one more would be exactly on time, and requests
// may come ahead of it by the burst. The zero value limits nothing.
type rate struct {
	interval, burst time.Duration
	next            time.Time
}

// burstTime is how much of its rate an endpoint may get at once.
const burstTime = 100 * time.Millisecond

// set takes a rate a second, 0 for none, and this worker's share of it.
func (r *rate) set(perSecond, part float64) {
	if perSecond <= 0 || part <= 0 {
		*r = rate{}
		return
	}
	interval := min(float64(time.Second)/(perSecond*part), float64(time.Hour))
	r.interval = time.Duration(math.Ceil(interval))
	r.burst = max(burstTime-r.interval, 0)
}

// at is the earliest time of the next request.
func (r *rate) at() time.Time { return r.next.Add(-r.burst) }

// take counts a request.
func (r *rate) take(now time.Time) {
	if r.interval == 0 {
		return
	}
	if r.next.Before(now) {
		r.next = now
	}
	r.next = r.next.Add(r.interval)
}

// breaker stops requests to an endpoint that does not answer at all.
//
//	closed ──(failures in a row, over a span of time)──▶ open ──(pause is over)──▶ probing: one request at a time
//	   ▲                                                   ▲                          │
//	   └──────────────── answered ─────────────────────────┼──────────────────────────┤
//	                                                       └── silent: twice the pause ┘
//
// The span keeps one blip, in which many requests fail together, from counting as an outage.
type breaker struct {
	failures int
	since    time.Time // of the first of them
	pause    time.Duration
	probeAt  time.Time // zero while closed
}

const (
	breakAfter   = 10
	breakSpan    = 5 * time.Second
	firstPause   = 5 * time.Second
	longestPause = time.Minute
)

type breakerState int

const (
	breakerClosed breakerState = iota
	breakerOpen
	breakerProbing
)

func (b *breaker) state(now time.Time) breakerState {
	switch {
	case b.probeAt.IsZero():
		return breakerClosed
	case now.Before(b.probeAt):
		return breakerOpen
	default:
		return breakerProbing
	}
}

// learn takes what an attempt says.
func (b *breaker) learn(begun, now time.Time, says verdict) {
	switch {
	case says == noVerdict:
	case says != silent:
		*b = breaker{}
	case !b.probeAt.IsZero():
		// What began before the pause is no probe.
		if !begun.Before(b.probeAt) {
			b.pause = min(2*b.pause, longestPause)
			b.probeAt = now.Add(b.pause)
		}
	default:
		if b.failures == 0 {
			b.since = begun
		}
		b.failures++
		if b.failures >= breakAfter && now.Sub(b.since) >= breakSpan {
			b.pause, b.probeAt = firstPause, now.Add(firstPause)
		}
	}
}
