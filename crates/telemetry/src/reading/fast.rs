//! The fast reader: reports of injections and nothing else, as devices usually send them. It reads,
//! checks and takes each field in one pass, without decoding the message first.
//!
//! Whatever else a report may hold, and whatever is wrong with one, is left to
//! [`crate::reading::full`]. Both read the same from the same bytes; the tests compare them.

use crate::{
    interval::Interval,
    limits::{EVENTS_MAX, MOUNTS_MAX, REPORT_BYTES_MAX, SEQ_MAX},
    reading::{
        number::{context, event, injection, mount_in_use, report},
        wire::{Value, field, field_before},
    },
    text::{is_plain_id, is_plain_text},
    v1::{self, Clock},
};

/// Receives what is read of a report. A method that an implementation leaves out ignores its part.
pub(crate) trait Visitor<'b> {
    /// What an injection becomes.
    type Injection: Default + Numbers;
    /// The numbers of the report; called last.
    fn numbers(&mut self, _numbers: &ReportNumbers) {}
    fn context_text(&mut self, _field: ContextText, _text: &str) {}
    fn session(&mut self, _id: &[u8]) {}
    /// Returns the number of unknown fields if this context was visited before. It is then not read
    /// again.
    fn known(&mut self, _context: &'b [u8]) -> Option<usize> {
        None
    }
    /// The context was read to its end and has this many unknown fields.
    fn context(&mut self, _context: &'b [u8], _unknown: usize) {}
    /// A mount of the context.
    fn mount(&mut self, _slot: i32, _mount_id: &str, _item_id: &str) {}
    /// An estimate of the number of events, before the first.
    fn expect(&mut self, _events: usize) {}
    fn event(&mut self, _offset_us: u64, _injection: Option<Self::Injection>) {}
}

/// The numbers of a report, as they came.
#[derive(Clone, Copy, Default)]
pub(crate) struct ReportNumbers {
    pub boot_id: u64,
    pub first_seq: u64,
    pub base_unix_us: i64,
    pub base_uptime_us: u64,
    pub clock: i32,
}

/// The texts of a context.
#[derive(Clone, Copy)]
pub(crate) enum ContextText {
    Model,
    Firmware,
    DoseCalibrationId,
    DepthCalibrationId,
    PreparationId,
    OperatorId,
}

/// Takes the fields of an injection, all of which are varints.
pub(crate) trait Numbers {
    /// Takes one field; false if this reader does not know its number.
    fn set(&mut self, number: u32, value: u64) -> bool;
}

/// Ignores everything.
impl Visitor<'_> for () {
    type Injection = ();
}

impl Numbers for () {
    /// The list of fields stands in one place only, below.
    #[inline(always)]
    fn set(&mut self, number: u32, value: u64) -> bool {
        v1::Injection::default().set(number, value)
    }
}

impl Numbers for v1::Injection {
    #[inline(always)]
    fn set(&mut self, number: u32, value: u64) -> bool {
        // A number too large for its field loses its upper bits, as everywhere in protobuf.
        match number {
            injection::SHOT => self.shot = Some(value as u32),
            injection::INJECTION_NO => self.injection_no = Some(value),
            injection::MODE => self.mode = value as i32,
            injection::OUTCOME => self.outcome = value as i32,
            injection::AREA => self.area = value as i32,
            injection::TARGET_NL => self.target_nl = Some(value),
            injection::DELIVERED_NL => self.delivered_nl = Some(value),
            injection::TARGET_UM => self.target_um = Some(value as u32),
            injection::MEASURED_UM => self.measured_um = Some(value as u32),
            injection::DOSE_SOURCE => self.dose_source = value as i32,
            injection::DEPTH_SOURCE => self.depth_source = value as i32,
            injection::ANGLE_MDEG => self.angle_mdeg = Some(value as u32),
            injection::DURATION_US => self.duration_us = Some(value),
            injection::PUNCTURES => self.punctures = Some(value as u32),
            injection::NEEDLE_COUNT => self.needle_count = Some(value as u32),
            injection::PEAK_FORCE_MN => self.peak_force_mn = Some(value as u32),
            injection::PRESSURE_PA => self.pressure_pa = Some(value as i32),
            injection::VACUUM_PA => self.vacuum_pa = Some(value as u32),
            injection::MOTOR_MA => self.motor_ma = Some(value as u32),
            _ => return false,
        }
        true
    }
}

/// The identity of a report, and how many fields and enum values in it are unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub boot_id: u64,
    /// The sequence numbers of the events.
    pub sequence: Option<Interval>,
    /// Fields and enum values that this version does not know.
    pub unknown: usize,
}

/// Reads a valid report that holds injections and nothing else. Returns `None` if the report needs
/// the full reader; it may still be valid. Discard whatever the visitor has collected.
pub(crate) fn read<'b, V: Visitor<'b>>(bytes: &'b [u8], visitor: &mut V) -> Option<Head> {
    if bytes.len() > REPORT_BYTES_MAX {
        return None;
    }
    let (mut numbers, mut contexts, mut events, mut unknown) = (ReportNumbers::default(), 0, 0, 0);
    let mut rest = bytes;
    while !rest.is_empty() {
        match field(&mut rest)? {
            (report::BOOT_ID, Value::Fixed64(value)) => numbers.boot_id = value,
            (report::FIRST_SEQ, Value::Varint(value)) => numbers.first_seq = value,
            (report::BASE_UNIX_US, Value::Varint(value)) => numbers.base_unix_us = value.cast_signed(),
            (report::BASE_UPTIME_US, Value::Varint(value)) => numbers.base_uptime_us = value,
            (report::CLOCK, Value::Varint(value)) => numbers.clock = value as i32,
            (report::CONTEXT, Value::Bytes(context)) => {
                contexts += 1;
                unknown += match visitor.known(context) {
                    Some(unknown) => unknown,
                    None => read_context(context, visitor)?,
                };
            }
            (report::EVENTS, Value::Bytes(event)) => {
                if events == 0 {
                    // The others are mostly as long.
                    visitor.expect((rest.len() / (event.len() + 2) + 1).min(EVENTS_MAX));
                }
                events += 1;
                unknown += read_event(&bytes[bytes.len() - rest.len() - event.len()..], rest.len(), visitor)?;
            }
            (number, _) if report::is_known(number) => return None,
            _ => unknown += 1,
        }
    }
    let ReportNumbers { boot_id, first_seq, clock, .. } = numbers;
    let end = u64::checked_add(first_seq, events).filter(|end| *end <= SEQ_MAX)?;
    let counts = boot_id > 0 && first_seq > 0 && contexts <= 1 && (1..=EVENTS_MAX as u64).contains(&events);
    unknown += usize::from(Clock::try_from(clock).is_err());
    visitor.numbers(&numbers);
    counts.then(|| Head { boot_id, sequence: Some(Interval::new(first_seq, end - 1)), unknown })
}

/// Returns the number of unknown fields.
fn read_context<'b, V: Visitor<'b>>(bytes: &'b [u8], visitor: &mut V) -> Option<usize> {
    let (mut mounts, mut unknown, mut rest) = (0, 0, bytes);
    while !rest.is_empty() {
        match field(&mut rest)? {
            (context::MODEL, Value::Bytes(value)) => visitor.context_text(ContextText::Model, label(value)?),
            (context::FIRMWARE, Value::Bytes(value)) => visitor.context_text(ContextText::Firmware, label(value)?),
            (context::SESSION_ID, Value::Bytes(value)) => {
                matches!(value.len(), 0 | 16).then_some(())?;
                visitor.session(value);
            }
            (context::MOUNTS, Value::Bytes(mount)) => {
                mounts += 1;
                (mounts <= MOUNTS_MAX).then_some(())?;
                read_mount(mount, visitor)?;
            }
            (context::DOSE_CALIBRATION_ID, Value::Bytes(value)) => {
                visitor.context_text(ContextText::DoseCalibrationId, id(value)?);
            }
            (context::DEPTH_CALIBRATION_ID, Value::Bytes(value)) => {
                visitor.context_text(ContextText::DepthCalibrationId, id(value)?);
            }
            (context::PREPARATION_ID, Value::Bytes(value)) => {
                visitor.context_text(ContextText::PreparationId, id(value)?);
            }
            (context::OPERATOR_ID, Value::Bytes(value)) => visitor.context_text(ContextText::OperatorId, id(value)?),
            (number, _) if context::is_known(number) => return None,
            _ => unknown += 1,
        }
    }
    visitor.context(bytes, unknown);
    Some(unknown)
}

/// Unknown fields of a mount are skipped without being counted, as `full` does.
fn read_mount<'b, V: Visitor<'b>>(mut mount: &'b [u8], visitor: &mut V) -> Option<()> {
    let (mut slot, mut mount_id, mut item_id) = (0, "", "");
    while !mount.is_empty() {
        match field(&mut mount)? {
            (mount_in_use::SLOT, Value::Varint(value)) => slot = value as i32,
            (mount_in_use::MOUNT_ID, Value::Bytes(value)) => mount_id = id(value)?,
            (mount_in_use::ITEM_ID, Value::Bytes(value)) => item_id = label(value)?,
            (number, _) if mount_in_use::is_known(number) => return None,
            _ => {}
        }
    }
    visitor.mount(slot, mount_id, item_id);
    Some(())
}

/// Returns the number of unknown fields of an event that ends `after` bytes before `bytes` end.
#[inline]
fn read_event<'b, V: Visitor<'b>>(bytes: &[u8], after: usize, visitor: &mut V) -> Option<usize> {
    let (mut offset_us, mut injection, mut unknown, mut rest) = (0, None, 0, bytes);
    while rest.len() > after {
        match field_before(&mut rest, after)? {
            (event::OFFSET_US, Value::Varint(value)) => offset_us = value,
            (event::INJECTION, Value::Bytes(fields)) if injection.is_none() => {
                let injection = injection.insert(V::Injection::default());
                let (mut fields, after) = (&bytes[bytes.len() - rest.len() - fields.len()..], rest.len());
                while fields.len() > after {
                    match field_before(&mut fields, after)? {
                        (number, Value::Varint(value)) if injection.set(number, value) => {}
                        (number, _) if injection::is_known(number) => return None,
                        _ => unknown += 1,
                    }
                }
                (fields.len() == after).then_some(())?;
            }
            (number, _) if event::is_known(number) => return None,
            _ => unknown += 1,
        }
    }
    (rest.len() == after).then_some(())?;
    visitor.event(offset_us, injection);
    Some(unknown)
}

/// A text from a label, or one that a person typed.
fn label(value: &[u8]) -> Option<&str> {
    let value = std::str::from_utf8(value).ok()?;
    is_plain_text(value).then_some(value)
}

/// A generated id.
fn id(value: &[u8]) -> Option<&str> {
    let value = std::str::from_utf8(value).ok()?;
    is_plain_id(value).then_some(value)
}
