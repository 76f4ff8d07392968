//! Server-sent events: who is told what, and when a stream ends.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use dashboard::access::tokens::Role;
use harness::{ClickHouse, poll};

use super::{Served, migrated, nowhere};

/// How soon a page must be told of a change.
const TOLD_WITHIN: Duration = Duration::from_secs(3);
/// Long enough for a loaded machine.
const WITHIN: Duration = Duration::from_secs(60);

/// A page that listens.
struct Page {
    stream: TcpStream,
    heard: String,
}

impl Page {
    fn listen(served: &Served, token: &str, query: &str) -> Self {
        let mut stream = TcpStream::connect(served.address).expect("the port is there");
        let head = format!(
            "GET /api/v1/changes{query} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\r\n",
            served.address
        );
        stream.write_all(head.as_bytes()).expect("send the request");
        stream.set_read_timeout(Some(Duration::from_millis(50))).expect("set a limit");
        Self { stream, heard: String::new() }
    }

    /// Reads what has come. Returns whether more may come.
    fn hear(&mut self) -> bool {
        let mut bytes = [0; 4_096];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(read) => {
                self.heard += &String::from_utf8_lossy(&bytes[..read]);
                true
            }
            Err(error) => matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        }
    }

    /// Waits until a text was heard.
    #[track_caller]
    fn wait(&mut self, text: &str, within: Duration) {
        let deadline = Instant::now() + within;
        while !self.heard.contains(text) {
            assert!(Instant::now() < deadline && self.hear(), "{text} is not in {}", self.heard);
        }
    }

    /// Waits until the stream ends.
    #[track_caller]
    fn wait_for_end(&mut self) {
        let deadline = Instant::now() + WITHIN;
        while self.hear() {
            assert!(Instant::now() < deadline, "it goes on: {}", self.heard);
            if self.heard.ends_with("\r\n0\r\n\r\n") {
                return;
            }
        }
    }

    /// The topics that were told, one line for each event.
    fn topics(&self) -> Vec<String> {
        let data = self.heard.lines().filter_map(|line| line.strip_prefix("data: "));
        let events = data.map(|text| serde_json::from_str::<serde_json::Value>(text).expect("JSON"));
        events.filter(|event| !event["topics"].is_null()).map(|event| event["topics"].to_string()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_is_told_of_what_it_may_see_and_of_nothing_else() {
    let clickhouse = ClickHouse::start();
    let served = Served::start(migrated(&clickhouse).await, 1_000_000).await;
    let (alpha, _) = served.token(Role::Viewer, "alpha", 3_600);
    let (beta, _) = served.token(Role::Viewer, "beta", 3_600);
    let (admin, _) = served.token(Role::Admin, "", 3_600);
    let (maker, _) = served.token(Role::Manufacturer, "maker", 3_600);
    assert_eq!(served.ask(&alpha, "/api/v1/changes?tenant=beta").problem(), "not-found");
    assert_eq!(served.ask(&alpha, "/api/v1/changes?since=1").problem(), "unknown-parameter");
    let listen = |token: &str, query: &str| Page::listen(&served, token, query);
    let [mut of_alpha, mut of_beta, mut of_all, mut of_maker, mut narrowed] =
        [listen(&alpha, ""), listen(&beta, ""), listen(&admin, ""), listen(&maker, ""), listen(&admin, "?tenant=beta")];
    for page in [&mut of_alpha, &mut of_beta, &mut of_all, &mut of_maker, &mut narrowed] {
        page.wait("event: beat", WITHIN);
        assert!(page.heard.to_lowercase().contains("content-type: text/event-stream"), "{}", page.heard);
    }
    clickhouse.query("INSERT INTO doseline.alerts (tenant) VALUES ('alpha')");
    of_alpha.wait("alerts", TOLD_WITHIN);
    clickhouse.query("INSERT INTO doseline.sterilization_cycles (tenant) VALUES ('beta')");
    of_beta.wait("cycles", TOLD_WITHIN);
    narrowed.wait("cycles", WITHIN);
    of_all.wait("cycles", WITHIN);
    for page in [&of_beta, &narrowed] {
        assert_eq!(page.topics(), [r#"["cycles"]"#]);
    }
    assert!(of_all.heard.contains("alerts"));
    for _ in 0..5 {
        of_alpha.hear();
        of_maker.hear();
    }
    assert!(!of_alpha.heard.contains("cycles"), "{}", of_alpha.heard);
    assert!(of_maker.topics().is_empty(), "{}", of_maker.heard);
    let all = [of_alpha, of_beta, of_all, of_maker, narrowed].map(|page| page.heard).join("");
    assert!(!all.contains("\"alpha\"") && !all.contains("\"beta\""), "{all}");
    // With the last page the looking ends: ClickHouse is asked by this test alone.
    let asked = || clickhouse.number("SELECT value FROM system.events WHERE event = 'SelectQuery'");
    poll(WITHIN, "the looking to end", || {
        let before = asked();
        std::thread::sleep(Duration::from_millis(2_500));
        match asked() - before {
            1 => Ok(()),
            more => Err(format!("{more} queries")),
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_its_token_and_with_the_process() {
    let served = Served::start(nowhere(), 1_000_000).await;
    let (kept, _) = served.token(Role::Viewer, "acme", 3_600);
    let (revoked, id) = served.token(Role::Viewer, "acme", 3_600);
    let [mut stays, mut goes] = [Page::listen(&served, &kept, ""), Page::listen(&served, &revoked, "")];
    for page in [&mut stays, &mut goes] {
        page.wait("event: beat", WITHIN);
    }
    served.revoke(&id);
    goes.wait_for_end();
    let beats = |page: &Page| page.heard.matches("event: beat").count();
    let before = beats(&stays);
    while beats(&stays) == before {
        assert!(stays.hear(), "it ended: {}", stays.heard);
    }
    served.shutdown.cancel();
    stays.wait_for_end();
}

/// More pages than may listen are told to come again; those that listen go on.
#[tokio::test(flavor = "multi_thread")]
async fn pages_that_listen_are_bounded() {
    let served = Served::start(nowhere(), 1_000_000).await;
    let (token, _) = served.token(Role::Viewer, "acme", 3_600);
    let mut pages: Vec<Page> = (0..256).map(|_| Page::listen(&served, &token, "")).collect();
    for page in &mut pages {
        page.wait("event: beat", WITHIN);
    }
    let answer = served.ask(&token, "/api/v1/changes");
    assert_eq!((answer.status, answer.problem().as_str()), (503, "too-many-listeners"));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(served.ask(&token, "/api/v1/me").status, 200);
    drop(pages.pop());
    poll(WITHIN, "a place", || {
        let mut page = Page::listen(&served, &token, "");
        while page.heard.is_empty() && page.hear() {}
        if page.heard.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(page.heard.clone()) }
    });
}
