package apikey

import (
	"errors"
	"strings"
	"testing"
)

func TestANewTokenParsesToItsHash(t *testing.T) {
	token, hash := New()
	if len(token) != tokenChars || !strings.HasPrefix(token, Prefix) {
		t.Fatalf("token of %d characters", len(token))
	}
	got, err := Parse(token)
	if err != nil || got != hash || got != Hash(token) {
		t.Errorf("Parse: %v, same hash: %v", err, got == hash)
	}
	if again, _ := New(); again == token {
		t.Error("two tokens are the same")
	}
}

func TestADamagedTokenIsMalformed(t *testing.T) {
	token, _ := New()
	flipped := []byte(token)
	flipped[10] ^= 1
	for name, damaged := range map[string]string{
		"empty":            "",
		"short":            "hk_abc",
		"cut":              token[:len(token)-1],
		"longer":           token + "A",
		"one bit":          string(flipped),
		"prefix only":      Prefix + strings.Repeat("A", 20),
		"by hand, short":   strings.Repeat("k", MinLength-1),
		"by hand, endless": strings.Repeat("k", maxTokenLength+1),
	} {
		if _, err := Parse(damaged); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestATokenChosenByHandIsOnlyMeasured(t *testing.T) {
	if hash, err := Parse("bootstrap-key-for-tests"); err != nil || hash != Hash("bootstrap-key-for-tests") {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	token, _ := New()
	for _, seed := range []string{"", Prefix, token, token + "x", "a key chosen by hand"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		hash, err := Parse(token)
		if err == nil && hash != Hash(token) {
			t.Error("the hash is of something else")
		}
	})
}
