package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/hookline/hookline/pkg/expression"
	"github.com/hookline/hookline/pkg/strictjson"
)

// Rule makes a further event of a body that was called back.
type Rule struct {
	// Name tells the rules of one profile apart; ids of events are derived from it.
	Name string `json:"name"`
	// When is an expression over body and remote, the JSON inside of the member that the callback names.
	When string `json:"when"`
	// Type is the event type.
	Type string `json:"type"`
	// Data are the members of the event's data: const, pointer and cel, which sees what When sees.
	Data []Member `json:"data"`
}

// Rules are compiled rules. They may be used concurrently.
type Rules struct {
	remote []string // path of the member that holds JSON as a text
	rules  []rule
}

type rule struct {
	Rule
	when *expression.Expression
	data []member
}

// FollowUp is what a rule asks for.
type FollowUp struct {
	Rule string
	Type string
	Data json.RawMessage
}

// CompileRules reads rules. Remote points at the member whose text is JSON again.
func CompileRules(remote string, some []Rule) (*Rules, error) {
	path, err := parsePointer(remote)
	if err != nil {
		return nil, err
	}
	out, c, names := &Rules{remote: path}, &compiler{}, map[string]bool{}
	for i, spec := range some {
		at := fmt.Sprintf("/%d", i)
		if spec.Name == "" || names[spec.Name] || spec.Type == "" {
			c.fail(at, "want a name of its own and a type")
		}
		names[spec.Name] = true
		r := rule{Rule: spec}
		if r.when, err = compileExpression(ruleLanguage, spec.When, true); err != nil {
			c.fail(at+"/when", "%v", err)
		}
		for j := range spec.Data {
			r.data = append(r.data, c.ruleMember(&spec.Data[j], fmt.Sprintf("%s/data/%d", at, j)))
		}
		out.rules = append(out.rules, r)
	}
	return out, errors.Join(c.problems...)
}

func (c *compiler) ruleMember(m *Member, at string) member {
	plain := m.Value
	plain.CEL = ""
	if m.CEL != "" {
		plain.Const = json.RawMessage("null")
	}
	out := member{key: quote(m.Name), value: *c.value(&plain, at)}
	if m.Raw || m.Header != "" || m.Connection != "" || m.Name == "" {
		c.fail(at, "want a name, and const, pointer or cel")
	}
	if m.CEL == "" {
		return out
	}
	compiled, err := compileExpression(ruleLanguage, m.CEL, false)
	if err != nil {
		c.fail(at+"/cel", "%v", err)
	}
	out.value = value{cel: compiled, optional: m.Optional}
	return out
}

// Apply evaluates the rules over a checked body, in their order. A rule whose condition cannot be evaluated makes nothing: it asks
// for what is not there, or is of another kind. The error joins the rules that hold and whose data cannot be made; the others'
// follow-ups come with it.
func (r *Rules) Apply(body []byte) (made []FollowUp, err error) {
	tree, err := expression.Tree(body)
	if err != nil {
		return nil, fmt.Errorf("the body is %w", err)
	}
	variables := map[string]any{"body": tree, "remote": r.inside(body)}
	var problems []error
	for i := range r.rules {
		one := &r.rules[i]
		if holds, err := one.when.Holds(variables); err != nil || !holds {
			continue
		}
		data, err := one.object(body, variables)
		if err != nil {
			problems = append(problems, fmt.Errorf("rule %s: %w", one.Name, err))
			continue
		}
		made = append(made, FollowUp{Rule: one.Name, Type: one.Type, Data: data})
	}
	return made, errors.Join(problems...)
}

// inside is the JSON within a text; nil where it is none.
func (r *Rules) inside(body []byte) any {
	raw, err := find(body, r.remote)
	if err != nil || len(raw) == 0 || raw[0] != '"' {
		return nil
	}
	text, err := strictjson.String(raw)
	if err != nil || strictjson.Check([]byte(text)) != nil {
		return nil
	}
	tree, err := expression.Tree([]byte(text))
	if err != nil {
		return nil
	}
	return tree
}

func (r *rule) object(body []byte, variables map[string]any) (json.RawMessage, error) {
	in := &input{request: Request{Body: body}}
	resolved := make([]member, 0, len(r.data))
	for _, m := range r.data {
		if m.value.cel != nil {
			raw, err := orAbsent(m.value.cel.JSON(variables))
			if err != nil {
				return nil, err
			}
			if raw == nil && m.value.optional {
				continue
			}
			m.value = value{constant: bytes.Clone(raw)}
		}
		resolved = append(resolved, m)
	}
	return object(resolved, in)
}

// Names are the rules' names.
func (r *Rules) Names() []string {
	out := make([]string, len(r.rules))
	for i := range r.rules {
		out[i] = r.rules[i].Name
	}
	return out
}
