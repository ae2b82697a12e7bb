package scheduler

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestWhatBecomesReadyDuringAVolleyGoesTogetherInTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		var mu sync.Mutex
		times := map[*flight]int{}
		fired := func(f *flight) int {
			mu.Lock()
			defer mu.Unlock()
			return times[f]
		}
		v := newVolleys(func() int { return 10 }, func(flights []*flight) {
			sizes = append(sizes, len(flights)) // a second one under way would be a race
			time.Sleep(time.Second)
			mu.Lock()
			defer mu.Unlock()
			for _, f := range flights {
				times[f]++
			}
		})
		joined := make(chan error)
		for n, size := range []int{1, 4, 5, 10, 3, 2} {
			go func() {
				time.Sleep(time.Duration(n) * time.Millisecond)
				mine := make([]*flight, size)
				for i := range mine {
					mine[i] = &flight{}
				}
				v.join(mine)
				for _, f := range mine {
					if got := fired(f); got != 1 {
						joined <- fmt.Errorf("a flight of party %d was fired %d times when it had joined", n, got)
						return
					}
				}
				joined <- nil
			}()
		}
		for range 6 {
			if err := <-joined; err != nil {
				t.Error(err)
			}
		}
		if want := []int{1, 9, 10, 5}; !slices.Equal(sizes, want) {
			t.Errorf("volleys of %v, want %v", sizes, want)
		}
	})
}

func TestAVolleyIsAThousandthOfWhatWaits(t *testing.T) {
	for waiting, want := range map[int64]int{0: 100, 50_000: 100, 150_000: 300, 10_000_000: largestVolley} {
		s := &Service{cfg: Config{Inflight: 100}, shards: map[int32]*shard{0: newShard(0, nil), 1: newShard(1, nil)}}
		for _, sh := range s.shards {
			sh.waiting.Store(waiting)
		}
		if got := s.mostInVolley(); got != want {
			t.Errorf("twice %d waiting: %d, want %d", waiting, got, want)
		}
	}
}
