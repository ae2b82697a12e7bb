package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/textproto"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/hookline/hookline/pkg/event"
	"github.com/hookline/hookline/pkg/profile"
	"github.com/hookline/hookline/pkg/webhook"
)

// contractFlags choose a profile.
type contractFlags struct {
	profile string
	dir     string
}

func (f *contractFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.profile, "profile", "fynapse", "the delivery contract")
	cmd.Flags().StringVar(&f.dir, "profiles-dir", "", "directory of own profiles besides the built-in ones")
}

func (f *contractFlags) find() (*profile.Profile, error) {
	catalog, err := profile.Load(f.dir)
	if err != nil {
		return nil, err
	}
	p, ok := catalog.Get(f.profile)
	if !ok {
		return nil, fmt.Errorf("profile %q: there are %s", f.profile, strings.Join(catalog.Names(), ", "))
	}
	return p, nil
}

func newProfiles(t terminal) *cobra.Command {
	var flags contractFlags
	cmd := &cobra.Command{
		Use: "profiles", Short: "List the delivery contracts, or print one", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return listProfiles(t.out, flags.dir) },
	}
	cmd.PersistentFlags().StringVar(&flags.dir, "profiles-dir", "", "directory of own profiles besides the built-in ones")
	cmd.AddCommand(&cobra.Command{
		Use: "show name", Short: "Print a contract's file", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			flags.profile = args[0]
			p, err := flags.find()
			if err != nil {
				return err
			}
			_, err = t.out.Write(p.YAML())
			return err
		},
	})
	return cmd
}

func listProfiles(out io.Writer, dir string) error {
	catalog, err := profile.Load(dir)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, name := range catalog.Names() {
		if p, ok := catalog.Get(name); ok {
			fmt.Fprintf(table, "%s\tversion %d\t%s\n", p.Name, p.Version, p.Description)
		}
	}
	return table.Flush()
}

func newSimulate(t terminal) *cobra.Command {
	var flags contractFlags
	var respond string
	cmd := &cobra.Command{
		Use: "simulate", Short: "Show when attempts are made, and how a delivery ends, under given responses", Args: cobra.NoArgs,
		Example: "  hookline simulate --profile fynapse --respond 503,timeout,200",
		RunE: func(*cobra.Command, []string) error {
			p, err := flags.find()
			if err != nil {
				return err
			}
			contract, err := p.Contract(webhook.Overrides{})
			if err != nil {
				return err
			}
			responses, err := parseResponses(respond)
			if err != nil {
				return err
			}
			return printTimeline(t.out, contract.Simulate(responses))
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&respond, "respond", "503", "what the endpoint answers in turn, the last for ever: statuses, timeout, reset")
	return cmd
}

func parseResponses(text string) ([]profile.Response, error) {
	answers, err := parseScript(text)
	if err != nil {
		return nil, fmt.Errorf("--respond: %w", err)
	}
	var responses []profile.Response
	for _, a := range answers.answers {
		responses = append(responses, profile.Response{StatusCode: a.status, Err: webhook.ErrorClass(a.failure)})
	}
	return responses, nil
}

func printTimeline(out io.Writer, timeline profile.Timeline) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, s := range timeline.Steps {
		name := fmt.Sprintf("attempt %d", s.Attempt)
		if s.Try > 1 {
			name += fmt.Sprintf(", try %d", s.Try)
		}
		note := ""
		if !s.Certain {
			note = "if jitter is short"
		}
		if s.Disables {
			note = strings.TrimPrefix(note+", disables the subscription", ", ")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", between(s.Earliest, s.Latest), name,
			answer{status: s.Response.StatusCode, failure: string(s.Response.Err)}, s.Outcome.Status, note)
	}
	fmt.Fprintf(table, "%s\t%s %s\n", between(timeline.Earliest, timeline.Latest), timeline.End.Status, timeline.End.Reason)
	return table.Flush()
}

func between(earliest, latest time.Duration) string {
	if earliest == latest {
		return "after " + earliest.Round(time.Millisecond).String()
	}
	return fmt.Sprintf("after %s to %s", earliest.Round(time.Millisecond), latest.Round(time.Millisecond))
}

func newSign(t terminal) *cobra.Command {
	var flags contractFlags
	var secrets []string
	cmd := &cobra.Command{
		Use: "sign [event.json]", Short: "Print the request that an event, in a file or on stdin, becomes under a contract", Args: cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := readInput(t, args)
			if err != nil {
				return fmt.Errorf("read the event: %w", err)
			}
			return sign(t, flags, secrets, text)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringArrayVar(&secrets, "secret", nil, "value of the secret; again for the previous one")
	return cmd
}

// readInput reads the file that an argument names, or stdin where there is none or it is "-".
func readInput(t terminal, args []string) ([]byte, error) {
	if len(args) == 0 || args[0] == "-" {
		return io.ReadAll(t.in)
	}
	return os.ReadFile(args[0])
}

// sign reads an event as ingest would, and prints headers and body as the receiver would get them.
func sign(t terminal, flags contractFlags, secrets []string, text []byte) error {
	p, err := flags.find()
	if err != nil {
		return err
	}
	contract, err := p.Contract(webhook.Overrides{})
	if err != nil {
		return err
	}
	events, batch, err := event.FromRequest(http.Header{"Content-Type": {"application/json"}}, text)
	if err != nil {
		return fmt.Errorf("read the event: %w", err)
	}
	if batch || len(events) != 1 {
		return errors.New("read the event: a batch cannot be signed as one")
	}
	now := time.Now()
	request, err := contract.Build(sampleDelivery(p, events[0].Event, now), keyValues(secrets), now)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(request.Header)) {
		fmt.Fprintf(t.out, "%s: %s\n", name, strings.Join(request.Header[name], ", "))
	}
	_, err = fmt.Fprintf(t.out, "\n%s\n", request.Body)
	return err
}

// sampleDelivery is a delivery of the event to a subscription that does not exist.
func sampleDelivery(p *profile.Profile, e webhook.Event, now time.Time) *webhook.Delivery {
	if e.ID == "" {
		e.ID = uuid.NewString()
	}
	if e.Tenant == "" {
		e.Tenant = webhook.DefaultTenant
	}
	if e.Timestamp.IsZero() {
		e.Timestamp = now
	}
	e.RecordedAt = now
	const subscription = "sample"
	return &webhook.Delivery{
		ID: webhook.DeliveryID(e.Tenant, e.ID, subscription), SubscriptionID: subscription, Profile: p.Name, ProfileVersion: p.Version,
		CreatedAt: now, Trigger: webhook.TriggerEvent, Event: e,
	}
}

func keyValues(secrets []string) [][]byte {
	var keys [][]byte
	for _, s := range secrets {
		keys = append(keys, []byte(s))
	}
	return keys
}

func newVerify(t terminal) *cobra.Command {
	var flags contractFlags
	var secrets, headers []string
	var at string
	cmd := &cobra.Command{
		Use: "verify [body]", Short: "Say whether the signature of a body, in a file or on stdin, is valid, and if not, what differs", Args: cobra.MaximumNArgs(1),
		Example: `  hookline verify --secret "$SECRET" -H 'Webhook-Signature: t=…,v1=…' -H 'Idempotency-Key: …' body.json`,
		RunE: func(_ *cobra.Command, args []string) error {
			body, err := readInput(t, args)
			if err != nil {
				return fmt.Errorf("read the body: %w", err)
			}
			return verify(t, flags, secrets, headers, at, body)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringArrayVar(&secrets, "secret", nil, "value of the secret; again for the previous one")
	cmd.Flags().StringArrayVarP(&headers, "header", "H", nil, "a header of the request, as 'Name: value'")
	cmd.Flags().StringVar(&at, "at", "", "when it was received, as RFC 3339 (default now)")
	return cmd
}

func verify(t terminal, flags contractFlags, secrets, headers []string, at string, body []byte) error {
	p, err := flags.find()
	if err != nil {
		return err
	}
	received := time.Now()
	if at != "" {
		if received, err = time.Parse(time.RFC3339, at); err != nil {
			return fmt.Errorf("--at: %w", err)
		}
	}
	header := http.Header{}
	for _, h := range headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return fmt.Errorf("--header %q: want 'Name: value'", h)
		}
		header.Add(textproto.TrimString(name), textproto.TrimString(value))
	}
	if err := p.Verify(header, body, keyValues(secrets), received); err != nil {
		return fmt.Errorf("not valid: %w", err)
	}
	_, err = fmt.Fprintln(t.out, "valid")
	return err
}
