package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/hookline/hookline/pkg/run"
)

const (
	partEngineReceiver = "engine-receiver"
	sentMark           = `"sent":"`
	sentDigits         = 19
)

// arrivalsOf is what came to one group of endpoints.
type arrivalsOf struct {
	at      []int64 // Unix times in nanoseconds
	delay   []int64 // from when the event was written, as its body says
	seen    map[string]int64
	repeats []int64 // of an event that had come before: when it had come first
}

// tally is what the bench asks for about a group.
type tally struct {
	Requests  int     `json:"requests"`
	Events    int     `json:"events"`
	PerSecond float64 `json:"perSecond"` // in the middle half of the requests
	P50       int64   `json:"p50"`
	P99       int64   `json:"p99"`
	Longest   int64   `json:"longest"`
	Repeats   []int64 `json:"repeats"`
}

// runEngineReceiver serves on the port that is its only argument, on every loopback address. A POST to /group/ms is
// noted for the group and answered after so many milliseconds; a negative number means never.
func runEngineReceiver(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("engine-receiver: want one argument, the address to listen on")
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp4", args[0])
	if err != nil {
		return err
	}
	var mu sync.Mutex
	groups := map[string]*arrivalsOf{}
	note := func(group, id string, body []byte) {
		now := time.Now().UnixNano()
		mu.Lock()
		defer mu.Unlock()
		g := groups[group]
		if g == nil {
			g = &arrivalsOf{seen: map[string]int64{}}
			groups[group] = g
		}
		g.at = append(g.at, now)
		if sent, ok := sentAt(body); ok {
			g.delay = append(g.delay, now-sent)
		}
		if first, again := g.seen[id]; again {
			g.repeats = append(g.repeats, first)
		} else {
			g.seen[id] = now
		}
	}
	server := &fasthttp.Server{NoDefaultServerHeader: true, NoDefaultDate: true, ReduceMemoryUsage: true, Handler: func(c *fasthttp.RequestCtx) {
		path := string(c.Path())
		if group, ok := strings.CutPrefix(path, "/tally/"); ok {
			mu.Lock()
			defer mu.Unlock()
			_ = json.NewEncoder(c).Encode(groups[group].tally()) // it writes to memory
			return
		}
		if group, ok := strings.CutPrefix(path, "/events/"); ok {
			mu.Lock()
			defer mu.Unlock()
			c.Response.AppendBodyString(strconv.Itoa(groups[group].events()))
			return
		}
		group, wait, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
		note(group, string(c.Request.Header.Peek("Webhook-Id")), c.Request.Body())
		switch ms, err := strconv.Atoi(wait); {
		case err != nil:
			c.SetStatusCode(fasthttp.StatusNotFound)
		case ms < 0:
			<-ctx.Done()
		case ms > 0:
			run.Pause(ctx, time.Duration(ms)*time.Millisecond)
		}
	}}
	unhook := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer unhook()
	err = server.Serve(listener)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func sentAt(body []byte) (int64, bool) {
	_, rest, found := bytes.Cut(body, []byte(sentMark))
	if !found || len(rest) < sentDigits {
		return 0, false
	}
	at, err := strconv.ParseInt(string(rest[:sentDigits]), 10, 64)
	return at, err == nil
}

func (g *arrivalsOf) events() int {
	if g == nil {
		return 0
	}
	return len(g.seen)
}

func (g *arrivalsOf) tally() tally {
	if g == nil {
		return tally{}
	}
	t := tally{Requests: len(g.at), Events: g.events(), Repeats: g.repeats}
	if n := len(g.at); n > 8 {
		t.PerSecond = float64(n/2) / time.Duration(g.at[n/4+n/2]-g.at[n/4]).Seconds()
	}
	if sorted := slices.Sorted(slices.Values(g.delay)); len(sorted) > 0 {
		t.P50, t.P99, t.Longest = sorted[len(sorted)/2], sorted[len(sorted)*99/100], sorted[len(sorted)-1]
	}
	return t
}

// engineReceiver asks such a process.
type engineReceiver struct{ port string }

// hostAddress is a loopback address for each host.
func hostAddress(host int) string {
	return net.IPv4(127, byte(host>>16), byte(host>>8), byte(host)|1).String()
}

// hook is the URL of an endpoint; host tells endpoints apart for the client's connections.
func (r engineReceiver) hook(host int, group string, ms int) string {
	address := net.JoinHostPort(hostAddress(host), r.port)
	return (&url.URL{Scheme: "http", Host: address, Path: "/" + group + "/" + strconv.Itoa(ms), RawQuery: "n=" + strconv.Itoa(host)}).String()
}

// events is how many different ones have come to a group. It costs the receiver next to nothing; a tally sorts all.
func (r engineReceiver) events(ctx context.Context, group string) (int, error) {
	text, err := fetch(ctx, "http://127.0.0.1:"+r.port+"/events/"+group)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(string(text))
}

func (r engineReceiver) tally(ctx context.Context, group string) (t tally, err error) {
	text, err := fetch(ctx, "http://127.0.0.1:"+r.port+"/tally/"+group)
	if err == nil {
		err = json.Unmarshal(text, &t)
	}
	return t, err
}
