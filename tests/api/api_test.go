// Package api asks the control plane of a running binary, on a real database, what people and programs would never ask it.
package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

const base = "/api/v1/event-deliveries"

// create makes something and returns its id.
func create(t *testing.T, address, path string, body any) string {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+address+base+path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+testenv.APIKey)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusCreated {
		t.Fatalf("POST %s: %d %s, %v", path, response.StatusCode, answer, err)
	}
	var made struct{ ID string }
	if err := json.Unmarshal(answer, &made); err != nil {
		t.Fatal(err)
	}
	return made.ID
}

// TestGeneratedRequestsAreAnsweredAsDescribed runs the same generated requests every time: no answer is a 5xx, and each has a status,
// a content type and a body that docs/openapi.json describes.
func TestGeneratedRequestsAreAnsweredAsDescribed(t *testing.T) {
	root := testenv.Root()
	if output, err := exec.CommandContext(t.Context(), filepath.Join(root, "scripts", "tool"), "schemathesis").CombinedOutput(); err != nil {
		testenv.Lacks(t, "schemathesis", fmt.Errorf("%w\n%s", err, output))
	}
	env := testenv.System(t)
	testenv.Deploy(t, env, "api")
	address := env["HOOKLINE_API_ADDR"]
	subscription := create(t, address, "/subscriptions", map[string]any{"name": "generated", "endpointUrl": "http://127.0.0.1:1/"})
	secret := create(t, address, "/secrets", map[string]any{"name": "generated too"})

	// An id that exists, so that more is reached than "not found"; and no waiting for attempts that nobody makes.
	config := filepath.Join(t.TempDir(), "schemathesis.toml")
	known := fmt.Sprintf(`
[[operations]]
include-operation-id = "tail-attempts"
parameters = { wait = 0 }

[[operations]]
include-path-regex = "/subscriptions/.id"
exclude-method = "DELETE"
parameters = { id = %q }

[[operations]]
include-path-regex = "/secrets/.id"
exclude-method = "DELETE"
parameters = { id = %q }
`, subscription, secret)
	if err := os.WriteFile(config, []byte(known), 0o600); err != nil {
		t.Fatal(err)
	}
	run := testenv.StartCommand(t, testenv.Env{
		"HOOKLINE_API_KEY": testenv.APIKey, "TOOL_CACHE": os.Getenv("TOOL_CACHE"), "XDG_CACHE_HOME": os.Getenv("XDG_CACHE_HOME"),
	}, filepath.Join(root, "scripts", "schemathesis"), "http://"+address, "12", config)
	code := run.Wait(t, 5*time.Minute)
	if output := run.Output(); code != 0 || !strings.Contains(output, " passed") {
		t.Errorf("exit code %d:\n%s", code, output)
	}
}
