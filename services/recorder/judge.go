package recorder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// automatically is how the status reason of a subscription begins that the recorder has disabled.
const automatically = "automatically disabled: "

// request asks that a subscription be disabled.
type request struct {
	// because is why, as the status reason says it.
	because string
	at      time.Time // when the attempt started that asks
	// rule and streak are the contract's rule and what it counted; nil where a response asks for it by itself.
	rule   *profile.AutoDisable
	streak streak
}

// judge folds the batch's attempts into what is known of their subscriptions, disables those whose contract or receiver asks for it,
// and tells of what happened. What it adds to the batch is written together with the positions: until then all of this may be done
// again from the same state, with the same result.
func (ss *session) judge(b *batch) error {
	changed := map[subscription]*fare{}
	var notices []notice
	for i := range b.Attempts {
		a, r := &b.Attempts[i], b.attemptOf[i]
		if a.Trigger == webhook.TriggerTest {
			continue // neither for nor against the receiver
		}
		key := subscription{a.Tenant, a.SubscriptionID}
		h := ss.known(r.Partition, key)
		if h == nil && a.Outcome.Status != webhook.DeadLetter && !failed(a) {
			continue // nothing is remembered, and there is nothing to remember
		}
		if h == nil {
			h = &fare{}
		}
		if r.Offset < h.next {
			continue
		}
		before := h.Attempts
		if rule := ss.rule(a); h.add(a, rule) {
			b.disable[key] = request{because: because(h.of(rule), rule, a), at: a.StartedAt, rule: rule, streak: *h.of(rule)}
		}
		if a.Outcome.DisableSubscription {
			b.disable[key] = request{because: fmt.Sprintf("the endpoint answered %d", a.StatusCode), at: a.StartedAt}
		}
		notices = append(notices, h.notices(a, before, ss.limits(), r.Timestamp)...)
		h.partition, h.next = r.Partition, r.Offset+1
		changed[key] = h
		ss.remember(key, h, r.Timestamp)
	}
	for _, key := range slices.SortedFunc(maps.Keys(b.disable), compareSubscriptions) {
		told, err := ss.carryOut(key, b.disable[key], changed[key])
		if err != nil {
			return err
		}
		notices = append(notices, told...)
	}
	if len(notices) > 0 {
		if err := ss.persist(ss.work, "tell of subscriptions", func(ctx context.Context) error { return ss.tell(ctx, notices) }); err != nil {
			return err
		}
	}
	for key, h := range changed {
		row := store.Health{Tenant: key.tenant, SubscriptionID: key.id, Partition: h.partition, Next: h.next, UpdatedAt: b.newest}
		if ss.remember(key, h, b.newest) {
			row.State = h.encode()
		}
		b.Health = append(b.Health, row)
	}
	return nil
}

func (ss *session) known(partition int32, key subscription) *fare {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return ss.fares[partition][key]
}

// remember keeps what is known of a subscription in memory, unless there is nothing more to remember.
func (ss *session) remember(key subscription, h *fare, at time.Time) bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	known := ss.fares[h.partition]
	if h.settled(ss.limits(), at) {
		delete(known, key)
		return false
	}
	if known == nil {
		known = map[subscription]*fare{}
		ss.fares[h.partition] = known
	}
	known[key] = h
	return true
}

// recall reads what is remembered of the subscriptions whose attempts are in partitions that have been assigned.
func (ss *session) recall(ctx context.Context, partitions []int32) error {
	stored, err := ss.deps.Store.Health(ctx, partitions...)
	if err != nil {
		return err
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for _, p := range partitions {
		ss.fares[p] = map[subscription]*fare{}
	}
	for _, row := range stored {
		h := &fare{}
		if err := json.Unmarshal(row.State, h); err != nil {
			return fmt.Errorf("read health of subscription %s: %w", row.SubscriptionID, err)
		}
		h.partition, h.next = row.Partition, row.Next
		ss.fares[row.Partition][subscription{row.Tenant, row.SubscriptionID}] = h
	}
	return nil
}

func (ss *session) limits() alerts {
	return alerts{after: ss.cfg.FailingAfter, span: ss.cfg.FailingSpan, quiet: ss.cfg.Quiet}
}

// rule is what the contract of an attempt says about disabling; nil where it says nothing.
func (ss *session) rule(a *webhook.Attempt) *profile.AutoDisable {
	p, ok := ss.deps.Profiles.Version(a.Profile, a.ProfileVersion)
	if !ok {
		p, ok = ss.deps.Profiles.Get(a.Profile)
	}
	if !ok {
		return nil
	}
	return p.AutoDisable
}

// because says what a streak looks like from the owner's side.
func because(s *streak, rule *profile.AutoDisable, a *webhook.Attempt) string {
	last := "no response: " + string(a.Error)
	if a.StatusCode != 0 {
		last = fmt.Sprintf("status %d", a.StatusCode)
	} else if a.Error == webhook.ErrorNone {
		last = string(a.Outcome.Reason)
	}
	return fmt.Sprintf("%d %s in a row failed since %s, the last with %s", s.Count, rule.Count, s.Since.UTC().Format(time.RFC3339), last)
}

// carryOut disables a subscription, unless it is not active, or was enabled after the attempts that ask for it. It returns what is
// to be told, which is also a disabling that an earlier run of the same batch could not tell any more.
func (ss *session) carryOut(key subscription, asked request, h *fare) (told []notice, err error) {
	var found webhook.Subscription
	errLeave := errors.New("leave it")
	change := func(sub *webhook.Subscription) error {
		found = *sub
		if !asked.stands(sub) {
			return errLeave
		}
		sub.Status, sub.StatusReason = webhook.SubscriptionDisabled, automatically+asked.because
		return nil
	}
	err = ss.persist(ss.work, "disable subscription", func(ctx context.Context) error {
		updated, err := ss.deps.Store.UpdateSubscription(ctx, key.tenant, key.id, change)
		switch {
		case err == nil:
			found = updated
			ss.deps.Log.InfoContext(ctx, "subscription disabled", "tenant", key.tenant, "subscription", key.id, "reason", asked.because)
		case errors.Is(err, errLeave), errors.Is(err, store.ErrNotFound):
			return nil
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if found.ID == "" { // deleted meanwhile
		h.Attempts, h.Deliveries = streak{}, streak{}
		return nil, nil
	}
	h.renew(found.StatusSince)
	if found.Status == webhook.SubscriptionDisabled && strings.HasPrefix(found.StatusReason, automatically) && !h.Told.Equal(found.StatusSince) {
		h.Told = found.StatusSince
		told = append(told, notice{kind: disabled, at: found.StatusSince, subscription: &found})
	}
	return told, nil
}

// stands reports whether a request still holds for the subscription as it is.
func (r *request) stands(sub *webhook.Subscription) bool {
	if r.rule == nil {
		return sub.Status != webhook.SubscriptionDisabled && !r.at.Before(sub.StatusSince)
	}
	since := r.streak
	since.since(sub.StatusSince)
	rule := *r.rule
	rule.After = min(rule.After, remembered)
	if r.streak.Since.Before(sub.StatusSince) {
		return sub.Status == webhook.SubscriptionActive && since.Count > 0 && since.exceeds(&rule)
	}
	return sub.Status == webhook.SubscriptionActive
}
