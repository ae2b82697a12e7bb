package offset

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// model is the tracker as a set.
type model struct {
	committed int64
	high      int64
	begun     map[int64]bool // offset: finished
}

func (m *model) lowest() int64 {
	low := m.high
	for o, done := range m.begun {
		if !done && o < low {
			low = o
		}
	}
	return low
}

func TestATrackerAgreesWithASetUnderAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.Int64Range(0, 1000).Draw(t, "start")
		tracker := New(start, "")
		m := &model{committed: start, high: start, begun: map[int64]bool{}}
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			var open []int64
			for o, done := range m.begun {
				if !done {
					open = append(open, o)
				}
			}
			slices.Sort(open)
			if len(open) == 0 || rapid.Bool().Draw(t, "begin") {
				o := m.high + rapid.Int64Range(0, 3).Draw(t, "gap")
				if !tracker.Begin(o) {
					t.Fatalf("Begin(%d) says finished", o)
				}
				m.begun[o], m.high = false, o+1
			} else {
				o := rapid.SampledFrom(open).Draw(t, "finish")
				tracker.Finish(o)
				tracker.Finish(o)
				m.begun[o] = true
			}
			got, metadata, _ := tracker.Commit()
			if want := m.lowest(); got != want {
				t.Fatalf("commit offset %d, want %d", got, want)
			}
			checkSuccessor(t, got, metadata, m)
		}
	})
}

// checkSuccessor takes over from a commit and must be asked to do exactly what was unfinished.
func checkSuccessor(t *rapid.T, committed int64, metadata string, m *model) {
	next := New(committed, metadata)
	for o := committed; o < m.high; o++ {
		done, record := m.begun[o]
		if !record {
			continue
		}
		if again := next.Begin(o); again == done {
			t.Fatalf("offset %d finished=%v, successor asked to do it: %v", o, done, again)
		}
	}
	if got, _, _ := next.Commit(); got != m.lowest() {
		t.Fatalf("successor commits %d, want %d", got, m.lowest())
	}
}

func TestMetadataStaysWithinTheBrokersLimit(t *testing.T) {
	tracker := New(0, "")
	for o := range int64(100_000) {
		tracker.Begin(o)
		if o%2 == 1 {
			tracker.Finish(o)
		}
	}
	offset, metadata, changed := tracker.Commit()
	if offset != 0 || !changed || len(metadata) > 4096 || len(metadata) < 3000 {
		t.Fatalf("offset %d, changed %v, metadata of %d bytes", offset, changed, len(metadata))
	}
	tracker.Committed(offset, metadata)
	if _, _, changed := tracker.Commit(); changed {
		t.Fatal("a commit that Kafka has accepted is still new")
	}
}

func TestOfManyScatteredRecordsTheBitmapReachesFurther(t *testing.T) {
	tracker := New(7, "")
	for o := int64(7); o < 7+20_000; o++ {
		tracker.Begin(o)
		if o%2 == 0 {
			tracker.Finish(o)
		}
	}
	at, metadata, _ := tracker.Commit()
	next := New(at, metadata)
	for o := int64(7); o < 7+20_000; o++ {
		if again := next.Begin(o); again != (o%2 == 1) {
			t.Fatalf("offset %d is asked for again: %v", o, again)
		}
	}
	if len(metadata) > 4096 {
		t.Errorf("metadata of %d bytes", len(metadata))
	}
}

func TestACommitThatFailedIsMadeAgain(t *testing.T) {
	tracker := New(0, "")
	tracker.Begin(0)
	if _, _, changed := tracker.Commit(); changed {
		t.Error("a commit would say something new although nothing is finished")
	}
	tracker.Finish(0)
	for range 2 {
		if at, _, changed := tracker.Commit(); !changed || at != 1 {
			t.Errorf("commit of %d, new: %v", at, changed)
		}
	}
	tracker.Committed(1, "")
	if _, _, changed := tracker.Commit(); changed {
		t.Error("what Kafka has accepted is new")
	}
}

func TestWhatASuccessorHasNotReachedStaysInItsCommits(t *testing.T) {
	first := New(10, "")
	for o := int64(10); o < 20; o++ {
		first.Begin(o)
	}
	for _, o := range []int64{12, 13, 18} {
		first.Finish(o)
	}
	offset, metadata, _ := first.Commit()
	second := New(offset, metadata)
	second.Begin(10)
	third := New(second.base, encode(second.base, second.runs()))
	var todo []int64
	for o := int64(10); o < 20; o++ {
		if third.Begin(o) {
			todo = append(todo, o)
		}
	}
	if want := []int64{10, 11, 14, 15, 16, 17, 19}; !slices.Equal(todo, want) {
		t.Fatalf("third owner does %v, want %v", todo, want)
	}
}

func FuzzForeignMetadataIsIgnored(f *testing.F) {
	f.Add("")
	f.Add("h1:AAAA")
	f.Add("h2:/wA")
	f.Add("h1:" + strings.Repeat("/", 80))
	f.Fuzz(func(t *testing.T, metadata string) {
		tracker := New(100, metadata)
		for o := int64(100); o < 200; o++ {
			if tracker.Begin(o) {
				tracker.Finish(o)
			}
		}
		if offset, _, _ := tracker.Commit(); offset != 200 {
			t.Fatalf("commit %d, want 200", offset)
		}
	})
}
