// Command bench measures how fast Hookline delivers, and how much of that speed is lost to keeping its promises: in one
// run on one machine, a bare loop that reads records from Kafka and POSTs them signed (the floor), and the whole pipeline
// with its audit in Postgres. It needs real servers, named as scripts/servers names them, and prints what it writes to
// results.md. The receiver and the floor are this same program, started with their names as the first argument, so that
// each process's share of the time can be told.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/hookline/hookline/pkg/run"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, args []string) error {
	if part := partOf(args); part != nil {
		// As workers do.
		run.PreferHugePages(512 << 20)
		return part(ctx, args[1:])
	}
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	short := flags.Bool("short", false, "few events and one round: shows that the bench works, says nothing about speed")
	hookline := flags.String("hookline", "bin/hookline", "Hookline's binary")
	out := flags.String("out", "tests/bench/results.md", "where the results go; empty prints them only")
	profiles := flags.String("profile", "", "folder for CPU profiles of the services at full speed; costs some of it")
	rounds := flags.Int("rounds", 3, "how often the floor and the pipeline are measured, in turn")
	if err := flags.Parse(args); err != nil {
		return err
	}
	settings := thorough(*rounds)
	if *short {
		settings = quick()
	}
	settings.Hookline, settings.Profiles = *hookline, *profiles
	servers, err := serversFromEnvironment()
	if err != nil {
		return err
	}
	return published(*out, func(dir string) (string, error) {
		report, err := newBench(settings, servers, dir).run(ctx)
		if err != nil {
			return "", err
		}
		return report.markdown(), nil
	})
}

// published measures with a folder for the logs of processes, prints the report and writes it where out says. Where the measurement fails
// the folder stays.
func published(out string, measure func(dir string) (report string, err error)) error {
	dir, err := os.MkdirTemp("", "hookline-bench-")
	if err != nil {
		return err
	}
	report, err := measure(dir)
	if err != nil {
		return fmt.Errorf("%w (logs of the processes: %s)", err, dir)
	}
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	fmt.Print(report)
	if out == "" {
		return nil
	}
	return os.WriteFile(out, []byte(report), 0o644)
}

func newBench(settings Settings, servers Servers, dir string) *bench {
	return &bench{Settings: settings, Servers: servers, dir: dir, say: func(text string) { fmt.Fprintln(os.Stderr, "bench:", text) }}
}

// partOf is the part of the bench that the arguments ask for; nil where they ask for the bench itself.
func partOf(args []string) func(context.Context, []string) error {
	if len(args) == 0 {
		return nil
	}
	return map[string]func(context.Context, []string) error{
		partReceiver: runReceiver, partFloor: runFloor, partAudit: runAudit, partRetries: runRetries,
		partEngine: runEngine, partEngineReceiver: runEngineReceiver, partStandardFloor: runStandardFloor,
		partSources: runSources, partReplay: runReplay,
	}[args[0]]
}

func serversFromEnvironment() (Servers, error) {
	brokers, redisURL, databaseURL := os.Getenv("TEST_KAFKA_BROKERS"), os.Getenv("TEST_REDIS_URL"), os.Getenv("TEST_DATABASE_URL")
	if brokers == "" || redisURL == "" || databaseURL == "" {
		return Servers{}, errors.New("TEST_KAFKA_BROKERS, TEST_REDIS_URL and TEST_DATABASE_URL must name servers: scripts/servers with go run ./tests/bench")
	}
	return newServers(strings.Split(brokers, ","), redisURL, databaseURL), nil
}
