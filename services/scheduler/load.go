package scheduler

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/webhook"
)

// load finds the deliveries of claimed retries, in their order: from memory, else from Kafka by offset, else further on in the
// log. While Kafka is away it tries again; it fails only when the drain timeout has passed.
func (s *Service) load(sh *shard, entries []retryqueue.Entry) ([]*flight, error) {
	if err := s.loading.Acquire(s.work, 1); err != nil {
		return nil, err
	}
	defer s.loading.Release(1)
	values := make(map[webhook.Trip][]byte, len(entries))
	var absent []retryqueue.Entry
	for _, e := range entries {
		if value, ok := s.cache.take(e.Trip, e.Offset); ok {
			values[e.Trip] = value
		} else {
			absent = append(absent, e)
		}
	}
	for wait := retryFirst; len(absent) > 0; wait = min(2*wait, retryMost) {
		left, err := s.fetch(sh, absent, values)
		s.kafka.report(s.work, sh.asker("read"), err)
		if err == nil {
			break
		}
		absent = left
		if !run.Pause(s.work, wait) {
			return nil, s.work.Err()
		}
	}
	return flightsOf(sh, entries, values), nil
}

// flightsOf pairs entries with their values. An entry without a value has its tombstone, or has been given up: it is
// only to be marked.
func flightsOf(sh *shard, entries []retryqueue.Entry, values map[webhook.Trip][]byte) []*flight {
	flights := make([]*flight, 0, len(entries))
	for _, e := range entries {
		flights = append(flights, &flight{shard: sh, entry: e, value: values[e.Trip]})
	}
	return flights
}

// fetch adds the values of entries that are in Kafka. It returns those it did not get to.
func (s *Service) fetch(sh *shard, entries []retryqueue.Entry, values map[webhook.Trip][]byte) ([]retryqueue.Entry, error) {
	sorted := slices.Clone(entries)
	slices.SortFunc(sorted, func(a, b retryqueue.Entry) int { return int(min(max(a.Offset-b.Offset, -1), 1)) })
	offsets := make([]int64, 0, len(sorted))
	for _, e := range sorted {
		if n := len(offsets); n == 0 || offsets[n-1] != e.Offset {
			offsets = append(offsets, e.Offset)
		}
	}
	found, err := s.reader.read(s.work, sh.partition, offsets)
	if err != nil {
		return entries, err
	}
	var missing []retryqueue.Entry
	for _, e := range sorted {
		if record := found[e.Offset]; record != nil && string(record.Key) == e.Trip.String() && record.Value != nil {
			values[e.Trip] = record.Value
		} else {
			missing = append(missing, e)
		}
	}
	if len(missing) == 0 {
		return nil, nil
	}
	return missing, s.search(s.work, sh, missing, values)
}

// search looks for records that are not where the index says, further on in the log: compaction removes the older of two
// records of one trip. It raises an alarm, because a pointer that follows the newest record makes it rare. Where the
// log has neither a record nor a tombstone, the retry cannot be fired by anybody, and goes to the rejected topic.
func (s *Service) search(ctx context.Context, sh *shard, missing []retryqueue.Entry, values map[webhook.Trip][]byte) error {
	s.log.ErrorContext(ctx, "records are not where the timer index says: searching", "partition", sh.partition, "records", len(missing), "from", missing[0].Offset)
	wanted := make(map[string]retryqueue.Entry, len(missing))
	for _, e := range missing {
		wanted[e.Trip.String()] = e
	}
	extents, err := s.extents(ctx)
	if err != nil {
		return err
	}
	log, ok := extents[sh.partition]
	if end := sh.at().next; !ok || log.end < end {
		return fmt.Errorf("search %d: the log ends before offset %d, which has been read", sh.partition, end)
	}
	for next := max(missing[0].Offset, log.start); next < log.end && len(wanted) > 0; {
		records, after, err := s.reader.fetch(ctx, sh.partition, next, largeFetch)
		if err != nil {
			return err
		}
		if after <= next {
			return fmt.Errorf("search %d: nothing to read at offset %d of %d", sh.partition, next, log.end)
		}
		for _, record := range records {
			e, ok := wanted[string(record.Key)]
			if _, _, err := readRetry(record, s.longest, time.Now()); ok && err == nil {
				values[e.Trip] = record.Value // nil for a tombstone: only to be marked
				delete(wanted, string(record.Key))
			}
		}
		next = after
	}
	return s.giveUp(ctx, sh, wanted)
}

func (s *Service) giveUp(ctx context.Context, sh *shard, lost map[string]retryqueue.Entry) error {
	for key, e := range lost {
		record := &kgo.Record{Topic: s.deps.Kafka.Topics.Retries, Partition: sh.partition, Offset: e.Offset, Key: []byte(key)}
		why := unreadable{reasonMissing, fmt.Errorf("trip %s waits, and the log has no record of it", key)}
		if err := s.writeRejected(ctx, record, why); err != nil {
			return err
		}
	}
	return nil
}
