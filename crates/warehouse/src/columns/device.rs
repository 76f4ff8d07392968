//! `calibrations`, `faults` and `device_status`.

use arrow_array::{
    builder::PrimitiveBuilder,
    types::{Int32Type, Int64Type, UInt32Type, UInt64Type},
};
use telemetry::v1;

use crate::columns::{Code, Facts, Number, Origin, Text, column::MaybeTime, table};

table! {
    /// Rows of `calibrations`: one for each point, or one for a calibration without any.
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
        target: PrimitiveBuilder<Int64Type>,
        reference: PrimitiveBuilder<Int64Type>,
        indicated: PrimitiveBuilder<Int64Type>,
        phase: Code<v1::Phase>,
        expanded_uncertainty: PrimitiveBuilder<UInt64Type>,
        k: PrimitiveBuilder<UInt32Type>,
    }
}

impl Calibrations {
    /// Adds a calibration.
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
            self.target.append_option(point.target);
            self.reference.append_option(point.reference);
            self.indicated.append_option(point.indicated);
            self.phase.push(point.phase);
            self.expanded_uncertainty.append_option(point.expanded_uncertainty);
            self.k.append_option(point.k);
        }
    }
}

table! {
    /// Rows of `faults`.
    Faults, "faults", *facts: Facts, {
        code: Text,
        state: Code<v1::FaultState>,
        detail: Text,
    }
}

impl Faults {
    /// Adds a fault raised or cleared.
    pub fn push(&mut self, origin: &Origin<'_>, seq: u64, at: i64, fault: &v1::Fault) {
        self.facts.push(origin, seq, at);
        self.code.push(&fault.code);
        self.state.push(fault.state);
        self.detail.push(&fault.detail);
    }
}

table! {
    /// Rows of `device_status`.
    DeviceStatus, "device_status", *facts: Facts, {
        source: Text,
        state: Code<v1::State>,
        since: MaybeTime,
        battery_pct: PrimitiveBuilder<UInt32Type>,
        temperature_mc: PrimitiveBuilder<Int32Type>,
        outbox_events: PrimitiveBuilder<UInt64Type>,
        oldest_unreceipted_s: PrimitiveBuilder<UInt32Type>,
        injection_no: PrimitiveBuilder<UInt64Type>,
        last_boot_id: PrimitiveBuilder<UInt64Type>,
        last_seq: PrimitiveBuilder<UInt64Type>,
    }
}

/// A sign of life.
#[derive(Clone, Copy, Debug)]
pub enum Sign<'a> {
    /// In a report.
    Heartbeat(&'a v1::Heartbeat),
    /// On the status topic.
    Status(&'a v1::Status),
}

impl DeviceStatus {
    /// Adds a sign of life; `seq` is 0 outside the sequence.
    pub fn push(&mut self, origin: &Origin<'_>, seq: u64, at: i64, sign: Sign<'_>) {
        self.facts.push(origin, seq, at);
        match sign {
            Sign::Heartbeat(heartbeat) => {
                self.source.push("HEARTBEAT");
                self.state.push(0);
                self.since.push(None);
                self.battery_pct.append_option(heartbeat.battery_pct);
                self.temperature_mc.append_option(heartbeat.temperature_mc);
                self.outbox_events.append_option(heartbeat.outbox_events);
                self.oldest_unreceipted_s.append_option(heartbeat.oldest_unreceipted_s);
                self.injection_no.append_option(heartbeat.injection_no);
                self.last_boot_id.append_option(heartbeat.boot_id);
                self.last_seq.append_option(heartbeat.last_seq);
            }
            Sign::Status(status) => {
                self.source.push("STATUS");
                self.state.push(status.state);
                self.since.push(status.since_unix_us);
                self.battery_pct.append_option(status.battery_pct);
                self.temperature_mc.append_null();
                self.outbox_events.append_option(status.outbox_events);
                self.oldest_unreceipted_s.append_null();
                self.injection_no.append_null();
                self.last_boot_id.append_option(status.boot_id);
                self.last_seq.append_option(status.last_seq);
            }
        }
    }
}
