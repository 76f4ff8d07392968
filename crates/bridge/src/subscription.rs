//! The subscriptions of a receiving connection.

use rumqttc::v5::mqttbytes::{
    QoS,
    v5::{Filter, Packet, RetainForwardRule, SubAck, Subscribe, SubscribeReasonCode, Unsubscribe},
};
use telemetry::topic::SUBSCRIPTIONS;

use crate::mqtt_link::Link;

/// Subscribes, also if the broker has kept the session: Mosquitto 2.0 keeps a session over a
/// restart but forgets its shared subscriptions, and another version of the bridge may have
/// subscribed to other filters.
pub(crate) fn subscribe(link: &mut Link, share_group: Option<&str>) -> Result<(), String> {
    let filters = SUBSCRIPTIONS.map(|filter| Filter {
        // A retained status is the last status of a device, which the bridge received when it was
        // published. Received again, it would look like a new one.
        retain_forward_rule: RetainForwardRule::Never,
        ..Filter::new(path(filter, share_group), QoS::AtLeastOnce)
    });
    let mut subscribe = Subscribe::new_many(filters, None);
    // A receiving connection sends no other packet with a packet id of its own.
    subscribe.pkid = 1;
    link.send(Packet::Subscribe(subscribe))
}

fn path(filter: &str, share_group: Option<&str>) -> String {
    share_group.map_or_else(|| filter.to_owned(), |group| format!("$share/{group}/{filter}"))
}

/// Checks that the broker granted everything, with QoS 1. Under a share group, it then ends the
/// plain subscriptions that the same session may still have: with them the broker would deliver
/// each message twice.
///
/// # Errors
/// The first filter that the broker did not grant, in one line for a person.
pub(crate) fn granted(link: &mut Link, suback: &SubAck, share_group: Option<&str>) -> Result<(), String> {
    for (code, filter) in suback.return_codes.iter().zip(SUBSCRIPTIONS) {
        match code {
            SubscribeReasonCode::Success(QoS::AtLeastOnce | QoS::ExactlyOnce) => {}
            SubscribeReasonCode::Success(QoS::AtMostOnce) => {
                return Err(format!("the broker grants only QoS 0 for {filter}"));
            }
            code => return Err(format!("the broker refuses the subscription to {filter}: {code:?}")),
        }
    }
    if share_group.is_some() {
        let filters = SUBSCRIPTIONS.map(str::to_owned).to_vec();
        link.send(Packet::Unsubscribe(Unsubscribe { pkid: 2, filters, properties: None }))?;
    }
    Ok(())
}
