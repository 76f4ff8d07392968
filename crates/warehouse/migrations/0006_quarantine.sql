-- What could not be used, raw.

-- Key: tenant and time: a person works through what came in lately. The payload is the largest column and rarely read: ZSTD(3).
CREATE TABLE IF NOT EXISTS quarantine
(
    reason LowCardinality(String) COMMENT 'Why, e.g. implausible; detail says what exactly',
    detail String CODEC(ZSTD(1)) COMMENT 'What exactly was wrong, for a person',
    topic String CODEC(ZSTD(1)) COMMENT 'MQTT topic it was published on; may be anything for bad topics',
    source LowCardinality(String) COMMENT 'Who refused it: bridge (whole report) or loader (whole record or one event)',
    payload String CODEC(ZSTD(3)) COMMENT 'Raw bytes: as received where the bridge refused, the protobuf report where the loader did',
    received_at DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'When the bridge received it; UTC, us',
    tenant LowCardinality(String) COMMENT 'Tenant, where the topic names one; else empty',
    site LowCardinality(String) COMMENT 'Site, where the topic names one; else empty',
    device LowCardinality(String) COMMENT 'Device, where the topic names one; else empty',
    boot_id UInt64 CODEC(ZSTD(1)) COMMENT 'Boot, where it could be read; else 0',
    seq UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Sequence number of the event, where it could be read; 0 = the whole message',
    replayed Bool COMMENT 'Whether it has been replayed since',
    kafka_offset UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'Offset of the Kafka record it came from',
    ingest_day Date CODEC(ZSTD(1)) COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table',
    incarnation UInt32 CODEC(ZSTD(1)) COMMENT 'Life of the Kafka topic, see kafka_topics',
    kafka_partition Int32 CODEC(ZSTD(1)) COMMENT 'Kafka partition it came from',
    batch UInt64 CODEC(ZSTD(1)) COMMENT 'First Kafka offset of the batch that wrote the row',
    gen UInt32 CODEC(ZSTD(1)) COMMENT 'Attempt of the batch; rises when a deduplication token is burned',
    batch_hash UInt64 CODEC(ZSTD(1)) COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch'
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, received_at, device, boot_id, seq)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'What could not be used, raw, with the reason; nothing is ever dropped';
