package egress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/net/http/httpguts"
)

// message is a request as it is sent: RFC 9112, section 2.1.
type message struct {
	bytes []byte
	head  int // the length of all before the body
}

var messages = sync.Pool{New: func() any { return new(message) }}

func (m *message) free() {
	if cap(m.bytes) <= 2*atOnce {
		messages.Put(m)
	}
}

// instead is the request with its body as it was written down, which must not be freed then.
func (m *message) instead(r *http.Request) *http.Request {
	if m.head == len(m.bytes) {
		return r
	}
	again := *r
	again.Body = io.NopCloser(bytes.NewReader(m.bytes[m.head:]))
	return &again
}

// compose writes a request down, and reads and closes its body for that. The fields are in the order of their names.
func compose(r *http.Request) (*message, error) {
	m := messages.Get().(*message)
	var err error
	if m.bytes, err = appendHead(m.bytes[:0], r); err == nil {
		m.head = len(m.bytes)
		m.bytes, err = appendBody(m.bytes, r)
	}
	closeBody(r)
	if err != nil {
		m.free()
		return nil, fmt.Errorf("compose request: %w", err)
	}
	return m, nil
}

// appendHead refuses what would be read as something else: RFC 9112, sections 3 and 5; RFC 9110, section 5.5.
func appendHead(b []byte, r *http.Request) ([]byte, error) {
	method, target := r.Method, r.URL.RequestURI()
	if method == "" {
		method = http.MethodGet
	}
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	host, err := httpguts.PunycodeHostPort(host)
	switch {
	case err != nil:
		return b, err
	case !httpguts.ValidHeaderFieldName(method): // a token, as a field's name is
		return b, fmt.Errorf("invalid method %q", method)
	case strings.ContainsFunc(target, unicode.IsControl):
		return b, errors.New("control character in the URL")
	case !httpguts.ValidHostHeader(host):
		return b, errors.New("invalid host")
	}
	b = append(append(append(append(b, method...), ' '), target...), " HTTP/1.1\r\nHost: "...)
	b = append(append(b, host...), "\r\n"...)
	if length := lengthOf(r); length > 0 || method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch {
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), length, 10), "\r\n"...)
	}
	if r.Close {
		b = append(b, "Connection: close\r\n"...)
	}
	if b, err = appendFields(b, r.Header); err != nil {
		return b, err
	}
	return append(b, "\r\n"...), nil
}

func appendFields(b []byte, h http.Header) ([]byte, error) {
	var room [32]string
	names := room[:0]
	for name := range h {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if !httpguts.ValidHeaderFieldName(name) {
			return b, fmt.Errorf("invalid header field name %q", name)
		}
		switch textproto.CanonicalMIMEHeaderKey(name) {
		case "Host", "Content-Length", "Transfer-Encoding", "Trailer", "Connection":
			continue // they say how this message is sent, and are not the caller's
		}
		for _, value := range h[name] {
			if !httpguts.ValidHeaderFieldValue(value) {
				return b, fmt.Errorf("invalid value of the header field %s", name) // which may be secret
			}
			b = append(append(append(append(b, name...), ": "...), textproto.TrimString(value)...), "\r\n"...)
		}
	}
	return b, nil
}

// lengthOf is that of the body, which is -1 where it is not known.
func lengthOf(r *http.Request) int64 {
	if r.Body == nil || r.Body == http.NoBody {
		return 0
	}
	return r.ContentLength
}

func appendBody(b []byte, r *http.Request) ([]byte, error) {
	length := lengthOf(r)
	if length < 0 {
		return b, errors.New("body of unknown length")
	}
	if length == 0 {
		return b, nil
	}
	head := len(b)
	b = slices.Grow(b, int(length))[:head+int(length)]
	if _, err := io.ReadFull(r.Body, b[head:]); err != nil {
		return b, fmt.Errorf("read body: %w", err)
	}
	return b, nil
}

func closeBody(r *http.Request) {
	if r.Body != nil {
		_ = r.Body.Close() // it was to be read only
	}
}
