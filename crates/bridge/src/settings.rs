//! Sections `[mqtt]` and `[bridge]` of the configuration.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};
use service::{
    secret::{Password, Secret},
    settings,
    settings::{NOT_EMPTY, Text},
    tls::Tls,
};
use telemetry::topic::is_id;

settings! {
    /// Section `[mqtt]`.
    pub struct Mqtt {
        /// Host name or address of the MQTT broker
        host: String = "localhost".to_owned(), in NOT_EMPTY;
        /// Port of the broker; 8883 is usual with TLS
        port: u16 = 1_883, in 1..;
        /// User name; without one the client does not authenticate
        username: Option<String> = None;
        /// Password; better given in `password_file` or in `DOSELINE__MQTT__PASSWORD`
        password: Option<Secret> = None;
        /// File whose first line is the password. The bridge reads it at each connection, so a new
        /// password needs no restart
        password_file: Option<PathBuf> = None;
        /// TLS: see [TLS](#tls). Without it the connection is plain TCP
        tls: Option<Tls> = None;
    }
}

impl Mqtt {
    /// The password, or the file that it stands in.
    pub fn password(&self) -> Option<Password> {
        Password::of(self.password.as_ref(), self.password_file.as_deref())
    }
}

settings! {
    /// Section `[bridge]`.
    pub struct Bridge {
        /// Address of `/livez`, `/readyz` and `/metrics`
        http: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 9_601));
        /// MQTT client id of this bridge. Each bridge needs an id of its own, and keeps it over
        /// restarts, because the broker keeps the bridge's session under it
        client_id: String = "doseline-bridge-1".to_owned(), in ID;
        /// Connections to the broker. Each acknowledges messages in the order of their receipt;
        /// with more connections, a partition that stands still holds up fewer devices. More than
        /// one needs `bridge.share_group`
        connections: u16 = 1, in 1..=64;
        /// Group of a shared subscription: the broker spreads messages over all bridges and
        /// connections of one group. Without a group the subscription is plain, which is right for
        /// one bridge with one connection. Mosquitto 2.0 keeps a plain subscription over a restart
        /// and forgets a shared one
        share_group: Option<String> = None, in ID;
        /// Messages that the broker may send on one connection before the first of them is
        /// acknowledged
        receive_maximum: u16 = 4_000, in 1..;
        /// How long the broker keeps the bridge's session, with the messages that wait in it, while
        /// the bridge is away, s. `up` always uses 90 days
        session_expiry_s: u32 = 86_400;
        /// Whether devices get receipts. Without them the broker forwards one message less for each
        /// report; only for devices that do not listen to receipts
        receipts: bool = true;
        /// Messages that Kafka has not confirmed, MiB. At this limit the bridge stops reading from
        /// the broker. The bridge needs more than twice this memory: librdkafka keeps a copy of
        /// each message, 128 MiB at most, and up to 16 MiB of buffers stay for reuse
        in_flight_mib: u32 = 64, in 4..;
        /// Age of the oldest unconfirmed message at which `/readyz` fails, s
        unconfirmed_age_max_s: u32 = 30, in 1..;
        /// What happens to reports of devices that are not registered. `keep`: they are stored and
        /// flagged. `policy`: the bridge reads the registry from ClickHouse, and quarantines them
        /// if the tenant's policy says so: [quarantine](quarantine.md#unknown-devices)
        unknown_devices: UnknownDevices = UnknownDevices::Keep;
    }
}

const ID: Text = Text { must: "match [A-Za-z0-9][A-Za-z0-9_-]{0,63}", holds: is_id };

/// What happens to reports of devices that are not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownDevices {
    /// They are stored, and flagged in `fleet`.
    Keep,
    /// The tenant's policy in the registry decides.
    Policy,
}

impl Bridge {
    /// What contradicts another key of the section, as (key, what is wrong).
    pub fn conflicts(&self) -> Vec<(String, String)> {
        if self.connections <= 1 || self.share_group.is_some() {
            return Vec::new();
        }
        let text = format!("{} connections need bridge.share_group, over which messages are spread", self.connections);
        vec![("connections".to_owned(), text)]
    }
}
