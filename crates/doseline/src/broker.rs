//! The MQTT broker of `doseline up`: Mosquitto, with the bridge's session on it before anybody else can connect.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use anyhow::Context as _;
use embedded::mosquitto::{self, Handle, Limits, Options, Program};
use tokio_util::sync::CancellationToken;

/// Folder of the broker in the data directory.
const FOLDER: &str = "mosquitto";
/// File in it that says for which bridge the sessions were made.
const SESSION: &str = "bridge-session";
/// How long the broker keeps the bridge's session while nothing runs. Mosquitto counts the time over a restart.
pub const SESSION_KEPT: Duration = Duration::from_secs(90 * 86_400);

/// Waits until the broker of an earlier `up` has ended, which was killed perhaps a moment ago.
///
/// # Errors
/// The broker's folder cannot be used.
pub async fn wait_for_predecessor(data_dir: &Path) -> anyhow::Result<()> {
    Ok(mosquitto::wait_for_predecessor(&data_dir.join(FOLDER)).await?)
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
        connections_max: 10_000,
    };
    let dir = data_dir.join(FOLDER);
    let options = Options { dir: dir.clone(), listen, program, limits };
    let known = dir.join(SESSION);
    let expected = session(bridge);
    // Without its database the broker knows nobody, whatever the file says.
    let is_known =
        dir.join("mosquitto.db").is_file() && fs::read_to_string(&known).is_ok_and(|found| found == expected);
    if !is_known {
        introduce(&options, bridge).await.context("make the bridge's session on the MQTT broker")?;
        fs::write(&known, expected).with_context(|| format!("write {}", known.display()))?;
    }
    mosquitto::start(options, shutdown).await.context("start the MQTT broker (--mqtt-port)")
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
    broker.join().await.context("end the MQTT broker")?;
    established
}

/// What the bridge's sessions depend on.
fn session(bridge: &bridge::Options) -> String {
    let mqtt = &bridge.mqtt;
    let group = mqtt.share_group.as_deref().unwrap_or_default();
    format!("client_id {}\nconnections {}\nshare_group {group}\n", mqtt.client_id, mqtt.connections)
}
