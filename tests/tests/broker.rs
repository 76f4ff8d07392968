//! The MQTT broker of `doseline up`: what it has acknowledged arrives, whichever process is stopped
//! or killed.

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use harness::{Doseline, Mosquitto, RawMqtt, Ready, Scratch, free_port, poll};

const READY_WITHIN: Duration = Duration::from_secs(120);
const WITHIN: Duration = Duration::from_secs(120);

fn up(data_dir: &Path, mqtt_port: u16) -> Doseline {
    let (data_dir, mqtt_port) = (data_dir.to_str().expect("UTF-8 path"), mqtt_port.to_string());
    let ports = ["--kafka-port", "0", "--clickhouse-port", "0", "--http-port", "0"];
    let named = ["up", "--data-dir", data_dir, "--mqtt-port", &mqtt_port];
    Doseline::start(&named.into_iter().chain(ports).collect::<Vec<_>>())
}

/// Publishes one injection as a person would. Returns whether the broker acknowledged it.
fn publish(mqtt_port: u16, seq: u64) -> bool {
    let report = format!(
        r#"{{"bootId":"1","firstSeq":"{seq}","events":[{{"injection":{{"outcome":"OUTCOME_OK","deliveredNl":"20000"}}}}]}}"#
    );
    let mut command = Command::new("mosquitto_pub");
    command.args(["-p", &mqtt_port.to_string(), "-t", "doseline/v1/acme/berlin-1/D-1/report/json", "-q", "1"]);
    command.args(["-m", &report]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().expect("start mosquitto_pub").success()
}

fn wait_for_all(ready: &Ready, published: u64) {
    let sql = "SELECT count(), uniqExact(seq), max(seq) FROM doseline.injections";
    let expected = format!("{published}\t{published}\t{published}");
    poll(WITHIN, "every acknowledged injection once", || match ready.query(sql).trim() {
        found if found == expected => Ok(()),
        found => Err(format!("{found}, not {expected}")),
    });
}

/// The process id of the broker.
fn broker(data_dir: &Path) -> String {
    std::fs::read_to_string(data_dir.join("mosquitto/mosquitto.lock")).expect("read the lock").trim().to_owned()
}

/// Ends the publisher at the end of the test, also when the test fails.
struct EndOfTest(Arc<AtomicBool>);

impl Drop for EndOfTest {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn runs(pid: &str) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    state.is_ok_and(|state| !state.contains(") Z "))
}

/// The publisher waits for no receipt. It starts before the first start of `up`, so that it
/// connects as soon as the port opens, and it continues through every stop.
#[test]
fn a_planned_stop_loses_nothing_that_was_acknowledged() {
    const PUBLISHES: u64 = 1_000;
    const RESTARTS: u64 = 5;
    let scratch = Scratch::new("broker-stop");
    let port = free_port();
    let published = Arc::new(AtomicU64::new(0));
    let gone = Arc::new(AtomicBool::new(false));
    let (count, ended) = (Arc::clone(&published), Arc::clone(&gone));
    let _end = EndOfTest(gone);
    let publisher = thread::spawn(move || {
        for seq in 1..=PUBLISHES {
            while !publish(port, seq) {
                thread::sleep(Duration::from_millis(20));
                if ended.load(Ordering::Relaxed) {
                    return;
                }
            }
            count.store(seq, Ordering::Relaxed);
        }
    });
    for restart in 1..=RESTARTS {
        let mut doseline = up(scratch.path(), port);
        doseline.wait_until_ready(READY_WITHIN);
        let wanted = PUBLISHES * restart / (RESTARTS + 1);
        poll(WITHIN, "publishes", || match published.load(Ordering::Relaxed) {
            count if count >= wanted => Ok(()),
            count => Err(format!("{count} of {wanted}")),
        });
        assert!(doseline.stop(Duration::from_secs(20)).0.success());
        let pid = broker(scratch.path());
        poll(Duration::from_secs(60), "the broker to end", || if runs(&pid) { Err("it runs") } else { Ok(()) });
    }
    let mut doseline = up(scratch.path(), port);
    let ready = doseline.wait_until_ready(READY_WITHIN);
    poll(WITHIN, "the last publish", || match published.load(Ordering::Relaxed) {
        PUBLISHES => Ok(()),
        count => Err(count),
    });
    publisher.join().expect("the publisher ends");
    wait_for_all(&ready, PUBLISHES);
    doseline.kill();
}

/// SIGKILL leaves `up` no time to end its broker. The kernel ends the broker, and what the broker
/// had acknowledged is on disk.
#[test]
fn the_broker_of_a_killed_up_ends_and_keeps_what_it_acknowledged() {
    let scratch = Scratch::new("broker-kill");
    let port = free_port();
    let mut seq = 0;
    for _ in 0..3 {
        let mut doseline = up(scratch.path(), port);
        doseline.wait_until_ready(READY_WITHIN);
        for _ in 0..20 {
            seq += 1;
            assert!(publish(port, seq), "acknowledged");
        }
        let pid = broker(scratch.path());
        assert!(runs(&pid));
        doseline.kill();
        poll(Duration::from_secs(60), "the broker to end", || if runs(&pid) { Err("it runs") } else { Ok(()) });
    }
    let mut doseline = up(scratch.path(), port);
    let ready = doseline.wait_until_ready(READY_WITHIN);
    wait_for_all(&ready, seq);
    doseline.kill();
}

#[test]
fn a_broker_that_dies_ends_nothing_and_comes_back() {
    let scratch = Scratch::new("broker-dies");
    let port = free_port();
    let mut doseline = up(scratch.path(), port);
    let ready = doseline.wait_until_ready(READY_WITHIN);
    assert!(publish(port, 1));
    wait_for_all(&ready, 1);
    let pid = broker(scratch.path());
    assert!(Command::new("kill").args(["-KILL", &pid]).status().expect("start kill").success());
    doseline.wait_for_line("mqtt broker serves again", WITHIN);
    doseline.wait_for_line("mqtt broker died", WITHIN);
    poll(WITHIN, "the broker to take a message", || if publish(port, 2) { Ok(()) } else { Err("refused") });
    wait_for_all(&ready, 2);
    assert!(doseline.stop(Duration::from_secs(20)).0.success());
}

#[test]
fn a_missing_broker_is_an_error_that_names_the_package() {
    let scratch = Scratch::new("broker-missing");
    let data_dir = scratch.path().to_str().expect("UTF-8 path");
    let arguments = ["up", "--data-dir", data_dir, "--mosquitto", "/nowhere/mosquitto"];
    let ended = Doseline::run(&arguments, &[], Duration::from_secs(30));
    assert_eq!(ended.code, Some(1));
    let said = ended.stderr;
    assert!(said.contains("/nowhere/mosquitto") && said.contains("apt install mosquitto"), "{said}");
}

/// The broker asks for no password: a client that knows another's client id may take over its
/// session. The bridge's id cannot be known, and stays the same across a restart.
#[test]
fn nobody_takes_over_the_session_of_the_bridge() {
    let scratch = Scratch::new("broker-taken");
    let port = free_port();
    let secret = scratch.path().join("mosquitto/bridge-client-id");
    let (mut seq, mut known) = (0, String::new());
    for _ in 0..2 {
        let mut doseline = up(scratch.path(), port);
        let ready = doseline.wait_until_ready(READY_WITHIN);
        let now = std::fs::read_to_string(&secret).expect("read the secret");
        assert!(now.trim().len() == 32 && (known.is_empty() || known == now), "{now:?} after {known:?}");
        known = now;
        let mode = std::os::unix::fs::PermissionsExt::mode(&secret.metadata().expect("look at it").permissions());
        assert_eq!(mode & 0o777, 0o600);
        // Each of these clients has a session of its own that swallows the messages it gets.
        let ids = ["doseline-bridge-1-0", "doseline-bridge-1", "doseline-bridge-0", "doseline-bridge-1-receipts"];
        let address = format!("127.0.0.1:{port}");
        let thieves = ids.map(|id| RawMqtt::connect(&address, id, 5).expect("the broker takes anybody"));
        for _ in 0..20 {
            seq += 1;
            assert!(publish(port, seq), "acknowledged");
        }
        wait_for_all(&ready, seq);
        drop(thieves);
        assert!(doseline.stop(Duration::from_secs(20)).0.success());
    }
}

/// The error names the file, its contents and the remedy. Once the file is moved aside, the start
/// succeeds.
#[test]
fn a_damaged_file_of_the_broker_is_named_with_its_remedy() {
    let scratch = Scratch::new("broker-damaged");
    let port = free_port();
    let mut doseline = up(scratch.path(), port);
    doseline.wait_until_ready(READY_WITHIN);
    assert!(doseline.stop(Duration::from_secs(20)).0.success());
    let pid = broker(scratch.path());
    poll(Duration::from_secs(60), "the broker to end", || if runs(&pid) { Err("it runs") } else { Ok(()) });
    let database = scratch.path().join("mosquitto/mosquitto.db");
    for content in ["", "no file of a broker"] {
        std::fs::write(&database, content).expect("damage the file");
        let data_dir = scratch.path().to_str().expect("UTF-8 path");
        let zero = ["--mqtt-port", "0", "--kafka-port", "0", "--clickhouse-port", "0", "--http-port", "0"];
        let arguments: Vec<&str> = ["up", "--data-dir", data_dir].into_iter().chain(zero).collect();
        let ended = Doseline::run(&arguments, &[], READY_WITHIN);
        assert_eq!(ended.code, Some(1));
        for part in [database.to_str().expect("UTF-8 path"), "acknowledged", "move it aside"] {
            assert!(ended.stderr.contains(part), "{part:?} is not in\n{}", ended.stderr);
        }
    }
    std::fs::rename(&database, database.with_extension("damaged")).expect("move it aside");
    let mut doseline = up(scratch.path(), port);
    let ready = doseline.wait_until_ready(READY_WITHIN);
    assert!(publish(port, 1));
    wait_for_all(&ready, 1);
    doseline.kill();
}

/// A Mosquitto of a site, bridged with its default options. It clears a retained status. The empty
/// message has no meaning and is no fault.
#[test]
fn a_mosquitto_as_bridge_is_taken_and_a_cleared_status_is_not_quarantined() {
    let scratch = Scratch::new("broker-bridged");
    let port = free_port();
    let mut doseline = up(scratch.path(), port);
    let ready = doseline.wait_until_ready(READY_WITHIN);
    let address = format!("address 127.0.0.1:{port}");
    let site = Mosquitto::start_with(&["connection central", &address, "topic doseline/v1/# out 1"]);
    let mut device = RawMqtt::connect(&site.address(), "D-1", 4).expect("connect to the site's broker");
    let status = b"doseline/v1/acme/berlin-1/D-1/status";
    assert!(device.publish(status, br#"{"state":"STATE_ONLINE"}"#, true));
    assert!(device.publish(status, b"", true));
    assert!(publish(site.port(), 1));
    wait_for_all(&ready, 1);
    let states = "SELECT count() FROM doseline.device_status";
    // The site's broker may send it again, as MQTT allows.
    poll(WITHIN, "the status", || match ready.query(states).trim() {
        "0" => Err("none"),
        _ => Ok(()),
    });
    assert_eq!(ready.query("SELECT count() FROM doseline.quarantine").trim(), "0");
    assert!(doseline.stop(Duration::from_secs(20)).0.success());
}
