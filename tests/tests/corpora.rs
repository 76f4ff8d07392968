//! Runs the properties of the fuzz targets over the committed inputs in `tests/fuzz/corpus`. The
//! inputs of `configuration` run in the tests of the binary, which has the code.

#[path = "../fuzz/src/clickhouse.rs"]
mod clickhouse;
#[path = "../fuzz/src/gs1.rs"]
mod gs1;
#[path = "../fuzz/src/kafka.rs"]
mod kafka;
#[path = "../fuzz/src/receipt.rs"]
mod receipt;
#[path = "../fuzz/src/report.rs"]
mod report;
#[path = "../fuzz/src/report_json.rs"]
mod report_json;
#[path = "../fuzz/src/topic.rs"]
mod topic;

use std::{
    fs, panic,
    path::{Path, PathBuf},
};

/// Most bytes of all committed inputs together.
const CORPORA_BYTES_MAX: u64 = 200 << 10;

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn every_input(target: &str, check: fn(&[u8])) {
    let files = files(&corpora().join(target));
    assert!(!files.is_empty(), "{target} has no inputs");
    for file in files {
        let bytes = fs::read(&file).unwrap();
        let outcome = panic::catch_unwind(|| check(&bytes));
        assert!(outcome.is_ok(), "cargo xtask fuzz {target} --input {}", file.display());
    }
}

#[test]
fn the_property_of_topics_holds_for_committed_inputs() {
    every_input("topic", topic::check);
}

#[test]
fn the_property_of_reports_holds_for_committed_inputs() {
    every_input("report", report::check);
    every_input("report_json", report_json::check);
}

#[test]
fn the_property_of_receipts_holds_for_committed_inputs() {
    every_input("receipt", receipt::check);
}

#[test]
fn the_property_of_gs1_element_strings_holds_for_committed_inputs() {
    every_input("gs1", gs1::check);
}

#[test]
fn the_property_of_http_requests_holds_for_committed_inputs() {
    every_input("clickhouse", clickhouse::check);
}

#[test]
fn the_property_of_kafka_requests_holds_for_committed_inputs() {
    every_input("kafka", kafka::check);
}

#[test]
fn committed_inputs_stay_small() {
    let size = |file: &PathBuf| fs::metadata(file).unwrap().len();
    let bytes: u64 = files(&corpora()).iter().flat_map(|folder| files(folder)).map(|file| size(&file)).sum();
    assert!(bytes < CORPORA_BYTES_MAX, "{bytes} bytes in tests/fuzz/corpus, at most {CORPORA_BYTES_MAX}");
}
