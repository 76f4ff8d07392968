//! The registered devices, and the tenants that refuse reports of other devices.
//!
//! The bridge does not read the registry itself: its caller does, and passes each change on. The
//! bridge decides before it produces the record, so that the decision is part of the record: a
//! loader that reads the record later, or a second time, does not need the registry.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tokio::sync::watch;

/// The registry as last read; none before it was read for the first time.
pub type Current = watch::Receiver<Option<Arc<Registry>>>;

/// What the registry says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    refusing: HashMap<String, bool>,
    devices: HashSet<String>,
}

impl Registry {
    /// A registry: whether a tenant refuses unknown devices (the tenant `""` stands for all that
    /// are not named), and the registered devices as (tenant, device).
    pub fn new(
        refusing: impl IntoIterator<Item = (String, bool)>,
        devices: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let keys = devices.into_iter().map(|(tenant, device)| telemetry::kafka::record_key(&tenant, &device));
        Self { refusing: refusing.into_iter().collect(), devices: keys.collect() }
    }

    /// Whether reports under this key, `tenant/device`, are refused.
    pub fn refuses(&self, key: &str) -> bool {
        let tenant = key.split('/').next().unwrap_or_default();
        let refusing = self.refusing.get(tenant).or_else(|| self.refusing.get(""));
        refusing.copied().unwrap_or(false) && !self.devices.contains(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_own_policy_wins_and_known_devices_are_always_taken() {
        let text = str::to_owned;
        let registry =
            Registry::new([(text("strict"), true), (text("open"), false)], [(text("strict"), text("pen-1"))]);
        for (key, refused) in
            [("strict/pen-1", false), ("strict/pen-2", true), ("open/pen-2", false), ("x/pen-2", false)]
        {
            assert_eq!(registry.refuses(key), refused, "{key}");
        }
        let registry = Registry::new([(text(""), true), (text("open"), false)], []);
        assert!(registry.refuses("x/pen-2") && !registry.refuses("open/pen-2"));
        assert!(!Registry::default().refuses("x/pen-2"));
    }
}
