//! What becomes of a command: rows of the tables that it fills, and a row of the audit.
//!
//! The first command of an idempotency key is applied. Its ledger then holds a number for its
//! content, so that a repetition is known, and another content under the same key as well.

use telemetry::{
    command::Command,
    commands::command::Kind,
    interval::Interval,
    ledger::{Fate, Ledger},
};
use warehouse::columns::Fate as Outcome;

use crate::{batch::Batch, decode::Decoded, ledgers::Ledgers};

impl Batch<'_> {
    pub(super) fn command(&mut self, decoded: &Decoded<'_>, command: &Command, ledgers: &mut Ledgers) {
        let Some(key) = decoded.command() else { return };
        let boot = ledgers.get(key);
        boot.last_arrival = boot.last_arrival.max(decoded.received_at);
        let (outcome, reason) = judge(command, &mut boot.ledger);
        let offset = decoded.record.offset;
        match outcome {
            Outcome::Applied => {
                self.outcome.stored += 1;
                self.apply(command, offset);
            }
            Outcome::Repeated => self.outcome.duplicates += 1,
            Outcome::Refused => self.outcome.refused += 1,
        }
        self.tables.audit(command, outcome, &reason, offset);
    }

    fn apply(&mut self, command: &Command, offset: u64) {
        match command.kind() {
            Kind::AcknowledgeAlert(acknowledge) => self.tables.acknowledgement(command, acknowledge, offset),
            Kind::AddIncident(incident) => self.tables.incident(command, incident, offset),
            Kind::RegisterDevices(register) => {
                for device in &register.devices {
                    self.tables.registered(command, device, offset);
                }
            }
            Kind::SetPolicy(policy) => self.tables.policy(command, policy, offset),
        }
    }
}

/// What becomes of a command, and why it is refused. If it is applied, the ledger holds it
/// afterwards.
fn judge(command: &Command, ledger: &mut Ledger) -> (Outcome, String) {
    if let Some(reason) = command.forbidden() {
        return (Outcome::Refused, reason);
    }
    let content = command.content_number();
    if ledger.stored.contains(content) {
        return (Outcome::Repeated, String::new());
    }
    if !ledger.stored.intervals().is_empty() {
        let reason = format!("another command has the idempotency key {:?}", command.idempotency_key());
        return (Outcome::Refused, reason);
    }
    match ledger.record(Interval::new(content, content), Fate::Stored) {
        Ok(()) => (Outcome::Applied, String::new()),
        Err(fragmented) => (Outcome::Refused, fragmented.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use telemetry::{
        command::record_key,
        commands::{self, AcknowledgeAlert, AddIncident, Device, RegisterDevices, Role, SetPolicy},
        device_time,
        plausibility::Plausibility,
        report::Contexts,
    };
    use warehouse::columns::Provenance;

    use crate::{
        batch::{Batch, DecodeRules, PreparedBatch},
        decode::{Place, TopicKind, decode},
        inbox::Record,
        ledgers::Ledgers,
        partition,
    };

    use super::*;

    const PLACE: Place = Place { kind: TopicKind::Commands, partition: 0, partitions: 1 };

    fn incident(tenant: &str, idempotency_key: &str, note: &str, role: Role) -> Record {
        let kind = Kind::AddIncident(AddIncident {
            incident_id: "INC-1".to_owned(),
            subject_kind: "ITEM".to_owned(),
            subject: "hp-1".to_owned(),
            note: note.to_owned(),
        });
        record(tenant, idempotency_key, role, kind)
    }

    fn record(tenant: &str, idempotency_key: &str, role: Role, kind: Kind) -> Record {
        let message = commands::Command {
            tenant: tenant.to_owned(),
            author: "Ada".to_owned(),
            role: role.into(),
            given_us: 1_790_000_000_000_000,
            idempotency_key: idempotency_key.to_owned(),
            kind: Some(kind),
        };
        let command = Command::new(message).unwrap();
        let key = Some(record_key(tenant).as_bytes().to_vec());
        Record { key, payload: command.encode(), timestamp: 1_790_000_000_000_000, ..Record::default() }
    }

    fn written(ledgers: &mut Ledgers, place: Place, records: &[Record]) -> PreparedBatch {
        let rules = DecodeRules::new(Plausibility::default(), device_time::Limits::default());
        let mut batch = Batch::default();
        for record in records {
            let decoded = decode(record, place, &mut Contexts::default());
            let missing = ledgers.open(decoded.boots());
            ledgers.fill(missing, Vec::new());
            batch.add(&decoded, ledgers, &rules);
        }
        ledgers.committed();
        batch.close().finish(Provenance { ingest_day: 20_000, incarnation: 1, partition: 0, batch: 0 })
    }

    fn rows(written: &PreparedBatch) -> Vec<(&str, u64)> {
        written.blocks.iter().map(|block| (block.table(), block.rows())).collect()
    }

    #[test]
    fn a_command_is_applied_once_for_each_tenant_and_key() {
        let mut ledgers = Ledgers::new(100);
        let mut add = |record: Record| {
            let written = written(&mut ledgers, PLACE, &[record]);
            rows(&written).into_iter().map(|(table, rows)| format!("{table} {rows}")).collect::<Vec<_>>().join(", ")
        };
        let operator = Role::Operator;
        assert_eq!(add(incident("acme", "k", "abscess", operator)), "incidents 1, audit 1");
        assert_eq!(add(incident("acme", "k", "abscess", operator)), "audit 1", "repeated");
        assert_eq!(add(incident("acme", "k", "fever", operator)), "audit 1", "the key is taken");
        assert_eq!(add(incident("acme", "k", "abscess", operator)), "audit 1", "still repeated");
        assert_eq!(add(incident("other", "k", "fever", operator)), "incidents 1, audit 1", "another tenant's key");
        assert_eq!(add(incident("acme", "k2", "fever", Role::Viewer)), "audit 1", "not allowed");
        assert_eq!(add(incident("acme", "k2", "fever", operator)), "incidents 1, audit 1", "a refusal takes no key");
    }

    #[test]
    fn repetitions_of_one_batch_are_known() {
        let twice = [incident("acme", "k", "abscess", Role::Admin), incident("acme", "k", "abscess", Role::Admin)];
        let written = written(&mut Ledgers::new(100), PLACE, &twice);
        assert_eq!(rows(&written), [("incidents", 1), ("audit", 2)]);
        assert_eq!((written.counts.records, written.counts.duplicates), (2, 1));
    }

    #[test]
    fn every_kind_fills_its_table() {
        let device = |device: &str| Device {
            device: device.to_owned(),
            site: "paris".to_owned(),
            kind: "INJECTOR".to_owned(),
            valid_from_us: 1,
            ..Device::default()
        };
        let acknowledge = AcknowledgeAlert {
            alert_key: "a".to_owned(),
            severity: "low".to_owned(),
            sessions: vec!["s1".to_owned(), "s2".to_owned()],
            ..AcknowledgeAlert::default()
        };
        let register = RegisterDevices { devices: vec![device("pen-1"), device("pen-2")] };
        let policy = SetPolicy { name: "unknown_devices".to_owned(), value: "keep".to_owned() };
        let records = [
            record("acme", "1", Role::Admin, Kind::AcknowledgeAlert(acknowledge)),
            record("acme", "2", Role::Admin, Kind::RegisterDevices(register)),
            record("", "3", Role::Admin, Kind::SetPolicy(policy)),
        ];
        let written = written(&mut Ledgers::new(100), PLACE, &records);
        assert_eq!(rows(&written), [("alert_history", 1), ("devices", 2), ("policies", 1), ("audit", 3)]);
    }

    #[test]
    fn a_broken_record_goes_to_quarantine_and_its_neighbours_are_applied() {
        let good = incident("acme", "k", "abscess", Role::Admin);
        let broken = [
            (Record { payload: b"\xff\xff".to_vec(), ..good.clone() }, "bad_protobuf"),
            (Record { payload: Vec::new(), ..good.clone() }, "empty"),
            (Record { key: None, ..good.clone() }, "bad_record"),
            (Record { key: Some(b"other".to_vec()), ..good.clone() }, "bad_record"),
        ];
        for (record, reason) in broken {
            let written = written(&mut Ledgers::new(100), PLACE, &[record, good.clone()]);
            assert_eq!(rows(&written), [("quarantine", 1), ("incidents", 1), ("audit", 1)]);
            assert_eq!(written.refusals[0].reason.as_str(), reason);
            assert_eq!(written.refusals[0].topic, "doseline.commands.v1");
        }
        let right = partition::of(b"acme", 12);
        let elsewhere = Place { partition: (right + 1) % 12, partitions: 12, ..PLACE };
        let written = written(&mut Ledgers::new(100), elsewhere, &[incident("acme", "k", "x", Role::Admin)]);
        assert_eq!(written.refusals[0].reason.as_str(), "wrong_partition");
    }
}
