//! Which devices and sessions a change concerns.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use warehouse::{Error, Warehouse, accuracy::DEVICE, changes::News, horizon::Horizon};

use crate::reader::{CHANGED_MAX, Units};

/// Facts that are looked at for changes.
pub(super) const FACTS: [&str; 4] = ["accuracy_session", "injections", "sessions", "calibrations"];
/// SQL of the device whose session has ended: only then is it known how many injections there were.
const ENDED: &str = "if(event = 'ENDED', concat(tenant, '/', device), '')";
/// SQL of the device that was calibrated.
const CALIBRATED: &str = "concat(tenant, '/', subject_device)";

/// `TENANT/DEVICE` and `TENANT/DEVICE/SESSION` to evaluate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedUnits {
    pub devices: BTreeSet<String>,
    pub sessions: BTreeSet<String>,
}

impl Units for ChangedUnits {
    fn count(&self) -> usize {
        self.devices.len() + self.sessions.len()
    }

    fn add(&mut self, other: Self) {
        self.devices.extend(other.devices);
        self.sessions.extend(other.sessions);
    }

    async fn concerned(warehouse: &Warehouse, news: &News<'_>) -> Result<Self, Error> {
        let (limit, mut changed) = (CHANGED_MAX + 1, Self::default());
        for (table, device) in [("accuracy_session", DEVICE), ("sessions", ENDED), ("calibrations", CALIBRATED)] {
            changed.devices.extend(warehouse.texts(news, table, device, limit).await?);
        }
        changed.sessions.extend(warehouse.sessions_in(news, limit).await?);
        Ok(changed)
    }

    async fn uncommitted(warehouse: &Warehouse, horizon: &Horizon) -> Result<Self, Error> {
        let mut changed = Self::default();
        for (table, device) in [("accuracy_session", DEVICE), ("sessions", ENDED)] {
            changed.devices.extend(warehouse.texts_beyond(table, device, horizon, CHANGED_MAX + 1).await?);
        }
        changed.sessions.extend(warehouse.sessions_beyond(horizon, CHANGED_MAX + 1).await?);
        Ok(changed)
    }
}
