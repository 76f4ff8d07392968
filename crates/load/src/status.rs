//! The state of a loader: readiness with its obstacles, and metrics of each partition.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use service::{
    health::{Obstacle, Readiness, Role},
    lock,
};

use crate::{
    batch::{PreparedBatch, Refusal},
    clock::Clock,
    inbox::{Budget, Record},
    metrics::{ErrorLabel, LimitLabel, Metrics, PartitionLabel, ReasonLabel, TaskLabel, TopicLabel},
    options::Limits,
    partition::Key,
    unread::{UnreadPartition, owned},
};
use warehouse::columns::LossCause;

/// What a loader says about itself. Clones share it.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    limits: Limits,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    meters: Mutex<BTreeMap<(String, i32), Arc<Meter>>>,
    kafka: Mutex<Option<String>>,
    /// Partitions that are not read although Kafka has more.
    standing: Mutex<BTreeMap<(String, i32), UnreadPartition>>,
    /// Partitions that stand still and that this loader does not read.
    elsewhere: Mutex<BTreeMap<(String, i32), UnreadPartition>>,
    /// Boot clock of the latest sign of life of the polling thread, us; [`NONE`] while there is
    /// none.
    polled_us: AtomicU64,
    /// Boot clock at which the consumer left its group or failed to join, and its state.
    outside: Mutex<Option<(Duration, String)>>,
    /// The latest error of the consumer, and its time on the boot clock.
    error: Mutex<Option<(Duration, String)>>,
    clickhouse: Mutex<Option<String>>,
    /// The latest loss: the time on the boot clock at which it was found, and its description.
    loss: Mutex<Option<(Duration, String)>>,
    /// For each upkeep task: the boot clock of its last success, and its error since.
    upkeep: Mutex<BTreeMap<&'static str, (Duration, Option<String>)>>,
    /// How long Kafka keeps the records of each topic. Topics that it keeps for ever are left out.
    retentions: Mutex<BTreeMap<String, Duration>>,
    budget: Budget,
}

/// The state of one partition.
pub struct Meter {
    handle: Handle,
    topic: String,
    partition: i32,
    /// Boot clock of the oldest unwritten record, us; [`NONE`] without one.
    oldest_us: AtomicU64,
    /// Kafka's time of the oldest unwritten record, us since 1970; 0 without one.
    oldest_timestamp: AtomicI64,
    /// Offset at which the next batch starts.
    position: AtomicU64,
    /// End of the partition in Kafka; negative = not known yet.
    high: AtomicI64,
}

const NONE: u64 = u64::MAX;
/// How often the same error of the consumer is logged.
const ERROR_TOLD_EVERY: Duration = Duration::from_secs(60);
/// So many partitions that another loader should read are shown.
const ELSEWHERE_SHOWN: usize = 8;
/// A task beside the loading that has not succeeded for so long is an obstacle: rollups are late,
/// limits are not looked at.
const UPKEEP_WITHIN: Duration = Duration::from_secs(3_600);

impl Handle {
    /// A handle for one loader. It is not ready before the loader has checked its topics.
    pub fn new(limits: Limits, clock: Arc<dyn Clock>) -> Self {
        let starting = Some("not connected yet".to_owned());
        Self(Arc::new(Inner {
            limits,
            clock,
            metrics: Metrics::new(),
            meters: Mutex::default(),
            kafka: Mutex::new(starting.clone()),
            standing: Mutex::default(),
            elsewhere: Mutex::default(),
            polled_us: AtomicU64::new(NONE),
            outside: Mutex::default(),
            error: Mutex::default(),
            clickhouse: Mutex::new(starting),
            loss: Mutex::default(),
            upkeep: Mutex::default(),
            retentions: Mutex::default(),
            budget: Budget::default(),
        }))
    }

    /// The budget that records in memory count against.
    pub(crate) fn budget(&self) -> &Budget {
        &self.0.budget
    }

    /// Reports records of Kafka that will never be written: a person must act.
    pub(crate) fn lost(&self, topic: &str, partition: i32, from: u64, to: u64, why: LossCause) {
        let last = to.saturating_sub(1);
        let text = match why {
            LossCause::Deleted => format!(
                "kafka has deleted records {from} to {last} of topic {topic}, partition {partition}, before they were written; \
                 see kafka_losses"
            ),
            LossCause::Unreadable => format!(
                "records {from} to {last} of topic {topic}, partition {partition}, could not be read and were given up; see \
                 kafka_losses"
            ),
        };
        tracing::error!(topic, partition, from, to, ?why, "records of kafka are lost");
        *lock(&self.0.loss) = Some((self.0.clock.since_host_boot(), text));
    }

    /// How long Kafka keeps the records of each topic.
    pub(crate) fn retentions(&self, retentions: BTreeMap<String, Duration>) {
        *lock(&self.0.retentions) = retentions;
    }

    /// The meter of a partition that gets an owner.
    pub(crate) fn meter(&self, topic: &str, partition: i32, position: u64) -> Arc<Meter> {
        let meter = Arc::new(Meter {
            handle: self.clone(),
            topic: topic.to_owned(),
            partition,
            oldest_us: AtomicU64::new(NONE),
            oldest_timestamp: AtomicI64::new(0),
            position: AtomicU64::new(position),
            high: AtomicI64::new(-1),
        });
        lock(&self.0.meters).insert((topic.to_owned(), partition), meter.clone());
        meter
    }

    /// Removes a partition that no longer has an owner.
    pub(crate) fn remove(&self, topic: &str, partition: i32) {
        lock(&self.0.meters).remove(&(topic.to_owned(), partition));
        lock(&self.0.standing).remove(&(topic.to_owned(), partition));
        let label = PartitionLabel { topic: topic.to_owned(), partition };
        self.0.metrics.lag.remove(&label);
        self.0.metrics.standing.remove(&label);
    }

    /// The end of a partition in Kafka.
    pub(crate) fn high(&self, topic: &str, partition: i32, offset: i64) {
        if let Some(meter) = lock(&self.0.meters).get(&(topic.to_owned(), partition)) {
            meter.high.store(offset, Ordering::Relaxed);
        }
    }

    /// Sets or clears where a partition is not read.
    pub(crate) fn standing(&self, key: &Key, standing: Option<UnreadPartition>) {
        let mut known = lock(&self.0.standing);
        match standing {
            Some(standing) => drop(known.insert(owned(key), standing)),
            None => drop(known.remove(&owned(key))),
        }
    }

    /// The partitions that this loader reads.
    pub(crate) fn partitions(&self) -> BTreeSet<(String, i32)> {
        lock(&self.0.meters).keys().cloned().collect()
    }

    /// Now, on the boot clock.
    pub(crate) fn now(&self) -> Duration {
        self.0.clock.since_host_boot()
    }

    /// Where partitions stand still that this loader does not read.
    pub(crate) fn elsewhere(&self, standing: BTreeMap<(String, i32), UnreadPartition>) {
        *lock(&self.0.elsewhere) = standing;
    }

    /// A sign of life of the polling thread, on the boot clock, or its end.
    pub(crate) fn polling(&self, at: Option<Duration>) {
        let at = at.map_or(NONE, |at| u64::try_from(at.as_micros()).unwrap_or(NONE - 1));
        self.0.polled_us.store(at, Ordering::Relaxed);
    }

    /// Notes the state of a consumer that is not in its group; `None` for a member.
    pub(crate) fn outside(&self, state: Option<String>) {
        let mut outside = lock(&self.0.outside);
        *outside =
            state.map(|state| (outside.as_ref().map_or(self.0.clock.since_host_boot(), |(since, _)| *since), state));
    }

    /// Counts an error of the consumer. Returns whether to log it: it differs from the latest, or
    /// the latest was logged long ago.
    pub(crate) fn consumer_error(&self, code: String, reason: &str) -> bool {
        self.0.metrics.kafka_errors.get_or_create(&ErrorLabel { error: code }).inc();
        let (now, mut latest) = (self.0.clock.since_host_boot(), lock(&self.0.error));
        let repeated = |(at, text): &(Duration, String)| text == reason && now.saturating_sub(*at) < ERROR_TOLD_EVERY;
        if latest.as_ref().is_some_and(repeated) {
            return false;
        }
        *latest = Some((now, reason.to_owned()));
        true
    }

    /// Sets or clears the trouble with Kafka. Returns whether that is new.
    pub(crate) fn kafka(&self, trouble: Option<&str>) -> bool {
        replace(&self.0.kafka, trouble)
    }

    /// Sets or clears what a partition waits for from ClickHouse. Returns whether that is new.
    pub(crate) fn clickhouse(&self, trouble: Option<&str>) -> bool {
        replace(&self.0.clickhouse, trouble)
    }

    /// Sets the metrics of the quarantine: rows, bytes, rows not replayed yet, and the used part of
    /// each limit.
    pub fn quarantine(&self, rows: u64, bytes: u64, waiting: u64, limits: &[(&'static str, f64)]) {
        let (metrics, gauge) = (&self.0.metrics, |value: u64| i64::try_from(value).unwrap_or(i64::MAX));
        metrics.quarantine_rows.set(gauge(rows));
        metrics.quarantine_bytes.set(gauge(bytes));
        metrics.quarantine_waiting.set(gauge(waiting));
        for (limit, ratio) in limits {
            metrics.quarantine_limit_ratio.get_or_create(&LimitLabel { limit }).set(*ratio);
        }
    }

    /// Notes that an upkeep task has begun or succeeded, or why it failed.
    pub fn upkeep(&self, task: &'static str, trouble: Option<String>) {
        let (now, mut upkeep) = (self.0.clock.since_host_boot(), lock(&self.0.upkeep));
        match trouble {
            None => drop(upkeep.insert(task, (now, None))),
            Some(trouble) => upkeep.entry(task).or_insert((now, None)).1 = Some(trouble),
        }
    }

    pub(crate) fn overtaken(&self) {
        self.0.metrics.overtaken.inc();
    }

    /// Whether the loader is ready, and if not, why.
    pub fn readiness(&self) -> Readiness {
        let obstacle = |part, reason| Obstacle { part, reason };
        let mut obstacles = Vec::new();
        obstacles.extend(lock(&self.0.kafka).clone().map(|reason| obstacle("kafka", reason)));
        obstacles.extend(lock(&self.0.clickhouse).clone().map(|reason| obstacle("clickhouse", reason)));
        let (age, limit) = (self.unwritten_age(), self.0.limits.unwritten_age_max);
        if age > limit {
            let (age, limit) = (age.as_secs(), limit.as_secs());
            obstacles.push(obstacle(
                "clickhouse",
                format!("the oldest unwritten record has waited {age} s, limit {limit} s"),
            ));
        }
        obstacles.extend(self.still(limit).into_iter().map(|reason| obstacle("kafka", reason)));
        obstacles.extend(self.not_read(limit).into_iter().map(|reason| obstacle("kafka", reason)));
        for (task, (at, trouble)) in lock(&self.0.upkeep).iter() {
            let age = self.0.clock.since_host_boot().saturating_sub(*at);
            if age > UPKEEP_WITHIN {
                let cause = trouble.as_ref().map(|trouble| format!(": {trouble}")).unwrap_or_default();
                let reason = format!("{task} has not succeeded for {} s{cause}", age.as_secs());
                obstacles.push(obstacle("clickhouse", reason));
            }
        }
        obstacles.extend(self.retention_used().map(|reason| obstacle("kafka", reason)));
        if let Some((found, reason)) = lock(&self.0.loss).clone()
            && self.0.clock.since_host_boot().saturating_sub(found) <= self.0.limits.loss_shown
        {
            obstacles.push(obstacle("kafka", reason));
        }
        Readiness::of(obstacles)
    }

    /// Partitions, and the polling thread, that do not read. They are reported after half the
    /// limit: a check of the partitions may take the other half.
    fn still(&self, limit: Duration) -> Vec<String> {
        let (now, limit) = (self.0.clock.since_host_boot(), limit / 2);
        let mut reasons = Vec::new();
        for ((topic, partition), standing) in lock(&self.0.standing).iter() {
            let age = now.saturating_sub(standing.since);
            if standing.why.is_some() || age > limit {
                reasons.push(standing.text((topic, *partition), age));
            }
        }
        let polled = self.0.polled_us.load(Ordering::Relaxed);
        let silent = now.saturating_sub(Duration::from_micros(polled));
        if polled != NONE && silent > limit {
            reasons.push(format!("the thread that reads from kafka has not polled for {} s", silent.as_secs()));
        }
        if let Some((since, state)) = lock(&self.0.outside).as_ref()
            && now.saturating_sub(*since) > limit
        {
            let error = lock(&self.0.error).as_ref().map(|(_, error)| format!("; latest error: {error}"));
            reasons.push(format!(
                "no member of the consumer group (load.group) for {} s, so it has no partitions: {state}{}",
                now.saturating_sub(*since).as_secs(),
                error.unwrap_or_default()
            ));
        }
        reasons
    }

    /// The partitions that have stood still for longest without being read here. They are looked at
    /// every 10 s, and so are told within the limit.
    fn not_read(&self, limit: Duration) -> Vec<String> {
        let (now, elsewhere) = (self.0.clock.since_host_boot(), lock(&self.0.elsewhere));
        let age = |standing: &UnreadPartition| now.saturating_sub(standing.since);
        let mut old: Vec<_> = elsewhere.iter().filter(|(_, standing)| age(standing) > limit * 3 / 4).collect();
        old.sort_by_key(|(_, standing)| standing.since);
        let text = |((topic, partition), standing): &(&(String, i32), &UnreadPartition)| {
            format!(
                "nothing of topic {topic}, partition {partition}, has been written for {} s from offset {} on{}, and this loader does \
             not read it: look at the brokers, and at the other loaders of the consumer group (load.group); where none of them \
             reads it, start this loader again",
                age(standing).as_secs(),
                standing.next,
                match (standing.high, &standing.why) {
                    (Some(high), _) => format!(" though kafka has records up to {}", high.saturating_sub(1)),
                    (None, why) => format!(": {}", why.as_deref().unwrap_or("kafka gives no reason")),
                }
            )
        };
        old.iter().take(ELSEWHERE_SHOWN).map(text).collect()
    }

    /// The partition whose oldest unwritten record has used up most of its retention, if that is
    /// half of it or more.
    fn retention_used(&self) -> Option<String> {
        let now = self.0.clock.unix_us();
        let (retentions, meters) = (lock(&self.0.retentions), lock(&self.0.meters));
        let used = meters.values().filter_map(|meter| {
            let oldest = meter.oldest_timestamp.load(Ordering::Relaxed);
            let age = Duration::from_micros(u64::try_from(now.checked_sub(oldest)?).ok()?);
            let retention = *retentions.get(&meter.topic).filter(|_| oldest > 0)?;
            (age * 2 >= retention).then(|| (retention.saturating_sub(age), age, retention, meter.clone()))
        });
        let (left, age, retention, meter) = used.min_by_key(|(left, ..)| *left)?;
        let hours = |time: Duration| time.as_secs() / 3_600;
        Some(format!(
            "the oldest unwritten record of topic {}, partition {}, is {} h old: half of kafka's retention of {} h is used up, \
             it is deleted in {} h",
            meter.topic,
            meter.partition,
            hours(age),
            hours(retention),
            hours(left)
        ))
    }

    /// All metrics in the OpenMetrics text format.
    pub fn metrics(&self) -> String {
        let metrics = &self.0.metrics;
        metrics.oldest_unwritten.set(self.oldest_age().as_secs_f64());
        metrics.memory.set(i64::try_from(self.0.budget.used()).unwrap_or(i64::MAX));
        for (task, (at, _)) in lock(&self.0.upkeep).iter() {
            let age = self.0.clock.since_host_boot().saturating_sub(*at).as_secs_f64();
            metrics.upkeep.get_or_create(&TaskLabel { task }).set(age);
        }
        let elsewhere = lock(&self.0.elsewhere).values().map(|standing| standing.since).min();
        let stood = elsewhere.map_or(0.0, |since| self.0.clock.since_host_boot().saturating_sub(since).as_secs_f64());
        metrics.elsewhere.set(stood);
        let meters = lock(&self.0.meters);
        metrics.partitions.set(meters.len() as i64);
        for meter in meters.values() {
            let label = PartitionLabel { topic: meter.topic.clone(), partition: meter.partition };
            let (high, position) = (meter.high.load(Ordering::Relaxed), meter.position.load(Ordering::Relaxed));
            let lag = high.saturating_sub(i64::try_from(position).unwrap_or(i64::MAX)).max(0);
            metrics.lag.get_or_create(&label).set(lag);
            let standing = lock(&self.0.standing).get(&(meter.topic.clone(), meter.partition)).map(|found| found.since);
            let stood =
                standing.map_or(0.0, |since| self.0.clock.since_host_boot().saturating_sub(since).as_secs_f64());
            metrics.standing.get_or_create(&label).set(stood);
        }
        drop(meters);
        metrics.text()
    }

    /// Age of the oldest record that is not written: since it was polled, or since it could not be
    /// read.
    pub fn oldest_age(&self) -> Duration {
        let since = lock(&self.0.standing).values().map(|standing| standing.since).min();
        let unread = since.map_or(Duration::ZERO, |since| self.0.clock.since_host_boot().saturating_sub(since));
        self.unwritten_age().max(unread)
    }

    /// Age of the oldest record that was read and is not written.
    fn unwritten_age(&self) -> Duration {
        let oldest = lock(&self.0.meters).values().map(|meter| meter.oldest_us.load(Ordering::Relaxed)).min();
        match oldest {
            None | Some(NONE) => Duration::ZERO,
            Some(oldest) => self.0.clock.since_host_boot().saturating_sub(Duration::from_micros(oldest)),
        }
    }
}

impl Meter {
    /// Notes the first record of a batch.
    pub(crate) fn waiting(&self, record: &Record) {
        self.oldest_us.store(u64::try_from(record.polled.as_micros()).unwrap_or(NONE - 1), Ordering::Relaxed);
        self.oldest_timestamp.store(record.timestamp, Ordering::Relaxed);
    }

    /// Notes a comparison of repeated events with the stored ones.
    pub(crate) fn compared(&self, conflicts: &[Refusal], unverified: u64) {
        let metrics = &self.handle.0.metrics;
        metrics.unverified.inc_by(unverified);
        let Some(first) = conflicts.first() else { return };
        metrics.conflicts.inc_by(conflicts.len() as u64);
        tracing::error!(
            topic = first.topic,
            conflicts = conflicts.len(),
            "two contents under one sequence number: a cloned device, or counters that were reset"
        );
    }

    /// Notes a batch that is written up to `position`. `lost` of its offsets had no readable
    /// record.
    pub(crate) fn written(&self, written: &PreparedBatch, lost: u64, position: u64, now_unix_us: i64) {
        self.oldest_us.store(NONE, Ordering::Relaxed);
        self.oldest_timestamp.store(0, Ordering::Relaxed);
        self.position.store(position, Ordering::Relaxed);
        let metrics = &self.handle.0.metrics;
        let topic = TopicLabel { topic: self.topic.clone() };
        metrics.records.get_or_create(&topic).inc_by(written.counts.records);
        metrics.rows.get_or_create(&topic).inc_by(written.blocks.iter().map(warehouse::columns::Block::rows).sum());
        metrics.batches.get_or_create(&topic).inc();
        if lost > 0 {
            metrics.lost.get_or_create(&topic).inc_by(lost);
        }
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

impl Role for Handle {
    fn readiness(&self) -> Readiness {
        Self::readiness(self)
    }

    fn metrics(&self) -> String {
        Self::metrics(self)
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    const NOW_US: i64 = 1_700_000_000_000_000;
    const HOUR_US: i64 = 3_600_000_000;

    impl Clock for Fixed {
        fn unix_us(&self) -> i64 {
            NOW_US
        }

        fn since_host_boot(&self) -> Duration {
            Duration::from_secs(10_000)
        }
    }

    fn serving(limits: Limits) -> Handle {
        let handle = Handle::new(limits, Arc::new(Fixed));
        handle.kafka(None);
        handle.clickhouse(None);
        handle.retentions([("t".to_owned(), Duration::from_secs(168 * 3_600))].into());
        handle
    }

    #[test]
    fn half_of_the_retention_is_an_obstacle() {
        let handle = serving(Limits::default());
        let record = |hours: i64| Record {
            timestamp: NOW_US - hours * HOUR_US,
            polled: Duration::from_secs(10_000),
            ..Record::default()
        };
        let (meter, unlimited) = (handle.meter("t", 3, 0), handle.meter("kept for ever", 0, 0));
        unlimited.waiting(&record(10_000));
        meter.waiting(&record(83));
        assert!(handle.readiness().ready, "{:?}", handle.readiness());
        meter.waiting(&record(85));
        let readiness = handle.readiness();
        assert!(!readiness.ready);
        assert_eq!(
            readiness.obstacles[0].reason,
            "the oldest unwritten record of topic t, partition 3, is 85 h old: half of kafka's retention of 168 h is used up, \
             it is deleted in 83 h"
        );
        // Without a time nothing can be said.
        meter.waiting(&Record { timestamp: 0, ..record(0) });
        assert!(handle.readiness().ready);
    }

    /// Also where nothing was ever delivered: each way names its place, and counts as age.
    #[test]
    fn what_stands_still_is_an_obstacle() {
        let limits = Limits { unwritten_age_max: Duration::from_secs(60), ..Limits::default() };
        let handle = serving(limits);
        let ago = |seconds: u64| Duration::from_secs(10_000 - seconds);
        let key: Key = (Arc::from("t"), 3);
        let standing_of = |next| UnreadPartition { next, since: ago(20), high: Some(12), why: None };
        let standing = standing_of(7);
        handle.standing(&key, Some(standing.clone()));
        assert!(handle.readiness().ready, "it may be about to come");
        assert_eq!(handle.oldest_age(), Duration::from_secs(20));
        handle.standing(&key, Some(UnreadPartition { why: Some("the broker refuses".to_owned()), ..standing.clone() }));
        let text = &handle.readiness().obstacles[0].reason;
        let named = ["topic t, partition 3", "offset 7", "up to 11", "the broker refuses", "unreadable_after_s"];
        assert!(named.iter().all(|part| text.contains(part)), "{text}");
        handle.standing(&key, Some(UnreadPartition { since: ago(31), ..standing }));
        assert!(!handle.readiness().ready);
        handle.standing(&key, None);
        assert!(handle.readiness().ready);

        // What no loader reads, with the oldest first.
        let elsewhere = |since: u64| UnreadPartition { since: ago(since), ..standing_of(7) };
        handle.elsewhere([(("t".to_owned(), 4), elsewhere(44)), (("u".to_owned(), 0), elsewhere(40))].into());
        assert!(handle.readiness().ready, "another loader may be about to read it");
        handle.elsewhere([(("t".to_owned(), 4), elsewhere(46)), (("u".to_owned(), 0), elsewhere(50))].into());
        let obstacles = handle.readiness().obstacles;
        assert!(obstacles[0].reason.contains("topic u, partition 0") && obstacles.len() == 2, "{obstacles:?}");
        let text = &obstacles[1].reason;
        let named = ["topic t, partition 4", "for 46 s", "offset 7", "up to 11", "does not read it", "load.group"];
        assert!(named.iter().all(|part| text.contains(part)), "{text}");
        assert!(handle.metrics().contains("doseline_load_standing_elsewhere_seconds 50.0"));
        handle.elsewhere(BTreeMap::new());
        assert!(handle.readiness().ready && handle.metrics().contains("doseline_load_standing_elsewhere_seconds 0.0"));

        handle.polling(Some(ago(31)));
        assert!(handle.readiness().obstacles[0].reason.contains("has not polled for 31 s"));
        handle.polling(None);
        handle.outside(Some("up, wait-join".to_owned()));
        assert!(handle.readiness().ready);
        if let Some((since, _)) = &mut *lock(&handle.0.outside) {
            *since = ago(31);
        }
        assert!(handle.consumer_error("x".to_owned(), "Group authorization failed"));
        assert!(!handle.consumer_error("x".to_owned(), "Group authorization failed"));
        let text = &handle.readiness().obstacles[0].reason;
        assert!(text.contains("up, wait-join; latest error: Group authorization failed"), "{text}");
        handle.outside(None);
        assert!(handle.readiness().ready);
    }

    #[test]
    fn upkeep_that_never_succeeds_is_an_obstacle() {
        let handle = serving(Limits::default());
        handle.upkeep("rollup", None);
        handle.upkeep("rollup", Some("memory limit exceeded".to_owned()));
        assert!(handle.readiness().ready);
        if let Some((at, _)) = lock(&handle.0.upkeep).get_mut("rollup") {
            *at = Duration::from_secs(10_000 - 3_601);
        }
        let text = &handle.readiness().obstacles[0].reason;
        assert_eq!(text, "rollup has not succeeded for 3601 s: memory limit exceeded");
        assert!(handle.metrics().contains("doseline_load_upkeep_seconds{task=\"rollup\"} 3601.0"));
        handle.upkeep("rollup", None);
        assert!(handle.readiness().ready);
    }

    #[test]
    fn a_loss_is_an_obstacle_for_a_while() {
        let handle = serving(Limits { loss_shown: Duration::from_secs(100), ..Limits::default() });
        assert!(handle.readiness().ready);
        handle.lost("t", 1, 5, 9, LossCause::Deleted);
        let readiness = handle.readiness();
        assert!(readiness.obstacles[0].reason.contains("records 5 to 8 of topic t, partition 1"), "{readiness:?}");
        if let Some((found, _)) = &mut *lock(&handle.0.loss) {
            *found = Duration::from_secs(10_000 - 101);
        }
        assert!(handle.readiness().ready);
    }
}
