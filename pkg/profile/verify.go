package profile

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hookline/hookline/pkg/ecmajson"
)

// Part is what of a request does not verify.
type Part string

// The parts. Without the key nobody can tell a changed body from a wrong key: PartKeyOrBytes says so, and the two others
// are reported where a usual mistake explains the difference.
const (
	PartHeader     Part = "header"
	PartTimestamp  Part = "timestamp"
	PartKey        Part = "key"
	PartBytes      Part = "bytes"
	PartKeyOrBytes Part = "key or bytes"
)

// Mismatch is why a request does not verify.
type Mismatch struct {
	Part Part
	// Header is the header concerned, where there is one.
	Header string
	// Detail says what to look at. It shows no key.
	Detail string
}

func (m *Mismatch) Error() string {
	if m.Header == "" {
		return string(m.Part) + ": " + m.Detail
	}
	return string(m.Part) + ": " + m.Header + ": " + m.Detail
}

func mismatch(part Part, header, format string, args ...any) error {
	return &Mismatch{Part: part, Header: header, Detail: fmt.Sprintf(format, args...)}
}

// Verify checks a request as a receiver should: every signature header must have a signature that one of the keys made
// over these bytes, and a signed timestamp must be within the profile's tolerance of now. Keys are secrets as the user
// sees them; a public key will do where there is one. Errors are *[Mismatch].
func (p *Profile) Verify(h http.Header, body []byte, keys [][]byte, now time.Time) error {
	var decoded []key
	for i, secret := range keys {
		k, err := p.readKey(secret)
		if err != nil {
			return mismatch(PartKey, "", "key %d: %v", i+1, err)
		}
		decoded = append(decoded, k)
	}
	if len(decoded) == 0 {
		return mismatch(PartKey, "", "there is none")
	}
	fields, err := p.carriedFields(h)
	if err != nil {
		return err
	}
	for i := range p.signatures {
		v := verification{p: p, sig: &p.signatures[i], fields: fields, body: body, keys: decoded}
		if err := v.run(h, now); err != nil {
			return err
		}
	}
	return nil
}

// carriedFields reads the fields that are the whole value of a header.
func (p *Profile) carriedFields(h http.Header) (map[part]string, error) {
	fields := map[part]string{}
	for _, own := range p.headers {
		// An event may have no ordering key, and then the header is left out.
		if own.value.has(fieldOrderingKey) && h.Get(own.name) == "" {
			continue
		}
		value, err := single(h, own.name)
		if err != nil {
			return nil, err
		}
		if len(own.value) == 1 {
			fields[own.value[0]] = value
		}
	}
	return fields, nil
}

func single(h http.Header, name string) (string, error) {
	values := h.Values(name)
	switch {
	case len(values) == 0 || values[0] == "":
		return "", mismatch(PartHeader, name, "it is missing")
	case len(values) > 1:
		return "", mismatch(PartHeader, name, "it is there %d times", len(values))
	}
	return values[0], nil
}

// verification is the check of one signature header.
type verification struct {
	p      *Profile
	sig    *signature
	fields map[part]string
	body   []byte
	keys   []key
}

func (v *verification) run(h http.Header, now time.Time) error {
	value, err := single(h, v.sig.header)
	if err != nil {
		return err
	}
	found, ok := v.sig.value.match(value)
	if !ok {
		return mismatch(PartHeader, v.sig.header, "it does not have the form %s", v.sig.value)
	}
	fields := make(map[part]string, len(v.fields)+len(found))
	for _, from := range []map[part]string{v.fields, found} {
		for field, text := range from {
			fields[field] = text
		}
	}
	v.fields = fields
	candidates, err := v.candidates(found[part{field: fieldSignatures}])
	if err != nil {
		return err
	}
	signed, err := v.content(v.body)
	if err != nil {
		return mismatch(PartBytes, "", "%v", err)
	}
	if !v.matches(candidates, v.keys, signed) {
		return v.explain(candidates)
	}
	return v.timestamp(now)
}

// candidate is one signature of the header.
type candidate struct {
	label string
	raw   []byte
}

// candidates reads the signatures. What does not have the form is passed over, as a receiver passes over a scheme that
// it does not know; at least one must be left.
func (v *verification) candidates(list string) ([]candidate, error) {
	items := []string{list}
	if v.sig.join != "" {
		items = strings.Split(list, v.sig.join)
	}
	var out []candidate
	for _, item := range items {
		found, ok := v.sig.each.match(item)
		if !ok {
			continue
		}
		raw, err := v.sig.encoding.decode([]byte(found[part{field: fieldSignature}]))
		if err != nil || len(raw) == 0 {
			continue
		}
		out = append(out, candidate{label: found[part{field: fieldLabel}], raw: raw})
	}
	if len(out) == 0 {
		return nil, mismatch(PartHeader, v.sig.header, "there is no signature of the form %s in %s", v.sig.each, v.sig.encoding)
	}
	return out, nil
}

// content is what is signed, with the given bytes as the body.
func (v *verification) content(body []byte) ([]byte, error) {
	var out []byte
	for _, p := range v.sig.content {
		switch {
		case p.field == fieldBody && p.format == formatSorted:
			var s ecmajson.Sorter
			sorted, err := s.AppendSorted(nil, body)
			if err != nil {
				return nil, unfit(err)
			}
			out = append(out, sorted...)
		case p.field == fieldBody:
			out = append(out, body...)
		case p.field == fieldNone:
			out = append(out, p.literal...)
		default:
			out = append(out, v.fields[p]...)
		}
	}
	return out, nil
}

func (v *verification) matches(candidates []candidate, keys []key, signed []byte) bool {
	for _, k := range keys {
		for _, c := range candidates {
			if v.sig.each.has(fieldLabel) && c.label != k.form.label {
				continue
			}
			if v.sig.verify(k, signed, c.raw) {
				return true
			}
		}
	}
	return false
}

func (sig *signature) verify(k key, signed, mac []byte) bool {
	if sig.algorithmFor(k) == edSignature {
		public := k.public
		if public == nil {
			public = ed25519.PrivateKey(k.raw).Public().(ed25519.PublicKey)
		}
		return len(mac) == ed25519.SignatureSize && ed25519.Verify(public, signed, mac)
	}
	if k.public != nil {
		return false
	}
	h := hmac.New(sig.algorithmFor(k).hash(), k.raw)
	h.Write(signed)
	return hmac.Equal(h.Sum(nil), mac)
}

func (v *verification) timestamp(now time.Time) error {
	for p, text := range v.fields {
		if p.field != fieldAttemptTime || !slices.Contains(v.sig.content, p) {
			continue
		}
		at, ok := parseTime(text, p.format)
		if !ok {
			return mismatch(PartTimestamp, v.sig.header, "%q is not a time", text)
		}
		if age := now.Sub(at); age > v.p.Tolerance || age < -v.p.Tolerance {
			return mismatch(PartTimestamp, v.sig.header, "the signature fits, but it is from %s, which is %s away from now; at most %s is accepted",
				at.UTC().Format(time.RFC3339), age.Abs().Round(time.Second), v.p.Tolerance)
		}
	}
	return nil
}

func parseTime(text string, f format) (time.Time, bool) {
	if layout, ok := layouts[f]; ok {
		t, err := time.Parse(layout, text)
		return t, err == nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || len(text) > 15 {
		return time.Time{}, false
	}
	if f == formatUnixMilli {
		return time.UnixMilli(n), true
	}
	return time.Unix(n, 0), true
}

// explain looks for a usual mistake that makes the signature fit.
func (v *verification) explain(candidates []candidate) error {
	for _, change := range bodyMistakes {
		body, ok := change.apply(v.body)
		if !ok {
			continue
		}
		if signed, err := v.content(body); err == nil && v.matches(candidates, v.keys, signed) {
			return mismatch(PartBytes, v.sig.header, "%s", change.detail)
		}
	}
	signed, err := v.content(v.body)
	if err == nil {
		for _, change := range keyMistakes {
			if v.matches(candidates, change.apply(v.keys), signed) {
				return mismatch(PartKey, v.sig.header, "%s", change.detail)
			}
		}
	}
	if v.matches(candidates, v.keys, v.body) {
		return mismatch(PartBytes, v.sig.header, "the signature covers the body alone; it must cover %s", v.sig.content)
	}
	return mismatch(PartKeyOrBytes, v.sig.header, "no signature fits: the key is another one, or the body is not the bytes that were signed")
}

// match reads the fields out of a text of the template's form. Between two fields there must be a literal.
func (t template) match(text string) (map[part]string, bool) {
	found := map[part]string{}
	for i, p := range t {
		if p.field == fieldNone {
			rest, ok := strings.CutPrefix(text, p.literal)
			if !ok {
				return nil, false
			}
			text = rest
			continue
		}
		end := len(text)
		if i+1 < len(t) {
			if end = strings.Index(text, t[i+1].literal); end < 0 {
				return nil, false
			}
		}
		if end == 0 {
			return nil, false
		}
		found[p] = text[:end]
		text = text[end:]
	}
	return found, text == ""
}

// String is the template as it is written in a profile.
func (t template) String() string {
	var out strings.Builder
	for _, p := range t {
		if p.field == fieldNone {
			out.WriteString(p.literal)
			continue
		}
		out.WriteByte('{')
		out.WriteString(nameOf(fieldNames, p.field))
		if p.format != formatPlain {
			out.WriteString(":" + nameOf(formatNames[p.field], p.format))
		}
		out.WriteByte('}')
	}
	return out.String()
}

func (e encoding) String() string { return nameOf(encodingNames, e) }

func nameOf[T comparable](names map[string]T, value T) string {
	for name, v := range names {
		if v == value {
			return name
		}
	}
	return ""
}

type bodyMistake struct {
	detail string
	apply  func(body []byte) ([]byte, bool)
}

var bodyMistakes = []bodyMistake{
	{"the signature fits the body without the newline at its end", func(b []byte) ([]byte, bool) {
		trimmed := bytes.TrimRight(b, "\r\n")
		return trimmed, len(trimmed) < len(b)
	}},
	{"the signature fits the body with a newline at its end", func(b []byte) ([]byte, bool) { return append(bytes.Clone(b), '\n'), true }},
	{"the signature fits the body with LF line ends instead of CRLF", func(b []byte) ([]byte, bool) {
		return bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")), bytes.Contains(b, []byte("\r\n"))
	}},
	{"the signature fits the body without its byte order mark", func(b []byte) ([]byte, bool) {
		return bytes.CutPrefix(b, []byte("\ufeff"))
	}},
	{"the signature fits the JSON without its white space: verify the raw bytes, not a document printed again", compact},
}

// compact removes the white space between the tokens of JSON and changes nothing else.
func compact(b []byte) ([]byte, bool) {
	var out []byte
	for i := 0; i < len(b); {
		switch b[i] {
		case ' ', '\t', '\r', '\n':
			i++
		case '"':
			end := ecmajson.SkipString(b, i)
			if end < 0 {
				return nil, false
			}
			out = append(out, b[i:end]...)
			i = end
		default:
			out = append(out, b[i])
			i++
		}
	}
	return out, len(out) < len(b)
}

type keyMistake struct {
	detail string
	apply  func(keys []key) []key
}

var keyMistakes = []keyMistake{
	{"the signature fits the key without the white space around it", changeKeys(func(raw []byte) []byte { return bytes.TrimSpace(raw) })},
	{"the signature fits the key with a newline at its end", changeKeys(func(raw []byte) []byte { return append(bytes.Clone(raw), '\n') })},
	{"the signature fits the key read as base64, but here its text is the key", changeKeys(func(raw []byte) []byte {
		decoded, _ := encodeBase64.decode(raw)
		return decoded
	})},
	{"the signature fits the key read as hexadecimal, but here its text is the key", changeKeys(func(raw []byte) []byte {
		decoded, _ := encodeHex.decode(raw)
		return decoded
	})},
	{"the signature fits the key's base64 text, but here the key is what that decodes to", changeKeys(func(raw []byte) []byte {
		return encodeBase64.append(nil, raw)
	})},
	{"the signature fits the whole text of the secret, but here the key is what follows the prefix, decoded", func(keys []key) []key {
		var out []key
		for _, k := range keys {
			k.raw = k.form.encoding.append([]byte(k.form.prefix), k.raw)
			out = append(out, k)
		}
		return hmacOnly(out)
	}},
}

func changeKeys(change func(raw []byte) []byte) func(keys []key) []key {
	return func(keys []key) []key {
		var out []key
		for _, k := range keys {
			k.raw = change(k.raw)
			out = append(out, k)
		}
		return hmacOnly(out)
	}
}

// hmacOnly drops keys whose bytes cannot be changed at will.
func hmacOnly(keys []key) []key {
	return slices.DeleteFunc(keys, func(k key) bool { return k.form.algorithm == edSignature || len(k.raw) == 0 })
}
