//! The registered devices, and the tenants that refuse reports of other devices.
//!
//! The bridge does not read the registry itself: its caller does, and passes each change on. The
//! bridge decides before it produces the record, so that the decision is part of the record: a
//! loader that reads the record later, or a second time, does not need the registry.

use std::{collections::HashMap, sync::Arc};

use tokio::sync::watch;

/// The registry as last read; none before it was read for the first time.
pub type Current = watch::Receiver<Option<Arc<Registry>>>;

/// What the registry says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    refusing: HashMap<String, bool>,
    /// The site of each device, by `tenant/device`.
    sites: HashMap<String, String>,
}

/// A registered device, with the site where it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub tenant: String,
    pub site: String,
    pub device: String,
}

impl Registry {
    /// A registry: whether a tenant refuses unknown devices (the tenant `""` stands for all that
    /// are not named), and the registered devices.
    pub fn new(refusing: impl IntoIterator<Item = (String, bool)>, devices: impl IntoIterator<Item = Device>) -> Self {
        let sites = devices.into_iter().map(|Device { tenant, site, device }| {
            let key = telemetry::kafka::record_key(&tenant, &device);
            (key, site)
        });
        Self { refusing: refusing.into_iter().collect(), sites: sites.collect() }
    }

    /// Why reports under this key, `tenant/device`, from this site are refused; none if they are
    /// taken. A device is known only at the site where it is registered.
    pub fn refusal(&self, key: &str, site: &str) -> Option<String> {
        let tenant = key.split('/').next().unwrap_or_default();
        let refusing = self.refusing.get(tenant).or_else(|| self.refusing.get(""));
        if !refusing.copied().unwrap_or(false) {
            return None;
        }
        let policy = "and the policy unknown_devices of its tenant is quarantine";
        match self.sites.get(key) {
            Some(known) if known == site => None,
            Some(known) => Some(format!("{key} is registered at site {known}, not at {site}, {policy}")),
            None => Some(format!("{key} is not registered, {policy}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(tenant: &str, site: &str, device: &str) -> Device {
        Device { tenant: tenant.to_owned(), site: site.to_owned(), device: device.to_owned() }
    }

    #[test]
    fn a_tenants_own_policy_wins_and_known_devices_are_always_taken() {
        let text = str::to_owned;
        let registry =
            Registry::new([(text("strict"), true), (text("open"), false)], [device("strict", "paris", "pen-1")]);
        for (key, refused) in
            [("strict/pen-1", false), ("strict/pen-2", true), ("open/pen-2", false), ("x/pen-2", false)]
        {
            assert_eq!(registry.refusal(key, "paris").is_some(), refused, "{key}");
        }
        let registry = Registry::new([(text(""), true), (text("open"), false)], []);
        assert!(registry.refusal("x/pen-2", "paris").is_some() && registry.refusal("open/pen-2", "paris").is_none());
        assert_eq!(Registry::default().refusal("x/pen-2", "paris"), None);
    }

    #[test]
    fn a_device_is_unknown_at_another_site() {
        let registry = Registry::new([(String::new(), true)], [device("acme", "paris", "pen-1")]);
        assert_eq!(registry.refusal("acme/pen-1", "paris"), None);
        let said = registry.refusal("acme/pen-1", "berlin").unwrap();
        assert!(said.starts_with("acme/pen-1 is registered at site paris, not at berlin"), "{said}");
        let moved = Registry::new([(String::new(), true)], [device("acme", "berlin", "pen-1")]);
        assert_eq!(moved.refusal("acme/pen-1", "berlin"), None);
    }
}
