//! Records of the journal as bytes: `length u32 | crc32c u32 | body`, little-endian; the checksum
//! covers the body.

use telemetry::{interval::Interval, v1::Clock};

/// Bytes in front of a body.
pub(crate) const FRAME_BYTES: usize = 8;
/// Longest body. A larger length means a torn or foreign record.
pub(crate) const BODY_BYTES_MAX: usize = 512 * 1024;

/// The state of one boot in a device's outbox, without its events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BootState {
    pub id: u64,
    pub last_seq: u64,
    pub told: bool,
    pub lost: Vec<(Interval, String)>,
}

/// One record of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record<'a> {
    /// The state of a device's outbox without its events. It also binds the device's number to its
    /// name.
    Snapshot {
        device: u32,
        name: &'a str,
        counter: u32,
        lifetime: u64,
        boots: Vec<BootState>,
    },
    /// A boot began.
    Boot {
        device: u32,
        boot_id: u64,
    },
    Event(EventRecord<'a>),
    /// Events that are no longer needed.
    Settled {
        device: u32,
        boot_id: u64,
        range: Interval,
    },
    /// Events that were given up and must be declared.
    Lost {
        device: u32,
        boot_id: u64,
        range: Interval,
        reason: &'a str,
    },
    /// A declared loss that is receipted.
    LostSettled {
        device: u32,
        boot_id: u64,
        range: Interval,
    },
    /// Sequence numbers up to this one were used, stored or not.
    Made {
        device: u32,
        boot_id: u64,
        last_seq: u64,
    },
    /// A report that named this boot as an earlier one is receipted.
    Told {
        device: u32,
        boot_id: u64,
    },
}

/// An event with everything that a report needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventRecord<'a> {
    pub device: u32,
    pub boot_id: u64,
    pub seq: u64,
    pub uptime_us: u64,
    pub unix_us: i64,
    pub clock: Clock,
    /// The device's lifetime injection counter after the event; 0 if the event does not contain it.
    pub lifetime: u64,
    /// The encoded `Context`.
    pub context: &'a [u8],
    /// The encoded `Event` without its offset.
    pub event: &'a [u8],
}

const SNAPSHOT: u8 = 1;
const BOOT: u8 = 2;
const EVENT: u8 = 3;
const SETTLED: u8 = 4;
const LOST: u8 = 5;
const LOST_SETTLED: u8 = 6;
const MADE: u8 = 7;
const TOLD: u8 = 8;

/// Appends a framed record, and returns the length of its body.
pub(crate) fn encode(record: &Record<'_>, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend([0; FRAME_BYTES]);
    match record {
        Record::Snapshot { device, name, counter, lifetime, boots } => {
            head(out, SNAPSHOT, *device);
            text(out, name);
            out.extend(counter.to_le_bytes());
            out.extend(lifetime.to_le_bytes());
            out.extend((boots.len() as u32).to_le_bytes());
            boots.iter().for_each(|boot| encode_boot(out, boot));
        }
        Record::Boot { device, boot_id } => {
            head(out, BOOT, *device);
            out.extend(boot_id.to_le_bytes());
        }
        Record::Event(event) => encode_event(out, event),
        Record::Settled { device, boot_id, range } => {
            head(out, SETTLED, *device);
            out.extend(boot_id.to_le_bytes());
            interval(out, *range);
        }
        Record::Lost { device, boot_id, range, reason } => {
            head(out, LOST, *device);
            out.extend(boot_id.to_le_bytes());
            interval(out, *range);
            text(out, reason);
        }
        Record::LostSettled { device, boot_id, range } => {
            head(out, LOST_SETTLED, *device);
            out.extend(boot_id.to_le_bytes());
            interval(out, *range);
        }
        Record::Made { device, boot_id, last_seq } => {
            head(out, MADE, *device);
            out.extend(boot_id.to_le_bytes());
            out.extend(last_seq.to_le_bytes());
        }
        Record::Told { device, boot_id } => {
            head(out, TOLD, *device);
            out.extend(boot_id.to_le_bytes());
        }
    }
    let length = out.len() - start - FRAME_BYTES;
    let crc = crc32c::crc32c(&out[start + FRAME_BYTES..]);
    out[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
    out[start + 4..start + FRAME_BYTES].copy_from_slice(&crc.to_le_bytes());
    length
}

fn encode_event(out: &mut Vec<u8>, event: &EventRecord<'_>) {
    head(out, EVENT, event.device);
    out.extend(event.boot_id.to_le_bytes());
    out.extend(event.seq.to_le_bytes());
    out.extend(event.uptime_us.to_le_bytes());
    out.extend(event.unix_us.to_le_bytes());
    out.push(event.clock as u8);
    out.extend(event.lifetime.to_le_bytes());
    out.extend((event.context.len() as u32).to_le_bytes());
    out.extend(event.context);
    out.extend(event.event);
}

fn encode_boot(out: &mut Vec<u8>, boot: &BootState) {
    out.extend(boot.id.to_le_bytes());
    out.extend(boot.last_seq.to_le_bytes());
    out.push(u8::from(boot.told));
    out.extend((boot.lost.len() as u32).to_le_bytes());
    for (range, reason) in &boot.lost {
        interval(out, *range);
        text(out, reason);
    }
}

fn head(out: &mut Vec<u8>, tag: u8, device: u32) {
    out.push(tag);
    out.extend(device.to_le_bytes());
}

fn interval(out: &mut Vec<u8>, range: Interval) {
    out.extend(range.first.to_le_bytes());
    out.extend(range.last.to_le_bytes());
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u32).to_le_bytes());
    out.extend(text.as_bytes());
}

/// The body of the record at the start of `bytes`; `None` if it is torn or its checksum is wrong.
pub(crate) fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length) as usize;
    if length == 0 || length > BODY_BYTES_MAX {
        return None;
    }
    let body = rest.get(..length)?;
    (crc32c::crc32c(body) == u32::from_le_bytes(*crc)).then_some(body)
}

/// Reads a body; `None` if this program did not write it.
pub(crate) fn decode(body: &[u8]) -> Option<Record<'_>> {
    let mut reader = Reader(body);
    let (tag, device) = (reader.u8()?, reader.u32()?);
    Some(match tag {
        SNAPSHOT => {
            let (name, counter, lifetime) = (reader.text()?, reader.u32()?, reader.u64()?);
            let count = reader.u32()?;
            let boots = (0..count).map(|_| reader.boot()).collect::<Option<_>>()?;
            Record::Snapshot { device, name, counter, lifetime, boots }
        }
        BOOT => Record::Boot { device, boot_id: reader.u64()? },
        EVENT => Record::Event(reader.event(device)?),
        SETTLED => Record::Settled { device, boot_id: reader.u64()?, range: reader.interval()? },
        LOST => Record::Lost { device, boot_id: reader.u64()?, range: reader.interval()?, reason: reader.text()? },
        LOST_SETTLED => Record::LostSettled { device, boot_id: reader.u64()?, range: reader.interval()? },
        MADE => Record::Made { device, boot_id: reader.u64()?, last_seq: reader.u64()? },
        TOLD => Record::Told { device, boot_id: reader.u64()? },
        _ => return None,
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (value, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*value)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        let (value, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(value)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    fn interval(&mut self) -> Option<Interval> {
        let (first, last) = (self.u64()?, self.u64()?);
        (first <= last).then(|| Interval::new(first, last))
    }

    fn boot(&mut self) -> Option<BootState> {
        let (id, last_seq, told) = (self.u64()?, self.u64()?, self.u8()? != 0);
        let count = self.u32()?;
        let lost = (0..count).map(|_| Some((self.interval()?, self.text()?.to_owned()))).collect::<Option<Vec<_>>>()?;
        Some(BootState { id, last_seq, told, lost })
    }

    fn event(&mut self, device: u32) -> Option<EventRecord<'a>> {
        Some(EventRecord {
            device,
            boot_id: self.u64()?,
            seq: self.u64()?,
            uptime_us: self.u64()?,
            unix_us: i64::from_le_bytes(self.array()?),
            clock: Clock::try_from(i32::from(self.u8()?)).unwrap_or_default(),
            lifetime: self.u64()?,
            context: self.bytes()?,
            event: self.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_and_damage_is_seen() {
        let lost = vec![(Interval::new(3, 4), "outbox full".to_owned())];
        let boots = vec![BootState { id: 7, last_seq: 9, told: true, lost }];
        let event = EventRecord {
            device: 4,
            boot_id: 1 << 32,
            seq: 3,
            uptime_us: 5,
            unix_us: -6,
            clock: Clock::Synced,
            lifetime: 8,
            context: b"context",
            event: b"event",
        };
        let range = Interval::new(1, 2);
        for record in [
            Record::Snapshot { device: 1, name: "a/b/c", counter: 2, lifetime: 3, boots },
            Record::Boot { device: 1, boot_id: 5 },
            Record::Event(event),
            Record::Settled { device: 1, boot_id: 5, range },
            Record::Lost { device: 1, boot_id: 5, range, reason: "outbox full" },
            Record::LostSettled { device: 1, boot_id: 5, range },
            Record::Made { device: 1, boot_id: 5, last_seq: 6 },
            Record::Told { device: 1, boot_id: 5 },
        ] {
            let mut bytes = Vec::new();
            let length = encode(&record, &mut bytes);
            assert_eq!(decode(frame(&bytes).unwrap()).unwrap(), record);
            assert_eq!(bytes.len(), length + FRAME_BYTES);
            for index in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[index] ^= 0x40;
                assert_eq!(frame(&damaged).and_then(decode), None, "byte {index} of {record:?}");
                assert_eq!(frame(&bytes[..index]), None);
            }
        }
    }
}
