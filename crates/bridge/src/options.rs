//! What the bridge is told.

use std::{collections::BTreeMap, fmt, io, net::SocketAddr, path::PathBuf, time::Duration};

use telemetry::kafka::{QUARANTINE_TOPIC, REPORTS_TOPIC, STATUS_TOPIC};

use crate::Error;

/// Largest MQTT packet the bridge takes unless told otherwise, bytes. A report of 1 MiB of JSON
/// fits with room: what is too large for the contract must still arrive, or it could not be put
/// into quarantine.
pub const PACKET_BYTES_MAX: u32 = 2 * 1024 * 1024;

/// Largest MQTT packet a broker should take, bytes: what it forwards is larger than what it took by
/// a topic that the publisher gave as an alias (64 KiB at most) and by a few bytes of MQTT 5
/// properties, and must still fit [`PACKET_BYTES_MAX`].
pub const BROKER_PACKET_BYTES_MAX: u32 = PACKET_BYTES_MAX - 128 * 1024;

/// What a Kafka record may need beyond the MQTT packet it was made from: headers and framing,
/// bytes.
pub const RECORD_OVERHEAD_BYTES: u32 = 128 * 1024;

/// Options of the bridge.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where messages come from.
    pub mqtt: Mqtt,
    /// Where they go.
    pub kafka: Kafka,
    pub limits: Limits,
    /// The registry; without one, reports of every device are taken. With one, nothing is received
    /// before it was read.
    pub registry: Option<crate::registry::Current>,
    /// Where `/livez`, `/readyz` and `/metrics` are served; `None` serves none, port 0 takes any
    /// free port.
    pub http: Option<SocketAddr>,
    /// Names by which that port may be called besides its address.
    pub http_names: Vec<String>,
}

/// The MQTT side.
#[derive(Clone, Debug)]
pub struct Mqtt {
    /// Host name or address of the broker.
    pub host: String,
    pub port: u16,
    /// Base of the client ids `{client_id}-0`, `{client_id}-1`, ... and `{client_id}-receipts`.
    /// Must be stable over restarts (the session hangs on it) and differ between bridges (the
    /// broker closes the older of two equal ones).
    pub client_id: String,
    /// Connections that receive, 1..=64. Several need a [`Mqtt::share_group`]; they hold more
    /// unacknowledged messages.
    pub connections: u16,
    /// Group of a shared subscription, over whose members the broker spreads messages: the same for
    /// all bridges of one Kafka cluster. Without one the subscription is a plain one, which a
    /// broker keeps over a restart; Mosquitto 2.0 forgets shared ones.
    pub share_group: Option<String>,
    /// User name, if the broker wants one.
    pub username: Option<String>,
    /// Password, if the broker wants one.
    pub password: Option<Secret>,
    /// TLS; plain TCP without.
    pub tls: Option<Tls>,
    /// Longest silence on a connection, 5 s..=18 h.
    pub keep_alive: Duration,
    /// How long the broker keeps the session, with what was not acknowledged, while the bridge is
    /// away.
    pub session_expiry: Duration,
    /// Most unacknowledged messages on one connection, from 1. The broker stops sending at this
    /// number.
    pub receive_maximum: u16,
    /// Largest MQTT packet, bytes, from [`PACKET_BYTES_MAX`]. The broker drops larger ones
    /// silently, so its own limit must not be above this one.
    pub packet_bytes_max: u32,
    /// Whether devices get receipts. Off only where another bridge sends them.
    pub receipts: bool,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 1883,
            client_id: "doseline-bridge".to_owned(),
            connections: 1,
            share_group: None,
            username: None,
            password: None,
            tls: None,
            keep_alive: Duration::from_secs(30),
            session_expiry: Duration::from_secs(3600),
            receive_maximum: 4000,
            packet_bytes_max: PACKET_BYTES_MAX,
            receipts: true,
        }
    }
}

/// TLS of the MQTT connections. The files are read again at each connect, so they can be renewed
/// without a restart.
#[derive(Clone, Debug)]
pub struct Tls {
    /// PEM file of the authority that signed the broker's certificate; the system's authorities
    /// without.
    pub ca: Option<PathBuf>,
    /// PEM files of certificate chain and PKCS#8 key that the bridge shows.
    pub identity: Option<Identity>,
}

/// What the bridge shows to the broker.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Certificate chain, PEM, the bridge's own certificate first.
    pub cert: PathBuf,
    /// Its private key, PKCS#8 PEM.
    pub key: PathBuf,
}

/// A secret, or the file it stands in; a file is read again at each use.
#[derive(Clone)]
pub enum Secret {
    /// The secret itself.
    Value(String),
    /// A file with the secret; one line break at its end is not part of it.
    File(PathBuf),
}

impl Secret {
    /// The secret.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> io::Result<String> {
        match self {
            Self::Value(value) => Ok(value.clone()),
            Self::File(path) => {
                let text = std::fs::read_to_string(path)?;
                Ok(text
                    .strip_suffix('\n')
                    .map_or(text.as_str(), |line| line.strip_suffix('\r').unwrap_or(line))
                    .to_owned())
            }
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Secret(redacted)"),
            Self::File(path) => write!(f, "Secret(from {})", path.display()),
        }
    }
}

/// The Kafka side.
#[derive(Clone)]
pub struct Kafka {
    /// Bootstrap brokers, `host:port[,host:port]`.
    pub brokers: String,
    /// Further librdkafka properties (`security.protocol`, `sasl.password`, `compression.codec`,
    /// ...). Those that a guarantee hangs on cannot be set.
    pub properties: BTreeMap<String, String>,
    /// Memory of the producer's own queue, KiB; librdkafka holds a copy of what is in flight.
    pub queue_kbytes: u32,
    /// Names of the topics.
    pub topics: Topics,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: "localhost:9092".to_owned(),
            properties: BTreeMap::new(),
            queue_kbytes: 128 * 1024,
            topics: Topics::default(),
        }
    }
}

impl fmt::Debug for Kafka {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kafka")
            .field("brokers", &self.brokers)
            .field("properties (values redacted)", &self.properties.keys().collect::<Vec<_>>())
            .field("queue_kbytes", &self.queue_kbytes)
            .field("topics", &self.topics)
            .finish()
    }
}

/// Names of the Kafka topics.
#[derive(Clone, Debug)]
pub struct Topics {
    pub reports: String,
    pub status: String,
    /// What could not be used.
    pub quarantine: String,
}

impl Default for Topics {
    fn default() -> Self {
        Self {
            reports: REPORTS_TOPIC.to_owned(),
            status: STATUS_TOPIC.to_owned(),
            quarantine: QUARANTINE_TOPIC.to_owned(),
        }
    }
}

/// Bounds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Messages received and not confirmed by Kafka, bytes over all connections; at the limit MQTT
    /// is not read. Once more is held by librdkafka's copy.
    pub in_flight_bytes: usize,
    /// Receipts that wait for the broker; at the limit MQTT is read slowly, then receipts are left
    /// out and counted.
    pub receipts_queued: usize,
    /// `/readyz` fails when a message has waited longer than this for Kafka.
    pub unconfirmed_age: Duration,
    /// `/readyz` fails when a connection has been down longer than this.
    pub disconnected: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            in_flight_bytes: 64 * 1024 * 1024,
            receipts_queued: 10_000,
            unconfirmed_age: Duration::from_secs(30),
            disconnected: Duration::from_secs(30),
        }
    }
}

/// Properties a guarantee hangs on, or that have an option of their own.
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
    /// Checks every option.
    ///
    /// # Errors
    /// [`Error::Option`] with the first that is out of range.
    pub fn validate(&self) -> Result<(), Error> {
        let (mqtt, kafka, limits) = (&self.mqtt, &self.kafka, &self.limits);
        check(!mqtt.host.is_empty(), "mqtt.host", &mqtt.host, "a host name")?;
        check(mqtt.port != 0, "mqtt.port", mqtt.port, "1..=65535")?;
        check(!mqtt.client_id.is_empty(), "mqtt.client_id", &mqtt.client_id, "at least one character")?;
        check((1..=64).contains(&mqtt.connections), "mqtt.connections", mqtt.connections, "1..=64")?;
        let group = mqtt.share_group.as_deref();
        let fits = group.is_none_or(|group| !group.is_empty() && !group.contains(['/', '+', '#']));
        check(fits, "mqtt.share_group", group.unwrap_or_default(), "at least one character, and none of / + #")?;
        let several = mqtt.connections > 1 && group.is_none();
        check(
            !several,
            "mqtt.connections",
            mqtt.connections,
            "1, or a share_group over whose connections messages are spread",
        )?;
        let seconds = mqtt.keep_alive.as_secs();
        check((5..=64_800).contains(&seconds), "mqtt.keep_alive", seconds, "5..=64800 seconds")?;
        let seconds = mqtt.session_expiry.as_secs();
        check(u32::try_from(seconds).is_ok(), "mqtt.session_expiry", seconds, "at most 4294967295 seconds")?;
        check(mqtt.receive_maximum > 0, "mqtt.receive_maximum", mqtt.receive_maximum, "1..=65535")?;
        let bytes = mqtt.packet_bytes_max;
        check((PACKET_BYTES_MAX..=64 << 20).contains(&bytes), "mqtt.packet_bytes_max", bytes, "2097152..=67108864")?;
        check(!kafka.brokers.is_empty(), "kafka.brokers", &kafka.brokers, "host:port[,host:port]")?;
        for name in kafka.properties.keys() {
            let free = !RESERVED_PROPERTIES.contains(&name.as_str());
            check(free, "kafka.properties", name, "any property but those the guarantees hang on; remove it")?;
        }
        check(kafka.queue_kbytes >= 4096, "kafka.queue_kbytes", kafka.queue_kbytes, "at least 4096")?;
        check(limits.in_flight_bytes >= 4 << 20, "limits.in_flight_bytes", limits.in_flight_bytes, "at least 4194304")?;
        check(limits.receipts_queued > 0, "limits.receipts_queued", limits.receipts_queued, "at least 1")
    }
}

fn check(holds: bool, option: &'static str, value: impl ToString, expected: &'static str) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::Option { option, value: value.to_string(), expected }) }
}

#[cfg(test)]
mod tests {
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
        assert!(refused(|options| options.mqtt.share_group = Some("a/b".to_owned())).contains("share_group"));
        assert!(refused(|options| options.mqtt.connections = 2).contains("share_group"));
        assert!(refused(|options| options.mqtt.packet_bytes_max = 10_240).contains("packet_bytes_max"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let mut options = Options::default();
        options.mqtt.password = Some(Secret::Value("hunter2".to_owned()));
        options.kafka.properties.insert("sasl.password".to_owned(), "hunter3".to_owned());
        let shown = format!("{options:?}");
        assert!(!shown.contains("hunter") && shown.contains("sasl.password"), "{shown}");
    }

    #[test]
    fn a_secret_file_is_read_without_its_line_break() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "pass word \r\n").unwrap();
        assert_eq!(Secret::File(file.path().to_owned()).read().unwrap(), "pass word ");
    }
}
