//! One MQTT connection: it connects, subscribes to receipts, passes on messages, and reconnects
//! with back-off.
//!
//! Each connection is a new client with a clean start, so nothing of an old one (packet ids, queued
//! publishes) reaches the next. The outbox sends reports without a receipt again.

use std::{fmt, time::Duration};

use bytes::Bytes;
use rumqttc::{
    TlsConfiguration, Transport,
    v5::{
        AsyncClient, ConnectionError, Event, EventLoop, MqttOptions,
        mqttbytes::{
            QoS,
            v5::{Filter, LastWill, Packet},
        },
    },
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Filters in one SUBSCRIBE.
const FILTERS_PER_SUBSCRIBE: usize = 64;
/// Greatest number of requests that wait for the connection.
const REQUESTS: usize = 256;
/// Greatest number of publishes without a PUBACK.
const INFLIGHT: u16 = 256;
/// Largest packet to receive, bytes; receipts are small.
const PACKET_BYTES_MAX: u32 = 256 * 1024;

/// Encryption of the connection.
#[derive(Clone, PartialEq, Eq)]
pub enum Tls {
    /// TLS with the system's certificate authorities.
    System,
    /// TLS with a given authority, optionally with a client certificate.
    Private {
        /// Certificates of the authority, PEM.
        ca_pem: Vec<u8>,
        /// Client certificate and key as PKCS#12, with their password.
        client: Option<(Vec<u8>, String)>,
    },
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "System",
            Self::Private { .. } => "Private(..)",
        })
    }
}

/// The MQTT broker and its login.
#[derive(Clone, PartialEq, Eq)]
pub struct Broker {
    /// Host name or address.
    pub host: String,
    pub port: u16,
    /// User name and password; `None` for none.
    pub login: Option<(String, String)>,
    /// Encryption; `None` means plain TCP.
    pub tls: Option<Tls>,
    /// Interval of keep-alive packets on a silent connection.
    pub keep_alive: Duration,
}

impl Broker {
    /// A broker without login and encryption.
    pub fn plain(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, login: None, tls: None, keep_alive: Duration::from_secs(30) }
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.login.as_ref().map(|(user, _)| user);
        f.debug_struct("Broker")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &user)
            .field("tls", &self.tls)
            .finish()
    }
}

/// Waits between attempts to connect. They double, with ±50 % jitter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure.
    pub first: Duration,
    /// The longest wait.
    pub max: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(500), max: Duration::from_secs(60) }
    }
}

impl Backoff {
    fn wait(self, attempt: u32) -> Duration {
        let doubled = self.first.saturating_mul(1 << attempt.min(16)).min(self.max);
        doubled.mul_f64(0.5 + rand::random::<f64>())
    }
}

/// The parts of a connection.
pub(crate) struct Plan {
    pub number: usize,
    pub broker: Broker,
    pub client_id: String,
    /// Topic and payload of the last will, if there is one.
    pub will: Option<(String, Vec<u8>)>,
    /// Receipt topics to subscribe to.
    pub filters: Vec<String>,
    pub backoff: Backoff,
}

/// Events of a connection.
pub(crate) enum Occurrence {
    /// The connection is up and subscribed.
    Up { link: usize, client: AsyncClient },
    /// A message arrived.
    Message { topic: Bytes, payload: Bytes },
    /// The connection is gone, and its client is useless.
    Down { link: usize },
}

/// Keeps one connection up until `closing`, then ends when the broker has closed it.
pub(crate) async fn run(plan: Plan, occurrences: mpsc::Sender<Occurrence>, closing: CancellationToken) {
    let mut attempt = 0;
    while !closing.is_cancelled() {
        let (client, eventloop) = AsyncClient::new(plan.options(), REQUESTS);
        let mut connection = Connection { plan: &plan, client, eventloop, unsubscribed: 0, is_up: false };
        let error = connection.serve(&occurrences).await;
        if closing.is_cancelled() || occurrences.is_closed() {
            return;
        }
        if connection.is_up {
            attempt = 0;
            if occurrences.send(Occurrence::Down { link: plan.number }).await.is_err() {
                return;
            }
        }
        let wait = plan.backoff.wait(attempt);
        attempt += 1;
        let (host, port) = (&plan.broker.host, plan.broker.port);
        tracing::warn!(client = %plan.client_id, host, port, %error, retry_in_ms = wait.as_millis() as u64, "mqtt connection lost");
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = closing.cancelled() => return,
        }
    }
}

impl Plan {
    fn options(&self) -> MqttOptions {
        let mut options = MqttOptions::new(&self.client_id, &self.broker.host, self.broker.port);
        options.set_clean_start(true);
        options.set_keep_alive(self.broker.keep_alive);
        options.set_max_packet_size(Some(PACKET_BYTES_MAX));
        options.set_outgoing_inflight_upper_limit(INFLIGHT);
        if let Some((user, password)) = &self.broker.login {
            options.set_credentials(user, password);
        }
        match &self.broker.tls {
            None => {}
            Some(Tls::System) => {
                options.set_transport(Transport::tls_with_config(TlsConfiguration::Native));
            }
            Some(Tls::Private { ca_pem, client }) => {
                let (ca, client_auth) = (ca_pem.clone(), client.clone());
                options.set_transport(Transport::tls_with_config(TlsConfiguration::SimpleNative { ca, client_auth }));
            }
        }
        if let Some((topic, payload)) = &self.will {
            options.set_last_will(LastWill::new(topic, payload.clone(), QoS::AtLeastOnce, true, None));
        }
        options
    }
}

struct Connection<'a> {
    plan: &'a Plan,
    client: AsyncClient,
    eventloop: EventLoop,
    /// Index of the first filter that is not subscribed yet.
    unsubscribed: usize,
    is_up: bool,
}

impl Connection<'_> {
    /// Serves the connection until it fails.
    async fn serve(&mut self, occurrences: &mpsc::Sender<Occurrence>) -> ConnectionError {
        loop {
            let occurrence = match self.eventloop.poll().await {
                Err(error) => return error,
                Ok(Event::Incoming(Packet::ConnAck(_) | Packet::SubAck(_))) => match self.subscribe() {
                    true => None,
                    false => {
                        self.is_up = true;
                        Some(Occurrence::Up { link: self.plan.number, client: self.client.clone() })
                    }
                },
                Ok(Event::Incoming(Packet::Publish(publish))) => {
                    Some(Occurrence::Message { topic: publish.topic, payload: publish.payload })
                }
                Ok(_) => None,
            };
            if let Some(occurrence) = occurrence
                && occurrences.send(occurrence).await.is_err()
            {
                return ConnectionError::RequestsDone;
            }
        }
    }

    /// Subscribes to the next few filters. Returns false if none are left.
    fn subscribe(&mut self) -> bool {
        let filters = &self.plan.filters[self.unsubscribed.min(self.plan.filters.len())..];
        let filters = &filters[..filters.len().min(FILTERS_PER_SUBSCRIBE)];
        if filters.is_empty() {
            return false;
        }
        self.unsubscribed += filters.len();
        let filters = filters.iter().map(|filter| Filter::new(filter, QoS::AtLeastOnce));
        // The queue is empty this early. If it were not, the missing SUBACK would keep the
        // connection visibly not up.
        if let Err(error) = self.client.try_subscribe_many(filters) {
            tracing::error!(client = %self.plan.client_id, %error, "subscription not sent");
        }
        true
    }
}
