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
	lanes map[uint16]*lane
	fired map[int32][]firing // by partition of the deliveries topic
	// stopped is set while nothing fits, until something is finished.
	stopped bool
	// crowded is since when more has been due than was claimed; zero while it is not.
	crowded time.Time
	// front is the due time of what is brought forward: before all else that was due when it began to be crowded. What has the same due
	// time goes in no order of its own, so that nobody's comes always first.
	front time.Time
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
	// What is due is looked through in steps, so many retries each time, and the newest of it every time.
	lookAheadEvery = 100 * time.Millisecond
	lookAheadAt    = 250
	newest         = 50
	// A lane without a turn for so long counts as one that has nothing due.
	silent = 30 * time.Second
	// A firing that is not seen to finish for so long is taken off the books: its topic may have been made anew.
	forgotten = 15 * time.Minute
)

func newPace() *pace { return &pace{lanes: map[uint16]*lane{}, fired: map[int32][]firing{}} }

// room is how many retries may be claimed.
func (p *pace) room(budget int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	room := max(0, budget-p.total)
	p.stopped = room == 0
	return room
}

// admit takes claimed retries on the books. Each of them must be given to [pace.book] or [pace.drop]. due is how many more are due.
func (p *pace) admit(entries []retryqueue.Entry, due int64, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case due == 0:
		p.crowded, p.front, p.rank = time.Time{}, time.Time{}, 0
	case p.crowded.IsZero():
		p.crowded = now
	}
	for _, e := range entries {
		ln := p.lane(e.Lane, now)
		ln.unfinished++
		ln.served = now
		p.total++
	}
	p.rank = max(0, p.rank-int64(len(entries)))
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

// owed are those of due retries whose lanes are owed a turn, of a path that finishes so many retries of this shard a second: up to twice what
// an equal share would have given them since the last one, because they have waited. Commands cost the path nothing. What is at the
// front already is not moved again.
func (p *pace) owed(list []retryqueue.Waiting, rate float64, now time.Time) []retryqueue.Move {
	p.mu.Lock()
	defer p.mu.Unlock()
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
		share := int(2 * rate * without.Seconds() / float64(len(p.lanes)))
		if ln.unfinished == 0 && without >= ahead && taken[ln] < share {
			taken[ln]++
			owed = append(owed, forward)
		}
	}
	for ln := range taken {
		ln.served = now
	}
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

// settle takes what is finished off the books, when it has stayed on them for so long. It reports whether anything is left on them, and
// whether there is room again for a shard that had none.
func (p *pace) settle(points map[int32]offset.Standing, stay time.Duration, now time.Time) (left, room bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	before := p.total
	for partition, list := range p.fired {
		at, watched := points[partition]
		kept := list[:0]
		for _, f := range list {
			if len(points) == 0 || (watched && at.Finished(f.offset) && now.Sub(f.at) >= stay) || now.Sub(f.at) > forgotten {
				p.take(f.lane)
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
	return p.total > 0, p.stopped && p.total < before
}
