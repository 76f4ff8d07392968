//! All rows of one batch, by table.

use telemetry::{
    command::Command,
    commands::{AcknowledgeAlert, AddIncident, Device, SetPolicy},
    device_time::Implausible,
    v1::{self, event::Kind},
};
use warehouse::columns::{
    Acknowledgements, Audit, Block, Calibrations, Common, Commons, CycleIndicators, CycleReleases, DeviceStatus, Fate,
    Faults, ImplausibleTimes, Incidents, Injections, Mounts, Origin, Policies, Preparations, Provenance, Quarantine,
    QuarantineReplays, Quarantined, RegisteredDevices, Replayed, Sessions, Sign, SterilizationCycles,
    SterilizationItems, SterilizationSamples,
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
    commands: Option<Box<Commands>>,
}

/// The builders of the tables that commands fill. Only batches of one topic have such rows.
#[derive(Default)]
struct Commands {
    acknowledgements: Acknowledgements,
    incidents: Incidents,
    devices: RegisteredDevices,
    policies: Policies,
    audit: Audit,
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

    /// Adds a command and what became of it.
    pub fn audit(&mut self, command: &Command, fate: Fate, reason: &str, kafka_offset: u64) {
        self.commands().audit.push(command, fate, reason, kafka_offset);
    }

    pub fn acknowledgement(&mut self, command: &Command, acknowledge: &AcknowledgeAlert, kafka_offset: u64) {
        self.commands().acknowledgements.push(command, acknowledge, kafka_offset);
    }

    pub fn incident(&mut self, command: &Command, incident: &AddIncident, kafka_offset: u64) {
        self.commands().incidents.push(command, incident, kafka_offset);
    }

    /// Adds a device as a person registers it.
    pub fn registered(&mut self, command: &Command, device: &Device, kafka_offset: u64) {
        self.commands().devices.push(command, device, kafka_offset);
    }

    pub fn policy(&mut self, command: &Command, policy: &SetPolicy, kafka_offset: u64) {
        self.commands().policies.push(command, policy, kafka_offset);
    }

    fn commands(&mut self) -> &mut Commands {
        self.commands.get_or_insert_default()
    }

    /// The blocks of the tables that have rows.
    pub fn finish(self, provenance: Provenance) -> Vec<Block> {
        let commons = &self.commons;
        let commands = self.commands.map(|commands| commands.finish(provenance));
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
        let others = commands.into_iter().flatten();
        facts.into_iter().chain(self.aggregates.finish(provenance, commons)).chain(others).flatten().collect()
    }
}

impl Commands {
    fn finish(self, provenance: Provenance) -> [Option<Block>; 5] {
        [
            self.acknowledgements.finish(provenance),
            self.incidents.finish(provenance),
            self.devices.finish(provenance),
            self.policies.finish(provenance),
            self.audit.finish(provenance),
        ]
    }
}
