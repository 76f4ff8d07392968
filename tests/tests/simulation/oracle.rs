//! What must hold at the end.

use std::collections::BTreeSet;

use load::simulation::{
    engine::Engine,
    truth::{Contents, Identity},
};
use sha2::{Digest as _, Sha256};

use crate::device::Device;

/// Every event is stored once, as a row or in quarantine, or its device knows why not. Gaps are
/// visible, and nothing is invented.
///
/// [`Contents::of`] has already checked that no event is stored twice, that the ledgers match the
/// tables, and that the aggregates equal the sums over the rows.
///
/// Returns how many losses only show as gaps. A receipt could not tell to which of two declarations
/// it belonged (`device::sender::Attached`).
pub fn check(engine: &Engine, devices: &[Device]) -> u64 {
    let (standing, mut undeclared) = (Contents::of(engine), 0);
    assert!(standing.released.is_empty(), "stored and quarantined: {:?}", standing.released);
    let raw: BTreeSet<[u8; 32]> = standing.raw.iter().map(|payload| Sha256::digest(payload).into()).collect();
    let mut known: BTreeSet<Identity> = BTreeSet::new();
    for device in devices {
        let (name, truth) = (&device.identity.device, &device.truth);
        known.extend(truth.made.iter().map(|(boot, seq)| (name.clone(), *boot, *seq)));
        for event @ (boot, seq) in &truth.made {
            let identity = (name.clone(), *boot, *seq);
            if standing.facts.contains(&identity) || standing.quarantined.contains(&identity) {
                continue;
            }
            let ledger = standing.ledgers.get(&(name.clone(), *boot)).map(|row| &row.ledger);
            let lost = ledger.is_some_and(|ledger| ledger.declared_lost.contains(*seq));
            let missing = ledger.is_some_and(|ledger| {
                ledger.missing().iter().any(|missing| missing.first <= *seq && *seq <= missing.last)
            });
            if lost {
                assert!(truth.given_up.contains(event), "declared lost and not given up: {identity:?}");
            } else if let Some(sha256) = truth.rejected.get(event) {
                assert!(raw.contains(sha256), "refused, and not in quarantine: {identity:?}");
            } else if truth.given_up.contains(event) && missing {
                undeclared += 1;
            } else {
                assert!(truth.forgotten.contains(event), "lost: {identity:?}");
            }
            // An event that the device does not know about cannot be missed.
            assert!(lost || missing || !truth.forfeited.contains(event), "a gap that does not show: {identity:?}");
            assert!(!(lost && missing), "lost and missing: {identity:?}");
        }
        for ((_, boot), row) in standing.ledgers.iter().filter(|((of, _), _)| of == name) {
            for missing in row.ledger.missing() {
                for seq in missing.first..=missing.last {
                    assert!(truth.made.contains(&(*boot, seq)), "missing and never made: {name} {boot} {seq}");
                }
            }
        }
    }
    let all: BTreeSet<Identity> = standing.facts.union(&standing.quarantined).cloned().collect();
    assert!(all.is_subset(&known), "invented: {:?}", all.difference(&known));
    undeclared
}
