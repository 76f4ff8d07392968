//! Whether data moves, and how much.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    batch::Written,
    clock::Clock,
    metrics::{LimitLabel, Metrics, PartitionLabel, ReasonLabel, TopicLabel},
    options::Limits,
};

/// Why the loader is not ready.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Obstacle {
    /// What it concerns: `kafka` or `clickhouse`.
    pub part: &'static str,
    /// What is wrong, for a person.
    pub reason: String,
}

/// Whether the loader is ready, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Readiness {
    /// Whether data moves.
    pub ready: bool,
    /// What is in the way; empty when ready.
    pub obstacles: Vec<Obstacle>,
}

/// What a loader says about itself. Clones share it.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    limits: Limits,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    meters: Mutex<BTreeMap<(String, i32), Arc<Meter>>>,
    kafka: Mutex<Option<String>>,
    clickhouse: Mutex<Option<String>>,
}

/// What is known of one partition.
pub struct Meter {
    handle: Handle,
    topic: String,
    partition: i32,
    /// Boot clock of the oldest unwritten record, us; [`NONE`] without one.
    oldest_us: AtomicU64,
    /// Offset the next batch starts at.
    position: AtomicU64,
    /// End of the partition in Kafka, as far as known; negative = not yet.
    high: AtomicI64,
}

const NONE: u64 = u64::MAX;

impl Handle {
    /// A handle for one loader; it is not ready before the loader has looked at its topics.
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let starting = Some("not connected yet".to_owned());
        Self(Arc::new(Inner {
            limits,
            clock,
            metrics: Metrics::new(),
            meters: Mutex::default(),
            kafka: Mutex::new(starting.clone()),
            clickhouse: Mutex::new(starting),
        }))
    }

    /// The meter of a partition that this loader begins to own.
    pub(crate) fn meter(&self, topic: &str, partition: i32, position: u64) -> Arc<Meter> {
        let meter = Arc::new(Meter {
            handle: self.clone(),
            topic: topic.to_owned(),
            partition,
            oldest_us: AtomicU64::new(NONE),
            position: AtomicU64::new(position),
            high: AtomicI64::new(-1),
        });
        lock(&self.0.meters).insert((topic.to_owned(), partition), meter.clone());
        meter
    }

    /// A partition is owned no more.
    pub(crate) fn remove(&self, topic: &str, partition: i32) {
        lock(&self.0.meters).remove(&(topic.to_owned(), partition));
        let label = PartitionLabel { topic: topic.to_owned(), partition };
        self.0.metrics.lag.remove(&label);
    }

    /// The end of a partition in Kafka.
    pub(crate) fn high(&self, topic: &str, partition: i32, offset: i64) {
        if let Some(meter) = lock(&self.0.meters).get(&(topic.to_owned(), partition)) {
            meter.high.store(offset, Ordering::Relaxed);
        }
    }

    /// Trouble with Kafka, or its end; whether that is new.
    pub(crate) fn kafka(&self, trouble: Option<&str>) -> bool {
        replace(&self.0.kafka, trouble)
    }

    /// What is waited for from ClickHouse before a partition can be read; whether that is new.
    pub(crate) fn clickhouse(&self, trouble: Option<&str>) -> bool {
        replace(&self.0.clickhouse, trouble)
    }

    /// What the quarantine of the warehouse holds: rows, bytes, rows that wait, and how far each limit is used.
    pub fn quarantine(&self, rows: u64, bytes: u64, waiting: u64, limits: &[(&'static str, f64)]) {
        let (metrics, gauge) = (&self.0.metrics, |value: u64| i64::try_from(value).unwrap_or(i64::MAX));
        metrics.quarantine_rows.set(gauge(rows));
        metrics.quarantine_bytes.set(gauge(bytes));
        metrics.quarantine_waiting.set(gauge(waiting));
        for (limit, ratio) in limits {
            metrics.quarantine_limit_ratio.get_or_create(&LimitLabel { limit }).set(*ratio);
        }
    }

    pub(crate) fn overtaken(&self) {
        self.0.metrics.overtaken.inc();
    }

    /// Whether data moves.
    pub fn readiness(&self) -> Readiness {
        let obstacle = |part, reason| Obstacle { part, reason };
        let mut obstacles = Vec::new();
        obstacles.extend(lock(&self.0.kafka).clone().map(|reason| obstacle("kafka", reason)));
        obstacles.extend(lock(&self.0.clickhouse).clone().map(|reason| obstacle("clickhouse", reason)));
        let (age, limit) = (self.oldest_age(), self.0.limits.unwritten_age_max);
        if age > limit {
            let (age, limit) = (age.as_secs(), limit.as_secs());
            obstacles.push(obstacle(
                "clickhouse",
                format!("the oldest unwritten record has waited {age} s, limit {limit} s"),
            ));
        }
        Readiness { ready: obstacles.is_empty(), obstacles }
    }

    /// All metrics in the OpenMetrics text format.
    pub fn metrics(&self) -> String {
        let metrics = &self.0.metrics;
        metrics.oldest_unwritten.set(self.oldest_age().as_secs_f64());
        let meters = lock(&self.0.meters);
        metrics.partitions.set(meters.len() as i64);
        for meter in meters.values() {
            let label = PartitionLabel { topic: meter.topic.clone(), partition: meter.partition };
            let (high, position) = (meter.high.load(Ordering::Relaxed), meter.position.load(Ordering::Relaxed));
            let lag = high.saturating_sub(i64::try_from(position).unwrap_or(i64::MAX)).max(0);
            metrics.lag.get_or_create(&label).set(lag);
        }
        drop(meters);
        metrics.text()
    }

    /// Age of the oldest record that was read and is not written.
    pub fn oldest_age(&self) -> Duration {
        let oldest = lock(&self.0.meters).values().map(|meter| meter.oldest_us.load(Ordering::Relaxed)).min();
        match oldest {
            None | Some(NONE) => Duration::ZERO,
            Some(oldest) => self.0.clock.boot().saturating_sub(Duration::from_micros(oldest)),
        }
    }
}

impl Meter {
    /// A batch has begun with a record that was polled at this time.
    pub(crate) fn waiting(&self, polled: Duration) {
        self.oldest_us.store(u64::try_from(polled.as_micros()).unwrap_or(NONE - 1), Ordering::Relaxed);
    }

    /// A batch is written up to `position`.
    pub(crate) fn written(&self, written: &Written, position: u64, now_unix_us: i64) {
        self.oldest_us.store(NONE, Ordering::Relaxed);
        self.position.store(position, Ordering::Relaxed);
        let metrics = &self.handle.0.metrics;
        let topic = TopicLabel { topic: self.topic.clone() };
        metrics.records.get_or_create(&topic).inc_by(written.counts.records);
        metrics.rows.get_or_create(&topic).inc_by(written.blocks.iter().map(warehouse::columns::Block::rows).sum());
        metrics.batches.get_or_create(&topic).inc();
        metrics.duplicates.inc_by(written.counts.duplicates);
        metrics.unknown_fields.inc_by(written.counts.unknown);
        for refusal in &written.refusals {
            metrics.rejected.get_or_create(&ReasonLabel { reason: refusal.reason.as_str() }).inc();
        }
        if let Some(received_at) = written.counts.first_received_at {
            metrics.latency.observe((now_unix_us - received_at).max(0) as f64 / 1e6);
        }
    }
}

fn replace(state: &Mutex<Option<String>>, trouble: Option<&str>) -> bool {
    let mut state = lock(state);
    let new = state.as_deref() != trouble;
    if new {
        *state = trouble.map(str::to_owned);
    }
    new
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half-changed by a panic under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
