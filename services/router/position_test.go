package router

import (
	"testing"

	"pgregory.net/rapid"
)

func TestACursorSurvivesTheCommit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := cursor{after: rapid.String().Draw(t, "after"), config: rapid.Int64().Draw(t, "config")}
		want := c
		if c.after == "" {
			want = cursor{}
		}
		if got := parseCursor(c.String()); got != want {
			t.Fatalf("%q became %+v", c, got)
		}
	})
}

func TestForeignMetadataIsNoCursor(t *testing.T) {
	for _, metadata := range []string{"", "member-1", "h1:abc", "r1:", "r1:x:y", "r1:7", "r2:7:s"} {
		if got := parseCursor(metadata); got != (cursor{}) {
			t.Errorf("%q: %+v", metadata, got)
		}
	}
}

func FuzzParseCursor(f *testing.F) {
	for _, seed := range []string{"", "r1:7:sub", "r1::", "r1:-1:a:b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, metadata string) {
		if c := parseCursor(metadata); parseCursor(c.String()) != c && c.after != "" {
			t.Fatalf("%q is read as %+v, and that as %+v", metadata, c, parseCursor(c.String()))
		}
	})
}

func TestPositionsOnlyMoveForwardAndOnlyWhileOwned(t *testing.T) {
	ps := newPositions()
	ps.advance(1, position{offset: 5})
	if len(ps.uncommitted(nil)) > 0 {
		t.Error("a partition that is not owned has a position")
	}
	ps.assign(1, position{offset: 5, cursor: cursor{after: "s", config: 3}})
	ps.assign(2, position{offset: -1})
	if got := ps.cursorAt(1, 5); got.after != "s" {
		t.Errorf("cursor %+v", got)
	}
	if got := ps.cursorAt(1, 6); got != (cursor{}) {
		t.Errorf("a cursor at another event: %+v", got)
	}
	ps.advance(1, position{offset: 4})
	if len(ps.uncommitted(nil)) > 0 {
		t.Error("it moved back")
	}
	ps.advance(1, position{offset: 6})
	ps.advance(2, position{offset: 1})
	if got := ps.uncommitted([]int32{1, 3}); len(got) != 1 || got[1].offset != 6 {
		t.Errorf("uncommitted %v", got)
	}
	ps.committed(1, position{offset: 6})
	ps.seen(1, 10)
	ps.seen(2, 3)
	if got := ps.lag(); got != 4+2 {
		t.Errorf("lag %d", got)
	}
	ps.forget([]int32{2})
	if got := ps.uncommitted(nil); len(got) > 0 || ps.owns(2) || !ps.owns(1) {
		t.Errorf("uncommitted %v", got)
	}
}
