package profile

import (
	"cmp"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

//go:embed profiles/*.yaml
var builtinFiles embed.FS

// Catalog holds profiles by name and version. It is immutable and safe for concurrent use.
type Catalog struct {
	byName map[string][]*Profile // newest first
}

var builtin = sync.OnceValues(func() (*Catalog, error) {
	return load(file{fsys: builtinFiles, dir: "profiles", show: "builtin/"})
})

// Builtin is the catalog of the embedded profiles. It panics where one of them is invalid, which a test excludes.
func Builtin() *Catalog {
	c, err := builtin()
	if err != nil {
		panic(fmt.Sprintf("built-in profiles: %v", err))
	}
	return c
}

// Load is the built-in catalog with the operator's profiles from the *.yaml and *.yml files of a directory, in which a
// file may add a profile or another version of one. An empty dir means the built-in ones only. The error joins everything
// wrong in all files, each with file and line.
func Load(dir string) (*Catalog, error) {
	if dir == "" {
		return Builtin(), nil
	}
	return load(
		file{fsys: builtinFiles, dir: "profiles", show: "builtin/"},
		file{fsys: os.DirFS(dir), dir: ".", show: dir + string(filepath.Separator)},
	)
}

// file is a directory of profiles, and what its files' names are shown after.
type file struct {
	fsys fs.FS
	dir  string
	show string
}

func load(dirs ...file) (*Catalog, error) {
	c := &Catalog{byName: map[string][]*Profile{}}
	var problems []error
	for _, d := range dirs {
		entries, err := fs.ReadDir(d.fsys, d.dir)
		if err != nil {
			problems = append(problems, fmt.Errorf("read profiles: %w", err))
		}
		for _, e := range entries {
			if ext := path.Ext(e.Name()); e.IsDir() || ext != ".yaml" && ext != ".yml" {
				continue
			}
			text, err := fs.ReadFile(d.fsys, path.Join(d.dir, e.Name()))
			if err != nil {
				problems = append(problems, fmt.Errorf("read profile: %w", err))
				continue
			}
			p, err := Parse(d.show+e.Name(), text)
			if err == nil {
				err = c.add(d.show+e.Name(), p)
			}
			if err != nil {
				problems = append(problems, err)
			}
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *Catalog) add(name string, p *Profile) error {
	if _, exists := c.Version(p.Name, p.Version); exists {
		return fmt.Errorf("%s:1: profile %s version %d exists already: give a changed profile a new version", name, p.Name, p.Version)
	}
	list := append(c.byName[p.Name], p)
	slices.SortFunc(list, func(a, b *Profile) int { return cmp.Compare(b.Version, a.Version) })
	c.byName[p.Name] = list
	return nil
}

// Names lists the profiles in alphabetical order.
func (c *Catalog) Names() []string { return slices.Sorted(maps.Keys(c.byName)) }

// Get is the newest version of a profile.
func (c *Catalog) Get(name string) (*Profile, bool) {
	list := c.byName[name]
	if len(list) == 0 {
		return nil, false
	}
	return list[0], true
}

// Version is one version of a profile.
func (c *Catalog) Version(name string, version uint32) (*Profile, bool) {
	for _, p := range c.byName[name] {
		if p.Version == version {
			return p, true
		}
	}
	return nil, false
}

// Versions lists the versions of a profile, newest first.
func (c *Catalog) Versions(name string) []*Profile { return slices.Clone(c.byName[name]) }

// LongestDelay is the longest that a delivery can wait for its next attempt under any profile with any permitted
// override, jitter and Retry-After included. The retries topic must keep records for longer.
func (c *Catalog) LongestDelay() time.Duration {
	var longest time.Duration
	for _, list := range c.byName {
		for _, p := range list {
			longest = max(longest, p.longestDelay())
		}
	}
	return longest
}

func (p *Profile) longestDelay() time.Duration {
	return max(
		p.settings.retry.longest(),
		stretch(p.bounds.delay.max, p.bounds.jitter),
		stretch(maxRetryAfter, p.settings.retryAfter.jitter),
	)
}
