package engine

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

// receiver is a listener that does with each connection what it was told, and knows how many are open.
type receiver struct {
	address string
	open    atomic.Int64
	sent    atomic.Int64 // bytes, by those who count
}

func receive(t *testing.T, serve func(*receiver, net.Conn)) *receiver {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{address: listener.Addr().String()}
	var serving sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[conn] = true
			mu.Unlock()
			r.open.Add(1)
			serving.Go(func() {
				defer r.open.Add(-1)
				defer conn.Close()
				serve(r, conn)
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		mu.Lock()
		for conn := range conns {
			conn.Close()
		}
		mu.Unlock()
		serving.Wait()
	})
	return r
}

// head reads a request's head and what came with it.
func head(conn net.Conn) { _, _ = conn.Read(make([]byte, 64<<10)) }

// untilClosed waits for the other side to give up.
func untilClosed(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

// answer sends a text again and again until the connection breaks.
func answer(r *receiver, conn net.Conn, each string, pause time.Duration) {
	tick := time.NewTicker(max(pause, time.Nanosecond))
	defer tick.Stop()
	for {
		n, err := io.WriteString(conn, each)
		r.sent.Add(int64(n))
		if err != nil {
			return
		}
		if pause > 0 {
			<-tick.C
		}
	}
}

// misbehaviour is a receiver that does something wrong, and what the attempt must say of it.
type misbehaviour struct {
	name  string
	url   func(t *testing.T) (url string, r *receiver)
	class webhook.ErrorClass
	// status is what is recorded where a response came, long that it has more of a body than is kept.
	status int
	long   bool
}

// plain is a misbehaviour over HTTP.
func plain(serve func(*receiver, net.Conn)) func(*testing.T) (string, *receiver) {
	return func(t *testing.T) (string, *receiver) {
		r := receive(t, serve)
		return "http://" + r.address + "/hook", r
	}
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n"

func misbehaviours() []misbehaviour {
	return []misbehaviour{
		{name: "never answers", class: webhook.ErrorTimeout, url: plain(func(_ *receiver, c net.Conn) { untilClosed(c) })},
		{name: "drips a header", class: webhook.ErrorTimeout, url: plain(func(r *receiver, c net.Conn) {
			head(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX: ")
			answer(r, c, "a", 100*time.Millisecond)
		})},
		{name: "drips a body", class: webhook.ErrorTimeout, url: plain(func(r *receiver, c net.Conn) {
			head(c)
			_, _ = io.WriteString(c, ok)
			answer(r, c, "a", time.Second)
		})},
		{name: "sends a gigabyte", status: 200, long: true, url: plain(func(r *receiver, c net.Conn) {
			head(c)
			_, _ = io.WriteString(c, ok)
			answer(r, c, strings.Repeat("a", 64<<10), 0)
		})},
		{name: "sends a gigabyte of headers", class: webhook.ErrorProtocol, url: plain(func(r *receiver, c net.Conn) {
			head(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			answer(r, c, "X: "+strings.Repeat("a", 4<<10)+"\r\n", 0)
		})},
		{name: "is malformed", class: webhook.ErrorProtocol, url: plain(func(_ *receiver, c net.Conn) {
			head(c)
			_, _ = io.WriteString(c, "200 fine, thank you\r\n\r\n")
		})},
		{name: "closes within the body", class: webhook.ErrorReset, url: plain(func(_ *receiver, c net.Conn) {
			head(c)
			_, _ = io.WriteString(c, ok+"only this")
		})},
		{name: "answers 100 for ever", class: webhook.ErrorProtocol, url: plain(func(r *receiver, c net.Conn) {
			head(c)
			answer(r, c, "HTTP/1.1 100 Continue\r\n\r\n", 0)
		})},
		{name: "resets at once", class: webhook.ErrorReset, url: plain(func(_ *receiver, c net.Conn) {
			_ = c.(*net.TCPConn).SetLinger(0)
		})},
		{name: "has an expired certificate", class: webhook.ErrorTLS, url: func(t *testing.T) (string, *receiver) {
			certificate := expired(t)
			r := receive(t, func(_ *receiver, c net.Conn) {
				_ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12}).Handshake()
			})
			return "https://" + r.address + "/hook", r
		}},
		{name: "resolves to nothing", class: webhook.ErrorDNS, url: func(*testing.T) (string, *receiver) {
			return "http://nowhere.invalid/hook", nil
		}},
		{name: "is at a private address", class: webhook.ErrorBlocked, url: func(*testing.T) (string, *receiver) {
			return "http://10.1.2.3/hook", nil
		}},
		{name: "does not listen", class: webhook.ErrorRefused, url: func(t *testing.T) (string, *receiver) {
			listener, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			listener.Close()
			return "http://" + listener.Addr().String() + "/hook", nil
		}},
		{name: "redirects to a private address", status: http.StatusTemporaryRedirect, url: plain(func(_ *receiver, c net.Conn) {
			head(c)
			_, _ = io.WriteString(c, "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://10.1.2.3/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		})},
		{name: "accepts one connection", class: webhook.ErrorTimeout, url: func(t *testing.T) (string, *receiver) {
			// Others wait in the kernel's queue; the first one is taken by the receiver itself.
			listener, err := net.Listen("tcp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			first, err := net.Dial("tcp4", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			accepted, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { first.Close(); accepted.Close(); listener.Close() })
			return "http://" + listener.Addr().String() + "/hook", nil
		}},
	}
}

func expired(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// counting is a well-behaved receiver that counts requests by their event.
type counting struct {
	url string

	mu     sync.Mutex
	seen   map[string][]time.Time
	signed []string
	slow   time.Duration
}

func count(t *testing.T, slow time.Duration) *counting {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &counting{url: "http://" + listener.Addr().String() + "/hook", seen: map[string][]time.Time{}, slow: slow}
	server := &http.Server{Handler: c, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return c
}

func (c *counting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	_, _ = io.Copy(io.Discard, r.Body)
	select {
	case <-time.After(c.slow):
	case <-r.Context().Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	id := r.Header.Get("Webhook-Id")
	c.seen[id] = append(c.seen[id], began)
	c.signed = append(c.signed, r.Header.Get("Webhook-Signature"))
	fmt.Fprint(w, "ok")
}

// requests counts events and requests.
func (c *counting) requests() (events, requests int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.seen), len(c.signed)
}
