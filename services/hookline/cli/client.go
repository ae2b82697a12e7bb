package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hookline/hookline/pkg/httpapi"
)

// Path is where the control plane is below the address of the API.
const Path = "/api/v1/event-deliveries"

const (
	patience  = time.Minute
	maxAnswer = 64 << 20
)

// Client calls Hookline's HTTP interfaces. Its methods may be called concurrently.
type Client struct {
	URL string // of the API, without a path
	Key string // an API key or a JWT
	// HTTP makes the calls; nil is the default client.
	HTTP *http.Client
}

// Refused is an answer other than 2xx.
type Refused struct {
	httpapi.Problem
}

func (r *Refused) Error() string {
	text := r.Detail
	if text == "" {
		text = r.Title
	}
	for _, e := range r.Errors {
		where := e.Pointer
		if where == "" {
			where = e.Parameter
		}
		text += fmt.Sprintf("\n  %s: %s", where, e.Detail)
	}
	if r.Status == http.StatusUnauthorized {
		text += "\n  give an API key with --key or HOOKLINE_API_KEY"
	}
	return fmt.Sprintf("%s (%d %s)", text, r.Status, r.Code)
}

// Call sends in as JSON, unless it is nil, and reads the answer into out, which may be nil. An answer other than 2xx is a *[Refused].
func (c Client) Call(ctx context.Context, method, path string, in, out any) error {
	answer, err := c.call(ctx, method, path, in)
	if err != nil || out == nil || len(answer) == 0 {
		return err
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("%s %s: read answer: %w", method, path, err)
	}
	return nil
}

func (c Client) call(ctx context.Context, method, path string, in any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	response, err := c.open(ctx, method, path, in)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	return answer, nil
}

// open returns a 2xx response, whose body the caller closes.
func (c Client) open(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", method, path, err)
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.URL+path, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+c.Key)
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := cmp.Or(c.HTTP, http.DefaultClient).Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode/100 == 2 {
		return response, nil
	}
	defer func() { _ = response.Body.Close() }()
	return nil, refusal(response)
}

func refusal(response *http.Response) error {
	refused := &Refused{httpapi.Problem{Title: response.Status, Status: response.StatusCode}}
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return err
	}
	if strings.HasPrefix(response.Header.Get("Content-Type"), httpapi.ContentTypeProblem) {
		// What is not a problem document after all leaves the status, which says enough.
		_ = json.Unmarshal(text, &refused.Problem)
	}
	return refused
}

// passes reports whether an error is one that goes by itself: nobody answers, or what answers asks to be asked again.
func passes(err error) bool {
	var refused *Refused
	var broken *url.Error
	return errors.As(err, &refused) && refused.Status == http.StatusServiceUnavailable || errors.As(err, &broken)
}

// page is a part of a list. Items are kept as the API wrote them.
type page struct {
	Items      []json.RawMessage `json:"items"`
	NextCursor *string           `json:"nextCursor"`
}

// maxPage is the API's bound of a page.
const maxPage = 1000

// items reads a list to its end, or up to limit items; 0 is no limit.
func (c Client) items(ctx context.Context, path string, query url.Values, limit int) ([]json.RawMessage, error) {
	all := []json.RawMessage{}
	query = clone(query)
	for {
		size := maxPage
		if limit > 0 {
			size = min(size, limit-len(all))
		}
		query.Set("limit", fmt.Sprint(size))
		var part page
		if err := c.Call(ctx, http.MethodGet, path+"?"+query.Encode(), nil, &part); err != nil {
			return nil, err
		}
		all = append(all, part.Items...)
		if part.NextCursor == nil || limit > 0 && len(all) >= limit {
			return all, nil
		}
		query.Set("cursor", *part.NextCursor)
	}
}

func clone(query url.Values) url.Values {
	copied := url.Values{}
	for name, values := range query {
		copied[name] = values
	}
	return copied
}
