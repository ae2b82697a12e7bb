package ingest

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/hookline/hookline/pkg/callback"
	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/strictjson"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// lookTimeout bounds how long a call waits until all that Kafka has about callbacks is known here.
const lookTimeout = 10 * time.Second

// The reasons of refused callbacks; the codes of packages strictjson and profile appear as well.
const (
	callbackUnknownPath   = "unknown_path"
	callbackBadCredential = "bad_credentials"
	callbackBadSignature  = "bad_signature"
	callbackUnknown       = "no_such_delivery"
	callbackReordered     = "reordered_keys"
	callbackLate          = "late"
)

// callbacks finds the profile that each path belongs to.
func callbacks(profiles Profiles) (map[string]*profile.Profile, error) {
	byPath := map[string]*profile.Profile{}
	for _, name := range profiles.Names() {
		p, _ := profiles.Get(name)
		c := p.Callback()
		if c == nil {
			continue
		}
		if other, taken := byPath[c.Path]; taken {
			return nil, fmt.Errorf("the profiles %s and %s are both called back at %s", other.Name, name, c.Path)
		}
		byPath[c.Path] = p
	}
	return byPath, nil
}

// takeCallback answers 200 once Kafka has the call. The same body again is answered the same, and releases nothing again.
func (s *Service) takeCallback(w http.ResponseWriter, r *http.Request) (any, *refusal) {
	contract, ok := s.callbacks[r.PathValue("path")]
	if !ok {
		return nil, s.refuseCallback(r.Context(), http.StatusNotFound, callbackUnknownPath, "nothing is called back here")
	}
	p, refused := s.ready()
	if refused != nil {
		return nil, refused
	}
	known := s.ledger.Load()
	if known == nil || !known.caughtUp() {
		return nil, later("unavailable", "what may be called back is not known yet")
	}
	// The body is as large as the event was, and grows by what a parser may write differently.
	body, release, refused := s.read(w, r, 2*event.MaxSize)
	defer release()
	if refused != nil {
		if refused.Status != http.StatusServiceUnavailable {
			s.countCallback(r.Context(), 1, "refused", refused.Code)
		}
		return nil, refused
	}
	c, refused := s.verified(r, contract, body)
	if refused != nil {
		return nil, refused
	}
	standing, x, err := known.look(r.Context(), c)
	if err != nil {
		s.deps.Log.WarnContext(r.Context(), "look up a callback", "error", err)
		return nil, later("unavailable", "what may be called back is not known at the moment")
	}
	switch standing {
	case callback.Unknown:
		return nil, s.refuseCallback(r.Context(), http.StatusUnauthorized, callbackUnknown, "this body was not delivered to this client")
	case callback.Reordered:
		return nil, s.refuseCallback(r.Context(), http.StatusUnauthorized, callbackReordered, "the delivery had its keys in another order")
	case callback.Late:
		return nil, s.refuseCallback(r.Context(), http.StatusUnauthorized, callbackLate, "the delivery was too long ago")
	case callback.Done:
		s.countCallback(r.Context(), 1, "repeated", "")
	case callback.Open:
		if refused := s.writeRecords(r.Context(), p, []*kgo.Record{s.callRecord(r, c, x)}); refused != nil {
			return nil, refused
		}
	}
	return map[string]string{"status": "accepted"}, nil
}

// countCallback counts requests. One that is not refused and not known as repeated is counted by who matches it.
func (s *Service) countCallback(ctx context.Context, count int, outcome, reason string) {
	s.deps.Metrics.Callbacks.Add(ctx, int64(count), telemetry.Labels("outcome", outcome, "reason", reason))
}

func (s *Service) refuseCallback(ctx context.Context, status int, reason, detail string) *refusal {
	s.countCallback(ctx, 1, "refused", reason)
	return refuse(status, reason, detail)
}

// verifiedCall is a call of whom it says it is, and what its delivery is found by.
type verifiedCall struct {
	*webhook.Call
	group  string
	signed [32]byte
}

// verified is the call as its client has proved it to be.
func (s *Service) verified(r *http.Request, contract *profile.Profile, body []byte) (*verifiedCall, *refusal) {
	var wrong *strictjson.Error
	if err := strictjson.Check(body); errors.As(err, &wrong) {
		return nil, s.refuseCallback(r.Context(), http.StatusBadRequest, string(wrong.Code), wrong.Detail)
	}
	sent, signed, err := contract.Fingerprint(body)
	if err != nil {
		return nil, s.refuseCallback(r.Context(), http.StatusBadRequest, "not_canonical", err.Error())
	}
	tenant, shown, refused := s.client(r, contract.Callback())
	if refused != nil {
		return nil, refused
	}
	sub, credentials := s.subscriber(r, contract, tenant, shown, body)
	switch {
	case !credentials:
		return nil, s.refuseCallback(r.Context(), http.StatusUnauthorized, callbackBadCredential, "the client is unknown, or the key is another")
	case sub == nil:
		return nil, s.refuseCallback(r.Context(), http.StatusUnauthorized, callbackBadSignature, "the body is not what was signed for this client")
	}
	key, err := contract.Callback().Key(body)
	if err != nil {
		return nil, s.refuseCallback(r.Context(), http.StatusUnauthorized, callbackUnknown, "this body was not delivered to this client")
	}
	return &verifiedCall{
		Call:  &webhook.Call{ID: uuid.Must(uuid.NewV7()), Tenant: tenant, SubscriptionID: sub.ID, Profile: contract.Name, Sent: sent, Body: body, At: time.Now()},
		group: webhook.CallbackGroup(tenant, key), signed: signed,
	}, nil
}

// client is whose call it is: the tenant of an API key, or the tenant that a header names, whose key must then be shown too.
func (s *Service) client(r *http.Request, c *profile.Callback) (tenant string, shown []byte, refused *refusal) {
	if c.ClientHeader != "" && c.KeyHeader != "" && r.Header.Get("Authorization") == "" {
		tenant, shown = r.Header.Get(c.ClientHeader), []byte(r.Header.Get(c.KeyHeader))
		if tenant != "" && len(shown) > 0 {
			return tenant, shown, nil
		}
	}
	key, refused := s.authenticate(r)
	if refused != nil {
		s.countCallback(r.Context(), 1, "refused", refused.Code)
		return "", nil, refused
	}
	return key.Tenant, nil, nil
}

// subscriber finds the subscription whose secret signed the body, and, where a key is shown, is that key. Credentials says whether
// there is one that the client may speak for.
func (s *Service) subscriber(r *http.Request, contract *profile.Profile, tenant string, shown, body []byte) (found *webhook.Subscription, credentials bool) {
	for _, sub := range s.deps.Snapshot.Wanting(tenant, contract.Callback().EventType) {
		secret, ok := s.deps.Snapshot.Secret(sub.SecretID)
		if sub.Profile != contract.Name || !ok {
			continue
		}
		var keys [][]byte
		for _, key := range s.opened(r.Context(), secret) {
			if shown == nil || same(shown, key) {
				keys = append(keys, key)
			}
		}
		if len(keys) == 0 {
			continue
		}
		credentials = true
		if contract.Verify(r.Header, body, keys, time.Now()) == nil {
			return sub, true
		}
	}
	return nil, credentials
}

// same compares in time that depends on neither text, not even on their lengths.
func same(a, b []byte) bool {
	x, y := sha256.Sum256(a), sha256.Sum256(b)
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

// callRecord is the record of a call, whose span is in the trace of the delivery that is called back.
func (s *Service) callRecord(r *http.Request, c *verifiedCall, x *webhook.Expectation) *kgo.Record {
	within, link := x.Trace.Join(r.Header.Get("Traceparent"))
	ctx, span := telemetry.StartConsumer(r.Context(), s.deps.Tracer, "callback", within, attribute.String("hookline.subscription", c.SubscriptionID),
		attribute.String("hookline.tenant", c.Tenant), attribute.String("hookline.delivery", x.Delivery.String()), attribute.String("hookline.event", x.EventID))
	defer span.End()
	linkTo(ctx, span, link)
	c.TraceParent = telemetry.TraceContext(ctx).Parent
	return &kgo.Record{Topic: s.deps.Kafka.Topics.Callbacks, Key: []byte(callback.CallKey(c.group, c.ID)), Value: wire.EncodeCall(c.Call)}
}

// linkTo links a span to another trace.
func linkTo(ctx context.Context, span trace.Span, parent string) {
	if parent == "" {
		return
	}
	if linked := trace.SpanContextFromContext(telemetry.WithRemote(ctx, webhook.TraceContext{Parent: parent})); linked.IsRemote() && linked.IsValid() {
		span.AddLink(trace.Link{SpanContext: linked})
	}
}
