//! Checks the records inside a batch once, when a producer sends them. A batch that a consumer
//! cannot read is refused. Once stored, it would stop every consumer of its partition for good.

use std::{borrow::Cow, io::Read};

use kafka_protocol::error::ResponseError;

/// Largest size of a batch's uncompressed records, bytes: eight times the largest batch.
const PLAIN_BYTES_MAX: usize = 8 * super::config::BATCH_BYTES_MAX;
/// How far a Zstandard frame may refer back, as a power of two, bytes. Its decoder keeps as much.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;
/// The bits of a batch's attributes that name its codec.
const CODEC: i16 = 0x07;

/// Checks that `bytes`, which follow a batch's header, are `count` whole records with the offsets
/// that the header promises.
pub(super) fn check(attributes: i16, bytes: &[u8], count: i32) -> Result<(), ResponseError> {
    let plain = match attributes & CODEC {
        0 => Cow::Borrowed(bytes),
        1 => inflate(flate2::read::MultiGzDecoder::new(bytes))?,
        2 => Cow::Owned(snappy(bytes)?),
        3 => inflate(lz4_flex::frame::FrameDecoder::new(bytes))?,
        4 => {
            let mut decoder = zstd::Decoder::with_buffer(bytes).map_err(|_| ResponseError::UnknownServerError)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| ResponseError::UnknownServerError)?;
            inflate(decoder)?
        }
        _ => return Err(ResponseError::UnsupportedCompressionType),
    };
    let mut rest = Fields(&plain);
    let whole = (0..count).try_for_each(|index| rest.record(index));
    whole.filter(|()| rest.0.is_empty()).ok_or(ResponseError::InvalidRecord)
}

fn inflate(decoder: impl Read) -> Result<Cow<'static, [u8]>, ResponseError> {
    let mut plain = Vec::new();
    let limit = u64::try_from(PLAIN_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(limit).read_to_end(&mut plain).map_err(|_| ResponseError::CorruptMessage)?;
    if plain.len() > PLAIN_BYTES_MAX { Err(ResponseError::MessageTooLarge) } else { Ok(Cow::Owned(plain)) }
}

/// What Java's clients write before blocks of Snappy. Two version numbers of four bytes follow.
const SNAPPY_BLOCKS: &[u8] = b"\x82SNAPPY\0";

/// Unpacks Snappy in one piece, as librdkafka sends it, or in blocks with their lengths.
fn snappy(bytes: &[u8]) -> Result<Vec<u8>, ResponseError> {
    let mut plain = Vec::new();
    let Some(blocks) = bytes.strip_prefix(SNAPPY_BLOCKS) else {
        unpack(bytes, &mut plain)?;
        return Ok(plain);
    };
    let mut rest = blocks.get(8..).ok_or(ResponseError::CorruptMessage)?;
    while let Some((length, after)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| ResponseError::CorruptMessage)?;
        let (block, after) = after.split_at_checked(length).ok_or(ResponseError::CorruptMessage)?;
        unpack(block, &mut plain)?;
        rest = after;
    }
    if rest.is_empty() { Ok(plain) } else { Err(ResponseError::CorruptMessage) }
}

/// Appends the content of a piece of Snappy. The piece starts with the length of its content.
fn unpack(block: &[u8], plain: &mut Vec<u8>) -> Result<(), ResponseError> {
    let length = snap::raw::decompress_len(block).map_err(|_| ResponseError::CorruptMessage)?;
    let from = plain.len();
    if length > PLAIN_BYTES_MAX.saturating_sub(from) {
        return Err(ResponseError::MessageTooLarge);
    }
    // Snappy reduces data to no less than a 32nd, so a longer content is a lie.
    if length > block.len().saturating_mul(32).saturating_add(64) {
        return Err(ResponseError::CorruptMessage);
    }
    plain.resize(from + length, 0);
    let unpacked = snap::raw::Decoder::new().decompress(block, &mut plain[from..]);
    if unpacked.is_ok_and(|unpacked| unpacked == length) { Ok(()) } else { Err(ResponseError::CorruptMessage) }
}

/// Takes bytes from the front. A step returns `None` if the bytes end too early or are not valid.
struct Fields<'b>(&'b [u8]);

impl<'b> Fields<'b> {
    /// A record: length, attributes, timestamp, offset, key, value, headers. It must have exactly
    /// this length.
    fn record(&mut self, index: i32) -> Option<()> {
        let length = usize::try_from(self.varint()?).ok()?;
        let mut record = Fields(self.take(length)?);
        record.take(1)?;
        record.varint()?;
        if record.varint()? != i64::from(index) {
            return None;
        }
        record.nullable()?;
        record.nullable()?;
        for _ in 0..u32::try_from(record.varint()?).ok()? {
            let name = usize::try_from(record.varint()?).ok()?;
            std::str::from_utf8(record.take(name)?).ok()?;
            record.nullable()?;
        }
        record.0.is_empty().then_some(())
    }

    /// Bytes after their length; -1 stands for none.
    fn nullable(&mut self) -> Option<()> {
        match self.varint()? {
            -1 => Some(()),
            length => self.take(usize::try_from(length).ok()?).map(|_| ()),
        }
    }

    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// A signed number in zigzag form: seven bits in each byte, the lowest first.
    fn varint(&mut self) -> Option<i64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
            }
        }
        None
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write as _;

    use super::*;

    /// Records without key and value.
    pub(in super::super) fn records(count: i32) -> Vec<u8> {
        (0..count).flat_map(|index| [12, 0, 0, u8::try_from(2 * index).unwrap(), 1, 1, 0]).collect()
    }

    #[test]
    fn whole_records_pass_whatever_the_codec() {
        let plain = records(3);
        assert_eq!(check(0, &plain, 3), Ok(()));
        // A key, a value, and a header with a name but no value.
        assert_eq!(
            check(0, &[20, 0, 0, 0, 2, b'k', 2, b'v', 2, 2, b'h', 1][..11], 1),
            Err(ResponseError::InvalidRecord)
        );
        assert_eq!(check(0, &[22, 0, 0, 0, 2, b'k', 2, b'v', 2, 2, b'h', 1], 1), Ok(()));
        for (codec, compressed) in compressed(&plain) {
            assert_eq!(check(codec, &compressed, 3), Ok(()), "{codec}");
            assert_eq!(check(codec, &compressed, 2), Err(ResponseError::InvalidRecord), "{codec}");
            assert_eq!(
                check(codec, &compressed[..compressed.len() / 2], 3),
                Err(ResponseError::CorruptMessage),
                "{codec}"
            );
            assert_eq!(check(codec, &plain, 3), Err(ResponseError::CorruptMessage), "{codec}");
        }
    }

    #[test]
    fn what_a_consumer_cannot_read_is_refused() {
        let plain = records(3);
        for count in [1, 2, 4, i32::MAX] {
            assert_eq!(check(0, &plain, count), Err(ResponseError::InvalidRecord), "{count}");
        }
        for at in [0, 3, 4, 5, 6] {
            let mut other = plain.clone();
            other[at] = 0x7e;
            assert_eq!(check(0, &other, 3), Err(ResponseError::InvalidRecord), "{at}");
        }
        assert_eq!(check(0, &[0x80; 40], 1), Err(ResponseError::InvalidRecord));
        for codec in [5, 6, 7] {
            assert_eq!(check(codec, &plain, 3), Err(ResponseError::UnsupportedCompressionType));
        }
    }

    #[test]
    fn a_small_batch_does_not_become_a_large_one() {
        for (codec, compressed) in compressed(&vec![0; PLAIN_BYTES_MAX + 1]) {
            assert!(compressed.len() < super::super::config::BATCH_BYTES_MAX);
            assert_eq!(check(codec, &compressed, 1), Err(ResponseError::MessageTooLarge), "{codec}");
        }
    }

    fn compressed(plain: &[u8]) -> [(i16, Vec<u8>); 5] {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(plain).unwrap();
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(plain).unwrap();
        let snappy = |plain| snap::raw::Encoder::new().compress_vec(plain).unwrap();
        let block = |plain| {
            let packed = snappy(plain);
            [&u32::try_from(packed.len()).unwrap().to_be_bytes()[..], &packed].concat()
        };
        let (first, second) = plain.split_at(plain.len() / 2);
        let blocks = [SNAPPY_BLOCKS, &[0, 0, 0, 1, 0, 0, 0, 1], &block(first), &block(second)].concat();
        [
            (1, gzip.finish().unwrap()),
            (2, snappy(plain)),
            (2, blocks),
            (3, lz4.finish().unwrap()),
            (4, zstd::encode_all(plain, 1).unwrap()),
        ]
    }
}
