//! What people write: acknowledgements, incidents, replays of quarantine.
//!
//! An acknowledgement and an incident are commands, as those of the command line: the loader writes
//! them into the tables and into the audit. What a role may not do, the loader refuses, and the
//! audit says so. An answer is given when ClickHouse holds what was written, so whoever asks next
//! reads it.
//!
//! Against requests that another site makes a browser send, the door refuses foreign origins, the
//! body must be JSON, and who is signed in with a cookie must send a header that no form can.

use std::sync::Arc;

use axum::{
    body::Bytes,
    extract::{
        Extension, Path, RawQuery, State,
        rejection::{BytesRejection, PathRejection},
    },
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::json;
use service::time::now_us;
use sha2::{Digest as _, Sha256};
use telemetry::{
    command::Command,
    commands::{self, AddIncident, command::Kind},
    quarantine::Id,
};
use warehouse::{audit::Outcome, sight::Sight};

use super::{
    alerts,
    endpoint::Endpoint,
    incidents,
    parameters::{self, Pairs},
    quarantine,
    row::row,
    rows,
};
use crate::{
    Source,
    access::{
        Asker,
        tokens::{Role, hex},
    },
    problem::Problem,
    write::NotWritten,
};

/// Longest body, bytes. A note has 4,096.
pub const BODY_BYTES_MAX: usize = 16 * 1_024;
/// Longest idempotency key, bytes.
const KEY_BYTES_MAX: usize = 100;
/// What a page sends that a form of another site cannot.
pub const OWN_REQUEST: HeaderName = HeaderName::from_static("x-doseline-request");
/// Under which a request may be repeated.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A path that takes a POST.
pub struct Post {
    pub path: &'static str,
    pub about: &'static str,
    pub roles: &'static str,
    /// Parameters in the path.
    pub parameters: &'static [(&'static str, &'static str)],
    /// Fields of the body. In `up`, where nobody signs in, `by` is one more.
    pub body: &'static [Text],
    /// Status of the answer, and its schema.
    pub answer: (u16, &'static str),
}

/// A text in a body.
pub struct Text {
    pub name: &'static str,
    pub about: &'static str,
    pub is_required: bool,
    pub words: &'static [&'static str],
    pub bytes_max: usize,
}

impl Text {
    const fn new(name: &'static str, about: &'static str, is_required: bool, bytes_max: usize) -> Self {
        Self { name, about, is_required, words: &[], bytes_max }
    }
}

/// Kinds of subjects of incidents.
const SUBJECT_KINDS: &[&str] = &["SESSION", "ITEM", "LOT", "CYCLE"];
const TENANT: (&str, &str) = ("tenant", "Tenant");

pub const POSTS: &[Post] = &[
    Post {
        path: "/tenants/{tenant}/alerts/{alert}/acknowledge",
        about: "Acknowledges an alert in its present state",
        roles: "operator, admin",
        parameters: &[TENANT, ("alert", "Key of the alert, percent-encoded")],
        body: &[Text::new("note", "What was done", false, telemetry::command::NOTE_LEN_MAX)],
        answer: (200, "Alert"),
    },
    Post {
        path: "/incidents",
        about: "Records an incident",
        roles: "operator, admin",
        parameters: &[],
        body: &[
            Text::new("tenant", "Tenant", true, parameters::VALUE_BYTES_MAX),
            Text { words: SUBJECT_KINDS, ..Text::new("kind", "What it is about", true, 16) },
            Text::new("subject", "Which one: an id as the tables have it", true, 256),
            Text::new("note", "What happened", true, telemetry::command::NOTE_LEN_MAX),
        ],
        answer: (201, "Incident"),
    },
    Post {
        path: "/tenants/{tenant}/quarantine/{id}/replay",
        about: "Sends a row of quarantine through the loader again",
        roles: "operator, admin",
        parameters: &[TENANT, ("id", "Name of the row")],
        body: &[],
        answer: (200, "Replayed"),
    },
];

row! {
    /// What became of a row of quarantine that was replayed.
    pub struct Replayed {
        /// Rows that have left the quarantine
        replayed: u64,
        /// Events that were stored
        stored: u64,
        /// Events that were stored before
        duplicates: u64,
        /// Events that stay in quarantine, each as a row of its own
        refused: u64,
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Acknowledge {
    #[serde(default)]
    note: String,
    by: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Incident {
    tenant: String,
    kind: String,
    subject: String,
    note: String,
    by: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Replay {
    by: Option<String>,
}

/// A request that writes, as far as all of them are alike.
struct Request {
    source: Arc<Source>,
    asker: Asker,
    path: Pairs,
    headers: HeaderMap,
    body: Bytes,
}

type Paths = Result<Path<Pairs>, PathRejection>;
type Body = Result<Bytes, BytesRejection>;

pub async fn acknowledge(
    source: State<Arc<Source>>,
    asker: Extension<Asker>,
    path: Paths,
    query: RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answer = async { Request::read(source, asker, path, query, headers, body)?.acknowledge().await };
    answer.await.unwrap_or_else(Problem::into_response)
}

pub async fn report(
    source: State<Arc<Source>>,
    asker: Extension<Asker>,
    path: Paths,
    query: RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answer = async { Request::read(source, asker, path, query, headers, body)?.report().await };
    answer.await.unwrap_or_else(Problem::into_response)
}

pub async fn replay(
    source: State<Arc<Source>>,
    asker: Extension<Asker>,
    path: Paths,
    query: RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answer = async { Request::read(source, asker, path, query, headers, body)?.replay().await };
    answer.await.unwrap_or_else(Problem::into_response)
}

fn bad_body(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "bad-body", detail)
}

fn wrong_role(roles: &str) -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "wrong-role", format!("This needs a token with one of the roles {roles}"))
}

impl Request {
    /// What every request that writes must have.
    fn read(
        State(source): State<Arc<Source>>,
        Extension(asker): Extension<Asker>,
        path: Paths,
        RawQuery(query): RawQuery,
        headers: HeaderMap,
        body: Body,
    ) -> Result<Self, Problem> {
        if asker.role == Role::Manufacturer {
            return Err(wrong_role("operator, admin"));
        }
        if asker.has_cookie && headers.get(OWN_REQUEST).is_none_or(|value| value != "1") {
            let detail = "Only a page of this port may send this: the header `X-Doseline-Request: 1` is missing";
            return Err(Problem::new(StatusCode::FORBIDDEN, "foreign-form", detail));
        }
        parameters::query(query.as_deref(), &[])?;
        // A path that is no UTF-8 names nothing that exists.
        let Path(path) = path.map_err(|_| Problem::not_found())?;
        for (name, value) in &path {
            parameters::check_length(name, value)?;
        }
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
            let detail = "The body must be JSON: `Content-Type: application/json`";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", detail));
        }
        let body = body.map_err(|_| {
            let detail = format!("The body did not arrive whole, or has more than {BODY_BYTES_MAX} bytes");
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body-too-large", detail)
        })?;
        Ok(Self { source, asker, path, headers, body })
    }

    fn body<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        // The text of the error names fields and places, and no values of other requests.
        serde_json::from_slice(&self.body).map_err(|error| bad_body(format!("The body is not as described: {error}")))
    }

    /// Who writes. Where nobody signs in, the body must say who it is.
    fn author(&self, by: Option<String>) -> Result<String, Problem> {
        match (self.source.access.is_open(), by) {
            (true, Some(by)) if !by.trim().is_empty() => Ok(by),
            (true, _) => Err(bad_body("by is missing: nobody signs in here, so the body must say who writes")),
            (false, None) => Ok(self.asker.name.clone()),
            (false, Some(_)) => Err(bad_body("by is who has signed in; leave it out")),
        }
    }

    /// The part of the asker's sight that concerns a tenant.
    fn sight_of(&self, tenant: &str) -> Result<Sight, Problem> {
        self.asker.sight.of_tenant(tenant).ok_or_else(Problem::not_found)
    }

    fn path(&self, name: &str) -> String {
        self.path.get(name).cloned().unwrap_or_default()
    }

    /// The key that the request names.
    fn key(&self) -> Result<Option<String>, Problem> {
        let Some(value) = self.headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
        let text = value.to_str().unwrap_or_default();
        if text.is_empty() || text.len() > KEY_BYTES_MAX {
            let detail = format!("Idempotency-Key must be 1 to {KEY_BYTES_MAX} characters of ASCII");
            return Err(Problem::new(StatusCode::BAD_REQUEST, "bad-header", detail));
        }
        Ok(Some(text.to_owned()))
    }

    /// Gives a command, and returns what became of it.
    async fn give(
        &self,
        tenant: &str,
        author: String,
        given_us: i64,
        key: Option<String>,
        kind: Kind,
    ) -> Result<Outcome, Problem> {
        let role = match self.asker.role {
            Role::Viewer => commands::Role::Viewer,
            Role::Operator => commands::Role::Operator,
            Role::Manufacturer => commands::Role::Manufacturer,
            Role::Admin => commands::Role::Admin,
        };
        let idempotency_key = key.unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
        let message = commands::Command {
            tenant: tenant.to_owned(),
            author,
            role: role.into(),
            given_us,
            idempotency_key,
            kind: Some(kind),
        };
        let command = Command::new(message).map_err(|reject| bad_body(reject.detail))?;
        let forbidden = command.forbidden();
        let outcome = self.source.writer.give(command).await.map_err(|failed| failed.problem())?;
        match (outcome.outcome.as_str(), forbidden) {
            ("REFUSED", Some(_)) => Err(wrong_role("operator, admin")),
            ("REFUSED", None) => {
                Err(Problem::new(StatusCode::CONFLICT, "refused", format!("Nothing was written: {}", outcome.reason)))
            }
            _ => Ok(outcome),
        }
    }

    /// The row of an endpoint, as whoever asks for it gets it.
    async fn row(&self, endpoint: &'static [Endpoint], path: &str, parameters: Pairs) -> Result<Response, Problem> {
        let endpoint = endpoint.iter().find(|endpoint| endpoint.path == path).ok_or_else(Problem::not_found)?;
        // Not its entity tag: that a row is known does not mean that it was written.
        let accept = self.headers.get(header::ACCEPT).map(|accept| (header::ACCEPT, accept.clone()));
        let headers = HeaderMap::from_iter(accept);
        rows(endpoint, &self.source, &self.asker, Ok(Path(parameters)), None, &headers).await
    }

    async fn acknowledge(self) -> Result<Response, Problem> {
        let Acknowledge { note, by } = self.body()?;
        let (author, key) = (self.author(by)?, self.key()?);
        let (tenant, alert_key) = (self.path("tenant"), self.path("alert"));
        let warehouse = self.source.warehouse.seen_by(&self.sight_of(&tenant)?);
        let keys = [alert_key];
        let asked = self.source.ask(warehouse.alerts(&keys)).await;
        let found = asked.map_err(|failed| failed.problem("acknowledge"))?;
        let alert = found.into_iter().find(|alert| alert.tenant == tenant).ok_or_else(Problem::not_found)?;
        let kind = Kind::AcknowledgeAlert(alert.acknowledgement(note));
        self.give(&tenant, author, now_us(), key, kind).await?;
        self.row(alerts::ENDPOINTS, "/tenants/{tenant}/alerts/{alert}", self.path.clone()).await
    }

    async fn report(self) -> Result<Response, Problem> {
        let Incident { tenant, kind, subject, note, by } = self.body()?;
        let (author, key) = (self.author(by)?, self.key()?);
        let warehouse = self.source.warehouse.seen_by(&self.sight_of(&tenant)?);
        if !SUBJECT_KINDS.contains(&kind.as_str()) {
            return Err(bad_body(format!("kind must be one of {}", SUBJECT_KINDS.join(", "))));
        }
        let subject = if kind == "SESSION" { subject.to_lowercase() } else { subject };
        if subject.trim().is_empty() || subject.len() > parameters::VALUE_BYTES_MAX {
            let most = parameters::VALUE_BYTES_MAX;
            return Err(bad_body(format!("subject has {} bytes; it has 1 to {most}", subject.len())));
        }
        let asked = self.source.ask(warehouse.tenants_of(&kind, &subject)).await;
        if !asked.map_err(|failed| failed.problem("incidents"))?.contains(&tenant) {
            let detail = format!("Nothing is known of this {kind} in this tenant; give its id as the tables have it");
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown-subject", detail));
        }
        let given_us = now_us();
        // A repetition under the same key is the same incident.
        let incident_id = match &key {
            Some(key) => format!("INC-{}", hex(&Sha256::digest(format!("{tenant}\n{key}"))[..8])),
            None => format!("INC-{given_us}"),
        };
        let add = AddIncident { incident_id: incident_id.clone(), subject_kind: kind, subject, note };
        self.give(&tenant, author, given_us, key, Kind::AddIncident(add)).await?;
        let path = Pairs::from([("tenant".to_owned(), tenant), ("incident".to_owned(), incident_id)]);
        let mut response = self.row(incidents::ENDPOINTS, "/tenants/{tenant}/incidents/{incident}", path).await?;
        *response.status_mut() = StatusCode::CREATED;
        Ok(response)
    }

    async fn replay(self) -> Result<Response, Problem> {
        let Replay { by } = self.body()?;
        let author = self.author(by)?;
        let tenant = self.path("tenant");
        // Whoever may not see it may not replay it.
        self.row(quarantine::ENDPOINTS, "/tenants/{tenant}/quarantine/{id}", self.path.clone()).await?;
        let id: Id = self.path("id").parse().map_err(|_| Problem::not_found())?;
        let replayed = self.source.writer.replay(tenant, id, author).await.map_err(|failed| failed.problem())?;
        if !replayed.stays.is_empty() {
            let detail = format!("The row stays in quarantine: {}", replayed.stays);
            return Err(Problem::new(StatusCode::CONFLICT, "refused", detail));
        }
        let crate::write::Replayed { stored, duplicates, refused, .. } = replayed;
        let row = json!(Replayed { replayed: 1, stored, duplicates, refused });
        let headers = [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];
        Ok((headers, axum::Json(row)).into_response())
    }
}

impl NotWritten {
    /// What an asker is told: exactly what is known.
    fn problem(self) -> Problem {
        let unavailable = |kind, detail: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, kind, detail);
        match self {
            Self::Failed => unavailable("not-written", "Nothing was written; see the log of doseline"),
            Self::Busy => unavailable("busy", "Too many others write; nothing was written; try again in a while"),
            Self::Unconfirmed => unavailable(
                "unconfirmed",
                "Kafka has not confirmed it, and it may still arrive: look at the audit, or send it again with the same \
                 Idempotency-Key",
            ),
            Self::Late => unavailable(
                "late",
                "It is in Kafka, and ClickHouse does not hold it yet: it is applied as soon as a loader runs; do not send \
                 it again under another Idempotency-Key",
            ),
        }
    }
}
