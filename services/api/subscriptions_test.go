package api

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/egress"
	"github.com/hookline/hookline/pkg/webhook"
)

func TestASubscriptionWithoutSecretRefGetsASecretOfItsName(t *testing.T) {
	t.Parallel()
	r := start(t)
	made := r.must(http.StatusCreated, http.MethodPost, "/subscriptions", map[string]any{"name": "balances", "endpointUrl": endpoint})
	if made.str("status") != "active" || made.str("secretRef") != "balances" || made.str("profile") != "fynapse" || made.str("ordering") != "none" ||
		made.str("tenant") != webhook.DefaultTenant || made.header.Get("ETag") != `"1"` {
		t.Fatalf("got %s", made.text)
	}
	value := made.str("secretValue")
	secret, err := r.db.SecretByName(t.Context(), webhook.DefaultTenant, "balances")
	if err != nil || secret.Profile != "fynapse" {
		t.Fatalf("secret: %v, %+v", err, secret)
	}
	if got := r.must(http.StatusOK, http.MethodGet, "/secrets/"+secret.ID, nil); got.str("value") != value || value == "" {
		t.Error("secretValue is not the secret's value")
	}
	got := r.must(http.StatusOK, http.MethodGet, "/subscriptions/"+made.str("id"), nil)
	if _, shown := got.body["secretValue"]; shown {
		t.Error("the value is shown again")
	}
	if types, ok := got.body["eventTypes"].([]any); !ok || len(types) != 0 {
		t.Errorf("eventTypes: %v", got.body["eventTypes"])
	}
}

func TestASubscriptionUsesTheSecretThatItNames(t *testing.T) {
	t.Parallel()
	r := start(t)
	secret := r.must(http.StatusCreated, http.MethodPost, "/secrets", map[string]any{"name": "shared"})
	made := r.must(http.StatusCreated, http.MethodPost, "/subscriptions", map[string]any{
		"name": "s", "endpointUrl": endpoint, "secretRef": "shared", "eventTypes": []string{"balance.extracted", "order.*", "balance.extracted"},
		"profile": "fynapse", "overrides": map[string]any{"timeout": "5s", "retry": map[string]any{"delays": []string{"100ms", "1s"}}, "headers": map[string]string{"X.A": "1"}},
	})
	if _, shown := made.body["secretValue"]; shown || made.str("secretRef") != "shared" {
		t.Errorf("got %s", made.text)
	}
	sub, err := r.db.Subscription(t.Context(), webhook.DefaultTenant, made.str("id"))
	if err != nil || sub.SecretID != secret.str("id") || !slices.Equal(sub.EventTypes, []string{"balance.extracted", "order.*"}) {
		t.Fatalf("stored: %v %+v", err, sub)
	}
	if time.Duration(sub.Overrides.Timeout) != 5*time.Second || len(sub.Overrides.Retry.Delays) != 2 {
		t.Errorf("overrides: %+v", sub.Overrides)
	}
	if !strings.Contains(made.text, `"overrides":{"timeout":"5s","retry":{"delays":["100ms","1s"]},"headers":{"X.A":"1"}}`) {
		t.Errorf("overrides are answered as %s", made.text)
	}
	byID := r.must(http.StatusUnprocessableEntity, http.MethodPost, "/subscriptions", map[string]any{"name": "t", "endpointUrl": endpoint, "secretRef": secret.str("id")})
	if byID.code() != "unknown_secret" || !slices.Equal(byID.pointers(), []string{"/secretRef"}) {
		t.Errorf("by id: %s", byID.text)
	}
}

func TestASecretOfOneProfileIsNotAttachedUnderAnother(t *testing.T) {
	t.Parallel()
	r := start(t)
	profiles := r.service.deps.Profiles.Names()
	if len(profiles) < 2 {
		t.Fatal("one profile only")
	}
	other := profiles[slices.IndexFunc(profiles, func(p string) bool { return p != "fynapse" })]
	id := r.subscribe("first")
	a := r.must(http.StatusConflict, http.MethodPost, "/subscriptions", map[string]any{"name": "second", "endpointUrl": endpoint, "secretRef": "first", "profile": other})
	if a.code() != "secret_profile_mismatch" {
		t.Errorf("create: %s", a.text)
	}
	if a := r.must(http.StatusConflict, http.MethodPatch, "/subscriptions/"+id, map[string]any{"profile": other}); a.code() != "secret_profile_mismatch" {
		t.Errorf("patch: %s", a.text)
	}
	r.must(http.StatusCreated, http.MethodPost, "/secrets", map[string]any{"name": "of " + other, "profile": other})
	r.must(http.StatusOK, http.MethodPatch, "/subscriptions/"+id, map[string]any{"profile": other, "secretRef": "of " + other})
}

func TestAPatchChangesWhatItNames(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.must(http.StatusCreated, http.MethodPost, "/secrets", map[string]any{"name": "another"})
	made := r.must(http.StatusCreated, http.MethodPost, "/subscriptions",
		map[string]any{"name": "s", "endpointUrl": endpoint, "eventTypes": []string{"a.b"}, "overrides": map[string]any{"timeout": "5s"}})
	path := "/subscriptions/" + made.str("id")

	got := r.must(http.StatusOK, http.MethodPatch, path, map[string]any{"name": "renamed"})
	if got.str("name") != "renamed" || got.str("endpointUrl") != endpoint || got.header.Get("ETag") != `"2"` || len(got.body["eventTypes"].([]any)) != 1 {
		t.Errorf("name: %s", got.text)
	}
	got = r.must(http.StatusOK, http.MethodPatch, path, map[string]any{
		"endpointUrl": endpoint + "/2", "eventTypes": []string{}, "overrides": map[string]any{}, "secretRef": "another", "status": "paused"},
		"Content-Type", "application/merge-patch+json")
	if got.str("endpointUrl") != endpoint+"/2" || len(got.body["eventTypes"].([]any)) != 0 || len(got.body["overrides"].(map[string]any)) != 0 ||
		got.str("secretRef") != "another" || got.str("status") != "paused" || !strings.Contains(got.str("statusReason"), "bootstrap") {
		t.Errorf("much: %s", got.text)
	}
	for name, body := range map[string]any{
		"/name": map[string]any{"name": nil}, "/eventTypes": map[string]any{"eventTypes": nil}, "/filter": map[string]any{"filter": nil},
	} {
		if a := r.call(http.MethodPatch, path, body); a.status != http.StatusUnprocessableEntity || !slices.Equal(a.pointers(), []string{name}) {
			t.Errorf("null %s: %d %s", name, a.status, a.text)
		}
	}
}

func TestOfTwoWritersOneIsTold(t *testing.T) {
	t.Parallel()
	r := start(t)
	path := "/subscriptions/" + r.subscribe("s")
	tag := r.must(http.StatusOK, http.MethodGet, path, nil).header.Get("ETag")

	statuses := make([]int, 8)
	var writers sync.WaitGroup
	for i := range statuses {
		writers.Go(func() {
			statuses[i] = r.call(http.MethodPatch, path, map[string]any{"name": string(rune('a' + i))}, "If-Match", tag).status
		})
	}
	writers.Wait()
	slices.Sort(statuses)
	if statuses[0] != http.StatusOK || statuses[1] != http.StatusPreconditionFailed || statuses[7] != http.StatusPreconditionFailed {
		t.Errorf("got %v", statuses)
	}
	if a := r.must(http.StatusPreconditionFailed, http.MethodPatch, path, map[string]any{"name": "z"}, "If-Match", tag); a.code() != "version_mismatch" {
		t.Errorf("got %s", a.text)
	}
	r.must(http.StatusPreconditionFailed, http.MethodPatch, path, map[string]any{"name": "z"}, "If-Match", `W/"2"`)
	r.must(http.StatusOK, http.MethodPatch, path, map[string]any{"name": "z"}, "If-Match", `"9", "2"`)
	r.must(http.StatusOK, http.MethodPatch, path, map[string]any{"name": "y"}, "If-Match", `*`)
}

func TestASubscriptionIsDisabledPausedAndEnabledWithWhoAndWhy(t *testing.T) {
	t.Parallel()
	r := start(t)
	path := "/subscriptions/" + r.subscribe("s")
	if a := r.must(http.StatusOK, http.MethodPost, path+"/disable", map[string]any{"reason": "maintenance"}); a.str("status") != "disabled" || a.str("statusReason") != "disabled by API key bootstrap: maintenance" {
		t.Errorf("disable: %s", a.text)
	}
	if a := r.must(http.StatusOK, http.MethodPost, path+"/pause", map[string]any{"reason": "a release"}); a.str("status") != "paused" || a.str("statusReason") != "paused by API key bootstrap: a release" {
		t.Errorf("pause: %s", a.text)
	}
	if a := r.must(http.StatusOK, http.MethodPost, path+"/enable", map[string]any{"reason": "mended"}); a.str("statusReason") != "active by API key bootstrap: mended" {
		t.Errorf("enable with a reason: %s", a.text)
	}
	if a := r.must(http.StatusOK, http.MethodPost, path+"/enable", nil); a.str("status") != "active" || a.body["statusReason"] != nil {
		t.Errorf("enable: %s", a.text)
	}
	r.must(http.StatusNoContent, http.MethodDelete, path, nil)
	for _, action := range []string{"", "/enable", "/disable", "/pause", "/test"} {
		method := http.MethodPost
		if action == "" {
			method = http.MethodGet
		}
		r.must(http.StatusNotFound, method, path+action, nil)
	}
}

func TestSubscriptionsArePaged(t *testing.T) {
	t.Parallel()
	r := start(t)
	want := []string{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		want = append(want, r.subscribe(name))
	}
	var got []string
	cursor := ""
	for range 4 {
		list := r.must(http.StatusOK, http.MethodGet, "/subscriptions?limit=2&cursor="+cursor, nil)
		for _, item := range list.items() {
			got = append(got, item["id"].(string))
		}
		if cursor = list.str("nextCursor"); cursor == "" {
			break
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	bad := r.must(http.StatusUnprocessableEntity, http.MethodGet, "/subscriptions?cursor=nonsense", nil)
	if bad.code() != "bad_cursor" || !slices.Equal(bad.pointers(), []string{"?cursor"}) {
		t.Errorf("got %s", bad.text)
	}
}

func TestABadSubscriptionIsRefusedWithEveryWrongField(t *testing.T) {
	t.Parallel()
	r := start(t)
	good := func(more string) string { return `{"name":"s","endpointUrl":"` + endpoint + `"` + more + `}` }
	for name, c := range map[string]struct {
		body     string
		status   int
		code     string
		pointers []string
	}{
		"empty":                {"", 400, "body_required", nil},
		"not JSON":             {"{", 400, "invalid_json", []string{""}},
		"trailing":             {good("") + "x", 400, "trailing_data", []string{""}},
		"twice":                {good(`,"name":"t"`), 400, "duplicate_key", []string{"/name"}},
		"not UTF-8":            {good(",\"secretRef\":\"\xff\""), 400, "invalid_utf8", []string{"/secretRef"}},
		"deep":                 {good(`,"filter":` + strings.Repeat("[", 70) + strings.Repeat("]", 70)), 400, "too_deep", nil},
		"large":                {good(`,"secretRef":"` + strings.Repeat("x", maxBody) + `"`), 413, "body_too_large", nil},
		"an array":             {`[]`, 422, "validation_failed", []string{""}},
		"nothing":              {`{}`, 422, "validation_failed", []string{"/endpointUrl", "/name"}},
		"null":                 {`null`, 422, "validation_failed", []string{""}},
		"unknown field":        {good(`,"a.b/c[0]~":1,"status":"active"`), 422, "validation_failed", []string{"/a.b~1c[0]~0", "/status"}},
		"other case":           {`{"Name":"s","endpointUrl":"` + endpoint + `"}`, 422, "validation_failed", []string{"/Name", "/name"}},
		"types":                {`{"name":1,"endpointUrl":[],"eventTypes":"a","overrides":[]}`, 422, "validation_failed", []string{"/endpointUrl", "/eventTypes", "/name", "/overrides"}},
		"NUL":                  {`{"name":"a\u0000b","endpointUrl":"` + endpoint + `"}`, 422, "validation_failed", []string{"/name"}},
		"long name":            {`{"name":"` + strings.Repeat("n", 129) + `","endpointUrl":"` + endpoint + `"}`, 422, "validation_failed", []string{"/name"}},
		"event types":          {good(`,"eventTypes":["ok.type","a b","*.x","a..b",""]`), 422, "validation_failed", []string{"/eventTypes/1", "/eventTypes/2", "/eventTypes/3", "/eventTypes/4"}},
		"objects in a list":    {good(`,"eventTypes":[{},{}]`), 422, "validation_failed", []string{"/eventTypes/0", "/eventTypes/1"}},
		"filter":               {good(`,"filter":{"data":{"a":[{"like":1}]}}`), 422, "filter_unknown_operator", []string{"/filter/data/a/0/like"}},
		"ordering":             {good(`,"ordering":"per_key"`), 422, "ordering_not_supported", []string{"/ordering"}},
		"other ordering":       {good(`,"ordering":"sometimes"`), 422, "validation_failed", []string{"/ordering"}},
		"unknown profile":      {good(`,"profile":"nobody"`), 422, "unknown_profile", []string{"/profile"}},
		"userinfo":             {`{"name":"s","endpointUrl":"https://u:p@example.com/"}`, 422, "endpoint_userinfo", []string{"/endpointUrl"}},
		"look-alike":           {`{"name":"s","endpointUrl":"https://exаmple.com/"}`, 422, "endpoint_host", []string{"/endpointUrl"}},
		"private":              {`{"name":"s","endpointUrl":"https://10.0.0.1/"}`, 422, "endpoint_blocked", []string{"/endpointUrl"}},
		"scheme":               {`{"name":"s","endpointUrl":"ftp://example.com/"}`, 422, "endpoint_scheme", []string{"/endpointUrl"}},
		"two problems":         {`{"name":"s","endpointUrl":"ftp://example.com/","ordering":"per_key"}`, 422, "validation_failed", []string{"/endpointUrl", "/ordering"}},
		"unknown override":     {good(`,"overrides":{"retry":{"delay":"1s"}}`), 422, "validation_failed", []string{"/overrides/retry/delay"}},
		"duration as number":   {good(`,"overrides":{"timeout":5}`), 422, "validation_failed", []string{"/overrides/timeout"}},
		"short delay":          {good(`,"overrides":{"retry":{"delays":["1s","1ms"]}}`), 422, "override_out_of_bounds", []string{"/overrides/retry/delays/1"}},
		"many delays":          {good(`,"overrides":{"retry":{"delays":[` + strings.Repeat(`"1s",`, 50) + `"1s"]}}`), 422, "validation_failed", []string{"/overrides/retry/delays"}},
		"a header of HTTP":     {good(`,"overrides":{"headers":{"Host":"x"}}`), 422, "override_out_of_bounds", []string{"/overrides/headers/Host"}},
		"a line in a header":   {good(`,"overrides":{"headers":{"X-A":"a\r\nB: c"}}`), 422, "override_out_of_bounds", []string{"/overrides/headers/X-A"}},
		"a header with a dot":  {good(`,"overrides":{"headers":{"X.A":1},"concurrency":0}`), 422, "validation_failed", []string{"/overrides/concurrency", "/overrides/headers/X.A"}},
		"negative concurrency": {good(`,"overrides":{"concurrency":-1,"rate":{"perSecond":0}}`), 422, "validation_failed", []string{"/overrides/concurrency", "/overrides/rate/perSecond"}},
	} {
		a := r.call(http.MethodPost, "/subscriptions", c.body)
		got := a.pointers()
		slices.Sort(got)
		if a.status != c.status || a.code() != c.code || (c.pointers != nil && !slices.Equal(got, c.pointers)) {
			t.Errorf("%s: got %d %s %q, want %d %s %q\n%s", name, a.status, a.code(), got, c.status, c.code, c.pointers, a.text)
		}
		if a.header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %s", name, a.header.Get("Content-Type"))
		}
	}
	if list := r.must(http.StatusOK, http.MethodGet, "/subscriptions", nil); len(list.items()) != 0 {
		t.Errorf("something was made: %s", list.text)
	}
	if a := r.must(http.StatusUnsupportedMediaType, http.MethodPost, "/subscriptions", good(""), "Content-Type", "text/plain"); a.code() != "unsupported_media_type" {
		t.Errorf("got %s", a.text)
	}
	nulls := good(`,"eventTypes":null,"filter":null,"secretRef":null,"profile":null,"ordering":null,"overrides":null`)
	r.must(http.StatusCreated, http.MethodPost, "/subscriptions", nulls)
}

func TestPlainHTTPIsTheOperatorsToPermitUnderEveryProfile(t *testing.T) {
	t.Parallel()
	strict, err := egress.New(egress.Config{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*Config, *Deps)
		status int
	}{
		"permitted":     {func(*Config, *Deps) {}, http.StatusCreated},
		"not permitted": {func(_ *Config, d *Deps) { d.Endpoint = strict }, http.StatusUnprocessableEntity},
	} {
		r := start(t, c.change)
		for _, profile := range r.service.deps.Profiles.Names() {
			body := map[string]any{"name": profile, "profile": profile, "endpointUrl": "http://127.0.0.1:8443/"}
			if a := r.call(http.MethodPost, "/subscriptions", body); a.status != c.status {
				t.Errorf("%s: %s: %d %s", name, profile, a.status, a.text)
			}
		}
	}
}

func TestAnUpdateOfAnotherVersionIsRefused(t *testing.T) {
	t.Parallel()
	r := start(t)
	id := r.subscribe("s")
	path := "/subscriptions/" + id
	first := r.must(http.StatusOK, http.MethodGet, path, nil).header.Get("ETag")
	r.must(http.StatusOK, http.MethodPatch, path, map[string]any{"name": "t"}, "If-Match", first)
	for operation, body := range map[string]any{"PATCH " + path: map[string]any{"name": "lost"}, "POST " + path + "/enable": nil, "POST " + path + "/disable": nil, "DELETE " + path: nil} {
		method, path, _ := strings.Cut(operation, " ")
		for _, tag := range []string{first, "W/" + first, `"x"`, "nonsense"} {
			if a := r.must(http.StatusPreconditionFailed, method, path, body, "If-Match", tag); a.code() != "version_mismatch" {
				t.Errorf("%s: %s", operation, a.text)
			}
		}
	}
	got := r.must(http.StatusOK, http.MethodGet, path, nil)
	if got.str("name") != "t" || got.str("status") != "active" {
		t.Errorf("got %s", got.text)
	}
	r.must(http.StatusNoContent, http.MethodDelete, path, nil, "If-Match", `"0", `+got.header.Get("ETag"))
}

func TestAPathThatHasAnotherMethodSaysWhich(t *testing.T) {
	t.Parallel()
	r := start(t)
	for path, want := range map[string]string{
		"/subscriptions": "GET, POST", "/subscriptions/x": "GET, PATCH, DELETE", "/subscriptions/dry-run": "POST", "/deliveries/count": "GET",
	} {
		if a := r.must(http.StatusMethodNotAllowed, http.MethodPut, path, nil); a.header.Get("Allow") != want || a.code() != "method_not_allowed" {
			t.Errorf("%s: %q %s", path, a.header.Get("Allow"), a.text)
		}
	}
	r.must(http.StatusNotFound, http.MethodGet, "/nothing", nil)
}
