// Command hookline is all of Hookline in one binary: each service, the migration, the whole pipeline in one process for development, and the
// tools for people. Only this package puts services together; it contains no step of an event's path.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/hookline/hookline/pkg/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal asks to stop; a second one ends the process as signals do.
	context.AfterFunc(ctx, stop)
	os.Exit(execute(ctx, os.Args[1:], terminal{
		program: os.Args[0],
		environ: config.Environ(os.Environ()),
		in:      os.Stdin,
		out:     os.Stdout,
		err:     os.Stderr,
	}))
}
