package arch

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Rule finds what is wrong in the sources, one line each.
type Rule func([]Source) []string

// main is the one place that owns a process and knows several services.
const main = "services/hookline"

// Services are the six, each in a folder of its name.
var Services = []string{"ingest", "router", "delivery", "scheduler", "recorder", "api"}

// words are the packages that everybody may import and that import nobody of ours.
var words = []string{"pkg/webhook", "pkg/topic"}

// WordsImportNothingOfOurs keeps the vocabulary free of everything that uses it.
func WordsImportNothingOfOurs(sources []Source) (problems []string) {
	for _, s := range sources {
		if !slices.Contains(words, s.Dir) {
			continue
		}
		for _, dir := range s.own() {
			problems = append(problems, fmt.Sprintf("%s imports %s: the words import nothing of ours", s.path(), dir))
		}
	}
	return problems
}

// ImportsPointDown holds the order of the modules (proto, pkg, services, tests), and keeps services apart: they meet in
// topics, so one never imports another, and only the binary imports several.
func ImportsPointDown(sources []Source) (problems []string) {
	order := []string{"proto", "pkg", "services", "tests"}
	level := func(dir string) int {
		return slices.IndexFunc(order, func(module string) bool { return under(dir, module) })
	}
	for _, s := range sources {
		for _, dir := range s.own() {
			switch {
			case level(dir) > level(s.Dir):
				problems = append(problems, fmt.Sprintf("%s imports %s: upwards", s.path(), dir))
			case under(dir, "services") && under(s.Dir, "services") && !under(dir, s.Dir) && !under(s.Dir, dir, main):
				problems = append(problems, fmt.Sprintf("%s imports %s: a service imports no other service", s.path(), dir))
			}
		}
	}
	return problems
}

// homes says where each client library lives. Whoever else wants it uses the package that wraps it.
var homes = map[string][]string{
	"github.com/jackc/pgx":                {"pkg/pgstore"},
	"modernc.org/sqlite":                  {"pkg/sqlitestore"},
	"github.com/pressly/goose":            {"pkg/pgstore", "pkg/sqlitestore", "pkg/store"},
	"github.com/redis/go-redis":           {"pkg/retryqueue", "services/scheduler", main},
	"github.com/twmb/franz-go/pkg/kfake":  {"pkg/embedded"},
	"github.com/alicebob/miniredis":       {"pkg/embedded"},
	"github.com/danielgtaylor/huma":       {"pkg/httpapi", "services/api", "services/ingest"},
	"github.com/caarlos0/env":             {"pkg/config"},
	"github.com/spf13/cobra":              {main},
	"github.com/prometheus/client_golang": {"pkg/telemetry"},
	"go.opentelemetry.io/otel/sdk":        {"pkg/telemetry"},
	"go.opentelemetry.io/contrib":         {"pkg/telemetry", "pkg/httpapi"},
	"code.dny.dev/ssrf":                   {"pkg/egress"},
	"github.com/coreos/go-oidc":           {"services/api"},
	"go.yaml.in/yaml":                     {"pkg/profile", "services/hookline/cli"},
	"cel.dev/cel-go":                      {"pkg/expression", "pkg/filter"},
	"github.com/santhosh-tekuri":          {"pkg/profile"},
	module + "proto":                      {"pkg/wire", "pkg/event"},
	"github.com/testcontainers":           {"tests/testenv"},
	"github.com/cloudevents/sdk-go":       {}, // an oracle of tests
	"pgregory.net/rapid":                  {},
	"go.uber.org/goleak":                  {},
	"github.com/google/go-cmp":            {},
	"github.com/stretchr/testify":         {},
	"go.uber.org/mock":                    {},
	"github.com/valyala/fasthttp":         {}, // the cheap receiver of the bench
}

// LibrariesStayHome keeps every client library in the package that wraps it, so that it can be replaced there. Tests use
// what they like.
func LibrariesStayHome(sources []Source) (problems []string) {
	for _, s := range sources {
		if s.test() {
			continue
		}
		for _, path := range s.imports() {
			for _, library := range slices.Sorted(maps.Keys(homes)) {
				if under(path, library) && !under(s.Dir, homes[library]...) {
					problems = append(problems, fmt.Sprintf("%s imports %s, which belongs to %v", s.path(), path, homes[library]))
				}
			}
		}
	}
	return problems
}

// OnlyMainOwnsTheProcess keeps exit codes, signals and the default logger in main.
func OnlyMainOwnsTheProcess(sources []Source) (problems []string) {
	owned := map[string]func(name string) bool{
		"os":        func(name string) bool { return name == "Exit" },
		"os/signal": func(string) bool { return true },
		"log":       func(string) bool { return true },
		"log/slog": func(name string) bool {
			return slices.Contains([]string{"Default", "SetDefault", "Debug", "Info", "Warn", "Error", "Log",
				"DebugContext", "InfoContext", "WarnContext", "ErrorContext"}, name)
		},
	}
	for _, s := range sources {
		if s.test() || under(s.Dir, main) {
			continue
		}
		for path, is := range owned {
			s.uses(path, func(name string, node ast.Node) {
				if is(name) {
					problems = append(problems, fmt.Sprintf("%s: %s.%s belongs to main", s.at(node), path, name))
				}
			})
		}
	}
	return problems
}

// background lists who may begin a context of its own, and why.
var background = map[string]string{
	main:           "the process begins there",
	"pkg/pgstore":  "a pool outlives the call that opens it",
	"pkg/embedded": "a listener outlives the call that opens it, and closing must not be cut off",
}

// ContextsAreHandedDown keeps work from outliving the stop of a process: a context comes from the caller, and one that must
// outlive it is made with context.WithoutCancel.
func ContextsAreHandedDown(sources []Source) (problems []string) {
	for _, s := range sources {
		if s.test() || background[s.Dir] != "" {
			continue
		}
		s.uses("context", func(name string, node ast.Node) {
			if name == "Background" || name == "TODO" {
				problems = append(problems, fmt.Sprintf("%s: context.%s: take the caller's context", s.at(node), name))
			}
		})
	}
	return problems
}

// TestsDoNotSleep allows time.Sleep in tests only of packages whose time is virtual.
func TestsDoNotSleep(sources []Source) (problems []string) {
	virtual := importers(sources, "testing/synctest")
	for _, s := range sources {
		if !s.test() || virtual[s.Dir] {
			continue
		}
		s.uses("time", func(name string, node ast.Node) {
			if name == "Sleep" {
				problems = append(problems, fmt.Sprintf("%s: a test sleeps: use testing/synctest, or wait for what it waits for", s.at(node)))
			}
		})
	}
	return problems
}

// importers are the folders with a file that imports the path.
func importers(sources []Source, path string) map[string]bool {
	dirs := map[string]bool{}
	for _, s := range sources {
		if s.localName(path) != "" {
			dirs[s.Dir] = true
		}
	}
	return dirs
}

// GoroutinesAreWatched asks for goleak in the tests of every package that starts goroutines: its own tests, or those in
// the tests module that use it on real servers.
func GoroutinesAreWatched(sources []Source) (problems []string) {
	starts, watched := map[string]string{}, importers(sources, "go.uber.org/goleak")
	for _, s := range sources {
		if !under(s.Dir, "tests") || !watched[s.Dir] {
			continue
		}
		for _, dir := range s.own() {
			watched[dir] = true
		}
	}
	for _, s := range sources {
		if s.test() || under(s.Dir, "proto") {
			continue
		}
		ast.Inspect(s.File, func(node ast.Node) bool {
			if startsGoroutine(node) && starts[s.Dir] == "" {
				starts[s.Dir] = s.at(node)
			}
			return true
		})
	}
	for _, dir := range slices.Sorted(maps.Keys(starts)) {
		if !watched[dir] {
			problems = append(problems, fmt.Sprintf("%s starts a goroutine, and no test of %s uses goleak", starts[dir], dir))
		}
	}
	return problems
}

// startsGoroutine knows the go statement, and the Go methods of wait groups and error groups.
func startsGoroutine(node ast.Node) bool {
	switch n := node.(type) {
	case *ast.GoStmt:
		return true
	case *ast.CallExpr:
		selector, ok := n.Fun.(*ast.SelectorExpr)
		return ok && selector.Sel.Name == "Go"
	}
	return false
}

// ProfilesAreData forbids a decision on a profile's name: what differs between contracts is in their files.
func ProfilesAreData(sources []Source) (problems []string) {
	names := []string{"fynapse", "fynex", "flashfx", "fuse", "standard"}
	isName := func(e ast.Expr) bool {
		literal, ok := e.(*ast.BasicLit)
		if !ok || literal.Kind != token.STRING {
			return false
		}
		value, err := strconv.Unquote(literal.Value)
		return err == nil && slices.Contains(names, value)
	}
	for _, s := range sources {
		if s.test() {
			continue
		}
		ast.Inspect(s.File, func(node ast.Node) bool {
			compared := false
			switch n := node.(type) {
			case *ast.BinaryExpr:
				compared = (n.Op == token.EQL || n.Op == token.NEQ) && (isName(n.X) || isName(n.Y))
			case *ast.CaseClause:
				compared = slices.ContainsFunc(n.List, isName)
			}
			if compared {
				problems = append(problems, fmt.Sprintf("%s: a decision on a profile's name", s.at(node)))
			}
			return true
		})
	}
	return problems
}

// ServicesLookAlike asks every service for the same parts in the file of its name: Config with Validate, Deps, Service
// with Run, New.
func ServicesLookAlike(sources []Source) (problems []string) {
	for _, service := range Services {
		dir := "services/" + service
		i := slices.IndexFunc(sources, func(s Source) bool { return s.Dir == dir && s.Name == service+".go" })
		if i < 0 {
			problems = append(problems, fmt.Sprintf("%s/%s.go is missing", dir, service))
			continue
		}
		has := declarations(sources[i].File)
		for _, part := range []string{"Config", "Config.Validate", "Deps", "Service", "New", "Service.Run"} {
			if !has[part] {
				problems = append(problems, fmt.Sprintf("%s/%s.go does not declare %s", dir, service, part))
			}
		}
	}
	return problems
}

// declarations are the types, functions and methods (as Type.Method) of a file.
func declarations(file *ast.File) map[string]bool {
	names := map[string]bool{}
	for _, declaration := range file.Decls {
		switch d := declaration.(type) {
		case *ast.FuncDecl:
			name := d.Name.Name
			if d.Recv != nil && len(d.Recv.List) == 1 {
				name = receiver(d.Recv.List[0].Type) + "." + name
			}
			names[name] = true
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if t, ok := spec.(*ast.TypeSpec); ok {
					names[t.Name.Name] = true
				}
			}
		}
	}
	return names
}

func receiver(e ast.Expr) string {
	if star, ok := e.(*ast.StarExpr); ok {
		e = star.X
	}
	if id, ok := e.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

// PackagesAreNamedForWhatTheyHold refuses the names that hold anything.
func PackagesAreNamedForWhatTheyHold(sources []Source) (problems []string) {
	seen := map[string]bool{}
	for _, s := range sources {
		name := s.File.Name.Name
		if !seen[s.Dir] && slices.Contains(strings.Fields("util utils common base types models helpers misc shared"), name) {
			problems = append(problems, fmt.Sprintf("%s: package %s says nothing", s.Dir, name))
		}
		seen[s.Dir] = true
	}
	return problems
}
