//! Each kind of bad input, from the device's connection to the table. It must be quarantined
//! unchanged with its reason, its receipt must be REJECTED, and a good report right after it must
//! arrive.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock, Mutex, OnceLock, mpsc},
    thread,
    time::Duration,
};

use harness::{Doseline, Stack, poll};
use prost::Message as _;
use rumqttc::v5::{
    Client, Event, Incoming, MqttOptions,
    mqttbytes::{QoS, v5::Filter},
};
use sha2::{Digest as _, Sha256};
use telemetry::{
    json,
    v1::{self, event::Kind},
};

/// Long enough for a loaded machine.
const WITHIN: Duration = Duration::from_secs(180);

/// The path that all tests of this file share. Each test has a tenant of its own.
struct Path {
    stack: Stack,
    _bridge: Doseline,
    _load: Doseline,
}

fn path() -> &'static Path {
    static PATH: OnceLock<Path> = OnceLock::new();
    PATH.get_or_init(|| {
        let stack = Stack::start("[load]\nbatch_age_ms = 100");
        let (bridge, load) = (stack.role("bridge"), stack.role("load"));
        Path { stack, _bridge: bridge, _load: load }
    })
}

type Receipts = Arc<Mutex<Vec<(String, v1::Receipt)>>>;

/// The devices of one tenant, on one connection.
struct Devices {
    tenant: &'static str,
    client: Client,
    receipts: Receipts,
}

impl Devices {
    fn connect(tenant: &'static str) -> Self {
        let mut options = MqttOptions::new(tenant, "127.0.0.1", path().stack.mosquitto.port());
        options.set_max_packet_size(Some(4 << 20));
        let (client, mut connection) = Client::new(options, 1_000);
        let filters = ["receipt", "receipt/json"].map(|suffix| format!("doseline/v1/{tenant}/+/+/{suffix}"));
        let filters = filters.map(|filter| Filter::new(filter, QoS::AtLeastOnce));
        client.subscribe_many(filters).expect("subscribe");
        let receipts = Receipts::default();
        let (collected, (told, subscribed)) = (Arc::clone(&receipts), mpsc::channel());
        thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Incoming::SubAck(_))) => drop(told.send(())),
                    Ok(Event::Incoming(Incoming::Publish(publish))) => {
                        let topic = String::from_utf8(publish.topic.to_vec()).expect("a text topic");
                        let receipt = match topic.ends_with("/json") {
                            true => json::from_json(&publish.payload, "Receipt").expect("a JSON receipt").message,
                            false => v1::Receipt::decode(&*publish.payload).expect("a protobuf receipt"),
                        };
                        service::lock(&collected).push((topic, receipt));
                    }
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
        });
        subscribed.recv_timeout(WITHIN).expect("the devices are subscribed");
        Self { tenant, client, receipts }
    }

    fn topic(&self, device: &str, channel: &str) -> String {
        format!("doseline/v1/{}/clinic/{device}/{channel}", self.tenant)
    }

    fn publish(&self, topic: &str, payload: &[u8]) {
        self.client.publish(topic, QoS::AtLeastOnce, false, payload.to_vec()).expect("publish");
    }

    /// Waits for a receipt on this topic that satisfies `is_it`.
    fn wait(&self, topic: &str, what: &str, is_it: impl Fn(&v1::Receipt) -> bool) -> v1::Receipt {
        poll(WITHIN, &format!("the receipt for {what}"), || {
            let receipts = service::lock(&self.receipts);
            let found = receipts.iter().find(|(at, receipt)| at == topic && is_it(receipt));
            found.map(|(_, receipt)| receipt.clone()).ok_or_else(|| format!("{} receipts", receipts.len()))
        })
    }

    fn wait_for_stored(&self, device: &str, first_seq: u64) {
        let topic = self.topic(device, "receipt");
        self.wait(&topic, &format!("report {first_seq} of {device}"), |receipt| {
            receipt.code() == v1::ReceiptCode::Stored && receipt.ranges.iter().any(|range| range.first == first_seq)
        });
    }

    /// Waits until a query returns this number.
    fn wait_for_number(&self, sql: &str, wanted: u64) {
        poll(WITHIN, sql, || match path().stack.clickhouse.number(sql) {
            number if number == wanted => Ok(()),
            number => Err(format!("{number}, not {wanted}")),
        });
    }

    /// The quarantine rows of a topic with this payload: reason, source, device.
    fn quarantined(&self, topic: &str, payload: &[u8]) -> Vec<[String; 3]> {
        let hash: String = Sha256::digest(payload).iter().map(|byte| format!("{byte:02X}")).collect();
        let sql = format!(
            "SELECT reason, source, device FROM doseline.quarantine \
             WHERE topic = '{topic}' AND hex(SHA256(payload)) = '{hash}'"
        );
        let rows = path().stack.clickhouse.rows(&sql);
        let text = |row: &serde_json::Value, name: &str| row[name].as_str().expect("a text").to_owned();
        rows.iter().map(|row| ["reason", "source", "device"].map(|name| text(row, name))).collect()
    }

    fn wait_for_quarantine(&self, what: &str, topic: &str, payload: &[u8], expected: [&str; 3]) {
        poll(WITHIN, &format!("{what} in quarantine"), || match self.quarantined(topic, payload) {
            rows if rows == [expected] => Ok(()),
            rows => Err(format!("{rows:?}, not {expected:?}")),
        });
    }
}

const BOOT: u64 = 1 << 32 | 0xbad;

fn injection() -> v1::Injection {
    v1::Injection {
        mode: v1::Mode::Single.into(),
        outcome: v1::Outcome::Ok.into(),
        target_nl: Some(20_000),
        delivered_nl: Some(19_900),
        dose_source: v1::DoseSource::Encoder.into(),
        target_um: Some(1_500),
        measured_um: Some(1_480),
        depth_source: v1::DepthSource::Encoder.into(),
        ..v1::Injection::default()
    }
}

/// A time one minute ago, so that the device's clock is right.
static BASE_US: LazyLock<i64> = LazyLock::new(|| monitor::now_us() - 60_000_000);

fn report(first_seq: u64, injections: impl IntoIterator<Item = v1::Injection>) -> v1::Report {
    let event = |injection| v1::Event { offset_us: 1_000_000, kind: Some(Kind::Injection(injection)) };
    v1::Report {
        boot_id: BOOT,
        first_seq,
        base_unix_us: *BASE_US,
        clock: v1::Clock::Synced.into(),
        context: Some(v1::Context { model: "m1".to_owned(), session_id: vec![7; 16], ..v1::Context::default() }),
        events: injections.into_iter().map(event).collect(),
        ..v1::Report::default()
    }
}

struct Bad {
    name: &'static str,
    channel: &'static str,
    reason: &'static str,
    payload: Vec<u8>,
}

fn protobuf(name: &'static str, reason: &'static str, payload: Vec<u8>) -> Bad {
    Bad { name, channel: "report", reason, payload }
}

fn json(name: &'static str, reason: &'static str, payload: &str) -> Bad {
    Bad { name, channel: "report/json", reason, payload: payload.as_bytes().to_vec() }
}

fn changed(change: impl FnOnce(&mut v1::Report)) -> Vec<u8> {
    let mut report = report(1, [injection()]);
    change(&mut report);
    report.encode_to_vec()
}

fn context(report: &mut v1::Report) -> &mut v1::Context {
    report.context.get_or_insert_default()
}

/// A good report whose model gets these three bytes.
fn with_model(model: &[u8; 3]) -> Vec<u8> {
    let mut bytes = changed(|report| context(report).model = "MMM".to_owned());
    let at = bytes.windows(3).position(|window| window == b"MMM").expect("the model");
    bytes[at..at + 3].copy_from_slice(model);
    bytes
}

fn bad_reports() -> Vec<Bad> {
    let mount = |mount_id: &str, report: &mut v1::Report| {
        let mount = v1::MountInUse { mount_id: mount_id.to_owned(), ..v1::MountInUse::default() };
        context(report).mounts.push(mount);
    };
    let session = |length| changed(|report| context(report).session_id = vec![7; length]);
    let of = |fields: &str| {
        format!(r#"{{"bootId":"4294970285","firstSeq":"1","events":[{{"offsetUs":"1","injection":{{{fields}}}}}]}}"#)
    };
    vec![
        protobuf("a mount id of 257 bytes", "field_too_long", changed(|report| mount(&"m".repeat(257), report))),
        protobuf("a model of 257 bytes", "field_too_long", changed(|report| context(report).model = "m".repeat(257))),
        protobuf("an empty payload", "empty", Vec::new()),
        protobuf("truncated protobuf", "bad_protobuf", changed(|_| {})[..30].to_vec()),
        protobuf("256 KiB + 1", "too_large", vec![0x5a; 256 * 1024 + 1]),
        protobuf(
            "4,097 events",
            "too_many_elements",
            changed(|report| report.events = vec![report.events[0].clone(); 4_097]),
        ),
        protobuf("seq 0", "bad_sequence", changed(|report| report.first_seq = 0)),
        protobuf("seq overflow", "bad_sequence", changed(|report| report.first_seq = u64::MAX)),
        protobuf(
            "seq overflow by the last event",
            "bad_sequence",
            changed(|report| report.first_seq = i64::MAX as u64),
        ),
        protobuf("a model that is not UTF-8", "bad_protobuf", with_model(b"m\xff\xfe")),
        protobuf("a session id of 15 bytes", "bad_session", session(15)),
        protobuf("a session id of 17 bytes", "bad_session", session(17)),
        json("an empty JSON payload", "empty", ""),
        json("NaN in JSON", "bad_json", &of(r#""deliveredNl":NaN"#)),
        json("NaN as text in JSON", "bad_json", &of(r#""deliveredNl":"NaN""#)),
        json("a float in JSON", "bad_json", &of(r#""measuredUm":1500.5"#)),
        json("a float as text in JSON", "bad_json", &of(r#""deliveredNl":"19985.5""#)),
        json("2^64 in JSON", "bad_json", &of(r#""targetNl":18446744073709551616"#)),
        json("a field in both spellings", "bad_json", &of(r#""targetNl":1,"target_nl":1"#)),
        json("truncated JSON", "bad_json", &of("")[..40]),
        json(
            "a session id of 3 bytes in JSON",
            "bad_session",
            &of("").replacen('{', r#"{"context":{"sessionId":"AQID"},"#, 1),
        ),
    ]
}

#[test]
fn each_bad_report_is_quarantined_and_receipted_and_the_stream_goes_on() {
    let devices = Devices::connect("reports");
    let bad = bad_reports();
    // Bad and good reports alternate, all from one device. A bad report that stops the stream then
    // stops a good one too.
    for (seq, bad) in (1..).zip(&bad) {
        devices.publish(&devices.topic("d1", bad.channel), &bad.payload);
        devices.publish(&devices.topic("d1", "report"), &report(seq, [injection()]).encode_to_vec());
    }
    for (seq, bad) in (1..).zip(&bad) {
        let receipt_topic = devices.topic("d1", &bad.channel.replace("report", "receipt"));
        let hash = Sha256::digest(&bad.payload).to_vec();
        let receipt = devices.wait(&receipt_topic, bad.name, |receipt| receipt.payload_sha256 == hash);
        assert_eq!((receipt.code(), receipt.reason.as_str()), (v1::ReceiptCode::Rejected, bad.reason), "{}", bad.name);
        assert_eq!((receipt.boot_id, receipt.ranges.len()), (0, 0), "{}", bad.name);
        let topic = devices.topic("d1", bad.channel);
        devices.wait_for_quarantine(bad.name, &topic, &bad.payload, [bad.reason, "bridge", "d1"]);
        devices.wait_for_stored("d1", seq);
    }
    path().stack.wait_until_committed();
    let clickhouse = &path().stack.clickhouse;
    let good = bad.len() as u64;
    assert_eq!(clickhouse.number("SELECT count() FROM doseline.injections WHERE tenant = 'reports'"), good);
    assert_eq!(clickhouse.number("SELECT uniqExact(seq) FROM doseline.injections WHERE tenant = 'reports'"), good);
    assert_eq!(clickhouse.number("SELECT count() FROM doseline.quarantine WHERE tenant = 'reports'"), good);
}

#[test]
fn ids_with_forbidden_characters_in_the_topic_are_quarantined_without_a_receipt() {
    let devices = Devices::connect("topics");
    let (payload, long) = (report(1, [injection()]).encode_to_vec(), "d".repeat(65));
    let ids = ["d 1", "d.1", "-d1", "_d1", "dé1", "", "d1;drop table", "d\"1", "d\u{1F489}", long.as_str()];
    for id in ids {
        devices.publish(&devices.topic(id, "report"), &payload);
    }
    devices.publish(&devices.topic("d1", "report"), &payload);
    for id in ids {
        devices.wait_for_quarantine(id, &devices.topic(id, "report"), &payload, ["bad_topic", "bridge", ""]);
    }
    devices.wait_for_stored("d1", 1);
    path().stack.wait_until_committed();
    assert_eq!(path().stack.clickhouse.number("SELECT count() FROM doseline.injections WHERE tenant = 'topics'"), 1);
    assert_eq!(devices.receipts.lock().expect("no panic").len(), 1, "there is nobody to tell");
}

#[test]
fn implausible_values_are_quarantined_event_by_event_and_the_rest_of_the_report_is_kept() {
    let devices = Devices::connect("implausible");
    let bad = [
        v1::Injection { delivered_nl: Some(2_000_001), ..injection() },
        v1::Injection { target_nl: Some(u64::MAX), ..injection() },
        v1::Injection { measured_um: Some(13_001), ..injection() },
        v1::Injection { angle_mdeg: Some(180_001), ..injection() },
        v1::Injection { needle_count: Some(0), ..injection() },
        v1::Injection { pressure_pa: Some(-101_326), ..injection() },
    ];
    // Good events at odd numbers, bad events at even numbers.
    let mixed = bad.iter().flat_map(|bad| [injection(), *bad]).collect::<Vec<_>>();
    let mut report = report(1, mixed.clone());
    // A time that is in no calendar, and a kind of event that this version does not know.
    report.events.push(v1::Event { offset_us: u64::MAX, kind: Some(Kind::Injection(injection())) });
    report.events.push(v1::Event { offset_us: 1_000_000, kind: None });
    report.events.push(report.events[0].clone());
    devices.publish(&devices.topic("d1", "report"), &report.encode_to_vec());
    devices.wait_for_stored("d1", 1);
    path().stack.wait_until_committed();

    let clickhouse = &path().stack.clickhouse;
    let expected: BTreeMap<u64, &str> = [
        (2, "implausible"),
        (4, "implausible"),
        (6, "implausible"),
        (8, "implausible"),
        (10, "implausible"),
        (12, "implausible"),
        (13, "bad_time"),
        (14, "unknown_event"),
    ]
    .into();
    assert_eq!(clickhouse.number("SELECT count() FROM doseline.quarantine WHERE tenant = 'implausible'"), 8);
    let sql = "SELECT seq, reason, source, boot_id, topic, hex(payload) AS payload, detail FROM doseline.quarantine \
               WHERE tenant = 'implausible'";
    for row in clickhouse.rows(sql) {
        let seq = row["seq"].as_u64().expect("a number");
        assert_eq!(expected.get(&seq).copied(), row["reason"].as_str(), "{row}");
        assert_eq!((row["source"].as_str(), row["boot_id"].as_u64()), (Some("loader"), Some(BOOT)));
        assert_eq!(row["topic"], devices.topic("d1", "report"));
        let hex = row["payload"].as_str().expect("a text");
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex")).collect();
        let single = v1::Report::decode(bytes.as_slice()).expect("a report");
        let event = report.events[seq as usize - 1].clone();
        assert_eq!((single.first_seq, single.events), (seq, vec![event]), "{row}");
    }
    let kept = "SELECT arrayStringConcat(arraySort(groupArray(seq)), ',') FROM doseline.injections \
                WHERE tenant = 'implausible'";
    assert_eq!(clickhouse.query(kept), "1,3,5,7,9,11,15");
    let balance = "SELECT made, stored, quarantined, lost, missing FROM doseline.delivery_completeness \
                   WHERE tenant = 'implausible'";
    assert_eq!(clickhouse.query(balance), "15\t7\t8\t0\t0");
}

#[test]
fn unknown_fields_and_enum_values_keep_working() {
    let devices = Devices::connect("unknown");
    let mut report = report(1, [v1::Injection { mode: 77, ..injection() }]);
    report.clock = v1::Clock::Synced.into();
    let mut bytes = report.encode_to_vec();
    // An unknown field with number 127, a varint.
    bytes.extend([0xf8, 0x07, 1]);
    devices.publish(&devices.topic("by-protobuf", "report"), &bytes);
    let json = br#"{"bootId":"4294970285","firstSeq":"1","clock":"CLOCK_QUANTUM","colour":{"a":[1,null]},
        "context":{"mood":"good"},
        "events":[{"injection":{"mode":"MODE_NEXT","outcome":78,"targetNl":"20000","hue":1.5}}]}"#;
    devices.publish(&devices.topic("by-json", "report/json"), json);
    let clickhouse = &path().stack.clickhouse;
    devices.wait_for_number("SELECT count() FROM doseline.injections WHERE tenant = 'unknown'", 2);
    path().stack.wait_until_committed();
    let sql = "SELECT device, clock, time_source, mode, outcome, target_nl, delivered_nl, flags \
               FROM doseline.injections WHERE tenant = 'unknown' ORDER BY device DESC";
    // An unknown number is kept. Of an unknown name, only the fact is recorded.
    assert_eq!(
        clickhouse.query(sql),
        "by-protobuf\tSYNCED\tDEVICE\t77\tOK\t20000\t19900\t3\n\
         by-json\tUNKNOWN\tRECEIVED\t\t78\t20000\t\\N\t1"
    );
    assert_eq!(clickhouse.number("SELECT count() FROM doseline.quarantine WHERE tenant = 'unknown'"), 0);
}

#[test]
fn a_strange_label_costs_no_injection() {
    let devices = Devices::connect("labels");
    let mount = |lot: &str| {
        let mounted = v1::ConsumableMounted {
            slot: v1::Slot::Needle.into(),
            mount_id: "m-1\r\n".to_owned(),
            item_id: "n-1".to_owned(),
            lot: lot.to_owned(),
            ..v1::ConsumableMounted::default()
        };
        v1::Event { offset_us: 1_000_000, kind: Some(Kind::ConsumableMounted(mounted)) }
    };
    let mut report = report(1, [injection(), injection(), injection(), injection(), injection()]);
    report.events.splice(2..2, [mount("L1\r"), mount("L\u{1b}[2J\u{0}2"), mount(&"L".repeat(65))]);
    report.lost = vec![v1::LostRange { first_seq: 20, last_seq: 21, reason: "full\r".to_owned() }];
    devices.publish(&devices.topic("by-protobuf", "report"), &report.encode_to_vec());
    context(&mut report).operator_id = "op 7\r\n".to_owned();
    devices.publish(&devices.topic("by-json", "report/json"), json::to_json(&report, "Report").as_bytes());
    let clickhouse = &path().stack.clickhouse;
    devices.wait_for_number("SELECT count() FROM doseline.injections WHERE tenant = 'labels'", 10);
    path().stack.wait_until_committed();
    let injections = "SELECT device, count(), any(operator_id), groupUniqArray(flags) FROM doseline.injections \
                      WHERE tenant = 'labels' GROUP BY device ORDER BY device";
    assert_eq!(clickhouse.query(injections), "by-json\t5\top 7\t[768]\nby-protobuf\t5\t\t[0]");
    let mounts = "SELECT seq, mount_id, hex(lot), flags FROM doseline.mounts \
                  WHERE tenant = 'labels' AND device = 'by-protobuf' ORDER BY seq";
    assert_eq!(clickhouse.query(mounts), "3\tm-1\t4C31\t256\n4\tm-1\t4C1B5B324A0032\t768");
    let quarantine = "SELECT seq, reason, detail FROM doseline.quarantine WHERE tenant = 'labels'";
    let too_long = "5\tfield_too_long\tlot has 65 bytes, at most 64";
    assert_eq!(clickhouse.query(quarantine), format!("{too_long}\n{too_long}"));
    let balance = "SELECT device, stored, quarantined, lost, missing FROM doseline.delivery_completeness \
                   WHERE tenant = 'labels' ORDER BY device";
    assert_eq!(clickhouse.query(balance), "by-json\t7\t1\t2\t11\nby-protobuf\t7\t1\t2\t11");
}

#[test]
fn an_absent_depth_stays_null_and_is_in_no_figure_of_depth() {
    let devices = Devices::connect("depth");
    let injections = [
        injection(),
        v1::Injection { measured_um: None, ..injection() },
        v1::Injection { target_um: None, measured_um: None, ..injection() },
        // A measured value of 0 counts as measured.
        v1::Injection { measured_um: Some(0), ..injection() },
        v1::Injection { depth_source: v1::DepthSource::Setting.into(), ..injection() },
    ];
    devices.publish(&devices.topic("d1", "report"), &report(1, injections).encode_to_vec());
    devices.wait_for_stored("d1", 1);
    path().stack.wait_until_committed();
    let clickhouse = &path().stack.clickhouse;
    let sql = "SELECT seq, target_um, measured_um FROM doseline.injections WHERE tenant = 'depth' ORDER BY seq";
    assert_eq!(clickhouse.query(sql), "1\t1500\t1480\n2\t1500\t\\N\n3\t\\N\t\\N\n4\t1500\t0\n5\t1500\t1480");
    for table in ["accuracy_minute", "accuracy_session"] {
        let sql = format!(
            "SELECT sum(injections), sum(depth_n), sum(depth_target_um), sum(depth_measured_um), sum(depth_error_um), \
             sum(depth_error_sq), min(depth_error_min), max(depth_error_max), sum(dose_n) \
             FROM doseline.{table} WHERE tenant = 'depth'"
        );
        let (error, squares) = (-20 - 1_500, 20 * 20 + 1_500 * 1_500);
        assert_eq!(clickhouse.query(&sql), format!("5\t2\t3000\t1480\t{error}\t{squares}\t-1500\t-20\t5"), "{table}");
    }
}
