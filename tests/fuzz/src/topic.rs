//! Topics of MQTT messages.

use telemetry::topic::{RECEIPT_TOPIC_LEN_MAX, Topic, is_id};

/// An accepted topic formats back to the same text, and its receipt goes to the same device.
pub fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(topic) = Topic::parse(text) else { return };
    assert_eq!(topic.to_string(), text);
    let Topic { tenant, site, device, .. } = topic;
    assert!([tenant, site, device].into_iter().all(is_id), "{text:?}");
    if let Some(receipt) = topic.receipt().map(|receipt| receipt.to_string()) {
        assert!(receipt.len() <= RECEIPT_TOPIC_LEN_MAX, "{receipt:?}");
        assert!(receipt.starts_with(&format!("doseline/v1/{tenant}/{site}/{device}/receipt")), "{receipt:?}");
    }
}
