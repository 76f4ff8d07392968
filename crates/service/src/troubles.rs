//! What is wrong with roles that run in one process, for the health of another role to tell.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// The trouble of each role that has one. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Troubles(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Troubles {
    /// Notes what is wrong with a role; `None` = it is well.
    pub fn note(&self, role: &'static str, trouble: Option<String>) {
        self.with(|troubles| match trouble {
            Some(trouble) => troubles.insert(role, trouble),
            None => troubles.remove(role),
        });
    }

    /// One line for each role that is in trouble.
    pub fn lines(&self) -> Vec<String> {
        self.with(|troubles| troubles.iter().map(|(role, trouble)| format!("{role}: {trouble}")).collect())
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<&'static str, String>) -> T) -> T {
        // Nothing is left half-changed by a panic under this lock.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
