package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"github.com/hookline/hookline/pkg/httpapi"
	"github.com/hookline/hookline/pkg/store"
)

// huma has these as variables of the package and no setting of an API. They hold for the whole process, which has one
// API.
func init() {
	huma.DefaultArrayNullable = false
	huma.ValidateStrictCasing = true
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		return fromHuma(status, message, errs)
	}
}

// Problem is the answer to a request that failed, as an RFC 9457 document; handlers return it as an error.
type Problem struct {
	httpapi.Problem
	headers http.Header
}

func (p *Problem) Error() string { return p.Code + ": " + p.Detail }

// GetStatus is for huma.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders is for huma.
func (p *Problem) GetHeaders() http.Header { return p.headers }

// ContentType is for huma.
func (p *Problem) ContentType(string) string { return httpapi.ContentTypeProblem }

func problem(status int, code, format string, args ...any) *Problem {
	return &Problem{Problem: httpapi.Problem{
		Title: http.StatusText(status), Status: status, Code: code, Detail: fmt.Sprintf(format, args...),
	}}
}

func (p *Problem) with(header, value string) *Problem {
	if p.headers == nil {
		p.headers = http.Header{}
	}
	p.headers.Set(header, value)
	return p
}

// fieldErrors collects what is wrong with a body.
type fieldErrors []httpapi.FieldError

func (f *fieldErrors) add(pointer, code, format string, args ...any) {
	*f = append(*f, httpapi.FieldError{Pointer: pointer, Code: code, Detail: fmt.Sprintf(format, args...)})
}

// problem is nil where nothing is wrong. Its code is that of the errors if they share one.
func (f fieldErrors) problem() error {
	if len(f) == 0 {
		return nil
	}
	return invalid(http.StatusUnprocessableEntity, f)
}

func invalid(status int, errs []httpapi.FieldError) *Problem {
	p := problem(status, "validation_failed", "%d field(s) of the request are wrong", len(errs))
	if len(errs) == 1 {
		p.Detail = errs[0].Detail
	}
	if code := errs[0].Code; specific(code) && all(errs, code) {
		p.Code = code
	}
	p.Errors = errs
	return p
}

// The codes of fields that say nothing more than that the request does not have the documented form.
const (
	codeMissing          = "missing"
	codeUnknownField     = "unknown_field"
	codeUnknownParameter = "unknown_parameter"
	codeInvalid          = "invalid"
)

func specific(code string) bool {
	return code != codeMissing && code != codeUnknownField && code != codeUnknownParameter && code != codeInvalid
}

func all(errs []httpapi.FieldError, code string) bool {
	for _, e := range errs {
		if e.Code != code {
			return false
		}
	}
	return true
}

// fromHuma makes the problem of what huma found wrong. It drops the values that huma quotes: they may be secrets.
func fromHuma(status int, message string, errs []error) *Problem {
	var fields []httpapi.FieldError
	for _, err := range errs {
		var detail *huma.ErrorDetail
		if errors.As(err, &detail) {
			fields = append(fields, fieldError(detail))
		}
	}
	switch {
	case status >= http.StatusInternalServerError:
		return problem(http.StatusInternalServerError, "internal", "an unexpected error; it has been logged")
	case len(fields) > 0:
		return invalid(status, fields)
	case status == http.StatusBadRequest:
		return problem(status, "body_required", "%s", message)
	default:
		return problem(status, "bad_request", "%s", message)
	}
}

func fieldError(detail *huma.ErrorDetail) httpapi.FieldError {
	if path, ok := strings.CutPrefix(detail.Location, "body"); ok {
		return bodyError(pointer(path), detail.Message)
	}
	code := codeInvalid
	if detail.Message == "unknown query parameter" {
		code = codeUnknownParameter
	}
	_, name, _ := strings.Cut(detail.Location, ".")
	return httpapi.FieldError{Parameter: name, Code: code, Detail: name + ": " + detail.Message}
}

func bodyError(pointer, message string) httpapi.FieldError {
	before, after, _ := strings.Cut(validation.MsgExpectedRequiredProperty, "%s")
	if name, ok := strings.CutPrefix(message, before); ok {
		return httpapi.FieldError{Pointer: pointer + "/" + strings.TrimSuffix(name, after), Code: codeMissing, Detail: "is required"}
	}
	switch {
	case message == validation.MsgUnexpectedProperty:
		return httpapi.FieldError{Pointer: pointer, Code: codeUnknownField, Detail: "unknown field"}
	case strings.HasPrefix(message, "json: "), strings.HasPrefix(message, "time: "):
		// What the schema let through and Go does not: the message speaks of Go's types.
		message = "a value does not have the documented form"
	}
	return httpapi.FieldError{Pointer: pointer, Code: codeInvalid, Detail: message}
}

// In huma's paths, as in a.b[3].c, keys are not told from separators. withSegments writes the keys of a document so
// that they are, and pointer reads such a path as an RFC 6901 pointer.
var (
	segment   = strings.NewReplacer("~", "~0", "/", "~1", ".", "~2", "[", "~3", "]", "~4")
	unsegment = strings.NewReplacer(".", "/", "[", "/", "]", "", "~2", ".", "~3", "[", "~4", "]")
)

func pointer(path string) string { return unsegment.Replace(path) }

func withSegments(value any) any {
	switch value := value.(type) {
	case map[string]any:
		out := make(map[string]any, len(value))
		for key, member := range value {
			out[segment.Replace(key)] = withSegments(member)
		}
		return out
	case []any:
		for i := range value {
			value[i] = withSegments(value[i])
		}
	}
	return value
}

const retryAfterSeconds = 5

// failure is the answer to an error of a handler. What nobody foresaw is logged here, once, and told to nobody else.
func (s *Service) failure(ctx context.Context, operation string, err error) error {
	var known *Problem
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, store.ErrNotFound):
		return problem(http.StatusNotFound, "not_found", "there is nothing under this id")
	case errors.Is(err, store.ErrExists):
		return problem(http.StatusConflict, "name_taken", "the name is in use")
	case errors.Is(err, store.ErrInUse):
		return problem(http.StatusConflict, "secret_in_use", "subscriptions use this secret: give them another one or delete them first")
	case errors.Is(err, store.ErrProfileMismatch):
		return problem(http.StatusConflict, "secret_profile_mismatch",
			"the secret is bound to another profile: a signature made under one contract must not be valid under another")
	case errors.Is(err, store.ErrBadCursor):
		return invalid(http.StatusUnprocessableEntity, []httpapi.FieldError{{Parameter: "cursor", Code: "bad_cursor", Detail: "cursor: not one that a list returned"}})
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return unavailable("database_unavailable", "the database cannot be reached; deliveries go on")
	default:
		s.log.ErrorContext(ctx, "request failed", "operation", operation, "error", err)
		return problem(http.StatusInternalServerError, "internal", "an unexpected error; it has been logged")
	}
}

func unavailable(code, detail string) *Problem {
	return problem(http.StatusServiceUnavailable, code, "%s", detail).with("Retry-After", strconv.Itoa(retryAfterSeconds))
}
