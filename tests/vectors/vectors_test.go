// Package vectors holds the golden vectors of the built-in profiles to what Hookline builds, and to receivers written in
// other languages. The vectors are public: a receiver's own tests may use them.
package vectors

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/webhook"
	"github.com/hookline/hookline/tests/testenv"
)

type file struct {
	Profile string   `json:"profile"`
	Version uint32   `json:"version"`
	Vectors []vector `json:"vectors"`
}

type vector struct {
	Name       string    `json:"name"`
	Secrets    []string  `json:"secrets"`
	PublicKeys []string  `json:"publicKeys"`
	AttemptAt  time.Time `json:"attemptAt"`
	DeliveryID uuid.UUID `json:"deliveryId"`
	Event      struct {
		ID        string    `json:"id"`
		Type      string    `json:"type"`
		Timestamp time.Time `json:"timestamp"`
		Metadata  string    `json:"metadata"`
		Data      string    `json:"data"`
	} `json:"event"`
	Headers map[string]string `json:"headers"`
	Body    string            `json:"body"`
}

func (v *vector) delivery() *webhook.Delivery {
	return &webhook.Delivery{ID: v.DeliveryID, Event: webhook.Event{
		ID: v.Event.ID, Type: v.Event.Type, Timestamp: v.Event.Timestamp,
		Metadata: json.RawMessage(v.Event.Metadata), Data: json.RawMessage(v.Event.Data),
	}}
}

func keys(texts []string) [][]byte {
	out := make([][]byte, len(texts))
	for i, text := range texts {
		out[i] = []byte(text)
	}
	return out
}

func read(t *testing.T, name string) file {
	t.Helper()
	text, err := os.ReadFile(name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var f file
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestHooklineSendsWhatTheVectorsSay(t *testing.T) {
	for _, name := range profile.Builtin().Names() {
		f := read(t, name)
		p, ok := profile.Builtin().Version(f.Profile, f.Version)
		if !ok || f.Profile != name || len(f.Vectors) < 10 {
			t.Fatalf("%s.json is of %s version %d with %d vectors", name, f.Profile, f.Version, len(f.Vectors))
		}
		c, err := p.Contract(webhook.Overrides{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range f.Vectors {
			check(t, c, &f.Vectors[i])
		}
	}
}

func check(t *testing.T, c *profile.Contract, v *vector) {
	t.Helper()
	r, err := c.Build(v.delivery(), keys(v.Secrets), v.AttemptAt)
	if err != nil {
		t.Errorf("%s: %s: %v", c, v.Name, err)
		return
	}
	if string(r.Body) != v.Body {
		t.Errorf("%s: %s: body\n%s\nwant\n%s", c, v.Name, r.Body, v.Body)
	}
	if len(r.Header) != len(v.Headers) {
		t.Errorf("%s: %s: headers %v, want %v", c, v.Name, r.Header, v.Headers)
	}
	h := http.Header{}
	for name, want := range v.Headers {
		h.Set(name, want)
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s: %s: %s\n%s\nwant\n%s", c, v.Name, name, got, want)
		}
	}
	for _, secret := range append(v.Secrets[:min(len(v.Secrets), 1):1], v.PublicKeys...) {
		if err := c.Profile().Verify(h, []byte(v.Body), [][]byte{[]byte(secret)}, v.AttemptAt); err != nil {
			t.Errorf("%s: %s: %v", c, v.Name, err)
		}
		var m *profile.Mismatch
		if err := c.Profile().Verify(h, []byte(v.Body+"x"), [][]byte{[]byte(secret)}, v.AttemptAt); !errors.As(err, &m) {
			t.Errorf("%s: %s: a changed body verifies", c, v.Name)
		}
	}
}

// program finds another language. Without it the vectors are not checked by it: in CI that is a failure.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is needed for this test in CI: %v", name, err)
	}
	testenv.Lacks(t, name, err)
	return ""
}

func run(t *testing.T, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(program(t, name), args...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(stdin), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, stderr.Bytes())
	}
	return out
}

func TestTheVectorsAreWhatNodeMakes(t *testing.T) { run(t, nil, "node", "make.mjs", "--check") }

func TestTheVectorsVerifyInPython(t *testing.T) { run(t, nil, "python3", "check.py") }

func TestTheVectorsVerifyWithOpenSSL(t *testing.T) {
	program(t, "openssl")
	run(t, nil, "python3", "check.py", "--openssl")
}

func TestTheFynapseVectorsVerifyInJava(t *testing.T) {
	program(t, "java")
	lines := run(t, nil, "python3", "check.py", "--lines", "fynapse")
	run(t, lines, "java", "FynapseReceiver.java")
}
