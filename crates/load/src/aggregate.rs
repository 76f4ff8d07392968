//! Partial sums of one batch: by device and minute, by visit and set point, by mounted item.
//!
//! Rows come out in the order their keys were first seen, so that the same records give the same blocks, byte for byte.

use std::{collections::HashMap, hash::Hash};

use analysis::accuracy::{PercentBins, Shot, Sums};
use foldhash::fast::RandomState;
use telemetry::v1;
use warehouse::columns::{
    AccuracyMinute, AccuracyRow, AccuracySession, Block, ItemUse, ItemUses, Origin, Provenance, Texts,
};

/// Values by key, in the order of the keys' first appearance.
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

/// Numbers of the texts tenant, site, device, model, firmware.
type Device = [i32; 5];
/// Number of the device; numbers of the texts session, dose calibration, depth calibration.
type Visit = (usize, [i32; 3]);
/// Numbers of the texts tenant, site, device, session, mount, item; slot.
type Item = ([i32; 6], i32);

/// Number of the visit; set points, nl and um; number of a [`v1::Outcome`].
type SetPoint = (usize, Option<u32>, Option<u16>, i32);

/// Where the injections of a report count.
#[derive(Clone, Copy)]
struct Opened {
    device: usize,
    visit: usize,
    /// In [`Aggregates::items`].
    items: (usize, usize),
}

/// The sums of one batch.
#[derive(Default)]
pub(crate) struct Aggregates {
    /// What an [`Origin::texts`] stands for.
    opened: HashMap<u32, Opened, RandomState>,
    /// The last one of them.
    last: Option<(u32, Opened)>,
    /// Numbers of the items in use, those of an [`Opened`] in a row.
    items: Vec<usize>,
    texts: Texts,
    devices: Keyed<Device, ()>,
    visits: Keyed<Visit, ()>,
    minutes: Keyed<(usize, i64), Sums>,
    sessions: Keyed<SetPoint, (Sums, PercentBins)>,
    uses: Keyed<Item, ItemUse>,
}

const MINUTE_US: i64 = 60_000_000;

impl Aggregates {
    /// Adds an injection whose values are plausible. `mounts` are those of the report's context.
    pub fn injection(&mut self, origin: &Origin<'_>, mounts: &[v1::MountInUse], at: i64, injection: &v1::Injection) {
        let Opened { device, visit, items: (first, end) } = self.open(origin, mounts, at);
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
        }
    }

    /// Looks up once what is the same for all reports of a number.
    fn open(&mut self, origin: &Origin<'_>, mounts: &[v1::MountInUse], at: i64) -> Opened {
        if let Some((_, opened)) = self.last.filter(|(last, _)| *last == origin.texts) {
            return opened;
        }
        let opened = match self.opened.get(&origin.texts) {
            Some(opened) => *opened,
            None => self.open_new(origin, mounts, at),
        };
        self.last = Some((origin.texts, opened));
        opened
    }

    fn open_new(&mut self, origin: &Origin<'_>, mounts: &[v1::MountInUse], at: i64) -> Opened {
        let names = [origin.tenant, origin.site, origin.device, origin.model, origin.firmware];
        let names = names.map(|text| self.texts.key(text));
        let device = self.devices.at(names, || ());
        let ids = [origin.session_id, origin.dose_calibration_id, origin.depth_calibration_id];
        let ids = ids.map(|text| self.texts.key(text));
        let visit = self.visits.at((device, ids), || ());
        let ([tenant, site, name, ..], [session, ..]) = (names, ids);
        let mut items = Vec::with_capacity(mounts.len());
        for mount in mounts {
            let (mount_id, item_id) = (self.texts.key(&mount.mount_id), self.texts.key(&mount.item_id));
            let key = ([tenant, site, name, session, mount_id, item_id], mount.slot);
            let none =
                ItemUse { injections: 0, punctures: 0, delivered_nl: 0, delivered_n: 0, first_at: at, last_at: at };
            items.push(self.uses.at(key, || none));
        }
        // A mount that is named twice is used once.
        items.sort_unstable();
        items.dedup();
        let first = self.items.len();
        self.items.append(&mut items);
        let opened = Opened { device, visit, items: (first, self.items.len()) };
        self.opened.insert(origin.texts, opened);
        opened
    }

    /// The blocks of the aggregate tables.
    pub fn finish(self, provenance: Provenance) -> [Option<Block>; 3] {
        let devices = &self.devices.rows;
        let texts = &self.texts;
        let device = |at: usize| devices[at].0.map(|key| texts.text(key));
        let mut minutes = AccuracyMinute::default();
        for ((at, minute), sums) in &self.minutes.rows {
            // Plausible times are below 2100, and DateTime reaches 2106.
            minutes.push(AccuracyRow { device: device(*at), sums }, (minute * 60) as u32);
        }
        let mut sessions = AccuracySession::default();
        for ((visit, target_nl, target_um, outcome), (sums, bins)) in &self.sessions.rows {
            let (at, visit) = &self.visits.rows[*visit].0;
            let visit = visit.map(|key| texts.text(key));
            sessions.push(AccuracyRow { device: device(*at), sums }, visit, (*target_nl, *target_um), *outcome, bins);
        }
        let mut uses = ItemUses::default();
        for ((key, slot), item_use) in &self.uses.rows {
            uses.push(key.map(|key| texts.text(key)), *slot, item_use);
        }
        [minutes.finish(provenance), sessions.finish(provenance), uses.finish(provenance)]
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
