//! How far data has come: for administrators, since it belongs to no tenant.

use super::{
    endpoint::{Audience, Endpoint, Key, Rows, Shape},
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
];
