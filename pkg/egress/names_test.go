package egress

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// resolver answers as scripted, after a second.
type resolver struct {
	mu    sync.Mutex
	asked int
	err   error
}

func (r *resolver) lookup(context.Context, string) ([]netip.Addr, error) {
	time.Sleep(time.Second)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked++
	if r.err != nil {
		return nil, r.err
	}
	return []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(r.asked)})}, nil
}

func (r *resolver) fails(err error) { r.mu.Lock(); defer r.mu.Unlock(); r.err = err }

func TestANameIsAskedForOnceWhileItsAnswerIsFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &resolver{}
		n := newNames(r.lookup)
		var asking sync.WaitGroup
		for range 50 {
			asking.Go(func() {
				if addrs, err := n.resolve(t.Context(), "a.example"); err != nil || len(addrs) != 1 {
					t.Errorf("%v, %v", addrs, err)
				}
			})
		}
		asking.Wait()
		if r.asked != 1 {
			t.Errorf("the resolver was asked %d times at once", r.asked)
		}
		time.Sleep(nameFresh)
		if addrs, _ := n.resolve(t.Context(), "a.example"); r.asked != 2 || addrs[0].As4()[3] != 2 {
			t.Errorf("asked %d times when the answer was old, got %v", r.asked, addrs)
		}
	})
}

func TestAnOldAnswerIsUsedWhileTheResolverFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &resolver{}
		n := newNames(r.lookup)
		if _, err := n.resolve(t.Context(), "a.example"); err != nil {
			t.Fatal(err)
		}
		down := errors.New("no resolver")
		r.fails(down)
		time.Sleep(nameFresh)
		if addrs, err := n.resolve(t.Context(), "a.example"); err != nil || len(addrs) != 1 {
			t.Errorf("%v, %v: want the old answer", addrs, err)
		}
		time.Sleep(nameStale)
		if _, err := n.resolve(t.Context(), "a.example"); !errors.Is(err, down) {
			t.Errorf("%v after ten minutes", err)
		}
		r.fails(nil)
		time.Sleep(failureFresh)
		if _, err := n.resolve(t.Context(), "a.example"); err != nil {
			t.Errorf("%v although the resolver answers again", err)
		}
	})
}

func TestWhoeverAsksWaitsNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNames((&resolver{}).lookup)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := n.resolve(ctx, "a.example"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		if addrs, err := n.resolve(t.Context(), "a.example"); err != nil || len(addrs) != 1 {
			t.Errorf("%v, %v: the answer was lost with the one who asked", addrs, err)
		}
	})
}
