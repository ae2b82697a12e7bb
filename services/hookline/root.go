package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/pkg/config"
)

// terminal is what a command reads and writes. Results go to out, logs and errors to err.
type terminal struct {
	program string // how the binary was called
	environ config.Environment
	in      io.Reader
	out     io.Writer
	err     io.Writer
}

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	// exitUsage: the command line or the configuration is wrong, and nothing was started.
	exitUsage = 2
)

// errReported is an error that the log has already told about.
var errReported = errors.New("reported")

// execute runs the command line and returns the exit code. It blocks until the command is done; ctx asks a service to stop.
func execute(ctx context.Context, args []string, t terminal) int {
	root, started := newRoot(t)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	var wrong *config.Error
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errReported):
		return exitFailed
	case errors.As(err, &wrong):
		fmt.Fprintln(t.err, "hookline:", err)
		return exitUsage
	case !*started:
		fmt.Fprintf(t.err, "hookline: %v\nRun 'hookline --help' for the commands.\n", err)
		return exitUsage
	default:
		fmt.Fprintln(t.err, "hookline:", err)
		return exitFailed
	}
}

// newRoot builds the command tree. The flag it returns becomes true when the command line has been understood.
func newRoot(t terminal) (*cobra.Command, *bool) {
	started := new(bool)
	root := &cobra.Command{
		Use:               "hookline",
		Short:             "Delivers webhooks from Kafka",
		Version:           buildVersion(),
		SilenceUsage:      true,
		SilenceErrors:     true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		PersistentPreRun:  func(*cobra.Command, []string) { *started = true },
	}
	root.SetIn(t.in)
	root.SetOut(t.out)
	root.SetErr(t.err)
	root.AddGroup(&cobra.Group{ID: groupServices, Title: "Services (any number of copies of each):"})
	for _, s := range services {
		root.AddCommand(s.command(t))
	}
	root.AddCommand(newMigrate(t), newDev(t), newListen(t), newConfig(t), newVersion(t),
		newProfiles(t), newSimulate(t), newSign(t), newVerify(t))
	return root, started
}

const groupServices = "services"

func newVersion(t terminal) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(t.out, "hookline", buildVersion())
			return err
		},
	}
}
