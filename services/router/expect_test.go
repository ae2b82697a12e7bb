package router

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/pkg/callback"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

func TestADeliveryThatIsToBeCalledBackIsExpected(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		c := newTable()
		for id, contract := range map[string]string{"asks": "fuse", "does-not": "fynapse"} {
			c.subs = append(c.subs, &webhook.Subscription{ID: id, Tenant: webhook.DefaultTenant, Profile: contract})
		}
		stop := w.start(c, nil)
		defer stop()
		for _, value := range []string{
			`{"event_id":"e1","event_type":"financial_connection.sync_data","data":{"financial_connection_id":"c1","n":1}}`,
			`{"event_id":"e2","event_type":"transactions.updates","data":{"financial_connection_id":"c1"}}`,
			`{"event_id":"e3","event_type":"financial_connection.sync_data","data":{"a":1,"__proto__":2}}`,
		} {
			if err := w.client.ProduceSync(t.Context(), &kgo.Record{Topic: w.topics.Events, Value: []byte(value)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		all := w.read(w.topics.Callbacks)
		if len(all) != 1 {
			t.Fatalf("%d expectations, want one", len(all))
		}
		group := webhook.CallbackGroup(webhook.DefaultTenant, "c1")
		delivery := webhook.DeliveryID(webhook.DefaultTenant, "e1", "asks")
		if key := string(all[0].Key); key != callback.ExpectationKey(group, delivery) || !strings.HasPrefix(key, group+"/") {
			t.Errorf("key %s", key)
		}
		decoded, err := wire.DecodeCallback(all[0].Value)
		x, ok := decoded.(*webhook.Expectation)
		if err != nil || !ok || x.SubscriptionID != "asks" || x.EventID != "e1" || time.Until(x.Until).Round(time.Hour) != 72*time.Hour {
			t.Errorf("expectation %+v (%v)", decoded, err)
		}
	})
}

func TestADeliveryIsSentOnceItsExpectationIsAcknowledged(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		known, err := kadm.NewClient(w.client).Metadata(t.Context(), w.topics.Callbacks, w.topics.Deliveries)
		if err != nil {
			t.Fatal(err)
		}
		expectations, deliveries := known.Topics[w.topics.Callbacks].ID, known.Topics[w.topics.Deliveries].ID
		const slow = 8 * time.Second
		var order []string
		var acknowledged time.Time
		w.fake.ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
			w.fake.KeepControl()
			for _, topic := range r.(*kmsg.ProduceRequest).Topics {
				switch topic.TopicID {
				case expectations:
					w.fake.SleepControl(func() { time.Sleep(slow) })
					order, acknowledged = append(order, "expectation"), time.Now()
				case deliveries:
					order = append(order, "delivery")
					if acknowledged.IsZero() || len(r.(*kmsg.ProduceRequest).Topics) > 1 {
						t.Error("a delivery was sent before its expectation was acknowledged")
					}
				}
			}
			return nil, nil, false
		})
		c := newTable()
		c.subs = append(c.subs, &webhook.Subscription{ID: "asks", Tenant: webhook.DefaultTenant, Profile: "fuse"})
		stop := w.start(c, nil)
		defer stop()
		const value = `{"event_id":"e1","event_type":"financial_connection.sync_data","data":{"financial_connection_id":"c1"}}`
		if err := w.client.ProduceSync(t.Context(), &kgo.Record{Topic: w.topics.Events, Value: []byte(value)}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * slow)
		if all := w.read(w.topics.Deliveries); len(all) != 1 || !slices.Equal(order, []string{"expectation", "delivery"}) {
			t.Errorf("%d deliveries; sent in the order %v", len(all), order)
		}
	})
}
