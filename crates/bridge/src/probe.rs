//! One attempt to connect, for `doseline check --connect`.

use async_recursion::async_recursion as boxed;
use std::time::Duration;

use crate::{
    mqtt_link::{Link, Purpose},
    options::Options,
};

const LEAVE_WITHIN: Duration = Duration::from_millis(200);

/// Connects to the broker once, as the bridge would with a client id of its own, and disconnects.
///
/// # Errors
/// Why it did not work, in one line for a person.
#[boxed]
pub async fn probe(options: &Options) -> Result<(), String> {
    options.validate().map_err(|error| error.to_string())?;
    let mut mqtt = options.mqtt.clone();
    // The probe must not take over a session of the bridge.
    mqtt.client_id.push_str("-probe");
    let (link, _) = Link::open(&mqtt, &Purpose::Receipts).await?;
    // The probe has its answer, whether the DISCONNECT arrives or not.
    let _ = tokio::time::timeout(LEAVE_WITHIN, link.close()).await;
    Ok(())
}
