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
	sealed := append([]byte{byte(len(r.first))}, r.first...)
	return r.keys[r.first].Seal(sealed, nil, value, identity(s, version))
}

// Open decrypts what Seal made for the same secret and version.
func (r *Ring) Open(s *webhook.Secret, v webhook.SecretVersion) (Value, error) {
	if len(v.Sealed) < 1 || len(v.Sealed) < 1+int(v.Sealed[0]) {
		return nil, errors.New("open secret: sealed value is too short")
	}
	n := 1 + int(v.Sealed[0])
	kid := string(v.Sealed[1:n])
	aead, ok := r.keys[kid]
	if !ok {
		return nil, fmt.Errorf("open secret %s: encryption key %q is not in HOOKLINE_ENCRYPTION_KEYS", s.ID, kid)
	}
	value, err := aead.Open(nil, nil, v.Sealed[n:], identity(s, v.Number))
	if err != nil {
		return nil, fmt.Errorf("open secret %s version %d: %w", s.ID, v.Number, err)
	}
	return value, nil
}

func identity(s *webhook.Secret, version int) []byte {
	return []byte(s.Tenant + "|" + s.ID + "|" + strconv.Itoa(version) + "|signing")
}
