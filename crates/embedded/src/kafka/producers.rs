//! What a partition remembers of its idempotent producers, so that a batch that is sent twice is
//! stored once.

use std::collections::{HashMap, VecDeque};

use kafka_protocol::error::ResponseError;

use super::batch::Header;

/// A producer may have this many unanswered requests, so it can resend at most this many batches.
const BATCHES_KEPT: usize = 5;
/// With more producers than this, the one that has been silent for longest is forgotten.
const PRODUCERS_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug)]
struct Stored {
    base_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
}

#[derive(Debug)]
struct Producer {
    epoch: i16,
    stored: VecDeque<Stored>,
}

/// The decision about a batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Append,
    /// The batch is already stored, at this base offset.
    Duplicate(i64),
    Reject(ResponseError),
}

/// The producers of one partition, by producer id.
#[derive(Debug, Default)]
pub(super) struct Producers(HashMap<i64, Producer>);

impl Producers {
    /// Compares a batch with what its producer stored before. A producer that is new, or was
    /// forgotten, may begin at any sequence number.
    pub(super) fn judge(&self, header: &Header) -> Verdict {
        let Some(producer) = (header.producer_id >= 0).then(|| self.0.get(&header.producer_id)).flatten() else {
            return Verdict::Append;
        };
        if header.producer_epoch < producer.epoch {
            return Verdict::Reject(ResponseError::InvalidProducerEpoch);
        }
        if header.producer_epoch > producer.epoch {
            return match header.base_sequence {
                0 => Verdict::Append,
                _ => Verdict::Reject(ResponseError::OutOfOrderSequenceNumber),
            };
        }
        let last_sequence = header.last_sequence();
        let same =
            |stored: &&Stored| (stored.base_sequence, stored.last_sequence) == (header.base_sequence, last_sequence);
        if let Some(stored) = producer.stored.iter().find(same) {
            return Verdict::Duplicate(stored.base_offset);
        }
        let Some(last) = producer.stored.back() else { return Verdict::Append };
        let expected = last.last_sequence.checked_add(1).unwrap_or(0);
        if header.base_sequence == expected {
            Verdict::Append
        } else if header.base_sequence < expected {
            Verdict::Reject(ResponseError::DuplicateSequenceNumber)
        } else {
            Verdict::Reject(ResponseError::OutOfOrderSequenceNumber)
        }
    }

    /// Remembers a stored batch.
    pub(super) fn note(&mut self, header: &Header) {
        if header.producer_id < 0 {
            return;
        }
        if self.0.len() >= PRODUCERS_MAX && !self.0.contains_key(&header.producer_id) {
            self.forget_oldest();
        }
        let producer = self.0.entry(header.producer_id).or_insert_with(|| Producer {
            epoch: header.producer_epoch,
            stored: VecDeque::with_capacity(BATCHES_KEPT),
        });
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.stored.clear();
        }
        if producer.stored.len() == BATCHES_KEPT {
            producer.stored.pop_front();
        }
        producer.stored.push_back(Stored {
            base_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset: header.base_offset,
        });
    }

    fn forget_oldest(&mut self) {
        let last_offset = |producer: &Producer| producer.stored.back().map(|stored| stored.base_offset);
        let oldest = self.0.iter().min_by_key(|(_, producer)| last_offset(producer)).map(|(id, _)| *id);
        if let Some(oldest) = oldest {
            self.0.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::batch::{admit, tests::batch};
    use super::*;

    fn header(epoch: i16, sequence: i32, records: i32, offset: i64) -> Header {
        let mut admitted = admit(batch(7, epoch, sequence, records), 1_000).unwrap();
        admitted.place(offset);
        admitted.header
    }

    #[test]
    fn a_batch_sent_again_is_known_and_a_gap_is_refused() {
        let mut producers = Producers::default();
        assert_eq!(producers.judge(&header(0, 50, 2, 0)), Verdict::Append);
        for n in 0..6 {
            let next = header(0, n * 2, 2, i64::from(n) * 2);
            if n > 0 {
                assert_eq!(producers.judge(&next), Verdict::Append);
            }
            producers.note(&next);
        }
        assert_eq!(producers.judge(&header(0, 10, 2, 0)), Verdict::Duplicate(10));
        assert_eq!(producers.judge(&header(0, 2, 2, 0)), Verdict::Duplicate(2));
        assert_eq!(producers.judge(&header(0, 0, 2, 0)), Verdict::Reject(ResponseError::DuplicateSequenceNumber));
        assert_eq!(producers.judge(&header(0, 14, 2, 0)), Verdict::Reject(ResponseError::OutOfOrderSequenceNumber));
    }

    #[test]
    fn a_new_epoch_begins_at_zero_and_shuts_out_the_old_one() {
        let mut producers = Producers::default();
        producers.note(&header(3, 0, 1, 0));
        assert_eq!(producers.judge(&header(4, 5, 1, 0)), Verdict::Reject(ResponseError::OutOfOrderSequenceNumber));
        assert_eq!(producers.judge(&header(4, 0, 1, 0)), Verdict::Append);
        producers.note(&header(4, 0, 1, 1));
        assert_eq!(producers.judge(&header(3, 1, 1, 0)), Verdict::Reject(ResponseError::InvalidProducerEpoch));
    }

    #[test]
    fn the_sequence_goes_on_at_zero_after_its_last_number() {
        let mut producers = Producers::default();
        producers.note(&header(0, i32::MAX, 1, 0));
        assert_eq!(producers.judge(&header(0, 0, 1, 1)), Verdict::Append);
    }
}
