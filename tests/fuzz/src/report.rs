//! Reports as protobuf.

use prost::Message as _;
use telemetry::{
    head::Head,
    json,
    reading::forensic,
    reject::Reason,
    report::{Contexts, Report},
    v1,
};

/// Events of one report that are cut out and read again.
const EXCERPTS_MAX: usize = 16;

/// All readers agree on any bytes. An event that is cut out stays the same event. A valid report
/// survives the way over JSON.
pub fn check(bytes: &[u8]) {
    let decoded = Report::decode_fully(bytes);
    assert_eq!(Report::decode(bytes), decoded);
    let head = decoded.as_ref().map(|report| Head {
        boot_id: report.boot_id(),
        sequence: report.sequence(),
        unknown: report.unknown(),
    });
    assert_eq!(Head::read(bytes).as_ref(), head.as_ref().map_err(|reject| *reject));
    // The second time, the context is known.
    let mut contexts = Contexts::default();
    for _ in 0..2 {
        assert_eq!(Report::decode_among(bytes, &mut contexts), decoded);
    }
    forensic::protobuf(bytes, "Report");
    let Ok(report) = decoded else { return };
    let count = report.message().events.len();
    (0..count.min(EXCERPTS_MAX)).for_each(|index| excerpt(&report, bytes, index));
    over_json(bytes);
}

fn excerpt(report: &Report, bytes: &[u8], index: usize) {
    let excerpt = Report::decode(&report.excerpt(bytes, index)).expect("an excerpt is a report");
    assert_eq!(excerpt.message().events.as_slice(), &report.message().events[index..=index]);
    // The context is written trimmed, so that its flag is gone.
    let usable = |report: &Report, index| report.texts(index).map(drop).map_err(|reject| reject.reason);
    assert_eq!(usable(&excerpt, 0), usable(report, index));
    assert_eq!((excerpt.boot_id(), excerpt.context()), (report.boot_id(), report.context()));
    let first = report.sequence().map(|sequence| sequence.first + index as u64);
    assert_eq!(excerpt.sequence().map(|sequence| sequence.first), first);
}

fn over_json(bytes: &[u8]) {
    // A fault of one event refuses that event only: such a report has no JSON form.
    let Ok(message) = v1::Report::decode(bytes) else { return };
    match json::transcode_report(json::to_json(&message, "Report").as_bytes()) {
        Ok(read) => assert_eq!(v1::Report::decode(read.message.as_slice()), Ok(message)),
        Err(reject) => assert!(matches!(reject.reason, Reason::TooLarge | Reason::TooManyElements), "{reject:?}"),
    }
}
