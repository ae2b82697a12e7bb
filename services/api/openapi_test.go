package api

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/openapi.json")

const openAPIFile = "../../docs/openapi.json"

func TestTheCommittedOpenAPIIsTheAPI(t *testing.T) {
	t.Parallel()
	s := assembled(t)
	if *update {
		if err := os.WriteFile(openAPIFile, s.OpenAPI(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	committed, err := os.ReadFile(openAPIFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(committed, s.OpenAPI()) {
		t.Error("docs/openapi.json is not what the code says: go test ./services/api -run OpenAPI -update")
	}
}

// schema is what of a JSON schema bounds a value.
type schema struct {
	Ref                  string `json:"$ref"`
	Type                 any
	Format               string
	Enum                 []any
	MaxLength, MaxItems  *int
	MaxProperties        *int
	Maximum              *float64
	Minimum              *float64
	ExclusiveMinimum     *float64
	Items                *schema
	Properties           map[string]*schema
	AdditionalProperties json.RawMessage
}

// is reports whether a schema allows values of a type, alone or besides null.
func (s *schema) is(kind string) bool {
	list, _ := s.Type.([]any)
	return s.Type == kind || slices.Contains(list, any(kind))
}

// unbounded names what in a request may be of any size.
func unbounded(where string, s *schema, named map[string]*schema) (problems []string) {
	if name, ok := strings.CutPrefix(s.Ref, "#/components/schemas/"); ok {
		s = named[name]
	}
	free := func(what string) { problems = append(problems, where+": "+what) }
	switch {
	case len(s.Enum) > 0:
	case s.is("string") && s.MaxLength == nil && s.Format != "date-time":
		free("a text without maxLength")
	case s.is("array"):
		if s.MaxItems == nil {
			free("a list without maxItems")
		}
		problems = append(problems, unbounded(where+"[]", s.Items, named)...)
	case (s.is("integer") || s.is("number")) && (s.Minimum == nil && s.ExclusiveMinimum == nil || s.Maximum == nil && s.Format != "int64"):
		free("a number without minimum and maximum")
	case s.is("object") && len(s.Properties) == 0 && s.MaxProperties == nil:
		free("a map without maxProperties")
	case s.is("object") && len(s.Properties) > 0 && string(s.AdditionalProperties) != "false":
		free("takes unknown fields")
	}
	for name, member := range s.Properties {
		if name != "$schema" {
			problems = append(problems, unbounded(where+"/"+name, member, named)...)
		}
	}
	return problems
}

func TestEveryFieldOfEveryRequestHasBounds(t *testing.T) {
	t.Parallel()
	var spec struct {
		Paths map[string]map[string]struct {
			Parameters []struct {
				Name   string
				Schema *schema
			}
			RequestBody *struct {
				Content map[string]struct{ Schema *schema }
			}
		}
		Components struct{ Schemas map[string]*schema }
	}
	if err := json.Unmarshal(assembled(t).OpenAPI(), &spec); err != nil {
		t.Fatal(err)
	}
	fields := 0
	for path, operations := range spec.Paths {
		for method, op := range operations {
			var problems []string
			for _, p := range op.Parameters {
				fields++
				problems = append(problems, unbounded("?"+p.Name, p.Schema, spec.Components.Schemas)...)
			}
			if op.RequestBody != nil {
				fields++
				problems = append(problems, unbounded("", op.RequestBody.Content["application/json"].Schema, spec.Components.Schemas)...)
			}
			for _, problem := range problems {
				t.Errorf("%s %s: %s", strings.ToUpper(method), strings.TrimPrefix(path, Base), problem)
			}
		}
	}
	if fields < 100 {
		t.Errorf("only %d fields were found", fields)
	}
}
