//! Who may ask: tokens, log-ins, limits. None of it needs ClickHouse.

use std::{fs, path::Path, time::Duration};

use dashboard::{
    Dashboard,
    access::{Auth, tokens::Role},
};
use harness::{Doseline, Scratch, free_port};

use super::{Answer, Served, nowhere};

const OFTEN: u32 = 1_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_gets_nothing() {
    let served = Served::start(nowhere(), OFTEN).await;
    for path in ["/api/fleet", "/api/none", "/api/v1/me", "/api/v1/devices", "/api/v1/openapi.json", "/api/v1/x", "/x"]
    {
        let answer = served.get(path, &[]);
        assert_eq!((answer.status, answer.problem().as_str()), (401, "not-authenticated"), "{path}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{path}");
    }
    let page = served.get("/", &[]);
    assert_eq!((page.status, page.header("location")), (303, Some("/login")));
    let deep = served.get("/devices/acme/d-1", &[("accept", "text/html,*/*;q=0.8")]);
    assert_eq!((deep.status, deep.header("location")), (303, Some("/login")));
    let health = served.get("/readyz", &[]);
    assert_eq!(health.status, 503);
    assert!(!health.body.contains("127.0.0.1"), "{}", health.body);
    for path in ["/livez", "/login.css", "/login"] {
        assert_eq!(served.get(path, &[]).status, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_has_the_headers_that_browsers_need() {
    let served = Served::start(nowhere(), OFTEN).await;
    let (token, _) = served.token(Role::Admin, "", 60);
    for path in ["/", "/login", "/api/v1/me", "/api/v1/none", "/api/v1/openapi.json"] {
        let answer = served.ask(&token, path);
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("x-request-id").map(str::len), Some(16), "{path}");
    }
    for page in ["/", "/login"] {
        let html = served.ask(&token, page).body;
        let inline = ["<style", " style=", " onclick=", " onload=", "<script>"];
        assert!(!inline.iter().any(|text| html.contains(text)), "{page}: {html}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_token_that_is_valid_now_opens() {
    let served = Served::start(nowhere(), OFTEN).await;
    let (token, id) = served.token(Role::Viewer, "acme", 3_600);
    let me = served.ask(&token, "/api/v1/me");
    assert_eq!(me.status, 200, "{}", me.body);
    let me = me.json();
    assert_eq!((&me["id"], &me["role"], &me["tenants"][0]), (&id.as_str().into(), &"viewer".into(), &"acme".into()));
    assert_eq!(me["signed_in"], false);
    let (expired, _) = served.token(Role::Viewer, "acme", -1);
    let (other, _) = served.token(Role::Viewer, "acme", 3_600);
    let swapped = format!("{}_{}", token.rsplit_once('_').unwrap().0, other.rsplit_once('_').unwrap().1);
    let refused = |header: &str| {
        let answer = served.get("/api/v1/me", &[("authorization", header)]);
        assert!(matches!(answer.status, 401 | 429), "{header}: {}", answer.body);
        assert!(!answer.body.contains("acme"));
    };
    for header in
        ["Bearer", "Bearer ", "Basic YTpi", &token, &format!("Bearer {expired}"), &format!("Bearer {swapped}")]
    {
        refused(header);
    }
    refused(&format!("Bearer {}", "x".repeat(10_000)));
    assert_eq!(served.get("/api/v1/me", &[("authorization", &format!("bearer {token}"))]).status, 200);
    served.revoke(&id);
    refused(&format!("Bearer {token}"));
    assert_eq!(served.ask(&other, "/api/v1/me").status, 200);
}

/// Ten failed attempts a minute are answered; then the address waits. A valid token opens all the
/// same.
#[tokio::test(flavor = "multi_thread")]
async fn failed_attempts_are_limited() {
    let served = Served::start(nowhere(), OFTEN).await;
    let (token, _) = served.token(Role::Viewer, "acme", 3_600);
    let statuses: Vec<u16> = (0..12).map(|_| served.ask("dsl_00000000_0", "/api/v1/me").status).collect();
    assert_eq!(statuses, [vec![401; 10], vec![429; 2]].concat());
    let waiting = served.ask("dsl_00000000_0", "/api/v1/me");
    assert_eq!(waiting.problem(), "too-many-requests");
    let wait: u64 = waiting.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((1..=7).contains(&wait), "{wait}");
    assert_eq!(served.ask(&token, "/api/v1/me").status, 200);
    let signing_in = served.post("/login", &[("origin", &served.origin())], "token=dsl_00000000_0");
    assert_eq!(signing_in.status, 429);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asker_has_its_pace() {
    let served = Served::start(nowhere(), 5).await;
    let (hasty, _) = served.token(Role::Viewer, "acme", 3_600);
    let (calm, _) = served.token(Role::Viewer, "acme", 3_600);
    let statuses: Vec<u16> = (0..6).map(|_| served.ask(&hasty, "/api/v1/me").status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429]);
    let answer = served.ask(&hasty, "/api/v1/me");
    assert!(answer.problem() == "too-many-requests" && answer.header("retry-after").is_some());
    assert_eq!(served.ask(&calm, "/api/v1/me").status, 200);
}

fn cookie(answer: &Answer) -> String {
    let set = answer.header("set-cookie").expect("a cookie");
    for word in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(set.contains(word), "{set}");
    }
    set.split(';').next().expect("a pair").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_signs_in_and_out() {
    let served = Served::start(nowhere(), OFTEN).await;
    let (token, id) = served.token(Role::Operator, "acme", 3_600);
    let origin = served.origin();
    let form = format!("token=+{token}+");
    let sign_in = |headers: &[(&str, &str)], form: &str| served.post("/login", headers, form);
    let own = [("origin", origin.as_str())];
    // A form of another site, one that does not say where it comes from, and a wrong token.
    assert_eq!(sign_in(&[("origin", "http://elsewhere.example")], &form).status, 403);
    assert_eq!(sign_in(&[("sec-fetch-site", "cross-site")], &form).status, 403);
    assert_eq!(sign_in(&[], &form).problem(), "foreign-form");
    for wrong in ["", "token=", "token=dsl_0_0", "tokens=x", &format!("token={}", "x".repeat(900))] {
        let refused = sign_in(&own, wrong);
        assert!(refused.status == 401 && refused.body.contains("not valid"), "{wrong}: {}", refused.status);
        assert_eq!(refused.header("set-cookie"), None);
    }
    assert_eq!(sign_in(&own, &"x".repeat(5_000)).status, 413);
    let signed_in = sign_in(&own, &form);
    assert_eq!((signed_in.status, signed_in.header("location")), (303, Some("./")), "{}", signed_in.body);
    assert_eq!(signed_in.header("cache-control"), Some("no-store"));
    let cookie = cookie(&signed_in);
    assert!(!cookie.contains(&token) && cookie.starts_with("doseline="), "{cookie}");
    let with = |path: &str| served.get(path, &[("cookie", &cookie)]);
    assert_eq!((with("/").status, with("/api/v1/me").json()["signed_in"].as_bool()), (200, Some(true)));
    // A cookie of a name with TLS is not taken on the loopback interface, nor the other way round.
    let strict = format!("__Host-{cookie}");
    assert_eq!(served.get("/api/v1/me", &[("cookie", &strict)]).status, 401);
    assert_eq!(served.get("/api/v1/me", &[("host", "fleet.example"), ("cookie", &cookie)]).status, 401);
    assert_eq!(served.post("/logout", &[("cookie", &cookie)], "").status, 403);
    assert_eq!(with("/api/v1/me").status, 200);
    let left = served.post("/logout", &[("cookie", &cookie), ("origin", &origin)], "");
    assert_eq!((left.status, left.header("location")), (303, Some("login")));
    assert_eq!(with("/api/v1/me").status, 401);
    // A revoked token ends its log-ins.
    let again = self::cookie(&sign_in(&own, &form));
    assert_eq!(served.get("/api/v1/me", &[("cookie", &again)]).status, 200);
    served.revoke(&id);
    assert_eq!(served.get("/api/v1/me", &[("cookie", &again)]).status, 401);
    // Behind a proxy with TLS, under its name.
    let (token, _) = served.token(Role::Operator, "acme", 3_600);
    let proxied = [("host", "fleet.example"), ("origin", "https://fleet.example"), ("x-forwarded-proto", "https")];
    let signed_in = sign_in(&proxied, &format!("token={token}"));
    let set = signed_in.header("set-cookie").expect("a cookie");
    assert!(set.starts_with("__Host-doseline=") && set.ends_with("; Secure"), "{set}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_tokens_or_tls_only_the_loopback_interface_is_served() {
    let options = |listen: &str, auth, behind_proxy| dashboard::Options {
        listen: listen.parse().expect("an address"),
        names: Vec::new(),
        auth,
        tls: None,
        behind_proxy,
        requests_per_min: 1,
        faults: Default::default(),
        writer: dashboard::write::orders().0,
    };
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let error = Dashboard::bind(options(listen, Auth::None, true), nowhere()).await.expect_err(listen).to_string();
        assert!(error.contains("lets everybody who reaches") && error.contains("; set serve.auth"), "{error}");
    }
    Dashboard::bind(options("127.0.0.1:0", Auth::None, false), nowhere()).await.expect("a loopback address");
    let scratch = Scratch::new("api-none");
    let tokens = Auth::Tokens(scratch.join("tokens.json"));
    let error = Dashboard::bind(options("0.0.0.0:0", tokens.clone(), false), nowhere()).await.expect_err("no TLS");
    assert!(error.to_string().contains("without TLS; set serve.tls"), "{error}");
    Dashboard::bind(options("0.0.0.0:0", tokens, true), nowhere()).await.expect("it has tokens and a proxy");
}

/// The role as a process, at the most talkative level of the log.
#[test]
fn the_log_names_requests_and_shows_no_secret() {
    const SOON: Duration = Duration::from_secs(60);
    let scratch = Scratch::new("api-log");
    let path = scratch.join("tokens.json");
    let file = path.to_str().expect("UTF-8 path");
    let made = Doseline::run(&["token", "--file", file, "create", "--role", "admin"], &[], SOON);
    let token = made.stdout.trim().to_owned();
    let address = format!("127.0.0.1:{}", free_port());
    let environment = [
        ("DOSELINE__SERVE__HTTP", address.as_str()),
        ("DOSELINE__SERVE__AUTH", "tokens"),
        ("DOSELINE__SERVE__TOKENS_FILE", file),
        ("DOSELINE__LOG__FILTER", "trace"),
        ("DOSELINE__CLICKHOUSE__URL", "http://127.0.0.1:1"),
    ];
    let mut serve = Doseline::start_with(&["serve"], &environment);
    serve.wait_for_line("dashboard serves", SOON);
    let agent = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0);
    let agent = agent.max_redirects_will_error(false).build().new_agent();
    let (url, mut ids, invented) =
        (format!("http://{address}"), Vec::new(), format!("dsl_00000000_{}", "5ec2e7".repeat(10)));
    for (path, token, status) in
        [("/api/v1/me", &token, 200), ("/api/v1/devices", &token, 502), ("/api/v1/me", &invented, 401)]
    {
        let answer =
            agent.get(format!("{url}{path}")).header("authorization", format!("Bearer {token}")).call().unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
        ids.push(answer.headers()["x-request-id"].to_str().expect("an id").to_owned());
    }
    let login = agent.post(format!("{url}/login")).header("origin", &url).send(format!("token={token}")).unwrap();
    let cookie = login.headers()["set-cookie"].to_str().expect("a cookie").to_owned();
    let value = cookie.split(['=', ';']).nth(1).expect("a value");
    let command =
        fs::read(Path::new("/proc").join(serve.process().id().to_string()).join("cmdline")).expect("the command");
    assert!(serve.stop(SOON).0.success());
    let log = serve.stderr();
    for id in &ids {
        assert!(log.contains(id), "{id} is not in the log:\n{log}");
    }
    for text in ["a request without a valid token was refused", "somebody signed in", "the query failed"] {
        assert!(log.contains(text), "the log lacks {text}:\n{log}");
    }
    let said = format!("{log}{}{}", String::from_utf8_lossy(&command), made.stderr);
    for secret in [token.rsplit_once('_').expect("a token").1, value, invented.rsplit_once('_').expect("a token").1] {
        assert!(secret.len() == 64 || secret.len() == 60, "{secret}");
        assert!(!said.contains(secret), "the log shows {secret}");
    }
}
