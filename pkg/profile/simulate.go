package profile

import (
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/webhook"
)

// Timeline is the life of one delivery under given responses.
type Timeline struct {
	Steps []Step
	// End is the outcome that the last step leads to: its status is never PENDING.
	End webhook.Outcome
	// Earliest and Latest are when it ends.
	Earliest, Latest time.Duration
}

// Step is one request. Times are since the delivery was created.
type Step struct {
	// Attempt and Try count from 1, Try within the attempt.
	Attempt, Try     int
	Earliest, Latest time.Duration
	Response         Response
	// Outcome is what followed; the status is PENDING while another request follows, also within the attempt.
	Outcome webhook.Outcome
	// Disables says that the subscription would be disabled now for having failed too often, if this were its only
	// delivery. What follows happens only where it is enabled again in time.
	Disables bool
	// Certain is false for a request that is made only where jitter happens to be short enough for the window.
	Certain bool
}

// maxSteps bounds a timeline: 51 attempts of 5 tries each.
const maxSteps = 51 * 5

// Simulate plays a delivery that gets the given responses, one per request; the last one repeats. No response at all
// means that every request succeeds with 200. Requests take no time, except those that time out, which take all of it.
// A Retry-After that is a date counts from a delivery created at time zero of Unix.
func (c *Contract) Simulate(responses []Response) Timeline {
	if len(responses) == 0 {
		responses = []Response{{StatusCode: 200}}
	}
	early := c.play(responses, func() float64 { return 0 })
	late := c.play(responses, func() float64 { return 1 })
	t := early
	for i := range t.Steps {
		step := &t.Steps[i]
		step.Latest = step.Earliest
		if step.Certain = i < len(late.Steps); step.Certain {
			step.Latest = max(late.Steps[i].Earliest, step.Earliest)
		} else {
			step.Latest = max(c.retry.window, step.Earliest)
		}
	}
	t.Latest = max(t.Earliest, late.Earliest, t.Steps[len(t.Steps)-1].Latest)
	return t
}

// player is one run of a simulation with fixed luck.
type player struct {
	c         *Contract
	responses []Response
	random    func() float64
	start     time.Time
	d         webhook.Delivery
	now       time.Duration
	failures  int
	disabled  bool
	t         Timeline
}

func (c *Contract) play(responses []Response, random func() float64) Timeline {
	start := time.Unix(0, 0).UTC()
	p := &player{c: c, responses: responses, random: random, start: start}
	p.d = webhook.Delivery{ID: uuid.Nil, CreatedAt: start}
	for len(p.t.Steps) < maxSteps {
		decision := p.attempt()
		if decision.Status != webhook.Pending {
			p.t.End = decision.Outcome
			break
		}
		p.now += decision.Delay
	}
	p.t.Earliest = p.now
	return p.t
}

// attempt plays the requests of one attempt and decides about it.
func (p *player) attempt() Decision {
	p.d.Attempts++
	for try := 1; ; try++ {
		n := len(p.t.Steps)
		r := p.responses[min(n, len(p.responses)-1)]
		p.t.Steps = append(p.t.Steps, Step{Attempt: int(p.d.Attempts), Try: try, Earliest: p.now, Response: r})
		step := &p.t.Steps[n]
		if r.Err == webhook.ErrorTimeout {
			p.now += p.c.timeout
		}
		if wait, again := p.c.Retry(r, try, p.random); again {
			step.Outcome = webhook.Outcome{Status: webhook.Pending, Reason: reason(r)}
			p.now += wait
			continue
		}
		decision := p.c.Decide(r, &p.d, p.start.Add(p.now), p.random)
		step.Outcome = decision.Outcome
		step.Disables = p.disables(decision)
		return decision
	}
}

// disables counts the failures as the profile's auto-disable does.
func (p *player) disables(decision Decision) bool {
	rule := p.c.p.AutoDisable
	if decision.DisableSubscription {
		return true
	}
	if rule == nil || p.disabled || decision.Status == webhook.Delivered {
		return false
	}
	if rule.Count == "attempts" || decision.Status == webhook.DeadLetter {
		p.failures++
	}
	p.disabled = p.failures >= rule.After && p.now >= rule.Window
	return p.disabled
}
