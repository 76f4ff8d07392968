//! The contents of an event's rows as text. When an event arrives again, the loader compares it
//! with the stored event.
//!
//! The comparison leaves out what may differ between two reports of one event: where and when the
//! report arrived, whether the clock was synced by then, flags. It compares a time only if both
//! rows have it. The time of the event is only used if its clock was believed. Any other time is
//! only stored if it was plausible at its receipt.

use std::collections::HashMap;

use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, RecordBatch,
    cast::AsArray as _,
    types::{Int32Type, Int64Type, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type},
};
use arrow_schema::{DataType, Schema};
use serde::Deserialize;
use telemetry::kafka::SOURCE_LOADER;

use crate::{client::Warehouse, columns::EVENT_TABLES, error::Error, quarantine::unhex, sql::quoted};

/// Columns that do not belong to an event's contents.
const LEFT_OUT: [&str; 16] = [
    "tenant",
    "device",
    "boot_id",
    "seq",
    "site",
    "time_source",
    "clock",
    "received_at",
    "kafka_offset",
    "flags",
    "ingest_day",
    "incarnation",
    "kafka_partition",
    "batch",
    "gen",
    "batch_hash",
];

/// The identity of an event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
pub struct EventKey {
    pub tenant: String,
    pub device: String,
    pub boot_id: u64,
    pub seq: u64,
}

/// One row of an event.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct EventContent {
    pub tenant: String,
    pub device: String,
    pub boot_id: u64,
    pub seq: u64,
    /// Offset of the Kafka record it came from.
    pub kafka_offset: u64,
    /// Its compared columns, in the order of [`compared`].
    pub cells: Vec<String>,
}

impl EventContent {
    pub fn key(&self) -> EventKey {
        let Self { tenant, device, boot_id, seq, .. } = self.clone();
        EventKey { tenant, device, boot_id, seq }
    }
}

/// Names of the columns that are compared.
pub fn compared(schema: &Schema) -> Vec<&str> {
    schema.fields().iter().map(|field| field.name().as_str()).filter(|name| !LEFT_OUT.contains(name)).collect()
}

fn is_time(schema: &Schema, name: &str) -> bool {
    schema.field_with_name(name).is_ok_and(|field| matches!(field.data_type(), DataType::Timestamp(..)))
}

/// The contents of the rows of one of the [`EVENT_TABLES`].
pub fn contents(rows: &RecordBatch) -> Vec<EventContent> {
    let column = |name: &str| rows.column_by_name(name).map(texts).unwrap_or_default();
    let number = |texts: &[String], row: usize| texts.get(row).and_then(|text| text.parse().ok()).unwrap_or(0);
    let [tenant, device, time_source] = ["tenant", "device", "time_source"].map(column);
    let [boot_id, seq, kafka_offset] = ["boot_id", "seq", "kafka_offset"].map(column);
    let schema = rows.schema();
    let columns: Vec<(&str, Vec<String>)> = compared(&schema).into_iter().map(|name| (name, column(name))).collect();
    let content = |row: usize| EventContent {
        tenant: tenant[row].clone(),
        device: device[row].clone(),
        boot_id: number(&boot_id, row),
        seq: number(&seq, row),
        kafka_offset: number(&kafka_offset, row),
        cells: columns
            .iter()
            .map(|(name, texts)| match *name {
                "at" if time_source[row] != "DEVICE" => String::new(),
                _ => texts[row].clone(),
            })
            .collect(),
    };
    (0..rows.num_rows()).map(content).collect()
}

/// A column's values as ClickHouse's `toString` writes them; times as us since 1970.
fn texts(array: &ArrayRef) -> Vec<String> {
    let each = |text: &dyn Fn(usize) -> String| {
        (0..array.len()).map(|row| if array.is_null(row) { "NULL".to_owned() } else { text(row) }).collect()
    };
    fn numbers<T: ArrowPrimitiveType<Native: ToString>>(array: &ArrayRef) -> impl Fn(usize) -> String {
        |row| array.as_primitive::<T>().value(row).to_string()
    }
    match array.data_type() {
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let (keys, values) = (dictionary.normalized_keys(), dictionary.values().as_string::<i32>());
            each(&|row| values.value(keys[row]).to_owned())
        }
        DataType::Boolean => each(&|row| array.as_boolean().value(row).to_string()),
        DataType::UInt8 => each(&numbers::<UInt8Type>(array)),
        DataType::UInt16 => each(&numbers::<UInt16Type>(array)),
        DataType::UInt32 => each(&numbers::<UInt32Type>(array)),
        DataType::UInt64 => each(&numbers::<UInt64Type>(array)),
        DataType::Int32 => each(&numbers::<Int32Type>(array)),
        DataType::Int64 => each(&numbers::<Int64Type>(array)),
        DataType::Timestamp(..) => each(&numbers::<TimestampMicrosecondType>(array)),
        // The columns of events have no other types. A test compares each table with the engine's
        // own text.
        other => each(&|_| other.to_string()),
    }
}

/// How an event that arrived again differs from the stored event; `None` = it does not.
pub fn difference(schema: &Schema, came: &[&EventContent], stored: &[&EventContent]) -> Option<String> {
    /// How many differences the text names.
    const NAMED: usize = 4;
    if came.len() != stored.len() {
        return Some(format!("{} rows, stored are {}", came.len(), stored.len()));
    }
    fn sorted<'c>(rows: &[&'c EventContent]) -> Vec<&'c Vec<String>> {
        let mut cells: Vec<_> = rows.iter().map(|row| &row.cells).collect();
        cells.sort_unstable();
        cells
    }
    let names = compared(schema);
    let (came, stored) = (sorted(came), sorted(stored));
    let mut found = Vec::new();
    for (came, stored) in came.iter().zip(&stored) {
        for ((name, came), stored) in names.iter().zip(came.iter()).zip(stored.iter()) {
            // A time that was impossible at its receipt is not stored. The two reports were
            // received at different times, so one of them may lack the time.
            let is_absent = |cell: &String| cell.is_empty() || cell == "NULL";
            let unknown = is_time(schema, name) && (is_absent(came) || is_absent(stored));
            if came != stored && !unknown && found.len() < NAMED {
                found.push(format!("{name} is {came:?}, stored is {stored:?}"));
            }
        }
    }
    (!found.is_empty()).then(|| found.join("; "))
}

/// An event that the quarantine keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Why it was refused.
    pub reason: String,
    /// A report with the one event.
    pub payload: Vec<u8>,
}

#[derive(Deserialize)]
struct KeptRow {
    tenant: String,
    device: String,
    boot_id: u64,
    seq: u64,
    reason: String,
    payload: String,
}

/// Events that are asked for at a time: the text of a query is limited.
const KEYS_MAX: usize = 1_000;

impl Warehouse {
    /// The stored contents of these events in one table.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub async fn contents(&self, table: &str, schema: &Schema, keys: &[EventKey]) -> Result<Vec<EventContent>, Error> {
        let cell = |name: &str| {
            let column =
                if is_time(schema, name) { format!("toUnixTimestamp64Micro(`{name}`)") } else { format!("`{name}`") };
            match name {
                "at" => format!("if(time_source = 'DEVICE', toString({column}), '')"),
                _ => format!("ifNull(toString({column}), 'NULL')"),
            }
        };
        let cells = compared(schema).into_iter().map(cell).collect::<Vec<_>>().join(", ");
        let mut found = Vec::new();
        for keys in keys.chunks(KEYS_MAX) {
            let sql = format!(
                "SELECT toString(event.tenant) AS tenant, toString(event.device) AS device, event.boot_id AS boot_id, \
                 event.seq AS seq, event.kafka_offset AS kafka_offset, [{cells}] AS cells FROM {table} AS event WHERE {}",
                among(keys)
            );
            found.extend(self.rows::<EventContent>(&sql).await?);
        }
        Ok(found)
    }

    /// Those of the given events that some table holds.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub async fn stored_events(&self, keys: &[EventKey]) -> Result<Vec<EventKey>, Error> {
        let mut found = Vec::new();
        for keys in keys.chunks(KEYS_MAX) {
            let among = among(keys);
            let selects: Vec<String> = EVENT_TABLES
                .iter()
                .map(|table| {
                    format!(
                        "SELECT DISTINCT toString(event.tenant) AS tenant, toString(event.device) AS device, \
                         event.boot_id AS boot_id, event.seq AS seq FROM {table} AS event WHERE {among}"
                    )
                })
                .collect();
            let sql = selects.join(" UNION ALL ");
            found.extend(self.rows::<EventKey>(&sql).await?);
        }
        Ok(found)
    }

    /// What the quarantine keeps of these events, as a loader refused them. Conflicts with them are
    /// not among it.
    ///
    /// # Errors
    /// As [`Warehouse::fetch`].
    pub async fn kept_in_quarantine(&self, keys: &[EventKey]) -> Result<Vec<(EventKey, Kept)>, Error> {
        let mut found = Vec::new();
        for keys in keys.chunks(KEYS_MAX) {
            let sql = format!(
                "SELECT toString(event.tenant) AS tenant, toString(event.device) AS device, event.boot_id AS boot_id, \
                 event.seq AS seq, toString(event.reason) AS reason, hex(event.payload) AS payload \
                 FROM quarantine AS event WHERE event.source = '{SOURCE_LOADER}' AND ({}) ORDER BY event.kafka_offset",
                among(keys)
            );
            for KeptRow { tenant, device, boot_id, seq, reason, payload } in self.rows(&sql).await? {
                found.push((EventKey { tenant, device, boot_id, seq }, Kept { reason, payload: unhex(&payload) }));
            }
        }
        Ok(found)
    }
}

fn among(keys: &[EventKey]) -> String {
    let mut by_boot: HashMap<(&str, &str, u64), Vec<String>> = HashMap::new();
    for EventKey { tenant, device, boot_id, seq } in keys {
        by_boot.entry((tenant, device, *boot_id)).or_default().push(seq.to_string());
    }
    let mut boots: Vec<String> = by_boot
        .into_iter()
        .map(|((tenant, device, boot_id), seqs)| {
            let (tenant, device) = (quoted(tenant), quoted(device));
            let seqs = seqs.join(", ");
            format!("(event.tenant = {tenant} AND event.device = {device} AND event.boot_id = {boot_id} AND event.seq IN ({seqs}))")
        })
        .collect();
    boots.sort_unstable();
    boots.join(" OR ")
}
