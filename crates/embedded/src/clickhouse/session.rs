//! ClickHouse sessions: a client that names a session always gets the same connection, with its
//! `SET`s and temporary tables.

use super::exception::{Exception, TOO_MANY_SIMULTANEOUS_QUERIES};
use super::library::Connection;
use super::request::SessionName;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

struct Session {
    /// The connection and the key of its statements; `None` while a statement runs.
    connection: Option<(Connection, String)>,
    idle: Duration,
    used: Instant,
}

/// All sessions, with separate limits for those of the owner and of readers.
pub struct Sessions {
    /// By whether they are the owner's, and name, so that no reader gets into a session of the
    /// owner.
    sessions: Mutex<HashMap<(bool, String), Session>>,
    sessions_max: usize,
}

impl Sessions {
    /// Room for `sessions_max` sessions of the owner, and as many of readers.
    pub fn new(sessions_max: usize) -> Self {
        Self { sessions: Mutex::default(), sessions_max }
    }

    /// Reserves the session for one statement. `None` means that it is new, and the caller must
    /// open its connection.
    ///
    /// # Errors
    /// `SESSION_IS_LOCKED` while another statement runs in it, `SESSION_NOT_FOUND`, or too many
    /// sessions.
    pub fn take(&self, name: &SessionName) -> Result<Option<(Connection, String)>, Exception> {
        self.expire();
        let mut sessions = service::lock(&self.sessions);
        if let Some(session) = sessions.get_mut(&name.key()) {
            return session.connection.take().map(Some).ok_or_else(|| {
                let message = format_args!("Session {} is locked by a concurrent client", name.id);
                Exception::new(373, "SESSION_IS_LOCKED", message)
            });
        }
        if name.must_exist {
            let message = format_args!("Session {} not found", name.id);
            return Err(Exception::new(372, "SESSION_NOT_FOUND", message));
        }
        let alike = sessions.keys().filter(|(owner, _)| *owner == name.owner).count();
        // A reader's session holds nothing that a reader cannot create again.
        let oldest = sessions.iter().filter(|((owner, _), session)| !owner && session.connection.is_some());
        let oldest = oldest.min_by_key(|(_, session)| session.used).map(|(key, _)| key.clone());
        if alike >= self.sessions_max
            && !name.owner
            && let Some(oldest) = oldest
        {
            sessions.remove(&oldest);
        } else if alike >= self.sessions_max {
            let message = format_args!("Too many sessions. Maximum: {}", self.sessions_max);
            return Err(Exception::new(TOO_MANY_SIMULTANEOUS_QUERIES, "TOO_MANY_SIMULTANEOUS_QUERIES", message));
        }
        let session = Session { connection: None, idle: name.idle, used: Instant::now() };
        sessions.insert(name.key(), session);
        Ok(None)
    }

    /// Returns the connection after the statement. Without a connection the session ends.
    pub fn give_back(&self, name: &SessionName, connection: Option<(Connection, String)>) {
        let mut sessions = service::lock(&self.sessions);
        match connection.filter(|_| !name.close) {
            Some(connection) => {
                let session = Session { connection: Some(connection), idle: name.idle, used: Instant::now() };
                sessions.insert(name.key(), session);
            }
            None => drop(sessions.remove(&name.key())),
        }
    }

    /// Ends the sessions that were not used within their time.
    pub fn expire(&self) {
        self.end_where(|session| session.used.elapsed() >= session.idle);
    }

    /// Ends all sessions in which no statement runs.
    pub fn clear(&self) {
        self.end_where(|_| true);
    }

    fn end_where(&self, ended: impl Fn(&Session) -> bool) {
        let mut sessions = service::lock(&self.sessions);
        sessions.retain(|_, session| session.connection.is_none() || !ended(session));
    }
}
