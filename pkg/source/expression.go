package source

import (
	"errors"
	"fmt"
	"strings"

	"github.com/hookline/hookline/pkg/expression"
)

const maxExpression = 4 << 10

var (
	// messageLanguage is what the values of a source are written in.
	messageLanguage = expression.NewLanguage(map[string]expression.Kind{
		"body": expression.Any, "headers": expression.Texts, "raw": expression.Text, "connection": expression.Texts,
	})
	// ruleLanguage is what rules are written in.
	ruleLanguage = expression.NewLanguage(map[string]expression.Kind{"body": expression.Any, "remote": expression.Any})
)

func compileExpression(language *expression.Language, text string, condition bool) (*expression.Expression, error) {
	if len(text) > maxExpression {
		return nil, fmt.Errorf("%d bytes, at most %d are accepted", len(text), maxExpression)
	}
	return language.Compile(text, condition)
}

// evaluated is the JSON that an expression over a message gives; nil where the message lacks what it asks for.
func (v *value) evaluated(in *input) ([]byte, error) {
	if v.looksIn && !in.parsed {
		tree, err := expression.Tree(in.request.Body)
		if err != nil {
			return nil, fmt.Errorf("the body is %w", err)
		}
		in.tree, in.parsed = tree, true
	}
	headers := make(map[string]string, len(in.request.Header))
	for name, values := range in.request.Header {
		headers[strings.ToLower(name)] = strings.Join(values, ",")
	}
	connection := map[string]string{}
	if in.connection != nil {
		for _, name := range []string{"id", "environment", "aggregator"} {
			connection[name] = field(in.connection, name)
		}
	}
	return orAbsent(v.cel.JSON(map[string]any{"body": in.tree, "headers": headers, "raw": string(in.request.Body), "connection": connection}))
}

// orAbsent makes nil of what is not there.
func orAbsent(text []byte, err error) ([]byte, error) {
	if errors.Is(err, expression.ErrMissing) {
		return nil, nil
	}
	return text, err
}
