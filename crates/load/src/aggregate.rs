//! Partial sums of one batch: by device and minute, by session and set point, by mounted item.
//!
//! Rows are in the order in which their keys first appeared, so that the same records give the same
//! blocks, byte for byte.

use std::{collections::HashMap, hash::Hash};

use analysis::accuracy::{PercentBins, Shot, Sums};
use foldhash::quality::RandomState;
use telemetry::v1;
use warehouse::columns::{
    AccuracyMinute, AccuracyRow, AccuracySession, Block, Commons, ItemUse, ItemUses, Mounted, Provenance,
};

/// Values by key, in the order in which the keys first appeared. Keys are small numbers that differ
/// in few bits: without foldhash's last step (`quality`), most devices of some minutes would fall
/// into the same slots.
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
    /// Position of a key. Consecutive injections mostly have the same one, so the last is tried
    /// first.
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

/// Keys of the texts that name a device, see [`Commons::device`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct DeviceKey {
    texts: [i32; 5],
}

/// A session on a device, with the calibrations in force.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct SessionKey {
    /// Number of the device among [`Aggregates::devices`].
    device: usize,
    /// Keys of the texts, see [`Commons::visit`].
    texts: [i32; 3],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct MinuteKey {
    /// Number of the device among [`Aggregates::devices`].
    device: usize,
    /// Minutes since 1970.
    minute: i64,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct SetPointKey {
    /// Number of the session among [`Aggregates::sessions`].
    session: usize,
    target_nl: Option<u32>,
    target_um: Option<u16>,
    /// Number of a [`v1::Outcome`].
    outcome: i32,
}

/// A mounted item, and where it is used: keys of the texts of tenant, site, device and session.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct ItemKey {
    tenant: i32,
    site: i32,
    device: i32,
    session: i32,
    mounted: Mounted,
}

/// The rows to which the injections of a report are added.
#[derive(Clone, Copy)]
struct Opened {
    device: usize,
    session: usize,
    /// Range in [`Aggregates::items`].
    items: (usize, usize),
    /// 1 if the time of the injections is that of their receipt, else 0.
    undated: u64,
}

/// The sums of one batch.
#[derive(Default)]
pub(crate) struct Aggregates {
    /// By number in [`Commons`].
    opened: Vec<Option<Opened>>,
    /// Numbers among `uses`; the items of each [`Opened`] are adjacent.
    items: Vec<usize>,
    devices: Keyed<DeviceKey, ()>,
    sessions: Keyed<SessionKey, ()>,
    minutes: Keyed<MinuteKey, Sums>,
    set_points: Keyed<SetPointKey, (Sums, PercentBins)>,
    uses: Keyed<ItemKey, ItemUse>,
}

const MINUTE_US: i64 = 60_000_000;

impl Aggregates {
    /// Adds an injection whose values are plausible. `common` is the number of its report's common
    /// part in `commons`.
    pub fn injection(&mut self, commons: &Commons, common: u32, at: i64, injection: &v1::Injection) {
        let opened = self.opened.get(common as usize).copied().flatten();
        let Opened { device, session, items: (first, end), undated } =
            opened.unwrap_or_else(|| self.open(commons, common, at));
        let shot = shot(at, injection);
        self.minutes.value(MinuteKey { device, minute: at.div_euclid(MINUTE_US) }, Sums::default).add(&shot);
        let set_point = SetPointKey {
            session,
            target_nl: narrow(injection.target_nl),
            target_um: narrow(injection.target_um),
            outcome: injection.outcome,
        };
        let (sums, bins) = self.set_points.value(set_point, Default::default);
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

    /// Looks up once what is the same for all reports with this common part.
    fn open(&mut self, commons: &Commons, common: u32, at: i64) -> Opened {
        let (device_texts, session_texts) = (commons.device(common), commons.visit(common));
        let device = self.devices.at(DeviceKey { texts: device_texts }, || ());
        let session = self.sessions.at(SessionKey { device, texts: session_texts }, || ());
        let ([tenant, site, device_name, ..], [session_id, ..]) = (device_texts, session_texts);
        let item = |mounted| ItemKey { tenant, site, device: device_name, session: session_id, mounted };
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
        let mut items: Vec<_> = mounts.map(|mounted| self.uses.at(item(*mounted), || none)).collect();
        // A mount that is named twice is used once.
        items.sort_unstable();
        items.dedup();
        let first = self.items.len();
        self.items.append(&mut items);
        let undated = u64::from(!commons.is_device_time(common));
        let opened = Opened { device, session, items: (first, self.items.len()), undated };
        if self.opened.len() <= common as usize {
            self.opened.resize(common as usize + 1, None);
        }
        self.opened[common as usize] = Some(opened);
        opened
    }

    /// The blocks of the aggregate tables.
    pub fn finish(self, provenance: Provenance, commons: &Commons) -> [Option<Block>; 3] {
        let row = |device: usize, sums| AccuracyRow { device: self.devices.rows[device].0.texts, sums };
        let mut minutes = AccuracyMinute::default();
        for (MinuteKey { device, minute }, sums) in &self.minutes.rows {
            // Plausible times are before 2100, and DateTime reaches 2106.
            minutes.push(row(*device, sums), (minute * 60) as u32);
        }
        let mut sessions = AccuracySession::default();
        for (SetPointKey { session, target_nl, target_um, outcome }, (sums, bins)) in &self.set_points.rows {
            let SessionKey { device, texts } = self.sessions.rows[*session].0;
            sessions.push(row(device, sums), texts, (*target_nl, *target_um), *outcome, bins);
        }
        let mut uses = ItemUses::default();
        for (ItemKey { tenant, site, device, session, mounted }, item_use) in &self.uses.rows {
            uses.push([*tenant, *site, *device, *session], mounted.keys, mounted.slot, item_use);
        }
        [minutes.finish(provenance, commons), sessions.finish(provenance, commons), uses.finish(provenance, commons)]
    }
}

/// The values that accuracy is computed from. A value that only repeats the setting is no
/// measurement.
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

    use super::{MinuteKey, RandomState};

    /// 100 keys fill 95 of 1024 slots on average, and in none of 10,000 minutes fewer than 75.
    #[test]
    fn keys_of_any_minute_spread() {
        let state = RandomState::default();
        for minute in 29_400_000..29_410_000_i64 {
            let slots: HashSet<_> =
                (0..100_usize).map(|device| state.hash_one(MinuteKey { device, minute }) % 1024).collect();
            assert!(slots.len() >= 75, "minute {minute}: 100 devices in {} slots", slots.len());
        }
    }
}
