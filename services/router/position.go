package router

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// position is where a partition stands: everything below offset is done, and of the event at offset the deliveries up to
// the cursor.
type position struct {
	offset int64
	cursor cursor
}

// cursor is how far the fan-out of one event has come. It travels in the commit's metadata, so that a crash repeats one
// chunk and not the whole fan-out.
type cursor struct {
	after  string // the last subscription done; "" is none
	config int64  // the config offset it was matched under
}

const cursorPrefix = "r1:"

// String is the cursor as a commit's metadata.
func (c cursor) String() string {
	if c.after == "" {
		return ""
	}
	return cursorPrefix + strconv.FormatInt(c.config, 10) + ":" + c.after
}

// parseCursor reads what String wrote. Anything else is no cursor: the fan-out then starts at its beginning.
func parseCursor(metadata string) cursor {
	rest, ok := strings.CutPrefix(metadata, cursorPrefix)
	config, after, found := strings.Cut(rest, ":")
	offset, err := strconv.ParseInt(config, 10, 64)
	if !ok || !found || err != nil {
		return cursor{}
	}
	return cursor{after: after, config: offset}
}

func (p position) String() string { return fmt.Sprintf("%d%s", p.offset, p.cursor) }

// positions are those of the partitions that this member owns. The methods may be called concurrently.
type positions struct {
	mu    sync.Mutex
	owned map[int32]*owned
}

type owned struct {
	position
	committed position
	end       int64 // the partition's end when it was last read
}

func newPositions() *positions { return &positions{owned: map[int32]*owned{}} }

// assign starts to own a partition, where the group's last commit left off.
func (ps *positions) assign(partition int32, committed position) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	ps.owned[partition] = &owned{position: committed, committed: committed, end: committed.offset}
}

// forget ends owning partitions: nothing more is committed for them.
func (ps *positions) forget(partitions []int32) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, p := range partitions {
		delete(ps.owned, p)
	}
}

func (ps *positions) owns(partition int32) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.owned[partition] != nil
}

// seen notes the end of a partition.
func (ps *positions) seen(partition int32, end int64) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if o := ps.owned[partition]; o != nil {
		o.end = end
	}
}

// cursorAt is how far an earlier attempt at the event at an offset has come.
func (ps *positions) cursorAt(partition int32, offset int64) cursor {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if o := ps.owned[partition]; o != nil && o.offset == offset {
		return o.cursor
	}
	return cursor{}
}

// advance moves a partition forward. It ignores partitions that are not owned, and never moves back: records of a former
// ownership may still be under way.
func (ps *positions) advance(partition int32, to position) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if o := ps.owned[partition]; o != nil && to.offset >= o.offset {
		o.position = to
	}
}

// uncommitted are the positions, of these partitions or with nil of all, that differ from the last commit.
func (ps *positions) uncommitted(partitions []int32) map[int32]position {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	out := map[int32]position{}
	add := func(p int32, o *owned) {
		if o != nil && o.position != o.committed {
			out[p] = o.position
		}
	}
	if partitions == nil {
		for p, o := range ps.owned {
			add(p, o)
		}
	}
	for _, p := range partitions {
		add(p, ps.owned[p])
	}
	return out
}

// committed notes that a position has been committed.
func (ps *positions) committed(partition int32, at position) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if o := ps.owned[partition]; o != nil {
		o.committed = at
	}
}

// lag is how many records of the owned partitions are not done.
func (ps *positions) lag() (total int64) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for _, o := range ps.owned {
		total += max(o.end-max(o.offset, 0), 0)
	}
	return total
}
