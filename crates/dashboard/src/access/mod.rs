//! Who asks: everybody who reaches a loopback port, the holder of a token, or a person who signed
//! in at an OpenID provider ([`oidc`]).
//!
//! A program sends the token in each request (`Authorization: Bearer …`). A browser shows it once,
//! at `/login`, and has a cookie from then on. Revoking a token ends its log-ins with the next
//! request.

mod id_token;
pub(crate) mod login;
pub mod oidc;
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
    oidc::Oidc,
    pace::Pace,
    sessions::{Cookie, Sessions, Who},
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
    /// Persons whom an OpenID provider knows, and holders of a token of the file, if there is one.
    Oidc { settings: Box<oidc::Settings>, tokens: Option<PathBuf> },
}

/// Somebody who may ask.
#[derive(Clone, Debug)]
pub struct Asker {
    /// Id of the token; `oidc:` and the subject of a person; `local` if everybody may ask.
    pub name: String,
    pub role: Role,
    pub sight: Sight,
    /// When the token or the log-in of the person ends, s since 1970; none if everybody may ask.
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
    tokens: Option<Tokens>,
    oidc: Option<Oidc>,
    /// Whether everybody may ask.
    is_open: bool,
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
        let is_open = matches!(auth, Auth::None);
        let (path, oidc) = match auth {
            Auth::None => (None, None),
            Auth::Tokens(path) => (Some(path), None),
            Auth::Oidc { settings, tokens } => (tokens, Some(Oidc::new(*settings))),
        };
        let tokens = match path {
            None => None,
            Some(path) => {
                let tokens = Tokens::open(path.clone())?;
                if oidc.is_none() && tokens.is_empty(now_s()) {
                    tracing::warn!(file = %path.display(), "no token is valid, so nobody can ask; run `doseline token create`");
                }
                Some(tokens)
            }
        };
        let (requests, failures) = (Pace::new(requests_per_min), Pace::new(FAILURES_PER_MINUTE));
        Ok(Self { tokens, oidc, is_open, sessions: Sessions::new(is_tls), requests, failures })
    }

    /// Whether everybody may ask.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether persons sign in at an OpenID provider.
    pub fn has_provider(&self) -> bool {
        self.oidc.is_some()
    }

    /// Who asks with these headers.
    ///
    /// # Errors
    /// Nobody whom this lock knows.
    pub fn asker(&self, headers: &HeaderMap) -> Result<Asker, Refused> {
        if self.is_open {
            return Ok(Asker::local());
        }
        let tokens = || self.tokens.as_ref().ok_or(Refused::Unknown);
        if let Some(value) = headers.get(header::AUTHORIZATION) {
            let text = value.to_str().unwrap_or_default();
            let (scheme, token) = text.split_once(' ').unwrap_or_default();
            let token = if scheme.eq_ignore_ascii_case("bearer") { token.trim() } else { "" };
            return tokens()?.check(token, now_s()).map(|token| Asker::of(&token, false));
        }
        let value = self.sessions.cookie(headers, Cookie::LogIn).ok_or(Refused::Unknown)?;
        match self.sessions.who(value).ok_or(Refused::Unknown)? {
            Who::Token(id) => tokens()?.valid(&id, now_s()).map(|token| Asker::of(&token, true)),
            Who::Person(person) if person.expires_s > now_s() => Ok(Asker::of(&person, true)),
            Who::Person(_) => Err(Refused::Unknown),
        }
    }

    fn is_shown_something(&self, headers: &HeaderMap) -> bool {
        headers.contains_key(header::AUTHORIZATION) || self.sessions.cookie(headers, Cookie::LogIn).is_some()
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
