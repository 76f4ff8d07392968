//! One Arrow record batch as one INSERT, one block, one part, under one deduplication token.
//!
//! What makes it one block is pinned here and nowhere else: one record batch in the stream, no
//! squashing with others, no splitting, one insert thread, one table partition. Two blocks would
//! carry two tokens, and a retry would double rows.

use arrow_array::RecordBatch;
use arrow_ipc::{
    CompressionType,
    writer::{IpcWriteOptions, StreamWriter},
};
use async_recursion::async_recursion as boxed;
use bytes::Bytes;
use clickhouse::Compression;
use std::time::Duration;

use crate::{client::Warehouse, error::Error};

/// Settings of every insert of the loader. A token only means something when all of them hold.
pub const PINNED: [(&str, &str); 12] = [
    // Answered means written, and by this statement alone.
    ("async_insert", "0"),
    ("wait_end_of_query", "1"),
    ("insert_deduplicate", "1"),
    ("deduplicate_insert", "enable"),
    ("max_insert_threads", "1"),
    // One block has no use for more, and handing a small one from thread to thread takes a tenth of
    // its time.
    ("max_threads", "1"),
    ("input_format_parallel_parsing", "0"),
    // Neither squash blocks nor split them.
    ("min_insert_block_size_rows", "0"),
    ("min_insert_block_size_bytes", "0"),
    ("max_insert_block_size", "1000000000"),
    // Seen in 26.7: a part that is written while the last byte of the disk is taken may be accepted
    // without its marks; it is answered OK, cannot be read, and is thrown away at the next start.
    // So no insert begins below 128 MiB.
    ("min_free_disk_bytes_to_perform_insert", "134217728"),
    // A batch has one ingest day; more would be a fault, and two parts.
    ("max_partitions_per_insert_block", "1"),
];

/// From this many rows on each column is compressed by itself while the stream is written, which
/// spares a copy of all of them. For fewer that costs more than it saves: the client compresses the
/// stream as a whole.
const COLUMN_BY_COLUMN_ROWS: usize = 8_192;
/// Bytes handed to the connection at a time.
const CHUNK_BYTES: usize = 1 << 20;

impl Warehouse {
    /// Inserts a record batch under a token. Columns go by name.
    ///
    /// # Errors
    /// Whatever [`crate::Advice::Retry`] advises leaves open whether the rows are there: read back,
    /// never trust the token alone.
    #[boxed]
    pub async fn insert(&self, table: &str, batch: &RecordBatch, token: &str) -> Result<(), Error> {
        let schema = batch.schema();
        let names: Vec<String> = schema.fields().iter().map(|field| format!("`{}`", field.name())).collect();
        let sql = format!("INSERT INTO {table} ({}) FORMAT ArrowStream", names.join(", "));
        let by_column = batch.num_rows() >= COLUMN_BY_COLUMN_ROWS;
        let stream = encode(batch, by_column)?;
        let options = self.options();
        let client = if by_column { &self.client().clone().with_compression(Compression::None) } else { self.client() };
        let mut insert = client
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
        // The client's own time-outs do not cover connecting; a dropped insert is one whose outcome
        // is unknown.
        let longest: Duration = options.connect_timeout + options.send_timeout + options.receive_timeout;
        match tokio::time::timeout(longest, sent).await {
            Ok(result) => result.map_err(|error| self.error(error)),
            Err(_) => Err(self.error(clickhouse::error::Error::TimedOut)),
        }
    }
}

fn encode(batch: &RecordBatch, compressed: bool) -> Result<Bytes, Error> {
    let compression = compressed.then_some(CompressionType::LZ4_FRAME);
    let options = IpcWriteOptions::default().try_with_compression(compression)?;
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options)?;
    writer.write(batch)?;
    Ok(writer.into_inner()?.into())
}
