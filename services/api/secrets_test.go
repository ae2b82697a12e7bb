package api

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/webhook"
)

func TestASecretShowsItsValueOnlyWhereItMay(t *testing.T) {
	t.Parallel()
	r := start(t)
	made := r.must(http.StatusCreated, http.MethodPost, "/secrets", map[string]any{"name": "billing"})
	value, id := made.str("value"), made.str("id")
	if len(value) < 32 || made.str("name") != "billing" || made.body["profile"] != nil {
		t.Fatalf("got %s", made.text)
	}
	if got := r.must(http.StatusOK, http.MethodGet, "/secrets/"+id, nil); got.str("value") != value {
		t.Errorf("get: another value")
	}
	list := r.must(http.StatusOK, http.MethodGet, "/secrets", nil)
	if len(list.items()) != 1 || list.items()[0]["id"] != id || strings.Contains(list.text, value) || strings.Contains(list.text, `"value"`) {
		t.Errorf("list: %s", list.text)
	}
	stored, err := r.db.Secret(t.Context(), webhook.DefaultTenant, id)
	if err != nil || strings.Contains(string(stored.Versions[0].Sealed), value) {
		t.Errorf("the value rests in the clear, or %v", err)
	}
}

func TestASecretsNameIsUniqueInItsTenant(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.must(http.StatusCreated, http.MethodPost, "/secrets", map[string]any{"name": "billing"})
	again := r.must(http.StatusConflict, http.MethodPost, "/secrets", map[string]any{"name": "billing"})
	if again.code() != "name_taken" || !slices.Equal(again.pointers(), []string{"/name"}) {
		t.Errorf("got %s", again.text)
	}
	other := r.key("other", webhook.PermissionSubscriptionEdit)
	if a := r.callAs(other, http.MethodPost, "/secrets", map[string]any{"name": "billing"}); a.status != http.StatusCreated {
		t.Errorf("another tenant: %s", a.text)
	}
}

func TestASecretForAProfileHasItsForm(t *testing.T) {
	t.Parallel()
	r := start(t)
	for _, name := range r.service.deps.Profiles.Names() {
		made := r.must(http.StatusCreated, http.MethodPost, "/secrets", map[string]any{"name": "for " + name, "profile": name})
		contract, _ := r.service.deps.Profiles.Get(name)
		if err := contract.CheckSecret([]byte(made.str("value"))); err != nil || made.str("profile") != name {
			t.Errorf("%s: %v, %s", name, err, made.text)
		}
	}
	unknown := r.must(http.StatusUnprocessableEntity, http.MethodPost, "/secrets", map[string]any{"name": "x", "profile": "nobody"})
	if unknown.code() != "unknown_profile" || !slices.Equal(unknown.pointers(), []string{"/profile"}) {
		t.Errorf("got %s", unknown.text)
	}
}

func TestRotationKeepsThePreviousValueForTheOverlap(t *testing.T) {
	t.Parallel()
	r := start(t)
	made := r.must(http.StatusCreated, http.MethodPost, "/secrets", map[string]any{"name": "billing"})
	id := made.str("id")

	before := time.Now()
	rotated := r.must(http.StatusOK, http.MethodPost, "/secrets/"+id+"/rotate", nil)
	if rotated.str("value") == made.str("value") || rotated.str("value") == "" {
		t.Error("the value is not new")
	}
	secret, err := r.db.Secret(t.Context(), webhook.DefaultTenant, id)
	if err != nil {
		t.Fatal(err)
	}
	live := secret.Live(time.Now())
	if len(live) != 2 || live[0].Number != 2 || !live[0].ExpiresAt.IsZero() {
		t.Fatalf("live versions: %+v", live)
	}
	if overlap := live[1].ExpiresAt.Sub(before); overlap < defaultOverlap-time.Minute || overlap > defaultOverlap+time.Minute {
		t.Errorf("overlap is %v", overlap)
	}
	previous, err := r.service.deps.Ring.Open(&secret, live[1])
	if err != nil || string(previous) != made.str("value") {
		t.Errorf("the previous value is lost: %v", err)
	}

	if a := r.must(http.StatusConflict, http.MethodPost, "/secrets/"+id+"/rotate", nil); a.code() != "rotation_in_progress" {
		t.Errorf("second rotation: %s", a.text)
	}
	r.must(http.StatusOK, http.MethodPost, "/secrets/"+id+"/rotate", map[string]any{"force": true, "overlap": "1h"})
	if secret, _ = r.db.Secret(t.Context(), webhook.DefaultTenant, id); len(secret.Versions) != 2 || secret.Versions[0].Number != 3 || secret.Versions[1].Number != 2 {
		t.Errorf("after a forced rotation: %+v", secret.Versions)
	}
	r.must(http.StatusOK, http.MethodPost, "/secrets/"+id+"/rotate", map[string]any{"force": true, "overlap": "0s"})
	if secret, _ = r.db.Secret(t.Context(), webhook.DefaultTenant, id); len(secret.Live(time.Now())) != 1 {
		t.Errorf("without overlap: %+v", secret.Versions)
	}
	r.must(http.StatusOK, http.MethodPost, "/secrets/"+id+"/rotate", nil)
}

func TestAnOverlapIsEndedEarly(t *testing.T) {
	t.Parallel()
	r := start(t)
	path := "/secrets/" + r.must(http.StatusCreated, http.MethodPost, "/secrets", map[string]any{"name": "billing"}).str("id")
	rotated := r.must(http.StatusOK, http.MethodPost, path+"/rotate", nil)
	for range 2 {
		ended := r.must(http.StatusOK, http.MethodPost, path+"/expire-previous", nil)
		if versions := ended.body["versions"].([]any); len(versions) != 1 || strings.Contains(ended.text, rotated.str("value")) {
			t.Errorf("ended: %s", ended.text)
		}
	}
	if got := r.must(http.StatusOK, http.MethodGet, path, nil); got.str("value") != rotated.str("value") {
		t.Error("the current value is gone")
	}
	r.must(http.StatusOK, http.MethodPost, path+"/rotate", nil)
	log := r.must(http.StatusOK, http.MethodGet, "/changes?kind=secret", nil)
	var actions []string
	for _, c := range log.items() {
		actions = append(actions, c["action"].(string))
	}
	if !slices.Equal(actions, []string{"rotate", "expire", "rotate", "create"}) {
		t.Errorf("log %q", actions)
	}
}

func TestAnOverlapIsAtMostSevenDays(t *testing.T) {
	t.Parallel()
	r := start(t)
	id := r.must(http.StatusCreated, http.MethodPost, "/secrets", map[string]any{"name": "billing"}).str("id")
	for _, overlap := range []any{"169h", "-1s", "soon", 3600, "", "99999999999999999999h"} {
		a := r.call(http.MethodPost, "/secrets/"+id+"/rotate", map[string]any{"overlap": overlap})
		if a.status != http.StatusUnprocessableEntity {
			t.Errorf("%v: got %d %s", overlap, a.status, a.text)
		}
	}
	r.must(http.StatusOK, http.MethodPost, "/secrets/"+id+"/rotate", map[string]any{"overlap": "168h"})
}

func TestASecretInUseIsNotDeleted(t *testing.T) {
	t.Parallel()
	r := start(t)
	secret := r.must(http.StatusCreated, http.MethodPost, "/secrets", map[string]any{"name": "billing"}).str("id")
	sub := r.must(http.StatusCreated, http.MethodPost, "/subscriptions",
		map[string]any{"name": "s", "endpointUrl": endpoint, "secretRef": "billing"}).str("id")
	if a := r.must(http.StatusConflict, http.MethodDelete, "/secrets/"+secret, nil); a.code() != "secret_in_use" {
		t.Errorf("got %s", a.text)
	}
	r.must(http.StatusNoContent, http.MethodDelete, "/subscriptions/"+sub, nil)
	r.must(http.StatusNoContent, http.MethodDelete, "/secrets/"+secret, nil)
	r.must(http.StatusNotFound, http.MethodGet, "/secrets/"+secret, nil)
	r.must(http.StatusNotFound, http.MethodDelete, "/secrets/"+secret, nil)
}
