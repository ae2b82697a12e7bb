package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/services/api/replay"
)

const (
	defaultReplayRate = 100
	maxReplayRate     = 10_000
	// routedLate is how long after its creation every router surely knows a subscription. Until then its replay covers for them.
	routedLate = time.Minute
)

type offsetRangeView struct {
	Partition int32 `json:"partition" minimum:"0" maximum:"2147483647"`
	From      int64 `json:"from" minimum:"0" doc:"Inclusive."`
	To        int64 `json:"to,omitempty" minimum:"0" doc:"Exclusive. Left out: to the end."`
}

type createReplayInput struct {
	Body struct {
		SubscriptionID string            `json:"subscriptionId" minLength:"1" maxLength:"64" doc:"Where to. It may be newer than the events."`
		From           time.Time         `json:"from,omitzero" doc:"Events recorded at this time or later. Needed where there are no offsets."`
		To             time.Time         `json:"to,omitzero" doc:"Events recorded before this time. Left out: before now."`
		Offsets        []offsetRangeView `json:"offsets,omitempty" nullable:"true" maxItems:"1000" doc:"Events from these parts of the events topic."`
		EventTypes     []string          `json:"eventTypes,omitempty" nullable:"true" maxItems:"200" maxLength:"255" doc:"Only these types, as in a subscription. The subscription's own types and filter hold as well."`
		Filter         json.RawMessage   `json:"filter,omitempty" doc:"Only events that match, as in a subscription."`
		Statuses       []string          `json:"statuses,omitempty" nullable:"true" maxItems:"5" enum:"PENDING,DELIVERED,DEAD_LETTER,CANCELLED,NONE" doc:"Only events whose delivery to the subscription has one of these; NONE: that have no delivery to it. Left out: all but PENDING."`
		RatePerSecond  float64           `json:"ratePerSecond,omitempty" minimum:"0.1" maximum:"10000" doc:"Deliveries in a second. Left out: 100."`
		DryRun         bool              `json:"dryRun,omitempty" doc:"Only count."`
	} `nameHint:"CreateReplay"`
}

// ReplayView is a replay as it is answered.
type ReplayView struct {
	ID             *string           `json:"id" doc:"null for a dry run."`
	SubscriptionID string            `json:"subscriptionId"`
	State          string            `json:"state" enum:"running,paused,cancelled,done,failed,dry_run"`
	Reason         *string           `json:"reason" doc:"Why it is paused or failed, or what it waits for."`
	From           *time.Time        `json:"from"`
	To             *time.Time        `json:"to"`
	Offsets        []offsetRangeView `json:"offsets"`
	EventTypes     []string          `json:"eventTypes"`
	Filter         json.RawMessage   `json:"filter"`
	Statuses       []string          `json:"statuses"`
	RatePerSecond  float64           `json:"ratePerSecond"`
	Total          *int64            `json:"total" doc:"Events in the range, of its types, when it was created; null where they could not be counted in time."`
	Done           int64             `json:"done" doc:"How many of them have been looked at."`
	Matched        int64             `json:"matched" doc:"How many of them are delivered."`
	Complete       *bool             `json:"complete,omitempty" doc:"Of a dry run: false where time ran out before all were looked at."`
	ETASeconds     *int64            `json:"etaSeconds" doc:"While it runs, as far as its speed so far tells."`
	CreatedBy      *string           `json:"createdBy"`
	CreatedAt      time.Time         `json:"createdAt"`
	UpdatedAt      time.Time         `json:"updatedAt"`
	FinishedAt     *time.Time        `json:"finishedAt"`
}

type replayOutput struct {
	Status int
	Body   ReplayView
}

func (s *Service) registerReplays(a huma.API) {
	tags := []string{"Replays"}
	read, edit := webhook.PermissionAuditRead, webhook.PermissionSubscriptionEdit
	route(s, a, huma.Operation{OperationID: "create-replay", Method: http.MethodPost, Path: "/replays", Tags: tags, DefaultStatus: http.StatusAccepted,
		Summary: "Deliver stored events again",
		Description: "Every matching event is delivered to one subscription under its ordinary ids, as a new generation, at a rate of its own beside live traffic. " +
			"With dryRun it is only counted, and the answer is 200."}, edit, s.createReplay)
	route(s, a, huma.Operation{OperationID: "list-replays", Method: http.MethodGet, Path: "/replays", Tags: tags, Summary: "List replays, newest first"}, read, s.listReplays)
	route(s, a, huma.Operation{OperationID: "get-replay", Method: http.MethodGet, Path: "/replays/{id}", Tags: tags, Summary: "Get a replay with its progress"}, read, s.getReplay)
	for _, verb := range []struct {
		name, summary string
		to            store.ReplayState
	}{
		{"pause", "Pause a replay", store.ReplayPaused}, {"resume", "Let a paused replay go on", store.ReplayRunning}, {"cancel", "End a replay", store.ReplayCancelled},
	} {
		route(s, a, huma.Operation{OperationID: verb.name + "-replay", Method: http.MethodPost, Path: "/replays/{id}/" + verb.name, Tags: tags, Summary: verb.summary,
			Description: "Deliveries that have been made go on."}, edit, s.steerReplay(verb.to))
	}
}

func (s *Service) createReplay(ctx context.Context, who caller, in *createReplayInput) (*replayOutput, error) {
	sub, err := s.deps.Store.Subscription(ctx, who.Tenant, in.Body.SubscriptionID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, problem(http.StatusUnprocessableEntity, "unknown_subscription", "there is no such subscription")
	}
	if err != nil {
		return nil, err
	}
	if sub.Status == webhook.SubscriptionDisabled && !in.Body.DryRun {
		return nil, problem(http.StatusConflict, "subscription_inactive", "the subscription is disabled: every delivery would end as CANCELLED")
	}
	r, err := s.newReplay(in, who)
	if err != nil {
		return nil, err
	}
	if in.Body.DryRun {
		return s.countReplay(ctx, &r, &sub)
	}
	if r.Total, err = s.total(ctx, &r, &sub); err != nil {
		return nil, err
	}
	out := &replayOutput{Status: http.StatusAccepted, Body: viewReplay(&r)}
	promise(ctx, out)
	if err := s.deps.Store.CreateReplay(ctx, r); err != nil {
		return nil, err
	}
	s.replays.Changed()
	return out, nil
}

func (s *Service) newReplay(in *createReplayInput, who caller) (store.Replay, error) {
	var f fieldErrors
	if in.Body.From.IsZero() && len(in.Body.Offsets) == 0 {
		f.add("/from", codeMissing, "say from when, or which offsets")
	}
	if to := in.Body.To; !to.IsZero() && !to.After(in.Body.From) {
		f.add("/to", codeInvalid, "is not after from")
	}
	_, wrong := compileFilter(in.Body.Filter)
	f.addAll(wrong)
	at := now()
	r := store.Replay{
		ID: newID(), Tenant: who.Tenant, SubscriptionID: in.Body.SubscriptionID, State: store.ReplayRunning, Rate: in.Body.RatePerSecond,
		CreatedBy: who.Name, CreatedAt: at, UpdatedAt: at,
		Spec: store.ReplaySpec{From: in.Body.From.UTC(), To: in.Body.To.UTC(), EventTypes: distinct(in.Body.EventTypes), Filter: filterOf(in.Body.Filter)},
	}
	if in.Body.From.IsZero() {
		r.Spec.From = time.Time{}
	}
	if r.Spec.To.IsZero() || r.Spec.To.After(at) {
		r.Spec.To = at
	}
	if r.Rate == 0 {
		r.Rate = defaultReplayRate
	}
	for i, o := range in.Body.Offsets {
		if o.To != 0 && o.To <= o.From {
			f.add("/offsets/"+strconv.Itoa(i)+"/to", codeInvalid, "is not after from")
		}
		r.Spec.Offsets = append(r.Spec.Offsets, store.OffsetRange{Topic: s.deps.Kafka.Topics.Events, Partition: o.Partition, From: o.From, To: o.To})
	}
	for _, status := range distinct(in.Body.Statuses) {
		r.Spec.Statuses = append(r.Spec.Statuses, webhook.Status(status))
	}
	return r, f.problem()
}

// total counts the events of the range; -1 where that takes too long.
func (s *Service) total(ctx context.Context, r *store.Replay, sub *webhook.Subscription) (int64, error) {
	n, _, err := inTime(ctx,
		func(ctx context.Context) (int64, error) {
			return s.deps.Store.CountEvents(ctx, r.Tenant, replay.Events(r, sub))
		},
		func() (int64, error) { return -1, nil })
	return n, err
}

// countReplay looks at the events as the replay would, within a time.
func (s *Service) countReplay(ctx context.Context, r *store.Replay, sub *webhook.Subscription) (*replayOutput, error) {
	total, err := s.total(ctx, r, sub)
	if err != nil {
		return nil, err
	}
	began, complete := time.Now(), false
	for r.Total = total; time.Since(began) < lookTime && !complete; {
		chunk, err := replay.Next(ctx, s.deps.Store, r, sub, r.Spec.To)
		if err != nil {
			return nil, err
		}
		if complete = chunk == nil; !complete {
			r.Cursor, r.Done, r.Matched = chunk.Plan.Until, r.Done+chunk.Plan.Events, r.Matched+int64(len(chunk.Plan.Generations))
		}
	}
	view := viewReplay(r)
	view.ID, view.State, view.Complete, view.ETASeconds = nil, "dry_run", &complete, nil
	return &replayOutput{Status: http.StatusOK, Body: view}, nil
}

func (s *Service) listReplays(ctx context.Context, who caller, in *struct {
	PageInput
	SubscriptionID string `query:"subscriptionId" maxLength:"64"`
}) (*pageOutput[ReplayView], error) {
	rows, next, err := s.deps.Store.Replays(ctx, who.Tenant, in.SubscriptionID, in.page())
	if err != nil {
		return nil, err
	}
	return paged(rows, next, viewReplay), nil
}

func (s *Service) getReplay(ctx context.Context, who caller, in *IDInput) (*replayOutput, error) {
	r, err := s.deps.Store.Replay(ctx, who.Tenant, in.ID)
	if err != nil {
		return nil, err
	}
	return &replayOutput{Status: http.StatusOK, Body: viewReplay(&r)}, nil
}

// steerReplay is the handler of pause, resume and cancel. Doing it again changes nothing.
func (s *Service) steerReplay(to store.ReplayState) func(context.Context, caller, *IDInput) (*replayOutput, error) {
	return func(ctx context.Context, who caller, in *IDInput) (*replayOutput, error) {
		r, err := s.deps.Store.SteerReplay(ctx, who.Tenant, in.ID, func(r *store.Replay) error {
			if r.State == to {
				return nil
			}
			if r.State.Ended() {
				return problem(http.StatusConflict, "replay_ended", "the replay is %s", r.State)
			}
			r.State, r.Reason = to, ""
			if to == store.ReplayPaused {
				r.Reason = "paused by " + who.String()
			}
			if to == store.ReplayCancelled {
				r.Reason, r.FinishedAt = "cancelled by "+who.String(), now()
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		s.replays.Changed()
		return &replayOutput{Status: http.StatusOK, Body: viewReplay(&r)}, nil
	}
}

func viewReplay(r *store.Replay) ReplayView {
	view := ReplayView{
		ID: &r.ID, SubscriptionID: r.SubscriptionID, State: string(r.State), Reason: orNull(r.Reason),
		From: timeOrNull(r.Spec.From), To: timeOrNull(r.Spec.To), Offsets: []offsetRangeView{}, EventTypes: r.Spec.EventTypes, Filter: rawOrNull(r.Spec.Filter),
		Statuses: []string{}, RatePerSecond: r.Rate, Total: &r.Total, Done: r.Done, Matched: r.Matched, ETASeconds: eta(r),
		CreatedBy: orNull(r.CreatedBy), CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), FinishedAt: timeOrNull(r.FinishedAt),
	}
	if r.Total < 0 {
		view.Total = nil
	}
	if view.EventTypes == nil {
		view.EventTypes = []string{}
	}
	for _, o := range r.Spec.Offsets {
		view.Offsets = append(view.Offsets, offsetRangeView{Partition: o.Partition, From: o.From, To: o.To})
	}
	for _, status := range r.Spec.Statuses {
		view.Statuses = append(view.Statuses, string(status))
	}
	return view
}

// eta takes the share of events that matched so far for that of the rest, and the rate for what decides.
func eta(r *store.Replay) *int64 {
	left := r.Total - r.Done
	if r.State != store.ReplayRunning || r.Total < 0 {
		return nil
	}
	share := 1.0
	if r.Done > 0 {
		share = float64(r.Matched) / float64(r.Done)
	}
	seconds := int64(float64(max(left, 0)) * share / r.Rate)
	return &seconds
}

// replayFrom reads startFrom: the replay that fills a new subscription with what came before it, or nil.
func (s *Service) replayFrom(start json.RawMessage, sub *webhook.Subscription, who caller) (*store.Replay, fieldErrors) {
	var f fieldErrors
	var word string
	var offsets map[string]int64
	spec := store.ReplaySpec{To: sub.CreatedAt.Add(routedLate), Statuses: []webhook.Status{store.NoDelivery}}
	switch {
	case len(start) == 0 || string(start) == "null" || string(start) == `"now"`:
		return nil, nil
	case json.Unmarshal(start, &word) == nil:
		from, err := time.Parse(time.RFC3339, word)
		if err != nil || from.After(sub.CreatedAt) {
			f.add("/startFrom", codeInvalid, `want "now", a time of the past as RFC 3339, or an object of partitions and offsets`)
		}
		spec.From = from.UTC()
	case json.Unmarshal(start, &offsets) == nil && len(offsets) > 0:
		for key, from := range offsets {
			partition, err := strconv.ParseInt(key, 10, 32)
			if err != nil || partition < 0 || from < 0 {
				f.add("/startFrom/"+key, codeInvalid, "want a partition of the events topic and the first offset wanted of it")
			}
			spec.Offsets = append(spec.Offsets, store.OffsetRange{Topic: s.deps.Kafka.Topics.Events, Partition: int32(partition), From: from})
		}
	default:
		f.add("/startFrom", codeInvalid, `want "now", a time as RFC 3339, or an object of partitions and offsets`)
	}
	return &store.Replay{
		ID: newID(), Tenant: sub.Tenant, SubscriptionID: sub.ID, State: store.ReplayRunning, Rate: defaultReplayRate, Spec: spec,
		Total: -1, CreatedBy: who.Name, CreatedAt: sub.CreatedAt, UpdatedAt: sub.CreatedAt,
	}, f
}
