//! What an endpoint is. Its route, its parameters, its query, its rows and its description come
//! from one constant.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use warehouse::{Error, Warehouse};

use super::{
    LIMIT, LIMIT_MAX,
    row::{Field, Row},
};
use crate::access::tokens::Role;

/// A row as JSON.
pub type Object = Map<String, Value>;
/// Reads the rows of a query.
type Read = for<'a> fn(&'a Warehouse, String) -> Reading<'a>;
type Reading<'a> = std::pin::Pin<Box<dyn Future<Output = Result<Vec<Object>, Error>> + Send + 'a>>;

/// An endpoint that answers with rows of one query.
pub struct Endpoint {
    /// The path below `/api/v1`.
    pub path: &'static str,
    pub about: &'static str,
    pub audience: Audience,
    pub parameters: &'static [Parameter],
    /// The query. `{where}` stands for the conditions of the parameters, `{name}` for the quoted
    /// value of the parameter of that name (an empty text if it is not given), `{faults}` for the
    /// faults of roles in this process (lines, Array(String)).
    pub sql: &'static str,
    pub shape: Shape,
    pub rows: Rows,
}

/// The rows of an endpoint.
pub struct Rows {
    pub name: &'static str,
    pub fields: fn() -> Vec<Field>,
    pub read: Read,
    /// Rows of a page where nobody says how many.
    pub limit: usize,
    /// Most rows of a page.
    pub limit_max: usize,
}

impl Rows {
    /// Rows of a type.
    pub const fn of<T: Row + DeserializeOwned + serde::Serialize + Send + 'static>() -> Self {
        Self { name: T::NAME, fields: T::fields, read: read::<T>, limit: LIMIT, limit_max: LIMIT_MAX }
    }

    /// Rows that are computed here from those of the query; for [`Shape::Computed`].
    pub const fn computed<T: Computed>(limit: usize) -> Self {
        Self { name: T::NAME, fields: T::fields, read: read_computed::<T>, limit, limit_max: limit }
    }

    /// Pages of up to this many rows.
    pub const fn up_to(self, limit_max: usize) -> Self {
        Self { limit_max, ..self }
    }

    /// Pages of this many rows where nobody asks for fewer.
    pub const fn whole(self, limit: usize) -> Self {
        Self { limit, limit_max: limit, ..self }
    }
}

/// A row that is computed here, by mathematics that SQL has not.
pub trait Computed: Row + serde::Serialize + Send + 'static {
    /// A row of the query.
    type Source: DeserializeOwned + Send + 'static;
    /// All rows of the answer from all rows of the query.
    fn compute(sources: Vec<Self::Source>) -> Vec<Self>
    where
        Self: Sized;
}

fn read<T: DeserializeOwned + serde::Serialize + Send + 'static>(warehouse: &Warehouse, sql: String) -> Reading<'_> {
    Box::pin(async move {
        let rows: Vec<T> = warehouse.rows(&sql).await?;
        Ok(rows.iter().map(object).collect())
    })
}

fn read_computed<T: Computed>(warehouse: &Warehouse, sql: String) -> Reading<'_> {
    Box::pin(async move {
        let sources: Vec<T::Source> = warehouse.rows(&sql).await?;
        Ok(T::compute(sources).iter().map(object).collect())
    })
}

fn object<T: serde::Serialize>(row: &T) -> Object {
    match serde_json::to_value(row) {
        Ok(Value::Object(object)) => object,
        _ => Object::new(),
    }
}

/// How many rows an endpoint answers with.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// One row, or 404.
    One,
    /// Pages of rows in the order of keys that together name a row.
    List { keys: &'static [Key], newest_first: bool },
    /// One page of rows that [`Computed::compute`] orders. `limit` leaves out the first ones.
    Computed,
}

/// A column by which a list is ordered.
#[derive(Clone, Copy, Debug)]
pub enum Key {
    Text(&'static str),
    /// A whole number.
    Number(&'static str),
}

impl Key {
    pub fn name(self) -> &'static str {
        match self {
            Self::Text(name) | Self::Number(name) => name,
        }
    }
}

/// Who may ask an endpoint. An admin may ask all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Viewers and operators, for their tenants.
    Tenants,
    /// Operators, for their tenants.
    Operators,
    Manufacturers,
    Admins,
}

impl Audience {
    pub fn admits(self, role: Role) -> bool {
        match self {
            Self::Tenants => matches!(role, Role::Viewer | Role::Operator | Role::Admin),
            Self::Operators => matches!(role, Role::Operator | Role::Admin),
            Self::Manufacturers => matches!(role, Role::Manufacturer | Role::Admin),
            Self::Admins => role == Role::Admin,
        }
    }

    /// Whether rows have a tenant, which a parameter may name.
    pub fn has_tenants(self) -> bool {
        matches!(self, Self::Tenants | Self::Operators)
    }

    /// The roles, for a person.
    pub fn text(self) -> &'static str {
        match self {
            Self::Tenants => "viewer, operator, admin",
            Self::Operators => "operator, admin",
            Self::Manufacturers => "manufacturer, admin",
            Self::Admins => "admin",
        }
    }
}

/// A parameter that narrows the rows.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    pub name: &'static str,
    pub about: &'static str,
    pub kind: Kind,
    /// Condition of SQL; `?` stands for the quoted value.
    pub condition: &'static str,
    /// Whether it must be given. A parameter in the path always is.
    pub is_required: bool,
    /// Its value where it is not given; none = no condition.
    pub default: Option<&'static str>,
}

impl Parameter {
    /// A text that may be left out.
    pub const fn text(name: &'static str, about: &'static str, condition: &'static str) -> Self {
        Self { name, about, kind: Kind::Text, condition, is_required: false, default: None }
    }

    /// A text of so many letters, which must be given.
    pub const fn words(name: &'static str, about: &'static str, least: usize, most: usize) -> Self {
        let kind = Kind::Words { least, most };
        Self { name, about, kind, condition: "1", is_required: true, default: None }
    }

    /// A whole number.
    pub const fn number(name: &'static str, about: &'static str, least: u32, most: u32) -> Self {
        let kind = Kind::Number { least, most };
        Self { name, about, kind, condition: "1", is_required: false, default: None }
    }

    /// The same with a value where it is not given.
    pub const fn or(self, default: &'static str) -> Self {
        Self { default: Some(default), ..self }
    }

    /// A text of the path.
    pub const fn path(name: &'static str, about: &'static str, condition: &'static str) -> Self {
        Self { name, about, kind: Kind::Text, condition, is_required: true, default: None }
    }

    /// One of several words.
    pub const fn choice(
        name: &'static str,
        about: &'static str,
        words: &'static [&'static str],
        condition: &'static str,
    ) -> Self {
        Self { name, about, kind: Kind::Choice(words), condition, is_required: false, default: None }
    }

    /// A label as it was scanned.
    pub const fn label(name: &'static str, about: &'static str, condition: &'static str) -> Self {
        Self { name, about, kind: Kind::Label, condition, is_required: true, default: None }
    }

    /// A time.
    pub const fn time(name: &'static str, about: &'static str, condition: &'static str) -> Self {
        Self { name, about, kind: Kind::Time, condition, is_required: false, default: None }
    }

    /// A day.
    pub const fn day(name: &'static str, about: &'static str, condition: &'static str) -> Self {
        Self { name, about, kind: Kind::Day, condition, is_required: false, default: None }
    }
}

/// The form of a parameter's value.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Text,
    /// A GS1 element string, or any other id of an item. The condition gets the identity of the
    /// item (`item_key`).
    Label,
    Choice(&'static [&'static str]),
    /// A text of so many letters.
    Words {
        least: usize,
        most: usize,
    },
    /// A whole number in digits.
    Number {
        least: u32,
        most: u32,
    },
    /// `2026-01-31T08:00:00Z`, with or without a fraction of a second.
    Time,
    /// `2026-01-31`.
    Day,
}

impl Kind {
    /// The value as the condition takes it.
    ///
    /// # Errors
    /// What would be right.
    pub fn read(self, value: &str) -> Result<String, String> {
        match self {
            Self::Text => Ok(value.to_owned()),
            Self::Label => Ok(warehouse::gs1::item(value)),
            Self::Choice(words) if words.contains(&value) => Ok(value.to_owned()),
            Self::Choice(words) => Err(format!("must be one of {}", words.join(", "))),
            Self::Words { least, most } if (least..=most).contains(&value.chars().count()) => Ok(value.to_owned()),
            Self::Words { least, most } => Err(format!("must have {least} to {most} letters")),
            Self::Number { least, most } => {
                let is_digits = value.bytes().all(|byte| byte.is_ascii_digit());
                let number = value.parse::<u32>().ok().filter(|number| is_digits && (least..=most).contains(number));
                number
                    .map(|number| number.to_string())
                    .ok_or_else(|| format!("must be a number from {least} to {most}"))
            }
            Self::Time if is_time(value) => Ok(value.to_owned()),
            Self::Time => Err("must be a time in UTC such as 2026-01-31T08:00:00Z".to_owned()),
            Self::Day if is_day(value) => Ok(value.to_owned()),
            Self::Day => Err("must be a day such as 2026-01-31".to_owned()),
        }
    }
}

/// Whether a text has the form of a day, of the years that ClickHouse's `Date` covers.
fn is_day(text: &str) -> bool {
    let number = |range: std::ops::Range<usize>| {
        let digits = text.get(range).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        digits.and_then(|digits| digits.parse::<u16>().ok()).unwrap_or_default()
    };
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    let days = match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let has_form = text.len() == 10 && text.as_bytes()[4] == b'-' && text.as_bytes()[7] == b'-';
    has_form && (1970..=2148).contains(&year) && (1..=12).contains(&month) && (1..=days).contains(&day)
}

fn is_time(text: &str) -> bool {
    let Some((day, time)) = text.strip_suffix('Z').and_then(|text| text.split_once('T')) else { return false };
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let parts: Vec<_> = time.split(':').collect();
    let is_number = |text: &str, below: u8| {
        text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u8>().is_ok_and(|n| n < below)
    };
    let [hour, minute, second] = parts[..] else { return false };
    is_day(day)
        && is_number(hour, 24)
        && is_number(minute, 60)
        && is_number(second, 60)
        && (1..=6).contains(&fraction.len())
        && fraction.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_times_have_one_form() {
        for day in ["2026-01-31", "2024-02-29", "2000-02-29", "1970-01-01"] {
            assert!(is_day(day), "{day}");
        }
        for day in [
            "",
            "2026-1-31",
            "2026-02-29",
            "1900-02-28",
            "2026-13-01",
            "2026-00-01",
            "2026-04-31",
            "2026/01/31",
            "+026-01-01",
            "20260131xx",
            "2026-01-3é",
        ] {
            assert!(!is_day(day), "{day}");
        }
        for time in ["2026-01-31T08:00:00Z", "2026-01-31T23:59:59.123456Z"] {
            assert!(is_time(time), "{time}");
        }
        for time in [
            "2026-01-31T08:00:00",
            "2026-01-31T08:00:00+01:00",
            "2026-01-31T24:00:00Z",
            "2026-01-31T08:00Z",
            "2026-01-31T08:00:00.Z",
            "2026-01-31T08:00:00.1234567Z",
            "' OR 1Z",
        ] {
            assert!(!is_time(time), "{time}");
        }
    }

    #[test]
    fn a_scanned_label_becomes_the_identity_of_its_item() {
        let key = Kind::Label.read("(01)04012345000016(21)S1").unwrap();
        assert_eq!(Kind::Label.read("010401234500001621S1").unwrap(), key);
        assert_eq!(Kind::Label.read("hp-0017").unwrap(), "hp-0017");
        let said = Kind::Choice(&["DOSE", "DEPTH"]).read("dose").unwrap_err();
        assert_eq!(said, "must be one of DOSE, DEPTH");
    }
}
