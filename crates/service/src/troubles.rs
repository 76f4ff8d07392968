//! Faults of roles that run in one process, for the page of the dashboard.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// The fault of each role that has one. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Troubles(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Troubles {
    /// Notes the fault of a role; `None` means that it has none.
    pub fn note(&self, role: &'static str, trouble: Option<String>) {
        self.with(|troubles| match trouble {
            Some(trouble) => troubles.insert(role, trouble),
            None => troubles.remove(role),
        });
    }

    /// One line for each role that has a fault.
    pub fn lines(&self) -> Vec<String> {
        self.with(|troubles| troubles.iter().map(|(role, trouble)| format!("{role}: {trouble}")).collect())
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<&'static str, String>) -> T) -> T {
        work(&mut crate::lock(&self.0))
    }
}
