package egress

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

func post(t *testing.T, transport http.RoundTripper, to string) Response {
	t.Helper()
	endpoint, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	return Post(t.Context(), transport, Request{URL: endpoint, Header: http.Header{}, Body: []byte("{}"), Timeout: 2 * time.Second, Keep: 100})
}

// counted serves and counts its connections.
func counted(t *testing.T, answer string) (server *httptest.Server, conns *atomic.Int64) {
	t.Helper()
	conns = new(atomic.Int64)
	server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Retry-After", "7")
		_, _ = io.WriteString(w, answer)
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			conns.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	return server, conns
}

func loopback(t *testing.T) *Transport {
	transport := guard(t, Config{AllowHTTP: true, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}).Transport()
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

func TestAConnectionIsUsedAgainOnlyWhereTheBodyWasReadToItsEnd(t *testing.T) {
	for _, c := range []struct {
		size  int
		conns int64
	}{{0, 1}, {50, 1}, {MaxResponse - 1, 1}, {4 * MaxResponse, 3}} {
		server, conns := counted(t, strings.Repeat("a", c.size))
		transport := loopback(t)
		for range 3 {
			got := post(t, transport, server.URL)
			if got.Err != webhook.ErrorNone || got.StatusCode != 200 || got.Header.Get("Retry-After") != "7" || len(got.Body) != min(c.size, 100) || got.Read != min(c.size, MaxResponse) {
				t.Errorf("%d bytes: %+v", c.size, got)
			}
		}
		if conns.Load() != c.conns {
			t.Errorf("%d bytes: %d connections for three requests, want %d", c.size, conns.Load(), c.conns)
		}
	}
}

func TestThePhasesOfAConnectionAreOfTheRequestThatMadeIt(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	defer server.Close()
	transport := loopback(t)
	transport.TLSClientConfig.RootCAs = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	first, second := post(t, transport, server.URL), post(t, transport, server.URL)
	if first.Err != "" || first.Phases.Connect <= 0 || first.Phases.TLS <= 0 || first.Phases.FirstByte < first.Phases.TLS || first.Duration < first.Phases.FirstByte {
		t.Errorf("first request: %+v", first)
	}
	if second.Err != "" || second.Phases.Connect != 0 || second.Phases.TLS != 0 || second.Phases.FirstByte <= 0 {
		t.Errorf("second request: %+v", second)
	}
}

func TestANameIsResolvedAndEveryAddressOfItIsChecked(t *testing.T) {
	server, _ := counted(t, "ok")
	to := "http://localhost:" + strings.TrimPrefix(server.URL, "http://127.0.0.1:")
	if got := post(t, loopback(t), to); got.Err != webhook.ErrorNone || got.Phases.DNS <= 0 {
		t.Errorf("an allowed name: %+v", got)
	}
	if got := post(t, guard(t, Config{AllowHTTP: true}).Transport(), to); got.Err != webhook.ErrorBlocked {
		t.Errorf("a name of loopback: %+v", got)
	}
}

func TestARememberedAddressIsCheckedWheneverItIsDialled(t *testing.T) {
	g := guard(t, Config{AllowHTTP: true})
	asked := 0
	g.names = newNames(func(context.Context, string) ([]netip.Addr, error) {
		asked++
		return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
	})
	transport := g.Transport()
	for range 3 {
		if got := post(t, transport, "http://rebound.example/"); got.Err != webhook.ErrorBlocked {
			t.Errorf("a name of loopback: %+v", got)
		}
	}
	if asked != 1 {
		t.Errorf("the resolver was asked %d times", asked)
	}
}

func TestHTTP2IsSpokenWhereTheReceiverDoes(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) }))
	server.EnableHTTP2 = true
	server.StartTLS()
	defer server.Close()
	transport := loopback(t)
	transport.TLSClientConfig.RootCAs = server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	if got := post(t, transport, server.URL); string(got.Body) != "HTTP/2.0" {
		t.Errorf("spoken: %q (%s)", got.Body, got.Err)
	}
}
