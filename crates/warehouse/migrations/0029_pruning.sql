-- One table for what pruning deletes. It was made anew for each run, every two minutes: a disk that was full at such a moment
-- left half a table, and the engine did not start with it.

-- Key: none, it is read as a whole; one partition for each run, dropped at its end. Rows that are written twice do no harm.
CREATE TABLE IF NOT EXISTS loader_pruning
(
    run UInt64 COMMENT 'Run that decided; random' CODEC(ZSTD(1)),
    incarnation UInt32 COMMENT 'Life of the Kafka topic, see kafka_topics' CODEC(ZSTD(1)),
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
