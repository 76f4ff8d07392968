//! Canonical proto3 JSON of the contract's messages.
//!
//! Unknown fields and unknown enum values are tolerated and counted, as in protobuf: a newer device
//! must not be cut off. An unknown enum *name* cannot be kept as a number and becomes
//! `..._UNSPECIFIED`.
//!
//! Numbers are exact. Canonical JSON allows an integer as `1700`, `1.7e3`, `1700.0` and the same in
//! quotes. Each is read digit by digit, never through a floating-point number, which has only 53
//! bits.

use std::{borrow::Cow, sync::LazyLock};

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
    pub message: M,
    /// Fields and enum values this version does not know.
    pub unknown: usize,
}

/// Transcodes a report from JSON to protobuf bytes.
///
/// # Errors
/// [`Reason::Empty`], [`Reason::TooLarge`] (as JSON, or as protobuf), [`Reason::TooManyElements`]
/// or [`Reason::BadJson`].
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
    // Both sides come from the same descriptor; a mismatch would show as an empty object in the
    // tests.
    match dynamic.transcode_from(message) {
        Ok(()) => serde_json::to_string(&dynamic).unwrap_or_default(),
        Err(_) => String::new(),
    }
}

fn dynamic(json: &[u8], name: &str) -> Result<(DynamicMessage, usize), Reject> {
    let descriptor = descriptor(name);
    let (json, numbers) = number_places(json);
    let mut value: Value = serde_json::from_slice(&json).map_err(bad)?;
    if elements(&value) > ELEMENTS_MAX {
        return Err(Reject::new(Reason::TooManyElements, format!("more than {ELEMENTS_MAX} list elements in all")));
    }
    let unknown = sanitize_message(&mut value, &descriptor, &numbers)?;
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(descriptor, value, &options).map_err(bad)?;
    Ok((message, unknown))
}

/// Integers of up to this many digits are read exactly by any reader.
const EXACT_DIGITS: usize = 18;

/// Replaces each number that is not a short integer by a placeholder: `0.5`, `1.5`, `2.5` and so
/// on. The JSON reader would read these numbers as floating-point numbers and round them. Returns
/// their texts in order; [`number_text`] finds them by the placeholder. Bytes that are no JSON stay
/// as they are.
fn number_places(json: &[u8]) -> (Cow<'_, [u8]>, Vec<&str>) {
    let (mut out, mut numbers, mut copied, mut at) = (Vec::new(), Vec::new(), 0, 0);
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while let Some(byte) = json.get(at).filter(|byte| **byte != b'"') {
                    at += if *byte == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let first = at;
                let is_part = |byte: &&u8| matches!(byte, b'-' | b'+' | b'.' | b'0'..=b'9' | b'e' | b'E');
                at += json[first..].iter().take_while(is_part).count();
                let text = std::str::from_utf8(&json[first..at]).unwrap_or_default();
                let digits = text.strip_prefix('-').unwrap_or(text);
                let is_short = digits.len() <= EXACT_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
                // The JSON reader refuses a text that is no number.
                if !is_short && is_json_number(text) {
                    out.extend_from_slice(&json[copied..first]);
                    out.extend_from_slice(format!("{}.5", numbers.len()).as_bytes());
                    numbers.push(text);
                    copied = at;
                }
            }
            _ => at += 1,
        }
    }
    if numbers.is_empty() {
        return (Cow::Borrowed(json), numbers);
    }
    out.extend_from_slice(&json[copied..]);
    (Cow::Owned(out), numbers)
}

/// Whether a text is a JSON number (RFC 8259, section 6).
fn is_json_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(digits)
}

/// The text of a number, as it stood in the JSON.
fn number_text(number: &serde_json::Number, numbers: &[&str]) -> String {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(place) => numbers.get(place as usize).map_or_else(|| number.to_string(), |text| (*text).to_owned()),
        None => number.to_string(),
    }
}

/// The decimal digits of an integer in any form of a JSON number. `None` if it is no integer, or
/// has more digits than any field can hold.
fn integer(text: &str) -> Option<String> {
    const DIGITS_MAX: usize = 40;
    if !is_json_number(text) {
        return None;
    }
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |text| ("-", text));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some("0".to_owned());
    }
    // The number of digits before the decimal point. An exponent beyond the range of every field is
    // no integer of a field.
    let zeros = exponent.parse::<i64>().ok()?.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    let digits = match usize::try_from(zeros) {
        Ok(zeros) if zeros <= DIGITS_MAX => format!("{digits}{}", "0".repeat(zeros)),
        Ok(_) => return None,
        Err(_) => {
            let cut = usize::try_from(zeros.unsigned_abs()).ok()?;
            let (kept, gone) = digits.split_at_checked(digits.len().checked_sub(cut)?)?;
            if kept.is_empty() || gone.bytes().any(|digit| digit != b'0') {
                return None;
            }
            kept.to_owned()
        }
    };
    (digits.len() <= DIGITS_MAX).then(|| format!("{sign}{digits}"))
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

/// Removes unknown fields and replaces unknown enum names by 0. Returns how many there were. Other
/// faults stay for the mapping to report.
pub(crate) fn sanitize(value: &mut Value, message: &MessageDescriptor) -> usize {
    sanitize_message(value, message, &[]).unwrap_or_default()
}

fn sanitize_message(value: &mut Value, message: &MessageDescriptor, numbers: &[&str]) -> Result<usize, Reject> {
    let Value::Object(object) = value else { return Ok(0) };
    let (mut unknown, mut seen, mut found) = (0, Vec::new(), Ok(()));
    object.retain(|name, value| {
        let Some(field) = message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name)) else {
            unknown += 1;
            return false;
        };
        if found.is_ok() {
            found = if seen.contains(&field.number()) {
                Err(bad(format!("{} stands twice, in both spellings of its name", field.name())))
            } else {
                sanitize_field(value, &field, numbers).map(|more| unknown += more)
            };
            seen.push(field.number());
        }
        true
    });
    found.map(|()| unknown)
}

fn sanitize_field(value: &mut Value, field: &FieldDescriptor, numbers: &[&str]) -> Result<usize, Reject> {
    let name = field.name();
    if let (Value::Array(values), true) = (&mut *value, field.is_list()) {
        return values.iter_mut().map(|value| sanitize_kind(value, &field.kind(), name, numbers)).sum();
    }
    sanitize_kind(value, &field.kind(), name, numbers)
}

fn sanitize_kind(value: &mut Value, kind: &Kind, name: &str, numbers: &[&str]) -> Result<usize, Reject> {
    let text = match &*value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number_text(number, numbers),
        Value::Object(_) => match kind {
            Kind::Message(message) => return sanitize_message(value, message, numbers),
            _ => return Ok(0),
        },
        _ => return Ok(0),
    };
    match kind {
        Kind::Enum(kind) => {
            let digits = text.strip_prefix('-').unwrap_or(&text);
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            let is_name = value.is_string() && !is_number;
            if is_name && kind.get_value_by_name(&text).is_none() {
                *value = Value::from(0);
                return Ok(1);
            }
            if is_name {
                return Ok(0);
            }
            let number = integer(&text).and_then(|digits| digits.parse::<i32>().ok());
            let number = number.ok_or_else(|| bad(format!("{name} {text} is no number of an enum value")))?;
            *value = Value::from(number);
            Ok(usize::from(kind.get_value(number).is_none()))
        }
        Kind::Message(_) | Kind::String | Kind::Bytes | Kind::Bool | Kind::Double | Kind::Float => Ok(0),
        // Every other kind is an integer. In quotes it is not rounded; the mapping checks whether
        // it fits its field.
        _ => {
            let digits = integer(&text).ok_or_else(|| bad(format!("{name} {text:?} is no integer")))?;
            // A floating-point number is a placeholder.
            if value.is_f64() || digits != text {
                *value = Value::String(digits);
            }
            Ok(0)
        }
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
    fn numbers_are_exact_in_every_form() {
        let check = |number: &str, expected: u64| {
            for json in [number.to_owned(), format!("\"{number}\"")] {
                let json = format!(r#"{{"x":[1.25e3,"1.5,\"2.5"],"bootId":{json},"firstSeq":1,"events":[{{}}]}}"#);
                let (report, unknown) = report(&json).unwrap_or_else(|reject| panic!("{json}: {reject}"));
                assert_eq!((report.boot_id, unknown), (expected, 1), "{json}");
            }
        };
        check("1.7e15", 1_700_000_000_000_000);
        check("4e3", 4_000);
        check("4E+3", 4_000);
        check("19870.0", 19_870);
        check("1987000e-2", 19_870);
        check("9007199254740993.0", 9_007_199_254_740_993);
        check("18446744073709551615", u64::MAX);
        check("1.8446744073709551615e19", u64::MAX);
        check("9223372036854775808", 1 << 63);
        check("1000000000000000000", 1_000_000_000_000_000_000);
        check("0.00000000000000000001e20", 1);
        let json =
            r#"{"boot_id":7,"firstSeq":"1e0","clock":"1","events":[{"injection":{"mode":2.0,"pressure_pa":-3e1}}]}"#;
        let (report, unknown) = report(json).unwrap();
        let Some(v1::event::Kind::Injection(injection)) = &report.events[0].kind else { panic!("no injection") };
        assert_eq!((report.clock, injection.mode, injection.pressure_pa, unknown), (1, 2, Some(-30), 0));
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
            r#"{"bootId":18446744073709551616}"#,
            r#"{"bootId":1e20}"#,
            r#"{"bootId":"1.5e0"}"#,
            r#"{"bootId":" 1"}"#,
            r#"{"bootId":"+1"}"#,
            r#"{"bootId":"0x1"}"#,
            r#"{"bootId":01}"#,
            r#"{"bootId":1.}"#,
            r#"{"bootId":""}"#,
            r#"{"bootId":1,"boot_id":1}"#,
            r#"{"clock":1.5}"#,
            r#"{"clock":4294967297}"#,
            r#"{"events":[{"injection":{"shot":4294967296}}]}"#,
            r#"{"context":{"model":1.5}}"#,
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
