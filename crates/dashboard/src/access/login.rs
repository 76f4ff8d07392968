//! The log-in of browsers: a form that takes a token, or the way over an OpenID provider, and a
//! cookie for it.
//!
//! Against requests that another site makes a browser send, three things stand: the door refuses
//! other hosts, origins and sites; the cookie is `SameSite=Strict`; and what changes something must
//! say that it comes from a page of this port.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use axum::{
    body::Bytes,
    extract::{Extension, RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Redirect, Response},
};
use service::listener::Peer;

use super::{
    Access, no_store, now_s,
    sessions::{Cookie, Who},
    tokens::Refused,
};
use crate::{Source, page::POLICY, problem::Problem};

const FORM: &str = include_str!("../login.html");
/// Where the page says why nobody was let in.
const MESSAGE: &str = "<!-- message -->";
/// Where links to the OpenID provider stand.
const PROVIDER: &str = "<!-- provider -->";
/// Begin and end of the form for a token.
const TOKEN: [&str; 2] = ["<!-- token -->", "<!-- token, end -->"];
/// The page after a log-in at a provider. A redirect would not do: the browser would still be on
/// its way from the provider's site, and show this port no log-in.
const SIGNED_IN: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>doseline</title>\
<meta http-equiv=\"refresh\" content=\"0;url=/\"></head><body><p><a href=\"/\">Signed in: go on</a></p></body></html>";
/// Longest form, bytes. A token has 77.
pub const FORM_BYTES_MAX: usize = 1_024;

/// The page for signing in, by the ways that this port has.
fn page(access: &Access, status: StatusCode, message: &str) -> Response {
    let mut html = FORM.replace(MESSAGE, &escaped(message));
    if let Some(oidc) = &access.oidc {
        let mut links = "<p><a href=\"oidc-begin\">Sign in with your organisation</a></p>".to_owned();
        if let Some(end) = oidc.end_of_session() {
            links += &format!("\n<p><a href=\"{}\">Sign out of your organisation</a></p>", escaped(&end));
        }
        html = html.replace(PROVIDER, &links);
    }
    if access.tokens.is_none()
        && let Some((before, rest)) = html.split_once(TOKEN[0])
        && let Some((_, after)) = rest.split_once(TOKEN[1])
    {
        html = format!("{before}{after}");
    }
    no_store((status, [(header::CONTENT_SECURITY_POLICY, POLICY)], Html(html)).into_response())
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The page.
pub async fn form(State(source): State<Arc<Source>>) -> Response {
    page(&source.access, StatusCode::OK, "")
}

/// Sends a browser to the OpenID provider.
pub async fn begin(State(source): State<Arc<Source>>, headers: HeaderMap) -> Response {
    let access = &source.access;
    let Some(oidc) = &access.oidc else { return Problem::not_found().into_response() };
    match oidc.begin().await {
        Ok((value, address)) => with_cookie(access, &headers, Cookie::Attempt, &value, Redirect::to(&address)),
        Err(failed) => {
            tracing::error!(%failed, "nobody can sign in");
            page(access, failed.status(), &failed.to_string())
        }
    }
}

/// Takes a browser back from the OpenID provider, and begins a log-in.
pub async fn finish(
    State(source): State<Arc<Source>>,
    peer: Option<Extension<Peer>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let access = &source.access;
    let Some(oidc) = &access.oidc else { return Problem::not_found().into_response() };
    let cookie = access.sessions.cookie(&headers, Cookie::Attempt);
    match oidc.finish(&query.unwrap_or_default(), cookie, now_s()).await {
        Ok(person) => {
            tracing::info!(person = person.id, role = %person.role, "somebody signed in");
            let value = access.sessions.begin(Who::Person(Box::new(person)));
            let page = ([(header::CONTENT_SECURITY_POLICY, POLICY)], Html(SIGNED_IN));
            with_cookie(access, &headers, Cookie::LogIn, &value, page)
        }
        Err(failed) => {
            if access.failures.take(address(peer)).is_err() {
                return page(access, StatusCode::TOO_MANY_REQUESTS, TOO_MANY);
            }
            tracing::warn!(peer = %address(peer), %failed, "somebody was not let in");
            page(access, failed.status(), &failed.to_string())
        }
    }
}

const TOO_MANY: &str = "Too many failed attempts. Wait a minute.";

fn address(peer: Option<Extension<Peer>>) -> IpAddr {
    peer.map_or(Ipv4Addr::UNSPECIFIED.into(), |Extension(Peer(address))| address)
}

/// An answer that sets a cookie, or deletes it if `value` is empty.
fn with_cookie(
    access: &Access,
    headers: &HeaderMap,
    cookie: Cookie,
    value: &str,
    answer: impl IntoResponse,
) -> Response {
    match access.sessions.set_cookie(headers, cookie, value) {
        Ok(set) => no_store(([(header::SET_COOKIE, set)], answer).into_response()),
        Err(_) => page(access, StatusCode::INTERNAL_SERVER_ERROR, ""),
    }
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
            let value = access.sessions.begin(Who::Token(token.id));
            with_cookie(access, &headers, Cookie::LogIn, &value, Redirect::to("./"))
        }
        Err(Refused::File(error)) => {
            tracing::error!(%error, "the tokens cannot be read, so nobody is let in");
            page(access, StatusCode::SERVICE_UNAVAILABLE, "The tokens cannot be read; see the log of doseline.")
        }
        Err(Refused::Unknown) => match access.refuse(address(peer), &Refused::Unknown).status {
            StatusCode::TOO_MANY_REQUESTS => page(access, StatusCode::TOO_MANY_REQUESTS, TOO_MANY),
            status => page(access, status, "This token is not valid. It may have expired or been revoked."),
        },
    }
}

/// Ends a log-in.
pub async fn leave(State(source): State<Arc<Source>>, headers: HeaderMap) -> Response {
    if !is_of_this_page(&headers) {
        return foreign();
    }
    let access = &source.access;
    if let Some(value) = access.sessions.cookie(&headers, Cookie::LogIn) {
        access.sessions.end(value);
    }
    with_cookie(access, &headers, Cookie::LogIn, "", Redirect::to("login"))
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
