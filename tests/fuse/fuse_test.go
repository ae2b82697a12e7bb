// Package fuse plays the documents of Fuse with real processes: an aggregator posts, the client's own handler, in Node, verifies and
// calls back, and what follows comes after it and in order, although the client fails at times and a process is killed.
package fuse

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hookline/hookline/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const (
	connections  = 1000
	patience     = 5 * time.Minute
	syncData     = "financial_connection.sync_data"
	updates      = "transactions.updates"
	disconnected = "financial_connection.disconnected"
	finished     = "financial_connection.finished"
	requested    = "financial_connection.sync_requested"
)

// The rounds of what the aggregator says about every connection, and what follows from each.
var follow = [][]string{{updates, disconnected}, {updates}, {disconnected}, {finished}}

// remote is what the aggregator says the n-th time about a connection: new transactions and a broken login, more transactions, a login
// that is going to break, then the end.
func remote(n, round int) string {
	switch round {
	case 0:
		return fmt.Sprintf(`{"webhook_type":"TRANSACTIONS","webhook_code":"DEFAULT_UPDATE","item_id":%q,"new_transactions":3,"error":{"error_code":"ITEM_LOGIN_REQUIRED","status":400}}`, item(n))
	case 1:
		return fmt.Sprintf(`{"webhook_type":"TRANSACTIONS","webhook_code":"DEFAULT_UPDATE","item_id":%q,"new_transactions":1,"error":null}`, item(n))
	case 2:
		return fmt.Sprintf(`{"webhook_type":"ITEM","webhook_code":"PENDING_EXPIRATION","item_id":%q}`, item(n))
	default:
		return fmt.Sprintf("{\n  \"webhook_type\": \"ITEM\",\n  \"webhook_code\": \"USER_PERMISSION_REVOKED\",\n  \"item_id\": %q,\n  \"error\": null\n}", item(n))
	}
}

// postAll posts rounds for every connection, one upon the other, several connections at once.
func (s *stage) postAll(addresses []string, rounds ...int) {
	s.t.Helper()
	var all sync.WaitGroup
	work := make(chan int)
	for range 16 {
		all.Go(func() {
			for n := range work {
				for _, round := range rounds {
					id := fmt.Sprintf("request-%d-%d", round, n)
					if err := testenv.Until(time.Minute, func() bool {
						status, _ := s.post(addresses[n%len(addresses)], id, remote(n, round))
						return status == http.StatusAccepted
					}); err != nil {
						s.t.Errorf("%s was not accepted", id)
					}
				}
			}
		})
	}
	for n := range connections {
		work <- n
	}
	close(work)
	all.Wait()
}

func TestAThousandConnectionsAreSyncedAndFollowedInOrderThroughFailuresAndAKill(t *testing.T) {
	s := open(t, connections, 0.15, "none")
	s.postAll(s.ingest, 0)
	s.await(updates, connections/4)
	s.Crew["ingest 2"].Kill()
	delete(s.Crew, "ingest 2")
	t.Log("killed one of two ingest processes")
	s.postAll(s.ingest[:1], 1, 2, 3)
	s.await(syncData, connections*len(follow))
	counts := map[string]int{}
	for _, types := range follow {
		for _, eventType := range types {
			counts[eventType] += connections
		}
	}
	for eventType, count := range counts {
		s.await(eventType, count)
	}
	all := s.received()
	c := checker{stage: s, lines: all}
	c.checkSyncs()
	c.checkOrder()
	t.Logf("%d requests, of which %d failed; %d pairs of syncs of one connection were called back one after the other, and in %d of them what followed had to wait; %d were called back at the same time",
		len(all), len(slices.DeleteFunc(slices.Clone(all), func(r received) bool { return r.Status == 200 })), c.successive, c.waited, c.overlapping)
	if c.successive < connections || c.waited < connections/10 {
		t.Error("that is too little to show an order")
	}
	s.Stop()
}

// checker holds the receiver's log to the promise.
type checker struct {
	*stage
	lines                                     []received
	problems, successive, overlapping, waited int
}

func (c *checker) report(format string, args ...any) {
	c.t.Helper()
	if c.problems++; c.problems < 10 {
		c.t.Errorf(format, args...)
	}
}

// checkSyncs: every webhook verifies; a follow-up comes after its sync was called back and accepted; the follow-ups of one sync come in
// the order of the rules, each after the one before was accepted; and all of them come.
func (c *checker) checkSyncs() {
	c.t.Helper()
	type of struct{ connection, remote, eventType string }
	accepted, synced := map[of]int{}, map[of]bool{}
	for i, r := range c.lines {
		at := func(eventType string) of { return of{r.Connection, r.Remote, eventType} }
		if !r.Verified {
			c.report("line %d: %s of %s does not verify", i, r.Type, r.Connection)
		}
		switch r.Type {
		case syncData:
			synced[at(syncData)] = synced[at(syncData)] || r.Synced
		case updates, disconnected, finished:
			if !synced[at(syncData)] {
				c.report("line %d: %s of %s came without a callback", i, r.Type, r.Connection)
			}
			if accepted[at(syncData)] == 0 {
				c.report("line %d: %s of %s came before its sync was accepted", i, r.Type, r.Connection)
			}
			if strings.Contains(r.Remote, "ITEM_LOGIN_REQUIRED") && r.Type == disconnected && accepted[at(updates)] == 0 {
				c.report("line %d: %s of %s came before what is before it was accepted", i, r.Type, r.Connection)
			}
			if r.Source != "fuse" || r.Type == updates && (r.Historical == nil || !*r.Historical) {
				c.report("line %d: %+v", i, r)
			}
		default:
			c.report("line %d: a webhook of type %s", i, r.Type)
		}
		if r.Status == http.StatusOK {
			accepted[at(r.Type)]++
		}
	}
	for n := range connections {
		for round, types := range follow {
			for _, eventType := range append([]string{syncData}, types...) {
				if accepted[of{connection(n), remote(n, round), eventType}] == 0 {
					c.report("%s of %s is missing", eventType, connection(n))
				}
			}
		}
	}
}

// passage is when a sync was called back, when the first of its follow-ups came, and when the last of them was accepted, in steps of the
// receiver.
type passage struct{ called, answered, first, last int }

// checkOrder: of two syncs of one connection, all follow-ups of the one that was called back first are accepted before any of the other
// comes. Where the calls were under way at the same time either may be first.
func (c *checker) checkOrder() {
	c.t.Helper()
	of := map[string]map[string]*passage{}
	accepted := map[received]bool{}
	for _, r := range c.lines {
		if of[r.Connection] == nil {
			of[r.Connection] = map[string]*passage{}
		}
		p := of[r.Connection][r.Remote]
		if p == nil {
			p = &passage{}
			of[r.Connection][r.Remote] = p
		}
		which := received{Type: r.Type, Connection: r.Connection, Remote: r.Remote}
		switch {
		case r.Type == syncData:
			// One whose answer was lost may have been taken.
			if p.called == 0 || r.Called > 0 && r.Called < p.called {
				p.called = r.Called
			}
			if r.Answered > 0 && (p.answered == 0 || r.Answered < p.answered) {
				p.answered = r.Answered
			}
		case p.first == 0:
			p.first = r.Step
		}
		if r.Type != syncData && r.Status == http.StatusOK && !accepted[which] {
			accepted[which], p.last = true, r.Step
		}
	}
	for connection, syncs := range of {
		for a, before := range syncs {
			for b, after := range syncs {
				switch {
				case a == b:
				case before.answered < after.called:
					c.successive++
					if after.answered < before.last {
						c.waited++
					}
					if before.last >= after.first {
						c.report("%s: %s was called back first, and what follows from %s came at step %d, before step %d", connection, a, b, after.first, before.last)
					}
				case a < b && after.answered >= before.called:
					if c.overlapping++; before.last >= after.first && after.last >= before.first {
						c.report("%s: what follows from %s and from %s is mixed", connection, a, b)
					}
				}
			}
		}
	}
}
