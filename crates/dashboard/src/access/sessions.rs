//! Log-ins of browsers. The cookie holds a random value; everything else stays in this process.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use axum::http::{HeaderMap, HeaderValue, header};
use service::lock;
use tokio::time::Instant;

use super::{
    oidc,
    tokens::{Token, hash},
};

/// Longest log-in.
const LASTS: Duration = Duration::from_secs(12 * 3_600);
/// Longest pause between two requests of a log-in. An open page asks every few seconds.
const IDLE: Duration = Duration::from_secs(3_600);
/// Most log-ins. Beyond it, the one that was idle for the longest time ends.
const LOG_INS_MAX: usize = 4_096;

/// A cookie of this port. Behind TLS its name begins with `__Host-`: browsers take such a cookie
/// only over TLS, for this host alone. On the loopback interface without TLS it has no such name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cookie {
    /// A log-in.
    LogIn,
    /// An attempt to sign in at an OpenID provider.
    Attempt,
}

impl Cookie {
    fn name(self, is_plain: bool) -> &'static str {
        match (self, is_plain) {
            (Self::LogIn, false) => "__Host-doseline",
            (Self::LogIn, true) => "doseline",
            (Self::Attempt, false) => "__Host-doseline-attempt",
            (Self::Attempt, true) => "doseline-attempt",
        }
    }

    fn lasts(self) -> Duration {
        match self {
            Self::LogIn => LASTS,
            Self::Attempt => oidc::LASTS,
        }
    }

    /// A browser shows a log-in to this site alone. An attempt comes back from the provider's site.
    fn same_site(self) -> &'static str {
        match self {
            Self::LogIn => "Strict",
            Self::Attempt => "Lax",
        }
    }
}

/// Who signed in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// The holder of the token with this id.
    Token(String),
    /// A person of an OpenID provider.
    Person(Box<Token>),
}

#[derive(Debug)]
struct LogIn {
    who: Who,
    began: Instant,
    used: Instant,
}

/// The log-ins of this process, by the hash of what the cookie holds.
#[derive(Debug)]
pub struct Sessions {
    /// Whether the port itself has TLS.
    is_tls: bool,
    log_ins: Mutex<HashMap<[u8; 32], LogIn>>,
}

impl Sessions {
    /// No log-ins yet.
    pub fn new(is_tls: bool) -> Self {
        Self { is_tls, log_ins: Mutex::default() }
    }

    /// Begins a log-in, and returns what the cookie holds.
    pub fn begin(&self, who: Who) -> String {
        let value = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let now = Instant::now();
        let mut log_ins = lock(&self.log_ins);
        log_ins.retain(|_, log_in| log_in.lasts(now));
        if log_ins.len() >= LOG_INS_MAX
            && let Some(idle) = log_ins.iter().min_by_key(|(_, log_in)| log_in.used).map(|(key, _)| *key)
        {
            log_ins.remove(&idle);
        }
        log_ins.insert(hash(&value), LogIn { who, began: now, used: now });
        value
    }

    /// Who began the log-in of this cookie.
    pub fn who(&self, value: &str) -> Option<Who> {
        let now = Instant::now();
        let mut log_ins = lock(&self.log_ins);
        let log_in = log_ins.get_mut(&hash(value)).filter(|log_in| log_in.lasts(now))?;
        log_in.used = now;
        Some(log_in.who.clone())
    }

    /// What a cookie of a request holds.
    pub fn cookie<'a>(&self, headers: &'a HeaderMap, cookie: Cookie) -> Option<&'a str> {
        let name = cookie.name(self.is_plain(headers));
        let texts = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        texts.flat_map(|text| text.split(';')).find_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then_some(value)
        })
    }

    /// The header that sets a cookie, for the host of this request; an empty `value` deletes it.
    ///
    /// # Errors
    /// Never for a value of random digits.
    pub fn set_cookie(
        &self,
        headers: &HeaderMap,
        cookie: Cookie,
        value: &str,
    ) -> Result<HeaderValue, header::InvalidHeaderValue> {
        let is_plain = self.is_plain(headers);
        let (name, secure) = (cookie.name(is_plain), if is_plain { "" } else { "; Secure" });
        let age = if value.is_empty() { 0 } else { cookie.lasts().as_secs() };
        let site = cookie.same_site();
        HeaderValue::try_from(format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite={site}{secure}"))
    }

    /// Whether browsers speak to this host without TLS.
    fn is_plain(&self, headers: &HeaderMap) -> bool {
        !self.is_tls && is_local(headers)
    }

    /// Ends a log-in.
    pub fn end(&self, value: &str) {
        lock(&self.log_ins).remove(&hash(value));
    }
}

impl LogIn {
    fn lasts(&self, now: Instant) -> bool {
        now - self.began < LASTS && now - self.used < IDLE
    }
}

/// Whether the request came for the loopback interface. A proxy on this machine passes the name
/// that the browser used.
fn is_local(headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap())).collect()
    }

    fn who(id: &str) -> Who {
        Who::Token(id.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_log_in_ends_by_word_by_rest_and_by_age() {
        let sessions = Sessions::new(false);
        let (first, second) = (sessions.begin(who("a")), sessions.begin(who("b")));
        assert_eq!(sessions.who(&first), Some(who("a")));
        sessions.end(&first);
        assert_eq!(sessions.who(&first), None);
        assert_eq!(sessions.who("invented"), None);
        for _ in 0..23 {
            tokio::time::advance(IDLE / 2).await;
            assert_eq!(sessions.who(&second), Some(who("b")));
        }
        tokio::time::advance(IDLE / 2).await;
        assert_eq!(sessions.who(&second), None, "12 hours are over");
        let third = sessions.begin(who("c"));
        tokio::time::advance(IDLE).await;
        assert_eq!(sessions.who(&third), None, "it was idle for an hour");
    }

    #[tokio::test(start_paused = true)]
    async fn log_ins_do_not_fill_memory() {
        let sessions = Sessions::new(false);
        let first = sessions.begin(who("first"));
        for _ in 0..LOG_INS_MAX {
            tokio::time::advance(Duration::from_millis(1)).await;
            sessions.begin(who("other"));
        }
        assert_eq!(lock(&sessions.log_ins).len(), LOG_INS_MAX);
        assert_eq!(sessions.who(&first), None);
    }

    #[test]
    fn only_the_loopback_interface_has_a_cookie_without_tls() {
        let (plain, tls) = (Sessions::new(false), Sessions::new(true));
        let set = |host: &str| plain.set_cookie(&headers(&[(header::HOST, host)]), Cookie::LogIn, "v").unwrap();
        for host in ["localhost:9600", "127.0.0.1:9600", "[::1]:9600", "localhost"] {
            assert_eq!(set(host), "doseline=v; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict", "{host}");
        }
        for host in ["fleet.example", "192.0.2.1:9600", "localhost.example:9600"] {
            let strict = "__Host-doseline=v; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict; Secure";
            assert_eq!(set(host), strict, "{host}");
        }
        let local = headers(&[(header::HOST, "localhost:9600")]);
        assert!(
            tls.set_cookie(&local, Cookie::LogIn, "v").unwrap().to_str().unwrap().starts_with("__Host-doseline=v;")
        );
        let attempt = tls.set_cookie(&local, Cookie::Attempt, "v").unwrap();
        let expected = "__Host-doseline-attempt=v; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure";
        assert_eq!(attempt, expected, "the provider's site sends the browser back");
        let both = "a=b; doseline=plain;__Host-doseline=strict";
        let found = |sessions: &Sessions, host: &str| {
            sessions.cookie(&headers(&[(header::HOST, host), (header::COOKIE, both)]), Cookie::LogIn).map(str::to_owned)
        };
        assert_eq!(found(&plain, "localhost:1").as_deref(), Some("plain"));
        assert_eq!(found(&plain, "fleet.example").as_deref(), Some("strict"));
        assert_eq!(found(&tls, "localhost:1").as_deref(), Some("strict"));
    }
}
