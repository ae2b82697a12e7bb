package run

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/hookline/hookline/pkg/health"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// until runs until its context ends, then drains for a while.
func until(drain time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		time.Sleep(drain)
		return nil
	}
}

func TestServicesRunUntilTheContextEndsAndAllHaveDrained(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		err := Group(ctx, Service{"quick", until(0)}, Service{"slow", until(20 * time.Second)})
		if err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != time.Hour+20*time.Second {
			t.Errorf("returned after %v", took)
		}
	})
}

func TestAServiceThatReturnsEarlyIsAnErrorAndStopsItsSiblings(t *testing.T) {
	broken := errors.New("broken")
	tests := map[string]struct{ returns, want error }{
		"with an error":    {broken, broken},
		"without an error": {nil, ErrStoppedEarly},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				err := Group(t.Context(),
					Service{"steady", until(time.Second)},
					Service{"router", func(context.Context) error { time.Sleep(time.Minute); return tt.returns }})
				if !errors.Is(err, tt.want) || !strings.HasPrefix(err.Error(), "router: ") {
					t.Errorf("error is %v", err)
				}
				if took := time.Since(began); took != time.Minute+time.Second {
					t.Errorf("returned after %v", took)
				}
			})
		})
	}
}

func TestAnErrorWhileDrainingIsReported(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		lost := errors.New("lost")
		err := Group(ctx, Service{"api", func(ctx context.Context) error { <-ctx.Done(); return lost }})
		if !errors.Is(err, lost) {
			t.Errorf("error is %v", err)
		}
	})
}

func TestWorkBegunBeforeTheStopMayFinishWithinABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "kept"))
		work, done := Outlive(ctx, 20*time.Second)
		defer done()
		time.Sleep(time.Hour)
		cancel()
		stopped := time.Now()
		time.Sleep(19 * time.Second)
		if work.Err() != nil || work.Value(key{}) != "kept" {
			t.Errorf("after 19s: %v, value %v", work.Err(), work.Value(key{}))
		}
		<-work.Done()
		if took := time.Since(stopped); took != 20*time.Second {
			t.Errorf("ended after %v", took)
		}
		if !errors.Is(context.Cause(work), ErrDrainOver) {
			t.Errorf("cause is %v", context.Cause(work))
		}
	})
}

type key struct{}

func TestFinishedWorkLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		_, before := Outlive(ctx, time.Hour)
		before()
		cancel()
		_, after := Outlive(ctx, time.Hour)
		synctest.Wait()
		after()
		// The bubble fails if a goroutine were still waiting for the hour to pass.
	})
}

// idle is a listener to which nobody connects.
type idle struct {
	closed chan struct{}
	once   *sync.Once
}

func newIdle() idle                      { return idle{make(chan struct{}), new(sync.Once)} }
func (l idle) Accept() (net.Conn, error) { <-l.closed; return nil, net.ErrClosed }
func (l idle) Close() error              { l.once.Do(func() { close(l.closed) }); return nil }
func (idle) Addr() net.Addr              { return &net.TCPAddr{} }

func process(h *health.Health, admin net.Listener) Process {
	return Process{Log: slog.New(slog.DiscardHandler), Health: h, Metrics: http.NotFoundHandler(), Listener: admin}
}

func TestTheProcessIsNotReadyBeforeItsServicesAreToldToStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := health.New()
		p := process(h, newIdle())
		p.Config.StopDelay = 5 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		watch := func(running context.Context) error {
			<-ctx.Done()
			synctest.Wait()
			if len(h.Unmet()) == 0 || running.Err() != nil {
				t.Errorf("at the stop signal: unmet %v, context %v", h.Unmet(), running.Err())
			}
			<-running.Done()
			if took := time.Since(began); took != time.Minute+5*time.Second {
				t.Errorf("told to stop after %v", took)
			}
			return nil
		}
		if err := p.Run(ctx, Service{"watch", watch}); err != nil {
			t.Error(err)
		}
	})
}

func TestAProcessEndsWithItsServicesAndCanBeStoppedBeforeTheyStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("broken")
		err := process(health.New(), newIdle()).Run(t.Context(), Service{"api", func(context.Context) error { return broken }})
		if !errors.Is(err, broken) {
			t.Errorf("error is %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := process(health.New(), newIdle()).Run(ctx, Service{"api", until(0)}); err != nil {
			t.Errorf("stopped before the start: %v", err)
		}
	})
}

func TestTheServicesStopWhenTheAdminAddressFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		admin := newIdle()
		time.AfterFunc(time.Minute, func() { _ = admin.Close() })
		err := process(health.New(), admin).Run(t.Context(), Service{"api", until(0)})
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("error is %v", err)
		}
	})
}

func TestTheAdminAddressAnswersWhileTheServicesDrain(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := process(health.New(), listener)
	p.Config.PProf = true
	p.Metrics = http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	ctx, cancel := context.WithCancel(t.Context())
	answers := func(path string, want int) {
		t.Helper()
		// Each on its own connection: none may be left idle.
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		got, err := client.Get("http://" + listener.Addr().String() + path)
		if err != nil {
			t.Error(err)
			return
		}
		_ = got.Body.Close()
		if got.StatusCode != want {
			t.Errorf("%s answers %d, want %d", path, got.StatusCode, want)
		}
	}
	service := func(running context.Context) error {
		for _, path := range []string{"/livez", "/readyz", "/metrics", "/debug/pprof/"} {
			answers(path, http.StatusOK)
		}
		cancel()
		<-running.Done()
		answers("/readyz", http.StatusServiceUnavailable)
		answers("/livez", http.StatusOK)
		return nil
	}
	if err := p.Run(ctx, Service{"service", service}); err != nil {
		t.Error(err)
	}
}

func TestConfigSaysEverythingThatIsWrong(t *testing.T) {
	err := Config{AdminAddr: "9090", StopDelay: -1}.Validate()
	for _, name := range []string{"HOOKLINE_ADMIN_ADDR", "HOOKLINE_STOP_DELAY"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not name %s", err, name)
		}
	}
}
