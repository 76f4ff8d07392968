//! Validated reports. A [`Report`] exists only if its bytes keep every limit of the contract.

use std::{collections::HashMap, sync::Arc};

use foldhash::quality::RandomState;
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};

use crate::{
    interval::Interval,
    limits::{DETAIL_LEN_MAX, EARLIER_BOOTS_MAX, EVENTS_MAX, LOST_MAX, MOUNTS_MAX, SEQ_MAX, TEXT_LEN_MAX},
    reading::{
        events,
        fast::{self, ContextText, ReportNumbers, Visitor},
        full::{self, Decoded},
        number,
    },
    reject::{Reason, Reject},
    text::{self, is_plain_id, is_plain_text},
    v1::{self, event::Kind},
};

/// A report that keeps every limit of the contract.
///
/// Checked are the framing, counts, lengths, boot and sequence numbers. Whether values are
/// plausible is decided event by event ([`crate::plausibility`]). An event that cannot be used
/// keeps its place and its sequence number; [`Report::texts`] says why.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Without its context.
    message: v1::Report,
    context: Option<Arc<v1::Context>>,
    unknown: usize,
    /// Flags of the context's texts.
    flags: u32,
    /// Events whose texts have flags or that cannot be used, in the order of their indices; nearly
    /// always none.
    notes: Vec<(usize, Result<u32, Reject>)>,
}

impl Report {
    /// Decodes and validates protobuf bytes.
    ///
    /// # Errors
    /// The first limit that is not kept, see [`Reason`].
    pub fn decode(bytes: &[u8]) -> Result<Self, Reject> {
        Self::decode_among(bytes, &mut Contexts::default())
    }

    /// [`Self::decode`] of one of several reports that mostly have the same contexts.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_among<'b>(bytes: &'b [u8], contexts: &mut Contexts<'b>) -> Result<Self, Reject> {
        let mut reading = Reading::new(contexts);
        match fast::read(bytes, &mut reading) {
            Some(head) => Ok(Self {
                message: reading.message,
                context: reading.context,
                unknown: head.unknown,
                flags: 0,
                notes: Vec::new(),
            }),
            None => Self::decode_fully(bytes),
        }
    }

    /// Decodes whatever a report may hold, and says what is wrong with one. The other functions use
    /// it for what the fast reader leaves, and tests compare them with it.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn decode_fully(bytes: &[u8]) -> Result<Self, Reject> {
        let Decoded { mut message, unknown_fields, faults } = full::decode(bytes)?;
        let unknown = unknown_fields + usize::from(v1::Clock::try_from(message.clock).is_err());
        let flags = validate(&mut message)?;
        let (mut faults, mut notes) = (faults.into_iter().peekable(), Vec::new());
        for (index, event) in message.events.iter_mut().enumerate() {
            let note = match faults.next_if(|(fault, _)| *fault == index) {
                Some((_, reject)) => Err(reject),
                None => event_texts(event),
            };
            if note != Ok(0) {
                notes.push((index, note));
            }
        }
        let context = message.context.take().map(Arc::new);
        Ok(Self { message, context, unknown, flags, notes })
    }

    /// The flags of an event's row, from its texts and those of the context: [`text::TRIMMED`],
    /// [`text::STRANGE`].
    ///
    /// # Errors
    /// The event cannot be used: it could not be decoded, or one of its texts is too long.
    #[inline]
    pub fn texts(&self, index: usize) -> Result<u32, &Reject> {
        if self.notes.is_empty() {
            return Ok(self.flags);
        }
        match self.notes.binary_search_by_key(&index, |(index, _)| *index) {
            Ok(at) => self.notes[at].1.as_ref().map(|flags| flags | self.flags),
            Err(_) => Ok(self.flags),
        }
    }

    /// The boot.
    pub fn boot_id(&self) -> u64 {
        self.message.boot_id
    }

    /// The sequence numbers of the events. `None` for heartbeats outside the sequence and for
    /// reports without events.
    pub fn sequence(&self) -> Option<Interval> {
        let (first, count) = (self.message.first_seq, self.message.events.len() as u64);
        (first > 0 && count > 0).then(|| Interval::new(first, first + count - 1))
    }

    /// A serialized report that holds only the event at `index` of this report, which was decoded
    /// from `payload`. The event keeps its bytes: decoding and encoding would drop fields that this
    /// version does not know, and with them what a later version could replay.
    pub fn excerpt(&self, payload: &[u8], index: usize) -> Vec<u8> {
        // Every field is named, so that an added field does not compile before it is decided on.
        let v1::Report {
            boot_id,
            first_seq,
            base_unix_us,
            base_uptime_us,
            clock,
            context: _,
            events: _,
            lost: _,
            earlier_boots: _,
        } = self.message;
        let alone = v1::Report {
            boot_id,
            first_seq: if first_seq == 0 { 0 } else { first_seq + index as u64 },
            base_unix_us,
            base_uptime_us,
            clock,
            context: self.context.as_deref().cloned(),
            events: Vec::new(),
            lost: Vec::new(),
            earlier_boots: Vec::new(),
        };
        let mut bytes = alone.encode_to_vec();
        if let Some(event) = events(payload).nth(index) {
            encode_key(number::report::EVENTS, WireType::LengthDelimited, &mut bytes);
            encode_varint(event.len() as u64, &mut bytes);
            bytes.extend_from_slice(event);
        }
        bytes
    }

    /// Fields and enum values this version does not know.
    pub fn unknown(&self) -> usize {
        self.unknown
    }

    /// The message without its context.
    pub fn message(&self) -> &v1::Report {
        &self.message
    }

    /// The context, if it has one. Reports of the same [`Contexts`] share equal contexts.
    pub fn context(&self) -> Option<&Arc<v1::Context>> {
        self.context.as_ref()
    }
}

/// Contexts by their bytes, each read once: a device sends the same one in every report of a
/// session.
#[derive(Default)]
pub struct Contexts<'b> {
    known: HashMap<&'b [u8], KnownContext, RandomState>,
    /// The context that is being read.
    texts: v1::Context,
}

struct KnownContext {
    context: Arc<v1::Context>,
    unknown: usize,
}

/// The most contexts that are kept, about 1 KiB each.
const CONTEXTS_MAX: usize = 4_096;

/// A report that the fast reader reads.
pub(crate) struct Reading<'b, 'c> {
    message: v1::Report,
    context: Option<Arc<v1::Context>>,
    contexts: &'c mut Contexts<'b>,
}

impl<'b, 'c> Reading<'b, 'c> {
    pub fn new(contexts: &'c mut Contexts<'b>) -> Self {
        Self { message: v1::Report::default(), context: None, contexts }
    }
}

impl<'b> Visitor<'b> for Reading<'b, '_> {
    type Injection = v1::Injection;

    fn numbers(&mut self, numbers: &ReportNumbers) {
        let ReportNumbers { boot_id, first_seq, base_unix_us, base_uptime_us, clock } = *numbers;
        self.message.boot_id = boot_id;
        self.message.first_seq = first_seq;
        self.message.base_unix_us = base_unix_us;
        self.message.base_uptime_us = base_uptime_us;
        self.message.clock = clock;
    }

    fn known(&mut self, context: &'b [u8]) -> Option<usize> {
        let Some(KnownContext { context, unknown }) = self.contexts.known.get(context) else {
            // A report that could not be read to its end may have left a part of a context.
            self.contexts.texts = v1::Context::default();
            return None;
        };
        self.context = Some(context.clone());
        Some(*unknown)
    }

    fn context_text(&mut self, field: ContextText, text: &str) {
        let texts = &mut self.contexts.texts;
        let place = match field {
            ContextText::Model => &mut texts.model,
            ContextText::Firmware => &mut texts.firmware,
            ContextText::DoseCalibrationId => &mut texts.dose_calibration_id,
            ContextText::DepthCalibrationId => &mut texts.depth_calibration_id,
            ContextText::PreparationId => &mut texts.preparation_id,
            ContextText::OperatorId => &mut texts.operator_id,
        };
        text.clone_into(place);
    }

    fn session(&mut self, id: &[u8]) {
        id.clone_into(&mut self.contexts.texts.session_id);
    }

    fn mount(&mut self, slot: i32, mount_id: &str, item_id: &str) {
        let (mount_id, item_id) = (mount_id.to_owned(), item_id.to_owned());
        self.contexts.texts.mounts.push(v1::MountInUse { slot, mount_id, item_id });
    }

    fn context(&mut self, bytes: &'b [u8], unknown: usize) {
        let context = Arc::new(std::mem::take(&mut self.contexts.texts));
        if self.contexts.known.len() >= CONTEXTS_MAX {
            self.contexts.known.clear();
        }
        self.contexts.known.insert(bytes, KnownContext { context: context.clone(), unknown });
        self.context = Some(context);
    }

    fn expect(&mut self, events: usize) {
        self.message.events.reserve(events);
    }

    fn event(&mut self, offset_us: u64, injection: Option<v1::Injection>) {
        self.message.events.push(v1::Event { offset_us, kind: injection.map(Kind::Injection) });
    }
}

/// Checks everything except the events. Returns the flags of the context's texts.
fn validate(report: &mut v1::Report) -> Result<u32, Reject> {
    count("events", report.events.len(), EVENTS_MAX)?;
    count("lost", report.lost.len(), LOST_MAX)?;
    count("earlier_boots", report.earlier_boots.len(), EARLIER_BOOTS_MAX)?;
    if report.boot_id == 0 {
        return Err(Reject::new(Reason::BadBoot, "boot_id is absent or 0"));
    }
    if report.events.is_empty() && report.lost.is_empty() && report.earlier_boots.is_empty() {
        return Err(Reject::new(Reason::NoContent, "no event, nothing lost and no earlier boot"));
    }
    sequence(report)?;
    report.context.as_mut().map_or(Ok(0), validate_context)
}

fn sequence(report: &mut v1::Report) -> Result<(), Reject> {
    let bad = |detail: String| Err(Reject::new(Reason::BadSequence, detail));
    let unsequenced = |event: &v1::Event| matches!(event.kind, Some(Kind::Heartbeat(_)));
    if report.first_seq == 0 && !report.events.iter().all(unsequenced) {
        return bad("first_seq is 0; sequence numbers begin at 1".to_owned());
    }
    if report.first_seq.checked_add(report.events.len() as u64).is_none_or(|end| end > SEQ_MAX) {
        return bad(format!("first_seq {} + {} events does not fit 63 bits", report.first_seq, report.events.len()));
    }
    for lost in &mut report.lost {
        if lost.first_seq == 0 || lost.first_seq > lost.last_seq || lost.last_seq > SEQ_MAX {
            return bad(format!("lost range {}..{} is not a range from 1", lost.first_seq, lost.last_seq));
        }
        // The range matters more than its reason: a reason that is too long does not refuse the
        // report.
        if let Err(reject) = label("lost.reason", &mut lost.reason) {
            lost.reason = format!("not kept: {}", reject.detail);
        }
    }
    for boot in &report.earlier_boots {
        if boot.boot_id == 0 {
            return Err(Reject::new(Reason::BadBoot, "earlier_boots.boot_id is 0"));
        }
        if boot.last_seq > SEQ_MAX {
            return bad(format!("earlier_boots.last_seq {} does not fit 63 bits", boot.last_seq));
        }
    }
    Ok(())
}

/// Trims the texts of a context; returns their flags.
fn validate_context(context: &mut v1::Context) -> Result<u32, Reject> {
    if !matches!(context.session_id.len(), 0 | 16) {
        let detail = format!("session_id has {} bytes; it must be empty or 16 bytes", context.session_id.len());
        return Err(Reject::new(Reason::BadSession, detail));
    }
    count("context.mounts", context.mounts.len(), MOUNTS_MAX)?;
    let mut flags = text::of_context("context.model", &mut context.model, is_plain_text)?
        | text::of_context("context.firmware", &mut context.firmware, is_plain_text)?
        | text::of_context("context.dose_calibration_id", &mut context.dose_calibration_id, is_plain_id)?
        | text::of_context("context.depth_calibration_id", &mut context.depth_calibration_id, is_plain_id)?
        | text::of_context("context.preparation_id", &mut context.preparation_id, is_plain_id)?
        | text::of_context("context.operator_id", &mut context.operator_id, is_plain_id)?;
    for mount in &mut context.mounts {
        flags |= text::of_context("context.mounts.mount_id", &mut mount.mount_id, is_plain_id)?
            | text::of_context("context.mounts.item_id", &mut mount.item_id, is_plain_text)?;
    }
    Ok(flags)
}

/// Trims the texts of an event; returns their flags, or why the event cannot be used.
fn event_texts(event: &mut v1::Event) -> Result<u32, Reject> {
    match &mut event.kind {
        None | Some(Kind::Injection(_) | Kind::Heartbeat(_)) => Ok(0),
        Some(Kind::SessionStarted(session)) => {
            if session.course_id.len() > 16 {
                return Err(text::too_long("course_id", session.course_id.len(), 16));
            }
            Ok(label("client_ref", &mut session.client_ref)?
                | id("allergy_formula_id", &mut session.allergy_formula_id)?)
        }
        Some(Kind::SessionEnded(session)) => label("reason", &mut session.reason),
        Some(Kind::ConsumableMounted(mounted)) => Ok(id("mount_id", &mut mounted.mount_id)?
            | label("item_id", &mut mounted.item_id)?
            | label("udi_di", &mut mounted.udi_di)?
            | label("lot", &mut mounted.lot)?
            | label("expiry", &mut mounted.expiry)?
            | label("type", &mut mounted.r#type)?
            | label("pack_id", &mut mounted.pack_id)?),
        Some(Kind::Primed(primed)) => id("mount_id", &mut primed.mount_id),
        Some(Kind::ConsumableRemoved(removed)) => id("mount_id", &mut removed.mount_id),
        Some(Kind::Preparation(preparation)) => preparation_texts(preparation),
        Some(Kind::SterilizationCycle(cycle)) => cycle_texts(cycle),
        Some(Kind::CycleIndicator(indicator)) => {
            Ok(id("cycle_uid", &mut indicator.cycle_uid)? | label("lot", &mut indicator.lot)?)
        }
        Some(Kind::CycleRelease(release)) => {
            Ok(id("cycle_uid", &mut release.cycle_uid)? | id("actor", &mut release.actor)?)
        }
        Some(Kind::Reprocessed(reprocessed)) => label("item_id", &mut reprocessed.item_id),
        Some(Kind::Calibration(calibration)) => Ok(id("subject_device", &mut calibration.subject_device)?
            | id("calibration_id", &mut calibration.calibration_id)?
            | label("certificate", &mut calibration.certificate)?),
        Some(Kind::Fault(fault)) => {
            Ok(label("code", &mut fault.code)?
                | text::trim("detail", &mut fault.detail, DETAIL_LEN_MAX, is_plain_text)?)
        }
    }
}

fn preparation_texts(preparation: &mut v1::Preparation) -> Result<u32, Reject> {
    let mut flags =
        id("preparation_id", &mut preparation.preparation_id)? | id("formula_id", &mut preparation.formula_id)?;
    for component in &mut preparation.components {
        flags |= label("components.udi_di", &mut component.udi_di)?
            | label("components.lot", &mut component.lot)?
            | label("components.expiry", &mut component.expiry)?
            | label("components.container_id", &mut component.container_id)?;
    }
    Ok(flags)
}

fn cycle_texts(cycle: &mut v1::SterilizationCycle) -> Result<u32, Reject> {
    let mut flags = id("cycle_uid", &mut cycle.cycle_uid)? | label("recipe", &mut cycle.recipe)?;
    for item in &mut cycle.items {
        flags |= label("items.item_id", &mut item.item_id)? | label("items.pack_id", &mut item.pack_id)?;
    }
    Ok(flags)
}

fn count(name: &str, elements: usize, most: usize) -> Result<(), Reject> {
    if elements > most {
        return Err(Reject::new(Reason::TooManyElements, format!("{name} has {elements} elements, at most {most}")));
    }
    Ok(())
}

/// A text from a label, or one that a person typed.
fn label(name: &str, value: &mut String) -> Result<u32, Reject> {
    text::trim(name, value, TEXT_LEN_MAX, is_plain_text)
}

/// A generated id.
fn id(name: &str, value: &mut String) -> Result<u32, Reject> {
    text::trim(name, value, TEXT_LEN_MAX, is_plain_id)
}
