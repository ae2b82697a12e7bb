package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Settings are how much is measured.
type Settings struct {
	Rounds         int
	FloorEvents    int // a round, written before the floor starts
	PipelineEvents int // a round, written before the router starts

	Pace      int           // events a second where latency is measured without load
	WarmUp    time.Duration // at that pace, not measured
	Paced     time.Duration
	Underway  int           // events on their way at any time, where latency is measured at full speed
	Saturated time.Duration // of which the first fifth is not measured

	Hookline string // the binary
	Profiles string // folder for CPU profiles, or ""
}

func thorough(rounds int) Settings {
	return Settings{Rounds: rounds, FloorEvents: 200_000, PipelineEvents: 100_000,
		Pace: 100, WarmUp: 5 * time.Second, Paced: 30 * time.Second, Underway: 1000, Saturated: 15 * time.Second}
}

func quick() Settings {
	return Settings{Rounds: 1, FloorEvents: 3000, PipelineEvents: 2000,
		Pace: 100, WarmUp: 500 * time.Millisecond, Paced: 2 * time.Second, Underway: 200, Saturated: time.Second}
}

// Servers are what Hookline runs on. The bench makes topics and databases of its own, and removes them.
type Servers struct {
	Brokers     []string
	RedisURL    string
	DatabaseURL string         // of any database of the server, by a user who may create others
	processes   map[string]int // of the servers, as far as they are on this machine
}

// newServers finds the servers' processes, once: to look for them among ten thousand connections takes seconds, which would be
// seconds of what is measured.
func newServers(brokers []string, redisURL, databaseURL string) Servers {
	s := Servers{Brokers: brokers, RedisURL: redisURL, DatabaseURL: databaseURL, processes: map[string]int{}}
	addresses := map[string]string{}
	for i, broker := range brokers {
		addresses[strings.TrimSuffix(fmt.Sprintf("kafka-%d", i+1), "-1")] = broker
	}
	for name, raw := range map[string]string{"redis": redisURL, "postgres": databaseURL} {
		if u, err := url.Parse(raw); err == nil {
			addresses[name] = u.Host
		}
	}
	for name, address := range addresses {
		at, err := netip.ParseAddrPort(address)
		if err != nil || !at.Addr().IsLoopback() {
			continue
		}
		if pid := listener(int(at.Port())); pid != 0 {
			s.processes[name] = pid
		}
	}
	return s
}

// pids are the servers' processes, by their names; the caller may add others.
func (s Servers) pids() map[string]int { return maps.Clone(s.processes) }

// bench is one run.
type bench struct {
	Settings
	Servers
	dir string // logs of the processes
	say func(string)

	report Report
}

func (b *bench) run(ctx context.Context) (*Report, error) {
	b.report = Report{Settings: b.Settings, Machine: describeMachine(ctx), Peak: map[string]int64{}}
	for round := range b.Rounds {
		floor, err := b.floor(ctx)
		if err != nil {
			return nil, fmt.Errorf("floor: %w", err)
		}
		b.say(fmt.Sprintf("round %d: floor %.0f/s", round+1, floor.PerSecond))
		pipeline, err := b.pipeline(ctx, round == b.Rounds-1)
		if err != nil {
			return nil, fmt.Errorf("pipeline: %w", err)
		}
		r := Round{Floor: floor, Pipeline: pipeline}
		b.report.Rounds = append(b.report.Rounds, r)
		b.say(fmt.Sprintf("round %d: pipeline %.0f/s, ratio %.3f", round+1, pipeline.PerSecond, r.ratio()))
	}
	return &b.report, nil
}

// stage is what is measured together: a receiver, a producer, and the processes between them.
type stage struct {
	*bench
	dir      string
	name     string // unique; the topics' prefix
	client   receiverClient
	producer *producer
	running  map[string]*process
	next     int // sequence number of the next event
}

// open starts the receiver of a stage, and a producer to a topic.
func (b *bench) open(ctx context.Context, topic string) (*stage, error) {
	s := &stage{bench: b, name: "bench-" + strings.ToLower(rand.Text())[:10], running: map[string]*process{}}
	s.dir = filepath.Join(b.dir, s.name)
	if err := os.Mkdir(s.dir, 0o755); err != nil {
		return nil, err
	}
	address, err := freeAddress(ctx)
	if err != nil {
		return nil, err
	}
	s.client = receiverClient{address}
	p, err := part(ctx, s.dir, partReceiver, address)
	if err != nil {
		return nil, err
	}
	s.running[partReceiver] = p
	s.producer, err = newProducer(b.Brokers, s.name+"."+topic, s.name)
	if err == nil {
		err = p.listening(ctx, address)
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// close notes the peaks of memory, ends the processes, those that send before the one that receives, and removes the
// stage's topics.
func (s *stage) close() {
	for name, pid := range s.pids() {
		s.report.Peak[name] = max(s.report.Peak[name], peakMemory(pid))
	}
	for name, p := range s.running {
		if name != partReceiver {
			p.stop()
		}
	}
	s.running[partReceiver].stop()
	if s.producer == nil {
		return
	}
	if err := s.producer.deleteTopics(s.name + "."); err != nil {
		s.say("delete topics: " + err.Error())
	}
	s.producer.close()
}

// pids are all processes that take part, and the bench itself.
func (s *stage) pids() map[string]int {
	pids := s.Servers.pids()
	for name, p := range s.running {
		pids[name] = p.pid()
	}
	pids["bench"] = os.Getpid()
	return pids
}

// expect prepares the producer and the receiver for so many further events.
func (s *stage) expect(ctx context.Context, count int) error {
	s.producer.expect(s.next, count)
	return s.client.expect(ctx, s.next, count)
}

// arrived waits until so many of the expected events have arrived.
func (s *stage) arrived(ctx context.Context, want int) (counts, error) {
	var n counts
	err := s.progress(ctx, 50*time.Millisecond, want, "arrived", func() (have int, err error) {
		n, err = s.client.counts(ctx)
		return n.Arrived, err
	})
	if err == nil && n.Unsigned+n.Strange > 0 {
		err = fmt.Errorf("%d requests without a signature, %d with an unknown event", n.Unsigned, n.Strange)
	}
	return n, err
}

// progress waits until a number is reached, and gives up where it stands still.
func (s *stage) progress(ctx context.Context, every time.Duration, want int, what string, have func() (int, error)) error {
	const patience = 45 * time.Second
	last, changed := -1, time.Now()
	timer := time.NewTicker(every)
	defer timer.Stop()
	for {
		n, err := have()
		switch {
		case err != nil:
			return err
		case n >= want:
			return nil
		case n != last:
			last, changed = n, time.Now()
		case time.Since(changed) > patience:
			return fmt.Errorf("%d of %d events %s, and no more came", n, want, what)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// latencies are the times from acknowledgement to arrival of the expected events that were produced, without the first
// ones, in ascending order.
func (s *stage) latencies(ctx context.Context, produced, without int) ([]time.Duration, error) {
	arrivals, err := s.client.arrivals(ctx)
	if err != nil {
		return nil, err
	}
	var times []time.Duration
	for i := without; i < produced; i++ {
		acked := s.producer.acked[i].Load()
		if acked == 0 || arrivals[i] == 0 {
			return nil, fmt.Errorf("event %d was not acknowledged or has not arrived", s.next+i)
		}
		times = append(times, time.Duration(arrivals[i]-acked))
	}
	slices.Sort(times)
	return times, nil
}

// speed is how many arrived a second from the first to the last, and when the first did.
func (s *stage) speed(ctx context.Context) (perSecond float64, first time.Time, err error) {
	arrivals, err := s.client.arrivals(ctx)
	if err != nil || len(arrivals) < 2 {
		return 0, first, errors.Join(err, errors.New("too few arrivals"))
	}
	begin, end := slices.Min(arrivals), slices.Max(arrivals)
	return float64(len(arrivals)-1) / time.Duration(end-begin).Seconds(), time.Unix(0, begin), nil
}

// paced measures latency at a pace that leaves everything idle in between.
func (s *stage) paced(ctx context.Context) ([]time.Duration, error) {
	warm := int(s.WarmUp.Seconds() * float64(s.Pace))
	count := warm + int(s.Paced.Seconds()*float64(s.Pace))
	if err := s.expect(ctx, count); err != nil {
		return nil, err
	}
	if err := s.producer.pace(ctx, s.Pace); err != nil {
		return nil, err
	}
	if _, err := s.arrived(ctx, count); err != nil {
		return nil, err
	}
	times, err := s.latencies(ctx, count, warm)
	s.next += count
	return times, err
}

// saturated measures latency at full speed, with a fixed number of events under way.
func (s *stage) saturated(ctx context.Context) (times []time.Duration, perSecond float64, err error) {
	const fastest = 50_000 // a second; more than the floor
	if err := s.expect(ctx, int(s.Saturated.Seconds()*fastest)); err != nil {
		return nil, 0, err
	}
	begin := time.Now()
	sent, err := s.producer.saturate(ctx, s.Underway, s.Saturated, func() (int, error) {
		n, err := s.client.counts(ctx)
		return n.Arrived, err
	})
	if err != nil {
		return nil, 0, err
	}
	if _, err = s.arrived(ctx, sent); err != nil {
		return nil, 0, err
	}
	perSecond = float64(sent) / time.Since(begin).Seconds()
	times, err = s.latencies(ctx, sent, sent/5)
	s.next += sent
	return times, perSecond, err
}

// floor measures the bare loop.
func (b *bench) floor(ctx context.Context) (Stage, error) {
	s, err := b.open(ctx, "floor")
	if err != nil {
		return Stage{}, err
	}
	defer s.close()
	if err := s.producer.createTopic(ctx); err != nil {
		return Stage{}, err
	}
	if err := s.expect(ctx, b.FloorEvents); err != nil {
		return Stage{}, err
	}
	if err := s.producer.preload(ctx); err != nil {
		return Stage{}, err
	}
	before := measure(s.pids())
	p, err := part(ctx, s.dir, partFloor, strings.Join(b.Brokers, ","), s.producer.topic, s.client.hook())
	if err != nil {
		return Stage{}, err
	}
	s.running[partFloor] = p
	n, err := s.arrived(ctx, b.FloorEvents)
	if err != nil {
		return Stage{}, fmt.Errorf("%w\n%s", err, p.tail())
	}
	measured := newStage(b.FloorEvents, before, measure(s.pids()))
	measured.Repeated = n.Repeated
	measured.PerSecond, _, err = s.speed(ctx)
	return measured, err
}

// newStage says what so many events cost between two readings.
func newStage(events int, before, after usage) Stage {
	spent := after.since(before)
	machine, known := spent.cpu[""], time.Duration(0)
	delete(spent.cpu, "")
	for used := range maps.Values(spent.cpu) {
		known += used
	}
	return Stage{Events: events, Took: after.at.Sub(before.at), CPU: spent.cpu, Others: max(machine-known, 0)}
}
