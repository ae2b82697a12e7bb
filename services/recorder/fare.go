package recorder

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/webhook"
)

// remembered bounds how many failures of a streak are kept one by one.
const remembered = 100

// fare is what is remembered of a subscription's attempts: a fold over them in the order of the attempts topic, stored together
// with the position up to which it has gone.
type fare struct {
	// Attempts and Deliveries are the failures in a row; a success ends both.
	Attempts   streak `json:"attempts,omitzero"`
	Deliveries streak `json:"deliveries,omitzero"`
	// Epoch is when the subscription got the status that was last looked at: failures of attempts begun before say nothing.
	Epoch time.Time `json:"epoch,omitzero"`
	// Told is the subscription's last automatic disabling that was told.
	Told time.Time `json:"told,omitzero"`
	// Failing says that its failing was told, and its recovery was not; FailingAt when it last was.
	Failing   bool      `json:"failing,omitempty"`
	FailingAt time.Time `json:"failingAt,omitzero"`
	// DeadAt is when dead letters were last told, Untold how many have come since.
	DeadAt time.Time `json:"deadAt,omitzero"`
	Untold int       `json:"untold,omitempty"`

	partition int32
	next      int64
}

// streak is failures in a row.
type streak struct {
	Count int       `json:"count"`
	Since time.Time `json:"since"` // the start of the first
	// Last are the latest ones, oldest first.
	Last []failure `json:"last"`
}

type failure struct {
	ID uuid.UUID `json:"id"` // of the attempt, or the delivery
	At time.Time `json:"at"` // the attempt's start
}

// add counts a failure once, and keeps as many of the last ones as a rule looks at.
func (s *streak) add(f failure, keep int) {
	if slices.ContainsFunc(s.Last, func(old failure) bool { return old.ID == f.ID }) {
		return
	}
	if s.Count == 0 {
		s.Since = f.At
	}
	s.Count++
	s.Last = append(s.Last, f)
	s.Last = slices.Clone(s.Last[max(0, len(s.Last)-max(1, min(keep, remembered))):])
}

// since leaves out the failures of attempts that began before a moment, as far as they are remembered.
func (s *streak) since(moment time.Time) {
	if s.Count == 0 || !s.Since.Before(moment) {
		return
	}
	s.Last = slices.DeleteFunc(slices.Clone(s.Last), func(f failure) bool { return f.At.Before(moment) })
	*s = streak{Count: len(s.Last), Last: s.Last}
	if s.Count > 0 {
		s.Since = slices.MinFunc(s.Last, func(a, b failure) int { return a.At.Compare(b.At) }).At
	}
}

// exceeds reports whether a rule asks for the subscription to be disabled at the streak's latest failure.
func (s *streak) exceeds(rule *profile.AutoDisable) bool {
	return rule != nil && s.Count >= rule.After && s.Last[len(s.Last)-1].At.Sub(s.Since) >= rule.Window
}

// of is the streak that a rule counts.
func (h *fare) of(rule *profile.AutoDisable) *streak {
	if rule != nil && rule.Count == "deliveries" {
		return &h.Deliveries
	}
	return &h.Attempts
}

// add folds an attempt in. It reports whether the rule of the attempt's contract asks for the subscription to be disabled now.
func (h *fare) add(a *webhook.Attempt, rule *profile.AutoDisable) (tripped bool) {
	switch {
	case a.Outcome.Status == webhook.Delivered:
		h.Attempts, h.Deliveries, h.Told = streak{}, streak{}, time.Time{}
		return false
	case !failed(a) || a.StartedAt.Before(h.Epoch):
		return false
	}
	keep := 1
	if rule != nil {
		keep = rule.After
	}
	counted := false
	if a.Number > 0 {
		counted = h.of(rule) == &h.Attempts
		h.Attempts.add(failure{a.ID, a.StartedAt}, keep)
	}
	if a.Outcome.Status == webhook.DeadLetter {
		counted = counted || h.of(rule) == &h.Deliveries
		h.Deliveries.add(failure{a.DeliveryID, a.StartedAt}, keep)
	}
	return counted && h.of(rule).exceeds(rule)
}

// failed reports whether an attempt, or a decision without one, is held against the receiver: not what somebody asked for by hand, not
// what the receiver asked to have later, and not what Hookline itself could not do.
func failed(a *webhook.Attempt) bool {
	if a.Trigger != webhook.TriggerEvent || a.Outcome.Uncounted {
		return false
	}
	switch a.Error {
	case webhook.ErrorInternal, webhook.ErrorRequest, webhook.ErrorNoSecret, webhook.ErrorCut:
		return false
	}
	if a.Number > 0 {
		return true
	}
	return a.Outcome.Reason == webhook.ReasonAttemptsExhausted || a.Outcome.Reason == webhook.ReasonWindowExceeded
}

// renew starts a new epoch: what was counted of attempts begun before it no longer counts.
func (h *fare) renew(epoch time.Time) {
	h.Epoch = epoch
	h.Attempts.since(epoch)
	h.Deliveries.since(epoch)
}

// alerts are the thresholds of what is told about a subscription.
type alerts struct {
	after int           // failed attempts in a row
	span  time.Duration // which they must last
	quiet time.Duration // between two notices of one kind
}

// notices says what is to be told about an attempt that has been folded in, at the time of its record. before is the streak of failed
// attempts before it. An attempt at an operational event is never told of: the notice could be the next one to fail.
func (h *fare) notices(a *webhook.Attempt, before streak, limits alerts, at time.Time) (told []notice) {
	quiet := func(last time.Time) bool { return !last.IsZero() && at.Sub(last) < limits.quiet }
	if webhook.Operational(a.EventType) {
		return nil
	}
	if a.Outcome.Status == webhook.Delivered && h.Failing {
		h.Failing = false
		told = append(told, notice{kind: recovered, attempt: a, at: at, since: before.Since, count: before.Count})
	}
	s := &h.Attempts
	if !h.Failing && limits.after > 0 && s.Count >= limits.after && s.Count > before.Count &&
		s.Last[len(s.Last)-1].At.Sub(s.Since) >= limits.span && !quiet(h.FailingAt) {
		h.Failing, h.FailingAt = true, at
		told = append(told, notice{kind: failing, attempt: a, at: at, since: s.Since, count: s.Count})
	}
	if a.Outcome.Status == webhook.DeadLetter {
		h.Untold++
		if !quiet(h.DeadAt) {
			told = append(told, notice{kind: deadLettered, attempt: a, at: at, count: h.Untold})
			h.DeadAt, h.Untold = at, 0
		}
	}
	return told
}

// settled reports whether there is nothing more to remember.
func (h *fare) settled(limits alerts, at time.Time) bool {
	recent := func(t time.Time) bool { return !t.IsZero() && at.Sub(t) < limits.quiet }
	return h.Attempts.Count == 0 && h.Deliveries.Count == 0 && !h.Failing && h.Untold == 0 && h.Told.IsZero() &&
		!recent(h.FailingAt) && !recent(h.DeadAt)
}

func (h *fare) encode() []byte {
	state, err := json.Marshal(h)
	if err != nil {
		panic(err) // times and numbers only
	}
	return state
}

// compareSubscriptions is an order in which verdicts are carried out alike each time.
func compareSubscriptions(a, b subscription) int {
	return cmp.Or(cmp.Compare(a.tenant, b.tenant), cmp.Compare(a.id, b.id))
}
