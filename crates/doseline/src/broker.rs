//! The MQTT broker of `doseline up`: Mosquitto. It has the bridge's session before any device can
//! connect, so no message is lost before the bridge subscribes. Under a share group, Mosquitto 2.0
//! forgets the subscription at each start, and this holds only from the bridge's first connection
//! on.

use std::{fs, io::Write as _, net::SocketAddr, os::unix::fs::OpenOptionsExt as _, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use embedded::mosquitto::{self, BrokerLimits, Handle, Options, Program};
use tokio_util::sync::CancellationToken;

/// Folder of the broker in the data directory.
const FOLDER: &str = "mosquitto";
/// File in that folder that describes the bridge of the sessions.
const SESSION: &str = "bridge-session";
/// File in that folder with the secret part of the bridge's client id.
const CLIENT_ID: &str = "bridge-client-id";
/// Largest number of connections to the broker.
const CONNECTIONS_MAX: u32 = 10_000;
/// How long the broker keeps the bridge's session while nothing runs: as long as any session.
pub const SESSION_KEPT: Duration = Duration::from_secs(mosquitto::SESSION_DAYS as u64 * 86_400);

/// Waits until the broker of an earlier `up` has ended; that `up` may just have been killed.
///
/// # Errors
/// The broker's folder cannot be used.
pub async fn wait_for_predecessor(data_dir: &Path) -> anyhow::Result<()> {
    Ok(mosquitto::wait_for_predecessor(&data_dir.join(FOLDER)).await?)
}

/// The bridge's client id on the broker of this data directory. The broker asks for no password,
/// and a client that connects with the id of another client takes over its session and the messages
/// that wait in it. A part of the id is therefore a secret of the data directory.
///
/// # Errors
/// The broker's folder cannot be used.
pub fn client_id(data_dir: &Path, configured: &str) -> anyhow::Result<String> {
    let dir = data_dir.join(FOLDER);
    let path = dir.join(CLIENT_ID);
    let known = fs::read_to_string(&path).unwrap_or_default();
    if !known.trim().is_empty() {
        return Ok(format!("{configured}-{}", known.trim()));
    }
    let secret = format!("{:032x}", rand::random::<u128>());
    let write = || {
        fs::create_dir_all(&dir)?;
        let mut file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        writeln!(file, "{secret}")?;
        file.sync_all()
    };
    write().with_context(|| format!("write {}", path.display()))?;
    Ok(format!("{configured}-{secret}"))
}

/// Connections of a broker that may have this many files open. An eighth of the files is for the
/// broker itself.
fn broker_connections(files: u64) -> u32 {
    u32::try_from(files - files / 8).unwrap_or(u32::MAX).min(CONNECTIONS_MAX)
}

/// Starts the broker, with the bridge's session on it.
///
/// A broker acknowledges and drops a message without a subscriber. If the broker does not know the
/// bridge yet, it is therefore started twice: first on a port of its own, where only the bridge
/// connects and the broker saves the session, then for the devices.
///
/// # Errors
/// The broker does not start, or refuses the bridge.
pub async fn start(
    data_dir: &Path,
    listen: SocketAddr,
    program: Program,
    bridge: &bridge::Options,
    shutdown: CancellationToken,
) -> anyhow::Result<Handle> {
    let limits = BrokerLimits {
        packet_bytes_max: bridge::BROKER_PACKET_BYTES_MAX,
        inflight_max: bridge.mqtt.receive_maximum,
        queue_messages_max: 100_000,
        queue_bytes_max: 256 << 20,
        connections_max: broker_connections(service::files::limit()),
    };
    let dir = data_dir.join(FOLDER);
    let options = Options { dir: dir.clone(), listen, program, limits };
    let known = dir.join(SESSION);
    let expected = mqtt_session(bridge);
    let found = fs::read_to_string(&known).unwrap_or_default();
    if !found.is_empty() && found != expected {
        tracing::warn!(
            "the bridge has other sessions on the mqtt broker than before (bridge.client_id, bridge.connections or \
             bridge.share_group); what waits in the old ones is not read"
        );
    }
    if bridge.mqtt.share_group.is_some() {
        tracing::warn!(
            "bridge.share_group: mosquitto 2.0 forgets shared subscriptions over a restart; without one nothing is lost"
        );
    }
    if found != expected || !is_kept(&dir.join(mosquitto::DATABASE)) {
        introduce(&options, bridge).await.context("make the bridge's session on the MQTT broker")?;
        fs::write(&known, expected).with_context(|| format!("write {}", known.display()))?;
    }
    mosquitto::start(options, shutdown).await.context("start the MQTT broker (--mqtt-port)")
}

/// Whether the broker's database exists and its sessions have not expired. A file with a later time
/// than now was written before the clock was set back.
fn is_kept(database: &Path) -> bool {
    let Ok(file) = fs::metadata(database) else { return false };
    file.modified().is_ok_and(|at| at.elapsed().map_or(true, |age| age < SESSION_KEPT))
}

async fn introduce(options: &Options, bridge: &bridge::Options) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let alone = Options { listen: SocketAddr::from(([127, 0, 0, 1], 0)), ..options.clone() };
    let broker = mosquitto::start(alone, stop.clone()).await?;
    let mut bridge = bridge.clone();
    bridge.mqtt.host = broker.address().ip().to_string();
    bridge.mqtt.port = broker.address().port();
    let established = bridge::establish(&bridge).await.map_err(anyhow::Error::msg);
    stop.cancel();
    established?;
    if !broker.join().await.context("end the MQTT broker")? {
        bail!("the broker did not end in time, so the session may not be saved; start again");
    }
    Ok(())
}

/// The options that the bridge's sessions depend on, as text.
fn mqtt_session(bridge: &bridge::Options) -> String {
    let mqtt = &bridge.mqtt;
    let group = mqtt.share_group.as_deref().unwrap_or_default();
    format!("client_id {}\nconnections {}\nshare_group {group}\n", mqtt.client_id, mqtt.connections)
}
