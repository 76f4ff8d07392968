//! One Arrow record batch as one INSERT, one block, one part, under one deduplication token.
//!
//! What makes it one block is pinned here and nowhere else: one record batch in the stream, no squashing with others, no
//! splitting, one insert thread, one table partition. Two blocks would carry two tokens, and a retry would double rows.

use arrow_array::RecordBatch;
use arrow_ipc::writer::StreamWriter;
use bytes::Bytes;
use std::time::Duration;

use crate::{client::Warehouse, error::Error};

/// Settings of every insert of the loader. A token only means something when all of them hold.
pub const PINNED: [(&str, &str); 11] = [
    // Answered means written, and by this statement alone.
    ("async_insert", "0"),
    ("wait_end_of_query", "1"),
    ("insert_deduplicate", "1"),
    ("deduplicate_insert", "enable"),
    ("max_insert_threads", "1"),
    ("input_format_parallel_parsing", "0"),
    // Neither squash blocks nor split them.
    ("min_insert_block_size_rows", "0"),
    ("min_insert_block_size_bytes", "0"),
    ("max_insert_block_size", "1000000000"),
    // Seen in 26.7: a part that is written while the last byte of the disk is taken may be accepted without its marks; it is
    // answered OK, cannot be read, and is thrown away at the next start. So no insert begins below 128 MiB.
    ("min_free_disk_bytes_to_perform_insert", "134217728"),
    // A batch has one ingest day; more would be a fault, and two parts.
    ("max_partitions_per_insert_block", "1"),
];

/// Bytes handed to the connection at a time.
const CHUNK_BYTES: usize = 1 << 20;

impl Warehouse {
    /// Inserts a record batch under a token. Columns go by name.
    ///
    /// # Errors
    /// Whatever [`crate::Advice::Retry`] advises leaves open whether the rows are there: read back, never trust the token
    /// alone.
    pub async fn insert(&self, table: &str, batch: &RecordBatch, token: &str) -> Result<(), Error> {
        let schema = batch.schema();
        let names: Vec<String> = schema.fields().iter().map(|field| format!("`{}`", field.name())).collect();
        let sql = format!("INSERT INTO {table} ({}) FORMAT ArrowStream", names.join(", "));
        let stream = encode(batch)?;
        let options = self.options();
        let mut insert = self
            .client()
            .insert_formatted_with(sql)
            .with_setting("insert_deduplication_token", token)
            .with_timeouts(Some(options.send_timeout), Some(options.receive_timeout));
        for (name, value) in PINNED {
            insert = insert.with_setting(name, value);
        }
        let sent = async {
            let mut rest = stream;
            while !rest.is_empty() {
                insert.send(rest.split_to(rest.len().min(CHUNK_BYTES))).await?;
            }
            insert.end().await
        };
        // The client's own time-outs do not cover connecting; a dropped insert is one whose outcome is unknown.
        let longest: Duration = options.connect_timeout + options.send_timeout + options.receive_timeout;
        match tokio::time::timeout(longest, sent).await {
            Ok(result) => result.map_err(|error| self.error(error)),
            Err(_) => Err(self.error(clickhouse::error::Error::TimedOut)),
        }
    }
}

fn encode(batch: &RecordBatch) -> Result<Bytes, Error> {
    let mut writer = StreamWriter::try_new(Vec::with_capacity(batch.get_array_memory_size()), &batch.schema())?;
    writer.write(batch)?;
    Ok(writer.into_inner()?.into())
}
