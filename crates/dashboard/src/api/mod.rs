//! The HTTP interface below `/api/v1`: rows of the public views, for the page and for programs.
//!
//! Every endpoint is a constant ([`endpoint::Endpoint`]) in the file of its resource. Its route,
//! checks of its parameters, query, answer and description follow from that constant.
//!
//! Invariants: no SQL comes from outside; a value is a quoted literal. Each query runs with what
//! its asker may see ([`warehouse::sight`]) and has limits of rows, bytes, memory and time. What is
//! not the asker's is answered as what does not exist.

mod alerts;
mod answer;
mod audit;
mod audit_sheet;
mod calibrations;
mod charts;
mod cohorts;
mod cursor;
mod cycles;
mod deliveries;
mod devices;
mod endpoint;
mod errors;
mod evidence;
mod fleet;
mod incidents;
mod items;
mod labels;
mod manufacturer;
mod me;
mod openapi;
mod overview;
pub mod parameters;
mod pipeline;
mod quarantine;
mod row;
mod search;
mod sessions;
mod sterility;
mod tenants;
mod verdicts;
mod write;

use std::sync::Arc;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Extension, Path, RawQuery, State, rejection::PathRejection},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde_json::Value;

use self::{
    answer::Form,
    endpoint::{Endpoint, Object, Shape},
    parameters::{Given, Pairs},
};
use crate::{Source, access::Asker, changes, problem::Problem};

/// Where the interface begins.
pub const ROOT: &str = "/api/v1";

/// Rows of a page where nobody says how many.
const LIMIT: usize = 100;
/// Most rows of a page.
const LIMIT_MAX: usize = 1_000;

/// All endpoints that answer with rows.
fn endpoints() -> impl Iterator<Item = &'static Endpoint> {
    [
        tenants::ENDPOINTS,
        overview::ENDPOINTS,
        fleet::ENDPOINTS,
        devices::ENDPOINTS,
        errors::ENDPOINTS,
        charts::ENDPOINTS,
        deliveries::ENDPOINTS,
        sessions::ENDPOINTS,
        items::ENDPOINTS,
        cycles::ENDPOINTS,
        sterility::ENDPOINTS,
        alerts::ENDPOINTS,
        evidence::ENDPOINTS,
        incidents::ENDPOINTS,
        calibrations::ENDPOINTS,
        verdicts::ENDPOINTS,
        audit_sheet::ENDPOINTS,
        search::ENDPOINTS,
        manufacturer::ENDPOINTS,
        cohorts::ENDPOINTS,
        quarantine::ENDPOINTS,
        pipeline::ENDPOINTS,
        audit::ENDPOINTS,
    ]
    .into_iter()
    .flatten()
}

/// The routes of the interface.
pub fn router() -> Router<Arc<Source>> {
    let router = Router::new()
        .route(&format!("{ROOT}/me"), get(me::me))
        .route(&format!("{ROOT}/labels"), get(labels::labels))
        .route(&format!("{ROOT}/openapi.json"), get(openapi::openapi))
        .route(&format!("{ROOT}/changes"), get(changes::changes));
    let [acknowledge, incidents, replay] = [0, 1, 2].map(|index| format!("{ROOT}{}", write::POSTS[index].path));
    let writing = Router::new()
        .route(&acknowledge, post(write::acknowledge))
        .route(&incidents, post(write::report))
        .route(&replay, post(write::replay))
        .layer(DefaultBodyLimit::max(write::BODY_BYTES_MAX));
    let router = router.merge(writing);
    endpoints().fold(router, |router, endpoint| {
        let handler = move |source: State<Arc<Source>>, asker, path, query, headers| {
            serve(endpoint, source, asker, path, query, headers)
        };
        router.route(&format!("{ROOT}{}", endpoint.path), get(handler))
    })
}

async fn serve(
    endpoint: &'static Endpoint,
    State(source): State<Arc<Source>>,
    Extension(asker): Extension<Asker>,
    path: Result<Path<Pairs>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    match rows(endpoint, &source, &asker, path, query.as_deref(), &headers).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

async fn rows(
    endpoint: &'static Endpoint,
    source: &Source,
    asker: &Asker,
    path: Result<Path<Pairs>, PathRejection>,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    if !endpoint.audience.admits(asker.role) {
        let detail = format!("This needs a token with one of the roles {}", endpoint.audience.text());
        return Err(Problem::new(StatusCode::FORBIDDEN, "wrong-role", detail));
    }
    let form = Form::accepted(headers)?;
    // A path that is no UTF-8 names nothing that exists.
    let Path(path) = path.map_err(|_| Problem::not_found())?;
    let given = Given::read(endpoint, path, query, &asker.sight)?;
    let warehouse = source.warehouse.seen_by(&given.sight);
    let read = async |sql: String| {
        let asked = source.ask((endpoint.rows.read)(&warehouse, sql)).await;
        asked.map_err(|failed| failed.problem(endpoint.path))
    };
    let inner = given.sql(endpoint, &source.faults.lines());
    let fields = (endpoint.rows.fields)();
    match endpoint.shape {
        Shape::One => {
            let sql = format!("SELECT * FROM ({inner}) LIMIT 1");
            if form == Form::Sql {
                return Ok(answer::sql(&sql, headers));
            }
            let rows = read(sql).await?;
            let row = rows.into_iter().next().ok_or_else(Problem::not_found)?;
            answer::one(form, &fields, row, headers)
        }
        Shape::List { keys, newest_first } => {
            let order = if newest_first { (" DESC", "<") } else { ("", ">") };
            let names = keys.iter().map(|key| format!("`{}`", key.name())).collect::<Vec<_>>();
            let from = match &given.cursor {
                None => String::new(),
                Some(literals) => format!("WHERE ({}) {} ({})", names.join(", "), order.1, literals.join(", ")),
            };
            let columns = names.iter().map(|name| format!("{name}{}", order.0)).collect::<Vec<_>>().join(", ");
            let limit = given.limit;
            let sql = format!("SELECT * FROM ({inner}) {from} ORDER BY {columns} LIMIT {}", limit + 1);
            if form == Form::Sql {
                return Ok(answer::sql(&sql, headers));
            }
            let mut rows: Vec<Object> = read(sql).await?;
            let has_more = rows.len() > limit;
            rows.truncate(limit);
            let next = rows.last().filter(|_| has_more).map(|last| cursor::after(last, keys, &given.digest));
            let next = next.map(|cursor| (given.link(&cursor), cursor));
            answer::list(form, &fields, rows.into_iter().map(Value::Object).collect(), next, headers)
        }
        Shape::Computed => {
            if form == Form::Sql {
                return Ok(answer::sql(&inner, headers));
            }
            let rows: Vec<Object> = read(inner).await?;
            let left_out = rows.len().saturating_sub(given.limit);
            let rows = rows.into_iter().skip(left_out).map(Value::Object).collect();
            answer::list(form, &fields, rows, None, headers)
        }
    }
}
