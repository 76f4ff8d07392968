//! Who a certificate is for.

use serde::{Deserialize, Serialize};
use telemetry::topic::is_id;

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Kind {
    Authority,
    Broker,
    Bridge,
    Role,
    Device,
    Gateway,
}

/// Who signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Authority {
    Devices,
    Broker,
    Roles,
}

impl Authority {
    pub const ALL: [Self; 3] = [Self::Devices, Self::Broker, Self::Roles];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Devices => "devices",
            Self::Broker => "broker",
            Self::Roles => "roles",
        }
    }
}

/// Names of services that have a kind of their own.
const RESERVED: [&str; 2] = ["broker", "bridge"];
/// The file beside the certificates of roles.
const ROLES_AUTHORITY: &str = "roles-ca";

/// The subject of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub kind: Kind,
    /// `broker`, `bridge`, the name of a role, or `TENANT/SITE/DEVICE`.
    pub name: String,
    /// Names and addresses by which clients call it; empty for a client.
    pub hosts: Vec<String>,
}

impl Subject {
    /// The MQTT broker.
    ///
    /// # Errors
    /// As in all of this type: what is wrong with the name, and what would be right.
    pub fn broker(hosts: Vec<String>) -> Result<Self, String> {
        if hosts.is_empty() {
            return Err("the broker needs the names and addresses by which clients call it (--host)".to_owned());
        }
        hosts.iter().try_for_each(|host| host_of(host))?;
        Ok(Self { kind: Kind::Broker, name: "broker".to_owned(), hosts })
    }

    pub fn bridge() -> Self {
        Self { kind: Kind::Bridge, name: "bridge".to_owned(), hosts: Vec::new() }
    }

    /// A service other than broker and bridge. With hosts it may be a server too.
    pub fn role(name: &str, hosts: Vec<String>) -> Result<Self, String> {
        if !is_id(name) || name.len() > 48 || name == ROLES_AUTHORITY {
            return Err(format!("{name:?} must match [A-Za-z0-9][A-Za-z0-9_-]{{0,47}} and not be {ROLES_AUTHORITY}"));
        }
        if RESERVED.contains(&name) {
            return Err(format!("{name:?} is reserved: `doseline certs {name}` makes its certificate"));
        }
        hosts.iter().try_for_each(|host| host_of(host))?;
        Ok(Self { kind: Kind::Role, name: name.to_owned(), hosts })
    }

    /// A device or a gateway, `TENANT/SITE/DEVICE`.
    pub fn device(kind: Kind, name: &str) -> Result<Self, String> {
        if name.split('/').count() != 3 || !name.split('/').all(is_id) {
            return Err(format!("{name:?} must be TENANT/SITE/DEVICE, each as [A-Za-z0-9][A-Za-z0-9_-]{{0,63}}"));
        }
        Ok(Self { kind, name: name.to_owned(), hosts: Vec::new() })
    }

    /// The authority that signs it.
    pub fn authority(&self) -> Authority {
        match self.kind {
            Kind::Device | Kind::Gateway => Authority::Devices,
            Kind::Broker | Kind::Bridge => Authority::Broker,
            Kind::Role | Kind::Authority => Authority::Roles,
        }
    }

    /// The common name in the certificate. A broker takes it as the user name. Only names of
    /// devices and gateways have slashes.
    pub fn common_name(&self) -> String {
        match self.kind {
            Kind::Device | Kind::Gateway => self.name.clone(),
            _ => format!("doseline-{}", self.name),
        }
    }

    /// The file of the certificate in the store, without its ending.
    pub fn file(&self) -> String {
        match self.kind {
            Kind::Broker => "broker/broker".to_owned(),
            Kind::Bridge => "bridge/bridge".to_owned(),
            Kind::Device | Kind::Gateway => format!("devices/{}", self.name),
            Kind::Role | Kind::Authority => format!("roles/{}", self.name),
        }
    }
}

/// Checks the name or address of a host.
fn host_of(host: &str) -> Result<(), String> {
    let label = |label: &str| {
        !label.is_empty() && label.len() <= 63 && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if host.parse::<std::net::IpAddr>().is_ok() || host.len() <= 253 && host.split('.').all(label) {
        return Ok(());
    }
    Err(format!("{host:?} is no host name and no IP address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_devices_have_slashes_in_their_names() {
        let device = Subject::device(Kind::Device, "acme/berlin-1/D-1").unwrap();
        assert_eq!(device.common_name(), "acme/berlin-1/D-1");
        for bad in ["", "D-1", "acme/D-1", "acme/berlin-1/D-1/x", "acme/+/D-1", "acme//D-1", "acme/../x", "a b/c/d"] {
            assert!(Subject::device(Kind::Gateway, bad).unwrap_err().contains("TENANT/SITE/DEVICE"), "{bad}");
        }
        assert_eq!(Subject::role("load", vec![]).unwrap().common_name(), "doseline-load");
        for bad in ["", "a/b", "a b", "../x", &"x".repeat(49)] {
            assert!(Subject::role(bad, vec![]).is_err(), "{bad}");
        }
        for reserved in RESERVED {
            assert!(Subject::role(reserved, vec![]).unwrap_err().contains("reserved"));
        }
    }

    #[test]
    fn hosts_are_names_or_addresses() {
        let hosts = ["mosquitto", "mqtt.example.org", "10.0.0.7", "::1"].map(str::to_owned).to_vec();
        assert_eq!(Subject::broker(hosts.clone()).unwrap().hosts, hosts);
        assert!(Subject::broker(vec![]).unwrap_err().contains("--host"));
        for bad in ["", "a b", "a..b", "*.example.org", "https://a"] {
            assert!(Subject::broker(vec![bad.to_owned()]).unwrap_err().contains("no host name"), "{bad}");
        }
    }
}
