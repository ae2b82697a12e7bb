package egress

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/hookline/hookline/pkg/webhook"
)

func guard(t *testing.T, cfg Config) *Guard {
	t.Helper()
	g, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestEveryAddressThatIsNotPublicIsRefusedAtDial(t *testing.T) {
	g := guard(t, Config{})
	for _, target := range []string{
		"127.0.0.1:443", "[::1]:443", "0.0.0.0:443", "10.1.2.3:443", "172.16.0.1:443", "192.168.1.1:443",
		"169.254.169.254:443", "168.63.129.16:443", "100.100.100.200:443", "192.0.0.192:443", "198.18.0.1:443",
		"224.0.0.1:443", "240.0.0.1:443", "255.255.255.255:443", "192.0.2.1:443", "203.0.113.9:443",
		"[::ffff:127.0.0.1]:443", "[::ffff:10.0.0.1]:443", "[::127.0.0.1]:443", "[64:ff9b::7f00:1]:443",
		"[64:ff9b:1::1]:443", "[2002:7f00:1::]:443", "[2001:0:7f00:1::]:443", "[fd00:ec2::254]:443", "[fe80::1]:443",
		"[ff02::1]:443", "[2001:db8::1]:443", "[::]:443", "8.8.8.8:80", "8.8.8.8:22", "not an address",
	} {
		if err := g.control("tcp", target, nil); !errors.Is(err, ErrBlocked) {
			t.Errorf("%s: %v, want it blocked", target, err)
		}
	}
	for _, target := range []string{"8.8.8.8:443", "1.1.1.1:8443", "[2606:4700:4700::1111]:443", "[::ffff:8.8.8.8]:443"} {
		if err := g.control("tcp", target, nil); err != nil {
			t.Errorf("%s: %v, want it permitted", target, err)
		}
	}
}

func TestAnAllowedPrefixMayHaveAnyPort(t *testing.T) {
	g := guard(t, Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	for _, target := range []string{"127.0.0.1:9999", "[::ffff:127.0.0.1]:1"} {
		if err := g.control("tcp", target, nil); err != nil {
			t.Errorf("%s: %v, want it permitted", target, err)
		}
	}
	if err := g.control("tcp", "10.0.0.1:443", nil); !errors.Is(err, ErrBlocked) {
		t.Errorf("10.0.0.1: %v, want it blocked", err)
	}
}

func TestEndpointURLsAreRefusedWithACode(t *testing.T) {
	g := guard(t, Config{})
	for raw, code := range map[string]string{
		"":                                             "endpoint_scheme",
		"ftp://example.com":                            "endpoint_scheme",
		"http://8.8.8.8/":                              "endpoint_scheme",
		"https://":                                     "endpoint_host",
		"https://user:pw@8.8.8.8/":                     "endpoint_userinfo",
		"https://8.8.8.8/#f":                           "endpoint_fragment",
		"https://0x7f000001/":                          "endpoint_host",
		"https://127.1/":                               "endpoint_host",
		"https://2130706433/":                          "endpoint_host",
		"https://127。0。0。1/":                           "endpoint_host",
		"https://ＥＸＡＭＰＬＥ.com/":                         "endpoint_host",
		"https://[fe80::1%25eth0]/":                    "endpoint_host",
		"https://[::ffff:7f00:1]/":                     "endpoint_host",
		"https://8.8.8.8:99999/":                       "endpoint_port",
		"https://8.8.8.8:0443/":                        "endpoint_port",
		"https://8.8.8.8:/":                            "endpoint_port",
		"https://8.8.8.8:22/":                          "endpoint_blocked",
		"https://127.0.0.1/":                           "endpoint_blocked",
		"https://10.0.0.1/hook":                        "endpoint_blocked",
		"https://[::1]/":                               "endpoint_blocked",
		"https://8.8.8.8/" + strings.Repeat("a", 2050): "endpoint_too_long",
	} {
		err := g.CheckURL(t.Context(), raw)
		var refused *URLError
		if !errors.As(err, &refused) || refused.Code != code {
			t.Errorf("%q: %v, want code %s", raw, err, code)
		}
	}
	for _, raw := range []string{"https://8.8.8.8/hook?x=1", "https://1.1.1.1:8443/", "https://unresolvable.invalid/"} {
		if err := g.CheckURL(t.Context(), raw); err != nil {
			t.Errorf("%q: %v, want it accepted", raw, err)
		}
	}
}

func TestTheTransportRefusesLoopbackUnlessAllowed(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer server.Close()
	blocked := &http.Client{Transport: guard(t, Config{AllowHTTP: true}).Transport()}
	_, err := blocked.Get(server.URL)
	if got := Classify(err); got != webhook.ErrorBlocked {
		t.Errorf("loopback: class %q (%v), want blocked", got, err)
	}
	allowed := &http.Client{Transport: guard(t, Config{AllowHTTP: true, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}).Transport()}
	response, err := allowed.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	allowed.CloseIdleConnections()
}

func TestAnEndpointOverPlainHTTPIsNotCalledWhereItIsNoLongerPermitted(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("called") }))
	defer server.Close()
	client := &http.Client{Transport: guard(t, Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}).Transport()}
	_, err := client.Get(server.URL)
	if got := Classify(err); got != webhook.ErrorBlocked {
		t.Errorf("class %q (%v), want blocked", got, err)
	}
}

// receiver accepts connections and hands each to serve.
func receiver(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); serve(conn) }()
		}
	}()
	return listener.Addr().String()
}

func TestFailuresOfReceiversAreClassified(t *testing.T) {
	drain := func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) }
	closed := receiver(t, drain)
	tlsServer := httptest.NewTLSServer(http.NotFoundHandler())
	defer tlsServer.Close()
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for name, c := range map[string]struct {
		url  string
		want webhook.ErrorClass
	}{
		"closes without an answer": {"http://" + closed, webhook.ErrorReset},
		"answers garbage":          {"http://" + receiver(t, func(c net.Conn) { drain(c); _, _ = io.WriteString(c, "hello there\r\n\r\n") }), webhook.ErrorProtocol},
		"sends endless headers": {"http://" + receiver(t, func(c net.Conn) {
			drain(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX: "+strings.Repeat("a", 1<<20))
		}), webhook.ErrorProtocol},
		"has an unknown certificate": {tlsServer.URL, webhook.ErrorTLS},
		"speaks no TLS":              {"https://" + receiver(t, func(c net.Conn) { drain(c); _, _ = io.WriteString(c, "HTTP/1.1 400 no\r\n\r\n") }), webhook.ErrorTLS},
		"does not listen":            {"http://" + gone.Addr().String(), webhook.ErrorRefused},
		"does not resolve":           {"http://nowhere.invalid/", webhook.ErrorDNS},
	} {
		t.Run(name, func(t *testing.T) {
			transport := guard(t, Config{AllowHTTP: true, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}).Transport()
			defer transport.CloseIdleConnections()
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.url, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			response, err := transport.RoundTrip(request)
			if err == nil {
				response.Body.Close()
			}
			if got := Classify(err); got != c.want {
				t.Errorf("class %q (%v), want %q", got, err, c.want)
			}
		})
	}
}

func TestContextsAreClassified(t *testing.T) {
	if got := Classify(context.DeadlineExceeded); got != webhook.ErrorTimeout {
		t.Errorf("deadline: %q", got)
	}
	if got := Classify(context.Canceled); got != webhook.ErrorCut {
		t.Errorf("cancelled: %q", got)
	}
}
