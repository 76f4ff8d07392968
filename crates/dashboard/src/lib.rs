//! The dashboard: one web page and its panels, and the HTTP interface `/api/v1`.
//!
//! Purpose: it shows a clinic chain its fleet, and a manufacturer its units, through the same
//! public views that Grafana and SQL tools use.
//!
//! Absent: state beside log-ins, and figures of its own. Each panel and each endpoint is one query
//! over the views. What people write is ordered from another task ([`mod@write`]), which knows
//! Kafka.
//!
//! Invariants: nobody unknown gets an answer unless the port is on the loopback interface. What an
//! asker may see is enforced inside ClickHouse ([`warehouse::sight`]). No text of a request is SQL.
//! Every answer has a limit of rows. ClickHouse gets the query of each panel and tenant at most
//! once in `FRESH`, however many pages are open. There are never more than `QUESTIONS_MAX` queries
//! at once, even if a client invents tenants.

pub mod access;
mod api;
mod cache;
mod changes;
mod page;
mod panel;
mod problem;
pub mod write;

use async_recursion::async_recursion as boxed;
use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Extension, Path, Query, State, rejection::QueryRejection},
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use service::{
    certificate::{self, Certificate},
    listener::Port,
    role_faults::RoleFaults,
    tls::ServerTls,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use warehouse::{Warehouse, sight::Sight};

use crate::{
    access::{Access, Asker, Auth, login, oidc, tokens},
    cache::Cache,
    changes::Changes,
    panel::Panel,
    problem::Problem,
    write::Writer,
};

/// The style of the form at `/login`.
const LOGIN_STYLE: &str = include_str!("login.css");
/// Greatest age of the answer of a panel.
const FRESH: Duration = Duration::from_millis(2_500);

/// Greatest number of concurrent queries. Others wait, so that ClickHouse has room for the loader.
const QUESTIONS_MAX: usize = 3;
/// Longest wait of a page for its query.
const TURN_WITHIN: Duration = Duration::from_secs(10);
/// Longest name of a tenant, as in topics. A query contains it several times.
const TENANT_BYTES_MAX: usize = 64;

/// Options of the dashboard.
#[derive(Clone, Debug)]
pub struct Options {
    /// Address to listen on; port 0 means any free port.
    pub listen: SocketAddr,
    /// Accepted host names besides the address.
    pub names: Vec<String>,
    /// Who may ask.
    pub auth: Auth,
    /// The certificate of the port; without one it speaks HTTP.
    pub tls: Option<ServerTls>,
    /// Whether a proxy with TLS stands before a port that speaks HTTP.
    pub behind_proxy: bool,
    /// Requests of one asker, per minute.
    pub requests_per_min: u32,
    /// Problems of roles in the same process, which `/readyz` reports.
    pub faults: RoleFaults,
    /// Who does what people write.
    pub writer: Writer,
}

/// Why the dashboard could not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be used.
    #[error("listen on {address}: {source}; choose another with serve.http or --http-port")]
    Listen {
        /// The address in the configuration.
        address: SocketAddr,
        /// Error of the operating system.
        source: std::io::Error,
    },
    /// Everybody on the network could read medical data.
    #[error(
        "serve.auth = \"none\" lets everybody who reaches {address} read medical data; set serve.auth = \"tokens\" and \
         serve.tokens_file, or an address of the loopback interface in serve.http"
    )]
    Open {
        /// The address in the configuration.
        address: SocketAddr,
    },
    /// Whoever is on the way could read tokens and medical data.
    #[error(
        "at {address} tokens and medical data would be sent without TLS; set serve.tls.certificate and serve.tls.key, or \
         serve.behind_proxy = true if a proxy with TLS stands before this port, or an address of the loopback interface in \
         serve.http"
    )]
    Plain {
        /// The address in the configuration.
        address: SocketAddr,
    },
    /// The certificate cannot be used.
    #[error("serve.tls: {0}")]
    Certificate(#[from] certificate::Unusable),
    /// The tokens cannot be read.
    #[error("read the tokens: {0}")]
    Tokens(#[from] tokens::Error),
    /// The server ended with an error.
    #[error("serve the dashboard: {0}")]
    Serve(std::io::Error),
}

/// A dashboard that listens and does not serve yet.
#[derive(Debug)]
pub struct Dashboard {
    listener: TcpListener,
    address: SocketAddr,
    names: Vec<String>,
    certificate: Option<Arc<Certificate>>,
    faults: RoleFaults,
    access: Access,
    warehouse: Warehouse,
    writer: Writer,
}

impl Dashboard {
    /// Binds the address.
    ///
    /// # Errors
    /// Any of [`Error`] but the last.
    #[boxed]
    pub async fn bind(options: Options, warehouse: Warehouse) -> Result<Self, Error> {
        let Options { listen, names, auth, tls, behind_proxy, requests_per_min, faults, writer } = options;
        if !listen.ip().is_loopback() {
            if matches!(auth, Auth::None) {
                return Err(Error::Open { address: listen });
            }
            if tls.is_none() && !behind_proxy {
                return Err(Error::Plain { address: listen });
            }
        }
        let certificate = tls.map(Certificate::open).transpose()?.map(Arc::new);
        let access = Access::new(auth, certificate.is_some(), requests_per_min)?;
        let failed = |source| Error::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, names, certificate, faults, access, warehouse, writer })
    }

    /// The address it listens on, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the page.
    pub fn url(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Serves until `shutdown` is cancelled.
    ///
    /// # Errors
    /// [`Error::Serve`].
    #[boxed]
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let has_provider = self.access.has_provider();
        let source = Arc::new(Source {
            warehouse: self.warehouse,
            faults: self.faults,
            certificate: self.certificate.clone(),
            access: Arc::new(self.access),
            cache: Cache::new(FRESH),
            questions: Semaphore::new(QUESTIONS_MAX),
            changes: Changes::new(shutdown.clone()),
            writer: self.writer,
        });
        let router = router(Arc::clone(&source));
        let watch = source.changes.watch(&source.warehouse);
        // The provider's site sends browsers back to it.
        let landing = has_provider.then_some(oidc::CALLBACK);
        let port = Port { listener: self.listener, names: self.names, certificate: self.certificate, landing };
        let serve = service::listener::serve(port, router, shutdown);
        // After the shutdown, requests under way are still answered.
        let (served, ()) = tokio::join!(serve, watch);
        served.map_err(Error::Serve)
    }
}

/// The routes: open ones, which show nothing of what is stored, and those that only askers get.
fn router(source: Arc<Source>) -> Router {
    let open = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/login.css", get(|| async { ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], LOGIN_STYLE) }))
        .route("/login", get(login::form).post(login::enter).layer(DefaultBodyLimit::max(login::FORM_BYTES_MAX)))
        .route("/logout", post(login::leave))
        .route("/oidc-begin", get(login::begin))
        .route(oidc::CALLBACK, get(login::finish));
    let closed = Router::new()
        .route("/api/{panel}", get(panel))
        .merge(api::router())
        .fallback(page::page)
        .layer(middleware::from_fn_with_state(Arc::clone(&source.access), access::identify));
    open.merge(page::files())
        .merge(closed)
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "This path does not take this method; `Allow` names those that it takes",
            )
        })
        .layer(middleware::from_fn(problem::number))
        .with_state(source)
}

/// The source of the answers.
struct Source {
    warehouse: Warehouse,
    faults: RoleFaults,
    certificate: Option<Arc<Certificate>>,
    access: Arc<Access>,
    cache: Cache,
    /// One permit for each running query.
    questions: Semaphore,
    changes: Changes,
    writer: Writer,
}

/// Why a question has no answer.
enum Failed {
    /// Too many other queries were waiting.
    Busy,
    /// ClickHouse refused the query or failed.
    Asked(warehouse::Error),
}

impl Source {
    /// Runs a query when it has its turn.
    async fn ask<T>(&self, query: impl Future<Output = Result<T, warehouse::Error>>) -> Result<T, Failed> {
        let turn = tokio::time::timeout(TURN_WITHIN, self.questions.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(Failed::Busy) };
        query.await.map_err(Failed::Asked)
    }
}

#[derive(Deserialize)]
struct Filter {
    /// The tenant; empty or absent means all.
    #[serde(default)]
    tenant: String,
}

async fn panel(
    State(source): State<Arc<Source>>,
    Extension(asker): Extension<Asker>,
    Path(name): Path<String>,
    filter: Result<Query<Filter>, QueryRejection>,
) -> Result<Response, Problem> {
    let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "bad-parameter", detail);
    let Some(panel) = Panel::named(&name) else {
        let names: Vec<_> = Panel::ALL.iter().map(|panel| panel.name).collect();
        let detail = format!("There is no such panel; there are {}", names.join(", "));
        return Err(Problem { detail, ..Problem::not_found() });
    };
    let Query(Filter { tenant }) = filter.map_err(|error| bad(error.to_string()))?;
    if tenant.len() > TENANT_BYTES_MAX {
        return Err(bad(format!("tenant has {} bytes; it has at most {TENANT_BYTES_MAX}", tenant.len())));
    }
    if matches!(asker.sight, Sight::Manufacturer(_)) {
        let detail = "The page is for clinics; manufacturers use /api/v1/manufacturer";
        return Err(Problem::new(StatusCode::FORBIDDEN, "wrong-role", detail));
    }
    let sight = match tenant.as_str() {
        "" => asker.sight,
        tenant => asker.sight.of_tenant(tenant).ok_or_else(Problem::not_found)?,
    };
    let question = (panel.name, format!("{sight:?}"));
    let warehouse = source.warehouse.seen_by(&sight);
    let answer = source.ask(panel.rows(&warehouse, &tenant));
    match source.cache.get((question.0, &question.1), answer).await {
        Ok(json) => {
            Ok(([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "private, no-cache")], json)
                .into_response())
        }
        Err(failed) => Err(failed.problem(panel.name)),
    }
}

impl Failed {
    /// What an asker is told. The text of ClickHouse may quote rows, so it goes to the log alone.
    fn problem(&self, what: &str) -> Problem {
        match self {
            Self::Busy => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "Too many queries wait for ClickHouse; try again in a while",
            ),
            Self::Asked(error) => {
                tracing::warn!(what, %error, "the query failed");
                Problem::new(
                    StatusCode::BAD_GATEWAY,
                    "query-failed",
                    "ClickHouse did not answer, or the answer is too large; narrow the query, or see the log of doseline",
                )
            }
        }
    }
}

/// Whether everything works. Strangers do not learn why not.
async fn ready(State(source): State<Arc<Source>>) -> Response {
    let mut faults = source.faults.lines();
    faults.extend(source.certificate.iter().filter_map(|certificate| certificate.fault()));
    let fault = match source.warehouse.row::<u8>("SELECT toUInt8(1)").await {
        Ok(_) if faults.is_empty() => return "ok\n".into_response(),
        Ok(_) => faults.join("; "),
        Err(error) => error.to_string(),
    };
    let text = if source.access.is_open() {
        fault
    } else {
        tracing::warn!(fault, "not ready");
        "not ready; see the log of doseline".to_owned()
    };
    (StatusCode::SERVICE_UNAVAILABLE, Json(serde_json::json!({ "error": text }))).into_response()
}
