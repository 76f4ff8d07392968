//! Works through the quarantine as a person does, with the binary's sub-command, a loader, Apache
//! Kafka and the ClickHouse engine.

#[allow(dead_code, reason = "the rig is the loader tests'")]
#[path = "loader/rig.rs"]
mod rig;

use std::{collections::BTreeMap, time::Duration};

use harness::{Doseline, Finished, Scratch, Stack, free_port, poll};
use load::{Limits, Options};
use prost::Message as _;
use rig::{RECEIVED_US, Rig};
use telemetry::{
    kafka,
    plausibility::{Plausibility, Range, Ranges},
    v1::{self, event::Kind},
};

/// Long enough for a loaded machine.
const WITHIN: Duration = Duration::from_secs(400);
/// How long a replay waits for loaders, s. Some loaders are killed meanwhile, and their Kafka
/// sessions must expire.
const WAIT: [&str; 2] = ["--wait", "300"];
const BASE_US: i64 = 1_749_000_000_000_000;
const BOOT: u64 = 5 << 32 | 9;

/// A depth that the narrow rules refuse and the widest rules accept.
const DEEP_UM: u32 = 3_000;

fn narrow() -> Plausibility {
    let mut plausibility = Plausibility::default();
    plausibility.models.insert("pen".to_owned(), Ranges { depth_um: Range(0, 2_500), ..Ranges::default() });
    plausibility
}

fn injection(measured_um: u32) -> v1::Event {
    let injection = v1::Injection {
        outcome: v1::Outcome::Ok.into(),
        target_nl: Some(20_000),
        delivered_nl: Some(19_000 + u64::from(measured_um % 7)),
        dose_source: v1::DoseSource::Flow.into(),
        target_um: Some(1_500),
        measured_um: Some(measured_um),
        depth_source: v1::DepthSource::Encoder.into(),
        ..v1::Injection::default()
    };
    v1::Event { offset_us: 400_000, kind: Some(Kind::Injection(injection)) }
}

fn report(first_seq: u64, clock: v1::Clock, events: Vec<v1::Event>) -> v1::Report {
    v1::Report {
        boot_id: BOOT,
        first_seq,
        base_unix_us: if clock == v1::Clock::Synced { BASE_US } else { 0 },
        clock: clock.into(),
        context: Some(v1::Context { model: "pen".to_owned(), session_id: vec![7; 16], ..v1::Context::default() }),
        events,
        ..v1::Report::default()
    }
}

/// Events 1..=20; every fourth one is deep.
fn mixed() -> Vec<v1::Event> {
    (1..=20).map(|seq| injection(if seq % 4 == 0 { DEEP_UM } else { 1_400 + seq })).collect()
}

impl Rig {
    fn options_with(&self, plausibility: Plausibility) -> Options {
        let limits = Limits { rows_max: 3, age_max: Duration::from_millis(50), ..Limits::default() };
        Options { plausibility, limits, ..self.options() }
    }

    fn environment(&self) -> Vec<(String, String)> {
        vec![
            ("DOSELINE__KAFKA__BROKERS".to_owned(), format!("[\"{}\"]", self.kafka.bootstrap())),
            ("DOSELINE__KAFKA__REPLICATION".to_owned(), "1".to_owned()),
            ("DOSELINE__KAFKA__MIN_INSYNC_REPLICAS".to_owned(), "1".to_owned()),
            ("DOSELINE__CLICKHOUSE__URL".to_owned(), self.clickhouse.url().to_owned()),
            ("DOSELINE__CLICKHOUSE__USERNAME".to_owned(), "doseline".to_owned()),
            ("DOSELINE__CLICKHOUSE__PASSWORD".to_owned(), harness::PASSWORD.to_owned()),
        ]
    }

    /// Runs `doseline quarantine` while the loader continues.
    fn quarantine(&self, arguments: &[&str], more: &[(&str, &str)]) -> tokio::task::JoinHandle<Finished> {
        let mut environment = self.environment();
        environment.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let wait = if arguments[0] == "replay" { &WAIT[..] } else { &[] };
        let arguments: Vec<String> =
            ["quarantine"].iter().chain(arguments).chain(wait).map(|text| (*text).to_owned()).collect();
        tokio::task::spawn_blocking(move || {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            let environment: Vec<(&str, &str)> =
                environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            Doseline::run(&arguments, &environment, WITHIN)
        })
    }

    async fn done(&self, arguments: &[&str], code: i32) -> String {
        let finished = self.quarantine(arguments, &[]).await.expect("it runs");
        assert_eq!(finished.code, Some(code), "{arguments:?}\n{}\n{}", finished.stdout, finished.stderr);
        finished.stdout
    }

    /// The ids of what is in quarantine, by topic and sequence number.
    async fn ids(&self) -> BTreeMap<(String, u64), String> {
        let lines = self.done(&["list", "--all", "--json"], 0).await;
        let rows = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
        rows.map(|row| {
            let text = |name: &str| row[name].as_str().expect("text").to_owned();
            ((text("topic"), row["seq"].as_u64().expect("a number")), text("id"))
        })
        .collect()
    }

    fn number(&self, sql: &str) -> u64 {
        self.clickhouse.number(sql)
    }

    /// Every figure in the tables, to check that a replay changed nothing.
    fn figures(&self) -> String {
        self.clickhouse.query(
            "SELECT (SELECT (count(), sum(cityHash64(tenant, site, device, seq, at, received_at, measured_um))) FROM doseline.injections), \
             (SELECT (count(), sum(cityHash64(device, received_at))) FROM doseline.device_status), \
             (SELECT count() FROM doseline.quarantine), \
             (SELECT (sum(injections), sum(depth_error_um)) FROM doseline.accuracy_minute)",
        )
    }

    /// Checks that the aggregates equal the sums over the base rows.
    fn aggregates_are_exact(&self) {
        let sums = "sum(injections), sum(dose_n), sum(dose_error_nl), sum(dose_error_sq), sum(depth_n), sum(depth_error_um), \
                    sum(depth_error_sq)";
        let base = "SELECT device, count(), count(delivered_nl), sum(toInt64(delivered_nl) - toInt64(target_nl)), \
                    sum(pow(toInt64(delivered_nl) - toInt64(target_nl), 2)::UInt64), count(measured_um), \
                    sum(toInt64(measured_um) - toInt64(target_um)), \
                    sum(pow(toInt64(measured_um) - toInt64(target_um), 2)::UInt64) \
                    FROM doseline.injections GROUP BY device ORDER BY device";
        let expected = self.clickhouse.query(base);
        for table in ["accuracy_minute", "accuracy_session"] {
            let sql = format!("SELECT device, {sums} FROM doseline.{table} GROUP BY device ORDER BY device");
            assert_eq!(self.clickhouse.query(&sql), expected, "{table}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_stored_once_after_the_rules_are_widened() {
    let mut rig = Rig::start(2).await;
    let loader = rig.load(rig.options_with(narrow())).await;
    rig.report("pen-1", &report(1, v1::Clock::Synced, mixed()));
    rig.report("pen-2", &report(1, v1::Clock::Unsynced, mixed()));
    rig.report("pen-1", &report(3, v1::Clock::Synced, mixed()[2..9].to_vec()));
    rig.flush();
    rig.written().await;
    assert_eq!(rig.number("SELECT count() FROM doseline.quarantine"), 10);
    assert_eq!(rig.number("SELECT count() FROM doseline.injections"), 30);

    // Before the fix. This configuration has wider rules than the loader, so the loader refuses
    // everything again.
    let refused = rig.done(&["replay", "--by", "ann"], 1).await;
    assert!(refused.contains("10 rows are refused by the loader") && refused.contains("measured_um 3000"), "{refused}");
    rig.written().await;
    assert_eq!(rig.number("SELECT count() FROM doseline.quarantine"), 10, "no second row");
    assert_eq!(rig.number("SELECT count() FROM doseline.injections"), 30);
    assert_eq!(rig.number("SELECT count() FROM doseline.quarantine WHERE replayed"), 0);
    loader.stop().await;

    // After the fix, two people replay at once while loaders start and stop.
    let dry = rig.done(&["replay", "--dry-run"], 0).await;
    assert!(dry.contains("10 rows can be replayed, 0 are refused still"), "{dry}");
    let people = [rig.quarantine(&["replay", "--by", "ann"], &[]), rig.quarantine(&["replay", "--by", "bob"], &[])];
    for stored in [31, 34, 37] {
        let loader = rig.load(rig.options_with(Plausibility::default())).await;
        let deadline = tokio::time::Instant::now() + WITHIN;
        while rig.number("SELECT count() FROM doseline.injections") < stored {
            assert!(tokio::time::Instant::now() < deadline, "the loader does not go on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        loader.abandon().await;
    }
    let loader = rig.load(rig.options_with(Plausibility::default())).await;
    let mut told = Vec::new();
    for person in people {
        let finished = person.await.expect("it runs");
        assert_eq!(finished.code, Some(0), "{}\n{}", finished.stdout, finished.stderr);
        told.push(finished.stdout);
    }
    rig.written().await;
    assert_eq!(rig.number("SELECT count() FROM doseline.injections"), 40, "{told:?}");
    assert_eq!(rig.number("SELECT uniqExact(device, boot_id, seq) FROM doseline.injections"), 40);
    assert_eq!(rig.number("SELECT count() FROM doseline.quarantine WHERE replayed"), 10);
    assert_eq!(rig.number("SELECT sum(stored) FROM doseline.quarantine_replays"), 10);
    assert_eq!(
        rig.clickhouse
            .query("SELECT sum(made), sum(stored), sum(quarantined), sum(missing) FROM doseline.delivery_completeness"),
        "40\t40\t0\t0"
    );
    rig.aggregates_are_exact();
    // Times are those of the first receipt. The last row is the second record of pen-2, not its
    // replay.
    let times = rig.clickhouse.query(
        "SELECT DISTINCT device, toUnixTimestamp64Micro(at), toUnixTimestamp64Micro(received_at), site \
         FROM doseline.injections WHERE measured_um = 3000 ORDER BY device",
    );
    let (first, second) = (RECEIVED_US, RECEIVED_US + 1);
    assert_eq!(times, format!("pen-1\t{}\t{first}\tberlin\npen-2\t{second}\t{second}\tberlin", BASE_US + 400_000));

    // Replay one row by its id, and let the device resend everything: nothing changes.
    let figures = rig.figures();
    let ids = rig.ids().await;
    let id = &ids[&("doseline/v1/acme/berlin/pen-1/report".to_owned(), 4)];
    let again = rig.done(&["replay", "--id", id, "--by", "eve"], 0).await;
    assert!(again.contains("replayed 1 rows: 0 stored, 1 were there already"), "{again}");
    assert_eq!(rig.done(&["replay"], 0).await.trim(), "nothing to replay");
    rig.report("pen-1", &report(1, v1::Clock::Synced, mixed()));
    rig.flush();
    rig.written().await;
    assert_eq!(rig.figures(), figures);
    loader.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_the_bridge_refused_are_replayed_once() {
    let mut rig = Rig::start(2).await;
    let loader = rig.load(rig.options_with(narrow())).await;
    let topic = |channel: &str| format!("doseline/v1/acme/berlin/pen-1/{channel}");
    let refused = [("reason", "field_too_long"), ("source", "bridge")];
    let mut refuse = |channel: &str, payload: &[u8]| {
        rig.produce(kafka::QUARANTINE_TOPIC, "acme/pen-1", &topic(channel), payload, &refused);
    };
    // Reports that a stricter bridge refused and this one accepts.
    let three = report(1, v1::Clock::Synced, vec![injection(1_500), injection(DEEP_UM), injection(1_501)]);
    refuse("report", &three.encode_to_vec());
    let four = report(4, v1::Clock::Synced, vec![injection(1_502)]);
    refuse("report/json", telemetry::json::to_json(&four, "Report").as_bytes());
    let beat = v1::Heartbeat { battery_pct: Some(70), ..v1::Heartbeat::default() };
    let beat = v1::Event { offset_us: 1, kind: Some(Kind::Heartbeat(beat)) };
    refuse("report", &report(0, v1::Clock::Synced, vec![beat]).encode_to_vec());
    refuse("status", br#"{"state":"STATE_ONLINE","batteryPct":60}"#);
    // This report is refused by every bridge.
    refuse("report", b"\xff\xff");
    rig.flush();
    rig.written().await;
    assert_eq!(rig.number("SELECT count() FROM doseline.quarantine"), 5);

    let told = rig.done(&["replay", "--by", "ann"], 1).await;
    assert!(told.contains("1 rows are refused still") && told.contains("bad_protobuf"), "{told}");
    assert!(told.contains("replayed 4 rows: 4 stored"), "{told}");
    rig.written().await;
    assert_eq!(
        rig.clickhouse.query("SELECT groupArray(seq) FROM (SELECT seq FROM doseline.injections ORDER BY seq)"),
        "[1,3,4]"
    );
    assert_eq!(rig.number("SELECT count() FROM doseline.device_status"), 2);
    let left = "SELECT source, seq, reason, replayed FROM doseline.quarantine WHERE NOT replayed ORDER BY seq";
    assert_eq!(rig.clickhouse.query(left), "bridge\t0\tfield_too_long\tfalse\nloader\t2\timplausible\tfalse");
    rig.aggregates_are_exact();

    // Replay everything several times: nothing is stored twice, neither heartbeats nor the status.
    let figures = rig.figures();
    let ids: Vec<String> = rig.ids().await.into_values().collect();
    let all: Vec<String> =
        rig.clickhouse.query("SELECT id FROM doseline.quarantine_state").lines().map(str::to_owned).collect();
    assert!(ids.iter().all(|id| all.contains(id)));
    for _ in 0..2 {
        let named: Vec<&str> = all.iter().flat_map(|id| ["--id", id.as_str()]).collect();
        let arguments: Vec<&str> = ["replay", "--by", "bob"].into_iter().chain(named).collect();
        let again = rig.done(&arguments, 1).await;
        assert!(again.contains("replayed 5 rows: 0 stored, 4 were there already, 1 refused again"), "{again}");
        rig.written().await;
        assert_eq!(rig.figures(), figures);
    }
    loader.stop().await;

    // With wider rules the last usable event is stored too.
    let loader = rig.load(rig.options_with(Plausibility::default())).await;
    let told = rig.done(&["replay", "--reason", "implausible", "--by", "ann"], 0).await;
    assert!(told.contains("replayed 1 rows: 1 stored"), "{told}");
    rig.written().await;
    assert_eq!(rig.number("SELECT count() FROM doseline.injections"), 4);
    rig.aggregates_are_exact();
    loader.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_kind_is_listed_and_shown_limits_alarm_and_only_a_person_deletes() {
    let mut rig = Rig::start(1).await;
    let loader = rig.load(rig.options_with(narrow())).await;
    let good = report(1, v1::Clock::Synced, vec![injection(1_500)]).encode_to_vec();
    let text = r#"{"bootId":"9","firstSeq":"1","events":[{"offsetUs":"1","injection":{"targetNl":"#;
    let bad: Vec<(&str, &str, Vec<u8>, &str)> = vec![
        ("cut", "report", good[..good.len() - 1].to_vec(), "reading stopped at byte"),
        ("float", "report/json", format!("{text}1.5}}}}]}}").into_bytes(), "in events[0].injection.targetNl"),
        ("nan", "report/json", format!("{text}NaN}}}}]}}").into_bytes(), "\"bootId\": \"9\""),
        ("empty", "report", Vec::new(), "refused still: empty"),
        ("topic", "nonsense", vec![1, 2, 3], "refused still: bad_topic"),
        ("status", "status", b"{\"state\":".to_vec(), "reading stopped at byte 9"),
    ];
    for (device, channel, payload, _) in &bad {
        let topic = format!("doseline/v1/acme/berlin/{device}/{channel}");
        rig.produce(kafka::QUARANTINE_TOPIC, "k", &topic, payload, &[("reason", "bad_json"), ("source", "bridge")]);
    }
    rig.report("deep", &report(8, v1::Clock::Synced, vec![injection(DEEP_UM)]));
    rig.flush();
    rig.written().await;

    let ids = rig.ids().await;
    assert_eq!(ids.len(), 7);
    for (device, channel, _, expected) in &bad {
        let shown = rig.done(&["show", &ids[&(format!("doseline/v1/acme/berlin/{device}/{channel}"), 0)]], 0).await;
        assert!(shown.contains(expected) && shown.contains("decoded:"), "{device}: {shown}");
    }
    let id = &ids[&("doseline/v1/acme/berlin/deep/report".to_owned(), 8)];
    let shown = rig.done(&["show", id], 0).await;
    for expected in
        ["measured_um 3000 is outside 0..2500", "\"measuredUm\": 3000", "can be replayed", "seq 21474836489, 8"]
    {
        assert!(shown.contains(expected), "no {expected}: {shown}");
    }
    let shown = rig.done(&["show", id, "--json"], 0).await;
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["decoded"]["events"][0]["injection"]["measuredUm"], 3_000);
    let absent = rig.quarantine(&["show", "9-9-9"], &[]).await.expect("it runs");
    assert!(absent.code == Some(1) && absent.stderr.contains("9-9-9"), "{}", absent.stderr);
    for wrong in [&["show", "x"][..], &["list", "--reason", "x"], &["list", "--from", "x"]] {
        let refused = rig.quarantine(wrong, &[]).await.expect("it runs");
        assert!(refused.code == Some(2) && refused.stderr.contains('x'), "{}", refused.stderr);
    }

    let listed = rig.done(&["list"], 0).await;
    let line = |reason: &str| {
        let line =
            listed.lines().find(|line| line.starts_with(reason)).unwrap_or_else(|| panic!("no {reason}: {listed}"));
        line.split_whitespace().take(3).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        (line("bad_json"), line("implausible")),
        (
            vec!["bad_json".to_owned(), "6".to_owned(), "0".to_owned()],
            vec!["implausible".to_owned(), "1".to_owned(), "0".to_owned()],
        )
    );
    assert!(
        rig.done(&["list", "--device", "deep"], 0).await.lines().filter(|line| line.contains("bad_json")).count() == 0
    );
    loader.stop().await;
    alarms(&rig).await;
    purges(&rig).await;
}

/// Checks the alarms of seven rows against two limits.
async fn alarms(rig: &Rig) {
    for (most, alarm, level) in [("8", "WARNING", "WARN"), ("7", "ERROR", "ERROR")] {
        let listed = rig.quarantine(&["list"], &[("DOSELINE__QUARANTINE__ROWS_MAX", most)]).await.expect("it runs");
        let line =
            listed.stdout.lines().find(|line| line.contains("quarantine.rows_max")).expect("the limit").to_owned();
        assert!(line.contains(&format!("7 of {most} rows")) && line.ends_with(alarm), "{line}");
        let address = format!("127.0.0.1:{}", free_port());
        let mut environment = rig.environment();
        environment.push(("DOSELINE__QUARANTINE__ROWS_MAX".to_owned(), most.to_owned()));
        environment.push(("DOSELINE__LOAD__HTTP".to_owned(), address.clone()));
        tokio::task::spawn_blocking(move || {
            let environment: Vec<(&str, &str)> =
                environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let mut load = Doseline::start_with(&["load"], &environment);
            let line = load.wait_for_line("of quarantine.rows_max", WITHIN);
            assert!(line.contains(level) && line.contains("nothing is deleted by itself"), "{line}");
            let agent = ureq::Agent::config_builder().timeout_global(Some(WITHIN)).build().new_agent();
            poll(WITHIN, "the metric", || {
                let answer = agent.get(format!("http://{address}/metrics")).call();
                let text = answer
                    .and_then(|mut answer| answer.body_mut().read_to_string())
                    .map_err(|error| error.to_string())?;
                let there = text.contains("doseline_load_quarantine_rows 7")
                    && text.contains("doseline_load_quarantine_limit_ratio{limit=\"rows\"} ");
                if there { Ok(()) } else { Err(text) }
            });
            assert!(load.stop(WITHIN).0.success());
        })
        .await
        .expect("the loader says so");
    }
    assert_eq!(rig.number("SELECT count() FROM doseline.quarantine"), 7, "nothing is deleted");
}

async fn purges(rig: &Rig) {
    rig.clickhouse.query(
        "INSERT INTO doseline.quarantine (reason, payload, ingest_day, received_at, incarnation, tenant) VALUES \
         ('bad_topic', 'a', '2020-05-01', '2020-05-01 10:00:00', 1, 'acme'), \
         ('bad_topic', 'bc', '2020-05-01', '2020-05-01 11:00:00', 1, 'acme'), \
         ('empty', '', '2020-05-02', '2020-05-02 11:00:00', 1, 'acme')",
    );
    let young =
        rig.quarantine(&["purge", "--before", "2099-01-01", "--because", "x", "--yes"], &[]).await.expect("it runs");
    assert!(young.code == Some(1) && young.stderr.contains("quarantine.age_days_max"), "{}", young.stderr);
    let purge =
        ["purge", "--before", "2020-06-01", "--reason", "bad_topic", "--because", "an old scanner", "--by", "ann"];
    assert!(rig.done(&purge, 0).await.contains("would delete 2 rows (3 B), of them 2 never replayed"));
    assert_eq!(rig.number("SELECT count() FROM doseline.quarantine"), 10);
    let yes: Vec<&str> = purge.into_iter().chain(["--yes"]).collect();
    assert!(rig.done(&yes, 0).await.contains("deleted 2 rows"));
    assert_eq!(rig.number("SELECT count() FROM doseline.quarantine"), 8);
    assert_eq!(
        rig.clickhouse.query(
            "SELECT purged_by, because, ingest_day, tenant, reason, rows, not_replayed, bytes, length(sha256), \
             sha256 = lower(hex(SHA256(arrayStringConcat(arraySort([hex(SHA256('a')), hex(SHA256('bc'))]))))) \
             FROM doseline.quarantine_purges"
        ),
        "ann\tan old scanner\t2020-05-01\tacme\tbad_topic\t2\t2\t3\t64\t1"
    );
    assert_eq!(rig.done(&yes, 0).await.trim(), "nothing to delete");
}

/// The bridge applies the policy before Kafka. A replay after the import stores everything.
#[test]
fn unknown_devices_wait_in_quarantine_until_somebody_registers_them() {
    let stack = Stack::start("[load]\nbatch_age_ms = 100\n[bridge]\nunknown_devices = \"policy\"");
    let doseline = |arguments: &[&str], code: i32| {
        let mut run = stack.doseline(arguments);
        let status = run.process().wait(WITHIN);
        assert_eq!(status.code(), Some(code), "{arguments:?}\n{}\n{}", run.stdout(), run.stderr());
        run.stdout()
    };
    let scratch = Scratch::new("fleet");
    let file = scratch.join("fleet.csv");
    let import = |devices: &str| {
        std::fs::write(&file, format!("tenant,site,device,kind\n{devices}")).expect("write");
        doseline(&["devices", "import", file.to_str().expect("UTF-8"), "--by", "ann"], 0);
    };
    let _load = stack.role("load");
    import("acme,berlin,known,INJECTOR\n");
    doseline(&["devices", "unknown", "quarantine", "--tenant", "acme", "--by", "ann"], 0);
    let _bridge = stack.role("bridge");

    let mut options = rumqttc::v5::MqttOptions::new("devices", "127.0.0.1", stack.mosquitto.port());
    options.set_max_packet_size(Some(4 << 20));
    let (client, mut connection) = rumqttc::v5::Client::new(options, 100);
    std::thread::spawn(move || connection.iter().take_while(Result::is_ok).count());
    let payload = report(1, v1::Clock::Synced, vec![injection(1_500), injection(1_501)]).encode_to_vec();
    let publish = |device: &str, payload: &[u8]| {
        let topic = format!("doseline/v1/{device}/report");
        let quality = rumqttc::v5::mqttbytes::QoS::AtLeastOnce;
        client.publish(topic, quality, false, payload.to_vec()).expect("publish");
    };
    for device in ["acme/berlin/known", "acme/berlin/stranger", "open/berlin/stranger"] {
        publish(device, &payload);
    }
    let number = |sql: &str, wanted: u64| {
        poll(WITHIN, sql, || match stack.clickhouse.number(sql) {
            number if number == wanted => Ok(()),
            number => Err(format!("{number}, not {wanted}")),
        });
    };
    number("SELECT count() FROM doseline.injections", 4);
    number("SELECT count() FROM doseline.quarantine WHERE reason = 'unknown_device' AND device = 'stranger'", 1);

    let still = doseline(&["quarantine", "replay", "--by", "ann"], 1);
    assert!(still.contains("acme/stranger is not registered at site berlin; `doseline devices import`"), "{still}");
    import("acme,berlin,known,INJECTOR\nacme,berlin,stranger,INJECTOR\n");
    let replay = ["quarantine", "replay", "--reason", "unknown_device", "--by", "ann"];
    let told = doseline(&[&replay[..], &WAIT].concat(), 0);
    assert!(told.contains("replayed 1 rows: 1 stored") && told.contains("2 events stored"), "{told}");
    number("SELECT count() FROM doseline.injections", 6);
    number("SELECT uniqExact(tenant, device, seq) FROM doseline.injections", 6);
    number("SELECT count() FROM doseline.quarantine WHERE NOT replayed", 0);

    // A device is unknown at another site until it is moved there.
    let later = |seq| report(seq, v1::Clock::Synced, vec![injection(1_500)]).encode_to_vec();
    publish("acme/paris/known", &later(3));
    let waits = "(SELECT count() FROM doseline.quarantine WHERE NOT replayed AND reason = 'unknown_device' AND topic";
    number(&format!("SELECT {waits} = 'doseline/v1/acme/paris/known/report')"), 1);
    let still = doseline(&["quarantine", "replay", "--by", "ann"], 1);
    assert!(still.contains("acme/known is not registered at site paris"), "{still}");
    import("acme,paris,known,INJECTOR\n");
    // The bridge reads the registry every few seconds. Until then it refuses reports from Paris.
    let mut seq = 3;
    poll(WITHIN, "a report from the new site", || {
        seq += 1;
        publish("acme/paris/known", &later(seq));
        std::thread::sleep(Duration::from_millis(200));
        match stack.clickhouse.number("SELECT count() FROM doseline.injections WHERE site = 'paris'") {
            0 => Err("none is stored"),
            _ => Ok(()),
        }
    });
    publish("acme/berlin/known", &later(1_000));
    number(&format!("SELECT {waits} = 'doseline/v1/acme/berlin/known/report')"), 1);
    let stored = "(SELECT count() FROM doseline.injections WHERE site = 'paris')";
    number(&format!("SELECT {waits} = 'doseline/v1/acme/paris/known/report') + {stored}"), seq - 2);
    // What waited is brought in: both sites were this device's at some time.
    doseline(&[&replay[..], &WAIT].concat(), 0);
    number("SELECT count() FROM doseline.quarantine WHERE NOT replayed", 0);
    // Two from Berlin before, one after, and those from Paris: 3 to `seq`.
    number("SELECT count() FROM doseline.injections WHERE device = 'known'", 3 + seq - 2);
}
