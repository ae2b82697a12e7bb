package api

import (
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/egress"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

const (
	headerTest      = "Hookline-Test"
	genericTestType = "hookline.test"
	// maxTestResponse is how much of the receiver's answer is shown.
	maxTestResponse = 1 << 10
	// quietFloor is the least time after which a test that got no response is answered: how long it took must not tell
	// which ports of a network are open.
	quietFloor = 500 * time.Millisecond
	// clockTolerance is how far a receiver's clock may be off before it is worth a word.
	clockTolerance = 2 * time.Minute
)

type testView struct {
	Status     string          `json:"status" enum:"PENDING,DELIVERED,DEAD_LETTER" doc:"What a delivery would be after this attempt. A test is not repeated: in the audit it has ended, as DELIVERED or DEAD_LETTER."`
	DeliveryID string          `json:"deliveryId" doc:"Under which the audit has it in a moment, with the trigger test."`
	Recorded   bool            `json:"recorded" doc:"false where Kafka could not be told of it: the audit will not have it."`
	EventID    string          `json:"eventId"`
	EventType  string          `json:"eventType"`
	StatusCode *int            `json:"statusCode" doc:"null where no response came."`
	Error      *string         `json:"error" doc:"Why no response came, as a stable code."`
	DurationMs float64         `json:"durationMs"`
	Request    testRequestView `json:"request"`
	Response   *string         `json:"response" doc:"The beginning of the response's body."`
	Advice     *string         `json:"advice" doc:"What is likely wrong."`
}

type testRequestView struct {
	URL     string            `json:"url"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body" doc:"The bytes that were signed and sent."`
}

type testOutput struct{ Body testView }

type testInput struct {
	IDInput
	Body *struct {
		EventType string `json:"eventType,omitempty" nullable:"true" maxLength:"255" pattern:"^([^\\s.*]+(\\.[^\\s.*]+)*)?$" doc:"Left out: the first one of the subscription that has a sample."`
	} `nameHint:"TestSubscription"`
}

// sendTest makes one request in the subscription's own contract, marked as a test, whatever the subscription's status.
func (s *Service) sendTest(ctx context.Context, who caller, in *testInput) (*testOutput, error) {
	sub, err := s.deps.Store.Subscription(ctx, who.Tenant, in.ID)
	if err != nil {
		return nil, err
	}
	terms, ok := s.deps.Profiles.Get(sub.Profile)
	if !ok {
		return nil, s.unknownProfile(sub.Profile)
	}
	contract, err := terms.Contract(sub.Overrides)
	if err != nil {
		return nil, fmt.Errorf("contract of subscription %s: %w", sub.ID, err)
	}
	keys, err := s.liveKeys(ctx, &sub)
	if err != nil {
		return nil, err
	}
	eventType := ""
	if in.Body != nil {
		eventType = in.Body.EventType
	}
	d := sample(&sub, terms, eventType, now())
	request, err := contract.Build(d, keys, d.CreatedAt)
	if err != nil {
		return nil, problem(http.StatusUnprocessableEntity, "sample_does_not_fit", "the sample does not fit the profile's contract: %v", err)
	}
	request.Header.Set(headerTest, "true")
	view := testView{DeliveryID: d.ID.String(), EventID: d.Event.ID, EventType: d.Event.Type, Request: testRequestView{URL: sub.EndpointURL, Body: string(request.Body)}}
	if err := s.attempt(ctx, contract, sub.EndpointURL, request, d, &view); err != nil {
		return nil, err
	}
	if len(keys) > 1 && denied(view.StatusCode) {
		view.add("The secret is being rotated, and both of its values have signed: a receiver that reads only one signature must read the first.")
	}
	return &testOutput{Body: view}, nil
}

func (s *Service) liveKeys(ctx context.Context, sub *webhook.Subscription) ([][]byte, error) {
	secret, err := s.deps.Store.Secret(ctx, sub.Tenant, sub.SecretID)
	if err != nil {
		return nil, fmt.Errorf("secret of subscription %s: %w", sub.ID, err)
	}
	var keys [][]byte
	for _, v := range secret.Live(time.Now()) {
		value, err := s.deps.Ring.Open(&secret, v)
		if err != nil {
			return nil, err
		}
		keys = append(keys, value)
	}
	return keys, nil
}

// sample is a first delivery that nobody else knows of, of the type asked for or the likeliest one.
func sample(sub *webhook.Subscription, terms *profile.Profile, eventType string, at time.Time) *webhook.Delivery {
	candidates := append([]string{eventType}, sub.EventTypes...)
	for _, t := range terms.EventTypes {
		candidates = append(candidates, t.Name)
	}
	chosen, data := genericTestType, json.RawMessage(`{"test":true}`)
	if eventType != "" {
		chosen = eventType
	}
	for _, name := range candidates {
		known, ok := terms.EventType(name)
		if ok && (eventType == "" && sub.Wants(name) || eventType == name) {
			chosen, data = known.Name, known.Sample
			break
		}
	}
	id := uuid.NewString()
	return &webhook.Delivery{
		ID: webhook.DeliveryID(sub.Tenant, id, sub.ID), Attempts: 1, SubscriptionID: sub.ID, Profile: terms.Name, ProfileVersion: terms.Version,
		CreatedAt: at, Trigger: webhook.TriggerTest,
		Event: webhook.Event{ID: id, Type: chosen, Tenant: sub.Tenant, Timestamp: at, Metadata: json.RawMessage(`{"test":true}`), Data: data, RecordedAt: at},
	}
}

// attempt makes the request and fills the view with what came of it. The request goes on when the caller has gone, as any
// attempt would.
func (s *Service) attempt(ctx context.Context, contract *profile.Contract, endpoint string, request profile.Request, d *webhook.Delivery, view *testView) error {
	target, err := url.Parse(endpoint)
	if err != nil { // it was checked when it was set
		return fmt.Errorf("endpoint of subscription %s: %w", d.SubscriptionID, err)
	}
	ctx = context.WithoutCancel(ctx)
	got := egress.Post(ctx, s.transport, egress.Request{
		URL: target, Header: request.Header, Body: request.Body, Timeout: contract.Timeout(), Keep: maxTestResponse,
	})
	if got.Err != webhook.ErrorNone {
		run.Pause(ctx, quietFloor-got.Duration)
	}
	outcome := contract.Decide(profile.Response{StatusCode: got.StatusCode, Err: got.Err}, d, time.Now(), func() float64 { return 0 })
	view.Recorded = s.recordTest(ctx, d, &got, len(request.Body), outcome.Outcome)
	view.Request.Headers = flat(request.Header)
	view.Status, view.DurationMs = string(outcome.Status), millis(got.Duration)
	view.StatusCode, view.Error = orNull(got.StatusCode), orNull(string(got.Err))
	view.Response = orNull(strings.ToValidUTF8(string(got.Body), "\uFFFD"))
	if outcome.Status != webhook.Delivered {
		view.add(advice(got.StatusCode, got.Err))
		for _, hint := range hints(got.StatusCode, got.Header, time.Now()) {
			view.add(hint)
		}
	}
	return nil
}

// recordTest tells the audit of a test, as of any attempt, and reports whether Kafka has it. The test's event is not stored: nobody
// published it, and it is not to be replayed.
func (s *Service) recordTest(ctx context.Context, d *webhook.Delivery, got *egress.Response, sent int, outcome webhook.Outcome) bool {
	if outcome.Status == webhook.Pending { // nothing follows
		outcome = webhook.Outcome{Status: webhook.DeadLetter, Reason: outcome.Reason}
	}
	a := webhook.Attempt{
		ID: uuid.Must(uuid.NewV7()), DeliveryID: d.ID, Tenant: d.Event.Tenant, EventID: d.Event.ID, EventType: d.Event.Type, SubscriptionID: d.SubscriptionID,
		Profile: d.Profile, ProfileVersion: d.ProfileVersion, Trigger: d.Trigger, DeliveryCreatedAt: d.CreatedAt, Number: 1, Try: 1,
		StartedAt: got.Started, Duration: got.Duration, Phases: got.Phases, StatusCode: got.StatusCode, Error: got.Err, Response: got.Body,
		RequestBytes: sent, ResponseBytes: got.Read, Outcome: outcome,
	}
	ctx, cancel := context.WithTimeout(ctx, afterwards)
	defer cancel()
	_, err := s.journal.Write(ctx, &kgo.Record{Topic: s.deps.Kafka.Topics.Attempts, Key: []byte(a.SubscriptionID), Value: wire.EncodeAttempt(&a)})
	if err != nil {
		s.log.WarnContext(ctx, "a test is not recorded", "tenant", a.Tenant, "subscription", a.SubscriptionID, "error", err)
	}
	return err == nil
}

// add puts a sentence at the end of the advice.
func (v *testView) add(sentence string) {
	if v.Advice != nil && sentence != "" {
		sentence = *v.Advice + " " + sentence
	}
	if sentence != "" {
		v.Advice = &sentence
	}
}

func denied(status *int) bool {
	return status != nil && (*status == http.StatusBadRequest || *status == http.StatusUnauthorized || *status == http.StatusForbidden)
}

// hints are what the headers of a refusal give away.
func hints(status int, header http.Header, at time.Time) (out []string) {
	if target, err := url.Parse(header.Get("Location")); err == nil && status/100 == 3 && target.Path+target.Host != "" {
		target.RawQuery, target.Fragment, target.User = "", "", nil
		out = append(out, "It leads to "+target.String()+".")
	}
	if kind, _, err := mime.ParseMediaType(header.Get("Content-Type")); err == nil && kind == "text/html" && status >= http.StatusBadRequest {
		out = append(out, "What answered is a page for people: perhaps a proxy, a firewall or a login in front of the receiver.")
	}
	if theirs, err := http.ParseTime(header.Get("Date")); err == nil && denied(&status) {
		if off := theirs.Sub(at); off.Abs() > clockTolerance {
			out = append(out, fmt.Sprintf("Its clock is %v off: signatures with a time look too old or too new to it.", off.Round(time.Second)))
		}
	}
	return out
}

// flat shows headers as they are written on the wire, one value each.
func flat(h http.Header) map[string]string {
	out := make(map[string]string, len(h))
	for name, values := range h {
		out[name] = strings.Join(values, ", ")
	}
	return out
}

// advice says what most often lies behind an answer.
func advice(status int, class webhook.ErrorClass) string {
	if text, ok := adviceByClass[class]; ok {
		return text
	}
	i := slices.IndexFunc(adviceByStatus, func(a statusAdvice) bool { return status >= a.from && status <= a.to })
	if i < 0 {
		return ""
	}
	return adviceByStatus[i].text
}

var adviceByClass = map[webhook.ErrorClass]string{
	webhook.ErrorDNS:        "The endpoint's name does not resolve.",
	webhook.ErrorBlocked:    "The endpoint's address is not one that Hookline may call.",
	webhook.ErrorRefused:    "Nothing accepts connections at the endpoint's address and port.",
	webhook.ErrorReset:      "The receiver closed the connection before it had answered.",
	webhook.ErrorTimeout:    "The receiver did not answer in time: it should store the event, answer 2xx and work afterwards.",
	webhook.ErrorTLS:        "The TLS handshake failed: check the certificate's name, validity and chain.",
	webhook.ErrorProtocol:   "What came back is not HTTP.",
	webhook.ErrorConnection: "The connection failed.",
}

type statusAdvice struct {
	from, to int
	text     string
}

var adviceByStatus = []statusAdvice{
	{300, 399, "Redirects are not followed: register the URL that they lead to."},
	{401, 401, "The receiver does not accept the signature or wants credentials: check that it verifies the raw body with this subscription's secret, and that its clock is right."},
	{403, 403, "The receiver, or something in front of it, forbids the request: check signature verification, firewalls and CSRF protection."},
	{404, 404, "There is nothing at the URL's path."},
	{405, 405, "The URL does not accept POST."},
	{413, 413, "The receiver does not accept a body of this size."},
	{415, 415, "The receiver does not accept the body's Content-Type."},
	{400, 499, "The receiver refuses the request: its log should say why."},
	{500, 599, "The receiver failed: its log should say why."},
}
