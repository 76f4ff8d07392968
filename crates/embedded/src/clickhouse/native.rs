//! Support for `client_protocol_version`. A client that names a version gets blocks of the format
//! Native as in ClickHouse's own protocol. Every version has an information field before each
//! block. From one version on, a byte after each column's type tells whether the column is stored
//! in a special way. The engine writes neither. Where a column ends can only be derived from its
//! type.

use super::exception::Exception;

/// The first version in which a column tells how it is stored.
const CUSTOM_SERIALIZATION: u64 = 54_454;
/// The block information: no overflow rows (field 1), no bucket number (field 2), the end.
const BLOCK_INFORMATION: [u8; 8] = [1, 0, 2, 0xff, 0xff, 0xff, 0xff, 0];

/// Appends whole blocks in the form that a client of this version expects.
///
/// # Errors
/// A column has a type whose length this code does not know.
pub fn rewrite(blocks: &[u8], version: u64, out: &mut Vec<u8>) -> Result<(), Exception> {
    let mut rest = Fields(blocks);
    while !rest.0.is_empty() {
        out.extend(BLOCK_INFORMATION);
        let before = rest.0;
        let (columns, rows) = rest.varint().zip(rest.varint()).ok_or_else(cut_off)?;
        out.extend(&before[..before.len() - rest.0.len()]);
        for _ in 0..columns {
            let before = rest.0;
            let name = rest.text().and_then(|_| rest.text()).ok_or_else(cut_off)?;
            out.extend(&before[..before.len() - rest.0.len()]);
            if version >= CUSTOM_SERIALIZATION {
                out.push(0);
            }
            if rows > 0 {
                let name = String::from_utf8_lossy(name);
                let column = Type::read(&name).ok_or_else(|| unknown(&name))?;
                let before = rest.0;
                column.prefix(&mut rest).and_then(|()| column.values(&mut rest, rows)).ok_or_else(cut_off)?;
                out.extend(&before[..before.len() - rest.0.len()]);
            }
        }
    }
    Ok(())
}

fn cut_off() -> Exception {
    Exception::new(49, "LOGICAL_ERROR", "a block of the format Native does not end where its columns do")
}

fn unknown(name: &str) -> Exception {
    let message = format_args!(
        "A column of the type {name} is not written for a client_protocol_version; convert it, for example by toString, or ask \
         without the parameter"
    );
    Exception::new(48, "NOT_IMPLEMENTED", message)
}

/// The structure of a column.
#[derive(Debug, PartialEq, Eq)]
enum Type {
    /// A fixed number of bytes for each row.
    Plain(usize),
    /// For each row, a length and then this number of bytes.
    Text,
    /// A byte for each row, then the values.
    Nullable(Box<Type>),
    /// The end of each row's elements, then all elements.
    Array(Box<Type>),
    /// One column after the other.
    Tuple(Vec<Type>),
    /// The distinct values, and a number for each row.
    LowCardinality(Box<Type>),
}

impl Type {
    /// Returns `None` for an unknown type.
    fn read(name: &str) -> Option<Self> {
        let name = name.trim();
        let (family, arguments) = match name.split_once('(') {
            Some((family, rest)) => (family, split(rest.strip_suffix(')')?)),
            None => (name, Vec::new()),
        };
        let array = |element: Self| Self::Array(Box::new(element));
        let point = || Self::Tuple(vec![Self::Plain(8), Self::Plain(8)]);
        let tuple = || arguments.iter().map(|argument| Self::read(unnamed(argument))).collect::<Option<Vec<_>>>();
        Some(match family {
            "Nothing" | "Bool" | "Int8" | "UInt8" | "Enum8" => Self::Plain(1),
            "Int16" | "UInt16" | "Enum16" | "Date" | "BFloat16" => Self::Plain(2),
            "Int32" | "UInt32" | "Float32" | "Date32" | "DateTime" | "IPv4" | "Time" | "Decimal32" => Self::Plain(4),
            "Int64" | "UInt64" | "Float64" | "DateTime64" | "Time64" | "Decimal64" => Self::Plain(8),
            "Int128" | "UInt128" | "UUID" | "IPv6" | "Decimal128" => Self::Plain(16),
            "Int256" | "UInt256" | "Decimal256" => Self::Plain(32),
            interval if interval.starts_with("Interval") => Self::Plain(8),
            "Decimal" => match arguments.first()?.parse().ok()? {
                ..=9_u32 => Self::Plain(4),
                10..=18 => Self::Plain(8),
                19..=38 => Self::Plain(16),
                _ => Self::Plain(32),
            },
            "FixedString" => Self::Plain(arguments.first()?.parse().ok()?),
            "String" => Self::Text,
            "Nullable" => Self::Nullable(Box::new(Self::read(arguments.first()?)?)),
            "LowCardinality" => match Self::read(arguments.first()?)? {
                Self::Nullable(inner) => Self::LowCardinality(inner),
                inner => Self::LowCardinality(Box::new(inner)),
            },
            "Array" => array(Self::read(arguments.first()?)?),
            "Tuple" if !arguments.is_empty() => Self::Tuple(tuple()?),
            "Map" | "Nested" if !arguments.is_empty() => array(Self::Tuple(tuple()?)),
            "SimpleAggregateFunction" => Self::read(arguments.last()?)?,
            "Point" => point(),
            "Ring" | "LineString" => array(point()),
            "Polygon" | "MultiLineString" => array(array(point())),
            "MultiPolygon" => array(array(array(point()))),
            _ => return None,
        })
    }

    /// Skips what comes before the values of all columns that this one consists of.
    fn prefix(&self, rest: &mut Fields<'_>) -> Option<()> {
        match self {
            Self::Plain(_) | Self::Text => Some(()),
            Self::Nullable(inner) | Self::Array(inner) => inner.prefix(rest),
            Self::Tuple(elements) => elements.iter().try_for_each(|element| element.prefix(rest)),
            Self::LowCardinality(_) => rest.skip(8, 1),
        }
    }

    fn values(&self, rest: &mut Fields<'_>, rows: u64) -> Option<()> {
        match self {
            Self::Plain(bytes) => rest.skip(u64::try_from(*bytes).ok()?, rows),
            Self::Text => (0..rows).try_for_each(|_| rest.text().map(|_| ())),
            Self::Nullable(inner) => rest.skip(1, rows).and_then(|()| inner.values(rest, rows)),
            Self::Array(_) if rows == 0 => Some(()),
            Self::Array(element) => {
                rest.skip(8, rows - 1)?;
                let elements = rest.number()?;
                element.values(rest, elements)
            }
            Self::Tuple(elements) => elements.iter().try_for_each(|element| element.values(rest, rows)),
            Self::LowCardinality(_) if rows == 0 => Some(()),
            Self::LowCardinality(inner) => {
                // The lowest two bits are the width of the numbers, as a power of two.
                let width = 1 << (rest.number()? & 3);
                let keys = rest.number()?;
                inner.values(rest, keys)?;
                let numbers = rest.number()?;
                rest.skip(width, numbers)
            }
        }
    }
}

/// The arguments of a type, which may themselves contain brackets and quotes.
fn split(arguments: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut quote, mut start, mut escaped) = (Vec::new(), 0_usize, None, 0, false);
    for (at, character) in arguments.char_indices() {
        match (quote, character) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), close) if open == close => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '`') => quote = Some(character),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.push(arguments[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(arguments[start..].trim());
    parts.retain(|part| !part.is_empty());
    parts
}

/// An element of a tuple without its name, which may be quoted.
fn unnamed(element: &str) -> &str {
    if let Some(quoted) = element.strip_prefix('`') {
        let mut escaped = false;
        let end = quoted.char_indices().find(|(_, character)| {
            let ends = *character == '`' && !escaped;
            escaped = *character == '\\' && !escaped;
            ends
        });
        return end.map_or("", |(end, _)| quoted[end + 1..].trim());
    }
    let name = element.split(['(', ' ']).next().unwrap_or_default();
    element[name.len()..].strip_prefix(' ').unwrap_or(element)
}

/// Takes bytes from the front.
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    fn take(&mut self, bytes: u64) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(bytes).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, bytes: u64, times: u64) -> Option<()> {
        self.take(bytes.checked_mul(times)?).map(|_| ())
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn text(&mut self) -> Option<&'b [u8]> {
        let bytes = self.varint()?;
        self.take(bytes)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..63).step_by(7) {
            let byte = *self.take(1)?.first()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read() {
        use Type::{Array, LowCardinality, Nullable, Plain, Text, Tuple};
        for (name, expected) in [
            ("DateTime64(3, 'Europe/Paris')", Plain(8)),
            (r"Enum8('a(,' = 1, 'b\')' = 2)", Plain(1)),
            ("Decimal(38, 4)", Plain(16)),
            ("Array(Nullable(String))", Array(Box::new(Nullable(Box::new(Text))))),
            ("LowCardinality(Nullable(String))", LowCardinality(Box::new(Text))),
            ("Tuple(a UInt8, `b (c` Array(String), String)", Tuple(vec![Plain(1), Array(Box::new(Text)), Text])),
            ("Map(String, Decimal(9, 1))", Array(Box::new(Tuple(vec![Text, Plain(4)])))),
            ("Tuple(DateTime64(3, 'UTC'), Enum16('x y' = 1))", Tuple(vec![Plain(8), Plain(2)])),
            ("SimpleAggregateFunction(sum, UInt64)", Plain(8)),
            ("FixedString(7)", Plain(7)),
        ] {
            assert_eq!(Type::read(name), Some(expected), "{name}");
        }
        for name in ["AggregateFunction(sum, UInt64)", "Dynamic", "Variant(String, UInt8)", "JSON", "Tuple()"] {
            assert_eq!(Type::read(name), None, "{name}");
        }
    }

    #[test]
    fn what_a_client_of_a_version_expects_is_added() {
        let block = [&[1, 2, 1, b'n', 5][..], b"UInt8", &[7, 9]].concat();
        let rewritten = |version| {
            let mut out = Vec::new();
            rewrite(&[&block[..], &block].concat(), version, &mut out).unwrap();
            out
        };
        let old = [&BLOCK_INFORMATION[..], &block].concat();
        assert_eq!(rewritten(54_453), [&old[..], &old].concat());
        let new = [&BLOCK_INFORMATION[..], &[1, 2, 1, b'n', 5], b"UInt8", &[0, 7, 9]].concat();
        assert_eq!(rewritten(54_454), [&new[..], &new].concat());
        assert!(rewrite(&block[..block.len() - 1], 1, &mut Vec::new()).is_err());
        assert!(rewrite(&[&[1, 1, 1, b'n', 4][..], b"JSON"].concat(), 1, &mut Vec::new()).is_err());
    }
}
