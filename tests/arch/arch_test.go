package arch_test

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/hookline/hookline/tests/arch"
)

// Each rule with a file that breaks it: a rule that cannot fail holds nothing.
var rules = []struct {
	name   string
	rule   arch.Rule
	path   string
	breaks string
}{
	{"words import nothing of ours", arch.WordsImportNothingOfOurs, "pkg/webhook/a.go",
		`package webhook; import _ "github.com/hookline/hookline/pkg/topic"`},
	{"imports point down", arch.ImportsPointDown, "pkg/store/a.go",
		`package store; import _ "github.com/hookline/hookline/services/api"`},
	{"a service imports no other", arch.ImportsPointDown, "services/router/a.go",
		`package router; import _ "github.com/hookline/hookline/services/delivery"`},
	{"libraries stay home", arch.LibrariesStayHome, "services/recorder/a.go",
		`package recorder; import _ "github.com/jackc/pgx/v5/pgxpool"`},
	{"only main owns the process", arch.OnlyMainOwnsTheProcess, "services/router/a.go",
		`package router; import quit "os"; func f() { quit.Exit(1) }`},
	{"loggers are handed in", arch.OnlyMainOwnsTheProcess, "pkg/kafka/a.go",
		`package kafka; import "log/slog"; func f() { slog.Info("hello") }`},
	{"contexts are handed down", arch.ContextsAreHandedDown, "pkg/kafka/a.go",
		`package kafka; import "context"; var ctx = context.Background()`},
	{"tests do not sleep", arch.TestsDoNotSleep, "pkg/kafka/a_test.go",
		`package kafka; import "time"; func f() { time.Sleep(1) }`},
	{"goroutines are watched", arch.GoroutinesAreWatched, "pkg/kafka/a.go",
		`package kafka; func f() { go f() }`},
	{"profiles are data", arch.ProfilesAreData, "services/delivery/a.go",
		`package delivery; func f(name string) bool { switch name { case "fuse": return true }; return false }`},
	{"services look alike", arch.ServicesLookAlike, "services/ingest/ingest.go",
		`package ingest; type Config struct{}`},
	{"packages are named for what they hold", arch.PackagesAreNamedForWhatTheyHold, "pkg/util/a.go",
		`package util`},
}

func TestTheTreeKeepsItsRules(t *testing.T) {
	sources, err := arch.Load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, problem := range r.rule(sources) {
				t.Error(problem)
			}
		})
	}
}

func TestEveryRuleCanBeBroken(t *testing.T) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			tree := fstest.MapFS{r.path: {Data: []byte(r.breaks)}}
			for _, module := range []string{"proto", "pkg", "services", "tests"} {
				tree[module+"/doc.go"] = &fstest.MapFile{Data: []byte("package doc")}
			}
			sources, err := arch.Load(tree)
			if err != nil {
				t.Fatal(err)
			}
			problems := strings.Join(r.rule(sources), "\n")
			if !strings.Contains(problems, strings.TrimSuffix(r.path, "/a.go")) {
				t.Errorf("nothing found in %s; found %q", r.path, problems)
			}
		})
	}
}
