package egress

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Transport makes requests over connections that the guard has checked. HTTP/1.1 it speaks itself, in the goroutine of
// the caller, on net/http's parser; where a receiver chooses HTTP/2, net/http gets the connection. It follows no redirect,
// knows no cookie, no proxy and no compression, and sends no request twice. It may be used concurrently.
type Transport struct {
	// TLSClientConfig may be changed before the first request.
	TLSClientConfig *tls.Config

	guard *Guard
	pool  *pool
	http2 *http.Transport

	mu sync.Mutex
	// multiplexed are the receivers that chose HTTP/2, and when they were last asked for something.
	multiplexed map[origin]time.Time
}

func newTransport(g *Guard) *Transport {
	t := &Transport{
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}, ClientSessionCache: tls.NewLRUClientSessionCache(maxIdle)},
		guard:           g,
		pool:            newPool(maxPerHost, maxIdle),
		multiplexed:     map[origin]time.Time{},
	}
	t.http2 = &http.Transport{
		DialContext:            refusePlain,
		DialTLSContext:         t.dialHTTP2,
		ForceAttemptHTTP2:      true,
		DisableCompression:     true,
		IdleConnTimeout:        idleTimeout,
		MaxIdleConns:           maxIdle,
		MaxIdleConnsPerHost:    maxPerHost,
		MaxConnsPerHost:        maxPerHost,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
	return t
}

// RoundTrip makes a request and returns the response as soon as its header is there. It blocks until then, until the
// request's context ends, whose error it returns, or until the exchange breaks. The body of the response is read from the
// connection by whoever reads it, one goroutine at a time; it must be read to its end or closed, within the same context.
// A body of the request must come with its ContentLength; it is closed in any case.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	to, err := originOf(req.URL)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	if t.multiplexes(to) {
		return t.http2.RoundTrip(req)
	}
	m, err := compose(req)
	if err != nil {
		return nil, err
	}
	c, err := t.connection(req.Context(), to)
	if err != nil {
		m.free()
		return nil, err
	}
	if c.multiplexed {
		t.pool.give(c.host, nil)
		t.remember(to)
		return t.overHTTP2(m.instead(req), c.Conn.(*tls.Conn))
	}
	return exchangeOn(c, t.pool, req, m)
}

// CloseIdleConnections closes the connections that are not in use.
func (t *Transport) CloseIdleConnections() {
	t.pool.shed(0)
	t.http2.CloseIdleConnections()
}

// connection takes an idle connection that the receiver has left alone, or makes one.
func (t *Transport) connection(ctx context.Context, to origin) (*conn, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	h, c, err := t.pool.take(ctx, to)
	if err != nil {
		return nil, err
	}
	if c != nil {
		if c.quiet() {
			return c, nil
		}
		_ = c.Close() // the receiver has closed it, or sent what nobody asked for
	}
	c, err = t.dial(ctx, to)
	if err != nil {
		t.pool.give(h, nil)
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	c.host = h
	return c, nil
}

func (t *Transport) dial(ctx context.Context, to origin) (*conn, error) {
	address, err := httpguts.PunycodeHostPort(net.JoinHostPort(to.host, to.port))
	if err != nil {
		return nil, err
	}
	if to.scheme == "https" {
		secure, err := t.guard.dialTLS(ctx, "tcp", address, t.TLSClientConfig)
		if err != nil {
			return nil, err
		}
		return &conn{Conn: secure, wire: secure.NetConn().(*wire), multiplexed: speaksHTTP2(secure)}, nil
	}
	if !t.guard.cfg.AllowHTTP {
		return nil, errPlain
	}
	plain, err := t.guard.dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	w := newWire(plain)
	return &conn{Conn: w, wire: w}, nil
}

// speaksHTTP2 says what was chosen in the handshake: RFC 9113, section 3.2.
func speaksHTTP2(c *tls.Conn) bool { return c.ConnectionState().NegotiatedProtocol == "h2" }

// errPlain stands where a connection would be made for http://.
var errPlain = fmt.Errorf("%w: http:// is not permitted", ErrBlocked)

func refusePlain(context.Context, string, string) (net.Conn, error) { return nil, errPlain }

// multiplexes says whether a receiver has chosen HTTP/2 within the last idleTimeout, and remembers it for as long again.
func (t *Transport) multiplexes(to origin) bool {
	if to.scheme != "https" {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	asked, known := t.multiplexed[to]
	if !known {
		return false
	}
	if time.Since(asked) >= idleTimeout {
		delete(t.multiplexed, to)
		return false
	}
	t.multiplexed[to] = time.Now()
	return true
}

// remember notes that a receiver has chosen HTTP/2.
func (t *Transport) remember(to origin) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.multiplexed) >= maxIdle {
		clear(t.multiplexed)
	}
	t.multiplexed[to] = time.Now()
}

// forget has the next connection to an address be one for any protocol again.
func (t *Transport) forget(address string) {
	host, port, _ := net.SplitHostPort(address) // as it was dialled
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.multiplexed, origin{"https", host, port})
}

// offer is a connection made for a request, until somebody takes it.
type offer struct{ atomic.Pointer[tls.Conn] }

type offerKey struct{}

// overHTTP2 has net/http make the request. It may use made for it, the connection on which HTTP/2 was chosen, but also one
// that another request has brought meanwhile.
func (t *Transport) overHTTP2(req *http.Request, made *tls.Conn) (*http.Response, error) {
	var offered offer
	offered.Store(made)
	res, err := t.http2.RoundTrip(req.WithContext(context.WithValue(req.Context(), offerKey{}, &offered)))
	if unused := offered.Swap(nil); unused != nil {
		_ = unused.Close() // nothing was sent on it
	}
	return res, err
}

// dialHTTP2 is how net/http connects: with the connection that led to it, and later by itself.
func (t *Transport) dialHTTP2(ctx context.Context, network, address string) (net.Conn, error) {
	if offered, ok := ctx.Value(offerKey{}).(*offer); ok {
		if c := offered.Swap(nil); c != nil {
			return c, nil
		}
	}
	c, err := t.guard.dialTLS(ctx, network, address, t.TLSClientConfig)
	if err != nil {
		t.forget(address)
		return nil, err
	}
	if !speaksHTTP2(c) {
		t.forget(address)
	}
	return c, nil
}
