package wire

import (
	"fmt"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/hookline/hookline/pkg/webhook"
	hooklinev1 "github.com/hookline/hookline/proto/hookline/v1"
)

// EncodeAttempt makes the value of an attempts record.
func EncodeAttempt(a *webhook.Attempt) []byte {
	m := &hooklinev1.Attempt{
		AttemptId:               a.ID[:],
		DeliveryId:              a.DeliveryID[:],
		Generation:              a.Generation,
		Tenant:                  a.Tenant,
		EventId:                 a.EventID,
		EventType:               a.EventType,
		SubscriptionId:          a.SubscriptionID,
		Profile:                 a.Profile,
		ProfileVersion:          a.ProfileVersion,
		Trigger:                 string(a.Trigger),
		DeliveryCreatedAtUnixMs: unixMilli(a.DeliveryCreatedAt),
		Number:                  a.Number,
		Try:                     a.Try,
		DurationUs:              a.Duration.Microseconds(),
		DnsUs:                   a.Phases.DNS.Microseconds(),
		ConnectUs:               a.Phases.Connect.Microseconds(),
		TlsUs:                   a.Phases.TLS.Microseconds(),
		FirstByteUs:             a.Phases.FirstByte.Microseconds(),
		StatusCode:              int32(a.StatusCode),
		Error:                   string(a.Error),
		Response:                a.Response,
		RequestBytes:            int64(a.RequestBytes),
		ResponseBytes:           int64(a.ResponseBytes),
		Status:                  string(a.Outcome.Status),
		Reason:                  string(a.Outcome.Reason),
		NextAttemptAtUnixMs:     unixMilli(a.Outcome.NextAttemptAt),
		DisableSubscription:     a.Outcome.DisableSubscription,
		Traceparent:             a.TraceParent,
		Uncounted:               a.Outcome.Uncounted,
	}
	if !a.StartedAt.IsZero() {
		m.StartedAtUnixUs = a.StartedAt.UnixMicro()
	}
	return marshal(m)
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
