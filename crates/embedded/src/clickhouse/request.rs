//! What a request says outside its body: parameters of the URL, headers, user and password.

use super::compression::Encoding;
use super::exception::{Exception, UNKNOWN_SETTING};
use base64::Engine as _;
use hyper::HeaderMap;
use hyper::header::{ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING};
use std::time::Duration;

/// Longest time a session may be kept without a request, as in ClickHouse.
const SESSION_IDLE_MAX: Duration = Duration::from_secs(3600);
/// Time a session is kept if the request names none, as in ClickHouse.
const SESSION_IDLE: Duration = Duration::from_secs(60);

/// Settings that control the HTTP server and not the statement. They have no effect here.
const SERVER_SETTINGS: [&str; 6] = [
    "add_http_cors_header",
    "buffer_size",
    "cancel_http_readonly_queries_on_client_close",
    "send_progress_in_http_headers",
    "stacktrace",
    "quota_key",
];

/// The session that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionName {
    /// The client's name for the session.
    pub id: String,
    /// Whether it is a session of the owner.
    pub owner: bool,
    /// How long it is kept without a request.
    pub idle: Duration,
    /// Whether it must already exist.
    pub must_exist: bool,
    /// Whether it ends with this request.
    pub close: bool,
}

impl SessionName {
    /// The key under which it is kept.
    pub fn key(&self) -> (bool, String) {
        (self.owner, self.id.clone())
    }
}

/// The user with all rights, who has a password. The other user, `default`, only reads and has
/// none.
pub const OWNER: &str = "doseline";

/// A request without its body.
#[derive(Debug, Default)]
pub struct Request {
    /// SQL from the URL. The body is appended to it.
    pub query: String,
    /// Database for unqualified names.
    pub database: Option<String>,
    /// Format for a statement that names no format.
    pub format: Option<String>,
    /// Settings for this one statement.
    pub settings: Vec<(String, String)>,
    pub parameters: Vec<(String, String)>,
    /// The client's name for the statement.
    pub query_id: Option<String>,
    pub session: Option<SessionName>,
    /// Whether the response must use ClickHouse's compressed blocks.
    pub compress: bool,
    /// Whether the body uses ClickHouse's compressed blocks.
    pub decompress: bool,
    /// Encoding of the body.
    pub body_encoding: Option<Encoding>,
    /// Encoding of the response.
    pub response_encoding: Option<Encoding>,
    /// Whether nothing may be sent before the statement has ended.
    pub wait_end: bool,
    /// Whether only reading is allowed, because the method is GET.
    pub read_only: bool,
    /// Whether the owner asks, and not a reader.
    pub owner: bool,
    /// The version of ClickHouse's protocol for which blocks of the format Native are written; 0 =
    /// none.
    pub protocol_version: u64,
    user: Option<String>,
    password: Option<String>,
}

impl Request {
    /// Reads URL parameters and headers.
    ///
    /// # Errors
    /// A request for something that this server does not support.
    pub fn read(query: &str, headers: &HeaderMap, read_only: bool) -> Result<Self, Exception> {
        let mut request = Self { read_only, ..Self::default() };
        let mut sessions = SessionParameters::default();
        let mut http_compression = false;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            match &*name {
                "enable_http_compression" => http_compression = is_on(&value),
                "session_id" => sessions.id = value,
                "session_timeout" => sessions.timeout = Some(value),
                "session_check" => sessions.check = is_on(&value),
                "close_session" => sessions.close = is_on(&value),
                _ => request.read_parameter(&name, value)?,
            }
        }
        request.session = sessions.read()?;
        request.read_headers(headers, http_compression)?;
        Ok(request)
    }

    /// Accepts one parameter of the URL or one field of a form.
    ///
    /// # Errors
    /// A name that cannot be the name of a setting.
    pub fn read_parameter(&mut self, name: &str, value: String) -> Result<(), Exception> {
        match name {
            "query" => self.query = value,
            "database" => self.database = Some(value).filter(|value| !value.is_empty()),
            "default_format" => self.format = Some(value),
            "user" => self.user = Some(value),
            "password" => self.password = Some(value),
            "query_id" => self.query_id = Some(value).filter(|value| !value.is_empty()),
            "compress" => self.compress = is_on(&value),
            "decompress" => self.decompress = is_on(&value),
            "wait_end_of_query" | "http_wait_end_of_query" => self.wait_end = is_on(&value),
            "role" => {
                return Err(Exception::new(511, "UNKNOWN_ROLE", format_args!("There is no role `{value}` here")));
            }
            "client_protocol_version" => {
                self.protocol_version = value.parse().map_err(|_| {
                    let message = format_args!("client_protocol_version must be a number, and not '{value}'");
                    Exception::new(36, "BAD_ARGUMENTS", message)
                })?;
            }
            name if SERVER_SETTINGS.contains(&name) || name.starts_with("http_") => {}
            name => {
                if let Some(parameter) = name.strip_prefix("param_") {
                    self.parameters.push((parameter.to_owned(), value));
                } else if name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && !name.is_empty() {
                    self.settings.push((name.to_owned(), value));
                } else {
                    let message = format_args!("Unknown setting '{}'", name.escape_debug());
                    return Err(Exception::new(UNKNOWN_SETTING, "UNKNOWN_SETTING", message));
                }
            }
        }
        Ok(())
    }

    /// Sorts the settings by name. The last value of a repeated setting counts. `readonly` comes
    /// last, because no setting can be changed after it.
    pub fn order_settings(&mut self) {
        self.settings.reverse();
        self.settings.sort_by(|(left, _), (right, _)| (left == "readonly", left).cmp(&(right == "readonly", right)));
        self.settings.dedup_by(|(later, _), (first, _)| later == first);
    }

    fn read_headers(&mut self, headers: &HeaderMap, http_compression: bool) -> Result<(), Exception> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        if let Some(encoding) = text(CONTENT_ENCODING.as_str()).filter(|name| !name.is_empty() && name != "identity") {
            self.body_encoding = Some(Encoding::parse(&encoding).ok_or_else(|| {
                Exception::new(48, "NOT_IMPLEMENTED", format_args!("Unknown Content-Encoding '{encoding}'"))
            })?);
        }
        self.response_encoding =
            text(ACCEPT_ENCODING.as_str()).filter(|_| http_compression).and_then(|accept| Encoding::choose(&accept));
        self.format = self.format.take().or_else(|| text("X-ClickHouse-Format"));
        self.database = self.database.take().or_else(|| text("X-ClickHouse-Database"));
        if let Some(user) = text("X-ClickHouse-User") {
            self.user = Some(user);
            self.password = text("X-ClickHouse-Key");
        } else if let Some(basic) = text(AUTHORIZATION.as_str()).and_then(|value| decode_basic(&value)) {
            (self.user, self.password) = (Some(basic.0), Some(basic.1));
        }
        Ok(())
    }

    /// Determines who asks: the owner, who must give the password, or a reader, who needs none.
    ///
    /// # Errors
    /// `AUTHENTICATION_FAILED`.
    pub fn authenticate(&mut self, password: &str) -> Result<(), Exception> {
        let user = self.user.as_deref().filter(|user| !user.is_empty()).unwrap_or("default");
        let given = self.password.as_deref().unwrap_or_default();
        self.owner = user == OWNER && equal(password.as_bytes(), given.as_bytes());
        if let Some(session) = &mut self.session {
            session.owner = self.owner;
        }
        if self.owner || user == "default" {
            return Ok(());
        }
        let message =
            format_args!("{user}: Authentication failed: password is incorrect, or there is no user with such name");
        Err(Exception::new(516, "AUTHENTICATION_FAILED", message))
    }
}

#[derive(Default)]
struct SessionParameters {
    id: String,
    timeout: Option<String>,
    check: bool,
    close: bool,
}

impl SessionParameters {
    fn read(self) -> Result<Option<SessionName>, Exception> {
        if self.id.is_empty() {
            return Ok(None);
        }
        let idle = match self.timeout {
            None => SESSION_IDLE,
            Some(seconds) => seconds.parse().map(Duration::from_secs).map_err(|_| {
                Exception::new(374, "INVALID_SESSION_TIMEOUT", format_args!("Invalid session timeout: '{seconds}'"))
            })?,
        };
        let idle = idle.min(SESSION_IDLE_MAX);
        Ok(Some(SessionName { id: self.id, owner: false, idle, must_exist: self.check, close: self.close }))
    }
}

fn is_on(value: &str) -> bool {
    value == "1" || value.eq_ignore_ascii_case("true")
}

fn decode_basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.trim()).ok()?;
    let decoded = String::from_utf8(decoded).ok().filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    decoded.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

/// Compares in a time that does not reveal the position of the first difference.
fn equal(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |seen, (left, right)| seen | (left ^ right)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_settings_from_parameters() {
        let url = "query=SELECT+1&param_x=a%09b&max_threads=1&wait_end_of_query=1&http_zlib_compression_level=3\
                   &session_id=s&session_timeout=9&database=d&insert_deduplication_token=p%2F1";
        let request = Request::read(url, &HeaderMap::new(), false).unwrap();
        assert_eq!(request.query, "SELECT 1");
        assert_eq!(request.parameters, [("x".to_owned(), "a\tb".to_owned())]);
        let names: Vec<&str> = request.settings.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["max_threads", "insert_deduplication_token"]);
        assert!(request.wait_end);
        assert_eq!(request.session.unwrap().idle, Duration::from_secs(9));
        assert_eq!(request.database.as_deref(), Some("d"));
        assert!(Request::read("a%27b=1", &HeaderMap::new(), false).is_err());
        assert!(Request::read("session_id=s&session_timeout=x", &HeaderMap::new(), false).is_err());
    }

    #[test]
    fn checks_who_asks() {
        let ask = |url: &str, name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            Request::read(url, &headers, false).unwrap()
        };
        let who = |mut request: Request| request.authenticate("secret").map(|()| request.owner).ok();
        assert_eq!(who(ask("", "x-none", "1")), Some(false));
        assert_eq!(who(ask("user=default&password=any", "x-none", "1")), Some(false));
        assert_eq!(who(ask("user=doseline&password=secret", "x-none", "1")), Some(true));
        assert_eq!(who(ask("", "authorization", "Basic ZG9zZWxpbmU6c2VjcmV0")), Some(true));
        assert_eq!(who(ask("user=doseline&password=secre", "x-none", "1")), None);
        assert_eq!(who(ask("user=doseline", "x-none", "1")), None);
        assert_eq!(who(ask("", "x-clickhouse-user", "root")), None);
    }
}
