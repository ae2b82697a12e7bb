package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"
)

// Formats of the output.
const (
	formatTable = "table"
	formatJSON  = "json"
	formatYAML  = "yaml"
)

// column is one of a table: its title and the path of its value, members joined by dots.
type column struct{ title, path string }

// columns reads "TITLE path" pairs.
func columns(pairs ...string) []column {
	all := make([]column, len(pairs))
	for i, pair := range pairs {
		all[i].title, all[i].path, _ = strings.Cut(pair, " ")
	}
	return all
}

type printer struct {
	out    io.Writer
	format string
	color  bool
}

// list prints items. As JSON and YAML they are what the API answered, in one array.
func (p printer) list(items []json.RawMessage, cols []column) error {
	if p.format == formatTable {
		return p.table(items, cols)
	}
	whole, err := json.Marshal(items)
	if err != nil {
		return err
	}
	return p.value(whole)
}

func (p printer) table(items []json.RawMessage, cols []column) error {
	if len(items) == 0 {
		_, err := fmt.Fprintln(p.out, "Nothing found.")
		return err
	}
	// Colours are put in after the columns have their widths: a table writer would count them.
	var plain bytes.Buffer
	w := tabwriter.NewWriter(&plain, 0, 0, 2, ' ', 0)
	titles := make([]string, len(cols))
	for i, c := range cols {
		titles[i] = c.title
	}
	fmt.Fprintln(w, strings.Join(titles, "\t"))
	for _, item := range items {
		cells, err := row(item, cols)
		if err != nil {
			return err
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(p.out, p.paint(plain.String()))
	return err
}

func row(item json.RawMessage, cols []column) ([]string, error) {
	var object map[string]any
	decoder := json.NewDecoder(bytes.NewReader(item))
	decoder.UseNumber()
	if err := decoder.Decode(&object); err != nil {
		return nil, fmt.Errorf("read item: %w", err)
	}
	cells := make([]string, len(cols))
	for i, c := range cols {
		cells[i] = cell(object, c.path)
	}
	return cells, nil
}

func cell(object map[string]any, path string) string {
	name, rest, deeper := strings.Cut(path, ".")
	value := object[name]
	if deeper {
		inner, ok := value.(map[string]any)
		if !ok {
			return "-"
		}
		return cell(inner, rest)
	}
	return show(value)
}

func show(value any) string {
	switch v := value.(type) {
	case nil:
		return "-"
	case string:
		return visible(v)
	case []any:
		parts := make([]string, len(v))
		for i := range v {
			parts[i] = show(v[i])
		}
		return strings.Join(parts, ",")
	default:
		text, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(v)
		}
		return string(text)
	}
}

// visible keeps what others have written from moving the cursor or breaking a line.
func visible(s string) string {
	if s == "" {
		return "-"
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '\ufffd'
		}
		return r
	}, s)
}

// Words that people look for, in the colours they expect.
var colors = strings.NewReplacer(
	"DELIVERED", "\x1b[32mDELIVERED\x1b[0m",
	"DEAD_LETTER", "\x1b[31mDEAD_LETTER\x1b[0m",
	"PENDING", "\x1b[33mPENDING\x1b[0m",
	"CANCELLED", "\x1b[2mCANCELLED\x1b[0m",
)

func (p printer) paint(s string) string {
	if !p.color {
		return s
	}
	return colors.Replace(s)
}

// value prints one JSON value: as it is, indented; or for people, as YAML, which keeps the order of its members.
func (p printer) value(raw []byte) error {
	if len(bytes.TrimSpace(raw)) == 0 {
		return nil
	}
	if p.format == formatJSON {
		var indented bytes.Buffer
		if err := json.Indent(&indented, raw, "", "  "); err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		_, err := fmt.Fprintln(p.out, indented.String())
		return err
	}
	var node yaml.Node
	if err := yaml.Unmarshal(raw, &node); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	block(&node)
	encoder := yaml.NewEncoder(p.out)
	encoder.SetIndent(2)
	if err := encoder.Encode(&node); err != nil {
		return err
	}
	return encoder.Close()
}

// block takes the JSON style off a value.
func block(n *yaml.Node) {
	n.Style = 0
	for _, inner := range n.Content {
		block(inner)
	}
}
