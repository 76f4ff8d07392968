//! Idle connections. Opening a connection and setting what a request asks for takes longer than
//! many statements, and most requests ask for the same settings.

use super::library::Connection;
use std::collections::VecDeque;
use std::sync::Mutex;

/// A connection, and what was set on it since it was opened.
pub struct Prepared {
    pub connection: Connection,
    /// Whether it has the owner's rights, not a reader's.
    pub owner: bool,
    /// The key by which its statements are found.
    pub key: String,
    /// The selected database.
    pub database: Option<String>,
    /// Settings by name, in ascending order.
    pub settings: Vec<(String, String)>,
}

impl Prepared {
    /// Whether it will be like a new connection once these settings are set, whatever values they
    /// have now.
    fn suits(&self, owner: bool, database: Option<&str>, settings: &[(String, String)]) -> bool {
        let names = settings.iter().map(|(name, _)| name);
        self.owner == owner
            && self.database.as_deref() == database
            && self.settings.iter().map(|(name, _)| name).eq(names)
    }
}

/// The idle connections, with separate limits for the owner and for readers. The one that has been
/// idle for longest is closed first.
pub struct Idle {
    connections: Mutex<VecDeque<Prepared>>,
    connections_max: usize,
}

impl Idle {
    /// Room for `connections_max` connections of the owner, and as many of readers.
    pub fn new(connections_max: usize) -> Self {
        Self { connections: Mutex::default(), connections_max }
    }

    /// Takes a connection on which exactly this database and these settings were set. The settings
    /// must be in ascending order of their names.
    pub fn take(&self, owner: bool, database: Option<&str>, settings: &[(String, String)]) -> Option<Prepared> {
        let mut connections = service::lock(&self.connections);
        let last = connections.iter().rposition(|prepared| prepared.suits(owner, database, settings))?;
        connections.remove(last)
    }

    /// Keeps a connection whose statement succeeded and did not change it.
    pub fn give_back(&self, prepared: Prepared) {
        let mut connections = service::lock(&self.connections);
        let alike = |other: &Prepared| other.owner == prepared.owner;
        let full = connections.iter().filter(|other| alike(other)).count() >= self.connections_max;
        let first = connections.iter().position(alike).filter(|_| full);
        let oldest = first.and_then(|first| connections.remove(first));
        connections.push_back(prepared);
        // Closing takes a while, and others need not wait for it.
        drop(connections);
        drop(oldest);
    }

    pub fn clear(&self) {
        let all = std::mem::take(&mut *service::lock(&self.connections));
        drop(all);
    }
}
