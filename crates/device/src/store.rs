//! The outboxes of all devices of a process, on one journal. The code is the same for one device
//! and for a thousand.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use prost::Message as _;
use telemetry::{
    interval::Interval,
    v1::{self, Clock, event::Kind},
};

use crate::{
    draft::{EVENT_BYTES_MAX, Head, Writer},
    error::Error,
    identity::Identity,
    journal::{Fsync, Journal, Place},
    outbox::{Entry, OUTBOX_FULL, Outbox},
    record::{self, EventRecord, Record},
    rejected::RejectedLog,
    sender::{Attached, Rejected, Settlement},
};

/// How the outboxes keep events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Directory of the journal and of the log of rejected reports.
    pub dir: PathBuf,
    /// When the journal is forced to the disk.
    pub fsync: Fsync,
    /// Greatest size of the events of one device, bytes. Beyond it the oldest are declared lost.
    pub outbox_bytes: u64,
    /// Size of a journal segment, bytes.
    pub segment_bytes: u64,
}

impl Options {
    /// Default options: 4 MiB for each device (some 20,000 injections), fsync within a second.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        let fsync = Fsync::Every(std::time::Duration::from_secs(1));
        Self { dir: dir.into(), fsync, outbox_bytes: 4 << 20, segment_bytes: 8 << 20 }
    }
}

/// Time of an event, as the device knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Monotonic time since boot, us.
    pub uptime_us: u64,
    /// Wall clock, us since 1970; 0 if unknown.
    pub unix_us: i64,
    /// State of the wall clock.
    pub clock: Clock,
}

/// The state that a device brings from its earlier runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// Number of boots so far.
    pub boots: u32,
    /// The last lifetime injection number.
    pub injection_no: u64,
}

struct Slot {
    identity: Identity,
    outbox: Outbox,
}

/// The outboxes of a process.
pub struct Store {
    options: Options,
    journal: Journal,
    rejected: RejectedLog,
    slots: Vec<Slot>,
    by_identity: HashMap<Identity, usize>,
    /// A boot has begun since the last commit.
    is_boot_pending: bool,
    body: Vec<u8>,
}

impl Store {
    /// Opens or creates the outboxes of `devices`. Devices in the journal that are not named stay,
    /// because their events must still be delivered.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::File`].
    pub fn open(options: Options, devices: &[Identity]) -> Result<Self, Error> {
        let mut replay = Replay::default();
        let mut journal = Journal::open(&options.dir, options.fsync, options.segment_bytes, |place, record| {
            replay.record(place, &record);
        })?;
        replay.live.iter().for_each(|place| journal.retain(*place));
        replay.dead.iter().for_each(|place| journal.release(*place));
        let rejected = RejectedLog::open(&options.dir)?;
        let mut store = Self {
            options,
            journal,
            rejected,
            by_identity: replay.slots.iter().enumerate().map(|(i, slot)| (slot.identity.clone(), i)).collect(),
            slots: replay.slots,
            is_boot_pending: false,
            body: Vec::new(),
        };
        for identity in devices {
            if !store.by_identity.contains_key(identity) {
                store.by_identity.insert(identity.clone(), store.slots.len());
                store.slots.push(Slot { identity: identity.clone(), outbox: Outbox::default() });
                store.snapshot(store.slots.len() - 1);
            }
        }
        store.journal.commit()?;
        store.journal.reclaim()?;
        Ok(store)
    }

    /// Number of devices. Their numbers begin at 0.
    pub fn devices(&self) -> usize {
        self.slots.len()
    }

    /// The number of a device.
    pub fn number(&self, identity: &Identity) -> Option<usize> {
        self.by_identity.get(identity).copied()
    }

    /// The device with a number.
    ///
    /// # Errors
    /// [`Error::UnknownDevice`].
    pub fn identity(&self, device: usize) -> Result<&Identity, Error> {
        Ok(&self.slot(device)?.identity)
    }

    /// The outbox of a device.
    ///
    /// # Errors
    /// [`Error::UnknownDevice`].
    pub fn outbox(&self, device: usize) -> Result<&Outbox, Error> {
        Ok(&self.slot(device)?.outbox)
    }

    /// For the sender, which settles events in memory; [`Store::settled`] then makes that durable.
    pub(crate) fn outbox_mut(&mut self, device: usize) -> Result<&mut Outbox, Error> {
        Ok(&mut self.slot_mut(device)?.outbox)
    }

    /// The state that a device brings from its earlier runs.
    ///
    /// # Errors
    /// [`Error::UnknownDevice`].
    pub fn life(&self, device: usize) -> Result<Life, Error> {
        let outbox = self.outbox(device)?;
        Ok(Life { boots: outbox.counter(), injection_no: outbox.lifetime() })
    }

    /// Begins a boot. The next commit forces it to the disk under every fsync policy: a boot id
    /// must never be used twice.
    ///
    /// # Errors
    /// [`Error::UnknownDevice`].
    pub fn begin(&mut self, device: usize, boot_id: u64) -> Result<(), Error> {
        self.slot_mut(device)?.outbox.begin(boot_id);
        self.journal.append(&Record::Boot { device: device as u32, boot_id });
        self.is_boot_pending = true;
        Ok(())
    }

    /// Keeps an event of the current boot, and returns its sequence number. It is durable after
    /// [`Store::commit`].
    ///
    /// `is_in_flight` tells whether the event with (boot, sequence number) was published and waits
    /// for its receipt. Such an event is not given up when the outbox is full.
    ///
    /// # Errors
    /// [`Error::EventTooLarge`], [`Error::UnknownDevice`].
    pub fn offer(
        &mut self,
        device: usize,
        stamp: Stamp,
        context: &[u8],
        kind: Option<Kind>,
        is_in_flight: impl Fn(u64, u64) -> bool,
    ) -> Result<Offered, Error> {
        let lifetime = match &kind {
            Some(Kind::Injection(injection)) => injection.injection_no.unwrap_or(0),
            _ => 0,
        };
        let event = v1::Event { offset_us: 0, kind }.encode_to_vec();
        if context.len() + event.len() + 32 > EVENT_BYTES_MAX {
            return Err(Error::EventTooLarge { bytes: context.len() + event.len(), most: EVENT_BYTES_MAX - 32 });
        }
        let slot = self.slots.get_mut(device).ok_or(Error::UnknownDevice(device))?;
        let Some(boot) = slot.outbox.current() else { return Err(Error::UnknownDevice(device)) };
        let (boot_id, seq) = (boot.id, boot.last_seq + 1);
        let Stamp { uptime_us, unix_us, clock } = stamp;
        let record = EventRecord {
            device: device as u32,
            boot_id,
            seq,
            uptime_us,
            unix_us,
            clock,
            lifetime,
            context,
            event: &event,
        };
        let place = self.journal.append(&Record::Event(record.clone()));
        self.journal.retain(place);
        slot.outbox.keep(boot_id, Entry::new(place, &record), lifetime);
        let given_up = self.give_up(device, is_in_flight)?;
        Ok(Offered { boot_id, seq, given_up })
    }

    fn give_up(&mut self, device: usize, is_in_flight: impl Fn(u64, u64) -> bool) -> Result<Vec<(u64, u64)>, Error> {
        let mut given_up = Vec::new();
        while self.outbox(device)?.bytes() > self.options.outbox_bytes
            && let Some((boot_id, seq)) = self.outbox(device)?.oldest(|boot_id, seq| !is_in_flight(boot_id, seq))
        {
            self.lose(device, boot_id, Interval::new(seq, seq), OUTBOX_FULL)?;
            given_up.push((boot_id, seq));
        }
        Ok(given_up)
    }

    /// Gives up the events of a range, to be declared with a reason. The range may lie after the
    /// last used number.
    ///
    /// # Errors
    /// [`Error::UnknownDevice`].
    pub fn lose(&mut self, device: usize, boot_id: u64, range: Interval, reason: &str) -> Result<(), Error> {
        let places = self.slot_mut(device)?.outbox.lose(boot_id, range, reason);
        self.release(&places);
        self.journal.append(&Record::Lost { device: device as u32, boot_id, range, reason });
        Ok(())
    }

    /// Uses the next `count` sequence numbers of the current boot for events that could not be
    /// kept, for example because the power failed. They are not declared lost. Later boots report
    /// the end of this boot, which covers them.
    ///
    /// # Errors
    /// [`Error::UnknownDevice`].
    pub fn forfeit(&mut self, device: usize, count: u64) -> Result<(), Error> {
        let outbox = &mut self.slot_mut(device)?.outbox;
        if let Some((boot_id, last_seq)) = outbox.current().map(|boot| (boot.id, boot.last_seq + count)) {
            outbox.made(boot_id, last_seq);
            self.journal.append(&Record::Made { device: device as u32, boot_id, last_seq });
        }
        Ok(())
    }

    /// Makes durable what a receipt has settled in the outbox.
    ///
    /// # Errors
    /// [`Error::UnknownDevice`].
    pub fn settled(&mut self, device: usize, boot_id: u64, settlement: &Settlement) -> Result<(), Error> {
        let number = device as u32;
        for range in &settlement.stored {
            self.journal.append(&Record::Settled { device: number, boot_id, range: *range });
        }
        for (boot_id, range) in &settlement.lost {
            self.journal.append(&Record::LostSettled { device: number, boot_id: *boot_id, range: *range });
        }
        for boot_id in &settlement.told {
            self.journal.append(&Record::Told { device: number, boot_id: *boot_id });
        }
        self.release(&settlement.places);
        Ok(())
    }

    /// Moves the events of a rejected report to the log of rejected reports, and returns their
    /// number.
    ///
    /// # Errors
    /// [`Error::UnknownDevice`], [`Error::File`].
    pub fn reject(&mut self, device: usize, rejected: &Rejected) -> Result<usize, Error> {
        let Some(range) = rejected.range else { return Ok(0) };
        let payload = self.report(device, rejected.boot_id, range, Attached::default())?;
        let slot = self.slots.get_mut(device).ok_or(Error::UnknownDevice(device))?;
        self.rejected.add(&slot.identity, rejected, &payload)?;
        let places = slot.outbox.settle(rejected.boot_id, range);
        self.journal.append(&Record::Settled { device: device as u32, boot_id: rejected.boot_id, range });
        self.release(&places);
        Ok(places.len())
    }

    /// The protobuf bytes of a report with the events of `range` that are still in the outbox. They
    /// must be committed.
    ///
    /// # Errors
    /// [`Error::UnknownDevice`], [`Error::File`].
    pub fn report(
        &mut self,
        device: usize,
        boot_id: u64,
        range: Interval,
        attached: Attached,
    ) -> Result<Vec<u8>, Error> {
        let slot = self.slots.get(device).ok_or(Error::UnknownDevice(device))?;
        let mut entries = slot.outbox.boot(boot_id).into_iter().flat_map(|boot| boot.within(range)).peekable();
        let base = entries.peek().copied();
        let mut head = Head { boot_id, lost: attached.lost, earlier: attached.earlier, ..Head::default() };
        let Some(base) = base else { return Ok(Writer::new(head, &[]).finish()) };
        head.first_seq = base.seq;
        (head.base_uptime_us, head.base_unix_us, head.clock) = (base.uptime_us, base.unix_us, base.clock);
        let mut writer = None;
        let mut next_seq = base.seq;
        for entry in entries.take_while(|entry| {
            // If an overlapping receipt has left a gap, the report ends there. The rest follows
            // when it is due.
            next_seq += 1;
            entry.seq + 1 == next_seq
        }) {
            self.journal.read(entry.place, &mut self.body)?;
            if let Some(Record::Event(event)) = record::decode(&self.body) {
                writer
                    .get_or_insert_with(|| Writer::new(head.clone(), event.context))
                    .event(event.uptime_us, event.event);
            }
        }
        Ok(writer.map(Writer::finish).unwrap_or_default())
    }

    /// Writes the records appended since the last commit, as the fsync policy says, and maintains
    /// the journal's segments.
    ///
    /// # Errors
    /// [`Error::File`]. The process must not continue.
    pub fn commit(&mut self) -> Result<(), Error> {
        self.journal.commit()?;
        if std::mem::take(&mut self.is_boot_pending) {
            self.journal.sync()?;
        }
        if self.journal.is_full() {
            self.roll()?;
        }
        Ok(())
    }

    /// Forces all records to the disk.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn sync(&mut self) -> Result<(), Error> {
        self.journal.commit()?;
        self.journal.sync()
    }

    fn roll(&mut self) -> Result<(), Error> {
        self.journal.roll()?;
        (0..self.slots.len()).for_each(|device| self.snapshot(device));
        self.journal.commit()?;
        self.journal.reclaim()?;
        // A device that is silent for long keeps old segments alive. Its live records are appended
        // again once that is worthwhile.
        let live: u64 = self.slots.iter().map(|slot| slot.outbox.bytes()).sum();
        let worth = 4 + usize::try_from(2 * live / self.journal.segment_bytes()).unwrap_or(usize::MAX / 2);
        if let Some(oldest) = self.journal.oldest_beyond(worth) {
            self.relocate(oldest)?;
            self.journal.commit()?;
            self.journal.reclaim()?;
        }
        tracing::debug!(segments = self.journal.segments(), live_bytes = live, "journal segment full");
        Ok(())
    }

    fn relocate(&mut self, segment: u32) -> Result<(), Error> {
        for slot in &mut self.slots {
            let moved: Vec<(u64, u64, Place)> = slot
                .outbox
                .boots()
                .iter()
                .flat_map(|boot| boot.entries().iter().map(|entry| (boot.id, entry.seq, entry.place)))
                .filter(|(_, _, place)| place.segment == segment)
                .collect();
            for (boot_id, seq, old) in moved {
                self.journal.read(old, &mut self.body)?;
                if let Some(record) = record::decode(&self.body) {
                    let place = self.journal.append(&record);
                    self.journal.retain(place);
                    slot.outbox.relocate(boot_id, seq, place);
                    self.journal.release(old);
                }
            }
        }
        Ok(())
    }

    fn snapshot(&mut self, device: usize) {
        if let Some(slot) = self.slots.get(device) {
            let (name, (counter, lifetime, boots)) = (slot.identity.to_string(), slot.outbox.state());
            self.journal.append(&Record::Snapshot { device: device as u32, name: &name, counter, lifetime, boots });
        }
    }

    fn release(&mut self, places: &[Place]) {
        places.iter().for_each(|place| self.journal.release(*place));
    }

    fn slot(&self, device: usize) -> Result<&Slot, Error> {
        self.slots.get(device).ok_or(Error::UnknownDevice(device))
    }

    fn slot_mut(&mut self, device: usize) -> Result<&mut Slot, Error> {
        self.slots.get_mut(device).ok_or(Error::UnknownDevice(device))
    }
}

/// Result of [`Store::offer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Boot of the event.
    pub boot_id: u64,
    /// Sequence number of the event.
    pub seq: u64,
    /// Events that were given up because the outbox was full: (boot, sequence number).
    pub given_up: Vec<(u64, u64)>,
}

/// Rebuilds the outboxes from the journal's records.
#[derive(Default)]
struct Replay {
    slots: Vec<Slot>,
    live: Vec<Place>,
    dead: Vec<Place>,
}

impl Replay {
    fn record(&mut self, place: Place, record: &Record<'_>) {
        if let Record::Snapshot { device, name, counter, lifetime, boots } = record {
            self.snapshot(*device, name, *counter, *lifetime, boots.clone());
            return;
        }
        let device = match record {
            Record::Boot { device, .. }
            | Record::Settled { device, .. }
            | Record::Lost { device, .. }
            | Record::LostSettled { device, .. }
            | Record::Made { device, .. }
            | Record::Told { device, .. } => *device,
            Record::Event(event) => event.device,
            Record::Snapshot { device, .. } => *device,
        };
        let Some(slot) = self.slots.get_mut(device as usize) else {
            tracing::warn!(device, "record of a device without a snapshot skipped");
            return;
        };
        let outbox = &mut slot.outbox;
        match record {
            Record::Boot { boot_id, .. } => outbox.begin(*boot_id),
            Record::Event(event) => {
                self.live.push(place);
                self.dead.extend(outbox.keep(event.boot_id, Entry::new(place, event), event.lifetime));
            }
            Record::Settled { boot_id, range, .. } => self.dead.extend(outbox.settle(*boot_id, *range)),
            Record::Lost { boot_id, range, reason, .. } => self.dead.extend(outbox.lose(*boot_id, *range, reason)),
            Record::LostSettled { boot_id, range, .. } => outbox.lost_settled(*boot_id, *range),
            Record::Made { boot_id, last_seq, .. } => outbox.made(*boot_id, *last_seq),
            Record::Told { boot_id, .. } => outbox.told(*boot_id),
            Record::Snapshot { .. } => {}
        }
    }

    fn snapshot(&mut self, device: u32, name: &str, counter: u32, lifetime: u64, boots: Vec<record::BootState>) {
        let Some(identity) = Identity::parse(name) else {
            tracing::warn!(device, name, "snapshot with a bad name skipped");
            return;
        };
        let device = device as usize;
        // Numbers are assigned in order, so a gap means a damaged segment. Its devices have no
        // known name.
        while self.slots.len() <= device {
            self.slots.push(Slot { identity: identity.clone(), outbox: Outbox::default() });
        }
        self.slots[device].identity = identity;
        self.dead.extend(self.slots[device].outbox.restore(counter, lifetime, boots));
    }
}

/// Whether a directory already holds outboxes.
pub fn exists(dir: &Path) -> bool {
    std::fs::read_dir(dir).is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with("outbox-")))
        })
    })
}

#[cfg(test)]
mod tests;
