// Package readme runs what the README tells people to type.
package readme

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hookline/hookline/tests/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// block returns the n-th block of shell commands, from 0.
func block(t *testing.T, n int) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(testenv.Root(), "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllSubmatch(text, -1)
	if len(blocks) <= n {
		t.Fatalf("the README has %d blocks of commands", len(blocks))
	}
	return string(blocks[n][1])
}

// TestTheFirstBlockDeliversTwoEvents pastes the block into a shell, in a folder beside the tree and with free ports.
func TestTheFirstBlockDeliversTwoEvents(t *testing.T) {
	script := block(t, 0)
	if _, err := exec.LookPath("kcat"); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("kcat is not installed")
		}
		t.Log("NOT RUN: the line with kcat, which is not installed")
		script = regexp.MustCompile(`(?m)^echo .*kcat.*$`).ReplaceAllString(script, "")
	}
	want := 1 + strings.Count(script, "kcat -P")
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(testenv.Root(), "bin"), filepath.Join(dir, "bin")); err != nil {
		t.Fatal(err)
	}
	addresses := map[string]string{"127.0.0.1:8080": testenv.Addr(t), "127.0.0.1:9092": testenv.Addr(t), "127.0.0.1:9000": testenv.Addr(t)}
	for documented, free := range addresses {
		if !strings.Contains(script, documented) && documented != "127.0.0.1:9092" {
			t.Fatalf("the block does not name %s", documented)
		}
		script = strings.ReplaceAll(script, documented, free)
	}
	script = strings.Replace(script, "make build", "make -s -C '"+testenv.Root()+"' build", 1)

	var output safeBuffer
	shell := exec.Command("bash", "-c", script+"\nwait\n")
	shell.Dir, shell.Stdout, shell.Stderr = dir, &output, &output
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	shell.Env = append(os.Environ(),
		"HOOKLINE_API_ADDR="+addresses["127.0.0.1:8080"], "HOOKLINE_KAFKA_BROKERS="+addresses["127.0.0.1:9092"], "HOOKLINE_ADMIN_ADDR="+testenv.Addr(t))
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		// The shell's own group: what it has started in the background.
		_ = syscall.Kill(-shell.Process.Pid, syscall.SIGKILL)
		_ = shell.Wait()
	}()
	if err := testenv.Until(5*time.Minute, func() bool {
		return strings.Count(output.String(), "signature valid, answered 200") == want
	}); err != nil {
		t.Fatalf("%d of %d events arrived verified:\n%s", strings.Count(output.String(), "signature valid"), want, output.String())
	}
	if err := testenv.Until(time.Minute, func() bool { return strings.Contains(output.String(), `"nextCursor"`) }); err != nil {
		t.Errorf("the last line does not list deliveries:\n%s", output.String())
	}
}

func TestTheSecondBlockIsTheWholeSuite(t *testing.T) {
	if got := strings.TrimSpace(block(t, 1)); got != "make test" {
		t.Errorf("the second block is %q", got)
	}
	run, err := os.ReadFile(filepath.Join(testenv.Root(), ".ci", "run"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(run, []byte("make test")) {
		t.Error(".ci/run does not run the README's test command")
	}
}

// safeBuffer collects the output of several processes.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
