package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/pkg/config"
	"github.com/hookline/hookline/services/hookline/cli"
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
		Use:           "hookline",
		Short:         "Delivers webhooks from Kafka",
		Version:       buildVersion(),
		SilenceUsage:  true,
		SilenceErrors: true,

		PersistentPreRun: func(*cobra.Command, []string) { *started = true },
	}
	root.SetIn(t.in)
	root.SetOut(t.out)
	root.SetErr(t.err)
	root.AddGroup(
		&cobra.Group{ID: groupServices, Title: "Services (any number of copies of each):"},
		&cobra.Group{ID: groupAsk, Title: "Ask and change a running Hookline:"},
	)
	for _, s := range services {
		root.AddCommand(s.command(t))
	}
	root.AddCommand(newMigrate(t), newDev(t), newListen(t), newConfig(t), newVersion(t),
		newProfiles(t), newSimulate(t), newSign(t), newVerify(t), newDoctor(t), newHealth(t))
	for _, cmd := range cli.Commands(t.client()) {
		cmd.GroupID = groupAsk
		root.AddCommand(cmd)
	}
	return root, started
}

const (
	groupServices = "services"
	groupAsk      = "ask"
)

// client is what the commands need that talk to the API. The bootstrap key will do where no other is given.
func (t terminal) client() (cli.Terminal, func() (cli.Config, error)) {
	color := isTerminal(t.out) && t.environ["NO_COLOR"] == "" && t.environ["TERM"] != "dumb"
	return cli.Terminal{In: t.in, Out: t.out, Err: t.err, Color: color}, func() (cfg cli.Config, err error) {
		environ := t.environ.With(map[string]string{"HOOKLINE_API_KEY": t.environ["HOOKLINE_BOOTSTRAP_API_KEY"]})
		err = config.Load(&cfg, environ)
		return cfg, err
	}
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func newVersion(t terminal) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(t.out, "hookline", buildVersion())
			return err
		},
	}
}
