-- A batch of Kafka that cannot be read is a loss with a reason of its own.

-- A batch's commit row says which of its offsets Kafka did not have; the last commit row of a life that has ended says from
-- which offset on its records were never written. A batch may have several commit rows of the same content.
CREATE OR REPLACE VIEW kafka_losses
(
    topic String COMMENT 'Kafka topic',
    incarnation UInt32 COMMENT 'Life of the topic, see kafka_topics',
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
