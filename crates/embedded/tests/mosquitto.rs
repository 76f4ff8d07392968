//! Mosquitto as a child process: a real one, and programs that behave like a broken one.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::{
    fs,
    io::Write as _,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use embedded::mosquitto::{self, BrokerLimits, Error, Handle, Options, Program};
use rumqttc::v5::{
    AsyncClient, Event, EventLoop, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{ConnectProperties, Packet},
    },
};
use tokio_util::sync::CancellationToken;

const WITHIN: Duration = Duration::from_secs(30);

fn options(dir: &Path) -> Options {
    Options {
        dir: dir.join("mosquitto"),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        program: mosquitto::find(None).expect("mosquitto is installed"),
        limits: BrokerLimits {
            packet_bytes_max: 2 << 20,
            inflight_max: 100,
            queue_messages_max: 10_000,
            queue_bytes_max: 64 << 20,
            connections_max: 100,
        },
    }
}

/// A program that answers `-h` like Mosquitto, and otherwise runs a script.
fn playing(dir: &Path, script: &str) -> Options {
    let path = dir.join("player");
    let text = format!("#!/bin/sh\nif [ \"$1\" = -h ]; then echo mosquitto version 2.0.11; exit 3; fi\n{script}\n");
    // A child process writes the file. A file that this process has open for writing cannot be
    // executed, and a fork by another test may have inherited the open file.
    let write = format!("cat >'{0}' && chmod 755 '{0}'", path.display());
    let mut writer = Command::new("sh").args(["-c", &write]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
    Options { program: mosquitto::find(Some(&path)).unwrap(), ..options(dir) }
}

struct Broker {
    handle: Handle,
    shutdown: CancellationToken,
}

impl Broker {
    async fn start(options: Options) -> Result<Self, Error> {
        let shutdown = CancellationToken::new();
        Ok(Self { handle: mosquitto::start(options, shutdown.clone()).await?, shutdown })
    }

    async fn stop(self) {
        self.shutdown.cancel();
        assert!(self.handle.join().await.unwrap(), "its sessions are saved");
    }

    fn client(&self, id: &str) -> (AsyncClient, EventLoop) {
        let address = self.handle.address();
        let mut options = MqttOptions::new(id, address.ip().to_string(), address.port());
        let properties = ConnectProperties { session_expiry_interval: Some(3_600), ..ConnectProperties::new() };
        options.set_clean_start(false).set_connect_properties(properties);
        AsyncClient::new(options, 1_000)
    }
}

/// Polls the connection until `wanted` packets of a kind have arrived.
async fn receive(events: &mut EventLoop, wanted: usize, kind: impl Fn(&Packet) -> bool) -> Vec<Packet> {
    let mut packets = Vec::new();
    let receiving = async {
        while packets.len() < wanted {
            if let Event::Incoming(packet) = events.poll().await.unwrap()
                && kind(&packet)
            {
                packets.push(packet);
            }
        }
    };
    tokio::time::timeout(WITHIN, receiving).await.expect("in time");
    packets
}

async fn subscribe(broker: &Broker, id: &str, filter: &str) -> (AsyncClient, EventLoop) {
    let (client, mut events) = broker.client(id);
    client.subscribe(filter, QoS::AtLeastOnce).await.unwrap();
    receive(&mut events, 1, |packet| matches!(packet, Packet::SubAck(_))).await;
    (client, events)
}

async fn wait_until(what: &str, reached: impl Fn() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !reached() {
        assert!(Instant::now() < deadline, "{what}: not within {WITHIN:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_waits_for_a_session_outlives_a_planned_stop() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(options(dir.path())).await.unwrap();
    drop(subscribe(&broker, "reader", "r/#").await);
    let (device, mut events) = broker.client("device");
    let publishing = async {
        for n in 0..300u32 {
            device.publish("r/1", QoS::AtLeastOnce, false, n.to_string()).await.unwrap();
        }
    };
    let acknowledged = receive(&mut events, 300, |packet| matches!(packet, Packet::PubAck(_)));
    tokio::join!(publishing, acknowledged);
    broker.stop().await;

    let broker = Broker::start(options(dir.path())).await.unwrap();
    let (_reader, mut events) = broker.client("reader");
    let received = receive(&mut events, 300, |packet| matches!(packet, Packet::Publish(_))).await;
    let numbers = received.iter().map(|packet| match packet {
        Packet::Publish(publish) => String::from_utf8_lossy(&publish.payload).parse::<u32>().unwrap(),
        _ => unreachable!("only these were collected"),
    });
    assert_eq!(numbers.collect::<std::collections::BTreeSet<_>>(), (0..300).collect());
    broker.stop().await;
    let mode = fs::metadata(dir.path().join("mosquitto")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn a_broker_that_dies_is_started_again_on_its_port() {
    let dir = tempfile::tempdir().unwrap();
    let broker = Broker::start(options(dir.path())).await.unwrap();
    let status = broker.handle.status();
    wait_until("it runs", || status.pid() != 0).await;
    let pid = status.pid().to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    wait_until("it was started again", || status.restarts() == 1 && status.pid() != 0).await;
    drop(subscribe(&broker, "reader", "r/#").await);
    broker.stop().await;
}

#[tokio::test]
async fn a_broker_that_ends_at_once_is_shown_with_its_last_lines() {
    let dir = tempfile::tempdir().unwrap();
    let options = playing(dir.path(), "echo Error: it is Monday >&2; exit 7");
    // The broker fails on every port that is tried.
    let error = Broker::start(options).await.err().expect("it does not start").to_string();
    assert!(error.contains("exit code 7") && error.contains("Error: it is Monday"), "{error}");
}

#[tokio::test]
async fn a_port_in_use_is_named_before_anything_is_started() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let options = Options { listen: address, ..playing(dir.path(), "touch started; sleep 60") };
    let error = Broker::start(options).await.err().expect("the port is taken");
    assert!(matches!(error, Error::Listen { address: named, .. } if named == address), "{error}");
    assert!(!dir.path().join("mosquitto/started").exists());
}

#[test]
fn a_program_is_found_by_itself() {
    let Program { path, version } = mosquitto::find(None).expect("mosquitto is installed");
    assert!(path.is_absolute() && version.starts_with(|first: char| first.is_ascii_digit()), "{path:?} {version}");
}
