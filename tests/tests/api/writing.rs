//! What people write: by whom, once, into every table, and refused where it must be.

use std::{fmt::Write as _, time::Duration};

use dashboard::{
    Dashboard,
    access::{
        Auth,
        tokens::{self, Role, Token},
    },
    write::{NotWritten, Order},
};
use harness::{ClickHouse, Doseline, Scratch, Stack, free_port, poll};
use prost::Message as _;
use serde_json::{Value, json};
use telemetry::v1::{self, event::Kind};
use tokio_util::sync::CancellationToken;
use warehouse::audit::Outcome;

use super::{Answer, answer, migrated};

const WITHIN: Duration = Duration::from_secs(120);
const ALERT: &str = "sterility-2%2Facme%2Fitem%2FN30-1";

/// `doseline serve` and a loader, over real engines.
struct Served {
    stack: Stack,
    url: String,
    tokens: std::path::PathBuf,
    agent: ureq::Agent,
    loader: Option<Doseline>,
    _serve: Doseline,
    _scratch: Scratch,
}

impl Served {
    fn start() -> Self {
        let scratch = Scratch::new("api-writing");
        let tokens = scratch.join("tokens.json");
        let address = format!("127.0.0.1:{}", free_port());
        let file = tokens.to_str().expect("UTF-8 path");
        let stack =
            Stack::start(&format!("[serve]\nhttp = \"{address}\"\nauth = \"tokens\"\ntokens_file = \"{file}\"\n"));
        let loader = Some(stack.role("load"));
        let mut serve = stack.doseline(&["serve"]);
        serve.wait_for_line("dashboard serves", WITHIN);
        let agent = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
        let agent = agent.max_redirects_will_error(false).timeout_global(Some(WITHIN)).build().new_agent();
        let url = format!("http://{address}");
        Self { stack, url, tokens, agent, loader, _serve: serve, _scratch: scratch }
    }

    fn token(&self, role: Role, of: &str) -> (String, String) {
        let tenants = if of.is_empty() { Vec::new() } else { vec![of.to_owned()] };
        let expires = 4_000_000_000;
        let (token, text) = Token::create(role, tenants, String::new(), String::new(), 0, expires).expect("a token");
        let id = token.id.clone();
        tokens::update(&self.tokens, |tokens| tokens.push(token)).expect("write the tokens");
        (text, id)
    }

    fn send(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = self.agent.post(format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send(body))
    }

    fn post(&self, token: &str, path: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.send(&format!("/api/v1{path}"), &headers, &body.to_string())
    }

    fn post_with_key(&self, token: &str, key: &str, path: &str, body: &Value) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers =
            [("authorization", bearer.as_str()), ("content-type", "application/json"), ("idempotency-key", key)];
        self.send(&format!("/api/v1{path}"), &headers, &body.to_string())
    }

    fn get(&self, token: &str, path: &str) -> Answer {
        let request = self.agent.get(format!("{}/api/v1{path}", self.url));
        answer(request.header("authorization", format!("Bearer {token}")).call())
    }

    fn query(&self, sql: &str) -> String {
        self.stack.clickhouse.query(sql).trim().to_owned()
    }

    /// Author, role, action and outcome of what was done in a tenant, in order.
    fn audit(&self, tenant: &str) -> Vec<String> {
        let sql = format!(
            "SELECT concat(author, ' ', role, ' ', action, ' ', outcome) FROM doseline.audit_trail \
             WHERE tenant = '{tenant}' ORDER BY given_at FORMAT TabSeparated"
        );
        self.query(&sql).lines().map(str::to_owned).collect()
    }

    /// A row of quarantine, as the loader would have written it.
    fn quarantine(&self, tenant: &str, offset: u64, payload: &[u8]) {
        let mut hex = String::new();
        payload.iter().for_each(|byte| write!(hex, "{byte:02x}").expect("a string takes it"));
        self.query(&format!(
            "INSERT INTO doseline.quarantine (reason, topic, source, payload, received_at, tenant, site, device, incarnation, \
             kafka_partition, kafka_offset, ingest_day) VALUES ('bad_protobuf', 'doseline/v1/{tenant}/berlin/pen-1/report', \
             'bridge', unhex('{hex}'), now64(6), '{tenant}', 'berlin', 'pen-1', 3, 0, {offset}, today())"
        ));
    }
}

fn report() -> Vec<u8> {
    let injection = v1::Injection {
        outcome: v1::Outcome::Ok.into(),
        target_nl: Some(20_000),
        delivered_nl: Some(19_990),
        dose_source: v1::DoseSource::Flow.into(),
        ..v1::Injection::default()
    };
    let event = v1::Event { offset_us: 0, kind: Some(Kind::Injection(injection)) };
    let context = v1::Context { model: "pen".to_owned(), session_id: vec![7; 16], ..v1::Context::default() };
    v1::Report {
        boot_id: 5 << 32 | 9,
        first_seq: 1,
        clock: v1::Clock::Unsynced.into(),
        context: Some(context),
        events: vec![event],
        ..v1::Report::default()
    }
    .encode_to_vec()
}

#[test]
fn what_people_write_is_applied_once_and_audited() {
    let mut served = Served::start();
    for tenant in ["acme", "other"] {
        served.query(&format!(
            "INSERT INTO doseline.alerts (tenant, alert_key, kind, severity, state, holds, attention, title, evidence_rows, \
             raised_at, computed_at) VALUES ('{tenant}', 'sterility-2/{tenant}/item/N30-1', 'sterility-2', 'critical', \
             'OPEN', true, 3, 'used twice', '[]', now64(6), now64(6))"
        ));
        served.query(&format!("INSERT INTO doseline.item_uses (tenant, item_id) VALUES ('{tenant}', 'hp-{tenant}')"));
    }
    let (ada, ada_id) = served.token(Role::Operator, "acme");
    let (viewer, viewer_id) = served.token(Role::Viewer, "acme");
    let (admin, admin_id) = served.token(Role::Admin, "");
    acknowledgements(&served, (&ada, &ada_id), (&viewer, &viewer_id));
    incidents(&served, &ada, (&admin, &admin_id));
    cookies(&served, &ada);
    replays(&served, (&ada, &ada_id), &viewer);
    audits(&served, &ada, &admin);
    late(&mut served, &ada);
}

fn acknowledgements(served: &Served, (ada, ada_id): (&str, &str), (viewer, viewer_id): (&str, &str)) {
    let path = format!("/tenants/acme/alerts/{ALERT}/acknowledge");
    let body = json!({ "note": "client\ninformed" });
    let answer = served.post_with_key(ada, "one", &path, &body);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let alert = answer.json();
    assert_eq!((&alert["acknowledged"], &alert["tenant"]), (&true.into(), &"acme".into()), "{alert}");
    assert_eq!(served.get(ada, &format!("/tenants/acme/alerts/{ALERT}")).json(), alert, "what was written is read");
    let history = "SELECT concat(actor, '|', note, '|', toString(attention)) FROM doseline.alert_history FINAL \
                   WHERE event = 'ACKNOWLEDGED' AND tenant = 'acme' FORMAT TSVRaw";
    assert_eq!(served.query(history), format!("{ada_id}|client\ninformed|3"));
    // The same once more, other content under the key, and a role that may not.
    assert_eq!(served.post_with_key(ada, "one", &path, &body).status, 200);
    let taken = served.post_with_key(ada, "one", &path, &json!({ "note": "other" }));
    assert_eq!((taken.status, taken.problem().as_str()), (409, "refused"), "{}", taken.body);
    let refused = served.post(viewer, &path, &body);
    assert_eq!((refused.status, refused.problem().as_str()), (403, "wrong-role"));
    assert_eq!(served.query(history), format!("{ada_id}|client\ninformed|3"));
    let told = |id: &str, role: &str, outcome: &str| format!("{id} {role} acknowledge_alert {outcome}");
    assert_eq!(
        served.audit("acme"),
        [
            told(ada_id, "OPERATOR", "APPLIED"),
            told(ada_id, "OPERATOR", "REPEATED"),
            told(ada_id, "OPERATOR", "REFUSED"),
            told(viewer_id, "VIEWER", "REFUSED"),
        ]
    );
    // Another tenant's alert is none, however it is named.
    let foreign = "sterility-2%2Fother%2Fitem%2FN30-1";
    for tenant in ["other", "acme"] {
        let answer = served.post(ada, &format!("/tenants/{tenant}/alerts/{foreign}/acknowledge"), &body);
        assert_eq!((answer.status, answer.problem().as_str()), (404, "not-found"), "{tenant}");
    }
    assert!(served.audit("other").is_empty());
    assert_eq!(served.get(ada, &path).problem(), "method-not-allowed");
    assert_eq!(served.get(ada, &path).header("allow"), Some("POST"));
    for (kind, body, said) in [
        ("application/json", "{\"note\": \"x\", \"who\": \"me\"}".to_owned(), "unknown field `who`"),
        ("application/json", "{\"note\": 3}".to_owned(), "expected a string"),
        ("application/json", "{".to_owned(), "not as described"),
        ("application/json", "[]".to_owned(), "not as described"),
        ("application/json", String::new(), "not as described"),
        ("application/json", json!({ "note": "x".repeat(4_097) }).to_string(), "4097 bytes, at most 4096"),
        ("application/json", json!({ "note": "\u{7}" }).to_string(), "control characters"),
        ("application/json", json!({ "note": "x".repeat(20_000) }).to_string(), "more than 16384 bytes"),
        ("application/json", json!({ "note": "x", "by": "me" }).to_string(), "signed in; leave it out"),
        ("text/plain", json!({ "note": "x" }).to_string(), "must be JSON"),
        ("application/x-www-form-urlencoded", "note=x".to_owned(), "must be JSON"),
    ] {
        let bearer = format!("Bearer {ada}");
        let headers = [("authorization", bearer.as_str()), ("content-type", kind)];
        let answer = served.send(&format!("/api/v1{path}"), &headers, &body);
        assert!(matches!(answer.status, 400 | 413 | 415), "{body}: {} {}", answer.status, answer.body);
        answer.problem();
        let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.contains(said), "{said}: {detail}");
    }
    assert_eq!(served.post(ada, &format!("{path}?note=x"), &body).problem(), "unknown-parameter");
    assert_eq!(served.post_with_key(ada, &"x".repeat(101), &path, &body).problem(), "bad-header");
    assert_eq!(served.audit("acme").len(), 4);
}

fn incidents(served: &Served, ada: &str, (admin, admin_id): (&str, &str)) {
    let body = |tenant: &str, subject: &str| json!({ "tenant": tenant, "kind": "ITEM", "subject": subject, "note": "abscess" });
    let made = served.post_with_key(ada, "two", "/incidents", &body("acme", "hp-acme"));
    assert_eq!(made.status, 201, "{}", made.body);
    let incident = made.json();
    assert_eq!((&incident["subject"], &incident["note"]), (&"hp-acme".into(), &"abscess".into()));
    let again = served.post_with_key(ada, "two", "/incidents", &body("acme", "hp-acme"));
    assert_eq!((again.status, again.json()), (201, incident));
    let second = served.post(admin, "/incidents", &body("acme", "hp-acme"));
    assert_eq!((second.status, second.json()["reported_by"].as_str()), (201, Some(admin_id)), "{}", second.body);
    let count = "SELECT count() FROM doseline.incidents FINAL";
    assert_eq!(served.query(count), "2");
    let unknown = served.post(ada, "/incidents", &body("acme", "hp-other"));
    assert_eq!((unknown.status, unknown.problem().as_str()), (422, "unknown-subject"));
    for tenant in ["other", "", "'"] {
        assert_eq!(served.post(ada, "/incidents", &body(tenant, "hp-other")).problem(), "not-found", "{tenant}");
    }
    let mut wrong = body("acme", "hp-acme");
    wrong["kind"] = "DEVICE".into();
    assert!(served.post(ada, "/incidents", &wrong).body.contains("SESSION, ITEM, LOT, CYCLE"));
    let mut empty = body("acme", "hp-acme");
    empty["note"] = " ".into();
    assert_eq!(served.post(ada, "/incidents", &empty).problem(), "bad-body");
    assert!(served.post(ada, "/incidents", &json!({ "tenant": "acme" })).body.contains("missing field `kind`"));
    assert_eq!(served.query(count), "2");
}

/// A page that is signed in must say that it is one.
fn cookies(served: &Served, ada: &str) {
    let own = [("origin", served.url.as_str())];
    let signed_in = served.send("/login", &own, &format!("token={ada}"));
    let cookie = signed_in.header("set-cookie").and_then(|set| set.split(';').next()).expect("a cookie").to_owned();
    let path = format!("/api/v1/tenants/acme/alerts/{ALERT}/acknowledge");
    let send = |more: &[(&str, &str)]| {
        let headers = [&[("cookie", cookie.as_str()), ("content-type", "application/json")], more].concat();
        served.send(&path, &headers, "{}")
    };
    for missing in [&[][..], &own, &[("x-doseline-request", "0")]] {
        assert_eq!(send(missing).problem(), "foreign-form", "{missing:?}");
    }
    let foreign = send(&[("origin", "http://elsewhere.example"), ("x-doseline-request", "1")]);
    assert_eq!(foreign.status, 403, "{}", foreign.body);
    let before = served.audit("acme").len();
    let answer = send(&[own[0], ("x-doseline-request", "1")]);
    assert_eq!((answer.status, served.audit("acme").len()), (200, before + 1), "{}", answer.body);
}

fn replays(served: &Served, (ada, ada_id): (&str, &str), viewer: &str) {
    served.quarantine("acme", 1, &report());
    served.quarantine("acme", 2, b"\xff nonsense");
    served.quarantine("other", 3, &report());
    let replay = |token: &str, tenant: &str, id: &str| {
        served.post(token, &format!("/tenants/{tenant}/quarantine/{id}/replay"), &json!({}))
    };
    assert_eq!(replay(viewer, "acme", "3-0-1").problem(), "wrong-role");
    for (tenant, id) in [("other", "3-0-3"), ("acme", "3-0-3"), ("acme", "3-0-9"), ("acme", "x"), ("acme", "3-0")] {
        assert_eq!(replay(ada, tenant, id).problem(), "not-found", "{tenant} {id}");
    }
    let first = replay(ada, "acme", "3-0-1");
    assert_eq!(first.status, 200, "{}", first.body);
    assert_eq!(first.json(), json!({ "replayed": 1, "stored": 1, "duplicates": 0, "refused": 0 }));
    let stored = "SELECT count() FROM doseline.injections WHERE tenant = 'acme' AND device = 'pen-1'";
    assert_eq!(served.query(stored), "1");
    assert_eq!(replay(ada, "acme", "3-0-1").json()["duplicates"], 1);
    assert_eq!(served.query(stored), "1");
    let refused = replay(ada, "acme", "3-0-2");
    assert_eq!((refused.status, refused.problem().as_str()), (409, "refused"), "{}", refused.body);
    let replays = format!("{ada_id}  replay_quarantine APPLIED");
    assert_eq!(served.audit("acme").iter().filter(|line| **line == replays).count(), 2, "{:?}", served.audit("acme"));
    assert_eq!(served.query("SELECT count() FROM doseline.injections WHERE tenant = 'other'"), "0");
}

fn audits(served: &Served, ada: &str, admin: &str) {
    assert_eq!(served.get(ada, "/audit").problem(), "wrong-role");
    let rows =
        |query: &str| served.get(admin, &format!("/audit{query}")).json()["data"].as_array().expect("rows").clone();
    let all = rows("");
    assert_eq!(all.len(), served.audit("acme").len());
    let refused = rows("?outcome=REFUSED&tenant=acme");
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(refused.iter().any(|row| row["reason"].as_str().is_some_and(|reason| reason.contains("VIEWER"))));
    assert!(rows("?tenant=other").is_empty());
    assert_eq!(rows("?action=add_incident").len(), 3);
}

/// Without a loader nothing is applied: the answer says what is known, and the command is applied
/// later.
fn late(served: &mut Served, ada: &str) {
    drop(served.loader.take());
    let path = format!("/tenants/acme/alerts/{ALERT}/acknowledge");
    let answer = served.post_with_key(ada, "late", &path, &json!({ "note": "later" }));
    assert_eq!((answer.status, answer.problem().as_str()), (503, "late"), "{}", answer.body);
    let noted = "SELECT count() FROM doseline.alert_history FINAL WHERE note = 'later'";
    assert_eq!(served.query(noted), "0");
    let again = served.stack.role("load");
    poll(WITHIN, "the command to be applied", || match served.query(noted).as_str() {
        "1" => Ok(()),
        other => Err(other.to_owned()),
    });
    assert_eq!(served.post_with_key(ada, "late", &path, &json!({ "note": "later" })).status, 200);
    assert_eq!(served.query(noted), "1");
    drop(again);
}

/// Where nobody signs in, the body says who writes.
#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_the_body_names_the_author() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    clickhouse.query(
        "INSERT INTO doseline.alerts (tenant, alert_key, severity, state, computed_at) VALUES ('acme', 'k', 'low', 'OPEN', now64(6))",
    );
    let (writer, mut orders) = dashboard::write::orders();
    let options = dashboard::Options {
        listen: "127.0.0.1:0".parse().expect("an address"),
        names: Vec::new(),
        auth: Auth::None,
        tls: None,
        behind_proxy: false,
        requests_per_min: 1_000_000,
        faults: Default::default(),
        writer,
    };
    let dashboard = Dashboard::bind(options, warehouse).await.expect("the address is free");
    let (address, shutdown) = (dashboard.address(), CancellationToken::new());
    tokio::spawn(dashboard.run(shutdown.clone()));
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let url = format!("http://{address}/api/v1/tenants/acme/alerts/k/acknowledge");
    let send = |body: Value| {
        let request = agent.post(&url).header("content-type", "application/json");
        answer(request.send(body.to_string()))
    };
    for body in [json!({}), json!({ "by": " " })] {
        let refused = send(body);
        assert!(refused.status == 400 && refused.body.contains("by is missing"), "{}", refused.body);
    }
    assert!(orders.try_recv().is_err());
    // A task that says each thing that may be, in turn.
    let obeying = tokio::spawn(async move {
        let mut authors = Vec::new();
        let mut outcomes = [
            Ok("APPLIED"),
            Err(NotWritten::Failed),
            Err(NotWritten::Unconfirmed),
            Err(NotWritten::Late),
            Err(NotWritten::Busy),
        ]
        .into_iter();
        while let Some(Order::Give { command, answer }) = orders.recv().await {
            authors.push(format!("{} {}", command.author(), command.role()));
            let outcome = outcomes.next().expect("an outcome").map(|outcome| Outcome {
                idempotency_key: command.idempotency_key().to_owned(),
                given_at: command.given_us(),
                outcome: outcome.to_owned(),
                reason: String::new(),
            });
            answer.send(outcome).expect("somebody waits");
        }
        authors
    });
    let by = || json!({ "by": "Dr. Ada", "note": "seen" });
    assert_eq!(send(by()).status, 200);
    for (kind, said) in [
        ("not-written", "Nothing was written"),
        ("unconfirmed", "may still arrive"),
        ("late", "It is in Kafka"),
        ("busy", "nothing was written"),
    ] {
        let answer = send(by());
        assert_eq!((answer.status, answer.problem().as_str()), (503, kind));
        assert!(answer.body.contains(said), "{}", answer.body);
    }
    shutdown.cancel();
    let authors = tokio::time::timeout(WITHIN, obeying).await.expect("the dashboard ends").expect("no panic");
    assert_eq!(authors, vec!["Dr. Ada ADMIN"; 5]);
}
