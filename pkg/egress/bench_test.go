package egress

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"testing"
	"time"
)

// answering is a receiver that does next to nothing for a request, at every address of loopback.
func answering(b *testing.B) (port string) {
	b.Helper()
	listener, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for in := make([]byte, 4096); take(conn, in) == nil; {
					_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok")
				}
			}()
		}
	}()
	_, port, _ = net.SplitHostPort(listener.Addr().String())
	return port
}

// take reads a request of the benchmark, in however many segments it comes.
func take(conn net.Conn, in []byte) error {
	for read := 0; ; {
		n, err := conn.Read(in[read:])
		if err != nil {
			return err
		}
		read += n
		if head := bytes.Index(in[:read], []byte("\r\n\r\n")); head >= 0 && read >= head+4+bodyLength {
			return nil
		}
	}
}

const bodyLength = 1024

// BenchmarkPost compares the transport with net/http. The receiver's part is in both.
func BenchmarkPost(b *testing.B) {
	port := answering(b)
	g, err := New(Config{AllowHTTP: true, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err != nil {
		b.Fatal(err)
	}
	for _, endpoints := range []int{1, 2000} {
		ours := g.Transport()
		theirs := &http.Transport{DialContext: g.dial, DisableCompression: true, IdleConnTimeout: idleTimeout, MaxIdleConns: maxIdle,
			MaxIdleConnsPerHost: maxPerHost, MaxConnsPerHost: maxPerHost, MaxResponseHeaderBytes: maxHeaderBytes}
		b.Run(fmt.Sprintf("net-http/%d", endpoints), func(b *testing.B) { postTo(b, theirs, port, endpoints) })
		theirs.CloseIdleConnections()
		b.Run(fmt.Sprintf("ours/%d", endpoints), func(b *testing.B) { postTo(b, ours, port, endpoints) })
		ours.CloseIdleConnections()
	}
}

func postTo(b *testing.B, transport http.RoundTripper, port string, endpoints int) {
	urls := make([]*url.URL, endpoints)
	for i := range urls {
		urls[i] = &url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.%d.%d:%s", 1+i/200, 1+i%200, port), Path: "/hook"}
	}
	body := make([]byte, bodyLength)
	one := func(i int) {
		header := http.Header{"Content-Type": {"application/json"}, "Webhook-Id": {"evt_1"}, "Webhook-Timestamp": {"1700000000"}, "Webhook-Signature": {"v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4="}}
		got := Post(b.Context(), transport, Request{URL: urls[i%endpoints], Header: header, Body: body, Timeout: 15 * time.Second, Keep: 1024})
		if got.StatusCode != http.StatusOK {
			b.Errorf("%+v", got)
		}
	}
	for i := range endpoints {
		one(i)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		one(i)
	}
}
