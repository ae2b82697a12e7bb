package delivery

// ring decides whose turn it is: a deficit round robin over tenants, and a round robin over the lanes of each. A tenant
// takes as many turns in a row as it weighs, less what it is charged for.
type ring struct {
	byName  map[string]*tenant
	turns   fifo[*tenant]
	weights map[string]int
}

type tenant struct {
	name   string
	credit int
	lanes  fifo[*lane]
}

func newRing(weights map[string]int) *ring {
	return &ring{byName: map[string]*tenant{}, weights: weights}
}

func (r *ring) weight(name string) int { return max(r.weights[name], 1) }

// push queues a lane behind the others of its tenant.
func (r *ring) push(ln *lane) {
	t := r.byName[ln.tenant]
	if t == nil {
		t = &tenant{name: ln.tenant, credit: r.weight(ln.tenant)}
		r.byName[ln.tenant] = t
		r.turns.push(t)
	}
	t.lanes.push(ln)
}

// pop is the lane whose turn it is, or nil. A tenant keeps its turn while lanes of it come back in time for the next pop,
// and otherwise loses the rest of it.
func (r *ring) pop() *lane {
	for r.turns.len() > 0 {
		t := r.turns.peek()
		switch {
		case t.lanes.len() == 0:
			r.turns.pop()
			delete(r.byName, t.name)
		case t.credit <= 0:
			t.credit += r.weight(t.name)
			r.turns.push(r.turns.pop())
		default:
			t.credit--
			return t.lanes.pop()
		}
	}
	return nil
}

// charge takes a turn from a tenant that has lanes in line.
func (r *ring) charge(name string) {
	if t := r.byName[name]; t != nil {
		t.credit--
	}
}

// fifo is a queue whose memory follows its length.
type fifo[T any] struct {
	items []T
	head  int
}

func (q *fifo[T]) len() int { return len(q.items) - q.head }
func (q *fifo[T]) push(v T) { q.items = append(q.items, v) }
func (q *fifo[T]) peek() T  { return q.items[q.head] }

func (q *fifo[T]) popBack() (v T) {
	var zero T
	last := len(q.items) - 1
	v, q.items[last] = q.items[last], zero
	q.items = q.items[:last]
	if q.head == last {
		q.items, q.head = q.items[:0], 0
	}
	return v
}

func (q *fifo[T]) pop() (v T) {
	var zero T
	v, q.items[q.head] = q.items[q.head], zero
	q.head++
	switch {
	case q.head == len(q.items):
		q.items, q.head = q.items[:0], 0
	case q.head > 64 && q.head > len(q.items)/2:
		rest := copy(q.items, q.items[q.head:])
		clear(q.items[rest:])
		q.items, q.head = q.items[:rest], 0
	}
	return v
}
