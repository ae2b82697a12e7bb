package router

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// flight counts records that are on their way to Kafka.
type flight struct {
	mu     sync.Mutex
	open   int
	landed chan struct{} // closed when open falls to 0
}

func (f *flight) begin() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.open == 0 {
		f.landed = make(chan struct{})
	}
	f.open++
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

// held are deliveries that may not be sent yet, each with its passage.
type held struct {
	passages []*passage
	records  []*kgo.Record
	bytes    int
}

// add returns the size of all of them.
func (h *held) add(p *passage, r *kgo.Record) (bytes int) {
	h.passages, h.records = append(h.passages, p), append(h.records, r)
	h.bytes += len(r.Value)
	return h.bytes
}

func (h *held) clear() {
	clear(h.passages)
	clear(h.records)
	*h = held{passages: h.passages[:0], records: h.records[:0]}
}
