package router

import (
	"context"
	"sync"
)

// flight counts records that are on their way to Kafka.
type flight struct {
	mu     sync.Mutex
	open   int
	landed chan struct{} // closed when open falls to 0
}

func (f *flight) begin(records int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == 0 {
		f.landed = make(chan struct{})
	}
	f.open += records
}

func (f *flight) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open--; f.open == 0 {
		close(f.landed)
	}
}

// wait returns when nothing is on its way, or with the cause of the context's end.
func (f *flight) wait(ctx context.Context) error {
	f.mu.Lock()
	open, landed := f.open, f.landed
	f.mu.Unlock()
	if open == 0 {
		return context.Cause(ctx)
	}
	select {
	case <-landed:
		return context.Cause(ctx)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
