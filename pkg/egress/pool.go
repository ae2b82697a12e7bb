package egress

import (
	"cmp"
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
	idle  int // connections of all hosts
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
	return &pool{perHost: perHost, maxIdle: maxIdle, hosts: map[origin]*host{}}
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
		p.remove(h, last)
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
	h.idle = append(h.idle, c)
	p.idle++
	p.watch()
	var out *conn
	if p.idle > p.maxIdle {
		out = p.evict()
	}
	p.mu.Unlock()
	if out != nil {
		_ = out.Close() // it was idle
	}
}

// evict removes an idle connection that is among the oldest: of the oldest of a few hosts, which are picked at random. An order of
// all of them would cost every request more than a better choice is worth.
func (p *pool) evict() *conn {
	const few = 8
	var oldest *conn
	looked := 0
	for _, h := range p.hosts {
		if len(h.idle) > 0 && (oldest == nil || h.idle[0].since.Before(oldest.since)) {
			oldest = h.idle[0]
		}
		if looked++; looked >= few && oldest != nil {
			break
		}
	}
	p.remove(oldest.host, 0)
	p.closed(oldest.host)
	return oldest
}

// shed closes the connections that have been idle for so long.
func (p *pool) shed(idle time.Duration) {
	var out []*conn
	now := time.Now()
	p.mu.Lock()
	for _, h := range p.hosts {
		for len(h.idle) > 0 && now.Sub(h.idle[0].since) >= idle {
			out = append(out, h.idle[0])
			p.remove(h, 0)
			p.closed(h)
		}
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

// watch has connections closed that were idle for too long, within a tenth of that.
func (p *pool) watch() {
	if p.timer == nil && p.idle > 0 {
		p.timer = time.AfterFunc(idleTimeout/10, func() { p.shed(idleTimeout) })
	}
}

// remove takes a connection out of what is idle; at is its place at its host.
func (p *pool) remove(h *host, at int) {
	h.idle = slices.Delete(h.idle, at, at+1)
	p.idle--
}

func (p *pool) closed(h *host) {
	h.open--
	if h.open == 0 {
		delete(p.hosts, h.origin)
	}
}
