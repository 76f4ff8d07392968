//! Answers: JSON or CSV as the asker prefers, with an entity tag.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{endpoint::Object, row::Field};
use crate::{access::tokens::hex, problem::Problem};

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    Csv,
    /// The statement in place of its rows.
    Sql,
}

impl Form {
    /// The form that the `Accept` of a request prefers; JSON where it has none.
    ///
    /// # Errors
    /// It accepts neither.
    pub fn accepted(headers: &HeaderMap) -> Result<Self, Problem> {
        let texts: Vec<_> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
        if texts.is_empty() {
            return Ok(Self::Json);
        }
        let quality = |kinds: [&str; 3]| {
            let ranges = texts.iter().flat_map(|text| text.split(','));
            let matching = ranges.filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
                // The more exact a range is, the more it says.
                let rank = kinds.iter().rev().position(|known| *known == kind)?;
                let quality =
                    parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |text| text.parse().ok());
                Some((rank, quality.unwrap_or(0.0)))
            });
            matching.max_by_key(|(rank, _)| *rank).map_or(0.0_f64, |(_, quality)| quality)
        };
        let json = quality(["application/json", "application/*", "*/*"]);
        let csv = quality(["text/csv", "text/*", "*/*"]);
        let sql = quality(["application/sql", "application/*", "*/*"]);
        match (json, csv, sql) {
            (json, csv, sql) if sql > json && sql > csv => Ok(Self::Sql),
            (json, csv, _) if csv > json => Ok(Self::Csv),
            (json, ..) if json > 0.0 => Ok(Self::Json),
            _ => Err(Problem::new(
                StatusCode::NOT_ACCEPTABLE,
                "not-acceptable",
                "Accept application/json, text/csv or application/sql; there is no other form",
            )),
        }
    }
}

/// One row.
///
/// # Errors
/// It could not be written as CSV.
pub fn one(form: Form, fields: &[Field], row: Object, headers: &HeaderMap) -> Result<Response, Problem> {
    match form {
        Form::Json | Form::Sql => Ok(tagged("application/json", Value::Object(row).to_string().into_bytes(), headers)),
        Form::Csv => Ok(tagged(CSV, csv(fields, &[Value::Object(row)])?, headers)),
    }
}

/// A page of rows, and the address and cursor of the next page.
///
/// # Errors
/// It could not be written as CSV.
pub fn list(
    form: Form,
    fields: &[Field],
    rows: Vec<Value>,
    next: Option<(String, String)>,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    let (link, cursor) = next.unzip();
    let mut response = match form {
        Form::Json | Form::Sql => {
            let body = json!({ "data": rows, "next": cursor }).to_string();
            tagged("application/json", body.into_bytes(), headers)
        }
        Form::Csv => tagged(CSV, csv(fields, &rows)?, headers),
    };
    if let Some(link) = link.and_then(|link| HeaderValue::try_from(format!("<{link}>; rel=\"next\"")).ok()) {
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}

/// The statement of an answer, without the indentation of the program.
pub fn sql(statement: &str, headers: &HeaderMap) -> Response {
    let mut text: String = statement
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(|line| format!("{}\n", line.strip_prefix("            ").unwrap_or(line)))
        .collect();
    text.truncate(text.trim_end().len());
    text.push('\n');
    tagged("application/sql; charset=utf-8", text.into_bytes(), headers)
}

const CSV: &str = "text/csv; charset=utf-8; header=present";

/// Rows as CSV (RFC 4180). An absent value is empty. A list of numbers is joined with spaces, an
/// absent one is empty between them; any other list is JSON.
fn csv(fields: &[Field], rows: &[Value]) -> Result<Vec<u8>, Problem> {
    let mut writer = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    let is_number = |value: &Value| value.is_number() || value.is_null();
    let cell = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) if !values.iter().all(is_number) || values.is_empty() => value.to_string(),
        Value::Array(values) => {
            let number = |value: &Value| if value.is_null() { String::new() } else { value.to_string() };
            values.iter().map(number).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    };
    let mut write = || -> Result<(), csv::Error> {
        writer.write_record(fields.iter().map(|field| field.name))?;
        for row in rows {
            writer.write_record(fields.iter().map(|field| cell(&row[field.name])))?;
        }
        Ok(())
    };
    let written = write().map_err(|error| error.to_string());
    written.and_then(|()| writer.into_inner().map_err(|error| error.to_string())).map_err(|error| {
        tracing::error!(error, "rows could not be written as CSV");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "csv", "The rows could not be written as CSV; ask for JSON")
    })
}

/// An answer with its entity tag, or 304 if the asker has it.
pub fn tagged(kind: &'static str, body: Vec<u8>, headers: &HeaderMap) -> Response {
    let tag = format!("\"{}\"", hex(&Sha256::digest(&body)[..16]));
    let is_known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok()).any(|known| {
        known.split(',').map(str::trim).any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
    });
    let about = [
        (header::ETAG, tag),
        (header::CACHE_CONTROL, "private, no-cache".to_owned()),
        (header::VARY, "Accept, Authorization, Cookie".to_owned()),
    ];
    match is_known {
        true => (StatusCode::NOT_MODIFIED, about).into_response(),
        false => (about, [(header::CONTENT_TYPE, kind)], body).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preferred_form_is_chosen() {
        let check = |accept: &str, expected: Option<Form>| {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_str(accept).unwrap())]);
            assert_eq!(Form::accepted(&headers).ok(), expected, "{accept}");
        };
        assert_eq!(Form::accepted(&HeaderMap::new()).ok(), Some(Form::Json));
        check("*/*", Some(Form::Json));
        check("text/csv", Some(Form::Csv));
        check("text/html, text/*;q=0.8", Some(Form::Csv));
        check("application/json, text/csv", Some(Form::Json));
        check("application/json;q=0.5, text/csv", Some(Form::Csv));
        check("text/csv;q=0, */*", Some(Form::Json));
        check("application/json;q=0, */*", Some(Form::Csv));
        check("text/html", None);
        check("application/json;q=x", None);
        check("application/sql", Some(Form::Sql));
        check("application/sql, application/json;q=0.5", Some(Form::Sql));
        check("application/*", Some(Form::Json));
    }

    #[test]
    fn csv_quotes_what_it_must() {
        let field = |name| Field { name, about: String::new(), schema: Value::Null };
        let rows = [json!({ "a": "it, \"is\"\nso", "b": null }), json!({ "a": 1, "b": ["x", "y"] })];
        let text = String::from_utf8(csv(&[field("a"), field("b")], &rows).unwrap()).unwrap();
        assert_eq!(text, "a,b\r\n\"it, \"\"is\"\"\nso\",\r\n1,\"[\"\"x\"\",\"\"y\"\"]\"\r\n");
    }

    #[test]
    fn a_list_of_numbers_keeps_its_places() {
        let field = |name| Field { name, about: String::new(), schema: Value::Null };
        let rows = [json!({ "a": [1.5, null, -2] }), json!({ "a": [null, null] }), json!({ "a": [] })];
        let text = String::from_utf8(csv(&[field("a")], &rows).unwrap()).unwrap();
        assert_eq!(text, "a\r\n1.5  -2\r\n \r\n[]\r\n");
    }

    #[test]
    fn a_known_answer_is_not_sent_again() {
        let first = tagged("application/json", b"{}".to_vec(), &HeaderMap::new());
        let tag = first.headers()[header::ETAG].clone();
        let again = |known: HeaderValue| {
            tagged("application/json", b"{}".to_vec(), &HeaderMap::from_iter([(header::IF_NONE_MATCH, known)]))
        };
        assert_eq!(again(tag).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(again(HeaderValue::from_static("\"other\"")).status(), StatusCode::OK);
    }
}
