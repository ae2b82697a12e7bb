//go:build race

package profile

// init is how a file behind a build tag tells the test.
func init() { raceEnabled = true }
