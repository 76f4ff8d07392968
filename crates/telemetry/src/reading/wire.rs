//! Takes the fields of a protobuf message off its bytes, in place. The readers share it.

/// What a field holds.
pub enum Value<'a> {
    /// Of wire type 0.
    Varint(u64),
    /// Of wire type 1.
    Fixed64(u64),
    /// Of wire type 5; nothing of the contract is.
    Fixed32,
    /// Of wire type 2: text, bytes or a message.
    Bytes(&'a [u8]),
}

/// Takes a field off the front, with its number. Returns `None` at the end, and if the bytes are
/// malformed or hold a group.
#[inline(always)]
pub fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u32, Value<'a>)> {
    field_before(bytes, 0)
}

/// [`field`] of a message that ends `after` bytes before `bytes` end. Bytes behind the message are
/// looked at, so that nearly every field is read out of one word. A field that reaches beyond the
/// message leaves fewer than `after` bytes.
#[inline(always)]
pub(crate) fn field_before<'a>(bytes: &mut &'a [u8], after: usize) -> Option<(u32, Value<'a>)> {
    let mut rest = *bytes;
    let Some((key, value)) = short(&mut rest) else { return long_field(bytes, after) };
    let value = match key & 7 {
        0 => Value::Varint(value.into()),
        2 => {
            let (value, left) = rest.split_at_checked(value as usize)?;
            rest = left;
            Value::Bytes(value)
        }
        _ => return long_field(bytes, after),
    };
    *bytes = rest;
    (key >= 8).then_some((key >> 3, value))
}

/// Takes a key of at most two bytes and a varint of at most four off the front, if at least eight
/// bytes are left.
#[inline(always)]
fn short(bytes: &mut &[u8]) -> Option<(u32, u32)> {
    let word = u64::from_le_bytes(*bytes.first_chunk()?);
    let (key, value, length) = if word & 0x80 == 0 {
        (word as u32 & 0x7f, (word >> 8) as u32, 1)
    } else if word & 0x8000 == 0 {
        (word as u32 & 0x7f | (word as u32 & 0x7f00) >> 1, (word >> 16) as u32, 2)
    } else {
        return None;
    };
    // The upper bit of the last byte, which alone is not set.
    let last = !value & 0x8080_8080;
    if last == 0 {
        return None;
    }
    // At most 6; the mask lets the compiler see it.
    let length = (length + last.trailing_zeros() as usize / 8 + 1) & 7;
    *bytes = &bytes[length..];
    // Groups of 7 bits move together: by twos, all.
    let value = value & (last ^ (last - 1)) & 0x7f7f_7f7f;
    let value = value & 0x007f_007f | (value & 0x7f00_7f00) >> 1;
    Some((key, value & 0x3fff | (value & 0x3fff_0000) >> 2))
}

/// A field of any length.
#[cold]
fn long_field<'a>(bytes: &mut &'a [u8], after: usize) -> Option<(u32, Value<'a>)> {
    let (mut own, rest) = bytes.split_at_checked(bytes.len().checked_sub(after)?)?;
    let key = u32::try_from(varint(&mut own)?).ok().filter(|key| *key >= 8)?;
    let value = match key & 7 {
        0 => Value::Varint(varint(&mut own)?),
        1 => {
            let (value, left) = own.split_first_chunk()?;
            own = left;
            Value::Fixed64(u64::from_le_bytes(*value))
        }
        2 => {
            let length = usize::try_from(varint(&mut own)?).ok()?;
            let (value, left) = own.split_at_checked(length)?;
            own = left;
            Value::Bytes(value)
        }
        5 => {
            own = own.split_first_chunk::<4>()?.1;
            Value::Fixed32
        }
        _ => return None,
    };
    *bytes = &bytes[bytes.len() - rest.len() - own.len()..];
    Some((key >> 3, value))
}

/// Takes a varint of 64 bits at most off the front.
#[inline(always)]
pub(crate) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    // Nearly all are short.
    match **bytes {
        [byte @ 0..0x80, ref rest @ ..] => {
            *bytes = rest;
            Some(byte.into())
        }
        [low, high @ 0..0x80, ref rest @ ..] => {
            *bytes = rest;
            Some(u64::from(low & 0x7f) | u64::from(high) << 7)
        }
        _ => word_varint(bytes).or_else(|| long_varint(bytes)),
    }
}

/// A varint of up to eight bytes, without a loop, if at least eight bytes are left.
#[inline(always)]
fn word_varint(bytes: &mut &[u8]) -> Option<u64> {
    let word = u64::from_le_bytes(*bytes.first_chunk()?);
    // The upper bit of the last byte, which alone is not set.
    let last = !word & 0x8080_8080_8080_8080;
    let length = last.trailing_zeros() as usize / 8 + 1;
    *bytes = bytes.get(length..).filter(|_| last != 0)?;
    let value = word & (last ^ (last - 1)) & 0x7f7f_7f7f_7f7f_7f7f;
    // Groups of 7 bits move together: by twos, by fours, all.
    let value = value & 0x007f_007f_007f_007f | (value & 0x7f00_7f00_7f00_7f00) >> 1;
    let value = value & 0x0000_3fff_0000_3fff | (value & 0x3fff_0000_3fff_0000) >> 2;
    Some(value & 0x0fff_ffff | (value & 0x0fff_ffff_0000_0000) >> 4)
}

fn long_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (index, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if *byte < 0x80 {
            *bytes = &bytes[index + 1..];
            // The tenth has room for one bit.
            return (index < 9 || *byte == 1).then_some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_length_of_a_varint_is_read_alike(
            value in any::<u64>(),
            bits in 0u32..64,
            tail in prop::collection::vec(any::<u8>(), 0..10),
        ) {
            let value = value >> bits;
            let mut written = Vec::new();
            prost::encoding::encode_varint(value, &mut written);
            written.extend(&tail);
            let mut rest = written.as_slice();
            prop_assert_eq!(varint(&mut rest), Some(value));
            prop_assert_eq!(rest, tail.as_slice());
        }

        #[test]
        fn any_bytes_are_read_as_one_by_one(bytes in prop::collection::vec(prop_oneof![any::<u8>(), 0x80u8..], 0..14)) {
            let (mut rest, mut one_by_one) = (bytes.as_slice(), bytes.as_slice());
            prop_assert_eq!(varint(&mut rest), long_varint(&mut one_by_one));
            prop_assert_eq!(rest, one_by_one);
        }

        #[test]
        fn a_field_out_of_one_word_is_what_its_bytes_say(
            key in prop::option::of(0u32..200),
            bytes in prop::collection::vec(prop_oneof![2 => 0u8..10, 1 => any::<u8>(), 1 => 0x80u8..], 0..20),
            after in 0usize..12,
        ) {
            let mut written = Vec::new();
            // Any bytes where there is none: keys that are longer than they must be, and too long.
            key.into_iter().for_each(|key| prost::encoding::encode_varint(key.into(), &mut written));
            written.extend(&bytes);
            let (mut rest, mut slowly) = (written.as_slice(), written.as_slice());
            let said = |field: Option<(u32, Value<'_>)>| field.map(|(number, value)| match value {
                Value::Varint(value) => (number, 0, value, Vec::new()),
                Value::Fixed64(value) => (number, 1, value, Vec::new()),
                Value::Bytes(bytes) => (number, 2, 0, bytes.to_vec()),
                Value::Fixed32 => (number, 5, 0, Vec::new()),
            });
            let field = said(field_before(&mut rest, after)).filter(|_| rest.len() >= after);
            prop_assert_eq!(&field, &said(long_field(&mut slowly, after)));
            if field.is_some() {
                prop_assert_eq!(rest, slowly);
            }
        }
    }
}
