package delivery

import (
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/webhook"
)

// resolved is what a subscription means for an attempt, kept in its lane until the subscription, its secret or the
// profile changes.
type resolved struct {
	subscription *webhook.Subscription
	secret       *webhook.Secret
	// asOf is the offset of the config at which they were these, and active.
	asOf atomic.Int64
	// made is the contract that the delivery was made under, used the one it goes out under.
	made, used stamp

	contract *profile.Contract
	endpoint *url.URL
	opened   map[int][]byte // by version number
	live     atomic.Pointer[liveKeys]
}

// liveKeys are the values that sign until a moment; the zero time is for ever.
type liveKeys struct {
	values [][]byte
	until  time.Time
}

// stamp names a version of a profile.
type stamp struct {
	profile string
	version uint32
}

// keys are the secret's values that sign at a moment, newest first.
func (t *resolved) keys(now time.Time) ([][]byte, error) {
	if l := t.live.Load(); l != nil && (l.until.IsZero() || now.Before(l.until)) {
		return l.values, nil
	}
	var l liveKeys
	for _, v := range t.secret.Live(now) {
		l.values = append(l.values, t.opened[v.Number])
		if !v.ExpiresAt.IsZero() && (l.until.IsZero() || v.ExpiresAt.Before(l.until)) {
			l.until = v.ExpiresAt
		}
	}
	if len(l.values) == 0 {
		return nil, fmt.Errorf("secret %s has no live version", t.secret.ID)
	}
	t.live.Store(&l)
	return l.values, nil
}

// terms are what an attempt goes by. They are nil where none is to be made; then the step is what follows.
func (ss *session) terms(ln *lane, d *webhook.Delivery) (*resolved, step) {
	// The offset first: what changes meanwhile is looked up again.
	at := ss.deps.Snapshot.Offset()
	if t := ln.resolved.Load(); t != nil && t.asOf.Load() == at && t.made == (stamp{d.Profile, d.ProfileVersion}) {
		return t, step{}
	}
	sub, known := ss.deps.Snapshot.Subscription(d.SubscriptionID)
	switch {
	case !known && at < d.ConfigOffset:
		return nil, deferred(d, configDeferral, webhook.ReasonConfig)
	case !known:
		return nil, decideWithout(d, webhook.Cancelled, webhook.ReasonSubscriptionDeleted, webhook.ErrorNone)
	case sub.Status == webhook.SubscriptionDisabled:
		return nil, decideWithout(d, webhook.Cancelled, webhook.ReasonSubscriptionInactive, webhook.ErrorNone)
	case sub.Status == webhook.SubscriptionPaused:
		return nil, deferred(d, ss.lanes.deferral(ln, time.Now(), webhook.ReasonPaused), webhook.ReasonPaused)
	}
	t, err := ss.resolve(ln, sub, d)
	if err != nil {
		ss.deps.Log.ErrorContext(ss.work, "resolve contract", "subscription", sub.ID, "delivery", d.ID, "error", err)
		return nil, deferred(d, missingDeferral, webhook.ReasonConfig)
	}
	t.asOf.Store(at)
	return t, step{}
}

// resolve finds the contract, the endpoint and the keys of an attempt. A delivery made under another profile than the
// subscription has now goes out under the present one: a key of one contract must not sign for another.
func (ss *session) resolve(ln *lane, sub *webhook.Subscription, d *webhook.Delivery) (*resolved, error) {
	secret, ok := ss.deps.Snapshot.Secret(sub.SecretID)
	if !ok {
		return nil, fmt.Errorf("secret %q is not in the config snapshot", sub.SecretRef)
	}
	made := stamp{d.Profile, d.ProfileVersion}
	if t := ln.resolved.Load(); t != nil && t.subscription == sub && t.secret == secret && t.made == made {
		return t, nil
	}
	terms, err := ss.profileOf(sub, d)
	if err != nil {
		return nil, err
	}
	t := &resolved{subscription: sub, secret: secret, made: made, used: stamp{terms.Name, terms.Version}, opened: map[int][]byte{}}
	if t.contract, err = terms.Contract(sub.Overrides); err != nil {
		return nil, fmt.Errorf("profile %s version %d with the subscription's overrides: %w", terms.Name, terms.Version, err)
	}
	if t.endpoint, err = url.Parse(sub.EndpointURL); err != nil {
		return nil, fmt.Errorf("endpoint URL: %w", err)
	}
	for _, v := range secret.Versions {
		value, err := ss.deps.Keys.Open(secret, v)
		if err != nil {
			return nil, err
		}
		t.opened[v.Number] = value
	}
	perSecond, concurrency := t.contract.Limits()
	ss.lanes.limit(ln, perSecond, concurrency)
	ln.resolved.Store(t)
	return t, nil
}

// profileOf is the version of the profile that the delivery was made under. It is the newest one of the subscription's
// profile where the subscription has moved to another, where that version is not loaded, or where the overrides, which
// were checked against the newest, are out of its bounds.
func (ss *session) profileOf(sub *webhook.Subscription, d *webhook.Delivery) (*profile.Profile, error) {
	if sub.Profile == d.Profile {
		if p, ok := ss.deps.Profiles.Version(d.Profile, d.ProfileVersion); ok && len(p.Check(sub.Overrides)) == 0 {
			return p, nil
		}
	}
	if p, ok := ss.deps.Profiles.Get(sub.Profile); ok {
		return p, nil
	}
	return nil, fmt.Errorf("profile %q is not loaded", sub.Profile)
}
