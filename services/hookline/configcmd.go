package main

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/pkg/config"
	"github.com/hookline/hookline/services/hookline/cli"
)

// uses lists every command that reads configuration, with an empty struct of it.
func uses() []config.Use {
	var all []config.Use
	for _, s := range services {
		all = append(all, config.Use{Command: s.name, Target: s.config()})
	}
	return append(all, config.Use{Command: "migrate", Target: new(migrateConfig)}, config.Use{Command: "client", Target: new(cli.Config)})
}

func newConfig(t terminal) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Explain, check and print the configuration"}
	commands := make([]string, 0, len(uses()))
	for _, use := range uses() {
		commands = append(commands, use.Command)
	}
	of := cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs)
	hint := "[" + strings.Join(commands, "|") + "]"
	cmd.AddCommand(
		&cobra.Command{
			Use: "docs", Short: "Print the reference of all settings, in Markdown", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				_, err := fmt.Fprint(t.out, reference())
				return err
			},
		},
		&cobra.Command{
			Use: "check " + hint, Short: "Say everything that is wrong with the configuration; exit code 2 if anything is",
			Args: of, ValidArgs: commands,
			RunE: func(_ *cobra.Command, args []string) error { return check(t, args) },
		},
		&cobra.Command{
			Use: "print " + hint, Short: "Print the settings in force and where each comes from, without secrets",
			Args: of, ValidArgs: commands,
			RunE: func(_ *cobra.Command, args []string) error { return printSettings(t, args) },
		},
	)
	return cmd
}

// chosen are the uses that the arguments name; all of them without an argument.
func chosen(args []string) []config.Use {
	var some []config.Use
	for _, use := range uses() {
		if len(args) == 0 || args[0] == use.Command {
			some = append(some, use)
		}
	}
	return some
}

func check(t terminal, args []string) error {
	for _, u := range t.environ.Unknown(config.All(uses())) {
		fmt.Fprintf(t.err, "%s: unknown%s\n", u.Name, didYouMean(u.Suggestion))
	}
	if err := loadAll(t.environ, chosen(args)); err != nil {
		return err
	}
	_, err := fmt.Fprintln(t.out, "The configuration is valid.")
	return err
}

func didYouMean(name string) string {
	if name == "" {
		return ""
	}
	return ", did you mean " + name + "?"
}

func printSettings(t terminal, args []string) error {
	printed := map[string]bool{}
	for _, use := range chosen(args) {
		for _, s := range config.Settings(use.Target, t.environ) {
			if printed[s.Name] {
				continue
			}
			printed[s.Name] = true
			if _, err := fmt.Fprintf(t.out, "%s=%s # %s\n", s.Name, s.Value, s.Source); err != nil {
				return err
			}
		}
	}
	return nil
}

//go:generate sh -c "go run . config docs > ../../docs/configuration.md"

//go:embed reference.md
var referenceHead string

// reference is docs/configuration.md.
func reference() string { return referenceHead + "\n" + config.Reference(uses(), help) }
