package scheduler

import (
	"context"
	"slices"
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
	// endpoints take no more, cameBack those of them that had been fired. All are since the last look.
	crowded           atomic.Bool
	putBack, cameBack atomic.Int64
	// refused is when a retry of a lane last came back because its endpoint had no room, in Unix milliseconds.
	refused [1 << 16]atomic.Int64

	mu     sync.Mutex
	points map[int32]offset.Standing
	looked time.Time
	// rate is how many deliveries all workers finish in a second, without those put back. What was finished is seen before it comes
	// back, so that only the average means something.
	rate float64
	// tried is how many retries of this process are finished in a second, back how many of them come back.
	tried, back float64
	// partitions is how many the retries topic has, and owned how many of them this process.
	partitions, owned int
}

const (
	// lookEvery is how often the group is asked while something fired is unfinished, and calmly how often where there is room enough.
	lookEvery = 100 * time.Millisecond
	calmly    = 500 * time.Millisecond
	// stale is when a rate can no longer be taken from the last answer.
	stale = 3 * time.Second
	// smoothing is about over how long the rates are averaged.
	smoothing = 2 * time.Second
	// firstRate is taken where nothing is known of late, or the path keeps up with everything.
	firstRate = 1000
	// ahead is how much work, as time, may be fired and unfinished: several times as long as it takes to see that something
	// is finished, so that the path never waits, and as little as possible, because new events wait behind it.
	ahead = time.Second
	// least is what may be unfinished however slow the path is.
	least = 250
	// tries is how many may be fired for each that gets through. What endpoints have no room for is finished at once and comes back: without
	// a bound on that, a storm to such endpoints would be fired as fast as it can be put back, and cost new events the machine.
	tries = 4
	// leastSpeed is how many may be fired in a second however few get through.
	leastSpeed = 500
	// full is how long an endpoint that had no room for a retry is taken to have none: as long as the workers put one off at least.
	full = 5 * time.Second
)

func newPath() *path {
	return &path{begun: make(chan struct{}, 1), rate: firstRate, partitions: 1, owned: 1}
}

// began says that something has been fired.
func (p *path) began() {
	select {
	case p.begun <- struct{}{}:
	default:
	}
}

// deferred notes why a delivery of a lane waits: one that its endpoint had no room for did not pass the path.
func (p *path) deferred(trip webhook.Trip, lane uint16, reason webhook.Reason, now time.Time) {
	if !noRoom(reason) {
		return
	}
	p.putBack.Add(1)
	if trip.Number > 1 { // the first is of a new event
		p.cameBack.Add(1)
		p.refused[lane].Store(now.UnixMilli())
	}
}

// refuses reports whether the endpoint of a lane had no room for a retry just now.
func (p *path) refuses(lane uint16, now time.Time) bool {
	return now.UnixMilli()-p.refused[lane].Load() < full.Milliseconds()
}

// has says how many partitions the retries topic has.
func (p *path) has(partitions int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.partitions = max(p.partitions, partitions)
}

// bounds are what holds for the retries of one partition.
type bounds struct {
	unfinished int           // that may be fired
	speed      float64       // how many may be fired in a second
	scarce     bool          // because few of them find room
	turn       time.Duration // over which that is meant
	rate       float64       // how many are finished in a second
}

const unbounded = 1 << 30

// bounds says what holds now. A group that has just been looked at and has never committed cannot be watched, and there is no bound.
func (p *path) bounds(now time.Time) bounds {
	p.mu.Lock()
	defer p.mu.Unlock()
	const floor = least / float64(ahead/time.Second)
	b := bounds{unfinished: unbounded, speed: unbounded, turn: turnEvery}
	known := now.Sub(p.looked) <= stale
	if known && len(p.points) == 0 {
		return b
	}
	b.rate = p.rate
	switch through := p.tried - p.back; {
	case !known:
		b.rate, b.speed = firstRate, firstRate/float64(p.partitions)
	case p.tried == 0:
		b.speed = firstRate / float64(p.partitions)
	case p.tried >= tries*through:
		b.speed, b.scarce = max(tries*through/float64(p.owned), leastSpeed/float64(p.partitions)), true
	}
	// The floor holds for the rate as well: nobody is owed anything of a path that finishes nothing.
	b.rate = max(b.rate, floor) / float64(p.partitions)
	b.unfinished = int(b.rate * ahead.Seconds())
	b.turn = min(time.Duration(p.partitions)*turnEvery, ahead)
	return b
}

// saw takes the points of the group at a moment; retries is how many of this process's are finished, owned how many partitions of them it has.
func (p *path) saw(points map[int32]offset.Standing, retries, owned int, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.owned = max(owned, 1)
	finished := int64(0)
	for partition, at := range points {
		if before, known := p.points[partition]; known {
			finished += max(0, at.Count()-before.Count())
		}
	}
	passed := float64(finished) - float64(p.putBack.Swap(0))*float64(p.partitions)/float64(p.owned)
	cameBack := float64(p.cameBack.Swap(0))
	elapsed := now.Sub(p.looked)
	if elapsed > stale {
		p.rate, p.tried, p.back = firstRate, 0, 0
	} else if elapsed > 0 {
		average(&p.rate, passed, elapsed)
		average(&p.tried, float64(retries), elapsed)
		average(&p.back, cameBack, elapsed)
	}
	if !p.crowded.Swap(false) {
		p.rate = max(p.rate, firstRate)
	}
	p.points, p.looked = points, now
}

// average takes what was counted for so long into an average a second.
func average(perSecond *float64, counted float64, elapsed time.Duration) {
	*perSecond += (counted/elapsed.Seconds() - *perSecond) * min(1, elapsed.Seconds()/smoothing.Seconds())
}

// followPath looks at the delivery group as long as something fired is unfinished, and lets shards go on that wait for
// room.
func (s *Service) followPath(ctx context.Context) {
	var looked time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.path.begun:
		}
		for unfinished := true; unfinished && run.Pause(ctx, lookEvery); {
			if time.Since(looked) < calmly && !s.pressed() {
				continue
			}
			looked = time.Now()
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

func (s *Service) pressed() bool {
	return slices.ContainsFunc(s.owned(), func(sh *shard) bool { return sh.pace.pressed() })
}

// settle takes what is finished off the books, and reports whether anything is left.
func (s *Service) settle(points map[int32]offset.Standing, now time.Time) (unfinished bool) {
	owned := s.owned()
	var waiting []*shard
	finished := 0
	for _, sh := range owned {
		done := sh.pace.settle(points, now)
		finished += done.finished
		unfinished = unfinished || done.left
		if done.room {
			waiting = append(waiting, sh)
		}
	}
	s.path.saw(points, finished, len(owned), now)
	for _, sh := range waiting {
		sh.wakeUp()
	}
	return unfinished
}

func (s *Service) lookAtPath(ctx context.Context) (map[int32]offset.Standing, error) {
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	return s.deps.Kafka.Standings(ctx, s.marker)
}
