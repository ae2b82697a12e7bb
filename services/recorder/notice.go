package recorder

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/webhook"
)

// kind is the type of an operational event.
type kind string

const (
	disabled     kind = "hookline.subscription.disabled"
	failing      kind = "hookline.subscription.failing"
	recovered    kind = "hookline.subscription.recovered"
	deadLettered kind = "hookline.delivery.dead_lettered"
)

// noticeSpace is the UUIDv5 name space of the ids of operational events: saying something again makes the same event.
var noticeSpace = uuid.MustParse("3f3bd0c1-6a8f-5a0e-a5b7-0c54f1a0e0d4")

// notice is something to be told by an operational event.
type notice struct {
	kind kind
	// attempt is the one that gave rise to it; nil for a disabling.
	attempt *webhook.Attempt
	at      time.Time
	since   time.Time // the start of the first failure
	count   int       // failures in a row; dead letters since the last notice
	// subscription is the one that was disabled.
	subscription *webhook.Subscription
}

// noticeData is the data of an operational event. docs/events.md describes it.
type noticeData struct {
	SubscriptionID string     `json:"subscriptionId"`
	Name           string     `json:"name,omitempty"`
	Profile        string     `json:"profile,omitempty"`
	Reason         string     `json:"reason,omitempty"`
	Since          *time.Time `json:"since,omitempty"`
	Failures       int        `json:"failures,omitempty"`
	DeadLetters    int        `json:"deadLetters,omitempty"`
	DeliveryID     string     `json:"deliveryId,omitempty"`
	EventID        string     `json:"eventId,omitempty"`
	EventType      string     `json:"eventType,omitempty"`
	Attempts       uint32     `json:"attempts,omitempty"`
	StatusCode     int        `json:"statusCode,omitempty"`
	Error          string     `json:"error,omitempty"`
}

func (n *notice) tenant() string {
	if n.attempt == nil {
		return n.subscription.Tenant
	}
	return n.attempt.Tenant
}

func (n *notice) data() noticeData {
	if n.attempt == nil {
		s := n.subscription
		return noticeData{SubscriptionID: s.ID, Name: s.Name, Profile: s.Profile, Reason: s.StatusReason, Since: &s.StatusSince}
	}
	a := n.attempt
	data := noticeData{
		SubscriptionID: a.SubscriptionID, Profile: a.Profile, DeliveryID: a.DeliveryID.String(), EventID: a.EventID, EventType: a.EventType,
		Attempts: a.Number, StatusCode: a.StatusCode, Error: string(a.Error),
	}
	if n.kind == deadLettered {
		data.Reason, data.DeadLetters = string(a.Outcome.Reason), n.count
		return data
	}
	since := n.since.UTC().Truncate(time.Millisecond)
	data.Since, data.Failures = &since, n.count
	return data
}

// id is the same whenever the same is told.
func (n *notice) id() string {
	if n.attempt == nil {
		return uuid.NewSHA1(noticeSpace, fmt.Appendf(nil, "%s/%s/%d", n.kind, n.subscription.ID, n.subscription.StatusSince.UnixMilli())).String()
	}
	return uuid.NewSHA1(noticeSpace, fmt.Appendf(nil, "%s/%s", n.kind, n.attempt.ID)).String()
}

// record is the notice as an ordinary event of its tenant.
func (n *notice) record(topic string) *kgo.Record {
	data := n.data()
	value, err := json.Marshal(struct {
		ID        string     `json:"event_id"`
		Type      kind       `json:"event_type"`
		Timestamp time.Time  `json:"event_timestamp"`
		Tenant    string     `json:"tenant"`
		Key       string     `json:"ordering_key"`
		Data      noticeData `json:"data"`
	}{n.id(), n.kind, n.at.UTC().Truncate(time.Millisecond), n.tenant(), data.SubscriptionID, data})
	if err != nil {
		panic(err) // text, times and numbers only
	}
	return &kgo.Record{Topic: topic, Key: []byte(data.SubscriptionID), Value: value}
}

// tell puts notices on the events topic, and returns once all are there.
func (ss *session) tell(ctx context.Context, notices []notice) error {
	records := make([]*kgo.Record, len(notices))
	for i := range notices {
		records[i] = notices[i].record(ss.deps.Kafka.Topics.Events)
	}
	if err := ss.cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return fmt.Errorf("produce operational events: %w", err)
	}
	return nil
}
