//! Sessions of the bridge on a broker that does not know the bridge yet.

use async_recursion::async_recursion as boxed;
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::Packet;
use tokio::time::timeout;

use crate::{
    mqtt_link::{Link, Purpose},
    options::Options,
    subscription,
};

const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Makes the sessions of a bridge with these options, with their subscriptions, and disconnects.
/// From then on the broker keeps published messages for the bridge, whether the bridge is connected
/// or not.
///
/// No bridge with these options may be connected: it would lose its sessions to this one.
///
/// # Errors
/// Why it did not work, in one line for a person.
#[boxed]
pub async fn establish(options: &Options) -> Result<(), String> {
    options.validate().map_err(|error| error.to_string())?;
    let share_group = options.mqtt.share_group.as_deref();
    for index in 0..options.mqtt.connections {
        let (mut link, _) = Link::open(&options.mqtt, &Purpose::Receive { index }).await?;
        subscription::subscribe(&mut link, share_group)?;
        let answer = timeout(ANSWER_WITHIN, async {
            loop {
                // Messages that wait already are not acknowledged, so the broker delivers them
                // again.
                if let Packet::SubAck(suback) = link.next().await? {
                    return subscription::granted(&mut link, &suback, share_group);
                }
            }
        });
        answer.await.map_err(|_| "the broker does not answer to a subscription".to_owned())??;
        link.close().await;
    }
    Ok(())
}
