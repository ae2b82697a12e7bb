package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pkg/apikey"
	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/pkg/httpapi"
	"github.com/hookline/hookline/pkg/telemetry"
	"github.com/hookline/hookline/pkg/webhook"
)

const (
	// ackTimeout is how long a request waits for Kafka.
	ackTimeout = 30 * time.Second
	// readTimeout is how long a body may take to arrive.
	readTimeout        = 15 * time.Second
	maxBufferedRecords = 100_000
	maxIdempotencyKey  = 256
)

// refusal is why a request is not answered with 202.
type refusal struct {
	httpapi.Problem
	header map[string]string
}

func refuse(status int, code, detail string) *refusal {
	return &refusal{Problem: httpapi.Problem{Status: status, Code: code, Detail: detail}}
}

// later is a refusal that another try may not meet.
func later(code, detail string) *refusal {
	r := refuse(http.StatusServiceUnavailable, code, detail)
	r.header = map[string]string{"Retry-After": "1"}
	return r
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	httpapi.Write(w, httpapi.Problem{Status: http.StatusNotFound, Code: "not_found", Detail: "events are taken at /v1/events, webhooks at /v1/sources/{id}, callbacks at /v1/callbacks/"})
}

// answer serves what take does, with this status where it does it.
func (s *Service) answer(done int, take func(http.ResponseWriter, *http.Request) (any, *refusal)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.under.enter()
		defer s.under.leave()
		began := time.Now()
		answer, refused := any(nil), postOnly(r)
		if refused == nil {
			answer, refused = take(w, r)
		}
		status := done
		if refused != nil {
			status = refused.Status
			for name, value := range refused.header {
				w.Header().Set(name, value)
			}
			httpapi.Write(w, refused.Problem)
		} else {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			// The client may have gone; its events are written all the same.
			_ = json.NewEncoder(w).Encode(answer)
		}
		s.deps.Metrics.IngestRequests.Add(r.Context(), 1, telemetry.Label("code", strconv.Itoa(status)))
		s.deps.Log.DebugContext(r.Context(), "request", "status", status, "duration", time.Since(began))
	}
}

func postOnly(r *http.Request) *refusal {
	if r.Method == http.MethodPost {
		return nil
	}
	refused := refuse(http.StatusMethodNotAllowed, "method_not_allowed", "use POST")
	refused.header = map[string]string{"Allow": http.MethodPost}
	return refused
}

// take does what a request asks, and returns the body of the answer.
func (s *Service) take(w http.ResponseWriter, r *http.Request) (answer any, refused *refusal) {
	key, refused := s.authenticate(r)
	if refused != nil {
		return nil, refused
	}
	p, refused := s.ready()
	if refused != nil {
		return nil, refused
	}
	most := int64(event.MaxBatchSize)
	if !event.MayBeBatch(r.Header) {
		most = event.MaxRecord
	}
	body, release, refused := s.read(w, r, most)
	defer release()
	if refused != nil {
		return nil, refused
	}
	events, batch, refused := decode(r, body, key.Tenant)
	if refused != nil {
		return nil, refused
	}
	if refused := s.write(r.Context(), p, events); refused != nil {
		return nil, refused
	}
	return accepted(events, batch), nil
}

// ready is the producer, where there is one: then the configuration is there too.
func (s *Service) ready() (*producer, *refusal) {
	p := s.producer.Load()
	if p == nil {
		return nil, later("unavailable", "Kafka or the configuration is not there yet, or the service is stopping")
	}
	return p, nil
}

// authenticate finds the key that the request shows. The snapshot may not be ready: then nobody is known.
func (s *Service) authenticate(r *http.Request) (*webhook.APIKey, *refusal) {
	challenge := func(realm, detail string) *refusal {
		refused := refuse(http.StatusUnauthorized, "unauthenticated", detail)
		refused.header = map[string]string{"WWW-Authenticate": realm}
		return refused
	}
	token, ok := httpapi.Bearer(r)
	if !ok {
		return nil, challenge(`Bearer realm="hookline"`, "send an API key as Authorization: Bearer <key>")
	}
	unknown := challenge(`Bearer realm="hookline", error="invalid_token"`, "the API key is unknown, expired or revoked")
	hash, err := apikey.Parse(token)
	if err != nil {
		return nil, unknown
	}
	select {
	case <-s.deps.Snapshot.Ready():
	default:
		return nil, later("unavailable", "the configuration is not there yet")
	}
	now := time.Now()
	key, ok := s.deps.Snapshot.APIKey(hash)
	if !ok || key.Revoked || !key.ExpiresAt.IsZero() && !now.Before(key.ExpiresAt) {
		return nil, unknown
	}
	if !key.Allows(webhook.PermissionPublish, now) {
		return nil, refuse(http.StatusForbidden, "permission_denied", "this needs the permission "+string(webhook.PermissionPublish))
	}
	return key, nil
}

// read takes the body, of at most so many bytes, and within the room that is left. Call release when the request is answered.
func (s *Service) read(w http.ResponseWriter, r *http.Request, most int64) (body []byte, release func(), refused *refusal) {
	release = func() {}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return nil, release, refuse(http.StatusUnsupportedMediaType, "unsupported_content_encoding", "send the body as it is, not compressed")
	}
	tooLarge := refuse(http.StatusRequestEntityTooLarge, string(event.TooLarge), fmt.Sprintf("more than %d bytes", most))
	expected := r.ContentLength
	switch {
	case expected > most:
		return nil, release, tooLarge
	case expected < 0:
		expected = most
	}
	if s.held.Add(expected) > int64(s.cfg.BufferBytes) {
		s.held.Add(-expected)
		return nil, release, later("busy", "too much is waiting for Kafka")
	}
	release = func() { s.held.Add(-expected) }
	// The deadline must not outlive the body: it would look like a client that has gone. Not every writer can set one.
	deadline := http.NewResponseController(w)
	_ = deadline.SetReadDeadline(time.Now().Add(readTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	_ = deadline.SetReadDeadline(time.Time{})
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		return nil, release, tooLarge
	case err != nil:
		return nil, release, refuse(http.StatusBadRequest, "incomplete_body", "the body did not arrive")
	}
	return body, release, nil
}

// decode reads the events, gives each its tenant and its id, and refuses all of them where one is wrong.
func decode(r *http.Request, body []byte, tenant string) ([]event.Decoded, bool, *refusal) {
	events, batch, err := event.FromRequest(r.Header, body)
	if err != nil {
		return nil, batch, wrong(err)
	}
	idempotencyKey := r.Header.Get("Idempotency-Key")
	if len(idempotencyKey) > maxIdempotencyKey {
		return nil, batch, refuse(http.StatusBadRequest, "invalid_idempotency_key", fmt.Sprintf("Idempotency-Key is longer than %d bytes", maxIdempotencyKey))
	}
	foreign := refuse(http.StatusForbidden, "tenant_mismatch", "the API key belongs to another tenant than the event names")
	for i := range events {
		e := &events[i]
		if e.Tenant != "" && e.Tenant != tenant {
			pointer := ""
			if batch {
				pointer = "/" + strconv.Itoa(i)
			}
			foreign.Errors = append(foreign.Errors, httpapi.FieldError{Pointer: pointer + "/tenant", Code: "tenant_mismatch", Detail: "is not the tenant of the API key"})
		}
		e.Tenant = tenant
		if e.ID == "" {
			e.ID = newID(tenant, idempotencyKey, i)
		}
	}
	if len(foreign.Errors) > 0 {
		return nil, batch, foreign
	}
	return events, batch, nil
}

// wrong turns what package event says into an answer. The code of the whole is that of its parts, if they share one.
func wrong(err error) *refusal {
	var all event.Errors
	if !errors.As(err, &all) || len(all) == 0 {
		return refuse(http.StatusBadRequest, "invalid_event", err.Error())
	}
	refused := refuse(http.StatusBadRequest, string(all[0].Code), all.Error())
	for _, e := range all {
		if e.Code != all[0].Code {
			refused.Code = "invalid_events"
		}
		refused.Errors = append(refused.Errors, httpapi.FieldError{Pointer: e.Pointer, Code: string(e.Code), Detail: e.Detail})
	}
	switch event.Code(refused.Code) {
	case event.TooLarge, event.TooManyEvents:
		refused.Status = http.StatusRequestEntityTooLarge
	case event.UnsupportedContentType:
		refused.Status = http.StatusUnsupportedMediaType
	}
	return refused
}

type taken struct {
	EventID string `json:"event_id"`
}

func accepted(events []event.Decoded, batch bool) any {
	all := make([]taken, len(events))
	for i, e := range events {
		all[i].EventID = e.ID
	}
	if !batch {
		return all[0]
	}
	return map[string][]taken{"events": all}
}

// write produces the events and returns when Kafka has acknowledged all of them, or a refusal: then some may have been
// written. A client that goes away changes nothing: what has been given to the producer is written.
func (s *Service) write(ctx context.Context, p *producer, events []event.Decoded) *refusal {
	records, refused := s.records(ctx, events)
	if refused != nil {
		return refused
	}
	return s.writeRecords(ctx, p, records)
}

// writeRecords is write for records that are made.
func (s *Service) writeRecords(ctx context.Context, p *producer, records []*kgo.Record) *refusal {
	results := make(chan error, len(records))
	for _, r := range records {
		p.TryProduce(context.WithoutCancel(ctx), r, promise(results))
	}
	timer := time.NewTimer(ackTimeout)
	defer timer.Stop()
	for range records {
		var err error
		select {
		case err = <-results:
		case <-timer.C:
			err = errNoAck
		}
		if err != nil {
			return s.failed(ctx, p, err)
		}
	}
	return nil
}
