// Package journal reads records of topics by their places, without being a consumer of them, and writes records. The control plane
// tells by it what is in no database.
package journal

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/offset"
	"github.com/hookline/hookline/pkg/webhook"
)

// ErrClosed: no client is in use.
var ErrClosed = errors.New("the service is not running")

// Journal is the records of a cluster. Its methods may be called concurrently, and block until Kafka has answered or the context ends.
type Journal struct {
	cluster *kafka.Cluster
	client  atomic.Pointer[kgo.Client]
}

// New makes a journal that cannot be asked yet.
func New(cluster *kafka.Cluster) *Journal { return &Journal{cluster: cluster} }

// Use asks by a client from now on, which stays its owner's to close. It returns the one before; nil is none.
func (j *Journal) Use(client *kgo.Client) *kgo.Client { return j.client.Swap(client) }

// Write writes records in order and waits until all in-sync replicas have them. On an error some may have been written.
func (j *Journal) Write(ctx context.Context, records ...*kgo.Record) (kgo.ProduceResults, error) {
	client := j.client.Load()
	if client == nil {
		return nil, ErrClosed
	}
	results := client.ProduceSync(ctx, records...)
	return results, results.FirstErr()
}

// Ends are the next offsets of a topic's partitions.
func (j *Journal) Ends(ctx context.Context, topic string) (map[int32]int64, error) {
	return j.offsets(func(admin *kadm.Client) (kadm.ListedOffsets, error) { return admin.ListEndOffsets(ctx, topic) })
}

// Starts are the first offsets of a topic's partitions that are kept.
func (j *Journal) Starts(ctx context.Context, topic string) (map[int32]int64, error) {
	return j.offsets(func(admin *kadm.Client) (kadm.ListedOffsets, error) { return admin.ListStartOffsets(ctx, topic) })
}

// At are the offsets of a topic's partitions at which a moment begins.
func (j *Journal) At(ctx context.Context, topic string, moment time.Time) (map[int32]int64, error) {
	return j.offsets(func(admin *kadm.Client) (kadm.ListedOffsets, error) {
		return admin.ListOffsetsAfterMilli(ctx, moment.UnixMilli(), topic)
	})
}

// Standings are how far the delivery workers have come, by partition of the deliveries topic: see [kafka.Cluster.Standings].
func (j *Journal) Standings(ctx context.Context) (map[int32]offset.Standing, error) {
	client := j.client.Load()
	if client == nil {
		return nil, ErrClosed
	}
	return j.cluster.Standings(ctx, client)
}

func (j *Journal) offsets(list func(*kadm.Client) (kadm.ListedOffsets, error)) (map[int32]int64, error) {
	client := j.client.Load()
	if client == nil {
		return nil, ErrClosed
	}
	listed, err := list(kadm.NewClient(client))
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("list offsets: %w", err)
	}
	offsets := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { offsets[o.Partition] = o.Offset })
	return offsets, nil
}

// Record is the record at a place; nil where Kafka does not keep it, or does not have it yet.
func (j *Journal) Record(ctx context.Context, at webhook.Position) (found *kgo.Record, err error) {
	starts, err := j.Starts(ctx, at.Topic)
	if err != nil {
		return nil, err
	}
	ends, err := j.Ends(ctx, at.Topic)
	if err != nil {
		return nil, err
	}
	start, known := starts[at.Partition]
	if !known || at.Offset < start || at.Offset >= ends[at.Partition] {
		return nil, nil
	}
	err = j.Range(ctx, at.Topic, at.Partition, at.Offset, at.Offset+1, func(r *kgo.Record) {
		if r.Offset == at.Offset {
			found = r
		}
	})
	return found, err
}

// Range hands out the records of a partition from one offset to before another; what has been deleted is left out.
func (j *Journal) Range(ctx context.Context, topic string, partition int32, from, to int64, take func(*kgo.Record)) error {
	if from >= to {
		return nil
	}
	cl, err := j.cluster.Client(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(from)}}),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		return err
	}
	defer cl.Close()
	for next := from; next < to; {
		fetches := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		before := next
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset < to {
				take(r)
			}
			next = r.Offset + 1
		})
		if next == before {
			// Nothing is left of the range where the partition now begins behind it.
			starts, err := j.Starts(ctx, topic)
			if err != nil || starts[partition] >= to {
				return err
			}
		}
	}
	return nil
}
