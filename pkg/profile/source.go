package profile

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/hookline/hookline/pkg/ecmajson"
)

//go:embed profile.schema.json
var schemaText []byte

// Schema is the JSON Schema (2020-12) of a profile file.
func Schema() []byte { return bytes.Clone(schemaText) }

var compiledSchema = sync.OnceValues(func() (*jsonschema.Schema, error) {
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(schemaText))
	if err != nil {
		return nil, fmt.Errorf("read the profile schema: %w", err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("profile.schema.json", doc); err != nil {
		return nil, fmt.Errorf("add the profile schema: %w", err)
	}
	return c.Compile("profile.schema.json")
})

// source is a profile file as JSON, with the line that each value stands on.
type source struct {
	file     string
	json     []byte
	lines    map[string]int // by JSON pointer
	problems []error
	// refused are the sections (names at the top) that the schema has refused; "" stands for the top itself.
	refused map[string]bool
}

func (s *source) problem(line int, format string, args ...any) {
	s.problems = append(s.problems, fmt.Errorf("%s:%d: %s", s.file, line, fmt.Sprintf(format, args...)))
}

// at reports a problem with the value at a JSON pointer.
func (s *source) at(pointer, format string, args ...any) {
	detail := fmt.Sprintf(format, args...)
	if pointer != "" {
		detail = pointer + ": " + detail
	}
	s.problem(s.line(pointer), "%s", detail)
}

// syntax reports that the file is not YAML. The parser puts the line into its text, where it knows it.
func (s *source) syntax(err error) {
	line, detail := 1, strings.TrimPrefix(err.Error(), "yaml: ")
	if at, rest, ok := strings.Cut(strings.TrimPrefix(detail, "line "), ": "); ok {
		if n, err := strconv.Atoi(at); err == nil {
			line, detail = n, rest
		}
	}
	s.problem(line, "not YAML: %s", detail)
}

// line is the line of the value, or of the nearest value around it where it is absent.
func (s *source) line(pointer string) int {
	for {
		if line, ok := s.lines[pointer]; ok {
			return line
		}
		i := strings.LastIndexByte(pointer, '/')
		if i < 0 {
			return 1
		}
		pointer = pointer[:i]
	}
}

// readSource turns YAML into JSON, keeping the order of keys, and checks it against the schema. Its problems carry file
// and line.
func readSource(file string, text []byte) *source {
	s := &source{file: file, lines: map[string]int{}, refused: map[string]bool{}}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		s.syntax(err)
		return s
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		s.problem(1, "the file is empty, or not a mapping of names to values")
		return s
	}
	s.json = s.value(nil, doc.Content[0], "")
	if len(s.problems) == 0 {
		s.validate()
	}
	return s
}

func (s *source) value(dst []byte, n *yaml.Node, pointer string) []byte {
	if _, seen := s.lines[pointer]; !seen {
		s.lines[pointer] = n.Line
	}
	switch n.Kind {
	case yaml.MappingNode:
		return s.mapping(dst, n, pointer)
	case yaml.SequenceNode:
		dst = append(dst, '[')
		for i, item := range n.Content {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = s.value(dst, item, pointer+"/"+strconv.Itoa(i))
		}
		return append(dst, ']')
	case yaml.ScalarNode:
		return s.scalar(dst, n)
	default:
		s.problem(n.Line, "anchors and aliases are not supported")
		return append(dst, "null"...)
	}
}

func (s *source) mapping(dst []byte, n *yaml.Node, pointer string) []byte {
	seen := make(map[string]bool, len(n.Content)/2)
	dst = append(dst, '{')
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
			s.problem(key.Line, "a key must be plain text")
			continue
		}
		if seen[key.Value] {
			s.problem(key.Line, "key %q is given twice", key.Value)
		}
		seen[key.Value] = true
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(ecmajson.AppendString(dst, key.Value), ':')
		child := pointer + "/" + escapePointer(key.Value)
		s.lines[child] = key.Line
		dst = s.value(dst, n.Content[i+1], child)
	}
	return append(dst, '}')
}

func (s *source) scalar(dst []byte, n *yaml.Node) []byte {
	switch n.ShortTag() {
	case "!!null":
		return append(dst, "null"...)
	case "!!bool":
		var v bool
		if err := n.Decode(&v); err != nil {
			s.problem(n.Line, "%q is not a boolean", n.Value)
		}
		return strconv.AppendBool(dst, v)
	case "!!int":
		var v int64
		if err := n.Decode(&v); err != nil {
			s.problem(n.Line, "%q is not an integer of 64 bits", n.Value)
		}
		return strconv.AppendInt(dst, v, 10)
	case "!!float":
		var v float64
		if err := n.Decode(&v); err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			s.problem(n.Line, "%q is not a finite number", n.Value)
			v = 0
		}
		return ecmajson.AppendNumber(dst, v)
	case "!!str", "!!timestamp":
		return ecmajson.AppendString(dst, n.Value)
	default:
		s.problem(n.Line, "values of type %s are not supported", n.ShortTag())
		return append(dst, "null"...)
	}
}

func (s *source) validate() {
	schema, err := compiledSchema()
	if err != nil {
		s.problems = append(s.problems, err)
		return
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(s.json))
	if err != nil {
		s.problem(1, "%v", err)
		return
	}
	var invalid *jsonschema.ValidationError
	if err := schema.Validate(doc); errors.As(err, &invalid) {
		s.leaves(invalid.DetailedOutput())
	} else if err != nil {
		s.problem(1, "%v", err)
	}
}

// leaves reports the innermost errors: those around them only say that something below is wrong. (The flat output would be
// simpler, but shows "validation failed" for what is wrong below a $ref.)
func (s *source) leaves(unit *jsonschema.OutputUnit) {
	for i := range unit.Errors {
		s.leaves(&unit.Errors[i])
	}
	if len(unit.Errors) == 0 && unit.Error != nil {
		s.at(unit.InstanceLocation, "%s", unit.Error.String())
		s.refuse(sectionOf(unit.InstanceLocation))
	}
}

// refuse marks a section of the file as one that the schema has refused.
func (s *source) refuse(section string) {
	s.refused[section] = true
	if section == "headers" {
		s.refused["signatures"] = true // what is signed must stand in headers
	}
}

// sectionOf is the first name in a JSON pointer.
func sectionOf(pointer string) string {
	section, _, _ := strings.Cut(strings.TrimPrefix(pointer, "/"), "/")
	return section
}

// decode reads what the schema has not refused into a spec, so that everything wrong in a file is found at once.
func (s *source) decode() (*spec, error) {
	var sections map[string]json.RawMessage
	if err := json.Unmarshal(s.json, &sections); err != nil {
		return nil, fmt.Errorf("%s: %w", s.file, err)
	}
	maps.DeleteFunc(sections, func(name string, _ json.RawMessage) bool { return s.refused[name] })
	sound, err := json.Marshal(sections)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.file, err)
	}
	var sp spec
	if err := json.Unmarshal(sound, &sp); err != nil {
		return nil, fmt.Errorf("%s: %w", s.file, err)
	}
	return &sp, nil
}

func escapePointer(key string) string {
	return strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1")
}
