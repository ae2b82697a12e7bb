package egress

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// conn is a connection to an origin. One goroutine at a time has it.
type conn struct {
	net.Conn // the wire, or TLS over it
	wire     *wire
	host     *host
	// multiplexed says that HTTP/2 was chosen on it.
	multiplexed bool
	// left is how many bytes may still be read.
	left int

	since time.Time // it has been idle
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// interrupt makes all reading and writing fail from now on. It may be called at any time.
func (c *conn) interrupt() { _ = c.SetDeadline(past) } // it fails where the connection is closed

// Read reads no more than may be read.
func (c *conn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, fmt.Errorf("server response headers exceeded %d bytes", maxHeaderBytes)
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// quiet says whether nothing has come since the last response: neither an end, nor anything that would be taken for the
// response to the next request. TLS deals with what is meant for itself alone, such as tickets. It does not block.
func (c *conn) quiet() bool {
	c.wire.asked = true
	_, err := c.Conn.Read(make([]byte, 1))
	c.wire.asked = false
	return errors.Is(err, os.ErrDeadlineExceeded)
}

// abort closes the connection without a word. TLS would wait for a receiver that does not read.
func (c *conn) abort() { _ = c.wire.Close() } // it is of no use any more

// wire is a connection on which reading may be a question.
type wire struct {
	net.Conn
	raw   syscall.RawConn // nil where it is no socket
	asked bool
}

func newWire(c net.Conn) *wire {
	w := &wire{Conn: c}
	if socket, ok := c.(syscall.Conn); ok {
		w.raw, _ = socket.SyscallConn() // nil where it fails
	}
	return w
}

// Read does not wait where it is asked.
func (w *wire) Read(p []byte) (int, error) {
	if w.asked {
		return w.readNow(p)
	}
	return w.Conn.Read(p)
}

// readNow returns os.ErrDeadlineExceeded where nothing has come. TLS takes it for an error that passes.
func (w *wire) readNow(p []byte) (n int, err error) {
	if w.raw == nil {
		return 0, os.ErrDeadlineExceeded
	}
	failed := w.raw.Read(func(fd uintptr) bool {
		n, err = readNow(fd, p)
		return true
	})
	switch {
	case errors.Is(err, syscall.EAGAIN):
		return 0, os.ErrDeadlineExceeded
	case err != nil || failed != nil:
		return 0, cmp.Or(failed, err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}
