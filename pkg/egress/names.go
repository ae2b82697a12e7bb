package egress

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// names remembers what the resolver answered, so that new connections to a busy host need no question each. What it
// remembers is not trusted: every address is checked again when it is dialled. Methods may be called concurrently.
type names struct {
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)

	mu     sync.Mutex
	byHost map[string]*answer
}

// answer is a question under way until done is closed, and what came of it from then on.
type answer struct {
	done  chan struct{}
	at    time.Time
	addrs []netip.Addr
	err   error
}

const (
	// nameFresh is how long an answer is used without asking again; Go's resolver does not tell what the name's owner
	// wishes. A failure is asked about again soon.
	nameFresh, failureFresh = 30 * time.Second, time.Second
	// nameStale is how long an answer is used where the resolver fails.
	nameStale     = 10 * time.Minute
	lookupTimeout = 5 * time.Second
	maxNames      = 20_000
)

func newNames(lookup func(context.Context, string) ([]netip.Addr, error)) *names {
	return &names{lookup: lookup, byHost: map[string]*answer{}}
}

// resolve returns the addresses of a host. It blocks until the resolver has answered or ctx ends; whoever asks for the
// same host meanwhile waits for the same answer.
func (n *names) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	a := n.ask(ctx, host, time.Now())
	select {
	case <-a.done:
		return a.addrs, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *names) ask(ctx context.Context, host string, now time.Time) *answer {
	n.mu.Lock()
	defer n.mu.Unlock()
	known := n.byHost[host]
	if known != nil && known.fresh(now) {
		return known
	}
	if len(n.byHost) >= maxNames {
		n.byHost = map[string]*answer{}
	}
	a := &answer{done: make(chan struct{}), at: now}
	n.byHost[host] = a
	go n.answer(context.WithoutCancel(ctx), a, known, host)
	return a
}

// answer asks on its own time: that of the request which happened to be the first may be almost over.
func (n *names) answer(ctx context.Context, a, known *answer, host string) {
	defer close(a.done)
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	a.addrs, a.err = n.lookup(ctx, host)
	if a.err != nil && known != nil && known.err == nil && time.Since(known.at) < nameStale {
		// As old as it is, so that the next who asks has the resolver asked again.
		n.mu.Lock()
		defer n.mu.Unlock()
		a.addrs, a.err, a.at = known.addrs, nil, known.at
	}
}

func (a *answer) fresh(now time.Time) bool {
	select {
	case <-a.done:
	default:
		return true // under way
	}
	if a.err != nil {
		return now.Sub(a.at) < failureFresh
	}
	return now.Sub(a.at) < nameFresh
}
