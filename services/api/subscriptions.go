package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hookline/hookline/pkg/egress"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/seal"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// SubscriptionView is a subscription as it is answered.
type SubscriptionView struct {
	ID           string          `json:"id"`
	Name         string          `json:"name"`
	Tenant       string          `json:"tenant"`
	Status       string          `json:"status" enum:"active,disabled,paused"`
	StatusReason *string         `json:"statusReason" doc:"Who changed the status, and why where they said so."`
	EndpointURL  string          `json:"endpointUrl"`
	EventTypes   []string        `json:"eventTypes" doc:"Empty: every type."`
	Filter       json.RawMessage `json:"filter"`
	SecretRef    string          `json:"secretRef" doc:"The name of its secret."`
	Profile      string          `json:"profile"`
	Ordering     string          `json:"ordering" enum:"none,per_key"`
	Overrides    overridesView   `json:"overrides"`
	CreatedAt    time.Time       `json:"createdAt"`
	UpdatedAt    time.Time       `json:"updatedAt"`
}

type createdSubscriptionView struct {
	SubscriptionView
	SecretValue string `json:"secretValue,omitempty" doc:"The value of the secret that was made with the subscription. It is not shown here again."`
	ReplayID    string `json:"replayId,omitempty" doc:"With startFrom: the replay of what came before."`
}

type createSubscription struct {
	Name        string          `json:"name" minLength:"1" maxLength:"128" pattern:"^[^\\x00-\\x1f\\x7f]+$" patternDescription:"text without control characters"`
	EndpointURL string          `json:"endpointUrl" minLength:"1" maxLength:"2048" example:"https://receiver.example.com/webhooks"`
	EventTypes  []string        `json:"eventTypes,omitempty" nullable:"true" maxItems:"200" maxLength:"255" pattern:"^(\\*|[^\\s.*]+(\\.[^\\s.*]+)*(\\.\\*)?)$" patternDescription:"an event type, prefix.* or *" doc:"Types, prefix.* for everything below a prefix, or * for all. Left out or empty: every type."`
	Filter      json.RawMessage `json:"filter,omitempty" doc:"A pattern over the event, or {\"cel\": \"…\"}. Left out, null or {}: every event of its types."`
	StartFrom   json.RawMessage `json:"startFrom,omitempty" doc:"now, an RFC 3339 time, or an object of partitions and offsets of the events topic: the subscription begins with the stored events from there, and gets none twice that it has had. Left out: now."`
	SecretRef   string          `json:"secretRef,omitempty" nullable:"true" maxLength:"128" doc:"The name of a secret. Left out: one named as the subscription is made, and its value is in the answer."`
	Profile     string          `json:"profile,omitempty" nullable:"true" maxLength:"64" doc:"The delivery contract. Left out: the tenant's default."`
	Ordering    string          `json:"ordering,omitempty" nullable:"true" enum:"none,per_key" doc:"per_key is not supported yet."`
	Overrides   *overridesView  `json:"overrides,omitempty"`
}

type patchSubscription struct {
	Name        *string         `json:"name,omitempty" minLength:"1" maxLength:"128" pattern:"^[^\\x00-\\x1f\\x7f]+$" patternDescription:"text without control characters"`
	Status      *string         `json:"status,omitempty" enum:"active,disabled,paused"`
	EndpointURL *string         `json:"endpointUrl,omitempty" minLength:"1" maxLength:"2048"`
	EventTypes  *[]string       `json:"eventTypes,omitempty" maxItems:"200" maxLength:"255" pattern:"^(\\*|[^\\s.*]+(\\.[^\\s.*]+)*(\\.\\*)?)$" patternDescription:"an event type, prefix.* or *"`
	Filter      json.RawMessage `json:"filter,omitempty" doc:"Replaces the filter as a whole; {} removes it."`
	SecretRef   *string         `json:"secretRef,omitempty" minLength:"1" maxLength:"128"`
	Profile     *string         `json:"profile,omitempty" minLength:"1" maxLength:"64"`
	Ordering    *string         `json:"ordering,omitempty" enum:"none,per_key" doc:"per_key is not supported yet."`
	Overrides   *overridesView  `json:"overrides,omitempty" doc:"Replaces the overrides as a whole."`
}

type reasonInput struct {
	IDInput
	IfMatchInput
	Body *struct {
		Reason string `json:"reason,omitempty" nullable:"true" maxLength:"256" pattern:"^[^\\x00-\\x1f\\x7f]*$" patternDescription:"text without control characters" doc:"Why, for people: it becomes the statusReason."`
	} `nameHint:"SetStatus"`
}

type subscriptionOutput struct {
	ETag string `header:"ETag" doc:"Send it as If-Match with a PATCH."`
	Body SubscriptionView
}

type createdSubscriptionOutput struct {
	ETag string `header:"ETag"`
	Body createdSubscriptionView
}

func (s *Service) registerSubscriptions(a huma.API) {
	tags := []string{"Subscriptions"}
	read, edit := webhook.PermissionSubscriptionRead, webhook.PermissionSubscriptionEdit
	route(s, a, huma.Operation{OperationID: "create-subscription", Method: http.MethodPost, Path: "/subscriptions", Tags: tags, DefaultStatus: http.StatusCreated,
		Summary: "Subscribe an endpoint to events"}, edit, s.createSubscription)
	route(s, a, huma.Operation{OperationID: "list-subscriptions", Method: http.MethodGet, Path: "/subscriptions", Tags: tags,
		Summary: "List subscriptions"}, read, s.listSubscriptions)
	route(s, a, huma.Operation{OperationID: "get-subscription", Method: http.MethodGet, Path: "/subscriptions/{id}", Tags: tags,
		Summary: "Get a subscription"}, read, s.getSubscription)
	route(s, a, huma.Operation{OperationID: "patch-subscription", Method: http.MethodPatch, Path: "/subscriptions/{id}", Tags: tags,
		Summary: "Change a subscription", Description: "Fields that are left out stay as they are. With If-Match, only the version that it names is changed."}, edit, s.patchSubscription)
	route(s, a, huma.Operation{OperationID: "delete-subscription", Method: http.MethodDelete, Path: "/subscriptions/{id}", Tags: tags,
		Summary: "Delete a subscription", Description: "Deliveries that wait end as CANCELLED."}, edit, s.deleteSubscription)
	route(s, a, huma.Operation{OperationID: "enable-subscription", Method: http.MethodPost, Path: "/subscriptions/{id}/enable", Tags: tags,
		Summary: "Take events again"}, edit, s.setStatus(webhook.SubscriptionActive))
	route(s, a, huma.Operation{OperationID: "disable-subscription", Method: http.MethodPost, Path: "/subscriptions/{id}/disable", Tags: tags,
		Summary: "Take no events", Description: "Deliveries that wait end as CANCELLED."}, edit, s.setStatus(webhook.SubscriptionDisabled))
	route(s, a, huma.Operation{OperationID: "pause-subscription", Method: http.MethodPost, Path: "/subscriptions/{id}/pause", Tags: tags,
		Summary: "Hold deliveries back", Description: "Events are taken, and their deliveries wait until the subscription is enabled, as far as their retry windows reach."},
		edit, s.setStatus(webhook.SubscriptionPaused))
	route(s, a, huma.Operation{OperationID: "test-subscription", Method: http.MethodPost, Path: "/subscriptions/{id}/test", Tags: tags,
		Summary: "Send a test", Description: "One request with a sample event, in the subscription's own contract and with the header Hookline-Test, and what the receiver answered."},
		edit, s.sendTest)
}

func (s *Service) createSubscription(ctx context.Context, who caller, in *struct{ Body createSubscription }) (*createdSubscriptionOutput, error) {
	at := now()
	sub := webhook.Subscription{
		ID: newID(), Tenant: who.Tenant, Name: in.Body.Name, Status: webhook.SubscriptionActive, EndpointURL: in.Body.EndpointURL,
		EventTypes: distinct(in.Body.EventTypes), Filter: filterOf(in.Body.Filter), SecretRef: in.Body.SecretRef, Profile: in.Body.Profile, Ordering: webhook.OrderingNone,
		Overrides: in.Body.Overrides.overrides(), Version: 1, CreatedAt: at, UpdatedAt: at,
	}
	if sub.Profile == "" {
		var err error
		if sub.Profile, err = s.defaultProfile(ctx, who.Tenant); err != nil {
			return nil, err
		}
	}
	var f fieldErrors
	f.unsupported(in.Body.Ordering)
	_, wrong := compileFilter(in.Body.Filter)
	f.addAll(wrong)
	replay, wrong := s.replayFrom(in.Body.StartFrom, &sub, who)
	f.addAll(wrong)
	f.addAll(s.checkEndpoint(ctx, sub.EndpointURL))
	f.addAll(s.checkContract(&sub))
	if err := f.problem(); err != nil {
		return nil, err
	}

	var fresh *webhook.Secret
	var value seal.Value
	if sub.SecretRef == "" {
		fresh, value = s.newSecret(sub.Tenant, sub.Name, sub.Profile)
		sub.SecretRef, sub.SecretID = fresh.Name, fresh.ID
	} else if err := s.attach(ctx, &sub); err != nil {
		return nil, err
	}
	out := &createdSubscriptionOutput{ETag: etag(&sub), Body: createdSubscriptionView{SubscriptionView: viewSubscription(&sub), SecretValue: string(value)}}
	var replays []store.Replay
	if replay != nil {
		var err error
		if replay.Total, err = s.total(ctx, replay, &sub); err != nil {
			return nil, err
		}
		replays, out.Body.ReplayID = append(replays, *replay), replay.ID
	}
	promise(ctx, out)
	err := s.deps.Store.CreateSubscription(ctx, sub, fresh, replays...)
	switch {
	case errors.Is(err, store.ErrNotFound): // the secret has been deleted since it was found
		return nil, unknownSecret()
	case err != nil:
		return nil, named(err, "a subscription or secret")
	}
	s.relay.changed()
	s.replays.Changed()
	return out, nil
}

func (s *Service) defaultProfile(ctx context.Context, tenant string) (string, error) {
	t, err := s.deps.Store.Tenant(ctx, tenant)
	if errors.Is(err, store.ErrNotFound) || err == nil && t.DefaultProfile == "" {
		return defaultProfile, nil
	}
	return t.DefaultProfile, err
}

func (s *Service) listSubscriptions(ctx context.Context, who caller, in *PageInput) (*pageOutput[SubscriptionView], error) {
	rows, next, err := s.deps.Store.Subscriptions(ctx, who.Tenant, in.page())
	if err != nil {
		return nil, err
	}
	return paged(rows, next, viewSubscription), nil
}

func (s *Service) getSubscription(ctx context.Context, who caller, in *IDInput) (*subscriptionOutput, error) {
	sub, err := s.deps.Store.Subscription(ctx, who.Tenant, in.ID)
	if err != nil {
		return nil, err
	}
	return output(&sub), nil
}

func (s *Service) patchSubscription(ctx context.Context, who caller, in *struct {
	IDInput
	IfMatchInput
	Body patchSubscription
}) (*subscriptionOutput, error) {
	current, err := s.deps.Store.Subscription(ctx, who.Tenant, in.ID)
	if err != nil {
		return nil, err
	}
	patch := in.Body
	var f fieldErrors
	f.unsupported(deref(patch.Ordering))
	_, wrong := compileFilter(patch.Filter)
	f.addAll(wrong)
	if patch.EndpointURL != nil {
		f.addAll(s.checkEndpoint(ctx, *patch.EndpointURL))
	}
	if err := f.problem(); err != nil {
		return nil, err
	}
	// What needs the database is looked up before the row is locked, and holds for a row that has not changed since.
	patched := current
	patch.apply(&patched, who)
	if patch.SecretRef != nil || patch.Profile != nil {
		if err := s.attach(ctx, &patched); err != nil {
			return nil, err
		}
	}
	sub, err := s.deps.Store.UpdateSubscription(ctx, who.Tenant, in.ID, func(sub *webhook.Subscription) error {
		if err := in.check(etag(sub)); err != nil {
			return err
		}
		patch.apply(sub, who)
		if patch.SecretRef != nil {
			sub.SecretID = patched.SecretID
		}
		var f fieldErrors
		f.addAll(s.checkContract(sub))
		return f.problem()
	})
	if err != nil {
		return nil, named(err, "a subscription")
	}
	s.relay.changed()
	return output(&sub), nil
}

func (p *patchSubscription) apply(sub *webhook.Subscription, who caller) {
	set(&sub.Name, p.Name)
	set(&sub.EndpointURL, p.EndpointURL)
	set(&sub.SecretRef, p.SecretRef)
	set(&sub.Profile, p.Profile)
	if p.EventTypes != nil {
		sub.EventTypes = distinct(*p.EventTypes)
	}
	if len(p.Filter) > 0 {
		sub.Filter = filterOf(p.Filter)
	}
	if p.Overrides != nil {
		sub.Overrides = p.Overrides.overrides()
	}
	if p.Status != nil && webhook.SubscriptionStatus(*p.Status) != sub.Status {
		turn(sub, webhook.SubscriptionStatus(*p.Status), "", who)
	}
}

func (s *Service) deleteSubscription(ctx context.Context, who caller, in *struct {
	IDInput
	IfMatchInput
}) (*struct{}, error) {
	check := func(sub *webhook.Subscription) error { return in.check(etag(sub)) }
	if err := s.deps.Store.DeleteSubscription(ctx, who.Tenant, in.ID, check); err != nil {
		return nil, err
	}
	s.relay.changed()
	return nil, nil
}

// setStatus is the handler of enable, disable and pause. Doing it again changes nothing but the reason.
func (s *Service) setStatus(status webhook.SubscriptionStatus) func(context.Context, caller, *reasonInput) (*subscriptionOutput, error) {
	return func(ctx context.Context, who caller, in *reasonInput) (*subscriptionOutput, error) {
		reason := ""
		if in.Body != nil {
			reason = in.Body.Reason
		}
		sub, err := s.deps.Store.UpdateSubscription(ctx, who.Tenant, in.ID, func(sub *webhook.Subscription) error {
			if err := in.check(etag(sub)); err != nil {
				return err
			}
			turn(sub, status, reason, who)
			return nil
		})
		if err != nil {
			return nil, err
		}
		s.relay.changed()
		return output(&sub), nil
	}
}

// turn sets the status, and says who did it and why.
func turn(sub *webhook.Subscription, status webhook.SubscriptionStatus, reason string, who caller) {
	sub.Status, sub.StatusReason = status, ""
	if reason != "" || status != webhook.SubscriptionActive {
		sub.StatusReason = string(status) + " by " + who.String()
	}
	if reason != "" {
		sub.StatusReason += ": " + reason
	}
}

// attach finds the secret that sub names and refuses one that must not sign under its profile. The store binds it.
func (s *Service) attach(ctx context.Context, sub *webhook.Subscription) error {
	secret, err := s.deps.Store.SecretByName(ctx, sub.Tenant, sub.SecretRef)
	if errors.Is(err, store.ErrNotFound) {
		return unknownSecret()
	}
	if err != nil {
		return err
	}
	sub.SecretID = secret.ID
	if secret.Profile != "" && secret.Profile != sub.Profile {
		return store.ErrProfileMismatch
	}
	contract, ok := s.deps.Profiles.Get(sub.Profile)
	if !ok {
		return s.unknownProfile(sub.Profile)
	}
	value, err := s.open(&secret)
	if err != nil {
		return err
	}
	if err := contract.CheckSecret(value); err != nil {
		return problem(http.StatusConflict, "secret_unsuitable",
			"the secret's value does not have the form that profile %s expects: make one with this profile", sub.Profile)
	}
	return nil
}

func unknownSecret() error {
	var f fieldErrors
	f.add("/secretRef", "unknown_secret", "there is no secret of this name; secretRef is a secret's name, not its id")
	return f.problem()
}

func (s *Service) checkEndpoint(ctx context.Context, raw string) fieldErrors {
	err := s.deps.Endpoint.CheckURL(ctx, raw)
	if err == nil {
		return nil
	}
	var f fieldErrors
	var refused *egress.URLError
	if errors.As(err, &refused) {
		f.add("/endpointUrl", refused.Code, "%s", refused.Detail)
	} else {
		f.add("/endpointUrl", "endpoint_refused", "the endpoint cannot be used")
	}
	return f
}

// checkContract holds the overrides to the profile. Whether http:// is permitted is the operator's to say, for every
// profile alike, and checkEndpoint's to refuse (docs/decisions/0006).
func (s *Service) checkContract(sub *webhook.Subscription) fieldErrors {
	contract, ok := s.deps.Profiles.Get(sub.Profile)
	if !ok {
		return s.unknownProfileError(sub.Profile)
	}
	return overrideErrors(contract.Check(sub.Overrides))
}

func overrideErrors(problems []profile.Problem) fieldErrors {
	var f fieldErrors
	for _, p := range problems {
		f.add("/overrides"+p.Pointer, "override_out_of_bounds", "%s", p.Detail)
	}
	return f
}

func (s *Service) unknownProfile(name string) error { return s.unknownProfileError(name).problem() }

func (s *Service) unknownProfileError(name string) fieldErrors {
	var f fieldErrors
	f.add("/profile", "unknown_profile", "there is no profile %q; there are %s", name, strings.Join(s.deps.Profiles.Names(), ", "))
	return f
}

func (f *fieldErrors) addAll(more fieldErrors) { *f = append(*f, more...) }

func (f *fieldErrors) unsupported(ordering string) {
	if ordering == string(webhook.OrderingPerKey) {
		f.add("/ordering", "ordering_not_supported", "ordering per_key is not supported yet")
	}
}

// etag is the subscription's version.
func etag(sub *webhook.Subscription) string { return strconv.Quote(strconv.FormatInt(sub.Version, 10)) }

func output(sub *webhook.Subscription) *subscriptionOutput {
	return &subscriptionOutput{ETag: etag(sub), Body: viewSubscription(sub)}
}

func viewSubscription(sub *webhook.Subscription) SubscriptionView {
	view := SubscriptionView{
		ID: sub.ID, Name: sub.Name, Tenant: sub.Tenant, Status: string(sub.Status), StatusReason: orNull(sub.StatusReason),
		EndpointURL: sub.EndpointURL, EventTypes: sub.EventTypes, Filter: sub.Filter, SecretRef: sub.SecretRef, Profile: sub.Profile,
		Ordering: string(sub.Ordering), Overrides: viewOverrides(sub.Overrides), CreatedAt: sub.CreatedAt.UTC(), UpdatedAt: sub.UpdatedAt.UTC(),
	}
	if view.EventTypes == nil {
		view.EventTypes = []string{}
	}
	if len(view.Filter) == 0 {
		view.Filter = json.RawMessage("null")
	}
	return view
}

// distinct keeps the first of equal patterns.
func distinct(patterns []string) []string {
	out := make([]string, 0, len(patterns))
	for _, p := range patterns {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

func set[T any](field *T, value *T) {
	if value != nil {
		*field = *value
	}
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
