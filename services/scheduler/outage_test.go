package scheduler

import (
	"testing"
	"time"
)

// setRedisClock makes Redis's clock run by so much ahead of the others, from now on.
func (r *rig) setRedisClock(ahead time.Duration) {
	if r.clock != nil {
		close(r.clock)
	}
	stop := make(chan struct{})
	r.clock = stop
	r.redis.SetTime(time.Now().Add(ahead))
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				r.redis.SetTime(time.Now().Add(ahead))
			}
		}
	}()
}

func TestAClockThatIsSetMovesFiringByNoMoreThanTheStep(t *testing.T) {
	for name, step := range map[string]time.Duration{"forward": time.Hour, "back": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			whileRunning(t, func(r *rig, _ *process) {
				defer func() { close(r.clock) }()
				r.setRedisClock(0)
				r.retry(2*time.Hour, tripsTo(0, 50)...)
				r.after(10 * time.Minute)
				r.setRedisClock(step)
				r.after(110*time.Minute - step - 10*time.Second)
				r.want(0, 0, tripsTo(0, 50)...)
				r.after(10*time.Second + idle)
				r.want(1, 1, tripsTo(0, 50)...)

				r.retry(30*time.Minute, tripsTo(50, 100)...)
				r.after(time.Minute)
				r.setRedisClock(0)
				r.after(31 * time.Minute)
				r.want(1, 1, tripsTo(50, 100)...)
			})
		})
	}
}

// What was claimed under a clock that is then set back is due when that clock gets there again, and no later.
func TestALeaseEndsThoughTheClockIsSetBack(t *testing.T) {
	whileRunning(t, func(r *rig, p *process) {
		defer func() { close(r.clock) }()
		r.setRedisClock(time.Hour)
		blocked := r.blockProduce(r.cluster.Topics.Deliveries)
		r.retry(time.Second, tripsTo(0, 50)...)
		r.after(10 * time.Second)
		p.kill()
		blocked.Remove()
		r.setRedisClock(0)
		r.start()
		r.after(time.Hour + 2*time.Minute)
		r.want(1, 1, tripsTo(0, 50)...)
	})
}

func TestS10ARedisThatTakesNothingIsWaitedFor(t *testing.T) {
	for name, refusal := range map[string]string{
		"full":         "OOM command not allowed when used memory > 'maxmemory'.",
		"no disk":      "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
		"a replica":    "READONLY You can't write against a read only replica.",
		"still loads":  "LOADING Redis is loading the dataset in memory",
		"cluster down": "CLUSTERDOWN The cluster is down",
	} {
		t.Run(name, func(t *testing.T) {
			whileRunning(t, func(r *rig, p *process) {
				r.retry(10*time.Minute, tripsTo(0, 100)...)
				r.after(10 * time.Second)
				r.redis.SetError(refusal)
				r.retry(10*time.Minute, tripsTo(100, 200)...)
				r.after(time.Hour)
				if p.ready() {
					t.Error("ready without a Redis that takes anything")
				}
				if n := p.log.count("redis is away"); n < 55 || n > 62 {
					t.Errorf("%d lines in an hour", n)
				}
				r.redis.SetError("")
				r.after(time.Minute)
				r.want(1, 1, tripsTo(0, 200)...)
				if !p.ready() {
					t.Errorf("not ready: %v", p.health.Unmet())
				}
			})
		})
	}
}

func TestAFailOverToAnEmptyReplicaOnlyDelays(t *testing.T) {
	whileRunning(t, func(r *rig, p *process) {
		r.retry(10*time.Second, tripsTo(0, 200)...)
		r.retry(time.Hour, tripsTo(200, 400)...)
		r.after(time.Minute)
		p.redis.set(true)
		r.retry(time.Hour, tripsTo(400, 500)...)
		r.after(30 * time.Second)
		r.redis.FlushAll()
		p.redis.set(false)
		r.after(2 * time.Hour)
		r.want(1, 1, tripsTo(0, 500)...)
		if p.log.count("reason=missing") == 0 {
			t.Error("nobody noticed")
		}
	})
}
