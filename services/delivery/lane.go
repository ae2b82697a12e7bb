package delivery

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

// lane is one subscription in this worker: what waits for its endpoint, and what the worker has learnt about it. All but
// resolved belongs to the lanes' lock.
type lane struct {
	id, tenant string
	// subscription is as it was at an offset of the config: what was learnt is not about a changed one.
	subscription *webhook.Subscription
	seen         int64
	queue        fifo[*item]
	urgent       fifo[*item] // second tries of attempts that have begun
	running      int
	awake        bool  // among those that are swept
	queued       bool  // in the ring of its class
	class        class // of that ring
	holding      class // that its slots are counted under

	share     share
	perSecond float64
	rate      rate
	breaker   breaker
	// heldUntil is until when the endpoint has asked for nothing to be sent.
	heldUntil time.Time
	// progressed is when an attempt last ended, or when the lane began to work.
	progressed time.Time
	// pace is how many attempts a second have ended lately, ended how many since it was measured last.
	pace     float64
	ended    int
	measured time.Time
	// clearsAt is when what was put back so far will have come back and drained.
	clearsAt time.Time
	usedAt   time.Time
	timer    *time.Timer
	resolved atomic.Pointer[resolved]
}

// class says how a lane treats the process's slots, and with that how many of them it may find taken.
type class int

const (
	quick class = iota // gives its slots back soon
	fresh              // nothing is known of it yet
	slow
	classes
)

// Bounds of waiting in a lane, and of deferral.
const (
	maxWait     = 2 * time.Second
	minDeferral = 5 * time.Second
	maxDeferral = 10 * time.Minute
	// leastHorizon is how far ahead deliveries are put off at least for an endpoint that has no room, however quick it is.
	leastHorizon = 20 * time.Second
	// longestHold bounds what one Retry-After does to the endpoint's other deliveries; if it still wants less, it will say
	// so again.
	longestHold = time.Minute
	// slowHold is the time that a slot may be held by a lane that has a claim to the last of them.
	slowHold = time.Second
	// recovery spaces what comes back to an endpoint that nothing is known of.
	recovery   = 10 * time.Millisecond
	forgetLane = 15 * time.Minute
)

// forget makes the lane one that nothing is known of.
func (ln *lane) forget(sub *webhook.Subscription, ceiling int) {
	ln.subscription, ln.share, ln.breaker = sub, newShare(ceiling), breaker{}
	ln.perSecond, ln.rate, ln.heldUntil = 0, rate{}, time.Time{}
	ln.pace, ln.ended = 0, 0
}

func (ln *lane) waiting() int { return ln.queue.len() + ln.urgent.len() }

// rests reports whether there is nothing to be done in the lane.
func (ln *lane) rests() bool { return ln.running == 0 && ln.waiting() == 0 && !ln.queued }

// holds estimates how long an attempt holds its slot: the average, or how long none has ended where that is longer.
func (ln *lane) holds(now time.Time) time.Duration {
	if ln.running == 0 {
		return ln.share.latency
	}
	return max(ln.share.latency, now.Sub(ln.progressed))
}

func (ln *lane) classify(now time.Time) class {
	switch {
	case ln.holds(now) > slowHold:
		return slow
	case !ln.share.known():
		return fresh
	default:
		return quick
	}
}

// startsAt is the earliest time that the rate and the endpoint permit.
func (ln *lane) startsAt() time.Time {
	if at := ln.rate.at(); at.After(ln.heldUntil) {
		return at
	}
	return ln.heldUntil
}

// free reports whether the lane may begin something, its rate aside. A second try has its attempt's right to begin.
func (ln *lane) free(now time.Time) bool {
	if ln.running >= ln.share.bound() {
		return false
	}
	state := ln.breaker.state(now)
	return ln.urgent.len() > 0 || state == breakerClosed || state == breakerProbing && ln.running == 0
}

// refusal is why a delivery with so many ahead of it would not begin soon; none where it would.
func (ln *lane) refusal(now time.Time, ahead int) webhook.Reason {
	state := ln.breaker.state(now)
	switch {
	case state == breakerOpen, state == breakerProbing && ahead+ln.running > 0:
		return webhook.ReasonBreaker
	case ln.startsAt().Add(time.Duration(ahead)*ln.rate.interval).Sub(now) > maxWait:
		return webhook.ReasonRate
	case (ahead > 0 || ln.running >= ln.share.bound()) && time.Duration(ahead+1)*ln.drains(now) > maxWait:
		return webhook.ReasonConcurrency
	default:
		return webhook.ReasonNone
	}
}

// drains estimates the time between two attempts that begin: by how long they take or by how many there were lately, whichever
// is better. How long they take is known at once, but a moment in which this whole process stands still makes every endpoint
// look slow; the pace follows within seconds.
//
// While the share doubles every round it is taken for what it will be: deliveries that come to a new endpoint all at once
// need not be put back.
func (ln *lane) drains(now time.Time) time.Duration {
	parallel := max(ln.running, ln.share.bound())
	if !ln.share.steady && ln.holds(now) <= slowHold {
		parallel = ln.share.ceiling
	}
	each := ln.holds(now) / time.Duration(parallel)
	if ln.pace*each.Seconds() > 1 {
		return time.Duration(float64(time.Second) / ln.pace)
	}
	return each
}

// measure takes how many attempts have ended since it was called last, into an average over about a second: one that has just
// ended after ten seconds does not make the endpoint a quick one.
func (ln *lane) measure(now time.Time) {
	elapsed := now.Sub(ln.measured).Seconds()
	if elapsed <= 0 {
		return
	}
	ln.pace += (float64(ln.ended)/elapsed - ln.pace) * min(elapsed, 1)
	ln.ended, ln.measured = 0, now
}

// longestDeferral follows how long the endpoint takes, where it has no room: how much it can take is an estimate, and one made in
// a bad moment must not put a whole backlog off for minutes.
func (ln *lane) longestDeferral(now time.Time, reason webhook.Reason) time.Duration {
	if reason != webhook.ReasonConcurrency {
		return maxDeferral
	}
	return min(max(10*ln.holds(now), leastHorizon), maxDeferral)
}

// deferral spaces what is put back at the rate at which it can drain, so that it does not all come back at once.
func (ln *lane) deferral(now time.Time, reason webhook.Reason) time.Duration {
	from, each := now, recovery
	switch reason {
	case webhook.ReasonConcurrency:
		each = max(ln.drains(now), ln.rate.interval)
	case webhook.ReasonRate:
		from, each = ln.startsAt(), max(ln.rate.interval, recovery)
	case webhook.ReasonBreaker:
		from = ln.breaker.probeAt
	case webhook.ReasonPaused:
		from = now.Add(pausedDeferral)
	}
	if ln.clearsAt.Before(from) {
		ln.clearsAt = from
	}
	ln.clearsAt = ln.clearsAt.Add(each)
	if latest := now.Add(ln.longestDeferral(now, reason)); ln.clearsAt.After(latest) {
		ln.clearsAt = latest
	}
	wait := max(ln.clearsAt.Sub(now), minDeferral)
	return wait + time.Duration(rand.Float64()*0.2*float64(wait))
}
