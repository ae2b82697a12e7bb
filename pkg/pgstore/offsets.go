package pgstore

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/hookline/hookline/pkg/store"
)

const (
	findGap = `SELECT f.topic, f.partition FROM unnest($1::text[], $2::integer[], $3::bigint[]) AS f (topic, partition, next_offset)
		LEFT JOIN consumer_offsets o ON o.topic = f.topic AND o.partition = f.partition
		WHERE o.next_offset IS NULL OR o.next_offset < f.next_offset LIMIT 1`
	moveOffsets = `INSERT INTO consumer_offsets AS o (topic, partition, next_offset)
		SELECT * FROM unnest($1::text[], $2::integer[], $3::bigint[])
		ON CONFLICT (topic, partition) DO UPDATE SET next_offset = excluded.next_offset WHERE excluded.next_offset > o.next_offset`
)

// checkOffsets refuses a batch behind which something is missing.
func checkOffsets(ctx context.Context, conn *pgx.Conn, b *store.Batch) error {
	if len(b.From) == 0 {
		return nil
	}
	topics, partitions, next := columns(b.From)
	rows, err := conn.Query(ctx, findGap, topics, partitions, next)
	if err != nil {
		return err
	}
	gaps, err := pgx.CollectRows(rows, pgx.RowToStructByPos[store.TopicPartition])
	if err != nil || len(gaps) == 0 {
		return err
	}
	return fmt.Errorf("%w: %s/%d", store.ErrGap, gaps[0].Topic, gaps[0].Partition)
}

func writeOffsets(ctx context.Context, conn *pgx.Conn, b *store.Batch) error {
	if len(b.Offsets) == 0 {
		return nil
	}
	topics, partitions, next := columns(b.Offsets)
	_, err := conn.Exec(ctx, moveOffsets, topics, partitions, next)
	return err
}

// columns are the offsets as arrays, in an order in which two recorders lock rows alike.
func columns(offsets map[store.TopicPartition]int64) (topics []string, partitions []int32, next []int64) {
	places := make([]store.TopicPartition, 0, len(offsets))
	for place := range offsets {
		places = append(places, place)
	}
	slices.SortFunc(places, func(x, y store.TopicPartition) int {
		return cmp.Or(strings.Compare(x.Topic, y.Topic), cmp.Compare(x.Partition, y.Partition))
	})
	for _, place := range places {
		topics, partitions, next = append(topics, place.Topic), append(partitions, place.Partition), append(next, offsets[place])
	}
	return topics, partitions, next
}
