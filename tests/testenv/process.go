package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binary is Hookline, built once in a test process; TEST_HOOKLINE names one that is built already.
var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("TEST_HOOKLINE"); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "hookline-bin-")
	if err != nil {
		return "", err
	}
	atEnd(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "hookline")
	build := exec.Command("go", "build", "-o", path, "./services/hookline")
	build.Dir = Root()
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build hookline: %w\n%s", err, output)
	}
	return path, nil
})

// Binary is the path of Hookline's binary.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Addr is a loopback address nobody listens on.
func Addr(t testing.TB) string {
	t.Helper()
	address, err := freeAddr()
	if err != nil {
		t.Fatal(err)
	}
	return address.String()
}

func freeAddr() (netip.AddrPort, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer listener.Close()
	return netip.ParseAddrPort(listener.Addr().String())
}

// Env is what a process finds in its environment besides PATH, HOME and TMPDIR.
type Env map[string]string

// With is a copy with more or other entries.
func (e Env) With(name, value string) Env {
	more := Env{name: value}
	for n, v := range e {
		if n != name {
			more[n] = v
		}
	}
	return more
}

// Process is a running command with its output. Its methods may be called concurrently.
type Process struct {
	Admin string // HOOKLINE_ADMIN_ADDR

	name   string
	cmd    *exec.Cmd
	output *output
	done   chan struct{}
}

// Start runs `hookline args…`. HOOKLINE_ADMIN_ADDR is a free address unless env has one. The process is killed when the
// test ends, and the end of its output is logged if the test failed.
func Start(t testing.TB, env Env, args ...string) *Process {
	t.Helper()
	if env["HOOKLINE_ADMIN_ADDR"] == "" {
		env = env.With("HOOKLINE_ADMIN_ADDR", Addr(t))
	}
	p := StartCommand(t, env, Binary(t), args...)
	p.Admin = env["HOOKLINE_ADMIN_ADDR"]
	p.name = strings.Join(args, " ")
	return p
}

// StartCommand runs any command in the same way.
func StartCommand(t testing.TB, env Env, path string, args ...string) *Process {
	t.Helper()
	p := &Process{name: filepath.Base(path), cmd: exec.Command(path, args...), output: &output{}, done: make(chan struct{})}
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} {
		p.cmd.Env = append(p.cmd.Env, name+"="+os.Getenv(name))
	}
	for name, value := range env {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", p.name, err)
	}
	go func() {
		_ = p.cmd.Wait() // the exit code is read from ProcessState
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("the end of the output of %s:\n%s", p.name, p.output.tail(8<<10))
		}
	})
	return p
}

// Pid is the process's id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Output is everything the process has printed so far.
func (p *Process) Output() string { return p.output.tail(-1) }

// Kill ends the process with SIGKILL and returns when it is gone.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // it may be gone already
	<-p.done
}

// Signal sends a signal.
func (p *Process) Signal(t testing.TB, signal os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		t.Fatalf("%v to %s: %v", signal, p.name, err)
	}
}

// Stop sends SIGTERM and returns the exit code; after the time it fails the test.
func (p *Process) Stop(t testing.TB, within time.Duration) int {
	t.Helper()
	p.Signal(t, syscall.SIGTERM)
	return p.Wait(t, within)
}

// Wait returns the exit code of a process that ends by itself; after the time it fails the test.
func (p *Process) Wait(t testing.TB, within time.Duration) int {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(within):
		t.Fatalf("%s has not ended within %v", p.name, within)
	}
	return p.cmd.ProcessState.ExitCode()
}

// Ready returns once /readyz on the admin address answers 200. It fails the test after the time, or when the process
// ends first.
func (p *Process) Ready(t testing.TB, within time.Duration) {
	t.Helper()
	last := "no answer"
	p.until(t, within, "be ready", func() bool {
		status, body, err := get("http://" + p.Admin + "/readyz")
		if err != nil {
			return false
		}
		last = body
		return status == http.StatusOK
	}, func() string { return last })
}

// Printed returns once the process has printed the text.
func (p *Process) Printed(t testing.TB, text string, within time.Duration) {
	t.Helper()
	p.until(t, within, fmt.Sprintf("print %q", text), func() bool { return strings.Contains(p.Output(), text) },
		func() string { return "it has not" })
}

func (p *Process) until(t testing.TB, within time.Duration, what string, reached func() bool, state func() string) {
	t.Helper()
	err := Until(within, func() bool {
		select {
		case <-p.done:
			return true
		default:
			return reached()
		}
	})
	switch {
	case err != nil:
		t.Fatalf("%s did not %s within %v: %s", p.name, what, within, state())
	case !reached():
		t.Fatalf("%s ended before it could %s: exit code %d", p.name, what, p.cmd.ProcessState.ExitCode())
	}
}

var errNotYet = errors.New("not within the time")

// Until asks every 50 ms whether something has been reached, for at most the given time.
func Until(within time.Duration, reached func() bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !reached() {
		select {
		case <-ctx.Done():
			return errNotYet
		case <-tick.C:
		}
	}
	return nil
}

func get(url string) (status int, body string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	return response.StatusCode, string(content), err
}

// output collects what a process prints.
type output struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buffer.Write(p)
}

// tail is the last n bytes; a negative n means all.
func (o *output) tail(n int) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := o.buffer.Bytes()
	if n >= 0 && len(all) > n {
		all = all[len(all)-n:]
	}
	return string(all)
}
