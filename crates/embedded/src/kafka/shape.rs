//! The shape of every request. It is used to measure a request before the protocol library decodes
//! it. The library allocates each array at its announced length before it looks at the bytes.
//!
//! The walk reads exactly the bytes that the library will read. It refuses an array with more
//! elements than there are bytes left. It also counts the elements, so that memory for all of them
//! can be reserved first.

use kafka_protocol::messages::ApiKey;

/// One field, with the first and the last version of the request that has it.
struct Field(i16, i16, Kind);

enum Kind {
    /// A fixed number of bytes.
    Plain(usize),
    /// Text after a length of two bytes, or of a varint in a flexible version.
    Text,
    /// Bytes after a length of four bytes, or of a varint in a flexible version.
    Blob,
    /// An array of structures.
    Structs(&'static [Field]),
    /// An array of values.
    Values(&'static Kind),
}

use Kind::{Blob, Plain, Structs, Text, Values};

const LAST: i16 = i16::MAX;

const fn all(kind: Kind) -> Field {
    Field(0, LAST, kind)
}

const fn from(version: i16, kind: Kind) -> Field {
    Field(version, LAST, kind)
}

const fn to(version: i16, kind: Kind) -> Field {
    Field(0, version, kind)
}

const PRODUCE: &[Field] =
    &[all(Text), all(Plain(6)), all(Structs(&[all(Text), all(Structs(&[all(Plain(4)), all(Blob)]))]))];
const FETCH_PARTITION: &[Field] =
    &[all(Plain(4)), from(9, Plain(4)), all(Plain(8)), from(12, Plain(4)), from(5, Plain(8)), all(Plain(4))];
const FETCH: &[Field] = &[
    all(Plain(17)),
    from(7, Plain(8)),
    all(Structs(&[all(Text), all(Structs(FETCH_PARTITION))])),
    from(7, Structs(&[all(Text), all(Values(&Plain(4)))])),
    from(11, Text),
];
const LIST_OFFSETS: &[Field] = &[
    all(Plain(4)),
    from(2, Plain(1)),
    all(Structs(&[all(Text), all(Structs(&[all(Plain(4)), from(4, Plain(4)), all(Plain(8))]))])),
];
const METADATA: &[Field] =
    &[all(Structs(&[from(10, Plain(16)), all(Text)])), from(4, Plain(1)), Field(8, 10, Plain(1)), from(8, Plain(1))];
const OFFSET_COMMIT_PARTITION: &[Field] = &[all(Plain(12)), from(6, Plain(4)), all(Text)];
const OFFSET_COMMIT: &[Field] = &[
    all(Text),
    all(Plain(4)),
    all(Text),
    from(7, Text),
    to(4, Plain(8)),
    all(Structs(&[all(Text), all(Structs(OFFSET_COMMIT_PARTITION))])),
];
const NAMED_PARTITIONS: &[Field] = &[all(Text), all(Values(&Plain(4)))];
const OFFSET_FETCH: &[Field] = &[
    to(7, Text),
    to(7, Structs(NAMED_PARTITIONS)),
    from(8, Structs(&[all(Text), from(9, Text), from(9, Plain(4)), all(Structs(NAMED_PARTITIONS))])),
    from(7, Plain(1)),
];
const FIND_COORDINATOR: &[Field] = &[to(3, Text), from(1, Plain(1)), from(4, Values(&Text))];
const JOIN_GROUP: &[Field] = &[
    all(Text),
    all(Plain(4)),
    from(1, Plain(4)),
    all(Text),
    from(5, Text),
    all(Text),
    all(Structs(&[all(Text), all(Blob)])),
];
const HEARTBEAT: &[Field] = &[all(Text), all(Plain(4)), all(Text), from(3, Text)];
const LEAVE_GROUP: &[Field] = &[all(Text), to(2, Text), from(3, Structs(&[all(Text), all(Text), from(5, Text)]))];
const SYNC_GROUP: &[Field] = &[
    all(Text),
    all(Plain(4)),
    all(Text),
    from(3, Text),
    from(5, Text),
    from(5, Text),
    all(Structs(&[all(Text), all(Blob)])),
];
const API_VERSIONS: &[Field] = &[from(3, Text), from(3, Text)];
const CREATE_TOPICS: &[Field] = &[
    all(Structs(&[
        all(Text),
        all(Plain(6)),
        all(Structs(&[all(Plain(4)), all(Values(&Plain(4)))])),
        all(Structs(&[all(Text), all(Text)])),
    ])),
    all(Plain(5)),
];
const DELETE_TOPICS: &[Field] = &[from(6, Structs(&[all(Text), all(Plain(16))])), to(5, Values(&Text)), all(Plain(4))];
const INIT_PRODUCER_ID: &[Field] = &[all(Text), all(Plain(4)), from(3, Plain(10))];
const DESCRIBE_CONFIGS: &[Field] =
    &[all(Structs(&[all(Plain(1)), all(Text), all(Values(&Text))])), all(Plain(1)), from(3, Plain(1))];

/// The fields of a request; `None` for an unknown request.
fn fields(key: ApiKey) -> Option<&'static [Field]> {
    Some(match key {
        ApiKey::Produce => PRODUCE,
        ApiKey::Fetch => FETCH,
        ApiKey::ListOffsets => LIST_OFFSETS,
        ApiKey::Metadata => METADATA,
        ApiKey::OffsetCommit => OFFSET_COMMIT,
        ApiKey::OffsetFetch => OFFSET_FETCH,
        ApiKey::FindCoordinator => FIND_COORDINATOR,
        ApiKey::JoinGroup => JOIN_GROUP,
        ApiKey::Heartbeat => HEARTBEAT,
        ApiKey::LeaveGroup => LEAVE_GROUP,
        ApiKey::SyncGroup => SYNC_GROUP,
        ApiKey::ApiVersions => API_VERSIONS,
        ApiKey::CreateTopics => CREATE_TOPICS,
        ApiKey::DeleteTopics => DELETE_TOPICS,
        ApiKey::InitProducerId => INIT_PRODUCER_ID,
        ApiKey::DescribeConfigs => DESCRIBE_CONFIGS,
        _ => return None,
    })
}

/// The number of elements in all arrays of a request, including its header. `None` if the request
/// announces more than it holds.
pub(super) fn items(frame: &[u8], key: ApiKey, version: i16) -> Option<usize> {
    let mut walk = Walk { rest: frame, version, flexible: false, items: 0 };
    walk.take(8)?;
    // The client id has a length of two bytes in every version.
    walk.value(&Text)?;
    walk.flexible = key.request_header_version(version) >= 2;
    walk.tags(None)?;
    for field in fields(key)? {
        walk.field(field)?;
    }
    // The library reads the cluster id, which only other brokers send, without checking the length
    // of its tag.
    walk.tags((key == ApiKey::Fetch).then_some(0))?;
    Some(walk.items)
}

/// The rest of a request. Any step returns `None` if the request is not valid.
struct Walk<'f> {
    rest: &'f [u8],
    version: i16,
    flexible: bool,
    items: usize,
}

impl<'f> Walk<'f> {
    fn field(&mut self, Field(first, last, kind): &Field) -> Option<()> {
        if (*first..=*last).contains(&self.version) { self.value(kind) } else { Some(()) }
    }

    fn value(&mut self, kind: &Kind) -> Option<()> {
        match kind {
            Plain(bytes) => self.take(*bytes).map(|_| ()),
            Text => {
                let bytes = if self.flexible { self.compact()? } else { i64::from(i16::from_be_bytes(self.array()?)) };
                self.skip(bytes)
            }
            Blob => {
                let bytes = self.length()?;
                self.skip(bytes)
            }
            Structs(fields) => {
                for _ in 0..self.count()? {
                    fields.iter().try_for_each(|field| self.field(field))?;
                    self.tags(None)?;
                }
                Some(())
            }
            Values(kind) => (0..self.count()?).try_for_each(|_| self.value(kind)),
        }
    }

    /// Tagged fields, which follow all other fields. Each has a number and its own length.
    /// `refused` is a number that must not occur.
    fn tags(&mut self, refused: Option<u32>) -> Option<()> {
        if !self.flexible {
            return Some(());
        }
        for _ in 0..self.varint()? {
            self.items += 1;
            if Some(self.varint()?) == refused {
                return None;
            }
            let bytes = self.varint()?;
            self.skip(i64::from(bytes))?;
        }
        Some(())
    }

    /// The number of elements of an array. Each takes at least one byte. -1 stands for no array.
    fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.length()?.max(0)).ok()?;
        self.items += count;
        (count <= self.rest.len()).then_some(count)
    }

    fn length(&mut self) -> Option<i64> {
        if self.flexible { self.compact() } else { Some(i64::from(i32::from_be_bytes(self.array()?))) }
    }

    /// A length that is sent plus one, so that 0 stands for none.
    fn compact(&mut self) -> Option<i64> {
        Some(i64::from(self.varint()?) - 1)
    }

    /// A varint: seven bits in each byte, the lowest first, at most five bytes.
    fn varint(&mut self) -> Option<u32> {
        let mut number = 0_u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            number |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        Some(number)
    }

    /// Skips bytes; -1 stands for none.
    fn skip(&mut self, bytes: i64) -> Option<()> {
        if bytes == -1 { Some(()) } else { self.take(usize::try_from(bytes).ok()?).map(|_| ()) }
    }

    fn take(&mut self, bytes: usize) -> Option<&'f [u8]> {
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_announces_more_than_it_holds_is_refused() {
        let produce =
            |topics: [u8; 4]| [&[0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 255, 255, 0, 1, 0, 0, 0, 9][..], &topics].concat();
        assert_eq!(items(&produce([0; 4]), ApiKey::Produce, 8), Some(0));
        assert_eq!(items(&produce([0x7f, 255, 255, 255]), ApiKey::Produce, 8), None);
        let keys = |count: &[u8], keys: &[u8]| {
            let head = [0, 10, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0];
            items(&[&head, count, keys].concat(), ApiKey::FindCoordinator, 4)
        };
        assert_eq!(keys(&[3], &[1, 2, b'g', 0]), Some(2));
        assert_eq!(keys(&[4], &[1, 2, b'g', 0]), None);
        assert_eq!(keys(&[255, 255, 255, 255, 15], &[1, 2, b'g', 0]), None);
        assert_eq!(keys(&[1], &[2, 7, 1, b'x', 9, 0]), Some(2), "two unknown fields");
    }
}
