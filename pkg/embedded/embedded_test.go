package embedded_test

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/pkg/embedded"
	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/topic"
)

const killMe = "HOOKLINE_TEST_EMBEDDED_DIR"

// TestMain is also the process that TestWhatWasAcknowledgedSurvivesAKill kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv(killMe); dir != "" {
		produceAndWait(dir)
	}
	goleak.VerifyTestMain(m)
}

func start(dir string) (*embedded.Servers, error) {
	return embedded.Start(embedded.Config{DataDir: dir, KafkaAddr: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler)})
}

func client(t *testing.T, s *embedded.Servers, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(s.Brokers))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// produceAndWait makes the topics and a record, commits an offset, says so, and waits for its end.
func produceAndWait(dir string) {
	s, err := start(dir)
	if err != nil {
		panic(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Brokers))
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	if err := kafka.Ensure(ctx, cl, topic.WithPrefix("t.").Specs(4), 0); err != nil {
		panic(err)
	}
	if err := cl.ProduceSync(ctx, &kgo.Record{Topic: "t.events", Key: []byte("k"), Value: []byte("v")}).FirstErr(); err != nil {
		panic(err)
	}
	offsets := kadm.Offsets{}
	offsets.AddOffset("t.config", 0, 7, -1)
	if err := kadm.NewClient(cl).CommitAllOffsets(ctx, "t.router", offsets); err != nil {
		panic(err)
	}
	_, _ = os.Stdout.WriteString("acknowledged\n")
	select {}
}

func TestWhatWasAcknowledgedSurvivesAKill(t *testing.T) {
	dir := t.TempDir()
	victim := exec.Command(os.Args[0])
	victim.Env = append(os.Environ(), killMe+"="+dir)
	victim.Stderr = os.Stderr
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 64)
	n, readErr := out.Read(line)
	_ = victim.Process.Kill()
	_ = victim.Wait()
	if !strings.HasPrefix(string(line[:n]), "acknowledged") {
		t.Fatalf("the process said %q, %v", line[:n], readErr)
	}

	s, err := start(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cl := client(t, s, kgo.ConsumeTopics("t.events"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	records := cl.PollFetches(ctx).Records()
	if len(records) != 1 || string(records[0].Value) != "v" {
		t.Errorf("read %d records", len(records))
	}
	committed, err := kadm.NewClient(cl).FetchOffsets(ctx, "t.router")
	if o, ok := committed.Lookup("t.config", 0); err != nil || !ok || o.At != 7 {
		t.Errorf("committed %+v, %v", o, err)
	}
}

func TestADataDirectoryHasOneUser(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "on", "the", "way")
	s, err := start(dir)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := start(dir); err == nil {
		second.Close()
		t.Error("a second process got the same directory")
	}
	s.Close()
	again, err := start(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestTheAddressesAreThoseOfRunningServers(t *testing.T) {
	dir := t.TempDir()
	s, err := start(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if want := "sqlite://" + filepath.Join(dir, "hookline.db"); s.DatabaseURL != want {
		t.Errorf("database is %s, want %s", s.DatabaseURL, want)
	}
	opts, err := redis.ParseURL(s.RedisURL)
	if err != nil {
		t.Fatal(err)
	}
	r := redis.NewClient(opts)
	defer func() { _ = r.Close() }()
	if err := r.Ping(t.Context()).Err(); err != nil {
		t.Error(err)
	}
	if err := client(t, s).Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestATakenAddressIsAnErrorAndLeavesNothingRunning(t *testing.T) {
	s, err := start(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, err = embedded.Start(embedded.Config{DataDir: t.TempDir(), KafkaAddr: s.Brokers, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), s.Brokers) {
		t.Errorf("error is %v", err)
	}
}
