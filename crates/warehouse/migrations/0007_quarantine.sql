-- What could not be used, raw; what was replayed and what came of it, what a person deleted, and
-- the state of every row.

-- Key: tenant and time: a person works through what came in lately. The payload is the largest
-- column and rarely read: ZSTD(3).
CREATE TABLE IF NOT EXISTS quarantine
(
    reason LowCardinality(String) COMMENT 'Why, e.g. implausible; detail says what exactly',
    detail String COMMENT 'What exactly was wrong, for a person' CODEC(ZSTD(1)),
    topic String COMMENT 'MQTT topic it was published on; may be anything for bad topics' CODEC(ZSTD(1)),
    source LowCardinality(String) COMMENT 'Who refused it: bridge (whole report) or loader (whole record or one event)',
    payload String COMMENT 'Raw bytes: as received where the bridge refused, the protobuf report where the loader did' CODEC(ZSTD(3)),
    received_at DateTime64(6, 'UTC') COMMENT 'When the bridge received it; UTC, us' CODEC(Delta, ZSTD(1)),
    tenant LowCardinality(String) COMMENT 'Tenant, where the topic names one; else empty',
    site LowCardinality(String) COMMENT 'Site, where the topic names one; else empty',
    device LowCardinality(String) COMMENT 'Device, where the topic names one; else empty',
    boot_id UInt64 COMMENT 'Boot, where it could be read; else 0' CODEC(ZSTD(1)),
    seq UInt64 COMMENT 'Sequence number of the event, where it could be read; 0 = the whole message' CODEC(Delta, ZSTD(1)),
    replayed Bool COMMENT 'Whether it has been replayed since',
    kafka_offset UInt64 COMMENT 'Offset of the Kafka record it came from' CODEC(Delta, ZSTD(1)),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1)),
    injection_no Nullable(UInt64) COMMENT 'Lifetime number of the injection, where one injection was refused and carries it; NULL = anything else' CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, received_at, device, boot_id, seq)
SETTINGS non_replicated_deduplication_window = 100000, remove_empty_parts = 0, old_parts_lifetime = 480
COMMENT 'What could not be used, raw, with the reason; nothing is ever dropped';

-- Written by the loader in the batch of the replayed record, so it is exact whatever is repeated.
-- Key: the quarantined row.
CREATE TABLE IF NOT EXISTS quarantine_replays
(
    source_incarnation UInt32 COMMENT 'incarnation of the row of quarantine that was replayed' CODEC(ZSTD(1)),
    source_partition Int32 COMMENT 'kafka_partition of that row' CODEC(ZSTD(1)),
    source_offset UInt64 COMMENT 'kafka_offset of that row' CODEC(Delta, ZSTD(1)),
    source_seq UInt64 COMMENT 'seq of that row; 0 = a whole message, or a heartbeat outside the sequence' CODEC(ZSTD(1)),
    outcome LowCardinality(String) COMMENT 'STORED = it is in its tables now; DUPLICATE = it was there already; REFUSED = it stays in quarantine; REFUSED_SINGLY = a message that is readable now, whose events are in quarantine one by one',
    stored UInt64 COMMENT 'Events the replay stored' CODEC(T64, ZSTD(1)),
    duplicates UInt64 COMMENT 'Events that were stored before' CODEC(T64, ZSTD(1)),
    refused UInt64 COMMENT 'Events that are in quarantine still or again' CODEC(T64, ZSTD(1)),
    detail String COMMENT 'Why something was refused again, the first reason; empty = nothing was' CODEC(ZSTD(1)),
    replayed_by LowCardinality(String) COMMENT 'Who replayed it',
    replayed_at DateTime64(6, 'UTC') COMMENT 'When the replay was asked for; UTC, us; equal for all rows of one command' CODEC(Delta, ZSTD(1)),
    tenant LowCardinality(String) COMMENT 'Tenant; empty = the topic names none',
    site LowCardinality(String) COMMENT 'Site; empty = the topic names none',
    device LowCardinality(String) COMMENT 'Device; empty = the topic names none',
    boot_id UInt64 COMMENT 'Boot, where it could be read; else 0' CODEC(ZSTD(1)),
    received_at DateTime64(6, 'UTC') COMMENT 'When the bridge received it first; UTC, us' CODEC(Delta, ZSTD(1)),
    kafka_offset UInt64 COMMENT 'Offset of the Kafka record that replayed it' CODEC(Delta, ZSTD(1)),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic of the replaying record, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition of the replaying record' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (source_incarnation, source_partition, source_offset, source_seq)
SETTINGS non_replicated_deduplication_window = 100000, old_parts_lifetime = 480
COMMENT 'Replays out of quarantine and what came of them; one row for each attempt';

-- Key: time, because a person reads it as a journal. A few rows for each deletion.
CREATE TABLE IF NOT EXISTS quarantine_purges
(
    purged_at DateTime64(6, 'UTC') COMMENT 'When rows were deleted; UTC, us; equal for all rows of one command' CODEC(Delta, ZSTD(1)),
    purged_by String COMMENT 'Who deleted them' CODEC(ZSTD(1)),
    because String COMMENT 'Why, in the words of who deleted them' CODEC(ZSTD(1)),
    ingest_day Date COMMENT 'Day of ingest of the deleted rows' CODEC(ZSTD(1)),
    tenant LowCardinality(String) COMMENT 'Tenant of the deleted rows; empty = their topic names none',
    reason LowCardinality(String) COMMENT 'Reason the deleted rows were in quarantine for',
    rows UInt64 COMMENT 'Rows deleted' CODEC(T64, ZSTD(1)),
    not_replayed UInt64 COMMENT 'Of them, rows that had not been replayed: this data is gone' CODEC(T64, ZSTD(1)),
    bytes UInt64 COMMENT 'Bytes of their payloads' CODEC(T64, ZSTD(1)),
    sha256 String COMMENT 'SHA-256 over the sorted SHA-256 of their payloads, hex: proves which rows they were to who still has the bytes' CODEC(ZSTD(1)),
    first_received_at DateTime64(6, 'UTC') COMMENT 'received_at of the oldest; UTC, us' CODEC(ZSTD(1)),
    last_received_at DateTime64(6, 'UTC') COMMENT 'received_at of the newest; UTC, us' CODEC(ZSTD(1))
)
ENGINE = MergeTree
ORDER BY (purged_at, ingest_day, tenant, reason)
SETTINGS old_parts_lifetime = 480
COMMENT 'What people deleted from quarantine, written before each deletion';

-- The state is read from the replays, which are exact; the column `replayed` of the table is
-- brought in line with them.
CREATE OR REPLACE VIEW quarantine_state
(
    id String COMMENT 'Name of the row for `doseline quarantine`: incarnation-partition-offset, and -seq for an event',
    reason LowCardinality(String) COMMENT 'Why it was refused',
    detail String COMMENT 'What exactly was wrong; empty where the bridge refused',
    topic String COMMENT 'MQTT topic it was published on',
    source LowCardinality(String) COMMENT 'Who refused it: bridge or loader',
    bytes UInt64 COMMENT 'Size of the payload, bytes',
    received_at DateTime64(6, 'UTC') COMMENT 'When the bridge received it; UTC, us',
    tenant LowCardinality(String) COMMENT 'Tenant; empty = the topic names none',
    site LowCardinality(String) COMMENT 'Site; empty = the topic names none',
    device LowCardinality(String) COMMENT 'Device; empty = the topic names none',
    boot_id UInt64 COMMENT 'Boot; 0 = a whole message',
    seq UInt64 COMMENT 'Sequence number of the event; 0 = a whole message, or a heartbeat outside the sequence',
    replayed Bool COMMENT 'Whether nothing of it waits here any more: it is in its tables, or its events are in quarantine one by one',
    outcome String COMMENT 'Outcome of its replay, the best one; see quarantine_replays; empty = never replayed',
    replays UInt64 COMMENT 'How often it was replayed',
    replayed_by String COMMENT 'Who replayed it last; empty = nobody',
    replayed_at DateTime64(6, 'UTC') COMMENT 'When that was asked for; UTC, us; 1970 = never',
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic it came from, see kafka_topics',
    kafka_partition Int32 COMMENT 'Kafka partition it came from',
    kafka_offset UInt64 COMMENT 'Offset of the Kafka record it came from',
    ingest_day Date COMMENT 'Day of ingest, UTC'
)
AS SELECT
    concat(toString(q.incarnation), '-', toString(q.kafka_partition), '-', toString(q.kafka_offset),
        if(q.boot_id = 0, '', concat('-', toString(q.seq)))) AS id,
    q.reason AS reason,
    q.detail AS detail,
    q.topic AS topic,
    q.source AS source,
    length(q.payload) AS bytes,
    q.received_at AS received_at,
    q.tenant AS tenant,
    q.site AS site,
    q.device AS device,
    q.boot_id AS boot_id,
    q.seq AS seq,
    CAST(r.replay_outcome NOT IN ('', 'REFUSED') AS Bool) AS replayed,
    r.replay_outcome AS outcome,
    r.replay_count AS replays,
    r.replay_by AS replayed_by,
    r.replay_at AS replayed_at,
    q.incarnation AS incarnation,
    q.kafka_partition AS kafka_partition,
    q.kafka_offset AS kafka_offset,
    q.ingest_day AS ingest_day
FROM quarantine AS q
LEFT JOIN
(
    SELECT
        source_incarnation, source_partition, source_offset, source_seq,
        count() AS replay_count,
        toString(argMin(attempts.outcome, (indexOf(['STORED', 'REFUSED_SINGLY', 'DUPLICATE', 'REFUSED'], toString(attempts.outcome)), attempts.replayed_at))) AS replay_outcome,
        toString(argMax(attempts.replayed_by, attempts.replayed_at)) AS replay_by,
        max(attempts.replayed_at) AS replay_at
    FROM quarantine_replays AS attempts
    GROUP BY source_incarnation, source_partition, source_offset, source_seq
) AS r ON r.source_incarnation = q.incarnation AND r.source_partition = q.kafka_partition
    AND r.source_offset = q.kafka_offset AND r.source_seq = q.seq
COMMENT 'Every row of quarantine without its payload, and what came of its replays';
