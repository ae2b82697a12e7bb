package recorder

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
)

// patience bounds one call of the database or of Kafka.
const patience = 30 * time.Second

// write writes batches in their order until there are no more. It returns an error where one cannot be written because the
// database lost what comes before it, and nil when the work's time is over.
func (ss *session) write(batches <-chan *batch) error {
	for b := range batches {
		err := ss.writeBatch(b)
		if ss.work.Err() != nil && err != nil {
			ss.deps.Log.WarnContext(ss.work, "stopped with records that are not written; they will be read again", "records", b.records)
			return nil
		}
		if err != nil {
			return err
		}
		ss.wrote(b)
		ss.count(b)
	}
	return nil
}

// writeBatch does what the records ask for, then writes them with their offsets. Whatever it does it may do again.
func (ss *session) writeBatch(b *batch) error {
	if err := ss.rejectAll(b.unreadable); err != nil {
		return err
	}
	if err := ss.persist(ss.work, "read tenants", func(ctx context.Context) error { return ss.ofTenants(ctx, b) }); err != nil {
		return err
	}
	if err := ss.judge(b); err != nil {
		return err
	}
	for {
		err := ss.persist(ss.work, "record", func(ctx context.Context) error { return ss.deps.Store.Record(ctx, &b.Batch) })
		var refused *store.RefusedError
		if !errors.As(err, &refused) {
			return err
		}
		if err := ss.rejectAll(b.without(refused.Rows)); err != nil {
			return err
		}
	}
}

// ofTenants leaves out the events of tenants that do not exist: the router has rejected them.
func (ss *session) ofTenants(ctx context.Context, b *batch) error {
	unknown := map[string]error{}
	refused := map[int]error{}
	for i := range b.Events {
		tenant := b.Events[i].Tenant
		if ss.tenants[tenant] {
			continue
		}
		if _, asked := unknown[tenant]; !asked {
			_, err := ss.deps.Store.Tenant(ctx, tenant)
			if err == nil {
				ss.tenants[tenant] = true
				continue
			}
			if !errors.Is(err, store.ErrNotFound) {
				return err
			}
			unknown[tenant] = err
		}
		refused[i] = unknown[tenant]
	}
	b.Events, b.eventOf = keep(b.Events, b.eventOf, refused, map[*kgo.Record]error{})
	return nil
}

func (ss *session) rejectAll(rejections []rejection) error {
	if len(rejections) == 0 {
		return nil
	}
	return ss.persist(ss.work, "reject", func(ctx context.Context) error { return ss.reject(ctx, rejections) })
}

// persist calls f until it succeeds, or its error is one that trying again does not change, or ctx ends. It says in the log
// why it waits, at once and then every minute, and readiness is unmet meanwhile.
func (ss *session) persist(ctx context.Context, doing string, f func(ctx context.Context) error) error {
	const shortest, longest = 100 * time.Millisecond, 5 * time.Second
	var quiet run.Throttle
	waited := false
	for pause := shortest; ; pause = min(2*pause, longest) {
		bounded, cancel := context.WithTimeout(ctx, patience)
		err := f(bounded)
		cancel()
		switch {
		case err == nil:
			if waited {
				ss.deps.Log.InfoContext(ctx, "the recorder goes on", "doing", doing)
			}
			ss.writing.Set(nil)
			return nil
		case errors.Is(err, store.ErrGap), errors.As(err, new(*store.RefusedError)):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
		ss.writing.Set(err)
		if waited = true; quiet.Allow() {
			ss.deps.Log.WarnContext(ctx, "the recorder waits", "doing", doing, "error", err)
		}
		run.Pause(ctx, pause/2+rand.N(pause))
	}
}

// count measures what a written batch has brought. A delivery ends with exactly one attempt record, which is about a
// request or a decision without one.
func (ss *session) count(b *batch) {
	m := ss.deps.Metrics
	for table, rows := range map[store.Table]int{
		store.TableDeliveries: len(b.Deliveries), store.TableAttempts: len(b.Attempts), store.TableEvents: len(b.Events),
	} {
		m.RecorderRows.Add(ss.work, int64(rows), telemetry.Label("table", string(table)))
	}
	ended := map[webhook.Status]int64{}
	for i := range b.Attempts {
		if status := b.Attempts[i].Outcome.Status; status.Rank() > webhook.Pending.Rank() {
			ended[status]++
		}
	}
	for status, n := range ended {
		m.Deliveries.Add(ss.work, n, telemetry.Label("status", string(status)))
	}
	m.RecorderLag.Record(ss.work, time.Since(b.newest).Seconds())
}
