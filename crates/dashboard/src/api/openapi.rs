//! The OpenAPI 3.1 description of the interface, made from the endpoints themselves.

use std::sync::LazyLock;

use axum::{http::HeaderMap, response::Response};
use serde_json::{Map, Value, json};

use super::{
    ROOT, answer,
    endpoint::{Endpoint, Kind, Shape},
    endpoints,
    labels::Label,
    parameters::VALUE_BYTES_MAX,
    row::{Field, Row as _},
    write::{BODY_BYTES_MAX, POSTS, Post, Replayed},
};
use crate::problem::MEDIA_TYPE;

static DESCRIPTION: LazyLock<String> = LazyLock::new(|| description().to_string());

/// The description.
pub async fn openapi(headers: HeaderMap) -> Response {
    answer::tagged("application/json", DESCRIPTION.clone().into_bytes(), &headers)
}

fn description() -> Value {
    let mut schemas = Map::new();
    let mut paths = Map::new();
    for endpoint in endpoints() {
        schemas.insert(endpoint.rows.name.to_owned(), schema(&(endpoint.rows.fields)()));
        paths.insert(format!("{ROOT}{}", endpoint.path), json!({ "get": operation(endpoint) }));
    }
    for post in POSTS {
        let path = paths.entry(format!("{ROOT}{}", post.path)).or_insert_with(|| json!({}));
        path["post"] = posting(post);
    }
    paths.insert(format!("{ROOT}/changes"), json!({ "get": changes() }));
    schemas.insert(Replayed::NAME.to_owned(), schema(&Replayed::fields()));
    schemas.insert(Label::NAME.to_owned(), schema(&Label::fields()));
    schemas.insert("Problem".to_owned(), problem());
    schemas.insert("Asker".to_owned(), asker());
    let label = json!({ "name": "label", "in": "query", "required": true, "schema": text(),
        "description": "The text that was scanned: a GS1 element string, with or without FNC1 and `]d2`" });
    let others = [
        ("me", "Who asks: role, tenants or manufacturer, end of the token", json!([]), "Asker"),
        ("labels", "What a scanned label says", json!([label]), Label::NAME),
    ];
    for (path, about, parameters, schema) in others {
        let operation = json!({
            "operationId": path, "summary": about, "parameters": parameters,
            "responses": responses(about, json!({ "application/json": { "schema": reference(schema) } }), json!({})),
        });
        paths.insert(format!("{ROOT}/{path}"), json!({ "get": operation }));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "doseline",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What injection devices measured, what it says about them, and what is missing. Times are \
                UTC; nl, um, us, Pa and millidegrees are integers. Lists come in pages: `next` is the cursor of the \
                next one.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "security": [{ "token": [] }, { "cookie": [] }],
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "`doseline token create` makes one" },
                "cookie": { "type": "apiKey", "in": "cookie", "name": "__Host-doseline",
                    "description": "The page gets it at /login" },
            },
        },
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let row = reference(endpoint.rows.name);
    let (json, headers) = match endpoint.shape {
        Shape::One => (row, json!({})),
        Shape::List { .. } | Shape::Computed => {
            let page = json!({
                "type": "object",
                "required": ["data", "next"],
                "properties": {
                    "data": { "type": "array", "items": row },
                    "next": { "type": ["string", "null"], "description": "Cursor of the next page; null = this is the last" },
                },
            });
            let link = json!({ "Link": { "description": "Address of the next page, rel=\"next\"", "schema": { "type": "string" } } });
            (page, link)
        }
    };
    let content = json!({ "application/json": { "schema": json }, "text/csv": { "schema": { "type": "string" } },
        "application/sql": { "schema": { "type": "string" } } });
    json!({
        "operationId": name(endpoint.path),
        "summary": endpoint.about,
        "description": format!("For tokens with one of the roles {}.", endpoint.audience.text()),
        "parameters": parameters(endpoint),
        "responses": responses(endpoint.about, content, headers),
    })
}

fn posting(post: &Post) -> Value {
    let mut parameters: Vec<Value> = post
        .parameters
        .iter()
        .map(|(name, about)| {
            json!({ "name": name, "in": "path", "required": true, "schema": text(), "description": about })
        })
        .collect();
    let mut header = |name: &str, about: &str| {
        let schema = json!({ "type": "string", "minLength": 1, "maxLength": 100 });
        parameters
            .push(json!({ "name": name, "in": "header", "required": false, "schema": schema, "description": about }));
    };
    header("Idempotency-Key", "The same request under the same key is done once");
    header("X-Doseline-Request", "1; a request with a cookie must have it");
    let mut properties = Map::new();
    for field in post.body {
        let mut schema = json!({ "type": "string", "maxLength": field.bytes_max, "description": field.about });
        if field.is_required {
            schema["minLength"] = json!(1);
        }
        if !field.words.is_empty() {
            schema["enum"] = json!(field.words);
        }
        properties.insert(field.name.to_owned(), schema);
    }
    let by = json!({ "type": "string", "minLength": 1, "maxLength": 128,
        "description": "Who writes: required under serve.auth = none, refused where somebody signs in" });
    properties.insert("by".to_owned(), by);
    let required: Vec<&str> = post.body.iter().filter(|field| field.is_required).map(|field| field.name).collect();
    let body =
        json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false });
    let (status, schema) = post.answer;
    let mut responses =
        responses(post.about, json!({ "application/json": { "schema": reference(schema) } }), json!({}));
    if let Some(answers) = responses.as_object_mut() {
        answers.remove("304");
        if let Some(answer) = answers.remove("200") {
            answers.insert(status.to_string(), answer);
        }
    }
    json!({
        "operationId": format!("post_{}", name(post.path)),
        "summary": post.about,
        "description": format!(
            "For tokens with one of the roles {}. The body has at most {BODY_BYTES_MAX} bytes. The answer comes when \
             ClickHouse holds what was written.",
            post.roles
        ),
        "parameters": parameters,
        "requestBody": { "required": true, "content": { "application/json": { "schema": body } } },
        "responses": responses,
    })
}

fn changes() -> Value {
    let about = "Tells when to ask again, as server-sent events";
    let tenant = json!({ "name": "tenant", "in": "query", "required": false, "schema": text(),
        "description": "Only of this tenant; without it, of all of the token" });
    let mut responses = responses(about, json!({ "text/event-stream": { "schema": { "type": "string" } } }), json!({}));
    if let Some(answers) = responses.as_object_mut() {
        answers.remove("304");
    }
    json!({
        "operationId": "changes",
        "summary": about,
        "description": "`event: changed` has `{\"topics\": [...], \"at\": \"...\"}` when something changed that the asker \
            may see; `event: beat` comes every 5 s. Whoever connects asks once for what it shows.",
        "parameters": [tenant],
        "responses": responses,
    })
}

/// `/tenants/{tenant}/devices/{device}` as `tenants_tenant_devices_device`.
fn name(path: &str) -> String {
    path.trim_start_matches('/')
        .chars()
        .filter(|letter| !matches!(letter, '{' | '}'))
        .map(|letter| if letter == '/' { '_' } else { letter })
        .collect()
}

fn parameters(endpoint: &Endpoint) -> Vec<Value> {
    let is_in_path = |name: &str| endpoint.path.contains(&format!("{{{name}}}"));
    let mut parameters: Vec<Value> = endpoint
        .parameters
        .iter()
        .map(|parameter| {
            let mut schema = match parameter.kind {
                Kind::Text | Kind::Label => text(),
                Kind::Choice(words) => json!({ "type": "string", "enum": words }),
                Kind::Words { least, most } => json!({ "type": "string", "minLength": least, "maxLength": most }),
                Kind::Number { least, most } => json!({ "type": "integer", "minimum": least, "maximum": most }),
                Kind::Time => json!({ "type": "string", "format": "date-time" }),
                Kind::Day => json!({ "type": "string", "format": "date" }),
            };
            match (parameter.kind, parameter.default) {
                (_, None) => {}
                (Kind::Number { .. }, Some(default)) => schema["default"] = json!(default.parse::<u32>().ok()),
                (_, Some(default)) => schema["default"] = json!(default),
            }
            let place = if is_in_path(parameter.name) { "path" } else { "query" };
            json!({ "name": parameter.name, "in": place, "required": parameter.is_required, "schema": schema,
                "description": parameter.about })
        })
        .collect();
    let mut add = |name: &str, about: &str, schema: Value| {
        parameters
            .push(json!({ "name": name, "in": "query", "required": false, "schema": schema, "description": about }));
    };
    let has_own = endpoint.parameters.iter().any(|parameter| parameter.name == "tenant");
    if endpoint.audience.has_tenants() && !has_own {
        add("tenant", "Only of this tenant; without it, of all of the token", text());
    }
    if !matches!(endpoint.shape, Shape::One) {
        let (limit, most) = (endpoint.rows.limit, endpoint.rows.limit_max);
        let limit = json!({ "type": "integer", "minimum": 1, "maximum": most, "default": limit });
        add("limit", "Rows of a page", limit);
    }
    if matches!(endpoint.shape, Shape::List { .. }) {
        add("cursor", "`next` of the page before; everything else as it was", json!({ "type": "string" }));
    }
    parameters
}

fn responses(about: &str, content: Value, headers: Value) -> Value {
    let problem = json!({
        "description": "What is wrong and what would be right",
        "content": { MEDIA_TYPE: { "schema": reference("Problem") } },
    });
    json!({
        "200": { "description": about, "content": content, "headers": headers },
        "304": { "description": "The asker has this answer: `If-None-Match` names its `ETag`" },
        "default": problem,
    })
}

fn text() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": VALUE_BYTES_MAX })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn schema(fields: &[Field]) -> Value {
    let property = |field: &Field| {
        let mut schema = field.schema.clone();
        schema["description"] = Value::from(field.about.as_str());
        (field.name.to_owned(), schema)
    };
    let names: Vec<&str> = fields.iter().map(|field| field.name).collect();
    json!({
        "type": "object",
        "required": names,
        "properties": fields.iter().map(property).collect::<Map<_, _>>(),
    })
}

fn problem() -> Value {
    json!({
        "type": "object",
        "description": "A problem document (RFC 9457)",
        "required": ["type", "title", "status", "detail", "instance"],
        "properties": {
            "type": { "type": "string", "description": "Kind of the problem, urn:doseline:problem:…" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string", "description": "What is wrong and what would be right" },
            "instance": { "type": "string", "description": "The number of the request, as in the log" },
        },
    })
}

fn asker() -> Value {
    json!({
        "type": "object",
        "required": ["id", "role", "tenants", "manufacturer", "expires_s", "signed_in"],
        "properties": {
            "id": { "type": "string", "description": "Id of the token; `local` without tokens" },
            "role": { "type": "string", "enum": ["viewer", "operator", "manufacturer", "admin"] },
            "tenants": { "type": ["array", "null"], "items": { "type": "string" }, "description": "null = no tenant, or for an admin all" },
            "manufacturer": { "type": ["string", "null"] },
            "expires_s": { "type": ["integer", "null"], "description": "When the token ends, s since 1970; null = never" },
            "signed_in": { "type": "boolean", "description": "Whether a cookie says who asks" },
        },
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Calls `check` with every object in a value.
    fn walk(value: &Value, check: &mut impl FnMut(&Map<String, Value>)) {
        match value {
            Value::Object(object) => {
                check(object);
                object.values().for_each(|value| walk(value, check));
            }
            Value::Array(values) => values.iter().for_each(|value| walk(value, check)),
            _ => {}
        }
    }

    #[test]
    fn the_page_is_written_against_this_description() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/web/openapi.json");
        let written = serde_json::to_string_pretty(&description()).unwrap() + "\n";
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            return std::fs::write(path, written).unwrap();
        }
        let remedy =
            "UPDATE_REFERENCE=1 cargo test --release --package dashboard writes it; then `npm run types` in web/";
        assert!(std::fs::read_to_string(path).unwrap() == written, "web/openapi.json is out of date: {remedy}");
    }

    #[test]
    fn the_description_is_complete_in_itself() {
        let description = description();
        let schemas = description["components"]["schemas"].as_object().unwrap();
        let mut used = BTreeSet::new();
        walk(&description, &mut |object| {
            if let Some(Value::String(reference)) = object.get("$ref") {
                used.insert(reference.strip_prefix("#/components/schemas/").unwrap().to_owned());
            }
        });
        assert_eq!(used, schemas.keys().cloned().collect());
        let mut names = BTreeSet::new();
        let paths = description["paths"].as_object().unwrap();
        let operations = paths
            .iter()
            .flat_map(|(path, item)| item.as_object().unwrap().values().map(move |operation| (path, operation)));
        for (path, operation) in operations {
            assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()), "{path}");
            let named: BTreeSet<_> =
                path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
            let parameters = operation["parameters"].as_array().unwrap();
            let of_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
            let given: BTreeSet<_> = of_path.map(|parameter| parameter["name"].as_str().unwrap()).collect();
            assert_eq!(named, given, "{path}");
        }
    }

    /// A list whose keys do not name a row would lose rows between two pages.
    #[test]
    fn every_list_is_ordered_by_fields_of_its_rows() {
        for endpoint in endpoints() {
            let fields = (endpoint.rows.fields)();
            if let Shape::List { keys, .. } = endpoint.shape {
                assert!(!keys.is_empty(), "{}", endpoint.path);
                for key in keys {
                    let field = fields.iter().find(|field| field.name == key.name());
                    let kind = &field.unwrap_or_else(|| panic!("{}: {}", endpoint.path, key.name())).schema["type"];
                    let expected =
                        if matches!(key, super::super::endpoint::Key::Text(_)) { "string" } else { "integer" };
                    assert_eq!(kind, expected, "{}: {}", endpoint.path, key.name());
                }
            }
            for parameter in endpoint.parameters.iter().filter(|parameter| parameter.name != "tenant") {
                let is_used = match parameter.condition {
                    "1" => endpoint.sql.contains(&format!("{{{}}}", parameter.name)),
                    _ => endpoint.sql.contains("{where}"),
                };
                assert!(is_used, "{} does not use {}", endpoint.path, parameter.name);
            }
        }
    }

    /// One resource, one row: two rows of one name would share a schema.
    #[test]
    fn rows_of_one_name_have_the_same_fields() {
        let mut seen: Vec<(&str, Vec<&str>)> = Vec::new();
        for endpoint in endpoints() {
            let fields: Vec<_> = (endpoint.rows.fields)().iter().map(|field| field.name).collect();
            match seen.iter().find(|(name, _)| *name == endpoint.rows.name) {
                Some((name, known)) => assert_eq!(*known, fields, "{name}"),
                None => seen.push((endpoint.rows.name, fields)),
            }
        }
    }
}
