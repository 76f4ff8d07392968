//! `sterilization_cycles`, `sterilization_samples`, `sterilization_items`, `cycle_indicators` and
//! `cycle_releases`.

use arrow_array::types::{Int32Type, UInt32Type, UInt64Type};
use telemetry::v1;

use crate::columns::{Bits, Code, Facts, Maybe, Number, Origin, Text, column::MaybeTime, table};

table! {
    SterilizationCycles, "sterilization_cycles", *facts: Facts, {
        cycle_uid: Text,
        cycle_no: Maybe<UInt64Type>,
        recipe: Text,
        purpose: Code<v1::Purpose>,
        load_dry: Bits,
        items: Number<UInt32Type>,
        samples: Number<UInt32Type>,
    }
}

impl SterilizationCycles {
    pub fn push(&mut self, origin: &Origin<'_>, seq: u64, at: i64, cycle: &v1::SterilizationCycle) {
        self.facts.push(origin, seq, at);
        self.cycle_uid.push(&cycle.cycle_uid);
        self.cycle_no.push(cycle.cycle_no);
        self.recipe.push(&cycle.recipe);
        self.purpose.push(cycle.purpose);
        self.load_dry.push(cycle.load_dry);
        self.items.push(cycle.items.len() as u32);
        self.samples.push(cycle.samples.len() as u32);
    }
}

table! {
    SterilizationSamples, "sterilization_samples", *facts: Facts, {
        index: Number<UInt32Type>,
        cycle_uid: Text,
        offset_ms: Number<UInt32Type>,
        sensor: Number<UInt32Type>,
        temperature_mc: Maybe<Int32Type>,
        pressure_pa: Maybe<UInt32Type>,
    }
}

impl SterilizationSamples {
    pub fn push(&mut self, origin: &Origin<'_>, seq: u64, at: i64, cycle: &v1::SterilizationCycle) {
        for (index, sample) in cycle.samples.iter().enumerate() {
            self.facts.push(origin, seq, at);
            self.index.push(index as u32);
            self.cycle_uid.push(&cycle.cycle_uid);
            self.offset_ms.push(sample.offset_ms);
            self.sensor.push(sample.sensor);
            self.temperature_mc.push(sample.temperature_mc);
            self.pressure_pa.push(sample.pressure_pa);
        }
    }
}

table! {
    SterilizationItems, "sterilization_items", *facts: Facts, {
        index: Number<UInt32Type>,
        cycle_uid: Text,
        item_id: Text,
        pack_id: Text,
    }
}

impl SterilizationItems {
    pub fn push(&mut self, origin: &Origin<'_>, seq: u64, at: i64, cycle: &v1::SterilizationCycle) {
        for (index, item) in cycle.items.iter().enumerate() {
            self.facts.push(origin, seq, at);
            self.index.push(index as u32);
            self.cycle_uid.push(&cycle.cycle_uid);
            self.item_id.push(&item.item_id);
            self.pack_id.push(&item.pack_id);
        }
    }
}

table! {
    CycleIndicators, "cycle_indicators", *facts: Facts, {
        cycle_uid: Text,
        kind: Code<v1::IndicatorKind>,
        lot: Text,
        result: Code<v1::IndicatorResult>,
        read_at: MaybeTime,
        operator_id: Text,
    }
}

impl CycleIndicators {
    pub fn push(&mut self, origin: &Origin<'_>, seq: u64, at: i64, indicator: &v1::CycleIndicator) {
        self.facts.push(origin, seq, at);
        self.cycle_uid.push(&indicator.cycle_uid);
        self.kind.push(indicator.kind);
        self.lot.push(&indicator.lot);
        self.result.push(indicator.result);
        self.read_at.push(indicator.read_unix_us);
        self.operator_id.push(origin.operator_id);
    }
}

table! {
    CycleReleases, "cycle_releases", *facts: Facts, {
        cycle_uid: Text,
        decision: Code<v1::ReleaseDecision>,
        actor: Text,
        decided_at: MaybeTime,
    }
}

impl CycleReleases {
    pub fn push(&mut self, origin: &Origin<'_>, seq: u64, at: i64, release: &v1::CycleRelease) {
        self.facts.push(origin, seq, at);
        self.cycle_uid.push(&release.cycle_uid);
        self.decision.push(release.decision);
        self.actor.push(&release.actor);
        self.decided_at.push(release.at_unix_us);
    }
}
