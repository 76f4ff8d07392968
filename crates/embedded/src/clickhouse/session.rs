//! Sessions: a client that names one gets the same connection again, with its `SET`s and temporary
//! tables.

use super::exception::{Exception, TOO_MANY_SIMULTANEOUS_QUERIES};
use super::library::Connection;
use super::request::SessionName;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

struct Session {
    /// With the key of its statements; `None` while one runs.
    connection: Option<(Connection, String)>,
    idle: Duration,
    used: Instant,
}

/// All sessions, at most a given number of the owner's and as many of readers'.
pub struct Sessions {
    /// By whether they are the owner's, and name: no reader comes into a session of the owner.
    sessions: Mutex<HashMap<(bool, String), Session>>,
    sessions_max: usize,
}

impl Sessions {
    /// Room for `sessions_max` sessions of the owner and of readers each.
    pub fn new(sessions_max: usize) -> Self {
        Self { sessions: Mutex::default(), sessions_max }
    }

    /// Reserves the session for one statement. `None`: it is new, and its connection has to be
    /// opened.
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
        // A reader's holds nothing that another could not make again.
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

    /// Gives the connection back after the statement; without one the session ends.
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

    /// Ends the sessions that no request has used for their time.
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
