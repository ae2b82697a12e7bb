package profile

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // a format of others; never used by the built-in profiles
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"hash"
)

type algorithm uint8

const (
	algorithmNone algorithm = iota
	hmacSHA1
	hmacSHA256
	hmacSHA512
	edSignature
)

var algorithmNames = map[string]algorithm{
	"hmac-sha1": hmacSHA1, "hmac-sha256": hmacSHA256, "hmac-sha512": hmacSHA512, "ed25519": edSignature,
}

func (a algorithm) hash() func() hash.Hash {
	switch a {
	case hmacSHA1:
		return sha1.New
	case hmacSHA512:
		return sha512.New
	default:
		return sha256.New
	}
}

type encoding uint8

const (
	encodeText encoding = iota
	encodeHex
	encodeBase64
	encodeBase64URL
)

var encodingNames = map[string]encoding{
	"text": encodeText, "hex": encodeHex, "base64": encodeBase64, "base64url": encodeBase64URL,
}

func (e encoding) append(dst, raw []byte) []byte {
	switch e {
	case encodeHex:
		return hex.AppendEncode(dst, raw)
	case encodeBase64:
		return base64.StdEncoding.AppendEncode(dst, raw)
	case encodeBase64URL:
		return base64.RawURLEncoding.AppendEncode(dst, raw)
	default:
		return append(dst, raw...)
	}
}

func (e encoding) decode(text []byte) ([]byte, error) {
	switch e {
	case encodeHex:
		return hex.AppendDecode(nil, text)
	case encodeBase64:
		return base64.StdEncoding.Strict().AppendDecode(nil, text)
	case encodeBase64URL:
		return base64.RawURLEncoding.Strict().AppendDecode(nil, text)
	default:
		return text, nil
	}
}

// form is one way a secret may look.
type form struct {
	prefix, publicPrefix string
	encoding             encoding
	algorithm            algorithm
	label                string
	minBytes, maxBytes   int
}

// key is a secret read by its form.
type key struct {
	form *form
	// raw is the HMAC key, or an ed25519 private key.
	raw []byte
	// public is set instead of raw for the public half of an ed25519 key, which can only verify.
	public ed25519.PublicKey
}

// readKey finds the form of a secret and decodes it. Its errors wrap [ErrSecret] and never show the secret.
func (p *Profile) readKey(secret []byte) (key, error) {
	for i := range p.forms {
		f := &p.forms[i]
		if f.publicPrefix != "" && bytes.HasPrefix(secret, []byte(f.publicPrefix)) {
			raw, err := f.encoding.decode(secret[len(f.publicPrefix):])
			if err != nil || len(raw) != ed25519.PublicKeySize {
				return key{}, fmt.Errorf("%w: the public key is not 32 bytes in its encoding", ErrSecret)
			}
			return key{form: f, public: raw}, nil
		}
		if bytes.HasPrefix(secret, []byte(f.prefix)) {
			return f.read(secret[len(f.prefix):])
		}
	}
	return key{}, fmt.Errorf("%w: it begins with none of the prefixes that the profile knows", ErrSecret)
}

func (f *form) read(text []byte) (key, error) {
	raw, err := f.encoding.decode(text)
	if err != nil {
		return key{}, fmt.Errorf("%w: it cannot be decoded", ErrSecret)
	}
	if len(raw) < f.minBytes || len(raw) > f.maxBytes {
		return key{}, fmt.Errorf("%w: it has %d bytes, not %d to %d", ErrSecret, len(raw), f.minBytes, f.maxBytes)
	}
	if f.algorithm == edSignature {
		if raw, err = privateKey(raw); err != nil {
			return key{}, err
		}
	}
	return key{form: f, raw: raw}, nil
}

// privateKey accepts a seed of 32 bytes, or seed and public key as one value of 64.
func privateKey(raw []byte) ([]byte, error) {
	if len(raw) != ed25519.SeedSize && len(raw) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("%w: an ed25519 key has 32 or 64 bytes", ErrSecret)
	}
	private := ed25519.NewKeyFromSeed(raw[:ed25519.SeedSize])
	if len(raw) == ed25519.PrivateKeySize && !bytes.Equal(private, raw) {
		return nil, fmt.Errorf("%w: the halves of the ed25519 key do not belong together", ErrSecret)
	}
	return private, nil
}

// CheckSecret reports whether a secret, as the user sees it, can sign under the profile. Errors wrap [ErrSecret].
func (p *Profile) CheckSecret(value []byte) error {
	k, err := p.readKey(value)
	if err == nil && k.public != nil {
		err = fmt.Errorf("%w: a public key verifies but cannot sign", ErrSecret)
	}
	return err
}

// NewSecret makes a secret as the user sees it.
func (p *Profile) NewSecret() []byte {
	raw := make([]byte, p.generate.bytes)
	// crypto/rand.Read never fails: it ends the program where the system has no randomness.
	_, _ = rand.Read(raw)
	return p.generate.encoding.append([]byte(p.generate.prefix), raw)
}

// PublicKey is what receivers verify with where the secret is an ed25519 key; ok is false where there is no such half.
func (p *Profile) PublicKey(secret []byte) (public string, ok bool) {
	k, err := p.readKey(secret)
	if err != nil || k.form.algorithm != edSignature || k.form.publicPrefix == "" {
		return "", false
	}
	half := k.public
	if half == nil {
		half = ed25519.PrivateKey(k.raw).Public().(ed25519.PublicKey)
	}
	return string(k.form.encoding.append([]byte(k.form.publicPrefix), half)), true
}

// signature is one signature header.
type signature struct {
	header    string
	algorithm algorithm // algorithmNone leaves it to the secret's form
	content   template
	encoding  encoding
	each      template
	join      string
	value     template
	keys      int
}

func (sig *signature) algorithmFor(k key) algorithm {
	if sig.algorithm != algorithmNone {
		return sig.algorithm
	}
	return k.form.algorithm
}

// mac is the MAC or the signature over the content, appended to dst.
func (sig *signature) mac(dst []byte, k key, c *content) []byte {
	a := sig.algorithmFor(k)
	if a == edSignature {
		return append(dst, ed25519.Sign(k.raw, c.bytes())...)
	}
	h := hmac.New(a.hash(), k.raw)
	for _, piece := range c.pieces {
		h.Write(piece)
	}
	return h.Sum(dst)
}

// content is what is signed, in pieces, so that the body is not copied.
type content struct{ pieces [][]byte }

func (c *content) bytes() []byte { return bytes.Join(c.pieces, nil) }
