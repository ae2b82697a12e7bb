package scheduler

import "sync"

// volleys fires what is ready, of all shards, one volley at a time: produced, then marked. Between the two a retry has been fired and
// nobody else knows, so that a volley is what a killed process leaves to be fired again, and it is small beside what waits. A request costs
// Kafka as much as a hundred records: for that reason what becomes ready meanwhile goes together in the next volley, the slower the
// machine, the fewer the requests.
type volleys struct {
	most func() int
	fire func([]*flight)

	trigger chan struct{} // full while a volley is under way
	mu      sync.Mutex
	ready   []*party
}

func newVolleys(most func() int, fire func([]*flight)) *volleys {
	return &volleys{most: most, fire: fire, trigger: make(chan struct{}, 1)}
}

// party are flights that go in one volley. The holder of the trigger sets fired.
type party struct {
	flights []*flight
	fired   bool
}

// join returns when the flights, at most as many as a volley has, have been fired and marked, or have failed. Whoever comes first fires for
// those who wait.
func (v *volleys) join(flights []*flight) {
	mine := &party{flights: flights}
	v.mu.Lock()
	v.ready = append(v.ready, mine)
	v.mu.Unlock()
	v.trigger <- struct{}{}
	defer func() { <-v.trigger }()
	for !mine.fired {
		v.fire(v.next())
	}
}

// next takes the first parties, as many as fit.
func (v *volleys) next() []*flight {
	v.mu.Lock()
	defer v.mu.Unlock()
	var volley []*flight
	most := v.most()
	for len(v.ready) > 0 && (volley == nil || len(volley)+len(v.ready[0].flights) <= most) {
		volley = append(volley, v.ready[0].flights...)
		v.ready[0].fired = true
		v.ready = v.ready[1:]
	}
	return volley
}
