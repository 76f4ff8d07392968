//! `injections`.

use arrow_array::types::{Int32Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use telemetry::v1;

use crate::columns::{Code, Facts, Maybe, Origin, UNKNOWN_ENUM, fact::OF_INJECTIONS, table};

table! {
    Injections, "injections", *facts: Facts<OF_INJECTIONS>, {
        injection_no: Maybe<UInt64Type>,
        shot: Maybe<UInt32Type>,
        mode: Code<v1::Mode>,
        outcome: Code<v1::Outcome>,
        area: Code<v1::Area>,
        target_nl: Maybe<UInt32Type>,
        delivered_nl: Maybe<UInt32Type>,
        dose_source: Code<v1::DoseSource>,
        target_um: Maybe<UInt16Type>,
        measured_um: Maybe<UInt16Type>,
        depth_source: Code<v1::DepthSource>,
        angle_mdeg: Maybe<UInt32Type>,
        duration_us: Maybe<UInt32Type>,
        punctures: Maybe<UInt16Type>,
        needle_count: Maybe<UInt8Type>,
        peak_force_mn: Maybe<UInt32Type>,
        pressure_pa: Maybe<Int32Type>,
        vacuum_pa: Maybe<UInt32Type>,
        motor_ma: Maybe<UInt32Type>,
    }
}

impl Injections {
    /// Reserves space for `rows` rows. A column that grows is copied, and needs twice the memory
    /// during the copy.
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            facts: Facts::with_capacity(rows),
            injection_no: Maybe::with_capacity(rows),
            shot: Maybe::with_capacity(rows),
            target_nl: Maybe::with_capacity(rows),
            delivered_nl: Maybe::with_capacity(rows),
            target_um: Maybe::with_capacity(rows),
            measured_um: Maybe::with_capacity(rows),
            angle_mdeg: Maybe::with_capacity(rows),
            duration_us: Maybe::with_capacity(rows),
            punctures: Maybe::with_capacity(rows),
            needle_count: Maybe::with_capacity(rows),
            peak_force_mn: Maybe::with_capacity(rows),
            pressure_pa: Maybe::with_capacity(rows),
            vacuum_pa: Maybe::with_capacity(rows),
            motor_ma: Maybe::with_capacity(rows),
            ..Self::default()
        }
    }

    /// Adds an injection. [`telemetry::plausibility::check`] must have accepted its values; the
    /// widest ranges of that check fit the columns. A value that does not fit is stored as NULL,
    /// never as another value.
    pub fn push(&mut self, origin: &Origin<'_>, seq: u64, at: i64, injection: &v1::Injection) {
        let unknown_enum = v1::Mode::try_from(injection.mode).is_err()
            || v1::Outcome::try_from(injection.outcome).is_err()
            || v1::Area::try_from(injection.area).is_err()
            || v1::DoseSource::try_from(injection.dose_source).is_err()
            || v1::DepthSource::try_from(injection.depth_source).is_err();
        match unknown_enum {
            false => self.facts.push(origin, seq, at),
            true => self.facts.push(&Origin { flags: origin.flags | UNKNOWN_ENUM, ..*origin }, seq, at),
        }
        self.injection_no.push(injection.injection_no);
        self.shot.push(injection.shot);
        self.mode.push(injection.mode);
        self.outcome.push(injection.outcome);
        self.area.push(injection.area);
        self.target_nl.push(narrow(injection.target_nl));
        self.delivered_nl.push(narrow(injection.delivered_nl));
        self.dose_source.push(injection.dose_source);
        self.target_um.push(narrow(injection.target_um));
        self.measured_um.push(narrow(injection.measured_um));
        self.depth_source.push(injection.depth_source);
        self.angle_mdeg.push(injection.angle_mdeg);
        self.duration_us.push(narrow(injection.duration_us));
        self.punctures.push(narrow(injection.punctures));
        self.needle_count.push(narrow(injection.needle_count));
        self.peak_force_mn.push(injection.peak_force_mn);
        self.pressure_pa.push(injection.pressure_pa);
        self.vacuum_pa.push(injection.vacuum_pa);
        self.motor_ma.push(injection.motor_ma);
    }
}

fn narrow<T, U: TryFrom<T>>(value: Option<T>) -> Option<U> {
    value.and_then(|value| value.try_into().ok())
}
