package profile

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/hookline/hookline/pkg/ecmajson"
	"github.com/hookline/hookline/pkg/webhook"
)

// Parse reads one profile file. The error joins everything wrong in it, each with the file's name and the line.
func Parse(name string, text []byte) (*Profile, error) {
	src := readSource(name, text)
	if len(src.problems) > 0 && len(src.refused) == 0 {
		return nil, errors.Join(src.problems...)
	}
	sp, err := src.decode()
	if err != nil {
		return nil, errors.Join(append(src.problems, err)...)
	}
	p := (&compiler{src: src}).profile(sp)
	if len(src.problems) > 0 {
		return nil, errors.Join(src.problems...)
	}
	p.yaml, p.json = bytes.Clone(text), src.json
	return p, nil
}

// compiler makes a Profile of a spec and collects what the schema cannot see.
type compiler struct{ src *source }

// fail reports a problem, except where the schema has said already what is wrong: in a section that it refused, or in one
// that it missed.
func (c *compiler) fail(pointer, format string, args ...any) {
	section := sectionOf(pointer)
	_, present := c.src.lines["/"+section]
	if c.src.refused[section] || c.src.refused[""] && !present {
		return
	}
	c.src.at(pointer, format, args...)
}

func (c *compiler) profile(sp *spec) *Profile {
	p := &Profile{
		Name: sp.Name, Version: sp.Version, Description: sp.Description,
		HTTPSOnly:   sp.Endpoint.HTTPSOnly,
		Timeout:     time.Duration(sp.Timeout),
		Tolerance:   orDefault(time.Duration(sp.Tolerance), defaultTolerance),
		contentType: sp.ContentType,
		trace:       sp.Trace,
		reserved:    map[string]bool{},
	}
	if p.contentType == "" {
		p.contentType = "application/json"
	} else if !printable(p.contentType) {
		c.fail("/contentType", "must be printable ASCII")
	}
	p.body = c.body(&sp.Body)
	c.headers(p, sp)
	c.secret(p, &sp.Secret)
	c.signatures(p, sp)
	p.responses = c.responses(sp.Responses)
	p.bounds = c.bounds(&sp.Bounds)
	p.settings = c.settings(p, sp)
	p.callback = c.callback(sp.Callback)
	c.rest(p, sp)
	p.plain = p.contract(&webhook.Overrides{})
	return p
}

const defaultTolerance = 5 * time.Minute

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

func (c *compiler) body(sp *bodySpec) body {
	if sp.Raw != "" {
		return body{{kind: opData}}
	}
	w := &bodyWriter{c: c}
	w.object(sp.Members, "/body/members", true)
	return w.done()
}

// bodyWriter turns members into ops, joining neighbouring literals.
type bodyWriter struct {
	c       *compiler
	ops     body
	literal []byte
}

func (w *bodyWriter) done() body {
	w.flush()
	return w.ops
}

func (w *bodyWriter) flush() {
	if len(w.literal) > 0 {
		w.ops = append(w.ops, op{kind: opLiteral, literal: string(w.literal)})
		w.literal = nil
	}
}

func (w *bodyWriter) op(o op) {
	w.flush()
	w.ops = append(w.ops, o)
}

func (w *bodyWriter) object(list []memberSpec, pointer string, top bool) {
	var names []string
	w.literal = append(w.literal, '{')
	for i := range list {
		m, at := &list[i], pointer+"/"+strconv.Itoa(i)
		if m.Spread != "" {
			w.spread(list, i, at, top)
			continue
		}
		if m.Name == "" {
			w.c.fail(at, "a member needs a name")
		} else if slices.Contains(names, m.Name) {
			w.c.fail(at, "the object has a member %q already", m.Name)
		}
		names = append(names, m.Name)
		if i > 0 {
			w.literal = append(w.literal, ',')
		}
		w.literal = append(ecmajson.AppendString(w.literal, m.Name), ':')
		w.value(m, at)
	}
	w.literal = append(w.literal, '}')
}

func (w *bodyWriter) spread(list []memberSpec, i int, at string, top bool) {
	m := &list[i]
	if m.Name != "" || m.String != nil || m.Number != nil || m.Raw != "" || m.Const != nil || m.Object != nil || m.Fill != nil {
		w.c.fail(at, "spread stands alone")
	}
	if !top || i == 0 {
		w.c.fail(at, "spread must come after another member of the body itself")
	}
	o := op{kind: opSpread}
	for j := range list {
		if list[j].Spread != "" && j < i {
			w.c.fail(at, "data can be spread once")
		}
		if list[j].Name != "" {
			o.reserved = append(o.reserved, list[j].Name)
		}
	}
	w.op(o)
}

func (w *bodyWriter) value(m *memberSpec, at string) {
	kinds := 0
	for _, set := range []bool{m.String != nil, m.Number != nil, m.Raw != "", m.Const != nil, m.Object != nil} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		w.c.fail(at, "a member holds exactly one of string, number, raw, const, object")
		return
	}
	if m.Fill != nil && m.Raw != "metadata" {
		w.c.fail(at+"/fill", "only raw metadata is filled")
	}
	switch {
	case m.String != nil:
		w.text(*m.String, at+"/string")
	case m.Number != nil:
		w.number(*m.Number, at+"/number")
	case m.Raw == "data":
		w.op(op{kind: opData})
	case m.Raw == "metadata":
		w.op(op{kind: opMetadata, fill: w.fill(m.Fill, at+"/fill")})
	case m.Object != nil:
		w.object(m.Object, at+"/object", false)
	default:
		w.literal = append(w.literal, m.Const...)
	}
}

func (w *bodyWriter) text(text, at string) {
	t, err := parseTemplate(text, eventFields)
	if err != nil {
		w.c.fail(at, "%v", err)
	}
	w.literal = append(w.literal, '"')
	for _, p := range t {
		if p.field == fieldNone {
			w.literal = ecmajson.AppendText(w.literal, p.literal)
		} else {
			w.op(op{kind: opText, part: p})
		}
	}
	w.literal = append(w.literal, '"')
}

func (w *bodyWriter) number(text, at string) {
	t, err := parseTemplate(text, eventFields)
	if err != nil {
		w.c.fail(at, "%v", err)
		return
	}
	if len(t) != 1 || !t[0].numeric() {
		w.c.fail(at, "a number is one field: {attempt}, or a timestamp as unix or unixms")
		return
	}
	w.op(op{kind: opNumber, part: t[0]})
}

const maxFill = 20

func (w *bodyWriter) fill(list []memberSpec, at string) []fillMember {
	if len(list) > maxFill {
		w.c.fail(at, "at most %d members can be filled in", maxFill)
		return nil
	}
	var fill []fillMember
	for i := range list {
		m, pointer := &list[i], at+"/"+strconv.Itoa(i)
		if m.Name == "" || m.Spread != "" || m.Raw != "" {
			w.c.fail(pointer, "what is filled in has a name and is a string, a number, a const or an object")
			continue
		}
		inner := &bodyWriter{c: w.c}
		inner.value(m, pointer)
		fill = append(fill, fillMember{name: m.Name, head: string(append(ecmajson.AppendString(nil, m.Name), ':')), value: inner.done()})
	}
	return fill
}

func (c *compiler) headers(p *Profile, sp *spec) {
	for i, h := range sp.Headers {
		at := "/headers/" + strconv.Itoa(i)
		t, err := parseTemplate(h.Value, eventFields)
		if err != nil {
			c.fail(at+"/value", "%v", err)
		}
		c.literals(t, at+"/value")
		p.headers = append(p.headers, header{name: c.claim(p, h.Name, at+"/name"), value: t, forbid: h.Forbid})
	}
}

// claim takes a header name for the profile.
func (c *compiler) claim(p *Profile, name, at string) string {
	canonical := http.CanonicalHeaderKey(name)
	switch {
	case !httpguts.ValidHeaderFieldName(name):
		c.fail(at, "%q is not a header name", name)
	case forbiddenHeader(canonical):
		c.fail(at, "the header %s belongs to the HTTP client", canonical)
	case p.reserved[canonical]:
		c.fail(at, "the header %s is set twice", canonical)
	}
	p.reserved[canonical] = true
	return canonical
}

func (c *compiler) literals(t template, at string) {
	for _, part := range t {
		if part.field == fieldNone && !printable(part.literal) {
			c.fail(at, "a header value must be printable ASCII")
		}
	}
}

func (c *compiler) secret(p *Profile, sp *secretSpec) {
	p.generate = generator{prefix: sp.Generate.Prefix, bytes: sp.Generate.Bytes, encoding: encodingNames[sp.Generate.Encoding]}
	for i, f := range sp.Forms {
		at := "/secret/forms/" + strconv.Itoa(i)
		compiled := form{
			prefix: f.Prefix, publicPrefix: f.PublicPrefix, label: f.Label, minBytes: f.MinBytes, maxBytes: f.MaxBytes,
			encoding: encodingNames[f.Encoding], algorithm: algorithmNames[f.Algorithm],
		}
		if compiled.maxBytes == 0 {
			compiled.maxBytes = 1024
		}
		if compiled.maxBytes < compiled.minBytes {
			c.fail(at+"/maxBytes", "is less than minBytes")
		}
		if (f.PublicPrefix != "") != (compiled.algorithm == edSignature) {
			c.fail(at, "ed25519 needs a publicPrefix, and nothing else has one")
		}
		p.forms = append(p.forms, compiled)
	}
	if err := p.CheckSecret(p.NewSecret()); err != nil {
		c.fail("/secret/generate", "a generated secret is refused by the profile's own forms: %v", err)
	}
}

func (c *compiler) signatures(p *Profile, sp *spec) {
	for i := range sp.Signatures {
		s, at := &sp.Signatures[i], "/signatures/"+strconv.Itoa(i)
		compiled := signature{
			header: c.claim(p, s.Header, at+"/header"), algorithm: algorithmNames[s.Algorithm], encoding: encodingNames[s.Encoding],
			content: c.template(s.Content, contentFields, at+"/content"),
			each:    c.template(orText(s.Each, "{signature}"), eachFields, at+"/each"),
			value:   c.template(orText(s.Value, "{signatures}"), valueFields, at+"/value"),
			join:    s.Join, keys: max(s.Keys, 1),
		}
		c.literals(compiled.each, at+"/each")
		c.literals(compiled.value, at+"/value")
		if compiled.each != nil && !compiled.each.has(fieldSignature) {
			c.fail(at+"/each", "must hold {signature}")
		}
		if compiled.value != nil && !compiled.value.has(fieldSignatures) {
			c.fail(at+"/value", "must hold {signatures}")
		}
		if adjacent(compiled.each) || adjacent(compiled.value) {
			c.fail(at, "between two fields of a signature header there must be something to tell them apart by")
		}
		if compiled.keys > 1 && compiled.join == "" {
			c.fail(at+"/join", "several signatures need something between them")
		}
		if compiled.content != nil {
			c.signed(p, &compiled, at+"/content")
		}
		p.signatures = append(p.signatures, compiled)
	}
}

func (c *compiler) template(text string, allowed []field, at string) template {
	t, err := parseTemplate(text, allowed)
	if err != nil {
		c.fail(at, "%v", err)
	}
	return t
}

// signed checks that a receiver can know everything that is signed: each field stands alone in some header, or in the
// signature's own header.
func (c *compiler) signed(p *Profile, s *signature, at string) {
	if !s.content.has(fieldBody) {
		c.fail(at, "the signed content must hold {body}")
	}
	for _, part := range s.content {
		if part.field == fieldBody {
			p.sorted = p.sorted || part.format == formatSorted
			continue
		}
		if part.field != fieldNone && !slices.Contains(s.value, part) && !carried(p, part) {
			c.fail(at, "a field that is signed must stand in the signature's header or be a header of its own")
		}
	}
}

// adjacent reports whether two fields stand side by side.
func adjacent(t template) bool {
	for i := 1; i < len(t); i++ {
		if t[i-1].field != fieldNone && t[i].field != fieldNone {
			return true
		}
	}
	return false
}

// carried reports whether a field is the whole value of a header.
func carried(p *Profile, want part) bool {
	return slices.ContainsFunc(p.headers, func(h header) bool { return len(h.value) == 1 && h.value[0] == want })
}

func orText(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

func (c *compiler) rest(p *Profile, sp *spec) {
	if a := sp.AutoDisable; a != nil {
		p.AutoDisable = &AutoDisable{After: a.After, Count: a.Count, Window: time.Duration(a.Window)}
	}
	names := map[string]bool{}
	for i, t := range sp.EventTypes {
		if names[t.Name] {
			c.fail(fmt.Sprintf("/eventTypes/%d/name", i), "the event type %s is described twice", t.Name)
		}
		names[t.Name] = true
		p.EventTypes = append(p.EventTypes, EventType(t))
	}
}
