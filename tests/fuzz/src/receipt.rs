//! Receipts, as a device reads them, and the receipt of a refused payload.

use prost::Message as _;
use telemetry::{
    json, receipt,
    reject::Reason,
    topic::Channel,
    v1::{Receipt, ReceiptCode},
};

/// A receipt that can be read is the same after it was written in either form.
pub fn check(bytes: &[u8]) {
    if let Ok(read) = Receipt::decode(bytes) {
        survives(&read);
    }
    if let Ok(read) = json::from_json::<Receipt>(bytes, "Receipt") {
        survives(&read.message);
    }
    let rejected = receipt::rejected(bytes, Reason::BadProtobuf);
    assert_eq!((rejected.code(), rejected.payload_sha256.len()), (ReceiptCode::Rejected, 32));
    survives(&rejected);
}

fn survives(receipt: &Receipt) {
    let protobuf = receipt::encode(receipt, Channel::Report);
    assert_eq!(Receipt::decode(protobuf.as_slice()).as_ref(), Ok(receipt));
    match json::from_json::<Receipt>(&receipt::encode(receipt, Channel::ReportJson), "Receipt") {
        Ok(read) => assert_eq!(&read.message, receipt),
        Err(reject) => assert_eq!(reject.reason, Reason::TooManyElements, "{reject:?}"),
    }
}
