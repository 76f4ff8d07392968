//! Reads rows from an answer in ClickHouse's format `RowBinaryWithNamesAndTypes`.
//!
//! The client library reads rows too, but the compiler builds its reader anew for each type of row.
//! That was nearly half of this crate's code. The reader here is compiled once, and a type only
//! adds the code that `serde` derives.
//!
//! A struct takes columns by name, a tuple by position, and any other type takes the only column.
//! The type of each column is checked before any of its bytes are read.

use std::fmt;

use clickhouse_types::{Column, DataTypeNode as Kind, error::TypesError, parse_rbwnat_columns_header, read_leb128};
use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Why an answer does not hold the requested rows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The bytes end within a row. More bytes may complete it.
    Short,
    /// The answer has other columns or types than requested.
    Shape(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("it ends within a row"),
            Self::Shape(fault) => f.write_str(fault),
        }
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(fault: T) -> Self {
        Self::Shape(fault.to_string())
    }
}

/// An answer that arrives in pieces.
#[derive(Default)]
pub(crate) struct Answer {
    columns: Vec<Column>,
    /// Bytes that were not read yet: the header at first, later less than one row.
    rest: Vec<u8>,
}

impl Answer {
    /// Adds a piece.
    ///
    /// # Errors
    /// Fails if the header cannot be read.
    pub(crate) fn add(&mut self, piece: &[u8]) -> Result<(), Fault> {
        self.rest.extend_from_slice(piece);
        if self.columns.is_empty() {
            let mut bytes = &self.rest[..];
            match parse_rbwnat_columns_header(&mut bytes) {
                Ok(columns) => {
                    self.columns = columns;
                    self.rest.drain(..self.rest.len() - bytes.len());
                }
                Err(TypesError::NotEnoughData(_)) => {}
                Err(fault) => return Err(Fault::Shape(fault.to_string())),
            }
        }
        Ok(())
    }

    /// Moves the complete rows to `rows`.
    ///
    /// # Errors
    /// Fails if the rows do not have the shape of `T`.
    pub(crate) fn take<T: DeserializeOwned>(&mut self, rows: &mut Vec<T>) -> Result<(), Fault> {
        let mut bytes = &self.rest[..];
        while !self.columns.is_empty() && !bytes.is_empty() {
            let mut ahead = bytes;
            match T::deserialize(Row { bytes: &mut ahead, columns: &self.columns }) {
                Ok(row) => rows.push(row),
                Err(Fault::Short) => break,
                Err(fault) => return Err(fault),
            }
            bytes = ahead;
        }
        self.rest.drain(..self.rest.len() - bytes.len());
        Ok(())
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// Fails if the answer ended within the header or within a row.
    pub(crate) fn end(&self) -> Result<(), Fault> {
        if self.columns.is_empty() || !self.rest.is_empty() { Err(Fault::Short) } else { Ok(()) }
    }
}

struct Row<'a, 'de> {
    bytes: &'a mut &'de [u8],
    columns: &'a [Column],
}

impl<'de> Row<'_, 'de> {
    /// The row as its only column.
    fn only(&mut self) -> Result<Value<'_, 'de>, Fault> {
        match self.columns {
            [column] => Ok(Value { bytes: self.bytes, kind: &column.data_type }),
            columns => Err(Fault::Shape(format!("{} columns instead of one", columns.len()))),
        }
    }
}

/// Implements deserializer methods by forwarding to the only column.
macro_rules! only {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Fault> {
            self.only()?.$method(visitor)
        })*
    };
}

impl<'de> Deserializer<'de> for Row<'_, 'de> {
    type Error = Fault;

    only! {
        deserialize_any deserialize_bool deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_i32
        deserialize_i64 deserialize_f64 deserialize_string deserialize_option deserialize_seq
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_map(self)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        if len != self.columns.len() {
            return Err(Fault::Shape(format!("{} columns instead of {len}", self.columns.len())));
        }
        visitor.visit_seq(self)
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u128 f32 char str bytes byte_buf unit unit_struct newtype_struct tuple_struct map enum identifier
        ignored_any
    }
}

impl<'de> MapAccess<'de> for Row<'_, 'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        let Some(column) = self.columns.first() else { return Ok(None) };
        seed.deserialize(StrDeserializer::new(&column.name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        self.next_element_seed(seed)?.ok_or(Fault::Short)
    }
}

impl<'de> SeqAccess<'de> for Row<'_, 'de> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((column, others)) = self.columns.split_first() else { return Ok(None) };
        self.columns = others;
        let value = seed.deserialize(Value { bytes: self.bytes, kind: &column.data_type });
        value.map(Some).map_err(|fault| match fault {
            Fault::Shape(fault) => Fault::Shape(format!("column {}: {fault}", column.name)),
            Fault::Short => Fault::Short,
        })
    }
}

/// A value, with the type that its column has.
struct Value<'a, 'de> {
    bytes: &'a mut &'de [u8],
    kind: &'a Kind,
}

impl<'a, 'de> Value<'a, 'de> {
    /// The type that determines the bytes: these two wrappers are encoded like the type they wrap.
    fn kind(&self) -> &'a Kind {
        let mut kind = self.kind;
        while let Kind::LowCardinality(inner) | Kind::SimpleAggregateFunction(_, inner) = kind {
            kind = inner;
        }
        kind
    }

    /// The fault for a column that holds another type than wanted.
    fn unlike(&self, wanted: &str) -> Fault {
        Fault::Shape(format!("{} instead of {wanted}", self.kind))
    }

    fn take(&mut self, count: usize) -> Result<&'de [u8], Fault> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or(Fault::Short)?;
        *self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Fault> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(Fault::Short)?;
        *self.bytes = rest;
        Ok(*taken)
    }

    /// Reads the length prefix of the following bytes or elements.
    fn length(&mut self) -> Result<usize, Fault> {
        let length = read_leb128(&mut *self.bytes).map_err(|fault| match fault {
            TypesError::NotEnoughData(_) => Fault::Short,
            fault => Fault::Shape(fault.to_string()),
        })?;
        usize::try_from(length).map_err(|_| Fault::Shape(format!("a length of {length}")))
    }

    fn flag(&mut self) -> Result<bool, Fault> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [byte] => Err(Fault::Shape(format!("{byte} where 0 or 1 belongs"))),
        }
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $number:ident $kind:pat,)*) => {
        $(fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Fault> {
            match self.kind() {
                $kind => visitor.$visit($number::from_le_bytes(self.array()?)),
                _ => Err(self.unlike(stringify!($number))),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Value<'_, 'de> {
    type Error = Fault;

    numbers! {
        deserialize_u8 visit_u8 u8 Kind::UInt8,
        deserialize_u16 visit_u16 u16 Kind::UInt16 | Kind::Date,
        deserialize_u32 visit_u32 u32 Kind::UInt32 | Kind::DateTime(_),
        deserialize_u64 visit_u64 u64 Kind::UInt64,
        deserialize_i32 visit_i32 i32 Kind::Int32 | Kind::Date32,
        deserialize_i64 visit_i64 i64 Kind::Int64 | Kind::DateTime64(..),
        deserialize_f64 visit_f64 f64 Kind::Float64,
    }

    fn deserialize_bool<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Fault> {
        match self.kind() {
            // The result of a comparison in ClickHouse has the type UInt8.
            Kind::Bool | Kind::UInt8 => visitor.visit_bool(self.flag()?),
            _ => Err(self.unlike("bool")),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Fault> {
        if *self.kind() != Kind::String {
            return Err(self.unlike("text"));
        }
        let length = self.length()?;
        let text = std::str::from_utf8(self.take(length)?).map_err(|fault| Fault::Shape(fault.to_string()))?;
        visitor.visit_borrowed_str(text)
    }

    fn deserialize_option<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Fault> {
        let Kind::Nullable(inner) = self.kind() else { return Err(self.unlike("an optional value")) };
        if self.flag()? { visitor.visit_none() } else { visitor.visit_some(Value { bytes: self.bytes, kind: inner }) }
    }

    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Fault> {
        let Kind::Array(inner) = self.kind() else { return Err(self.unlike("a list")) };
        let left = self.length()?;
        visitor.visit_seq(Elements { bytes: self.bytes, kind: inner, left })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Fault> {
        match self.kind() {
            Kind::Tuple(kinds) if kinds.len() == len => visitor.visit_seq(Members { bytes: self.bytes, kinds }),
            _ => Err(self.unlike(&format!("a tuple of {len}"))),
        }
    }

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Fault> {
        Err(Fault::Shape("no row of this program takes it".to_owned()))
    }

    serde::forward_to_deserialize_any! {
        i8 i16 i128 u128 f32 char str bytes byte_buf unit unit_struct newtype_struct tuple_struct struct map enum identifier
        ignored_any
    }
}

/// The elements of an array.
struct Elements<'a, 'de> {
    bytes: &'a mut &'de [u8],
    kind: &'a Kind,
    left: usize,
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(Value { bytes: self.bytes, kind: self.kind }).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        // No element is shorter than a byte, so the rest of the bytes bounds the size.
        Some(self.left.min(self.bytes.len()))
    }
}

/// The members of a tuple.
struct Members<'a, 'de> {
    bytes: &'a mut &'de [u8],
    kinds: &'a [Kind],
}

impl<'de> SeqAccess<'de> for Members<'_, 'de> {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some((kind, others)) = self.kinds.split_first() else { return Ok(None) };
        self.kinds = others;
        seed.deserialize(Value { bytes: self.bytes, kind }).map(Some)
    }
}

#[cfg(test)]
mod tests;
