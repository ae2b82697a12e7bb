package api

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// followsView is what an event follows from: a delivery that its receiver called back.
type followsView struct {
	EventID    string `json:"eventId"`
	DeliveryID string `json:"deliveryId"`
	Rule       string `json:"rule" doc:"Of the profile's callback."`
}

// followedView is an event that followed from a delivery of this one.
type followedView struct {
	EventID    string `json:"eventId"`
	EventType  string `json:"eventType"`
	DeliveryID string `json:"deliveryId" doc:"The delivery that was called back."`
	Rule       string `json:"rule"`
}

func viewFollows(e *webhook.Event) *followsView {
	f, ok := webhook.FollowsFrom(e.Metadata)
	if !ok {
		return nil
	}
	return &followsView{EventID: f.EventID, DeliveryID: f.DeliveryID.String(), Rule: f.Rule}
}

// followedBy finds what followed from an event: its deliveries, given as profiles by subscription, and the rules of the profiles give the
// ids.
func (s *Service) followedBy(ctx context.Context, e *webhook.Event, deliveries map[string]string) ([]followedView, error) {
	found := []followedView{}
	for _, subscription := range slices.Sorted(maps.Keys(deliveries)) {
		p, ok := s.deps.Profiles.Get(deliveries[subscription])
		if !ok || p.Callback() == nil || p.Callback().EventType != e.Type {
			continue
		}
		delivery := webhook.DeliveryID(e.Tenant, e.ID, subscription)
		for _, rule := range p.Callback().Rules() {
			next, err := s.deps.Store.Event(ctx, e.Tenant, webhook.FollowUpID(delivery, rule))
			switch {
			case err == nil:
				found = append(found, followedView{EventID: next.ID, EventType: next.Type, DeliveryID: delivery.String(), Rule: rule})
			case !errors.Is(err, store.ErrNotFound):
				return nil, err
			}
		}
	}
	return found, nil
}
