//! Labels: what a scanned GS1 element string says.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::{
    extract::RawQuery,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use warehouse::gs1;

use super::{
    answer,
    endpoint::Object,
    parameters,
    row::{Row as _, row},
};
use crate::problem::Problem;

row! {
    /// What a label says.
    pub struct Label {
        /// Identity of the item, the same for every spelling of its label; `item_key` of the tables
        item_key: String,
        /// Device identifier, a GTIN of 14 digits; null = not said
        udi_di: Option<String>,
        /// Lot; null = not said
        lot: Option<String>,
        /// Serial number; null = not said
        serial: Option<String>,
        /// Last day of use; null = not said
        expiry: Option<String>,
    }
}

/// Reads a label.
pub async fn labels(RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    read(query.as_deref(), &headers).unwrap_or_else(Problem::into_response)
}

fn read(query: Option<&str>, headers: &HeaderMap) -> Result<Response, Problem> {
    let form = answer::Form::accepted(headers)?;
    let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "bad-parameter", detail);
    let query = parameters::query(query, &["label"])?;
    let label = query.get("label").ok_or_else(|| bad("label is missing: the text that was scanned".to_owned()))?;
    let elements = gs1::ElementString::parse(label, year()).map_err(|error| bad(format!("label: {error}")))?;
    let text = |ai: &str| elements.get(ai).map(str::to_owned);
    let label = Label {
        item_key: gs1::item(label),
        udi_di: text("01"),
        lot: text("10"),
        serial: text("21"),
        expiry: elements.expiry().map(|day| day.to_string()),
    };
    let Value::Object(row) = json!(label) else { return answer::one(form, &[], Object::new(), headers) };
    answer::one(form, &Label::fields(), row, headers)
}

/// The year, which decides the century of a label's dates. A day more or less does not matter.
fn year() -> i32 {
    let days = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400;
    i32::try_from(1970 + days * 10_000 / 3_652_425).unwrap_or(1970)
}
