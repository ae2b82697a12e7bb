package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/hookline/hookline/pkg/config"
)

func TestHealthTellsWhetherTheServiceIsReady(t *testing.T) {
	status := http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			http.NotFound(w, r)
			return
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte("kafka: away"))
	}))
	defer server.Close()
	ask := func(environ config.Environment, args ...string) (int, string) {
		var out, err bytes.Buffer
		code := execute(t.Context(), append([]string{"health"}, args...), terminal{environ: environ, out: &out, err: &err})
		return code, out.String() + err.String()
	}
	address := strings.TrimPrefix(server.URL, "http://")
	_, port, _ := strings.Cut(address, ":")
	if code, text := ask(config.Environment{}, "--url", server.URL+"/"); code != 0 || text != "ready\n" {
		t.Errorf("by URL: %d %s", code, text)
	}
	if code, text := ask(config.Environment{"HOOKLINE_ADMIN_ADDR": "0.0.0.0:" + port}); code != 0 {
		t.Errorf("by the environment: %d %s", code, text)
	}
	status = http.StatusServiceUnavailable
	if code, text := ask(config.Environment{"HOOKLINE_ADMIN_ADDR": address}); code != 1 || !strings.Contains(text, "kafka: away") {
		t.Errorf("not ready: %d %s", code, text)
	}
	server.Close()
	if code, text := ask(config.Environment{"HOOKLINE_ADMIN_ADDR": address}); code != 1 || !strings.Contains(text, "refused") {
		t.Errorf("nobody there: %d %s", code, text)
	}
}

func TestWhatIsListenedOnIsReachedFromTheSameMachine(t *testing.T) {
	for listened, want := range map[string]string{
		"127.0.0.1:9090": "http://127.0.0.1:9090", "0.0.0.0:9090": "http://127.0.0.1:9090", ":9090": "http://127.0.0.1:9090",
		"[::]:9090": "http://127.0.0.1:9090", "[::1]:9090": "http://[::1]:9090", "admin.local:9090": "http://admin.local:9090",
	} {
		if got := reachable(listened); got != want {
			t.Errorf("%s: got %s, want %s", listened, got, want)
		}
	}
}
