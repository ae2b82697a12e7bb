package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/pkg/httpapi"
)

var deliveryFilters = []param{byStatus, bySubscription, byEvent, byEventType, byTrigger, byFrom, byTo}

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
				if err := a.send(cmd, post, fill("/deliveries/%s/redeliver", []string{id}), nil); err != nil {
					return fmt.Errorf("redeliver %s: %w", id, err)
				}
			}
			return nil
		},
	}
}

func (a *app) events() *cobra.Command {
	list := a.list("List events, newest first", "/events", []param{byEventType, byFrom, byTo, {"unmatched", "unmatched", "only those that nobody wanted"}},
		"ID id", "TYPE eventType", "RECORDED recordedAt", "PARTITION source.partition", "OFFSET source.offset")
	list.Flags().Lookup("unmatched").NoOptDefVal = "true"
	return group("events", "What was published", list, a.getEvent(), a.publish())
}

// getEvent asks by the query: an id is any text, and there are some that no path can hold.
func (a *app) getEvent() *cobra.Command {
	return &cobra.Command{Use: "get ID", Short: "Show an event", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		found, err := c.items(cmd.Context(), Path+"/events", url.Values{"id": args, "include": {"data"}}, 1)
		if err == nil && len(found) == 0 {
			err = &Refused{httpapi.Problem{Status: http.StatusNotFound, Code: "not_found", Detail: "there is no event of this id"}}
		}
		if err != nil {
			return err
		}
		return a.print().value(found[0])
	}}
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
	return &cobra.Command{
		Use: "why EVENT", Short: "Say for every subscription why an event went to it, or did not", Args: cobra.ExactArgs(1),
		Long: "The event is named by its id, or by its place on the events topic as PARTITION:OFFSET or TOPIC:PARTITION:OFFSET, which also explains a record that was rejected.",
		Example: `  hookline why 0198c0f2-8d5e-7c1a-b7f0-1d2e3f4a5b6c
  hookline why 3:1207`,
		RunE: func(cmd *cobra.Command, args []string) error {
			// What reads like a place may be an id.
			err := a.send(cmd, get, "/explain?"+url.Values{"eventId": args}.Encode(), nil)
			var refused *Refused
			if errors.As(err, &refused) && refused.Status == http.StatusNotFound && place.MatchString(args[0]) {
				return a.send(cmd, get, "/explain?"+url.Values{"at": args}.Encode(), nil)
			}
			return err
		},
	}
}

var place = regexp.MustCompile(`^([A-Za-z0-9._-]+:)?[0-9]+:[0-9]+$`)
