//! Sign-in at an OpenID provider, `oidc-provider` from npm. None of it needs ClickHouse.

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use dashboard::access::{Auth, oidc::Settings, tokens::Role};
use harness::{Doseline, OpenId, Scratch, free_port, poll};

use super::{Answer, Served, nowhere};

const WITHIN: Duration = Duration::from_secs(60);
const SECRET: &str = "a-secret-of-the-client-0f3c/+%";
/// Sent by a browser that the page of another site sends here.
const LANDING: [(&str, &str); 3] =
    [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];

/// A dashboard whose persons sign in at a provider.
struct Site {
    served: Served,
    secret: PathBuf,
    // Deleted last.
    _scratch: Scratch,
}

fn callback(port: u16) -> String {
    format!("http://127.0.0.1:{port}/oidc-callback")
}

impl Site {
    async fn start(port: u16, issuer: String) -> Self {
        let scratch = Scratch::new("api-oidc");
        let (secret, tokens) = (scratch.join("secret"), scratch.join("tokens.json"));
        fs::write(&secret, SECRET).expect("write the secret");
        let settings = Settings {
            issuer,
            client_id: "doseline".to_owned(),
            client_secret_file: Some(secret.clone()),
            redirect_url: callback(port),
            ..Settings::default()
        };
        let options = dashboard::Options {
            listen: SocketAddr::from(([127, 0, 0, 1], port)),
            names: vec!["fleet.example".to_owned()],
            auth: Auth::Oidc { settings: Box::new(settings), tokens: Some(tokens.clone()) },
            tls: None,
            behind_proxy: false,
            requests_per_min: 1_000_000,
            faults: Default::default(),
            writer: dashboard::write::orders().0,
        };
        let served = Served::of(options, nowhere(), tokens, Scratch::new("api-oidc-served")).await;
        Self { served, secret, _scratch: scratch }
    }

    /// Begins an attempt: the cookie of the browser, and where it is sent.
    fn begin(&self) -> (String, String) {
        let answer = self.served.get("/oidc-begin", &[]);
        assert_eq!(answer.status, 303, "{}", answer.body);
        let set = answer.header("set-cookie").expect("a cookie");
        assert!(
            set.starts_with("doseline-attempt=") && set.contains("HttpOnly") && set.contains("SameSite=Lax"),
            "{set}"
        );
        (pair(set), answer.header("location").expect("an address").to_owned())
    }

    /// Takes a browser back from the provider.
    fn land(&self, address: &str, cookie: &str) -> Answer {
        let path = address.strip_prefix(&self.served.origin()).unwrap_or_else(|| panic!("sent to {address}"));
        self.served.get(path, &[LANDING[0], LANDING[1], LANDING[2], ("cookie", cookie)])
    }

    /// Signs in as a new browser.
    fn sign_in(&self, provider: &OpenId, account: &str) -> Answer {
        let (cookie, address) = self.begin();
        self.land(&provider.sign_in(&address, Some(account)), &cookie)
    }

    fn me(&self, cookie: &str) -> Answer {
        self.served.get("/api/v1/me", &[("cookie", cookie), ("sec-fetch-site", "same-origin")])
    }
}

fn pair(set_cookie: &str) -> String {
    set_cookie.split(';').next().expect("a pair").to_owned()
}

#[track_caller]
fn log_in(answer: &Answer) -> String {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let set = answer.header("set-cookie").expect("a cookie");
    assert!(set.starts_with("doseline=") && set.contains("HttpOnly") && set.contains("SameSite=Strict"), "{set}");
    assert!(answer.body.contains("url=/"), "{}", answer.body);
    pair(set)
}

#[track_caller]
fn refused(answer: &Answer, status: u16, said: &str) {
    assert_eq!(answer.status, status, "{said}: {}", answer.body);
    assert!(answer.body.contains(said), "{said}: {}", answer.body);
    assert_eq!(answer.header("set-cookie"), None, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_signs_in_at_the_provider_and_out() {
    let port = free_port();
    let provider = OpenId::start(free_port(), &[callback(port)], SECRET);
    let site = Site::start(port, provider.issuer()).await;
    assert_eq!(site.served.get("/", &[]).header("location"), Some("/login"));
    let page = site.served.get("/login", &[]);
    assert!(page.body.contains("href=\"oidc-begin\"") && page.body.contains("name=\"token\""), "{}", page.body);

    let (attempt, address) = site.begin();
    for part in ["response_type=code", "code_challenge_method=S256", "state=", "nonce=", "client_id=doseline"] {
        assert!(address.contains(part), "{part} is not in {address}");
    }
    let back = provider.sign_in(&address, Some("viewer"));
    let cookie = log_in(&site.land(&back, &attempt));
    let me = site.me(&cookie).json();
    assert_eq!((&me["id"], &me["role"]), (&"oidc:viewer".into(), &"viewer".into()), "{me}");
    assert_eq!((&me["tenants"], &me["signed_in"]), (&serde_json::json!(["acme"]), &true.into()), "{me}");
    assert_eq!(site.served.get("/", &[("cookie", &cookie)]).status, 200);
    // An answer of the provider counts once.
    refused(&site.land(&back, &attempt), 400, "Begin again");
    assert!(site.served.get("/login", &[]).body.contains("/session/end?client_id=doseline"));

    let origin = site.served.origin();
    let left = site.served.post("/logout", &[("cookie", &cookie), ("origin", &origin)], "");
    assert_eq!((left.status, site.me(&cookie).status), (303, 401));

    let operator = site.me(&log_in(&site.sign_in(&provider, "operator"))).json();
    assert_eq!((&operator["role"], &operator["tenants"]), (&"operator".into(), &serde_json::json!(["acme", "beta"])));
    let maker = site.me(&log_in(&site.sign_in(&provider, "maker"))).json();
    assert_eq!((&maker["role"], &maker["manufacturer"]), (&"manufacturer".into(), &"A maker".into()));
    let admin = site.me(&log_in(&site.sign_in(&provider, "admin"))).json();
    assert_eq!((&admin["role"], &admin["tenants"]), (&"admin".into(), &serde_json::Value::Null));

    // Programs have tokens beside it.
    let (token, _) = site.served.token(Role::Viewer, "acme", 60);
    assert_eq!(site.served.ask(&token, "/api/v1/me").status, 200);
    assert_eq!(site.served.ask("a.b.c", "/api/v1/me").status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_provider_should_not_have_sent_lets_nobody_in() {
    let ports = [free_port(), free_port()];
    let provider = OpenId::start(free_port(), &ports.map(callback), SECRET);
    let first = Site::start(ports[0], provider.issuer()).await;
    for (account, said) in [
        ("expired:viewer", "has expired"),
        ("future:viewer", "not valid yet"),
        ("audience:viewer", "another client"),
        ("issuer:viewer", "https://another.example"),
        ("nonce:viewer", "another attempt"),
        ("none:viewer", "signed with &quot;none&quot;"),
        ("secret:viewer", "signed with &quot;HS256&quot;"),
        ("stranger:viewer", "signature is wrong"),
    ] {
        refused(&first.sign_in(&provider, account), 403, said);
    }
    log_in(&first.sign_in(&provider, "viewer"));
    // Each port counts failed attempts by itself.
    let second = Site::start(ports[1], provider.issuer()).await;
    for (account, said) in [
        ("nobody", "has no role"),
        ("owner", "has no role"),
        ("two", "has several roles"),
        ("homeless", "has no tenant"),
    ] {
        refused(&second.sign_in(&provider, account), 403, said);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_browser_that_began_an_attempt_ends_it() {
    let port = free_port();
    let provider = OpenId::start(free_port(), &[callback(port)], SECRET);
    let site = Site::start(port, provider.issuer()).await;
    let (cookie, address) = site.begin();
    let (other, _) = site.begin();
    let back = provider.sign_in(&address, Some("viewer"));
    for wrong in ["", "doseline-attempt=0", &other, &cookie.replace("doseline-attempt", "__Host-doseline-attempt")] {
        refused(&site.land(&back, wrong), 400, "Begin again");
    }
    let (cookie, address) = site.begin();
    let back = provider.sign_in(&address, Some("viewer"));
    let state = back.split("state=").nth(1).and_then(|rest| rest.split('&').next()).expect("a state");
    refused(&site.land(&back.replace(state, &"0".repeat(state.len())), &cookie), 400, "Begin again");
    refused(&site.land(&back, &cookie), 400, "Begin again");
    let (cookie, address) = site.begin();
    let back = provider.sign_in(&address, Some("viewer"));
    let issuer: String = form(&provider.issuer());
    assert!(back.contains(&issuer), "{back}");
    refused(&site.land(&back.replace(&issuer, "https%3A%2F%2Fanother.example"), &cookie), 400, "Begin again");
    let (cookie, address) = site.begin();
    refused(&site.land(&provider.sign_in(&address, None), &cookie), 403, "access_denied");
    let (cookie, address) = site.begin();
    let back = provider.sign_in(&address, Some("viewer"));
    let code = back.split("code=").nth(1).and_then(|rest| rest.split('&').next()).expect("a code");
    refused(&site.land(&back.replace(code, "invented"), &cookie), 502, "invalid_grant");
    // Ten failed attempts a minute are answered.
    let statuses: Vec<u16> =
        (0..12).map(|_| site.served.get("/oidc-callback?code=1&state=1", &LANDING).status).collect();
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    // Another site sends a browser here and to no other path, and shows none of it in a frame.
    for path in ["/", "/login", "/oidc-begin", "/api/v1/me"] {
        assert_eq!(site.served.get(path, &LANDING).status, 403, "{path}");
    }
    let framed = [LANDING[0], LANDING[1], ("sec-fetch-dest", "iframe")];
    assert_eq!(site.served.get("/oidc-callback", &framed).status, 403);
}

fn form(text: &str) -> String {
    text.replace(':', "%3A").replace('/', "%2F")
}

#[tokio::test(flavor = "multi_thread")]
async fn new_keys_and_a_new_secret_need_no_restart_and_a_provider_may_come_late() {
    let (port, at) = (free_port(), free_port());
    let site = Site::start(port, format!("http://127.0.0.1:{at}")).await;
    let late = site.served.get("/oidc-begin", &[]);
    refused(&late, 502, "gives no answer that can be used: its configuration");
    let mut provider = OpenId::start(at, &[callback(port)], SECRET);
    log_in(&site.sign_in(&provider, "viewer"));
    provider.rotate_keys();
    log_in(&site.sign_in(&provider, "viewer"));
    fs::write(&site.secret, "another").expect("write the secret");
    let answer = site.sign_in(&provider, "viewer");
    refused(&answer, 502, "invalid_client");
    fs::remove_file(&site.secret).expect("remove the secret");
    refused(&site.sign_in(&provider, "viewer"), 502, "serve.oidc.client_secret_file");
    fs::write(&site.secret, format!("{SECRET}\n")).expect("write the secret");
    log_in(&site.sign_in(&provider, "viewer"));
    // A provider under another name is another one.
    let elsewhere = Site::start(free_port(), format!("http://localhost:{at}")).await;
    refused(&elsewhere.served.get("/oidc-begin", &[]), 502, "calls itself");
}

/// The role as a process, at the most talkative level of the log.
#[test]
fn the_log_names_persons_and_shows_no_secret_of_a_log_in() {
    let (scratch, port) = (Scratch::new("api-oidc-log"), free_port());
    let provider = OpenId::start(free_port(), &[callback(port)], SECRET);
    let (file, secret) = (scratch.join("doseline.toml"), scratch.join("secret"));
    fs::write(&secret, SECRET).expect("write the secret");
    let text = format!(
        "[log]\nfilter = \"trace\"\n[clickhouse]\nurl = \"http://127.0.0.1:1\"\n\
         [serve]\nhttp = \"127.0.0.1:{port}\"\nauth = \"oidc\"\n[serve.oidc]\nissuer = \"{}\"\nclient_id = \"doseline\"\n\
         client_secret_file = \"{}\"\nredirect_url = \"{}\"\n",
        provider.issuer(),
        secret.display(),
        callback(port),
    );
    fs::write(&file, &text).expect("write the configuration");
    let path = file.to_str().expect("UTF-8 path");
    let checked = Doseline::run(&["check", "--config", path], &[], WITHIN);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    let mut serve = Doseline::start(&["serve", "--config", path]);
    serve.wait_for_line("dashboard serves", WITHIN);
    let agent = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
    let agent = agent.max_redirects_will_error(false).build().new_agent();
    let origin = format!("http://127.0.0.1:{port}");
    let mut secrets = vec![SECRET.to_owned()];
    for (account, status) in [("viewer", 200), ("expired:viewer", 403)] {
        let begun = poll(WITHIN, "a begin", || agent.get(format!("{origin}/oidc-begin")).call());
        let attempt = pair(begun.headers()["set-cookie"].to_str().expect("a cookie"));
        let back = provider.sign_in(begun.headers()["location"].to_str().expect("an address"), Some(account));
        let landed = agent.get(&back).header("cookie", &attempt).call().expect("an answer");
        assert_eq!(landed.status().as_u16(), status, "{account}");
        secrets.push(attempt.split_once('=').expect("a pair").1.to_owned());
        secrets.push(back.split("code=").nth(1).and_then(|rest| rest.split('&').next()).expect("a code").to_owned());
        if let Some(set) = landed.headers().get("set-cookie") {
            secrets.push(pair(set.to_str().expect("a cookie")).split_once('=').expect("a pair").1.to_owned());
        }
    }
    assert!(serve.stop(WITHIN).0.success());
    let log = serve.stderr();
    for said in ["somebody signed in", "oidc:viewer", "somebody was not let in", "it has expired"] {
        assert!(log.contains(said), "the log lacks {said}:\n{log}");
    }
    assert_eq!(secrets.len(), 6);
    for secret in &secrets {
        assert!(secret.len() >= 20 && !log.contains(secret), "the log shows {secret}");
    }
    // Without a provider it does not start.
    fs::write(&file, text.split("[serve.oidc]").next().expect("a part")).expect("write the configuration");
    let without = Doseline::run(&["serve", "--config", path], &[], WITHIN);
    assert!(without.code == Some(64) && without.stderr.contains("serve.oidc"), "{}", without.stderr);
}
