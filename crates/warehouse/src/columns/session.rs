//! `sessions`, `preparations` and `mounts`.

use arrow_array::types::{UInt32Type, UInt64Type};
use telemetry::{hex::hex, v1};

use crate::columns::{Bits, Code, Facts, Maybe, Number, Origin, Text, column::MaybeTime, table};

table! {
    Sessions, "sessions", *facts: Facts, {
        event: Text,
        operator_id: Text,
        course_id: Text,
        course_index: Maybe<UInt32Type>,
        course_planned: Maybe<UInt32Type>,
        interval_days: Maybe<UInt32Type>,
        client_ref: Text,
        allergy_result: Code<v1::AllergyResult>,
        allergy_at: MaybeTime,
        allergy_formula_id: Text,
        licence: Code<v1::Licence>,
        shots: Maybe<UInt32Type>,
        delivered_nl: Maybe<UInt64Type>,
        reason: Text,
    }
}

impl Sessions {
    pub fn started(&mut self, origin: &Origin<'_>, seq: u64, at: i64, started: &v1::SessionStarted) {
        self.push(origin, seq, at, "STARTED", started, &v1::SessionEnded::default());
    }

    pub fn ended(&mut self, origin: &Origin<'_>, seq: u64, at: i64, ended: &v1::SessionEnded) {
        self.push(origin, seq, at, "ENDED", &v1::SessionStarted::default(), ended);
    }

    fn push(
        &mut self,
        origin: &Origin<'_>,
        seq: u64,
        at: i64,
        event: &str,
        started: &v1::SessionStarted,
        ended: &v1::SessionEnded,
    ) {
        self.facts.push(origin, seq, at);
        self.event.push(event);
        self.operator_id.push(origin.operator_id);
        self.course_id.push(&hex(&started.course_id));
        self.course_index.push(started.course_index);
        self.course_planned.push(started.course_planned);
        self.interval_days.push(started.interval_days);
        self.client_ref.push(&started.client_ref);
        self.allergy_result.push(started.allergy_result);
        self.allergy_at.push(started.allergy_unix_us);
        self.allergy_formula_id.push(&started.allergy_formula_id);
        self.licence.push(started.licence);
        self.shots.push(ended.shots);
        self.delivered_nl.push(ended.delivered_nl);
        self.reason.push(&ended.reason);
    }
}

table! {
    /// Rows of `preparations`: one for each component, or a single row for a mixture without
    /// components.
    Preparations, "preparations", *facts: Facts, {
        index: Number<UInt32Type>,
        components: Number<UInt32Type>,
        preparation_id: Text,
        formula_id: Text,
        prepared_at: MaybeTime,
        use_by: MaybeTime,
        operator_id: Text,
        udi_di: Text,
        lot: Text,
        expiry: Text,
        container_id: Text,
        opened_at: MaybeTime,
        volume_nl: Maybe<UInt64Type>,
    }
}

impl Preparations {
    pub fn push(&mut self, origin: &Origin<'_>, seq: u64, at: i64, preparation: &v1::Preparation) {
        let none = [v1::Component::default()];
        let components = if preparation.components.is_empty() { &none } else { preparation.components.as_slice() };
        for (index, component) in components.iter().enumerate() {
            self.facts.push(origin, seq, at);
            self.index.push(index as u32);
            self.components.push(preparation.components.len() as u32);
            self.preparation_id.push(&preparation.preparation_id);
            self.formula_id.push(&preparation.formula_id);
            self.prepared_at.push(preparation.prepared_unix_us);
            self.use_by.push(preparation.use_by_unix_us);
            self.operator_id.push(origin.operator_id);
            self.udi_di.push(&component.udi_di);
            self.lot.push(&component.lot);
            self.expiry.push(&component.expiry);
            self.container_id.push(&component.container_id);
            self.opened_at.push(component.opened_unix_us);
            self.volume_nl.push(component.volume_nl);
        }
    }
}

table! {
    Mounts, "mounts", *facts: Facts, {
        event: Text,
        slot: Code<v1::Slot>,
        mount_id: Text,
        item_id: Text,
        id_kind: Code<v1::IdKind>,
        udi_di: Text,
        lot: Text,
        expiry: Text,
        kind as "type": Text,
        gauge: Maybe<UInt32Type>,
        reusable: Bits,
        pack_id: Text,
        pack_intact: Bits,
        fill_nl: Maybe<UInt64Type>,
        volume_nl: Maybe<UInt64Type>,
        residual_nl: Maybe<UInt64Type>,
        residual_source: Code<v1::ResidualSource>,
        rinse_water: Code<v1::RinseWater>,
        operator_id: Text,
    }
}

/// Fields that the later events of a mount have and [`v1::ConsumableMounted`] lacks.
#[derive(Default)]
struct Later {
    volume_nl: Option<u64>,
    residual_nl: Option<u64>,
    residual_source: i32,
    rinse_water: i32,
}

impl Mounts {
    pub fn mounted(&mut self, origin: &Origin<'_>, seq: u64, at: i64, mounted: &v1::ConsumableMounted) {
        self.push(origin, seq, at, "MOUNTED", mounted, &Later::default());
    }

    pub fn primed(&mut self, origin: &Origin<'_>, seq: u64, at: i64, primed: &v1::Primed) {
        let mounted = v1::ConsumableMounted { mount_id: primed.mount_id.clone(), ..Default::default() };
        let later = Later { volume_nl: primed.volume_nl, ..Later::default() };
        self.push(origin, seq, at, "PRIMED", &mounted, &later);
    }

    pub fn removed(&mut self, origin: &Origin<'_>, seq: u64, at: i64, removed: &v1::ConsumableRemoved) {
        let mounted = v1::ConsumableMounted { mount_id: removed.mount_id.clone(), ..Default::default() };
        let later =
            Later { residual_nl: removed.residual_nl, residual_source: removed.residual_source, ..Later::default() };
        self.push(origin, seq, at, "REMOVED", &mounted, &later);
    }

    pub fn reprocessed(&mut self, origin: &Origin<'_>, seq: u64, at: i64, reprocessed: &v1::Reprocessed) {
        let mounted = v1::ConsumableMounted { item_id: reprocessed.item_id.clone(), ..Default::default() };
        let later = Later { rinse_water: reprocessed.rinse_water, ..Later::default() };
        self.push(origin, seq, at, "REPROCESSED", &mounted, &later);
    }

    fn push(
        &mut self,
        origin: &Origin<'_>,
        seq: u64,
        at: i64,
        event: &str,
        mounted: &v1::ConsumableMounted,
        later: &Later,
    ) {
        self.facts.push(origin, seq, at);
        self.event.push(event);
        self.slot.push(mounted.slot);
        self.mount_id.push(&mounted.mount_id);
        self.item_id.push(&mounted.item_id);
        self.id_kind.push(mounted.id_kind);
        self.udi_di.push(&mounted.udi_di);
        self.lot.push(&mounted.lot);
        self.expiry.push(&mounted.expiry);
        self.kind.push(&mounted.r#type);
        self.gauge.push(mounted.gauge);
        self.reusable.push(mounted.reusable);
        self.pack_id.push(&mounted.pack_id);
        self.pack_intact.push(mounted.pack_intact);
        self.fill_nl.push(mounted.fill_nl);
        self.volume_nl.push(later.volume_nl);
        self.residual_nl.push(later.residual_nl);
        self.residual_source.push(later.residual_source);
        self.rinse_water.push(later.rinse_water);
        self.operator_id.push(origin.operator_id);
    }
}
