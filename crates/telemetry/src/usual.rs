//! Reports as devices usually send them: injections and nothing else, all in order. They are read
//! in one pass, checked and taken where they lie.
//!
//! Whatever else a report may hold, and whatever is wrong with one, is left to the full decoder of
//! [`crate::report`]. Both read the same out of the same bytes; the tests hold them against each
//! other.

use crate::{
    interval::Interval,
    limits::{EVENTS_MAX, MOUNTS_MAX, REPORT_BYTES_MAX, SEQ_MAX},
    text::{is_plain_id, is_plain_text},
    v1::{self, Clock},
    wire::{Value, field, field_before},
};

/// Takes what is read of a report's bytes; each method does nothing where that is not wanted.
pub(crate) trait Take<'b> {
    /// An injection.
    type Injection: Default + TakeFields;
    /// A number of the report, fields 1 to 5.
    fn number(&mut self, _field: u32, _value: u64) {}
    /// A text of the context.
    fn context_text(&mut self, _field: u32, _text: &str) {}
    /// The visit of the context.
    fn session(&mut self, _id: &[u8]) {}
    /// The number of unknown fields in a context that was taken before; it is not read again.
    fn known(&mut self, _context: &'b [u8]) -> Option<usize> {
        None
    }
    /// All of the context was taken; it has so many unknown fields.
    fn context(&mut self, _context: &'b [u8], _unknown: usize) {}
    /// A mount of the context.
    fn mount(&mut self, _slot: i32, _mount_id: &str, _item_id: &str) {}
    /// There are about so many events.
    fn expect(&mut self, _events: usize) {}
    /// An event.
    fn event(&mut self, _offset_us: u64, _injection: Option<Self::Injection>) {}
}

/// Takes the fields of an injection, all of which are numbers.
pub(crate) trait TakeFields {
    /// One of them.
    fn set(&mut self, field: u32, value: u64);
}

/// Nothing is wanted.
impl Take<'_> for () {
    type Injection = ();
}

impl TakeFields for () {
    fn set(&mut self, _field: u32, _value: u64) {}
}

impl TakeFields for v1::Injection {
    #[inline(always)]
    fn set(&mut self, field: u32, value: u64) {
        // A number too large for its field loses its upper bits, as everywhere in protobuf.
        match field {
            1 => self.shot = Some(value as u32),
            2 => self.injection_no = Some(value),
            3 => self.mode = value as i32,
            4 => self.outcome = value as i32,
            5 => self.area = value as i32,
            6 => self.target_nl = Some(value),
            7 => self.delivered_nl = Some(value),
            8 => self.target_um = Some(value as u32),
            9 => self.measured_um = Some(value as u32),
            10 => self.dose_source = value as i32,
            11 => self.depth_source = value as i32,
            12 => self.angle_mdeg = Some(value as u32),
            13 => self.duration_us = Some(value),
            14 => self.punctures = Some(value as u32),
            15 => self.needle_count = Some(value as u32),
            16 => self.peak_force_mn = Some(value as u32),
            17 => self.pressure_pa = Some(value as i32),
            18 => self.vacuum_pa = Some(value as u32),
            _ => self.motor_ma = Some(value as u32),
        }
    }
}

/// The identity of a report, and what is unknown in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub boot_id: u64,
    pub sequence: Option<Interval>,
    pub unknown: usize,
}

/// Reads a valid report that holds injections and nothing else. None says nothing about the report,
/// and what was taken until then is worth nothing.
pub(crate) fn read<'b, T: Take<'b>>(bytes: &'b [u8], taken: &mut T) -> Option<Head> {
    if bytes.len() > REPORT_BYTES_MAX {
        return None;
    }
    let (mut boot_id, mut first_seq, mut clock, mut contexts, mut events, mut unknown) = (0, 0, 0, 0, 0, 0);
    let mut rest = bytes;
    while !rest.is_empty() {
        match field(&mut rest)? {
            (1, Value::Fixed64(value)) => {
                boot_id = value;
                taken.number(1, value);
            }
            (number @ 2..=5, Value::Varint(value)) => {
                match number {
                    2 => first_seq = value,
                    5 => clock = value as i32,
                    _ => {}
                }
                taken.number(number, value);
            }
            (6, Value::Bytes(context)) => {
                contexts += 1;
                unknown += match taken.known(context) {
                    Some(unknown) => unknown,
                    None => read_context(context, taken)?,
                };
            }
            (7, Value::Bytes(event)) => {
                if events == 0 {
                    // The others are mostly as long.
                    taken.expect((rest.len() / (event.len() + 2) + 1).min(EVENTS_MAX));
                }
                events += 1;
                unknown += read_event(&bytes[bytes.len() - rest.len() - event.len()..], rest.len(), taken)?;
            }
            (1..=9, _) => return None,
            _ => unknown += 1,
        }
    }
    let end = u64::checked_add(first_seq, events).filter(|end| *end <= SEQ_MAX)?;
    let counts = boot_id > 0 && first_seq > 0 && contexts <= 1 && (1..=EVENTS_MAX as u64).contains(&events);
    unknown += usize::from(Clock::try_from(clock).is_err());
    counts.then(|| Head { boot_id, sequence: Some(Interval::new(first_seq, end - 1)), unknown })
}

/// The number of unknown fields.
fn read_context<'b, T: Take<'b>>(context: &'b [u8], taken: &mut T) -> Option<usize> {
    let (mut mounts, mut unknown, mut rest) = (0, 0, context);
    while !rest.is_empty() {
        match field(&mut rest)? {
            (number @ 1..=2, Value::Bytes(value)) => taken.context_text(number, label(value)?),
            (3, Value::Bytes(value)) => {
                matches!(value.len(), 0 | 16).then_some(())?;
                taken.session(value);
            }
            (4, Value::Bytes(mut mount)) => {
                mounts += 1;
                (mounts <= MOUNTS_MAX).then_some(())?;
                let (mut slot, mut mount_id, mut item_id) = (0, "", "");
                while !mount.is_empty() {
                    match field(&mut mount)? {
                        (1, Value::Varint(value)) => slot = value as i32,
                        (2, Value::Bytes(value)) => mount_id = name(value)?,
                        (3, Value::Bytes(value)) => item_id = label(value)?,
                        (4.., _) => {}
                        _ => return None,
                    }
                }
                taken.mount(slot, mount_id, item_id);
            }
            (number @ 5..=8, Value::Bytes(value)) => taken.context_text(number, name(value)?),
            (1..=8, _) => return None,
            _ => unknown += 1,
        }
    }
    taken.context(context, unknown);
    Some(unknown)
}

/// The number of unknown fields of an event that ends so many bytes before `event` does.
#[inline]
fn read_event<'b, T: Take<'b>>(event: &[u8], after: usize, taken: &mut T) -> Option<usize> {
    let (mut offset_us, mut injection, mut unknown, mut rest) = (0, None, 0, event);
    while rest.len() > after {
        match field_before(&mut rest, after)? {
            (1, Value::Varint(value)) => offset_us = value,
            (2, Value::Bytes(fields)) if injection.is_none() => {
                let injection = injection.insert(T::Injection::default());
                let (mut fields, after) = (&event[event.len() - rest.len() - fields.len()..], rest.len());
                while fields.len() > after {
                    match field_before(&mut fields, after)? {
                        (number @ 1..=19, Value::Varint(value)) => injection.set(number, value),
                        (1..=19, _) => return None,
                        _ => unknown += 1,
                    }
                }
                (fields.len() == after).then_some(())?;
            }
            (1..=15, _) => return None,
            _ => unknown += 1,
        }
    }
    (rest.len() == after).then_some(())?;
    taken.event(offset_us, injection);
    Some(unknown)
}

/// What stands on a label or was typed by somebody.
fn label(value: &[u8]) -> Option<&str> {
    let value = std::str::from_utf8(value).ok()?;
    is_plain_text(value).then_some(value)
}

/// A generated id.
fn name(value: &[u8]) -> Option<&str> {
    let value = std::str::from_utf8(value).ok()?;
    is_plain_id(value).then_some(value)
}
