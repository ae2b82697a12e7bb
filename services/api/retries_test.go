package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

func TestWhatWaitsIsListedAndCounted(t *testing.T) {
	t.Parallel()
	r := start(t)
	first, second := r.deliver("s1", "e1", webhook.Pending), r.deliver("s2", "e1", webhook.Pending)
	r.deliver("s1", "e2", webhook.DeadLetter)
	for query, want := range map[string][]string{
		"":                     {first, second},
		"subscriptionId=s1":    {first},
		"reason=http_status":   {first, second},
		"reason=timeout":       {},
		"from=2030-01-01":      nil, // not a time
		"to=2026-04-14T10:00Z": nil,
		"from=2026-04-14T10:54:46Z&eventType=balance.extracted": {},
	} {
		a := r.call(http.MethodGet, "/retries?"+query, nil)
		if want == nil {
			if a.status != http.StatusUnprocessableEntity {
				t.Errorf("%s: got %d", query, a.status)
			}
			continue
		}
		got := []string{}
		for _, item := range a.items() {
			got = append(got, item["id"].(string))
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", query, got, want)
		}
	}
	counts := r.must(http.StatusOK, http.MethodGet, "/retries/count", nil)
	if counts.body["waiting"] != 2.0 || counts.body["overdue"] != 2.0 || counts.body["overdueSeconds"].(float64) < 1 ||
		counts.body["subscriptions"].(map[string]any)["s2"] != 1.0 || counts.body["reasons"].(map[string]any)["http_status"] != 2.0 {
		t.Errorf("counts: %s", counts.text)
	}
	due := counts.body["due"].([]any)
	if overdue := due[0].(map[string]any); len(due) != len(dueWithin)+1 || overdue["within"] != "0s" || overdue["count"] != 2.0 {
		t.Errorf("due: %v", due)
	}
}

func TestACommandAboutRetriesGoesToTheirTopicAfterACount(t *testing.T) {
	t.Parallel()
	r := start(t)
	first, second := r.deliver("s1", "e1", webhook.Pending), r.deliver("s1", "e2", webhook.Pending)
	r.deliver("s2", "e1", webhook.Pending)
	filter := map[string]any{"subscriptionId": "s1", "dryRun": true}
	if a := r.must(http.StatusAccepted, http.MethodPost, "/retries/now", filter); a.body["count"] != 2.0 || a.body["dryRun"] != true {
		t.Errorf("dry run: %s", a.text)
	}
	delete(filter, "dryRun")
	if a := r.must(http.StatusAccepted, http.MethodPost, "/retries/now", filter); a.body["count"] != 2.0 || a.body["nextCursor"] != nil {
		t.Errorf("now: %s", a.text)
	}
	if a := r.must(http.StatusAccepted, http.MethodPost, "/retries/cancel", map[string]any{"deliveryIds": []string{first, first}}); a.body["count"] != 1.0 {
		t.Errorf("cancel: %s", a.text)
	}
	asked := map[webhook.Reason][]string{}
	for _, record := range r.records(r.kafka.Topics.Retries, 3) {
		retry, err := wire.DecodeRetry(record.Value)
		if err != nil {
			t.Fatal(err)
		}
		d := retry.Delivery
		if key := d.Key(); string(record.Key) != key.String() || !key.IsCommand() || retry.Delay != 0 || d.Event.Tenant != webhook.DefaultTenant ||
			d.Event.Type != "balance.extracted" || !d.CreatedAt.Equal(when) || d.SubscriptionID != "s1" {
			t.Errorf("got %+v", retry)
		}
		asked[retry.Reason] = append(asked[retry.Reason], d.ID.String())
	}
	slices.Sort(asked[webhook.ReasonManual])
	both := []string{first, second}
	slices.Sort(both)
	if !slices.Equal(asked[webhook.ReasonManual], both) || !slices.Equal(asked[webhook.ReasonCancelled], []string{first}) {
		t.Errorf("asked %v", asked)
	}
}

func TestACommandAboutRetriesNeedsASelectionOfWhatWaits(t *testing.T) {
	t.Parallel()
	r := start(t)
	pending, ended := r.deliver("s1", "e1", webhook.Pending), r.deliver("s1", "e2", webhook.Delivered)
	for _, test := range []struct {
		body   map[string]any
		status int
		code   string
	}{
		{map[string]any{}, http.StatusUnprocessableEntity, "selection_missing"},
		{map[string]any{"deliveryIds": []string{pending}, "reason": "timeout"}, http.StatusUnprocessableEntity, "selection_ambiguous"},
		{map[string]any{"deliveryIds": []string{pending, ended}}, http.StatusConflict, "delivery_ended"},
		{map[string]any{"deliveryIds": []string{"nobody"}}, http.StatusNotFound, "not_found"},
	} {
		for _, path := range []string{"/retries/now", "/retries/cancel"} {
			if a := r.call(http.MethodPost, path, test.body); a.status != test.status || a.code() != test.code {
				t.Errorf("%s %v: got %d %s", path, test.body, a.status, a.text)
			}
		}
	}
	if a := r.must(http.StatusAccepted, http.MethodPost, "/retries/cancel", map[string]any{"subscriptionId": "nobody"}); a.body["count"] != 0.0 {
		t.Errorf("nothing: %s", a.text)
	}
}

// slowStore has more than can be counted in time.
type slowStore struct {
	Store
	upTo int64
}

func (*slowStore) CountDeliveries(ctx context.Context, _ string, _ store.DeliveryFilter) (map[webhook.Status]int64, error) {
	<-ctx.Done()
	return nil, fmt.Errorf("%w: %w", store.ErrUnavailable, ctx.Err())
}

func (s *slowStore) CountDeliveriesUpTo(_ context.Context, _ string, _ store.DeliveryFilter, most int64) (map[webhook.Status]int64, error) {
	s.upTo = most
	return map[webhook.Status]int64{webhook.Delivered: most, webhook.Pending: 7}, nil
}

func (*slowStore) CountRetries(ctx context.Context, _ string, _ store.RetryFilter, _ ...time.Time) (store.RetryCounts, error) {
	<-ctx.Done()
	return store.RetryCounts{}, ctx.Err()
}

func (*slowStore) CountRetriesUpTo(_ context.Context, _ string, _ store.RetryFilter, most int64, due ...time.Time) (store.RetryCounts, error) {
	return store.RetryCounts{Waiting: most, Due: make([]int64, len(due)+1)}, nil
}

func (*slowStore) CountEvents(ctx context.Context, _ string, _ store.EventFilter) (int64, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

func (*slowStore) Events(context.Context, string, store.EventFilter, int) ([]webhook.Event, error) {
	time.Sleep(time.Second)
	return make([]webhook.Event, 50), nil
}

func (*slowStore) DeliveriesByID(context.Context, string, ...uuid.UUID) (map[uuid.UUID]store.Delivery, error) {
	return nil, nil
}

func TestACountOfMillionsStopsAndSaysSo(t *testing.T) {
	s := assembled(t)
	slow := &slowStore{}
	s.deps.Store = slow
	synctest.Test(t, func(t *testing.T) {
		ctx, who, began := t.Context(), caller{Tenant: webhook.DefaultTenant}, time.Now()
		counts, err := s.countDeliveries(ctx, who, &FilterInput{})
		if err != nil || !counts.Body.AtLeast || counts.Body.Counts["DELIVERED"] != mostCounted || counts.Body.Counts["PENDING"] != 7 || slow.upTo != mostCounted {
			t.Errorf("deliveries: %+v, %v", counts, err)
		}
		waiting, err := s.countRetries(ctx, who, &RetryFilterInput{})
		if err != nil || !waiting.Body.AtLeast || waiting.Body.Waiting != mostCounted {
			t.Errorf("retries: %+v, %v", waiting, err)
		}
		command := &commandInput{}
		command.Body.SubscriptionID, command.Body.DryRun = "s", true
		dry, err := s.retryNow(ctx, who, command)
		if err != nil || !dry.Body.AtLeast || dry.Body.Count != mostCounted {
			t.Errorf("before a command: %+v, %v", dry, err)
		}
		if took := time.Since(began); took != 3*countTime {
			t.Errorf("three counts took %v", took)
		}
		began = time.Now()
		replay, err := s.countReplay(ctx, &store.Replay{Rate: 1, Spec: store.ReplaySpec{To: began}}, &webhook.Subscription{EventTypes: []string{"x"}})
		if err != nil || *replay.Body.Complete || replay.Body.Total != nil || replay.Body.Done == 0 {
			t.Errorf("before a replay: %+v, %v", replay, err)
		}
		if took := time.Since(began); took > countTime+lookTime+time.Second || took >= requestTimeout {
			t.Errorf("a replay's count took %v", took)
		}
	})
}
