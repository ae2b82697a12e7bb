package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// control is a client of Hookline's own HTTP interfaces.
type control struct {
	base string
	key  string
}

const controlPath = "/api/v1/event-deliveries"

type subscriptionSummary struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

func (c control) subscriptions(ctx context.Context) ([]subscriptionSummary, error) {
	var all []subscriptionSummary
	cursor := ""
	for {
		var page struct {
			Items      []subscriptionSummary `json:"items"`
			NextCursor string                `json:"nextCursor"`
		}
		if err := c.call(ctx, http.MethodGet, controlPath+"/subscriptions?limit=100&cursor="+cursor, nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if cursor = page.NextCursor; cursor == "" {
			return all, nil
		}
	}
}

// subscribe returns the value of the secret that was made with the subscription.
func (c control) subscribe(ctx context.Context, subscription any) (id, secret string, err error) {
	var made struct {
		ID          string `json:"id"`
		SecretValue string `json:"secretValue"`
	}
	err = c.call(ctx, http.MethodPost, controlPath+"/subscriptions", subscription, &made)
	return made.ID, made.SecretValue, err
}

func (c control) unsubscribe(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, controlPath+"/subscriptions/"+id, nil, nil)
}

func (c control) publish(ctx context.Context, event any) error {
	return c.call(ctx, http.MethodPost, "/v1/events", event, nil)
}

// call sends in as JSON and reads the answer into out; either may be nil. An answer other than 2xx is an error with its text.
func (c control) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s %s: %w", method, path, err)
		}
		body = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+c.key)
	if in != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, 8<<20))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}
