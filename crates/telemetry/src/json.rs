//! Canonical proto3 JSON of the contract's messages.
//!
//! Unknown fields and unknown enum values are tolerated and counted, as in protobuf: a newer device must not be cut off.
//! An unknown enum *name* cannot be kept as a number and becomes `..._UNSPECIFIED`.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DeserializeOptions, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;

use crate::{
    DESCRIPTOR_SET,
    limits::{ELEMENTS_MAX, JSON_BYTES_MAX, REPORT_BYTES_MAX},
    reject::{Reason, Reject},
};

const PACKAGE: &str = "doseline.telemetry.v1";

/// A message read from JSON.
#[derive(Clone, Debug)]
pub struct FromJson<M> {
    /// The message.
    pub message: M,
    /// Fields and enum values this version does not know.
    pub unknown: usize,
}

/// Transcodes a report from JSON to protobuf bytes.
///
/// # Errors
/// [`Reason::Empty`], [`Reason::TooLarge`] (as JSON, or as protobuf), [`Reason::TooManyElements`] or [`Reason::BadJson`].
pub fn transcode_report(json: &[u8]) -> Result<FromJson<Vec<u8>>, Reject> {
    if json.is_empty() {
        return Err(Reject::new(Reason::Empty, "the payload is empty"));
    }
    if json.len() > JSON_BYTES_MAX {
        return Err(Reject::new(Reason::TooLarge, format!("{} bytes of JSON, at most {JSON_BYTES_MAX}", json.len())));
    }
    let (message, unknown) = dynamic(json, "Report")?;
    let message = message.encode_to_vec();
    if message.len() > REPORT_BYTES_MAX {
        let detail = format!("{} bytes as protobuf, at most {REPORT_BYTES_MAX}", message.len());
        return Err(Reject::new(Reason::TooLarge, detail));
    }
    Ok(FromJson { message, unknown })
}

/// Reads a message of the contract (`name` without the package) from JSON.
///
/// # Errors
/// [`Reason::BadJson`].
pub fn from_json<M: Message + Default>(json: &[u8], name: &str) -> Result<FromJson<M>, Reject> {
    let (message, unknown) = dynamic(json, name)?;
    let message = message.transcode_to().map_err(bad)?;
    Ok(FromJson { message, unknown })
}

/// Writes a message of the contract (`name` without the package) as JSON.
pub fn to_json<M: Message>(message: &M, name: &str) -> String {
    let mut dynamic = DynamicMessage::new(descriptor(name));
    // Both sides come from the same descriptor; a mismatch would show as an empty object in the tests.
    match dynamic.transcode_from(message) {
        Ok(()) => serde_json::to_string(&dynamic).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

fn dynamic(json: &[u8], name: &str) -> Result<(DynamicMessage, usize), Reject> {
    let descriptor = descriptor(name);
    let mut value: Value = serde_json::from_slice(json).map_err(bad)?;
    if elements(&value) > ELEMENTS_MAX {
        return Err(Reject::new(Reason::TooManyElements, format!("more than {ELEMENTS_MAX} list elements in all")));
    }
    let unknown = sanitize(&mut value, &descriptor);
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(descriptor, value, &options).map_err(bad)?;
    Ok((message, unknown))
}

/// Elements of all lists, at any depth.
fn elements(value: &Value) -> usize {
    match value {
        Value::Array(values) => values.len() + values.iter().map(elements).sum::<usize>(),
        Value::Object(object) => object.values().map(elements).sum(),
        _ => 0,
    }
}

fn bad(error: impl std::fmt::Display) -> Reject {
    Reject::new(Reason::BadJson, error.to_string())
}

#[allow(clippy::expect_used, reason = "the descriptor set is compiled into the binary and covered by every test")]
pub(crate) fn descriptor(name: &str) -> MessageDescriptor {
    static POOL: LazyLock<DescriptorPool> =
        LazyLock::new(|| DescriptorPool::decode(DESCRIPTOR_SET).expect("compiled descriptor set"));
    POOL.get_message_by_name(&format!("{PACKAGE}.{name}")).expect("message of the contract")
}

/// Removes unknown fields and replaces unknown enum names by 0; returns how many there were.
pub(crate) fn sanitize(value: &mut Value, message: &MessageDescriptor) -> usize {
    let Value::Object(object) = value else { return 0 };
    let mut unknown = 0;
    object.retain(|name, value| {
        match message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name)) {
            Some(field) => unknown += sanitize_field(value, &field),
            None => {
                unknown += 1;
                return false;
            }
        }
        true
    });
    unknown
}

fn sanitize_field(value: &mut Value, field: &FieldDescriptor) -> usize {
    if let (Value::Array(values), true) = (&mut *value, field.is_list()) {
        return values.iter_mut().map(|value| sanitize_kind(value, &field.kind())).sum();
    }
    sanitize_kind(value, &field.kind())
}

fn sanitize_kind(value: &mut Value, kind: &Kind) -> usize {
    match (kind, &*value) {
        (Kind::Message(message), Value::Object(_)) => sanitize(value, message),
        (Kind::Enum(kind), Value::String(name)) if kind.get_value_by_name(name).is_none() => {
            *value = Value::from(0);
            1
        }
        (Kind::Enum(kind), Value::Number(number)) => {
            let known = number.as_i64().and_then(|number| i32::try_from(number).ok());
            usize::from(known.is_some_and(|number| kind.get_value(number).is_none()))
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    fn report(json: &str) -> Result<(v1::Report, usize), Reject> {
        let transcoded = transcode_report(json.as_bytes())?;
        Ok((v1::Report::decode(transcoded.message.as_slice()).unwrap(), transcoded.unknown))
    }

    #[test]
    fn canonical_json_is_read_and_written() {
        let json = r#"{"bootId":"18446744073709551615","firstSeq":"1","clock":"CLOCK_SYNCED",
            "context":{"sessionId":"AAECAwQFBgcICQoLDA0ODw=="},
            "events":[{"offsetUs":"5","injection":{"target_nl":"20000","deliveredNl":19985,"pressurePa":-3}}]}"#;
        let (report, unknown) = report(json).unwrap();
        assert_eq!((report.boot_id, report.first_seq, unknown), (u64::MAX, 1, 0));
        let Some(v1::event::Kind::Injection(injection)) = &report.events[0].kind else { panic!("no injection") };
        assert_eq!(
            (injection.target_nl, injection.delivered_nl, injection.measured_um),
            (Some(20_000), Some(19_985), None)
        );
        let back: FromJson<v1::Report> = from_json(to_json(&report, "Report").as_bytes(), "Report").unwrap();
        assert_eq!(back.message, report);
    }

    #[test]
    fn unknown_fields_and_enum_values_are_tolerated_and_counted() {
        let json = r#"{"bootId":"1","firstSeq":"1","novelty":{"a":[1,2]},"clock":"CLOCK_QUANTUM",
            "events":[{"injection":{"mode":77,"outcome":"OUTCOME_OK","colour":"red"}}]}"#;
        let (report, unknown) = report(json).unwrap();
        assert_eq!(unknown, 4);
        assert_eq!(report.clock, 0);
        let Some(v1::event::Kind::Injection(injection)) = &report.events[0].kind else { panic!("no injection") };
        assert_eq!((injection.mode, injection.outcome), (77, 1));
    }

    #[test]
    fn what_is_not_canonical_is_refused() {
        for json in [
            "{",
            "[]",
            "NaN",
            r#"{"bootId":NaN}"#,
            r#"{"bootId":"NaN"}"#,
            r#"{"bootId":1.5}"#,
            r#"{"bootId":-1}"#,
            r#"{"bootId":"18446744073709551616"}"#,
            r#"{"events":{}}"#,
            r#"{"events":[{"injection":{"targetNl":20000.5}}]}"#,
            r#"{"events":[{"injection":{"targetNl":"1e400"}}]}"#,
            r#"{"context":{"sessionId":"***"}}"#,
        ] {
            assert_eq!(report(json).unwrap_err().reason, Reason::BadJson, "{json}");
        }
        assert_eq!(report("").unwrap_err().reason, Reason::Empty);
        let many = format!("{{\"events\":[{}{{}}]}}", "{},".repeat(ELEMENTS_MAX));
        assert_eq!(report(&many).unwrap_err().reason, Reason::TooManyElements);
        let large = format!("{{\"x\":\"{}\"}}", "y".repeat(JSON_BYTES_MAX));
        assert_eq!(report(&large).unwrap_err().reason, Reason::TooLarge);
    }
}
