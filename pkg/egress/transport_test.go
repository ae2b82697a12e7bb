package egress

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

const okay = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// request reads a request to the end of its body.
func request(from *bufio.Reader) error {
	r, err := http.ReadRequest(from)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, r.Body)
	return err
}

// secure is a receiver over TLS, of which the transport knows the certificate.
func secure(t *testing.T, transport *Transport, serve func(*tls.Conn)) (url string) {
	t.Helper()
	certificate, authorities := certificate(t)
	transport.TLSClientConfig.RootCAs = authorities
	return "https://" + receiver(t, func(plain net.Conn) {
		c := tls.Server(plain, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13})
		if c.Handshake() == nil {
			serve(c)
		}
	})
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	authorities := x509.NewCertPool()
	authorities.AddCert(server.Certificate())
	return server.TLS.Certificates[0], authorities
}

func TestAConnectionOnWhichSomethingCameWhileItWasIdleIsNotUsedAgain(t *testing.T) {
	for name, idle := range map[string]func(net.Conn){
		"its end":             func(c net.Conn) { c.Close() },
		"an unasked response": func(c net.Conn) { _, _ = io.WriteString(c, okay) },
	} {
		for _, scheme := range []string{"http", "https"} {
			t.Run(name+" over "+scheme, func(t *testing.T) {
				var conns atomic.Int64
				came := make(chan struct{})
				serve := func(c net.Conn) {
					conns.Add(1)
					in := bufio.NewReader(c)
					for request(in) == nil {
						_, _ = io.WriteString(c, okay)
						idle(c)
						came <- struct{}{}
					}
				}
				transport := loopback(t)
				to := secure(t, transport, func(c *tls.Conn) { serve(c) })
				if scheme == "http" {
					to = "http://" + receiver(t, serve)
				}
				for n := range int64(3) {
					if got := post(t, transport, to); string(got.Body) != "ok" {
						t.Fatalf("request %d: %+v", n+1, got)
					}
					<-came
					if conns.Load() != n+1 {
						t.Errorf("%d connections for %d requests", conns.Load(), n+1)
					}
				}
			})
		}
	}
}

func TestWhatTLSLeftUnreadIsNotTheNextResponse(t *testing.T) {
	transport := loopback(t)
	var conns atomic.Int64
	long := strings.Repeat("a", 8<<10)
	to := secure(t, transport, func(c *tls.Conn) {
		conns.Add(1)
		for in := bufio.NewReader(c); request(in) == nil; {
			// One record: what is behind the body is decrypted with it.
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%sHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", len(long), long)
		}
	})
	for range 3 {
		if got := post(t, transport, to); got.StatusCode != http.StatusOK || got.Read != len(long) {
			t.Errorf("%+v", got)
		}
	}
	if conns.Load() != 3 {
		t.Errorf("%d connections", conns.Load())
	}
}

func TestATicketLeavesAConnectionUsable(t *testing.T) {
	transport := loopback(t)
	to := secure(t, transport, func(c *tls.Conn) {
		for in := bufio.NewReader(c); request(in) == nil; {
			_, _ = io.WriteString(c, okay)
		}
	})
	u, _ := url.Parse(to)
	made, err := transport.dial(t.Context(), origin{"https", u.Hostname(), u.Port()})
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	// The receiver's tickets follow its part of the handshake. They are there when something of its answer is, which is not read here.
	if _, err := io.WriteString(made, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if !made.quiet() {
			t.Fatal("not quiet before the response")
		}
	}
	_, _ = io.WriteString(made, "{}")
	made.left = 1 << 10
	if res, err := http.ReadResponse(bufio.NewReader(made), nil); err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("%v, %v", res, err)
	}
}

func TestConnectionsOverTLSAreUsedAgain(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		server, conns := counted(t, "ok")
		server.Close()
		server = httptest.NewUnstartedServer(server.Config.Handler)
		server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				conns.Add(1)
			}
		}
		server.TLS = &tls.Config{MinVersion: version, MaxVersion: version}
		server.StartTLS()
		defer server.Close()
		transport := loopback(t)
		transport.TLSClientConfig.RootCAs = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
		for range 5 {
			if got := post(t, transport, server.URL); string(got.Body) != "ok" {
				t.Errorf("%+v", got)
			}
		}
		if conns.Load() != 1 {
			t.Errorf("%s: %d connections for five requests", tls.VersionName(version), conns.Load())
		}
		transport.CloseIdleConnections()
	}
}

func TestAnAnswerThatComesBeforeTheRequestIsWrittenIsHeard(t *testing.T) {
	const refusal = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"
	for name, c := range map[string]struct {
		size  int
		stays bool
	}{
		"short, then the end":    {1 << 10, false},
		"long, then the end":     {8 << 20, false},
		"long, and nothing more": {8 << 20, true},
	} {
		t.Run(name, func(t *testing.T) {
			over := make(chan struct{})
			to := "http://" + receiver(t, func(conn net.Conn) {
				_, _ = conn.Read(make([]byte, 16))
				_, _ = io.WriteString(conn, refusal)
				if c.stays {
					<-over
				}
			})
			defer close(over)
			endpoint, _ := url.Parse(to)
			transport := loopback(t)
			requests := 1
			if c.size > atOnce {
				requests = 2 // the second is not sent behind what is left of the first
			}
			for range requests {
				got := Post(t.Context(), transport, Request{URL: endpoint, Header: http.Header{}, Body: make([]byte, c.size), Timeout: time.Minute, Keep: 100})
				if got.StatusCode != http.StatusRequestEntityTooLarge || string(got.Body) != "no" {
					t.Errorf("%+v", got)
				}
			}
		})
	}
}

func TestALongRequestLeavesItsConnectionUsable(t *testing.T) {
	server, conns := counted(t, "ok")
	transport := loopback(t)
	endpoint, _ := url.Parse(server.URL)
	for range 3 {
		got := Post(t.Context(), transport, Request{URL: endpoint, Header: http.Header{}, Body: make([]byte, 1<<20), Timeout: time.Minute, Keep: 100})
		if string(got.Body) != "ok" {
			t.Errorf("%+v", got)
		}
	}
	if conns.Load() != 1 {
		t.Errorf("%d connections", conns.Load())
	}
}

// versatile speaks HTTP/2 as long as it is told to, and counts the connections that are open.
func versatile(t *testing.T, transport *Transport) (to string, second *atomic.Bool, open *atomic.Int64) {
	t.Helper()
	second, open = new(atomic.Bool), new(atomic.Int64)
	second.Store(true)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %s", r.Proto, body)
	}))
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	server.Config.ConnState = func(c net.Conn, state http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		if state == http.StateClosed {
			delete(conns, c)
		} else {
			conns[c] = true
		}
		open.Store(int64(len(conns)))
	}
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	server.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if second.Load() {
			return nil, nil
		}
		first := server.TLS.Clone()
		first.GetConfigForClient, first.NextProtos = nil, []string{"http/1.1"}
		return first, nil
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	t.Cleanup(transport.CloseIdleConnections)
	transport.TLSClientConfig.RootCAs = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	return server.URL, second, open
}

func TestManyFirstRequestsOverHTTP2LeaveOneConnection(t *testing.T) {
	transport := loopback(t)
	to, _, open := versatile(t, transport)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if got := post(t, transport, to); string(got.Body) != "HTTP/2.0 {}" {
				t.Errorf("%+v", got)
			}
		})
	}
	all.Wait()
	for range 3 {
		if got := post(t, transport, to); string(got.Body) != "HTTP/2.0 {}" {
			t.Errorf("%+v", got)
		}
	}
	for open.Load() > 1 {
		time.Sleep(time.Millisecond)
	}
	if n := len(transport.pool.hosts); n != 0 {
		t.Errorf("%d hosts have connections for HTTP/1.1", n)
	}
}

// watched is a connection of which is known whether it was closed.
type watched struct {
	net.Conn
	closed *atomic.Int64
}

func (w watched) Close() error {
	w.closed.Add(1)
	return w.Conn.Close()
}

func TestAConnectionForHTTP2IsUsedForTheRequestThatMadeItOrClosed(t *testing.T) {
	transport := loopback(t)
	to, _, _ := versatile(t, transport)
	var made, closed atomic.Int64
	waits, goOn := make(chan struct{}), make(chan struct{})
	transport.guard.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if made.Add(1) == 1 {
			close(waits)
			<-goOn
		}
		c, err := new(net.Dialer).DialContext(ctx, network, address)
		return watched{c, &closed}, err
	}
	want := func(which string, connections, ended int64) {
		t.Helper()
		if got := post(t, transport, to); string(got.Body) != "HTTP/2.0 {}" {
			t.Errorf("%s: %+v", which, got)
		}
		if made.Load() != connections || closed.Load() != ended {
			t.Errorf("%s: %d connections made, %d closed", which, made.Load(), closed.Load())
		}
	}
	var slow sync.WaitGroup
	slow.Go(func() { want("the slow one", 2, 1) })
	<-waits
	want("the quick one", 2, 0)
	close(goOn)
	slow.Wait()
}

func TestThatAReceiverSpeaksHTTP2IsForgottenWhereItIsAskedForNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		transport := both(t, nil)[0].(*Transport)
		to := origin{"https", "a.example", "443"}
		transport.remember(to)
		for range 3 {
			time.Sleep(idleTimeout - time.Second)
			if !transport.multiplexes(to) {
				t.Error("forgotten too early")
			}
		}
		time.Sleep(idleTimeout)
		if transport.multiplexes(to) || len(transport.multiplexed) != 0 {
			t.Error("not forgotten")
		}
	})
}

func TestManyRequestsAtOnceDoNotMixUpWhatIsTheirs(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s%s", r.Header.Get("Webhook-Id"), body)
	})
	plain, secured := httptest.NewServer(echo), httptest.NewTLSServer(echo)
	defer plain.Close()
	defer secured.Close()
	transport := loopback(t)
	transport.TLSClientConfig.RootCAs = secured.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	var all sync.WaitGroup
	for g := range 8 {
		endpoint, _ := url.Parse([]string{plain.URL, secured.URL}[g%2])
		all.Go(func() {
			for i := range 50 {
				id := fmt.Sprintf("%d-%d", g, i)
				body := bytes.Repeat([]byte{byte('a' + g)}, 1+i*40)
				got := Post(t.Context(), transport, Request{URL: endpoint, Header: http.Header{"Webhook-Id": {id}}, Body: body, Timeout: time.Minute, Keep: MaxResponse})
				if string(got.Body) != id+string(body) {
					t.Errorf("%s: %d %q %.20q", id, got.StatusCode, got.Err, got.Body)
				}
			}
		})
	}
	all.Wait()
}

func TestAReceiverThatGivesUpHTTP2IsSpokenToInHTTP1(t *testing.T) {
	transport := loopback(t)
	to, second, _ := versatile(t, transport)
	want := func(body string) {
		t.Helper()
		if got := post(t, transport, to); string(got.Body) != body {
			t.Errorf("%+v, want %q", got, body)
		}
	}
	want("HTTP/2.0 {}")
	if len(transport.multiplexed) != 1 {
		t.Error("not remembered")
	}
	second.Store(false)
	transport.CloseIdleConnections()
	want("HTTP/1.1 {}") // by net/http
	if len(transport.multiplexed) != 0 {
		t.Error("not forgotten")
	}
	want("HTTP/1.1 {}")
	if len(transport.pool.hosts) != 1 {
		t.Error("not by the transport itself")
	}
}

func TestARequestThatCannotBeSentIsRefusedBeforeADial(t *testing.T) {
	g, err := New(Config{AllowHTTP: true}, WithDialer(func(context.Context, string, string) (net.Conn, error) {
		t.Error("dialled")
		return nil, errors.New("no")
	}))
	if err != nil {
		t.Fatal(err)
	}
	sane := func() *http.Request {
		r, _ := http.NewRequest(http.MethodPost, "http://a.example/hook", strings.NewReader("{}"))
		return r
	}
	for name, spoil := range map[string]func(*http.Request){
		"a name with a space":      func(r *http.Request) { r.Header["A b"] = []string{"c"} },
		"an empty name":            func(r *http.Request) { r.Header[""] = []string{"c"} },
		"a value of two lines":     func(r *http.Request) { r.Header["A"] = []string{"b\r\nC: d"} },
		"a value with a NUL":       func(r *http.Request) { r.Header["A"] = []string{"\x00"} },
		"a method of two words":    func(r *http.Request) { r.Method = "GET /" },
		"a host of two lines":      func(r *http.Request) { r.Host = "a\r\nB: c" },
		"a query of two lines":     func(r *http.Request) { r.URL.RawQuery = "a\nB: c" },
		"an opaque URL, two lines": func(r *http.Request) { r.URL.Opaque = "/ HTTP/1.1\r\nA:" },
		"no host":                  func(r *http.Request) { r.URL.Host = "" },
		"no URL":                   func(r *http.Request) { r.URL = nil },
		"another scheme":           func(r *http.Request) { r.URL.Scheme = "ftp" },
		"a body of unknown length": func(r *http.Request) { r.ContentLength = -1 },
		"a body that is too short": func(r *http.Request) { r.ContentLength = 3 },
		"a context that has ended": func(r *http.Request) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			*r = *r.WithContext(ctx)
		},
	} {
		r := sane()
		spoil(r)
		closed := false
		r.Body = closing{r.Body, &closed}
		res, err := g.Transport().RoundTrip(r)
		if err == nil {
			res.Body.Close()
			t.Errorf("%s: sent", name)
		}
		if !closed {
			t.Errorf("%s: the body is left open", name)
		}
	}
}

type closing struct {
	io.Reader
	closed *bool
}

func (c closing) Close() error {
	*c.closed = true
	return nil
}

// TestRequestsAreWhatNetHTTPWouldSend compares what a receiver is sent.
func TestRequestsAreWhatNetHTTPWouldSend(t *testing.T) {
	for name, change := range map[string]func(*http.Request){
		"a plain one":                func(*http.Request) {},
		"a path that is escaped":     func(r *http.Request) { r.URL, _ = url.Parse("http://a.example/a%2Fb/ü c?d=e%20f&g") },
		"a query without a path":     func(r *http.Request) { r.URL, _ = url.Parse("http://a.example?x=1") },
		"an empty query":             func(r *http.Request) { r.URL, _ = url.Parse("http://a.example/?") },
		"a port":                     func(r *http.Request) { r.URL, _ = url.Parse("http://a.example:8080/") },
		"a port that is the default": func(r *http.Request) { r.URL, _ = url.Parse("http://a.example:80/") },
		"an address":                 func(r *http.Request) { r.URL, _ = url.Parse("http://[2001:db8::1]:80/") },
		"a name beyond ASCII":        func(r *http.Request) { r.URL, _ = url.Parse("http://bücher.example/") },
		"credentials":                func(r *http.Request) { r.URL, _ = url.Parse("http://u:p@a.example/") },
		"another host":               func(r *http.Request) { r.Host = "b.example" },
		"many fields": func(r *http.Request) {
			r.Header["B"], r.Header["A"], r.Header["lower"] = []string{" padded\t", ""}, []string{"1", "2"}, []string{"ü"}
		},
		"fields that are not the caller's": func(r *http.Request) {
			for _, name := range []string{"Host", "Content-Length", "Transfer-Encoding", "Trailer"} {
				r.Header[name] = []string{"7"}
			}
		},
		"the last on its connection": func(r *http.Request) { r.Close = true },
		"no method":                  func(r *http.Request) { r.Method, r.Body, r.ContentLength = "", nil, 0 },
		"a GET":                      func(r *http.Request) { r.Method, r.Body, r.ContentLength = http.MethodGet, nil, 0 },
		"a HEAD":                     func(r *http.Request) { r.Method, r.Body, r.ContentLength = http.MethodHead, nil, 0 },
		"a PUT without a body":       func(r *http.Request) { r.Method, r.Body, r.ContentLength = http.MethodPut, http.NoBody, 0 },
		"a long body": func(r *http.Request) {
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(make([]byte, 1<<20))), 1<<20
		},
	} {
		t.Run(name, func(t *testing.T) {
			var got [2]*http.Request
			var bodies [2]string
			for i := range got {
				dial := piped(func(c net.Conn) {
					r, err := http.ReadRequest(bufio.NewReader(c))
					if err != nil {
						t.Error(err)
						return
					}
					body, _ := io.ReadAll(r.Body)
					got[i], bodies[i] = r, string(body)
					_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
				})
				r, _ := http.NewRequest(http.MethodPost, "http://a.example/hook", strings.NewReader("{}"))
				r.Header["User-Agent"] = userAgent
				change(r)
				res, err := both(t, dial)[i].RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
			}
			ours, theirs := got[0], got[1]
			if ours.Method != theirs.Method || ours.RequestURI != theirs.RequestURI || ours.Host != theirs.Host || ours.ContentLength != theirs.ContentLength ||
				ours.Close != theirs.Close || fmt.Sprint(ours.Header) != fmt.Sprint(theirs.Header) || bodies[0] != bodies[1] {
				t.Errorf("ours %+v\ntheirs %+v", ours, theirs)
			}
		})
	}
}

// piped dials receivers at the other end of a pipe.
func piped(serve func(net.Conn)) DialFunc {
	return func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() { defer far.Close(); serve(far) }()
		return near, nil
	}
}

// both are the transport and net/http's, with the same bounds.
func both(t testing.TB, dial DialFunc) [2]http.RoundTripper {
	g, err := New(Config{AllowHTTP: true}, WithDialer(dial))
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := g.Transport(), &http.Transport{DialContext: dial, DisableCompression: true, MaxResponseHeaderBytes: maxHeaderBytes}
	t.Cleanup(ours.CloseIdleConnections)
	t.Cleanup(theirs.CloseIdleConnections)
	return [2]http.RoundTripper{ours, theirs}
}

// responses are some that a receiver may send, on a connection that then ends.
var responses = []string{
	okay,
	okay + okay,
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
	"HTTP/1.0 200 OK\r\n\r\nto the end",
	"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\n\r\nto the end",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
	"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat("a", 20000),
	"HTTP/1.1 204 No Content\r\n\r\n",
	"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
	"HTTP/1.1 100 Continue\r\n\r\n" + okay,
	"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + okay,
	"HTTP/1.1 100 Continue\r\n\r\n",
	strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 1000),
	"HTTP/1.1 101 Switching Protocols\r\n\r\n",
	"HTTP/1.1 099 Early\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 999 Late\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://10.1.2.3/\r\nContent-Length: 0\r\n\r\n",
	"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1  200  OK \r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 2000 OK\r\n\r\n",
	"HTTP/1.1 -20 OK\r\n\r\n",
	"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
	"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nA: b\r\n c\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
	"HTTP/1.1 200 OK\r\nno field\r\n\r\n",
	"HTTP/1.1 200 OK\r\n: b\r\n\r\n",
	"HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n",
	"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 15<<10) + "\r\nContent-Length: 2\r\n\r\nok",
	"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", 17<<10) + "\r\nContent-Length: 2\r\n\r\nok",
	"200 fine, thank you\r\n\r\n",
	"hello there\r\n\r\n",
	"\r\n" + okay,
	"HTTP/1.1 200 OK\r\nContent-Le",
	"HTTP/1.1 20",
	"H",
	"",
}

func FuzzResponsesAreReadAsNetHTTPReadsThem(f *testing.F) {
	for _, response := range responses {
		f.Add([]byte(response))
	}
	f.Fuzz(func(t *testing.T, response []byte) {
		dial := piped(func(c net.Conn) {
			if request(bufio.NewReader(c)) == nil {
				_, _ = c.Write(response)
			}
		})
		var got [2]Response
		for i, transport := range both(t, dial) {
			if theirs, ok := transport.(*http.Transport); ok {
				theirs.DisableKeepAlives = true // it would log what comes behind a response
			}
			got[i] = Post(t.Context(), transport, Request{URL: &url.URL{Scheme: "http", Host: "a.example"}, Header: http.Header{}, Body: []byte("{}"), Timeout: 10 * time.Second, Keep: 100})
		}
		ours, theirs := got[0], got[1]
		if ours.Err == webhook.ErrorTimeout || theirs.Err == webhook.ErrorTimeout {
			t.Errorf("%q: ours %+v, theirs %+v", response, ours, theirs)
		}
		if ours.StatusCode == http.StatusSwitchingProtocols || theirs.StatusCode == http.StatusSwitchingProtocols {
			return // what follows is no body to us
		}
		if ours.StatusCode != theirs.StatusCode || fmt.Sprint(ours.Header) != fmt.Sprint(theirs.Header) || !bytes.Equal(ours.Body, theirs.Body) || ours.Read != theirs.Read || ours.Err != theirs.Err {
			t.Errorf("%q:\nours   %+v\ntheirs %+v", response, ours, theirs)
		}
	})
}

func TestASwitchOfProtocolsIsAnAnswerWithoutABody(t *testing.T) {
	transport := both(t, piped(func(c net.Conn) {
		if request(bufio.NewReader(c)) == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\nother words")
			_, _ = io.Copy(io.Discard, c)
		}
	}))[0]
	if got := post(t, transport, "http://a.example/"); got.StatusCode != http.StatusSwitchingProtocols || got.Read != 0 || got.Err != webhook.ErrorNone {
		t.Errorf("%+v", got)
	}
}
