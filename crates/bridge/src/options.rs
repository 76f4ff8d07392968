//! Options of the bridge: what [`settings`] configure, and what only the program sets.

use std::{io, net::SocketAddr, time::Duration};

use service::{kafka::Properties, secret::Password, tls::Tls};
use telemetry::kafka::Topics;

use crate::{Error, registry, settings};

/// Largest MQTT packet that the bridge takes by default, bytes. The contract allows reports of 1
/// MiB of JSON. A larger message must still arrive, because the bridge has to quarantine it.
pub const PACKET_BYTES_MAX: u32 = 2 * 1024 * 1024;

/// Largest MQTT packet that a broker should take, bytes. The broker may forward a packet that is
/// larger than the one it took: by a topic that the publisher gave as an alias (64 KiB at most) and
/// by a few bytes of MQTT 5 properties. It must still fit [`PACKET_BYTES_MAX`].
pub const BROKER_PACKET_BYTES_MAX: u32 = PACKET_BYTES_MAX - 128 * 1024;

/// How much larger than its MQTT packet a Kafka record may be, by its headers and framing, bytes.
pub const RECORD_OVERHEAD_BYTES: u32 = 128 * 1024;

/// Options of the bridge.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where messages come from.
    pub mqtt: Mqtt,
    /// Where records go.
    pub kafka: Kafka,
    pub limits: Limits,
    /// The registry of devices. Without one the bridge takes reports of every device. With one it
    /// receives nothing before it has read the registry.
    pub registry: Option<registry::Current>,
    /// Address of `/livez`, `/readyz` and `/metrics`. `None` serves none; port 0 takes any free
    /// port.
    pub http: Option<SocketAddr>,
    /// Host names by which that port may be called besides its address.
    pub http_names: Vec<String>,
}

impl Options {
    /// The options of a configuration, without a registry.
    ///
    /// # Errors
    /// The password file of Kafka cannot be read.
    pub fn new(
        mqtt: &settings::Mqtt,
        kafka: &service::kafka::Kafka,
        bridge: &settings::Bridge,
        http_names: Vec<String>,
    ) -> io::Result<Self> {
        Ok(Self {
            mqtt: Mqtt::new(mqtt, bridge),
            kafka: Kafka { brokers: kafka.bootstrap(), properties: kafka.properties()?, ..Kafka::default() },
            limits: Limits::new(bridge),
            registry: None,
            http: Some(bridge.http),
            http_names,
        })
    }
}

/// The MQTT side: [`settings::Mqtt`] and the part of [`settings::Bridge`] that concerns MQTT, with
/// what cannot be configured.
#[derive(Clone, Debug)]
pub struct Mqtt {
    pub host: String,
    pub port: u16,
    /// Base of the client ids `{client_id}-0`, `{client_id}-1`, ... and `{client_id}-receipts`. The
    /// broker closes the older of two connections with one client id.
    pub client_id: String,
    pub connections: u16,
    pub share_group: Option<String>,
    pub username: Option<String>,
    pub password: Option<Password>,
    /// The files are read at each connection, so they can be renewed without a restart.
    pub tls: Option<Tls>,
    /// Longest silence on a connection, from 5 s to 18 h.
    pub keep_alive: Duration,
    pub session_expiry: Duration,
    pub receive_maximum: u16,
    /// Largest MQTT packet, bytes, at least [`PACKET_BYTES_MAX`]. The broker drops larger ones
    /// without a word, so its own limit must not be above this one.
    pub packet_bytes_max: u32,
    pub receipts: bool,
}

impl Mqtt {
    fn new(mqtt: &settings::Mqtt, bridge: &settings::Bridge) -> Self {
        Self {
            host: mqtt.host.clone(),
            port: mqtt.port,
            client_id: bridge.client_id.clone(),
            connections: bridge.connections,
            share_group: bridge.share_group.clone(),
            username: mqtt.username.clone(),
            password: mqtt.password(),
            tls: mqtt.tls.clone(),
            keep_alive: Duration::from_secs(30),
            session_expiry: Duration::from_secs(bridge.session_expiry_s.into()),
            receive_maximum: bridge.receive_maximum,
            packet_bytes_max: PACKET_BYTES_MAX,
            receipts: bridge.receipts,
        }
    }
}

impl Default for Mqtt {
    fn default() -> Self {
        Self::new(&settings::Mqtt::default(), &settings::Bridge::default())
    }
}

/// The Kafka side.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// Bootstrap brokers, `host:port[,host:port]`.
    pub brokers: String,
    /// Further properties of librdkafka, such as `security.protocol`. Properties that a guarantee
    /// depends on are refused.
    pub properties: Properties,
    /// Memory of the producer's own queue, KiB: librdkafka holds a copy of what is in flight.
    pub queue_kbytes: u32,
    pub topics: Topics,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: service::kafka::Kafka::default().bootstrap(),
            properties: Properties::default(),
            queue_kbytes: 128 * 1024,
            topics: Topics::default(),
        }
    }
}

/// Bounds: those of [`settings::Bridge`], and what cannot be configured.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of messages that were received and that Kafka has not confirmed, over all connections.
    /// librdkafka's copy needs as much again.
    pub in_flight_bytes: usize,
    /// Receipts that wait for the broker. At this limit the bridge first reads more slowly, then
    /// leaves receipts out and counts them.
    pub receipts_queued: usize,
    pub unconfirmed_age: Duration,
    /// How long a connection may be down before `/readyz` fails.
    pub disconnected: Duration,
}

impl Limits {
    fn new(bridge: &settings::Bridge) -> Self {
        Self {
            in_flight_bytes: bridge.in_flight_mib as usize * 1024 * 1024,
            receipts_queued: 10_000,
            unconfirmed_age: Duration::from_secs(bridge.unconfirmed_age_max_s.into()),
            disconnected: Duration::from_secs(30),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new(&settings::Bridge::default())
    }
}

/// Properties that a guarantee depends on, or that have an option of their own.
const RESERVED_PROPERTIES: [&str; 10] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "enable.idempotence",
    "acks",
    "request.required.acks",
    "partitioner",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "message.max.bytes",
    "enable.gapless.guarantee",
];

impl Options {
    /// Checks what a configuration cannot set; the configuration has checked the rest.
    ///
    /// # Errors
    /// [`Error::Option`] with the first that is out of range.
    pub fn validate(&self) -> Result<(), Error> {
        let (mqtt, kafka, limits) = (&self.mqtt, &self.kafka, &self.limits);
        let seconds = mqtt.keep_alive.as_secs();
        check((5..=64_800).contains(&seconds), "mqtt.keep_alive", seconds, "5..=64800 seconds")?;
        let bytes = mqtt.packet_bytes_max;
        check((PACKET_BYTES_MAX..=64 << 20).contains(&bytes), "mqtt.packet_bytes_max", bytes, "2097152..=67108864")?;
        for name in kafka.properties.keys() {
            let free = !RESERVED_PROPERTIES.contains(&name.as_str());
            check(free, "kafka.properties", name, "any property that no guarantee depends on; remove it")?;
        }
        check(kafka.queue_kbytes >= 4096, "kafka.queue_kbytes", kafka.queue_kbytes, "at least 4096")?;
        check(limits.receipts_queued > 0, "limits.receipts_queued", limits.receipts_queued, "at least 1")
    }
}

fn check(holds: bool, option: &'static str, value: impl ToString, expected: &'static str) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::Option { option, value: value.to_string(), expected }) }
}

#[cfg(test)]
mod tests {
    use service::secret::Secret;

    use super::*;

    #[test]
    fn defaults_are_valid() {
        Options::default().validate().unwrap();
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        fn refused(change: impl FnOnce(&mut Options)) -> String {
            let mut options = Options::default();
            change(&mut options);
            options.validate().unwrap_err().to_string()
        }
        assert_eq!(
            refused(|options| options.mqtt.keep_alive = Duration::from_secs(2)),
            "invalid option mqtt.keep_alive = 2: 5..=64800 seconds"
        );
        let message = refused(|options| {
            options.kafka.properties.insert("acks".to_owned(), "1".to_owned());
        });
        assert!(message.starts_with("invalid option kafka.properties = acks"), "{message}");
        assert!(refused(|options| options.mqtt.packet_bytes_max = 10_240).contains("packet_bytes_max"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut options = Options::default();
        options.mqtt.password = Some(Password::Value(Secret::new("hunter2")));
        options.kafka.properties.insert("sasl.password".to_owned(), "hunter3".to_owned());
        let shown = format!("{options:?}");
        assert!(!shown.contains("hunter") && shown.contains("sasl.password"), "{shown}");
    }
}
