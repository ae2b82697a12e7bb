package scheduler

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/pkg/wire"
)

// command writes what the control plane writes.
func (r *rig) command(reason webhook.Reason, trips ...webhook.Trip) {
	r.t.Helper()
	for _, t := range trips {
		retry := retryOf(webhook.Command(t.Delivery, t.Generation), 0)
		retry.Reason = reason
		r.must(r.client.ProduceSync(context.Background(), r.record(retry)).FirstErr())
	}
}

// cancellations counts what the audit is told.
func (r *rig) cancellations() map[webhook.Trip]int {
	count := map[webhook.Trip]int{}
	r.eachRecord(r.cluster.Topics.Attempts, func(record *kgo.Record) {
		attempt, err := wire.DecodeAttempt(record.Value)
		r.must(err)
		if attempt.Outcome.Status == webhook.Cancelled && string(record.Key) == attempt.SubscriptionID {
			count[webhook.Trip{Delivery: attempt.DeliveryID, Number: 1}]++
		}
	})
	return count
}

func TestWhatIsAskedForNowFiresAtOnceAndOnlyOnce(t *testing.T) {
	whileRunning(t, func(r *rig, _ *process) {
		r.retry(2*time.Hour, tripsTo(0, 20)...)
		r.after(time.Minute)
		r.command(webhook.ReasonManual, tripsTo(0, 10)...)
		r.command(webhook.ReasonManual, tripsTo(0, 10)...)
		r.after(time.Second)
		r.want(1, 1, tripsTo(0, 10)...)
		r.want(0, 0, tripsTo(10, 20)...)
		r.redis.FlushAll()
		r.after(3 * time.Hour)
		r.want(1, 1, tripsTo(0, 20)...)
	})
}

func TestWhatIsCancelledDoesNotFireAndTheAuditIsTold(t *testing.T) {
	whileRunning(t, func(r *rig, _ *process) {
		r.retry(2*time.Hour, tripsTo(0, 20)...)
		r.after(time.Minute)
		r.command(webhook.ReasonCancelled, tripsTo(0, 10)...)
		r.command(webhook.ReasonCancelled, tripsTo(0, 10)...)
		r.command(webhook.ReasonManual, tripsTo(0, 10)...)
		r.command(webhook.ReasonCancelled, trip(100)) // nothing of it waits
		r.after(time.Second)
		r.redis.FlushAll()
		r.after(3 * time.Hour)
		r.want(0, 0, tripsTo(0, 10)...)
		r.want(1, 1, tripsTo(10, 20)...)
		told := r.cancellations()
		if len(told) != 10 {
			t.Errorf("the audit was told of %v", told)
		}
		if keys := len(r.save()); keys > partitions {
			t.Errorf("Redis keeps %d keys for nothing", keys)
		}
	})
}

// Another generation of the same delivery, and a trip on its way, are not what a command is about.
func TestACommandIsAboutWhatWaitsOfItsGeneration(t *testing.T) {
	whileRunning(t, func(r *rig, _ *process) {
		again := trip(1)
		again.Generation = 1
		r.retry(time.Hour, trip(1), again)
		r.retry(10*time.Second, trip(2))
		blocked := r.blockProduce(r.cluster.Topics.Deliveries)
		r.after(15 * time.Second)
		r.command(webhook.ReasonCancelled, trip(1), trip(2))
		r.after(time.Second)
		blocked.Remove()
		r.after(2 * time.Hour)
		r.want(0, 0, trip(1))
		r.want(1, 1, again, trip(2))
		if told := r.cancellations(); len(told) != 1 || told[trip(1)] == 0 {
			t.Errorf("the audit was told of %v", told)
		}
	})
}

func TestACommandOutlivesTheLossOfTheIndexAndOfItsScheduler(t *testing.T) {
	whileRunning(t, func(r *rig, p *process) {
		r.retry(2*time.Hour, tripsTo(0, 20)...)
		r.after(time.Minute)
		p.redis.set(true)
		r.command(webhook.ReasonCancelled, tripsTo(0, 10)...)
		r.after(10 * time.Second)
		p.kill()
		r.redis.FlushAll()
		r.start()
		r.after(3 * time.Hour)
		r.want(0, 0, tripsTo(0, 10)...)
		r.want(1, 1, tripsTo(10, 20)...)
	})
}
