package config

import (
	"regexp"
	"slices"
	"strings"
)

// notOurs are names that begin like ours and that nobody typed: Kubernetes describes a service called hookline-api in
// HOOKLINE_API_SERVICE_HOST, HOOKLINE_API_PORT, HOOKLINE_API_PORT_8080_TCP and so on. Names of tests are the tests' own.
var notOurs = regexp.MustCompile(`_SERVICE_(HOST|PORT)|_PORT_\d+_(TCP|UDP)|_PORT$|^HOOKLINE_TEST_`)

// Unknown is a name in the environment that nothing reads.
type Unknown struct {
	Name string
	// Suggestion is the known name that was probably meant; empty where none is near.
	Suggestion string
}

// Unknown lists the names with Hookline's prefix that are not among the known ones, in their order.
func (e Environment) Unknown(known []Variable) []Unknown {
	names := make([]string, 0, len(known))
	for _, v := range known {
		names = append(names, v.Name)
		if v.FromFile() {
			names = append(names, v.Name+fileSuffix)
		}
	}
	var unknown []Unknown
	for name := range e {
		if strings.HasPrefix(name, Prefix) && !slices.Contains(names, name) && !notOurs.MatchString(name) {
			unknown = append(unknown, Unknown{Name: name, Suggestion: nearest(name, names)})
		}
	}
	slices.SortFunc(unknown, func(a, b Unknown) int { return strings.Compare(a.Name, b.Name) })
	return unknown
}

// nearest is the name with the fewest edits, where these are at most a third of what follows the prefix.
func nearest(name string, names []string) string {
	best, fewest := "", (len(name)-len(Prefix))/3+1
	for _, candidate := range names {
		if n := distance(name, candidate); n < fewest {
			best, fewest = candidate, n
		}
	}
	return best
}

// distance counts the insertions, deletions and replacements of bytes that turn a into b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
