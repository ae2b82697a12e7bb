package cli

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) subscriptions() *cobra.Command {
	return group("subscriptions", "Which events go to which endpoint",
		a.list("List subscriptions", "/subscriptions", nil, "ID id", "NAME name", "STATUS status", "PROFILE profile", "TYPES eventTypes", "ENDPOINT endpointUrl", "REASON statusReason"),
		a.call("get ID", "Show a subscription", get, "/subscriptions/%s"),
		a.createSubscription(), a.updateSubscription(),
		a.withReason("enable ID", "Take events again", "enable"),
		a.withReason("disable ID", "Take no events; what waits ends as CANCELLED", "disable"),
		a.withReason("pause ID", "Hold deliveries back until it is enabled again", "pause"),
		a.testSubscription(), a.tryFilter(),
		a.call("delete ID", "Delete a subscription; what waits ends as CANCELLED", remove, "/subscriptions/%s"),
	)
}

// subscriptionFlags are the fields that have a flag of their own; --file has all of them.
type subscriptionFlags struct {
	name, url, profile, secretRef, filter, overrides, startFrom, file string
	types                                                             []string
}

func (f *subscriptionFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.url, "url", "", "where events are POSTed to")
	flags.StringArrayVar(&f.types, "type", nil, "event type, prefix.* or *; again for more")
	flags.StringVar(&f.profile, "profile", "", "the delivery contract")
	flags.StringVar(&f.secretRef, "secret", "", "name of the secret that signs")
	flags.StringVar(&f.filter, "filter", "", "which events of these types, as JSON")
	flags.StringVar(&f.overrides, "overrides", "", "what differs from the contract, as JSON")
	flags.StringVarP(&f.file, "file", "f", "", "the whole body, in JSON or YAML, from a file or - instead of flags")
}

// body are the flags that were given.
func (f *subscriptionFlags) body(a *app) (any, error) {
	if f.file != "" {
		return a.input("file", f.file)
	}
	body := given(map[string]string{"name": f.name, "endpointUrl": f.url, "profile": f.profile, "secretRef": f.secretRef, "startFrom": f.startFrom})
	if len(f.types) > 0 {
		body["eventTypes"] = f.types
	}
	for name, text := range map[string]string{"filter": f.filter, "overrides": f.overrides} {
		if text == "" {
			continue
		}
		raw, err := rawJSON(name, text)
		if err != nil {
			return nil, err
		}
		body[name] = raw
	}
	if len(body) == 0 {
		return nil, errors.New("nothing is given: use flags or --file")
	}
	return body, nil
}

func (a *app) createSubscription() *cobra.Command {
	var f subscriptionFlags
	cmd := &cobra.Command{
		Use: "create [NAME]", Short: "Subscribe an endpoint; a secret that is made with it is shown once", Args: cobra.MaximumNArgs(1),
		Example: `  hookline subscriptions create orders --url https://receiver.example.com/ --type 'order.*'
  hookline subscriptions create large --url https://receiver.example.com/ --filter '{"data":{"amount":[{"numeric":[">",100]}]}}'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			f.name = strings.Join(args, "")
			body, err := f.body(a)
			if err != nil {
				return err
			}
			return a.send(cmd, post, "/subscriptions", body)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.startFrom, "start-from", "", "now, or a time since which stored events are delivered too")
	return cmd
}

func (a *app) updateSubscription() *cobra.Command {
	var f subscriptionFlags
	cmd := &cobra.Command{
		Use: "update ID", Short: "Change what the flags name; the rest stays", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := f.body(a)
			if err != nil {
				return err
			}
			return a.send(cmd, patch, "/subscriptions/"+segment(args[0]), body)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&f.name, "name", "", "another name")
	return cmd
}

func (a *app) withReason(use, short, verb string) *cobra.Command {
	reason := ""
	cmd := &cobra.Command{Use: use, Short: short, Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		return a.send(cmd, post, "/subscriptions/"+segment(args[0])+"/"+verb, map[string]string{"reason": reason})
	}}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who look at it later")
	return cmd
}

func (a *app) testSubscription() *cobra.Command {
	eventType := ""
	cmd := &cobra.Command{Use: "test ID", Short: "Send one sample event now, and show what was sent and answered", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.send(cmd, post, "/subscriptions/"+segment(args[0])+"/test", map[string]string{"eventType": eventType})
		}}
	cmd.Flags().StringVar(&eventType, "event-type", "", "which sample")
	return cmd
}

func (a *app) tryFilter() *cobra.Command {
	var types []string
	filter, last := "", 0
	cmd := &cobra.Command{
		Use: "dry-run", Short: "Say which of the newest events a filter would take, and what the others lack", Args: cobra.NoArgs,
		Example: `  hookline subscriptions dry-run --type 'order.*' --filter '{"data":{"amount":[{"numeric":[">",100]}]}}'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body := map[string]any{"eventTypes": types, "last": last}
			if filter != "" {
				raw, err := rawJSON("filter", filter)
				if err != nil {
					return err
				}
				body["filter"] = raw
			}
			return a.send(cmd, post, "/subscriptions/dry-run", body)
		},
	}
	cmd.Flags().StringArrayVar(&types, "type", nil, "event type, prefix.* or *; again for more")
	cmd.Flags().StringVar(&filter, "filter", "", "the filter, as JSON")
	cmd.Flags().IntVar(&last, "last", 100, "how many of the newest events to look at")
	return cmd
}

func (a *app) secrets() *cobra.Command {
	return group("secrets", "What requests are signed with",
		a.list("List secrets, without values", "/secrets", nil, "ID id", "NAME name", "PROFILE profile", "CREATED createdAt", "UPDATED updatedAt"),
		a.call("get ID", "Show a secret with its value", get, "/secrets/%s"),
		a.createSecret(), a.rotateSecret(),
		a.call("expire-previous ID", "End the overlap of the last rotation now", post, "/secrets/%s/expire-previous"),
		a.call("delete ID", "Delete a secret that no subscription uses", remove, "/secrets/%s"),
	)
}

func (a *app) createSecret() *cobra.Command {
	profile := ""
	cmd := &cobra.Command{Use: "create NAME", Short: "Make a secret; its value is in the answer", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.send(cmd, post, "/secrets", map[string]string{"name": args[0], "profile": profile})
		}}
	cmd.Flags().StringVar(&profile, "profile", "", "the contract that it is for")
	return cmd
}

func (a *app) rotateSecret() *cobra.Command {
	overlap, force := "", false
	cmd := &cobra.Command{Use: "rotate ID", Short: "Give a secret a new value; the previous one goes on signing for a while", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := map[string]any{"force": force}
			if overlap != "" {
				body["overlap"] = overlap
			}
			return a.send(cmd, post, "/secrets/"+segment(args[0])+"/rotate", body)
		}}
	cmd.Flags().StringVar(&overlap, "overlap", "", "how long the previous value goes on signing: 0s to 168h (default 24h)")
	cmd.Flags().BoolVar(&force, "force", false, "also while the last rotation is not over")
	return cmd
}

func (a *app) apiKeys() *cobra.Command {
	return group("keys", "API keys",
		a.list("List API keys", "/api-keys", nil, "ID id", "NAME name", "PREFIX prefix", "PERMISSIONS permissions", "CREATED createdAt", "EXPIRES expiresAt", "REVOKED revoked"),
		a.createKey(),
		a.call("revoke ID", "End an API key", remove, "/api-keys/%s"),
	)
}

func (a *app) createKey() *cobra.Command {
	var permissions []string
	expires := ""
	cmd := &cobra.Command{Use: "create NAME", Short: "Make an API key; it is shown once", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := map[string]any{"name": args[0], "permissions": permissions}
			if expires != "" {
				body["expiresAt"] = expires
			}
			return a.send(cmd, post, "/api-keys", body)
		}}
	cmd.Flags().StringArrayVar(&permissions, "permission", nil, "what it may do; again for more")
	cmd.Flags().StringVar(&expires, "expires", "", "when it ends, such as 2027-01-01T00:00:00Z")
	// Cobra gives an error only for a flag that does not exist.
	_ = cmd.MarkFlagRequired("permission")
	return cmd
}

func (a *app) tenants() *cobra.Command {
	return group("tenants", "Who is kept apart from whom",
		a.list("List tenants", "/tenants", nil, "ID id", "NAME name", "PROFILE defaultProfile", "CREATED createdAt"),
		a.call("get ID", "Show a tenant", get, "/tenants/%s"),
		a.createTenant(),
	)
}

func (a *app) createTenant() *cobra.Command {
	name, profile := "", ""
	cmd := &cobra.Command{Use: "create ID", Short: "Make a tenant", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.send(cmd, post, "/tenants", given(map[string]string{"id": args[0], "name": name, "defaultProfile": profile}))
		}}
	cmd.Flags().StringVar(&name, "name", "", "for people")
	cmd.Flags().StringVar(&profile, "profile", "", "the delivery contract of subscriptions that name none")
	return cmd
}

func (a *app) changes() *cobra.Command {
	return group("changes", "Who changed what, and when",
		a.list("List changes, newest first", "/changes", []param{{"kind", "kind", "subscription, secret, api_key, tenant or replay"}, {"id", "id", "of what was changed"}, byFrom, byTo},
			"AT at", "WHO actor.name", "ACTION action", "KIND kind", "ID objectId"),
	)
}
