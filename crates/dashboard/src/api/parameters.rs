//! The parameters of a request: each is known, given once, of its form, and short.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use warehouse::{sight::Sight, sql::quoted};

use super::{
    ROOT, cursor,
    endpoint::{Endpoint, Shape},
};
use crate::problem::Problem;

/// Parameters by name.
pub type Pairs = BTreeMap<String, String>;

/// Longest value, bytes. Labels have some 100.
pub const VALUE_BYTES_MAX: usize = 512;

/// What a request asks for.
pub struct Given {
    /// What its query may see: the asker's sight, and of it one tenant if the request names one.
    pub sight: Sight,
    /// Conditions of SQL.
    conditions: Vec<String>,
    /// The value of each parameter that has one, as conditions take it.
    values: BTreeMap<&'static str, String>,
    pub limit: usize,
    /// Keys of the row that the page begins after, as SQL literals.
    pub cursor: Option<Vec<String>>,
    /// What a cursor of this query carries.
    pub digest: String,
    /// The same request without its cursor.
    path: String,
    query: Pairs,
}

/// The parameters of a query string, each once.
///
/// # Errors
/// A name that is not in `known`, a name given twice, or a value that is empty or too long.
pub fn query(text: Option<&str>, known: &[&str]) -> Result<Pairs, Problem> {
    let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "bad-parameter", detail);
    let mut pairs = Pairs::new();
    for (name, value) in form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
        let Some(name) = known.iter().find(|known| **known == name) else {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            let detail = format!("A parameter is unknown; those of this path are: {known}");
            return Err(Problem::new(StatusCode::BAD_REQUEST, "unknown-parameter", detail));
        };
        check_length(name, &value)?;
        if pairs.insert((*name).to_owned(), value.into_owned()).is_some() {
            return Err(bad(format!("{name} is given twice; give it once")));
        }
    }
    Ok(pairs)
}

/// Checks the length of a parameter.
///
/// # Errors
/// It is empty or too long.
pub fn check_length(name: &str, value: &str) -> Result<(), Problem> {
    let most = if name == "cursor" { cursor::BYTES_MAX } else { VALUE_BYTES_MAX };
    if value.is_empty() || value.len() > most {
        let detail = format!("{name} has {} bytes; it has 1 to {most}, or is left out", value.len());
        return Err(Problem::new(StatusCode::BAD_REQUEST, "bad-parameter", detail));
    }
    Ok(())
}

impl Given {
    /// Reads the parameters of a request.
    ///
    /// # Errors
    /// What is wrong with them. A tenant that is not the asker's does not exist.
    pub fn read(endpoint: &Endpoint, path: Pairs, text: Option<&str>, sight: &Sight) -> Result<Self, Problem> {
        let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "bad-parameter", detail);
        for (name, value) in &path {
            check_length(name, value)?;
        }
        let in_query =
            endpoint.parameters.iter().map(|parameter| parameter.name).filter(|name| !path.contains_key(*name));
        let mut known: Vec<&str> = in_query.collect();
        if endpoint.audience.has_tenants() && !path.contains_key("tenant") && !known.contains(&"tenant") {
            known.push("tenant");
        }
        match endpoint.shape {
            Shape::One => {}
            Shape::List { .. } => known.extend(["limit", "cursor"]),
            Shape::Computed => known.push("limit"),
        }
        let mut query = query(text, &known)?;
        let (mut conditions, mut values) = (Vec::new(), BTreeMap::new());
        for parameter in endpoint.parameters {
            let given = path.get(parameter.name).or_else(|| query.get(parameter.name));
            let Some(value) = given.map(String::as_str).or(parameter.default) else {
                if parameter.is_required {
                    return Err(bad(format!("{} is missing: {}", parameter.name, parameter.about)));
                }
                continue;
            };
            let value = parameter.kind.read(value).map_err(|fault| bad(format!("{} {fault}", parameter.name)))?;
            conditions.push(parameter.condition.replace('?', &quoted(&value)));
            values.insert(parameter.name, value);
        }
        let sight = match path.get("tenant").or_else(|| query.get("tenant")) {
            None => sight.clone(),
            Some(tenant) => sight.of_tenant(tenant).ok_or_else(Problem::not_found)?,
        };
        let limit = match query.remove("limit") {
            None => endpoint.rows.limit,
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=endpoint.rows.limit_max).contains(limit))
                .ok_or_else(|| bad(format!("limit must be a number from 1 to {}", endpoint.rows.limit_max)))?,
        };
        let cursor = query.remove("cursor");
        let seen = format!("{sight:?}");
        let parts = path.iter().chain(&query).flat_map(|(name, value)| [name.as_str(), value.as_str()]);
        let parts: Vec<&str> = [endpoint.path, &seen].into_iter().chain(parts).collect();
        let digest = cursor::digest(&parts);
        let cursor = match (cursor, endpoint.shape) {
            (Some(cursor), Shape::List { keys, .. }) => {
                let detail = "The cursor does not belong to this query; ask without it, from the first page";
                let foreign = || Problem::new(StatusCode::BAD_REQUEST, "foreign-cursor", detail);
                Some(cursor::literals(&cursor, keys, &digest).ok_or_else(foreign)?)
            }
            _ => None,
        };
        let encoded =
            |value: &str| form_urlencoded::byte_serialize(value.as_bytes()).collect::<String>().replace('+', "%20");
        let path = path.iter().fold(format!("{ROOT}{}", endpoint.path), |text, (name, value)| {
            text.replace(&format!("{{{name}}}"), &encoded(value))
        });
        query.insert("limit".to_owned(), limit.to_string());
        Ok(Self { sight, conditions, values, limit, cursor, digest, path, query })
    }

    /// The query of an endpoint with its places filled in. What is filled in is not looked at
    /// again, so braces in a value mean nothing.
    pub fn sql(&self, endpoint: &Endpoint, faults: &[String]) -> String {
        let place = |name: &str| match name {
            "where" if self.conditions.is_empty() => Some("1".to_owned()),
            "where" => Some(self.conditions.join(" AND ")),
            "faults" => {
                let lines: Vec<_> = faults.iter().map(|line| quoted(line)).collect();
                Some(format!("CAST([{}], 'Array(String)')", lines.join(", ")))
            }
            name => {
                let parameter = endpoint.parameters.iter().find(|parameter| parameter.name == name)?;
                Some(quoted(self.values.get(parameter.name).map_or("", String::as_str)))
            }
        };
        let mut parts = endpoint.sql.split('{');
        let mut sql = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let filled = part.split_once('}').and_then(|(name, rest)| Some((place(name)?, rest)));
            match filled {
                Some((value, rest)) => {
                    sql.push_str(&value);
                    sql.push_str(rest);
                }
                None => {
                    sql.push('{');
                    sql.push_str(part);
                }
            }
        }
        sql
    }

    /// The address of the page after a cursor.
    pub fn link(&self, cursor: &str) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.extend_pairs(&self.query).append_pair("cursor", cursor);
        format!("{}?{}", self.path, query.finish())
    }
}
