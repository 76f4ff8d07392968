//! The message a session was sending when its connection broke.
//!
//! rmqtt takes a message from the queue, writes it, and notes it as unacknowledged only then: one whose write failed is in
//! neither place. It is kept here until it is acknowledged, and put back into the queue where it has got lost.

use std::collections::HashMap;

use parking_lot::Mutex;
use rmqtt::{
    session::Session,
    types::{From, Id, Publish},
};

/// The last message handed to each connection.
#[derive(Default)]
pub(super) struct Unsent(Mutex<HashMap<Id, (From, Publish)>>);

impl Unsent {
    pub(super) fn sending(&self, id: &Id, from: &From, publish: &Publish) {
        if publish.packet_id.is_some() {
            self.0.lock().insert(id.clone(), (from.clone(), publish.clone()));
        }
    }

    pub(super) fn acknowledged(&self, id: &Id, publish: &Publish) {
        let mut sending = self.0.lock();
        if sending.get(id).is_some_and(|(_, last)| last.packet_id == publish.packet_id) {
            sending.remove(id);
        }
    }

    /// Puts the message back if it is nowhere; returns it where the queue has no room.
    pub(super) async fn disconnected(&self, session: &Session) -> Result<(), Publish> {
        let Some((from, publish)) = self.0.lock().remove(&session.id) else { return Ok(()) };
        let noted = match publish.packet_id {
            Some(packet_id) => session.out_inflight().read().await.exist(&packet_id.get()),
            None => true,
        };
        if noted {
            return Ok(());
        }
        session.deliver_queue().push((from, publish)).map_err(|(_, publish)| publish)
    }
}
