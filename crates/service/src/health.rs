//! What a role says about itself: `/livez`, `/readyz` and `/metrics`.

use std::{io, net::SocketAddr};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::listener::{self, Port};

/// Media type of the OpenMetrics text format, as Prometheus expects it.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why a role is not ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Obstacle {
    /// What it concerns, for example `kafka` or `clickhouse`.
    pub part: &'static str,
    /// What is wrong, for a person.
    pub reason: String,
}

/// Whether a role is ready, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// Whether the role does its work.
    pub ready: bool,
    /// Everything that is in the way; empty if the role is ready.
    pub obstacles: Vec<Obstacle>,
}

impl Readiness {
    /// Ready if nothing is in the way.
    pub fn of(obstacles: Vec<Obstacle>) -> Self {
        Self { ready: obstacles.is_empty(), obstacles }
    }
}

/// A role, as its HTTP port shows it.
pub trait Role: Clone + Send + Sync + 'static {
    /// Whether the role is ready, for `/readyz`.
    fn readiness(&self) -> Readiness;
    /// All metrics in the OpenMetrics text format, for `/metrics`.
    fn metrics(&self) -> String;
}

/// Binds the port of a role, if it is to have one.
///
/// # Errors
/// The address that cannot be bound, and what the system says.
pub async fn bind(address: Option<SocketAddr>) -> Result<Option<TcpListener>, (SocketAddr, io::Error)> {
    let Some(address) = address else { return Ok(None) };
    TcpListener::bind(address).await.map(Some).map_err(|source| (address, source))
}

/// Serves a role until `shutdown`. `names` are host names by which the port may be called besides
/// its address.
pub async fn serve(listener: TcpListener, names: Vec<String>, role: impl Role, shutdown: CancellationToken) {
    let port = Port { listener, names, certificate: None, landing: None };
    if let Err(error) = listener::serve(port, router(role), shutdown).await {
        tracing::error!(%error, "the HTTP port has ended");
    }
}

fn router<R: Role>(role: R) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz::<R>))
        .route("/metrics", get(metrics::<R>))
        .with_state(role)
}

async fn readyz<R: Role>(State(role): State<R>) -> Response {
    let readiness = role.readiness();
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(readiness)).into_response()
}

async fn metrics<R: Role>(State(role): State<R>) -> Response {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], role.metrics()).into_response()
}
