//! What a device must not be able to do on the broker, tried with the certificate of a device, for
//! `doseline check --connect`.

use async_recursion::async_recursion as boxed;
use std::{path::PathBuf, time::Duration};

use rumqttc::v5::mqttbytes::{
    QoS,
    v5::{Filter, Packet, PubAckReason, Publish, Subscribe, SubscribeReasonCode},
};
use service::tls::Tls;
use telemetry::topic::is_id;
use tokio::time::timeout;

use crate::{
    mqtt_link::{Link, Purpose},
    options::{Mqtt, Options},
};

/// How long the broker may take for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// A name that no tenant, site or device should have.
const STRANGER: &str = "doseline-check";

/// The device as which the broker is tried. A device with this certificate loses its connection.
#[derive(Clone, Debug)]
pub struct Device {
    /// `TENANT/SITE/DEVICE`, the common name of the certificate.
    pub name: String,
    /// PEM file of the certificate, and of its private key.
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Port of the broker for devices.
    pub port: u16,
}

/// Tries everything that the device must not be able to do. Returns the number of attempts, and
/// each that the broker let pass, in words.
///
/// Published messages are empty. The bridge ignores an empty status. An empty report that the
/// broker lets pass stands in quarantine, under a tenant, site or device called `doseline-check`.
///
/// # Errors
/// The device cannot connect, or is refused what it must be able to do: why, in one line for a
/// person.
#[boxed]
pub async fn let_pass(options: &Options, device: &Device) -> Result<(usize, Vec<String>), String> {
    let parts: Vec<&str> = device.name.split('/').collect();
    let &[tenant, site, id] = parts.as_slice() else {
        return Err(format!("{:?} must be TENANT/SITE/DEVICE", device.name));
    };
    if !parts.iter().all(|part| is_id(part)) {
        return Err(format!("{:?} must be TENANT/SITE/DEVICE", device.name));
    }
    let tls = options.mqtt.tls.as_ref().ok_or("mqtt.tls is missing: without TLS there is no certificate to try")?;
    let identity = |certificate: Option<&PathBuf>, key: Option<&PathBuf>| Tls {
        certificate: certificate.cloned(),
        key: key.cloned(),
        ..tls.clone()
    };
    // A client id of its own: a broker that lets clients choose must not end the bridge's sessions.
    let client_id = STRANGER.to_owned();
    let bare = Mqtt { port: device.port, client_id, username: None, password: None, ..options.mqtt.clone() };
    let own = Mqtt { tls: Some(identity(Some(&device.certificate), Some(&device.key))), ..bare.clone() };
    let mut found = Found { mqtt: own.clone(), link: None, tried: 0, passed: Vec::new() };

    let receipts = format!("doseline/v1/{}/receipt", device.name);
    if !found.subscribes(&receipts).await? {
        return Err(format!("the broker refuses the device its own receipts, {receipts}"));
    }
    let others =
        [format!("{tenant}/{site}/{STRANGER}"), format!("{tenant}/{STRANGER}/{id}"), format!("{STRANGER}/{site}/{id}")];
    let mut filters = ["#", "$SYS/#", "doseline/v1/#", "doseline/v1/+/+/+/report", "doseline/v1/+/+/+/receipt"]
        .map(str::to_owned)
        .to_vec();
    filters.push(format!("$share/{STRANGER}/doseline/v1/+/+/+/report"));
    filters.push(format!("doseline/v1/{}/report", device.name));
    filters.extend(others.iter().map(|other| format!("doseline/v1/{other}/receipt")));
    for filter in filters {
        let passed = found.subscribes(&filter).await?;
        found.count(passed, || format!("subscribe to {filter}"));
    }
    let mut topics = vec![receipts];
    for other in &others {
        topics.extend(["report", "report/json", "status", "receipt"].map(|end| format!("doseline/v1/{other}/{end}")));
    }
    for topic in topics {
        let passed = found.publishes(&topic).await?;
        found.count(passed, || format!("publish to {topic}"));
    }
    let chosen = found.chooses_client_id().await?;
    found.count(chosen, || "choose a client id, also that of the bridge".to_owned());
    let nobody = Mqtt { tls: Some(identity(None, None)), ..bare };
    found.count(connects(&nobody).await, || "connect to the port of devices without a certificate".to_owned());
    if device.port != options.mqtt.port {
        let as_bridge = Mqtt { port: options.mqtt.port, ..own };
        found.count(connects(&as_bridge).await, || "connect to the port of the bridge as a device".to_owned());
    }
    found.leave().await;
    Ok((found.tried, found.passed))
}

/// The attempts so far, and the connection for the next.
struct Found {
    mqtt: Mqtt,
    link: Option<Link>,
    tried: usize,
    passed: Vec<String>,
}

impl Found {
    fn count(&mut self, passed: bool, what: impl FnOnce() -> String) {
        self.tried += 1;
        if passed {
            self.passed.push(what());
        }
    }

    /// Whether a subscription is granted. Closing the connection is a refusal.
    async fn subscribes(&mut self, filter: &str) -> Result<bool, String> {
        let mut subscribe = Subscribe::new(Filter::new(filter, QoS::AtMostOnce), None);
        subscribe.pkid = 1;
        let is_answer = |packet: &Packet| match packet {
            Packet::SubAck(ack) => {
                Some(ack.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_))))
            }
            _ => None,
        };
        self.ask(Packet::Subscribe(subscribe), is_answer).await
    }

    /// Whether an empty message is accepted.
    async fn publishes(&mut self, topic: &str) -> Result<bool, String> {
        let mut publish = Publish::new(topic, QoS::AtLeastOnce, Vec::new(), None);
        publish.pkid = 1;
        let is_answer = |packet: &Packet| match packet {
            Packet::PubAck(ack) => {
                Some(matches!(ack.reason, PubAckReason::Success | PubAckReason::NoMatchingSubscribers))
            }
            _ => None,
        };
        self.ask(Packet::Publish(publish), is_answer).await
    }

    /// Sends a packet and waits for the answer. A connection that ends first is opened again for
    /// the next attempt.
    async fn ask(&mut self, packet: Packet, is_answer: impl Fn(&Packet) -> Option<bool>) -> Result<bool, String> {
        let mut link = match self.link.take() {
            Some(link) => link,
            None => Link::open(&self.mqtt, &Purpose::Receipts).await?.0,
        };
        link.send(packet)?;
        let answer = timeout(ANSWER_WITHIN, async {
            loop {
                match link.next().await {
                    Ok(packet) => {
                        if let Some(passed) = is_answer(&packet) {
                            return Some(passed);
                        }
                    }
                    Err(_) => return None,
                }
            }
        });
        match answer.await.map_err(|_| "the broker does not answer".to_owned())? {
            Some(passed) => {
                self.link = Some(link);
                Ok(passed)
            }
            None => Ok(false),
        }
    }

    /// Whether two connections with the device's certificate and two client ids stay open: then the
    /// client id is the client's choice.
    async fn chooses_client_id(&mut self) -> Result<bool, String> {
        self.leave().await;
        let with = |id: &str| Mqtt { client_id: format!("{STRANGER}-{id}"), ..self.mqtt.clone() };
        let (mut first, _) = Link::open(&with("a"), &Purpose::Receipts).await?;
        let Ok((second, _)) = Link::open(&with("b"), &Purpose::Receipts).await else { return Ok(false) };
        let ended = timeout(Duration::from_secs(2), async { while first.next().await.is_ok() {} }).await.is_ok();
        second.close().await;
        if !ended {
            first.close().await;
        }
        Ok(!ended)
    }

    async fn leave(&mut self) {
        if let Some(link) = self.link.take() {
            let _ = timeout(ANSWER_WITHIN, link.close()).await;
        }
    }
}

/// Whether the broker takes the connection.
async fn connects(mqtt: &Mqtt) -> bool {
    match Link::open(mqtt, &Purpose::Receipts).await {
        Ok((link, _)) => {
            let _ = timeout(ANSWER_WITHIN, link.close()).await;
            true
        }
        Err(_) => false,
    }
}
