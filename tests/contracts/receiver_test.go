package contracts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/tests/testenv"
)

// receiver is a process of receivers/.
type receiver struct {
	process *testenv.Process
	url     string
}

// program runs a receiver with a command that must be on this machine: verified by Hookline's own code, nothing is.
func program(command, file string) func(t *testing.T) *receiver {
	return func(t *testing.T) *receiver {
		path, err := exec.LookPath(command)
		if err != nil {
			t.Fatalf("%s is needed for receivers/%s: %v", command, file, err)
		}
		return start(t, path, file)
	}
}

func start(t *testing.T, command, file string) *receiver {
	const announced = "listening on "
	p := testenv.StartCommand(t, testenv.Env{}, command, "receivers/"+file)
	p.Printed(t, announced, time.Minute)
	_, rest, _ := strings.Cut(p.Output(), announced)
	return &receiver{process: p, url: strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0])}
}

// request is what a receiver says about a POST.
type request struct {
	Path    string
	Status  int
	Headers map[string]string
	Body    []byte
}

func (r *receiver) requests(t *testing.T, path string) []request {
	t.Helper()
	var list []request
	for line := range strings.Lines(r.process.Output()) {
		var one request
		if !strings.HasPrefix(line, "{") {
			continue
		}
		if err := json.Unmarshal([]byte(line), &one); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if one.Path == path {
			list = append(list, one)
		}
	}
	if len(list) == 0 {
		t.Fatalf("no request to %s", path)
	}
	return list
}

// use gives the receiver its secret.
func (r *receiver) use(t *testing.T, secret string) {
	t.Helper()
	if status := ask(t, http.MethodPut, r.url+"/secret", nil, []byte(secret), nil); status != http.StatusOK {
		t.Fatalf("PUT /secret: %d", status)
	}
}

// send posts to the receiver what somebody else might.
func (r *receiver) send(t *testing.T, path string, headers map[string]string, body []byte) int {
	t.Helper()
	return ask(t, http.MethodPost, r.url+path, headers, body, nil)
}

func ask(t *testing.T, method, url string, headers map[string]string, body []byte, text *[]byte) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	// A tampered body may have another length.
	r.Header.Del("Content-Length")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if text != nil {
		*text = got
	}
	return response.StatusCode
}

func output(command string, args ...string) (string, error) {
	out, err := exec.Command(command, args...).Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	return strings.TrimSpace(string(out)), nil
}
