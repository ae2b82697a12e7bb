// Package run keeps the services of one process together: they start together, the first that ends early stops the others, and on the
// way out the process says that it is not ready before anything drains. It handles no signals: the caller's context ends at one.
package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hookline/hookline/pkg/health"
)

// Config is what an operator sets of every process.
type Config struct {
	AdminAddr string        `env:"HOOKLINE_ADMIN_ADDR" envDefault:"127.0.0.1:9090"`
	PProf     bool          `env:"HOOKLINE_PPROF" envDefault:"false"`
	StopDelay time.Duration `env:"HOOKLINE_STOP_DELAY" envDefault:"0s"`
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var problems []error
	if _, _, err := net.SplitHostPort(c.AdminAddr); err != nil {
		problems = append(problems, fmt.Errorf("HOOKLINE_ADMIN_ADDR: %q is not host:port", c.AdminAddr))
	}
	if c.StopDelay < 0 {
		problems = append(problems, fmt.Errorf("HOOKLINE_STOP_DELAY: %v is negative", c.StopDelay))
	}
	return errors.Join(problems...)
}

// Service is something that runs until its context ends.
type Service struct {
	Name string
	// Run blocks. When ctx ends it finishes what it took, within its own bound, and returns nil.
	Run func(ctx context.Context) error
}

// ErrStoppedEarly is in the error of a service that returned nil although nobody had asked it to stop.
var ErrStoppedEarly = errors.New("stopped although it was not asked to")

// Group runs the services until ctx ends and all of them have returned. A service that returns before that, with an error
// or without, is an error and stops its siblings; Group returns the first such error, which names the service.
func Group(ctx context.Context, services ...Service) error {
	group, running := errgroup.WithContext(ctx)
	for _, s := range services {
		group.Go(func() error {
			err := s.Run(running)
			if err == nil && running.Err() == nil {
				err = ErrStoppedEarly
			}
			if err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// Process is what surrounds the services: the admin server, and the order of stopping.
type Process struct {
	Config  Config
	Log     *slog.Logger
	Health  *health.Health
	Metrics http.Handler
	// Listener is served instead of one on Config.AdminAddr. May be nil.
	Listener net.Listener
}

// Run serves the admin address and runs the services until ctx ends and all of them have returned. Then, in this order: /readyz answers 503,
// HOOKLINE_STOP_DELAY passes, the services drain, and only when the last has returned does the admin server close.
func (p Process) Run(ctx context.Context, services ...Service) error {
	if p.Listener == nil {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", p.Config.AdminAddr)
		if err != nil {
			return fmt.Errorf("listen on HOOKLINE_ADMIN_ADDR: %w", err)
		}
		p.Listener = listener
	}
	p.Log.InfoContext(ctx, "admin", "addr", p.Listener.Addr().String())
	return p.run(ctx, services)
}

func (p Process) run(ctx context.Context, services []Service) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() {
		// A process that cannot be watched must not go on.
		defer stop()
		served <- Serve(serving, p.Log, p.Listener, p.Admin(), time.Second)
	}()

	unhook := context.AfterFunc(ctx, func() {
		p.Health.Stopping()
		p.Log.Info("stopping")
		Pause(running, p.Config.StopDelay)
		stop()
	})
	defer unhook()

	err := Group(running, services...)
	p.Health.Stopping()
	stopServing()
	return errors.Join(err, <-served)
}

// Sessions runs one session after the other until ctx ends. A session is the life of a service's clients: it returns nil when ctx
// ends, or an error when they cannot go on. Then the error is logged and told to unwell, and a fresh one follows a second later; what
// was not committed is read again.
func Sessions(ctx context.Context, log *slog.Logger, unwell func(error), session func(context.Context) error) {
	for ctx.Err() == nil {
		err := session(ctx)
		if err == nil || ctx.Err() != nil {
			continue
		}
		log.ErrorContext(ctx, "starting over", "error", err)
		unwell(err)
		Pause(ctx, time.Second)
	}
}

// Pause waits, and reports whether ctx still lives.
func Pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// ErrDrainOver is the cause of the end of a context of [Outlive] whose bound has passed.
var ErrDrainOver = errors.New("drain timeout is over")

// Outlive returns a context for work begun before a stop: it has ctx's values and goes on for at most bound after ctx has
// ended. Call stop when the work is done.
func Outlive(ctx context.Context, bound time.Duration) (outliving context.Context, stop context.CancelFunc) {
	outliving, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(ctx, func() {
		Pause(outliving, bound)
		cancel(ErrDrainOver)
	})
	return outliving, func() {
		unhook()
		cancel(context.Canceled)
	}
}

// Throttle lets a message that repeats through once a minute. It is for one goroutine.
type Throttle struct{ last time.Time }

// Allow reports whether the message may be said now.
func (t *Throttle) Allow() bool {
	if !t.last.IsZero() && time.Since(t.last) < time.Minute {
		return false
	}
	t.last = time.Now()
	return true
}
