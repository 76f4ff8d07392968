//! The dashboard: one web page, and the panels that it shows, as JSON.
//!
//! Purpose: it shows a clinic chain its fleet, through the same public views that Grafana and SQL
//! tools use.
//!
//! Absent: state, writing, and figures of its own. Each panel is one query over the views.
//!
//! Invariants: a tenant is bound as a query parameter, never pasted into SQL. Every answer has a
//! limit of rows. ClickHouse gets the query of each panel and tenant at most once in `FRESH`,
//! however many pages are open. There are never more than `QUESTIONS_MAX` queries at once, even if
//! a client invents tenants.

mod cache;
mod panel;

use async_recursion::async_recursion as boxed;
use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;
use service::role_faults::RoleFaults;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use warehouse::Warehouse;

use crate::{cache::Cache, panel::Panel};

const PAGE: &str = include_str!("index.html");
const SCRIPT: &str = include_str!("page.js");
/// The page contains its style and icon, loads its script from this port, contacts no other host,
/// and cannot be framed.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'unsafe-inline'; img-src data:; \
                           connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

/// Greatest age of an answer. The page asks every 3 s.
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
    /// Problems of roles in the same process, which `/readyz` reports.
    pub faults: RoleFaults,
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
    faults: RoleFaults,
    warehouse: Warehouse,
}

impl Dashboard {
    /// Binds the address.
    ///
    /// # Errors
    /// [`Error::Listen`].
    #[boxed]
    pub async fn bind(options: Options, warehouse: Warehouse) -> Result<Self, Error> {
        let listen = |source| Error::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let Options { names, faults, .. } = options;
        Ok(Self { listener, address, names, faults, warehouse })
    }

    /// The address it listens on, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is cancelled.
    ///
    /// # Errors
    /// [`Error::Serve`].
    #[boxed]
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let router = Router::new()
            .route(
                "/",
                get(|| async {
                    ([(header::CACHE_CONTROL, "no-cache"), (header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(PAGE))
                }),
            )
            .route("/page.js", get(|| async { ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], SCRIPT) }))
            .route("/api/{panel}", get(panel))
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .with_state(Arc::new(Source {
                warehouse: self.warehouse,
                faults: self.faults,
                cache: Cache::new(FRESH),
                questions: Semaphore::new(QUESTIONS_MAX),
            }));
        service::listener::serve(self.listener, self.names, router, shutdown).await.map_err(Error::Serve)
    }
}

/// The source of the answers.
struct Source {
    warehouse: Warehouse,
    faults: RoleFaults,
    cache: Cache,
    /// One permit for each running query.
    questions: Semaphore,
}

/// Why a panel has no answer.
enum Failed {
    /// Too many other queries were waiting.
    Busy,
    /// ClickHouse refused the query or failed.
    Asked(warehouse::Error),
}

impl Source {
    async fn ask(&self, panel: &Panel, tenant: &str) -> Result<Vec<u8>, Failed> {
        let turn = tokio::time::timeout(TURN_WITHIN, self.questions.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(Failed::Busy) };
        panel.rows(&self.warehouse, tenant).await.map_err(Failed::Asked)
    }
}

#[derive(Deserialize)]
struct Filter {
    /// The tenant; empty or absent means all.
    #[serde(default)]
    tenant: String,
}

async fn panel(State(source): State<Arc<Source>>, Path(name): Path<String>, Query(filter): Query<Filter>) -> Response {
    let Some(panel) = Panel::named(&name) else {
        let names: Vec<_> = Panel::ALL.iter().map(|panel| panel.name).collect();
        let text = format!("there is no panel {name:?}; there are {}", names.join(", "));
        return failure(StatusCode::NOT_FOUND, &text);
    };
    let tenant = filter.tenant.as_str();
    if tenant.len() > TENANT_BYTES_MAX {
        let text = format!("tenant: {} bytes, at most {TENANT_BYTES_MAX} are possible", tenant.len());
        return failure(StatusCode::BAD_REQUEST, &text);
    }
    match source.cache.get((panel.name, tenant), source.ask(panel, tenant)).await {
        Ok(json) => {
            ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-cache")], json).into_response()
        }
        Err(Failed::Busy) => {
            failure(StatusCode::SERVICE_UNAVAILABLE, "too many panels are asked for at once; ask again in a while")
        }
        Err(Failed::Asked(error)) => {
            tracing::warn!(panel = name, %error, "panel could not be read");
            failure(StatusCode::BAD_GATEWAY, "ClickHouse could not be asked; see the log of the dashboard")
        }
    }
}

async fn ready(State(source): State<Arc<Source>>) -> Response {
    let faults = source.faults.lines();
    match source.warehouse.row::<u8>("SELECT toUInt8(1)").await {
        Ok(_) if faults.is_empty() => "ok\n".into_response(),
        Ok(_) => failure(StatusCode::SERVICE_UNAVAILABLE, &faults.join("; ")),
        Err(error) => failure(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    }
}

fn failure(status: StatusCode, text: &str) -> Response {
    (status, Json(serde_json::json!({ "error": text }))).into_response()
}
