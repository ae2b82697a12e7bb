package api

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/store"
	"github.com/hookline/hookline/pkg/webhook"
)

func TestAConfigurationSaysEverythingThatIsWrong(t *testing.T) {
	t.Parallel()
	err := Config{Addr: "nowhere", BootstrapKey: "short"}.Validate()
	for _, name := range []string{"HOOKLINE_API_ADDR", "HOOKLINE_BOOTSTRAP_API_KEY", "HOOKLINE_DRAIN_TIMEOUT", "HOOKLINE_API_OUTBOX_POLL"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s is not named in %v", name, err)
		}
	}
	if strings.Contains(err.Error(), "short") {
		t.Error("the key is in the error")
	}
	if err := testConfig().Validate(); err != nil {
		t.Error(err)
	}
	if _, err := New(testConfig(), Deps{}); err == nil || !strings.Contains(err.Error(), "Store") {
		t.Errorf("without parts: %v", err)
	}
}

func TestAServiceThatIsStoppedBeforeAnythingIsThereStops(t *testing.T) {
	t.Parallel()
	deps := testDeps(t, &fickle{Store: openStore(t)}, clusterAt("127.0.0.1:1"))
	deps.Store.(*fickle).away.Store(true)
	cfg := testConfig()
	cfg.DrainTimeout = 100 * time.Millisecond
	r := launch(t, cfg, deps)
	if err := r.stop(); err != nil {
		t.Errorf("got %v", err)
	}
}

// fickle is a database that goes away and comes back, and holds requests up.
type fickle struct {
	Store
	away  atomic.Bool
	panic atomic.Bool
	hold  atomic.Pointer[chan struct{}]
	held  chan struct{}
}

func (f *fickle) err() error {
	if f.away.Load() {
		return store.ErrUnavailable
	}
	return nil
}

func (f *fickle) Ping(ctx context.Context) error {
	if err := f.err(); err != nil {
		return err
	}
	return f.Store.Ping(ctx)
}

func (f *fickle) APIKeyByHash(ctx context.Context, hash [32]byte) (webhook.APIKey, error) {
	if err := f.err(); err != nil {
		return webhook.APIKey{}, err
	}
	return f.Store.APIKeyByHash(ctx, hash)
}

func (f *fickle) Tenant(ctx context.Context, id string) (webhook.Tenant, error) {
	if err := f.err(); err != nil {
		return webhook.Tenant{}, err
	}
	return f.Store.Tenant(ctx, id)
}

func (f *fickle) Secrets(ctx context.Context, tenant string, p store.Page) ([]webhook.Secret, string, error) {
	if f.panic.Load() {
		panic("a defect")
	}
	if err := f.err(); err != nil {
		return nil, "", err
	}
	if hold := f.hold.Load(); hold != nil {
		close(f.held)
		select {
		case <-*hold:
		case <-ctx.Done():
			return nil, "", ctx.Err()
		}
	}
	return f.Store.Secrets(ctx, tenant, p)
}

func (f *fickle) OutboxLock(ctx context.Context, do func(context.Context) error) (bool, error) {
	if err := f.err(); err != nil {
		return false, err
	}
	return f.Store.OutboxLock(ctx, do)
}

func fickleOver(db **fickle) func(*Config, *Deps) {
	return func(_ *Config, deps *Deps) {
		*db = &fickle{Store: deps.Store, held: make(chan struct{})}
		deps.Store = *db
	}
}

func TestWithoutTheDatabaseTheAnswerIsTryAgain(t *testing.T) {
	t.Parallel()
	var db *fickle
	r := start(t, fickleOver(&db))
	eventually(t, "it is ready", func() bool { return len(r.health.Unmet()) == 0 })
	db.away.Store(true)
	eventually(t, "/readyz says so", func() bool { return r.health.Unmet()["api: database"] != "" })
	for _, token := range []string{bootstrapToken, "a-key-that-is-not-remembered"} {
		a := r.callAs(token, http.MethodGet, "/secrets", nil)
		if a.status != http.StatusServiceUnavailable || a.code() != "database_unavailable" || a.header.Get("Retry-After") != "5" {
			t.Errorf("got %d %s", a.status, a.text)
		}
	}
	db.away.Store(false)
	eventually(t, "it is ready again", func() bool { return len(r.health.Unmet()) == 0 })
	r.must(http.StatusOK, http.MethodGet, "/secrets", nil)
}

func TestADatabaseThatIsAwayAtStartIsWaitedFor(t *testing.T) {
	t.Parallel()
	db := &fickle{Store: openStore(t)}
	db.away.Store(true)
	_, cluster := openKafka(t)
	r := launch(t, testConfig(), testDeps(t, db, cluster))
	if a := r.call(http.MethodGet, "/secrets", nil); a.status != http.StatusServiceUnavailable {
		t.Errorf("got %d %s", a.status, a.text)
	}
	db.away.Store(false)
	eventually(t, "the bootstrap key works", func() bool { return r.call(http.MethodGet, "/secrets", nil).status == http.StatusOK })
}

func TestKafkaAwayAtStartStopsNoChange(t *testing.T) {
	t.Parallel()
	db := openStore(t)
	cfg := testConfig()
	cfg.DrainTimeout = 100 * time.Millisecond
	r := launch(t, cfg, testDeps(t, db, clusterAt("127.0.0.1:1")))
	eventually(t, "a secret is made", func() bool {
		return r.call(http.MethodPost, "/secrets", map[string]any{"name": "s"}).status == http.StatusCreated
	})
	eventually(t, "/readyz says so", func() bool { return strings.Contains(r.health.Unmet()["api: kafka"], "list topics") })
	if n := waiting(t, db); n != 3 {
		t.Errorf("%d changes wait", n)
	}
}

func TestARequestUnderWayIsFinishedAtAStop(t *testing.T) {
	t.Parallel()
	var db *fickle
	r := start(t, fickleOver(&db))
	release := make(chan struct{})
	db.hold.Store(&release)
	answered := make(chan answer, 1)
	go func() { answered <- r.call(http.MethodGet, "/secrets", nil) }()
	<-db.held
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	stranger := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	eventually(t, "nobody else is let in", func() bool {
		response, err := stranger.Get(r.base + "/profiles")
		if err == nil {
			_ = response.Body.Close()
		}
		return err != nil
	})
	close(release)
	if a := <-answered; a.status != http.StatusOK {
		t.Errorf("got %d %s", a.status, a.text)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestARequestThatDoesNotEndIsCutOff(t *testing.T) {
	t.Parallel()
	var db *fickle
	r := start(t, fickleOver(&db), func(cfg *Config, _ *Deps) { cfg.DrainTimeout = 50 * time.Millisecond })
	never := make(chan struct{})
	db.hold.Store(&never)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		request, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, r.base+"/secrets", nil)
		request.Header.Set("Authorization", "Bearer "+bootstrapToken)
		if response, err := r.client.Do(request); err == nil {
			_ = response.Body.Close()
		}
	}()
	<-db.held
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	<-gone
}

func TestADefectIsOneAnswerAndNotTheEnd(t *testing.T) {
	t.Parallel()
	var db *fickle
	r := start(t, fickleOver(&db))
	db.panic.Store(true)
	if a := r.call(http.MethodGet, "/secrets", nil); a.status != http.StatusInternalServerError || a.code() != "internal" || strings.Contains(a.text, "defect") {
		t.Errorf("got %d %s", a.status, a.text)
	}
	db.panic.Store(false)
	r.must(http.StatusOK, http.MethodGet, "/secrets", nil)
}

func TestAMountedServiceRelaysAndDrains(t *testing.T) {
	t.Parallel()
	db := openStore(t)
	_, cluster := openKafka(t)
	deps := testDeps(t, db, cluster)
	deps.Mounted = true
	s, err := New(testConfig(), deps)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, path, body string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		request := httptest.NewRequestWithContext(t.Context(), method, Base+path, strings.NewReader(body))
		request.Header.Set("Authorization", "Bearer "+bootstrapToken)
		s.Handler().ServeHTTP(w, request)
		return w
	}
	if w := ask(http.MethodGet, "/secrets", ""); w.Code != http.StatusUnauthorized {
		t.Errorf("before Run: got %d %s", w.Code, w.Body)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	eventually(t, "a secret is made", func() bool { return ask(http.MethodPost, "/secrets", `{"name":"s"}`).Code == http.StatusCreated })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if w := ask(http.MethodGet, "/secrets", ""); w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), `"stopping"`) {
		t.Errorf("after the stop: got %d %s", w.Code, w.Body)
	}
	if n := waiting(t, db); n != 0 {
		t.Errorf("%d changes are left", n)
	}
}

func TestARedeliveryThatKafkaDoesNotTakeIsRefused(t *testing.T) {
	t.Parallel()
	db := openStore(t)
	s, err := New(testConfig(), testDeps(t, db, clusterAt("127.0.0.1:1")))
	if err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, db: db}
	id, token := r.deliver("s1", "e1", webhook.DeadLetter), r.key(webhook.DefaultTenant, webhook.PermissionSubscriptionEdit)
	w := httptest.NewRecorder()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, Base+"/deliveries/"+id+"/redeliver", nil)
	request.Header.Set("Authorization", "Bearer "+token)
	s.Handler().ServeHTTP(w, request)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" || !strings.Contains(w.Body.String(), "kafka_unavailable") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}
