// Package arch reads Hookline's sources and holds them to the rules of its tree: who may import whom, who owns the
// process, what every service looks like. It loads no types and runs nothing.
package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

const module = "github.com/hookline/hookline/"

// Source is one Go file.
type Source struct {
	Dir  string // from the root, such as "pkg/webhook"
	Name string
	File *ast.File
	set  *token.FileSet
}

// Load parses every Go file of the four modules under the root.
func Load(root fs.FS) ([]Source, error) {
	var sources []Source
	set := token.NewFileSet()
	for _, module := range []string{"proto", "pkg", "services", "tests"} {
		err := fs.WalkDir(root, module, func(name string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if entry.IsDir() && entry.Name() == "testdata" {
				return fs.SkipDir
			}
			if entry.IsDir() || path.Ext(name) != ".go" {
				return nil
			}
			text, err := fs.ReadFile(root, name)
			if err != nil {
				return err
			}
			file, err := parser.ParseFile(set, name, text, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			sources = append(sources, Source{Dir: path.Dir(name), Name: path.Base(name), File: file, set: set})
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read the sources: %w", err)
		}
	}
	return sources, nil
}

// test says whether the file is only part of tests: a _test.go file, a conformance suite (a package named …test), or
// anything in the tests module.
func (s Source) test() bool {
	return strings.HasSuffix(s.Name, "_test.go") || strings.HasSuffix(s.File.Name.Name, "test") || strings.HasPrefix(s.Dir, "tests/")
}

// imports are the paths that the file imports.
func (s Source) imports() []string {
	var paths []string
	for _, spec := range s.File.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err == nil {
			paths = append(paths, p)
		}
	}
	return paths
}

// own are the packages of ours that the file imports, from the root.
func (s Source) own() []string {
	var dirs []string
	for _, p := range s.imports() {
		if dir, ok := strings.CutPrefix(p, module); ok {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func (s Source) at(node ast.Node) string {
	position := s.set.Position(node.Pos())
	return fmt.Sprintf("%s:%d", position.Filename, position.Line)
}

func (s Source) path() string { return s.Dir + "/" + s.Name }

// uses visits every use of a package's function, such as os.Exit, whatever name the package is imported under.
func (s Source) uses(importPath string, visit func(name string, node ast.Node)) {
	local := s.localName(importPath)
	if local == "" {
		return
	}
	ast.Inspect(s.File, func(node ast.Node) bool {
		selector, ok := node.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if id, ok := selector.X.(*ast.Ident); ok && id.Name == local {
			visit(selector.Sel.Name, selector)
		}
		return true
	})
}

func (s Source) localName(importPath string) string {
	for _, spec := range s.File.Imports {
		if p, err := strconv.Unquote(spec.Path.Value); err != nil || p != importPath {
			continue
		}
		if spec.Name != nil {
			return spec.Name.Name
		}
		return path.Base(importPath)
	}
	return ""
}

// under says whether dir is one of the roots or below one.
func under(dir string, roots ...string) bool {
	return slices.ContainsFunc(roots, func(root string) bool { return dir == root || strings.HasPrefix(dir, root+"/") })
}
