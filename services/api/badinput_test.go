package api

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestBadInputIsRefusedWithACodeAndThePlace(t *testing.T) {
	t.Parallel()
	r := start(t)
	id := r.subscribe("s")
	sub := func(member string) string { return `{"name":"n","endpointUrl":"` + endpoint + `",` + member + `}` }
	deep := strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)
	costly := strings.Repeat("event.data.all(x, ", 6) + "true" + strings.Repeat(")", 6)
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		code               string
		pointers           []string
	}{
		"10 MB":                      {"POST", "/subscriptions", strings.Repeat(" ", 10<<20), 413, "body_too_large", nil},
		"10 MB to a path without":    {"POST", "/nothing", strings.Repeat(" ", 10<<20), 404, "not_found", nil},
		"deep":                       {"POST", "/subscriptions", sub(`"filter":` + deep), 400, "too_deep", nil},
		"deep patch":                 {"PATCH", "/subscriptions/" + id, `{"overrides":` + deep + `}`, 400, "too_deep", nil},
		"NUL in a name":              {"POST", "/secrets", `{"name":"a\u0000"}`, 422, "validation_failed", []string{"/name"}},
		"NUL in a reason":            {"POST", "/subscriptions/" + id + "/disable", `{"reason":"\u0000"}`, 422, "validation_failed", []string{"/reason"}},
		"NUL as a byte":              {"POST", "/secrets", "{\"name\":\"a\x00\"}", 400, "invalid_json", []string{"/name"}},
		"NUL in an id":               {"GET", "/subscriptions/" + id + "%00", "", 422, "validation_failed", []string{"?id"}},
		"NUL in an event's id":       {"GET", "/events/e1%00", "", 422, "validation_failed", []string{"?id"}},
		"NUL in a filter":            {"GET", "/deliveries?subscriptionId=%00", "", 200, "", nil},
		"invalid UTF-8 in an id":     {"GET", "/subscriptions/%ff", "", 422, "validation_failed", []string{"?id"}},
		"a long id":                  {"GET", "/subscriptions/" + strings.Repeat("x", 65), "", 422, "validation_failed", []string{"?id"}},
		"user info":                  {"PATCH", "/subscriptions/" + id, `{"endpointUrl":"https://u@example.com/"}`, 422, "endpoint_userinfo", []string{"/endpointUrl"}},
		"Cyrillic and Latin":         {"PATCH", "/subscriptions/" + id, `{"endpointUrl":"https://pаypal.com/"}`, 422, "endpoint_host", []string{"/endpointUrl"}},
		"full-width dots":            {"PATCH", "/subscriptions/" + id, `{"endpointUrl":"https://127。0。0。1/"}`, 422, "endpoint_host", []string{"/endpointUrl"}},
		"a filter too costly":        {"POST", "/subscriptions", sub(`"filter":{"cel":"` + costly + `"}`), 422, "filter_too_costly", []string{"/filter/cel"}},
		"too costly for a dry run":   {"POST", "/subscriptions/dry-run", `{"filter":{"cel":"` + costly + `"}}`, 422, "filter_too_costly", []string{"/filter/cel"}},
		"an operator nobody knows":   {"PATCH", "/subscriptions/" + id, `{"filter":{"data":{"a":[{"like":"x"}]}}}`, 422, "filter_unknown_operator", nil},
		"a place beyond numbers":     {"GET", "/explain?at=1:" + strings.Repeat("9", 30), "", 404, "not_found", nil},
		"a place that is none":       {"GET", "/explain?at=x", "", 422, "validation_failed", []string{"?at"}},
		"NUL in an event to explain": {"GET", "/explain?eventId=%00", "", 422, "validation_failed", []string{"?eventId"}},
		"a long event id":            {"GET", "/events?id=" + strings.Repeat("x", 257), "", 422, "validation_failed", []string{"?id"}},
		"an unknown trigger":         {"GET", "/deliveries?trigger=magic", "", 422, "validation_failed", []string{"?trigger"}},
		"many types":                 {"PATCH", "/subscriptions/" + id, `{"eventTypes":["` + strings.Repeat(`a","`, 200) + `a"]}`, 422, "validation_failed", []string{"/eventTypes"}},
		"many permissions":           {"POST", "/api-keys", `{"name":"k","permissions":["` + strings.Repeat(`admin","`, 16) + `admin"]}`, 422, "validation_failed", []string{"/permissions"}},
		"no permission of ours":      {"POST", "/api-keys", `{"name":"k","permissions":["admin","root"]}`, 422, "validation_failed", []string{"/permissions/1"}},
		"an end in the past":         {"POST", "/api-keys", `{"name":"k","permissions":["admin"],"expiresAt":"2020-01-01T00:00:00Z"}`, 422, "validation_failed", []string{"/expiresAt"}},
		"an end that is no time":     {"POST", "/api-keys", `{"name":"k","permissions":["admin"],"expiresAt":"tomorrow"}`, 422, "validation_failed", []string{"/expiresAt"}},
		"unknown field of a key":     {"POST", "/api-keys", `{"name":"k","permissions":["admin"],"hash":"x"}`, 422, "validation_failed", []string{"/hash"}},
		"unknown field of a tenant":  {"PATCH", "/tenants/default", `{"id":"x"}`, 422, "validation_failed", []string{"/id"}},
		"wrong types":                {"POST", "/tenants", `{"id":1,"name":[]}`, 422, "validation_failed", []string{"/id", "/name"}},
		"null in a patch":            {"PATCH", "/tenants/default", `{"name":null}`, 422, "validation_failed", []string{"/name"}},
		"unknown parameter":          {"GET", "/changes?who=me", "", 422, "validation_failed", []string{"?who"}},
		"unknown kind":               {"GET", "/changes?kind=nothing", "", 422, "validation_failed", []string{"?kind"}},
		"a time that is none":        {"GET", "/changes?from=yesterday", "", 422, "validation_failed", []string{"?from"}},
		"a limit too large":          {"GET", "/changes?limit=1001", "", 422, "validation_failed", []string{"?limit"}},
		"a limit past any number":    {"GET", "/changes?limit=99999999999999999999", "", 422, "validation_failed", []string{"?limit"}},
	} {
		a := r.call(c.method, c.path, c.body)
		got := a.pointers()
		slices.Sort(got)
		if a.status != c.status || a.code() != c.code || c.pointers != nil && !slices.Equal(got, c.pointers) {
			t.Errorf("%s: got %d %s %q, want %d %s %q\n%.300s", name, a.status, a.code(), got, c.status, c.code, c.pointers, a.text)
		}
	}
}

func TestEveryListRefusesACursorThatItDidNotGive(t *testing.T) {
	t.Parallel()
	r := start(t)
	for _, list := range []string{"/secrets", "/subscriptions", "/api-keys", "/tenants", "/changes", "/deliveries", "/events", "/retries", "/replays", "/sources", "/connections"} {
		for _, cursor := range []string{"x", "%00", "AAAA", "AQAAAAAAAAAA", strings.Repeat("A", 512), "%F0%9F%92%A9"} {
			a := r.must(http.StatusUnprocessableEntity, http.MethodGet, list+"?cursor="+cursor, nil)
			if !slices.Equal(a.pointers(), []string{"?cursor"}) {
				t.Errorf("%s, %.20s: %s", list, cursor, a.text)
			}
		}
	}
}

func TestWithoutTheDatabaseARepetitionIsNeitherRunNorForgotten(t *testing.T) {
	t.Parallel()
	away := &awayStore{}
	r := start(t, func(_ *Config, d *Deps) { away.keepingStore.Store = d.Store; d.Store = away })
	a := r.must(http.StatusServiceUnavailable, http.MethodPost, "/secrets", map[string]any{"name": "s"}, "Idempotency-Key", "k")
	if a.code() != "database_unavailable" || a.header.Get("Retry-After") == "" {
		t.Errorf("got %s", a.text)
	}
	if list := r.must(http.StatusOK, http.MethodGet, "/secrets", nil); len(list.items()) != 0 {
		t.Errorf("it ran: %s", list.text)
	}
}
