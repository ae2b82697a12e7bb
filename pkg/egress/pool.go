package egress

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"time"
)

// origin is what connections may be shared for: RFC 9110, section 4.3.1.
type origin struct{ scheme, host, port string }

func originOf(u *url.URL) (origin, error) {
	if u == nil || u.Hostname() == "" {
		return origin{}, errors.New("no host in the URL of the request")
	}
	switch u.Scheme {
	case "https":
		return origin{u.Scheme, u.Hostname(), cmp.Or(u.Port(), "443")}, nil
	case "http":
		return origin{u.Scheme, u.Hostname(), cmp.Or(u.Port(), "80")}, nil
	}
	return origin{}, fmt.Errorf("unsupported protocol scheme %q", u.Scheme)
}

// pool keeps idle connections for the next request to their origin, and bounds how many there are. It may be used
// concurrently, and starts no goroutine.
type pool struct {
	perHost, maxIdle int

	mu    sync.Mutex
	hosts map[origin]*host
	idle  *list.List // of *conn; the oldest is in front
	timer *time.Timer
}

// host is an origin to which connections are open, or being made.
type host struct {
	origin
	open    int
	idle    []*conn // the newest is last
	waiting []chan *conn
}

func newPool(perHost, maxIdle int) *pool {
	return &pool{perHost: perHost, maxIdle: maxIdle, hosts: map[origin]*host{}, idle: list.New()}
}

// take returns the connection to an origin that was used last. Where there is none it returns nil, and the caller makes
// one. It blocks while there are as many as there may be, until ctx ends. In either case the caller must call give.
func (p *pool) take(ctx context.Context, to origin) (*host, *conn, error) {
	p.mu.Lock()
	h := p.hosts[to]
	if h == nil {
		h = &host{origin: to}
		p.hosts[to] = h
	}
	if last := len(h.idle) - 1; last >= 0 {
		c := h.idle[last]
		p.forget(c, last)
		p.mu.Unlock()
		return h, c, nil
	}
	if h.open < p.perHost {
		h.open++
		p.mu.Unlock()
		return h, nil, nil
	}
	turn := make(chan *conn, 1)
	h.waiting = append(h.waiting, turn)
	p.mu.Unlock()
	select {
	case c := <-turn:
		return h, c, nil
	case <-ctx.Done():
		p.leave(h, turn)
		return nil, nil, ctx.Err()
	}
}

// leave is for who waits no more, and may have been given a connection meanwhile.
func (p *pool) leave(h *host, turn chan *conn) {
	p.mu.Lock()
	at := slices.Index(h.waiting, turn)
	if at >= 0 {
		h.waiting = slices.Delete(h.waiting, at, at+1)
	}
	p.mu.Unlock()
	if at < 0 {
		p.give(h, <-turn)
	}
}

// give returns a connection, or nil for one that was closed or never made. Who waits has it next.
func (p *pool) give(h *host, c *conn) {
	p.mu.Lock()
	if len(h.waiting) > 0 {
		h.waiting[0] <- c
		h.waiting = slices.Delete(h.waiting, 0, 1)
		p.mu.Unlock()
		return
	}
	if c == nil {
		p.closed(h)
		p.mu.Unlock()
		return
	}
	c.since = time.Now()
	c.place = p.idle.PushBack(c)
	h.idle = append(h.idle, c)
	p.watch()
	tooMany := p.idle.Len() > p.maxIdle
	p.mu.Unlock()
	if tooMany {
		p.shed(func(*conn) bool { return p.idle.Len() > p.maxIdle })
	}
}

// shed closes idle connections, the oldest first, as long as they are superfluous.
func (p *pool) shed(superfluous func(oldest *conn) bool) {
	var out []*conn
	p.mu.Lock()
	for first := p.idle.Front(); first != nil && superfluous(first.Value.(*conn)); first = p.idle.Front() {
		c := first.Value.(*conn)
		p.forget(c, 0)
		p.closed(c.host)
		out = append(out, c)
	}
	if p.timer != nil {
		p.timer.Stop()
		p.timer = nil
	}
	p.watch()
	p.mu.Unlock()
	for _, c := range out {
		_ = c.Close() // it was idle
	}
}

// watch sets the timer for the oldest connection, unless it is set for that or an older one.
func (p *pool) watch() {
	oldest := p.idle.Front()
	if p.timer != nil || oldest == nil {
		return
	}
	p.timer = time.AfterFunc(idleTimeout-time.Since(oldest.Value.(*conn).since), func() {
		p.shed(func(c *conn) bool { return time.Since(c.since) >= idleTimeout })
	})
}

// forget takes a connection out of what is idle; at is its place at its host.
func (p *pool) forget(c *conn, at int) {
	c.host.idle = slices.Delete(c.host.idle, at, at+1)
	p.idle.Remove(c.place)
}

func (p *pool) closed(h *host) {
	h.open--
	if h.open == 0 {
		delete(p.hosts, h.origin)
	}
}
