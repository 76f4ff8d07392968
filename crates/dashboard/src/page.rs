//! The web page: files that `cargo xtask web` builds, embedded in the program.
//!
//! A path that names no file gets the page itself, because the page reads its state from the path.
//! Files below `/assets` have the hash of their content in their name, so a browser keeps them.

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{Html, IntoResponse as _, Response},
    routing::get,
};
use rust_embed::{EmbeddedFile, RustEmbed};

use crate::problem::Problem;

/// A page loads script, style, fonts and images from this port or makes images itself, sends forms
/// to this port, contacts no other host, and cannot be framed.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; \
                          img-src 'self' data: blob:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; \
                          form-action 'self'";

/// The page of a program that was built without it.
const ABSENT: &str = "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>doseline</title>\n\
     <h1>doseline was built without its page</h1>\n\
     <p>The page is built with Node 18 or newer: run <code>cargo xtask web</code> in the checkout, then build \
     doseline again. <code>cargo xtask up</code> does both.</p>\n\
     <p>Everything else works. The figures are at <a href=\"/api/v1/openapi.json\">/api/v1</a>.</p>\n</html>\n";

const INDEX: &str = "index.html";
/// Folder of files whose names change with their content.
const ASSETS: &str = "assets/";
/// Compressed copies of a file, and the extension of each, the smallest first.
const ENCODINGS: [(&str, &str); 2] = [("br", ".br"), ("gzip", ".gz")];

#[derive(RustEmbed)]
#[folder = "web/dist"]
#[allow_missing = true]
struct Files;

/// The routes of the files. They are the same for everybody and show nothing of what is stored.
pub fn files<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let is_copy = |name: &str| ENCODINGS.iter().any(|(_, extension)| name.ends_with(extension));
    let named = Files::iter().filter(|name| !is_copy(name) && name != INDEX && !name.starts_with('.'));
    named.fold(Router::new(), |router, name| {
        let path = format!("/{name}");
        router.route(&path, get(async move |headers: HeaderMap| file(&name, &headers)))
    })
}

/// Whether a browser asks for the page, not a program for data or for a file.
pub fn is_asked_for(request: &Request) -> bool {
    let accepted = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let path = request.uri().path();
    is_page(request.method(), path) && (path == "/" || accepted.contains("text/html"))
}

/// Whether a request that no route takes is one for the page.
fn is_page(method: &Method, path: &str) -> bool {
    let is_below =
        |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    matches!(*method, Method::GET | Method::HEAD) && !["/api", "/assets"].into_iter().any(is_below)
}

/// The page, for every path that nothing else has.
pub async fn page(method: Method, uri: axum::http::Uri, headers: HeaderMap) -> Response {
    if !is_page(&method, uri.path()) {
        return Problem::not_found().into_response();
    }
    let mut response = match Files::get(INDEX) {
        Some(_) => file(INDEX, &headers),
        None => ([(header::CACHE_CONTROL, "no-cache")], Html(ABSENT)).into_response(),
    };
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

/// A file in the smallest form that the asker takes.
fn file(name: &str, headers: &HeaderMap) -> Response {
    let accepted = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    let accepted: Vec<&str> = accepted.flat_map(|value| value.split(',')).collect();
    let copy = ENCODINGS
        .into_iter()
        .filter(|(encoding, _)| accepted.iter().any(|range| takes(range, encoding)))
        .find_map(|(encoding, extension)| Some((Files::get(&format!("{name}{extension}"))?, Some(encoding))));
    let Some((file, encoding)) = copy.or_else(|| Some((Files::get(name)?, None))) else {
        return Problem::not_found().into_response();
    };
    let EmbeddedFile { data, metadata } = file;
    let tag: String = metadata.sha256_hash().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{tag}\"");
    let caching = if name.starts_with(ASSETS) { "public, max-age=31536000, immutable" } else { "no-cache" };
    let about = [
        (header::ETAG, tag.as_str()),
        (header::CACHE_CONTROL, caching),
        (header::VARY, "Accept-Encoding"),
        (header::CONTENT_TYPE, media_type(name)),
    ];
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    if known.flat_map(|value| value.split(',')).any(|known| known.trim() == tag) {
        return (StatusCode::NOT_MODIFIED, about).into_response();
    }
    let encoding = encoding.map(|encoding| [(header::CONTENT_ENCODING, encoding)]);
    let mut response = (about, data.into_owned()).into_response();
    for (name, value) in encoding.into_iter().flatten() {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether one range of `Accept-Encoding` names this encoding and does not refuse it.
fn takes(range: &str, encoding: &str) -> bool {
    let mut parts = range.split(';').map(str::trim);
    let is_named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(encoding));
    let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(Ok(1.0), str::parse::<f32>);
    is_named && quality.is_ok_and(|quality| quality > 0.0)
}

fn media_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        "webmanifest" => "application/manifest+json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_encoding_is_taken_unless_it_is_refused() {
        assert!(takes(" br", "br") && takes("GZIP;q=0.1", "gzip"));
        assert!(!takes("br;q=0", "br") && !takes("gzip", "br") && !takes("br;q=x", "br") && !takes("", "br"));
    }

    #[test]
    fn the_page_leaves_the_interface_and_its_files_alone() {
        for path in ["/", "/fleet", "/devices/acme/d-1", "/apiary", "/assetsx"] {
            assert!(is_page(&Method::GET, path), "{path}");
        }
        for path in ["/api", "/api/v1/none", "/assets/gone.js", "/assets"] {
            assert!(!is_page(&Method::GET, path), "{path}");
        }
        assert!(!is_page(&Method::POST, "/fleet"));
    }
}
