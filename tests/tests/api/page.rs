//! The page: its files, in the smallest form that a browser takes, for every path that is its own.

use dashboard::access::tokens::Role;

use super::{Served, nowhere};

/// Addresses of the files that a page loads.
fn loaded(html: &str) -> Vec<&str> {
    let quoted = html.split('"').filter(|text| text.starts_with("/assets/"));
    quoted.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_of_the_page_gets_the_page_and_its_files() {
    let served = Served::start(nowhere(), 1_000_000).await;
    let (token, _) = served.token(Role::Viewer, "acme", 60);
    let page = served.ask(&token, "/fleet");
    assert!(page.status == 200 && !page.body.contains("built without its page"), "{}", page.body);
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    for path in ["/", "/devices/acme/d-1", "/alerts?state=OPEN", "/sessions/acme/S%2F1"] {
        assert_eq!(served.ask(&token, path).body, page.body, "{path}");
    }
    let files = loaded(&page.body);
    assert!(
        files.iter().any(|file| file.ends_with(".js")) && files.iter().any(|file| file.ends_with(".css")),
        "{files:?}"
    );
    for file in files {
        // They say nothing about anybody, so a page that is not signed in may load them, too.
        let plain = served.get(file, &[("accept-encoding", "identity")]);
        assert_eq!((plain.status, plain.header("content-encoding")), (200, None), "{file}");
        let kind = if file.ends_with(".js") { "text/javascript; charset=utf-8" } else { "text/css; charset=utf-8" };
        assert_eq!(plain.header("content-type"), Some(kind), "{file}");
        assert_eq!(plain.header("cache-control"), Some("public, max-age=31536000, immutable"), "{file}");
        assert_eq!(
            (plain.header("vary"), plain.header("x-content-type-options")),
            (Some("Accept-Encoding"), Some("nosniff"))
        );
        let length = |answer: &super::Answer| {
            answer.header("content-length").map(|text| text.parse::<usize>().expect("a number"))
        };
        for (accepted, encoding) in [("gzip, deflate, br", "br"), ("gzip;q=0.5", "gzip"), ("br;q=0, gzip", "gzip")] {
            let head = served.head(file, &[("accept-encoding", accepted)]);
            assert_eq!((head.status, head.header("content-encoding")), (200, Some(encoding)), "{file} {accepted}");
            assert!(length(&head) < length(&plain), "{file}: {} {}", head.headers, plain.headers);
            assert_ne!(head.header("etag"), plain.header("etag"));
        }
        let tag = plain.header("etag").expect("a tag").to_owned();
        let known = served.get(file, &[("accept-encoding", "identity"), ("if-none-match", &tag)]);
        assert_eq!((known.status, known.body.as_str()), (304, ""), "{file}");
    }
    for path in ["/assets/gone.js", "/assets", "/api", "/api/v2/devices"] {
        assert_eq!(served.ask(&token, path).problem(), "not-found", "{path}");
    }
    let posted = served.post("/fleet", &[("authorization", &format!("Bearer {token}"))], "{}");
    assert_eq!(posted.problem(), "not-found");
}
