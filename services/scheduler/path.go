package scheduler

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hookline/hookline/pkg/offset"
	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/webhook"
)

// path is the way that fired retries take through the delivery workers, as their group's commits show it: what is finished,
// and how much a second. Its methods may be called concurrently.
type path struct {
	// begun is sent to, without waiting, when something has been fired.
	begun chan struct{}
	// crowded is set when something found no room; putBack counts deliveries that the workers deferred because their
	// endpoints take no more. Both are since the last look.
	crowded atomic.Bool
	putBack atomic.Int64

	mu     sync.Mutex
	points map[int32]offset.Standing
	looked time.Time
	// rate is how many deliveries are finished in a second, without those put back; turning is set while more of them are put back.
	rate    float64
	turning bool
	// partitions is how many the retries topic has.
	partitions int
}

const (
	// lookEvery is how often the group is asked while something fired is unfinished; stale is when a rate can no longer be
	// taken from the last answer.
	lookEvery = 100 * time.Millisecond
	stale     = 3 * time.Second
	// smoothing is about over how long the rate is averaged.
	smoothing = 2 * time.Second
	// firstRate is taken where nothing is known of late, or the path keeps up with everything: a storm begins with as much at once.
	firstRate = 1000
	// ahead is how much work, as time, may be fired and unfinished: several times as long as it takes to see that something
	// is finished, so that the path never waits, and as little as possible, because new events wait behind it.
	ahead = time.Second
	// least is what may be unfinished however slow the path is.
	least = 250
)

func newPath() *path { return &path{begun: make(chan struct{}, 1), rate: firstRate, partitions: 1} }

// began says that something has been fired.
func (p *path) began() {
	select {
	case p.begun <- struct{}{}:
	default:
	}
}

// deferred notes why a delivery came back: one that its endpoint had no room for did not pass the path.
func (p *path) deferred(reason webhook.Reason) {
	switch reason {
	case webhook.ReasonConcurrency, webhook.ReasonRate, webhook.ReasonBreaker:
		p.putBack.Add(1)
	default:
	}
}

// has says how many partitions the retries topic has.
func (p *path) has(partitions int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.partitions = max(p.partitions, partitions)
}

// bounds says how many retries of one partition may be fired and unfinished, and at how many a second they are finished. A
// group that has just been looked at and has never committed cannot be watched, and there is no bound.
func (p *path) bounds(now time.Time) (budget int, rate float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.points) == 0 && now.Sub(p.looked) <= stale {
		return unbounded, 0
	}
	if rate = p.rate; now.Sub(p.looked) > stale {
		rate = firstRate
	}
	// The floor holds for the rate as well: nobody is owed anything of a path that finishes nothing.
	rate = max(rate, least/ahead.Seconds()) / float64(p.partitions)
	return int(rate * ahead.Seconds()), rate
}

const unbounded = 1 << 30

// saw takes the points of the group at a moment; owned is how many partitions of retries this process has.
func (p *path) saw(points map[int32]offset.Standing, owned int, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	finished := int64(0)
	for partition, at := range points {
		if before, known := p.points[partition]; known {
			finished += max(0, at.Count()-before.Count())
		}
	}
	putBack := float64(p.putBack.Swap(0)) * float64(p.partitions) / float64(max(owned, 1))
	if finished > 0 {
		p.turning = putBack > float64(finished)/2
	}
	elapsed := now.Sub(p.looked)
	if elapsed > stale {
		p.rate = firstRate
	} else if elapsed > 0 {
		seen := max(0, float64(finished)-putBack) / elapsed.Seconds()
		p.rate += (seen - p.rate) * min(1, elapsed.Seconds()/smoothing.Seconds())
	}
	if !p.crowded.Swap(false) {
		p.rate = max(p.rate, firstRate)
	}
	p.points, p.looked = points, now
}

// stay is how long what was fired counts as unfinished at least. What is put back is finished at once: if it made room at once, a storm to
// endpoints that take no more would go round and round as fast as it can.
func (p *path) stay() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.turning {
		return ahead
	}
	return 0
}

// followPath looks at the delivery group as long as something fired is unfinished, and lets shards go on that wait for
// room.
func (s *Service) followPath(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.path.begun:
		}
		for unfinished := true; unfinished && run.Pause(ctx, lookEvery); {
			// A group that cannot be asked leaves the bounds as they are: what was fired counts as unfinished.
			points, err := s.lookAtPath(ctx)
			s.kafka.report(ctx, askPath, err)
			if err != nil {
				continue
			}
			unfinished = s.settle(points, time.Now())
		}
	}
}

// settle takes what is finished off the books, and reports whether anything is left.
func (s *Service) settle(points map[int32]offset.Standing, now time.Time) bool {
	owned := s.owned()
	s.path.saw(points, len(owned), now)
	unfinished := false
	for _, sh := range owned {
		left, room := sh.pace.settle(points, s.path.stay(), now)
		unfinished = unfinished || left
		if room {
			sh.wakeUp()
		}
	}
	return unfinished
}

func (s *Service) lookAtPath(ctx context.Context) (map[int32]offset.Standing, error) {
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	return s.deps.Kafka.Standings(ctx, s.marker)
}
