//! Section `[kafka]`, and the connection of every role to Kafka.

use std::{
    collections::BTreeMap,
    fmt, io,
    ops::{Deref, DerefMut},
    path::PathBuf,
};

use rdkafka::ClientConfig;

use crate::{
    secret::{Password, Secret},
    settings,
    settings::Text,
    tls::Tls,
};

settings! {
    /// Section `[kafka]`.
    pub struct Kafka {
        /// Address of at least one broker
        brokers: Vec<String> = vec!["localhost:9092".to_owned()], in HOST_PORT;
        /// Partitions of each topic; fixed once `migrate` has created the topics. More partitions
        /// let more loaders work side by side
        partitions: u32 = 12, in 1..=10_000;
        /// Copies of each partition; 3 survives the loss of a broker
        replication: u32 = 3, in 1..;
        /// Copies that must confirm a record before a device gets its receipt. At most
        /// `kafka.replication`
        min_insync_replicas: u32 = 2, in 1..;
        /// How long Kafka keeps records, days. Kafka has the only copy until the loader has written
        /// it
        retention_days: u32 = 7, in 7..;
        /// TLS: see [TLS](#tls). Without it the connection is plain TCP
        tls: Option<Tls> = None;
        /// SASL: see [SASL](#sasl). Without it the client does not authenticate
        sasl: Option<Sasl> = None;
    }
}

settings! {
    /// Section `[kafka.sasl]`.
    pub struct Sasl {
        /// SASL mechanism
        mechanism: String, in MECHANISM;
        /// User name
        username: String;
        /// Password; better given in `password_file` or in `DOSELINE__KAFKA__SASL__PASSWORD`
        password: Option<Secret>;
        /// File whose first line is the password
        password_file: Option<PathBuf>;
    }
}

const HOST_PORT: Text = Text {
    must: "be host:port",
    holds: |text| {
        let port = text.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>()));
        matches!(port, Some(Ok(1..)))
    },
};
const MECHANISM: Text = Text {
    must: "be one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512",
    holds: |text| ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"].contains(&text),
};

impl Kafka {
    /// What contradicts another key of the section, as (key, what is wrong).
    pub fn conflicts(&self) -> Vec<(String, String)> {
        let mut conflicts = Vec::new();
        if self.brokers.is_empty() {
            conflicts.push(("brokers".to_owned(), "[] must name at least one host:port".to_owned()));
        }
        if self.min_insync_replicas > self.replication.max(1) {
            let (least, most) = (self.min_insync_replicas, self.replication);
            conflicts
                .push(("min_insync_replicas".to_owned(), format!("{least} must be 1..kafka.replication ({most})")));
        }
        conflicts
    }

    /// All brokers, as librdkafka wants them.
    pub fn bootstrap(&self) -> String {
        self.brokers.join(",")
    }

    /// Security properties of every client, in librdkafka's names. Reads the password file.
    ///
    /// # Errors
    /// The password file cannot be read, or SASL has no password.
    pub fn properties(&self) -> io::Result<Properties> {
        let mut properties = Properties::default();
        let mut set = |name: &str, value: String| properties.insert(name.to_owned(), value);
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => return Ok(properties),
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        set("security.protocol", protocol.to_owned());
        if let Some(tls) = &self.tls {
            set("ssl.ca.location", tls.ca.display().to_string());
            if let Some((certificate, key)) = tls.identity() {
                set("ssl.certificate.location", certificate.display().to_string());
                set("ssl.key.location", key.display().to_string());
            }
        }
        if let Some(sasl) = &self.sasl {
            let password = Password::of(sasl.password.as_ref(), sasl.password_file.as_deref());
            let password = password.ok_or_else(|| io::Error::other("kafka.sasl needs password or password_file"))?;
            let password =
                password.read().map_err(|error| io::Error::other(format!("read kafka.sasl.password_file: {error}")))?;
            set("sasl.mechanism", sasl.mechanism.clone());
            set("sasl.username", sasl.username.clone());
            set("sasl.password", password.reveal().to_owned());
        }
        Ok(properties)
    }
}

/// Properties of librdkafka. `Debug` shows their names only, since a password may be among them.
#[derive(Clone, Default)]
pub struct Properties(BTreeMap<String, String>);

impl Properties {
    /// The configuration of a client: `defaults`, then these properties, then the brokers. What the
    /// caller sets afterwards cannot be changed by a property.
    pub fn client(&self, brokers: &str, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        // librdkafka's own log says so for each connection that a broker closes because it is idle.
        config.set("log.connection.close", "false").set("reconnect.backoff.max.ms", "2000");
        for (name, value) in defaults {
            config.set(*name, *value);
        }
        for (name, value) in &self.0 {
            config.set(name, value);
        }
        config.set("bootstrap.servers", brokers);
        config
    }
}

impl Deref for Properties {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Properties {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_come_from_tls_and_sasl_and_are_not_shown() {
        let tls = Tls { ca: "/ca.pem".into(), certificate: None, key: Some("/key.pem".into()) };
        let sasl = Sasl {
            mechanism: "PLAIN".to_owned(),
            username: "u".to_owned(),
            password: Some(Secret::new("hunter2")),
            password_file: None,
        };
        assert_eq!(tls.conflicts(), [("key".to_owned(), "needs certificate beside it".to_owned())]);
        let kafka = Kafka { tls: Some(tls), sasl: Some(sasl), ..Kafka::default() };
        let properties = kafka.properties().unwrap();
        assert_eq!(properties["security.protocol"], "sasl_ssl");
        assert_eq!(properties["sasl.password"], "hunter2");
        assert!(!properties.contains_key("ssl.key.location"));
        let shown = format!("{properties:?} {kafka:?}");
        assert!(!shown.contains("hunter2") && shown.contains("sasl.password"), "{shown}");
        let config = properties.client("host:9092", &[("linger.ms", "5"), ("security.protocol", "plaintext")]);
        for (name, value) in [("bootstrap.servers", "host:9092"), ("linger.ms", "5"), ("security.protocol", "sasl_ssl")]
        {
            assert_eq!(config.get(name), Some(value), "{name}");
        }
        assert!(Kafka::default().properties().unwrap().is_empty());
    }
}
