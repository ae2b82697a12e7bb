package egress

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"sync"
	"time"
)

const (
	// atOnce is how long a message may be that is written before its response is read. It finds room in the buffers of the
	// two kernels, so that a receiver which answers without reading it all is heard nevertheless.
	atOnce = 64 << 10
	// settling is how long a longer one may still take when its response has come, for the connection to be used again.
	settling = 50 * time.Millisecond
)

var readers = sync.Pool{New: func() any { return bufio.NewReader(nil) }}

// exchange is a request on a connection, and then the body of its response.
type exchange struct {
	pool *pool
	conn *conn
	req  *http.Request
	in   *bufio.Reader
	// unwatch ends the watch over the context. It is false where that has seen to the connection already.
	unwatch func() bool
	// writeErr is what became of writing the request; where written is set, it yields that.
	writeErr error
	written  chan error
	// keep says that neither side wants the connection closed.
	keep bool
	body io.Reader
	// over is what there is to read after the end.
	over error
}

// exchangeOn writes the message and reads the header of its response.
func exchangeOn(c *conn, p *pool, req *http.Request, m *message) (*http.Response, error) {
	x := &exchange{pool: p, conn: c, req: req, in: readers.Get().(*bufio.Reader)}
	x.in.Reset(c)
	x.unwatch = context.AfterFunc(req.Context(), c.interrupt)
	x.write(m)
	res, err := x.receive()
	if err != nil {
		return nil, x.fail(err)
	}
	x.keep = !req.Close && !res.Close && res.StatusCode >= http.StatusOK
	if res.Body == http.NoBody {
		x.end(io.EOF)
		return res, nil
	}
	x.body, res.Body = res.Body, x
	return res, nil
}

// write does not report an error: there may be a response, which a receiver may send at any time (RFC 9112, section 9.5).
func (x *exchange) write(m *message) {
	if len(m.bytes) <= atOnce {
		_, x.writeErr = x.conn.Write(m.bytes)
		m.free()
		return
	}
	x.written = make(chan error, 1)
	go func() {
		_, err := x.conn.Write(m.bytes)
		x.written <- err
	}()
}

// receive reads up to the header of the final response. Interim ones are passed over (RFC 9110, section 15.2), and the
// bound on all headers together is one on their number.
func (x *exchange) receive() (*http.Response, error) {
	x.conn.left = maxHeaderBytes
	for {
		res, err := http.ReadResponse(x.in, x.req)
		if err != nil {
			return nil, err
		}
		if res.StatusCode < 100 || res.StatusCode > 199 || res.StatusCode == http.StatusSwitchingProtocols {
			x.conn.left = math.MaxInt
			return res, nil
		}
	}
}

// fail ends an exchange without a response, and says why there is none: the context comes before what its end broke.
func (x *exchange) fail(err error) error {
	x.end(err)
	if ended := x.req.Context().Err(); ended != nil {
		return ended
	}
	return fmt.Errorf("HTTP/1.1 transport connection broken: %w", err)
}

// Read reads from the body of the response. It returns io.EOF as soon as that is complete.
func (x *exchange) Read(p []byte) (int, error) {
	if x.over != nil {
		return 0, x.over
	}
	n, err := x.body.Read(p)
	if err == nil {
		return n, nil
	}
	x.end(err)
	if ended := x.req.Context().Err(); ended != nil && !errors.Is(err, io.EOF) {
		err = ended
	}
	return n, err
}

// Close gives up what has not been read of the body, and the connection with it.
func (x *exchange) Close() error {
	if x.over == nil {
		x.end(http.ErrBodyReadAfterClose)
	}
	return nil
}

// end gives the connection back where another request may follow on it (RFC 9112, section 9.3), and closes it otherwise.
func (x *exchange) end(why error) {
	x.over = why
	complete := errors.Is(why, io.EOF)
	untouched := x.unwatch()
	again := complete && untouched && x.keep && x.in.Buffered() == 0 && x.wrote()
	x.in.Reset(nil)
	readers.Put(x.in)
	if again {
		x.pool.give(x.conn.host, x.conn)
		return
	}
	if complete {
		_ = x.conn.Close() // there is a response, and no more to be said
	} else {
		x.conn.abort()
	}
	x.pool.give(x.conn.host, nil)
}

// wrote says whether the whole request was written.
func (x *exchange) wrote() bool {
	if x.written == nil {
		return x.writeErr == nil
	}
	select {
	case err := <-x.written:
		return err == nil
	case <-time.After(settling):
		return false
	}
}
