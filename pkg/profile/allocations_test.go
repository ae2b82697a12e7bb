//go:build !race

package profile

import "testing"

// The allocations are exact, so a test holds them; the times are for benchstat. The race detector allocates on its own account.
func TestARequestOfAKilobyteTakesAtMostTwelveAllocations(t *testing.T) {
	d := kilobyte()
	for _, name := range Builtin().Names() {
		c, keys := contractOf(t, name), [][]byte{testKey}
		n := testing.AllocsPerRun(200, func() {
			if _, err := c.Build(d, keys, testAt); err != nil {
				t.Fatal(err)
			}
		})
		if n > 12 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
