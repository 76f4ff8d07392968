//! The reference client and the simulator with Mosquitto, and with a small server that only sends
//! receipts.

mod oracle;
mod receipter;

use std::{sync::Arc, time::Duration};

use device::{
    Form, Identity,
    fleet::Scenarios,
    gateway::{Backoff, Broker, Command, Counters, Gateway, Options as GatewayOptions, Profile},
    simulate::{self, Options, Pace, Summary},
    store::Stamp,
};
use harness::{Mosquitto, Scratch};
use telemetry::v1::{Clock, Fault, State, event::Kind};
use tokio_util::sync::CancellationToken;

use oracle::Truth;
use receipter::{Receipter, Temper};

const EPOCH: i64 = 1_780_000_000_000_000;

fn options(devices: u32, scratch: &Scratch, broker: &Mosquitto) -> Options {
    let mut options = Options::new(devices, scratch.join("data"), Broker::plain("127.0.0.1", broker.port()));
    options.epoch_unix_us = Some(EPOCH);
    options.pace = Pace::Unbounded;
    options.truth = Some(scratch.join("truth.jsonl"));
    options.open_max = 5_000;
    options.gateway.connections = 3;
    options.gateway.drain = Duration::from_secs(240);
    options.gateway.backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_millis(500) };
    options.gateway.sender.linger = Duration::from_millis(50);
    options.gateway.sender.resend_first = Duration::from_millis(500);
    options.gateway.sender.resend_max = Duration::from_secs(2);
    options.gateway.sender.reconnect_spread = Duration::from_millis(200);
    options
}

async fn run(options: Options) -> Summary {
    simulate::run(options, CancellationToken::new()).await.expect("the simulation runs")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_of_every_scenario_arrives_as_the_truth_says() {
    let (broker, scratch) = (Mosquitto::start(), Scratch::new("device"));
    let receipter = Receipter::start(broker.port(), Temper { forgets: 0.03, seed: 1 }).await;
    let mut options = options(40, &scratch, &broker);
    options.scenarios = Scenarios::all();
    options.events_max = Some(40_000);
    let summary = run(options.clone()).await;
    assert_eq!(summary.open, 0, "{summary:?}");
    assert!(summary.made >= 40_000 && summary.resent > 0 && summary.lost > 0 && summary.missing > 0, "{summary:?}");
    let truth = Truth::read(&scratch.join("truth.jsonl"));
    receipter.until("the bad messages", |seen| truth.are_poisons_in(seen)).await;
    let fates = truth.check(&receipter.seen());
    assert_eq!(fates["stored"] + fates["quarantined"], summary.receipted);
    assert_eq!((fates["lost"], fates["missing"]), (summary.lost, summary.missing));

    // The same seed and epoch give the same truth file, whatever the network did.
    let again = Scratch::new("device-again");
    options.gateway.store.dir = again.join("data");
    options.truth = Some(again.join("truth.jsonl"));
    options.gateway.connections = 1;
    run(options).await;
    assert!(
        std::fs::read(scratch.join("truth.jsonl")).unwrap() == std::fs::read(again.join("truth.jsonl")).unwrap(),
        "same seed and epoch, other truth"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_loses_nothing() {
    let (mut broker, scratch) = (Mosquitto::start(), Scratch::new("device"));
    let receipter = Receipter::start(broker.port(), Temper::default()).await;
    let mut options = options(16, &scratch, &broker);
    options.pace = Pace::EventsPerSecond(1_500.0);
    options.duration = Some(Duration::from_secs(6));
    let simulation = tokio::spawn(run(options));
    for _ in 0..2 {
        let before = receipter.seen().events.len();
        receipter.until("more events", |seen| seen.events.len() > before + 1_000).await;
        broker.kill();
        broker.start_again();
    }
    let summary = simulation.await.unwrap();
    assert_eq!(summary.open, 0, "{summary:?}");
    let fates = Truth::read(&scratch.join("truth.jsonl")).check(&receipter.seen());
    assert_eq!(fates["stored"], summary.made);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_no_receipt_is_delivered_by_the_next_run() {
    let (broker, scratch) = (Mosquitto::start(), Scratch::new("device"));
    let mut first = options(8, &scratch, &broker);
    first.events_max = Some(3_000);
    first.gateway.drain = Duration::from_millis(500);
    let summary = run(first.clone()).await;
    assert_eq!((summary.receipted, summary.open), (0, summary.made));

    let receipter = Receipter::start(broker.port(), Temper::default()).await;
    let mut second = first.clone();
    second.gateway.drain = Duration::from_secs(240);
    second.events_max = Some(0);
    let delivered = run(second.clone()).await;
    assert_eq!((delivered.made, delivered.receipted, delivered.open), (0, summary.made, 0));

    second.events_max = Some(3_000);
    let third = run(second).await;
    assert_eq!(third.open, 0, "{third:?}");
    let truth = Truth::read(&scratch.join("truth.jsonl"));
    truth.check(&receipter.seen());
    let counters = truth.boots("inj-0001").iter().map(|boot_id| boot_id >> 32).collect::<Vec<_>>();
    assert_eq!(counters, [1, 2], "the boot counter goes on");
    let numbers = truth.injection_numbers("inj-0001");
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "the lifetime counter goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_past_goes_on_where_it_was_and_is_told_once() {
    let (broker, scratch) = (Mosquitto::start(), Scratch::new("device"));
    let receipter = Receipter::start(broker.port(), Temper::default()).await;
    let demo = Options { is_demo: true, pace: Pace::RealTime, ..options(6, &scratch, &broker) };
    let first = run(Options { events_max: Some(3_000), ..demo.clone() }).await;
    assert!((3_000..3_100).contains(&first.made) && first.open == 0, "{first:?}");
    // The rest of the past, and one second of the present.
    let live = Options { duration: Some(Duration::from_secs(1)), ..demo };
    let second = run(live.clone()).await;
    assert!(second.made > 3_000 && second.missing == 7 && second.open == 0, "{second:?}");
    let truth = Truth::read(&scratch.join("truth.jsonl"));
    let fates = truth.check(&receipter.seen());
    assert_eq!(fates["stored"] + fates["missing"], first.made + second.made, "nothing was made twice");
    assert!(truth.boots("inj-0001").len() <= 2, "the past is one boot, whoever interrupts it");
    let numbers = truth.injection_numbers("inj-0001");
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());

    let third = run(live).await;
    assert!(third.made < 200 && third.missing == 0, "no second past: {third:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_device_says_whether_it_is_there() {
    let (broker, scratch) = (Mosquitto::start(), Scratch::new("device"));
    let receipter = Receipter::start(broker.port(), Temper::default()).await;
    let identity = Identity::new("tenant", "site", "device").unwrap();
    let open = || {
        let broker = Broker::plain("127.0.0.1", broker.port());
        let options = GatewayOptions::new(scratch.join("data"), broker, "device");
        let profile = Profile { identity: Some(identity.clone()), form: Form::Json, ..Profile::default() };
        Gateway::open(options, &[profile], Arc::new(Counters::default()), Box::new(|_| {})).unwrap()
    };
    let is = |wanted: State| {
        let receipter = &receipter;
        async move { receipter.until("its status", |seen| seen.states.get("device") == Some(&wanted)).await }
    };

    let gateway = open();
    let device = gateway.number(&identity).unwrap();
    let (commands, batches) = tokio::sync::mpsc::channel(1);
    let boot_id = u64::from(gateway.life(device).unwrap().boots + 1) << 32 | 0xabcd;
    let running = tokio::spawn(gateway.run(batches, CancellationToken::new()));
    let stamp = Stamp { uptime_us: 5, unix_us: EPOCH, clock: Clock::Synced };
    let kind = Some(Kind::Fault(Fault { code: "E-1".to_owned(), ..Fault::default() }));
    let event = Command::Event { device, seq: 1, stamp, context: Arc::from([]), kind };
    commands.send(vec![Command::Boot { device, boot_id }, event]).await.unwrap();
    is(State::Online).await;
    receipter.until("its event", |seen| seen.events.len() == 1).await;
    // The device disappears without a DISCONNECT, so the broker publishes the last will.
    running.abort();
    is(State::Lost).await;
    drop(running.await);

    let (commands, batches) = tokio::sync::mpsc::channel(1);
    let running = tokio::spawn(open().run(batches, CancellationToken::new()));
    is(State::Online).await;
    drop(commands);
    running.await.unwrap().unwrap();
    is(State::Off).await;
}
