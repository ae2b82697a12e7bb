// Package config reads the environment into structs with env tags, and reports everything that is wrong with it in one error. From the
// same structs it makes the reference, finds names that nobody reads, and prints what is in force without showing
// secrets. It knows no single setting.
package config

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/caarlos0/env/v11"
)

// Prefix begins every name that is Hookline's own.
const Prefix = "HOOKLINE_"

// Environment is a set of variables.
type Environment map[string]string

// Environ makes an Environment of what os.Environ returns.
func Environ(pairs []string) Environment {
	e := make(Environment, len(pairs))
	for _, pair := range pairs {
		if name, value, ok := strings.Cut(pair, "="); ok {
			e[name] = value
		}
	}
	return e
}

// With returns a copy in which the given values stand where the environment has none, or an empty one: another set of defaults.
func (e Environment) With(defaults map[string]string) Environment {
	merged := make(Environment, len(e)+len(defaults))
	for name, value := range e {
		merged[name] = value
	}
	for name, value := range defaults {
		if merged[name] == "" && merged[name+fileSuffix] == "" {
			merged[name] = value
		}
	}
	return merged
}

// Error is everything that is wrong with a configuration. Each problem begins with the names of its variables, and none
// repeats a secret.
type Error struct{ Problems []string }

func (e *Error) Error() string {
	noun := "problem"
	if len(e.Problems) != 1 {
		noun = "problems"
	}
	return fmt.Sprintf("configuration: %d %s\n  %s", len(e.Problems), noun, strings.Join(e.Problems, "\n  "))
}

// Load fills the struct that target points to: first every variable is read, then each struct in it that has a method
// Validate() error is asked. A secret or URL called NAME may come from the file named by NAME_FILE instead, without the
// white space around it. The error is an [*Error] with all problems of all variables, or nil.
func Load(target any, environ Environment) error {
	resolved, problems := environ.withFiles(Variables(target))
	wrong := map[string]bool{}
	for _, p := range parse(target, resolved) {
		wrong[p.name] = true
		problems = append(problems, p.text)
	}
	for _, text := range validate(reflect.ValueOf(target).Elem()) {
		// What could not be read is zero now: that it is invalid, too, says nothing new.
		if name, _, _ := strings.Cut(text, ":"); !wrong[name] {
			problems = append(problems, text)
		}
	}
	found := Problems{all: problems}
	return found.Err()
}

const fileSuffix = "_FILE"

// withFiles replaces NAME_FILE by NAME for the variables that may come from files.
func (e Environment) withFiles(variables []Variable) (Environment, []string) {
	resolved, problems := e.With(nil), []string(nil)
	for _, v := range variables {
		path := e[v.Name+fileSuffix]
		if !v.FromFile() || path == "" {
			continue
		}
		if e[v.Name] != "" {
			problems = append(problems, fmt.Sprintf("%s: %s%s is set, too: set one of them", v.Name, v.Name, fileSuffix))
			continue
		}
		content, err := os.ReadFile(path)
		if err != nil {
			problems = append(problems, fmt.Sprintf("%s%s: %v", v.Name, fileSuffix, err))
			continue
		}
		resolved[v.Name] = strings.TrimSpace(string(content))
	}
	return resolved, problems
}

type problem struct{ name, text string }

// parse fills target and names the variables that could not be read. The parser's own errors name fields of structs, so
// each variable is tried alone where the whole failed.
func parse(target any, environ Environment) []problem {
	err := env.ParseWithOptions(target, options(environ))
	if err == nil {
		return nil
	}
	var problems []problem
	for _, v := range Variables(target) {
		alone := Environment{}
		if value, ok := environ[v.Name]; ok {
			alone[v.Name] = value
		}
		probe := reflect.New(reflect.TypeOf(target).Elem()).Interface()
		if err := about(v.Name, env.ParseWithOptions(probe, options(alone)), alone); err != nil {
			problems = append(problems, problem{v.Name, v.Name + ": " + v.explain(alone[v.Name], err)})
		}
	}
	if len(problems) == 0 {
		problems = append(problems, problem{"", err.Error()})
	}
	return problems
}

// about picks what a parse with one variable set says about that variable: that it is missing, or that its value cannot be read.
func about(name string, err error, alone Environment) error {
	var all env.AggregateError
	if !errors.As(err, &all) {
		return err
	}
	for _, one := range all.Errors {
		var unset env.VarIsNotSetError
		var empty env.EmptyVarError
		var unreadable env.ParseError
		switch {
		case errors.As(one, &unset):
			if unset.Key == name {
				return errors.New("must be set")
			}
		case errors.As(one, &empty):
			if empty.Key == name {
				return errors.New("must not be empty")
			}
		case errors.As(one, &unreadable):
			if len(alone) > 0 {
				return unreadable.Err
			}
		default:
			return one
		}
	}
	return nil
}

// explain says what is wrong with a value, without repeating one that may be secret.
func (v Variable) explain(value string, err error) string {
	switch {
	case value == "":
		return err.Error()
	case v.FromFile():
		return "cannot be read as " + v.Type
	default:
		return fmt.Sprintf("%q cannot be read as %s: %v", value, v.Type, err)
	}
}

// options never reads the process's environment: an empty one would mean that to the parser, so it is never nil.
func options(environ Environment) env.Options {
	if environ == nil {
		environ = Environment{}
	}
	return env.Options{Environment: environ}
}

// validate asks every struct in v, outermost first, and lists the problems one by one. A struct that validates itself answers for
// its fields.
func validate(v reflect.Value) []string {
	if v.Kind() != reflect.Struct {
		return nil
	}
	if asked, ok := v.Addr().Interface().(interface{ Validate() error }); ok {
		return flatten(asked.Validate())
	}
	var problems []string
	for i := range v.NumField() {
		if v.Type().Field(i).IsExported() {
			problems = append(problems, validate(v.Field(i))...)
		}
	}
	return problems
}

func flatten(err error) []string {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var problems []string
		for _, one := range joined.Unwrap() {
			problems = append(problems, flatten(one)...)
		}
		return problems
	}
	return []string{err.Error()}
}

// Problems collects what is wrong with several configurations. The zero value is empty.
type Problems struct{ all []string }

// Add takes over the problems of an error of [Load]; nil adds nothing.
func (p *Problems) Add(err error) {
	var wrong *Error
	if errors.As(err, &wrong) {
		p.all = append(p.all, wrong.Problems...)
	} else if err != nil {
		p.all = append(p.all, err.Error())
	}
}

// Err is an [*Error] with each problem once, or nil.
func (p *Problems) Err() error {
	if len(p.all) == 0 {
		return nil
	}
	slices.Sort(p.all)
	return &Error{Problems: slices.Compact(p.all)}
}
