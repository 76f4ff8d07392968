//! The forensic reader: reads a message as far as its bytes allow, for a person who looks at
//! something that was refused. It returns what could be read, and where reading stopped.
//!
//! It walks the descriptor of the message, so that it knows every field of `/proto`. It decides
//! nothing: [`crate::report`] says whether a report is admitted.

use prost_reflect::{DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value};

use crate::{
    hex::hex,
    json::{descriptor, sanitize},
    reading::wire,
};

/// What was read of a message.
#[derive(Clone, Debug, PartialEq)]
pub struct Inspection {
    /// The fields, by their JSON names; 64-bit integers as text, bytes as hex, unknown fields by
    /// number.
    pub fields: Value,
    /// Where reading stopped; none = it went to the end.
    pub stopped: Option<Stop>,
}

/// Where reading stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// First byte that could not be used; none where only the field is known.
    pub offset: Option<usize>,
    /// The field, e.g. `events[3].injection.deliveredNl`; empty = the message itself.
    pub path: String,
    /// What was wrong there.
    pub what: String,
}

/// Reads protobuf bytes as a message of the contract (`name` without the package).
pub fn protobuf(bytes: &[u8], name: &str) -> Inspection {
    let mut walk = Walk { bytes, at: 0, stopped: None };
    let fields = walk.message(&descriptor(name), bytes.len(), "");
    Inspection { fields: Value::Object(fields), stopped: walk.stopped }
}

struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    stopped: Option<Stop>,
}

impl Walk<'_> {
    /// The fields up to `end`, or up to where reading stopped.
    fn message(&mut self, message: &MessageDescriptor, end: usize, path: &str) -> Map<String, Value> {
        let mut fields = Map::new();
        while self.stopped.is_none() && self.at < end {
            let start = self.at;
            let Some(key) = self.varint(end, path) else { break };
            let field = u32::try_from(key >> 3).ok().and_then(|number| message.get_field(number));
            let name = field.as_ref().map_or_else(|| format!("#{}", key >> 3), |field| field.json_name().to_owned());
            let list = field.as_ref().is_none_or(FieldDescriptor::is_list);
            let mut at = join(path, &name);
            if list {
                at = format!("{at}[{}]", fields.get(&name).and_then(Value::as_array).map_or(0, Vec::len));
            }
            let Some(values) = self.field(field.as_ref(), key & 7, (start, end), &at) else { break };
            if !list {
                fields.extend(values.into_iter().next_back().map(|value| (name, value)));
            } else if let Value::Array(array) = fields.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
                array.extend(values);
            }
        }
        fields
    }

    /// The values of one field: several where a list is packed. None when there is not even a part
    /// of one.
    fn field(
        &mut self,
        field: Option<&FieldDescriptor>,
        wire_type: u64,
        (start, end): (usize, usize),
        path: &str,
    ) -> Option<Vec<Value>> {
        let kind = field.map(FieldDescriptor::kind);
        match wire_type {
            0 | 1 | 5 => self.scalar(kind.as_ref(), wire_type, (start, end), path).map(|value| vec![value]),
            2 => self.delimited(kind.as_ref(), (start, end), path),
            other => self.stop(start, path, format!("wire type {other}")),
        }
    }

    fn scalar(&mut self, kind: Option<&Kind>, wire_type: u64, bounds: (usize, usize), path: &str) -> Option<Value> {
        let raw = match wire_type {
            0 => self.varint(bounds.1, path)?,
            1 => u64::from_le_bytes(self.fixed(bounds.1, path)?),
            _ => u64::from(u32::from_le_bytes(self.fixed(bounds.1, path)?)),
        };
        let Some(kind) = kind else { return Some(Value::from(raw.to_string())) };
        let expected = match kind {
            Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => 1,
            Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => 5,
            Kind::String | Kind::Bytes | Kind::Message(_) => 2,
            _ => 0,
        };
        if expected != wire_type {
            return self.stop(bounds.0, path, format!("wire type {wire_type} does not fit {kind:?}"));
        }
        Some(number(kind, raw))
    }

    fn delimited(&mut self, kind: Option<&Kind>, (start, end): (usize, usize), path: &str) -> Option<Vec<Value>> {
        let length = self.varint(end, path)?;
        let left = end - self.at;
        let whole = usize::try_from(length).is_ok_and(|length| length <= left);
        let stop = if whole { self.at + length as usize } else { end };
        let truncated = format!("{length} bytes are announced, {left} are left");
        match kind {
            // The part of a message that is there is read too.
            Some(Kind::Message(message)) => {
                let fields = self.message(message, stop, path);
                if !whole && self.stopped.is_none() {
                    self.stop::<()>(stop, path, truncated);
                }
                Some(vec![Value::Object(fields)])
            }
            _ if !whole => self.stop(self.at, path, truncated),
            Some(Kind::String) => match std::str::from_utf8(&self.bytes[self.at..stop]) {
                Ok(text) => {
                    self.at = stop;
                    Some(vec![Value::from(text)])
                }
                Err(error) => self.stop(self.at + error.valid_up_to(), path, "not UTF-8".to_owned()),
            },
            None | Some(Kind::Bytes) => {
                let hex = hex(&self.bytes[self.at..stop]);
                self.at = stop;
                Some(vec![Value::from(hex)])
            }
            Some(packed) => {
                let wire_type = match packed {
                    Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => 1,
                    Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => 5,
                    _ => 0,
                };
                let mut values = Vec::new();
                while self.at < stop
                    && let Some(value) = self.scalar(Some(packed), wire_type, (start, stop), path)
                {
                    values.push(value);
                }
                Some(values)
            }
        }
    }

    fn varint(&mut self, end: usize, path: &str) -> Option<u64> {
        let mut rest = &self.bytes[self.at..end];
        match wire::varint(&mut rest) {
            Some(value) => {
                self.at = end - rest.len();
                Some(value)
            }
            None => self.stop(self.at, path, "truncated or overlong varint".to_owned()),
        }
    }

    fn fixed<const N: usize>(&mut self, end: usize, path: &str) -> Option<[u8; N]> {
        match self.bytes[self.at..end].first_chunk::<N>() {
            Some(bytes) => {
                self.at += N;
                Some(*bytes)
            }
            None => self.stop(self.at, path, format!("{N} bytes are needed, {} are left", end - self.at)),
        }
    }

    fn stop<T>(&mut self, offset: usize, path: &str, what: String) -> Option<T> {
        self.stopped.get_or_insert(Stop { offset: Some(offset), path: path.to_owned(), what });
        None
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// A scalar as JSON shows it.
#[allow(clippy::cast_possible_wrap, reason = "two's complement is what the wire has")]
fn number(kind: &Kind, raw: u64) -> Value {
    let zigzag = || (raw >> 1) as i64 ^ -((raw & 1) as i64);
    match kind {
        Kind::Bool => Value::from(raw != 0),
        Kind::Enum(values) => match values.get_value(raw as i32) {
            Some(value) => Value::from(value.name()),
            None => Value::from(raw as i32),
        },
        Kind::Double => Value::from(f64::from_bits(raw)),
        Kind::Float => Value::from(f32::from_bits(raw as u32)),
        Kind::Int32 | Kind::Sfixed32 => Value::from(raw as i32),
        Kind::Sint32 => Value::from(zigzag()),
        Kind::Uint32 | Kind::Fixed32 => Value::from(raw as u32),
        Kind::Int64 | Kind::Sfixed64 => Value::from((raw as i64).to_string()),
        Kind::Sint64 => Value::from(zigzag().to_string()),
        _ => Value::from(raw.to_string()),
    }
}

/// Reads JSON as a message of the contract (`name` without the package).
pub fn json(bytes: &[u8], name: &str) -> Inspection {
    let mut value: Value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(error) => {
            let offset = if error.is_eof() { bytes.len() } else { offset_of(bytes, error.line(), error.column()) };
            let stopped = Stop { offset: Some(offset), path: String::new(), what: error.to_string() };
            return Inspection { fields: salvage(&bytes[..offset]), stopped: Some(stopped) };
        }
    };
    let fields = value.clone();
    let message = descriptor(name);
    sanitize(&mut value, &message);
    let stopped = map(&value, &message).err().map(|what| {
        let (path, what) = locate(&value, &message, "").unwrap_or((String::new(), what));
        Stop { offset: position(bytes, &message, &what), path, what }
    });
    Inspection { fields, stopped }
}

fn map(value: &Value, message: &MessageDescriptor) -> Result<(), String> {
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let mapped = DynamicMessage::deserialize_with_options(message.clone(), value, &options);
    mapped.map(drop).map_err(|error| error.to_string())
}

/// The first field that does not fit, and why: the field that does not fit even alone.
fn locate(value: &Value, message: &MessageDescriptor, path: &str) -> Option<(String, String)> {
    for (name, value) in value.as_object()? {
        let field = message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name));
        let Some(field) = field else { continue };
        let alone = Value::Object(Map::from_iter([(name.clone(), value.clone())]));
        let Err(what) = map(&alone, message) else { continue };
        let path = join(path, name);
        let within = match (field.kind(), value) {
            (Kind::Message(message), Value::Array(values)) => values
                .iter()
                .enumerate()
                .find_map(|(index, value)| locate(value, &message, &format!("{path}[{index}]"))),
            (Kind::Message(message), value) => locate(value, &message, &path),
            _ => None,
        };
        return Some(within.unwrap_or((path, what)));
    }
    None
}

/// Byte that serde_json was at when it said `what`.
fn position(bytes: &[u8], message: &MessageDescriptor, what: &str) -> Option<usize> {
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let error = DynamicMessage::deserialize_with_options(message.clone(), &mut reader, &options).err()?;
    // Another complaint came first, e.g. about an enum name that is tolerated.
    error.to_string().starts_with(what).then(|| offset_of(bytes, error.line(), error.column()))
}

/// Offset of a line and column, both from 1 as serde_json counts them; the end where there is no
/// such place.
fn offset_of(bytes: &[u8], line: usize, column: usize) -> usize {
    let before: usize =
        bytes.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    (before + column.saturating_sub(1)).min(bytes.len())
}

/// How many shorter beginnings are tried.
const CUTS: usize = 16;

/// The longest beginning of broken JSON that can be read once its brackets are closed.
fn salvage(beginning: &[u8]) -> Value {
    let (mut open, mut cuts, mut quoted, mut escaped) = (Vec::new(), Vec::new(), false, false);
    for (at, byte) in beginning.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' => open.push(b'}'),
            b'[' => open.push(b']'),
            b'}' | b']' => drop(open.pop()),
            b',' => {}
            _ => continue,
        }
        if !quoted {
            // Before a comma, after everything else.
            let end = if *byte == b',' { at } else { at + 1 };
            cuts.push((end, open.clone()));
            if cuts.len() > CUTS {
                cuts.remove(0);
            }
        }
    }
    let closed = cuts.into_iter().rev().find_map(|(end, open)| {
        let text: Vec<u8> = beginning[..end].iter().chain(open.iter().rev()).copied().collect();
        serde_json::from_slice(&text).ok()
    });
    closed.unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;
    use serde_json::json;

    use super::*;
    use crate::v1;

    fn report() -> v1::Report {
        let injection = v1::Injection {
            mode: v1::Mode::Single.into(),
            target_nl: Some(20_000),
            measured_um: Some(1_480),
            ..v1::Injection::default()
        };
        let event = v1::Event { offset_us: 7, kind: Some(v1::event::Kind::Injection(injection)) };
        v1::Report {
            boot_id: 1 << 32 | 5,
            first_seq: 3,
            context: Some(v1::Context { model: "MMM".to_owned(), session_id: vec![7; 3], ..Default::default() }),
            events: vec![event; 2],
            ..Default::default()
        }
    }

    #[test]
    fn whole_bytes_are_read_to_the_end() {
        let mut bytes = report().encode_to_vec();
        bytes.extend([0xf8, 0x07, 1]);
        let read = protobuf(&bytes, "Report");
        assert_eq!(read.stopped, None);
        assert_eq!(read.fields["bootId"], json!("4294967301"));
        assert_eq!(read.fields["context"], json!({ "model": "MMM", "sessionId": "070707" }));
        assert_eq!(read.fields["events"][1]["injection"]["mode"], json!("MODE_SINGLE"));
        assert_eq!(read.fields["events"][1]["injection"]["measuredUm"], json!(1480));
        assert_eq!(read.fields["#127"], json!(["1"]));
    }

    #[test]
    fn reading_stops_at_the_byte_and_names_the_field() {
        let check = |bytes: &[u8], offset: usize, path: &str, what: &str| {
            let stopped = protobuf(bytes, "Report").stopped.unwrap();
            assert_eq!((stopped.offset, stopped.path.as_str()), (Some(offset), path), "{stopped:?}");
            assert!(stopped.what.contains(what), "{stopped:?}");
        };
        let bytes = report().encode_to_vec();
        // The last field of the last event is cut in the middle of its number.
        let cut = &bytes[..bytes.len() - 1];
        let read = protobuf(cut, "Report");
        assert_eq!(read.fields["events"][1]["injection"]["targetNl"], json!("20000"), "{read:?}");
        assert!(read.stopped.unwrap().path.starts_with("events[1].injection."));
        check(&[0x09, 1, 2], 1, "bootId", "8 bytes are needed, 2 are left");
        check(&[0x0b], 0, "bootId", "wire type 3");
        check(&[0x08, 1], 0, "bootId", "does not fit");
        let mut text = bytes.clone();
        let at = text.windows(3).position(|window| window == b"MMM").unwrap();
        text[at + 1] = 0xff;
        check(&text, at + 1, "context.model", "not UTF-8");
    }

    #[test]
    fn json_is_read_up_to_the_fault() {
        let read = json(br#"{"bootId":"9","events":[{"offsetUs":"1","injection":{"targetNl":NaN}}]}"#, "Report");
        assert_eq!(read.stopped.as_ref().unwrap().offset, Some(64), "{read:?}");
        assert_eq!(read.fields, json!({ "bootId": "9", "events": [{ "offsetUs": "1", "injection": {} }] }));
        let read = json(b"{\"bootId\":\"9\",\n \"firstSeq\":1.5}", "Report");
        let stopped = read.stopped.unwrap();
        assert_eq!(stopped.path, "firstSeq");
        let read = json(br#"{"events":[{},{"injection":{"mode":"MODE_NEW","measuredUm":"x"}}]}"#, "Report");
        assert_eq!(read.stopped.unwrap().path, "events[1].injection.measuredUm");
        assert_eq!(json(br#"{"bootId":"9"}"#, "Report").stopped, None);
        assert_eq!(json(b"", "Report").fields, Value::Null);
        assert_eq!(json(br#"{"a\"b":"c,]","#, "Report").fields, json!({ "a\"b": "c,]" }));
    }

    proptest! {
        /// Whatever the bytes, reading ends, and stops only where something is wrong.
        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let read = protobuf(&bytes, "Report");
            if v1::Report::decode(bytes.as_slice()).is_ok() {
                prop_assert_eq!(read.stopped, None);
            } else if let Some(stopped) = read.stopped {
                prop_assert!(stopped.offset.is_some_and(|offset| offset <= bytes.len()));
            }
            json(&bytes, "Report");
        }
    }
}
