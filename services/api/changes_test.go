package api

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

func TestEveryChangeSaysWhoMadeIt(t *testing.T) {
	t.Parallel()
	r := start(t)
	made := r.must(http.StatusCreated, http.MethodPost, "/subscriptions", map[string]any{"name": "s", "endpointUrl": endpoint,
		"overrides": map[string]any{"headers": map[string]any{"X-Token": "hush"}}})
	id := made.str("id")
	token := r.must(http.StatusCreated, http.MethodPost, "/api-keys", map[string]any{"name": "ci", "permissions": []string{"webhook_subscription_edit"}})
	r.callAs(token.str("key"), http.MethodPost, "/subscriptions/"+id+"/disable", map[string]any{"reason": "too slow"})

	list := r.must(http.StatusOK, http.MethodGet, "/changes?kind=subscription&id="+id, nil)
	var log []string
	for _, c := range list.items() {
		actor := c["actor"].(map[string]any)
		log = append(log, fmt.Sprint(c["action"], " by ", actor["kind"], " ", actor["name"], " ", actor["id"] == token.body["id"]))
	}
	if !slices.Equal(log, []string{"disable by api_key ci true", "create by api_key bootstrap false"}) {
		t.Errorf("log %q", log)
	}
	newest := list.items()[0]
	before, after := newest["before"].(map[string]any), newest["after"].(map[string]any)
	if before["status"] != "active" || after["status"] != "disabled" || after["statusReason"] != "disabled by API key ci: too slow" {
		t.Errorf("before %v, after %v", before, after)
	}
	all := r.must(http.StatusOK, http.MethodGet, "/changes", nil)
	for _, secret := range []string{"hush", made.str("secretValue"), token.str("key"), bootstrapToken} {
		if secret == "" || strings.Contains(all.text, secret) {
			t.Errorf("%q is in the log", secret)
		}
	}
	if kinds := []string{"tenant", "api_key", "secret", "subscription"}; slices.ContainsFunc(kinds, func(kind string) bool { return !strings.Contains(all.text, `"kind":"`+kind+`"`) }) {
		t.Errorf("not every kind of %v: %s", kinds, all.text)
	}
}

func TestTheLogOfChangesIsPagedAndFilteredByTime(t *testing.T) {
	t.Parallel()
	r := start(t)
	for i := range 3 {
		r.must(http.StatusCreated, http.MethodPost, "/secrets", map[string]any{"name": fmt.Sprint("s", i)})
	}
	page := r.must(http.StatusOK, http.MethodGet, "/changes?kind=secret&limit=2", nil)
	rest := r.must(http.StatusOK, http.MethodGet, "/changes?kind=secret&limit=2&cursor="+page.str("nextCursor"), nil)
	if len(page.items()) != 2 || len(rest.items()) != 1 || rest.body["nextCursor"] != nil {
		t.Errorf("%s then %s", page.text, rest.text)
	}
	later := url.QueryEscape(time.Now().Add(time.Hour).Format(time.RFC3339))
	for query, want := range map[string]int{"from=" + later: 0, "to=" + later: 3, "to=2026-01-01T00:00:00Z": 0} {
		if list := r.must(http.StatusOK, http.MethodGet, "/changes?kind=secret&"+query, nil); len(list.items()) != want {
			t.Errorf("%s: %d, want %d", query, len(list.items()), want)
		}
	}
}

func TestChangesOfKeysAndTenantsAreForAdmins(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.subscribe("s")
	reader := r.key(webhook.DefaultTenant, webhook.PermissionSubscriptionRead)
	if list := r.callAs(reader, http.MethodGet, "/changes", nil); list.status != http.StatusOK || len(list.items()) != 2 {
		t.Errorf("a reader sees %s", list.text)
	}
	for _, kind := range []string{"api_key", "tenant"} {
		if a := r.callAs(reader, http.MethodGet, "/changes?kind="+kind, nil); a.status != http.StatusForbidden {
			t.Errorf("%s: %d %s", kind, a.status, a.text)
		}
	}
	stranger := r.key("other", webhook.Permissions()...)
	if list := r.callAs(stranger, http.MethodGet, "/changes?kind=subscription", nil); len(list.items()) != 0 {
		t.Errorf("another tenant sees %s", list.text)
	}
}
