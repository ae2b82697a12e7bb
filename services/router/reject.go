package router

import (
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/pkg/topic"
)

const (
	// cutTo is how much is kept of a value that is too large.
	cutTo = 64 << 10
	// maxKept bounds key, value and headers together: a rejected record must fit wherever the original did.
	maxKept = 2 << 20
)

// reject sends a record that is no event to the rejected topic. Its passage is settled with the others'.
func (ss *session) reject(p *passage) {
	ss.sendRejected(p, false)
	ss.sent = append(ss.sent, p)
}

func (ss *session) sendRejected(p *passage, cut bool) {
	ss.flight.begin(1)
	ss.produce(p, rejection(ss.topics.Rejected, p.record, p.refused, cut))
}

// rejection is the original with its reason. A value that is too large is cut; where the original is beyond all bounds, or
// cut asks for it, its key is cut too and its headers go.
func rejection(to string, r *kgo.Record, why *event.Error, cut bool) *kgo.Record {
	key, value, headers := r.Key, r.Value, r.Headers
	if len(value) > event.MaxSize {
		value = value[:cutTo]
	}
	size := len(key) + len(value)
	for _, h := range headers {
		size += len(h.Key) + len(h.Value)
	}
	if size > maxKept || cut {
		key, value, headers = key[:min(len(key), cutTo)], value[:min(len(value), cutTo)], nil
	}
	headers = append(headers[:len(headers):len(headers)],
		kgo.RecordHeader{Key: topic.HeaderReason, Value: []byte(why.Code)},
		kgo.RecordHeader{Key: topic.HeaderDetail, Value: []byte(detail(why))},
		kgo.RecordHeader{Key: topic.HeaderSourceTopic, Value: []byte(r.Topic)},
		kgo.RecordHeader{Key: topic.HeaderSourcePartition, Value: strconv.AppendInt(nil, int64(r.Partition), 10)},
		kgo.RecordHeader{Key: topic.HeaderSourceOffset, Value: strconv.AppendInt(nil, r.Offset, 10)},
	)
	return &kgo.Record{Topic: to, Key: key, Value: value, Headers: headers}
}

func detail(why *event.Error) string {
	if why.Pointer == "" {
		return why.Detail
	}
	return why.Pointer + ": " + why.Detail
}
