package kafka

import (
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/topic"
)

const (
	// rejectedWhole is the largest value that is kept whole; of a larger one rejectedCut bytes are kept.
	rejectedWhole = 1 << 20
	rejectedCut   = 64 << 10
	// rejectedMax bounds key, value and headers together, so that a rejected record fits wherever the original did.
	rejectedMax    = 2 << 20
	rejectedDetail = 1 << 10
)

// Rejected is the record for the rejected topic: the original with a stable reason, what is wrong in words, and where it
// was. A value over 1 MiB is cut to 64 KiB. Where the original is beyond all bounds its key is cut too and its headers go.
func (c *Cluster) Rejected(r *kgo.Record, reason, detail string) *kgo.Record {
	key, value, headers := r.Key, r.Value, r.Headers
	if len(value) > rejectedWhole {
		value = value[:rejectedCut]
	}
	size := len(key) + len(value)
	for _, h := range headers {
		size += len(h.Key) + len(h.Value)
	}
	if size > rejectedMax {
		key, value, headers = cut(key), cut(value), nil
	}
	header := func(key, value string) kgo.RecordHeader { return kgo.RecordHeader{Key: key, Value: []byte(value)} }
	return &kgo.Record{Topic: c.Topics.Rejected, Key: key, Value: value, Headers: append(headers[:len(headers):len(headers)],
		header(topic.HeaderReason, reason),
		header(topic.HeaderDetail, detail[:min(len(detail), rejectedDetail)]),
		header(topic.HeaderSourceTopic, r.Topic),
		header(topic.HeaderSourcePartition, strconv.Itoa(int(r.Partition))),
		header(topic.HeaderSourceOffset, strconv.FormatInt(r.Offset, 10)),
	)}
}

// CutRejected is a rejected record that a broker has refused for its size, without what the original had in its headers.
func CutRejected(r *kgo.Record) *kgo.Record {
	const own = 5 // headers of Rejected
	return &kgo.Record{Topic: r.Topic, Key: cut(r.Key), Value: cut(r.Value), Headers: r.Headers[max(0, len(r.Headers)-own):]}
}

func cut(b []byte) []byte { return b[:min(len(b), rejectedCut)] }
