package retryqueue

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/hookline/hookline/pkg/webhook"
)

// Stats is what a partition's index says about itself.
type Stats struct {
	// Now is Redis's clock.
	Now     time.Time
	Waiting int64
	// First is the earliest due time, or the end of a lease; zero where nothing waits.
	First time.Time
	// Offset is how far the topic has been applied, or [None].
	Offset int64
}

// Overdue is how long the oldest due trip has waited beyond its time; 0 where nothing is due.
func (s Stats) Overdue() time.Duration { return overdue(s.Now, s.First) }

// Overdue is how long the oldest due trip that was not claimed has waited beyond its time; 0 where nothing more is due.
func (c Claim) Overdue() time.Duration { return overdue(c.Now, c.Next) }

func overdue(now, first time.Time) time.Duration {
	if first.IsZero() || first.After(now) {
		return 0
	}
	return now.Sub(first)
}

// Stats looks at one partition.
func (x *Index) Stats(ctx context.Context, partition int32) (Stats, error) {
	values, err := statsScript.Run(ctx, x.client, []string{x.dueKey(partition), x.offKey(partition)}).Slice()
	if err != nil {
		return Stats{}, fmt.Errorf("look at timer index %d: %w", partition, err)
	}
	r := replyOf(values)
	stats := Stats{Now: time.UnixMilli(r.int(0)), Waiting: r.int(1), First: r.time(2)}
	if stats.Offset, err = parseOffset(r.text(3)); err != nil {
		return Stats{}, err
	}
	return stats, r.failed("look at", partition)
}

// Histogram counts the trips of a partition that are due up to each bound after now, those of the bounds before it not
// counted again, and last those due after every bound. The bounds ascend. Leased trips count where their lease ends.
func (x *Index) Histogram(ctx context.Context, partition int32, now time.Time, bounds []time.Duration) ([]int64, error) {
	pipe := x.client.Pipeline()
	counts := make([]*redis.IntCmd, 0, len(bounds)+1)
	from := "-inf"
	for _, bound := range bounds {
		to := strconv.FormatInt(now.Add(bound).UnixMilli(), 10)
		counts = append(counts, pipe.ZCount(ctx, x.dueKey(partition), from, to))
		from = "(" + to
	}
	counts = append(counts, pipe.ZCount(ctx, x.dueKey(partition), from, "+inf"))
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("count due times in timer index %d: %w", partition, err)
	}
	histogram := make([]int64, len(counts))
	for i, count := range counts {
		histogram[i] = count.Val()
	}
	return histogram, nil
}

// Waiting is one trip in the index.
type Waiting struct {
	Trip webhook.Trip
	// Due is when it is due, or when its lease ends.
	Due time.Time
	// Offset is where its record is, or [None] if it was removed while the list was read; Lane is then 0.
	Offset int64
	Lane   uint16
}

// List reads a partition in the order of due times, from a rank on. It is a look, not a snapshot: what fires meanwhile
// shifts the ranks.
func (x *Index) List(ctx context.Context, partition int32, rank, limit int64) ([]Waiting, error) {
	scores, err := x.client.ZRangeWithScores(ctx, x.dueKey(partition), rank, rank+limit-1).Result()
	if err != nil {
		return nil, fmt.Errorf("list timer index %d: %w", partition, err)
	}
	if len(scores) == 0 {
		return nil, nil
	}
	list, members := make([]Waiting, len(scores)), make([]string, len(scores))
	for i, s := range scores {
		list[i].Due = time.UnixMilli(int64(s.Score))
		members[i], _ = s.Member.(string)
		if list[i].Trip, err = webhook.ParseCompact([]byte(members[i])); err != nil {
			return nil, fmt.Errorf("list timer index %d: %w", partition, errors.Join(ErrDamaged, err))
		}
	}
	keys, args := x.memberArgs(partition, 0, members) // nothing is under that lease
	reply, err := pointersScript.Run(ctx, x.client, keys, args...).Slice()
	if err != nil {
		return nil, fmt.Errorf("list timer index %d: %w", partition, err)
	}
	r := replyOf(reply)
	for i := range list {
		list[i].Offset = None
		if offset, lane, err := parsePointer(r.text(i)); err == nil {
			list[i].Offset, list[i].Lane = offset, lane
		}
	}
	return list, r.failed("list", partition)
}
