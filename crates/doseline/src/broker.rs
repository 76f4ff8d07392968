//! The MQTT broker of `doseline up`: Mosquitto, with the bridge's session on it before anybody else can connect. Under a share
//! group Mosquitto 2.0 forgets the subscription at each start; then this holds only from the bridge's first connection on.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use embedded::mosquitto::{self, Handle, Limits, Options, Program};
use tokio_util::sync::CancellationToken;

/// Folder of the broker in the data directory.
const FOLDER: &str = "mosquitto";
/// The broker's own file of sessions in it.
const DATABASE: &str = "mosquitto.db";
/// File in it that says for which bridge the sessions were made.
const SESSION: &str = "bridge-session";
/// Most connections to the broker.
const CONNECTIONS_MAX: u32 = 10_000;
/// How long the broker keeps the bridge's session while nothing runs: as long as it keeps any.
pub const SESSION_KEPT: Duration = Duration::from_secs(mosquitto::SESSION_DAYS as u64 * 86_400);

/// Waits until the broker of an earlier `up` has ended, which was killed perhaps a moment ago.
///
/// # Errors
/// The broker's folder cannot be used.
pub async fn wait_for_predecessor(data_dir: &Path) -> anyhow::Result<()> {
    Ok(mosquitto::wait_for_predecessor(&data_dir.join(FOLDER)).await?)
}

/// Connections of a broker that may have so many files open: an eighth of them is for files of its own.
fn broker_connections(files: u64) -> u32 {
    u32::try_from(files - files / 8).unwrap_or(u32::MAX).min(CONNECTIONS_MAX)
}

/// Starts the broker, knowing the bridge.
///
/// A message that nobody has subscribed to is acknowledged and dropped. So where the broker does not know the bridge yet, it
/// is started for the bridge alone first, on a port of its own, and saves the session.
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
    let limits = Limits {
        packet_bytes_max: bridge::BROKER_PACKET_BYTES_MAX,
        inflight_max: bridge.mqtt.receive_maximum,
        queue_messages_max: 100_000,
        queue_bytes_max: 256 << 20,
        connections_max: broker_connections(service::files::limit()),
    };
    let dir = data_dir.join(FOLDER);
    let options = Options { dir: dir.clone(), listen, program, limits };
    let known = dir.join(SESSION);
    let expected = session(bridge);
    let found = fs::read_to_string(&known).unwrap_or_default();
    if !found.is_empty() && found != expected {
        tracing::warn!(
            before = found.trim().replace('\n', ", "),
            now = expected.trim().replace('\n', ", "),
            "the bridge has other sessions on the mqtt broker than before; what waits in the old ones is not read"
        );
    }
    if bridge.mqtt.share_group.is_some() {
        tracing::warn!(
            "bridge.share_group: mosquitto 2.0 forgets shared subscriptions over a restart; without one nothing is lost"
        );
    }
    if found != expected || !is_kept(&dir.join(DATABASE)) {
        introduce(&options, bridge).await.context("make the bridge's session on the MQTT broker")?;
        fs::write(&known, expected).with_context(|| format!("write {}", known.display()))?;
    }
    mosquitto::start(options, shutdown).await.context("start the MQTT broker (--mqtt-port)")
}

/// Whether the broker's database is there, holds something, and its sessions have not expired. Without it the broker knows nobody. A file from
/// after now was written before the clock was set back.
fn is_kept(database: &Path) -> bool {
    let Ok(file) = fs::metadata(database) else { return false };
    file.len() > 0 && file.modified().is_ok_and(|at| at.elapsed().map_or(true, |age| age < SESSION_KEPT))
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

/// What the bridge's sessions depend on.
fn session(bridge: &bridge::Options) -> String {
    let mqtt = &bridge.mqtt;
    let group = mqtt.share_group.as_deref().unwrap_or_default();
    format!("client_id {}\nconnections {}\nshare_group {group}\n", mqtt.client_id, mqtt.connections)
}
