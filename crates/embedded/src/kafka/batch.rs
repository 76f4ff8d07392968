//! The record batch of format version 2: what the broker reads, checks and changes in it.
//!
//! The broker stores a batch exactly as the producer sent it, with records, compression and
//! checksum unchanged. It only sets the base offset and the leader epoch, which the checksum leaves
//! out for this purpose.

use bytes::{Bytes, BytesMut};
use kafka_protocol::error::ResponseError;

/// Size of a batch before its records, bytes.
pub(super) const HEADER_BYTES: usize = 61;
/// Size of the base offset and length fields, bytes. The length field does not count them.
const PREFIX_BYTES: usize = 12;
/// Position at which the checksum's range begins.
const CHECKED_FROM: usize = 21;
const MAGIC: u8 = 2;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Offset of the first record.
    pub(super) base_offset: i64,
    /// Size of the whole batch including its header, bytes.
    pub(super) bytes: usize,
    pub(super) last_offset_delta: i32,
    /// The latest creation time of its records, ms since 1970.
    pub(super) max_timestamp_ms: i64,
    /// -1 for a producer that is not idempotent.
    pub(super) producer_id: i64,
    pub(super) producer_epoch: i16,
    pub(super) base_sequence: i32,
    crc: u32,
    attributes: i16,
    records: i32,
}

impl Header {
    /// Reads the header at the start of `bytes`; `None` if there is no batch of format version 2.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let length = i32::from_be_bytes(field(bytes, 8)?);
        let total = usize::try_from(length).ok()?.checked_add(PREFIX_BYTES)?;
        if total < HEADER_BYTES || *bytes.get(16)? != MAGIC {
            return None;
        }
        let header = Self {
            base_offset: i64::from_be_bytes(field(bytes, 0)?),
            bytes: total,
            crc: u32::from_be_bytes(field(bytes, 17)?),
            attributes: i16::from_be_bytes(field(bytes, 21)?),
            last_offset_delta: i32::from_be_bytes(field(bytes, 23)?),
            max_timestamp_ms: i64::from_be_bytes(field(bytes, 35)?),
            producer_id: i64::from_be_bytes(field(bytes, 43)?),
            producer_epoch: i16::from_be_bytes(field(bytes, 51)?),
            base_sequence: i32::from_be_bytes(field(bytes, 53)?),
            records: i32::from_be_bytes(field(bytes, 57)?),
        };
        (header.records > 0 && i64::from(header.last_offset_delta) + 1 == i64::from(header.records)).then_some(header)
    }

    /// The offset after the last record.
    pub(super) fn next_offset(&self) -> i64 {
        self.base_offset.saturating_add(i64::from(self.last_offset_delta)).saturating_add(1)
    }

    /// The sequence number of the last record; sequence numbers wrap to 0 after `i32::MAX`.
    pub(super) fn last_sequence(&self) -> i32 {
        let last = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        i32::try_from(last % (i64::from(i32::MAX) + 1)).unwrap_or_default()
    }

    /// Whether the batch at the start of `bytes` has the right checksum.
    pub(super) fn is_intact(&self, bytes: &[u8]) -> bool {
        bytes.get(CHECKED_FROM..self.bytes).is_some_and(|checked| crc32c::crc32c(checked) == self.crc)
    }
}

/// A batch that passed every check and waits for its offset.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) header: Header,
    bytes: BytesMut,
}

impl Admitted {
    /// Sets the batch's place in the log, and returns the bytes to store.
    pub(super) fn place(&mut self, base_offset: i64) -> &[u8] {
        self.header.base_offset = base_offset;
        self.bytes[0..8].copy_from_slice(&base_offset.to_be_bytes());
        self.bytes[12..16].copy_from_slice(&super::LEADER_EPOCH.to_be_bytes());
        &self.bytes
    }
}

/// Checks what a producer sent. It must be exactly one batch of format version 2, intact, not
/// transactional, at most `bytes_max` bytes, with records that a consumer can read.
pub(super) fn admit(records: Bytes, bytes_max: usize) -> Result<Admitted, ResponseError> {
    if records.len() > bytes_max {
        return Err(ResponseError::MessageTooLarge);
    }
    if records.get(16).is_some_and(|magic| *magic < MAGIC) {
        return Err(ResponseError::UnsupportedForMessageFormat);
    }
    let header = Header::read(&records).ok_or(ResponseError::CorruptMessage)?;
    if header.bytes != records.len() {
        return Err(ResponseError::InvalidRecord);
    }
    if header.attributes & (TRANSACTIONAL | CONTROL) != 0 {
        return Err(ResponseError::InvalidRecord);
    }
    if header.producer_id >= 0 && (header.base_sequence < 0 || header.producer_epoch < 0) {
        return Err(ResponseError::InvalidRecord);
    }
    if !header.is_intact(&records) {
        return Err(ResponseError::CorruptMessage);
    }
    super::records::check(header.attributes, &records[HEADER_BYTES..], header.records)?;
    Ok(Admitted { header, bytes: BytesMut::from(records) })
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn batch(producer_id: i64, epoch: i16, sequence: i32, records: i32) -> Bytes {
        let mut bytes = [vec![0u8; HEADER_BYTES], super::super::records::tests::records(records)].concat();
        bytes[16] = MAGIC;
        bytes[23..27].copy_from_slice(&(records - 1).to_be_bytes());
        bytes[35..43].copy_from_slice(&(1_000 + i64::from(sequence)).to_be_bytes());
        bytes[43..51].copy_from_slice(&producer_id.to_be_bytes());
        bytes[51..53].copy_from_slice(&epoch.to_be_bytes());
        bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
        bytes[57..61].copy_from_slice(&records.to_be_bytes());
        sealed(bytes)
    }

    /// Sets the length and the checksum that fit.
    fn sealed(mut bytes: Vec<u8>) -> Bytes {
        let length = i32::try_from(bytes.len() - PREFIX_BYTES).unwrap();
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[CHECKED_FROM..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        Bytes::from(bytes)
    }

    #[test]
    fn a_sealed_batch_that_cannot_be_read_is_refused() {
        let good = batch(7, 0, 0, 3).to_vec();
        let changed = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            admit(sealed(bytes), 1_000).unwrap_err()
        };
        assert_eq!(changed(&|bytes| bytes.truncate(good.len() - 7)), ResponseError::InvalidRecord);
        assert_eq!(changed(&|bytes| bytes.push(0)), ResponseError::InvalidRecord);
        assert_eq!(changed(&|bytes| bytes[HEADER_BYTES] = 0x7f), ResponseError::InvalidRecord);
        assert_eq!(changed(&|bytes| bytes[22] = 5), ResponseError::UnsupportedCompressionType);
        assert_eq!(changed(&|bytes| bytes[22] = 4), ResponseError::CorruptMessage);
    }

    #[test]
    fn placing_keeps_the_checksum() {
        let mut admitted = admit(batch(7, 0, 0, 3), 1_000).unwrap();
        let stored = admitted.place(41).to_vec();
        let header = Header::read(&stored).unwrap();
        assert_eq!((header.base_offset, header.next_offset()), (41, 44));
        assert!(header.is_intact(&stored));
    }

    #[test]
    fn what_is_no_whole_intact_batch_is_refused() {
        let good = batch(7, 0, 0, 3);
        assert_eq!(admit(good.clone(), 10).unwrap_err(), ResponseError::MessageTooLarge);
        assert_eq!(admit(good.slice(..40), 1_000).unwrap_err(), ResponseError::CorruptMessage);
        assert_eq!(
            admit([good.clone(), good.clone()].concat().into(), 1_000).unwrap_err(),
            ResponseError::InvalidRecord
        );
        let mut flipped = good.to_vec();
        flipped[65] ^= 1;
        assert_eq!(admit(flipped.into(), 1_000).unwrap_err(), ResponseError::CorruptMessage);
        let mut old = good.to_vec();
        old[16] = 1;
        assert_eq!(admit(old.into(), 1_000).unwrap_err(), ResponseError::UnsupportedForMessageFormat);
        let mut transactional = good.to_vec();
        transactional[22] |= 0x10;
        assert_eq!(admit(transactional.into(), 1_000).unwrap_err(), ResponseError::InvalidRecord);
    }

    #[test]
    fn sequence_numbers_wrap() {
        let header = Header::read(&batch(7, 0, i32::MAX - 1, 4)).unwrap();
        assert_eq!(header.last_sequence(), 1);
    }
}
