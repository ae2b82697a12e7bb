package ingest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/callback"
	"github.com/hookline/hookline/pkg/webhook"
)

// ledger is the callbacks topic as far as this process has read it: all of it, since a call may come in anywhere.
type ledger struct {
	book   *callback.Book
	client *kgo.Client
	topic  string

	mu      sync.Mutex
	next    map[int32]int64 // the offset behind the last one applied
	ready   map[int32]int64 // the ends to reach before anything absent is absent
	changed chan struct{}   // closed and replaced when something was applied
}

func (s *Service) openLedger(ctx context.Context) (*ledger, error) {
	name := s.deps.Kafka.Topics.Callbacks
	cl, err := s.deps.Kafka.Client(kgo.ConsumeTopics(name), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		return nil, err
	}
	l := &ledger{book: callback.NewBook(), client: cl, topic: name, next: map[int32]int64{}, changed: make(chan struct{})}
	if l.ready, err = l.ends(ctx); err != nil {
		cl.Close()
		return nil, err
	}
	return l, nil
}

// ends are the ends of the partitions that hold anything.
func (l *ledger) ends(ctx context.Context) (map[int32]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	admin := kadm.NewClient(l.client)
	starts, err := admin.ListStartOffsets(ctx, l.topic)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("find starts of callbacks: %w", err)
	}
	ends, err := admin.ListEndOffsets(ctx, l.topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("find ends of callbacks: %w", err)
	}
	out := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if start, ok := starts.Lookup(l.topic, o.Partition); ok && o.Offset > start.Offset {
			out[o.Partition] = o.Offset
		}
	})
	return out, nil
}

// read applies records until ctx ends or the client cannot go on.
func (l *ledger) read(ctx context.Context, s *Service) error {
	for {
		fetches := l.client.PollFetches(ctx)
		l.apply(ctx, s, fetches)
		var problems []error
		fetches.EachError(func(_ string, p int32, err error) {
			problems = append(problems, fmt.Errorf("fetch callbacks/%d: %w", p, err))
		})
		if err := errors.Join(append(problems, ctx.Err())...); err != nil {
			return err
		}
	}
}

func (l *ledger) apply(ctx context.Context, s *Service, fetches kgo.Fetches) {
	applied := map[int32]int64{}
	fetches.EachRecord(func(r *kgo.Record) {
		if err := l.book.Apply(r.Partition, string(r.Key), r.Value); err != nil {
			s.deps.Metrics.Rejected.Add(ctx, 1, unreadableCallback)
			s.deps.Log.ErrorContext(ctx, "callbacks record not understood", "partition", r.Partition, "offset", r.Offset, "error", err)
		}
		applied[r.Partition] = r.Offset + 1
	})
	if len(applied) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for partition, next := range applied {
		l.next[partition] = next
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// news is closed at the next change.
func (l *ledger) news() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

func (l *ledger) reached(ends map[int32]int64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for partition, end := range ends {
		if l.next[partition] < end {
			return false
		}
	}
	return true
}

// caughtUp reports whether everything that was there at the beginning has been applied.
func (l *ledger) caughtUp() bool { return l.reached(l.ready) }

// await returns once everything before the ends has been applied.
func (l *ledger) await(ctx context.Context, ends map[int32]int64) error {
	for {
		news := l.news()
		if l.reached(ends) {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// look finds what a call is about. That it is about nothing, or about what was called back already, is only sure once the book has all
// that Kafka had when the call came: the expectation of a delivery is there before the delivery is sent, but not yet read everywhere.
func (l *ledger) look(ctx context.Context, c *verifiedCall) (callback.Standing, *webhook.Expectation, error) {
	standing, x := l.book.Look(c.group, c.SubscriptionID, c.Sent, c.signed, c.At)
	if standing == callback.Open {
		return standing, x, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	ends, err := l.ends(ctx)
	if err == nil {
		err = l.await(ctx, ends)
	}
	if err != nil {
		return standing, nil, err
	}
	standing, x = l.book.Look(c.group, c.SubscriptionID, c.Sent, c.signed, c.At)
	return standing, x, nil
}
