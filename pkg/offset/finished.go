package offset

import "slices"

// Standing is how far a group has come in a partition, as its commit shows it to whoever watches the group without belonging to it. The
// zero value has finished nothing.
type Standing struct {
	committed int64
	runs      []Run // finished above it, ascending
}

// StandingOf reads a commit. Metadata that is not a tracker's says nothing.
func StandingOf(committed int64, metadata string) Standing {
	return Standing{committed, decode(committed, metadata)}
}

// Finished reports whether the record at an offset is finished.
func (s Standing) Finished(offset int64) bool {
	if offset < s.committed {
		return true
	}
	i, _ := slices.BinarySearchFunc(s.runs, offset, func(r Run, offset int64) int { return int(min(max(r.To-offset-1, -1), 1)) })
	return i < len(s.runs) && s.runs[i].From <= offset
}

// Count is how many records are finished, from offset 0 on.
func (s Standing) Count() int64 {
	count := s.committed
	for _, r := range s.runs {
		count += r.To - r.From
	}
	return count
}
