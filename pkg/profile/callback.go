package profile

import (
	"crypto/sha256"
	"errors"
	"time"

	"github.com/hookline/hookline/pkg/ecmajson"
	inbound "github.com/hookline/hookline/pkg/source"
	"github.com/hookline/hookline/pkg/webhook"
)

// Callback says that the receiver of an event should send the body back, and what follows once it has.
type Callback struct {
	// Path is where, under /v1/callbacks/.
	Path string
	// EventType is what is called back.
	EventType string
	// ClientHeader and KeyHeader are how a client shows who it is: its tenant, and the subscription's secret.
	ClientHeader, KeyHeader string
	// Within is how long after the event a call still counts.
	Within time.Duration

	key       string
	requested *inbound.Rules
	followUps *inbound.Rules
	types     map[string]bool
}

const (
	defaultWithin = 72 * time.Hour
	maxWithin     = 30 * 24 * time.Hour
)

type callbackSpec struct {
	Path         string           `json:"path"`
	EventType    string           `json:"eventType"`
	ClientHeader string           `json:"clientHeader"`
	KeyHeader    string           `json:"keyHeader"`
	Within       webhook.Duration `json:"within"`
	Key          string           `json:"key"`
	Remote       string           `json:"remote"`
	Requested    []inbound.Rule   `json:"requested"`
	FollowUps    []inbound.Rule   `json:"followUps"`
}

// Callback is nil where nothing is called back under the profile.
func (p *Profile) Callback() *Callback { return p.callback }

func (c *compiler) callback(sp *callbackSpec) *Callback {
	if sp == nil {
		return nil
	}
	out := &Callback{
		Path: sp.Path, EventType: sp.EventType, ClientHeader: sp.ClientHeader, KeyHeader: sp.KeyHeader,
		Within: orDefault(time.Duration(sp.Within), defaultWithin), key: sp.Key, types: map[string]bool{sp.EventType: true},
	}
	if out.Within < time.Minute || out.Within > maxWithin {
		c.fail("/callback/within", "want 1m to 720h")
	}
	if _, err := inbound.Text([]byte("{}"), sp.Key); err != nil {
		c.fail("/callback/key", "%v", err)
	}
	var err error
	if out.requested, err = inbound.CompileRules(sp.Remote, sp.Requested); err != nil {
		c.fail("/callback/requested", "%v", err)
	}
	if out.followUps, err = inbound.CompileRules(sp.Remote, sp.FollowUps); err != nil {
		c.fail("/callback/followUps", "%v", err)
	}
	for _, rule := range sp.FollowUps {
		out.types[rule.Type] = true
	}
	return out
}

// Concerns reports whether the end of a delivery of this type may be waited for.
func (c *Callback) Concerns(eventType string) bool { return c.types[eventType] }

// Rules are the names of the rules, in the order in which they are evaluated.
func (c *Callback) Rules() []string { return append(c.requested.Names(), c.followUps.Names()...) }

// Key names, in a checked body, what follow-ups are kept in order for.
func (c *Callback) Key(body []byte) (string, error) { return inbound.Text(body, c.key) }

// Follow is what a body that was called back asks for: events at once, and events in order. The error joins the rules that cannot
// be evaluated for it; what the others make comes with it.
func (c *Callback) Follow(body []byte) (requested, followUps []inbound.FollowUp, err error) {
	requested, first := c.requested.Apply(body)
	followUps, second := c.followUps.Apply(body)
	return requested, followUps, errors.Join(first, second)
}

// Fingerprint is what a body is recognised by when it is called back. Sent is the SHA-256 of it as a client prints it again that has
// parsed it: spelled anew, with its members in their order (JavaScript puts those that are array indices first). Signed is that of the
// sorted form, which the order of members does not change. Where nothing sorted is signed, both are of the bytes. An error is a
// *[ContractError].
func (p *Profile) Fingerprint(body []byte) (sent, signed [32]byte, err error) {
	if !p.sorted {
		sum := sha256.Sum256(body)
		return sum, sum, nil
	}
	var s ecmajson.Sorter
	text, err := s.AppendSorted(make([]byte, 0, len(body)), body)
	if err != nil {
		return sent, signed, unfit(err)
	}
	signed = sha256.Sum256(text)
	text, err = s.AppendParsed(text[:0], body)
	return sha256.Sum256(text), signed, unfit(err)
}

// Expect is what a delivery of the event will be recognised by when it is called back: the fingerprint of its body, and its
// [Callback.Key]. An error is a *[ContractError]: then the event is not delivered either.
func (p *Profile) Expect(e *webhook.Event) (sent, signed [32]byte, key string, err error) {
	d := &webhook.Delivery{Event: *e}
	body, err := p.body.append(make([]byte, 0, p.body.size(d)), input{d: d, at: e.RecordedAt})
	if err != nil {
		return sent, signed, "", err
	}
	if sent, signed, err = p.Fingerprint(body); err != nil {
		return sent, signed, "", err
	}
	key, err = p.callback.Key(body)
	return sent, signed, key, err
}
