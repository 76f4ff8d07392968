//! Names of the Kafka topics and record headers: the contract between the bridge and the loader.

use std::fmt;

use crate::topic::ID_LEN_MAX;

/// One record for each report received over MQTT; protobuf bytes as the device sent them, JSON
/// transcoded.
pub const REPORTS_TOPIC: &str = "doseline.reports.v1";
/// One record for each status message; the JSON bytes as received.
pub const STATUS_TOPIC: &str = "doseline.status.v1";
/// Messages that could not be used: raw bytes as received.
pub const QUARANTINE_TOPIC: &str = "doseline.quarantine.v1";
/// Alerts, one record for each change.
pub const ALERTS_TOPIC: &str = "doseline.alerts.v1";

/// Commands: what people write, protobuf (`commands.proto`), kept for ever. Key: see
/// [`crate::command::record_key`].
pub const COMMANDS_TOPIC: &str = "doseline.commands.v1";

/// Header: the MQTT topic the message came in on, as bytes.
pub const TOPIC_HEADER: &str = "topic";
/// Header: time of receipt at the bridge, decimal microseconds since 1970 in ASCII.
pub const RECEIVED_AT_HEADER: &str = "received_at";
/// Header: the publisher, if the broker names it (MQTT 5 user property `publisher`).
pub const PUBLISHER_HEADER: &str = "publisher";
/// Header: W3C trace context, passed through from the MQTT 5 user property of the same name.
pub const TRACEPARENT_HEADER: &str = "traceparent";
/// Header of quarantine records: a [`crate::reject::Reason`] as text.
pub const REASON_HEADER: &str = "reason";
/// Header of quarantine records: the role that refused it, [`SOURCE_BRIDGE`], [`SOURCE_LOADER`] or
/// [`SOURCE_CHECK`].
pub const SOURCE_HEADER: &str = "source";
/// Value of [`SOURCE_HEADER`]: refused before Kafka.
pub const SOURCE_BRIDGE: &str = "bridge";
/// Value of [`SOURCE_HEADER`]: refused after Kafka.
pub const SOURCE_LOADER: &str = "loader";
/// Value of [`SOURCE_HEADER`]: a loader compared a repeated event with the stored one and found
/// other content. A refusal of a loader is only copied to Kafka. This record is the only place that
/// holds the other content until it is loaded.
pub const SOURCE_CHECK: &str = "check";
/// Header of quarantine records of [`SOURCE_CHECK`]: what exactly was wrong, for a person.
pub const DETAIL_HEADER: &str = "detail";

/// Header of records that a person replays out of quarantine: the row, a
/// [`crate::quarantine::Id`] as text. A device cannot set it: the bridge composes all headers of
/// what devices send.
pub const REPLAY_HEADER: &str = "replay";
/// Header of replayed records: the person who replays.
pub const REPLAYED_BY_HEADER: &str = "replayed_by";
/// Header of replayed records: the time at which the replay was requested, decimal microseconds
/// since 1970 in ASCII.
pub const REPLAYED_AT_HEADER: &str = "replayed_at";

/// Names of the topics that the loader reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topics {
    pub reports: String,
    pub status: String,
    /// What could not be used.
    pub quarantine: String,
    /// What people write.
    pub commands: String,
}

impl Default for Topics {
    fn default() -> Self {
        let names = [REPORTS_TOPIC, STATUS_TOPIC, QUARANTINE_TOPIC, COMMANDS_TOPIC];
        let [reports, status, quarantine, commands] = names.map(str::to_owned);
        Self { reports, status, quarantine, commands }
    }
}

impl Topics {
    /// The topics that the bridge writes: what devices send.
    pub fn of_devices(&self) -> [&str; 3] {
        [&self.reports, &self.status, &self.quarantine]
    }

    /// All names: the topics that the loader reads.
    pub fn all(&self) -> [&str; 4] {
        [&self.reports, &self.status, &self.quarantine, &self.commands]
    }
}

/// Longest key of a record, bytes.
pub const KEY_LEN_MAX: usize = 2 * ID_LEN_MAX + 1;

/// Key of a record. All records of one device go to one partition, in order.
pub fn record_key(tenant: &str, device: &str) -> String {
    key(tenant, device).to_string()
}

/// [`record_key`] without an allocation.
pub fn key(tenant: &str, device: &str) -> impl fmt::Display {
    fmt::from_fn(move |f| write!(f, "{tenant}/{device}"))
}
