// Package cli has the commands for people that ask a running Hookline over its HTTP API, and print what it answers as a table, JSON or YAML.
// It holds no state and reads neither Kafka nor a database; what it shows is what the API key may see.
package cli

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// Config is where the API is and who asks.
type Config struct {
	URL string `env:"HOOKLINE_API_URL" envDefault:"http://127.0.0.1:8080"`
	Key string `env:"HOOKLINE_API_KEY"`
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return fmt.Errorf("HOOKLINE_API_URL: %q is not http://host:port", c.URL)
	}
	return nil
}

// Terminal is what the commands read and write.
type Terminal struct {
	In    io.Reader
	Out   io.Writer
	Err   io.Writer
	Color bool // whether Out shows colours and nobody has asked for none
	// HTTP asks the API; nil is the default client.
	HTTP *http.Client
}

// app is what all commands share.
type app struct {
	Terminal
	config func() (Config, error)
	format string
	url    string
	key    string
}

// Commands are all of the package. config is called when one of them runs.
func Commands(t Terminal, config func() (Config, error)) []*cobra.Command {
	a := &app{Terminal: t, config: config}
	all := []*cobra.Command{
		a.subscriptions(), a.secrets(), a.deliveries(), a.events(), a.why(), a.retries(), a.replays(), a.sources(), a.connections(), a.apiKeys(), a.tenants(), a.changes(), a.tail(),
	}
	for _, cmd := range all {
		flags := cmd.PersistentFlags()
		flags.StringVarP(&a.format, "output", "o", formatTable, "how to print: table, json or yaml")
		flags.StringVar(&a.url, "api", "", "address of the API (default $HOOKLINE_API_URL, http://127.0.0.1:8080)")
		flags.StringVar(&a.key, "key", "", "API key (default $HOOKLINE_API_KEY)")
		// Cobra gives an error only for a flag that does not exist.
		_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{formatTable, formatJSON, formatYAML}, cobra.ShellCompDirectiveNoFileComp))
	}
	return all
}

// connect reads the configuration; flags go before the environment.
func (a *app) connect() (Client, error) {
	cfg, err := a.config()
	if err != nil {
		return Client{}, err
	}
	if a.url != "" {
		cfg.URL = a.url
		if err := cfg.Validate(); err != nil {
			return Client{}, errors.New(strings.Replace(err.Error(), "HOOKLINE_API_URL", "--api", 1))
		}
	}
	if a.key != "" {
		cfg.Key = a.key
	}
	switch a.format {
	case formatTable, formatJSON, formatYAML:
	default:
		return Client{}, fmt.Errorf("--output: %q is not table, json or yaml", a.format)
	}
	return Client{URL: strings.TrimRight(cfg.URL, "/"), Key: cfg.Key, HTTP: a.HTTP}, nil
}

func (a *app) print() printer { return printer{out: a.Out, format: a.format, color: a.Color} }

// group is a command that only holds others.
func group(use, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs}
	cmd.AddCommand(commands...)
	return cmd
}

// list makes a command that prints a collection.
func (a *app) list(short, path string, params []param, cols ...string) *cobra.Command {
	cmd := a.listOf("ls", short, path, params, cols...)
	cmd.Aliases = []string{"list"}
	return cmd
}

// listOf makes a command that prints a collection, of the one thing that its argument names where path has a %s for it. Its flags
// become parameters of the query, spelled as the API does.
func (a *app) listOf(use, short, path string, params []param, cols ...string) *cobra.Command {
	limit := 0
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(strings.Count(path, "%s"))}
	query := addParams(cmd, params)
	cmd.Flags().IntVar(&limit, "limit", 50, "print at most so many; 0 is all")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, asked, err := a.ask(query)
		if err != nil {
			return err
		}
		items, err := c.items(cmd.Context(), Path+fill(path, args), asked, limit)
		if err != nil {
			return err
		}
		return a.print().list(items, columns(cols...))
	}
	return cmd
}

// fill puts arguments into a path.
func fill(path string, args []string) string {
	for _, arg := range args {
		path = strings.Replace(path, "%s", segment(arg), 1)
	}
	return path
}

// segment writes an argument as one segment of a path, also where it looks like a way through it.
func segment(arg string) string {
	if arg == "." || arg == ".." {
		return strings.ReplaceAll(arg, ".", "%2E")
	}
	return url.PathEscape(arg)
}

// ask is a client and what the flags ask for.
func (a *app) ask(query func() (url.Values, error)) (c Client, asked url.Values, err error) {
	if c, err = a.connect(); err != nil {
		return c, nil, err
	}
	asked, err = query()
	return c, asked, err
}

// count makes a command that prints one answer to a query.
func (a *app) count(short, path string, params []param) *cobra.Command {
	cmd := &cobra.Command{Use: "count", Short: short, Args: cobra.NoArgs}
	query := addParams(cmd, params)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		asked, err := query()
		if err != nil {
			return err
		}
		return a.send(cmd, get, path+"?"+asked.Encode(), nil)
	}
	return cmd
}

// call makes a command about the one thing that its argument names. %s in path is the argument.
func (a *app) call(use, short, method, path string) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.send(cmd, method, fill(path, args), nil)
		},
	}
}

// send makes one call and prints the answer.
func (a *app) send(cmd *cobra.Command, method, path string, body any) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	answer, err := c.call(cmd.Context(), method, Path+path, body)
	if err != nil {
		return err
	}
	if len(answer) == 0 && a.format == formatTable {
		_, err := fmt.Fprintln(a.Out, "Done.")
		return err
	}
	return a.print().value(answer)
}

// param is a flag that becomes a parameter of a query.
type param struct{ flag, name, help string }

var (
	byStatus       = param{"status", "status", "PENDING, DELIVERED, DEAD_LETTER or CANCELLED"}
	bySubscription = param{"subscription", "subscriptionId", "id of the subscription"}
	byEvent        = param{"event", "eventId", "id of the event"}
	byEventType    = param{"event-type", "eventType", "type of the event"}
	byFrom         = param{"from", "from", "not before: a time, or how long ago, such as 2h"}
	byTo           = param{"to", "to", "before: a time, or how long ago"}
	byTrigger      = param{"trigger", "trigger", "event, manual, replay or test"}
)

func addParams(cmd *cobra.Command, params []param) (query func() (url.Values, error)) {
	values := make([]string, len(params))
	for i, p := range params {
		cmd.Flags().StringVar(&values[i], p.flag, "", p.help)
	}
	return func() (url.Values, error) {
		query := url.Values{}
		for i, p := range params {
			if values[i] == "" {
				continue
			}
			value := values[i]
			if p.name == "from" || p.name == "to" {
				at, err := moment(value, time.Now())
				if err != nil {
					return nil, fmt.Errorf("--%s: %w", p.flag, err)
				}
				value = at
			}
			query.Set(p.name, value)
		}
		return query, nil
	}
}

// moment reads a time, or a duration before now.
func moment(text string, now time.Time) (string, error) {
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago.Abs()).UTC().Format(time.RFC3339Nano), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04", time.DateOnly} {
		if at, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return at.UTC().Format(time.RFC3339Nano), nil
		}
	}
	return "", fmt.Errorf("%q is neither a time such as 2026-04-14T09:00:00Z or 2026-04-14, nor a duration such as 2h", text)
}

// given are the members that have a value.
func given(members map[string]string) map[string]any {
	body := map[string]any{}
	for name, value := range members {
		if value != "" {
			body[name] = value
		}
	}
	return body
}

// input reads a document that a flag names, in JSON, which is sent as it is, or in YAML; - is standard input.
func (a *app) input(flag, path string) (json.RawMessage, error) {
	var text []byte
	var err error
	if path == "-" {
		text, err = io.ReadAll(a.In)
	} else {
		text, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	if json.Valid(text) {
		return text, nil
	}
	var body map[string]any
	if err := yaml.Unmarshal(text, &body); err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	return json.Marshal(body)
}

// confirm asks before something wide is done.
func (a *app) confirm(question string) error {
	fmt.Fprintf(a.Err, "%s [y/N] ", question)
	answer, err := bufio.NewReader(a.In).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("not confirmed, nothing was done (--yes does it without asking)")
}

// rawJSON reads a flag that holds JSON.
func rawJSON(flag, text string) (json.RawMessage, error) {
	if !json.Valid([]byte(text)) {
		return nil, fmt.Errorf("--%s: not valid JSON", flag)
	}
	return json.RawMessage(text), nil
}

// The methods, short enough for the tables of commands.
const (
	get    = http.MethodGet
	post   = http.MethodPost
	patch  = http.MethodPatch
	remove = http.MethodDelete
)
