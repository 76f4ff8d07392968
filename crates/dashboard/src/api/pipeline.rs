//! How far data has come: for administrators, since it belongs to no tenant. Reasons of the
//! quarantine are for the tenants of its rows.

use super::{
    endpoint::{Audience, Endpoint, Key, Parameter, Rows, Shape},
    row::row,
};

row! {
    /// How far a Kafka partition is written.
    pub struct Partition {
        /// Kafka topic
        topic: String,
        /// Incarnation of the topic
        incarnation: u32,
        /// Kafka partition
        kafka_partition: u32,
        /// Offset up to which batches are committed, exclusive
        position: u64,
        /// When the last batch was committed; UTC
        committed_at: String,
    }
}

row! {
    /// Offsets that were not written.
    pub struct KafkaLoss {
        /// Kafka topic
        topic: String,
        /// Incarnation of the topic
        incarnation: u32,
        /// Kafka partition
        kafka_partition: u32,
        /// First offset that was not written
        first_offset: u64,
        /// Last such offset, inclusive; null = not known
        last_offset: Option<u64>,
        /// RETENTION, UNREADABLE or TOPIC_MADE_AGAIN
        reason: String,
        /// When it was recorded; UTC
        lost_at: String,
    }
}

row! {
    /// When the monitor looked last.
    pub struct MonitorPass {
        /// Which half of the monitor
        reader: String,
        /// When it recorded its last pass; UTC
        recorded_at: String,
    }
}

/// Most minutes of a query: a day.
const MINUTES_MAX: usize = 1_440;

row! {
    /// A minute of the pipeline.
    pub struct Minute {
        /// Begin of the minute; UTC
        minute: String,
        /// Injections that the bridge received in it
        injections: u64,
        /// Rows of batches that were committed in it, of all tables
        events: u64,
        /// Time from the receipt of these injections until they could be queried, ms: median; null
        /// = none
        latency_p50_ms: Option<f64>,
        /// The same: 99 of 100 took no longer
        latency_p99_ms: Option<f64>,
        /// Messages and events that the bridge received in it and that went into quarantine
        quarantined: u64,
    }
}

row! {
    /// What is known of a role.
    pub struct Role {
        /// Role: bridge, load, monitor and others
        role: String,
        /// Monitor: which half; load: topic, incarnation and partition; empty = the role itself
        subject: String,
        /// FAULT (of a role in this process), PASSED (the monitor) or COMMITTED (load)
        state: String,
        /// Last pass or commit; UTC; null = not known
        since: Option<String>,
        /// The fault, or the position
        detail: String,
    }
}

row! {
    /// A reason of the quarantine.
    pub struct QuarantineReason {
        /// Why it was refused
        reason: String,
        /// Rows that are not replayed
        n: u64,
        /// When the latest of them was received; UTC
        latest_at: String,
    }
}

pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        path: "/pipeline/partitions",
        about: "How far each Kafka partition is written to ClickHouse",
        audience: Audience::Admins,
        parameters: &[],
        sql: "
            SELECT
                lives.topic AS topic, t.incarnation AS incarnation, toUInt32(t.kafka_partition) AS kafka_partition,
                max(t.batch_end) AS position, formatDateTime(max(t.committed_at), '%FT%T.%fZ') AS committed_at
            FROM loader_commits AS t
            INNER JOIN (SELECT DISTINCT incarnation, topic FROM kafka_topics) AS lives ON lives.incarnation = t.incarnation
            WHERE t.kind = 'commit' AND {where}
            GROUP BY lives.topic, t.incarnation, t.kafka_partition",
        shape: Shape::List { keys: &[Key::Text("topic"), Key::Number("incarnation"), Key::Number("kafka_partition")], newest_first: false },
        rows: Rows::of::<Partition>(),
    },
    Endpoint {
        path: "/pipeline/losses",
        about: "Records that Kafka confirmed and that were never written, the latest first",
        audience: Audience::Admins,
        parameters: &[],
        sql: "
            SELECT
                t.topic AS topic, t.incarnation AS incarnation, toUInt32(t.kafka_partition) AS kafka_partition,
                t.first_offset AS first_offset, t.last_offset AS last_offset, t.reason AS reason, formatDateTime(t.lost_at, '%FT%T.%fZ') AS lost_at
            FROM kafka_losses AS t
            WHERE {where}",
        shape: Shape::List { keys: &[Key::Text("lost_at"), Key::Text("topic"), Key::Number("incarnation"), Key::Number("kafka_partition"), Key::Number("first_offset")], newest_first: true },
        rows: Rows::of::<KafkaLoss>(),
    },
    Endpoint {
        path: "/pipeline/monitor",
        about: "When the monitor looked last",
        audience: Audience::Admins,
        parameters: &[],
        sql: "
            SELECT t.reader AS reader, formatDateTime(max(t.recorded_at), '%FT%T.%fZ') AS recorded_at
            FROM monitor_positions AS t
            WHERE {where}
            GROUP BY t.reader",
        shape: Shape::List { keys: &[Key::Text("reader")], newest_first: false },
        rows: Rows::of::<MonitorPass>(),
    },
    Endpoint {
        path: "/pipeline/minutes",
        about: "What arrived in each of the last minutes, oldest first",
        audience: Audience::Admins,
        parameters: &[Parameter::number("minutes", "So many minutes, the running one too", 1, 1_440).or("60")],
        // A batch gets its ingest day after its records were received; one hour allows for clocks
        // that differ.
        sql: "
            WITH toStartOfMinute(now('UTC')) - 60 * (toUInt32({minutes}) - 1) AS since
            SELECT
                formatDateTime(grid.minute, '%FT%T.%fZ') AS minute, shots.n AS injections, written.n AS events,
                shots.p50 AS latency_p50_ms, shots.p99 AS latency_p99_ms, refused.n AS quarantined
            FROM (SELECT since + 60 * arrayJoin(range(toUInt32({minutes}))) AS minute) AS grid
            LEFT JOIN (
                WITH if(batch.batch_end = 0, NULL,
                    (toUnixTimestamp64Micro(batch.committed_at) - toUnixTimestamp64Micro(shot.received_at)) / 1000) AS latency_ms
                SELECT toStartOfMinute(toDateTime(shot.received_at, 'UTC')) AS minute, count() AS n,
                    quantile(0.5)(latency_ms) AS p50, quantile(0.99)(latency_ms) AS p99
                FROM injections AS shot
                LEFT JOIN (
                    SELECT incarnation, kafka_partition, batch, any(batch_end) AS batch_end, min(done.committed_at) AS committed_at
                    FROM loader_commits AS done
                    WHERE kind = 'commit' AND done.committed_at >= since GROUP BY incarnation, kafka_partition, batch) AS batch
                ON batch.incarnation = shot.incarnation AND batch.kafka_partition = shot.kafka_partition AND batch.batch = shot.batch
                WHERE shot.received_at >= since AND shot.ingest_day >= toDate(since - 3600)
                GROUP BY minute) AS shots
            ON shots.minute = grid.minute
            LEFT JOIN (
                SELECT toStartOfMinute(toDateTime(done.committed_at, 'UTC')) AS minute, sum(done.rows) AS n
                FROM loader_commits AS done
                WHERE kind = 'commit' AND done.committed_at >= since GROUP BY minute) AS written
            ON written.minute = grid.minute
            LEFT JOIN (
                SELECT toStartOfMinute(toDateTime(row.received_at, 'UTC')) AS minute, count() AS n
                FROM quarantine AS row
                WHERE row.received_at >= since AND row.ingest_day >= toDate(since - 3600) GROUP BY minute) AS refused
            ON refused.minute = grid.minute",
        shape: Shape::List { keys: &[Key::Text("minute")], newest_first: false },
        rows: Rows::of::<Minute>().whole(MINUTES_MAX),
    },
    Endpoint {
        path: "/pipeline/roles",
        about: "What this process knows of the roles: their faults, the last passes of the monitor, the last commit of each \
                partition",
        audience: Audience::Admins,
        parameters: &[],
        sql: "
            SELECT t.role AS role, t.subject AS subject, t.state AS state, formatDateTime(t.time, '%FT%T.%fZ') AS since, t.detail AS detail
            FROM (
                SELECT splitByString(': ', line)[1] AS role, '' AS subject, 'FAULT' AS state,
                    NULL::Nullable(DateTime64(6, 'UTC')) AS time, substring(line, length(role) + 3) AS detail
                FROM (SELECT arrayJoin({faults}) AS line)
                UNION ALL
                SELECT 'monitor', toString(pass.reader), 'PASSED', max(pass.recorded_at), ''
                FROM monitor_positions AS pass GROUP BY pass.reader
                UNION ALL
                SELECT 'load', concat(lives.topic, ' ', toString(done.incarnation), '/', toString(done.kafka_partition)), 'COMMITTED',
                    max(done.committed_at), concat('position ', toString(max(done.batch_end)))
                FROM loader_commits AS done
                INNER JOIN (SELECT DISTINCT incarnation, topic FROM kafka_topics) AS lives ON lives.incarnation = done.incarnation
                WHERE done.kind = 'commit' GROUP BY lives.topic, done.incarnation, done.kafka_partition) AS t",
        shape: Shape::List { keys: &[Key::Text("role"), Key::Text("subject"), Key::Text("state")], newest_first: false },
        rows: Rows::of::<Role>(),
    },
    Endpoint {
        path: "/pipeline/quarantine-reasons",
        about: "Why rows of the quarantine were refused, and how many wait",
        audience: Audience::Tenants,
        parameters: &[],
        sql: "
            SELECT toString(t.reason) AS reason, count() AS n, formatDateTime(max(t.received_at), '%FT%T.%fZ') AS latest_at
            FROM quarantine_state AS t
            WHERE NOT t.replayed
            GROUP BY t.reason",
        shape: Shape::List { keys: &[Key::Text("reason")], newest_first: false },
        rows: Rows::of::<QuarantineReason>(),
    },
];
