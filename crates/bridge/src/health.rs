//! Whether data moves.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{options::Limits, sink::Oldest};

/// The state of one MQTT connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    /// Connected and, where it receives, subscribed.
    Up,
    /// Not, since then, and why.
    Down { since: Instant, reason: String, was_up: bool },
}

/// Why the bridge is not ready.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Obstacle {
    /// What it concerns: `kafka`, `mqtt` or `receipts`.
    pub part: &'static str,
    /// What is wrong, for a person.
    pub reason: String,
}

/// Whether the bridge is ready, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Readiness {
    /// Whether data moves.
    pub ready: bool,
    /// What is in the way; empty when ready.
    pub obstacles: Vec<Obstacle>,
}

/// What is known about Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KafkaState {
    /// The topics have not been seen yet, and why.
    Unverified { reason: String },
    /// In use.
    Serving,
    /// The last thing the client said was an error.
    Troubled { reason: String },
    /// The producer died and is being rebuilt; nothing has been confirmed since.
    Fatal { reason: String },
}

/// What the parts of the bridge report about themselves.
pub(crate) struct Health {
    limits: Limits,
    links: Mutex<Vec<Link>>,
    kafka: Mutex<KafkaState>,
    /// Why Kafka has too few replicas to confirm anything.
    replicas: Mutex<Option<String>>,
    receipts: bool,
}

impl Health {
    /// `connections` receive, and if `receipts`, one more sends receipts.
    pub fn new(limits: Limits, connections: usize, receipts: bool) -> Self {
        let down = Link::Down { since: Instant::now(), reason: "not connected yet".to_owned(), was_up: false };
        let kafka = KafkaState::Unverified { reason: "not connected yet".to_owned() };
        let links = vec![down; connections + usize::from(receipts)];
        Self { limits, links: Mutex::new(links), kafka: Mutex::new(kafka), replicas: Mutex::default(), receipts }
    }

    /// Notes that a connection works; whether it did not before.
    pub fn link_up(&self, index: usize) -> bool {
        let mut links = lock(&self.links);
        links.get_mut(index).is_some_and(|link| std::mem::replace(link, Link::Up) != Link::Up)
    }

    /// Notes that a connection does not work; whether that, or the reason, is new.
    pub fn link_down(&self, index: usize, reason: &str) -> bool {
        let mut links = lock(&self.links);
        let Some(link) = links.get_mut(index) else { return false };
        match link {
            Link::Up => {
                *link = Link::Down { since: Instant::now(), reason: reason.to_owned(), was_up: true };
                true
            }
            Link::Down { reason: known, .. } if known == reason => false,
            Link::Down { reason: known, .. } => {
                reason.clone_into(known);
                true
            }
        }
    }

    /// Notes the state of Kafka; the state before.
    pub fn kafka(&self, state: KafkaState) -> KafkaState {
        std::mem::replace(&mut *lock(&self.kafka), state)
    }

    /// Notes that Kafka has too few replicas, or enough again; whether that is new.
    pub fn replicas(&self, shortage: Option<&str>) -> bool {
        let mut known = lock(&self.replicas);
        let new = known.as_deref() != shortage;
        if new {
            *known = shortage.map(str::to_owned);
        }
        new
    }

    /// Notes a client error, unless something worse is known; whether it is new.
    pub fn kafka_troubled(&self, reason: &str) -> bool {
        let mut kafka = lock(&self.kafka);
        match &mut *kafka {
            KafkaState::Serving => {
                *kafka = KafkaState::Troubled { reason: reason.to_owned() };
                true
            }
            KafkaState::Unverified { reason: known } => {
                let new = known != reason;
                reason.clone_into(known);
                new
            }
            KafkaState::Troubled { .. } | KafkaState::Fatal { .. } => false,
        }
    }

    /// The verdict; `oldest` is the oldest message that Kafka has not confirmed.
    pub fn readiness(&self, now: Instant, oldest: Option<Oldest>) -> Readiness {
        let mut obstacles = Vec::new();
        let kafka = lock(&self.kafka).clone();
        let why = match &kafka {
            KafkaState::Unverified { reason } | KafkaState::Fatal { reason } => {
                obstacles.push(Obstacle { part: "kafka", reason: reason.clone() });
                ""
            }
            KafkaState::Troubled { reason } => reason,
            KafkaState::Serving => "",
        };
        if let Some(reason) = lock(&self.replicas).clone() {
            obstacles.push(Obstacle { part: "kafka", reason });
        }
        if let Some(oldest) = oldest.filter(|oldest| oldest.age > self.limits.unconfirmed_age) {
            let (age, limit) = (oldest.age.as_secs(), self.limits.unconfirmed_age.as_secs());
            let mut reason = format!("the oldest unconfirmed message has waited {age} s, limit {limit} s");
            let why = oldest.reason.as_deref().unwrap_or(why);
            if !why.is_empty() {
                reason = format!("{reason}: {why}");
            }
            obstacles.push(Obstacle { part: "kafka", reason });
        }
        let links = lock(&self.links);
        for (index, link) in links.iter().enumerate() {
            let Link::Down { since, reason, was_up } = link else { continue };
            let down = now.saturating_duration_since(*since);
            if *was_up && down <= self.limits.disconnected {
                continue;
            }
            let part = if self.receipts && index + 1 == links.len() { "receipts" } else { "mqtt" };
            let reason = format!("connection {index} has been down for {} s: {reason}", down.as_secs());
            obstacles.push(Obstacle { part, reason });
        }
        Readiness { ready: obstacles.is_empty(), obstacles }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is left half-changed by a panic under these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn waited(seconds: u64, reason: Option<&str>) -> Option<Oldest> {
        Some(Oldest { age: Duration::from_secs(seconds), reason: reason.map(str::to_owned) })
    }

    fn serving() -> Health {
        let health = Health::new(Limits::default(), 2, true);
        health.kafka(KafkaState::Serving);
        for index in 0..3 {
            assert!(health.link_up(index));
            assert!(!health.link_up(index));
        }
        health
    }

    #[test]
    fn not_ready_before_everything_was_up_once() {
        let health = Health::new(Limits::default(), 1, true);
        let readiness = health.readiness(Instant::now(), None);
        let parts: Vec<_> = readiness.obstacles.iter().map(|obstacle| obstacle.part).collect();
        assert_eq!((readiness.ready, parts), (false, vec!["kafka", "mqtt", "receipts"]));
        assert!(serving().readiness(Instant::now(), None).ready);
    }

    #[test]
    fn an_old_unconfirmed_message_says_why() {
        let health = serving();
        assert!(health.readiness(Instant::now(), waited(29, None)).ready);
        assert!(health.kafka_troubled("all brokers are down"));
        assert!(!health.kafka_troubled("all brokers are down"));
        for (own, expected) in [(None, "all brokers are down"), (Some("too large"), "too large")] {
            let readiness = health.readiness(Instant::now(), waited(31, own));
            let waited = "the oldest unconfirmed message has waited 31 s, limit 30 s";
            assert_eq!(readiness.obstacles[0].reason, format!("{waited}: {expected}"));
        }
    }

    #[test]
    fn a_connection_may_be_down_for_a_while() {
        let health = serving();
        assert!(health.link_down(1, "unreachable"));
        assert!(!health.link_down(1, "unreachable"));
        assert!(health.link_down(1, "wrong password"));
        assert!(health.readiness(Instant::now(), None).ready);
        let readiness = health.readiness(Instant::now() + Duration::from_secs(40), None);
        assert_eq!(readiness.obstacles.len(), 1);
        assert!(readiness.obstacles[0].reason.ends_with("wrong password"), "{readiness:?}");
    }

    #[test]
    fn too_few_replicas_are_an_obstacle_before_anything_waits() {
        let health = serving();
        assert!(health.replicas(Some("NOT_ENOUGH_REPLICAS: ...")));
        assert!(!health.replicas(Some("NOT_ENOUGH_REPLICAS: ...")));
        let readiness = health.readiness(Instant::now(), None);
        assert_eq!((readiness.ready, readiness.obstacles[0].part), (false, "kafka"));
        assert!(health.replicas(None));
        assert!(health.readiness(Instant::now(), None).ready);
    }

    #[test]
    fn a_fatal_producer_is_not_ready() {
        let health = serving();
        health.kafka(KafkaState::Fatal { reason: "fenced".to_owned() });
        assert!(!health.readiness(Instant::now(), None).ready);
        health.kafka(KafkaState::Serving);
        assert!(health.readiness(Instant::now(), None).ready);
    }
}
