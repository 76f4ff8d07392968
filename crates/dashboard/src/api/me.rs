//! Who asks.

use axum::{
    Json,
    extract::Extension,
    response::{IntoResponse as _, Response},
};
use serde_json::json;
use warehouse::sight::Sight;

use super::parameters;
use crate::access::Asker;

/// Says what the token of this request may do.
pub async fn me(
    Extension(asker): Extension<Asker>,
    axum::extract::RawQuery(query): axum::extract::RawQuery,
) -> Response {
    if let Err(problem) = parameters::query(query.as_deref(), &[]) {
        return problem.into_response();
    }
    let (tenants, manufacturer) = match &asker.sight {
        Sight::All => (None, None),
        Sight::Tenants(tenants) => (Some(tenants), None),
        Sight::Manufacturer(manufacturer) => (None, Some(manufacturer)),
    };
    let body = json!({
        "id": asker.name,
        "role": asker.role,
        "tenants": tenants,
        "manufacturer": manufacturer,
        "expires_s": asker.expires_s,
        "signed_in": asker.has_cookie,
    });
    Json(body).into_response()
}
