package wire_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

func TestADeferralOfARecordIsThatOfItsDelivery(t *testing.T) {
	d := webhook.Delivery{
		ID: uuid.New(), Generation: 1, Trip: 7, Attempts: 3, SubscriptionID: "s", Profile: "p", ProfileVersion: 2, CreatedAt: time.UnixMilli(5).UTC(),
		Trigger: webhook.TriggerEvent, ConfigOffset: 9,
		Event: webhook.Event{ID: "e", Type: "a.b", Tenant: "t", Data: []byte(`{"n":1}`), Metadata: []byte(`{"k":"v"}`), RecordedAt: time.UnixMilli(6).UTC(),
			Source: webhook.Position{Topic: "events", Partition: 1, Offset: 2}, Trace: webhook.TraceContext{Parent: "parent", State: "state"}},
	}
	want := &webhook.Retry{Delivery: d, Delay: 1500 * time.Millisecond, Reason: webhook.ReasonConcurrency}
	want.Delivery.Trip = 8
	value := wire.EncodeDelivery(&d)
	for range 2 { // a retry's value may be deferred as well: nothing is in it twice
		deferred, err := wire.RetryOfDelivery(value, 8, want.Delay, want.Reason)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := wire.DecodeRetry(deferred); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, %v, want %+v", got, err, want)
		}
		if len(deferred) != len(wire.EncodeRetry(want)) {
			t.Errorf("%d bytes, want %d", len(deferred), len(wire.EncodeRetry(want)))
		}
		value = deferred
	}
	if _, err := wire.RetryOfDelivery([]byte{0xff}, 1, 0, ""); err == nil {
		t.Error("a field that is cut off is copied")
	}
}
