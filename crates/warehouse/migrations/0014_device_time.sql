-- What a device tells of times is a claim that the loader holds against the time of receipt ([device_time] of the configuration).

-- Key: the identity of the event that told the time. No rows as long as clocks are right; one for each event of a clock that is
-- wrong. It keeps what the other tables do not take over: `at` is then the time of receipt, another time NULL.
CREATE TABLE IF NOT EXISTS implausible_times
(
    tenant LowCardinality(String) COMMENT 'Tenant, from the topic',
    site LowCardinality(String) COMMENT 'Site, from the topic at the time',
    device LowCardinality(String) COMMENT 'Device, from the topic',
    model LowCardinality(String) COMMENT 'Device model as the report says; empty = not said',
    firmware LowCardinality(String) COMMENT 'Firmware as the report says; empty = not said',
    boot_id UInt64 COMMENT 'Boot of the device: high 32 bits its boot counter, low 32 bits random; 0 = a status without one' CODEC(ZSTD(1)),
    seq UInt64 COMMENT 'Sequence number of the event in the boot; 0 = outside the sequence, or a status' CODEC(Delta, ZSTD(1)),
    received_at DateTime64(6, 'UTC') COMMENT 'When the bridge received the message; UTC, us' CODEC(Delta, ZSTD(1)),
    field LowCardinality(String) COMMENT 'Field of the contract that told the time; base_unix_us = the time of the event itself',
    claim_us Int64 COMMENT 'What it told, us since 1970; for base_unix_us the base and the offset of the event together' CODEC(Delta, ZSTD(1)),
    doubt LowCardinality(String) COMMENT 'Why it cannot be true: ABSENT = 0; BEFORE_FLEET = before the earliest year; TOO_OLD = longer before its receipt than an outbox holds events; AHEAD = after its receipt',
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
ORDER BY (tenant, device, boot_id, seq)
SETTINGS non_replicated_deduplication_window = 100000, remove_empty_parts = 0, old_parts_lifetime = 480
COMMENT 'Times that devices told and that cannot be true';

-- Rows of batches that were written before the column was there have 0, until their day is rebuilt.
ALTER TABLE item_uses ADD COLUMN IF NOT EXISTS undated UInt64
    COMMENT 'Injections whose device time is not known, so that their time in first_at and last_at is that of receipt' CODEC(T64, LZ4)
    AFTER last_at;

ALTER TABLE injections MODIFY COLUMN flags COMMENT
    'Bits: 1 = an enum value this version does not know, kept as its number; 2 = fields this version does not know; 4 = the device''s clock said that it was synced and showed a time that cannot be true, see implausible_times';

ALTER TABLE sessions MODIFY COLUMN at COMMENT 'Device time if the clock was synced and showed a plausible time, else the time of receipt (see time_source); UTC, us; never corrected later';

ALTER TABLE preparations MODIFY COLUMN at COMMENT 'Device time if the clock was synced and showed a plausible time, else the time of receipt (see time_source); UTC, us; never corrected later';

ALTER TABLE mounts MODIFY COLUMN at COMMENT 'Device time if the clock was synced and showed a plausible time, else the time of receipt (see time_source); UTC, us; never corrected later';

ALTER TABLE sterilization_cycles MODIFY COLUMN at COMMENT 'Device time if the clock was synced and showed a plausible time, else the time of receipt (see time_source); UTC, us; never corrected later';

ALTER TABLE sterilization_samples MODIFY COLUMN at COMMENT 'Device time if the clock was synced and showed a plausible time, else the time of receipt (see time_source); UTC, us; never corrected later';

ALTER TABLE sterilization_items MODIFY COLUMN at COMMENT 'Device time if the clock was synced and showed a plausible time, else the time of receipt (see time_source); UTC, us; never corrected later';

ALTER TABLE cycle_indicators MODIFY COLUMN at COMMENT 'Device time if the clock was synced and showed a plausible time, else the time of receipt (see time_source); UTC, us; never corrected later';

ALTER TABLE cycle_releases MODIFY COLUMN at COMMENT 'Device time if the clock was synced and showed a plausible time, else the time of receipt (see time_source); UTC, us; never corrected later';

ALTER TABLE calibrations MODIFY COLUMN at COMMENT 'Device time if the clock was synced and showed a plausible time, else the time of receipt (see time_source); UTC, us; never corrected later';

ALTER TABLE faults MODIFY COLUMN at COMMENT 'Device time if the clock was synced and showed a plausible time, else the time of receipt (see time_source); UTC, us; never corrected later';

ALTER TABLE device_status MODIFY COLUMN at COMMENT 'Device time if the clock was synced and showed a plausible time, else the time of receipt (see time_source); UTC, us; never corrected later';

ALTER TABLE injections MODIFY COLUMN at COMMENT 'Device time if the clock was synced and showed a plausible time, else the time of receipt (see time_source); UTC, us; never corrected later';
