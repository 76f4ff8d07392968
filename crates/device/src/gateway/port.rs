//! Devices and connections of a gateway, and the path between them.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use rumqttc::{
    v5::{AsyncClient, mqttbytes::QoS},
    valid_topic,
};
use sha2::{Digest as _, Sha256};

use super::Profile;
use crate::{
    draft,
    error::Error,
    regroup::Regroup,
    sender::{Hash, Options, Sender},
};

/// Number of publishes after which a connection is asked again whether it accepts more.
const BURST: usize = 8;

/// A message that is not a report from the outbox.
pub(super) struct Publication {
    pub topic: String,
    pub payload: Bytes,
    pub is_retained: bool,
}

/// Bytes that are published unchanged.
pub(super) struct Raw {
    topic: String,
    payload: Bytes,
    hash: Hash,
    is_receipted: bool,
    attempts: u32,
    pub due: Duration,
}

/// A device and its connection.
pub(super) struct Device {
    pub profile: Profile,
    pub sender: Sender,
    pub raws: Vec<Raw>,
    /// Whether the device has its network, apart from the connection.
    pub is_up: bool,
    /// The last synchronised time that the device reported.
    pub unix_us: i64,
    /// Time at which to look at the device again.
    pub wake: Option<Duration>,
    regroup: Option<Regroup>,
    link: usize,
}

impl Device {
    pub(super) fn raw(&mut self, topic: String, payload: Vec<u8>, is_receipted: bool) {
        let hash = Sha256::digest(&payload).into();
        let payload = payload.into();
        self.raws.push(Raw { topic, payload, hash, is_receipted, attempts: 0, due: Duration::ZERO });
    }

    /// Whether a rejected payload was a raw one; then it is not sent again.
    pub(super) fn refused(&mut self, sha256: &[u8]) -> bool {
        let count = self.raws.len();
        self.raws.retain(|raw| raw.hash != *sha256);
        self.raws.len() < count
    }
}

/// A connection.
#[derive(Default)]
pub(super) struct Link {
    pub devices: Vec<usize>,
    client: Option<AsyncClient>,
    queue: VecDeque<Publication>,
}

pub(super) struct Ports {
    devices: Vec<Device>,
    links: Vec<Link>,
}

impl Ports {
    pub(super) fn new(profiles: Vec<Profile>, connections: usize) -> Self {
        let mut links: Vec<Link> = (0..connections).map(|_| Link::default()).collect();
        let devices = profiles.into_iter().enumerate().map(|(number, profile)| {
            let link = number % connections;
            links[link].devices.push(number);
            Device {
                regroup: profile.regroup.map(Regroup::new),
                profile,
                sender: Sender::default(),
                raws: Vec::new(),
                is_up: true,
                unix_us: 0,
                wake: None,
                link,
            }
        });
        let devices = devices.collect();
        Self { devices, links }
    }

    pub(super) fn links(&self) -> &[Link] {
        &self.links
    }

    pub(super) fn device(&self, device: usize) -> Result<&Device, Error> {
        self.devices.get(device).ok_or(Error::UnknownDevice(device))
    }

    pub(super) fn device_mut(&mut self, device: usize) -> Result<&mut Device, Error> {
        self.devices.get_mut(device).ok_or(Error::UnknownDevice(device))
    }

    /// A connection came up. Returns its devices.
    pub(super) fn connected(&mut self, link: usize, client: AsyncClient) -> Vec<usize> {
        let Some(link) = self.links.get_mut(link) else { return Vec::new() };
        link.client = Some(client);
        link.devices.clone()
    }

    /// A connection went down. Returns its devices.
    pub(super) fn lost(&mut self, link: usize) -> Vec<usize> {
        let Some(link) = self.links.get_mut(link) else { return Vec::new() };
        link.client = None;
        link.queue.clear();
        link.devices.clone()
    }

    pub(super) fn is_connected(&self, device: usize) -> bool {
        self.link(device).is_some_and(|link| link.client.is_some())
    }

    /// Whether the device's connection accepts a publish now.
    pub(super) fn has_room(&mut self, device: usize) -> bool {
        let Some(link) = self.devices.get(device).and_then(|device| self.links.get_mut(device.link)) else {
            return false;
        };
        link.flush();
        link.client.is_some() && link.queue.len() < BURST
    }

    /// Sends the waiting messages of every connection.
    pub(super) fn flush(&mut self) {
        self.links.iter_mut().for_each(Link::flush);
    }

    /// Queues a message of a device. Without a connection the message is dropped.
    pub(super) fn queue(&mut self, device: usize, publication: Publication) -> Result<(), Error> {
        let link = self.device(device)?.link;
        if let Some(link) = self.links.get_mut(link).filter(|link| link.client.is_some()) {
            link.queue.push_back(publication);
            link.flush();
        }
        Ok(())
    }

    /// Publishes a report in the device's form. Returns the hash of the payload as it is without
    /// regrouping.
    pub(super) fn publish(
        &mut self,
        device: usize,
        topic: &str,
        report: Vec<u8>,
        is_resend: bool,
        may_hold: bool,
    ) -> Result<Hash, Error> {
        let port = self.device_mut(device)?;
        let form = port.profile.form;
        let regrouping = port.regroup.as_mut().filter(|_| !is_resend);
        let regrouped = regrouping.map(|regroup| regroup.publish(&report, may_hold));
        let payload = draft::payload(report, form);
        let hash = Sha256::digest(&payload).into();
        let payloads = match regrouped {
            Some(reports) => reports.into_iter().map(|report| draft::payload(report, form)).collect(),
            None => vec![payload],
        };
        for payload in payloads {
            self.queue(device, Publication { topic: topic.to_owned(), payload: payload.into(), is_retained: false })?;
        }
        Ok(hash)
    }

    /// Publishes a report that regrouping holds back.
    pub(super) fn release(&mut self, device: usize, topic: String) -> Result<(), Error> {
        let port = self.device_mut(device)?;
        let form = port.profile.form;
        let Some(report) = port.regroup.as_mut().and_then(Regroup::release) else { return Ok(()) };
        let payload = draft::payload(report, form).into();
        self.queue(device, Publication { topic, payload, is_retained: false })
    }

    /// Publishes one of the raw payloads, and forgets it unless a receipt is due.
    pub(super) fn publish_raw(
        &mut self,
        device: usize,
        index: usize,
        now: Duration,
        options: &Options,
    ) -> Result<(), Error> {
        let raws = &mut self.device_mut(device)?.raws;
        let Some(raw) = raws.get_mut(index) else { return Ok(()) };
        raw.attempts += 1;
        raw.due = now + options.wait(raw.attempts, rand::random());
        let publication = Publication { topic: raw.topic.clone(), payload: raw.payload.clone(), is_retained: false };
        if !raw.is_receipted {
            raws.remove(index);
        }
        self.queue(device, publication)
    }

    /// Disconnects every connection that has nothing left to send. Returns false if one has.
    pub(super) fn close(&mut self) -> bool {
        for link in &mut self.links {
            link.flush();
            if link.queue.is_empty()
                && let Some(client) = &link.client
                && client.try_disconnect().is_ok()
            {
                link.client = None;
            }
        }
        self.links.iter().all(|link| link.client.is_none())
    }

    fn link(&self, device: usize) -> Option<&Link> {
        self.links.get(self.devices.get(device)?.link)
    }
}

impl Link {
    fn flush(&mut self) {
        let Some(client) = &self.client else { return };
        while let Some(Publication { topic, payload, is_retained }) = self.queue.front() {
            // A topic that MQTT forbids would be refused for ever. Every other refusal means that
            // the client is busy.
            if valid_topic(topic)
                && client.try_publish(topic.as_str(), QoS::AtLeastOnce, *is_retained, payload.clone()).is_err()
            {
                return;
            }
            self.queue.pop_front();
        }
    }
}
