//! `accuracy_minute`, `accuracy_session` and `item_uses`: exact sums over one batch, one row for
//! each key.

use std::sync::Arc;

use analysis::accuracy::{PercentBins, Sums};
use arrow_array::{
    ArrayRef, StringArray,
    types::{Int32Type, Int64Type, UInt16Type, UInt32Type, UInt64Type},
};
use arrow_schema::{DataType, Field, FieldRef};
use telemetry::v1;

use crate::columns::{Code, Commons, List, Maybe, Number, Time, Words, column::finish, table};

/// What both accuracy tables share: the device and the sums.
#[derive(Default)]
pub(crate) struct SumColumns {
    device: Words<5>,
    counts: [Number<UInt64Type>; 14],
    dose_error: Number<Int64Type>,
    depth_error: Number<Int64Type>,
    extremes: [Maybe<Int32Type>; 4],
    first_at: Time,
    last_at: Time,
}

const TEXTS: [&str; 5] = ["tenant", "site", "device", "model", "firmware"];
const COUNTS: [&str; 14] = [
    "injections",
    "dose_n",
    "dose_target_nl",
    "dose_delivered_nl",
    "dose_error_sq",
    "depth_n",
    "depth_target_um",
    "depth_measured_um",
    "depth_error_sq",
    "ok",
    "partial",
    "aborted",
    "occluded",
    "no_contact",
];
const EXTREMES: [&str; 4] = ["dose_error_min", "dose_error_max", "depth_error_min", "depth_error_max"];

/// Sums of one key.
#[derive(Clone, Copy, Debug)]
pub struct AccuracyRow<'a> {
    pub device: [i32; 5],
    /// At most 4,000,000 injections may be summed, so that the squares of the doses fit 64 bits.
    pub sums: &'a Sums,
}

impl SumColumns {
    fn push(&mut self, row: AccuracyRow<'_>) {
        let AccuracyRow { device, sums } = row;
        self.device.push(device);
        let (dose, depth) = (&sums.dose, &sums.depth);
        let [ok, partial, aborted, occluded, no_contact] = sums.outcomes;
        let counts = [
            sums.injections,
            dose.error.n,
            dose.target,
            dose.measured,
            dose.error.sum_sq as u64,
            depth.error.n,
            depth.target,
            depth.measured,
            depth.error.sum_sq as u64,
            ok,
            partial,
            aborted,
            occluded,
            no_contact,
        ];
        for (column, count) in self.counts.iter_mut().zip(counts) {
            column.push(count);
        }
        self.dose_error.push(dose.error.sum as i64);
        self.depth_error.push(depth.error.sum as i64);
        let extremes = [dose.error.min(), dose.error.max(), depth.error.min(), depth.error.max()];
        for (column, extreme) in self.extremes.iter_mut().zip(extremes) {
            column.push(extreme.map(|extreme| extreme as i32));
        }
        self.first_at.push(sums.first_at);
        self.last_at.push(sums.last_at);
    }

    /// Appends these columns to the table's own columns.
    pub fn finish(self, mut columns: Vec<(FieldRef, ArrayRef)>, commons: &Commons) -> Vec<(FieldRef, ArrayRef)> {
        columns.extend(self.device.finish(TEXTS, commons.texts()));
        columns.extend(COUNTS.into_iter().zip(self.counts).map(|(name, column)| finish(name, column)));
        columns.push(finish("dose_error_nl", self.dose_error));
        columns.push(finish("depth_error_um", self.depth_error));
        columns.extend(EXTREMES.into_iter().zip(self.extremes).map(|(name, column)| finish(name, column)));
        columns.push(finish("first_at", self.first_at));
        columns.push(finish("last_at", self.last_at));
        columns
    }
}

table! {
    AccuracyMinute, "accuracy_minute", *sums: SumColumns, {
        minute: Number<UInt32Type>,
    }
}

impl AccuracyMinute {
    /// Adds the sums of one device and minute; `minute` is its start, s since 1970.
    pub fn push(&mut self, row: AccuracyRow<'_>, minute: u32) {
        self.sums.push(row);
        self.minute.push(minute);
    }
}

table! {
    AccuracySession, "accuracy_session", *visit: VisitColumns, {
        target_nl: Maybe<UInt32Type>,
        target_um: Maybe<UInt16Type>,
        outcome: Code<v1::Outcome>,
        dose_error_bins: List<Int32Type>,
        dose_error_counts: List<UInt32Type>,
    }
}

/// The sums and the texts that identify their session.
#[derive(Default)]
struct VisitColumns {
    sums: SumColumns,
    texts: Words<3>,
}

const VISIT: [&str; 3] = ["session_id", "dose_calibration_id", "depth_calibration_id"];

impl VisitColumns {
    fn finish(self, columns: Vec<(FieldRef, ArrayRef)>, commons: &Commons) -> Vec<(FieldRef, ArrayRef)> {
        let mut columns = self.sums.finish(columns, commons);
        columns.extend(self.texts.finish(VISIT, commons.texts()));
        columns
    }
}

impl AccuracySession {
    /// Adds the sums of one session, set point and outcome. `visit` comes from [`Commons::visit`],
    /// `set_point` is in nl and um, and `outcome` is the number of a [`v1::Outcome`].
    pub fn push(
        &mut self,
        row: AccuracyRow<'_>,
        visit: [i32; 3],
        set_point: (Option<u32>, Option<u16>),
        outcome: i32,
        bins: &PercentBins,
    ) {
        self.visit.sums.push(row);
        self.visit.texts.push(visit);
        self.target_nl.push(set_point.0);
        self.target_um.push(set_point.1);
        self.outcome.push(outcome);
        self.dose_error_bins.push(bins.iter().map(|(bin, _)| bin));
        self.dose_error_counts.push(bins.iter().map(|(_, count)| count));
    }
}

table! {
    ItemUses, "item_uses", *item: ItemColumns, {
        slot: Code<v1::Slot>,
        injections: Number<UInt64Type>,
        punctures: Number<UInt64Type>,
        delivered_nl: Number<UInt64Type>,
        delivered_n: Number<UInt64Type>,
        first_at: Time,
        last_at: Time,
        undated: Number<UInt64Type>,
    }
}

/// The use of one mounted item in one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemUse {
    pub injections: u64,
    /// Number of punctures. An injection without this number counts as 1.
    pub punctures: u64,
    /// Sum of the known delivered doses, nl.
    pub delivered_nl: u64,
    /// Number of injections whose delivered dose is known.
    pub delivered_n: u64,
    /// Time of the first injection, us since 1970.
    pub first_at: i64,
    /// Time of the last injection, us since 1970.
    pub last_at: i64,
    /// Injections whose time is the time of their receipt.
    pub undated: u64,
}

/// Items and where they were used. Item ids rarely repeat, so these two columns have no dictionary.
#[derive(Default)]
struct ItemColumns {
    place: Words<4>,
    keys: [Vec<i32>; 2],
}

impl ItemColumns {
    fn finish(self, mut columns: Vec<(FieldRef, ArrayRef)>, commons: &Commons) -> Vec<(FieldRef, ArrayRef)> {
        columns.extend(self.place.finish(["tenant", "site", "device", "session_id"], commons.texts()));
        for (name, keys) in ["mount_id", "item_id"].into_iter().zip(self.keys) {
            let texts = StringArray::from_iter_values(keys.into_iter().map(|key| commons.texts().text(key)));
            columns.push((Arc::new(Field::new(name, DataType::Utf8, false)), Arc::new(texts)));
        }
        columns
    }
}

impl ItemUses {
    /// Adds the use of an item. `place` holds the keys of tenant, site, device and session, `item`
    /// the keys of mount and item. `slot` is the number of a [`v1::Slot`].
    pub fn push(&mut self, place: [i32; 4], item: [i32; 2], slot: i32, item_use: &ItemUse) {
        self.item.place.push(place);
        self.item.keys.iter_mut().zip(item).for_each(|(column, key)| column.push(key));
        self.slot.push(slot);
        self.injections.push(item_use.injections);
        self.punctures.push(item_use.punctures);
        self.delivered_nl.push(item_use.delivered_nl);
        self.delivered_n.push(item_use.delivered_n);
        self.first_at.push(item_use.first_at);
        self.last_at.push(item_use.last_at);
        self.undated.push(item_use.undated);
    }
}
