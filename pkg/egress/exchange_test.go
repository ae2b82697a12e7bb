package egress

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

// ours is a transport to receivers behind pipes; conns grows with each.
func ours(t *testing.T, serve func(net.Conn)) (transport *Transport, conns *[]net.Conn) {
	t.Helper()
	conns = new([]net.Conn)
	var mu sync.Mutex
	transport = both(t, piped(func(c net.Conn) {
		mu.Lock()
		*conns = append(*conns, c)
		mu.Unlock()
		serve(c)
	}))[0].(*Transport)
	return transport, conns
}

// replying answers every request with the next of the texts, and the last one from then on.
func replying(texts ...string) func(net.Conn) {
	return func(c net.Conn) {
		for in := bufio.NewReader(c); request(in) == nil; {
			if _, err := io.WriteString(c, texts[0]); err != nil {
				return
			}
			if len(texts) > 1 {
				texts = texts[1:]
			}
		}
	}
}

func within(t *testing.T, transport http.RoundTripper, timeout time.Duration, body []byte) Response {
	t.Helper()
	return Post(t.Context(), transport, Request{URL: &url.URL{Scheme: "http", Host: "a.example"}, Header: http.Header{}, Body: body, Timeout: timeout, Keep: 100})
}

func TestADeadlineEndsAnExchangeWhereverItIs(t *testing.T) {
	drip := func(head string, each time.Duration) func(net.Conn) {
		return func(c net.Conn) {
			if request(bufio.NewReader(c)) != nil {
				return
			}
			_, err := io.WriteString(c, head)
			for err == nil {
				time.Sleep(each)
				_, err = io.WriteString(c, "a")
			}
		}
	}
	for name, c := range map[string]struct {
		body  int
		serve func(net.Conn)
	}{
		"while a short request is written": {1 << 10, func(c net.Conn) { time.Sleep(time.Hour) }},
		"while a long request is written":  {1 << 20, func(c net.Conn) { time.Sleep(time.Hour) }},
		"while nothing comes":              {2, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }},
		"while a header drips":             {2, drip("HTTP/1.1 200 OK\r\nA: ", time.Second)},
		"while a body drips":               {2, drip("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", time.Second)},
		"while a body without end drips":   {2, drip("HTTP/1.1 200 OK\r\n\r\n", time.Second)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				transport, _ := ours(t, c.serve)
				got := within(t, transport, 10*time.Second, make([]byte, c.body))
				if got.Err != webhook.ErrorTimeout || got.Duration != 10*time.Second {
					t.Errorf("%q after %s", got.Err, got.Duration)
				}
				if len(transport.pool.hosts) != 0 {
					t.Error("the connection is kept")
				}
				time.Sleep(time.Hour) // the receiver ends
			})
		})
	}
}

// TestADeadlineEndsAnExchangeOverTLSAtOnce: closing in good order would have TLS wait for a receiver that reads nothing.
func TestADeadlineEndsAnExchangeOverTLSAtOnce(t *testing.T) {
	certificate, authorities := certificate(t)
	for _, size := range []int{2, 1 << 20} {
		synctest.Test(t, func(t *testing.T) {
			transport, _ := ours(t, func(c net.Conn) {
				server := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, Time: valid(certificate)})
				_ = server.Handshake()
				time.Sleep(time.Hour)
			})
			transport.TLSClientConfig.RootCAs, transport.TLSClientConfig.Time = authorities, valid(certificate)
			got := Post(t.Context(), transport, Request{URL: &url.URL{Scheme: "https", Host: "example.com"}, Header: http.Header{}, Body: make([]byte, size), Timeout: 10 * time.Second})
			if got.Err != webhook.ErrorTimeout || got.Duration != 10*time.Second {
				t.Errorf("%q after %s", got.Err, got.Duration)
			}
			time.Sleep(time.Hour) // the receiver ends
		})
	}
}

// valid is a clock at which a certificate is.
func valid(c tls.Certificate) func() time.Time {
	return func() time.Time { return c.Leaf.NotBefore.Add(time.Hour) }
}

func TestACancelledExchangeEndsAtOnce(t *testing.T) {
	for _, head := range []string{"", "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"} {
		synctest.Test(t, func(t *testing.T) {
			transport, _ := ours(t, func(c net.Conn) {
				if request(bufio.NewReader(c)) == nil {
					_, _ = io.WriteString(c, head)
					_, _ = io.Copy(io.Discard, c)
				}
			})
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(3*time.Second, cancel)
			got := Post(ctx, transport, Request{URL: &url.URL{Scheme: "http", Host: "a.example"}, Header: http.Header{}, Timeout: time.Minute})
			if got.Err != webhook.ErrorCut || got.Duration != 3*time.Second {
				t.Errorf("%q after %s", got.Err, got.Duration)
			}
		})
	}
}

func TestAConnectionOutlivesTheContextsOfItsRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, conns := ours(t, replying(okay))
		for range 20 {
			if got := within(t, transport, time.Second, nil); got.StatusCode != http.StatusOK {
				t.Errorf("%+v", got)
			}
			time.Sleep(30 * time.Second)
		}
		if len(*conns) != 1 {
			t.Errorf("%d connections", len(*conns))
		}
	})
}

func TestWhichResponsesLeaveAConnectionUsable(t *testing.T) {
	for response, usable := range map[string]bool{
		okay:                              true,
		"HTTP/1.1 204 No Content\r\n\r\n": true,
		"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n":                              true,
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n": true,
		"HTTP/1.1 103 Early Hints\r\n\r\n" + okay:                                   true,
		"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok":  true,
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok":       false,
		"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok":                            false,
		"HTTP/1.1 101 Switching Protocols\r\n\r\n":                                  false,
		okay + "x": false,
		"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat("a", 20000): false, // more than is read
	} {
		synctest.Test(t, func(t *testing.T) {
			transport, conns := ours(t, replying(response))
			want := 3
			if usable {
				want = 1
			}
			for range 3 {
				if got := within(t, transport, time.Second, nil); got.Err != webhook.ErrorNone {
					t.Errorf("%.60q: %+v", response, got)
				}
			}
			if len(*conns) != want {
				t.Errorf("%.60q: %d connections for three requests, want %d", response, len(*conns), want)
			}
		})
	}
}

func TestAConnectionThatBreaksWhenItIsUsedAgainIsNotTriedOnAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, conns := ours(t, func(c net.Conn) {
			in := bufio.NewReader(c)
			if request(in) == nil {
				_, _ = io.WriteString(c, okay)
			}
			_ = request(in)
		})
		if got := within(t, transport, time.Second, nil); got.Err != webhook.ErrorNone {
			t.Errorf("%+v", got)
		}
		if got := within(t, transport, time.Second, nil); got.Err != webhook.ErrorReset {
			t.Errorf("%+v", got)
		}
		if len(*conns) != 1 {
			t.Errorf("%d connections", len(*conns))
		}
	})
}

func TestAConnectionIsClosedWhenItHasBeenIdleForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := make(chan time.Duration, 3)
		start := time.Now()
		transport, _ := ours(t, func(c net.Conn) {
			replying(okay)(c)
			closed <- time.Since(start)
		})
		to := func(host string) {
			t.Helper()
			if got := post(t, transport, "http://"+host); got.StatusCode != http.StatusOK {
				t.Errorf("%+v", got)
			}
		}
		to("a.example")
		time.Sleep(time.Minute)
		to("b.example")
		to("c.example")
		time.Sleep(10 * time.Second)
		to("b.example")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		for _, want := range []time.Duration{90 * time.Second, 150 * time.Second, 160 * time.Second} {
			if got := <-closed; got < want || got > want+idleTimeout/10 {
				t.Errorf("closed after %s, want %s or little more", got, want)
			}
		}
		if transport.pool.timer != nil || len(transport.pool.hosts) != 0 {
			t.Error("something is left")
		}
	})
}

// slow answers after a second.
func slow(c net.Conn) {
	for in := bufio.NewReader(c); request(in) == nil; {
		time.Sleep(time.Second)
		_, _ = io.WriteString(c, okay)
	}
}

func TestNoMoreConnectionsAreMadeToAHostThanThereMayBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, conns := ours(t, slow)
		transport.pool.perHost = 2
		var all sync.WaitGroup
		var mu sync.Mutex
		took := map[time.Duration]int{}
		for range 6 {
			all.Go(func() {
				got := within(t, transport, time.Minute, nil)
				mu.Lock()
				defer mu.Unlock()
				took[got.Duration]++
			})
		}
		if all.Wait(); len(*conns) != 2 || took[time.Second] != 2 || took[2*time.Second] != 2 || took[3*time.Second] != 2 {
			t.Errorf("%d connections, %v", len(*conns), took)
		}
	})
}

func TestWhoWaitsTakesThePlaceOfAConnectionThatIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, conns := ours(t, func(c net.Conn) {
			if request(bufio.NewReader(c)) == nil {
				time.Sleep(time.Second)
			}
		})
		transport.pool.perHost = 1
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if got := within(t, transport, time.Minute, nil); got.Err != webhook.ErrorReset {
					t.Errorf("%+v", got)
				}
			})
		}
		if all.Wait(); len(*conns) != 3 || len(transport.pool.hosts) != 0 {
			t.Errorf("%d connections, %d hosts", len(*conns), len(transport.pool.hosts))
		}
	})
}

func TestWhoWaitsForAConnectionWaitsNoLongerThanItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, _ := ours(t, slow)
		transport.pool.perHost = 1
		var first sync.WaitGroup
		first.Go(func() { within(t, transport, time.Minute, nil) })
		synctest.Wait()
		if got := within(t, transport, 500*time.Millisecond, nil); got.Err != webhook.ErrorTimeout || got.Duration != 500*time.Millisecond {
			t.Errorf("%+v", got)
		}
		first.Wait()
		if got := within(t, transport, time.Minute, nil); got.StatusCode != http.StatusOK {
			t.Errorf("afterwards: %+v", got)
		}
	})
}

func TestAConnectionGivenToWhoJustWentIsNotLost(t *testing.T) {
	p := newPool(1, 1)
	to := origin{"http", "a.example", "80"}
	h, _, err := p.take(t.Context(), to)
	if err != nil {
		t.Fatal(err)
	}
	turn := make(chan *conn, 1)
	h.waiting = append(h.waiting, turn)
	near, _ := net.Pipe()
	made := &conn{Conn: near, host: h}
	p.give(h, made)
	p.leave(h, turn)
	if _, c, err := p.take(t.Context(), to); c != made || err != nil {
		t.Errorf("%v, %v", c, err)
	}
}

func TestAResponseReadAfterItsContextHasEndedLeavesNoConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, _ := ours(t, replying(okay))
		ctx, cancel := context.WithCancel(t.Context())
		r, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://a.example/", nil)
		res, err := transport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		if body, err := io.ReadAll(res.Body); string(body) != "ok" || err != nil { // it was there already
			t.Errorf("%q, %v", body, err)
		}
		if len(transport.pool.hosts) != 0 {
			t.Error("the connection is kept, and its deadline is past")
		}
	})
}

func TestTheLastRequestOnAConnectionEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, _ := ours(t, replying("HTTP/1.1 204 No Content\r\n\r\n"))
		r, _ := http.NewRequest(http.MethodGet, "http://a.example/", nil)
		r.Close = true
		if res, err := transport.RoundTrip(r); err != nil || res.StatusCode != http.StatusNoContent {
			t.Errorf("%v, %v", res, err)
		}
		if len(transport.pool.hosts) != 0 {
			t.Error("the connection is kept")
		}
	})
}

func TestADialThatFailsTakesNoPlaceAndIsTheContextsFaultWhereThatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := both(t, func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, &net.DNSError{Err: "no answer", IsTimeout: true}
		})[0].(*Transport)
		if got := within(t, transport, time.Second, nil); got.Err != webhook.ErrorTimeout || got.Duration != time.Second {
			t.Errorf("%+v", got)
		}
		if len(transport.pool.hosts) != 0 {
			t.Error("a place is taken")
		}
	})
}

func TestHeadersBeyondTheBoundAreNamed(t *testing.T) {
	transport, _ := ours(t, replying("HTTP/1.1 200 OK\r\nA: "+strings.Repeat("a", maxHeaderBytes)))
	r, _ := http.NewRequest(http.MethodGet, "http://a.example/", nil)
	if _, err := transport.RoundTrip(r); err == nil || !strings.Contains(err.Error(), "response headers exceeded 16384 bytes") {
		t.Error(err)
	}
}

func TestTheLongestIdleIsClosedWhereThereAreTooMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport, conns := ours(t, replying(okay))
		transport.pool.maxIdle = 2
		for _, host := range []string{"a", "b", "c", "b", "c", "a"} {
			if got := post(t, transport, "http://"+host+".example"); got.StatusCode != http.StatusOK {
				t.Errorf("%+v", got)
			}
			time.Sleep(time.Second)
		}
		if len(*conns) != 4 || transport.pool.idle != 2 || len(transport.pool.hosts) != 2 {
			t.Errorf("%d connections, %d idle, %d hosts", len(*conns), transport.pool.idle, len(transport.pool.hosts))
		}
	})
}

// What is closed is the oldest of eight, so that it is never one of the seven newest, whichever eight were looked at.
func TestOfManyReceiversTheNewestKeepTheirConnections(t *testing.T) {
	const receivers, kept = 100, 20
	synctest.Test(t, func(t *testing.T) {
		transport, conns := ours(t, replying(okay))
		transport.pool.maxIdle = kept
		for n := range receivers {
			if got := post(t, transport, fmt.Sprintf("http://%d.example", n)); got.StatusCode != http.StatusOK {
				t.Errorf("%+v", got)
			}
			time.Sleep(time.Millisecond)
		}
		if len(*conns) != receivers || transport.pool.idle != kept || len(transport.pool.hosts) != kept {
			t.Errorf("%d connections, %d idle, %d hosts", len(*conns), transport.pool.idle, len(transport.pool.hosts))
		}
		for n := receivers - 7; n < receivers; n++ {
			if transport.pool.hosts[origin{"http", fmt.Sprintf("%d.example", n), "80"}] == nil {
				t.Errorf("the connection to receiver %d of %d is closed", n, receivers)
			}
		}
	})
}

func TestOneOriginIsOneWhetherItsPortIsSpelledOutOrNot(t *testing.T) {
	for raw, want := range map[string]origin{
		"http://a.example":           {"http", "a.example", "80"},
		"http://a.example:80/x?y":    {"http", "a.example", "80"},
		"https://a.example":          {"https", "a.example", "443"},
		"https://a.example:8443":     {"https", "a.example", "8443"},
		"https://[2001:db8::1]":      {"https", "2001:db8::1", "443"},
		"https://u:p@[2001:db8::1]/": {"https", "2001:db8::1", "443"},
	} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := originOf(u); got != want || err != nil {
			t.Errorf("%s: %+v, %v", raw, got, err)
		}
	}
}
