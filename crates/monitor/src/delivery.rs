//! Tells of alerts outside: Kafka and a webhook in the format of Alertmanager's API v2.
//!
//! An alert is told as firing while it waits for somebody (`open_alerts`), and as resolved once it
//! is cleared or acknowledged. What a target has confirmed is recorded in ClickHouse, so delivery
//! goes on after a restart where it stood: at least once, each alert under one stable set of
//! labels, so that there is never more than one of it outside. Alertmanager forgets what is not
//! repeated; so what fires is repeated.

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
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use service::{backoff::Backoff, kafka::Properties};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;
use warehouse::{
    Warehouse,
    notices::{Delivery, Waiting},
};

use crate::{settings, sterility::rules::stamp};

/// Topic of alerts.
pub const TOPIC: &str = "doseline.alerts.v1";
/// Alertmanager takes what is not repeated for this many repetitions as resolved.
const REPETITIONS: i64 = 4;
/// Longest wait for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Notices in one request.
const NOTICES_MAX: usize = 500;
/// Pauses after failures.
const BACKOFF: Backoff = Backoff::exact(Duration::from_millis(500), Duration::from_secs(60));

/// The targets of alerts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address of Alertmanager's API, `http://HOST:9093/api/v2/alerts`; none = no webhook.
    pub webhook: Option<String>,
    /// Pause between two repetitions of the alerts that fire, for the webhook.
    pub repeat: Duration,
    /// The cluster that gets alerts; none = no Kafka.
    pub kafka: Option<Kafka>,
    /// Pause between two looks at the alerts that wait.
    pub interval: Duration,
}

/// A Kafka cluster.
#[derive(Clone, Debug)]
pub struct Kafka {
    /// Bootstrap brokers, `host:port[,host:port]`.
    pub brokers: String,
    pub properties: Properties,
}

impl Default for Options {
    fn default() -> Self {
        let repeat = Duration::from_secs(settings::Monitor::default().webhook_repeat_s.into());
        Self { webhook: None, repeat, kafka: None, interval: Duration::from_secs(2) }
    }
}

/// Why something cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address of the webhook.
    #[error("webhook {url:?} is not an address: {source}; give one like http://alertmanager:9093/api/v2/alerts")]
    Url {
        url: String,
        /// What is wrong with it.
        source: axum::http::uri::InvalidUri,
    },
    /// The producer cannot be made.
    #[error("kafka: {0}")]
    Kafka(#[from] rdkafka::error::KafkaError),
    /// The other side did not take it.
    #[error("{target} did not take the alerts: {reason}")]
    Refused { target: &'static str, reason: String },
    #[error(transparent)]
    Warehouse(#[from] warehouse::Error),
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What it says of the alert.
    pub delivery: Delivery,
    /// The alert; none where it waits no more.
    pub waiting: Option<Waiting>,
    /// Whether it is news, and is recorded; repetitions are not.
    pub is_news: bool,
}

/// Stable id of an alert outside.
pub fn fingerprint(tenant: &str, alert_key: &str) -> String {
    let digest = Sha256::digest(format!("{tenant}\n{alert_key}"));
    format!("{digest:.32x}")
}

/// What a target is to be told: `waiting` is what waits now, `told` what it last confirmed as
/// firing.
pub fn plan(target: &str, waiting: &[Waiting], told: &[Delivery], repeats: bool, now_us: i64) -> Vec<Notice> {
    let mut told: HashMap<(&str, &str), &Delivery> =
        told.iter().map(|told| ((told.tenant.as_str(), told.alert_key.as_str()), told)).collect();
    let resolved = |told: &Delivery| Notice {
        delivery: Delivery { status: "resolved".to_owned(), delivered_at: now_us, ..told.clone() },
        waiting: None,
        is_news: true,
    };
    let mut notices = Vec::new();
    for alert in waiting {
        let before = told.remove(&(alert.tenant.as_str(), alert.alert_key.as_str()));
        // Severity is a label, by which alerts are routed: the one told before ends, or there would
        // be two.
        if let Some(before) = before.filter(|before| before.severity != alert.severity || before.kind != alert.kind) {
            notices.push(resolved(before));
        }
        let is_news = before.is_none_or(|before| {
            (&before.severity, &before.kind, before.attention) != (&alert.severity, &alert.kind, alert.attention)
        });
        if is_news || repeats {
            let delivery = Delivery {
                target: target.to_owned(),
                tenant: alert.tenant.clone(),
                alert_key: alert.alert_key.clone(),
                delivered_at: now_us,
                status: "firing".to_owned(),
                severity: alert.severity.clone(),
                kind: alert.kind.clone(),
                attention: alert.attention,
                fingerprint: fingerprint(&alert.tenant, &alert.alert_key),
                raised_at: alert.raised_at,
            };
            notices.push(Notice { delivery, waiting: Some(alert.clone()), is_news });
        }
    }
    let mut gone: Vec<_> = told.into_values().collect();
    gone.sort_unstable_by_key(|told| (&told.tenant, &told.alert_key));
    notices.extend(gone.into_iter().map(resolved));
    notices
}

/// A notice in the format of Alertmanager's API v2. What fires ends by itself unless it is
/// repeated.
pub fn alertmanager(notice: &Notice, repeat: Duration, now_us: i64) -> Value {
    let Delivery { tenant, alert_key, severity, kind, fingerprint, status, raised_at, .. } = &notice.delivery;
    let lasts = i64::try_from(repeat.as_micros()).unwrap_or(i64::MAX).saturating_mul(REPETITIONS);
    let ends = if status == "firing" { now_us.saturating_add(lasts) } else { now_us };
    let annotations = notice.waiting.as_ref().map_or_else(|| json!({}), annotations);
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

/// A notice as a record of [`TOPIC`].
pub fn record(notice: &Notice) -> Value {
    let Delivery { tenant, alert_key, severity, kind, fingerprint, status, raised_at, attention, delivered_at, .. } =
        &notice.delivery;
    let annotations = notice.waiting.as_ref().map_or_else(|| json!({}), annotations);
    json!({
        "status": status, "tenant": tenant, "alert_key": alert_key, "severity": severity, "kind": kind,
        "fingerprint": fingerprint, "attention": attention, "raised_at": stamp(*raised_at), "at": stamp(*delivered_at),
        "annotations": annotations,
    })
}

enum Sink {
    Webhook { client: Box<Client<HttpsConnector<HttpConnector>, String>>, uri: Uri, repeat: Duration },
    Kafka(FutureProducer),
}

impl Sink {
    fn name(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Kafka(_) => "kafka",
        }
    }

    async fn send(&self, notices: &[Notice], now_us: i64) -> Result<(), Error> {
        let refused = |reason: String| Error::Refused { target: self.name(), reason };
        match self {
            Self::Webhook { client, uri, repeat } => {
                let body: Vec<_> = notices.iter().map(|notice| alertmanager(notice, *repeat, now_us)).collect();
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
                for notice in notices {
                    let (payload, key) = (
                        record(notice).to_string(),
                        format!("{}/{}", notice.delivery.tenant, notice.delivery.alert_key),
                    );
                    let produced = FutureRecord::to(TOPIC).key(&key).payload(&payload);
                    let sent = producer.send(produced, ANSWER_WITHIN).await;
                    sent.map_err(|(error, _)| refused(error.to_string()))?;
                }
                Ok(())
            }
        }
    }
}

/// Tells targets of alerts.
pub struct Courier {
    warehouse: Warehouse,
    interval: Duration,
    routes: Vec<Route>,
}

/// One target and how it goes with it.
struct Route {
    sink: Sink,
    repeated: Option<Instant>,
    backoff: Backoff,
}

impl Courier {
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// An address that is none, properties that librdkafka does not take.
    pub fn new(options: Options, warehouse: Warehouse) -> Result<Self, Error> {
        let mut routes = Vec::new();
        let mut route = |sink| routes.push(Route { sink, repeated: None, backoff: BACKOFF });
        if let Some(url) = options.webhook {
            let uri = url.parse().map_err(|source| Error::Url { url, source })?;
            let client = Box::new(Client::builder(TokioExecutor::new()).build(HttpsConnector::new()));
            route(Sink::Webhook { client, uri, repeat: options.repeat });
        }
        if let Some(Kafka { brokers, properties }) = options.kafka {
            let mut config = properties.client(&brokers, &[("message.timeout.ms", "10000")]);
            config.set("enable.idempotence", "true").set("acks", "all").set("partitioner", "murmur2_random");
            route(Sink::Kafka(config.create()?));
        }
        Ok(Self { warehouse, interval: options.interval, routes })
    }

    /// Tells every target once what it has not heard.
    ///
    /// # Errors
    /// The first target that did not take it; the others are told.
    pub async fn round(&mut self, now_us: i64) -> Result<(), Error> {
        let mut outcome = Ok(());
        for route in &mut self.routes {
            let told = route.round(&self.warehouse, now_us).await;
            outcome = outcome.and(told);
        }
        outcome
    }

    /// Tells until `shutdown`; each target at its own pace.
    pub async fn run(self, handle: crate::status::Handle, shutdown: CancellationToken) {
        let mut tasks = tokio::task::JoinSet::new();
        for mut route in self.routes {
            let (warehouse, interval, shutdown) = (self.warehouse.clone(), self.interval, shutdown.clone());
            let handle = handle.clone();
            handle.told(route.sink.name(), None);
            tasks.spawn(async move {
                let mut known = String::new();
                loop {
                    let pause = match shutdown.run_until_cancelled(route.round(&warehouse, crate::now_us())).await {
                        None => return,
                        Some(Ok(())) => {
                            known.clear();
                            handle.told(route.sink.name(), None);
                            route.backoff.reset();
                            interval
                        }
                        Some(Err(error)) => {
                            // Once for each trouble, not for each try.
                            let trouble = error.to_string();
                            handle.told(route.sink.name(), Some(trouble.clone()));
                            if trouble != known {
                                tracing::warn!(target = route.sink.name(), %error, "alerts are not told yet, trying again");
                                known = trouble;
                            }
                            route.backoff.next()
                        }
                    };
                    if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                        return;
                    }
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    }
}

impl Route {
    async fn round(&mut self, warehouse: &Warehouse, now_us: i64) -> Result<(), Error> {
        let waiting = warehouse.waiting_alerts().await?;
        let told = warehouse.told(self.sink.name()).await?;
        let repeats = match &self.sink {
            Sink::Webhook { repeat, .. } => self.repeated.is_none_or(|at| at.elapsed() >= *repeat),
            Sink::Kafka(_) => false,
        };
        let notices = plan(self.sink.name(), &waiting, &told, repeats, now_us);
        for notices in notices.chunks(NOTICES_MAX) {
            self.sink.send(notices, now_us).await?;
            let news: Vec<_> =
                notices.iter().filter(|notice| notice.is_news).map(|notice| notice.delivery.clone()).collect();
            warehouse.record_deliveries(&news).await?;
        }
        if repeats {
            self.repeated = Some(Instant::now());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(key: &str, severity: &str, attention: u32) -> Waiting {
        let (tenant, kind) = ("acme".to_owned(), "drift".to_owned());
        Waiting {
            tenant,
            kind,
            alert_key: key.to_owned(),
            severity: severity.to_owned(),
            attention,
            ..Waiting::default()
        }
    }

    /// Plays what waits, round by round: status and severity of every notice.
    fn play(rounds: &[&[Waiting]]) -> Vec<Vec<String>> {
        let mut told: Vec<Delivery> = Vec::new();
        let said = rounds.iter().enumerate().map(|(round, waiting)| {
            let notices = plan("webhook", waiting, &told, false, round as i64);
            for Notice { delivery, .. } in &notices {
                told.retain(|told| told.alert_key != delivery.alert_key);
                if delivery.status == "firing" {
                    told.push(delivery.clone());
                }
            }
            notices.iter().map(|notice| format!("{} {}", notice.delivery.status, notice.delivery.severity)).collect()
        });
        said.collect()
    }

    #[test]
    fn an_alert_is_told_once_and_once_that_it_is_over() {
        let alert = [waiting("a", "high", 1)];
        assert_eq!(play(&[&alert, &alert, &[], &[]]), [vec!["firing high"], vec![], vec!["resolved high"], vec![]]);
        assert_eq!(play(&[&alert, &[], &alert]).last(), Some(&vec!["firing high".to_owned()]), "it is back");
    }

    #[test]
    fn a_worse_alert_replaces_the_one_that_was_told() {
        let (before, after) = ([waiting("a", "high", 1)], [waiting("a", "critical", 2)]);
        assert_eq!(play(&[&before, &after]), [vec!["firing high"], vec!["resolved high", "firing critical"]]);
        assert_eq!(play(&[&before, &[waiting("a", "high", 2)]])[1], ["firing high"], "more visits are affected");
    }

    #[test]
    fn repetitions_are_no_news_and_labels_stay() {
        let alert = [waiting("a", "high", 1)];
        let first = plan("webhook", &alert, &[], true, 1);
        let again = plan("webhook", &alert, &[first[0].delivery.clone()], true, 2);
        assert!(first[0].is_news && !again[0].is_news);
        let labels = |notice: &Notice| alertmanager(notice, Duration::from_secs(60), 5)["labels"].clone();
        assert_eq!(labels(&first[0]), labels(&again[0]));
        assert_eq!(labels(&first[0]), labels(&plan("webhook", &[], &[first[0].delivery.clone()], true, 3)[0]));
        let firing = alertmanager(&first[0], Duration::from_secs(60), 0);
        assert_eq!(firing["endsAt"], "1970-01-01T00:04:00Z");
    }
}
