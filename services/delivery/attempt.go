package delivery

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"runtime/debug"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.opentelemetry.io/otel/attribute"

	"github.com/hookline/hookline/pkg/egress"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// Waits of deliveries that cannot be attempted yet, for reasons that lie with Hookline or the subscription's owner.
const (
	pausedDeferral  = time.Minute
	configDeferral  = time.Second
	missingDeferral = 30 * time.Second
)

// userAgent is sent where the profile names no other.
const userAgent = "Hookline/1.0"

// maxResponse is how much of a response is read. A connection whose response is longer is not used again.
const maxResponse = 16 << 10

// step is what follows for an item.
type step struct {
	// attempt is what goes to the audit; nil where nothing was attempted or decided.
	attempt *webhook.Attempt
	// One of these, or none where the delivery has ended well or been cancelled.
	retry *webhook.Retry
	dead  *wire.DeadLetter
	again time.Duration // wait, and try again within the same attempt
	// abandoned: the worker is stopping; the record is left to the next owner.
	abandoned bool
}

// run carries an item that has got a slot through one request.
func (ss *session) run(it *item) {
	begun := time.Now()
	if it.try == 1 && !it.part.beginWork() {
		ss.lanes.release(it.lane, begun, 0)
		return
	}
	next := ss.guarded(it)
	now := time.Now()
	ss.lanes.release(it.lane, now, now.Sub(begun))
	ss.conclude(it, next)
}

// guarded performs the attempt; a panic ends the delivery as a dead letter, not the worker.
func (ss *session) guarded(it *item) (next step) {
	defer func() {
		if cause := recover(); cause != nil {
			ss.deps.Log.ErrorContext(ss.work, "attempt panicked", "delivery", it.delivery.ID, "cause", fmt.Sprint(cause), "stack", string(debug.Stack()))
			next = decideWithout(it.delivery, webhook.DeadLetter, webhook.ReasonInternal, webhook.ErrorInternal)
		}
	}()
	return ss.perform(it)
}

// perform picks the item up, and makes one request unless the delivery is not to be sent, or not now.
func (ss *session) perform(it *item) step {
	d := it.delivery
	sub, known := ss.deps.Snapshot.Subscription(d.SubscriptionID)
	switch {
	case !known && ss.deps.Snapshot.Offset() < d.ConfigOffset:
		return putBack(d, configDeferral, webhook.ReasonConfig)
	case !known:
		return decideWithout(d, webhook.Cancelled, webhook.ReasonSubscriptionDeleted, webhook.ErrorNone)
	case sub.Status == webhook.SubscriptionDisabled:
		return decideWithout(d, webhook.Cancelled, webhook.ReasonSubscriptionInactive, webhook.ErrorNone)
	case sub.Status == webhook.SubscriptionPaused:
		return putBack(d, pausedDeferral, webhook.ReasonPaused)
	}
	terms, err := ss.resolve(it.lane, sub, d)
	if err != nil {
		ss.deps.Log.ErrorContext(ss.work, "resolve contract", "subscription", sub.ID, "delivery", d.ID, "error", err)
		return putBack(d, missingDeferral, webhook.ReasonConfig)
	}
	now := time.Now()
	if reason, expired := terms.contract.Expired(d, now); expired && it.try == 1 {
		return decideWithout(d, webhook.DeadLetter, reason, webhook.ErrorNone)
	}
	keys, err := terms.keys(now)
	if err != nil {
		ss.deps.Log.ErrorContext(ss.work, "open secret", "subscription", sub.ID, "delivery", d.ID, "error", err)
		return putBack(d, missingDeferral, webhook.ReasonSecret)
	}
	request, err := terms.contract.Build(d, keys, now)
	if errors.Is(err, profile.ErrSecret) {
		ss.deps.Log.ErrorContext(ss.work, "sign with secret", "subscription", sub.ID, "delivery", d.ID, "error", err)
		return putBack(d, missingDeferral, webhook.ReasonSecret)
	}
	if err != nil {
		ss.deps.Log.WarnContext(ss.work, "event does not fit the contract", "subscription", sub.ID, "delivery", d.ID, "error", err)
		return decideWithout(d, webhook.DeadLetter, webhook.ReasonContract, webhook.ErrorRequest)
	}
	return ss.exchange(it, terms, request)
}

// exchange makes the request and decides what follows.
func (ss *session) exchange(it *item, terms *resolved, request profile.Request) step {
	made := *it.delivery
	made.Attempts++
	made.Profile, made.ProfileVersion = terms.used.profile, terms.used.version
	ctx, span := telemetry.StartProducer(ss.work, ss.deps.Tracer, "deliver", made.Event.Trace,
		attribute.String("hookline.delivery", made.ID.String()), attribute.String("hookline.subscription", made.SubscriptionID))
	defer span.End()
	if _, ok := request.Header["User-Agent"]; !ok {
		request.Header["User-Agent"] = []string{userAgent}
	}
	traced := telemetry.TraceContext(ctx)
	if terms.contract.SendTrace() && traced.Parent != "" {
		request.Header["Traceparent"] = []string{traced.Parent}
		if traced.State != "" {
			request.Header["Tracestate"] = []string{traced.State}
		}
	}

	ss.deps.Metrics.Inflight.Add(ctx, 1)
	a := newAttempt(&made, it.try)
	a.TraceParent = traced.Parent
	retryAfter := ss.send(ctx, a, terms, request)
	ss.deps.Metrics.Inflight.Add(ctx, -1)
	if a.Error == webhook.ErrorCut {
		return step{abandoned: true}
	}

	response := profile.Response{StatusCode: a.StatusCode, Err: a.Error, RetryAfter: retryAfter}
	now := time.Now()
	next := step{attempt: a}
	if wait, again := terms.contract.Retry(response, int(it.try), rand.Float64); again {
		next.again = wait
		a.Outcome = webhook.Outcome{Status: webhook.Pending, Reason: reasonOf(response), NextAttemptAt: now.Add(wait)}
	} else {
		decision := terms.contract.Decide(response, &made, now, rand.Float64)
		a.Outcome = decision.Outcome
		switch decision.Status {
		case webhook.Pending:
			made.Trip++
			next.retry = &webhook.Retry{Delivery: made, Delay: decision.Delay, Reason: decision.Reason}
		case webhook.DeadLetter:
			next.dead = &wire.DeadLetter{Delivery: made, Reason: decision.Reason, StatusCode: a.StatusCode, Error: a.Error, Response: a.Response}
		}
	}
	span.SetAttributes(attribute.Int("http.response.status_code", a.StatusCode), attribute.String("hookline.status", string(a.Outcome.Status)),
		attribute.String("error.type", string(a.Error)))
	return next
}

// send makes one HTTP request and fills the attempt with what came of it. The deadline covers everything from the dial to
// the end of the body.
func (ss *session) send(ctx context.Context, a *webhook.Attempt, terms *resolved, request profile.Request) (retryAfter string) {
	ctx, cancel := context.WithTimeout(ctx, terms.contract.Timeout())
	defer cancel()
	a.RequestBytes = len(request.Body)
	a.StartedAt = time.Now()
	phases := &phaseTimer{started: a.StartedAt}
	defer func() { a.Duration, a.Phases = time.Since(a.StartedAt), phases.read() }()
	// Without GetBody the transport never repeats a request on its own: every request is an attempt in the audit.
	r := (&http.Request{
		Method: http.MethodPost, URL: terms.endpoint, Host: terms.endpoint.Host, Header: request.Header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Body: io.NopCloser(bytes.NewReader(request.Body)), ContentLength: int64(len(request.Body)),
	}).WithContext(httptrace.WithClientTrace(ctx, phases.trace()))
	response, err := ss.deps.Transport.RoundTrip(r)
	if err != nil {
		a.Error = ss.classify(err)
		return ""
	}
	defer response.Body.Close()
	a.StatusCode = response.StatusCode
	read, err := io.ReadAll(io.LimitReader(response.Body, maxResponse))
	a.ResponseBytes = len(read)
	a.Response = read[:min(len(read), ss.cfg.ResponseBytes)]
	if err != nil {
		// The status line came, but the exchange did not end within the deadline, or broke off.
		a.StatusCode, a.Error = 0, ss.classify(err)
		return ""
	}
	return response.Header.Get("Retry-After")
}

// classify says that a request was cut only where the worker is ending: that leaves the record to the next owner, so it
// must not be said of a request that a receiver cancelled.
func (ss *session) classify(err error) webhook.ErrorClass {
	class := egress.Classify(err)
	if class == webhook.ErrorCut && ss.work.Err() == nil {
		return webhook.ErrorConnection
	}
	return class
}

// phaseTimer takes the times of a request's phases. The transport may still report on a dial after the request has ended,
// and on several dials at once.
type phaseTimer struct {
	started time.Time

	mu                      sync.Mutex
	dns, connect, handshake time.Time
	phases                  webhook.Phases
}

func (t *phaseTimer) trace() *httptrace.ClientTrace {
	return &httptrace.ClientTrace{
		DNSStart:             func(httptrace.DNSStartInfo) { t.begin(&t.dns) },
		DNSDone:              func(httptrace.DNSDoneInfo) { t.end(&t.dns, &t.phases.DNS) },
		ConnectStart:         func(string, string) { t.begin(&t.connect) },
		ConnectDone:          func(string, string, error) { t.end(&t.connect, &t.phases.Connect) },
		TLSHandshakeStart:    func() { t.begin(&t.handshake) },
		TLSHandshakeDone:     func(tls.ConnectionState, error) { t.end(&t.handshake, &t.phases.TLS) },
		GotFirstResponseByte: func() { t.end(&t.started, &t.phases.FirstByte) },
	}
}

func (t *phaseTimer) begin(at *time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	*at = time.Now()
}

func (t *phaseTimer) end(from *time.Time, phase *time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	*phase = time.Since(*from)
}

func (t *phaseTimer) read() webhook.Phases {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.phases
}

func newAttempt(d *webhook.Delivery, try uint32) *webhook.Attempt {
	return &webhook.Attempt{
		ID: uuid.Must(uuid.NewV7()), DeliveryID: d.ID, Generation: d.Generation, Tenant: d.Event.Tenant,
		EventID: d.Event.ID, EventType: d.Event.Type, SubscriptionID: d.SubscriptionID,
		Profile: d.Profile, ProfileVersion: d.ProfileVersion, Trigger: d.Trigger, DeliveryCreatedAt: d.CreatedAt,
		Number: d.Attempts, Try: try,
	}
}

// decideWithout ends a delivery without a request.
func decideWithout(d *webhook.Delivery, status webhook.Status, reason webhook.Reason, class webhook.ErrorClass) step {
	a := newAttempt(d, 0)
	a.Number, a.StartedAt, a.Error = 0, time.Now(), class
	a.Outcome = webhook.Outcome{Status: status, Reason: reason}
	next := step{attempt: a}
	if status == webhook.DeadLetter {
		next.dead = &wire.DeadLetter{Delivery: *d, Reason: reason, Error: class}
	}
	return next
}

// putBack defers a delivery: it comes back after the delay, with no attempt counted.
func putBack(d *webhook.Delivery, delay time.Duration, reason webhook.Reason) step {
	waiting := *d
	waiting.Trip++
	return step{retry: &webhook.Retry{Delivery: waiting, Delay: delay, Reason: reason}}
}

func reasonOf(r profile.Response) webhook.Reason {
	switch r.Err {
	case webhook.ErrorNone:
		return webhook.ReasonHTTPStatus
	case webhook.ErrorTimeout:
		return webhook.ReasonTimeout
	default:
		return webhook.ReasonNetwork
	}
}

// resolved is what a subscription means for an attempt, kept in its lane until the subscription, its secret or the
// profile changes.
type resolved struct {
	subscription *webhook.Subscription
	secret       *webhook.Secret
	// made is the contract that the delivery was made under, used the one it goes out under.
	made, used stamp

	contract *profile.Contract
	endpoint *url.URL
	opened   map[int][]byte // by version number
}

// stamp names a version of a profile.
type stamp struct {
	profile string
	version uint32
}

// keys are the secret's values that sign at a moment, newest first.
func (t *resolved) keys(now time.Time) ([][]byte, error) {
	var keys [][]byte
	for _, v := range t.secret.Live(now) {
		keys = append(keys, t.opened[v.Number])
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("secret %s has no live version", t.secret.ID)
	}
	return keys, nil
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
	_, concurrency := t.contract.Limits()
	ss.lanes.setLimit(ln, concurrency)
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
