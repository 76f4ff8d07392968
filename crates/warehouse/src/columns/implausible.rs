//! `implausible_times`.

use arrow_array::{
    ArrayRef,
    types::{Int64Type, UInt64Type},
};
use arrow_schema::FieldRef;
use telemetry::device_time::Implausible;

use crate::columns::{Commons, Number, Origin, Text, Time, Words, table};

table! {
    ImplausibleTimes, "implausible_times", *device: DeviceColumns, {
        boot_id: Number<UInt64Type>,
        seq: Number<UInt64Type>,
        received_at: Time,
        field: Text,
        claim_us: Number<Int64Type>,
        doubt: Text,
        kafka_offset: Number<UInt64Type>,
    }
}

/// The texts that identify a device.
#[derive(Default)]
struct DeviceColumns(Words<5>);

impl DeviceColumns {
    fn finish(self, mut columns: Vec<(FieldRef, ArrayRef)>, commons: &Commons) -> Vec<(FieldRef, ArrayRef)> {
        columns.extend(self.0.finish(["tenant", "site", "device", "model", "firmware"], commons.texts()));
        columns
    }
}

impl ImplausibleTimes {
    /// Adds an impossible time; `seq` is 0 for a message outside the sequence.
    pub fn push(&mut self, commons: &Commons, origin: &Origin<'_>, seq: u64, implausible: &Implausible) {
        self.device.0.push(commons.device(origin.common));
        self.boot_id.push(origin.boot_id);
        self.seq.push(seq);
        self.received_at.push(origin.received_at);
        self.field.push(implausible.field);
        self.claim_us.push(implausible.claim_us);
        self.doubt.push(implausible.doubt.as_str());
        self.kafka_offset.push(origin.kafka_offset);
    }
}
