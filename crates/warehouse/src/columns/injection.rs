//! `injections`.

use arrow_array::{
    ArrayRef,
    builder::PrimitiveBuilder,
    types::{Int32Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type},
};
use arrow_schema::FieldRef;
use telemetry::v1;

use crate::columns::{Code, Facts, Number, Origin, Shared, table};

/// Bit of `flags`: an enum value this version does not know.
const UNKNOWN_ENUM: u32 = 1;
/// Bit of `flags`: the report has fields this version does not know.
const UNKNOWN_FIELDS: u32 = 2;

table! {
    /// Rows of `injections`.
    Injections, "injections", *facts: Facts, *context: Context, {
        injection_no: PrimitiveBuilder<UInt64Type>,
        shot: PrimitiveBuilder<UInt32Type>,
        mode: Code<v1::Mode>,
        outcome: Code<v1::Outcome>,
        area: Code<v1::Area>,
        target_nl: PrimitiveBuilder<UInt32Type>,
        delivered_nl: PrimitiveBuilder<UInt32Type>,
        dose_source: Code<v1::DoseSource>,
        target_um: PrimitiveBuilder<UInt16Type>,
        measured_um: PrimitiveBuilder<UInt16Type>,
        depth_source: Code<v1::DepthSource>,
        angle_mdeg: PrimitiveBuilder<UInt32Type>,
        duration_us: PrimitiveBuilder<UInt32Type>,
        punctures: PrimitiveBuilder<UInt16Type>,
        needle_count: PrimitiveBuilder<UInt8Type>,
        peak_force_mn: PrimitiveBuilder<UInt32Type>,
        pressure_pa: PrimitiveBuilder<Int32Type>,
        vacuum_pa: PrimitiveBuilder<UInt32Type>,
        motor_ma: PrimitiveBuilder<UInt32Type>,
        flags: Number<UInt32Type>,
    }
}

impl Injections {
    /// With room for so many rows: columns that grow are copied, and take twice the memory meanwhile.
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            facts: Facts::with_capacity(rows),
            injection_no: PrimitiveBuilder::with_capacity(rows),
            shot: PrimitiveBuilder::with_capacity(rows),
            target_nl: PrimitiveBuilder::with_capacity(rows),
            delivered_nl: PrimitiveBuilder::with_capacity(rows),
            target_um: PrimitiveBuilder::with_capacity(rows),
            measured_um: PrimitiveBuilder::with_capacity(rows),
            angle_mdeg: PrimitiveBuilder::with_capacity(rows),
            duration_us: PrimitiveBuilder::with_capacity(rows),
            punctures: PrimitiveBuilder::with_capacity(rows),
            needle_count: PrimitiveBuilder::with_capacity(rows),
            peak_force_mn: PrimitiveBuilder::with_capacity(rows),
            pressure_pa: PrimitiveBuilder::with_capacity(rows),
            vacuum_pa: PrimitiveBuilder::with_capacity(rows),
            motor_ma: PrimitiveBuilder::with_capacity(rows),
            flags: Number::with_capacity(rows),
            ..Self::default()
        }
    }

    /// Adds an injection. Its values must have passed [`telemetry::plausibility::check`], whose widest ranges fit the
    /// columns; one that does not fit becomes NULL rather than another value.
    pub fn push(&mut self, origin: &Origin<'_>, seq: u64, at: i64, injection: &v1::Injection) {
        self.facts.push(origin, seq, at);
        self.context.push(origin);
        self.injection_no.append_option(injection.injection_no);
        self.shot.append_option(injection.shot);
        self.mode.push(injection.mode);
        self.outcome.push(injection.outcome);
        self.area.push(injection.area);
        self.target_nl.append_option(narrow(injection.target_nl));
        self.delivered_nl.append_option(narrow(injection.delivered_nl));
        self.dose_source.push(injection.dose_source);
        self.target_um.append_option(narrow(injection.target_um));
        self.measured_um.append_option(narrow(injection.measured_um));
        self.depth_source.push(injection.depth_source);
        self.angle_mdeg.append_option(injection.angle_mdeg);
        self.duration_us.append_option(narrow(injection.duration_us));
        self.punctures.append_option(narrow(injection.punctures));
        self.needle_count.append_option(narrow(injection.needle_count));
        self.peak_force_mn.append_option(injection.peak_force_mn);
        self.pressure_pa.append_option(injection.pressure_pa);
        self.vacuum_pa.append_option(injection.vacuum_pa);
        self.motor_ma.append_option(injection.motor_ma);
        let unknown_enum = v1::Mode::try_from(injection.mode).is_err()
            || v1::Outcome::try_from(injection.outcome).is_err()
            || v1::Area::try_from(injection.area).is_err()
            || v1::DoseSource::try_from(injection.dose_source).is_err()
            || v1::DepthSource::try_from(injection.depth_source).is_err();
        let flags = if unknown_enum { UNKNOWN_ENUM } else { 0 };
        self.flags.push(flags | if origin.unknown_fields { UNKNOWN_FIELDS } else { 0 });
    }
}

/// What else the report says of its injections.
#[derive(Default)]
struct Context(Shared<11>);

const TEXTS: [&str; 11] = [
    "clock",
    "needle_mount_id",
    "needle_item_id",
    "syringe_mount_id",
    "syringe_item_id",
    "handpiece_mount_id",
    "handpiece_item_id",
    "dose_calibration_id",
    "depth_calibration_id",
    "preparation_id",
    "operator_id",
];

impl Context {
    fn push(&mut self, origin: &Origin<'_>) {
        let [needle, syringe, handpiece] = origin.slots;
        let texts = || {
            [
                origin.clock,
                needle.mount_id,
                needle.item_id,
                syringe.mount_id,
                syringe.item_id,
                handpiece.mount_id,
                handpiece.item_id,
                origin.dose_calibration_id,
                origin.depth_calibration_id,
                origin.preparation_id,
                origin.operator_id,
            ]
        };
        self.0.push(origin.texts, texts);
    }

    fn finish(self, mut columns: Vec<(FieldRef, ArrayRef)>) -> Vec<(FieldRef, ArrayRef)> {
        columns.extend(self.0.finish(TEXTS));
        columns
    }
}

fn narrow<T, U: TryFrom<T>>(value: Option<T>) -> Option<U> {
    value.and_then(|value| value.try_into().ok())
}
