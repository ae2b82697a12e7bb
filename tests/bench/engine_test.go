package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestATallyIsOfTheMiddleAndOfEveryRepeat(t *testing.T) {
	g := &arrivalsOf{seen: map[string]int64{"a": 0, "b": 0}, repeats: []int64{7}}
	for n := range int64(100) {
		g.at = append(g.at, n*int64(10*time.Millisecond))
		g.delay = append(g.delay, 100-n)
	}
	got := g.tally()
	if got.Requests != 100 || got.Events != 2 || got.PerSecond != 100 || got.P50 != 51 || got.P99 != 100 || got.Longest != 100 || len(got.Repeats) != 1 {
		t.Errorf("%+v", got)
	}
	if none := (*arrivalsOf)(nil).tally(); none.Requests != 0 {
		t.Errorf("of nothing: %+v", none)
	}
}

func TestEndpointsOfTheEngineHaveAddressesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for n := range 10_000 {
		host, _, _ := strings.Cut(strings.TrimPrefix(engineReceiver{"80"}.hook(2*n, "g", 5), "http://"), ":")
		if seen[host] || !strings.HasPrefix(host, "127.") {
			t.Fatalf("endpoint %d is at %s, as another is", n, host)
		}
		seen[host] = true
	}
}

func TestTheTimeInABodyIsWhenItWasWritten(t *testing.T) {
	now := time.Now().UnixNano()
	if at, ok := sentAt(fmt.Appendf(nil, `{"data":{%s%0*d","note":"x"}}`, sentMark, sentDigits, now)); !ok || at != now {
		t.Errorf("%d, %v", at, ok)
	}
	if _, ok := sentAt([]byte(`{}`)); ok {
		t.Error("a time in a body without one")
	}
}
