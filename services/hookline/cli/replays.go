package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/pkg/run"
)

func (a *app) replays() *cobra.Command {
	return group("replays", "Send what was published in a range of time again",
		a.list("List replays, newest first", "/replays", nil, "ID id", "STATE state", "SUBSCRIPTION subscriptionId", "DONE done", "OF total", "MATCHED matched", "ETA-SECONDS etaSeconds", "CREATED createdAt"),
		a.call("get ID", "Show a replay with its progress", get, "/replays/%s"),
		a.createReplay(), a.watchReplay(),
		a.call("pause ID", "Hold a replay back", post, "/replays/%s/pause"),
		a.call("resume ID", "Go on with a replay that was held back", post, "/replays/%s/resume"),
		a.call("cancel ID", "End a replay; what it has sent stays sent", post, "/replays/%s/cancel"),
	)
}

type replayFlags struct {
	subscription, from, to, filter string
	types, statuses, offsets       []string
	rate                           float64
	yes, watch                     bool
}

func (a *app) createReplay() *cobra.Command {
	var f replayFlags
	cmd := &cobra.Command{
		Use: "create", Short: "Count what a replay would send, ask, and start it", Args: cobra.NoArgs,
		Example: `  hookline replays create --subscription 0198c0f2 --from 2026-04-14 --to 2026-04-15
  hookline replays create --subscription 0198c0f2 --from 6h --status DEAD_LETTER --yes --watch`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body, err := f.body(time.Now())
			if err != nil {
				return err
			}
			return a.startReplay(cmd, body, f.yes, f.watch)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.subscription, "subscription", "", "id of the subscription that gets the events")
	flags.StringVar(&f.from, "from", "", byFrom.help)
	flags.StringVar(&f.to, "to", "", byTo.help+" (default now)")
	flags.StringArrayVar(&f.offsets, "offsets", nil, "only this part of the events topic, as PARTITION:FROM or PARTITION:FROM-TO, TO not included; again for more")
	flags.StringArrayVar(&f.types, "type", nil, "only events of this type; again for more")
	flags.StringArrayVar(&f.statuses, "status", nil, "only events whose delivery stands so, such as DEAD_LETTER, or NONE; again for more")
	flags.StringVar(&f.filter, "filter", "", "only events that match, as JSON")
	flags.Float64Var(&f.rate, "rate", 0, "deliveries a second (default 100)")
	flags.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	flags.BoolVar(&f.watch, "watch", false, "show the progress until the end")
	// Cobra gives an error only for a flag that does not exist.
	_ = cmd.MarkFlagRequired("subscription")
	cmd.MarkFlagsOneRequired("from", "offsets")
	return cmd
}

func (f *replayFlags) body(now time.Time) (map[string]any, error) {
	body := map[string]any{"subscriptionId": f.subscription}
	to := f.to
	if to == "" {
		to = "0s"
	}
	for name, text := range map[string]string{"from": f.from, "to": to} {
		if text == "" {
			continue
		}
		at, err := moment(text, now)
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", name, err)
		}
		body[name] = at
	}
	for _, text := range f.offsets {
		part, err := readOffsets(text)
		if err != nil {
			return nil, err
		}
		offsets, _ := body["offsets"].([]offsets)
		body["offsets"] = append(offsets, part)
	}
	if len(f.types) > 0 {
		body["eventTypes"] = f.types
	}
	if len(f.statuses) > 0 {
		body["statuses"] = f.statuses
	}
	if f.rate > 0 {
		body["ratePerSecond"] = f.rate
	}
	if f.filter != "" {
		filter, err := rawJSON("filter", f.filter)
		if err != nil {
			return nil, err
		}
		body["filter"] = filter
	}
	return body, nil
}

// offsets is a part of a partition.
type offsets struct {
	Partition int32 `json:"partition"`
	From      int64 `json:"from"`
	To        int64 `json:"to,omitempty"`
}

func readOffsets(text string) (o offsets, err error) {
	rest := ""
	if n, _ := fmt.Sscanf(text, "%d:%d%s", &o.Partition, &o.From, &rest); n < 2 {
		return o, fmt.Errorf("--offsets: %q is not PARTITION:FROM or PARTITION:FROM-TO", text)
	}
	if rest == "" {
		return o, nil
	}
	if n, _ := fmt.Sscanf(rest, "-%d%s", &o.To, &rest); n != 1 {
		return o, fmt.Errorf("--offsets: %q is not PARTITION:FROM or PARTITION:FROM-TO", text)
	}
	return o, nil
}

// replay is what the commands read of one.
type replay struct {
	ID         string `json:"id"`
	State      string `json:"state"`
	Total      *int64 `json:"total"`
	Done       int64  `json:"done"`
	Matched    int64  `json:"matched"`
	Complete   *bool  `json:"complete"`
	ETASeconds *int64 `json:"etaSeconds"`
}

// question asks whether what was counted is to be sent.
func (r replay) question() string {
	return fmt.Sprintf("This sends %s deliveries. Start?", number(r.Matched, r.Complete != nil && !*r.Complete))
}

func (r replay) String() string {
	text := fmt.Sprintf("%s: looked at %d events", r.State, r.Done)
	if r.Total != nil {
		text += fmt.Sprintf(" of %d", *r.Total)
	}
	text += fmt.Sprintf(", %d to deliver", r.Matched)
	if r.ETASeconds != nil {
		text += ", " + (time.Duration(*r.ETASeconds) * time.Second).String() + " to go"
	}
	return text
}

func (a *app) startReplay(cmd *cobra.Command, body map[string]any, yes, watch bool) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	if !yes {
		body["dryRun"] = true
		var counted replay
		if err := c.Call(cmd.Context(), post, Path+"/replays", body, &counted); err != nil {
			return err
		}
		if err := a.confirm(counted.question()); err != nil {
			return err
		}
		delete(body, "dryRun")
	}
	answer, err := c.call(cmd.Context(), post, Path+"/replays", body)
	if err != nil {
		return err
	}
	if !watch {
		return a.print().value(answer)
	}
	var started replay
	if err := json.Unmarshal(answer, &started); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return a.watch(cmd.Context(), c, started.ID)
}

func (a *app) watchReplay() *cobra.Command {
	return &cobra.Command{Use: "watch ID", Short: "Show the progress of a replay until its end", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := a.connect()
			if err != nil {
				return err
			}
			return a.watch(cmd.Context(), c, args[0])
		}}
}

// watch prints a line a second until the replay has ended. Interrupting it does not stop the replay, and while the API is away it waits.
func (a *app) watch(ctx context.Context, c Client, id string) error {
	for begun := false; ; begun = true {
		answer, err := c.call(ctx, get, Path+"/replays/"+segment(id), nil)
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("no longer watching; the replay goes on, see: hookline replays watch %s", id)
		case err != nil && begun && passes(err):
			a.await(ctx, err)
			continue
		case err != nil:
			return err
		}
		var r replay
		if err := json.Unmarshal(answer, &r); err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		fmt.Fprintln(a.Err, r)
		switch r.State {
		case "done", "cancelled", "paused":
			return a.print().value(answer)
		case "failed":
			return errors.Join(a.print().value(answer), errors.New("the replay has failed"))
		}
		run.Pause(ctx, time.Second)
	}
}
