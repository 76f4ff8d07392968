//! From configuration to what each role takes. Passwords of Kafka and ClickHouse are read from
//! their files here.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, anyhow};

use crate::config::{self, Config, Tls};

/// Options of the bridge.
///
/// # Errors
/// A password file that cannot be read.
pub fn bridge(config: &Config) -> anyhow::Result<bridge::Options> {
    let (mqtt, section) = (&config.mqtt, &config.bridge);
    Ok(bridge::Options {
        mqtt: bridge::Mqtt {
            host: mqtt.host.clone(),
            port: mqtt.port,
            client_id: section.client_id.clone(),
            connections: section.connections,
            share_group: section.share_group.clone(),
            username: mqtt.username.clone(),
            password: match (&mqtt.password_file, &mqtt.password) {
                (Some(path), _) => Some(bridge::Secret::File(path.clone())),
                (None, Some(password)) => Some(bridge::Secret::Value(password.reveal().to_owned())),
                (None, None) => None,
            },
            tls: mqtt.tls.as_ref().map(bridge_tls),
            session_expiry: Duration::from_secs(section.session_expiry_s.into()),
            receive_maximum: section.receive_maximum,
            receipts: section.receipts,
            ..bridge::Mqtt::default()
        },
        kafka: bridge::Kafka {
            brokers: config.kafka.brokers.join(","),
            properties: kafka_properties(config)?,
            ..bridge::Kafka::default()
        },
        limits: bridge::Limits {
            in_flight_bytes: section.in_flight_mib as usize * 1024 * 1024,
            unconfirmed_age: Duration::from_secs(section.unconfirmed_age_max_s.into()),
            ..bridge::Limits::default()
        },
        registry: None,
        http: Some(section.http),
        http_names: config.http.names.clone(),
    })
}

fn bridge_tls(tls: &Tls) -> bridge::Tls {
    bridge::Tls {
        ca: Some(tls.ca.clone()),
        identity: tls.certificate.clone().zip(tls.key.clone()).map(|(cert, key)| bridge::Identity { cert, key }),
    }
}

/// Security properties of every Kafka client, in librdkafka's names.
///
/// # Errors
/// A password file that cannot be read.
pub fn kafka_properties(config: &Config) -> anyhow::Result<BTreeMap<String, String>> {
    let mut properties = BTreeMap::new();
    let mut set = |name: &str, value: String| properties.insert(name.to_owned(), value);
    let (tls, sasl) = (&config.kafka.tls, &config.kafka.sasl);
    let protocol = match (tls, sasl) {
        (None, None) => return Ok(properties),
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    set("security.protocol", protocol.to_owned());
    if let Some(tls) = tls {
        set("ssl.ca.location", tls.ca.display().to_string());
        if let Some((certificate, key)) = tls.certificate.as_ref().zip(tls.key.as_ref()) {
            set("ssl.certificate.location", certificate.display().to_string());
            set("ssl.key.location", key.display().to_string());
        }
    }
    if let Some(sasl) = sasl {
        let password = config::secret(sasl.password.as_ref(), sasl.password_file.as_deref())
            .map_err(|error| anyhow!("read kafka.sasl.password_file: {error}"))?
            .context("kafka.sasl needs password or password_file")?;
        set("sasl.mechanism", sasl.mechanism.clone());
        set("sasl.username", sasl.username.clone());
        set("sasl.password", password.reveal().to_owned());
    }
    Ok(properties)
}

/// The warehouse; nothing is sent yet.
///
/// # Errors
/// A password file that cannot be read, or a URL that cannot be used.
pub fn warehouse(config: &Config) -> anyhow::Result<warehouse::Warehouse> {
    let section = &config.clickhouse;
    let password = config::secret(section.password.as_ref(), section.password_file.as_deref())
        .map_err(|error| anyhow!("read clickhouse.password_file: {error}"))?;
    let options = warehouse::Options {
        url: section.url.clone(),
        user: section.username.clone(),
        password: warehouse::Secret::new(password.as_ref().map(config::Secret::reveal).unwrap_or_default()),
        ..warehouse::Options::default()
    };
    Ok(warehouse::Warehouse::new(options)?)
}

/// The same for questions over whole days, which take a while.
///
/// # Errors
/// As [`warehouse()`].
pub fn patient_warehouse(config: &Config) -> anyhow::Result<warehouse::Warehouse> {
    let options = warehouse(config)?.options().clone();
    Ok(warehouse::Warehouse::new(warehouse::Options { receive_timeout: LONG_QUERY, ..options })?)
}

/// Longest wait for the answer to a question over whole days.
const LONG_QUERY: Duration = Duration::from_secs(4 * 3_600);

/// Options of the loader.
///
/// # Errors
/// A password file that cannot be read.
pub fn load(config: &Config) -> anyhow::Result<load::Options> {
    let section = &config.load;
    Ok(load::Options {
        kafka: load_kafka(config)?,
        limits: load::Limits {
            rows_max: section.batch_rows_max as usize,
            bytes_max: section.batch_mib_max as usize * 1024 * 1024,
            memory_max: section.memory_mib_max as usize * 1024 * 1024,
            loss_shown: Duration::from_secs(section.loss_shown_s.into()),
            age_max: Duration::from_millis(section.batch_age_ms.into()),
            batches_max: section.batches_max as usize,
            ledger_cache_boots: section.ledgers_max as usize,
            unwritten_age_max: Duration::from_secs(section.unwritten_age_max_s.into()),
            unreadable_after: Duration::from_secs(section.unreadable_after_s.into()),
            ..load::Limits::default()
        },
        plausibility: config.plausibility.clone(),
        device_time: config.device_time,
        http: Some(section.http),
        http_names: config.http.names.clone(),
        ..load::Options::default()
    })
}

/// Options of the monitor.
///
/// # Errors
/// A password file that cannot be read.
pub fn monitor(config: &Config) -> anyhow::Result<monitor::Options> {
    let section = &config.monitor;
    let mut kafka = kafka_properties(config)?;
    kafka.insert("bootstrap.servers".to_owned(), config.kafka.brokers.join(","));
    Ok(monitor::Options {
        interval: Duration::from_millis(section.interval_ms.into()),
        late: Duration::from_secs(section.late_s.into()),
        limits: monitor::limits::Limits {
            coverage: section.coverage,
            sessions_min: section.sessions_min,
            false_alarms: section.false_alarms_per_device_year,
            sessions_per_day: section.sessions_per_day,
            bands: section.bands,
            forecast_days: section.forecast_days,
            mass_balance_pct: section.mass_balance_pct,
            fleet: warehouse::devices::FleetLimits {
                silent_days: section.silent_days,
                battery_pct: section.battery_pct,
            },
            ahead_max_s: config.device_time.ahead_max_s,
            age_max_days: config.device_time.age_max_days,
        },
        stalled_after: Duration::from_secs(section.stalled_s.into()),
        http: Some(section.http),
        http_names: config.http.names.clone(),
        notification: monitor::alerts::notification::Options {
            webhook: section.webhook.clone(),
            repeat: Duration::from_secs(section.webhook_repeat_s.into()),
            kafka: section.kafka.then_some(kafka),
            ..monitor::alerts::notification::Options::default()
        },
    })
}

/// How to reach Kafka, for the loader and for the topics it reads.
///
/// # Errors
/// A password file that cannot be read.
pub fn load_kafka(config: &Config) -> anyhow::Result<load::Kafka> {
    Ok(load::Kafka {
        brokers: config.kafka.brokers.join(","),
        group: config.load.group.clone(),
        properties: kafka_properties(config)?,
        session_timeout: Duration::from_secs(config.load.session_timeout_s.into()),
        ..load::Kafka::default()
    })
}

/// What the topics must be like.
pub fn topics(config: &Config) -> load::TopicSpec {
    let section = &config.kafka;
    load::TopicSpec {
        partitions: section.partitions,
        replication: section.replication,
        min_insync_replicas: section.min_insync_replicas,
        retention: Duration::from_secs(u64::from(section.retention_days) * 86_400),
    }
}
