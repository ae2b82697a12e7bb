package profile

import (
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

// Decision is what follows from an attempt. Delay is set where the outcome's status is PENDING.
type Decision struct {
	webhook.Outcome
	Delay time.Duration
}

// Retry decides about a micro-retry: whether another request follows within the same attempt, and after which wait. try
// counts the requests made so far in the attempt.
func (c *Contract) Retry(r Response, try int, random func() float64) (wait time.Duration, again bool) {
	if try >= c.micro.attempts || !onTheWire(r.Err) || c.p.responses.of(r) != actionRetry {
		return 0, false
	}
	return c.micro.min + time.Duration(float64(c.micro.max-c.micro.min)*unit(random)), true
}

// onTheWire reports whether a request may have reached the network, so that the same again could end otherwise.
func onTheWire(e webhook.ErrorClass) bool {
	switch e {
	case webhook.ErrorRequest, webhook.ErrorNoSecret, webhook.ErrorInternal, webhook.ErrorBlocked, webhook.ErrorCut:
		return false
	default:
		return true
	}
}

// Decide says what follows from the last response of an attempt. d.Attempts counts the attempts made, this one included.
//
//	response                          outcome
//	a rule says delivered             DELIVERED
//	a rule says dead letter           DEAD_LETTER http_status, network or timeout; the subscription disabled where it says so
//	the request could not be built    DEAD_LETTER contract
//	a defect of Hookline              DEAD_LETTER internal
//	no attempt left                   DEAD_LETTER attempts_exhausted
//	the next one after the window     DEAD_LETTER window_exceeded
//	else                              PENDING http_status, network, timeout or secret
func (c *Contract) Decide(r Response, d *webhook.Delivery, now time.Time, random func() float64) Decision {
	switch r.Err {
	case webhook.ErrorRequest:
		return deadLetter(webhook.ReasonContract)
	case webhook.ErrorInternal:
		return deadLetter(webhook.ReasonInternal)
	}
	switch c.p.responses.of(r) {
	case actionDelivered:
		return Decision{Outcome: webhook.Outcome{Status: webhook.Delivered}}
	case actionDeadLetter:
		return deadLetter(reason(r))
	case actionDisable:
		end := deadLetter(reason(r))
		end.DisableSubscription = true
		return end
	}
	if int64(d.Attempts) >= int64(c.retry.attempts) {
		return deadLetter(webhook.ReasonAttemptsExhausted)
	}
	delay, inside := c.wait(r, d, now, random)
	if !inside {
		return deadLetter(webhook.ReasonWindowExceeded)
	}
	return Decision{
		Outcome: webhook.Outcome{Status: webhook.Pending, Reason: reason(r), NextAttemptAt: now.Add(delay)},
		Delay:   delay,
	}
}

func deadLetter(r webhook.Reason) Decision {
	return Decision{Outcome: webhook.Outcome{Status: webhook.DeadLetter, Reason: r}}
}

func reason(r Response) webhook.Reason {
	switch {
	case r.Err == webhook.ErrorTimeout:
		return webhook.ReasonTimeout
	case r.Err == webhook.ErrorNoSecret:
		return webhook.ReasonSecret
	case r.Err != webhook.ErrorNone || r.StatusCode == 0:
		return webhook.ReasonNetwork
	default:
		return webhook.ReasonHTTPStatus
	}
}

// Expired reports whether a delivery that is picked up has no attempt left or is past its window. The window is one of
// retries: a delivery that has neither been attempted nor put back gets its first attempt however late it comes.
func (c *Contract) Expired(d *webhook.Delivery, now time.Time) (webhook.Reason, bool) {
	if int64(d.Attempts) >= int64(c.retry.attempts) {
		return webhook.ReasonAttemptsExhausted, true
	}
	if left, limited := c.retry.left(d, now); limited && left < 0 && (d.Attempts > 0 || d.Trip > 0) {
		return webhook.ReasonWindowExceeded, true
	}
	return webhook.ReasonNone, false
}
