//! The columns that every fact has: identity, time, context.

use arrow_array::{ArrayRef, types::UInt64Type};
use arrow_schema::FieldRef;

use crate::columns::{Number, Text, Time, column::finish};

/// What holds for all events of one report, borrowed from it.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Number of the report in the batch, from 1: lets columns look up its texts once.
    pub serial: u64,
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
    /// Report whose `keys` these are.
    serial: u64,
    keys: [i32; 7],
    tenant: Text,
    site: Text,
    device: Text,
    boot_id: Number<UInt64Type>,
    seq: Number<UInt64Type>,
    at: Time,
    time_source: Text,
    received_at: Time,
    model: Text,
    firmware: Text,
    session_id: Text,
    kafka_offset: Number<UInt64Type>,
}

impl Facts {
    /// Adds a row; true when it is the first of its report in this table.
    pub fn push(&mut self, origin: &Origin<'_>, seq: u64, at: i64) -> bool {
        let first = self.serial != origin.serial;
        if first {
            self.serial = origin.serial;
            self.keys = [
                self.tenant.key(origin.tenant),
                self.site.key(origin.site),
                self.device.key(origin.device),
                self.time_source.key(origin.time_source),
                self.model.key(origin.model),
                self.firmware.key(origin.firmware),
                self.session_id.key(origin.session_id),
            ];
        }
        let [tenant, site, device, time_source, model, firmware, session_id] = self.keys;
        self.tenant.push_key(tenant);
        self.site.push_key(site);
        self.device.push_key(device);
        self.boot_id.push(origin.boot_id);
        self.seq.push(seq);
        self.at.push(at);
        self.time_source.push_key(time_source);
        self.received_at.push(origin.received_at);
        self.model.push_key(model);
        self.firmware.push_key(firmware);
        self.session_id.push_key(session_id);
        self.kafka_offset.push(origin.kafka_offset);
        first
    }

    /// Adds its columns to the table's own.
    pub fn finish(self, mut columns: Vec<(FieldRef, ArrayRef)>) -> Vec<(FieldRef, ArrayRef)> {
        columns.push(finish("tenant", self.tenant));
        columns.push(finish("site", self.site));
        columns.push(finish("device", self.device));
        columns.push(finish("boot_id", self.boot_id));
        columns.push(finish("seq", self.seq));
        columns.push(finish("at", self.at));
        columns.push(finish("time_source", self.time_source));
        columns.push(finish("received_at", self.received_at));
        columns.push(finish("model", self.model));
        columns.push(finish("firmware", self.firmware));
        columns.push(finish("session_id", self.session_id));
        columns.push(finish("kafka_offset", self.kafka_offset));
        columns
    }
}
