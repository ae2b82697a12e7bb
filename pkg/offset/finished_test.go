package offset

import "testing"

func TestAStandingKnowsWhatIsFinished(t *testing.T) {
	s := StandingOf(10, encode(10, []Run{{12, 14}, {20, 21}}))
	for at, want := range map[int64]bool{9: true, 10: false, 11: false, 12: true, 13: true, 14: false, 19: false, 20: true, 21: false} {
		if s.Finished(at) != want {
			t.Errorf("offset %d: %v", at, !want)
		}
	}
	if s.Count() != 13 {
		t.Errorf("counts %d", s.Count())
	}
	if foreign := StandingOf(10, "somebody else's"); !foreign.Finished(9) || foreign.Finished(10) || foreign.Count() != 10 {
		t.Errorf("metadata of another: %+v", foreign)
	}
}
