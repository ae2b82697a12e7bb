package wire

import (
	"fmt"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/hookline/hookline/pkg/webhook"
	hooklinev1 "github.com/hookline/hookline/proto/hookline/v1"
)

// EncodeAttempt makes the value of an attempts record. There is one for every request, so it is written without the detour
// over a message: the fields of hooklinev1.Attempt in their order, none that is zero.
func EncodeAttempt(a *webhook.Attempt) []byte {
	// Twice the ids, the numbers and the tags take less than the constant.
	w := writer(make([]byte, 0, 256+len(a.Tenant)+len(a.EventID)+len(a.EventType)+len(a.SubscriptionID)+len(a.Profile)+len(a.Response)))
	w.bytes(1, a.ID[:])
	w.bytes(2, a.DeliveryID[:])
	w.number(3, int64(a.Generation))
	w.text(4, a.Tenant)
	w.text(5, a.EventID)
	w.text(6, a.EventType)
	w.text(7, a.SubscriptionID)
	w.text(8, a.Profile)
	w.number(9, int64(a.ProfileVersion))
	w.text(10, string(a.Trigger))
	w.number(11, unixMilli(a.DeliveryCreatedAt))
	w.number(12, int64(a.Number))
	w.number(13, int64(a.Try))
	if !a.StartedAt.IsZero() {
		w.number(14, a.StartedAt.UnixMicro())
	}
	w.number(15, a.Duration.Microseconds())
	w.number(16, a.Phases.DNS.Microseconds())
	w.number(17, a.Phases.Connect.Microseconds())
	w.number(18, a.Phases.TLS.Microseconds())
	w.number(19, a.Phases.FirstByte.Microseconds())
	w.number(20, int64(a.StatusCode))
	w.text(21, string(a.Error))
	w.bytes(22, a.Response)
	w.number(23, int64(a.RequestBytes))
	w.number(24, int64(a.ResponseBytes))
	w.text(25, string(a.Outcome.Status))
	w.text(26, string(a.Outcome.Reason))
	w.number(27, unixMilli(a.Outcome.NextAttemptAt))
	w.flag(28, a.Outcome.DisableSubscription)
	w.text(29, a.TraceParent)
	w.flag(30, a.Outcome.Uncounted)
	return w
}

// writer appends the fields of a message.
type writer []byte

func (w *writer) bytes(field protowire.Number, value []byte) {
	if len(value) > 0 {
		*w = protowire.AppendBytes(protowire.AppendTag(*w, field, protowire.BytesType), value)
	}
}

func (w *writer) text(field protowire.Number, value string) {
	if value != "" {
		*w = protowire.AppendString(protowire.AppendTag(*w, field, protowire.BytesType), value)
	}
}

func (w *writer) number(field protowire.Number, value int64) {
	if value != 0 {
		*w = protowire.AppendVarint(protowire.AppendTag(*w, field, protowire.VarintType), uint64(value))
	}
}

func (w *writer) flag(field protowire.Number, value bool) {
	if value {
		w.number(field, 1)
	}
}

// DecodeAttempt reads the value of an attempts record.
func DecodeAttempt(value []byte) (*webhook.Attempt, error) {
	m := new(hooklinev1.Attempt)
	if err := proto.Unmarshal(value, m); err != nil {
		return nil, fmt.Errorf("decode attempt: %w", err)
	}
	id, err := uuid.FromBytes(m.GetAttemptId())
	if err != nil {
		return nil, fmt.Errorf("decode attempt: id: %w", err)
	}
	delivery, err := uuid.FromBytes(m.GetDeliveryId())
	if err != nil {
		return nil, fmt.Errorf("decode attempt: delivery id: %w", err)
	}
	micros := func(us int64) time.Duration { return time.Duration(us) * time.Microsecond }
	a := &webhook.Attempt{
		ID:                id,
		DeliveryID:        delivery,
		Generation:        m.GetGeneration(),
		Tenant:            m.GetTenant(),
		EventID:           m.GetEventId(),
		EventType:         m.GetEventType(),
		SubscriptionID:    m.GetSubscriptionId(),
		Profile:           m.GetProfile(),
		ProfileVersion:    m.GetProfileVersion(),
		Trigger:           webhook.Trigger(m.GetTrigger()),
		DeliveryCreatedAt: fromUnixMilli(m.GetDeliveryCreatedAtUnixMs()),
		Number:            m.GetNumber(),
		Try:               m.GetTry(),
		Duration:          micros(m.GetDurationUs()),
		Phases: webhook.Phases{
			DNS: micros(m.GetDnsUs()), Connect: micros(m.GetConnectUs()), TLS: micros(m.GetTlsUs()), FirstByte: micros(m.GetFirstByteUs()),
		},
		StatusCode:    int(m.GetStatusCode()),
		Error:         webhook.ErrorClass(m.GetError()),
		Response:      m.GetResponse(),
		RequestBytes:  int(m.GetRequestBytes()),
		ResponseBytes: int(m.GetResponseBytes()),
		Outcome: webhook.Outcome{
			Status: webhook.Status(m.GetStatus()), Reason: webhook.Reason(m.GetReason()),
			NextAttemptAt: fromUnixMilli(m.GetNextAttemptAtUnixMs()), DisableSubscription: m.GetDisableSubscription(), Uncounted: m.GetUncounted(),
		},
		TraceParent: m.GetTraceparent(),
	}
	if us := m.GetStartedAtUnixUs(); us != 0 {
		a.StartedAt = time.UnixMicro(us).UTC()
	}
	return a, nil
}
