//go:build mutation

package scheduler

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// mutations are the wrong protocols of the crash-point table, and defences that are easy to lose. Each replaces one
// piece of source, without touching the tree, and at least one of the named tests must fail.
var mutations = []struct {
	name, file, old, new, tests string
}{
	{
		"S2: a claim removes what it takes", "../../pkg/retryqueue/lua/claim.lua",
		"redis.call('ZADD', KEYS[1], 'XX', unpack(scores))", "redis.call('ZREM', KEYS[1], unpack(members))",
		"TestS2",
	},
	{
		"S3: what is fired and not marked has no bound", "volley.go",
		"defer func() { <-v.trigger }()", "<-v.trigger",
		"TestS3AKilled",
	},
	{
		"S4: an ack removes whatever has the name", "../../pkg/retryqueue/lua/ack.lua",
		"if score and tonumber(score) == tonumber(ARGV[1]) then", "if score then",
		"../../pkg/retryqueue TestTheEmbeddedRedis",
	},
	{
		"S5: a claim does not ask where the index stands", "../../pkg/retryqueue/lua/claim.lua",
		"if (tonumber(have) or -1) < tonumber(ARGV[3]) then", "if false then",
		"TestS5|TestWhatHasFired",
	},
	{
		"S6: the gate is always open", "position.go",
		"return p.following && p.next >= p.gate", "return p.following",
		"TestEveryRetry|TestWhatHasFired",
	},
	{
		"S6: what is in flight is fired again", "shard.go",
		"if _, held := sh.held[e.Trip]; !held {", "if true {",
		"TestEveryRetry|TestWhatIsInFlight",
	},
	{
		"S6: a hold ends with the tombstone's acknowledgement", "shard.go",
		"if sh.following && sh.next > tombstone {", "if true {",
		"TestAHold",
	},
	{
		"S6: a hold outlives its tombstone", "shard.go",
		"sh.position = p.position\n\tsh.letGo()", "sh.position = p.position",
		"TestAHold",
	},
	{
		"S7: the index's offset is taken over without seeking", "consume.go",
		"err := s.deps.Index.Apply(asking, sh.partition, from.applied, last, ops)",
		"err := s.deps.Index.Apply(asking, sh.partition, from.applied, last, ops)\n\tif m := (*retryqueue.MovedError)(nil); errors.As(err, &m) {\n\t\terr = s.deps.Index.Apply(asking, sh.partition, m.Offset, last, ops)\n\t}",
		"TestS7",
	},
	{
		"S7: a rewind does not seek", "consume.go",
		"s.group.SetOffsets(map[string]map[int32]kgo.EpochOffset{topic: to})", "",
		"TestS7|TestWhatHasFired",
	},
	{
		"S8: the member of a trip does not name the trip", "../../pkg/webhook/delivery.go",
		"return binary.AppendUvarint(b, uint64(t.Number))", "return binary.AppendUvarint(b, 1)",
		"TestALifeOf",
	},
	{
		"S9: apply does not compare offsets", "../../pkg/retryqueue/lua/apply.lua",
		"if have ~= ARGV[1] then", "if false then",
		"TestS7|TestWhatHasFired",
	},
	{
		"S11: the pointer stays with the oldest record", "../../pkg/retryqueue/lua/apply.lua",
		"redis.call('HSET', KEYS[k], member, pointer)", "redis.call('HSETNX', KEYS[k], member, pointer)",
		"TestS11",
	},
	{
		"S11: a body that is missing is given up", "load.go",
		"next < log.end && len(wanted) > 0", "false",
		"TestS11",
	},
	{
		"a second record moves the due time", "../../pkg/retryqueue/lua/apply.lua",
		"redis.call('ZADD', KEYS[1], 'NX', unpack(added))", "redis.call('ZADD', KEYS[1], unpack(added))",
		"../../pkg/retryqueue TestTheEmbeddedRedis",
	},
	{
		"the delivery goes to another topic", "fire.go",
		"Topic: s.deps.Kafka.Topics.Deliveries,", "Topic: s.deps.Kafka.Topics.Retries,",
		"TestS2|TestARetryFires",
	},
	{
		"an index that has lost its start is not emptied", "position.go",
		"following: true}, reset: true, reason: reason}", "following: true}, reset: false, reason: reason}",
		"TestAPosition|TestARetryThatTheLog|TestADamaged",
	},
	{
		"a storm takes the whole path", "path.go",
		"b.unfinished = int(b.rate * ahead.Seconds())", "b.unfinished = unbounded",
		"TestAStormLeaves|TestWorkers",
	},
	{
		"one endpoint takes all the room", "pace.go",
		"waits := ln.unfinished == 0 && without", "waits := false && without",
		"TestAnEndpoint",
	},
	{
		"what comes back counts as delivered", "path.go",
		"p.putBack.Swap(0))*", "p.putBack.Swap(0))*0*",
		"TestWhatIsPutBack",
	},
	{
		"a storm goes round as fast as it comes back", "path.go",
		"case p.tried >= tries*through:", "case p.tried < 0:",
		"TestAStormToEndpoints",
	},
	{
		"what has no room is brought forward", "pace.go",
		"< preferred) && !path.refuses(w.Lane, now) {", "< preferred) {",
		"TestAStormToEndpoints",
	},
	{
		"what has room waits its turn among what has none", "pace.go",
		"if b.scarce {", "if false {",
		"TestAStormToEndpoints",
	},
	{
		"what has room fills the front", "pace.go",
		"- p.forward\n", "\n",
		"TestWhatHasRoom",
	},
	{
		"a shard does not wait for its turn", "pace.go",
		"p.spent = p.spent.Add(interval(len(entries), p.speed))", "",
		"TestNoMoreIsFired",
	},
	{
		"a trickle is looked at as often as a storm", "path.go",
		"if time.Since(looked) < calmly && !s.pressed() {", "if time.Since(looked) < 0 {",
		"TestWorkersAreLookedAt",
	},
	{
		"a storm is looked at as seldom as a trickle", "path.go",
		"< calmly && !s.pressed() {", "< calmly {",
		"TestWorkersAreLookedAt",
	},
	{
		"what had no room comes back one by one", "decode.go",
		"due = onGrid(due)", "",
		"TestOnlyWhatHadNoRoom",
	},
	{
		"what has been claimed is moved", "../../pkg/retryqueue/lua/move.lua",
		"score and math.floor(tonumber(score)) == tonumber(ARGV[arg + 1])", "score",
		"../../pkg/retryqueue TestTheEmbeddedRedis",
	},
	{
		"delays are not bounded", "position.go",
		"min(max(delay, 0), longest+longest/5)", "delay",
		"TestARetryIsDue|TestAWorkerWith",
	},
}

// TestTheSuiteFailsUnderEveryWrongProtocol proves that the other tests can fail.
func TestTheSuiteFailsUnderEveryWrongProtocol(t *testing.T) {
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			pkg, run, ok := strings.Cut(m.tests, " ")
			if !ok {
				pkg, run = ".", m.tests
			}
			out, err := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-overlay", overlay(t, m.file, m.old, m.new), "-run", run, pkg,
				"-timeout", "3m", "-rapid.checks=1000", "-rapid.nofailfile").CombinedOutput()
			switch {
			case err == nil:
				t.Error("every test passed")
			case !strings.Contains(string(out), "--- FAIL") && !strings.Contains(string(out), "panic:"):
				t.Errorf("the tests did not run: %s", out)
			}
		})
	}
}

// overlay writes the file with a replacement elsewhere, and tells the go command to read it from there.
func overlay(t *testing.T, file, old, replacement string) string {
	t.Helper()
	path, err := filepath.Abs(file)
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(source), old) != 1 {
		t.Fatalf("%s has %q not exactly once", file, old)
	}
	dir := t.TempDir()
	mutant, list := filepath.Join(dir, filepath.Base(path)), filepath.Join(dir, "overlay.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {path: mutant}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{mutant: []byte(strings.Replace(string(source), old, replacement, 1)), list: replace} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return list
}
