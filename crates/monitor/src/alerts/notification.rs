//! Sends open alerts to Kafka and to a webhook in the format of Alertmanager's API v2.
//!
//! An alert is sent as firing while it is open and not acknowledged (`open_alerts`). It is sent as
//! resolved once it is cleared or acknowledged. ClickHouse records what each target has confirmed,
//! so delivery continues after a restart. Delivery is at least once. Each alert has one stable set
//! of labels, so a target never holds two copies of it. Alertmanager forgets an alert that is not
//! repeated; firing alerts are therefore repeated.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use axum::http::{Request, Uri, header};
use hyper_tls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use service::{
    backoff::Backoff,
    kafka::Properties,
    producer::{ConfirmingProducer, Outgoing},
};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use warehouse::{
    Warehouse,
    notices::{Delivery, Waiting},
    states::DeliveryStatus,
};

use crate::{
    settings, status,
    time::{now_us, stamp},
};

/// Topic of alerts.
pub const TOPIC: &str = "doseline.alerts.v1";
/// Alertmanager resolves an alert that was not repeated during this many repetition intervals.
const REPETITIONS: i64 = 4;
/// Longest wait for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Notices in one request.
const NOTIFICATIONS_MAX: usize = 500;
/// Pauses after failures.
const BACKOFF: Backoff = Backoff::exact(Duration::from_millis(500), Duration::from_secs(60));

/// Where alerts are sent.
#[derive(Clone, Debug)]
pub struct Options {
    /// Alertmanager's `http://HOST:9093/api/v2/alerts`; none = no webhook.
    pub webhook: Option<String>,
    /// Time between two repetitions of a firing alert to the webhook. With a longer time,
    /// Alertmanager keeps alerts longer after the monitor has stopped.
    pub repeat: Duration,
    /// The Kafka that gets alerts; none = no Kafka.
    pub kafka: Option<Kafka>,
    /// Longest time between two looks at the open alerts; there is one after each pass.
    pub interval: Duration,
}

/// A Kafka cluster.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// `HOST:PORT` of its brokers, separated by commas.
    pub brokers: String,
    /// Properties of librdkafka.
    pub properties: Properties,
}

impl Default for Options {
    fn default() -> Self {
        let repeat = Duration::from_secs(settings::Monitor::default().webhook_repeat_s.into());
        Self { webhook: None, repeat, kafka: None, interval: Duration::from_secs(30) }
    }
}

/// Why an alert cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The webhook has no valid address.
    #[error("webhook {url:?} is not an address: {source}; give one like http://alertmanager:9093/api/v2/alerts")]
    Url {
        url: String,
        /// What is wrong with it.
        source: axum::http::uri::InvalidUri,
    },
    /// librdkafka rejects the properties.
    #[error("kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// The target did not accept the notifications.
    #[error(
        "{target} did not accept the alerts: {reason}; check that it runs and can be reached (monitor.webhook, kafka.brokers)"
    )]
    Refused { target: &'static str, reason: String },
    #[error(transparent)]
    Warehouse(#[from] warehouse::Error),
}

/// One message to a target about one alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The row that records it.
    pub delivery: Delivery,
    /// The alert; none = it is no longer open.
    pub alert: Option<Waiting>,
    /// Whether it says something new. Only such notifications are recorded, repetitions are not.
    pub is_change: bool,
}

/// Stable id of an alert for other systems.
pub fn fingerprint(tenant: &str, alert_key: &str) -> String {
    let digest = Sha256::digest(format!("{tenant}\n{alert_key}"));
    format!("{digest:.32x}")
}

/// The notifications that a target must get. `open` are the alerts that are open now, `confirmed`
/// those that the target last confirmed as firing. `repeats`: also send what it has confirmed.
pub fn plan(target: &str, open: &[Waiting], confirmed: &[Delivery], repeats: bool, now_us: i64) -> Vec<Notification> {
    let mut confirmed: HashMap<(&str, &str), &Delivery> =
        confirmed.iter().map(|sent| ((sent.tenant.as_str(), sent.alert_key.as_str()), sent)).collect();
    let resolved = |sent: &Delivery| Notification {
        delivery: Delivery { status: DeliveryStatus::Resolved, delivered_at: now_us, ..sent.clone() },
        alert: None,
        is_change: true,
    };
    let mut notifications = Vec::new();
    for alert in open {
        let before = confirmed.remove(&(alert.tenant.as_str(), alert.alert_key.as_str()));
        // Severity and kind are labels. With other labels the target would hold a second alert, so
        // the earlier one is resolved first.
        if let Some(before) = before.filter(|before| before.severity != alert.severity || before.kind != alert.kind) {
            notifications.push(resolved(before));
        }
        let is_change = before.is_none_or(|before| {
            (before.severity, &before.kind, before.attention) != (alert.severity, &alert.kind, alert.attention)
        });
        if is_change || repeats {
            let delivery = Delivery {
                target: target.to_owned(),
                tenant: alert.tenant.clone(),
                alert_key: alert.alert_key.clone(),
                delivered_at: now_us,
                status: DeliveryStatus::Firing,
                severity: alert.severity,
                kind: alert.kind.clone(),
                attention: alert.attention,
                fingerprint: fingerprint(&alert.tenant, &alert.alert_key),
                raised_at: alert.raised_at,
            };
            notifications.push(Notification { delivery, alert: Some(alert.clone()), is_change });
        }
    }
    let mut gone: Vec<_> = confirmed.into_values().collect();
    gone.sort_unstable_by_key(|sent| (&sent.tenant, &sent.alert_key));
    notifications.extend(gone.into_iter().map(resolved));
    notifications
}

/// A notification in the format of Alertmanager's API v2. A firing alert ends by itself unless it
/// is repeated.
pub fn alertmanager(notification: &Notification, repeat: Duration, now_us: i64) -> Value {
    let Delivery { tenant, alert_key, severity, kind, fingerprint, status, raised_at, .. } = &notification.delivery;
    let lasts_us = i64::try_from(repeat.as_micros()).unwrap_or(i64::MAX).saturating_mul(REPETITIONS);
    let ends = if *status == DeliveryStatus::Firing { now_us.saturating_add(lasts_us) } else { now_us };
    let annotations = notification.alert.as_ref().map_or_else(|| json!({}), annotations);
    json!({
        "labels": {"alertname": kind, "tenant": tenant, "alert_key": alert_key, "severity": severity, "fingerprint": fingerprint},
        "annotations": annotations,
        "startsAt": stamp(*raised_at),
        "endsAt": stamp(ends),
    })
}

fn annotations(alert: &Waiting) -> Value {
    json!({
        "summary": alert.title,
        "site": alert.site,
        "device": alert.device,
        "sessions": alert.sessions.to_string(),
        "holds": alert.holds.to_string(),
        "evidence_query": alert.evidence_query,
    })
}

/// A notification as a record of [`TOPIC`].
pub fn record(notification: &Notification) -> Value {
    let Delivery { tenant, alert_key, severity, kind, fingerprint, status, raised_at, attention, delivered_at, .. } =
        &notification.delivery;
    let annotations = notification.alert.as_ref().map_or_else(|| json!({}), annotations);
    json!({
        "status": status, "tenant": tenant, "alert_key": alert_key, "severity": severity, "kind": kind,
        "fingerprint": fingerprint, "attention": attention, "raised_at": stamp(*raised_at), "at": stamp(*delivered_at),
        "annotations": annotations,
    })
}

enum Channel {
    Webhook { client: Box<Client<HttpsConnector<HttpConnector>, String>>, uri: Uri, repeat: Duration },
    Kafka(ConfirmingProducer),
}

impl Channel {
    fn name(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Kafka(_) => "kafka",
        }
    }

    async fn send(&self, notifications: &[Notification], now_us: i64) -> Result<(), Error> {
        let refused = |reason: String| Error::Refused { target: self.name(), reason };
        match self {
            Self::Webhook { client, uri, repeat } => {
                let body: Vec<_> =
                    notifications.iter().map(|notification| alertmanager(notification, *repeat, now_us)).collect();
                let request = Request::post(uri.clone())
                    .header(header::CONTENT_TYPE, "application/json")
                    .body(Value::from(body).to_string())
                    .map_err(|error| refused(error.to_string()))?;
                let answer = tokio::time::timeout(ANSWER_WITHIN, client.request(request)).await;
                let answer = answer.map_err(|_| refused(format!("no answer within {ANSWER_WITHIN:?}")))?;
                let status = answer.map_err(|error| refused(error.to_string()))?.status();
                if status.is_success() { Ok(()) } else { Err(refused(format!("it answered {status}"))) }
            }
            Self::Kafka(producer) => {
                let mut pending = Vec::new();
                for notification in notifications {
                    let key = format!("{}/{}", notification.delivery.tenant, notification.delivery.alert_key);
                    let payload = record(notification).to_string();
                    let outgoing =
                        Outgoing { topic: TOPIC, key: Some(key.as_bytes()), payload: payload.as_bytes(), headers: &[] };
                    pending.push(producer.enqueue(outgoing).await.map_err(|error| refused(error.to_string()))?);
                }
                for record in pending {
                    record.confirmed().await.map_err(|error| refused(error.to_string()))?;
                }
                Ok(())
            }
        }
    }
}

/// Sends alerts to every target.
pub struct Notifier {
    warehouse: Warehouse,
    interval: Duration,
    targets: Vec<Target>,
}

/// One target, when it was last repeated to, and the pause after its next failure.
struct Target {
    channel: Channel,
    repeated: Option<Instant>,
    backoff: Backoff,
}

impl Notifier {
    /// Prepares the targets and sends nothing yet.
    ///
    /// # Errors
    /// [`Error::Url`], [`Error::Kafka`].
    pub fn new(options: Options, warehouse: Warehouse) -> Result<Self, Error> {
        let mut targets = Vec::new();
        let mut target = |channel| targets.push(Target { channel, repeated: None, backoff: BACKOFF });
        if let Some(url) = options.webhook {
            let uri = url.parse().map_err(|source| Error::Url { url, source })?;
            let client = Box::new(Client::builder(TokioExecutor::new()).build(HttpsConnector::new()));
            target(Channel::Webhook { client, uri, repeat: options.repeat });
        }
        if let Some(Kafka { brokers, properties }) = options.kafka {
            let mut config = properties.client(&brokers, &[("message.timeout.ms", "10000")]);
            config.set("enable.idempotence", "true").set("acks", "all").set("partitioner", "murmur2_random");
            target(Channel::Kafka(ConfirmingProducer::new(&config)?));
        }
        Ok(Self { warehouse, interval: options.interval, targets })
    }

    /// Sends every target once what it has not confirmed.
    ///
    /// # Errors
    /// The error of the first target that failed; the other targets are served all the same.
    pub async fn round(&mut self, now_us: i64) -> Result<(), Error> {
        let mut outcome = Ok(());
        for target in &mut self.targets {
            let sent = target.round(&self.warehouse, now_us).await;
            outcome = outcome.and(sent);
        }
        outcome
    }

    /// Sends after each pass until `shutdown`, each target at its own pace.
    pub async fn run(self, handle: status::Handle, passes: watch::Receiver<()>, shutdown: CancellationToken) {
        let mut tasks = tokio::task::JoinSet::new();
        for mut target in self.targets {
            let (warehouse, interval, shutdown) = (self.warehouse.clone(), self.interval, shutdown.clone());
            let (handle, mut passes) = (handle.clone(), passes.clone());
            // A webhook gets its repetitions in time.
            let interval = match &target.channel {
                Channel::Webhook { repeat, .. } => interval.min(*repeat),
                Channel::Kafka(_) => interval,
            };
            handle.notified(target.channel.name(), None);
            tasks.spawn(async move {
                let mut known = String::new();
                loop {
                    passes.mark_unchanged();
                    let (pause, at_pass) = match shutdown.run_until_cancelled(target.round(&warehouse, now_us())).await {
                        None => return,
                        Some(Ok(())) => {
                            known.clear();
                            handle.notified(target.channel.name(), None);
                            target.backoff.reset();
                            (interval, true)
                        }
                        Some(Err(error)) => {
                            // One line for each new error, not for each attempt.
                            let trouble = error.to_string();
                            handle.notified(target.channel.name(), Some(trouble.clone()));
                            if trouble != known {
                                tracing::warn!(target = target.channel.name(), %error, "alerts were not delivered, trying again");
                                known = trouble;
                            }
                            (target.backoff.pause(), false)
                        }
                    };
                    tokio::select! {
                        () = shutdown.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                        Ok(()) = passes.changed(), if at_pass => {}
                    }
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    }
}

impl Target {
    async fn round(&mut self, warehouse: &Warehouse, now_us: i64) -> Result<(), Error> {
        let open = warehouse.waiting_alerts().await?;
        let confirmed = warehouse.told(self.channel.name()).await?;
        let repeats = match &self.channel {
            Channel::Webhook { repeat, .. } => self.repeated.is_none_or(|at| at.elapsed() >= *repeat),
            Channel::Kafka(_) => false,
        };
        let notifications = plan(self.channel.name(), &open, &confirmed, repeats, now_us);
        for notifications in notifications.chunks(NOTIFICATIONS_MAX) {
            self.channel.send(notifications, now_us).await?;
            let changes: Vec<_> = notifications
                .iter()
                .filter(|notification| notification.is_change)
                .map(|notification| notification.delivery.clone())
                .collect();
            warehouse.record_deliveries(&changes).await?;
        }
        if repeats {
            self.repeated = Some(Instant::now());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use warehouse::states::Severity;

    use super::*;

    fn waiting(key: &str, severity: Severity, attention: u32) -> Waiting {
        let (tenant, kind) = ("acme".to_owned(), "drift".to_owned());
        Waiting { tenant, kind, alert_key: key.to_owned(), severity, attention, ..Waiting::default() }
    }

    /// Plays the open alerts round by round. Returns status and severity of every notification.
    fn play(rounds: &[&[Waiting]]) -> Vec<Vec<String>> {
        let mut confirmed: Vec<Delivery> = Vec::new();
        let said = rounds.iter().enumerate().map(|(round, open)| {
            let notifications = plan("webhook", open, &confirmed, false, round as i64);
            for Notification { delivery, .. } in &notifications {
                confirmed.retain(|sent| sent.alert_key != delivery.alert_key);
                if delivery.status == DeliveryStatus::Firing {
                    confirmed.push(delivery.clone());
                }
            }
            notifications
                .iter()
                .map(|notification| format!("{} {}", notification.delivery.status, notification.delivery.severity))
                .collect()
        });
        said.collect()
    }

    #[test]
    fn an_alert_is_sent_once_as_firing_and_once_as_resolved() {
        let alert = [waiting("a", Severity::High, 1)];
        assert_eq!(play(&[&alert, &alert, &[], &[]]), [vec!["firing high"], vec![], vec!["resolved high"], vec![]]);
        assert_eq!(play(&[&alert, &[], &alert]).last(), Some(&vec!["firing high".to_owned()]), "it is back");
    }

    #[test]
    fn a_more_severe_alert_replaces_the_one_that_was_sent() {
        let (before, after) = ([waiting("a", Severity::High, 1)], [waiting("a", Severity::Critical, 2)]);
        assert_eq!(play(&[&before, &after]), [vec!["firing high"], vec!["resolved high", "firing critical"]]);
        assert_eq!(
            play(&[&before, &[waiting("a", Severity::High, 2)]])[1],
            ["firing high"],
            "more sessions are affected"
        );
    }

    #[test]
    fn a_repetition_is_not_recorded_and_keeps_its_labels() {
        let alert = [waiting("a", Severity::High, 1)];
        let first = plan("webhook", &alert, &[], true, 1);
        let repeated = plan("webhook", &alert, &[first[0].delivery.clone()], true, 2);
        assert!(first[0].is_change && !repeated[0].is_change);
        let labels =
            |notification: &Notification| alertmanager(notification, Duration::from_secs(60), 5)["labels"].clone();
        assert_eq!(labels(&first[0]), labels(&repeated[0]));
        assert_eq!(labels(&first[0]), labels(&plan("webhook", &[], &[first[0].delivery.clone()], true, 3)[0]));
        let firing = alertmanager(&first[0], Duration::from_secs(60), 0);
        assert_eq!(firing["endsAt"], "1970-01-01T00:04:00Z");
    }
}
