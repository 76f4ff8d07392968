//! Which items, mounts, sessions and sterilizers a change concerns.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use warehouse::{Error, Warehouse, changes::News, horizon::Horizon};

use crate::reader::{CHANGED_MAX, Units};

/// Facts that are looked at for changes.
pub(super) const FACTS: [&str; 10] = [
    "injections",
    "item_uses",
    "mounts",
    "preparations",
    "sterilization_cycles",
    "sterilization_samples",
    "sterilization_items",
    "cycle_indicators",
    "cycle_releases",
    "implausible_times",
];
/// SQL of the name of a mount, `DEVICE/MOUNT`; empty where there is none.
const MOUNT: &str = "if(mount_id = '', '', concat(device, '/', mount_id))";
/// Ids of units to evaluate; those of mounts are `DEVICE/MOUNT`, those of items their identity
/// (`item_key`), so that every spelling of an id is judged together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedUnits {
    pub items: BTreeSet<String>,
    pub mounts: BTreeSet<String>,
    pub sessions: BTreeSet<String>,
    pub sterilizers: BTreeSet<String>,
}

impl Units for ChangedUnits {
    fn count(&self) -> usize {
        self.items.len() + self.mounts.len() + self.sessions.len() + self.sterilizers.len()
    }

    fn add(&mut self, other: Self) {
        self.items.extend(other.items);
        self.mounts.extend(other.mounts);
        self.sessions.extend(other.sessions);
        self.sterilizers.extend(other.sterilizers);
    }

    async fn concerned(warehouse: &Warehouse, news: &News<'_>) -> Result<Self, Error> {
        let (limit, mut changed) = (CHANGED_MAX + 1, Self::default());
        let texts = async |table: &str, column: &str| warehouse.texts(news, table, column, limit).await;
        changed.sessions.extend(texts("injections", "session_id").await?);
        changed.mounts.extend(texts("item_uses", MOUNT).await?);
        changed.items.extend(texts("item_uses", "item_key").await?);
        changed.mounts.extend(texts("mounts", MOUNT).await?);
        changed.items.extend(texts("mounts", "item_key").await?);
        changed.items.extend(texts("sterilization_items", "item_key").await?);
        for table in ["sterilization_cycles", "sterilization_samples", "sterilization_items"] {
            changed.sterilizers.extend(texts(table, "device").await?);
        }
        for table in ["cycle_indicators", "cycle_releases"] {
            changed.sterilizers.extend(warehouse.sterilizers_of_cycles(news, table, limit).await?);
        }
        if news.concerns("implausible_times") {
            let texts =
                async |table: &str, column: &str| warehouse.texts_of_doubted_boots(news, table, column, limit).await;
            changed.mounts.extend(texts("mounts", MOUNT).await?);
            changed.items.extend(texts("mounts", "item_key").await?);
            changed.sessions.extend(texts("injections", "session_id").await?);
            changed.sterilizers.extend(texts("sterilization_cycles", "device").await?);
        }
        changed.sessions.extend(warehouse.sessions_of_mixtures(news, limit).await?);
        Ok(changed)
    }

    async fn uncommitted(warehouse: &Warehouse, horizon: &Horizon) -> Result<Self, Error> {
        let (limit, mut open) = (CHANGED_MAX + 1, Self::default());
        let texts = async |table: &str, column: &str| warehouse.texts_beyond(table, column, horizon, limit).await;
        open.sessions.extend(texts("injections", "session_id").await?);
        open.mounts.extend(texts("item_uses", MOUNT).await?);
        open.mounts.extend(texts("mounts", MOUNT).await?);
        open.items.extend(texts("item_uses", "item_key").await?);
        // The loader may write the batch again without the doubt.
        if !warehouse.texts_beyond("implausible_times", "device", horizon, 1).await?.is_empty() {
            let texts = async |table: &str, column: &str| {
                warehouse.texts_of_boots_doubted_beyond(table, column, horizon, limit).await
            };
            open.mounts.extend(texts("mounts", MOUNT).await?);
            open.items.extend(texts("mounts", "item_key").await?);
            open.sessions.extend(texts("injections", "session_id").await?);
            open.sterilizers.extend(texts("sterilization_cycles", "device").await?);
        }
        Ok(open)
    }
}

impl ChangedUnits {
    /// Adds a unit by its name, for example `item/ID`.
    pub fn add_unit(&mut self, unit: &str) {
        let Some((kind, name)) = unit.split_once('/') else { return };
        let (ids, id) = match kind {
            "item" => (&mut self.items, name),
            "session" => (&mut self.sessions, name),
            "sterilizer" => (&mut self.sterilizers, name),
            _ => (&mut self.mounts, name),
        };
        ids.insert(id.to_owned());
    }
}
