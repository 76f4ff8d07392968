//! Which member of a shared subscription gets a message.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use rmqtt::{
    context::ServerContext,
    subscribe::SharedSubscription,
    types::{ClientId, Id, IsOnline, NodeId, SharedGroup, SubscriptionIdentifier, SubscriptionOptions, TopicName},
};

/// Members in turn, those connected first; a group whose members are all away queues for one of them.
#[derive(Debug, Default)]
pub(super) struct RoundRobin(AtomicUsize);

/// A member as rmqtt describes it.
type Member = (NodeId, ClientId, SubscriptionOptions, Option<Vec<SubscriptionIdentifier>>, Option<IsOnline>);

#[async_trait]
impl SharedSubscription for RoundRobin {
    fn is_supported(&self) -> bool {
        true
    }

    async fn choice(
        &self,
        _context: &ServerContext,
        _group: &SharedGroup,
        _publisher: &Id,
        _topic: &TopicName,
        members: &[Member],
    ) -> Option<(usize, IsOnline)> {
        let start = self.0.fetch_add(1, Ordering::Relaxed);
        let turn = |at: usize| start.wrapping_add(at).checked_rem(members.len());
        let is_online = |at: &usize| members.get(*at).is_some_and(|member| member.4 == Some(true));
        let online = (0..members.len()).filter_map(turn).find(is_online);
        online.map(|at| (at, true)).or_else(|| turn(0).map(|at| (at, false)))
    }
}
