package recorder

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/pkg/kafka/kafkatest"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// subscribe makes the subscription that newDelivery's deliveries are of.
func (w *world) subscribe(profile string) {
	w.Helper()
	sub := webhook.Subscription{ID: "sub", Tenant: webhook.DefaultTenant, Name: "s", Status: webhook.SubscriptionActive, Profile: profile, CreatedAt: time.Now(), UpdatedAt: time.Now()}
	must(w.T, w.db.CreateSubscription(context.Background(), sub, &webhook.Secret{ID: "secret", Tenant: webhook.DefaultTenant, Name: "s"}))
	time.Sleep(time.Second)
}

func (w *world) subscription() webhook.Subscription {
	w.Helper()
	sub, err := w.db.Subscription(context.Background(), webhook.DefaultTenant, "sub")
	must(w.T, err)
	return sub
}

// is fails unless the subscription has a status at a point of the test.
func (w *world) is(status webhook.SubscriptionStatus, when string) {
	w.Helper()
	if sub := w.subscription(); sub.Status != status {
		w.Fatalf("%s: %s because %q, version %d; want %s", when, sub.Status, sub.StatusReason, sub.Version, status)
	}
}

func (w *world) enable() {
	w.Helper()
	_, err := w.db.UpdateSubscription(context.Background(), webhook.DefaultTenant, "sub", func(sub *webhook.Subscription) error {
		sub.Status, sub.StatusReason = webhook.SubscriptionActive, ""
		return nil
	})
	must(w.T, err)
	time.Sleep(time.Second)
}

var attempted int

// attempted makes an attempt under a profile, at an event of its own.
func (w *world) attempted(profile string, status webhook.Status) *webhook.Attempt {
	attempted++
	a := newAttempt(newDelivery(fmt.Sprint("event ", attempted)), 1, status)
	a.Profile = profile
	if status == webhook.Delivered {
		a.StatusCode, a.Outcome.Reason = 200, ""
	}
	return a
}

func (w *world) fail(profile string, times int) {
	w.Helper()
	for range times {
		w.produce(w.attempt(w.attempted(profile, webhook.Pending)))
		time.Sleep(time.Second)
	}
}

// told reads the operational events on the events topic, each decoded as the router does, by its id.
func (w *world) told() (events map[string]event.Decoded, records int) {
	w.Helper()
	all := kafkatest.Records(w, w.cluster, w.topics.Events)
	events = map[string]event.Decoded{}
	for _, r := range all {
		e, err := event.FromRecord(r)
		must(w.T, err)
		events[e.ID] = e
	}
	return events, len(all)
}

func (w *world) toldTypes() map[string]int {
	w.Helper()
	types := map[string]int{}
	events, _ := w.told()
	for _, e := range events {
		types[e.Type]++
	}
	return types
}

func TestATestCountsNeitherForNorAgainstItsReceiver(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("fynex")
		stop := w.start()
		test := func(status webhook.Status, times int) {
			for range times {
				a := w.attempted("fynex", status)
				a.Trigger = webhook.TriggerTest
				w.produce(w.attempt(a))
			}
			time.Sleep(time.Second)
		}
		test(webhook.DeadLetter, 10)
		if sub, told := w.subscription(), w.toldTypes(); sub.Status != webhook.SubscriptionActive || len(told) != 0 {
			t.Errorf("after ten failed tests: %s, told %v", sub.Status, told)
		}
		w.fail("fynex", 4)
		test(webhook.Delivered, 1)
		w.fail("fynex", 1)
		settle()
		stop()
		w.is(webhook.SubscriptionDisabled, "a test within five failures")
		row, err := w.db.Delivery(context.Background(), webhook.DefaultTenant, newDelivery(fmt.Sprint("event ", attempted)).ID)
		must(t, err)
		if row.Trigger != webhook.TriggerEvent {
			t.Errorf("the last one is of %s", row.Trigger)
		}
	})
}

func TestFiveFailedAttemptsInARowDisableUnderFynexAlsoAcrossARestart(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("fynex")
		stop := w.start()
		w.fail("fynex", 4)
		w.produce(w.attempt(w.attempted("fynex", webhook.Delivered)))
		since := time.Now()
		time.Sleep(time.Second)
		w.fail("fynex", 3)
		stop()
		stop = w.start()
		w.fail("fynex", 1)
		w.is(webhook.SubscriptionActive, "after four failures")
		w.fail("fynex", 1)
		settle()
		stop()
		sub := w.subscription()
		want := fmt.Sprintf("automatically disabled: 5 attempts in a row failed since %s, the last with status 503", since.Add(time.Second).UTC().Format(time.RFC3339))
		if sub.Status != webhook.SubscriptionDisabled || sub.StatusReason != want || sub.Version != 2 {
			t.Fatalf("subscription %s version %d because %q\nwant %q", sub.Status, sub.Version, sub.StatusReason, want)
		}
		outbox, err := w.db.Outbox(context.Background(), 100)
		must(t, err)
		value, err := wire.DecodeConfig(outbox[len(outbox)-1].Value)
		must(t, err)
		if published, ok := value.(*webhook.Subscription); !ok || published.Status != webhook.SubscriptionDisabled {
			t.Errorf("the last change to be published is %+v", value)
		}
		events, _ := w.told()
		if len(events) != 1 {
			t.Fatalf("told %v", events)
		}
		for _, e := range events {
			var data noticeData
			must(t, json.Unmarshal(e.Data, &data))
			if e.Type != string(disabled) || e.Tenant != webhook.DefaultTenant || data.SubscriptionID != "sub" || data.Reason != want || !e.Timestamp.Equal(sub.StatusSince) {
				t.Errorf("event %+v", e)
			}
		}
	})
}

func TestEnablingAgainStartsAfreshAndLateFailuresOfBeforeCountForNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("fynex")
		stop := w.start()
		defer stop()
		late := []*webhook.Attempt{w.attempted("fynex", webhook.Pending), w.attempted("fynex", webhook.Pending), w.attempted("fynex", webhook.Pending)}
		time.Sleep(time.Second)
		w.fail("fynex", 5)
		settle()
		w.is(webhook.SubscriptionDisabled, "five failures")
		w.produce(w.attempt(late[0]))
		time.Sleep(time.Second)
		w.enable()
		w.produce(w.attempt(late[1]), w.attempt(late[2]))
		w.fail("fynex", 4)
		settle()
		w.is(webhook.SubscriptionActive, "four new failures and three late ones")
		w.fail("fynex", 1)
		settle()
		if sub := w.subscription(); sub.Status != webhook.SubscriptionDisabled || sub.Version != 4 {
			t.Errorf("five new failures: %+v", sub)
		}
		if told := w.toldTypes(); told[string(disabled)] != 2 {
			t.Errorf("told %v, want both disablings", told)
		}
	})
}

func TestAManualChangeOfTheStatusStartsAfreshToo(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("fynex")
		stop := w.start()
		defer stop()
		w.fail("fynex", 4)
		_, err := w.db.UpdateSubscription(context.Background(), webhook.DefaultTenant, "sub", func(sub *webhook.Subscription) error {
			sub.Status = webhook.SubscriptionDisabled
			return nil
		})
		must(t, err)
		w.fail("fynex", 2)
		w.enable()
		w.fail("fynex", 4)
		settle()
		if sub := w.subscription(); sub.Status != webhook.SubscriptionActive || sub.Version != 3 {
			t.Errorf("four failures since it was enabled: %+v", sub)
		}
		if told := w.toldTypes(); told[string(disabled)] != 0 {
			t.Errorf("told %v of what a person did", told)
		}
		w.fail("fynex", 1)
		settle()
		w.is(webhook.SubscriptionDisabled, "five failures since it was enabled")
	})
}

func TestFiveDaysOfFailingDisableUnderStandard(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("standard")
		stop := w.start()
		defer stop()
		began := time.Now()
		for day := range 6 {
			if sub := w.subscription(); sub.Status != webhook.SubscriptionActive {
				t.Fatalf("disabled after %d days", day)
			}
			a := w.attempted("standard", webhook.Pending)
			a.StartedAt = began.AddDate(0, 0, day)
			w.produce(w.attempt(a))
			time.Sleep(time.Second)
		}
		if sub := w.subscription(); sub.Status != webhook.SubscriptionDisabled || !strings.Contains(sub.StatusReason, "6 attempts in a row failed since") {
			t.Errorf("subscription %+v", sub)
		}
	})
}

func TestWhatARecorderDidBeforeItDiedIsNeitherCountedNorSaidTwice(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("fynex")
		stop := w.start()
		w.fail("fynex", 4)
		settle()
		// It disables, tells, and cannot write the batch any more.
		w.db.readOnly.Store(true)
		w.fail("fynex", 1)
		settle()
		w.is(webhook.SubscriptionDisabled, "five failures")
		stop()
		w.db.readOnly.Store(false)
		stop = w.start()
		settle()
		stop()
		if sub := w.subscription(); sub.Version != 2 {
			t.Errorf("changed to version %d", sub.Version)
		}
		events, records := w.told()
		if len(events) != 1 || records != 2 {
			t.Errorf("%d events in %d records, want one, said twice", len(events), records)
		}

		// All of it again, from the beginning.
		w.enable()
		w.sql("DELETE FROM consumer_offsets")
		stop = w.start()
		settle()
		w.fail("fynex", 4)
		settle()
		stop()
		w.is(webhook.SubscriptionActive, "four failures, and those of before read again")
		if events, _ := w.told(); len(events) != 1 {
			t.Errorf("told %v", events)
		}
	})
}

func TestAStreakGoesOnInAnotherRecorderAndDisablesOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("fynex")
		first := w.start()
		w.fail("fynex", 2)
		second := w.start()
		time.Sleep(15 * time.Second)
		w.fail("fynex", 2)
		first()
		time.Sleep(15 * time.Second)
		w.is(webhook.SubscriptionActive, "four failures, counted by two recorders")
		w.fail("fynex", 1)
		time.Sleep(15 * time.Second)
		second()
		if sub := w.subscription(); sub.Status != webhook.SubscriptionDisabled || sub.Version != 2 || !strings.Contains(sub.StatusReason, "5 attempts in a row") {
			t.Errorf("the fifth: %+v", sub)
		}
		if told := w.toldTypes(); told[string(disabled)] != 1 {
			t.Errorf("told %v", told)
		}
	})
}

func TestOperationalEventsTellOfFailingRecoveryAndDeadLetters(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("fynapse")
		stop := w.start()
		defer stop()
		for range 4 {
			w.produce(w.attempt(w.attempted("fynapse", webhook.DeadLetter)))
			time.Sleep(30 * time.Second)
		}
		w.produce(w.attempt(w.attempted("fynapse", webhook.Delivered)))
		time.Sleep(10 * time.Minute)
		last := w.attempted("fynapse", webhook.DeadLetter)
		w.produce(w.attempt(last))
		settle()
		if told := w.toldTypes(); told[string(failing)] != 1 || told[string(recovered)] != 1 || told[string(deadLettered)] != 2 || len(told) != 3 {
			t.Errorf("told %v", told)
		}
		events, _ := w.told()
		found := false
		for _, e := range events {
			var data noticeData
			must(t, json.Unmarshal(e.Data, &data))
			if data.DeliveryID == last.DeliveryID.String() {
				found = true
				if data.DeadLetters != 4 || data.EventID != last.EventID || data.StatusCode != 503 {
					t.Errorf("the last one: %+v, want it and the three before that were not told", data)
				}
			}
		}
		if !found {
			t.Error("the last dead letter is not told")
		}
	})
}

func TestABurstOfFailuresLooksAtTheSubscriptionOnceABatch(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.subscribe("fynex")
		_, err := w.db.UpdateSubscription(context.Background(), webhook.DefaultTenant, "sub", func(sub *webhook.Subscription) error {
			sub.Status = webhook.SubscriptionPaused
			return nil
		})
		must(t, err)
		time.Sleep(time.Second)
		var records []*kgo.Record
		for range 500 {
			a := w.attempted("fynex", webhook.Pending)
			a.ID = uuid.Must(uuid.NewV7())
			records = append(records, w.attempt(a))
		}
		w.produce(records...)
		w.db.updates.Store(0)
		stop := w.start()
		settle()
		stop()
		if n := w.db.updates.Load(); n == 0 || n > 3 {
			t.Errorf("the subscription was looked at %d times for one burst", n)
		}
		w.is(webhook.SubscriptionPaused, "paused, in a burst of failures")
	})
}
