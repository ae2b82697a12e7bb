// Package offset keeps what of a Kafka partition is finished when records finish out of order: the lowest unfinished
// offset, which is what may be committed, and the finished ones above it, which travel in the commit's metadata so that
// the next owner repeats only what was not finished. It does no I/O.
package offset

import (
	"math/bits"
	"sync"
)

const wordBits = 64

// Tracker is the state of one partition while it is owned. Its methods may be called concurrently.
//
// Invariant: base is the lowest unfinished offset, or high where nothing is unfinished; every offset in [base, high) has
// its bit in words, set when finished; words[0] bit 0 is offset base-base%64 of the word grid that starts at origin.
type Tracker struct {
	mu     sync.Mutex
	origin int64 // offset of bit 0 of words[0]
	base   int64
	high   int64
	words  []uint64
	// inherited are the runs of finished offsets that the previous owner left, ascending.
	inherited []Run
	open      int // begun and not finished

	// changed is whether anything has been finished or skipped since the last Commit that was accepted.
	changed       bool
	committed     int64
	committedMeta string
}

// Run is the half-open range of offsets [From, To).
type Run struct{ From, To int64 }

// New starts at a committed offset with the metadata of that commit. Metadata that is not a tracker's is ignored: then
// some finished records are repeated.
func New(committed int64, metadata string) *Tracker {
	return &Tracker{
		origin: committed, base: committed, high: committed,
		inherited: decode(committed, metadata),
		committed: committed, committedMeta: metadata,
	}
}

// Begin notes that the record at an offset has been read, and reports whether it is still to be done: false where the
// previous owner finished it, or where it was begun before. Offsets between this and the last one begun hold no record
// (compaction, transaction markers) and count as finished. Offsets must be begun in ascending order.
func (t *Tracker) Begin(offset int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if offset < t.high {
		return false
	}
	t.changed = t.changed || offset > t.high
	t.skipTo(offset)
	if t.wasFinished(offset) {
		t.grow(true)
		t.advance()
		t.changed = true
		return false
	}
	t.grow(false)
	t.open++
	t.advance()
	return true
}

// Finish notes that the record at an offset, begun before, is finished.
func (t *Tracker) Finish(offset int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if offset < t.base || offset >= t.high || t.bit(offset) {
		return
	}
	t.set(offset)
	t.open--
	t.changed = true
	t.advance()
}

// Open is how many records are begun and not finished.
func (t *Tracker) Open() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open
}

// Lowest is the lowest unfinished offset.
func (t *Tracker) Lowest() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.base
}

// Commit returns the lowest unfinished offset and the metadata of what is finished above it, and whether they differ
// from what [Tracker.Committed] was last told. It costs nothing while nothing has been finished.
func (t *Tracker) Commit() (offset int64, metadata string, changed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.changed {
		return t.committed, t.committedMeta, false
	}
	metadata = encode(t.base, t.runs())
	// What is finished from here on sets it again; a commit that fails shows in the comparison.
	t.changed = t.base != t.committed || metadata != t.committedMeta
	return t.base, metadata, t.changed
}

// Committed notes that Kafka has accepted a commit.
func (t *Tracker) Committed(offset int64, metadata string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.committed, t.committedMeta = offset, metadata
}

// runs are the finished ranges above base: those begun here, and the inherited ones not reached yet.
func (t *Tracker) runs() []Run {
	var runs []Run
	for from := t.next(t.base, true); from < t.high; {
		to := t.next(from, false)
		runs = append(runs, Run{from, to})
		from = t.next(to, true)
	}
	for _, r := range t.inherited {
		if from := max(r.From, t.high); from < r.To {
			runs = append(runs, Run{from, r.To})
		}
	}
	return runs
}

// next is the first offset from one on that is finished, or is not; high where there is none.
func (t *Tracker) next(from int64, finished bool) int64 {
	for o := from; o < t.high; {
		i := o - t.origin
		word := t.words[i/wordBits]
		if !finished {
			word = ^word
		}
		if rest := word >> (i % wordBits); rest != 0 {
			return min(o+int64(bits.TrailingZeros64(rest)), t.high)
		}
		o += wordBits - i%wordBits
	}
	return t.high
}

func (t *Tracker) wasFinished(offset int64) bool {
	for len(t.inherited) > 0 && t.inherited[0].To <= offset {
		t.inherited = t.inherited[1:]
	}
	return len(t.inherited) > 0 && t.inherited[0].From <= offset
}

// skipTo counts the offsets below the given one as finished. Where nothing is unfinished no bits are held, so that a
// gap as long as what retention has removed costs nothing.
func (t *Tracker) skipTo(offset int64) {
	if t.base == t.high {
		t.origin, t.base, t.high, t.words = offset, offset, offset, t.words[:0]
		return
	}
	for t.high < offset {
		t.grow(true)
	}
}

func (t *Tracker) grow(finished bool) {
	if t.high-t.origin >= int64(len(t.words))*wordBits {
		t.words = append(t.words, 0)
	}
	t.high++
	if finished {
		t.set(t.high - 1)
	}
}

func (t *Tracker) bit(o int64) bool {
	i := o - t.origin
	return t.words[i/wordBits]&(1<<(i%wordBits)) != 0
}

func (t *Tracker) set(o int64) {
	i := o - t.origin
	t.words[i/wordBits] |= 1 << (i % wordBits)
}

// advance moves base over finished offsets and drops words that lie below it.
func (t *Tracker) advance() {
	for t.base < t.high {
		i := t.base - t.origin
		rest := t.words[i/wordBits] >> (i % wordBits)
		ones := int64(bits.TrailingZeros64(^rest))
		if ones == 0 {
			break
		}
		t.base = min(t.base+ones, t.origin+(i/wordBits+1)*wordBits, t.high)
	}
	if full := (t.base - t.origin) / wordBits; full > 0 {
		t.words = append(t.words[:0], t.words[full:]...)
		t.origin += full * wordBits
	}
}
