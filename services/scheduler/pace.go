package scheduler

import (
	"sync"
	"time"

	"github.com/hookline/hookline/pkg/offset"
	"github.com/hookline/hookline/pkg/retryqueue"
)

// pace bounds what one shard has fired that the delivery workers have not finished, so that a storm of due retries waits here
// and not in front of new events, and it shares that bound among subscriptions. Subscriptions are told apart by lanes.
//
// A lane may have as much unfinished as there is room left: alone it takes half of the bound, with n-1 others an equal
// share of n in n+1, and one that comes newly always finds room. What a lane has too much is put off, by about the time the
// lane needs to get there, so that others behind it in the order of due times are reached. While more is due than there is room for, some
// of it is looked at ahead of its turn, for the same reason: behind many lanes that have no more than their share there may be another.
type pace struct {
	mu    sync.Mutex
	total int // fired or about to be, and unfinished
	lanes map[uint16]*lane
	fired map[int32][]firing // by partition of the deliveries topic
	// stopped is set while nothing fits, until something is finished; crowded while more is due than has been claimed.
	stopped, crowded bool
	lookedAhead      time.Time
	// behind is since when retries have been put off; putOff when the last one was.
	behind, putOff time.Time
}

type lane struct {
	unfinished int
	next       time.Time // when the next retry that is put off is due
}

type firing struct {
	offset int64
	lane   uint16
	at     time.Time
}

const (
	soonest = 250 * time.Millisecond
	latest  = 30 * time.Second
	// breather is how long a shard waits after it has put something off before it looks further.
	breather = 100 * time.Millisecond
	// A firing that is not seen to finish for so long is taken off the books: its topic may have been made anew.
	forgotten = 15 * time.Minute
)

func newPace() *pace { return &pace{lanes: map[uint16]*lane{}, fired: map[int32][]firing{}} }

// wants is how many retries are to be claimed: as many as there is room for, and now and then some ahead of their turn, four times as many as are
// finished meanwhile.
func (p *pace) wants(budget int, rate float64, now time.Time) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := max(0, budget-p.total)
	p.stopped = n == 0
	if p.crowded && now.Sub(p.lookedAhead) >= breather {
		p.lookedAhead = now
		n += int(4 * rate * breather.Seconds())
	}
	return min(n, claimMost)
}

// admit divides claimed retries into those to fire and those to put off. Every retry that it admits must be given to [pace.book]
// or [pace.drop].
func (p *pace) admit(claim retryqueue.Claim, entries []retryqueue.Entry, budget int, rate float64) (admitted []retryqueue.Entry, later []retryqueue.Later) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range entries {
		ln := p.lanes[e.Lane]
		if ln == nil {
			ln = &lane{}
			p.lanes[e.Lane] = ln
		}
		if e.Trip.IsCommand() || ln.unfinished < budget-p.total {
			ln.unfinished++
			p.total++
			admitted = append(admitted, e)
			continue
		}
		share := max(float64(ln.unfinished)/float64(max(p.total, 1)), 1/float64(len(p.lanes)))
		later = append(later, retryqueue.Later{Trip: e.Trip, Due: ln.putOff(claim.Now, rate*share)})
	}
	p.crowded = claim.Due > 0
	if len(later) > 0 {
		p.putOff = claim.Now
		if p.behind.IsZero() {
			p.behind = claim.Now
		}
	}
	return admitted, later
}

// putOff is when a retry for which the lane has no room is due instead. Twice as many are asked to come as the lane's rate
// has place for: a path that has become faster is found out.
func (ln *lane) putOff(now time.Time, rate float64) time.Time {
	if first := now.Add(soonest); ln.next.Before(first) {
		ln.next = first
	}
	gap := time.Duration(float64(time.Second) / max(2*rate, 1))
	if ln.next = ln.next.Add(gap); ln.next.After(now.Add(latest)) {
		ln.next = now.Add(latest)
	}
	return ln.next
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
		if ln.unfinished == 0 && ln.next.Before(now.Add(-latest)) {
			delete(p.lanes, number)
		}
	}
	return p.total > 0, p.stopped && p.total < before
}

// overdue is how long retries have been put off for, at a moment of Redis's clock; 0 where none are.
func (p *pace) overdue(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.behind.IsZero() || now.Sub(p.putOff) > latest {
		p.behind = time.Time{}
		return 0
	}
	return now.Sub(p.behind)
}
