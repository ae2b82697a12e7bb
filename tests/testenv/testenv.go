// Package testenv gives the tests of this module the servers that Hookline runs on, and Hookline's own binary as a process.
//
// A server comes from the first of these that has it:
//
//  1. the environment: TEST_KAFKA_BROKERS, TEST_REDIS_URL, TEST_DATABASE_URL
//  2. Docker, through testcontainers; images by TEST_KAFKA_IMAGE, TEST_REDIS_IMAGE, TEST_POSTGRES_IMAGE
//  3. binaries of this machine, started by scripts/servers
//  4. an embedded one, with a line that says what the run did not exercise; for PostgreSQL there is none
//
// TEST_BACKEND (env, docker, local or embedded) admits one of them only. TEST_REQUIRE_REAL=1 makes an embedded server a
// failure. What was not exercised is also appended to the file that TEST_NOTES names, because go test hides the output
// of tests that pass.
//
// The servers are shared by the tests of a package and started by the first that asks; every package that uses them
// declares
//
//	func TestMain(m *testing.M) { testenv.Main(m) }
//
// A test that kills servers takes its own with [Own].
package testenv

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// server is one kind of server and the ways to get it. Every way returns the address and how to end what it started.
type server struct {
	name     string
	variable string
	docker   func() (address string, stop func(), err error)
	embedded func() (address string, stop func(), err error)
	lacks    string // what an embedded one does not exercise

	once    sync.Once
	address string
	err     error
}

var (
	kafkaServer = &server{name: "kafka", variable: "TEST_KAFKA_BROKERS", docker: dockerKafka, embedded: embeddedKafka,
		lacks: "replication, fencing by a real group coordinator, retention and compaction on disk"}
	redisServer = &server{name: "redis", variable: "TEST_REDIS_URL", docker: dockerRedis, embedded: embeddedRedis,
		lacks: "persistence, eviction, real Lua and memory limits"}
	postgresServer = &server{name: "postgres", variable: "TEST_DATABASE_URL", docker: dockerPostgres,
		lacks: "the PostgreSQL store: COPY, partitions, locks between processes"}
)

// errNone says that a way has nothing to offer here, as opposed to having failed.
var errNone = errors.New("not available")

var (
	mainRuns bool
	endMu    sync.Mutex
	ends     []func()
)

// atEnd keeps a function for the end of the test process; the last one kept runs first.
func atEnd(f func()) {
	endMu.Lock()
	defer endMu.Unlock()
	ends = append(ends, f)
}

// Main runs the tests of a package and then ends every server they started.
func Main(m *testing.M) {
	mainRuns = true
	code := m.Run()
	for i := len(ends) - 1; i >= 0; i-- {
		ends[i]()
	}
	os.Exit(code)
}

// get returns the address of the server, starting it at the first call. It fails the test when a real one is required
// and absent, and skips it when there is none of any kind.
func (s *server) get(t testing.TB) string {
	t.Helper()
	if !mainRuns {
		t.Fatal("this package needs: func TestMain(m *testing.M) { testenv.Main(m) }")
	}
	s.once.Do(func() { s.address, s.err = s.find() })
	if errors.Is(s.err, errNone) && !required() {
		t.Skipf("no %s: %v", s.name, s.err)
	}
	if s.err != nil {
		t.Fatalf("%s: %v", s.name, s.err)
	}
	return s.address
}

// absent says whether there is no such server of any kind.
func (s *server) absent() bool {
	s.once.Do(func() { s.address, s.err = s.find() })
	return errors.Is(s.err, errNone) && !required()
}

func required() bool { return os.Getenv("TEST_REQUIRE_REAL") == "1" }

func (s *server) find() (string, error) {
	ways := []struct {
		backend string
		open    func() (string, func(), error)
	}{
		{"env", s.fromEnvironment},
		{"docker", s.docker},
		{"local", s.local},
		{"embedded", s.embedded},
	}
	only := os.Getenv("TEST_BACKEND")
	var tried []error
	for _, way := range ways {
		if (only != "" && only != way.backend) || way.open == nil {
			continue
		}
		if way.backend == "embedded" && required() {
			break
		}
		address, stop, err := way.open()
		if stop != nil {
			atEnd(stop)
		}
		if err != nil {
			tried = append(tried, fmt.Errorf("%s: %w", way.backend, err))
			continue
		}
		if way.backend == "embedded" {
			note("%s is embedded; NOT exercised: %s", s.name, s.lacks)
		}
		return address, nil
	}
	if !required() {
		note("there is no %s; NOT exercised: %s", s.name, s.lacks)
	}
	return "", fmt.Errorf("%w anywhere: %w", errNone, errors.Join(tried...))
}

func (s *server) fromEnvironment() (string, func(), error) {
	address := os.Getenv(s.variable)
	if address == "" {
		return "", nil, fmt.Errorf("%s is not set: %w", s.variable, errNone)
	}
	return address, nil, nil
}

// Lacks ends a test that needs a program which is not here and cannot be had. Where real servers are required that is a failure;
// otherwise the test is skipped, and the run says at its end what it did not exercise.
func Lacks(t testing.TB, program string, err error) {
	t.Helper()
	if required() {
		t.Fatalf("%s: %v", program, err)
	}
	note("there is no %s; NOT exercised: %s", program, t.Name())
	t.Skipf("no %s: %v", program, err)
}

// note says loudly what a run did not exercise.
func note(format string, args ...any) {
	line := fmt.Sprintf("%s: %s\n", filepath.Base(os.Args[0]), fmt.Sprintf(format, args...))
	fmt.Fprint(os.Stderr, "testenv: ", line)
	file, err := os.OpenFile(os.Getenv("TEST_NOTES"), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		return // nobody collects the notes
	}
	defer file.Close()
	fmt.Fprint(file, line)
}

// Root is the folder of the repository: tests run in the folder of their package.
func Root() string {
	dir, err := os.Getwd()
	for err == nil && dir != filepath.Dir(dir) {
		if _, missing := os.Stat(filepath.Join(dir, "go.work")); missing == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	return "."
}
