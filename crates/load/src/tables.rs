//! All rows of one batch, by table.

use telemetry::{
    device_time::Implausible,
    v1::{self, event::Kind},
};
use warehouse::columns::{
    Block, Calibrations, Common, Commons, CycleIndicators, CycleReleases, DeviceStatus, Faults, ImplausibleTimes,
    Injections, Mounts, Origin, Preparations, Provenance, Quarantine, QuarantineReplays, Quarantined, Replayed,
    Sessions, Sign, SterilizationCycles, SterilizationItems, SterilizationSamples,
};

use crate::aggregate::Aggregates;

/// The builders of every table.
#[derive(Default)]
pub(crate) struct Tables {
    commons: Commons,
    injections: Injections,
    sessions: Sessions,
    preparations: Preparations,
    mounts: Mounts,
    cycles: SterilizationCycles,
    samples: SterilizationSamples,
    items: SterilizationItems,
    indicators: CycleIndicators,
    releases: CycleReleases,
    calibrations: Calibrations,
    faults: Faults,
    status: DeviceStatus,
    quarantine: Quarantine,
    replays: QuarantineReplays,
    implausible: ImplausibleTimes,
    aggregates: Aggregates,
}

impl Tables {
    /// With room for `rows` injections, which most events are.
    pub fn of(rows: usize) -> Self {
        Self { injections: Injections::with_capacity(rows), ..Self::default() }
    }

    /// A number for the common part of reports.
    pub fn common(&mut self, common: &Common<'_>) -> u32 {
        self.commons.add(common)
    }

    /// Adds an event that has passed [`telemetry::plausibility::check`], to its table and to the
    /// aggregates.
    pub fn event(&mut self, origin: &Origin<'_>, seq: u64, at: i64, event: &v1::Event) {
        match &event.kind {
            Some(Kind::Injection(injection)) => {
                self.injections.push(origin, seq, at, injection);
                self.aggregates.injection(&self.commons, origin.common, at, injection);
            }
            _ => self.fact(origin, seq, at, event),
        }
    }

    /// Adds an event to its table.
    pub fn fact(&mut self, origin: &Origin<'_>, seq: u64, at: i64, event: &v1::Event) {
        match &event.kind {
            // Refused by the check.
            None => {}
            Some(Kind::Injection(injection)) => self.injections.push(origin, seq, at, injection),
            Some(Kind::SessionStarted(started)) => self.sessions.started(origin, seq, at, started),
            Some(Kind::SessionEnded(ended)) => self.sessions.ended(origin, seq, at, ended),
            Some(Kind::ConsumableMounted(mounted)) => self.mounts.mounted(origin, seq, at, mounted),
            Some(Kind::Primed(primed)) => self.mounts.primed(origin, seq, at, primed),
            Some(Kind::ConsumableRemoved(removed)) => self.mounts.removed(origin, seq, at, removed),
            Some(Kind::Preparation(preparation)) => self.preparations.push(origin, seq, at, preparation),
            Some(Kind::SterilizationCycle(cycle)) => {
                self.cycles.push(origin, seq, at, cycle);
                self.samples.push(origin, seq, at, cycle);
                self.items.push(origin, seq, at, cycle);
            }
            Some(Kind::CycleIndicator(indicator)) => self.indicators.push(origin, seq, at, indicator),
            Some(Kind::CycleRelease(release)) => self.releases.push(origin, seq, at, release),
            Some(Kind::Reprocessed(reprocessed)) => self.mounts.reprocessed(origin, seq, at, reprocessed),
            Some(Kind::Calibration(calibration)) => self.calibrations.push(origin, seq, at, calibration),
            Some(Kind::Fault(fault)) => self.faults.push(origin, seq, at, fault),
            Some(Kind::Heartbeat(heartbeat)) => self.status.push(origin, seq, at, Sign::Heartbeat(heartbeat)),
        }
    }

    /// Adds a status message.
    pub fn status(&mut self, origin: &Origin<'_>, at: i64, status: &v1::Status) {
        self.status.push(origin, 0, at, Sign::Status(status));
    }

    /// Adds a time that a device sent and that cannot be true.
    pub fn implausible(&mut self, origin: &Origin<'_>, seq: u64, implausible: &Implausible) {
        self.implausible.push(&self.commons, origin, seq, implausible);
    }

    /// Adds a message or an event that could not be used.
    pub fn quarantine(&mut self, quarantined: &Quarantined<'_>) {
        self.quarantine.push(quarantined);
    }

    /// Adds the outcome of a replay.
    pub fn replay(&mut self, replayed: &Replayed<'_>) {
        self.replays.push(replayed);
    }

    /// The blocks of the tables that have rows.
    pub fn finish(self, provenance: Provenance) -> Vec<Block> {
        let commons = &self.commons;
        let facts = [
            self.injections.finish(provenance, commons),
            self.sessions.finish(provenance, commons),
            self.preparations.finish(provenance, commons),
            self.mounts.finish(provenance, commons),
            self.cycles.finish(provenance, commons),
            self.samples.finish(provenance, commons),
            self.items.finish(provenance, commons),
            self.indicators.finish(provenance, commons),
            self.releases.finish(provenance, commons),
            self.calibrations.finish(provenance, commons),
            self.faults.finish(provenance, commons),
            self.status.finish(provenance, commons),
            self.quarantine.finish(provenance),
            self.replays.finish(provenance),
            self.implausible.finish(provenance, commons),
        ];
        facts.into_iter().chain(self.aggregates.finish(provenance, commons)).flatten().collect()
    }
}
