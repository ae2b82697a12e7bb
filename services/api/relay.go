package api

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/run"
)

// relay publishes the outbox to the config topic: under the one lock that all processes share, oldest first, and a row
// is deleted only after Kafka has it. Dying between the two publishes it again, and the last record of a key is
// the same as before, so nothing is lost and readers end in the same state.
type relay struct {
	outbox  Outbox
	publish func(context.Context, ...*kgo.Record) (kgo.ProduceResults, error)
	topic   string
	poll    time.Duration
	wake    chan struct{} // holds one signal
	log     *slog.Logger
}

// relayBatch bounds what one produce holds in memory.
const relayBatch = 500

// changed wakes the relay: this process has written to the outbox. It does not block.
func (r *relay) changed() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run publishes until stop ends, and then once more what there is. What it has begun it finishes, within work: a batch
// that is cut off between Kafka and the database is published twice. Errors are retried until stop.
func (r *relay) run(stop, work context.Context) {
	var quiet run.Throttle
	for stop.Err() == nil {
		if err := r.flush(work); err != nil && quiet.Allow() {
			r.log.WarnContext(work, "changes are not published yet", "error", err)
		}
		select {
		case <-stop.Done():
		case <-r.wake:
		case <-time.After(r.poll):
		}
	}
	if err := r.flush(work); err != nil {
		r.log.WarnContext(work, "changes are left for the next process to publish", "error", err)
	}
}

// flush publishes everything there is now, unless another process is doing so.
func (r *relay) flush(ctx context.Context) error {
	_, err := r.outbox.OutboxLock(ctx, func(ctx context.Context) error {
		for {
			n, err := r.batch(ctx)
			if err != nil || n < relayBatch {
				return err
			}
		}
	})
	if err != nil {
		return fmt.Errorf("relay outbox: %w", err)
	}
	return nil
}

// batch publishes the oldest rows and says how many there were. Where Kafka took only some, the unbroken beginning of
// them is done.
func (r *relay) batch(ctx context.Context) (int, error) {
	rows, err := r.outbox.Outbox(ctx, relayBatch)
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	records := make([]*kgo.Record, len(rows))
	for i, row := range rows {
		records[i] = &kgo.Record{Topic: r.topic, Key: []byte(row.Key), Value: row.Value}
	}
	results, produceErr := r.publish(ctx, records...)
	failed := make(map[*kgo.Record]bool)
	for _, result := range results {
		if result.Err != nil {
			failed[result.Record] = true
		}
	}
	done := 0
	for done < len(records) && len(results) > 0 && !failed[records[done]] {
		done++
	}
	if done > 0 {
		if err := r.outbox.Published(ctx, rows[done-1].ID); err != nil {
			return 0, err
		}
	}
	if produceErr != nil {
		return 0, fmt.Errorf("publish to %s: %w", r.topic, produceErr)
	}
	return len(rows), nil
}
