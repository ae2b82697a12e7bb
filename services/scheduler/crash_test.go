package scheduler

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/webhook"
)

// The numbers are those of the crash points: each test lets a scheduler die, or its Redis fail, at one of them.

func TestS1ARetryReadButNotYetInRedisIsReadAgain(t *testing.T) {
	whileRunning(t, func(r *rig, p *process) {
		p.redis.set(true)
		r.retry(10*time.Second, tripsTo(0, 100)...)
		r.after(20 * time.Second)
		p.kill()
		r.want(0, 0, tripsTo(0, 100)...)
		r.start()
		r.after(5 * time.Minute)
		r.want(1, 1, tripsTo(0, 100)...)
	})
}

func TestS2AClaimThatDiesBeforeItProducesIsClaimedAgain(t *testing.T) {
	whileRunning(t, func(r *rig, p *process) {
		r.retry(10*time.Second, tripsTo(0, 100)...)
		blocked := r.blockProduce(r.cluster.Topics.Deliveries)
		r.after(15 * time.Second)
		p.kill()
		blocked.Remove()
		r.want(0, 0, tripsTo(0, 100)...)
		r.start()
		r.after(5 * time.Minute)
		r.want(1, 1, tripsTo(0, 100)...)
	})
}

func TestS3AClaimThatDiesBeforeItsTombstoneFiresOnceMore(t *testing.T) {
	whileRunning(t, func(r *rig, p *process) {
		trips := tripsOfOne(40) // which go in one volley
		r.retry(10*time.Second, trips...)
		r.after(5 * time.Second)
		blocked := r.blockProduce(r.cluster.Topics.Retries)
		r.after(10 * time.Second)
		p.kill()
		blocked.Remove()
		r.want(1, 1, trips...)
		r.start()
		r.after(5 * time.Minute)
		r.want(2, 2, trips...)
		if n := r.tombstones(); n != len(trips) {
			t.Errorf("%d tombstones", n)
		}
	})
}

func TestS3AKilledSchedulerLeavesNoMoreThanAVolleyToBeFiredAgain(t *testing.T) {
	whileRunning(t, func(r *rig, p *process) {
		all := tripsTo(0, 1500)
		r.retry(10*time.Second, all...)
		r.after(5 * time.Second)
		blocked := r.blockProduce(r.cluster.Topics.Retries)
		r.after(10 * time.Second)
		p.kill()
		blocked.Remove()
		fired := 0
		for _, trip := range all {
			fired += len(r.times(trip))
		}
		if fired == 0 || fired > 100 {
			t.Errorf("%d were fired without a tombstone", fired)
		}
		r.start()
		r.after(5 * time.Minute)
		r.want(1, 2, all...)
	})
}

func TestS3AClaimThatDiesBeforeItsAckDoesNotFireAgain(t *testing.T) {
	whileRunning(t, func(r *rig, p *process) {
		r.retry(10*time.Second, tripsTo(0, 100)...)
		blocked := r.blockProduce(r.cluster.Topics.Deliveries)
		r.after(15 * time.Second)
		p.redis.set(true) // neither the acknowledgement nor the applied tombstone reaches Redis
		blocked.Remove()
		r.after(5 * time.Second)
		p.kill()
		r.start()
		r.after(5 * time.Minute)
		r.want(1, 1, tripsTo(0, 100)...)
	})
}

func TestS5ARedisThatWentBackInTimeIsBroughtForward(t *testing.T) {
	whileRunning(t, func(r *rig, p *process) {
		r.retry(time.Minute, tripsTo(0, 100)...)
		r.after(5 * time.Second)
		old := r.save()
		r.retry(time.Minute, tripsTo(100, 200)...)
		r.after(70 * time.Second)
		r.want(1, 1, tripsTo(0, 200)...)
		r.retry(time.Hour, tripsTo(200, 300)...)
		r.after(5 * time.Second)
		r.restore(old) // 0..99 wait again, 100..299 have never been there
		r.after(3 * time.Hour)
		r.want(1, 1, tripsTo(0, 300)...)
		if p.log.count("reason=behind") == 0 {
			t.Error("nobody noticed")
		}
	})
}

func TestS6AnEmptyRedisWhileNobodyRunsIsFilledBeforeAnythingFires(t *testing.T) {
	whileRunning(t, func(r *rig, p *process) {
		r.retry(10*time.Second, tripsTo(0, 200)...)
		r.retry(time.Hour, tripsTo(200, 400)...)
		r.after(time.Minute)
		p.end()
		r.redis.FlushAll()
		r.start()
		r.after(2 * time.Hour)
		r.want(1, 1, tripsTo(0, 400)...)
	})
}

// Redis is wiped again and again while the log is being read: what was fetched before a rewind must not be applied
// after it, or the head of the log would be skipped.
func TestS7RecordsFetchedBeforeARewindAreNotAppliedAfterIt(t *testing.T) {
	whileRunning(t, func(r *rig, _ *process) {
		for round := range 20 {
			r.retry(30*time.Minute, tripsTo(round*200, round*200+200)...)
			if round%3 == 0 {
				r.redis.FlushAll()
			}
			time.Sleep(time.Duration(round) * 7 * time.Millisecond)
		}
		r.after(time.Hour)
		r.want(1, 1, tripsTo(0, 4000)...)
	})
}

func TestS9TwoSchedulersShareThePartitions(t *testing.T) {
	whileRunning(t, func(r *rig, a *process) {
		r.retry(5*time.Minute, tripsTo(0, 500)...)
		b := r.start()
		r.after(10 * time.Minute)
		r.want(1, 1, tripsTo(0, 500)...)
		r.retry(5*time.Minute, tripsTo(500, 1000)...)
		r.after(time.Minute)
		a.end()
		r.after(10 * time.Minute)
		r.want(1, 1, tripsTo(500, 1000)...)
		r.retry(time.Minute, tripsTo(1000, 1100)...)
		r.after(10 * time.Second)
		b.kill()
		c := r.start()
		r.after(10 * time.Minute)
		r.want(1, 1, tripsTo(1000, 1100)...)
		if !c.ready() {
			t.Errorf("not ready: %v", c.health.Unmet())
		}
	})
}

// A scheduler that Kafka no longer hears still reaches Redis: it claims what its successor owns.
func TestS9AFormerOwnerLosesNothing(t *testing.T) {
	whileRunning(t, func(r *rig, a *process) {
		r.retry(3*time.Minute, tripsTo(0, 300)...)
		r.after(10 * time.Second)
		a.kafka.set(true)
		b := r.start()
		r.after(10 * time.Minute)
		r.want(1, 1, tripsTo(0, 300)...)
		a.kafka.set(false)
		r.after(10 * time.Minute)
		r.want(1, 2, tripsTo(0, 300)...)
		r.retry(time.Minute, tripsTo(300, 400)...)
		r.after(10 * time.Minute)
		r.want(1, 1, tripsTo(300, 400)...)
		if !a.ready() || !b.ready() {
			t.Errorf("not ready: %v, %v", a.health.Unmet(), b.health.Unmet())
		}
	})
}

func TestAnHourWithoutRedisOnlyDelays(t *testing.T) {
	whileRunning(t, func(r *rig, p *process) {
		r.retry(10*time.Minute, tripsTo(0, 100)...)
		r.after(10 * time.Second)
		p.redis.set(true)
		r.retry(10*time.Minute, tripsTo(100, 200)...)
		r.after(time.Hour)
		r.want(0, 0, tripsTo(0, 200)...)
		if n := p.log.count("level=WARN"); n < 55 || n > 65 {
			t.Errorf("%d warnings in an hour", n)
		}
		p.redis.set(false)
		r.after(time.Minute)
		r.want(1, 1, tripsTo(0, 200)...)
	})
}

func TestAnHourWithoutKafkaOnlyDelays(t *testing.T) {
	whileRunning(t, func(r *rig, p *process) {
		r.retry(10*time.Minute, tripsTo(0, 100)...)
		r.after(10 * time.Second)
		p.kafka.set(true)
		r.after(time.Hour)
		if p.ready() {
			t.Error("ready without Kafka")
		}
		p.kafka.set(false)
		r.after(5 * time.Minute)
		r.want(1, 1, tripsTo(0, 100)...)
		if !p.ready() {
			t.Errorf("not ready: %v", p.health.Unmet())
		}
	})
}

// A worker writes the same trip twice (it died between the two), and compaction removes the first record.
func TestS11ThePointerFollowsTheNewestRecord(t *testing.T) {
	inBubble(t, func(r *rig) {
		size := "1" // a segment for each batch: the last one is never compacted
		_, err := kadm.NewClient(r.client).AlterTopicConfigs(context.Background(), []kadm.AlterConfig{{Name: "segment.bytes", Value: &size}}, r.cluster.Topics.Retries)
		r.must(err)
		p := r.start(func(c *Config) { c.CacheBytes = 0 })
		r.after(20 * time.Second)
		for range 2 {
			r.retry(time.Hour, tripsTo(0, 50)...)
			r.after(time.Second)
		}
		r.retry(time.Hour, tripsTo(50, 80)...)
		r.after(time.Second)
		r.broker.Compact()
		left := 0
		r.eachRecord(r.cluster.Topics.Retries, func(*kgo.Record) { left++ })
		if left != 80 {
			t.Fatalf("%d records after the compaction", left)
		}
		r.after(2 * time.Hour)
		r.want(1, 1, tripsTo(0, 50)...)
		if p.log.count("records are not where") > 0 {
			t.Error("searched for what it should have known")
		}
	})
}

func TestS11ABodyThatIsNotAtItsOffsetIsSearchedFor(t *testing.T) {
	inBubble(t, func(r *rig) {
		p := r.start(func(c *Config) { c.CacheBytes = 0 })
		r.after(20 * time.Second)
		r.retry(time.Hour, tripsTo(0, 100)...)
		r.after(time.Second)
		for key, value := range r.save() {
			pointers, ok := value.(map[string]string)
			if !ok {
				continue
			}
			for member := range pointers {
				r.redis.HSet(key, member, "0") // where at most one of them is
			}
		}
		r.after(2 * time.Hour)
		r.want(1, 1, tripsTo(0, 100)...)
		if p.log.count("records are not where the timer index says") == 0 {
			t.Error("no alarm")
		}
	})
}

func TestARetryThatTheLogHasForgottenGoesToTheRejectedTopic(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.start(func(c *Config) { c.CacheBytes = 0 })
		r.after(20 * time.Second)
		r.retry(time.Hour, tripsTo(0, 30)...)
		r.after(time.Second)
		for p, info := range r.broker.PartitionInfos(r.cluster.Topics.Retries) {
			r.must(r.broker.DeleteRecords(r.cluster.Topics.Retries, int32(p), info.HighWatermark))
		}
		r.after(2 * time.Hour)
		r.want(0, 0, tripsTo(0, 30)...)
		reasons := map[string]int{}
		r.eachRecord(r.cluster.Topics.Rejected, func(record *kgo.Record) { reasons[header(record, "hookline-reason")]++ })
		if reasons[reasonMissing] != 30 {
			t.Errorf("rejected %v", reasons)
		}
		if keys := len(r.save()); keys > partitions {
			t.Errorf("Redis keeps %d keys for nothing", keys)
		}
	})
}

func header(record *kgo.Record, key string) string {
	for _, h := range record.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

func TestADamagedIndexIsBuiltAgain(t *testing.T) {
	whileRunning(t, func(r *rig, p *process) {
		r.retry(time.Hour, tripsTo(0, 100)...)
		r.after(time.Second)
		for key, value := range r.save() {
			if _, ok := value.(map[string]string); ok {
				r.redis.Del(key)
			}
		}
		r.after(2 * time.Hour)
		r.want(1, 1, tripsTo(0, 100)...)
		if p.log.count("reason=damaged") == 0 {
			t.Error("nobody noticed")
		}
	})
}

func TestRecordsThatCannotBeReadAreRejectedOnceAndHoldNothingUp(t *testing.T) {
	whileRunning(t, func(r *rig, _ *process) {
		mismatched := r.record(retryOf(trip(1), time.Minute))
		mismatched.Key = []byte(trip(2).String())
		retries := r.cluster.Topics.Retries
		bad := []*kgo.Record{
			{Topic: retries, Key: []byte("nonsense"), Value: []byte("x"), Headers: []kgo.RecordHeader{{Key: "kept", Value: []byte("yes")}}},
			{Topic: retries, Key: []byte("nonsense")},
			{Topic: retries, Value: []byte("no key")},
			{Topic: retries, Key: []byte(trip(3).String()), Value: []byte{0xff}},
			{Topic: retries, Key: []byte(trip(4).String()), Value: []byte{}},
			mismatched,
		}
		r.must(r.client.ProduceSync(context.Background(), bad...).FirstErr())
		r.retry(time.Minute, tripsTo(10, 60)...)
		r.after(2 * time.Minute)
		r.redis.FlushAll()
		r.after(2 * time.Minute)
		r.want(1, 1, tripsTo(10, 60)...)
		reasons, kept := map[string]int{}, 0
		r.eachRecord(r.cluster.Topics.Rejected, func(record *kgo.Record) {
			reasons[header(record, "hookline-reason")]++
			if header(record, "kept") == "yes" {
				kept++
			}
			if header(record, "hookline-source-topic") != retries {
				t.Errorf("of topic %q", header(record, "hookline-source-topic"))
			}
		})
		if got, want := fmt.Sprint(reasons), fmt.Sprint(map[string]int{reasonKey: 3, reasonValue: 2, reasonMismatch: 1}); got != want || kept != 1 {
			t.Errorf("rejected %v, want %v; headers kept %d times", got, want, kept)
		}
	})
}

func TestAWorkerWithAWrongClockNeitherLoopsNorLoses(t *testing.T) {
	whileRunning(t, func(r *rig, _ *process) {
		past, future := r.record(retryOf(trip(1), -time.Hour)), r.record(retryOf(trip(2), 1e6*time.Hour))
		past.Timestamp, future.Timestamp = time.Now().Add(-time.Hour), time.Now().Add(1000*time.Hour)
		r.must(r.client.ProduceSync(context.Background(), past, future).FirstErr())
		r.after(time.Second)
		r.want(1, 1, trip(1))
		r.after(28 * time.Hour)
		r.want(0, 0, trip(2))
		r.after(2 * time.Hour)
		r.want(1, 1, trip(2))
	})
}

func TestAStopFinishesWhatWasTakenAndIsQuick(t *testing.T) {
	whileRunning(t, func(r *rig, p *process) {
		r.retry(10*time.Second, tripsTo(0, 300)...)
		blocked := r.blockProduce(r.cluster.Topics.Deliveries)
		r.after(15 * time.Second)
		time.AfterFunc(5*time.Second, func() { blocked.Remove() })
		if took := p.end(); took < 5*time.Second || took > 10*time.Second {
			t.Errorf("the stop took %v", took)
		}
		r.after(time.Second)
		r.want(1, 1, tripsTo(0, 300)...)
		if n := r.tombstones(); n != 300 {
			t.Errorf("%d tombstones", n)
		}
		r.start()
		r.after(5 * time.Minute)
		r.want(1, 1, tripsTo(0, 300)...)
	})
}

func TestADrainIsCutOff(t *testing.T) {
	whileRunning(t, func(r *rig, p *process) {
		r.retry(10*time.Second, tripsTo(0, 30)...)
		blocked := r.blockProduce(r.cluster.Topics.Deliveries)
		r.after(15 * time.Second)
		if took := p.end(); took < 20*time.Second || took > 30*time.Second {
			t.Errorf("the stop took %v", took)
		}
		blocked.Remove()
		r.start()
		r.after(5 * time.Minute)
		r.want(1, 1, tripsTo(0, 30)...)
	})
}

func TestASchedulerMayStartBeforeItsServersAndBeStoppedBefore(t *testing.T) {
	inBubble(t, func(r *rig) {
		for name, cut := range map[string]func(*process){"redis": func(p *process) { p.redis.set(true) }, "kafka": func(p *process) { p.kafka.set(true) }} {
			p := r.start()
			cut(p)
			r.after(5 * time.Minute)
			if p.ready() {
				t.Errorf("ready without %s", name)
			}
			if took := p.end(); took > 25*time.Second {
				t.Errorf("the stop without %s took %v", name, took)
			}
		}
		p := r.start()
		p.redis.set(true)
		p.kafka.set(true)
		r.after(time.Minute)
		p.redis.set(false)
		p.kafka.set(false)
		r.retry(time.Second, tripsTo(0, 10)...)
		r.after(2 * time.Minute)
		r.want(1, 1, tripsTo(0, 10)...)
	})
}

// The last records of a log can be gone, and nothing that a poll returns reaches its end.
func TestAGateOpensWhereTheEndOfTheLogHasNoRecords(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.retry(time.Minute, tripsTo(0, 20)...)
		transaction := r.open(r.cluster, append(r.cluster.Producer(), kgo.TransactionalID("test"))...)
		defer transaction.Close()
		r.must(transaction.BeginTransaction())
		for _, trip := range tripsTo(100, 130) {
			transaction.Produce(context.Background(), r.record(retryOf(trip, time.Minute)), nil)
		}
		r.must(transaction.Flush(context.Background()))
		r.must(transaction.EndTransaction(context.Background(), kgo.TryAbort))
		r.start()
		r.after(2 * time.Minute)
		r.want(1, 1, tripsTo(0, 20)...)
		r.want(0, 0, tripsTo(100, 130)...)
	})
}

func TestAStormIsFiredWithinItsBounds(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.start(func(c *Config) { c.Inflight, c.CacheBytes = 300, 20_000 })
		r.after(20 * time.Second)
		var trips []webhook.Trip
		for n := range 20 {
			trips = append(trips, tripsTo(n*500, n*500+500)...)
			r.retry(time.Minute, trips[n*500:]...)
		}
		r.after(2 * time.Minute)
		r.want(1, 1, trips...)
	})
}
