//! The columns that every fact has: identity, time, context.

use arrow_array::{ArrayRef, types::UInt64Type};
use arrow_schema::FieldRef;

use crate::columns::{Number, Shared, Time, column::finish};

/// What holds for all events of one report, borrowed from it.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Number of its texts in the batch: reports that have one number have the same in each text below, and the same mounts in
    /// use, so that they are looked up once.
    pub texts: u32,
    /// Clinic chain, from the topic.
    pub tenant: &'a str,
    /// Clinic, from the topic.
    pub site: &'a str,
    /// Device, from the topic.
    pub device: &'a str,
    /// Boot.
    pub boot_id: u64,
    /// When the bridge received the report, us since 1970.
    pub received_at: i64,
    /// Offset of its Kafka record.
    pub kafka_offset: u64,
    /// `DEVICE` or `RECEIVED`: where the events' time comes from.
    pub time_source: &'static str,
    /// `SYNCED`, `UNSYNCED` or `UNKNOWN`.
    pub clock: &'static str,
    /// Model as the report says.
    pub model: &'a str,
    /// Firmware as the report says.
    pub firmware: &'a str,
    /// Visit, 32 hex digits, or empty.
    pub session_id: &'a str,
    /// Dose calibration in force.
    pub dose_calibration_id: &'a str,
    /// Depth calibration in force.
    pub depth_calibration_id: &'a str,
    /// Mixture in use.
    pub preparation_id: &'a str,
    /// Pseudonym of the operator.
    pub operator_id: &'a str,
    /// Mounts in use: needle, syringe, handpiece.
    pub slots: [Slot<'a>; 3],
    /// Whether the report has fields this version does not know.
    pub unknown_fields: bool,
}

/// What is mounted in one slot; empty = not said.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slot<'a> {
    /// The mount.
    pub mount_id: &'a str,
    /// The item.
    pub item_id: &'a str,
}

/// Columns of a fact.
#[derive(Default)]
pub(crate) struct Facts {
    texts: Shared<7>,
    boot_id: Number<UInt64Type>,
    seq: Number<UInt64Type>,
    at: Time,
    received_at: Time,
    kafka_offset: Number<UInt64Type>,
}

const TEXTS: [&str; 7] = ["tenant", "site", "device", "time_source", "model", "firmware", "session_id"];

impl Facts {
    /// With room for so many rows.
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            texts: Shared::default(),
            boot_id: Number::with_capacity(rows),
            seq: Number::with_capacity(rows),
            at: Time::with_capacity(rows),
            received_at: Time::with_capacity(rows),
            kafka_offset: Number::with_capacity(rows),
        }
    }

    /// Adds a row.
    pub fn push(&mut self, origin: &Origin<'_>, seq: u64, at: i64) {
        let Origin { tenant, site, device, time_source, model, firmware, session_id, .. } = *origin;
        self.texts.push(origin.texts, || [tenant, site, device, time_source, model, firmware, session_id]);
        self.boot_id.push(origin.boot_id);
        self.seq.push(seq);
        self.at.push(at);
        self.received_at.push(origin.received_at);
        self.kafka_offset.push(origin.kafka_offset);
    }

    /// Adds its columns to the table's own.
    pub fn finish(self, mut columns: Vec<(FieldRef, ArrayRef)>) -> Vec<(FieldRef, ArrayRef)> {
        columns.extend(self.texts.finish(TEXTS));
        columns.push(finish("boot_id", self.boot_id));
        columns.push(finish("seq", self.seq));
        columns.push(finish("at", self.at));
        columns.push(finish("received_at", self.received_at));
        columns.push(finish("kafka_offset", self.kafka_offset));
        columns
    }
}
