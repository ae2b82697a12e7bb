package delivery

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
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

// step is what follows for an item.
type step struct {
	// attempt is what goes to the audit; nil where nothing was attempted or decided.
	attempt *webhook.Attempt
	// One of these, or none where the delivery has ended well or been cancelled.
	retry *webhook.Retry
	value []byte // of the retry's record, where it is at hand
	dead  *wire.DeadLetter
	again time.Duration // wait, and try again within the same attempt
	// abandoned: the worker is stopping; the record is left to the next owner.
	abandoned bool
	// says and hold are what the endpoint's lane learns: how it fares, and how long it asks for nothing more.
	says verdict
	hold time.Duration
}

// run carries an item that has got a slot through one request, and returns another that has got the slot after it, if any.
func (ss *session) run(it *item) (follower *item) {
	begun := time.Now()
	if it.try == 1 && !ss.beginWork(it) {
		return ss.lanes.release(it, begun, begun, noVerdict, 0)
	}
	next := ss.guarded(it)
	follower = ss.lanes.release(it, begun, time.Now(), next.says, next.hold)
	ss.conclude(it, next)
	return follower
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
	terms, instead := ss.terms(it.lane, d)
	if terms == nil {
		return instead
	}
	now := time.Now()
	if reason, expired := terms.contract.Expired(d, now); expired && it.try == 1 {
		return decideWithout(d, webhook.DeadLetter, reason, webhook.ErrorNone)
	}
	keys, err := terms.keys(now)
	if err != nil {
		ss.deps.Log.ErrorContext(ss.work, "open secret", "subscription", d.SubscriptionID, "delivery", d.ID, "error", err)
		return deferred(d, missingDeferral, webhook.ReasonSecret)
	}
	request, err := terms.contract.Build(d, keys, now)
	if errors.Is(err, profile.ErrSecret) {
		ss.deps.Log.ErrorContext(ss.work, "sign with secret", "subscription", d.SubscriptionID, "delivery", d.ID, "error", err)
		return deferred(d, missingDeferral, webhook.ReasonSecret)
	}
	if err != nil {
		ss.deps.Log.WarnContext(ss.work, "event does not fit the contract", "subscription", d.SubscriptionID, "delivery", d.ID, "error", err)
		return decideWithout(d, webhook.DeadLetter, webhook.ReasonContract, webhook.ErrorRequest)
	}
	return ss.exchange(it, terms, request)
}

// exchange makes the request and decides what follows.
func (ss *session) exchange(it *item, terms *resolved, request profile.Request) step {
	made := *it.delivery
	made.Attempts++
	made.Profile, made.ProfileVersion = terms.used.profile, terms.used.version
	ctx, span := telemetry.StartProducer(ss.work, ss.deps.Tracer, "deliver", made.Event.Trace)
	defer span.End()
	a := newAttempt(&made, it.try)
	if span.SpanContext().IsValid() {
		a.TraceParent = dress(ctx, request.Header, terms.contract)
	}

	got := egress.Post(ctx, ss.deps.Transport, egress.Request{
		URL: terms.endpoint, Header: request.Header, Body: request.Body, Timeout: terms.contract.Timeout(), Keep: ss.cfg.ResponseBytes,
	})
	if got.Err == webhook.ErrorCut {
		if ss.work.Err() != nil {
			return step{abandoned: true}
		}
		// The worker goes on, so it was the receiver that gave up.
		got.Err = webhook.ErrorConnection
	}
	a.StartedAt, a.Duration, a.Phases = got.Started, got.Duration, got.Phases
	a.StatusCode, a.Error, a.Response = got.StatusCode, got.Err, got.Body
	a.RequestBytes, a.ResponseBytes = len(request.Body), got.Read
	next := ss.decide(it, &made, a, terms, got.Header.Get("Retry-After"))
	if span.IsRecording() {
		span.SetAttributes(attribute.String("hookline.delivery", made.ID.String()), attribute.String("hookline.subscription", made.SubscriptionID),
			attribute.Int("http.response.status_code", a.StatusCode), attribute.String("hookline.status", string(a.Outcome.Status)),
			attribute.String("error.type", string(a.Error)))
	}
	return next
}

// dress adds the trace of the attempt, and returns the traceparent of its span.
func dress(ctx context.Context, header http.Header, contract *profile.Contract) string {
	traced := telemetry.TraceContext(ctx)
	if contract.SendTrace() && traced.Parent != "" {
		header["Traceparent"] = []string{traced.Parent}
		if traced.State != "" {
			header["Tracestate"] = []string{traced.State}
		}
	}
	return traced.Parent
}

// decide fills the attempt's outcome and says what follows from it.
func (ss *session) decide(it *item, made *webhook.Delivery, a *webhook.Attempt, terms *resolved, retryAfter string) step {
	now := time.Now()
	response := profile.Response{StatusCode: a.StatusCode, Err: a.Error, RetryAfter: retryAfter}
	next := step{attempt: a}
	next.says, next.hold = endpointSays(response, now)
	if wait, again := terms.contract.Retry(response, int(it.try), rand.Float64); again && wait >= next.hold {
		next.again = wait
		a.Outcome = webhook.Outcome{Status: webhook.Pending, Reason: reasonOf(response), NextAttemptAt: now.Add(wait), Uncounted: true}
		return next
	}
	decision := terms.contract.Decide(response, made, now, rand.Float64)
	a.Outcome = decision.Outcome
	a.Outcome.Uncounted = next.hold > 0
	switch decision.Status {
	case webhook.Pending:
		made.Trip++
		next.retry = &webhook.Retry{Delivery: *made, Delay: decision.Delay, Reason: decision.Reason}
	case webhook.DeadLetter:
		next.dead = &wire.DeadLetter{Delivery: *made, Reason: decision.Reason, StatusCode: a.StatusCode, Error: a.Error, Response: a.Response}
	}
	return next
}

// endpointSays reads from a response what is meant for all deliveries to the endpoint: how it fares, and how long it asks
// to be left alone. 503 without Retry-After is a failure like any other 5xx.
func endpointSays(r profile.Response, now time.Time) (verdict, time.Duration) {
	if r.Err != webhook.ErrorNone {
		return silent, 0
	}
	if r.StatusCode != http.StatusTooManyRequests && r.StatusCode != http.StatusServiceUnavailable {
		return answered, 0
	}
	hold, asked := profile.ParseRetryAfter(r.RetryAfter, now)
	if !asked && r.StatusCode == http.StatusServiceUnavailable {
		return answered, 0
	}
	return overloaded, hold
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

// deferred puts a delivery back: it comes again after the delay, with no attempt counted.
func deferred(d *webhook.Delivery, delay time.Duration, reason webhook.Reason) step {
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
