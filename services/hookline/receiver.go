package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hookline/hookline/pkg/profile"
)

// receiver is an endpoint for people: it checks signatures as a receiver under a profile must, answers as its script says, and reports
// what it got.
type receiver struct {
	profile *profile.Profile
	// secrets are the values to verify with; without any, signatures are not checked.
	secrets [][]byte
	script  *script
	// report is called for every request before it is answered, from several goroutines at once.
	report func(received)
}

// received is one request and what was made of it.
type received struct {
	At     time.Time
	Method string
	Path   string
	Header http.Header
	Body   []byte
	// Signature is "valid", "not checked", or why it is not valid.
	Signature string
	Answer    answer
}

const (
	signatureValid     = "valid"
	signatureUnchecked = "not checked"
	maxReceived        = 16 << 20
)

func (rc *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxReceived))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	got := received{
		At: time.Now(), Method: r.Method, Path: r.URL.Path, Header: r.Header, Body: body,
		Signature: signatureUnchecked, Answer: rc.script.next(),
	}
	if len(rc.secrets) > 0 {
		got.Signature = rc.verify(r, body, got.At)
	}
	if got.Signature != signatureValid && got.Signature != signatureUnchecked {
		got.Answer = answer{status: http.StatusUnauthorized}
	}
	rc.report(got)
	got.Answer.give(w, r)
}

func (rc *receiver) verify(r *http.Request, body []byte, at time.Time) string {
	if err := rc.profile.Verify(r.Header, body, rc.secrets, at); err != nil {
		return err.Error()
	}
	return signatureValid
}

// answer is a status, or a failure that no status can express.
type answer struct {
	status  int
	failure string // "timeout" or "reset"
}

func parseAnswer(text string) (answer, error) {
	if text == "timeout" || text == "reset" {
		return answer{failure: text}, nil
	}
	status, err := strconv.Atoi(text)
	if err != nil || status < 200 || status > 599 {
		return answer{}, fmt.Errorf("answer %q: want a status from 200 to 599, timeout or reset", text)
	}
	return answer{status: status}, nil
}

func (a answer) String() string {
	if a.failure != "" {
		return a.failure
	}
	return strconv.Itoa(a.status)
}

func (a answer) give(w http.ResponseWriter, r *http.Request) {
	switch a.failure {
	case "timeout":
		<-r.Context().Done()
	case "reset":
		// The server closes the connection without an answer, and logs nothing.
		panic(http.ErrAbortHandler)
	default:
		w.WriteHeader(a.status)
	}
}

// script says what to answer, one after the other; the last answer goes on for ever.
type script struct {
	mu      sync.Mutex
	answers []answer
}

func parseScript(text string) (*script, error) {
	s := &script{}
	for word := range strings.SplitSeq(text, ",") {
		a, err := parseAnswer(strings.TrimSpace(word))
		if err != nil {
			return nil, err
		}
		s.answers = append(s.answers, a)
	}
	return s, nil
}

func (s *script) next() answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.answers[0]
	if len(s.answers) > 1 {
		s.answers = s.answers[1:]
	}
	return a
}
