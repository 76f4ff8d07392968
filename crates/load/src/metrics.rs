//! Prometheus metrics. The names are public.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// Records written, by `topic`.
pub const RECORDS: &str = "doseline_load_records_total";
/// Rows written to all tables, by `topic`.
pub const ROWS: &str = "doseline_load_rows_total";
/// Batches written, by `topic`.
pub const BATCHES: &str = "doseline_load_batches_total";
/// Events that were stored already.
pub const DUPLICATES: &str = "doseline_load_duplicates_total";
/// Events with other content than the stored event of the same boot and sequence number.
pub const CONFLICTS: &str = "doseline_load_conflicts_total";
/// Repeated events that could not be compared with the stored ones: those were deleted since, or
/// could not be read.
pub const UNVERIFIED: &str = "doseline_load_unverified_duplicates_total";
/// Records and events put into quarantine by the loader, by `reason`.
pub const REJECTED: &str = "doseline_load_rejected_total";
/// Fields and enum values this version does not know.
pub const UNKNOWN_FIELDS: &str = "doseline_load_unknown_fields_total";
/// Age of the oldest record that is not written, seconds: since it was polled, or since it could
/// not be read.
pub const OLDEST_UNWRITTEN_SECONDS: &str = "doseline_load_oldest_unwritten_seconds";
/// Records in Kafka that are not written, by `topic` and `partition`.
pub const LAG: &str = "doseline_load_lag_records";
/// Time for which nothing of a partition was read although Kafka has more, seconds, by `topic` and
/// `partition`; 0 while it is read.
pub const STANDING_SECONDS: &str = "doseline_load_standing_seconds";
/// Time since an upkeep task last succeeded, seconds, by `task`.
pub const UPKEEP_SECONDS: &str = "doseline_load_upkeep_seconds";
/// Errors of the consumer, by `error`.
pub const KAFKA_ERRORS: &str = "doseline_load_kafka_errors_total";
/// Time from the bridge's receipt of a batch's first record to its commit, seconds.
pub const LATENCY_SECONDS: &str = "doseline_load_latency_seconds";
/// Owners that ended because another loader had written further.
pub const OVERTAKEN: &str = "doseline_load_overtaken_total";
/// Records that Kafka had deleted before they were written, or that could not be read, by `topic`.
pub const LOST: &str = "doseline_load_lost_records_total";
/// Bytes of records in memory.
pub const MEMORY_BYTES: &str = "doseline_load_memory_bytes";
/// Partitions this loader owns.
pub const PARTITIONS: &str = "doseline_load_partitions";

/// Rows in quarantine, in the whole warehouse.
pub const QUARANTINE_ROWS: &str = "doseline_load_quarantine_rows";
/// Bytes of payloads in quarantine, in the whole warehouse.
pub const QUARANTINE_BYTES: &str = "doseline_load_quarantine_bytes";
/// For how long a partition has stood still that this loader does not read, the longest, s: no
/// loader has written anything of it although Kafka has more.
pub const ELSEWHERE_SECONDS: &str = "doseline_load_standing_elsewhere_seconds";
/// Rows in quarantine that have not been replayed, in the whole warehouse.
pub const QUARANTINE_WAITING: &str = "doseline_load_quarantine_waiting_rows";
/// How far the quarantine's limits are used, by `limit` (`rows`, `mib`, `age`); alarm at 0.8 and
/// at 1.
pub const QUARANTINE_LIMIT_RATIO: &str = "doseline_load_quarantine_limit_ratio";

/// Every name.
pub const ALL: [&str; 23] = [
    RECORDS,
    ROWS,
    BATCHES,
    DUPLICATES,
    CONFLICTS,
    UNVERIFIED,
    REJECTED,
    UNKNOWN_FIELDS,
    OLDEST_UNWRITTEN_SECONDS,
    LAG,
    STANDING_SECONDS,
    ELSEWHERE_SECONDS,
    UPKEEP_SECONDS,
    KAFKA_ERRORS,
    LATENCY_SECONDS,
    OVERTAKEN,
    LOST,
    MEMORY_BYTES,
    PARTITIONS,
    QUARANTINE_ROWS,
    QUARANTINE_BYTES,
    QUARANTINE_WAITING,
    QUARANTINE_LIMIT_RATIO,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TopicLabel {
    pub topic: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct PartitionLabel {
    pub topic: String,
    pub partition: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct TaskLabel {
    pub task: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ErrorLabel {
    pub error: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ReasonLabel {
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct LimitLabel {
    pub limit: &'static str,
}

/// The metrics of one loader.
pub(crate) struct Metrics {
    registry: Registry,
    pub records: Family<TopicLabel, Counter>,
    pub rows: Family<TopicLabel, Counter>,
    pub batches: Family<TopicLabel, Counter>,
    pub duplicates: Counter,
    pub conflicts: Counter,
    pub unverified: Counter,
    pub rejected: Family<ReasonLabel, Counter>,
    pub unknown_fields: Counter,
    pub oldest_unwritten: Gauge<f64, AtomicU64>,
    pub lag: Family<PartitionLabel, Gauge>,
    pub standing: Family<PartitionLabel, Gauge<f64, AtomicU64>>,
    pub elsewhere: Gauge<f64, AtomicU64>,
    pub upkeep: Family<TaskLabel, Gauge<f64, AtomicU64>>,
    pub kafka_errors: Family<ErrorLabel, Counter>,
    pub latency: Histogram,
    pub overtaken: Counter,
    pub lost: Family<TopicLabel, Counter>,
    pub memory: Gauge,
    pub partitions: Gauge,
    pub quarantine_rows: Gauge,
    pub quarantine_bytes: Gauge,
    pub quarantine_waiting: Gauge,
    pub quarantine_limit_ratio: Family<LimitLabel, Gauge<f64, AtomicU64>>,
}

impl Metrics {
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            records: Family::default(),
            rows: Family::default(),
            batches: Family::default(),
            duplicates: Counter::default(),
            conflicts: Counter::default(),
            unverified: Counter::default(),
            rejected: Family::default(),
            unknown_fields: Counter::default(),
            oldest_unwritten: Gauge::default(),
            lag: Family::default(),
            standing: Family::default(),
            elsewhere: Gauge::default(),
            upkeep: Family::default(),
            kafka_errors: Family::default(),
            // 16 ms .. 9 min.
            latency: Histogram::new(exponential_buckets(0.016, 2.0, 16)),
            overtaken: Counter::default(),
            lost: Family::default(),
            memory: Gauge::default(),
            partitions: Gauge::default(),
            quarantine_rows: Gauge::default(),
            quarantine_bytes: Gauge::default(),
            quarantine_waiting: Gauge::default(),
            quarantine_limit_ratio: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        // The encoder adds `_total` to counters itself.
        let counter = |name: &'static str| name.strip_suffix("_total").unwrap_or(name);
        registry.register(counter(RECORDS), "Records written", self.records.clone());
        registry.register(counter(ROWS), "Rows written to all tables", self.rows.clone());
        registry.register(counter(BATCHES), "Batches written", self.batches.clone());
        registry.register(counter(DUPLICATES), "Events that were there already", self.duplicates.clone());
        let help = "Events with another content than the stored one";
        registry.register(counter(CONFLICTS), help, self.conflicts.clone());
        let help = "Events that arrived again and could not be compared with the stored ones";
        registry.register(counter(UNVERIFIED), help, self.unverified.clone());
        registry.register(counter(REJECTED), "Records and events put into quarantine", self.rejected.clone());
        let help = "Fields and enum values this version does not know";
        registry.register(counter(UNKNOWN_FIELDS), help, self.unknown_fields.clone());
        let help = "Age of the oldest record that is not written";
        registry.register(OLDEST_UNWRITTEN_SECONDS, help, self.oldest_unwritten.clone());
        let help = "Time for which nothing was read although Kafka has more";
        registry.register(STANDING_SECONDS, help, self.standing.clone());
        let help = "Time for which no loader has written a partition that is not read here, although Kafka has more";
        registry.register(ELSEWHERE_SECONDS, help, self.elsewhere.clone());
        let help = "Time since a task beside the loading last succeeded";
        registry.register(UPKEEP_SECONDS, help, self.upkeep.clone());
        registry.register(counter(KAFKA_ERRORS), "Errors that the consumer was told of", self.kafka_errors.clone());
        registry.register(LAG, "Records in Kafka that are not written", self.lag.clone());
        let help = "Time from the bridge's receipt of a batch's first record to its commit";
        registry.register(LATENCY_SECONDS, help, self.latency.clone());
        let help = "Owners that ended because another loader had written further";
        registry.register(counter(OVERTAKEN), help, self.overtaken.clone());
        let help = "Records that Kafka had deleted before they were written, or that could not be read";
        registry.register(counter(LOST), help, self.lost.clone());
        registry.register(MEMORY_BYTES, "Bytes of records in memory", self.memory.clone());
        registry.register(PARTITIONS, "Partitions this loader owns", self.partitions.clone());
        registry.register(QUARANTINE_ROWS, "Rows in quarantine", self.quarantine_rows.clone());
        registry.register(QUARANTINE_BYTES, "Bytes of payloads in quarantine", self.quarantine_bytes.clone());
        let help = "Rows in quarantine that have not been replayed";
        registry.register(QUARANTINE_WAITING, help, self.quarantine_waiting.clone());
        let help = "How far a limit of the quarantine is used, 1 = reached";
        registry.register(QUARANTINE_LIMIT_RATIO, help, self.quarantine_limit_ratio.clone());
    }

    /// All metrics in the OpenMetrics text format.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_exposed() {
        let metrics = Metrics::new();
        let topic = TopicLabel { topic: "t".to_owned() };
        for family in [&metrics.records, &metrics.rows, &metrics.batches, &metrics.lost] {
            family.get_or_create(&topic).inc();
        }
        metrics.rejected.get_or_create(&ReasonLabel { reason: "implausible" }).inc();
        metrics.lag.get_or_create(&PartitionLabel { topic: "t".to_owned(), partition: 3 }).set(7);
        metrics.standing.get_or_create(&PartitionLabel { topic: "t".to_owned(), partition: 3 }).set(7.0);
        metrics.kafka_errors.get_or_create(&ErrorLabel { error: "BadMessage".to_owned() }).inc();
        metrics.upkeep.get_or_create(&TaskLabel { task: "rollup" }).set(7.0);
        metrics.latency.observe(0.3);
        metrics.quarantine_limit_ratio.get_or_create(&LimitLabel { limit: "rows" }).set(0.5);
        let text = metrics.text();
        for name in ALL {
            let exposed = text.lines().any(|line| {
                let sample = line.split([' ', '{']).next().unwrap_or_default();
                sample == name || sample.strip_suffix("_count") == Some(name)
            });
            assert!(exposed, "{name} is not in\n{text}");
        }
        assert!(text.contains("doseline_load_lag_records{topic=\"t\",partition=\"3\"} 7"), "{text}");
    }
}
