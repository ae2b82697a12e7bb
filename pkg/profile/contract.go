package profile

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/hookline/hookline/pkg/ecmajson"
	"github.com/hookline/hookline/pkg/webhook"
)

// Contract is a profile with one subscription's overrides: what the delivery engine works by. It is immutable and safe
// for concurrent use.
type Contract struct {
	settings

	p     *Profile
	trace bool
	// static are the headers that are the same on every request. Their slices are shared between requests: their
	// capacity is their length, so that adding a value copies.
	static []staticHeader
}

type staticHeader struct {
	name   string
	values []string
}

// Contract joins the profile with a subscription's overrides. The error joins what [Profile.Check] reports. Without
// overrides it is one contract for all subscriptions.
func (p *Profile) Contract(o webhook.Overrides) (*Contract, error) {
	if reflect.ValueOf(o).IsZero() {
		return p.plain, nil
	}
	if list := p.Check(o); len(list) > 0 {
		errs := make([]error, len(list))
		for i, problem := range list {
			errs[i] = problem
		}
		return nil, fmt.Errorf("overrides of profile %s: %w", p.Name, errors.Join(errs...))
	}
	return p.contract(&o), nil
}

// contract is for overrides that have been checked.
func (p *Profile) contract(o *webhook.Overrides) *Contract {
	c := &Contract{p: p, trace: p.trace}
	c.settings, _ = p.settings.override(o)
	if o.Traceparent != nil {
		c.trace = *o.Traceparent
	}
	c.static = append(c.static, staticHeader{"Content-Type", []string{p.contentType}})
	for _, name := range slices.Sorted(maps.Keys(o.Headers)) {
		c.static = append(c.static, staticHeader{http.CanonicalHeaderKey(name), []string{o.Headers[name]}})
	}
	return c
}

// Profile is the profile that the contract was made from.
func (c *Contract) Profile() *Profile { return c.p }

// Timeout is of one request, from dialling to the end of the response body.
func (c *Contract) Timeout() time.Duration { return c.timeout }

// SendTrace reports whether the receiver gets traceparent and tracestate.
func (c *Contract) SendTrace() bool { return c.trace }

// Limits are the bounds of requests to the subscription's endpoint; 0 means none.
func (c *Contract) Limits() (perSecond float64, concurrency int) { return c.perSecond, c.concurrency }

// Request is what is sent: the bytes signed are the bytes of Body.
type Request struct {
	Header http.Header
	Body   []byte
}

// scratch is the working memory of one Build, reused.
type scratch struct {
	text    []byte // header values, one after the other
	sorted  []byte
	signed  []byte // what is signed besides the body
	mac     []byte
	ends    []int
	content content
	sorter  ecmajson.Sorter
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// maxScratch is the size above which working memory is left to the collector, so that one large event does not stay.
const maxScratch = 256 << 10

func (s *scratch) free() {
	clear(s.content.pieces)
	if cap(s.sorted) <= maxScratch && s.sorter.Size() <= maxScratch && cap(s.text) <= maxScratch {
		scratches.Put(s)
	}
}

// Build makes the request of one attempt, signed at the given time. keys are the live values of the secret as the user
// sees them, newest first. An error is a *[ContractError] where the event does not fit the contract, now or ever, or
// wraps [ErrSecret]. The body is the caller's own; nothing of the delivery or the keys is kept.
func (c *Contract) Build(d *webhook.Delivery, keys [][]byte, at time.Time) (Request, error) {
	b, err := c.p.body.append(make([]byte, 0, c.p.body.size(d)), input{d: d, at: at})
	if err != nil {
		return Request{}, err
	}
	h, err := c.Sign(d, b, keys, at)
	if err != nil {
		return Request{}, err
	}
	return Request{Header: h, Body: b}, nil
}

// Sign makes the headers of a request whose body is given instead of built. Otherwise it is like [Contract.Build].
func (c *Contract) Sign(d *webhook.Delivery, body []byte, keys [][]byte, at time.Time) (http.Header, error) {
	in := input{d: d, at: at}
	s := scratches.Get().(*scratch)
	defer s.free()
	s.text, s.ends = s.text[:0], s.ends[:0]
	if c.p.sorted {
		var err error
		if s.sorted, err = s.sorter.AppendSorted(s.sorted[:0], body); err != nil {
			return nil, unfit(err)
		}
	}
	for i := range c.p.headers {
		if err := s.header(&c.p.headers[i], in); err != nil {
			return nil, err
		}
	}
	for i := range c.p.signatures {
		if err := s.signature(c.p, &c.p.signatures[i], in, body, keys); err != nil {
			return nil, err
		}
	}
	return c.header(s), nil
}

// header makes the map of headers. All values are parts of one string, all slices parts of one array.
func (c *Contract) header(s *scratch) http.Header {
	text, start := string(s.text), 0
	h := make(http.Header, len(s.ends)+len(c.static)+2)
	values := make([]string, len(s.ends))
	for i, end := range s.ends {
		values[i] = text[start:end]
		if end > start {
			h[c.p.headerName(i)] = values[i : i+1 : i+1]
		}
		start = end
	}
	for _, f := range c.static {
		h[f.name] = f.values
	}
	return h
}

// headerName is the name of the i-th header that Build writes: the profile's headers, then its signatures.
func (p *Profile) headerName(i int) string {
	if i < len(p.headers) {
		return p.headers[i].name
	}
	return p.signatures[i-len(p.headers)].header
}

const maxHeaderValue = 1024

// header appends one header's value to the text, or refuses an event that cannot stand in it.
func (s *scratch) header(h *header, in input) error {
	start := len(s.text)
	s.text = h.value.appendPlain(s.text, in)
	value := s.text[start:]
	switch {
	case len(value) > maxHeaderValue:
		return refuse(CodeHeader, "the value of %s would have %d bytes, more than %d", h.name, len(value), maxHeaderValue)
	case !printableBytes(value):
		return refuse(CodeHeader, "the value of %s would not be printable ASCII", h.name)
	case h.forbid != "" && bytes.ContainsAny(value, h.forbid):
		return refuse(CodeHeader, "the value of %s would contain one of %q", h.name, h.forbid)
	}
	s.ends = append(s.ends, len(s.text))
	return nil
}

func printableBytes(value []byte) bool {
	for _, c := range value {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return len(value) == 0 || value[0] != ' ' && value[len(value)-1] != ' '
}

// signature appends the value of one signature header.
func (s *scratch) signature(p *Profile, sig *signature, in input, body []byte, keys [][]byte) error {
	if len(keys) == 0 {
		return fmt.Errorf("%w: there is none", ErrSecret)
	}
	s.fillContent(sig, in, body)
	for _, part := range sig.value {
		if part.field != fieldSignatures {
			s.text = part.appendPlain(s.text, in)
			continue
		}
		for i, secret := range keys[:min(len(keys), sig.keys)] {
			k, err := p.readKey(secret)
			if err != nil {
				return err
			}
			if k.public != nil {
				return fmt.Errorf("%w: a public key verifies but cannot sign", ErrSecret)
			}
			if i > 0 {
				s.text = append(s.text, sig.join...)
			}
			s.one(sig, k)
		}
	}
	s.ends = append(s.ends, len(s.text))
	return nil
}

// one appends one signature.
func (s *scratch) one(sig *signature, k key) {
	s.mac = sig.mac(s.mac[:0], k, &s.content)
	for _, part := range sig.each {
		switch part.field {
		case fieldSignature:
			s.text = sig.encoding.append(s.text, s.mac)
		case fieldLabel:
			s.text = append(s.text, k.form.label...)
		default:
			s.text = append(s.text, part.literal...)
		}
	}
}

// fillContent collects what is signed: pieces of one small buffer around the body.
func (s *scratch) fillContent(sig *signature, in input, body []byte) {
	s.signed, s.content.pieces = s.signed[:0], s.content.pieces[:0]
	for _, part := range sig.content {
		switch {
		case part.field == fieldBody && part.format == formatSorted:
			s.content.pieces = append(s.content.pieces, s.sorted)
		case part.field == fieldBody:
			s.content.pieces = append(s.content.pieces, body)
		default:
			start := len(s.signed)
			s.signed = part.appendPlain(s.signed, in)
			s.content.pieces = append(s.content.pieces, s.signed[start:])
		}
	}
}

// String names the contract's profile and version.
func (c *Contract) String() string { return fmt.Sprintf("%s v%d", c.p.Name, c.p.Version) }
