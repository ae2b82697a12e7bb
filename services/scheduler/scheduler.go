// Package scheduler puts retries back on the deliveries topic when they are due. The retries topic is the truth: a
// retry, then a tombstone once it has fired. Redis is a timer index built from it, which may be lost at any moment.
// Owning a partition of the topic is owning its shard of the index, so Kafka's group protocol is the only election.
//
// One goroutine consumes the topic into the index and alone decides where each partition goes on; one per partition
// sleeps until something is due, claims it, produces it, writes the tombstone, and acknowledges. The scheduler makes no
// attempts and decides nothing about a delivery.
package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/semaphore"

	"github.com/hookline/hookline/pkg/health"
	"github.com/hookline/hookline/pkg/kafka"
	"github.com/hookline/hookline/pkg/retryqueue"
	"github.com/hookline/hookline/pkg/run"
	"github.com/hookline/hookline/pkg/telemetry"
)

// Config is what an operator sets.
type Config struct {
	// Inflight bounds the retries that have been fired and are not yet marked as fired: no more are fired again after a kill. Where a
	// thousandth of what waits is more, it is that, up to 1,000.
	Inflight int `env:"HOOKLINE_SCHEDULER_INFLIGHT" envDefault:"100"`
	// CacheBytes bounds the memory that holds what is due soon.
	CacheBytes int64 `env:"HOOKLINE_SCHEDULER_CACHE_BYTES" envDefault:"67108864"`
	// Lease is how long a retry that was taken by a process that died waits for another.
	Lease        time.Duration `env:"HOOKLINE_SCHEDULER_LEASE" envDefault:"30s"`
	DrainTimeout time.Duration `env:"HOOKLINE_DRAIN_TIMEOUT" envDefault:"20s"`
}

// Validate reports everything that is wrong with the configuration.
func (c Config) Validate() error {
	var problems []error
	if c.Inflight < 1 {
		problems = append(problems, fmt.Errorf("HOOKLINE_SCHEDULER_INFLIGHT: %d is below 1", c.Inflight))
	}
	if c.CacheBytes < 0 {
		problems = append(problems, fmt.Errorf("HOOKLINE_SCHEDULER_CACHE_BYTES: %d is negative", c.CacheBytes))
	}
	if c.Lease < 5*time.Second {
		problems = append(problems, fmt.Errorf("HOOKLINE_SCHEDULER_LEASE: %v is below 5s, less than a slow produce takes", c.Lease))
	}
	if c.DrainTimeout < 0 {
		problems = append(problems, fmt.Errorf("HOOKLINE_DRAIN_TIMEOUT: %v is negative", c.DrainTimeout))
	}
	return errors.Join(problems...)
}

// Deps are the parts. All are needed.
type Deps struct {
	Log     *slog.Logger
	Metrics *telemetry.Metrics
	Health  *health.Health
	Kafka   *kafka.Cluster
	// Index is closed by whoever opened it, after Run.
	Index *retryqueue.Index
	// LongestDelay is the longest delay that any contract asks for; the bound of an override counts too.
	LongestDelay time.Duration
}

// longestOverride is the longest delay that a subscription may ask for by itself.
const longestOverride = 24 * time.Hour

// Service is the scheduler. [Service.Run] is called once.
type Service struct {
	cfg     Config
	deps    Deps
	log     *slog.Logger
	longest time.Duration
	redis   *outage
	kafka   *outage
	cache   *cache
	path    *path
	lag     metric.MeasurementOption

	slots   *semaphore.Weighted // retries taken to fire
	volleys *volleys            // of these, fired and not yet marked
	bytes   *semaphore.Weighted // bytes of their records
	loading *semaphore.Weighted // claims whose records are being read

	group    *kgo.Client // consumes retries
	producer *kgo.Client // writes deliveries and rejected records
	marker   *kgo.Client // writes tombstones, to the partitions they belong to; reads by offset
	admin    *kadm.Client
	reader   *reader

	// busy counts everything that fires, also of partitions that have gone.
	busy sync.WaitGroup
	// work outlives the context of Run by at most the drain timeout: what was taken to fire is finished under it.
	work context.Context

	mu         sync.Mutex
	shards     map[int32]*shard
	poked      bool
	cancelPoll context.CancelFunc
}

// inflight bounds the retries that are taken to fire, inflightBytes their records; loaders how many claims may hold records that are not
// yet counted.
const (
	inflight      = 4000
	inflightBytes = 64 << 20
	loaders       = 2
)

// New checks the configuration and assembles the service. It opens nothing.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Log == nil || deps.Metrics == nil || deps.Health == nil || deps.Kafka == nil || deps.Index == nil {
		return nil, errors.New("scheduler: a part is missing")
	}
	log := deps.Log.With("service", "scheduler")
	starting := errors.New("starting")
	s := &Service{
		cfg:     cfg,
		deps:    deps,
		log:     log,
		longest: max(deps.LongestDelay, longestOverride),
		redis:   newOutage("redis", log, deps.Health.Need("scheduler: redis", starting)),
		kafka:   newOutage("kafka", log, deps.Health.Need("scheduler: kafka", starting)),
		cache:   newCache(cfg.CacheBytes),
		path:    newPath(),
		lag:     telemetry.Label("group", "scheduler"),
		slots:   semaphore.NewWeighted(inflight),
		bytes:   semaphore.NewWeighted(inflightBytes),
		loading: semaphore.NewWeighted(loaders),
		shards:  map[int32]*shard{},
	}
	s.volleys = newVolleys(s.mostInVolley, s.volley)
	return s, nil
}

// Run consumes and fires until ctx ends; then it fires nothing more, finishes within the drain timeout what it took,
// and returns nil. It returns an error where waiting does not help: Redis would evict, or the topic would forget a retry
// before it is due. A Kafka or Redis that is away is waited for.
func (s *Service) Run(ctx context.Context) error {
	work, finish := context.WithCancel(context.WithoutCancel(ctx))
	defer finish()
	s.work = work
	defer context.AfterFunc(ctx, func() {
		defer time.AfterFunc(s.cfg.DrainTimeout, finish)
	})()

	closeClients, err := s.openProducers()
	if err != nil {
		return err
	}
	defer func() {
		finish()
		closeClients()
		s.busy.Wait()
	}()
	if err := s.prepare(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if s.group, err = s.openGroup(ctx); err != nil {
		return err
	}
	var background sync.WaitGroup
	background.Go(func() { s.watch(ctx) })
	background.Go(func() { s.followPath(ctx) })
	s.consume(ctx)
	background.Wait()
	s.drain()
	// Leaving hands the partitions on at once. A Kafka that is away is not waited for beyond the drain timeout.
	if err := s.group.LeaveGroupContext(work); err != nil {
		s.log.WarnContext(ctx, "left the group without a word", "error", err)
	}
	s.group.CloseAllowingRebalance()
	return nil
}

func (s *Service) openProducers() (closeAll func(), err error) {
	// Small batches again and again: the quickest compression there is.
	if s.producer, err = s.deps.Kafka.Client(append(s.deps.Kafka.Producer(), kgo.ProducerBatchCompression(kgo.SnappyCompression()))...); err != nil {
		return nil, err
	}
	// A tombstone belongs to the partition of its retry, also after the topic has been given more partitions. It is a key of random bytes.
	s.marker, err = s.deps.Kafka.Client(append(s.deps.Kafka.Producer(),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.NoCompression()))...)
	if err != nil {
		s.producer.Close()
		return nil, err
	}
	s.admin = kadm.NewClient(s.marker)
	s.reader = newReader(s.marker, s.deps.Kafka.Topics.Retries)
	return func() { s.marker.Close(); s.producer.Close() }, nil
}

func (s *Service) openGroup(ctx context.Context) (*kgo.Client, error) {
	opts := append(s.deps.Kafka.Group("scheduler", s.deps.Kafka.Topics.Retries),
		kgo.BlockRebalanceOnPoll(),
		// Positions are in Redis. A log that no longer has one of them is for resync to judge, not for the client.
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.AdjustFetchOffsetsFn(s.joined),
		kgo.OnPartitionsAssigned(func(_ context.Context, cl *kgo.Client, p map[string][]int32) { s.assigned(ctx, cl, p) }),
		kgo.OnPartitionsRevoked(func(ctx context.Context, _ *kgo.Client, p map[string][]int32) { s.revoked(ctx, p, handOver) }),
		kgo.OnPartitionsLost(func(ctx context.Context, _ *kgo.Client, p map[string][]int32) { s.revoked(ctx, p, 0) }),
		kgo.FetchMaxBytes(4<<20),
		kgo.FetchMaxPartitionBytes(512<<10), // so that a fetch has several partitions where all have much
	)
	return s.deps.Kafka.Client(opts...)
}

// prepare waits for Kafka and Redis, and refuses those that would lose retries.
func (s *Service) prepare(ctx context.Context) error {
	topics := s.deps.Kafka.Topics
	if err := s.deps.Kafka.WaitTopics(ctx, s.log, s.kafka.condition.Set, topics.Retries, topics.Deliveries, topics.Rejected); err != nil {
		return err
	}
	s.kafka.report(ctx, askWatch, nil)
	if err := s.checkTopic(ctx); err != nil {
		return err
	}
	if points, err := s.lookAtPath(ctx); err == nil { // otherwise once something has been fired
		s.path.saw(points, 0, 0, time.Now())
	}
	for {
		err := s.askPolicy(ctx)
		if policy := (*retryqueue.PolicyError)(nil); err == nil || errors.As(err, &policy) {
			return err
		}
		if !run.Pause(ctx, time.Second) {
			return ctx.Err()
		}
	}
}

func (s *Service) askPolicy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	err := s.deps.Index.CheckPolicy(ctx)
	s.redis.report(ctx, askWatch, err)
	return err
}

const (
	watchEvery   = 15 * time.Second
	redisTimeout = 10 * time.Second
	kafkaTimeout = 10 * time.Second
)

// watch keeps readiness and the lag true while nothing else asks.
func (s *Service) watch(ctx context.Context) {
	for run.Pause(ctx, watchEvery) {
		// A policy that has become wrong shows in the log and in /readyz; stopping would help nobody.
		if s.askPolicy(ctx) == nil {
			s.glance(ctx)
		}
		err := s.pingKafka(ctx)
		s.kafka.report(ctx, askWatch, err)
		if err == nil {
			s.kafka.report(ctx, askFetch, nil) // what fails again is reported again
		}
		var lag int64
		for _, sh := range s.owned() {
			lag += sh.lag()
		}
		s.deps.Metrics.ConsumerLag.Record(ctx, lag, s.lag)
	}
}

// glance asks one shard's index where it stands, and has all shards look where it has gone back: Redis loses all of them at
// once, and a shard with nothing to do looks by itself only once a minute.
func (s *Service) glance(ctx context.Context) {
	owned := s.owned()
	if len(owned) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, redisTimeout)
	defer cancel()
	at := owned[0].at()
	stored, err := s.deps.Index.Offset(ctx, owned[0].partition)
	if err == nil && at.following && stored < at.applied {
		for _, sh := range owned {
			sh.wakeUp()
		}
	}
}

func (s *Service) pingKafka(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, kafkaTimeout)
	defer cancel()
	if err := s.marker.Ping(ctx); err != nil {
		return fmt.Errorf("ping kafka: %w", err)
	}
	return nil
}

// drain waits for what was taken to fire.
func (s *Service) drain() {
	for _, sh := range s.owned() {
		sh.stop()
	}
	for _, sh := range s.owned() {
		if !waitFor(s.work, &sh.busy) {
			s.log.WarnContext(s.work, "stopped before everything that was taken to fire was marked: it may fire again", "partition", sh.partition)
		}
	}
}

// keepBusy runs f for a shard, in the books of the shard and of the service.
func (s *Service) keepBusy(sh *shard, f func()) {
	s.busy.Add(1)
	sh.busy.Go(func() {
		defer s.busy.Done()
		f()
	})
}

func (s *Service) owned() []*shard {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*shard, 0, len(s.shards))
	for _, sh := range s.shards {
		list = append(list, sh)
	}
	return list
}

// waitFor waits for a group until ctx ends, and reports whether it is done. The goroutine it leaves behind ends with the
// group.
func waitFor(ctx context.Context, group *sync.WaitGroup) bool {
	done := make(chan struct{})
	go func() {
		defer close(done)
		group.Wait()
	}()
	select {
	case <-done:
		return true
	case <-ctx.Done():
		return false
	}
}
