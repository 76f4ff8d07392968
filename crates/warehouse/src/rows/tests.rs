use bytes::BytesMut;
use clickhouse_types::{put_leb128, put_rbwnat_columns_header};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::Deserialize;

use super::*;

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Shot {
    device: String,
    seq: u64,
    depth: Option<f64>,
    open: bool,
    parts: Vec<(u32, i64)>,
}

const COLUMNS: [(&str, &str); 5] = [
    ("parts", "Array(Tuple(UInt32, DateTime64(6, 'UTC')))"),
    ("device", "LowCardinality(String)"),
    ("open", "Bool"),
    ("depth", "Nullable(Float64)"),
    ("seq", "SimpleAggregateFunction(max, UInt64)"),
];

fn with_header(columns: &[(&str, &str)], body: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let columns: Vec<_> =
        columns.iter().map(|(name, kind)| Column::new((*name).to_owned(), Kind::new(kind).unwrap())).collect();
    let mut bytes = BytesMut::new();
    put_rbwnat_columns_header(&columns, &mut bytes).unwrap();
    body(&mut bytes);
    bytes.to_vec()
}

fn written(shots: &[Shot]) -> Vec<u8> {
    with_header(&COLUMNS, |bytes| {
        for shot in shots {
            put_leb128(&mut *bytes, shot.parts.len() as u64);
            for (number, at) in &shot.parts {
                bytes.extend_from_slice(&number.to_le_bytes());
                bytes.extend_from_slice(&at.to_le_bytes());
            }
            put_leb128(&mut *bytes, shot.device.len() as u64);
            bytes.extend_from_slice(shot.device.as_bytes());
            bytes.extend_from_slice(&[u8::from(shot.open), u8::from(shot.depth.is_none())]);
            bytes.extend_from_slice(shot.depth.map(f64::to_le_bytes).as_ref().map_or(&[], |depth| depth.as_slice()));
            bytes.extend_from_slice(&shot.seq.to_le_bytes());
        }
    })
}

/// Reads the rows of an answer that arrives in pieces of `size` bytes.
fn read<T: DeserializeOwned>(bytes: &[u8], size: usize) -> Result<Vec<T>, Fault> {
    let (mut answer, mut rows) = (Answer::default(), Vec::new());
    for piece in bytes.chunks(size) {
        answer.add(piece)?;
        answer.take(&mut rows)?;
    }
    answer.end()?;
    Ok(rows)
}

fn fault<T: DeserializeOwned + fmt::Debug>(columns: &[(&str, &str)], body: &[u8]) -> String {
    read::<T>(&with_header(columns, |bytes| bytes.extend_from_slice(body)), 64).unwrap_err().to_string()
}

fn shot() -> impl Strategy<Value = Shot> {
    let parts = vec(any::<(u32, i64)>(), 0..4);
    (".{0,20}", any::<u64>(), proptest::option::of(-1e9..1e9), any::<bool>(), parts)
        .prop_map(|(device, seq, depth, open, parts)| Shot { device, seq, depth, open, parts })
}

proptest! {
    #[test]
    fn rows_are_read_from_pieces_of_any_size(shots in vec(shot(), 0..20), size in 1_usize..200) {
        prop_assert_eq!(read::<Shot>(&written(&shots), size), Ok(shots));
    }

    #[test]
    fn damaged_answers_end_in_rows_or_a_fault(
        shots in vec(shot(), 1..4), at in any::<prop::sample::Index>(), byte in any::<u8>(), len in any::<prop::sample::Index>(),
    ) {
        // A library reads the header, so only the rows are damaged.
        let header = written(&[]).len();
        let mut bytes = written(&shots);
        let at = header + at.index(bytes.len() - header);
        bytes[at] = byte;
        bytes.truncate(len.index(bytes.len() + 1));
        let _ = read::<Shot>(&bytes, 50);
    }
}

#[test]
fn one_column_needs_no_struct_and_several_may_be_a_tuple() {
    assert_eq!(
        read(&with_header(&[("n", "UInt64")], |bytes| bytes.extend_from_slice(&[7; 16])), 3),
        Ok(vec![0x0707_0707_0707_0707_u64; 2])
    );
    let two = with_header(&[("a", "UInt8"), ("b", "String")], |bytes| bytes.extend_from_slice(&[1, 2, b'x', b'y']));
    assert_eq!(read(&two, 64), Ok(vec![(1_u8, "xy".to_owned())]));
    assert_eq!(read::<u8>(&with_header(&[("n", "UInt8")], |_| {}), 64), Ok(Vec::new()));
    // ClickHouse's comparisons return numbers.
    let comparison = with_header(&[("a < b", "UInt8")], |bytes| bytes.extend_from_slice(&[1, 0]));
    assert_eq!(read(&comparison, 64), Ok(vec![true, false]));
}

#[test]
fn another_shape_is_named_with_its_column() {
    assert_eq!(fault::<u64>(&[("n", "UInt32")], &[0; 8]), "UInt32 instead of u64");
    assert_eq!(fault::<(u8, i64)>(&[("a", "UInt8"), ("b", "UInt64")], &[0; 9]), "column b: UInt64 instead of i64");
    assert_eq!(fault::<(u8, u8)>(&[("a", "UInt8")], &[0]), "1 columns instead of 2");
    assert_eq!(fault::<u8>(&[("a", "UInt8"), ("b", "UInt8")], &[0; 2]), "2 columns instead of one");
    assert_eq!(fault::<Option<u8>>(&[("a", "UInt8")], &[0]), "UInt8 instead of an optional value");
    assert_eq!(fault::<u8>(&[("a", "Nullable(UInt8)")], &[0, 0]), "Nullable(UInt8) instead of u8");
    assert_eq!(fault::<String>(&[("a", "String")], &[2, 0xff, 0xff]), "invalid utf-8 sequence of 1 bytes from index 0");
    assert_eq!(fault::<bool>(&[("a", "Bool")], &[2]), "2 where 0 or 1 belongs");
    assert_eq!(fault::<u64>(&[("a", "UInt64")], &[0; 7]), "it ends within a row");
    let mut columns = COLUMNS.to_vec();
    columns[4] = ("number", "UInt64");
    let body = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(fault::<Shot>(&columns, &body), "column number: no row of this program takes it");
    assert_eq!(fault::<Shot>(&columns[..4], &body[..4]), "missing field `seq`");
}

#[test]
fn an_answer_without_a_header_is_a_fault() {
    assert_eq!(read::<u8>(&[], 64), Err(Fault::Short));
    assert_eq!(read::<u8>(&[0], 64), Err(Fault::Shape("unexpected empty list of columns".to_owned())));
}
