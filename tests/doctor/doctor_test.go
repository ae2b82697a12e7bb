// Package doctor_test runs hookline doctor against real servers.
package doctor_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pkg/seal"
	"github.com/hookline/hookline/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

type finding struct{ Check, Grade, Detail string }

func examine(t *testing.T, env testenv.Env) (code int, findings map[string]finding) {
	t.Helper()
	p := testenv.Start(t, env, "doctor", "--json")
	code = p.Wait(t, time.Minute)
	line, _, _ := strings.Cut(p.Output(), "\n")
	var list []finding
	if err := json.Unmarshal([]byte(line), &list); err != nil {
		t.Fatalf("%v in %s", err, p.Output())
	}
	findings = map[string]finding{}
	for _, f := range list {
		findings[f.Check] = f
	}
	return code, findings
}

func TestTheDoctorSaysWhatIsWrongAndWhatToDo(t *testing.T) {
	env := testenv.System(t)
	retries := "topic " + env["HOOKLINE_TOPIC_PREFIX"] + "retries"

	code, found := examine(t, env)
	if code != 1 || !strings.Contains(found[retries].Detail, "hookline migrate") || found["database schema"].Grade != "FAIL" {
		t.Errorf("before the migration: exit code %d, %v", code, found)
	}

	d := testenv.Deploy(t, env, "api", "router", "delivery")
	d.Call("POST", "/secrets", map[string]string{"name": "one"}, nil)
	d.AwaitConfig()
	code, found = examine(t, env)
	if code != 0 || found[retries].Grade != "ok" || found["delivery"].Grade != "ok" || !strings.HasPrefix(found["secrets"].Detail, "1,") {
		t.Errorf("in a running system: exit code %d, %v", code, found)
	}

	code, found = examine(t, env.With("HOOKLINE_ENCRYPTION_KEYS", seal.NewKey("another")))
	if code != 1 || !strings.Contains(found["secrets"].Detail, "HOOKLINE_ENCRYPTION_KEYS") {
		t.Errorf("with another key ring: exit code %d, %v", code, found["secrets"])
	}
	code, found = examine(t, env.With("HOOKLINE_REDIS_URL", "redis://127.0.0.1:1/0").With("HOOKLINE_KAFKA_BROKERS", "127.0.0.1:1"))
	if code != 1 || found["kafka"].Grade != "FAIL" || found["redis memory policy"].Grade != "FAIL" || found["database"].Grade != "ok" {
		t.Errorf("with servers away: exit code %d, %v", code, found)
	}
	d.Stop()
}
