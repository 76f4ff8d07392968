//! Connections between two statements. Opening one and setting on it what a request asks for takes
//! longer than many a statement, and most requests ask for the same as one before.

use super::library::Connection;
use std::collections::VecDeque;
use std::sync::Mutex;

/// A connection, and what was set on it since it was opened.
pub struct Prepared {
    pub connection: Connection,
    /// It has the owner's rights, not a reader's.
    pub owner: bool,
    /// By which its statements are found.
    pub key: String,
    /// The database that was chosen.
    pub database: Option<String>,
    /// Settings by name, in ascending order.
    pub settings: Vec<(String, String)>,
}

impl Prepared {
    /// Whether it is as a new connection would be once these are set, whatever their values are
    /// now.
    fn suits(&self, owner: bool, database: Option<&str>, settings: &[(String, String)]) -> bool {
        let names = settings.iter().map(|(name, _)| name);
        self.owner == owner
            && self.database.as_deref() == database
            && self.settings.iter().map(|(name, _)| name).eq(names)
    }
}

/// At most a given number of the owner's and as many of readers'; the one that was used longest ago
/// goes first.
pub struct Idle {
    connections: Mutex<VecDeque<Prepared>>,
    connections_max: usize,
}

impl Idle {
    /// Room for `connections_max` connections of the owner and of readers each.
    pub fn new(connections_max: usize) -> Self {
        Self { connections: Mutex::default(), connections_max }
    }

    /// One on which this database was chosen and these settings, in ascending order of their names,
    /// and nothing else.
    pub fn take(&self, owner: bool, database: Option<&str>, settings: &[(String, String)]) -> Option<Prepared> {
        let mut connections = service::lock(&self.connections);
        let last = connections.iter().rposition(|prepared| prepared.suits(owner, database, settings))?;
        connections.remove(last)
    }

    /// Keeps one whose statement ended well and changed nothing of the connection.
    pub fn give_back(&self, prepared: Prepared) {
        let mut connections = service::lock(&self.connections);
        let alike = |other: &Prepared| other.owner == prepared.owner;
        let full = connections.iter().filter(|other| alike(other)).count() >= self.connections_max;
        let first = connections.iter().position(alike).filter(|_| full);
        let oldest = first.and_then(|first| connections.remove(first));
        connections.push_back(prepared);
        // Closing takes a while, during which others need not wait.
        drop(connections);
        drop(oldest);
    }

    /// Closes all.
    pub fn clear(&self) {
        let all = std::mem::take(&mut *service::lock(&self.connections));
        drop(all);
    }
}
