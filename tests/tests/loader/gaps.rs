//! Compares what a device says it made with what has arrived, through the loader.

use harness::poll;
use rand::{SeedableRng as _, rngs::StdRng};
use telemetry::v1::{self, event::Kind};

use crate::{
    path::injection,
    rig::{RECEIVED_US, Rig},
};

fn boot(number: u64) -> u64 {
    number << 32 | 5
}

/// Events `first..=last` of a boot.
fn report(boot_id: u64, first: u64, last: u64) -> v1::Report {
    // An event has the same content in every report that contains it.
    let event = |number| injection(&mut StdRng::seed_from_u64(boot_id ^ number), number);
    let events = (first..=last).map(event).collect();
    v1::Report { boot_id, first_seq: first, events, ..Default::default() }
}

fn gaps(rig: &Rig) -> String {
    let sql = "SELECT device, bitShiftRight(boot_id, 32), first_missing, last_missing, state \
               FROM doseline.delivery_gaps ORDER BY ALL FORMAT TSV";
    rig.clickhouse.query(sql)
}

fn balances(rig: &Rig) -> String {
    let sql = "SELECT bitShiftRight(boot_id, 32), made, stored, quarantined, lost, missing, tail_known \
               FROM doseline.delivery_completeness WHERE device = 'pen-1' ORDER BY ALL FORMAT TSV";
    rig.clickhouse.query(sql)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gaps_tails_and_whole_boots_are_visible_until_they_arrive() {
    let mut rig = Rig::start(2).await;
    let loader = rig.load(rig.options()).await;
    poll(std::time::Duration::from_secs(240), "the loader to be ready", || match loader.handle.readiness() {
        readiness if readiness.ready => Ok(()),
        readiness => Err(format!("{readiness:?}")),
    });

    // Boot 1 has lost its last events, boot 2 is known without any event, boot 3 says nothing about
    // itself, and boot 4 has a hole and a loss.
    rig.report("pen-1", &report(boot(1), 1, 3));
    // Boot 9 is only known by its id.
    let earlier_boots =
        [(1, 5), (2, 4), (9, 0)].map(|(number, last_seq)| v1::EarlierBoot { boot_id: boot(number), last_seq });
    rig.report("pen-1", &v1::Report { earlier_boots: earlier_boots.to_vec(), ..report(boot(3), 1, 2) });
    let lost = v1::LostRange { first_seq: 1, last_seq: 1, reason: "outbox full".to_owned() };
    rig.report("pen-1", &v1::Report { lost: vec![lost], ..report(boot(4), 3, 4) });
    // A device of which only the last will tells that events are missing.
    let status = format!(r#"{{"state":"STATE_LOST","bootId":"{}","lastSeq":"2"}}"#, boot(1));
    let topic = "doseline/v1/acme/berlin/pen-2/status";
    rig.produce("doseline.status.v1", "acme/pen-2", topic, status.as_bytes(), &[]);
    rig.flush();
    rig.written().await;
    assert_eq!(
        gaps(&rig),
        "pen-1\t1\t4\t5\tOPEN\npen-1\t2\t1\t4\tOPEN\npen-1\t4\t1\t1\tLOST\npen-1\t4\t2\t2\tOPEN\npen-2\t1\t1\t2\tOPEN"
    );
    let expected = [
        "1\t5\t3\t0\t0\t2\t1",
        "2\t4\t0\t0\t0\t4\t1",
        "3\t2\t2\t0\t0\t0\t0",
        "4\t4\t2\t0\t1\t1\t0",
        "9\t0\t0\t0\t0\t0\t0",
    ];
    assert_eq!(balances(&rig), expected.join("\n"));
    let since =
        "SELECT toUnixTimestamp64Micro(min(since)), toUnixTimestamp64Micro(max(since)) FROM doseline.delivery_gaps";
    let since = rig.clickhouse.query(since);

    // Some of the events arrive late. The gap becomes smaller and keeps its age.
    rig.report("pen-1", &report(boot(2), 2, 3));
    rig.flush();
    rig.written().await;
    let smaller = "SELECT first_missing, last_missing, toUnixTimestamp64Micro(since) FROM doseline.delivery_gaps \
                   WHERE bitShiftRight(boot_id, 32) = 2 ORDER BY ALL FORMAT TSV";
    // The second record named boot 2.
    let second = RECEIVED_US + 1;
    assert_eq!(rig.clickhouse.query(smaller), format!("1\t1\t{second}\n4\t4\t{second}"));
    assert!(since.starts_with(&format!("{}", RECEIVED_US + 1)), "{since}");

    // The rest arrives: stored, stored although declared lost, and quarantined.
    rig.report("pen-1", &report(boot(1), 4, 5));
    rig.report("pen-1", &report(boot(2), 1, 4));
    rig.report("pen-1", &report(boot(4), 1, 1));
    let mut bad = report(boot(4), 2, 2);
    if let Some(Kind::Injection(injection)) = &mut bad.events[0].kind {
        injection.measured_um = Some(60_000);
        injection.injection_no = Some(77);
    }
    rig.report("pen-1", &bad);
    rig.report("pen-2", &report(boot(1), 1, 2));
    rig.flush();
    rig.written().await;
    assert_eq!(gaps(&rig), "");
    let expected = [
        "1\t5\t5\t0\t0\t0\t1",
        "2\t4\t4\t0\t0\t0\t1",
        "3\t2\t2\t0\t0\t0\t0",
        "4\t4\t3\t1\t0\t0\t0",
        "9\t0\t0\t0\t0\t0\t0",
    ];
    assert_eq!(balances(&rig), expected.join("\n"));
    let numbered = "SELECT injection_no, reason FROM doseline.quarantine";
    assert_eq!(rig.clickhouse.query(numbered), "77\timplausible");
    loader.stop().await;
}
