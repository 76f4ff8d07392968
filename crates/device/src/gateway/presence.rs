//! Messages about the devices themselves: status and heartbeats.

use std::time::Duration;

use prost::Message as _;
use telemetry::{
    json,
    topic::Channel,
    v1::{self, State, event::Kind},
};
use tokio::time::Instant;

use super::{Gateway, port::Publication};
use crate::{error::Error, store::Stamp};

impl Gateway {
    pub(super) fn status(&self, device: usize, state: State) -> Result<(String, Vec<u8>), Error> {
        let (profile, outbox) = (&self.ports.device(device)?.profile, self.store.outbox(device)?);
        let status = v1::Status {
            state: state.into(),
            since_unix_us: Some(self.ports.device(device)?.unix_us).filter(|us| *us > 0),
            model: profile.model.clone(),
            firmware: profile.firmware.clone(),
            boot_id: outbox.current().map(|boot| boot.id),
            last_seq: outbox.current().map(|boot| boot.last_seq),
            outbox_events: Some(outbox.events() as u64),
            ..v1::Status::default()
        };
        let topic = self.store.identity(device)?.topic(Channel::Status);
        Ok((topic, json::to_json(&status, "Status").into_bytes()))
    }

    pub(super) fn announce(&mut self, device: usize, state: State) -> Result<(), Error> {
        let (topic, payload) = self.status(device, state)?;
        self.ports.queue(device, Publication { topic, payload: payload.into(), is_retained: true })
    }

    pub(super) async fn say_goodbye(&mut self) -> Result<(), Error> {
        for device in 0..self.store.devices() {
            if self.ports.device(device)?.is_up {
                self.announce(device, State::Off)?;
            }
        }
        let deadline = Instant::now() + Duration::from_secs(2);
        while !self.ports.close() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    pub(super) fn heartbeat(
        &mut self,
        device: usize,
        stamp: Stamp,
        context: &[u8],
        mut heartbeat: v1::Heartbeat,
    ) -> Result<(), Error> {
        let port = self.ports.device(device)?;
        let outbox = self.store.outbox(device)?;
        // A heartbeat's receipt names no events. It must not be taken for the receipt of a declared
        // loss.
        let Some(boot) = outbox.current().filter(|_| port.sender.is_online() && !port.sender.awaits_unsequenced())
        else {
            return Ok(());
        };
        let oldest_us = boot.entries().front().map_or(stamp.uptime_us, |oldest| oldest.uptime_us);
        heartbeat.outbox_events = Some(outbox.events() as u64);
        heartbeat.oldest_unreceipted_s = u32::try_from(stamp.uptime_us.saturating_sub(oldest_us) / 1_000_000).ok();
        let report = v1::Report {
            boot_id: boot.id,
            first_seq: 0,
            base_unix_us: stamp.unix_us,
            base_uptime_us: stamp.uptime_us,
            clock: stamp.clock.into(),
            context: v1::Context::decode(context).ok(),
            events: vec![v1::Event { offset_us: 0, kind: Some(Kind::Heartbeat(heartbeat)) }],
            ..v1::Report::default()
        };
        let form = port.profile.form;
        let payload = crate::draft::payload(report.encode_to_vec(), form);
        let topic = self.store.identity(device)?.topic(form.channel());
        self.ports.queue(device, Publication { topic, payload: payload.into(), is_retained: false })
    }
}
