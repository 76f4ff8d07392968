//! Who asks: everybody who reaches a loopback port, or the holder of a token.
//!
//! A program sends the token in each request (`Authorization: Bearer …`). A browser shows it once,
//! at `/login`, and has a cookie from then on. Revoking a token ends its log-ins with the next
//! request.

pub(crate) mod login;
mod pace;
mod sessions;
pub mod tokens;

use std::{
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Redirect, Response},
};
use service::listener::Peer;
use warehouse::sight::Sight;

use self::{
    pace::Pace,
    sessions::Sessions,
    tokens::{Refused, Role, Token, Tokens},
};
use crate::{page, problem::Problem};

/// Failed attempts of one address in a minute that are answered and logged one by one.
const FAILURES_PER_MINUTE: u32 = 10;

/// Who may ask.
#[derive(Clone, Debug)]
pub enum Auth {
    /// Everybody who reaches the port, which must then be on the loopback interface.
    None,
    /// Holders of a token of this file.
    Tokens(PathBuf),
}

/// Somebody who may ask.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Id of the token; `local` without tokens.
    pub name: String,
    pub role: Role,
    pub sight: Sight,
    /// When the token ends, s since 1970; none without tokens.
    pub expires_s: Option<u64>,
    /// Whether a cookie says so, which signing out ends.
    pub has_cookie: bool,
}

impl Asker {
    fn local() -> Self {
        let (name, role, sight) = ("local".to_owned(), Role::Admin, Sight::All);
        Self { name, role, sight, expires_s: None, has_cookie: false }
    }

    fn of(token: &Token, has_cookie: bool) -> Self {
        let (name, role, sight) = (token.id.clone(), token.role, token.sight());
        Self { name, role, sight, expires_s: Some(token.expires_s), has_cookie }
    }
}

/// The lock of the port.
#[derive(Debug)]
pub struct Access {
    /// None if everybody may ask.
    tokens: Option<Tokens>,
    sessions: Sessions,
    /// Requests by asker.
    requests: Pace<String>,
    /// Failed attempts by address.
    failures: Pace<IpAddr>,
}

impl Access {
    /// The lock of a port.
    ///
    /// # Errors
    /// The file of tokens cannot be used.
    pub fn new(auth: Auth, is_tls: bool, requests_per_min: u32) -> Result<Self, tokens::Error> {
        let tokens = match auth {
            Auth::None => None,
            Auth::Tokens(path) => {
                let tokens = Tokens::open(path.clone())?;
                if tokens.is_empty(now_s()) {
                    tracing::warn!(file = %path.display(), "no token is valid, so nobody can ask; run `doseline token create`");
                }
                Some(tokens)
            }
        };
        let (requests, failures) = (Pace::new(requests_per_min), Pace::new(FAILURES_PER_MINUTE));
        Ok(Self { tokens, sessions: Sessions::new(is_tls), requests, failures })
    }

    /// Whether everybody may ask.
    pub fn is_open(&self) -> bool {
        self.tokens.is_none()
    }

    /// Who asks with these headers.
    ///
    /// # Errors
    /// Nobody whom this lock knows.
    pub fn asker(&self, headers: &HeaderMap) -> Result<Asker, Refused> {
        let Some(tokens) = &self.tokens else { return Ok(Asker::local()) };
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let text = value.to_str().unwrap_or_default();
            let (scheme, token) = text.split_once(' ').unwrap_or_default();
            let token = if scheme.eq_ignore_ascii_case("bearer") { token.trim() } else { "" };
            return tokens.check(token, now_s()).map(|token| Asker::of(&token, false));
        }
        let id = self.sessions.cookie(headers).and_then(|value| self.sessions.token(value)).ok_or(Refused::Unknown)?;
        tokens.valid(&id, now_s()).map(|token| Asker::of(&token, true))
    }

    fn is_shown_something(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(header::AUTHORIZATION) || self.sessions.cookie(headers).is_some()
    }

    /// The answer to a failed attempt. Beyond a few in a minute an address is told to wait; nothing
    /// more is logged, and a valid token still opens.
    fn refuse(&self, peer: IpAddr, refused: &Refused) -> Problem {
        if let Refused::File(error) = refused {
            tracing::error!(%error, "the tokens cannot be read, so nobody is let in");
            return Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "tokens-unreadable",
                "The tokens cannot be read; see the log of doseline",
            );
        }
        match self.failures.take(peer) {
            Ok(()) => {
                tracing::info!(%peer, "a request without a valid token was refused");
                Problem::new(
                    StatusCode::UNAUTHORIZED,
                    "not-authenticated",
                    "Send a valid token: `Authorization: Bearer dsl_…`; `doseline token create` makes one",
                )
            }
            Err(wait) => Problem::too_many("Too many failed attempts", wait),
        }
    }
}

/// Lets only known askers through, each at its pace.
pub async fn identify(State(access): State<Arc<Access>>, mut request: Request, next: Next) -> Response {
    match access.asker(request.headers()) {
        Ok(asker) => {
            if let Err(wait) = access.requests.take(asker.name.clone()) {
                return Problem::too_many("Too many requests of this token", wait).into_response();
            }
            request.extensions_mut().insert(asker.clone());
            let mut response = next.run(request).await;
            response.extensions_mut().insert(asker);
            response
        }
        Err(_) if page::is_asked_for(&request) => Redirect::to("/login").into_response(),
        // A request that shows nothing is no failed attempt.
        Err(Refused::Unknown) if !access.is_shown_something(request.headers()) => Problem::new(
            StatusCode::UNAUTHORIZED,
            "not-authenticated",
            "Send a token: `Authorization: Bearer dsl_…`; `doseline token create` makes one",
        )
        .into_response(),
        Err(refused) => access.refuse(peer(&request), &refused).into_response(),
    }
}

/// The address at the other end of the connection.
fn peer(request: &Request) -> IpAddr {
    request.extensions().get::<Peer>().map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |Peer(address)| *address)
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// Says that nothing may keep this answer.
fn no_store(mut response: Response) -> Response {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
