package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/services/api/replay"
)

// trips is a timer index that has been told what waits.
type trips map[uuid.UUID][]retryqueue.Waiting

func (t trips) Find(_ context.Context, _ int32, delivery uuid.UUID, _ uint32) ([]retryqueue.Waiting, time.Time, error) {
	if t == nil {
		return nil, time.Time{}, errors.New("Redis is away")
	}
	return t[delivery], time.Now(), nil
}

func TestWhyAPendingDeliveryIsPutBackAndUntilWhenIsShownWhereItIsAskedFor(t *testing.T) {
	t.Parallel()
	index := trips{}
	r := start(t, func(_ *Config, d *Deps) { d.Waiting = index })
	due := time.Now().Add(time.Hour).UTC().Truncate(time.Millisecond)
	offset := int64(0)
	for reason, want := range map[webhook.Reason]string{
		webhook.ReasonRate: "rate", webhook.ReasonConcurrency: "slot", webhook.ReasonBreaker: "breaker", webhook.ReasonPaused: "paused",
		webhook.ReasonConfig: "subscription", webhook.ReasonSecret: "secret", webhook.ReasonShutdown: "stopped",
		webhook.ReasonHTTPStatus: "",
	} {
		sub := r.subscribe(string(reason))
		event := "of " + string(reason)
		delivery := r.deliver(sub, event, webhook.Pending)
		d := webhook.Delivery{ID: uuid.MustParse(delivery), Trip: 3, Attempts: 2, SubscriptionID: sub, CreatedAt: when, Event: webhook.Event{ID: event, Type: "a", Tenant: webhook.DefaultTenant}}
		record := replay.Record(r.kafka.Topics.Retries, &webhook.Retry{Delivery: d, Reason: reason})
		if _, err := r.service.journal.Write(t.Context(), record); err != nil {
			t.Fatal(err)
		}
		command := retryqueue.Waiting{Trip: webhook.Command(d.ID, 0), Due: due, Offset: 999}
		index[d.ID] = []retryqueue.Waiting{command, {Trip: d.Key(), Due: due, Offset: offset}}
		offset++

		got := r.must(http.StatusOK, http.MethodGet, "/deliveries/"+delivery, nil)
		_, outcomes := explained(t, r.call(http.MethodGet, "/explain?eventId="+strings.ReplaceAll(event, " ", "+"), nil))
		why := outcomes[string(reason)].Delivery
		if why == nil || why.WaitsFor == nil || *why.WaitsFor != got.str("waitsFor") || got.str("nextAttemptAt") != due.Format(time.RFC3339Nano) || !why.NextAttemptAt.Equal(due) {
			t.Fatalf("%s: explained %+v, shown %s", reason, why, got.text)
		}
		if want == "" {
			if got.body["deferral"] != nil || why.Deferral != nil || !strings.Contains(got.str("waitsFor"), "next attempt") {
				t.Errorf("a retry: %s", got.text)
			}
			continue
		}
		deferral, _ := got.body["deferral"].(map[string]any)
		if deferral["reason"] != string(reason) || deferral["until"] != due.Format(time.RFC3339Nano) || !strings.Contains(got.str("waitsFor"), want) {
			t.Errorf("%s: %s", reason, got.text)
		}
		if why.Deferral == nil || why.Deferral.Reason != string(reason) || !why.Deferral.Until.Equal(due) {
			t.Errorf("%s explained: %+v", reason, why.Deferral)
		}
	}
}

func TestWithoutTheTimerIndexADeliveryIsShownAllTheSame(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(*Config, *Deps){
		"none": func(*Config, *Deps) {},
		"away": func(_ *Config, d *Deps) { d.Waiting = trips(nil) },
		"lost": func(_ *Config, d *Deps) { d.Waiting = trips{} },
	} {
		r := start(t, change)
		sub := r.subscribe("s")
		pending := r.deliver(sub, "e1", webhook.Pending)
		got := r.must(http.StatusOK, http.MethodGet, "/deliveries/"+pending, nil)
		if got.body["deferral"] != nil || !strings.Contains(got.str("waitsFor"), "a worker") {
			t.Errorf("%s: %s", name, got.text)
		}
		r.must(http.StatusOK, http.MethodPatch, "/subscriptions/"+sub, `{"status":"paused"}`)
		if got := r.must(http.StatusOK, http.MethodGet, "/deliveries/"+pending, nil); !strings.Contains(got.str("waitsFor"), "paused") {
			t.Errorf("%s, paused: %s", name, got.text)
		}
		ended := r.must(http.StatusOK, http.MethodGet, "/deliveries/"+r.deliver(sub, "e2", webhook.Delivered), nil)
		if ended.body["waitsFor"] != nil || ended.body["deferral"] != nil {
			t.Errorf("%s, ended: %s", name, ended.text)
		}
	}
}
