//! Cursors: where the next page of a list begins. A cursor holds the keys of the last row and a
//! digest of the query it belongs to, so another query refuses it.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use warehouse::sql::quoted;

use super::endpoint::Key;
use crate::access::tokens::hex;

/// Longest cursor, bytes.
pub const BYTES_MAX: usize = 4_096;

/// Digest of a query: the endpoint, who asks, and every parameter but limit and cursor.
pub fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part.as_bytes());
    }
    hex(&hash.finalize()[..8])
}

/// The cursor after a row.
pub fn after(row: &Map<String, Value>, keys: &[Key], digest: &str) -> String {
    let last = keys.iter().map(|key| row.get(key.name()).cloned().unwrap_or_default());
    let parts: Vec<Value> = std::iter::once(Value::from(digest)).chain(last).collect();
    BASE64_URL_SAFE_NO_PAD.encode(Value::from(parts).to_string())
}

/// The keys in a cursor as SQL literals; none if it does not belong to this query.
pub fn literals(cursor: &str, keys: &[Key], digest: &str) -> Option<Vec<String>> {
    let text = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok().filter(|_| cursor.len() <= BYTES_MAX)?;
    let parts: Vec<Value> = serde_json::from_slice(&text).ok()?;
    let (first, last) = parts.split_first()?;
    if first != digest || last.len() != keys.len() {
        return None;
    }
    let literal = |(key, value): (&Key, &Value)| match (key, value) {
        (Key::Text(_), Value::String(text)) => Some(quoted(text)),
        (Key::Number(_), Value::Number(number)) if number.is_u64() || number.is_i64() => Some(number.to_string()),
        _ => None,
    };
    keys.iter().zip(last).map(literal).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cursor_is_of_one_query() {
        let keys = [Key::Text("name"), Key::Number("seq")];
        let row = json!({ "name": "it's", "seq": 7, "other": 1 });
        let own = digest(&["/devices", "site", "a"]);
        let cursor = after(row.as_object().unwrap(), &keys, &own);
        assert_eq!(literals(&cursor, &keys, &own).unwrap(), [r"'it\'s'", "7"]);
        assert_eq!(literals(&cursor, &keys, &digest(&["/devices", "site", "b"])), None);
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_eq!(literals(&cursor, &keys[..1], &own), None);
        assert_eq!(literals(&cursor, &[Key::Number("name"), Key::Number("seq")], &own), None);
        for bad in ["", "x", "W10", &cursor[1..], &"A".repeat(10_000)] {
            assert_eq!(literals(bad, &keys, &own), None, "{bad}");
        }
        let forged = BASE64_URL_SAFE_NO_PAD.encode(json!([own, "' OR 1 --", 1.5]).to_string());
        assert_eq!(literals(&forged, &keys, &own), None);
        let below = after(json!({ "name": "", "seq": -5 }).as_object().unwrap(), &keys, &own);
        assert_eq!(literals(&below, &keys, &own).unwrap(), ["''", "-5"]);
    }
}
