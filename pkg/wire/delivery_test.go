package wire

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hookline/hookline/pkg/webhook"
)

func TestARetryBecomesItsDelivery(t *testing.T) {
	d := webhook.Delivery{ID: uuid.MustParse("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), Generation: 2, Trip: 3, Attempts: 2, SubscriptionID: "sub",
		Profile: "fynapse", CreatedAt: time.UnixMilli(1_700_000_000_000), Trigger: webhook.TriggerEvent,
		Event: webhook.Event{ID: "e", Type: "a.b", Tenant: "default", Data: []byte(`{"n":1}`), Trace: webhook.TraceContext{Parent: "parent", State: "state"}}}
	value := EncodeRetry(&webhook.Retry{Delivery: d, Delay: time.Minute, Reason: webhook.ReasonHTTPStatus})
	newer := protowire.AppendString(protowire.AppendTag(nil, 1000, protowire.BytesType), "of a newer version")
	delivery, trace, err := DeliveryOfRetry(append(bytes.Clone(value), newer...))
	if err != nil || trace != d.Event.Trace {
		t.Errorf("trace %v, %v", trace, err)
	}
	if want := append(EncodeDelivery(&d), newer...); !bytes.Equal(delivery, want) {
		t.Errorf("delivery %x, want %x", delivery, want)
	}
	for n := range value {
		if delivery, _, err := DeliveryOfRetry(value[:n]); err == nil && !bytes.HasPrefix(value, delivery) {
			t.Errorf("%d bytes became %x", n, delivery)
		}
	}
	if _, _, err := DeliveryOfRetry(value[:len(value)-1]); err == nil {
		t.Error("half a field was read")
	}
}
