//! One attempt to connect, for a person who sets things up.

use std::time::Duration;

use rumqttc::v5::{Event, mqttbytes::v5::Packet};

use crate::{
    broker::{self, Purpose},
    options::Options,
};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Connects to the broker once, as the bridge would with a client id of its own, and disconnects.
///
/// # Errors
/// Why it did not work, in one line for a person.
pub async fn probe(options: &Options) -> Result<(), String> {
    options.validate().map_err(|error| error.to_string())?;
    let mut mqtt = options.mqtt.clone();
    // A session of the bridge's own must not be taken over.
    mqtt.client_id.push_str("-probe");
    let (client, mut events) = broker::client(&mqtt, &Purpose::Receipts { window: 1 })?;
    let connected = async {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(broker::reason(&error)),
            }
        }
    };
    let outcome = tokio::time::timeout(ANSWER_WITHIN, connected).await;
    if matches!(outcome, Ok(Ok(()))) && client.try_disconnect().is_ok() {
        // Sends the DISCONNECT; whatever comes of it, the probe has its answer.
        let _ = tokio::time::timeout(Duration::from_millis(200), events.poll()).await;
    }
    outcome.unwrap_or_else(|_| Err("the broker does not answer".to_owned()))
}
