package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestTheLinesThatDevPrintsWorkWhenPasted(t *testing.T) {
	for _, tool := range []string{"bash", "curl", "sed"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("%s is not installed", tool)
		}
	}
	dir := t.TempDir()
	d := startDev(t, dir)
	about := guide{Program: binary, URL: d.client.URL, Brokers: d.brokers, Topic: "hookline.events", DataDir: dir}
	addr := freeAddr(t)
	script, events := []string{"set -eu"}, 0
	for _, step := range about.Steps() {
		text := strings.Join(step.Lines, "\n")
		if !strings.Contains(d.printed, strings.Join(step.Lines, "\n  ")) {
			t.Errorf("dev did not print:\n%s", text)
		}
		switch {
		case strings.Contains(text, "kcat"):
			if _, err := exec.LookPath("kcat"); err != nil {
				t.Log("kcat is not installed, its line was not run")
				continue
			}
			events++
		case strings.Contains(text, "/v1/events"):
			events++
		}
		script = append(script, strings.ReplaceAll(text, "127.0.0.1:9000", addr))
		// People paste one step after the other; a subscription is live within a second.
		script = append(script, "sleep 1")
		if strings.Contains(text, " listen ") {
			host, port, _ := net.SplitHostPort(addr)
			script = append(script, fmt.Sprintf("until (: > /dev/tcp/%s/%s) 2>/dev/null; do sleep 0.05; done", host, port))
		}
	}
	valid := 0
	for line := range paste(t, strings.Join(append(script, "wait"), "\n")) {
		if strings.Contains(line, "signature valid, answered 200") {
			valid++
		}
		if valid == events {
			// The receiver prints before it answers: it may end only when the answers have been seen.
			d.delivered(events)
			break
		}
	}
	if valid != events {
		t.Errorf("%d of %d events arrived verified", valid, events)
	}
}

// freeAddr is an address that nobody listens on.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// paste runs a script, passes on the lines that it prints, and ends it with all it has started.
func paste(t *testing.T, script string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		cmd := exec.Command("bash", "-c", script)
		cmd.Stderr = os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		end := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		timer := time.AfterFunc(deadline, end)
		defer timer.Stop()
		defer func() {
			end()
			_ = cmd.Wait()
		}()
		var all strings.Builder
		for lines := bufio.NewScanner(out); lines.Scan(); {
			fmt.Fprintln(&all, lines.Text())
			if !yield(lines.Text()) {
				return
			}
		}
		t.Errorf("the script ended after printing:\n%s", &all)
	}
}
