package api

import (
	"context"
	"sync"
)

// gate counts the requests under way, for a stop that waits for them.
type gate struct {
	mu     sync.Mutex
	inside int
	closed bool
	empty  chan struct{} // closed when the gate is shut and the last request has left
}

func newGate() *gate { return &gate{empty: make(chan struct{})} }

// enter reports whether a request may begin; leave must follow.
func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.inside++
	return true
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	g.signal()
}

// shut lets nobody in any more and returns when all have left, or with the context. It is called once.
func (g *gate) shut(ctx context.Context) {
	g.mu.Lock()
	g.closed = true
	g.signal()
	g.mu.Unlock()
	select {
	case <-g.empty:
	case <-ctx.Done():
	}
}

func (g *gate) signal() {
	if g.closed && g.inside == 0 {
		close(g.empty)
	}
}
