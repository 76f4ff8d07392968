-- The loader's own state: lives of Kafka topics, intents, commits. Unpartitioned, because a state must be found without
-- knowing its day, and because one insert must never spread over two parts.

-- Key: the topic. A handful of rows, no codec needed.
CREATE TABLE IF NOT EXISTS kafka_topics
(
    topic String COMMENT 'Kafka topic',
    incarnation UInt32 COMMENT 'Number of this life of the topic, ascending over all topics from 1',
    partitions UInt32 COMMENT 'Number of partitions it was created with; never changes in one life',
    created_at DateTime64(6, 'UTC') COMMENT 'When this life was first seen; UTC, us'
)
ENGINE = MergeTree
ORDER BY (topic, incarnation)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Lives of Kafka topics: a topic that is deleted and made again gets a new incarnation';

-- Key: the batch, because an owner looks up exactly one batch. Written once for each batch, read back by the owner.
-- Codecs: offsets and times ascend (Delta), the rest repeats (ZSTD).
CREATE TABLE IF NOT EXISTS loader_intents
(
    incarnation UInt32 COMMENT 'Life of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch, inclusive' CODEC(Delta, ZSTD(1)),
    batch_end UInt64 COMMENT 'End of the batch, exclusive: the offset the next batch starts at' CODEC(Delta, ZSTD(1)),
    gen UInt32 COMMENT 'Attempt: rises when a deduplication token is burned' CODEC(ZSTD(1)),
    decoder_version UInt32 COMMENT 'Version of the decoder that decides what rows the batch holds' CODEC(ZSTD(1)),
    plausibility_hash UInt64 COMMENT 'Hash of the plausibility configuration that decides what rows the batch holds' CODEC(ZSTD(1)),
    ingest_day Date COMMENT 'Day every row of the batch carries, UTC; never changes for the batch' CODEC(ZSTD(1)),
    owner String COMMENT 'Loader that wrote the intent, for a person' CODEC(ZSTD(1)),
    created_at DateTime64(6, 'UTC') COMMENT 'When the intent was written, by the loader''s clock; UTC, us' CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
ORDER BY (incarnation, kafka_partition, batch, gen)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'What each batch will hold, written before it: two owners of one partition adopt the same boundaries';

-- One insert holds the commit row of a batch and the ledger states that the batch changed: both are there, or neither.
-- Key: kind first, so that the position (max batch_end of the commit rows) reads commit rows only; then partition and boot,
-- so that the states of one boot lie together; last the batch, because a batch that is written again needs the states as of
-- its start. For that same reason it is a plain MergeTree: an engine that keeps the latest state only would take them away.
CREATE TABLE IF NOT EXISTS loader_commits
(
    kind Enum8('commit' = 1, 'ledger' = 2) COMMENT 'commit: the batch is written; ledger: state of one boot as of the end of the batch' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Life of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch, inclusive' CODEC(Delta, ZSTD(1)),
    batch_end UInt64 COMMENT 'End of the batch, exclusive; the position of the partition is the greatest of its commit rows' CODEC(Delta, ZSTD(1)),
    gen UInt32 COMMENT 'Attempt the batch was written under' CODEC(ZSTD(1)),
    rows UInt64 COMMENT 'commit: rows the batch wrote to all tables; ledger: 0' CODEC(T64, ZSTD(1)),
    committed_at DateTime64(6, 'UTC') COMMENT 'When the batch was committed, by the loader''s clock; UTC, us' CODEC(Delta, ZSTD(1)),
    tenant LowCardinality(String) COMMENT 'ledger: tenant; commit: empty',
    site LowCardinality(String) COMMENT 'ledger: site the boot was last heard from; commit: empty',
    device LowCardinality(String) COMMENT 'ledger: device; commit: empty',
    boot_id UInt64 COMMENT 'ledger: boot; commit: 0' CODEC(ZSTD(1)),
    stored_first Array(UInt64) COMMENT 'First sequence numbers of the intervals that are in their tables, ascending' CODEC(Delta, ZSTD(1)),
    stored_last Array(UInt64) COMMENT 'Last sequence numbers of the same intervals, inclusive' CODEC(Delta, ZSTD(1)),
    quarantined_first Array(UInt64) COMMENT 'First sequence numbers of the intervals that are in quarantine, ascending' CODEC(Delta, ZSTD(1)),
    quarantined_last Array(UInt64) COMMENT 'Last sequence numbers of the same intervals, inclusive' CODEC(Delta, ZSTD(1)),
    lost_first Array(UInt64) COMMENT 'ledger: first sequence numbers of the intervals the device declared lost, ascending; commit: offsets that Kafka no longer had' CODEC(Delta, ZSTD(1)),
    lost_last Array(UInt64) COMMENT 'Last numbers of the same intervals, inclusive' CODEC(Delta, ZSTD(1)),
    lost_reason LowCardinality(String) COMMENT 'ledger: reason of the latest declaration of loss; commit: kafka where offsets were lost; empty = none',
    declared_last UInt64 COMMENT 'Last sequence number the device says it made in the boot; 0 = it has not said' CODEC(T64, ZSTD(1)),
    last_arrival DateTime64(6, 'UTC') COMMENT 'When the latest report of the boot, or one that declared it, was received; UTC, us' CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
ORDER BY (kind, incarnation, kafka_partition, tenant, device, boot_id, batch_end)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Committed batches and the sequence ledger of every boot as of each commit';
