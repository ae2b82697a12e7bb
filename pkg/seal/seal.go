// Package seal keeps secrets encrypted wherever they rest: in the database and on the config topic. AES-256-GCM with a
// random nonce, the key's id in front, and the secret's identity as additional data, so that a sealed value moved to
// another secret or tenant does not open.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/hookline/hookline/pkg/webhook"
)

// Ring is a set of keys by id: the first seals, all of them open.
type Ring struct {
	first string
	keys  map[string]cipher.AEAD
}

// ParseRing reads HOOKLINE_ENCRYPTION_KEYS: "kid:base64 of 32 bytes", comma separated. Its errors name no key.
func ParseRing(text string) (*Ring, error) {
	ring := &Ring{keys: map[string]cipher.AEAD{}}
	for i, entry := range strings.Split(strings.TrimSpace(text), ",") {
		kid, encoded, ok := strings.Cut(strings.TrimSpace(entry), ":")
		if !ok || kid == "" || len(kid) > 255 {
			return nil, fmt.Errorf("encryption key %d: want kid:base64 of 32 bytes", i+1)
		}
		key, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil || len(key) != 32 {
			return nil, fmt.Errorf("encryption key %q: want base64 of 32 bytes (openssl rand -base64 32)", kid)
		}
		if _, twice := ring.keys[kid]; twice {
			return nil, fmt.Errorf("encryption key %q: given twice", kid)
		}
		if ring.keys[kid], err = newAEAD(key); err != nil {
			return nil, fmt.Errorf("encryption key %q: %w", kid, err)
		}
		if ring.first == "" {
			ring.first = kid
		}
	}
	return ring, nil
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// NewKey makes an entry for a ring: kid:base64.
func NewKey(kid string) string {
	key := make([]byte, 32)
	// crypto/rand.Read never fails: it ends the program where the system has no randomness.
	_, _ = rand.Read(key)
	return kid + ":" + base64.StdEncoding.EncodeToString(key)
}

// Value is a secret in the clear. It prints, logs and marshals as "[secret]"; convert it to []byte to use it.
type Value []byte

func (Value) String() string               { return "[secret]" }
func (Value) GoString() string             { return "[secret]" }
func (Value) LogValue() slog.Value         { return slog.StringValue("[secret]") }
func (Value) MarshalText() ([]byte, error) { return []byte("[secret]"), nil }

// Seal encrypts the value of one version of a secret: kid length, kid, nonce, ciphertext.
func (r *Ring) Seal(value Value, s *webhook.Secret, version int) []byte {
	return r.seal(value, identity(s, version))
}

func (r *Ring) seal(value, identity []byte) []byte {
	sealed := append([]byte{byte(len(r.first))}, r.first...)
	return r.keys[r.first].Seal(sealed, nil, value, identity)
}

// Open decrypts what Seal made for the same secret and version.
func (r *Ring) Open(s *webhook.Secret, v webhook.SecretVersion) (Value, error) {
	value, err := r.open(v.Sealed, identity(s, v.Number))
	if err != nil {
		return nil, fmt.Errorf("open secret %s version %d: %w", s.ID, v.Number, err)
	}
	return value, nil
}

func (r *Ring) open(sealed, identity []byte) ([]byte, error) {
	if len(sealed) < 1 || len(sealed) < 1+int(sealed[0]) {
		return nil, errors.New("sealed value is too short")
	}
	n := 1 + int(sealed[0])
	kid := string(sealed[1:n])
	aead, ok := r.keys[kid]
	if !ok {
		return nil, fmt.Errorf("encryption key %q is not in HOOKLINE_ENCRYPTION_KEYS", kid)
	}
	return aead.Open(nil, nil, sealed[n:], identity)
}

// SealAnswer encrypts what a request with an idempotency key was answered, which may show a secret.
func (r *Ring) SealAnswer(answer []byte, tenant, key string) []byte {
	return r.seal(answer, []byte(tenant+"|"+key+"|answer"))
}

// OpenAnswer decrypts what SealAnswer made for the same tenant and key.
func (r *Ring) OpenAnswer(sealed []byte, tenant, key string) ([]byte, error) {
	answer, err := r.open(sealed, []byte(tenant+"|"+key+"|answer"))
	if err != nil {
		return nil, fmt.Errorf("open answer: %w", err)
	}
	return answer, nil
}

func identity(s *webhook.Secret, version int) []byte {
	return []byte(s.Tenant + "|" + s.ID + "|" + strconv.Itoa(version) + "|signing")
}
