package source

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/hookline/hookline/pkg/expression"
	"github.com/hookline/hookline/pkg/strictjson"
	"github.com/hookline/hookline/pkg/webhook"
)

// Value says where something comes from: exactly one of the fields before Optional is given.
type Value struct {
	// Const is itself.
	Const json.RawMessage `json:"const,omitempty"`
	// Pointer is an RFC 6901 pointer into the body. What it finds is taken byte for byte.
	Pointer *string `json:"pointer,omitempty"`
	// Header is the value of a header.
	Header string `json:"header,omitempty"`
	// CEL is an expression over body, headers (by lower-case name), raw and connection.
	CEL string `json:"cel,omitempty"`
	// Raw is the whole body as one text, byte for byte.
	Raw bool `json:"raw,omitempty"`
	// Connection is a field of the connection: id, environment or aggregator.
	Connection string `json:"connection,omitempty"`
	// Optional leaves the member out where there is no such thing; otherwise the message is rejected.
	Optional bool `json:"optional,omitempty"`
}

// value is a compiled Value.
type value struct {
	constant   []byte
	path       []string // of a pointer; nil where it is none
	header     string
	cel        *expression.Expression
	looksIn    bool // the expression asks for the body as JSON
	raw        bool
	connection string
	optional   bool
}

func (v *value) needsJSON() bool { return v.path != nil || v.looksIn }

func (c *compiler) value(v *Value, pointer string) *value {
	out := &value{constant: bytes.TrimSpace(v.Const), header: http.CanonicalHeaderKey(v.Header), raw: v.Raw, connection: v.Connection, optional: v.Optional}
	given := 0
	for _, is := range []bool{len(v.Const) > 0, v.Pointer != nil, v.Header != "", v.CEL != "", v.Raw, v.Connection != ""} {
		if is {
			given++
		}
	}
	if given != 1 {
		c.fail(pointer, "want exactly one of const, pointer, header, cel, raw and connection")
	}
	if v.Pointer != nil {
		path, err := parsePointer(*v.Pointer)
		if err != nil {
			c.fail(pointer+"/pointer", "%v", err)
		}
		out.path = path
	}
	if v.CEL != "" {
		compiled, err := compileExpression(messageLanguage, v.CEL, false)
		if err != nil {
			c.fail(pointer+"/cel", "%v", err)
		}
		out.cel, out.looksIn = compiled, compiled != nil && compiled.Uses("body")
	}
	switch v.Connection {
	case "", "id", "environment", "aggregator":
	default:
		c.fail(pointer+"/connection", "want id, environment or aggregator")
	}
	return out
}

func parsePointer(text string) ([]string, error) {
	if text == "" {
		return []string{}, nil
	}
	if text[0] != '/' {
		return nil, errors.New(`a pointer begins with "/", as in /member/guid`)
	}
	path := strings.Split(text[1:], "/")
	for i := range path {
		path[i] = strings.ReplaceAll(strings.ReplaceAll(path[i], "~1", "/"), "~0", "~")
	}
	return path, nil
}

// input is what values are taken from. The activation of expressions is made at most once.
type input struct {
	request    Request
	connection *webhook.Connection

	tree   any
	parsed bool
}

// json is the value as JSON, nil where the message does not have it. A null is had.
func (v *value) json(in *input) ([]byte, error) {
	switch {
	case v.path != nil:
		return find(in.request.Body, v.path)
	case v.header != "":
		values := in.request.Header[v.header]
		if len(values) == 0 {
			return nil, nil
		}
		return quote(values[0]), nil
	case v.cel != nil:
		return v.evaluated(in)
	case v.raw:
		return quote(string(in.request.Body)), nil
	case v.connection != "":
		return quote(field(in.connection, v.connection)), nil
	default:
		return v.constant, nil
	}
}

func field(c *webhook.Connection, name string) string {
	switch name {
	case "environment":
		return c.Environment
	case "aggregator":
		return c.Aggregator
	default:
		return c.ConnectionID
	}
}

// text is the value where a name is wanted: a text, or a number as it is written. Absent and null are "".
func (v *value) text(in *input) (string, error) {
	raw, err := v.json(in)
	if err != nil || len(raw) == 0 || string(raw) == "null" {
		return "", err
	}
	switch c := raw[0]; {
	case c == '"':
		return strictjson.String(raw)
	case c == '-' || '0' <= c && c <= '9':
		return string(raw), nil
	}
	return "", errors.New("want a text or a number")
}

// find walks a checked document. What is not there is nil.
func find(doc []byte, path []string) ([]byte, error) {
	doc = bytes.TrimSpace(doc)
	for _, step := range path {
		if len(doc) == 0 {
			return nil, nil
		}
		var found []byte
		var err error
		switch doc[0] {
		case '{':
			err = strictjson.Members(doc, func(key, value []byte) error {
				if string(key) == step {
					found = bytes.Clone(value)
				}
				return nil
			})
		case '[':
			index, malformed := strconv.Atoi(step)
			if malformed != nil || index < 0 {
				return nil, nil
			}
			err = strictjson.Elements(doc, func(i int, value []byte) error {
				if i == index {
					found = bytes.Clone(value)
				}
				return nil
			})
		}
		if err != nil {
			return nil, err
		}
		doc = found
	}
	return doc, nil
}

// quote writes a text as JSON with the fewest escapes.
func quote(text string) []byte {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(text); err != nil { // cannot happen: a text
		panic(fmt.Sprintf("encode a text: %v", err))
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

// Text is the text, or the number as it is written, that a pointer finds in a checked document; "" where there is none.
func Text(doc []byte, pointer string) (string, error) {
	path, err := parsePointer(pointer)
	if err != nil {
		return "", err
	}
	return (&value{path: path}).text(&input{request: Request{Body: doc}})
}
