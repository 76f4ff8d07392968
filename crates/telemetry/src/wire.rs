//! Protobuf fields of a message, read in place.

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

/// Takes a field off the front, with its number; none at the end, and where the bytes are not well-formed or hold a group.
#[inline(always)]
pub fn field<'a>(bytes: &mut &'a [u8]) -> Option<(u32, Value<'a>)> {
    let key = u32::try_from(varint(bytes)?).ok().filter(|key| *key >= 8)?;
    let value = match key & 7 {
        0 => Value::Varint(varint(bytes)?),
        1 => {
            let (value, rest) = bytes.split_first_chunk()?;
            *bytes = rest;
            Value::Fixed64(u64::from_le_bytes(*value))
        }
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            let (value, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Value::Bytes(value)
        }
        5 => {
            *bytes = bytes.split_first_chunk::<4>()?.1;
            Value::Fixed32
        }
        _ => return None,
    };
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
        _ => long_varint(bytes),
    }
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
