package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/pkg/offset"
)

// Point is a committed position of a group in a partition: the next offset to read, and what the group wrote beside it.
type Point struct {
	Offset   int64
	Metadata string
}

// OnFetched tells where a group that reads one topic stands in partitions that have come to this member, before any of
// their records is handed out. Partitions without a commit have offset -1.
func OnFetched(note func(partition int32, at Point)) kgo.Opt {
	return kgo.OnOffsetsFetched(func(_ context.Context, _ *kgo.Client, response *kmsg.OffsetFetchResponse) error {
		tell := func(partition int32, offset int64, metadata *string) {
			at := Point{Offset: offset}
			if metadata != nil {
				at.Metadata = *metadata
			}
			note(partition, at)
		}
		for _, t := range response.Topics {
			for _, p := range t.Partitions {
				tell(p.Partition, p.Offset, p.Metadata)
			}
		}
		for _, g := range response.Groups {
			for _, t := range g.Topics {
				for _, p := range t.Partitions {
					tell(p.Partition, p.Offset, p.Metadata)
				}
			}
		}
		return nil
	})
}

// Commit writes positions in a topic and calls accepted for each that Kafka has taken. The others are in the error, and
// may be committed again. It blocks until Kafka has answered or ctx ends.
func Commit(ctx context.Context, member *kgo.Client, topic string, points map[int32]Point, accepted func(partition int32, at Point)) error {
	if len(points) == 0 {
		return nil
	}
	offsets := make(map[int32]kgo.EpochOffset, len(points))
	for partition, at := range points {
		offsets[partition] = kgo.EpochOffset{Epoch: -1, Offset: at.Offset}
	}
	ctx = kgo.PreCommitFnContext(ctx, func(request *kmsg.OffsetCommitRequest) error {
		for i := range request.Topics {
			for j := range request.Topics[i].Partitions {
				p := &request.Topics[i].Partitions[j]
				metadata := points[p.Partition].Metadata
				p.Metadata = &metadata
			}
		}
		return nil
	})
	var problems []error
	member.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{topic: offsets},
		func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, response *kmsg.OffsetCommitResponse, err error) {
			if err != nil {
				problems = append(problems, err)
				return
			}
			for _, t := range response.Topics {
				for _, p := range t.Partitions {
					if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
						problems = append(problems, fmt.Errorf("partition %d: %w", p.Partition, err))
					} else {
						accepted(p.Partition, points[p.Partition])
					}
				}
			}
		})
	return errors.Join(problems...)
}

// Standings tells how far the delivery workers have come, by partition of the deliveries topic, for whoever hands them work. It is empty
// where they have never committed: then there is nothing to be seen of them. It blocks until Kafka has answered or ctx ends.
func (c *Cluster) Standings(ctx context.Context, client *kgo.Client) (map[int32]offset.Standing, error) {
	group := c.GroupID("delivery")
	response, err := kadm.NewClient(client).FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("look at group %s: %w", group, err)
	}
	standings := map[int32]offset.Standing{}
	for partition, o := range response[c.Topics.Deliveries] {
		if o.Err == nil && o.At >= 0 {
			standings[partition] = offset.StandingOf(o.At, o.Metadata)
		}
	}
	return standings, nil
}
