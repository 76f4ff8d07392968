//! Writes one Arrow record batch as one INSERT, one block and one part, under one deduplication
//! token.
//!
//! Only this file pins what makes it one block: one record batch in the stream, no joining with
//! other blocks, no splitting, one insert thread, one table partition. Two blocks would carry two
//! tokens, and a retry would then write rows twice.

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

/// Settings of every insert of the loader. A token is only meaningful while all of them hold.
pub const PINNED: [(&str, &str); 12] = [
    // The answer must mean that this statement has written the rows.
    ("async_insert", "0"),
    ("wait_end_of_query", "1"),
    ("insert_deduplicate", "1"),
    ("deduplicate_insert", "enable"),
    ("max_insert_threads", "1"),
    // One block needs only one thread. Passing a small block between threads costs a tenth of its
    // time.
    ("max_threads", "1"),
    ("input_format_parallel_parsing", "0"),
    // ClickHouse must neither join nor split blocks.
    ("min_insert_block_size_rows", "0"),
    ("min_insert_block_size_bytes", "0"),
    ("max_insert_block_size", "1000000000"),
    // Seen in ClickHouse 26.7: when the last byte of the disk is taken while a part is written, the
    // part may be accepted without its marks. The insert is answered OK, but the part cannot be
    // read, and the next start discards it. So no insert begins with less than 128 MiB of free
    // disk.
    ("min_free_disk_bytes_to_perform_insert", "134217728"),
    // A batch has one ingest day. A second table partition would be a fault and would make two
    // parts.
    ("max_partitions_per_insert_block", "1"),
];

/// From this number of rows on, each column is compressed separately while the stream is written.
/// This avoids a copy of all columns. For fewer rows it costs more than it saves, so the client
/// compresses the whole stream.
const COLUMN_BY_COLUMN_ROWS: usize = 8_192;
/// How many bytes are handed to the connection at once.
const CHUNK_BYTES: usize = 1 << 20;

impl Warehouse {
    /// Inserts a record batch under a token. Columns are matched by name.
    ///
    /// # Errors
    /// After any error with [`crate::Advice::Retry`] it is open whether the rows are there. Read
    /// back the table; never rely on the token alone.
    #[boxed]
    pub async fn insert(&self, table: &str, batch: &RecordBatch, token: &str) -> Result<(), Error> {
        let schema = batch.schema();
        let names: Vec<String> = schema.fields().iter().map(|field| format!("`{}`", field.name())).collect();
        let sql = format!("INSERT INTO {table} ({}) FORMAT ArrowStream", names.join(", "));
        let by_column = batch.num_rows() >= COLUMN_BY_COLUMN_ROWS;
        let stream = encode(batch, by_column)?;
        let options = self.options();
        let client = if by_column { self.client().with_compression(Compression::None) } else { self.client() };
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
        // The client's own timeouts do not cover connecting. A dropped insert has an unknown
        // outcome.
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
