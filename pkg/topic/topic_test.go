package topic

import "testing"

// The embedded broker knows no such setting, so that only this holds it.
func TestTheBrokerDatesWhatStartsADelay(t *testing.T) {
	names := WithPrefix("")
	for _, spec := range names.Specs(1) {
		want := ""
		if spec.Name == names.Events || spec.Name == names.Retries {
			want = "LogAppendTime"
		}
		if got := spec.Settings["message.timestamp.type"]; got != want {
			t.Errorf("%s: %q, want %q", spec.Name, got, want)
		}
	}
}
