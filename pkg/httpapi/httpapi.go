// Package httpapi is what every HTTP interface of Hookline has in common: RFC 9457 problem documents with stable codes,
// and the bearer token of a request. It routes nothing and knows no resource.
package httpapi

import (
	"encoding/json"
	"net/http"
	"strings"
)

// ContentTypeProblem is the media type of problem documents.
const ContentTypeProblem = "application/problem+json"

// Problem is an RFC 9457 problem document. Code is the stable name that programs branch on; Title and Detail are for
// people and may change.
type Problem struct {
	Type     string       `json:"type,omitempty"`
	Title    string       `json:"title"`
	Status   int          `json:"status"`
	Detail   string       `json:"detail,omitempty"`
	Instance string       `json:"instance,omitempty"`
	Code     string       `json:"code"`
	Errors   []FieldError `json:"errors,omitempty"`
}

// FieldError is one thing wrong with a request: where (an RFC 6901 pointer into the body, or the name of a parameter of
// the path, query or header), a stable code, and a sentence.
type FieldError struct {
	Pointer   string `json:"pointer"`
	Parameter string `json:"parameter,omitempty"`
	Code      string `json:"code"`
	Detail    string `json:"detail"`
}

// Write answers a request with the problem. An empty Title becomes the text of the status.
func Write(w http.ResponseWriter, p Problem) {
	if p.Title == "" {
		p.Title = http.StatusText(p.Status)
	}
	body, err := json.Marshal(p)
	if err != nil { // cannot happen: strings and ints only
		http.Error(w, http.StatusText(p.Status), p.Status)
		return
	}
	w.Header().Set("Content-Type", ContentTypeProblem)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	// The client may have gone; there is nobody to tell.
	_, _ = w.Write(append(body, '\n'))
}

// Bearer is the token of the Authorization header; false where the request has none, or another scheme.
func Bearer(r *http.Request) (string, bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	token = strings.TrimSpace(token)
	if !ok || token == "" || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return token, true
}
