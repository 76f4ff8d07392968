//! The HTTP interface of the dashboard: who may ask, what each asker sees, and what is refused.

mod access;
mod bad_input;
mod figures;
mod leaks;
mod live;
mod marks;
mod oidc;
mod page;
mod sight;
mod tls;
mod writing;

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use dashboard::{
    Dashboard,
    access::{
        Auth,
        tokens::{self, Role, Token},
    },
    write::Order,
};
use harness::{ClickHouse, Scratch};
use serde_json::Value;
use service::{role_faults::RoleFaults, tls::ServerTls};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use warehouse::{Warehouse, migrate};

/// A dashboard in this process, with a file of tokens.
struct Served {
    address: SocketAddr,
    tokens: PathBuf,
    /// What was ordered to be written; nothing does it.
    orders: mpsc::Receiver<Order>,
    agent: ureq::Agent,
    /// Faults of roles in the same process.
    faults: RoleFaults,
    shutdown: CancellationToken,
    _scratch: Scratch,
}

/// An answer.
struct Answer {
    status: u16,
    /// All headers, one a line, in lower case.
    headers: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    /// The kind of a problem document.
    fn problem(&self) -> String {
        let problem = self.json();
        assert_eq!(problem["status"].as_u64(), Some(self.status.into()), "{}", self.body);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.headers);
        let id = self.header("x-request-id").expect("a request id");
        assert_eq!(problem["instance"].as_str(), Some(format!("urn:doseline:request:{id}").as_str()));
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{}", self.body);
        problem["type"].as_str().and_then(|kind| kind.rsplit(':').next()).expect("a type").to_owned()
    }
}

impl Served {
    async fn start(warehouse: Warehouse, requests_per_min: u32) -> Self {
        Self::start_with(warehouse, requests_per_min, None).await
    }

    /// With a certificate, its requests have to be sent over TLS.
    async fn start_with(warehouse: Warehouse, requests_per_min: u32, tls: Option<ServerTls>) -> Self {
        let scratch = Scratch::new("api");
        let tokens = scratch.join("tokens.json");
        let options = dashboard::Options {
            listen: "127.0.0.1:0".parse().expect("an address"),
            names: vec!["fleet.example".to_owned()],
            auth: Auth::Tokens(tokens.clone()),
            tls,
            behind_proxy: false,
            requests_per_min,
            faults: RoleFaults::default(),
            writer: dashboard::write::orders().0,
        };
        Self::of(options, warehouse, tokens, scratch).await
    }

    /// A dashboard with these options, whose orders come to this test.
    async fn of(options: dashboard::Options, warehouse: Warehouse, tokens: PathBuf, scratch: Scratch) -> Self {
        let (writer, orders) = dashboard::write::orders();
        let faults = options.faults.clone();
        let options = dashboard::Options { writer, ..options };
        let dashboard = Dashboard::bind(options, warehouse).await.expect("the address is free");
        let (address, shutdown) = (dashboard.address(), CancellationToken::new());
        tokio::spawn(dashboard.run(shutdown.clone()));
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .new_agent();
        Self { address, tokens, orders, agent, faults, shutdown, _scratch: scratch }
    }

    /// A new token and its id, which ends in `seconds`; a negative number has passed.
    fn token(&self, role: Role, of: &str, seconds: i64) -> (String, String) {
        let (tenants, manufacturer) = match role {
            Role::Viewer | Role::Operator => (vec![of.to_owned()], String::new()),
            Role::Manufacturer => (Vec::new(), of.to_owned()),
            Role::Admin => (Vec::new(), String::new()),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let expires = now.saturating_add_signed(seconds);
        let (token, text) = Token::create(role, tenants, manufacturer, String::new(), now, expires).expect("a token");
        let id = token.id.clone();
        tokens::update(&self.tokens, |tokens| tokens.push(token)).expect("write the tokens");
        (text, id)
    }

    fn revoke(&self, id: &str) {
        tokens::update(&self.tokens, |tokens| tokens.retain(|token| token.id != id)).expect("write the tokens");
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.agent.get(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.call())
    }

    fn head(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.agent.head(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.call())
    }

    fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = self.agent.post(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request.send(body))
    }

    /// GET with a token.
    fn ask(&self, token: &str, path: &str) -> Answer {
        self.get(path, &[("authorization", &format!("Bearer {token}"))])
    }

    fn origin(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn answer(outcome: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = outcome.expect("an answer");
    let line = |(name, value): (&ureq::http::HeaderName, &ureq::http::HeaderValue)| {
        format!("{name}: {}\n", value.to_str().expect("readable headers"))
    };
    let (status, headers) = (response.status().as_u16(), response.headers().iter().map(line).collect());
    let body = response.body_mut().with_config().limit(1 << 28).read_to_string().expect("a body");
    Answer { status, headers, body }
}

/// A warehouse with the schema.
async fn migrated(clickhouse: &ClickHouse) -> Warehouse {
    let warehouse = Warehouse::new(clickhouse.warehouse_options()).expect("the address is valid");
    migrate::migrate(&warehouse, migrate::Options::default()).await.expect("migrate an empty warehouse");
    warehouse
}

/// A warehouse that nobody serves, for what needs none.
fn nowhere() -> Warehouse {
    let options = warehouse::Options { url: "http://127.0.0.1:1".to_owned(), ..warehouse::Options::default() };
    Warehouse::new(options).expect("the address is valid")
}
