package run

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"
)

// Serve answers HTTP on the listener until ctx ends, then finishes the requests under way for at most drain, and closes
// the listener. It returns an error only for a listener that failed. What single connections do wrong is logged at debug.
func Serve(ctx context.Context, log *slog.Logger, listener net.Listener, handler http.Handler, drain time.Duration) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		defer close(stopped)
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		if server.Shutdown(bounded) != nil {
			// Whoever is still connected has had the time.
			_ = server.Close()
		}
	})
	err := server.Serve(listener)
	if unhook() {
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	}
	<-stopped
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	}
	return nil
}

// Admin answers /livez, /readyz, /metrics and, where asked for, /debug/pprof/.
func (p Process) Admin() http.Handler {
	mux := http.NewServeMux()
	p.Health.Register(mux)
	mux.Handle("GET /metrics", p.Metrics)
	if p.Config.PProf {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return mux
}
