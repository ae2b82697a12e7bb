// Package apikey makes and reads the tokens that programs authenticate with. A token is "hk_", 43 characters of
// base64url for 32 random bytes, and 6 for a CRC-32 of what stands before, so that a mistyped or cut token is told from
// an unknown one without a look-up, and secret scanners can find leaked ones. Only its SHA-256 is ever stored: with 256
// bits of randomness nothing slower is needed. What a key may do is package webhook's matter.
package apikey

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
)

// Prefix begins every token that [New] makes.
const Prefix = "hk_"

const (
	randomBytes    = 32
	randomChars    = 43
	checksumChars  = 6
	tokenChars     = len(Prefix) + randomChars + checksumChars
	maxTokenLength = 512
)

// MinLength is the shortest token that may be chosen by hand, as HOOKLINE_BOOTSTRAP_API_KEY is.
const MinLength = 16

// ErrMalformed: this cannot be a token, so there is nothing to look up.
var ErrMalformed = errors.New("malformed API key")

// New makes a token and its hash. The token is shown once and kept nowhere.
func New() (token string, hash [sha256.Size]byte) {
	secret := make([]byte, randomBytes)
	// crypto/rand.Read never fails: it ends the program where the system has no randomness.
	_, _ = rand.Read(secret)
	body := Prefix + base64.RawURLEncoding.EncodeToString(secret)
	token = body + checksum(body)
	return token, Hash(token)
}

// Recognizable is the beginning of a token of [New], by which people know it again; too little of it to guess the rest.
func Recognizable(token string) string { return token[:len(Prefix)+6] }

// Hash is the form in which a token is stored and looked up.
func Hash(token string) [sha256.Size]byte { return sha256.Sum256([]byte(token)) }

// Parse gives the hash to look a token up by, or [ErrMalformed]: too short or too long, or begun like one of [New] with
// the wrong length or checksum. Tokens chosen by hand have no form of their own and are only measured.
func Parse(token string) ([sha256.Size]byte, error) {
	switch {
	case len(token) < MinLength, len(token) > maxTokenLength:
		return [sha256.Size]byte{}, ErrMalformed
	case strings.HasPrefix(token, Prefix) && !wellFormed(token):
		return [sha256.Size]byte{}, ErrMalformed
	default:
		return Hash(token), nil
	}
}

func wellFormed(token string) bool {
	if len(token) != tokenChars {
		return false
	}
	body := token[:tokenChars-checksumChars]
	return token[len(body):] == checksum(body)
}

func checksum(body string) string {
	sum := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(body)))
	return base64.RawURLEncoding.EncodeToString(sum)
}
