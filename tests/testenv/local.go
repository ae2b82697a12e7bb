package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Servers are real servers of one test alone, which it may kill and start again. Addresses of kinds that were not
// asked for are empty.
type Servers struct {
	Brokers     []string
	RedisURL    string
	DatabaseURL string // the maintenance database; nothing of Hookline is in it

	dir string
	env []string
}

// Own starts servers for this test alone from binaries of this machine, and ends them with the test. Kinds are kafka,
// redis and postgres; nodes is the number of Kafka brokers. It skips the test where the binaries are missing, unless
// TEST_REQUIRE_REAL=1.
func Own(t testing.TB, nodes int, kinds ...string) *Servers {
	t.Helper()
	s := &Servers{env: []string{fmt.Sprintf("KAFKA_NODES=%d", nodes)}}
	var err error
	if s.dir, err = serversDir(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.end(t.Failed()) })
	if err := s.run("start", kinds...); err != nil {
		if !required() {
			note("%s: NOT exercised: %v", t.Name(), err)
			t.Skip(err)
		}
		t.Fatal(err)
	}
	return s
}

// Start brings back servers that were killed, with their data and at their old addresses: kafka, kafka-2, redis,
// postgres. It returns when they accept connections.
func (s *Servers) Start(t testing.TB, names ...string) {
	t.Helper()
	if err := s.run("start", names...); err != nil {
		t.Fatal(err)
	}
}

// Kill ends servers with SIGKILL and returns when they are gone.
func (s *Servers) Kill(t testing.TB, names ...string) {
	t.Helper()
	if err := s.run("kill", names...); err != nil {
		t.Fatal(err)
	}
}

// Dir is where a server keeps its data and log.
func (s *Servers) Dir(name string) string { return filepath.Join(s.dir, name) }

func (s *Servers) end(keep bool) {
	if err := s.run("stop"); err != nil {
		fmt.Fprintln(os.Stderr, "testenv:", err)
		return
	}
	if keep {
		fmt.Fprintln(os.Stderr, "testenv: the servers' data and logs are in", s.dir)
		return
	}
	_ = os.RemoveAll(s.dir) // a leftover in the temporary folder harms nobody
}

func (s *Servers) run(action string, names ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(Root(), "scripts", "servers"), append([]string{action, s.dir}, names...)...)
	cmd.Env = append(os.Environ(), s.env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("scripts/servers %s %s: %w\n%s", action, strings.Join(names, " "), err, stderr.String())
	}
	for line := range strings.Lines(stdout.String()) {
		name, value, _ := strings.Cut(strings.TrimSpace(strings.TrimPrefix(line, "export ")), "=")
		value = strings.Trim(value, "'")
		switch name {
		case kafkaServer.variable:
			s.Brokers = strings.Split(value, ",")
		case redisServer.variable:
			s.RedisURL = value
		case postgresServer.variable:
			s.DatabaseURL = value
		}
	}
	return nil
}

// serversDir is a folder that the user postgres can reach too: t.TempDir may lie under a private one.
func serversDir() (string, error) { return os.MkdirTemp("", "hookline-servers-") }

// local starts the shared server of this kind from binaries of this machine.
func (s *server) local() (string, func(), error) {
	dir, err := serversDir()
	if err != nil {
		return "", nil, err
	}
	own := &Servers{dir: dir, env: []string{"KAFKA_NODES=1"}}
	if err := own.run("start", s.name); err != nil {
		own.end(false)
		return "", nil, errors.Join(errNone, err)
	}
	address := map[string]string{"kafka": strings.Join(own.Brokers, ","), "redis": own.RedisURL, "postgres": own.DatabaseURL}[s.name]
	return address, func() { own.end(false) }, nil
}
