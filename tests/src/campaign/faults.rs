//! The faults, each as a function on a stage under load.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::Rng;
use rand_chacha::ChaCha8Rng;

use super::gateway::{Gateway, Hold, Moment, Statement, holds};
use super::kafka;
use super::stage::{BRIDGES, RECOVERED_WITHIN, SLOTS, STOPPED_WITHIN, Stage, bridge_id, metric};
use crate::{Process, Scratch, Signal, poll};

pub type Random = ChaCha8Rng;

/// Result of one injection of a fault.
pub struct Outcome {
    /// How many times the fault struck.
    pub times: u32,
    /// Time from the fault, or from its end if it lasts, until all data moves again, s.
    pub recovery_s: f64,
}

/// One kind of fault.
pub struct Fault {
    /// Its name for `--faults`.
    pub name: &'static str,
    /// Its description in the table.
    pub what: &'static str,
    /// How often it must strike in continuous integration.
    pub ci: u32,
    /// How often it strikes in one turn of a long run; 0 means once in the whole run, at its own
    /// time.
    pub turn: u32,
    /// Injects the fault.
    pub inject: fn(&mut Stage, &mut Random) -> Outcome,
}

/// Longest wait for a statement that is to be held.
const HELD_WITHIN: Duration = Duration::from_secs(40);

const fn fault(
    name: &'static str,
    what: &'static str,
    ci: u32,
    turn: u32,
    inject: fn(&mut Stage, &mut Random) -> Outcome,
) -> Fault {
    Fault { name, what, ci, turn, inject }
}

/// All faults that leave records complete.
pub const FAULTS: [Fault; 28] = [
    fault("bridge-kill", "SIGKILL bridge at random", 12, 6, bridge_killed),
    fault("before-intent", "SIGKILL loader before the intent", 3, 2, before_intent),
    fault("after-intent", "SIGKILL loader after the intent", 3, 2, after_intent),
    fault("mid-insert", "SIGKILL loader during an insert", 3, 2, mid_insert),
    fault("between-tables", "SIGKILL loader between tables", 3, 2, between_tables),
    fault("before-record", "SIGKILL loader before the commit", 3, 2, before_record),
    fault("after-record", "SIGKILL loader after the commit", 2, 2, after_record),
    fault("late-insert", "insert of a dead loader arrives after its successor's", 3, 1, late_insert),
    fault("engine-rename", "ClickHouse killed between deduplication log and rename", 3, 2, engine_killed_at_rename),
    fault("engine-kill", "ClickHouse killed at random", 3, 2, engine_killed),
    fault("two-owners", "two owners of every partition at once", 12, 3, two_owners),
    fault("loader-stop", "SIGSTOP loader past its session time-out, then continue", 3, 1, loader_stopped),
    fault("rebalance", "rebalance storm 1 <-> 4 loaders (s)", 20, 30, rebalance_storm),
    fault("mqtt-cut", "MQTT connections cut, session kept", 6, 3, mqtt_cut),
    fault("mqtt-session", "MQTT connections cut, session lost", 6, 3, mqtt_session_lost),
    fault("mqtt-slow", "MQTT connections delayed", 2, 1, mqtt_slow),
    fault("broker-kill", "broker killed, its sessions lost", 3, 1, broker_killed),
    fault("kafka-leader", "Kafka: leader killed", 2, 1, kafka::leader_killed),
    fault(
        "kafka-min-isr",
        "Kafka: fewer than min.insync replicas, no receipt meanwhile",
        2,
        1,
        kafka::below_min_insync,
    ),
    fault("engine-mid-insert", "ClickHouse killed during an insert", 3, 1, engine_killed_mid_insert),
    fault("response-lost", "ClickHouse's answer lost", 3, 3, response_lost),
    fault("view-fails", "materialized view failing", 3, 1, view_fails),
    fault("disk-full", "ClickHouse's disk full", 3, 1, disk_full),
    fault("backlog", "device sends its whole backlog three times in other groupings", 1, 1, backlog_repeated),
    fault("kafka-stall", "one Kafka partition stalled for 60 s", 1, 0, kafka::partition_stalled),
    fault("engine-away", "ClickHouse away for 5 minutes", 0, 0, engine_away),
    fault("offsets-reset", "committed offsets reset to 0", 1, 0, kafka::offsets_reset),
    fault("scale", "loader scaled 1 -> 4 -> 1", 1, 1, scaled),
];

fn once(recovery_s: f64) -> Outcome {
    Outcome { times: 1, recovery_s }
}

fn moment(random: &mut Random) {
    sleep(Duration::from_millis(random.random_range(0..400)));
}

fn bridge_killed(stage: &mut Stage, random: &mut Random) -> Outcome {
    let victims = stage.bridge_victims();
    for index in &victims {
        moment(random);
        stage.replace_bridge(*index);
    }
    Outcome { times: victims.len() as u32, recovery_s: stage.recovered() }
}

/// Kills every regular loader that may be killed, each at this point of one of its batches.
fn loaders_killed(stage: &mut Stage, random: &mut Random, statement: Statement, at: Moment) -> Outcome {
    let victims = stage.victims();
    let holds: Vec<Hold> =
        victims.iter().map(|slot| stage.gateways[*slot].hold(statement, at, random.random_range(0..3))).collect();
    let mut times = 0;
    for (slot, hold) in victims.iter().zip(holds) {
        // A loader without a partition under load sends no such statement. It is killed, but does
        // not count.
        times += u32::from(hold.wait(HELD_WITHIN));
        stage.kill_loader(*slot);
        hold.cut();
    }
    stage.start_regular_loaders();
    Outcome { times, recovery_s: stage.recovered() }
}

fn before_intent(stage: &mut Stage, random: &mut Random) -> Outcome {
    loaders_killed(stage, random, Statement::Intent, Moment::Before)
}

fn after_intent(stage: &mut Stage, random: &mut Random) -> Outcome {
    loaders_killed(stage, random, Statement::Intent, Moment::After)
}

fn mid_insert(stage: &mut Stage, random: &mut Random) -> Outcome {
    loaders_killed(stage, random, Statement::Insert, Moment::Amid)
}

fn between_tables(stage: &mut Stage, random: &mut Random) -> Outcome {
    loaders_killed(stage, random, Statement::Insert, Moment::After)
}

fn before_record(stage: &mut Stage, random: &mut Random) -> Outcome {
    loaders_killed(stage, random, Statement::Commit, Moment::Before)
}

fn after_record(stage: &mut Stage, random: &mut Random) -> Outcome {
    loaders_killed(stage, random, Statement::Commit, Moment::After)
}

/// A loader dies while it inserts, and another writes the batch. Then the insert reaches
/// ClickHouse.
fn late_insert(stage: &mut Stage, random: &mut Random) -> Outcome {
    let victim = stage.victims()[0];
    let statement = if random.random_bool(0.7) { Statement::Insert } else { Statement::Commit };
    let hold = stage.gateways[victim].hold(statement, Moment::Before, random.random_range(0..3));
    let held = hold.wait(HELD_WITHIN);
    stage.kill_loader(victim);
    stage.start_regular_loaders();
    let recovery_s = stage.recovered();
    hold.pass();
    stage.recovered();
    Outcome { times: held.into(), recovery_s }
}

/// ClickHouse dies when it renames the part of an insert: the token is in the deduplication log,
/// the rows are not there.
fn engine_killed_at_rename(stage: &mut Stage, random: &mut Random) -> Outcome {
    // Merges rename too. They start again with the next start of ClickHouse.
    stage.clickhouse.query("SYSTEM STOP MERGES");
    let scratch = Scratch::new("strace");
    // strace counts the calls of each thread.
    let (trace, nth) = (scratch.join("trace"), random.random_range(1..4));
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-s", "400", "-e", "trace=rename,renameat,renameat2", "-e"]);
    command.arg(format!("inject=rename,renameat,renameat2:error=EIO:signal=KILL:when={nth}"));
    command.arg("-o").arg(&trace).args(["-p", &stage.clickhouse.process().id().to_string()]);
    let mut strace = Process::start("strace", command, &scratch.join("log"), None);
    let gone = stage.engine_gone(Duration::from_secs(60));
    strace.kill();
    stage.clickhouse.kill();
    // Before ClickHouse starts again and removes them.
    let unrenamed = has_unrenamed(stage, &trace);
    let began = Instant::now();
    stage.clickhouse.start_again();
    stage.recovered();
    Outcome { times: u32::from(gone && unrenamed), recovery_s: began.elapsed().as_secs_f64() }
}

/// Whether the trace shows the rename of an insert's part that began and never ended. A kill at
/// another rename counts as one at random.
fn has_unrenamed(stage: &Stage, trace: &Path) -> bool {
    let calls = fs::read_to_string(trace).unwrap_or_default();
    let begun = calls.lines().filter(|line| line.contains("/tmp_insert_") && line.contains("unfinished"));
    let parts = begun.filter_map(|line| line.split('"').nth(1));
    parts.into_iter().any(|part| stage.clickhouse.disk().holds(Path::new(part)))
}

fn engine_killed(stage: &mut Stage, random: &mut Random) -> Outcome {
    moment(random);
    let began = Instant::now();
    stage.clickhouse.kill();
    stage.clickhouse.start_again();
    stage.recovered();
    once(began.elapsed().as_secs_f64())
}

fn engine_killed_mid_insert(stage: &mut Stage, random: &mut Random) -> Outcome {
    let victim = stage.victims()[0];
    let hold = stage.gateways[victim].hold(Statement::Insert, Moment::Amid, random.random_range(0..4));
    let times = hold.wait(HELD_WITHIN).into();
    let began = Instant::now();
    stage.clickhouse.kill();
    hold.cut();
    stage.clickhouse.start_again();
    stage.recovered();
    Outcome { times, recovery_s: began.elapsed().as_secs_f64() }
}

fn response_lost(stage: &mut Stage, random: &mut Random) -> Outcome {
    let statement = [Statement::Insert, Statement::Commit, Statement::Intent][random.random_range(0..3)];
    let hold = stage.gateways[0].hold(statement, Moment::After, random.random_range(0..4));
    let times = hold.wait(HELD_WITHIN).into();
    hold.cut();
    Outcome { times, recovery_s: stage.recovered() }
}

/// Loaders of other groups own all partitions beside the regular ones.
fn two_owners(stage: &mut Stage, random: &mut Random) -> Outcome {
    let rivals: Vec<_> = (SLOTS - 3..SLOTS).collect();
    for slot in &rivals {
        stage.start_loader(*slot, &format!("rival-{}", random.random::<u32>()));
    }
    let mut times = 0;
    for slot in &rivals {
        let took_part = holds(HELD_WITHIN, || {
            let rival = stage.loaders[*slot].as_ref().expect("it runs");
            let done = |name: &str| metric(rival, name);
            done("doseline_load_batches_total") + done("doseline_load_overtaken_total") >= 3.0
        });
        times += u32::from(took_part);
    }
    stage.assert_all_run();
    for slot in rivals {
        moment(random);
        stage.kill_loader(slot);
    }
    Outcome { times, recovery_s: stage.recovered() }
}

/// The others take over; then the loader wakes with all its work in progress.
fn loader_stopped(stage: &mut Stage, random: &mut Random) -> Outcome {
    let victim = stage.victims()[0];
    if stage.setting.loaders == 1 {
        stage.start_further_loader(1);
    }
    let statement = [Statement::Insert, Statement::Commit, Statement::Intent][random.random_range(0..3)];
    let hold = stage.gateways[victim].hold(statement, Moment::Before, random.random_range(0..4));
    let times = hold.wait(HELD_WITHIN).into();
    stage.loaders[victim].as_mut().expect("it runs").signal(Signal::SIGSTOP);
    let began = Instant::now();
    stage.recovered();
    holds(stage.session_timeout() + Duration::from_secs(2), || {
        began.elapsed() > stage.session_timeout() + Duration::from_secs(1)
    });
    stage.loaders[victim].as_mut().expect("it runs").signal(Signal::SIGCONT);
    // Its insert arrives after all of that.
    hold.pass();
    Outcome { times, recovery_s: stage.recovered() }
}

/// Loaders start and end at random for 30 s; some are killed.
fn rebalance_storm(stage: &mut Stage, random: &mut Random) -> Outcome {
    let (began, from) = (Instant::now(), stage.setting.loaders);
    let last = from.max(4);
    while began.elapsed() < Duration::from_secs(30) {
        let slot = random.random_range(1..last);
        if stage.loaders[slot].is_none() {
            stage.start_further_loader(slot);
        } else if stage.setting.kept || slot > 0 {
            leave(stage, slot, random.random_bool(0.3));
        }
        sleep(Duration::from_millis(random.random_range(200..1_500)));
        stage.assert_all_run();
    }
    let times = began.elapsed().as_secs() as u32;
    settle(stage);
    Outcome { times, recovery_s: stage.recovered() }
}

/// From 1 to 4 to 1 loaders, each step complete.
fn scaled(stage: &mut Stage, random: &mut Random) -> Outcome {
    for slot in 1..4 {
        if stage.loaders[slot].is_none() {
            stage.start_further_loader(slot);
        }
    }
    stage.recovered();
    for slot in 1..4 {
        leave(stage, slot, false);
    }
    moment(random);
    let recovery_s = stage.recovered();
    stage.start_regular_loaders();
    stage.recovered();
    once(recovery_s)
}

fn leave(stage: &mut Stage, slot: usize, killed: bool) {
    let mut role = stage.loaders[slot].take().expect("it runs");
    if killed {
        role.doseline.kill();
    } else {
        let (status, _) = role.doseline.stop(STOPPED_WITHIN);
        let said = role.doseline.stderr();
        // On a busy machine a loader may be told to end before it can handle the signal.
        let unborn = status.signal() == Some(Signal::SIGTERM as i32) && said.is_empty();
        assert!(status.success() || unborn, "a loader ended with {status}:\n{said}");
    }
}

/// Returns to the regular loaders.
fn settle(stage: &mut Stage) {
    for slot in stage.setting.loaders..SLOTS {
        if stage.loaders[slot].is_some() {
            leave(stage, slot, false);
        }
    }
    stage.start_regular_loaders();
}

fn mqtt_cut(stage: &mut Stage, random: &mut Random) -> Outcome {
    moment(random);
    match random.random_range(0..3) {
        0 => stage.bridges_way.cut(),
        1 => stage.devices.cut(),
        _ => {
            stage.bridges_way.cut();
            stage.devices.cut();
        }
    }
    once(stage.recovered())
}

fn mqtt_slow(stage: &mut Stage, random: &mut Random) -> Outcome {
    let delay = Duration::from_millis(random.random_range(100..600));
    stage.bridges_way.delay(delay);
    stage.devices.delay(delay);
    sleep(Duration::from_secs(3));
    stage.bridges_way.delay(Duration::ZERO);
    stage.devices.delay(Duration::ZERO);
    once(stage.recovered())
}

/// Another client connects under the bridges' names with a clean start, which ends their
/// connections and sessions.
fn mqtt_session_lost(stage: &mut Stage, random: &mut Random) -> Outcome {
    moment(random);
    let bridge = bridge_id(random.random_range(0..BRIDGES));
    for suffix in ["0", "1", "receipts"] {
        usurp(stage.mosquitto.port(), &format!("{bridge}-{suffix}"));
    }
    once(stage.recovered())
}

/// CONNECT with a clean start and no session expiry, then DISCONNECT (MQTT 5).
fn usurp(port: u16, client: &str) {
    let length = u8::try_from(client.len()).expect("a short name");
    let mut connect = vec![0x10, 13 + length, 0, 4, b'M', b'Q', b'T', b'T', 5, 0x02, 0, 60, 0, 0, length];
    connect.extend(client.as_bytes());
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect to mosquitto");
    stream.write_all(&connect).expect("send CONNECT");
    let mut answer = [0; 4];
    std::io::Read::read_exact(&mut stream, &mut answer).expect("CONNACK");
    assert_eq!((answer[0], answer[3]), (0x20, 0), "connected");
    stream.write_all(&[0xe0, 0]).expect("send DISCONNECT");
}

fn broker_killed(stage: &mut Stage, random: &mut Random) -> Outcome {
    moment(random);
    let began = Instant::now();
    stage.mosquitto.kill();
    stage.mosquitto.start_again();
    stage.recovered();
    once(began.elapsed().as_secs_f64())
}

/// How often ClickHouse has answered a loader with an error.
fn errors(stage: &Stage) -> u64 {
    stage.gateways.iter().map(Gateway::errors).sum()
}

/// A user's view of a base table fails; the outcome of the insert is unknown each time.
fn view_fails(stage: &mut Stage, random: &mut Random) -> Outcome {
    let before = errors(stage);
    let table = ["injections", "accuracy_minute", "item_uses"][random.random_range(0..3)];
    stage.clickhouse.query(&format!(
        "CREATE MATERIALIZED VIEW oracle.failing ENGINE = Null AS SELECT throwIf(1, 'somebody''s view') AS x FROM doseline.{table}"
    ));
    let complained = holds(HELD_WITHIN, || errors(stage) > before);
    sleep(Duration::from_millis(random.random_range(0..1_500)));
    stage.clickhouse.query("DROP VIEW oracle.failing SYNC");
    Outcome { times: complained.into(), recovery_s: stage.recovered() }
}

fn disk_full(stage: &mut Stage, random: &mut Random) -> Outcome {
    let before = errors(stage);
    stage.clickhouse.disk().fill();
    let ends = poll(RECOVERED_WITHIN, "the ends of the topics", || stage.observer.ends());
    // Nothing can be written now; new records wait.
    let stuck = holds(Duration::from_secs(30), || errors(stage) > before + 2);
    sleep(Duration::from_millis(random.random_range(0..2_000)));
    stage.clickhouse.disk().empty();
    if stage.clickhouse.process().exit_status().is_some() || has_unreadable_part(stage) {
        stage.clickhouse.kill();
        stage.clickhouse.start_again();
    }
    let recovery_s = stage.recovered();
    assert!(stage.written(&ends).is_ok());
    Outcome { times: stuck.into(), recovery_s }
}

/// Whether ClickHouse has made a part that it cannot read, as a merge does while the disk fills.
/// Readers get an error, which the loaders report. A restart mends it: the parts before the merge
/// count again.
fn has_unreadable_part(stage: &Stage) -> bool {
    let sql = "SELECT DISTINCT table FROM system.parts WHERE database IN ('doseline', 'oracle') AND active AND \
               modification_time > now() - 120";
    let tables = stage.clickhouse.query(sql);
    let unreadable = tables.lines().find_map(|table| {
        let database = if table == "truth" { "oracle" } else { "doseline" };
        let sql = format!(
            "SELECT sum(cityHash64(*)) FROM {database}.{table} WHERE _part IN (SELECT name FROM system.parts WHERE \
             database = '{database}' AND table = '{table}' AND active AND modification_time > now() - 120)"
        );
        stage.clickhouse.try_query(&sql).err()
    });
    if let Some(refused) = &unreadable {
        eprintln!("campaign:            the engine made a part that it cannot read and is restarted: {refused}");
    }
    unreadable.is_some()
}

fn backlog_repeated(stage: &mut Stage, random: &mut Random) -> Outcome {
    let reports = poll(RECOVERED_WITHIN, "a device with a backlog", || {
        stage.read_truth();
        let reports = stage.oracle.recent.repeated(random);
        if reports.is_empty() { Err("none has made anything yet") } else { Ok(reports) }
    });
    let port = stage.mosquitto.port().to_string();
    let mut publisher = Command::new("mosquitto_pub")
        .args(["-V", "5", "-q", "1", "-p", &port, "-l", "-t", &reports[0].topic])
        .stdin(Stdio::piped())
        .spawn()
        .expect("start mosquitto_pub");
    let mut lines = publisher.stdin.take().expect("a pipe");
    for report in &reports {
        writeln!(lines, "{}", report.payload).expect("publish");
    }
    drop(lines);
    assert!(publisher.wait().expect("wait for mosquitto_pub").success());
    once(stage.recovered())
}

/// Long enough to show growth of memory.
fn engine_away(stage: &mut Stage, _: &mut Random) -> Outcome {
    stage.clickhouse.kill();
    let unready = holds(Duration::from_secs(120), || {
        stage.loaders.iter().flatten().all(|role| role.get("/readyz").is_ok_and(|(ready, _)| !ready))
    });
    assert!(unready, "loaders without ClickHouse say that they are not ready");
    sleep(Duration::from_secs(300));
    stage.assert_all_run();
    let began = Instant::now();
    stage.clickhouse.start_again();
    assert!(stage.recovered() < RECOVERED_WITHIN.as_secs_f64());
    once(began.elapsed().as_secs_f64())
}
