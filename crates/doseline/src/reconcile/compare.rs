//! Compares for one boot what the device says, Kafka, the ledgers and the tables. Pure.

use load::history::KafkaBoot;
use telemetry::{
    interval::{Interval, IntervalSet},
    ledger::Ledger,
};
use warehouse::{loader::BootKey, reconcile::Rows};

use super::finding::{Finding, Kind};

/// Everything that is known about a boot in the period.
pub struct Boot<'a> {
    pub key: &'a BootKey,
    /// What Kafka holds.
    pub seen: &'a KafkaBoot,
    /// Last sequence number that the device said it made, elsewhere than in its reports.
    pub words: u64,
    /// Whether Kafka still holds the whole period.
    pub whole: bool,
    /// The ledger at the start of the period.
    pub before: &'a Ledger,
    /// The ledger at the end of the period.
    pub after: &'a Ledger,
    /// The boot's rows in the period.
    pub rows: &'a Rows,
}

/// The figures of a boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Events that the device says it made in the boot, including those before the period.
    pub says: u64,
    /// Events of the period in Kafka.
    pub kafka: u64,
    /// Events in the tables of facts.
    pub stored: u64,
    /// Events in quarantine.
    pub quarantined: u64,
    /// Events that were declared lost and have not arrived.
    pub lost: u64,
    /// Events that have not arrived.
    pub missing: u64,
}

/// Compares everything, and returns the boot's figures and its differences.
pub fn compare(boot: &Boot<'_>) -> (Figures, Vec<Finding>) {
    let Boot { key, seen, words, whole, before, after, rows } = boot;
    let mut findings = Vec::new();
    let mut find = |kind, set: &IntervalSet, expected: &str, found: &str, detail: &str| {
        let of = |run: &Interval| Finding::of(kind, key, *run).saying(expected, found, detail);
        findings.extend(set.intervals().iter().map(of));
    };
    let stored = after.stored.minus(&before.stored);
    let quarantined = after.quarantined.minus(&before.quarantined);
    let known_before = union([&before.stored, &before.quarantined]);
    let known = union([&after.stored, &after.quarantined]);

    let gone = stored.minus(&rows.stored);
    let in_kafka = gone.minus(&gone.minus(&seen.arrived));
    find(Kind::MissingRow, &in_kafka, "1 row", "0", "Kafka has it, the ledger says stored");
    find(Kind::MissingRow, &gone.minus(&seen.arrived), "1 row", "0", "the ledger says stored");
    let gone = quarantined.minus(&rows.quarantined);
    find(Kind::MissingRow, &gone, "1 row in quarantine", "0", "the ledger says quarantined");
    let unknown = seen.arrived.minus(&known_before).minus(&known).minus(&rows.fragmented);
    find(Kind::NotLoaded, &unknown, "stored or quarantined", "neither", "Kafka has it, the ledger does not");

    let again = rows.stored.minus(&stored);
    let twice = again.minus(&again.minus(&before.stored));
    find(Kind::DoubledRow, &twice, "no row in the period", "1", "it was stored before the period");
    find(Kind::UnexpectedRow, &again.minus(&before.stored), "0 rows", "1", "the ledger does not say stored");
    // A replayed event stands in both places. An event that is refused again when it is replayed
    // stands twice in quarantine.
    let unexplained = rows.quarantined.minus(&union([&quarantined, &stored, &before.quarantined]));
    find(Kind::UnexpectedRow, &unexplained, "0 rows in quarantine", "1", "the ledger does not say quarantined");
    if *whole {
        let invented = union([&stored, &quarantined]).minus(&seen.arrived);
        find(Kind::NotInKafka, &invented, "a record in Kafka", "none", "the ledger has it");
    }

    let said = seen.known_last.max(*words).max(if *whole { 0 } else { after.known_last() });
    let accounted = union([&known, &after.declared_lost, &seen.lost, &seen.arrived, &rows.fragmented]);
    let made = IntervalSet::from_ranges([(1, said)]);
    let missing = made.minus(&accounted);
    let detail = format!("the device says it made 1..{said} in this boot");
    find(Kind::MissingEvent, &missing, "a record in Kafka", "none", &detail);
    for (run, table, copies) in &rows.doubled {
        findings.push(Finding::of(Kind::DoubledRow, key, *run).table(table).saying("1 row", copies, ""));
    }

    let mut arrived = union([&known, &seen.arrived]);
    arrived.extend(&rows.fragmented);
    let figures = Figures {
        says: said.max(after.known_last()),
        kafka: seen.arrived.count(),
        stored: rows.stored.count(),
        quarantined: union([&rows.quarantined, &rows.fragmented]).count(),
        lost: union([&after.declared_lost, &seen.lost]).minus(&arrived).count(),
        missing: missing.count(),
    };
    (figures, findings)
}

fn union<'a>(sets: impl IntoIterator<Item = &'a IntervalSet>) -> IntervalSet {
    let mut union = IntervalSet::default();
    sets.into_iter().for_each(|set| union.extend(set));
    union
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ranges: &[(u64, u64)]) -> IntervalSet {
        IntervalSet::from_ranges(ranges.iter().copied())
    }

    fn ledger(stored: &[(u64, u64)], quarantined: &[(u64, u64)]) -> Ledger {
        Ledger { stored: set(stored), quarantined: set(quarantined), ..Ledger::default() }
    }

    #[track_caller]
    fn check(seen: &[(u64, u64)], before: &Ledger, after: &Ledger, rows: &Rows, expected: &[(Kind, u64, u64)]) {
        let key = BootKey { tenant: "acme".to_owned(), device: "pen".to_owned(), boot_id: 1 };
        let seen = KafkaBoot { arrived: set(seen), known_last: 20, ..KafkaBoot::default() };
        let boot = Boot { key: &key, seen: &seen, words: 0, whole: true, before, after, rows };
        let found: Vec<_> =
            compare(&boot).1.into_iter().map(|finding| (finding.kind, finding.first_seq, finding.last_seq)).collect();
        assert_eq!(found, expected);
    }

    fn rows(stored: &[(u64, u64)], quarantined: &[(u64, u64)]) -> Rows {
        Rows { stored: set(stored), quarantined: set(quarantined), ..Rows::default() }
    }

    #[test]
    fn what_agrees_is_no_difference() {
        let after = ledger(&[(1, 12), (14, 20)], &[(13, 13)]);
        check(&[(1, 20)], &ledger(&[], &[]), &after, &rows(&[(1, 12), (14, 20)], &[(13, 13)]), &[]);
        // Some events are resent from before the period, and one was replayed from quarantine
        // within it.
        let before = ledger(&[(1, 9)], &[(10, 10)]);
        check(&[(5, 20)], &before, &ledger(&[(1, 20)], &[]), &rows(&[(10, 20)], &[]), &[]);
        // An event was quarantined and replayed within the period.
        check(&[(1, 20)], &ledger(&[], &[]), &ledger(&[(1, 20)], &[]), &rows(&[(1, 20)], &[(3, 3)]), &[]);
    }

    #[test]
    fn each_difference_has_its_name() {
        let (none, all) = (ledger(&[], &[]), ledger(&[(1, 20)], &[]));
        check(&[(1, 20)], &none, &all, &rows(&[(1, 6), (8, 20)], &[]), &[(Kind::MissingRow, 7, 7)]);
        check(&[(1, 6), (8, 20)], &none, &all, &rows(&[(1, 20)], &[]), &[(Kind::NotInKafka, 7, 7)]);
        let hole = ledger(&[(1, 6), (8, 20)], &[]);
        check(&[(1, 20)], &none, &hole, &rows(&[(1, 6), (8, 20)], &[]), &[(Kind::NotLoaded, 7, 7)]);
        let expected = [(Kind::UnexpectedRow, 7, 7), (Kind::MissingEvent, 7, 7)];
        check(&[(1, 6), (8, 20)], &none, &hole, &rows(&[(1, 20)], &[]), &expected);
        check(&[(1, 20)], &hole, &all, &rows(&[(5, 5), (7, 7)], &[]), &[(Kind::DoubledRow, 5, 5)]);
        let quarantine = ledger(&[(1, 6), (8, 20)], &[(7, 7)]);
        check(&[(1, 20)], &none, &quarantine, &rows(&[(1, 6), (8, 20)], &[]), &[(Kind::MissingRow, 7, 7)]);
        check(&[(1, 18)], &none, &ledger(&[(1, 18)], &[]), &rows(&[(1, 18)], &[]), &[(Kind::MissingEvent, 19, 20)]);
        let doubled =
            Rows { doubled: vec![(Interval::new(4, 4), "injections".to_owned(), 2)], ..rows(&[(1, 20)], &[]) };
        check(&[(1, 20)], &none, &all, &doubled, &[(Kind::DoubledRow, 4, 4)]);
    }
}
