package api

import (
	"net/http"
	"slices"
	"testing"

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
