package profile

import (
	"encoding/json"

	"github.com/hookline/hookline/pkg/webhook"
)

// spec is a profile file as it is written; profile.schema.json describes it. compile makes a Profile of it.
type spec struct {
	Name        string           `json:"name"`
	Version     uint32           `json:"version"`
	Description string           `json:"description"`
	Endpoint    endpointSpec     `json:"endpoint"`
	ContentType string           `json:"contentType"`
	Body        bodySpec         `json:"body"`
	Headers     []headerSpec     `json:"headers"`
	Secret      secretSpec       `json:"secret"`
	Signatures  []signatureSpec  `json:"signatures"`
	Tolerance   webhook.Duration `json:"tolerance"`
	Trace       bool             `json:"trace"`
	Timeout     webhook.Duration `json:"timeout"`
	Responses   []responseSpec   `json:"responses"`
	MicroRetry  *microRetrySpec  `json:"microRetry"`
	Retry       retrySpec        `json:"retry"`
	RetryAfter  retryAfterSpec   `json:"retryAfter"`
	Limits      limitSpec        `json:"limits"`
	AutoDisable *autoDisableSpec `json:"autoDisable"`
	Bounds      boundSpec        `json:"bounds"`
	Callback    *callbackSpec    `json:"callback"`
	EventTypes  []eventTypeSpec  `json:"eventTypes"`
}

type endpointSpec struct {
	HTTPSOnly bool `json:"httpsOnly"`
}

// bodySpec is either Raw (the data alone) or an object of members in this order.
type bodySpec struct {
	Raw     string       `json:"raw"`
	Members []memberSpec `json:"members"`
}

// memberSpec is one member of a JSON object; exactly one of the fields after Name says what it holds.
type memberSpec struct {
	Name   string          `json:"name"`
	String *string         `json:"string"`
	Number *string         `json:"number"`
	Raw    string          `json:"raw"`
	Const  json.RawMessage `json:"const"`
	Object []memberSpec    `json:"object"`
	Spread string          `json:"spread"`
	// Fill adds members to raw metadata where they are absent.
	Fill []memberSpec `json:"fill"`
}

type headerSpec struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Forbid string `json:"forbid"`
}

type secretSpec struct {
	Generate generateSpec `json:"generate"`
	Forms    []formSpec   `json:"forms"`
}

type generateSpec struct {
	Prefix   string `json:"prefix"`
	Bytes    int    `json:"bytes"`
	Encoding string `json:"encoding"`
}

type formSpec struct {
	Prefix       string `json:"prefix"`
	PublicPrefix string `json:"publicPrefix"`
	Encoding     string `json:"encoding"`
	Algorithm    string `json:"algorithm"`
	Label        string `json:"label"`
	MinBytes     int    `json:"minBytes"`
	MaxBytes     int    `json:"maxBytes"`
}

type signatureSpec struct {
	Header    string `json:"header"`
	Algorithm string `json:"algorithm"`
	Content   string `json:"content"`
	Encoding  string `json:"encoding"`
	Each      string `json:"each"`
	Join      string `json:"join"`
	Value     string `json:"value"`
	Keys      int    `json:"keys"`
}

type responseSpec struct {
	Match []matchSpec `json:"match"`
	Then  string      `json:"then"`
}

// matchSpec is a status code as a number, or a word: 2xx, 400-499, redirect, timeout, network, any.
type matchSpec string

func (m *matchSpec) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, (*string)(m))
	}
	*m = matchSpec(b)
	return nil
}

type microRetrySpec struct {
	Attempts int              `json:"attempts"`
	Min      webhook.Duration `json:"min"`
	Max      webhook.Duration `json:"max"`
}

type retrySpec struct {
	Delays   []webhook.Duration `json:"delays"`
	Base     webhook.Duration   `json:"base"`
	Factor   float64            `json:"factor"`
	Max      webhook.Duration   `json:"max"`
	Attempts int                `json:"attempts"`
	Jitter   float64            `json:"jitter"`
	Window   webhook.Duration   `json:"window"`
}

type retryAfterSpec struct {
	Use    string  `json:"use"`
	Jitter float64 `json:"jitter"`
}

type limitSpec struct {
	PerSecond   float64 `json:"perSecond"`
	Concurrency int     `json:"concurrency"`
}

type autoDisableSpec struct {
	After  int              `json:"after"`
	Count  string           `json:"count"`
	Window webhook.Duration `json:"window"`
}

type boundSpec struct {
	Timeout       *rangeSpec `json:"timeout"`
	Delay         *rangeSpec `json:"delay"`
	Window        *rangeSpec `json:"window"`
	Attempts      int        `json:"attempts"`
	Authorization bool       `json:"authorization"`
}

type rangeSpec struct {
	Min webhook.Duration `json:"min"`
	Max webhook.Duration `json:"max"`
}

type eventTypeSpec struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Sample      json.RawMessage `json:"sample"`
}
