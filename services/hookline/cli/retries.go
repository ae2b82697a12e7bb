package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
)

var retryFilters = []param{
	bySubscription, byEventType, {"reason", "reason", "why the last attempt did not succeed, such as timeout"},
	{"from", "from", "next attempt not before: a time, or how long ago, such as 2h"}, {"to", "to", "next attempt before: a time, or how long ago; 0s is what is overdue"},
}

func (a *app) retries() *cobra.Command {
	return group("retries", "Deliveries that wait for their next attempt",
		a.list("List what waits, newest first", "/retries", retryFilters,
			"ID id", "REASON reason", "TYPE eventType", "EVENT eventId", "SUBSCRIPTION subscriptionId", "ATTEMPTS attemptCount", "LAST lastStatusCode", "NEXT nextAttemptAt"),
		a.count("Count what waits, by subscription, reason and due time", "/retries/count", retryFilters),
		a.call("show ID", "Show a delivery that waits, with its attempts", get, "/deliveries/%s"),
		a.commandRetries("now", "Make the next attempt now", "This makes the next attempt of %s deliveries now. Go on?"),
		a.commandRetries("cancel", "Cancel deliveries that wait", "This cancels %s deliveries. Go on?"),
	)
}

// asked is the answer to a command about retries.
type asked struct {
	Count      int64   `json:"count"`
	AtLeast    bool    `json:"atLeast"`
	NextCursor *string `json:"nextCursor"`
}

// commandRetries makes a command about the deliveries it names, or about those of a filter, which it counts first.
func (a *app) commandRetries(use, short, question string) *cobra.Command {
	yes := false
	cmd := &cobra.Command{
		Use: use + " [ID...]", Short: short,
		Example: fmt.Sprintf("  hookline retries %[1]s 6f1c0a1e-7a35-5c1c-9f0e-2f5f0c0f6a11\n  hookline retries %[1]s --subscription sub-1 --reason timeout", use),
	}
	query := addParams(cmd, retryFilters)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do it without counting and asking first")
	cmd.RunE = func(cmd *cobra.Command, ids []string) error {
		values, err := query()
		if err != nil {
			return err
		}
		body := map[string]any{}
		for name := range values {
			body[name] = values.Get(name)
		}
		if len(ids) > 0 {
			body["deliveryIds"] = ids
		}
		if len(body) == 0 {
			return errors.New("say which: ids, or a filter")
		}
		if !yes && len(ids) == 0 {
			if err := a.countFirst(cmd, "/retries/"+use, body, question); err != nil {
				return err
			}
		}
		return a.untilEnd(cmd, "/retries/"+use, body)
	}
	return cmd
}

func (a *app) countFirst(cmd *cobra.Command, path string, body map[string]any, question string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	body["dryRun"] = true
	defer delete(body, "dryRun")
	var counted asked
	if err := c.Call(cmd.Context(), post, Path+path, body, &counted); err != nil {
		return err
	}
	return a.confirm(fmt.Sprintf(question, number(counted.Count, counted.AtLeast)))
}

// untilEnd repeats a request as long as its answer says that there is more.
func (a *app) untilEnd(cmd *cobra.Command, path string, body map[string]any) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	total := int64(0)
	for {
		var part asked
		if err := c.Call(cmd.Context(), post, Path+path, body, &part); err != nil {
			return fmt.Errorf("after %d deliveries: %w", total, err)
		}
		if total += part.Count; part.NextCursor == nil {
			return a.print().value(fmt.Appendf(nil, `{"count":%d}`, total))
		}
		body["cursor"] = *part.NextCursor
	}
}

// number is a count as a question says it.
func number(n int64, atLeast bool) string {
	if atLeast {
		return fmt.Sprintf("at least %d", n)
	}
	return fmt.Sprint(n)
}
