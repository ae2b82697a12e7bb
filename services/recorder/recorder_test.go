package recorder

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/attribute"

	"github.com/hookline/hookline/pkg/topic"
	"github.com/hookline/hookline/pkg/webhook"
)

// labelEncoder prints a set of attributes as key=value, in the order of the keys.
type labelEncoder struct{}

func (labelEncoder) ID() attribute.EncoderID { return attribute.EncoderID{} }

func (labelEncoder) Encode(labels attribute.Iterator) string {
	var out []string
	for labels.Next() {
		out = append(out, string(labels.Attribute().Key)+"="+labels.Attribute().Value.String())
	}
	return strings.Join(out, ",")
}

func TestRecordsBecomeRows(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stop := w.start()
		defer stop()
		pending, retried, dead := newDelivery("pending"), newDelivery("retried"), newDelivery("dead")
		retry := newAttempt(retried, 1, webhook.Pending)
		retry.Outcome.NextAttemptAt = retried.CreatedAt.Add(time.Minute)
		last := newAttempt(dead, 2, webhook.DeadLetter)
		dead.Attempts = 2
		w.produce(w.delivery(pending), w.delivery(retried), w.attempt(retry), w.attempt(last), w.deadLetter(dead))
		time.Sleep(10 * time.Second)

		if row := w.row(pending); row.Status != webhook.Pending || row.AttemptCount != 0 || !row.CreatedAt.Equal(pending.CreatedAt) {
			t.Errorf("pending: %+v", row)
		}
		if row := w.row(retried); row.Status != webhook.Pending || row.AttemptCount != 1 || !row.NextAttemptAt.Equal(retry.Outcome.NextAttemptAt) || row.LastStatusCode != 503 {
			t.Errorf("retried: %+v", row)
		}
		if row := w.row(dead); row.Status != webhook.DeadLetter || row.AttemptCount != 2 || row.EventType != "a.b" || row.LastStatusCode != 503 {
			t.Errorf("dead: %+v", row)
		}
		attempts, err := w.db.Attempts(context.Background(), webhook.DefaultTenant, retried.ID, dead.ID)
		must(t, err)
		if len(attempts[retried.ID]) != 1 || len(attempts[dead.ID]) != 1 || attempts[dead.ID][0].ID != last.ID {
			t.Errorf("attempts %v", attempts)
		}
		event, err := w.db.Event(context.Background(), webhook.DefaultTenant, "dead")
		must(t, err)
		if string(event.Data) != `{"n":1.0}` {
			t.Errorf("payload %s", event.Data)
		}
		if unmet := w.unmet(); unmet != "" {
			t.Errorf("not ready: %s", unmet)
		}
		time.Sleep(lagInterval)
		for metric, want := range map[string]float64{
			"hookline.deliveries status=DEAD_LETTER": 1, "hookline.recorder.rows table=deliveries": 4, "hookline.recorder.rows table=attempts": 2,
			"hookline.recorder.rows table=events": 4, "hookline.consumer.lag.records group=recorder": 0,
		} {
			name, labels, _ := strings.Cut(metric, " ")
			if got := w.value(name, labels); got != want {
				t.Errorf("%s is %v, want %v", metric, got, want)
			}
		}
		if lag := w.value("hookline.recorder.lag.seconds", ""); lag < 0 || lag > 10 {
			t.Errorf("lag of %v s", lag)
		}
	})
}

func TestARecorderGoesOnWhereTheDatabaseStands(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stop := w.start()
		w.produce(w.deliveries(0, 50)...)
		settle()
		stop()
		stop()
		w.produce(w.deliveries(50, 80)...)
		stop = w.start()
		settle()
		stop()
		if n := len(w.rows()); n != 80 {
			t.Errorf("%d rows, want 80", n)
		}
		if n := w.value("hookline.recorder.rows", "table=deliveries"); n != 80 {
			t.Errorf("%v rows were written, want each record read once", n)
		}
		if w.log.of("stopped with records that are not written; they will be read again") > 0 {
			t.Error("records were left")
		}
	})
}

func TestReadingEverythingAgainChangesNothing(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		d := newDelivery("again")
		end := newAttempt(d, 1, webhook.Delivered)
		w.produce(append(w.deliveries(0, 20), w.delivery(d), w.attempt(end))...)
		stop := w.start()
		settle()
		stop()
		before := w.rows()
		w.sql("DELETE FROM consumer_offsets")
		stop = w.start()
		settle()
		stop()
		after := w.rows()
		if fmt.Sprint(before) != fmt.Sprint(after) || len(after) != 21 {
			t.Errorf("before %v\nafter %v", before, after)
		}
		if attempts, err := w.db.Attempts(context.Background(), webhook.DefaultTenant, d.ID); err != nil || len(attempts[d.ID]) != 1 {
			t.Errorf("attempts %v, %v", attempts, err)
		}
		if n := w.value("hookline.recorder.rows", "table=deliveries"); n != 42 {
			t.Errorf("%v rows were written, want 42: nothing was read again", n)
		}
	})
}

func TestWhileTheDatabaseIsAwayTheRecorderWaitsAndThenCatchesUp(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stop := w.start()
		defer stop()
		w.produce(w.deliveries(0, 10)...)
		settle()
		w.db.away.Store(true)
		for i := range 10 {
			w.produce(w.deliveries(10+i, 11+i)...)
			time.Sleep(time.Minute)
		}
		if unmet := w.unmet(); !strings.Contains(unmet, "recorder: writing") || !strings.Contains(unmet, "recorder: database") {
			t.Errorf("unmet: %q", unmet)
		}
		if n := w.log.of("the recorder waits"); n < 9 || n > 11 {
			t.Errorf("%d log lines in 10 minutes", n)
		}
		if lag := w.value("hookline.consumer.lag.records", "group=recorder"); lag != 10 {
			t.Errorf("a lag of %v, want 10", lag)
		}
		w.db.away.Store(false)
		time.Sleep(time.Minute)
		if n := len(w.rows()); n != 20 {
			t.Errorf("%d rows, want 20", n)
		}
		if unmet := w.unmet(); unmet != "" {
			t.Errorf("still unmet: %s", unmet)
		}
	})
}

func TestADatabaseThatIsAwayAtTheStartIsWaitedFor(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.db.away.Store(true)
		w.produce(w.deliveries(0, 10)...)
		stop := w.start()
		defer stop()
		time.Sleep(5 * time.Minute)
		if n := len(w.rows()); n != 0 {
			t.Fatalf("%d rows", n)
		}
		w.db.away.Store(false)
		time.Sleep(time.Minute)
		if n := len(w.rows()); n != 10 {
			t.Errorf("%d rows, want 10", n)
		}
	})
}

func TestKafkaThatGoesAwayIsSaidAndReadFromAgain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cut.Store(true)
		stop := w.start()
		defer stop()
		time.Sleep(time.Minute)
		if unmet := w.unmet(); !strings.Contains(unmet, "recorder: kafka") {
			t.Errorf("unmet: %q", unmet)
		}
		w.cut.Store(false)
		w.produce(w.deliveries(0, 10)...)
		time.Sleep(time.Minute)
		if n := len(w.rows()); n != 10 {
			t.Errorf("%d rows, want 10", n)
		}
	})
}

func TestAStopBeforeKafkaIsThereEndsAtOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.cut.Store(true)
		stop := w.start()
		time.Sleep(time.Minute)
		start := time.Now()
		stop()
		if took := time.Since(start); took > 15*time.Second {
			t.Errorf("the stop took %v", took)
		}
	})
}

func TestAStopWritesWhatWasTaken(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stop := w.start()
		w.produce(w.deliveries(0, 5)...)
		settle()
		w.db.away.Store(true)
		w.produce(w.deliveries(5, 10)...)
		settle()
		time.AfterFunc(10*time.Second, func() { w.db.away.Store(false) })
		stop()
		if n := len(w.rows()); n != 10 {
			t.Errorf("%d rows, want 10", n)
		}
	})
}

func TestADrainThatTakesTooLongIsCutOffAndNothingIsLost(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stop := w.start()
		w.produce(w.deliveries(0, 5)...)
		settle()
		w.db.away.Store(true)
		w.produce(w.deliveries(5, 10)...)
		settle()
		start := time.Now()
		stop()
		if took := time.Since(start); took < settings.DrainTimeout-time.Second || took > settings.DrainTimeout+5*time.Second {
			t.Errorf("the stop took %v", took)
		}
		w.db.away.Store(false)
		stop = w.start()
		settle()
		stop()
		if n := len(w.rows()); n != 10 {
			t.Errorf("%d rows, want 10", n)
		}
	})
}

func TestARecordThatCannotBeReadGoesToTheRejectedTopic(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stop := w.start()
		defer stop()
		for reason, name := range map[string]string{reasonDelivery: w.topics.Deliveries, reasonAttempt: w.topics.Attempts, reasonDeadLetter: w.topics.DeadLetters} {
			w.produce(&kgo.Record{Topic: name, Key: []byte("k"), Value: []byte("\xff" + reason), Headers: []kgo.RecordHeader{{Key: "own", Value: []byte("1")}}})
		}
		w.produce(&kgo.Record{Topic: w.topics.Attempts, Key: []byte("large"), Value: []byte("\xff" + strings.Repeat("x", 1<<20))})
		w.produce(w.deliveries(0, 10)...)
		for _, r := range w.rejected(4) {
			if string(r.Key) == "large" {
				if len(r.Value) != 64<<10 {
					t.Errorf("a large value is kept with %d bytes", len(r.Value))
				}
				continue
			}
			if "\xff"+header(r, topic.HeaderReason) != string(r.Value) || string(r.Key) != "k" || header(r, "own") != "1" ||
				header(r, topic.HeaderSourceTopic) == "" || header(r, topic.HeaderSourceOffset) != "0" || header(r, topic.HeaderDetail) == "" {
				t.Errorf("rejected %q: %v", r.Value, r.Headers)
			}
		}
		settle()
		if n := len(w.rows()); n != 10 {
			t.Errorf("%d rows, want 10", n)
		}
		if n := w.value("hookline.rejected", "reason=unreadable_delivery,topic=hookline.deliveries"); n != 1 {
			t.Errorf("%v are counted", n)
		}
	})
}

func TestARowThatTheDatabaseRefusesIsLeftOutAndItsRecordRejected(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.sql(`CREATE TRIGGER refuse BEFORE INSERT ON attempts WHEN new.response = x'bad0' BEGIN SELECT RAISE(ABORT, 'refused'); END`)
		d := newDelivery("wedge")
		var records []*kgo.Record
		for i := range 9 {
			a := newAttempt(d, uint32(i+1), webhook.Pending)
			if i == 4 {
				a.Response = []byte{0xba, 0xd0}
			}
			records = append(records, w.attempt(a))
		}
		w.produce(records...)
		stop := w.start()
		defer stop()
		r := w.rejected(1)[0]
		if header(r, topic.HeaderReason) != reasonRefused || header(r, topic.HeaderSourceOffset) != "4" {
			t.Errorf("rejected %v", r.Headers)
		}
		settle()
		attempts, err := w.db.Attempts(context.Background(), webhook.DefaultTenant, d.ID)
		must(t, err)
		if len(attempts[d.ID]) != 8 {
			t.Errorf("%d attempts, want 8", len(attempts[d.ID]))
		}
		if row := w.row(d); row.AttemptCount != 9 {
			t.Errorf("the delivery stands at attempt %d", row.AttemptCount)
		}
	})
}

func TestADatabaseThatLostItsLastCommitsIsFilledAgain(t *testing.T) {
	all := []string{"DELETE FROM consumer_offsets", "DELETE FROM deliveries"}
	// The first record of each of the three partitions is said to be there; which three they are depends on the hash of keys.
	some := []string{"UPDATE consumer_offsets SET next_offset = 1", "DELETE FROM deliveries"}
	for _, c := range []struct {
		name     string
		loss     []string
		more     int
		atLeast  int
		patience time.Duration
	}{
		{"all of them", all, 30, 60, 0},
		{"some of them", some, 30, 57, 0},
		{"some of them, and no record comes", some, 0, 27, lagInterval},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				stop := w.start()
				defer stop()
				w.produce(w.deliveries(0, 30)...)
				time.Sleep(20 * time.Second) // joining the group may take a heartbeat or two
				if n := len(w.rows()); n != 30 {
					t.Fatalf("%d rows, want 30", n)
				}
				w.sql(c.loss...)
				w.produce(w.deliveries(30, 30+c.more)...)
				time.Sleep(c.patience + 2*longestWait)
				if n := len(w.rows()); n < c.atLeast {
					t.Errorf("%d rows, want at least %d", n, c.atLeast)
				}
				if w.log.of("starting over") != 1 {
					t.Error("it is not said once")
				}
			})
		})
	}
}

func TestAReceiverThatAsksForItIsDisabledOnce(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ctx := context.Background()
		sub := webhook.Subscription{ID: "sub", Tenant: webhook.DefaultTenant, Name: "s", Status: webhook.SubscriptionActive, Profile: "standard", CreatedAt: time.Now(), UpdatedAt: time.Now()}
		must(t, w.db.CreateSubscription(ctx, sub, &webhook.Secret{ID: "secret", Tenant: webhook.DefaultTenant, Name: "s"}))
		time.Sleep(time.Second)
		gone := newAttempt(newDelivery("gone"), 1, webhook.DeadLetter)
		gone.StatusCode, gone.Outcome.DisableSubscription = 410, true
		of := *gone
		of.SubscriptionID = "deleted meanwhile"
		w.produce(w.attempt(gone), w.attempt(gone), w.attempt(&of))
		stop := w.start()
		settle()
		stop()
		disabled, err := w.db.Subscription(ctx, webhook.DefaultTenant, "sub")
		must(t, err)
		if disabled.Status != webhook.SubscriptionDisabled || disabled.StatusReason != "automatically disabled: the endpoint answered 410" || disabled.Version != 2 {
			t.Fatalf("subscription %+v", disabled)
		}
		time.Sleep(time.Second)
		_, err = w.db.UpdateSubscription(ctx, webhook.DefaultTenant, "sub", func(sub *webhook.Subscription) error {
			sub.Status, sub.StatusReason = webhook.SubscriptionActive, ""
			return nil
		})
		must(t, err)
		// The attempt is from before it was enabled again.
		w.sql("DELETE FROM consumer_offsets")
		stop = w.start()
		settle()
		stop()
		enabled, err := w.db.Subscription(ctx, webhook.DefaultTenant, "sub")
		must(t, err)
		if enabled.Status != webhook.SubscriptionActive || enabled.Version != 3 {
			t.Errorf("after reading the attempt again: %+v", enabled)
		}
	})
}

func TestPartitionsMoveBetweenRecordersWithoutLoss(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		first := w.start()
		produced := 0
		more := func(n int) {
			w.produce(w.deliveries(produced, produced+n)...)
			produced += n
			time.Sleep(500 * time.Millisecond)
		}
		for range 10 {
			more(10)
		}
		second := w.start()
		for range 40 {
			more(5)
		}
		first()
		for range 20 {
			more(5)
		}
		time.Sleep(time.Minute)
		second()
		if n := len(w.rows()); n != produced {
			t.Errorf("%d rows, want %d", n, produced)
		}
	})
}

func TestOldRowsAreDroppedEveryHour(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		s := w.service()
		s.cfg.KeepDeliveries = 90 * time.Minute
		stop := w.run(s)
		defer stop()
		w.produce(w.deliveries(0, 10)...)
		time.Sleep(85 * time.Minute)
		if n := len(w.rows()); n != 10 {
			t.Errorf("%d rows, want 10", n)
		}
		time.Sleep(time.Hour)
		if n := len(w.rows()); n != 0 {
			t.Errorf("%d rows are left", n)
		}
	})
}

func TestEverythingWrongWithTheConfigurationIsSaidAtOnce(t *testing.T) {
	err := Config{Linger: -1, KeepAttempts: time.Hour, DrainTimeout: -1}.Validate()
	for _, name := range []string{"HOOKLINE_RECORDER_BATCH", "HOOKLINE_RECORDER_LINGER", "HOOKLINE_RETENTION_ATTEMPTS", "HOOKLINE_DRAIN_TIMEOUT"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is missing in: %v", name, err)
		}
	}
	if err := settings.Validate(); err != nil {
		t.Error(err)
	}
}
