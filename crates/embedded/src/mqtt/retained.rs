//! Retained messages, in memory, of a bounded number of topics.

use std::time::Duration;

use async_trait::async_trait;
use rmqtt::{
    retain::{DefaultRetainStorage, RetainStorage},
    types::{Retain, TopicFilter, TopicName},
};

/// rmqtt's own tree, which it keeps switched off.
pub(super) struct Retained {
    messages: DefaultRetainStorage,
    topics_max: isize,
}

impl Retained {
    pub(super) fn new(topics_max: usize) -> Self {
        Self { messages: DefaultRetainStorage::new(), topics_max: isize::try_from(topics_max).unwrap_or(isize::MAX) }
    }
}

#[async_trait]
impl RetainStorage for Retained {
    fn enable(&self) -> bool {
        true
    }

    fn need_sync(&self) -> bool {
        false
    }

    async fn set(&self, topic: &TopicName, retain: Retain, expiry: Option<Duration>) -> rmqtt::Result<()> {
        let removes = retain.publish.payload.is_empty();
        if !removes && self.messages.count().await >= self.topics_max {
            self.messages.remove_expired_messages().await;
            if self.messages.count().await >= self.topics_max && self.messages.get_message(topic).await?.is_empty() {
                tracing::warn!(%topic, "too many retained messages, this one is not kept");
                return Ok(());
            }
        }
        let expiry = expiry.filter(|expiry| !expiry.is_zero());
        self.messages.set_with_timeout(topic, retain, expiry).await
    }

    async fn get(&self, filter: &TopicFilter) -> rmqtt::Result<Vec<(TopicName, Retain)>> {
        self.messages.get_message(filter).await
    }

    async fn count(&self) -> isize {
        self.messages.count().await
    }

    async fn max(&self) -> isize {
        self.messages.max().await
    }
}
