//! The log-in of browsers: a form that takes a token, and a cookie for it.
//!
//! Against requests that another site makes a browser send, three things stand: the door refuses
//! other hosts, origins and sites; the cookie is `SameSite=Strict`; and what changes something must
//! say that it comes from a page of this port.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{Extension, State},
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse as _, Redirect, Response},
};
use service::listener::Peer;

use super::{no_store, now_s, tokens::Refused};
use crate::{Source, page::POLICY, problem::Problem};

const FORM: &str = include_str!("../login.html");
/// Where the form says why nobody was let in.
const MESSAGE: &str = "<!-- message -->";
/// Longest form, bytes. A token has 77.
pub const FORM_BYTES_MAX: usize = 1_024;

fn page(status: StatusCode, message: &str) -> Response {
    let html = FORM.replace(MESSAGE, message);
    no_store((status, [(header::CONTENT_SECURITY_POLICY, POLICY)], Html(html)).into_response())
}

/// The form.
pub async fn form() -> Response {
    page(StatusCode::OK, "")
}

/// Takes a token, and begins a log-in.
pub async fn enter(
    State(source): State<Arc<Source>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !is_of_this_page(&headers) {
        return foreign();
    }
    let access = &source.access;
    let Some(tokens) = &access.tokens else { return Redirect::to("./").into_response() };
    let text = form_urlencoded::parse(&body).find(|(key, _)| key == "token").map(|(_, value)| value.trim().to_owned());
    match tokens.check(&text.unwrap_or_default(), now_s()) {
        Ok(token) => {
            tracing::info!(token = token.id, role = %token.role, "somebody signed in");
            let value = access.sessions.begin(&token.id);
            let Ok(cookie) = access.sessions.set_cookie(&headers, &value) else {
                return page(StatusCode::INTERNAL_SERVER_ERROR, "");
            };
            no_store(([(header::SET_COOKIE, cookie)], Redirect::to("./")).into_response())
        }
        Err(Refused::File(error)) => {
            tracing::error!(%error, "the tokens cannot be read, so nobody is let in");
            page(StatusCode::SERVICE_UNAVAILABLE, "The tokens cannot be read; see the log of doseline.")
        }
        Err(Refused::Unknown) => {
            let peer = peer.map_or(std::net::Ipv4Addr::UNSPECIFIED.into(), |Extension(Peer(address))| address);
            match access.refuse(peer, &Refused::Unknown).status {
                StatusCode::TOO_MANY_REQUESTS => {
                    page(StatusCode::TOO_MANY_REQUESTS, "Too many failed attempts. Wait a minute.")
                }
                status => page(status, "This token is not valid. It may have expired or been revoked."),
            }
        }
    }
}

/// Ends a log-in.
pub async fn leave(State(source): State<Arc<Source>>, headers: HeaderMap) -> Response {
    if !is_of_this_page(&headers) {
        return foreign();
    }
    let sessions = &source.access.sessions;
    if let Some(value) = sessions.cookie(&headers) {
        sessions.end(value);
    }
    let Ok(cookie) = sessions.set_cookie(&headers, "") else { return page(StatusCode::INTERNAL_SERVER_ERROR, "") };
    no_store(([(header::SET_COOKIE, cookie)], Redirect::to("login")).into_response())
}

/// Whether a request says that a page of this port sent it. The door has refused a request that
/// names another site.
fn is_of_this_page(headers: &HeaderMap) -> bool {
    headers.contains_key(header::ORIGIN) || headers.get("sec-fetch-site").is_some_and(|site| site == "same-origin")
}

fn foreign() -> Response {
    Problem::new(
        StatusCode::FORBIDDEN,
        "foreign-form",
        "Only a page of this port may send this: `Origin` is missing; programs send `Authorization: Bearer dsl_…`",
    )
    .into_response()
}
