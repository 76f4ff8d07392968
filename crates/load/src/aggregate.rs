//! Partial sums of one batch: by device and minute, by visit and set point, by mounted item.
//!
//! Rows come out in the order their keys were first seen, so that the same records give the same
//! blocks, byte for byte.

use std::{collections::HashMap, hash::Hash};

use analysis::accuracy::{PercentBins, Shot, Sums};
use foldhash::quality::RandomState;
use telemetry::v1;
use warehouse::columns::{
    AccuracyMinute, AccuracyRow, AccuracySession, Block, Commons, ItemUse, ItemUses, Mounted, Provenance,
};

/// Values by key, in the order of the keys' first appearance. Keys are small numbers that differ in
/// few bits: without foldhash's last step (`quality`) some minutes would have most of their devices
/// in the same slots.
struct Keyed<K, V> {
    index: HashMap<K, usize, RandomState>,
    rows: Vec<(K, V)>,
    last: usize,
}

impl<K, V> Default for Keyed<K, V> {
    fn default() -> Self {
        Self { index: HashMap::default(), rows: Vec::new(), last: 0 }
    }
}

impl<K: Copy + Eq + Hash, V> Keyed<K, V> {
    /// Position of a key; neighbours mostly have the same, so the last one is tried first.
    fn at(&mut self, key: K, new: impl FnOnce() -> V) -> usize {
        if self.rows.get(self.last).is_some_and(|(last, _)| *last == key) {
            return self.last;
        }
        self.last = *self.index.entry(key).or_insert_with(|| {
            self.rows.push((key, new()));
            self.rows.len() - 1
        });
        self.last
    }

    fn value(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        let at = self.at(key, new);
        &mut self.rows[at].1
    }
}

/// [`Commons::device`].
type Device = [i32; 5];
/// Number of the device; [`Commons::visit`].
type Visit = (usize, [i32; 3]);
/// Keys of tenant, site, device and session.
type Place = [i32; 4];
/// Where it is used.
type Item = (Place, Mounted);
/// Number of the visit; set points, nl and um; number of a [`v1::Outcome`].
type SetPoint = (usize, Option<u32>, Option<u16>, i32);

/// Where the injections of a report count.
#[derive(Clone, Copy)]
struct Opened {
    device: usize,
    visit: usize,
    items: (usize, usize),
    /// 1 where their time is that of their receipt, else 0.
    undated: u64,
}

/// The sums of one batch.
#[derive(Default)]
pub(crate) struct Aggregates {
    /// By number in [`Commons`].
    opened: Vec<Option<Opened>>,
    /// Numbers of the items in use, those of an [`Opened`] in a row.
    items: Vec<usize>,
    devices: Keyed<Device, ()>,
    visits: Keyed<Visit, ()>,
    minutes: Keyed<(usize, i64), Sums>,
    sessions: Keyed<SetPoint, (Sums, PercentBins)>,
    uses: Keyed<Item, ItemUse>,
}

const MINUTE_US: i64 = 60_000_000;

impl Aggregates {
    /// Adds an injection whose values are plausible; `common` is the number of what its report has
    /// in common with others.
    pub fn injection(&mut self, commons: &Commons, common: u32, at: i64, injection: &v1::Injection) {
        let opened = self.opened.get(common as usize).copied().flatten();
        let Opened { device, visit, items: (first, end), undated } =
            opened.unwrap_or_else(|| self.open(commons, common, at));
        let shot = shot(at, injection);
        self.minutes.value((device, at.div_euclid(MINUTE_US)), Sums::default).add(&shot);
        let set_point = (visit, narrow(injection.target_nl), narrow(injection.target_um), injection.outcome);
        let (sums, bins) = self.sessions.value(set_point, Default::default);
        sums.add(&shot);
        if let Some((target, delivered)) = shot.dose {
            bins.add(target, delivered);
        }
        for item in &self.items[first..end] {
            let item_use = &mut self.uses.rows[*item].1;
            item_use.injections += 1;
            item_use.punctures += u64::from(injection.punctures.unwrap_or(1));
            item_use.delivered_nl += injection.delivered_nl.unwrap_or(0);
            item_use.delivered_n += u64::from(injection.delivered_nl.is_some());
            item_use.first_at = item_use.first_at.min(at);
            item_use.last_at = item_use.last_at.max(at);
            item_use.undated += undated;
        }
    }

    /// Looks up once what is the same for all reports of a number.
    fn open(&mut self, commons: &Commons, common: u32, at: i64) -> Opened {
        let (names, ids) = (commons.device(common), commons.visit(common));
        let device = self.devices.at(names, || ());
        let visit = self.visits.at((device, ids), || ());
        let place = [names[0], names[1], names[2], ids[0]];
        let none = ItemUse {
            injections: 0,
            punctures: 0,
            delivered_nl: 0,
            delivered_n: 0,
            first_at: at,
            last_at: at,
            undated: 0,
        };
        let mounts = commons.mounts(common).iter();
        let mut items: Vec<_> = mounts.map(|mounted| self.uses.at((place, *mounted), || none)).collect();
        // A mount that is named twice is used once.
        items.sort_unstable();
        items.dedup();
        let first = self.items.len();
        self.items.append(&mut items);
        let undated = u64::from(!commons.is_device_time(common));
        let opened = Opened { device, visit, items: (first, self.items.len()), undated };
        if self.opened.len() <= common as usize {
            self.opened.resize(common as usize + 1, None);
        }
        self.opened[common as usize] = Some(opened);
        opened
    }

    /// The blocks of the aggregate tables.
    pub fn finish(self, provenance: Provenance, commons: &Commons) -> [Option<Block>; 3] {
        let row = |device: usize, sums| AccuracyRow { device: self.devices.rows[device].0, sums };
        let mut minutes = AccuracyMinute::default();
        for ((device, minute), sums) in &self.minutes.rows {
            // Plausible times are below 2100, and DateTime reaches 2106.
            minutes.push(row(*device, sums), (minute * 60) as u32);
        }
        let mut sessions = AccuracySession::default();
        for ((visit, target_nl, target_um, outcome), (sums, bins)) in &self.sessions.rows {
            let (device, ids) = self.visits.rows[*visit].0;
            sessions.push(row(device, sums), ids, (*target_nl, *target_um), *outcome, bins);
        }
        let mut uses = ItemUses::default();
        for ((place, Mounted { slot, keys }), item_use) in &self.uses.rows {
            uses.push(*place, *keys, *slot, item_use);
        }
        [minutes.finish(provenance, commons), sessions.finish(provenance, commons), uses.finish(provenance, commons)]
    }
}

/// What accuracy is computed from. A value that only repeats the setting is no measurement.
fn shot(at: i64, injection: &v1::Injection) -> Shot {
    let dose = Option::zip(narrow(injection.target_nl), narrow(injection.delivered_nl));
    let depth = Option::zip(injection.target_um, injection.measured_um);
    let outcome = usize::try_from(injection.outcome).ok().and_then(|outcome| outcome.checked_sub(1));
    Shot {
        at,
        outcome,
        dose: dose.filter(|_| injection.dose_source() != v1::DoseSource::Setting),
        depth: depth.filter(|_| injection.depth_source() != v1::DepthSource::Setting),
    }
}

fn narrow<T, U: TryFrom<T>>(value: Option<T>) -> Option<U> {
    value.and_then(|value| value.try_into().ok())
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, hash::BuildHasher as _};

    use super::RandomState;

    /// 100 keys fill 95 of 1024 slots on average, and in none of 10,000 minutes fewer than 75.
    #[test]
    fn keys_of_any_minute_spread() {
        let state = RandomState::default();
        for minute in 29_400_000..29_410_000_i64 {
            let slots: HashSet<_> = (0..100_usize).map(|device| state.hash_one((device, minute)) % 1024).collect();
            assert!(slots.len() >= 75, "minute {minute}: 100 devices in {} slots", slots.len());
        }
    }
}
