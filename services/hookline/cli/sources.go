package cli

import (
	"errors"

	"github.com/spf13/cobra"
)

func (a *app) sources() *cobra.Command {
	return group("sources", "Where third parties post their webhooks to",
		a.list("List sources", "/sources", nil, "ID id", "NAME name", "STATUS status", "PATH path", "UPDATED updatedAt"),
		a.call("get ID", "Show a source", get, "/sources/%s"),
		a.createSource(), a.updateSource(), a.rotateSource(),
		a.listOf("requests ID", "Show the last requests to a source: accepted, rejected and refused", "/sources/%s/requests",
			[]param{{"outcome", "outcome", "accepted, rejected or refused"}},
			"AT at", "OUTCOME outcome", "REASON reason", "EVENT eventId", "REMOTE remoteId", "BYTES bytes", "ID id"),
		a.replaySource(),
		a.call("delete ID", "Delete a source", remove, "/sources/%s"),
	)
}

func (a *app) createSource() *cobra.Command {
	file, secret := "", ""
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a source of a specification; a secret that is made with it is shown once", Args: cobra.ExactArgs(1),
		Example: `  hookline sources create mx --spec mx.yaml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := a.input("spec", file)
			if err != nil {
				return err
			}
			body := map[string]any{"name": args[0], "spec": spec}
			if secret != "" {
				body["secretValue"] = secret
			}
			return a.send(cmd, post, "/sources", body)
		},
	}
	cmd.Flags().StringVar(&file, "spec", "", "the specification, in JSON or YAML, from a file or -")
	cmd.Flags().StringVar(&secret, "secret-value", "", "what the third party signs with, or its public key, token or password")
	// Cobra gives an error only for a flag that does not exist.
	_ = cmd.MarkFlagRequired("spec")
	return cmd
}

func (a *app) updateSource() *cobra.Command {
	file, name, status := "", "", ""
	cmd := &cobra.Command{Use: "update ID", Short: "Change what the flags name; the rest stays", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := given(map[string]string{"name": name, "status": status})
			if file != "" {
				spec, err := a.input("spec", file)
				if err != nil {
					return err
				}
				body["spec"] = spec
			}
			if len(body) == 0 {
				return errors.New("nothing is given: use flags")
			}
			return a.send(cmd, patch, "/sources/"+segment(args[0]), body)
		}}
	cmd.Flags().StringVar(&file, "spec", "", "another specification, in JSON or YAML, from a file or -")
	cmd.Flags().StringVar(&name, "name", "", "another name")
	cmd.Flags().StringVar(&status, "status", "", "active or disabled")
	return cmd
}

func (a *app) rotateSource() *cobra.Command {
	secret, overlap, force := "", "", false
	cmd := &cobra.Command{Use: "rotate ID", Short: "Give a source a new secret; the previous one is accepted for a while", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := given(map[string]string{"secretValue": secret, "overlap": overlap})
			body["force"] = force
			return a.send(cmd, post, "/sources/"+segment(args[0])+"/rotate", body)
		}}
	cmd.Flags().StringVar(&secret, "secret-value", "", "the new value; left out, one is made and shown")
	cmd.Flags().StringVar(&overlap, "overlap", "", "how long the previous value is accepted too: 0s to 168h (default 24h)")
	cmd.Flags().BoolVar(&force, "force", false, "also while the last rotation is not over")
	return cmd
}

func (a *app) replaySource() *cobra.Command {
	request := ""
	cmd := &cobra.Command{Use: "replay ID", Short: "Make events of rejected requests, once their connection is known", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body := map[string]any{}
			if request != "" {
				body["requestId"] = request
			}
			return a.send(cmd, post, "/sources/"+segment(args[0])+"/requests/replay", body)
		}}
	cmd.Flags().StringVar(&request, "request", "", "only this one")
	return cmd
}

func (a *app) connections() *cobra.Command {
	return group("connections", "Whose account an aggregator's remote id is",
		a.list("List connections", "/connections", []param{{"aggregator", "aggregator", "such as mx"}, {"remote-id", "remoteId", "what the aggregator calls it"}, {"connection", "connectionId", "what receivers know it by"}},
			"ID id", "AGGREGATOR aggregator", "REMOTE remoteId", "CONNECTION connectionId", "CLIENT client", "ENVIRONMENT environment"),
		a.call("get ID", "Show a connection", get, "/connections/%s"),
		a.addConnections(),
		a.call("delete ID", "Delete a connection; what comes about it is rejected from then on", remove, "/connections/%s"),
	)
}

func (a *app) addConnections() *cobra.Command {
	client, environment, file := "", "", ""
	cmd := &cobra.Command{
		Use: "add [AGGREGATOR REMOTE-ID CONNECTION-ID]", Short: "Add a connection, or a file of them", Args: cobra.MaximumNArgs(3),
		Example: `  hookline connections add mx MBR-1 67bcb452-225e-11ee-be56-0242ac120002 --environment sandbox
  hookline connections add --file connections.json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if file != "" {
				body, err := a.input("file", file)
				if err != nil {
					return err
				}
				return a.send(cmd, post, "/connections", body)
			}
			if len(args) != 3 {
				return errors.New("want AGGREGATOR, REMOTE-ID and CONNECTION-ID, or --file")
			}
			item := given(map[string]string{"aggregator": args[0], "remoteId": args[1], "connectionId": args[2], "client": client, "environment": environment})
			return a.send(cmd, post, "/connections", map[string]any{"items": []any{item}})
		},
	}
	cmd.Flags().StringVar(&client, "client", "", "the tenant whose events they become, where it is another")
	cmd.Flags().StringVar(&environment, "environment", "", "such as sandbox or production")
	cmd.Flags().StringVarP(&file, "file", "f", "", "{\"items\": […]}, in JSON or YAML, from a file or -")
	return cmd
}
