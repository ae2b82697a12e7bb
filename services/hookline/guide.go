package main

import (
	_ "embed"
	"fmt"
	htmltemplate "html/template"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	texttemplate "text/template"
)

// guide says what is where in a running dev, in the terminal and as a page.
type guide struct {
	Program  string // how this binary was called
	URL      string // of API and ingest
	Brokers  string
	Topic    string
	Admin    string
	DataDir  string
	Key      string // of the API
	KeyGiven bool   // by the environment, and so not in the data directory
}

// Step is something to copy into a terminal.
type Step struct {
	Title string
	Lines []string
}

const sampleEvent = `{"event_type":"balance.extracted","data":{"account":"1000-001","amount":"1250.00"}}`

// Bearer is how a command gets at the key without showing it.
func (g guide) Bearer() string {
	if g.KeyGiven {
		return `"Authorization: Bearer $HOOKLINE_BOOTSTRAP_API_KEY"`
	}
	return `"Authorization: Bearer $(cat ` + g.KeyFile() + `)"`
}

// KeyFile is where dev keeps the key that it made.
func (g guide) KeyFile() string { return filepath.Join(g.DataDir, apiKeyFile) }

// Steps are the first minutes, in order, each to be pasted into one terminal.
func (g guide) Steps() []Step {
	control := g.URL + "/api/v1/event-deliveries"
	return []Step{
		{"Subscribe an endpoint; the answer has the secret that its requests are signed with", []string{
			`SECRET=$(curl -sS ` + control + `/subscriptions -H ` + g.Bearer() + ` -H 'Content-Type: application/json' \`,
			`  -d '{"name":"first","endpointUrl":"http://127.0.0.1:9000/","eventTypes":["balance.extracted"]}' | sed 's/.*"secretValue":"\([^"]*\)".*/\1/')`,
		}},
		{"Receive, verify the signatures and print", []string{
			g.Program + ` listen --addr 127.0.0.1:9000 --secret "$SECRET" &`,
		}},
		{"Produce one event with kcat", []string{
			`echo '` + sampleEvent + `' | kcat -P -b ` + g.Brokers + ` -t ` + g.Topic,
		}},
		{"Produce one event with curl", []string{
			`curl -sS ` + g.URL + `/v1/events -H ` + g.Bearer() + ` -H 'Content-Type: application/json' \`,
			`  -d '` + sampleEvent + `'`,
		}},
		{"See what became of them, attempt by attempt", []string{
			`curl -sS '` + control + `/deliveries?include=attempts' -H ` + g.Bearer(),
		}},
	}
}

const guideText = `
Hookline is ready.

  API, ingest, page   {{.URL}}/
  Kafka               {{.Brokers}}, events go to the topic {{.Topic}}
  metrics, health     {{.Admin}}/metrics /readyz
  data                {{.DataDir}}
  API key             {{if .KeyGiven}}HOOKLINE_BOOTSTRAP_API_KEY{{else}}{{.Key}} (also in {{.KeyFile}}){{end}}
{{range .Steps}}
{{.Title}}:
{{range .Lines}}  {{.}}
{{end}}{{end}}
`

var guideTemplate = texttemplate.Must(texttemplate.New("guide").Parse(guideText))

func (g guide) print(w io.Writer) error {
	var b strings.Builder
	if err := guideTemplate.Execute(&b, g); err != nil {
		return fmt.Errorf("print guide: %w", err)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

//go:embed guide.html
var guidePage string

var pageTemplate = htmltemplate.Must(htmltemplate.New("page").Parse(guidePage))

// ServeHTTP answers with the page. It does not show the key: whoever can read the data directory has it.
func (g guide) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	// The client may have gone; there is nobody to tell.
	_ = pageTemplate.Execute(w, g)
}
