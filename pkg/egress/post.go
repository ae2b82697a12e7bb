package egress

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

// MaxResponse is how much of a response body is read. A connection whose response is longer is not used again.
const MaxResponse = 16 << 10

// Request is one POST.
type Request struct {
	URL *url.URL
	// Header has names in canonical form. Post adds the User-Agent where there is none.
	Header http.Header
	Body   []byte
	// Timeout bounds everything from the dial to the end of the response body.
	Timeout time.Duration
	// Keep is how much of the response body is returned.
	Keep int
}

// Response is what came of it. Where Err is set there is no usable response, and StatusCode is 0.
type Response struct {
	StatusCode int
	Header     http.Header
	Body       []byte // the first of it
	Read       int    // bytes of the body, as far as it was read
	Err        webhook.ErrorClass
	Started    time.Time
	Duration   time.Duration
	Phases     webhook.Phases
}

var userAgent = []string{"Hookline/1.0"}

// Post makes one request and reads the response. It follows no redirect and repeats nothing by itself: the request has no
// GetBody, without which net/http sends a POST once. It blocks until the body is read, the timeout is over or ctx ends.
func Post(ctx context.Context, transport http.RoundTripper, q Request) (answer Response) {
	limited, cancel := context.WithTimeout(ctx, q.Timeout)
	defer cancel()
	if _, given := q.Header["User-Agent"]; !given {
		q.Header["User-Agent"] = userAgent
	}
	took := &timed{Context: limited}
	answer.Started = time.Now()
	defer func() {
		answer.Duration = time.Since(answer.Started)
		answer.Phases = took.phases.read()
	}()
	response, err := transport.RoundTrip(q.with(took))
	if err != nil {
		answer.Err = Classify(err)
		return answer
	}
	defer response.Body.Close()
	took.phases.note(phaseFirstByte, time.Since(answer.Started))
	answer.Body, answer.Read, err = readBody(response.Body, q.Keep)
	if err != nil {
		// The status line came, but the exchange did not end within the deadline, or broke off.
		answer.Err = Classify(err)
		return answer
	}
	answer.StatusCode, answer.Header = response.StatusCode, response.Header
	return answer
}

// blank is what all requests begin as.
var blank = &http.Request{Method: http.MethodPost, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}

func (q *Request) with(ctx context.Context) *http.Request {
	r := blank.WithContext(ctx)
	r.URL, r.Host, r.Header = q.URL, q.URL.Host, q.Header
	b := new(payload)
	b.Reset(q.Body)
	r.Body, r.ContentLength = b, int64(len(q.Body))
	return r
}

// payload is the body of a request, also of an empty one: over HTTP/2, net/http might repeat a request without a body.
type payload struct{ bytes.Reader }

// Close has nothing to do.
func (*payload) Close() error { return nil }

var buffers = sync.Pool{New: func() any { return new([MaxResponse]byte) }}

// readBody reads the body as far as it is read at all, and keeps the first of it.
func readBody(body io.Reader, keep int) (kept []byte, read int, err error) {
	if body == http.NoBody {
		return nil, 0, nil
	}
	buffer := buffers.Get().(*[MaxResponse]byte)
	defer buffers.Put(buffer)
	for read < len(buffer) && err == nil {
		var n int
		n, err = body.Read(buffer[read:])
		read += n
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return bytes.Clone(buffer[:min(read, keep)]), read, err
}

// timed is the context of one request, which finds its phases.
type timed struct {
	context.Context
	phases phases
}

type phasesKey struct{}

func (t *timed) Value(key any) any {
	if key == (phasesKey{}) {
		return &t.phases
	}
	return t.Context.Value(key)
}

type phase int

const (
	phaseDNS phase = iota
	phaseConnect
	phaseTLS
	phaseFirstByte
	phaseCount
)

// phases are the times that the parts of a request took. A connection may still be made for it after it has ended.
type phases struct {
	mu   sync.Mutex
	took [phaseCount]time.Duration
}

// phasesOf are those of the request that a connection is made for; nil, which takes notes too, where it is not known.
func phasesOf(ctx context.Context) *phases {
	p, _ := ctx.Value(phasesKey{}).(*phases)
	return p
}

func (p *phases) note(which phase, d time.Duration) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.took[which] = d
}

func (p *phases) read() webhook.Phases {
	p.mu.Lock()
	defer p.mu.Unlock()
	return webhook.Phases{DNS: p.took[phaseDNS], Connect: p.took[phaseConnect], TLS: p.took[phaseTLS], FirstByte: p.took[phaseFirstByte]}
}
