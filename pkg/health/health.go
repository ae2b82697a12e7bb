// Package health holds what a process can say about itself: which of the things it needs are away. It serves /livez and
// /readyz; it checks nothing itself.
package health

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
)

// Health collects the conditions of one process. All methods may be called concurrently.
type Health struct {
	mu         sync.Mutex
	conditions map[string]error
	stopping   bool
}

// New has no conditions and is ready.
func New() *Health { return &Health{conditions: map[string]error{}} }

// Condition is one thing a service needs, such as "delivery: kafka".
type Condition struct {
	health *Health
	name   string
}

// Need adds a condition, which is unmet with the given reason until [Condition.Set] says otherwise.
func (h *Health) Need(name string, reason error) *Condition {
	c := &Condition{health: h, name: name}
	c.Set(reason)
	return c
}

// Set says that the condition is met (nil), or why it is not.
func (c *Condition) Set(err error) {
	c.health.mu.Lock()
	defer c.health.mu.Unlock()
	c.health.conditions[c.name] = err
}

// Await waits until ready is closed; then the condition is met. It returns ctx's error when ctx ends before.
func (c *Condition) Await(ctx context.Context, ready <-chan struct{}) error {
	select {
	case <-ready:
		c.Set(nil)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Stopping makes the process not ready for good: it is draining.
func (h *Health) Stopping() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopping = true
}

// Unmet are the conditions that are not met, by name. It is empty when the process is ready.
func (h *Health) Unmet() map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	unmet := map[string]string{}
	for name, err := range h.conditions {
		if err != nil {
			unmet[name] = err.Error()
		}
	}
	if h.stopping {
		unmet["process"] = "stopping"
	}
	return unmet
}

// Register adds /livez, which always answers 200, and /readyz, which answers 503 with the unmet conditions.
func (h *Health) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		unmet := h.Unmet()
		w.Header().Set("Content-Type", "application/json")
		if len(unmet) > 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		// The client may have gone; there is nobody to tell.
		_ = json.NewEncoder(w).Encode(map[string]any{"ready": len(unmet) == 0, "unmet": unmet})
	})
}
