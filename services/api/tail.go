package api

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/httpapi"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// tailItems bounds an answer. Where more has happened, the next call goes on from there.
const tailItems = 500

type tailInput struct {
	Cursor         string `query:"cursor" maxLength:"8192" doc:"The nextCursor of the call before. Left out: from now on."`
	Wait           int    `query:"wait" minimum:"0" maximum:"10" default:"10" doc:"Seconds to wait for the first attempt."`
	SubscriptionID string `query:"subscriptionId" maxLength:"64"`
	EventType      string `query:"eventType" maxLength:"255"`
	Status         string `query:"status" enum:"PENDING,DELIVERED,DEAD_LETTER,CANCELLED" doc:"Of the delivery after the attempt."`
}

type tailedAttemptView struct {
	AttemptView
	DeliveryID     string `json:"deliveryId"`
	EventID        string `json:"eventId"`
	EventType      string `json:"eventType"`
	SubscriptionID string `json:"subscriptionId"`
}

func (s *Service) registerTail(a huma.API) {
	route(s, a, huma.Operation{OperationID: "tail-attempts", Method: http.MethodGet, Path: "/attempts/tail", Tags: []string{"Deliveries"},
		Summary:     "Follow attempts as they are made",
		Description: "Answers when something has happened, or after wait seconds. Asking again with nextCursor misses nothing and repeats nothing. Decisions made without a request have the number 0."},
		webhook.PermissionAuditRead, s.tailAttempts)
}

// tailAttempts reads the attempts topic itself: what it shows has been decided, whether or not the audit has it yet.
func (s *Service) tailAttempts(ctx context.Context, who caller, in *tailInput) (*pageOutput[tailedAttemptView], error) {
	t := &tail{topic: s.deps.Kafka.Topics.Attempts, wanted: in.matches(who.Tenant)}
	var err error
	if in.Cursor != "" {
		if t.next, err = readPlaces(in.Cursor); err != nil {
			return nil, badCursor()
		}
	} else if t.next, err = s.journal.Ends(ctx, t.topic); err != nil {
		return nil, noKafka()
	}
	cl, err := s.deps.Kafka.Client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{t.topic: t.offsets()}))
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	t.follow(ctx, cl, time.Duration(in.Wait)*time.Second)
	cursor := t.cursor()
	return &pageOutput[tailedAttemptView]{Body: pageView[tailedAttemptView]{Items: t.items, NextCursor: &cursor}}, nil
}

func badCursor() error {
	return invalid(http.StatusUnprocessableEntity, []httpapi.FieldError{{Parameter: "cursor", Code: "bad_cursor", Detail: "cursor: not one that this list returned"}})
}

func (in *tailInput) matches(tenant string) func(*webhook.Attempt) bool {
	return func(a *webhook.Attempt) bool {
		return a.Tenant == tenant && (in.SubscriptionID == "" || a.SubscriptionID == in.SubscriptionID) &&
			(in.EventType == "" || a.EventType == in.EventType) && (in.Status == "" || string(a.Outcome.Status) == in.Status)
	}
}

// tail collects what is wanted of the records from next on.
type tail struct {
	topic  string
	next   map[int32]int64
	wanted func(*webhook.Attempt) bool
	items  []tailedAttemptView
}

// follow returns with the first records that have something wanted, or after a time. A broker that does not answer looks like
// nothing having happened: the caller asks again.
func (t *tail) follow(ctx context.Context, cl *kgo.Client, wait time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	t.items = []tailedAttemptView{}
	for len(t.items) == 0 && ctx.Err() == nil {
		cl.PollRecords(ctx, tailItems).EachRecord(t.take)
	}
}

func (t *tail) take(r *kgo.Record) {
	t.next[r.Partition] = r.Offset + 1
	a, err := wire.DecodeAttempt(r.Value)
	if err != nil || !t.wanted(a) { // what cannot be read is the recorder's to reject
		return
	}
	t.items = append(t.items, tailedAttemptView{
		AttemptView: viewAttempt(a), DeliveryID: a.DeliveryID.String(), EventID: a.EventID, EventType: a.EventType, SubscriptionID: a.SubscriptionID,
	})
}

func (t *tail) offsets() map[int32]kgo.Offset {
	offsets := make(map[int32]kgo.Offset, len(t.next))
	for partition, next := range t.next {
		offsets[partition] = kgo.NewOffset().At(next)
	}
	return offsets
}

// cursor is a list of partitions and offsets.
func (t *tail) cursor() string {
	var b []byte
	for partition, next := range t.next {
		b = binary.AppendUvarint(binary.AppendUvarint(b, uint64(partition)), uint64(next))
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func readPlaces(cursor string) (map[int32]int64, error) {
	b, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return nil, err
	}
	places := map[int32]int64{}
	for len(b) > 0 {
		partition, n := binary.Uvarint(b)
		if n <= 0 || partition > 1<<20 {
			return nil, fmt.Errorf("partition %d", partition)
		}
		next, m := binary.Uvarint(b[n:])
		if m <= 0 || next > 1<<62 {
			return nil, fmt.Errorf("offset %d", next)
		}
		places[int32(partition)] = int64(next)
		b = b[n+m:]
	}
	return places, nil
}
