package api

import (
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
)

func TestTheDocumentationComesFromHereAndAsksNobodyElse(t *testing.T) {
	t.Parallel()
	s := assembled(t)
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, DocsPath, nil))
	page, policy := w.Body.String(), w.Header().Get("Content-Security-Policy")
	if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") || !strings.Contains(page, "<script>") {
		t.Fatalf("got %d %s", w.Code, w.Header())
	}
	if elsewhere := regexp.MustCompile(`(?i)https?:|//[a-z]+\.|src=|<link|innerHTML|\son[a-z]+=|\sstyle=`).FindString(page); elsewhere != "" {
		t.Errorf("the page has %q", elsewhere)
	}
	if strings.Contains(policy, "unsafe") || !strings.HasPrefix(policy, "default-src 'none'") || strings.Count(policy, "'sha256-") != 2 {
		t.Errorf("policy %q", policy)
	}
	// The page reads the description relative to itself.
	described := httptest.NewRecorder()
	s.Handler().ServeHTTP(described, httptest.NewRequest(http.MethodGet, "/api/v1/event-deliveries/openapi.json", nil))
	if described.Code != http.StatusOK || !strings.Contains(page, "'v1/event-deliveries/openapi.json'") || !strings.HasPrefix(DocsPath, "/api/") {
		t.Errorf("the description is elsewhere: %d", described.Code)
	}
}
