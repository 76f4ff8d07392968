//! `calibrations`, `faults` and `device_status`.

use arrow_array::types::{Int32Type, Int64Type, UInt32Type, UInt64Type};
use telemetry::v1;

use crate::columns::{Code, Facts, Maybe, Number, Origin, Text, column::MaybeTime, table};

table! {
    /// Rows of `calibrations`: one for each point, or a single row for a calibration without
    /// points.
    Calibrations, "calibrations", *facts: Facts, {
        index: Number<UInt32Type>,
        points: Number<UInt32Type>,
        subject_device: Text,
        channel: Code<v1::Channel>,
        calibration_id: Text,
        performed_at: MaybeTime,
        due_at: MaybeTime,
        certificate: Text,
        operator_id: Text,
        target: Maybe<Int64Type>,
        reference: Maybe<Int64Type>,
        indicated: Maybe<Int64Type>,
        phase: Code<v1::Phase>,
        expanded_uncertainty: Maybe<UInt64Type>,
        k: Maybe<UInt32Type>,
    }
}

impl Calibrations {
    pub fn push(&mut self, origin: &Origin<'_>, seq: u64, at: i64, calibration: &v1::Calibration) {
        let none = [v1::CalibrationPoint::default()];
        let points = if calibration.points.is_empty() { &none } else { calibration.points.as_slice() };
        for (index, point) in points.iter().enumerate() {
            self.facts.push(origin, seq, at);
            self.index.push(index as u32);
            self.points.push(calibration.points.len() as u32);
            self.subject_device.push(&calibration.subject_device);
            self.channel.push(calibration.channel);
            self.calibration_id.push(&calibration.calibration_id);
            self.performed_at.push(calibration.performed_unix_us);
            self.due_at.push(calibration.due_unix_us);
            self.certificate.push(&calibration.certificate);
            self.operator_id.push(origin.operator_id);
            self.target.push(point.target);
            self.reference.push(point.reference);
            self.indicated.push(point.indicated);
            self.phase.push(point.phase);
            self.expanded_uncertainty.push(point.expanded_uncertainty);
            self.k.push(point.k);
        }
    }
}

table! {
    Faults, "faults", *facts: Facts, {
        code: Text,
        state: Code<v1::FaultState>,
        detail: Text,
    }
}

impl Faults {
    pub fn push(&mut self, origin: &Origin<'_>, seq: u64, at: i64, fault: &v1::Fault) {
        self.facts.push(origin, seq, at);
        self.code.push(&fault.code);
        self.state.push(fault.state);
        self.detail.push(&fault.detail);
    }
}

table! {
    DeviceStatus, "device_status", *facts: Facts, {
        source: Text,
        state: Code<v1::State>,
        since: MaybeTime,
        battery_pct: Maybe<UInt32Type>,
        temperature_mc: Maybe<Int32Type>,
        outbox_events: Maybe<UInt64Type>,
        oldest_unreceipted_s: Maybe<UInt32Type>,
        injection_no: Maybe<UInt64Type>,
        last_boot_id: Maybe<UInt64Type>,
        last_seq: Maybe<UInt64Type>,
    }
}

/// A message that shows that a device is working.
#[derive(Clone, Copy, Debug)]
pub enum Sign<'a> {
    /// A heartbeat event in a report.
    Heartbeat(&'a v1::Heartbeat),
    /// A message on the status topic.
    Status(&'a v1::Status),
}

impl DeviceStatus {
    /// Adds a row; `seq` is 0 for a message outside the sequence.
    pub fn push(&mut self, origin: &Origin<'_>, seq: u64, at: i64, sign: Sign<'_>) {
        self.facts.push(origin, seq, at);
        match sign {
            Sign::Heartbeat(heartbeat) => {
                self.source.push("HEARTBEAT");
                self.state.push(0);
                self.since.push(None);
                self.battery_pct.push(heartbeat.battery_pct);
                self.temperature_mc.push(heartbeat.temperature_mc);
                self.outbox_events.push(heartbeat.outbox_events);
                self.oldest_unreceipted_s.push(heartbeat.oldest_unreceipted_s);
                self.injection_no.push(heartbeat.injection_no);
                self.last_boot_id.push(heartbeat.boot_id);
                self.last_seq.push(heartbeat.last_seq);
            }
            Sign::Status(status) => {
                self.source.push("STATUS");
                self.state.push(status.state);
                self.since.push(status.since_unix_us);
                self.battery_pct.push(status.battery_pct);
                self.temperature_mc.push(None);
                self.outbox_events.push(status.outbox_events);
                self.oldest_unreceipted_s.push(None);
                self.injection_no.push(None);
                self.last_boot_id.push(status.boot_id);
                self.last_seq.push(status.last_seq);
            }
        }
    }
}
