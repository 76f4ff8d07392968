//! Faults of roles that run in one process, for the page of the dashboard.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// The fault of each role that has one. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct RoleFaults(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl RoleFaults {
    /// Notes the fault of a role; `None` means that it has none.
    pub fn note(&self, role: &'static str, fault: Option<String>) {
        self.with(|faults| match fault {
            Some(fault) => faults.insert(role, fault),
            None => faults.remove(role),
        });
    }

    /// One line for each role that has a fault.
    pub fn lines(&self) -> Vec<String> {
        self.with(|faults| faults.iter().map(|(role, fault)| format!("{role}: {fault}")).collect())
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<&'static str, String>) -> T) -> T {
        work(&mut crate::lock(&self.0))
    }
}
