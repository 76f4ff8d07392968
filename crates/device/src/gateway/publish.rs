//! Publishes what is due, as far as the connections accept it.

use std::time::Duration;

use telemetry::interval::Interval;

use super::{Counters, Gateway};
use crate::{error::Error, sender};

impl Gateway {
    /// Commits the accepted events, then publishes due reports as far as the connections accept
    /// them.
    pub(super) fn pump(&mut self) -> Result<(), Error> {
        self.store.commit()?;
        self.ports.flush();
        let now = self.start.elapsed();
        while let Some((at, device)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.wakes.remove(&(at, device));
            self.dirty.insert(device);
        }
        for device in std::mem::take(&mut self.dirty) {
            let wake = match self.publish(device, now)? {
                true => self.wake(device)?,
                // The connection is busy; try again shortly.
                false => Some(now + Duration::from_millis(5)),
            };
            let port = self.ports.device_mut(device)?;
            if let Some(old) = std::mem::replace(&mut port.wake, wake) {
                self.wakes.remove(&(old, device));
            }
            self.wakes.extend(wake.map(|at| (at, device)));
        }
        Ok(())
    }

    fn wake(&self, device: usize) -> Result<Option<Duration>, Error> {
        let port = self.ports.device(device)?;
        let report = port.sender.wake(self.store.outbox(device)?, port.profile.form, &self.options.sender);
        let raw = port.raws.iter().map(|raw| raw.due).min().filter(|_| port.sender.is_online());
        Ok(report.into_iter().chain(raw).min())
    }

    /// Publishes the due reports of one device. Returns false if the connection accepts no more.
    fn publish(&mut self, device: usize, now: Duration) -> Result<bool, Error> {
        if !self.publish_raws(device, now)? {
            return Ok(false);
        }
        loop {
            let port = self.ports.device(device)?;
            let form = port.profile.form;
            let next = port.sender.next(now, self.store.outbox(device)?, form, &self.options.sender);
            let Some(mut next) = next else { return Ok(true) };
            if !self.ports.has_room(device) {
                return Ok(false);
            }
            if !next.is_resend() {
                let outbox = self.store.outbox_mut(device)?;
                next.attached =
                    sender::Attached { lost: outbox.attach_lost(next.boot_id), earlier: outbox.earlier(next.boot_id) };
            }
            let range = next.range.unwrap_or(Interval::new(u64::MAX, u64::MAX));
            let report = self.store.report(device, next.boot_id, range, next.attached.clone())?;
            let topic = self.store.identity(device)?.topic(form.channel());
            let is_resend = next.is_resend();
            let hash = self.ports.publish(device, &topic, report, is_resend, !self.is_draining)?;
            self.ports.device_mut(device)?.sender.sent(next, hash, now, rand::random(), &self.options.sender);
            Counters::add(if is_resend { &self.counters.resent } else { &self.counters.reports }, 1);
        }
    }

    fn publish_raws(&mut self, device: usize, now: Duration) -> Result<bool, Error> {
        if !self.ports.device(device)?.sender.is_online() {
            return Ok(true);
        }
        for index in (0..self.ports.device(device)?.raws.len()).rev() {
            if self.ports.device(device)?.raws[index].due > now {
                continue;
            }
            if !self.ports.has_room(device) {
                return Ok(false);
            }
            self.ports.publish_raw(device, index, now, &self.options.sender)?;
        }
        Ok(true)
    }
}
