//! Identity of a device, and its topics.

use std::fmt;

use telemetry::topic::{Channel, Topic, is_id};

/// The form of the contract in which a device sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Form {
    /// Protobuf bytes, on the channel `report`.
    #[default]
    Protobuf,
    /// Canonical JSON, on the channel `report/json`.
    Json,
}

impl Form {
    /// The channel of its reports.
    pub const fn channel(self) -> Channel {
        match self {
            Self::Protobuf => Channel::Report,
            Self::Json => Channel::ReportJson,
        }
    }
}

/// A device as its topics name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Id of the clinic chain.
    pub tenant: String,
    /// Id of the clinic.
    pub site: String,
    /// Id of the device within its site.
    pub device: String,
}

impl Identity {
    /// An identity, if all three parts are ids of the contract.
    pub fn new(tenant: &str, site: &str, device: &str) -> Option<Self> {
        [tenant, site, device].into_iter().all(is_id).then(|| Self {
            tenant: tenant.to_owned(),
            site: site.to_owned(),
            device: device.to_owned(),
        })
    }

    /// Reads the text that `Display` writes: `tenant/site/device`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '/');
        Self::new(parts.next()?, parts.next()?, parts.next()?)
    }

    /// The topic of a channel.
    pub fn topic(&self, channel: Channel) -> String {
        Topic { tenant: &self.tenant, site: &self.site, device: &self.device, channel }.to_string()
    }

    /// The topic on which its receipts come.
    pub fn receipt_topic(&self, form: Form) -> String {
        let topic = Topic { tenant: &self.tenant, site: &self.site, device: &self.device, channel: form.channel() };
        topic.receipt().map_or_else(String::new, |topic| topic.to_string())
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.site, self.device)
    }
}
