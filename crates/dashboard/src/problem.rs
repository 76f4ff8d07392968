//! Errors of the interface as problem documents (RFC 9457), and the number of each request.

use std::time::{Duration, Instant};

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tracing::Instrument as _;

use crate::access::Asker;

/// Media type of a problem document.
pub const MEDIA_TYPE: &str = "application/problem+json";
/// The header that names a request; the log names it too.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Why a request has no answer. It names no value that another tenant could have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub status: StatusCode,
    /// Name of the kind of problem, for programs.
    pub kind: &'static str,
    /// What is wrong and what would be right, for people.
    pub detail: String,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

impl Problem {
    pub fn new(status: StatusCode, kind: &'static str, detail: impl Into<String>) -> Self {
        Self { status, kind, detail: detail.into(), retry_after: None }
    }

    /// What is asked for does not exist, or is not the asker's: the answer is the same.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is no such thing here")
    }

    /// The asker is too fast.
    pub fn too_many(what: &str, wait: Duration) -> Self {
        let detail = format!("{what}; try again after the time in `Retry-After`");
        let retry_after = Some(wait);
        Self { retry_after, ..Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", detail) }
    }
}

impl IntoResponse for Problem {
    /// [`number`] writes the document, because it knows the number of the request.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Gives each request a number, which stands in its log lines, in a header of its answer, and in a
/// problem document.
pub async fn number(request: Request, next: Next) -> Response {
    let id = format!("{:016x}", rand::random::<u64>());
    let span = tracing::info_span!("request", id);
    async {
        let (method, began) = (request.method().clone(), Instant::now());
        // As it came, still percent-encoded, and bounded.
        let path = request.uri().path().chars().take(80).collect::<String>();
        let mut response = next.run(request).await;
        let answered = response.status();
        let asker =
            response.extensions().get::<Asker>().map_or_else(|| "nobody".to_owned(), |asker| asker.name.clone());
        let took_ms = began.elapsed().as_millis();
        let (status, method) = (answered.as_u16(), method.as_str());
        match answered.is_server_error() {
            true => tracing::warn!(asker, method, path, status, took_ms, "answered"),
            false => tracing::debug!(asker, method, path, status, took_ms, "answered"),
        }
        if let Some(problem) = response.extensions_mut().remove::<Problem>() {
            let document = serde_json::json!({
                "type": format!("urn:doseline:problem:{}", problem.kind),
                "title": problem.status.canonical_reason().unwrap_or_default(),
                "status": problem.status.as_u16(),
                "detail": problem.detail,
                "instance": format!("urn:doseline:request:{id}"),
            });
            *response.body_mut() = document.to_string().into();
            let headers = response.headers_mut();
            headers.remove(header::CONTENT_LENGTH);
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
        if let Ok(id) = HeaderValue::from_str(&id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        response
    }
    .instrument(span)
    .await
}
