//! A walk over all endpoints that the interface describes, with every kind of token, over data in
//! which each tenant's texts carry its name.

use std::collections::BTreeMap;

use dashboard::access::tokens::Role;
use harness::ClickHouse;
use serde_json::Value;

use super::{
    Answer, Served,
    marks::{self, MAKER, RIVAL_MODEL},
    migrated,
};

/// A value of a parameter, as a tenant's rows have it.
fn value(name: &str, tenant: &str) -> String {
    match name {
        "tenant" => tenant.to_owned(),
        "session" => format!("{tenant}-session_id"),
        "cycle" => format!("{tenant}-cycle_uid"),
        "alert" => format!("{tenant}-alert_key"),
        "incident" => format!("{tenant}-incident_id"),
        "calibration" => format!("{tenant}-calibration_id"),
        "label" => format!("{tenant}-item_id"),
        "unit" => format!("{tenant}-unit_key"),
        "q" => format!("{tenant}-"),
        "id" if tenant == "alpha" => "1-1-1-1".to_owned(),
        "id" => "2-2-2-2".to_owned(),
        name => format!("{tenant}-{name}"),
    }
}

/// Ends of the paths whose answers hold no text of a tenant.
const NO_MARKS: [&str; 6] = ["/labels", "/lots", "/recalls", "/overview", "/trumpet", "/quarantine-reasons"];

/// An endpoint as the description has it.
struct Described {
    path: String,
    /// Parameters: name, place, whether it is required, allowed words, format.
    parameters: Vec<Value>,
    roles: String,
    is_list: bool,
    has_sql: bool,
}

fn described(description: &Value) -> Vec<Described> {
    let paths = description["paths"].as_object().expect("paths");
    // A stream has no end to wait for; `live.rs` listens to it.
    let is_read = |item: &Value| {
        let answer = &item["get"]["responses"]["200"];
        !answer.is_null() && answer["content"]["text/event-stream"].is_null()
    };
    paths
        .iter()
        .filter(|(_, item)| is_read(item))
        .map(|(path, item)| {
            let operation = &item["get"];
            Described {
                path: path.clone(),
                parameters: operation["parameters"].as_array().expect("parameters").clone(),
                roles: operation["description"].as_str().unwrap_or_default().to_owned(),
                is_list: !operation["responses"]["200"]["content"]["application/json"]["schema"]["properties"]["data"]
                    .is_null(),
                has_sql: !operation["responses"]["200"]["content"]["application/sql"].is_null(),
            }
        })
        .collect()
}

impl Described {
    /// The address with the required parameters of a tenant, and optional ones.
    fn url(&self, tenant: &str, more: &[(&str, &str)]) -> String {
        let mut path = self.path.clone();
        let mut query: Vec<String> = more.iter().map(|(name, value)| format!("{name}={value}")).collect();
        for parameter in &self.parameters {
            let name = parameter["name"].as_str().expect("a name");
            if self.path.ends_with("/labels") {
                query.push("label=0104012345000016".to_owned());
            } else if parameter["in"] == "path" {
                path = path.replace(&format!("{{{name}}}"), &value(name, tenant));
            } else if parameter["required"] == true {
                query.push(format!("{name}={}", value(name, tenant)));
            }
        }
        if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) }
    }

    /// Each optional parameter with a value of a tenant, or each of its words.
    fn optional(&self, tenant: &str) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for parameter in self.parameters.iter().filter(|parameter| parameter["required"] == false) {
            let name = parameter["name"].as_str().expect("a name").to_owned();
            match (&parameter["schema"]["enum"], parameter["schema"]["format"].as_str(), name.as_str()) {
                (Value::Array(words), ..) => {
                    found.extend(words.iter().map(|word| (name.clone(), word.as_str().expect("a word").to_owned())));
                }
                (_, Some("date-time"), _) => found.push((name, "2026-01-31T08:00:00Z".to_owned())),
                (_, Some("date"), _) => found.push((name, "2026-01-31".to_owned())),
                (_, _, "limit") => found.push((name, "1".to_owned())),
                (_, _, "cursor") => {}
                _ => found.push((name.clone(), value(&name, tenant))),
            }
        }
        found
    }
}

/// Fails if an answer holds any of these texts anywhere.
fn refuse_marks(answer: &Answer, marks: &[&str], what: &str) {
    for mark in marks {
        let all = format!("{}{}", answer.headers, answer.body);
        assert!(!all.contains(mark), "{what}: {} holds {mark}:\n{all}", answer.status);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_holds_a_foreign_mark() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    marks::fill(&clickhouse);
    let served = Served::start(warehouse, 1_000_000).await;
    let (admin, _) = served.token(Role::Admin, "", 3_600);
    let (alpha, _) = served.token(Role::Operator, "alpha", 3_600);
    let (beta, _) = served.token(Role::Viewer, "beta", 3_600);
    let (maker, _) = served.token(Role::Manufacturer, MAKER, 3_600);
    let (expired, _) = served.token(Role::Admin, "", -1);
    let (revoked, id) = served.token(Role::Admin, "", 3_600);
    served.revoke(&id);
    let endpoints = described(&served.ask(&admin, "/api/v1/openapi.json").json());
    assert!(endpoints.len() > 40, "{}", endpoints.len());
    let mut statuses: BTreeMap<(u16, &str), u32> = BTreeMap::new();
    for endpoint in &endpoints {
        let own = [("alpha", &alpha, "beta", "operator"), ("beta", &beta, "alpha", "viewer")];
        for (tenant, token, foreign, role) in own {
            let may = endpoint.roles.is_empty() || endpoint.roles.contains(role);
            let url = endpoint.url(tenant, &[]);
            let answer = served.ask(token, &url);
            assert_eq!(answer.status, if may { 200 } else { 403 }, "{tenant} {url}: {}", answer.body);
            *statuses.entry((answer.status, "own")).or_default() += 1;
            refuse_marks(&answer, &[foreign], &format!("{tenant} {url}"));
            // What holds no mark of one's own proves nothing; these have no tenant, or numbers
            // alone, which `figures` compares.
            let is_shared = NO_MARKS.iter().any(|end| endpoint.path.ends_with(end));
            if may && !is_shared {
                assert!(answer.body.contains(tenant), "{tenant} {url}: {}", answer.body);
            }
            let bearer = format!("Bearer {token}");
            let csv = served.get(&url, &[("authorization", &bearer), ("accept", "text/csv")]);
            refuse_marks(&csv, &[foreign], &format!("{tenant} {url} as CSV"));
            if endpoint.has_sql && may {
                let sql = served.get(&url, &[("authorization", &bearer), ("accept", "application/sql")]);
                assert_eq!(sql.status, 200, "{url}: {}", sql.body);
                let is_statement = sql.body.starts_with("SELECT") || sql.body.starts_with("WITH");
                assert!(is_statement && !sql.body.contains("{where}"), "{url}: {}", sql.body);
                refuse_marks(&sql, &[foreign], &format!("{tenant} {url} as SQL"));
            }
            for other in ["dsl_x", &expired, &revoked, ""] {
                let nobody = served.ask(other, &url);
                assert!(matches!(nobody.status, 401 | 429), "{url}: {}", nobody.status);
                refuse_marks(&nobody, &["alpha", "beta"], &format!("nobody {url}"));
            }
            // Foreign ids in every place, one after the other and all together.
            for (name, value) in endpoint.optional(foreign) {
                let url = endpoint.url(tenant, &[(&name, &value)]);
                let answer = served.ask(token, &url);
                assert!(matches!(answer.status, 200 | 403 | 404), "{tenant} {url}: {} {}", answer.status, answer.body);
                let is_foreign = name == "tenant" && may;
                assert!(!is_foreign || answer.status == 404, "{tenant} {url}: {}", answer.status);
                refuse_marks(&answer, &[foreign], &format!("{tenant} {url}"));
            }
            let url = endpoint.url(foreign, &[]);
            if !endpoint.path.ends_with("/labels") {
                let answer = served.ask(token, &url);
                refuse_marks(&answer, &[foreign], &format!("{tenant} {url}"));
                if endpoint.path.contains("{tenant}") {
                    assert_eq!(answer.status, if may { 404 } else { 403 }, "{tenant} {url}");
                }
            }
            // One's own tenant with the ids of the other.
            if endpoint.path.contains("{tenant}") {
                let url =
                    endpoint.url(foreign, &[]).replace(&format!("/tenants/{foreign}/"), &format!("/tenants/{tenant}/"));
                let answer = served.ask(token, &url);
                let empty = if endpoint.is_list { 200 } else { 404 };
                assert_eq!(answer.status, if may { empty } else { 403 }, "{tenant} {url}: {}", answer.body);
                refuse_marks(&answer, &[foreign], &format!("{tenant} {url}"));
            }
        }
        let url = endpoint.url("alpha", &[]);
        if !endpoint.path.ends_with("/labels") {
            let answer = served.ask(&maker, &url);
            let may = endpoint.roles.is_empty() || endpoint.roles.contains("manufacturer");
            assert_eq!(answer.status, if may { 200 } else { 403 }, "maker {url}: {}", answer.body);
            refuse_marks(&answer, &["alpha", "beta", RIVAL_MODEL], &format!("maker {url}"));
            if endpoint.path.contains("/manufacturer/") {
                let rows = answer.json()["data"].as_array().expect("rows").clone();
                assert!(!rows.is_empty(), "{url}");
                for row in &rows {
                    assert!(row["day"].is_null() || row["day"].as_str().map(str::len) == Some(10), "{row}");
                    let names: Vec<_> = row.as_object().expect("a row").keys().collect();
                    let hidden = ["tenant", "site", "device", "session_id", "serial", "at", "first_at"];
                    assert!(!names.iter().any(|name| hidden.contains(&name.as_str())), "{row}");
                }
            }
        }
        let seen = served.ask(&admin, &url);
        assert_eq!(seen.status, 200, "admin {url}: {}", seen.body);
    }
    assert!(statuses[&(200, "own")] > 60, "{statuses:?}");
    // The panels of the page.
    for panel in ["tenants", "overview", "minutes", "fleet", "gaps", "alerts", "quarantine"] {
        let url = format!("/api/{panel}");
        let own = served.ask(&alpha, &url);
        assert_eq!(own.status, 200, "{url}: {}", own.body);
        refuse_marks(&own, &["beta"], &url);
        if !["overview", "minutes"].contains(&panel) {
            assert!(own.body.contains("alpha") && served.ask(&admin, &url).body.contains("beta"), "{url}");
        }
        assert_eq!(served.ask(&alpha, &format!("{url}?tenant=beta")).problem(), "not-found");
        assert_eq!(served.ask(&alpha, &format!("{url}?tenant=nobody")).problem(), "not-found");
        assert_eq!(served.ask(&maker, &url).problem(), "wrong-role");
    }
}

/// A body that a description allows, as one of a tenant. Texts that nothing limits carry its name.
fn body(post: &Value, tenant: &str) -> Value {
    let schema = &post["requestBody"]["content"]["application/json"]["schema"];
    let required = schema["required"].as_array().expect("names").iter().map(|name| name.as_str().expect("a name"));
    let field = |name: &str| match &schema["properties"][name]["enum"] {
        Value::Array(words) => (name.to_owned(), words[0].clone()),
        _ => (name.to_owned(), value(name, tenant).into()),
    };
    required.map(field).collect::<serde_json::Map<_, _>>().into()
}

/// Whoever writes to what is another tenant's, in every place that can name it, learns nothing, and
/// nothing is written.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_writes_to_what_is_foreign() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    marks::fill(&clickhouse);
    let mut served = Served::start(warehouse, 1_000_000).await;
    let (admin, _) = served.token(Role::Admin, "", 3_600);
    let (alpha, _) = served.token(Role::Operator, "alpha", 3_600);
    let (maker, _) = served.token(Role::Manufacturer, MAKER, 3_600);
    let description = served.ask(&admin, "/api/v1/openapi.json").json();
    let paths = description["paths"].as_object().expect("paths").iter();
    let posts: Vec<_> = paths.filter(|(_, item)| !item["post"].is_null()).collect();
    assert_eq!(posts.len(), 3);
    for (path, item) in posts {
        let post = &item["post"];
        let url = |tenant: &str, ids: &str| {
            let parameters = post["parameters"].as_array().expect("parameters").iter();
            let in_path = parameters.filter(|parameter| parameter["in"] == "path");
            in_path.fold(path.clone(), |path, parameter| {
                let name = parameter["name"].as_str().expect("a name");
                let of = if name == "tenant" { tenant } else { ids };
                path.replace(&format!("{{{name}}}"), &value(name, of))
            })
        };
        let send = |token: &str, url: &str, tenant: &str| {
            let bearer = format!("Bearer {token}");
            let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
            served.post(url, &headers, &body(post, tenant).to_string())
        };
        let mut refused = vec![(url("beta", "beta"), "beta")];
        if path.contains("{tenant}") {
            refused.push((url("alpha", "beta"), "alpha"));
            refused.push((url("beta", "alpha"), "alpha"));
        }
        for (url, tenant) in &refused {
            let answer = send(&alpha, url, tenant);
            assert_eq!((answer.status, answer.problem().as_str()), (404, "not-found"), "{url}");
            refuse_marks(&answer, &["beta"], url);
        }
        let own = url("alpha", "alpha");
        assert_eq!(send(&maker, &own, "alpha").problem(), "wrong-role", "{own}");
        assert_eq!(send("dsl_x", &own, "alpha").problem(), "not-authenticated", "{own}");
    }
    assert!(served.orders.try_recv().is_err(), "something was ordered");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_a_list_hold_each_row_once() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    marks::fill(&clickhouse);
    let served = Served::start(warehouse, 1_000_000).await;
    let (alpha, _) = served.token(Role::Viewer, "alpha", 3_600);
    let (two, _) = served.token(Role::Admin, "", 3_600);
    let (mut url, mut ids, mut pages) = ("/api/v1/incidents?limit=4&kind=LOT".to_owned(), Vec::new(), 0);
    loop {
        let answer = served.ask(&alpha, &url);
        assert_eq!(answer.status, 200, "{url}: {}", answer.body);
        let page = answer.json();
        ids.extend(page["data"].as_array().expect("rows").iter().map(|row| row["incident_id"].clone()));
        pages += 1;
        let Some(link) = answer.header("link") else {
            assert_eq!(page["next"], Value::Null);
            break;
        };
        let cursor = page["next"].as_str().expect("a cursor");
        assert!(link.contains(cursor) && link.ends_with("; rel=\"next\""), "{link}");
        // A cursor of another query: parameter, endpoint, asker.
        for other in [
            format!("/api/v1/incidents?limit=4&kind=ITEM&cursor={cursor}"),
            format!("/api/v1/incidents?limit=4&cursor={cursor}"),
            format!("/api/v1/incidents?limit=4&kind=LOT&tenant=alpha&subject=x&cursor={cursor}"),
            format!("/api/v1/alerts?cursor={cursor}"),
        ] {
            assert_eq!(served.ask(&alpha, &other).problem(), "foreign-cursor", "{other}");
        }
        let next = link.trim_start_matches('<').split('>').next().expect("an address").to_owned();
        assert_eq!(served.ask(&two, &next).problem(), "foreign-cursor", "{next}");
        url = next;
    }
    let count = ids.len();
    ids.sort_by_key(ToString::to_string);
    ids.dedup();
    assert_eq!((pages, count, ids.len()), (7, 25, 25));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_has_its_form_and_its_tag() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    marks::fill(&clickhouse);
    let served = Served::start(warehouse, 1_000_000).await;
    let (alpha, _) = served.token(Role::Operator, "alpha", 3_600);
    let bearer = format!("Bearer {alpha}");
    let url = "/api/v1/tenants/alpha/devices/alpha-device";
    let json = served.ask(&alpha, url);
    assert_eq!(json.header("content-type"), Some("application/json"));
    assert_eq!(
        (json.json()["device"].as_str(), json.json()["kind"].as_str()),
        (Some("alpha-device"), Some("INJECTOR"))
    );
    assert!(json.header("vary").is_some_and(|vary| vary.contains("Authorization")));
    let tag = json.header("etag").expect("a tag").to_owned();
    let known = served.get(url, &[("authorization", &bearer), ("if-none-match", &tag)]);
    assert_eq!((known.status, known.body.as_str(), known.header("etag")), (304, "", Some(tag.as_str())));
    let csv = served.get(url, &[("authorization", &bearer), ("accept", "text/csv")]);
    assert_ne!(csv.header("etag"), Some(tag.as_str()));
    let mut lines = csv.body.split("\r\n");
    assert!(lines.next().expect("a header").starts_with("tenant,site,device,registration,"), "{}", csv.body);
    assert!(lines.next().expect("a row").starts_with("alpha,alpha-site,alpha-device,REGISTERED,"), "{}", csv.body);
    let html = served.get(url, &[("authorization", &bearer), ("accept", "text/html")]);
    assert_eq!((html.status, html.problem().as_str()), (406, "not-acceptable"));
    // The payload of the quarantine is for operators, and its bytes are what came.
    let shown = served.ask(&alpha, "/api/v1/tenants/alpha/quarantine/1-1-1-1").json();
    assert_eq!(shown["payload_base64"], "YWxwaGEtcGF5bG9hZA==");
    let label = served.ask(&alpha, "/api/v1/labels?label=%5Dd2010401234500001617290131102A%1D21S1").json();
    assert_eq!(
        (&label["udi_di"], &label["lot"], &label["serial"]),
        (&"04012345000016".into(), &"2A".into(), &"S1".into())
    );
    assert_eq!((&label["item_key"], &label["expiry"]), (&"(01)04012345000016(21)S1".into(), &"2029-01-31".into()));
}
