package scheduler

import (
	"sync"
	"time"

	"github.com/hookline/hookline/pkg/offset"
	"github.com/hookline/hookline/pkg/retryqueue"
)

// pace bounds what one shard has fired that the delivery workers have not finished, so that a storm of due retries waits here
// and not in front of new events. Subscriptions are told apart by lanes.
//
// What is due goes in its order, until nothing more fits. Then it is looked through for lanes that had no turn of late, because others have
// so much before them: such a lane is owed a share of what was finished meanwhile, and that is brought forward.
type pace struct {
	mu    sync.Mutex
	total int // fired or about to be, and unfinished
	most  int // that total may become, when that was asked last
	lanes map[uint16]*lane
	fired map[int32][]firing // by partition of the deliveries topic
	// stopped is set while nothing fits, until something is finished.
	stopped bool
	// speed is how many may be fired in a second, and spent up to when what was fired has used that up. It is used in turns, phase after
	// those of the first shard.
	speed float64
	spent time.Time
	phase time.Duration
	// crowded is since when more has been due than was claimed; zero while it is not.
	crowded time.Time
	// front is the due time of what is brought forward: before all else that was due when it began to be crowded. What has the same due
	// time goes in no order of its own, so that nobody's comes always first.
	front time.Time
	// forward is how many have been brought forward and not been claimed.
	forward int
	// rank is where among what is due to look on, and looked when that was done last.
	rank   int64
	looked time.Time
}

type lane struct {
	unfinished int
	served     time.Time // when it last had a turn
}

type firing struct {
	offset int64
	lane   uint16
	at     time.Time
}

const (
	// Shards that are bound by a speed fire in turns, each this much after the one before it: often enough that new events wait behind little,
	// and much enough at once that the requests cost less than the retries.
	turnEvery = 50 * time.Millisecond
	// What is due is looked through in steps, so many retries each time, and the newest of it every time.
	lookAheadEvery = 100 * time.Millisecond
	lookAheadAt    = 250
	newest         = 50
	// A lane without a turn for so long counts as one that has nothing due.
	silent = 30 * time.Second
	// A firing that is not seen to finish for so long is taken off the books: its topic may have been made anew.
	forgotten = 15 * time.Minute
)

func newPace(partition int32) *pace {
	return &pace{lanes: map[uint16]*lane{}, fired: map[int32][]firing{}, speed: unbounded, phase: time.Duration(partition) * turnEvery}
}

// room is how many retries may be claimed. Where there is room and only the speed permits none, it says how long to wait.
func (p *pace) room(b bounds, now time.Time) (room int, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	room = max(0, b.unfinished-p.total)
	p.stopped, p.speed, p.most = room == 0, b.speed, b.unfinished
	if p.stopped {
		return 0, 0
	}
	each := interval(1, b.speed)
	if most := now.Add(-b.turn - each); p.spent.Before(most) {
		p.spent = most
	}
	if permitted := int(now.Sub(p.spent).Seconds() * b.speed); permitted > 0 {
		return min(room, permitted), 0
	}
	next := max(p.spent.Add(each).Sub(now), 1)
	return 0, now.Add(next - 1 - p.phase).Truncate(b.turn).Add(b.turn + p.phase).Sub(now)
}

// pressed reports whether more is due than may be fired, or will be before long.
func (p *pace) pressed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.crowded.IsZero() || p.total > p.most/2
}

// interval is how long so many take.
func interval(n int, perSecond float64) time.Duration {
	return time.Duration(float64(n) / perSecond * float64(time.Second))
}

// admit takes claimed retries on the books. Each of them must be given to [pace.book] or [pace.drop]. due is how many more are due.
func (p *pace) admit(entries []retryqueue.Entry, due int64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case due == 0:
		p.crowded, p.front, p.forward, p.rank = time.Time{}, time.Time{}, 0, 0
	case p.crowded.IsZero():
		p.crowded = now
	}
	for _, e := range entries {
		ln := p.lane(e.Lane, now)
		ln.unfinished++
		ln.served = now
		p.total++
	}
	p.spent = p.spent.Add(interval(len(entries), p.speed))
	p.rank = max(0, p.rank-int64(len(entries)))
	p.forward = max(0, p.forward-len(entries))
}

func (p *pace) lane(number uint16, served time.Time) *lane {
	ln := p.lanes[number]
	if ln == nil {
		ln = &lane{served: served}
		p.lanes[number] = ln
	}
	return ln
}

// window is a range of ranks in the order of due times.
type window struct{ from, count int64 }

// lookAhead is what to look at of so many that are due and do not fit, of which the first is due at a time: nothing, if that was done just now.
func (p *pace) lookAhead(due int64, first, now time.Time) []window {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.looked) < lookAheadEvery {
		return nil
	}
	if p.front.IsZero() {
		p.front = first.Add(-time.Millisecond)
	}
	p.looked = now
	if p.rank >= due {
		p.rank = 0
	}
	w := []window{{p.rank, min(lookAheadAt, due-p.rank)}}
	if p.rank += lookAheadAt; p.rank < due {
		w = append(w, window{max(p.rank, due-newest), min(newest, due-p.rank)})
	}
	return w
}

// owed are those of due retries whose lanes are owed a turn: up to twice what an equal share of the path would have given them since the
// last one, because they have waited. A lane whose endpoint had no room just now is owed nothing; where that is so of most that are fired,
// the others are owed as many as may be fired in a turn. Commands cost the path nothing. What is at the front already is not moved again.
func (p *pace) owed(list []retryqueue.Waiting, b bounds, path *path, now time.Time) []retryqueue.Move {
	p.mu.Lock()
	defer p.mu.Unlock()
	preferred := 0
	if b.scarce {
		preferred = int(b.speed*b.turn.Seconds()) + 1 - p.forward
	}
	taken := map[*lane]int{}
	var owed []retryqueue.Move
	for _, w := range list {
		forward := retryqueue.Move{Trip: w.Trip, From: w.Due, To: p.front}
		if !w.Due.After(p.front) {
			continue
		}
		if w.Trip.IsCommand() {
			owed = append(owed, forward)
			continue
		}
		ln := p.lane(w.Lane, p.crowded)
		without := now.Sub(ln.served)
		share := int(2 * b.rate * without.Seconds() / float64(len(p.lanes)))
		waits := ln.unfinished == 0 && without >= ahead && taken[ln] < share
		if (waits || len(owed) < preferred) && !path.refuses(w.Lane, now) {
			taken[ln]++
			owed = append(owed, forward)
		}
	}
	for ln := range taken {
		ln.served = now
	}
	p.forward += len(owed)
	return owed
}

// book notes where the delivery of an admitted retry is.
func (p *pace) book(e retryqueue.Entry, partition int32, offset int64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fired[partition] = append(p.fired[partition], firing{offset: offset, lane: e.Lane, at: now})
}

// drop takes admitted retries that were not fired off the books.
func (p *pace) drop(entries ...retryqueue.Entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range entries {
		p.take(e.Lane)
	}
}

func (p *pace) take(number uint16) {
	p.total--
	if ln := p.lanes[number]; ln != nil {
		ln.unfinished--
	}
}

// settled is what has become of what was on the books.
type settled struct {
	finished int
	left     bool // something is
	room     bool // there is some again for a shard that had none
}

// settle takes what is finished off the books.
func (p *pace) settle(points map[int32]offset.Standing, now time.Time) (s settled) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for partition, list := range p.fired {
		at, watched := points[partition]
		kept := list[:0]
		for _, f := range list {
			if len(points) == 0 || (watched && at.Finished(f.offset)) || now.Sub(f.at) > forgotten {
				p.take(f.lane)
				s.finished++
			} else {
				kept = append(kept, f)
			}
		}
		if p.fired[partition] = kept; len(kept) == 0 {
			delete(p.fired, partition)
		}
	}
	for number, ln := range p.lanes {
		if ln.unfinished == 0 && now.Sub(ln.served) > silent {
			delete(p.lanes, number)
		}
	}
	s.left, s.room = p.total > 0, p.stopped && s.finished > 0
	return s
}
