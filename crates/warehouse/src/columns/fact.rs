//! The columns that every fact has: identity, time, context.

use std::ops::Range;

use arrow_array::{
    ArrayRef,
    types::{UInt32Type, UInt64Type},
};
use arrow_schema::FieldRef;
use telemetry::v1;

use crate::columns::{
    Number, Texts, Time,
    column::{finish, push_run, seen, words},
};

/// What many reports of a batch have in common.
#[derive(Clone, Copy, Debug)]
pub struct Common<'a> {
    /// Clinic chain, from the topic.
    pub tenant: &'a str,
    /// Clinic, from the topic.
    pub site: &'a str,
    /// Device, from the topic.
    pub device: &'a str,
    /// Where the time of the events comes from: `DEVICE` or `RECEIVED`.
    pub time_source: &'static str,
    /// Model, from the report.
    pub model: &'a str,
    /// Firmware, from the report.
    pub firmware: &'a str,
    /// Session, 32 hex digits, or empty.
    pub session_id: &'a str,
    /// `SYNCED`, `UNSYNCED` or `UNKNOWN`.
    pub clock: &'static str,
    pub dose_calibration_id: &'a str,
    pub depth_calibration_id: &'a str,
    pub preparation_id: &'a str,
    /// Pseudonym of the operator.
    pub operator_id: &'a str,
    pub mounts: &'a [v1::MountInUse],
}

/// Columns for the texts of a [`Common`]. Every fact has the first [`OF_EVERY_FACT`] of them, an
/// injection has all.
const NAMES: [&str; 18] = [
    "tenant",
    "site",
    "device",
    "time_source",
    "model",
    "firmware",
    "session_id",
    "clock",
    "dose_calibration_id",
    "depth_calibration_id",
    "preparation_id",
    "operator_id",
    "needle_mount_id",
    "needle_item_id",
    "syringe_mount_id",
    "syringe_item_id",
    "handpiece_mount_id",
    "handpiece_item_id",
];
const OF_EVERY_FACT: usize = 7;
pub(crate) const OF_INJECTIONS: usize = NAMES.len();

/// The different [`Common`]s of the reports of a batch, numbered. Each text is stored and looked up
/// once, not once for each row, table and column.
#[derive(Default)]
pub struct Commons {
    texts: Texts,
    rows: Vec<CommonRow>,
    mounts: Vec<Mounted>,
}

struct CommonRow {
    /// Keys of the texts, in the order of [`NAMES`].
    keys: [i32; NAMES.len()],
    mounts: Range<usize>,
}

/// A mount in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mounted {
    /// Number of a [`v1::Slot`].
    pub slot: i32,
    /// Keys of the mount's and the item's texts.
    pub keys: [i32; 2],
}

impl Commons {
    /// Adds a [`Common`] and returns its number; numbers ascend from 0.
    pub fn add(&mut self, common: &Common<'_>) -> u32 {
        let texts = &mut self.texts;
        let first = self.mounts.len();
        self.mounts.extend(
            common.mounts.iter().map(|mount| Mounted {
                slot: mount.slot,
                keys: [texts.key(&mount.mount_id), texts.key(&mount.item_id)],
            }),
        );
        let Common { tenant, site, device, time_source, model, firmware, session_id, clock, .. } = *common;
        let Common { dose_calibration_id, depth_calibration_id, preparation_id, operator_id, .. } = *common;
        let identity = [tenant, site, device, time_source, model, firmware, session_id, clock];
        let in_use = [dose_calibration_id, depth_calibration_id, preparation_id, operator_id];
        // An empty text stands for a slot without a mount.
        let mut keys = [texts.key(""); NAMES.len()];
        let (said, mounted) = keys.split_at_mut(identity.len() + in_use.len());
        for (key, text) in said.iter_mut().zip(identity.into_iter().chain(in_use)) {
            *key = texts.key(text);
        }
        let slots = [v1::Slot::Needle, v1::Slot::Syringe, v1::Slot::Handpiece];
        for (keys, slot) in mounted.chunks_exact_mut(2).zip(slots) {
            if let Some(mount) = self.mounts[first..].iter().find(|mount| mount.slot == slot as i32) {
                keys.copy_from_slice(&mount.keys);
            }
        }
        self.rows.push(CommonRow { keys, mounts: first..self.mounts.len() });
        // The size of a batch is bounded in bytes, so it has fewer reports than i32 has numbers.
        (self.rows.len() - 1) as u32
    }

    /// Keys of the tenant, site, device, model and firmware of a number.
    pub fn device(&self, number: u32) -> [i32; 5] {
        let [tenant, site, device, _, model, firmware, ..] = self.rows[number as usize].keys;
        [tenant, site, device, model, firmware]
    }

    /// Keys of the session, dose calibration and depth calibration of a number.
    pub fn visit(&self, number: u32) -> [i32; 3] {
        let [_, _, _, _, _, _, session, _, dose, depth, ..] = self.rows[number as usize].keys;
        [session, dose, depth]
    }

    /// Whether the events of a number have their time from the device.
    pub fn is_device_time(&self, number: u32) -> bool {
        let [_, _, _, time_source, ..] = self.rows[number as usize].keys;
        self.texts.text(time_source) == "DEVICE"
    }

    /// The mounts in use of a number.
    pub fn mounts(&self, number: u32) -> &[Mounted] {
        &self.mounts[self.rows[number as usize].mounts.clone()]
    }

    pub(crate) fn texts(&self) -> &Texts {
        &self.texts
    }
}

/// Bit of `flags`: an enum has a value that this version does not know.
pub const UNKNOWN_ENUM: u32 = 1;
/// Bit of `flags`: the report has fields that this version does not know.
pub const UNKNOWN_FIELDS: u32 = 2;
/// Bit of `flags`: the device reports its clock as synced, but the clock shows an impossible time.
pub const IMPLAUSIBLE_TIME: u32 = 4;

/// What all events of one report have in common.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Number of the report's [`Common`], from [`Commons::add`].
    pub common: u32,
    pub boot_id: u64,
    /// When the bridge received the report, us since 1970.
    pub received_at: i64,
    /// Offset of its Kafka record.
    pub kafka_offset: u64,
    /// Pseudonym of the operator.
    pub operator_id: &'a str,
    /// Remarks about the row: [`UNKNOWN_ENUM`], [`UNKNOWN_FIELDS`], [`IMPLAUSIBLE_TIME`],
    /// [`telemetry::text::TRIMMED`], [`telemetry::text::STRANGE`].
    pub flags: u32,
}

/// Columns of a fact, with the first `TEXTS` texts of [`NAMES`].
#[derive(Default)]
pub(crate) struct Facts<const TEXTS: usize = OF_EVERY_FACT> {
    /// Runs of successive rows with the same number in [`Commons`]: the number, and how many rows.
    commons: Vec<(i32, u32)>,
    boot_id: Number<UInt64Type>,
    seq: Number<UInt64Type>,
    at: Time,
    received_at: Time,
    kafka_offset: Number<UInt64Type>,
    flags: Number<UInt32Type>,
}

impl<const TEXTS: usize> Facts<TEXTS> {
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            commons: Vec::new(),
            boot_id: Number::with_capacity(rows),
            seq: Number::with_capacity(rows),
            at: Time::with_capacity(rows),
            received_at: Time::with_capacity(rows),
            kafka_offset: Number::with_capacity(rows),
            flags: Number::with_capacity(rows),
        }
    }

    #[inline]
    pub fn push(&mut self, origin: &Origin<'_>, seq: u64, at: i64) {
        push_run(&mut self.commons, origin.common as i32);
        self.boot_id.push(origin.boot_id);
        self.seq.push(seq);
        self.at.push(at);
        self.received_at.push(origin.received_at);
        self.kafka_offset.push(origin.kafka_offset);
        self.flags.push(origin.flags);
    }

    /// Appends these columns to the table's own columns.
    pub fn finish(self, mut columns: Vec<(FieldRef, ArrayRef)>, commons: &Commons) -> Vec<(FieldRef, ArrayRef)> {
        let seen = seen(&self.commons, commons.rows.len());
        for (at, name) in NAMES.into_iter().enumerate().take(TEXTS) {
            let key = |number: i32| commons.rows[number as usize].keys[at];
            columns.push(words(name, &self.commons, &seen, commons.rows.len(), key, &commons.texts));
        }
        columns.push(finish("boot_id", self.boot_id));
        columns.push(finish("seq", self.seq));
        columns.push(finish("at", self.at));
        columns.push(finish("received_at", self.received_at));
        columns.push(finish("kafka_offset", self.kafka_offset));
        columns.push(finish("flags", self.flags));
        columns
    }
}
