package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/pkg/run"
)

// attempt is what a line of the tail shows.
type attempt struct {
	DeliveryID     string    `json:"deliveryId"`
	EventType      string    `json:"eventType"`
	SubscriptionID string    `json:"subscriptionId"`
	Number         int       `json:"number"`
	StartedAt      time.Time `json:"startedAt"`
	DurationMs     float64   `json:"durationMs"`
	StatusCode     *int      `json:"statusCode"`
	Error          *string   `json:"error"`
	Status         string    `json:"status"`
	Reason         *string   `json:"reason"`
}

func (a *app) tail() *cobra.Command {
	cmd := &cobra.Command{
		Use: "tail", Short: "Print attempts as they are made, until interrupted", Args: cobra.NoArgs,
		Example: `  hookline tail
  hookline tail --status DEAD_LETTER -o json | jq .eventId`,
	}
	query := addParams(cmd, []param{bySubscription, byEventType, byStatus})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, asked, err := a.ask(query)
		if err != nil {
			return err
		}
		for ctx, begun := cmd.Context(), false; ; begun = true {
			var part page
			err := c.Call(ctx, get, Path+"/attempts/tail?"+asked.Encode(), nil, &part)
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil && begun && passes(err):
				a.await(ctx, err)
				continue
			case err != nil:
				return err
			}
			if err := a.lines(part.Items); err != nil {
				return err
			}
			asked.Set("cursor", *part.NextCursor)
		}
	}
	return cmd
}

// await says what long work waits for, and lets a second pass.
func (a *app) await(ctx context.Context, err error) {
	fmt.Fprintln(a.Err, "waiting:", err)
	run.Pause(ctx, time.Second)
}

func (a *app) lines(items []json.RawMessage) error {
	for _, item := range items {
		line := string(item)
		if a.format == formatTable {
			var at attempt
			if err := json.Unmarshal(item, &at); err != nil {
				return fmt.Errorf("read attempt: %w", err)
			}
			line = a.print().paint(at.line())
		}
		if _, err := fmt.Fprintln(a.Out, line); err != nil {
			return err
		}
	}
	return nil
}

func (at attempt) line() string {
	answer := "no request"
	switch {
	case at.StatusCode != nil:
		answer = fmt.Sprintf("%d in %.0f ms", *at.StatusCode, at.DurationMs)
	case at.Error != nil:
		answer = fmt.Sprintf("%s after %.0f ms", *at.Error, at.DurationMs)
	}
	reason := ""
	if at.Reason != nil {
		reason = " " + *at.Reason
	}
	return fmt.Sprintf("%s  %s%s  %s to %s, attempt %d: %s  delivery %s",
		at.StartedAt.Local().Format("15:04:05.000"), at.Status, reason, visible(at.EventType), visible(at.SubscriptionID), at.Number, answer, at.DeliveryID)
}
