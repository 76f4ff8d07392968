-- What people write goes through the log: commands are records of doseline.commands.v1, and the loader
-- writes what they mean, with the scheme of every other row. So the tables that commands fill get the
-- columns that say which batch wrote a row, and a deduplication window. They stay without partitions,
-- because others write into them as well.

-- Keys of commands that were applied, one state for each: tenant, empty device, boot_id = a number
-- for the idempotency key, stored = a number for the content.
ALTER TABLE loader_commits MODIFY COLUMN kind Enum8('commit' = 1, 'ledger' = 2, 'replay' = 3, 'command' = 4) COMMENT 'commit: the batch is written; ledger: state of one boot as of the end of the batch; replay: messages of one device without sequence numbers that were replayed (boot_id 0, stored = their numbers); command: a command that was applied (boot_id = a number for its idempotency key, stored = a number for its content)' CODEC(LZ4);

-- Key: tenant and time: a person asks what happened lately. One row for each record.
CREATE TABLE IF NOT EXISTS audit
(
    tenant LowCardinality(String) COMMENT 'Tenant that the command concerns; empty = every tenant',
    given_at DateTime64(6, 'UTC') COMMENT 'When the command was given, by the clock of the program that gave it; UTC, us' CODEC(Delta, ZSTD(1)),
    author String COMMENT 'Who gave it' CODEC(ZSTD(1)),
    role LowCardinality(String) COMMENT 'What the author may do: VIEWER, OPERATOR, MANUFACTURER or ADMIN',
    action LowCardinality(String) COMMENT 'What was to be done: acknowledge_alert, add_incident, register_devices or set_policy',
    subject String COMMENT 'What it is about: key of the alert, incident, device or number of devices, name of the policy' CODEC(ZSTD(1)),
    content String COMMENT 'What exactly was to be done, JSON' CODEC(ZSTD(3)),
    idempotency_key String COMMENT 'Identifies the command within its tenant' CODEC(ZSTD(1)),
    outcome LowCardinality(String) COMMENT 'APPLIED; REPEATED = the same command was applied before, nothing changed; REFUSED = nothing changed, reason says why',
    reason String COMMENT 'Why it was refused; empty = it was not' CODEC(ZSTD(1)),
    kafka_offset UInt64 COMMENT 'Offset of the Kafka record' CODEC(Delta, ZSTD(1)),
    ingest_day Date COMMENT 'Day of the batch, UTC, fixed in its intent; partition of the table' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
    kafka_partition Int32 COMMENT 'Kafka partition it came from' CODEC(ZSTD(1)),
    batch UInt64 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    gen UInt32 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    batch_hash UInt64 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY ingest_day
ORDER BY (tenant, given_at, incarnation, kafka_partition, kafka_offset)
SETTINGS non_replicated_deduplication_window = 100000, remove_empty_parts = 0, old_parts_lifetime = 480
COMMENT 'Every command that reached Kafka and could be read, append-only: who, what, when, and what became of it';

-- Rows of one command must neither merge with those of another nor with rows of the monitor, so the
-- place of the command ends the key. A new column of a key gets its default afterwards: the engine
-- refuses one that has a default already. Every column has a default, because a monitor that does not
-- know these columns inserts rows as well.
ALTER TABLE alert_history
    ADD COLUMN IF NOT EXISTS kafka_offset UInt64 COMMENT 'Offset of the command in doseline.commands.v1; 0 where incarnation is 0' CODEC(Delta, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS ingest_day Date DEFAULT toDate(0) COMMENT 'Day of the batch, UTC, fixed in its intent; 1970-01-01 where incarnation is 0' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics; 0 = the row is of no command: of the monitor, or written before there were commands' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS kafka_partition Int32 COMMENT 'Kafka partition of the command' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS batch UInt64 DEFAULT 0 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS gen UInt32 DEFAULT 0 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS batch_hash UInt64 DEFAULT 0 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1)),
    MODIFY ORDER BY (tenant, alert_key, at, event, actor, incarnation, kafka_partition, kafka_offset);

ALTER TABLE alert_history
    MODIFY COLUMN kafka_offset UInt64 DEFAULT 0 COMMENT 'Offset of the command in doseline.commands.v1; 0 where incarnation is 0' CODEC(Delta, ZSTD(1)),
    MODIFY COLUMN incarnation UInt32 DEFAULT 0 COMMENT 'Incarnation of the Kafka topic, see kafka_topics; 0 = the row is of no command: of the monitor, or written before there were commands' CODEC(ZSTD(1)),
    MODIFY COLUMN kafka_partition Int32 DEFAULT 0 COMMENT 'Kafka partition of the command' CODEC(ZSTD(1));

ALTER TABLE alert_history MODIFY SETTING non_replicated_deduplication_window = 100000, remove_empty_parts = 0;

ALTER TABLE incidents
    ADD COLUMN IF NOT EXISTS kafka_offset UInt64 COMMENT 'Offset of the command in doseline.commands.v1; 0 where incarnation is 0' CODEC(Delta, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS ingest_day Date DEFAULT toDate(0) COMMENT 'Day of the batch, UTC, fixed in its intent; 1970-01-01 where incarnation is 0' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS incarnation UInt32 COMMENT 'Incarnation of the Kafka topic, see kafka_topics; 0 = the row is of no command: it was written before there were commands' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS kafka_partition Int32 COMMENT 'Kafka partition of the command' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS batch UInt64 DEFAULT 0 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS gen UInt32 DEFAULT 0 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS batch_hash UInt64 DEFAULT 0 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1)),
    MODIFY ORDER BY (tenant, recorded_at, incident_id, incarnation, kafka_partition, kafka_offset);

ALTER TABLE incidents
    MODIFY COLUMN kafka_offset UInt64 DEFAULT 0 COMMENT 'Offset of the command in doseline.commands.v1; 0 where incarnation is 0' CODEC(Delta, ZSTD(1)),
    MODIFY COLUMN incarnation UInt32 DEFAULT 0 COMMENT 'Incarnation of the Kafka topic, see kafka_topics; 0 = the row is of no command: it was written before there were commands' CODEC(ZSTD(1)),
    MODIFY COLUMN kafka_partition Int32 DEFAULT 0 COMMENT 'Kafka partition of the command' CODEC(ZSTD(1));

ALTER TABLE incidents MODIFY SETTING non_replicated_deduplication_window = 100000, remove_empty_parts = 0;

ALTER TABLE devices
    ADD COLUMN IF NOT EXISTS kafka_offset UInt64 DEFAULT 0 COMMENT 'Offset of the command in doseline.commands.v1; 0 where incarnation is 0' CODEC(Delta, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS ingest_day Date DEFAULT toDate(0) COMMENT 'Day of the batch, UTC, fixed in its intent; 1970-01-01 where incarnation is 0' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS incarnation UInt32 DEFAULT 0 COMMENT 'Incarnation of the Kafka topic, see kafka_topics; 0 = the row is of no command: an enrolment, or written before there were commands' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS kafka_partition Int32 DEFAULT 0 COMMENT 'Kafka partition of the command' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS batch UInt64 DEFAULT 0 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS gen UInt32 DEFAULT 0 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS batch_hash UInt64 DEFAULT 0 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1));

ALTER TABLE devices MODIFY SETTING non_replicated_deduplication_window = 100000, remove_empty_parts = 0;

ALTER TABLE policies
    ADD COLUMN IF NOT EXISTS kafka_offset UInt64 DEFAULT 0 COMMENT 'Offset of the command in doseline.commands.v1; 0 where incarnation is 0' CODEC(Delta, ZSTD(1)),
    ADD COLUMN IF NOT EXISTS ingest_day Date DEFAULT toDate(0) COMMENT 'Day of the batch, UTC, fixed in its intent; 1970-01-01 where incarnation is 0' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS incarnation UInt32 DEFAULT 0 COMMENT 'Incarnation of the Kafka topic, see kafka_topics; 0 = the row is of no command: it was written before there were commands' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS kafka_partition Int32 DEFAULT 0 COMMENT 'Kafka partition of the command' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS batch UInt64 DEFAULT 0 COMMENT 'First Kafka offset of the batch that wrote the row' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS gen UInt32 DEFAULT 0 COMMENT 'Attempt of the batch; rises when a deduplication token is burned' CODEC(ZSTD(1)),
    ADD COLUMN IF NOT EXISTS batch_hash UInt64 DEFAULT 0 COMMENT 'Hash of all rows of the batch in this table; equal in every row of the batch' CODEC(ZSTD(1));

ALTER TABLE policies MODIFY SETTING non_replicated_deduplication_window = 100000, remove_empty_parts = 0;

-- The audit for people: commands, and what was written before there were commands or is written
-- without one.
CREATE OR REPLACE VIEW audit_trail
(
    tenant String COMMENT 'Tenant; empty = every tenant, or none is named',
    given_at DateTime64(6, 'UTC') COMMENT 'When; UTC',
    author String COMMENT 'Who; empty = it was not recorded',
    role String COMMENT 'What the author may do; empty = it was not recorded',
    action String COMMENT 'What was to be done: acknowledge_alert, add_incident, register_devices, set_policy, replay_quarantine, purge_quarantine',
    subject String COMMENT 'What it is about',
    content String COMMENT 'What exactly was to be done, JSON; empty = it was not recorded',
    idempotency_key String COMMENT 'Identifies a command within its tenant; empty = it was no command',
    outcome String COMMENT 'APPLIED, REPEATED or REFUSED; UNLOGGED = applied, and not as a command: the log of commands cannot restore it',
    reason String COMMENT 'Why it was refused; empty = it was not'
)
AS SELECT
    toString(tenant) AS tenant, given_at, author, toString(role) AS role, toString(action) AS action, subject, content,
    idempotency_key, toString(outcome) AS outcome, reason
FROM audit
UNION ALL
SELECT toString(tenant), at, toString(actor), '', 'acknowledge_alert', alert_key, '', '', 'UNLOGGED', ''
FROM alert_history WHERE event = 'ACKNOWLEDGED' AND incarnation = 0
UNION ALL
SELECT toString(tenant), recorded_at, toString(reported_by), '', 'add_incident', incident_id, '', '', 'UNLOGGED', ''
FROM incidents WHERE incarnation = 0
UNION ALL
SELECT toString(tenant), recorded_at, '', '', 'register_devices', concat(toString(count()), ' devices'), '', '', 'UNLOGGED', ''
FROM devices WHERE origin = 'IMPORTED' AND incarnation = 0 GROUP BY tenant, recorded_at
UNION ALL
SELECT toString(tenant), recorded_at, '', '', 'set_policy', toString(name), '', '', 'UNLOGGED', ''
FROM policies WHERE incarnation = 0
UNION ALL
SELECT toString(tenant), purged_at, purged_by, '', 'purge_quarantine', concat(toString(sum(rows)), ' rows'), '', '', 'UNLOGGED', ''
FROM quarantine_purges GROUP BY tenant, purged_at, purged_by
UNION ALL
SELECT toString(tenant), replayed_at, toString(replayed_by), '', 'replay_quarantine', concat(toString(count()), ' rows'), '', '', 'APPLIED', ''
FROM quarantine_replays GROUP BY tenant, replayed_at, replayed_by
COMMENT 'Who did what: commands, and what was or is written without one';
