-- The loader's own state: incarnations of Kafka topics, intents, commits. Unpartitioned, because a
-- state must be found without knowing its day, and because one insert must never spread over two
-- parts.
--
-- Every table: a merge can be undone for 480 s (`old_parts_lifetime`). A merge that runs while the
-- disk fills can end in a part that cannot be read, which the engine notices at its next start and
-- throws away; it then goes back to the parts before the merge. Tables that the loader writes:
-- deduplication tokens outlive the rows they came with (`remove_empty_parts = 0`). The engine would
-- remove a part whose rows have all been deleted, and its tokens with it; a late writer that was
-- shut out could then write. Tables that many rows go through: LZ4, which takes ClickHouse a third
-- less time than ZSTD (docs/performance.md), and no statistics of columns (`auto_statistics_types =
-- ''`), which are a third to a half of what merging small parts takes. Codecs: ascending numbers
-- and times Delta, measured integers T64, the rest as it is.

-- Key: the topic. A handful of rows, no codec needed.
CREATE TABLE IF NOT EXISTS kafka_topics
(
    topic String COMMENT 'Kafka topic',
    incarnation UInt32 COMMENT 'Number of this incarnation of the topic, ascending over all topics from 1',
    partitions UInt32 COMMENT 'Number of partitions it was created with; never changes in one incarnation',
    created_at DateTime64(6, 'UTC') COMMENT 'When this incarnation was first seen; UTC, us',
    topic_id String COMMENT 'Kafka''s id of the topic, base64; empty = the broker gives none'
)
ENGINE = MergeTree
ORDER BY (topic, incarnation)
SETTINGS non_replicated_deduplication_window = 100000, remove_empty_parts = 0, old_parts_lifetime = 480
COMMENT 'Incarnations of Kafka topics: a topic that is deleted and created again gets a new one';

-- Key: the batch, because an owner looks up exactly one batch. Written once for each batch, read
-- back by the owner.
CREATE TABLE IF NOT EXISTS loader_intents
(
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics' CODEC(LZ4),
    kafka_partition Int32 COMMENT 'Kafka partition' CODEC(LZ4),
    batch UInt64 COMMENT 'First Kafka offset of the batch, inclusive' CODEC(Delta, LZ4),
    batch_end UInt64 COMMENT 'End of the batch, exclusive: the offset the next batch starts at' CODEC(Delta, LZ4),
    gen UInt32 COMMENT 'Attempt: rises when a deduplication token is burned' CODEC(LZ4),
    decoder_version UInt32 COMMENT 'Version of the decoder that decides what rows the batch holds' CODEC(LZ4),
    plausibility_hash UInt64 COMMENT 'Hash of the plausibility configuration that decides what rows the batch holds' CODEC(LZ4),
    ingest_day Date COMMENT 'Day every row of the batch carries, UTC; never changes for the batch' CODEC(LZ4),
    owner String COMMENT 'Loader that wrote the intent, for a person' CODEC(LZ4),
    created_at DateTime64(6, 'UTC') COMMENT 'When the intent was written, by the loader''s clock; UTC, us' CODEC(Delta, LZ4)
)
ENGINE = MergeTree
ORDER BY (incarnation, kafka_partition, batch, gen)
SETTINGS non_replicated_deduplication_window = 100000, remove_empty_parts = 0, old_parts_lifetime = 480,
         merge_selector_base = 10, auto_statistics_types = ''
COMMENT 'What each batch will hold, written before it: two owners of one partition adopt the same boundaries';

-- One insert holds the commit row of a batch and the ledger states that the batch changed: both are
-- there, or neither. Key: kind first, so that the position (max batch_end of the commit rows) reads
-- commit rows only; then partition and boot, so that the states of one boot lie together; last the
-- batch, because a batch that is written again needs the states as of its start. For that same
-- reason it is a plain MergeTree: an engine that keeps the latest state only would take them away.
-- The kind `replay` holds which messages without a sequence number (status messages, heartbeats)
-- have been replayed. They are kept apart from the ledgers of boots, because they are no numbers of
-- a boot, and nothing is ever missing among them.
CREATE TABLE IF NOT EXISTS loader_commits
(
    kind Enum8('commit' = 1, 'ledger' = 2, 'replay' = 3) COMMENT 'commit: the batch is written; ledger: state of one boot as of the end of the batch; replay: messages of one device without sequence numbers that were replayed (boot_id 0, stored = their numbers)' CODEC(LZ4),
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics' CODEC(LZ4),
    kafka_partition Int32 COMMENT 'Kafka partition' CODEC(LZ4),
    batch UInt64 COMMENT 'First Kafka offset of the batch, inclusive' CODEC(Delta, LZ4),
    batch_end UInt64 COMMENT 'End of the batch, exclusive; the position of the partition is the greatest of its commit rows' CODEC(Delta, LZ4),
    gen UInt32 COMMENT 'Attempt the batch was written under' CODEC(LZ4),
    rows UInt64 COMMENT 'commit: rows the batch wrote to all tables; ledger: 0' CODEC(T64, LZ4),
    committed_at DateTime64(6, 'UTC') COMMENT 'When the batch was committed, by the loader''s clock; UTC, us' CODEC(Delta, LZ4),
    tenant LowCardinality(String) COMMENT 'ledger: tenant; commit: empty',
    site LowCardinality(String) COMMENT 'ledger: site the boot was last heard from; commit: empty',
    device LowCardinality(String) COMMENT 'ledger: device; commit: empty',
    boot_id UInt64 COMMENT 'ledger: boot; commit: 0' CODEC(LZ4),
    stored_first Array(UInt64) COMMENT 'First sequence numbers of the intervals that are in their tables, ascending' CODEC(Delta, LZ4),
    stored_last Array(UInt64) COMMENT 'Last sequence numbers of the same intervals, inclusive' CODEC(Delta, LZ4),
    quarantined_first Array(UInt64) COMMENT 'First sequence numbers of the intervals that are in quarantine, ascending' CODEC(Delta, LZ4),
    quarantined_last Array(UInt64) COMMENT 'Last sequence numbers of the same intervals, inclusive' CODEC(Delta, LZ4),
    lost_first Array(UInt64) COMMENT 'ledger: first sequence numbers of the intervals the device declared lost, ascending; commit: offsets that Kafka no longer had' CODEC(Delta, LZ4),
    lost_last Array(UInt64) COMMENT 'Last numbers of the same intervals, inclusive' CODEC(Delta, LZ4),
    lost_reason LowCardinality(String) COMMENT 'ledger: reason of the latest declaration of loss; commit: kafka where offsets were lost; empty = none',
    declared_last UInt64 COMMENT 'Last sequence number the device says it made in the boot; 0 = it has not said' CODEC(T64, LZ4),
    last_arrival DateTime64(6, 'UTC') COMMENT 'When the latest report of the boot, or one that declared it, was received; UTC, us' CODEC(Delta, LZ4)
)
ENGINE = MergeTree
ORDER BY (kind, incarnation, kafka_partition, tenant, device, boot_id, batch_end)
SETTINGS non_replicated_deduplication_window = 100000, remove_empty_parts = 0, old_parts_lifetime = 480,
         merge_selector_base = 10, auto_statistics_types = ''
COMMENT 'Committed batches and the sequence ledger of every boot as of each commit';

-- What pruning is about to delete. One table for all runs, because a disk that is full while a
-- table is made leaves half of it. Key: none, it is read as a whole; one partition for each run,
-- dropped at its end. Rows that are written twice do no harm.
CREATE TABLE IF NOT EXISTS loader_pruning
(
    run UInt64 COMMENT 'Run that decided; random' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition' CODEC(ZSTD(1)),
    tenant String COMMENT 'Tenant' CODEC(ZSTD(1)),
    device String COMMENT 'Device' CODEC(ZSTD(1)),
    boot_id UInt64 COMMENT 'Boot of the device' CODEC(ZSTD(1)),
    batch_end UInt64 COMMENT 'End of the batch that wrote the state, exclusive' CODEC(Delta, ZSTD(1)),
    gen UInt32 COMMENT 'Attempt of that batch' CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY run
ORDER BY tuple()
SETTINGS old_parts_lifetime = 480
COMMENT 'Ledger states that are being deleted from loader_commits; empty between two runs of pruning';

-- A batch's commit row says which of its offsets Kafka did not have; the last commit row of an
-- incarnation that has ended says from which offset on its records were never written. A batch may
-- have several commit rows of the same content.
CREATE OR REPLACE VIEW kafka_losses
(
    topic String COMMENT 'Kafka topic',
    incarnation UInt32 COMMENT 'Incarnation of the topic, see kafka_topics',
    kafka_partition Int32 COMMENT 'Kafka partition',
    first_offset UInt64 COMMENT 'First offset that was not written',
    last_offset Nullable(UInt64) COMMENT 'Last such offset, inclusive; NULL = not known, because the topic was deleted',
    records Nullable(UInt64) COMMENT 'Offsets that were not written; NULL = not known, and may be none',
    reason String COMMENT 'RETENTION = Kafka had deleted them before they were read; UNREADABLE = Kafka has them and their batch could not be read; TOPIC_MADE_AGAIN = the topic was deleted with what it still held',
    lost_at DateTime64(6, 'UTC') COMMENT 'When it was recorded, by the loader''s clock; UTC, us'
)
AS WITH losses AS
    (
        SELECT
            incarnation, kafka_partition, batch,
            argMax((arrayZip(lost_first, lost_last), toString(lost_reason), committed_at), (batch_end, gen)) AS state
        FROM loader_commits
        WHERE kind = 'commit' AND notEmpty(lost_first)
        GROUP BY incarnation, kafka_partition, batch
    )
SELECT
    lives.topic AS topic,
    losses.incarnation AS incarnation,
    losses.kafka_partition AS kafka_partition,
    lost.1 AS first_offset,
    nullIf(lost.2, toUInt64(18446744073709551615)) AS last_offset,
    last_offset - lost.1 + 1 AS records,
    multiIf(losses.state.2 = 'topic', 'TOPIC_MADE_AGAIN', losses.state.2 = 'unreadable', 'UNREADABLE', 'RETENTION') AS reason,
    losses.state.3 AS lost_at
FROM losses
ARRAY JOIN losses.state.1 AS lost
INNER JOIN (SELECT DISTINCT incarnation, topic FROM kafka_topics) AS lives ON lives.incarnation = losses.incarnation
COMMENT 'Records that Kafka confirmed and that were never written, by ranges of offsets';
