package source

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // some third parties sign with nothing better
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/hookline/hookline/pkg/webhook"
)

// Verification is how a third party shows that a request is its own.
type Verification struct {
	// Scheme is hmac, ed25519, token or basic.
	Scheme string `json:"scheme"`
	// Header has the signature or the token; Authorization unless given, which only token and basic may leave out.
	Header string `json:"header,omitempty"`
	// Separator divides the header into items, of which those that begin with Prefix are signatures; one that fits is enough.
	// Without it the whole header is one item.
	Separator string `json:"separator,omitempty"`
	Prefix    string `json:"prefix,omitempty"`
	// Encoding of the signature: hex (unless given), base64 or base64url.
	Encoding string `json:"encoding,omitempty"`
	// Algorithm of hmac: sha256 (unless given), sha1 or sha512.
	Algorithm string `json:"algorithm,omitempty"`
	// Content is what is signed: {body} (unless given), {timestamp} and {header:Name} within any text.
	Content string `json:"content,omitempty"`
	// Timestamp, where there is one, must be signed too.
	Timestamp *Timestamp `json:"timestamp,omitempty"`
	Key       KeyForm    `json:"key,omitzero"`
	// Username is of basic; the password is the secret.
	Username string `json:"username,omitempty"`
}

// Timestamp is when the third party sent a request, by its own account.
type Timestamp struct {
	// Header has it alone; or else it is the item of the signature's header that begins with Prefix.
	Header string `json:"header,omitempty"`
	Prefix string `json:"prefix,omitempty"`
	// Format is unix (unless given), unix_ms or rfc3339.
	Format string `json:"format,omitempty"`
	// Tolerance is how far from now it may be, before and after; 5m unless given.
	Tolerance webhook.Duration `json:"tolerance,omitzero"`
}

// KeyForm is how the secret is written.
type KeyForm struct {
	// Prefix is not part of the key.
	Prefix string `json:"prefix,omitempty"`
	// Encoding is text (unless given), hex, base64 or base64url.
	Encoding string `json:"encoding,omitempty"`
}

const (
	defaultTolerance = 5 * time.Minute
	maxTolerance     = 24 * time.Hour
	// maxItems bounds how many signatures of one header are tried.
	maxItems = 10
)

// verifier is a compiled Verification.
type verifier struct {
	Verification
	content   []piece
	tolerance time.Duration
	hash      func() hash.Hash
}

// piece is a part of what is signed: a literal, or one of the three others.
type piece struct {
	literal   string
	header    string
	body      bool
	timestamp bool
}

func (c *compiler) verifier(spec *Verification) verifier {
	v := verifier{Verification: *spec, hash: sha256.New}
	switch spec.Scheme {
	case "hmac", "ed25519":
		c.signature(&v)
	case "token", "basic":
		if spec.Timestamp != nil || spec.Content != "" || spec.Algorithm != "" || spec.Encoding != "" || spec.Separator != "" {
			c.fail("/verify", "nothing is signed under %s", spec.Scheme)
		}
		if v.Header == "" {
			v.Header = "Authorization"
		}
		if spec.Scheme == "basic" && (spec.Header != "" || spec.Prefix != "" || spec.Username == "" || strings.Contains(spec.Username, ":")) {
			c.fail("/verify", "basic has a username without a colon, and stands in Authorization")
		}
	default:
		c.fail("/verify/scheme", "want hmac, ed25519, token or basic")
	}
	if spec.Username != "" && spec.Scheme != "basic" {
		c.fail("/verify/username", "is for basic only")
	}
	if v.Header != "" && !httpguts.ValidHeaderFieldName(v.Header) {
		c.fail("/verify/header", "is not the name of a header")
	}
	v.Header = http.CanonicalHeaderKey(v.Header)
	if !oneOf(spec.Key.Encoding, "", "text", "hex", "base64", "base64url") {
		c.fail("/verify/key/encoding", "want text, hex, base64 or base64url")
	}
	return v
}

func (c *compiler) signature(v *verifier) {
	if v.Header == "" {
		c.fail("/verify/header", "is required")
	}
	switch v.Algorithm {
	case "", "sha256":
	case "sha1":
		v.hash = sha1.New
	case "sha512":
		v.hash = sha512.New
	default:
		c.fail("/verify/algorithm", "want sha256, sha1 or sha512")
	}
	if v.Scheme == "ed25519" && v.Algorithm != "" {
		c.fail("/verify/algorithm", "ed25519 has none to choose")
	}
	if !oneOf(v.Encoding, "", "hex", "base64", "base64url") {
		c.fail("/verify/encoding", "want hex, base64 or base64url")
	}
	c.content(v)
	if v.Timestamp == nil {
		return
	}
	t := *v.Timestamp
	if (t.Header == "") == (t.Prefix == "") || t.Prefix != "" && (v.Separator == "" || t.Prefix == v.Prefix) {
		c.fail("/verify/timestamp", "want a header, or a prefix of its own in a header with a separator")
	}
	if !oneOf(t.Format, "", "unix", "unix_ms", "rfc3339") {
		c.fail("/verify/timestamp/format", "want unix, unix_ms or rfc3339")
	}
	if v.tolerance = time.Duration(t.Tolerance); v.tolerance == 0 {
		v.tolerance = defaultTolerance
	}
	if v.tolerance < 0 || v.tolerance > maxTolerance {
		c.fail("/verify/timestamp/tolerance", "want 0 to 24h")
	}
	t.Header = http.CanonicalHeaderKey(t.Header)
	v.Timestamp = &t
}

// content reads the template of what is signed. An unsigned timestamp could be written anew by whoever repeats a request, and
// an unsigned body could be anything: both must be in it.
func (c *compiler) content(v *verifier) {
	text := v.Content
	if text == "" {
		text = "{body}"
	}
	for text != "" {
		literal, rest, found := strings.Cut(text, "{")
		if literal != "" {
			v.content = append(v.content, piece{literal: literal})
		}
		if !found {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		header, isHeader := strings.CutPrefix(name, "header:")
		switch {
		case closed && name == "body":
			v.content = append(v.content, piece{body: true})
		case closed && name == "timestamp" && v.Timestamp != nil:
			v.content = append(v.content, piece{timestamp: true})
		case closed && isHeader && httpguts.ValidHeaderFieldName(header):
			v.content = append(v.content, piece{header: http.CanonicalHeaderKey(header)})
		default:
			c.fail("/verify/content", "{%s is not {body}, {timestamp} (where there is one) or {header:Name}", name)
		}
		text = after
	}
	body, timestamp := false, v.Timestamp == nil
	for _, p := range v.content {
		body, timestamp = body || p.body, timestamp || p.timestamp
	}
	if !body || !timestamp {
		c.fail("/verify/content", "must have the body, and the timestamp where there is one")
	}
}

func oneOf(text string, some ...string) bool {
	for _, one := range some {
		if text == one {
			return true
		}
	}
	return false
}

// CheckSecret refuses a secret that cannot be used as the specification says.
func (s *Source) CheckSecret(secret []byte) error {
	if len(secret) == 0 || len(secret) > 4096 {
		return fmt.Errorf("a secret has 1 to 4096 bytes")
	}
	key, err := s.verify.key(secret)
	if err != nil {
		return err
	}
	if s.verify.Scheme == "ed25519" && len(key) != ed25519.PublicKeySize {
		return fmt.Errorf("an Ed25519 public key has %d bytes, this one %d", ed25519.PublicKeySize, len(key))
	}
	return nil
}

// Verify decides whether a request is the third party's own, in time that does not depend on the secrets. Secrets are the live
// values; one that fits is enough. The error is an [*Error].
func (s *Source) Verify(r Request, secrets [][]byte, now time.Time) error {
	v := &s.verify
	if len(secrets) == 0 {
		return refuse(NoSecret, "the source has no secret that can be read")
	}
	keys := make([][]byte, 0, len(secrets))
	for _, secret := range secrets {
		if key, err := v.key(secret); err == nil && len(key) > 0 {
			keys = append(keys, key)
		}
	}
	if v.Scheme == "token" || v.Scheme == "basic" {
		return v.credentials(r.Header, keys)
	}
	return v.signed(r, keys, now)
}

func (v *verifier) key(secret []byte) ([]byte, error) {
	text := strings.TrimPrefix(string(secret), v.Key.Prefix)
	encoding := v.Key.Encoding
	if encoding == "" || encoding == "text" {
		return []byte(text), nil
	}
	return decode(encoding, text)
}

func decode(encoding, text string) ([]byte, error) {
	switch encoding {
	case "base64":
		return base64.StdEncoding.Strict().DecodeString(text)
	case "base64url":
		return base64.RawURLEncoding.Strict().DecodeString(strings.TrimRight(text, "="))
	default:
		return hex.DecodeString(text)
	}
}

func (v *verifier) credentials(h http.Header, keys [][]byte) error {
	shown, ok := only(h, v.Header)
	if !ok {
		return refuse(MissingSignature, "%s is not there once", v.Header)
	}
	var name, secret string
	if v.Scheme == "basic" {
		r := http.Request{Header: http.Header{"Authorization": {shown}}}
		if name, secret, ok = r.BasicAuth(); !ok {
			return refuse(MissingSignature, "Authorization is not Basic")
		}
	} else if secret, ok = strings.CutPrefix(shown, v.Prefix); !ok {
		return refuse(MissingSignature, "%s does not begin as it should", v.Header)
	}
	fits := 0
	for _, key := range keys {
		fits |= equal(secret, string(key))
	}
	if v.Scheme == "basic" {
		fits &= equal(name, v.Username)
	}
	if fits != 1 {
		return refuse(BadCredentials, "the credentials are not the source's")
	}
	return nil
}

// equal compares in time that depends on neither text, not even on their lengths.
func equal(a, b string) int {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return subtle.ConstantTimeCompare(x[:], y[:])
}

// only is the value of a header that is there exactly once: of two, the one that is verified may not be the one that is used.
func only(h http.Header, name string) (string, bool) {
	values := h[name]
	if len(values) != 1 || values[0] == "" {
		return "", false
	}
	return values[0], true
}

func (v *verifier) signed(r Request, keys [][]byte, now time.Time) error {
	shown, ok := only(r.Header, v.Header)
	if !ok {
		return refuse(MissingSignature, "%s is not there once", v.Header)
	}
	items := []string{shown}
	if v.Separator != "" {
		items = strings.SplitN(shown, v.Separator, maxItems+1)
	}
	var signatures [][]byte
	stamp := ""
	for _, item := range items[:min(len(items), maxItems)] {
		item = strings.TrimSpace(item)
		if t := v.Timestamp; t != nil && t.Prefix != "" && strings.HasPrefix(item, t.Prefix) {
			if stamp != "" {
				return refuse(MissingTimestamp, "there are two timestamps in %s", v.Header)
			}
			stamp = strings.TrimPrefix(item, t.Prefix)
		} else if text, ok := strings.CutPrefix(item, v.Prefix); ok {
			if raw, err := decode(v.Encoding, text); err == nil && len(raw) > 0 {
				signatures = append(signatures, raw)
			}
		}
	}
	if len(signatures) == 0 {
		return refuse(MissingSignature, "%s has no signature of the form that is expected", v.Header)
	}
	if t := v.Timestamp; t != nil && t.Header != "" {
		stamp, _ = only(r.Header, t.Header)
	}
	if v.Timestamp != nil && stamp == "" {
		return refuse(MissingTimestamp, "there is no timestamp")
	}
	if !v.fits(v.contentOf(r, stamp), signatures, keys) {
		return refuse(BadSignature, "no signature fits")
	}
	// After the signature, so that only who can sign learns what the clock says.
	return v.fresh(stamp, now)
}

// contentOf is what is signed.
func (v *verifier) contentOf(r Request, stamp string) []byte {
	out := make([]byte, 0, len(r.Body)+64)
	for _, p := range v.content {
		switch {
		case p.body:
			out = append(out, r.Body...)
		case p.timestamp:
			out = append(out, stamp...)
		case p.header != "":
			one, _ := only(r.Header, p.header)
			out = append(out, one...)
		default:
			out = append(out, p.literal...)
		}
	}
	return out
}

func (v *verifier) fits(content []byte, signatures, keys [][]byte) bool {
	for _, key := range keys {
		if v.Scheme == "ed25519" {
			for _, signature := range signatures {
				if len(key) == ed25519.PublicKeySize && ed25519.Verify(key, content, signature) {
					return true
				}
			}
			continue
		}
		mac := hmac.New(v.hash, key)
		mac.Write(content)
		want := mac.Sum(nil)
		for _, signature := range signatures {
			if hmac.Equal(signature, want) {
				return true
			}
		}
	}
	return false
}

func (v *verifier) fresh(stamp string, now time.Time) error {
	if v.Timestamp == nil {
		return nil
	}
	at, err := v.Timestamp.time(stamp)
	if err != nil {
		return refuse(MissingTimestamp, "the timestamp cannot be read")
	}
	if age := now.Sub(at); age > v.tolerance || age < -v.tolerance {
		return refuse(Stale, "signed %s away from now, at most %s is accepted", age.Abs().Round(time.Second), v.tolerance)
	}
	return nil
}

func (t *Timestamp) time(stamp string) (time.Time, error) {
	if t.Format == "rfc3339" {
		return time.Parse(time.RFC3339Nano, stamp)
	}
	if len(stamp) > 15 { // beyond any time that a Duration can be away from
		return time.Time{}, strconv.ErrRange
	}
	n, err := strconv.ParseInt(stamp, 10, 64)
	if t.Format == "unix_ms" {
		return time.UnixMilli(n), err
	}
	return time.Unix(n, 0), err
}

// Proves reports whether a header, by its canonical name, is part of how the third party shows that a request is its own.
func (s *Source) Proves(name string) bool { return name == s.verify.Header }
