package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"
	"runtime/debug"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"go.opentelemetry.io/otel/attribute"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/strictjson"
	"github.com/hookline/hookline/pkg/webhook"
)

// Base is the path that everything of the control plane is under.
const Base = "/api/v1/event-deliveries"

// Bounds of a request.
const (
	maxBody        = 256 << 10
	bodyTimeout    = 10 * time.Second
	requestTimeout = 15 * time.Second
	answerTimeout  = time.Minute
)

const bearer = "bearer"

func (s *Service) assemble() error {
	mux := http.NewServeMux()
	a := humago.New(mux, apiConfig())
	a.UseMiddleware(s.observe, s.authorize, s.checkBody, s.once)
	s.registerSecrets(a)
	s.registerSubscriptions(a)
	s.registerDeliveries(a)
	s.registerEvents(a)
	s.registerExplain(a)
	s.registerDryRun(a)
	s.registerReplays(a)
	s.registerRetries(a)
	s.registerSources(a)
	s.registerKeys(a)
	s.registerTenants(a)
	s.registerChanges(a)
	s.registerTail(a)

	emptyParameters(a.OpenAPI())
	spec, err := json.MarshalIndent(a.OpenAPI(), "", "  ")
	if err != nil {
		return fmt.Errorf("describe the API: %w", err)
	}
	s.spec = append(spec, '\n')
	mux.HandleFunc("GET "+Base+"/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(s.spec)
	})
	mux.HandleFunc("GET "+DocsPath, serveDocs)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { s.unrouted(mux, w, r) })
	s.handler = s.guard(mux)
	return nil
}

// emptyParameters says of the description what huma does: a parameter of the query without a value counts as left out.
func emptyParameters(spec *huma.OpenAPI) {
	for _, path := range spec.Paths {
		for _, op := range []*huma.Operation{path.Get, path.Post, path.Patch, path.Delete} {
			if op == nil {
				continue
			}
			for _, p := range op.Parameters {
				p.AllowEmptyValue = p.In == "query"
			}
		}
	}
}

// apiConfig turns off what huma adds by itself: links to schemas, and pages that load scripts from elsewhere.
func apiConfig() huma.Config {
	registry := huma.NewMapRegistry("#/components/schemas/", func(t reflect.Type, hint string) string {
		return strings.ReplaceAll(huma.DefaultSchemaNamer(t, hint), "View", "")
	})
	registry.RegisterTypeAlias(reflect.TypeFor[webhook.Duration](), reflect.TypeFor[durationSchema]())
	format := huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: unmarshal}
	return huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info: &huma.Info{
				Title: "Hookline control plane", Version: "1",
				Description: "Secrets, subscriptions, API keys, and the audit of deliveries. Errors are RFC 9457 problems with a stable code.",
			},
			Components: &huma.Components{
				Schemas:         registry,
				SecuritySchemes: map[string]*huma.SecurityScheme{bearer: {Type: "http", Scheme: "bearer", Description: "An API key, or a token of the OpenID Connect provider."}},
			},
			Security: []map[string][]string{{bearer: {}}},
		},
		Formats:                      map[string]huma.Format{"application/json": format, "json": format},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
	}
}

// unmarshal decodes a body that checkBody has let through. huma asks twice: for any value, to validate it, and for the
// value itself. In the first, keys are written as segments of huma's paths, so that a path can be taken apart again.
func unmarshal(body []byte, into any) error {
	value, validating := into.(*any)
	if err := json.Unmarshal(body, into); err != nil || !validating {
		return err
	}
	*value = withSegments(*value)
	return nil
}

// route registers an operation: what it needs, what it does, and how its errors are answered.
func route[I, O any](s *Service, a huma.API, op huma.Operation, need webhook.Permission, handle func(context.Context, caller, *I) (*O, error)) {
	op.Path = Base + op.Path
	op.Metadata = map[string]any{permissionKey: need}
	op.Extensions = map[string]any{"x-permission": string(need)}
	// checkBody has read the body within its own deadline; huma's would end the request it belongs to.
	op.BodyReadTimeout = -1
	if op.Method == http.MethodPost {
		op.Parameters = append(op.Parameters, idempotencyParam())
	}
	huma.Register(a, op, func(ctx context.Context, in *I) (*O, error) {
		who := callerFrom(ctx)
		out, err := handle(store.By(ctx, who.actor()), *who, in)
		if err != nil {
			return nil, s.failure(ctx, op.OperationID, err)
		}
		return out, nil
	})
}

// guard is around every request: bounds of time, headers, and an answer even after a panic.
func (s *Service) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.requests.enter() {
			s.refuse(r.Context(), w, "", unavailable("stopping", "this process is stopping"))
			return
		}
		defer s.requests.leave()
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		control := http.NewResponseController(w)
		// A writer without deadlines, as in tests, needs none. The connection may serve others after this request.
		_ = control.SetWriteDeadline(time.Now().Add(answerTimeout))
		defer func() { _ = control.SetWriteDeadline(time.Time{}) }()
		answer := &recorder{ResponseWriter: w}
		defer s.recovered(ctx, answer)
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(answer, r.WithContext(ctx))
	})
}

// recorder knows the status that has been answered; 0 before.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap is for [http.ResponseController].
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// recovered answers for a handler that panicked. Where the answer had begun, or nobody waits for it, the connection ends.
func (s *Service) recovered(ctx context.Context, w *recorder) {
	cause := recover()
	if cause == nil {
		return
	}
	if w.status != 0 || ctx.Err() != nil {
		panic(http.ErrAbortHandler)
	}
	s.refuse(ctx, w, "", fmt.Errorf("panic: %v\n%s", cause, debug.Stack()))
}

// observe gives a request its span and its line in the log.
func (s *Service) observe(ctx huma.Context, next func(huma.Context)) {
	op, began, who := ctx.Operation(), time.Now(), new(caller)
	_, w := humago.Unwrap(ctx)
	spanned, span := s.deps.Tracer.Start(context.WithValue(ctx.Context(), callerKey{}, who), op.OperationID)
	defer span.End()
	next(huma.WithContext(ctx, spanned))

	status := 0
	if answered, ok := w.(*recorder); ok {
		status = answered.status
	}
	span.SetAttributes(attribute.String("http.route", op.Path), attribute.Int("http.response.status_code", status))
	log := s.log.DebugContext
	if op.Method != http.MethodGet && status < http.StatusBadRequest {
		log = s.log.InfoContext
	}
	log(spanned, "request", "operation", op.OperationID, "status", status, "duration", time.Since(began), "tenant", who.Tenant, "api_key", who.KeyID)
}

// checkBody reads the body of an operation that has one, within bounds, and refuses what two readers could read
// differently: duplicate keys, invalid UTF-8, deep nesting.
func (s *Service) checkBody(ctx huma.Context, next func(huma.Context)) {
	if ctx.Operation().RequestBody == nil {
		next(ctx)
		return
	}
	r, w := humago.Unwrap(ctx)
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTimeout))
	body, err := readBody(r)
	if err == nil && len(body) > 0 {
		err = checkJSON(r, body)
	}
	if err != nil {
		s.refuse(ctx.Context(), w, ctx.Operation().OperationID, err)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	next(ctx)
}

func readBody(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, problem(http.StatusRequestTimeout, "body_incomplete", "the body did not arrive")
	case len(body) > maxBody:
		return nil, problem(http.StatusRequestEntityTooLarge, "body_too_large", "the body is larger than %d bytes", maxBody)
	default:
		return bytes.TrimSpace(body), nil
	}
}

func checkJSON(r *http.Request, body []byte) error {
	if given := r.Header.Get("Content-Type"); given != "" {
		kind, _, err := mime.ParseMediaType(given)
		if err != nil || kind != "application/json" && (kind != "application/merge-patch+json" || r.Method != http.MethodPatch) {
			return problem(http.StatusUnsupportedMediaType, "unsupported_media_type", "send application/json")
		}
	}
	var wrong *strictjson.Error
	if err := strictjson.Check(body); errors.As(err, &wrong) {
		f := fieldErrors{}
		f.add(wrong.Pointer, string(wrong.Code), "%s at byte %d", wrong.Detail, wrong.Offset)
		return invalid(http.StatusBadRequest, f)
	} else if err != nil {
		return err
	}
	if r.Method == http.MethodPatch {
		return refuseNulls(body)
	}
	return nil
}

// refuseNulls keeps null out of a PATCH, where it could be meant as "unset" as well as "leave".
func refuseNulls(body []byte) error {
	var f fieldErrors
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil {
		return nil // not an object: huma says so
	}
	for name, value := range members {
		if string(value) == "null" {
			f.add("/"+strictjson.Escape(name), codeInvalid, "null changes nothing: send [] or {} to clear a list or an object, or leave the field out")
		}
	}
	return f.problem()
}

// unrouted answers what no operation has: 405 where the path exists under another method, otherwise 404.
func (s *Service) unrouted(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) {
	// Of the paths that it could be, such as things/{id} and things/count, it is the one with the fewest variables.
	var allow []string
	variables := 0
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete} {
		other := r.Clone(r.Context())
		other.Method = method
		_, pattern := mux.Handler(other)
		n := strings.Count(pattern, "{")
		switch {
		case pattern == "/" || pattern == "" || len(allow) > 0 && n > variables:
		case len(allow) == 0 || n < variables:
			allow, variables = []string{method}, n
		default:
			allow = append(allow, method)
		}
	}
	if len(allow) == 0 {
		s.refuse(r.Context(), w, "", problem(http.StatusNotFound, "not_found", "there is nothing at this path"))
		return
	}
	s.refuse(r.Context(), w, "", problem(http.StatusMethodNotAllowed, "method_not_allowed", "this path has %s", strings.Join(allow, ", ")).
		with("Allow", strings.Join(allow, ", ")))
}
