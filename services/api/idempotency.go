package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/hookline/hookline/pkg/httpapi"
	"github.com/hookline/hookline/pkg/store"
)

const (
	headerIdempotency = "Idempotency-Key"
	headerRepeated    = "Idempotency-Replayed"
	maxIdempotencyKey = 255
	// answerLife is how long an answer is kept.
	answerLife = 24 * time.Hour
	// claimLife is after when a run counts as dead; every run is over before.
	claimLife = requestTimeout + answerTimeout + 45*time.Second
	// afterwards bounds what is still done for a request whose caller has gone.
	afterwards = 5 * time.Second
)

func idempotencyParam() *huma.Param {
	longest := maxIdempotencyKey
	shortest := 1
	return &huma.Param{
		Name: headerIdempotency, In: "header", Schema: &huma.Schema{Type: huma.TypeString, MinLength: &shortest, MaxLength: &longest, Pattern: `^[!-~]+$`},
		Description: "Chosen by the caller. For 24 hours the same request under the same key is answered as before and does nothing again, also where it was refused; another request under it is refused. " +
			"What may be answered otherwise without another request is not kept: 401, 403, 408, 429 and every 5xx. A body that cannot be read (400, 413, 415) takes no key.",
	}
}

// kept is an answer as it is stored, sealed.
type kept struct {
	Status int               `json:"status"`
	Header map[string]string `json:"header"`
	Body   []byte            `json:"body"`
}

// write answers with it.
func (k *kept) write(w http.ResponseWriter) {
	for name, value := range k.Header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(k.Status)
	_, _ = w.Write(k.Body) // the caller may have gone
}

// execution is one run of a request with an idempotency key. Its answer is kept in the transaction of the change that it tells of
// where the handler promised it, and otherwise once the handler is done.
type execution struct {
	ring     sealer
	claim    store.Claim
	status   int
	promised *kept
}

type sealer interface {
	SealAnswer(answer []byte, tenant, key string) []byte
}

type executionKey struct{}

// promise says what a change that is about to be made will be answered. It must be called before the store is, or inside the
// function that the store calls. A handler that does not promise is answered for as well: but if the process dies between its change
// and its answer, a repetition runs again.
func promise[O any](ctx context.Context, out *O) {
	if r, ok := ctx.Value(executionKey{}).(*execution); ok {
		r.promised = rendered(r.status, out)
	}
}

// rendered is what huma answers with for an output struct.
func rendered(status int, out any) *kept {
	v := reflect.ValueOf(out).Elem()
	answer := &kept{Status: status, Header: map[string]string{"Content-Type": "application/json"}}
	if tag := v.FieldByName("ETag"); tag.IsValid() {
		answer.Header["ETag"] = tag.String()
	}
	var body bytes.Buffer
	if err := huma.DefaultJSONFormat.Marshal(&body, v.FieldByName("Body").Interface()); err != nil {
		return nil
	}
	answer.Body = body.Bytes()
	return answer
}

func (r *execution) sealed(answer *kept) []byte {
	if answer == nil {
		return nil
	}
	text, err := json.Marshal(answer)
	if err != nil { // cannot happen: strings, bytes and a number
		return nil
	}
	return r.ring.SealAnswer(text, r.claim.Tenant, r.claim.Key)
}

// once runs a POST with an idempotency key at most once for all its repetitions: they are answered as it was, done or refused.
func (s *Service) once(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	keys := r.Header.Values(headerIdempotency)
	if len(keys) == 0 || r.Method != http.MethodPost {
		next(ctx)
		return
	}
	claim, err := claimOf(ctx, r, keys)
	var answer *kept
	if err == nil {
		answer, err = s.claim(ctx.Context(), claim)
	}
	switch {
	case err != nil:
		s.refuse(ctx.Context(), w, ctx.Operation().OperationID, err)
	case answer != nil:
		w.Header().Set(headerRepeated, "true")
		answer.write(w)
	default:
		s.runOnce(ctx, claim, next)
	}
}

func claimOf(ctx huma.Context, r *http.Request, keys []string) (store.Claim, error) {
	key := keys[0]
	if len(keys) > 1 || key == "" || len(key) > maxIdempotencyKey || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return store.Claim{}, idempotencyError(http.StatusUnprocessableEntity, codeInvalid, "one, of 1 to 255 visible ASCII characters")
	}
	hash := sha256.New()
	_, _ = io.WriteString(hash, r.Method+" "+r.URL.EscapedPath()+"?"+r.URL.RawQuery+"\n")
	if ctx.Operation().RequestBody != nil {
		body, err := io.ReadAll(r.Body) // checkBody has it in memory
		if err != nil {
			return store.Claim{}, err
		}
		_, _ = hash.Write(body)
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	claim := store.Claim{Tenant: callerFrom(ctx.Context()).Tenant, Key: key, Run: newID(), ExpiresAt: time.Now().Add(claimLife)}
	copy(claim.Request[:], hash.Sum(nil))
	return claim, nil
}

func idempotencyError(status int, code, detail string) *Problem {
	return invalid(status, []httpapi.FieldError{{Parameter: headerIdempotency, Code: code, Detail: headerIdempotency + ": " + detail}})
}

// claim takes the right to run a request, or returns what it was answered before.
func (s *Service) claim(ctx context.Context, c store.Claim) (*kept, error) {
	sealed, err := s.deps.Store.ClaimRequest(ctx, c)
	switch {
	case errors.Is(err, store.ErrOtherRequest):
		return nil, idempotencyError(http.StatusUnprocessableEntity, "idempotency_key_reused", "another request was sent under this key")
	case errors.Is(err, store.ErrClaimed):
		return nil, idempotencyError(http.StatusConflict, "idempotency_key_in_use", "the same request is under way: ask again").with("Retry-After", "1")
	case err != nil || sealed == nil:
		return nil, err
	}
	text, err := s.deps.Ring.OpenAnswer(sealed, c.Tenant, c.Key)
	if err != nil {
		return nil, err
	}
	answer := new(kept)
	return answer, json.Unmarshal(text, answer)
}

// runOnce holds the answer back until it is kept, so that nobody is told what a repetition would not be told.
func (s *Service) runOnce(ctx huma.Context, claim store.Claim, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	this := &execution{ring: s.deps.Ring, claim: claim, status: max(ctx.Operation().DefaultStatus, http.StatusOK)}
	until := time.Now().Add(answerLife)
	inside := context.WithValue(ctx.Context(), executionKey{}, this)
	inside = store.Answering(inside, claim, until, func() []byte { return this.sealed(this.promised) })

	held := &holder{header: http.Header{}}
	var settled []byte
	defer func() { s.settle(ctx.Context(), claim, settled, until) }()
	next(humago.NewContext(ctx.Operation(), r.WithContext(inside), held))
	answer := held.answer()
	if answer.Status/100 == 2 && this.promised != nil {
		answer = this.promised
	}
	if settles(answer.Status) {
		settled = this.sealed(answer)
	}
	for name, values := range held.header {
		w.Header()[name] = values
	}
	answer.write(w)
}

// settles reports whether an answer is the one to its request for good. A defect or an absence (5xx) ends, a permission is given (403),
// a credential is renewed (401), a pace is let go of (429) and a connection holds (408) without the request being another one: repeated, it
// runs again. Everything else that was refused is wrong with the request itself or with what it found.
func settles(status int) bool {
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	}
	return status < http.StatusInternalServerError
}

// settle ends a claim, with an answer or without. Where the database is away the claim ends by itself.
func (s *Service) settle(ctx context.Context, claim store.Claim, answer []byte, until time.Time) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), afterwards)
	defer cancel()
	var err error
	if answer != nil {
		err = s.deps.Store.KeepAnswer(ctx, claim, answer, until)
	} else {
		err = s.deps.Store.ReleaseClaim(ctx, claim)
	}
	if err != nil {
		s.log.WarnContext(ctx, "a request with an idempotency key is not settled", "tenant", claim.Tenant, "error", err)
	}
}

// holder is a response that nobody has got yet.
type holder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (h *holder) Header() http.Header { return h.header }

func (h *holder) WriteHeader(status int) {
	if h.status == 0 {
		h.status = status
	}
}

func (h *holder) Write(b []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	return h.body.Write(b)
}

// answer is the response with the headers that matter to a repetition.
func (h *holder) answer() *kept {
	out := &kept{Status: max(h.status, http.StatusOK), Header: map[string]string{}, Body: h.body.Bytes()}
	for _, name := range []string{"Content-Type", "ETag", "Location"} {
		if value := h.header.Get(name); value != "" {
			out.Header[name] = value
		}
	}
	return out
}
