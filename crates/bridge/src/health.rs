//! Whether the bridge is ready: the state of its MQTT connections and of Kafka.

use std::{
    collections::VecDeque,
    sync::Mutex,
    time::{Duration, Instant},
};

use service::{
    health::{Obstacle, Readiness},
    lock,
};

use crate::options::{BROKER_PACKET_BYTES_MAX, Limits};

/// A connection that is lost this often within [`LOSSES_WITHIN`] is an obstacle, however fast it
/// comes back: after each loss the broker delivers all unacknowledged messages again.
const LOSSES_MAX: usize = 6;
const LOSSES_WITHIN: Duration = Duration::from_secs(60);
/// The usual cause, which not every broker reports.
const TAKEN_OVER: &str = "if another client uses the client id, give each bridge its own (bridge.client_id)";
/// Losses of one connection that are kept.
const LOSSES_KEPT: usize = 1_000;

/// How long `/readyz` reports a delivery that ended the connection.
const STOPPED_SHOWN: Duration = Duration::from_secs(60);

/// Largest age of the registry; the caller reads it every few seconds.
const REGISTRY_AGE_MAX: Duration = Duration::from_secs(60);

/// What helps against a delivery that ends the connection each time.
pub(crate) fn remedy() -> String {
    format!(
        "set the broker's max_packet_size to {BROKER_PACKET_BYTES_MAX} at most, then delete the bridge's session on the broker, \
         which deletes this message; devices send reports without a receipt again"
    )
}

/// One MQTT connection, over as many network connections as it takes.
#[derive(Clone, Debug)]
struct Connection {
    link: ConnectionState,
    /// When it was lost, oldest first; none before [`LOSSES_WITHIN`].
    losses: VecDeque<Instant>,
    /// Why it was lost last.
    lost_by: String,
    /// The delivery that ended it at least twice, and the time of the last end.
    stopped_by: Option<(Instant, String)>,
}

impl Connection {
    fn new(now: Instant) -> Self {
        let link = ConnectionState::Down { since: now, reason: "not connected yet".to_owned(), was_up: false };
        Self { link, losses: VecDeque::new(), lost_by: String::new(), stopped_by: None }
    }

    /// Notes a loss.
    fn lost(&mut self, now: Instant, reason: &str) {
        self.forget(now);
        if self.losses.len() == LOSSES_KEPT {
            self.losses.pop_front();
        }
        self.losses.push_back(now);
        reason.clone_into(&mut self.lost_by);
    }

    fn forget(&mut self, now: Instant) {
        while self.losses.front().is_some_and(|at| now.saturating_duration_since(*at) > LOSSES_WITHIN) {
            self.losses.pop_front();
        }
    }

    /// Whether a change goes to the log: the 1st, 2nd, 4th, ... loss within [`LOSSES_WITHIN`] does.
    fn is_told(&self) -> bool {
        self.losses.len() < 2 || self.losses.len().is_power_of_two()
    }
}

/// The state of one MQTT connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionState {
    /// Connected and, where it receives, subscribed.
    Up,
    /// Down since `since`, for `reason`.
    Down { since: Instant, reason: String, was_up: bool },
}

/// The state of Kafka.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KafkaState {
    /// The topics have not been seen yet, and why.
    Unverified {
        reason: String,
    },
    Serving,
    /// The last thing the client said was an error.
    Troubled {
        reason: String,
    },
    /// The producer died and is being rebuilt; nothing has been confirmed since.
    Fatal {
        reason: String,
    },
}

/// The oldest record that Kafka has not confirmed.
#[derive(Clone, Debug)]
pub(crate) struct Oldest {
    /// Time since its message was received.
    pub age: Duration,
    /// Why it failed the last time, if it did.
    pub reason: Option<String>,
}

/// The state of the bridge, as its parts report it.
pub(crate) struct Health {
    limits: Limits,
    lines: Mutex<Vec<Connection>>,
    kafka: Mutex<KafkaState>,
    /// Why Kafka has too few replicas to confirm anything.
    replicas: Mutex<Option<String>>,
    /// When the registry was read last, or was asked for first, and why it could not be read since;
    /// none where the bridge uses none.
    registry: Mutex<Option<(Instant, Option<String>)>>,
    receipts: bool,
}

impl Health {
    /// `connections` receive, and if `receipts`, one more sends receipts.
    pub fn new(limits: Limits, connections: usize, receipts: bool) -> Self {
        let kafka = KafkaState::Unverified { reason: "not connected yet".to_owned() };
        let lines = vec![Connection::new(Instant::now()); connections + usize::from(receipts)];
        Self {
            limits,
            lines: Mutex::new(lines),
            kafka: Mutex::new(kafka),
            replicas: Mutex::default(),
            registry: Mutex::default(),
            receipts,
        }
    }

    /// Notes that a connection works. Returns whether the log should say so.
    pub fn link_up(&self, index: usize) -> bool {
        let mut lines = lock(&self.lines);
        let Some(line) = lines.get_mut(index) else { return false };
        std::mem::replace(&mut line.link, ConnectionState::Up) != ConnectionState::Up && line.is_told()
    }

    /// Notes that a connection does not work. Returns whether the log should say so: if this, or
    /// the reason, is new.
    pub fn link_down(&self, index: usize, reason: &str) -> bool {
        let mut lines = lock(&self.lines);
        let Some(line) = lines.get_mut(index) else { return false };
        match &mut line.link {
            link @ ConnectionState::Up => {
                let now = Instant::now();
                *link = ConnectionState::Down { since: now, reason: reason.to_owned(), was_up: true };
                line.lost(now, reason);
                line.is_told()
            }
            ConnectionState::Down { reason: known, .. } if known == reason => false,
            ConnectionState::Down { reason: known, .. } => {
                reason.clone_into(known);
                true
            }
        }
    }

    /// Notes a delivery that ends a connection each time. Returns whether it differs from the last
    /// one.
    pub fn stopped_by(&self, index: usize, delivery: &str) -> bool {
        let mut lines = lock(&self.lines);
        let Some(line) = lines.get_mut(index) else { return false };
        let before = line.stopped_by.replace((Instant::now(), delivery.to_owned()));
        before.is_none_or(|(_, before)| before != delivery)
    }

    /// Notes the state of Kafka. Returns the state before.
    pub fn kafka(&self, state: KafkaState) -> KafkaState {
        std::mem::replace(&mut *lock(&self.kafka), state)
    }

    /// Notes that Kafka has too few replicas, or enough. Returns whether that is new.
    pub fn replicas(&self, shortage: Option<&str>) -> bool {
        let mut known = lock(&self.replicas);
        let new = known.as_deref() != shortage;
        if new {
            *known = shortage.map(str::to_owned);
        }
        new
    }

    /// Notes that the registry was read, or why it could not be.
    pub fn registry(&self, now: Instant, trouble: Option<&str>) {
        let mut registry = lock(&self.registry);
        match trouble {
            None => *registry = Some((now, None)),
            Some(trouble) => registry.get_or_insert((now, None)).1 = Some(trouble.to_owned()),
        }
    }

    /// Time since the registry was read last.
    pub fn registry_age(&self, now: Instant) -> Duration {
        lock(&self.registry).as_ref().map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at))
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

    /// Whether the bridge is ready; `oldest` is the oldest message that Kafka has not confirmed.
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
        let age = self.registry_age(now);
        if age > REGISTRY_AGE_MAX {
            let trouble = lock(&self.registry).as_ref().and_then(|(_, trouble)| trouble.clone());
            let reason = format!(
                "the registry of devices has not been read for {} s, what was read last holds, and devices registered since are \
                 quarantined: {}",
                age.as_secs(),
                trouble.as_deref().unwrap_or("clickhouse has not answered")
            );
            obstacles.push(Obstacle { part: "registry", reason });
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
        let mut lines = lock(&self.lines);
        let count = lines.len();
        for (index, line) in lines.iter_mut().enumerate() {
            line.forget(now);
            line.stopped_by.take_if(|(at, _)| now.saturating_duration_since(*at) > STOPPED_SHOWN);
            if let Some((_, delivery)) = &line.stopped_by {
                let reason = format!("the broker delivers {delivery}, and the connection ends each time; {}", remedy());
                obstacles.push(Obstacle { part: "mqtt", reason });
            }
            let part = if self.receipts && index + 1 == count { "receipts" } else { "mqtt" };
            if line.losses.len() >= LOSSES_MAX {
                let (times, within) = (line.losses.len(), LOSSES_WITHIN.as_secs());
                let reason = format!(
                    "connection {index} was lost {times} times in the last {within} s: {}; {TAKEN_OVER}",
                    line.lost_by
                );
                obstacles.push(Obstacle { part, reason });
            }
            let ConnectionState::Down { since, reason, was_up } = &line.link else { continue };
            let down = now.saturating_duration_since(*since);
            if *was_up && down <= self.limits.disconnected {
                continue;
            }
            let reason = format!("connection {index} has been down for {} s: {reason}", down.as_secs());
            obstacles.push(Obstacle { part, reason });
        }
        Readiness::of(obstacles)
    }
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
    fn a_connection_that_is_lost_again_and_again_is_not_ready_though_it_is_up() {
        let health = serving();
        for lost in 1..=LOSSES_MAX {
            health.link_down(1, "taken over");
            health.link_up(1);
            assert_eq!(health.readiness(Instant::now(), None).ready, lost < LOSSES_MAX, "lost {lost} times");
        }
        let readiness = health.readiness(Instant::now(), None);
        assert!(
            readiness.obstacles[0].reason.starts_with("connection 1 was lost 6 times in the last 60 s: taken over; ")
        );
        assert_eq!(readiness.obstacles[0].part, "mqtt");
        assert!(health.readiness(Instant::now() + LOSSES_WITHIN + Duration::from_secs(1), None).ready);
        // However often: what is remembered, and what is logged, is bounded.
        let told = (0..5_000).filter(|_| health.link_down(1, "taken over") | health.link_up(1)).count();
        assert!(told < 20, "{told} lines");
        assert_eq!(lock(&health.lines)[1].losses.len(), LOSSES_KEPT);
    }

    #[test]
    fn a_registry_that_cannot_be_read_is_told_with_its_age() {
        let (health, now) = (serving(), Instant::now());
        assert_eq!(health.registry_age(now + REGISTRY_AGE_MAX * 2), Duration::ZERO, "none is used");
        health.registry(now, None);
        let later = now + REGISTRY_AGE_MAX + Duration::from_secs(1);
        health.registry(later, Some("table devices does not exist"));
        assert_eq!(health.registry_age(later), Duration::from_secs(61));
        assert!(health.readiness(now + REGISTRY_AGE_MAX, None).ready);
        let readiness = health.readiness(later, None);
        let text = &readiness.obstacles[0].reason;
        assert!(
            !readiness.ready && text.contains("for 61 s") && text.ends_with("table devices does not exist"),
            "{text}"
        );
        health.registry(later, None);
        assert!(health.readiness(later, None).ready);
        // It was never read.
        let health = serving();
        health.registry(now, Some("refused"));
        health.registry(later, Some("refused"));
        assert!(!health.readiness(later, None).ready);
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
