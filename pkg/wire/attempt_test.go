package wire_test

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
	hooklinev1 "github.com/hookline/hookline/proto/hookline/v1"
)

func full() *webhook.Attempt {
	at := time.UnixMilli(1_780_000_000_123).UTC()
	return &webhook.Attempt{
		ID: uuid.New(), DeliveryID: uuid.New(), Generation: 2, Tenant: "t", EventID: "e", EventType: "a.b", SubscriptionID: "s", Profile: "p", ProfileVersion: 3,
		Trigger: webhook.TriggerReplay, DeliveryCreatedAt: at, Number: 4, Try: 2, StartedAt: at.Add(time.Microsecond), Duration: time.Second,
		Phases:     webhook.Phases{DNS: 1000, Connect: 2000, TLS: 3000, FirstByte: 4000},
		StatusCode: 503, Error: webhook.ErrorTimeout, Response: []byte{0, 0xff}, RequestBytes: 5, ResponseBytes: 1 << 40,
		Outcome:     webhook.Outcome{Status: webhook.Pending, Reason: webhook.ReasonHTTPStatus, NextAttemptAt: at, DisableSubscription: true, Uncounted: true},
		TraceParent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	}
}

func TestAnAttemptComesBackAsItWasWritten(t *testing.T) {
	negative := full()
	negative.StatusCode, negative.Duration = -1, -time.Second
	for name, a := range map[string]*webhook.Attempt{"full": full(), "negative": negative, "empty": {}} {
		back, err := wire.DecodeAttempt(wire.EncodeAttempt(a))
		if err != nil || !reflect.DeepEqual(back, a) {
			t.Errorf("%s: %+v, %v, want %+v", name, back, err, a)
		}
	}
}

func TestAnAttemptIsWrittenAsItsMessageIsAndLeavesNoFieldOut(t *testing.T) {
	value := wire.EncodeAttempt(full())
	m := new(hooklinev1.Attempt)
	if err := proto.Unmarshal(value, m); err != nil {
		t.Fatal(err)
	}
	fields := m.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if f := fields.Get(i); !m.ProtoReflect().Has(f) {
			t.Errorf("%s is not written", f.Name())
		}
	}
	if again, err := (proto.MarshalOptions{Deterministic: true}).Marshal(m); err != nil || !bytes.Equal(again, value) {
		t.Errorf("%x, want %x (%v)", value, again, err)
	}
}
