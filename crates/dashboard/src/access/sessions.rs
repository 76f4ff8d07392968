//! Log-ins of browsers. The cookie holds a random value; everything else stays in this process.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use axum::http::{HeaderMap, HeaderValue, header};
use service::lock;
use tokio::time::Instant;

use super::tokens::hash;

/// Longest log-in.
const LASTS: Duration = Duration::from_secs(12 * 3_600);
/// Longest pause between two requests of a log-in. An open page asks every few seconds.
const IDLE: Duration = Duration::from_secs(3_600);
/// Most log-ins. Beyond it, the one that was idle for the longest time ends.
const LOG_INS_MAX: usize = 4_096;

/// Name of the cookie behind TLS. Browsers take a cookie with this prefix only over TLS, for this
/// host alone.
const NAME: &str = "__Host-doseline";
/// Name on the loopback interface without TLS.
const PLAIN_NAME: &str = "doseline";

#[derive(Debug)]
struct LogIn {
    token: String,
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

    /// Begins a log-in with a token, and returns what the cookie holds.
    pub fn begin(&self, token: &str) -> String {
        let value = format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let now = Instant::now();
        let mut log_ins = lock(&self.log_ins);
        log_ins.retain(|_, log_in| log_in.lasts(now));
        if log_ins.len() >= LOG_INS_MAX
            && let Some(idle) = log_ins.iter().min_by_key(|(_, log_in)| log_in.used).map(|(key, _)| *key)
        {
            log_ins.remove(&idle);
        }
        log_ins.insert(hash(&value), LogIn { token: token.to_owned(), began: now, used: now });
        value
    }

    /// The id of the token that this cookie's log-in began with.
    pub fn token(&self, value: &str) -> Option<String> {
        let now = Instant::now();
        let mut log_ins = lock(&self.log_ins);
        let log_in = log_ins.get_mut(&hash(value)).filter(|log_in| log_in.lasts(now))?;
        log_in.used = now;
        Some(log_in.token.clone())
    }

    /// What the cookie of a request holds.
    pub fn cookie<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let name = if self.is_plain(headers) { PLAIN_NAME } else { NAME };
        let texts = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        texts.flat_map(|text| text.split(';')).find_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then_some(value)
        })
    }

    /// The header that sets the cookie, for the host of this request; an empty `value` deletes it.
    ///
    /// # Errors
    /// Never for a value that [`Sessions::begin`] returns.
    pub fn set_cookie(&self, headers: &HeaderMap, value: &str) -> Result<HeaderValue, header::InvalidHeaderValue> {
        let (name, secure) = if self.is_plain(headers) { (PLAIN_NAME, "") } else { (NAME, "; Secure") };
        let age = if value.is_empty() { 0 } else { LASTS.as_secs() };
        HeaderValue::try_from(format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly; SameSite=Strict{secure}"))
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

/// Whether the request came for the loopback interface. A proxy on this machine passes the name that the browser used.
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

    #[tokio::test(start_paused = true)]
    async fn a_log_in_ends_by_word_by_rest_and_by_age() {
        let sessions = Sessions::new(false);
        let (first, second) = (sessions.begin("a"), sessions.begin("b"));
        assert_eq!(sessions.token(&first).as_deref(), Some("a"));
        sessions.end(&first);
        assert_eq!(sessions.token(&first), None);
        assert_eq!(sessions.token("invented"), None);
        for _ in 0..23 {
            tokio::time::advance(IDLE / 2).await;
            assert_eq!(sessions.token(&second).as_deref(), Some("b"));
        }
        tokio::time::advance(IDLE / 2).await;
        assert_eq!(sessions.token(&second), None, "12 hours are over");
        let third = sessions.begin("c");
        tokio::time::advance(IDLE).await;
        assert_eq!(sessions.token(&third), None, "it was idle for an hour");
    }

    #[tokio::test(start_paused = true)]
    async fn log_ins_do_not_fill_memory() {
        let sessions = Sessions::new(false);
        let first = sessions.begin("first");
        for _ in 0..LOG_INS_MAX {
            tokio::time::advance(Duration::from_millis(1)).await;
            sessions.begin("other");
        }
        assert_eq!(lock(&sessions.log_ins).len(), LOG_INS_MAX);
        assert_eq!(sessions.token(&first), None);
    }

    #[test]
    fn only_the_loopback_interface_has_a_cookie_without_tls() {
        let (plain, tls) = (Sessions::new(false), Sessions::new(true));
        let set = |host: &str| plain.set_cookie(&headers(&[(header::HOST, host)]), "v").unwrap();
        for host in ["localhost:9600", "127.0.0.1:9600", "[::1]:9600", "localhost"] {
            assert_eq!(set(host), "doseline=v; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict", "{host}");
        }
        for host in ["fleet.example", "192.0.2.1:9600", "localhost.example:9600"] {
            let strict = "__Host-doseline=v; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict; Secure";
            assert_eq!(set(host), strict, "{host}");
        }
        let local = headers(&[(header::HOST, "localhost:9600")]);
        assert!(tls.set_cookie(&local, "v").unwrap().to_str().unwrap().starts_with("__Host-doseline=v;"));
        let both = "a=b; doseline=plain;__Host-doseline=strict";
        let found = |sessions: &Sessions, host: &str| {
            sessions.cookie(&headers(&[(header::HOST, host), (header::COOKIE, both)])).map(str::to_owned)
        };
        assert_eq!(found(&plain, "localhost:1").as_deref(), Some("plain"));
        assert_eq!(found(&plain, "fleet.example").as_deref(), Some("strict"));
        assert_eq!(found(&tls, "localhost:1").as_deref(), Some("strict"));
    }
}
