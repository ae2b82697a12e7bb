package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// process is a child of the bench. Its output goes to a file: nobody reads along at full speed.
type process struct {
	name  string
	admin string // HOOKLINE_ADMIN_ADDR, "" where it is not a service
	cmd   *exec.Cmd
	log   string
	done  chan struct{}
}

// start runs a program with this environment and no other, besides PATH and TMPDIR. The process is killed when ctx ends.
func start(ctx context.Context, dir, name string, env map[string]string, path string, args ...string) (*process, error) {
	p := &process{name: name, admin: env["HOOKLINE_ADMIN_ADDR"], log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd = exec.CommandContext(ctx, path, args...)
	for _, name := range []string{"PATH", "TMPDIR"} {
		p.cmd.Env = append(p.cmd.Env, name+"="+os.Getenv(name))
	}
	for name, value := range env {
		p.cmd.Env = append(p.cmd.Env, name+"="+value)
	}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // the state is read from ProcessState
		close(p.done)
	}()
	return p, nil
}

// part starts this program again as one of its parts.
func part(ctx context.Context, dir, name string, args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return start(ctx, dir, name, nil, self, append([]string{name}, args...)...)
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends the process, with force where it takes too long, and returns when it is gone.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may be gone already
	select {
	case <-p.done:
	case <-time.After(30 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// wait returns once reached says so, or with an error that shows what the process printed last.
func (p *process) wait(ctx context.Context, what string, reached func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !reached() {
		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("%s ended before it could %s: %s\n%s", p.name, what, p.cmd.ProcessState, p.tail())
		case <-ctx.Done():
			return fmt.Errorf("%s did not %s: %w\n%s", p.name, what, ctx.Err(), p.tail())
		}
	}
	return nil
}

// ready waits for /readyz of a service.
func (p *process) ready(ctx context.Context) error {
	return p.wait(ctx, "be ready", func() bool {
		_, err := fetch(ctx, "http://"+p.admin+"/readyz")
		return err == nil
	})
}

// listening waits for something that accepts connections.
func (p *process) listening(ctx context.Context, address string) error {
	return p.wait(ctx, "listen", func() bool {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp4", address)
		if err != nil {
			return false
		}
		return conn.Close() == nil
	})
}

func (p *process) tail() string {
	const most = 4 << 10
	file, err := os.Open(p.log)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil && info.Size() > most {
		_, _ = file.Seek(-most, io.SeekEnd) // otherwise it is read from the start
	}
	text, _ := io.ReadAll(io.LimitReader(file, most))
	return string(text)
}

// freeAddress is a loopback address nobody listens on.
func freeAddress(ctx context.Context) (string, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return listener.Addr().String(), listener.Close()
}
