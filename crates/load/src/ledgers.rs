//! The sequence ledgers of one shard: those of the current batch, and a bounded cache of committed
//! ones.
//!
//! Invariant: the cache holds committed states only. A batch moves the ledgers that it touches out
//! of the cache, and back after its commit. An owner that ends in between drops both, so that the
//! rows of an uncommitted batch never count as duplicates.

use std::num::NonZeroUsize;

use foldhash::quality::RandomState;
use indexmap::{Equivalent, IndexMap};
use lru::LruCache;
use telemetry::{ledger::Ledger, topic::Topic};
use warehouse::{columns::LedgerRow, loader::BootKey};

/// The ledger of one boot, and what is recorded with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boot {
    pub ledger: Ledger,
    /// Site of its latest message.
    pub site: String,
    /// Reason of the latest declaration of loss.
    pub lost_reason: String,
    /// When its latest report was received, us since 1970.
    pub last_arrival: i64,
}

/// A [`BootKey`] with borrowed texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BootRef<'a> {
    pub tenant: &'a str,
    pub device: &'a str,
    pub boot_id: u64,
}

impl<'a> BootRef<'a> {
    /// A boot of the device that published.
    pub fn of(topic: &Topic<'a>, boot_id: u64) -> Self {
        Self { tenant: topic.tenant, device: topic.device, boot_id }
    }

    fn to_key(self) -> BootKey {
        BootKey { tenant: self.tenant.to_owned(), device: self.device.to_owned(), boot_id: self.boot_id }
    }
}

/// Both have the same fields in the same order, so their hashes are the same as well.
impl Equivalent<BootKey> for BootRef<'_> {
    fn equivalent(&self, key: &BootKey) -> bool {
        self.boot_id == key.boot_id && self.device == key.device && self.tenant == key.tenant
    }
}

/// Ledgers of one shard.
pub struct Ledgers {
    cached: LruCache<BootKey, Boot, RandomState>,
    /// In the order of opening, so that the cache drops the same boots for the same records.
    open: IndexMap<BootKey, Boot, RandomState>,
}

impl Ledgers {
    /// An empty cache of at most `boots_max` boots.
    pub fn new(boots_max: usize) -> Self {
        let boots_max = NonZeroUsize::new(boots_max).unwrap_or(NonZeroUsize::MIN);
        Self { cached: LruCache::with_hasher(boots_max, RandomState::default()), open: IndexMap::default() }
    }

    /// A cache that keeps every boot, for a caller that cannot read a dropped state again.
    pub fn unbounded() -> Self {
        Self { cached: LruCache::unbounded_with_hasher(RandomState::default()), open: IndexMap::default() }
    }

    /// Every ledger in memory, in no order.
    pub fn rows(&self) -> Vec<LedgerRow> {
        self.cached.iter().chain(&self.open).map(|(key, boot)| row(key, boot)).collect()
    }

    /// Opens the ledgers that are in memory. Returns the keys of the others, each once: the caller
    /// reads them and calls [`Ledgers::fill`].
    pub fn open<'k>(&mut self, boots: impl IntoIterator<Item = BootRef<'k>>) -> Vec<BootKey> {
        let mut missing = Vec::new();
        for boot in boots {
            if self.open.contains_key(&boot) {
                continue;
            }
            let key = boot.to_key();
            match self.cached.pop_entry(&key) {
                Some((key, boot)) => drop(self.open.insert(key, boot)),
                None => missing.push(key),
            }
        }
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// Opens the ledgers that were read. A key without a row gets an empty ledger.
    pub fn fill(&mut self, missing: Vec<BootKey>, rows: Vec<LedgerRow>) {
        for key in missing {
            self.open.insert(key, Boot::default());
        }
        for row in rows {
            let LedgerRow { tenant, site, device, boot_id, ledger, lost_reason, last_arrival } = row;
            let boot = Boot { ledger, site, lost_reason, last_arrival };
            self.open.insert(BootKey { tenant, device, boot_id }, boot);
        }
    }

    /// An open ledger.
    pub fn get(&mut self, boot: BootRef<'_>) -> &mut Boot {
        let index = self.open.get_index_of(&boot);
        let index = index.unwrap_or_else(|| self.open.insert_full(boot.to_key(), Boot::default()).0);
        &mut self.open[index]
    }

    /// The ledgers that the batch touched, as rows to be recorded.
    pub fn changed(&self) -> Vec<LedgerRow> {
        self.open.iter().map(|(key, boot)| row(key, boot)).collect()
    }

    /// The batch is committed: its ledgers move to the cache.
    pub fn committed(&mut self) {
        for (key, boot) in self.open.drain(..) {
            self.cached.put(key, boot);
        }
    }
}

fn row(key: &BootKey, boot: &Boot) -> LedgerRow {
    LedgerRow {
        tenant: key.tenant.clone(),
        site: boot.site.clone(),
        device: key.device.clone(),
        boot_id: key.boot_id,
        ledger: boot.ledger.clone(),
        lost_reason: boot.lost_reason.clone(),
        last_arrival: boot.last_arrival,
    }
}

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher as _;

    use super::*;

    /// An open ledger that is not found would be replaced by an empty one.
    #[test]
    fn a_boot_is_found_by_borrowed_names() {
        let topic = Topic::parse("doseline/v1/acme/berlin/pen-1/report").unwrap();
        let (state, boot) = (RandomState::default(), BootRef::of(&topic, 7));
        assert_eq!(state.hash_one(boot), state.hash_one(boot.to_key()));
        let mut ledgers = Ledgers::new(10);
        let missing = ledgers.open([boot, BootRef::of(&topic, 8), boot]);
        assert_eq!(missing, [boot.to_key(), BootRef::of(&topic, 8).to_key()]);
        ledgers.fill(missing, Vec::new());
        ledgers.get(boot).last_arrival = 5;
        assert_eq!((ledgers.open([boot]).len(), ledgers.get(boot).last_arrival), (0, 5));
        ledgers.committed();
        assert_eq!((ledgers.open([boot]).len(), ledgers.get(boot).last_arrival), (0, 5), "out of the cache");
        let others = [BootRef { tenant: "acm", ..boot }, BootRef { device: "pen-2", ..boot }];
        assert_eq!(ledgers.open(others).len(), 2);
    }
}
