package storetest

import (
	"context"
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

// retries is what can be asked about what waits.
type retries interface {
	Retries(ctx context.Context, tenant string, f store.RetryFilter, p store.Page) ([]store.Delivery, string, error)
	CountRetries(ctx context.Context, tenant string, f store.RetryFilter, due ...time.Time) (store.RetryCounts, error)
	CountRetriesUpTo(ctx context.Context, tenant string, f store.RetryFilter, most int64, due ...time.Time) (store.RetryCounts, error)
}

func waitingIsListedAndCounted(t *testing.T, s Store) {
	ctx, base, mine := context.Background(), now(), fresh("tenant")
	waiting := func(n int, subscription string, reason webhook.Reason, due time.Time) store.Delivery {
		d := newDelivery(mine, base.Add(time.Duration(n)*time.Millisecond))
		d.ID = webhook.DeliveryID(mine, d.EventID, subscription)
		d.SubscriptionID, d.Reason, d.NextAttemptAt, d.AttemptCount, d.LastAttempt = subscription, reason, due, 1, 1
		d.UpdatedAt = d.CreatedAt
		return d
	}
	a := waiting(1, "one", webhook.ReasonTimeout, base.Add(-time.Hour))
	b := waiting(2, "one", webhook.ReasonHTTPStatus, base.Add(30*time.Second))
	c := waiting(3, "two", webhook.ReasonTimeout, base.Add(time.Hour))
	c.EventType = "payment.registered"
	ended := waiting(4, "two", webhook.ReasonNone, time.Time{})
	ended.Status = webhook.Delivered
	fresh := newDelivery(mine, base) // no attempt yet: it does not wait for a retry
	record(t, s, a, b, c, ended, fresh)

	for name, test := range map[string]struct {
		filter store.RetryFilter
		want   []store.Delivery
	}{
		"all":             {store.RetryFilter{}, []store.Delivery{c, b, a}},
		"a subscription":  {store.RetryFilter{SubscriptionID: "one"}, []store.Delivery{b, a}},
		"a reason":        {store.RetryFilter{Reason: webhook.ReasonTimeout}, []store.Delivery{c, a}},
		"a type":          {store.RetryFilter{EventType: "payment.registered"}, []store.Delivery{c}},
		"due in a time":   {store.RetryFilter{From: a.NextAttemptAt, To: c.NextAttemptAt}, []store.Delivery{b, a}},
		"nothing is that": {store.RetryFilter{SubscriptionID: "two", Reason: webhook.ReasonHTTPStatus}, nil},
	} {
		items, next, err := s.Retries(ctx, mine, test.filter, store.Page{})
		must(t, err)
		same(t, name, items, test.want)
		counts := got(s.CountRetries(ctx, mine, test.filter))(t)
		if next != "" || counts.Waiting != int64(len(test.want)) {
			t.Errorf("%s: %d counted, next page %q", name, counts.Waiting, next)
		}
	}
	first, next, err := s.Retries(ctx, mine, store.RetryFilter{}, store.Page{Limit: 2})
	must(t, err)
	rest, end, err := s.Retries(ctx, mine, store.RetryFilter{}, store.Page{Limit: 2, Cursor: next})
	must(t, err)
	same(t, "pages", append(first, rest...), []store.Delivery{c, b, a})
	if end != "" {
		t.Errorf("a page after the last: %q", end)
	}

	same(t, "counts", got(s.CountRetries(ctx, mine, store.RetryFilter{}, base, base.Add(time.Minute)))(t), store.RetryCounts{
		Waiting: 3, Oldest: a.NextAttemptAt, Due: []int64{1, 1, 1},
		Subscriptions: map[string]int64{"one": 2, "two": 1},
		Reasons:       map[webhook.Reason]int64{webhook.ReasonTimeout: 2, webhook.ReasonHTTPStatus: 1},
	})
	some := got(s.CountRetriesUpTo(ctx, mine, store.RetryFilter{}, 2, base))(t)
	if some.Waiting != 2 || some.Due[0]+some.Due[1] != 2 {
		t.Errorf("counted up to two: %+v", some)
	}
	same(t, "counted up to more than there are", got(s.CountRetriesUpTo(ctx, mine, store.RetryFilter{}, 9))(t), got(s.CountRetries(ctx, mine, store.RetryFilter{}))(t))
	same(t, "in another tenant", got(s.CountRetries(ctx, mine+"x", store.RetryFilter{}))(t), store.RetryCounts{Due: []int64{0}})
}
