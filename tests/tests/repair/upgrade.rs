//! A new version replaces the old one while data flows. The result is exact, and no partition
//! stands still for longer than a session timeout.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use harness::{ends, is_committed, poll};
use load::{Loader, Options, batch::DECODER_VERSION};

use crate::{
    fleet::{Device, expected, fleet},
    rig::{Rig, Running},
    world::World,
};

/// Several times as long as a loaded machine needs to hand a partition over: beside the campaign it
/// has taken 57 s.
const SESSION: Duration = Duration::from_secs(180);
/// Session timeout of loaders that are killed. The other loaders must wait for it.
const SHORT_SESSION: Duration = Duration::from_secs(6);
const WITHIN: Duration = Duration::from_secs(300);
const DEVICES: usize = 24;

async fn version(world: &World, decoder: u32, session: Duration) -> Running {
    let rig = &world.rig;
    let mut options: Options = rig.options();
    options.kafka.session_timeout = session;
    options.instance = format!("version-{decoder}");
    let loader = Loader::bind(options, rig.warehouse.clone()).await.expect("valid options");
    Rig::run(loader.with_decoder_version(decoder))
}

/// Positions of the partitions of the reports topic, and how long each has stood still while there
/// was something to write.
#[derive(Default)]
struct Watch {
    moved: BTreeMap<String, (u64, Instant)>,
    longest: Duration,
}

impl Watch {
    fn look(&mut self, world: &World) {
        let sql = "SELECT toString(kafka_partition) AS partition, max(batch_end) AS position FROM doseline.loader_commits \
                   WHERE kind = 'commit' AND incarnation IN (SELECT incarnation FROM doseline.kafka_topics \
                   WHERE topic = 'doseline.reports.v1') GROUP BY kafka_partition";
        for row in world.rig.clickhouse.rows(sql) {
            let (partition, position) = (row["partition"].to_string(), row["position"].as_u64().expect("a number"));
            let (last, since) = self.moved.entry(partition).or_insert((position, Instant::now()));
            if *last != position {
                (*last, *since) = (position, Instant::now());
            }
            self.longest = self.longest.max(since.elapsed());
        }
    }
}

/// Lets data flow for a while: each device has sessions, and each round reaches every partition. At
/// the end all of it is written, so the longest standstill of a partition is seen.
async fn flow(world: &mut World, devices: &mut [Device], rounds: usize, watch: &mut Watch) {
    for _ in 0..rounds {
        send(world, devices).await;
        watch.look(world);
    }
    poll(WITHIN, "what flowed to be written", || {
        watch.look(world);
        is_committed(&world.rig.clickhouse, &ends(&world.rig.kafka))
    });
}

/// Each device has a session. The next round follows a little later.
async fn send(world: &mut World, devices: &mut [Device]) {
    for device in devices {
        device.visit(&mut world.rig);
    }
    world.rig.flush();
    tokio::time::sleep(Duration::from_millis(300)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_takes_over_while_data_flows() {
    let mut world = World::start(4).await;
    let mut devices = fleet(DEVICES);
    let (old, new) = (DECODER_VERSION - 1, DECODER_VERSION);
    let (first, second) = (version(&world, old, SESSION).await, version(&world, old, SESSION).await);
    let mut watch = Watch::default();
    flow(&mut world, &mut devices, 8, &mut watch).await;
    // Loading has begun. The time that its start took does not count for the upgrade.
    let mut watch = Watch::default();
    let third = version(&world, new, SESSION).await;
    flow(&mut world, &mut devices, 12, &mut watch).await;
    first.stop().await;
    flow(&mut world, &mut devices, 12, &mut watch).await;
    let fourth = version(&world, new, SESSION).await;
    flow(&mut world, &mut devices, 8, &mut watch).await;
    second.stop().await;
    flow(&mut world, &mut devices, 12, &mut watch).await;
    println!("longest stop of a partition: {:.1?}, session time-out {SESSION:?}", watch.longest);
    assert!(watch.longest < SESSION, "a partition stood still for {:?}", watch.longest);

    // A loader of the old version returns and is killed in the middle of a batch. The new version
    // writes this batch again.
    third.stop().await;
    fourth.stop().await;
    for _ in 0..3 {
        let back = version(&world, old, SHORT_SESSION).await;
        send(&mut world, &mut devices).await;
        send(&mut world, &mut devices).await;
        back.abandon().await;
    }
    let last = version(&world, new, SHORT_SESSION).await;
    world.rig.written().await;
    last.stop().await;
    exact(&world, &devices);
}

fn exact(world: &World, devices: &[Device]) {
    let clickhouse = &world.rig.clickhouse;
    let visits = devices.iter().map(|device| device.made() / crate::fleet::VISIT).sum();
    let (stored, quarantined) = expected(visits);
    assert_eq!(clickhouse.number("SELECT count() FROM doseline.injections"), stored);
    assert_eq!(clickhouse.number("SELECT uniqExact(device, boot_id, seq) FROM doseline.injections"), stored);
    assert_eq!(clickhouse.number("SELECT count() FROM doseline.quarantine"), quarantined);
    assert_eq!(clickhouse.number("SELECT sum(missing) FROM doseline.delivery_completeness"), 0);
    let versions = clickhouse.query("SELECT arraySort(groupUniqArray(decoder_version)) FROM doseline.loader_intents");
    assert_eq!(versions, format!("[{},{DECODER_VERSION}]", DECODER_VERSION - 1));
    world.is_clean();
}
