//! The options of each role, and the warehouse, from a configuration. The password of
//! Kafka is read from its file here.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use dashboard::access::Auth;
use service::{role_faults::RoleFaults, secret::Secret};

use crate::config::{Config, ServeAuth};

/// Options of the bridge.
///
/// # Errors
/// A password file cannot be read.
pub fn bridge(config: &Config) -> anyhow::Result<bridge::Options> {
    Ok(bridge::Options::new(&config.mqtt, &config.kafka, &config.bridge, config.http.names.clone())?)
}

/// Options of the loader.
///
/// # Errors
/// A password file that cannot be read.
pub fn load(config: &Config) -> anyhow::Result<load::Options> {
    let (names, device_time) = (config.http.names.clone(), config.device_time);
    Ok(load::Options::new(&config.kafka, &config.load, &config.plausibility, device_time, names)?)
}

/// Options of the monitor.
///
/// # Errors
/// A password file that cannot be read.
pub fn monitor(config: &Config) -> anyhow::Result<monitor::Options> {
    Ok(monitor::Options::new(&config.kafka, &config.monitor, config.device_time, config.http.names.clone())?)
}

/// Options of the dashboard. `up` chooses the address itself.
pub fn dashboard(
    config: &Config,
    listen: SocketAddr,
    faults: RoleFaults,
    writer: dashboard::write::Writer,
) -> dashboard::Options {
    let section = &config.serve;
    let auth = match (section.auth, &section.tokens_file) {
        // A configuration without the file, or without a provider, is refused before this.
        (ServeAuth::Tokens, file) => Auth::Tokens(file.clone().unwrap_or_default()),
        (ServeAuth::Oidc, tokens) => {
            Auth::Oidc { settings: Box::new(section.oidc.clone().unwrap_or_default()), tokens: tokens.clone() }
        }
        (ServeAuth::None, _) => Auth::None,
    };
    let (names, tls, requests_per_min) = (config.http.names.clone(), section.tls.clone(), section.requests_per_min);
    dashboard::Options {
        listen,
        names,
        auth,
        tls,
        behind_proxy: section.behind_proxy,
        requests_per_min,
        faults,
        writer,
    }
}

/// The loader's connection to Kafka, also for commands that read its topics.
///
/// # Errors
/// A password file that cannot be read.
pub fn load_kafka(config: &Config) -> anyhow::Result<load::Kafka> {
    Ok(load::Kafka::new(&config.kafka, &config.load)?)
}

/// The warehouse of the configuration. Nothing is sent yet.
///
/// # Errors
/// A password file cannot be read, or the URL is not valid.
pub fn warehouse(config: &Config) -> anyhow::Result<warehouse::Warehouse> {
    let section = &config.clickhouse;
    let password = section.password().map(|password| password.read()).transpose();
    let options = warehouse::Options {
        url: section.url.clone(),
        user: section.username.clone(),
        password: password.context("read clickhouse.password_file")?.unwrap_or_else(|| Secret::new("")),
        password_file: section.password_file.clone(),
        ..warehouse::Options::default()
    };
    Ok(warehouse::Warehouse::new(options)?)
}

/// The warehouse for queries over whole days, which take a while.
///
/// # Errors
/// As [`warehouse()`].
pub fn warehouse_with_long_timeout(config: &Config) -> anyhow::Result<warehouse::Warehouse> {
    let options = warehouse(config)?.options().clone();
    Ok(warehouse::Warehouse::new(warehouse::Options { receive_timeout: LONG_QUERY, ..options })?)
}

/// Longest wait for the answer to a query over whole days.
const LONG_QUERY: Duration = Duration::from_secs(4 * 3_600);

/// The form of the topics.
pub fn topics(config: &Config) -> load::TopicSpec {
    let section = &config.kafka;
    load::TopicSpec {
        partitions: section.partitions,
        replication: section.replication,
        min_insync_replicas: section.min_insync_replicas,
        retention: Duration::from_secs(u64::from(section.retention_days) * 86_400),
    }
}
