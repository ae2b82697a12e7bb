package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// reader reads records of one topic by offset, without being a consumer. Its methods may be called concurrently.
type reader struct {
	client  *kgo.Client
	topic   string
	average atomic.Int64 // bytes of a record, as seen lately
}

const (
	smallFetch = 64 << 10
	largeFetch = 4 << 20
	// A gap between two wanted offsets is read over where that costs less than another request.
	bridged = 128 << 10
)

func newReader(client *kgo.Client, topic string) *reader {
	r := &reader{client: client, topic: topic}
	r.average.Store(1024)
	return r
}

// read returns the records at the wanted offsets; those that are not there are missing from the result. The offsets
// ascend.
func (r *reader) read(ctx context.Context, partition int32, wanted []int64) (map[int64]*kgo.Record, error) {
	found := make(map[int64]*kgo.Record, len(wanted))
	for len(wanted) > 0 {
		records, next, err := r.fetch(ctx, partition, wanted[0], r.budget(wanted))
		if errors.Is(err, kerr.OffsetOutOfRange) {
			wanted = wanted[1:]
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, record := range records {
			if _, ok := slices.BinarySearch(wanted, record.Offset); ok {
				found[record.Offset] = record
			}
		}
		done, _ := slices.BinarySearch(wanted, next)
		wanted = wanted[max(done, 1):]
	}
	return found, nil
}

// budget is how many bytes to ask for: the first of the wanted offsets, and its neighbours as far as they are near.
func (r *reader) budget(wanted []int64) int32 {
	average := max(r.average.Load(), 1)
	last := wanted[0]
	for _, offset := range wanted[1:] {
		if (offset-last)*average > bridged {
			break
		}
		last = offset
	}
	return int32(min(max((last-wanted[0]+1)*average*5/4, smallFetch), largeFetch))
}

// fetch reads from an offset on and returns the records from it, at least one unless the log ends or has only gaps, and
// the offset to go on from. It does not wait for records that are not there yet.
func (r *reader) fetch(ctx context.Context, partition int32, from int64, limit int32) ([]*kgo.Record, int64, error) {
	records, next, err := r.fetchOnce(ctx, partition, from, limit, time.Minute)
	if err != nil && !errors.Is(err, kerr.OffsetOutOfRange) && ctx.Err() == nil {
		// Another broker may lead by now.
		records, next, err = r.fetchOnce(ctx, partition, from, limit, time.Nanosecond)
	}
	if err != nil {
		return nil, from, fmt.Errorf("fetch %s/%d at %d: %w", r.topic, partition, from, err)
	}
	return records, next, nil
}

func (r *reader) fetchOnce(ctx context.Context, partition int32, from int64, limit int32, metadataAge time.Duration) ([]*kgo.Record, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	leader, id, err := r.leader(ctx, partition, metadataAge)
	if err != nil {
		return nil, from, err
	}
	request := kmsg.NewPtrFetchRequest()
	request.MaxWaitMillis, request.MinBytes, request.MaxBytes = 0, 0, limit
	request.IsolationLevel = 1
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID = r.topic, id
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition, part.FetchOffset, part.PartitionMaxBytes = partition, from, limit
	topic.Partitions = append(topic.Partitions, part)
	request.Topics = append(request.Topics, topic)
	response, err := request.RequestWith(ctx, r.client.Broker(int(leader)))
	if err != nil {
		return nil, from, err
	}
	if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
		return nil, from, err
	}
	if len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		return nil, from, errors.New("the broker answered for another partition")
	}
	fetched, next := kgo.ProcessFetchPartition(
		kgo.ProcessFetchPartitionOpts{Offset: from, IsolationLevel: kgo.ReadCommitted(), Topic: r.topic, Partition: partition},
		&response.Topics[0].Partitions[0], kgo.DefaultDecompressor(), nil)
	if fetched.Err != nil {
		return nil, from, fetched.Err
	}
	r.observe(fetched.Records)
	return fetched.Records, max(next, from), nil
}

func (r *reader) leader(ctx context.Context, partition int32, age time.Duration) (int32, [16]byte, error) {
	request := kmsg.NewPtrMetadataRequest()
	topic := kmsg.NewMetadataRequestTopic()
	topic.Topic = &r.topic
	request.Topics = append(request.Topics, topic)
	response, err := r.client.RequestCachedMetadata(ctx, request, age)
	if err != nil {
		return 0, [16]byte{}, err
	}
	for _, t := range response.Topics {
		for _, p := range t.Partitions {
			if p.Partition == partition && p.Leader >= 0 {
				return p.Leader, t.TopicID, nil
			}
		}
	}
	return 0, [16]byte{}, kerr.LeaderNotAvailable
}

func (r *reader) observe(records []*kgo.Record) {
	if len(records) == 0 {
		return
	}
	size := 0
	for _, record := range records {
		size += len(record.Key) + len(record.Value)
	}
	r.average.Store((r.average.Load()*3 + int64(size/len(records))) / 4)
}
