//! Requests that are wrong: each gets a clear answer, and the interface goes on.

use dashboard::access::tokens::Role;
use harness::ClickHouse;

use super::{Served, marks, migrated, nowhere};

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_request_is_told_what_would_be_right() {
    let served = Served::start(nowhere(), 1_000_000).await;
    let (viewer, _) = served.token(Role::Viewer, "acme", 3_600);
    let check = |path: &str, status: u16, kind: &str, said: &str| {
        let answer = served.ask(&viewer, path);
        assert_eq!((answer.status, answer.problem().as_str()), (status, kind), "{path}");
        let detail = answer.json()["detail"].as_str().expect("a detail").to_owned();
        assert!(detail.contains(said) && detail.len() < 500, "{path}: {detail}");
    };
    check("/api/v1/devices?sites=a", 400, "unknown-parameter", "site, model, kind, state, tenant, limit, cursor");
    check("/api/v1/me?x=1", 400, "unknown-parameter", "none");
    check("/api/v1/tenants/acme/devices/d?tenant=acme", 400, "unknown-parameter", "none");
    check("/api/v1/devices?site=a&site=b", 400, "bad-parameter", "twice");
    check("/api/v1/devices?site=", 400, "bad-parameter", "1 to 512");
    check(&format!("/api/v1/devices?site={}", "x".repeat(10_000)), 400, "bad-parameter", "10000 bytes");
    check(&format!("/api/v1/tenants/acme/devices/{}", "x".repeat(10_000)), 400, "bad-parameter", "10000 bytes");
    check("/api/v1/devices?kind=PEN", 400, "bad-parameter", "INJECTOR, STERILIZER");
    for limit in ["0", "1001", "-1", "ten", "1e3", "99999999999999999999"] {
        check(&format!("/api/v1/devices?limit={limit}"), 400, "bad-parameter", "1 to 1000");
    }
    check("/api/v1/sessions?since=yesterday", 400, "bad-parameter", "2026-01-31T08:00:00Z");
    check("/api/v1/sessions?since=2026-02-30T08:00:00Z", 400, "bad-parameter", "2026-01-31T08:00:00Z");
    check("/api/v1/tenants/acme/items", 400, "bad-parameter", "label is missing");
    check("/api/v1/labels", 400, "bad-parameter", "label is missing");
    check("/api/v1/labels?label=0104012345000017", 400, "bad-parameter", "label: ");
    for cursor in ["x", "W10", "bnVsbA", "%F0%9F%92%89", &"A".repeat(4_000)] {
        check(&format!("/api/v1/devices?cursor={cursor}"), 400, "foreign-cursor", "from the first page");
    }
    check(&format!("/api/v1/devices?cursor={}", "A".repeat(10_000)), 400, "bad-parameter", "1 to 4096");
    for tenant in ["other", "'", "%00", "acme%0A", "ACME", "acme'%20OR%201"] {
        check(&format!("/api/v1/devices?tenant={tenant}"), 404, "not-found", "no such thing");
        check(&format!("/api/v1/tenants/{tenant}/devices/d"), 404, "not-found", "no such thing");
    }
    check("/api/v1/tenants/acme/devices/%FF", 404, "not-found", "no such thing");
    check("/api/v1/none", 404, "not-found", "no such thing");
    check("/api/v1", 404, "not-found", "");
    check("/api/v1/pipeline/partitions", 403, "wrong-role", "admin");
    check("/api/v1/tenants/acme/quarantine/1-1-1", 403, "wrong-role", "operator");
    check("/api/v1/manufacturer/models", 403, "wrong-role", "manufacturer");
    let answer = served.post("/api/v1/devices", &[("authorization", &format!("Bearer {viewer}"))], "{}");
    assert_eq!((answer.status, answer.problem().as_str()), (405, "method-not-allowed"));
    // ClickHouse is away: its address stays in the log.
    let answer = served.ask(&viewer, "/api/v1/devices");
    assert_eq!((answer.status, answer.problem().as_str()), (502, "query-failed"));
    assert!(!answer.body.contains("127.0.0.1"), "{}", answer.body);
}

/// Ids with everything that means something to SQL, JSON, CSV or HTTP name nothing, and break
/// nothing.
#[tokio::test(flavor = "multi_thread")]
async fn strange_ids_name_nothing() {
    let clickhouse = ClickHouse::start();
    let warehouse = migrated(&clickhouse).await;
    marks::fill(&clickhouse);
    let served = Served::start(warehouse, 1_000_000).await;
    let (alpha, _) = served.token(Role::Operator, "alpha", 3_600);
    let strange = [
        "%27",
        "%27%27",
        "%22",
        "%5C",
        "%5C%27",
        "%27%29%20OR%201%20--%20",
        "a%0Ab",
        "a%0D%0Aset-cookie:%20x=1",
        "%00",
        "%3F",
        "%7Bwhere%7D",
        "%60",
        "%3B%20DROP%20TABLE%20alerts",
        "%F0%9F%92%89",
        "%2F..%2F..%2Fbeta",
        "..",
        "%25",
        "%2500",
    ];
    let long = "x".repeat(512);
    for id in strange.into_iter().chain([long.as_str()]) {
        for path in ["devices/{}", "sessions/{}", "cycles/{}", "alerts/{}", "quarantine/{}"] {
            let url = format!("/api/v1/tenants/alpha/{}", path.replace("{}", id));
            let answer = served.ask(&alpha, &url);
            assert_eq!((answer.status, answer.problem().as_str()), (404, "not-found"), "{url}");
            assert_eq!(answer.header("set-cookie"), None, "{url}");
        }
        for query in ["devices?site={}", "sessions?client_ref={}", "tenants/alpha/items?label={}", "alerts?kind={}"] {
            let url = format!("/api/v1/{}", query.replace("{}", id));
            let answer = served.ask(&alpha, &url);
            assert_eq!((answer.status, answer.json()["data"].as_array().map(Vec::len)), (200, Some(0)), "{url}");
        }
    }
    assert_eq!(clickhouse.number("SELECT count() FROM doseline.alerts"), 2);
    assert_eq!(served.ask(&alpha, "/api/v1/alerts").json()["data"].as_array().map(Vec::len), Some(1));
}
