package cli

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

var deliveryFilters = []param{byStatus, bySubscription, byEvent, byEventType, byFrom, byTo}

func (a *app) deliveries() *cobra.Command {
	return group("deliveries", "What became of every event",
		a.list("List deliveries, newest first", "/deliveries", deliveryFilters,
			"ID id", "STATUS status", "REASON reason", "TYPE eventType", "EVENT eventId", "SUBSCRIPTION subscriptionId", "ATTEMPTS attemptCount", "LAST lastStatusCode", "NEXT nextAttemptAt", "CREATED createdAt"),
		a.call("get ID", "Show a delivery with its attempts", get, "/deliveries/%s"),
		a.count("Count deliveries by status", "/deliveries/count", deliveryFilters),
		a.redeliver(),
	)
}

func (a *app) redeliver() *cobra.Command {
	return &cobra.Command{
		Use: "redeliver ID...", Short: "Send deliveries again, under the same ids", Args: cobra.MinimumNArgs(1),
		Long: "Sends each delivery again. For all of a time, a status or a subscription use 'hookline replays create', which counts first.",
		RunE: func(cmd *cobra.Command, ids []string) error {
			for _, id := range ids {
				if err := a.send(cmd, post, "/deliveries/"+url.PathEscape(id)+"/redeliver", nil); err != nil {
					return fmt.Errorf("redeliver %s: %w", id, err)
				}
			}
			return nil
		},
	}
}

func (a *app) events() *cobra.Command {
	return group("events", "What was published",
		a.call("get ID", "Show an event", get, "/events/%s"),
		a.publish(),
	)
}

func (a *app) publish() *cobra.Command {
	file := ""
	cmd := &cobra.Command{
		Use: "publish [TYPE DATA]", Short: "Publish an event over HTTP", Args: cobra.MatchAll(cobra.MaximumNArgs(2)),
		Example: `  hookline events publish order.created '{"id": 17}'
  hookline events publish --file events.json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := a.event(file, args)
			if err != nil {
				return err
			}
			c, err := a.connect()
			if err != nil {
				return err
			}
			answer, err := c.call(cmd.Context(), post, "/v1/events", body)
			if err != nil {
				return err
			}
			return a.print().value(answer)
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "one event or an array of them, from a file or -")
	return cmd
}

func (a *app) event(file string, args []string) (json.RawMessage, error) {
	if file != "" {
		return a.input("file", file)
	}
	if len(args) != 2 {
		return nil, fmt.Errorf("give a type and its data, or --file")
	}
	data, err := rawJSON("data", args[1])
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct {
		Type string          `json:"event_type"`
		Data json.RawMessage `json:"data"`
	}{args[0], data})
}

func (a *app) why() *cobra.Command {
	cmd := &cobra.Command{
		Use: "why EVENT", Short: "Say for every subscription why an event went to it, or did not", Args: cobra.ExactArgs(1),
		Long: "The event is named by its id, or by its place on the events topic as PARTITION:OFFSET, which also explains a record that was rejected.",
		Example: `  hookline why 0198c0f2-8d5e-7c1a-b7f0-1d2e3f4a5b6c
  hookline why 3:1207`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if partition, offset, ok := place(args[0]); ok {
				return a.send(cmd, get, fmt.Sprintf("/events/explain?partition=%d&offset=%d", partition, offset), nil)
			}
			return a.send(cmd, get, "/events/"+url.PathEscape(args[0])+"/explain", nil)
		},
	}
	return cmd
}

// place reads PARTITION:OFFSET.
func place(text string) (partition int32, offset int64, ok bool) {
	first, second, found := strings.Cut(text, ":")
	p, err := strconv.ParseInt(first, 10, 32)
	if !found || err != nil {
		return 0, 0, false
	}
	offset, err = strconv.ParseInt(second, 10, 64)
	return int32(p), offset, err == nil
}
