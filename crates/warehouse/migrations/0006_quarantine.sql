-- What could not be used, raw.

-- Key: tenant and time: a person works through what came in lately. The payload is the largest column and rarely read: ZSTD(3).
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
    incarnation UInt32 COMMENT 'Life of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, received_at, device, boot_id, seq)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'What could not be used, raw, with the reason; nothing is ever dropped';
