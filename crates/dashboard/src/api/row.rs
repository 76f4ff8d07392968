//! Rows of the interface. Each is declared once with [`row!`]: reading it from ClickHouse, writing
//! it as JSON or CSV, and its schema in the OpenAPI description all follow from that.

use serde_json::{Value, json};

/// A field of a row.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: &'static str,
    /// What it means, with its unit.
    pub about: String,
    /// JSON schema of its values.
    pub schema: Value,
}

/// A row of one endpoint.
pub trait Row {
    /// Name of its schema.
    const NAME: &'static str;
    /// Its fields, in the order of CSV.
    fn fields() -> Vec<Field>;
}

/// A type that a field may have.
pub trait Cell {
    fn schema() -> Value;
}

macro_rules! cells {
    ($($type:ty: $schema:tt),* $(,)?) => {
        $(impl Cell for $type {
            fn schema() -> Value {
                json!($schema)
            }
        })*
    };
}
cells! {
    String: { "type": "string" },
    bool: { "type": "boolean" },
    u8: { "type": "integer", "minimum": 0 },
    u16: { "type": "integer", "minimum": 0 },
    u32: { "type": "integer", "minimum": 0 },
    u64: { "type": "integer", "minimum": 0 },
    i32: { "type": "integer" },
    i64: { "type": "integer" },
    f64: { "type": "number" },
}

impl<T: Cell> Cell for Option<T> {
    fn schema() -> Value {
        let mut schema = T::schema();
        schema["type"] = json!([schema["type"], "null"]);
        schema
    }
}

impl<T: Cell> Cell for Vec<T> {
    fn schema() -> Value {
        json!({ "type": "array", "items": T::schema() })
    }
}

/// Declares a row. The columns of its query have the names of its fields.
macro_rules! row {
    (
        $(#[doc = $row:literal])*
        pub struct $name:ident {
            $($(#[doc = $about:literal])* $field:ident: $type:ty,)*
        }
    ) => {
        $(#[doc = $row])*
        #[derive(Debug, serde::Serialize, serde::Deserialize)]
        pub struct $name {
            $($(#[doc = $about])* pub $field: $type,)*
        }

        impl $crate::api::row::Row for $name {
            const NAME: &'static str = stringify!($name);

            fn fields() -> Vec<$crate::api::row::Field> {
                vec![$($crate::api::row::Field {
                    name: stringify!($field),
                    about: service::settings::about(&[$($about),*]),
                    schema: <$type as $crate::api::row::Cell>::schema(),
                },)*]
            }
        }
    };
}
pub(crate) use row;
