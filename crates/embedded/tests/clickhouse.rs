//! The embedded ClickHouse, as its clients see it. These tests need `libchdb.so`, from
//! `DOSELINE_LIBCHDB` or the cache folder.
//!
//! The library allows one engine for each process, so all tests but one share a server.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use clickhouse::{Client, Compression, Row};
use embedded::clickhouse::{Error, OWNER, Options, free_bytes, start};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::{PASSWORD, Process, Reply, arrow_batch, http, library, post, read};
use tokio_util::sync::CancellationToken;

/// The server ends within a second; a loaded machine needs longer. A server that wrongly waits for
/// a statement takes minutes.
const ENDS_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, PartialEq, Eq, Row, Serialize, Deserialize)]
struct Numbered {
    id: u64,
    name: String,
}

fn client(process: &Process) -> Client {
    Client::default().with_url(&process.url).with_user(OWNER).with_password(PASSWORD)
}

async fn count(client: &Client, table: &str) -> u64 {
    client.query(&format!("SELECT count() FROM {table}")).fetch_one().await.unwrap()
}

#[test]
fn raw_requests_get_what_a_server_answers() {
    let process = Process::start(&[]);
    let reply = http(&process, "GET", "/ping", &[], b"");
    assert_eq!((reply.status, reply.text().as_str()), (200, "Ok.\n"));
    assert_eq!(http(&process, "GET", "/", &[], b"").text(), "Ok.\n");
    assert_eq!(http(&process, "GET", "/nosuch", &[], b"").status, 404);

    let reply = http(&process, "GET", "/?query=SELECT+1+AS+x+FORMAT+JSONEachRow&query_id=mine", &[], b"");
    assert_eq!(reply.text(), "{\"x\":1}\n");
    assert_eq!(reply.header("x-clickhouse-query-id"), "mine");
    assert_eq!(reply.header("x-clickhouse-format"), "JSONEachRow");
    assert!(reply.header("x-clickhouse-summary").contains("\"read_rows\":\"1\""));
    assert!(!reply.header("x-clickhouse-timezone").is_empty());

    assert_eq!(post(&process, "", "SELECT 'body'").text(), "body\n");
    assert_eq!(post(&process, "query=SELECT", "'both'").text(), "both\n");
    assert_eq!(post(&process, "default_format=CSV", "SELECT 'a', 1").text(), "\"a\",1\n");
    let reply = http(&process, "POST", "/", &[("X-ClickHouse-Format", "CSV")], b"SELECT 'a', 1");
    assert_eq!(reply.text(), "\"a\",1\n");
    assert_eq!(post(&process, "param_x=a%5Ctb&param_n=3", "SELECT {x:String}, {n:UInt8} + 1").text(), "a\\tb\t4\n");
    assert_eq!(
        post(&process, "database=system", "SELECT name FROM one_nosuch").header("x-clickhouse-exception-code"),
        "60"
    );
    assert_eq!(post(&process, "database=system", "SELECT * FROM one").text(), "0\n");
}

#[test]
fn statements_of_all_kinds_run() {
    let process = Process::start(&[]);
    let ok = |params: &str, body: &str| {
        let reply = post(&process, params, body);
        assert_eq!(reply.status, 200, "{body}: {}", reply.text());
        reply.text()
    };
    ok("", "CREATE TABLE t (a UInt8, b String) ENGINE = MergeTree ORDER BY a");
    ok("", "INSERT INTO t VALUES (1, 'x;y'), (2, 'z')");
    ok("query=INSERT+INTO+t+FORMAT+CSV", "3,c\n4,\"d\n\n;\"\n");
    ok("query=INSERT+INTO+t&default_format=TSV", "5\te\n");
    ok("", "INSERT INTO t (a, b) FORMAT JSONEachRow {\"a\": 6, \"b\": \"f\"}");
    ok("", "INSERT INTO t SELECT 7, 'g'");
    ok("query=INSERT+INTO+t+VALUES", "(8, concat('h', 'i'))");
    assert_eq!(
        ok("", "SELECT count(), sum(a), groupArray(b)[4] FROM (SELECT * FROM t ORDER BY a)"),
        "8\t36\td\\n\\n;\n"
    );
    assert_eq!(ok("", "SHOW TABLES"), "t\n");
    assert_eq!(
        ok("", "SELECT a % 2 AS o, count() FROM t GROUP BY o WITH TOTALS ORDER BY o FORMAT TSV"),
        "0\t4\n1\t4\n\n0\t8\n"
    );
    assert!(ok("", "SELECT 1 AS x FORMAT JSON").contains("\"rows\": 1"));
    assert!(ok("", "DESCRIBE TABLE t").starts_with("a\tUInt8"));
    ok("", "DROP TABLE t SYNC");
}

#[test]
fn errors_have_code_status_and_text() {
    let process = Process::start(&[]);
    let expect = |params: &str, body: &str, status: u16, code: &str| {
        let reply = post(&process, params, body);
        let seen = (reply.status, reply.header("x-clickhouse-exception-code"));
        assert_eq!(seen, (status, code.to_owned()), "{body}: {}", reply.text());
        assert!(reply.text().starts_with(&format!("Code: {code}. DB::Exception: ")), "{}", reply.text());
    };
    expect("", "SELEC 1", 400, "62");
    expect("", "", 400, "62");
    expect("", "SELECT 1; SELECT 2", 400, "62");
    expect("", "SELECT nosuch", 404, "47");
    expect("", "SELECT * FROM nosuch", 404, "60");
    expect("", "INSERT INTO nosuch FORMAT CSV\n1\n", 404, "60");
    expect("database=nosuch", "SELECT 1", 404, "81");
    expect("nosuch=1", "SELECT 1", 404, "115");
    expect("max_threads=x", "SELECT 1", 400, "27");
    expect("", "SELECT {x:UInt8}", 400, "456");
    expect("", "SELECT * FROM file('/etc/passwd', 'LineAsString')", 403, "497");
    expect("", "SELECT 1 INTO OUTFILE '/tmp/x'", 500, "358");
    expect("role=r", "SELECT 1", 404, "511");
    let reply = http(&process, "GET", "/?query=CREATE+DATABASE+d", &[], b"");
    assert_eq!(reply.header("x-clickhouse-exception-code"), "164");
}

#[test]
fn a_password_makes_the_owner() {
    let process = Process::start(&[]);
    let code = |path: &str, headers: &[(&str, &str)]| {
        let reply = read(&process, "POST", path, headers, b"CREATE DATABASE IF NOT EXISTS d");
        (reply.status, reply.header("x-clickhouse-exception-code"))
    };
    let refused = |code: &str| (403, code.to_owned());
    assert_eq!(code("/", &[]), refused("497"));
    assert_eq!(code("/?password=se%3Acret", &[]), refused("497"));
    assert_eq!(code("/?user=nobody", &[]), refused("516"));
    assert_eq!(code("/?user=doseline", &[]), refused("516"));
    assert_eq!(code("/?user=doseline&password=wrong", &[]), refused("516"));
    assert_eq!(code("/?user=doseline&password=se%3Acret", &[]), (200, String::new()));
    assert_eq!(code("/", &[("X-ClickHouse-User", OWNER), ("X-ClickHouse-Key", PASSWORD)]), (200, String::new()));
    assert_eq!(code("/", &[("Authorization", "Basic ZG9zZWxpbmU6c2U6Y3JldA==")]), (200, String::new()));
    assert_eq!(read(&process, "GET", "/ping", &[], b"").status, 200);
}

#[test]
fn settings_hold_for_one_statement() {
    let process = Process::start(&["--connections", "1"]);
    let value = "SELECT getSetting('max_threads'), getSetting('max_block_size')";
    let usual = post(&process, "", value).text();
    assert_eq!(post(&process, "max_threads=7&max_block_size=123", value).text(), "7\t123\n");
    assert_eq!(post(&process, "", value).text(), usual);
    post(&process, "", "SET max_threads = 9");
    assert_eq!(post(&process, "", value).text(), usual);
    assert_eq!(post(&process, "readonly=1&max_threads=3", "CREATE TABLE r (a Int8) ENGINE = Memory").status, 500);

    // The connection is used again by statements with the same settings.
    post(&process, "", "CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a");
    for threads in ["3", "3", "4"] {
        let asked = format!("max_threads={threads}&max_block_size=45");
        for (format, answer) in [("TSV", format!("{threads}\t45\n")), ("CSV", format!("{threads},45\n"))] {
            assert_eq!(post(&process, &asked, &format!("{value} FORMAT {format}")).text(), answer);
        }
        assert!(
            post(&process, &asked, &format!("{value} FORMAT JSONCompact")).text().contains(&format!("[{threads}, 45]"))
        );
        assert_eq!(
            post(&process, &asked, "INSERT INTO t SETTINGS max_threads = 8, max_block_size = 9 VALUES (1)").status,
            200
        );
        assert_eq!(post(&process, &asked, &format!("{value} SETTINGS max_threads = 6")).text(), "6\t45\n");
        assert_eq!(post(&process, &format!("{asked}&max_threads=5"), value).text(), "5\t45\n");
        assert_eq!(post(&process, "", value).text(), usual);
        assert_eq!(post(&process, "", "INSERT INTO t SETTINGS max_threads = 8 VALUES (1)").status, 200);
        assert_eq!(post(&process, "", &format!("{value} SETTINGS max_threads = 6 FORMAT JSONCompact")).status, 200);
        assert_eq!(post(&process, "", value).text(), usual);
        let limit = "SELECT getSetting('max_result_bytes')";
        assert_eq!(post(&process, "", limit).text(), "0\n");
        assert_eq!(post(&process, "readonly=1&max_threads=3", &format!("{value} FORMAT JSONCompact")).status, 200);
        assert_eq!(post(&process, "readonly=1&max_threads=4", limit).text(), "0\n");
        assert_eq!(post(&process, "database=system", "SELECT currentDatabase()").text(), "system\n");
        assert_eq!(post(&process, "", "SELECT currentDatabase()").text(), "default\n");
        post(&process, "", "CREATE TEMPORARY TABLE lost (a UInt8)");
        assert_eq!(post(&process, "", "SELECT a FROM lost").status, 404);
    }

    let session = |params: &str, body: &str| post(&process, &format!("session_id=s&{params}"), body);
    session("", "SET max_threads = 5");
    assert_eq!(session("max_block_size=321", value).text(), "5\t321\n");
    assert_eq!(session("max_threads=6", "SELECT nosuch").status, 404);
    assert!(session("", value).text().starts_with("5\t"));
    assert!(!session("", value).text().contains("321"));
    session("", "CREATE TEMPORARY TABLE mine (a UInt8)");
    session("", "INSERT INTO mine VALUES (4)");
    assert_eq!(session("database=system", "SELECT currentDatabase()").text(), "system\n");
    assert_eq!(session("", "SELECT a, currentDatabase() FROM mine").text(), "4\tdefault\n");
    assert_eq!(post(&process, "", "SELECT a FROM mine").status, 404);
    assert_eq!(session("close_session=1", "SELECT 1").text(), "1\n");
    assert_eq!(session("session_check=1", "SELECT 1").header("x-clickhouse-exception-code"), "372");
}

#[tokio::test]
async fn the_rust_client_works_unchanged() {
    let process = Process::start(&[]);
    for compression in [Compression::None, Compression::Lz4] {
        let client = client(&process).with_compression(compression);
        client
            .query("CREATE OR REPLACE TABLE t (id UInt64, name String) ENGINE = MergeTree ORDER BY id")
            .execute()
            .await
            .unwrap();
        let mut insert = client.insert::<Numbered>("t").await.unwrap();
        for id in 0..150_000 {
            insert.write(&Numbered { id, name: format!("n{id}") }).await.unwrap();
        }
        insert.end().await.unwrap();
        let rows = client
            .query("SELECT id, name FROM t WHERE id < ? ORDER BY id")
            .bind(3)
            .fetch_all::<Numbered>()
            .await
            .unwrap();
        assert_eq!(rows.last(), Some(&Numbered { id: 2, name: "n2".to_owned() }));
        let mut cursor = client.query("SELECT id, name FROM t ORDER BY id").fetch::<Numbered>().unwrap();
        let mut seen = 0;
        while let Some(row) = cursor.next().await.unwrap() {
            assert_eq!(row.id, seen);
            seen += 1;
        }
        assert_eq!(seen, 150_000);
        let error = client.query("SELECT * FROM nosuch").fetch_all::<u64>().await.unwrap_err();
        assert!(error.to_string().contains("UNKNOWN_TABLE"), "{error}");
        // The error comes long after the head.
        let late = "SELECT throwIf(number = 3000000, 'late') + number FROM numbers(3100000)";
        let error = client.query(late).fetch_all::<u64>().await.unwrap_err();
        assert!(error.to_string().contains("late"), "{error}");
    }
}

#[tokio::test]
async fn an_arrow_insert_is_one_block_with_one_token() {
    let process = Process::start(&[]);
    let client = client(&process);
    let data = arrow_batch(100_000, 1);
    for table in ["t", "u"] {
        let create = format!(
            "CREATE TABLE {table} (a UInt64, s LowCardinality(String)) ENGINE = MergeTree ORDER BY a \
             SETTINGS non_replicated_deduplication_window = 1000"
        );
        client.query(&create).execute().await.unwrap();
    }
    let send = async |table: &str, token: &str, compression: Compression| {
        let client = client.clone().with_compression(compression);
        let mut insert = client
            .insert_formatted_with(format!("INSERT INTO {table} FORMAT ArrowStream"))
            .with_setting("async_insert", "0")
            .with_setting("deduplicate_insert", "enable")
            .with_setting("insert_deduplication_token", token)
            .with_setting("max_insert_threads", "1");
        insert.send(data.clone().into()).await.unwrap();
        insert.end().await.unwrap();
    };
    send("t", "1/0/0/t", Compression::None).await;
    send("t", "1/0/0/t", Compression::Lz4).await;
    let parts = "SELECT count() FROM system.parts WHERE active AND table = 't' AND rows = 100000";
    assert_eq!(client.query(parts).fetch_one::<u64>().await.unwrap(), 1);
    assert_eq!(count(&client, "t").await, 100_000);
    send("u", "1/0/0/t", Compression::None).await;
    assert_eq!(count(&client, "u").await, 100_000);
    send("t", "1/0/1/t", Compression::None).await;
    assert_eq!(count(&client, "t").await, 200_000);
}

#[test]
fn an_insert_that_fails_or_breaks_off_leaves_nothing() {
    let process = Process::start(&[]);
    post(&process, "", "CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree ORDER BY a");
    let rows = || post(&process, "", "SELECT count() FROM t").text();
    let data = arrow_batch(100_000, 1);
    let insert = "/?query=INSERT+INTO+t+FORMAT+ArrowStream";
    let reply = http(&process, "POST", insert, &[], &data[..data.len() / 2]);
    assert_eq!((reply.status, reply.header("x-clickhouse-exception-code")), (500, "33".to_owned()));
    assert_eq!(rows(), "0\n");
    let text = format!("{}x,b\n", "1,a\n".repeat(150_000));
    assert_eq!(post(&process, "query=INSERT+INTO+t+FORMAT+CSV", &text).status, 400);
    assert_eq!(rows(), "0\n");
    // All of the data arrives, but not the end of the body.
    support::break_off(&process, insert, &data, data.len() + 1);
    support::break_off(&process, insert, &data[..data.len() - 100], data.len());
    support::until(|| post(&process, "", "SELECT count() FROM system.processes").text() == "1\n");
    assert_eq!(rows(), "0\n");
    assert_eq!(http(&process, "POST", insert, &[], &data).status, 200);
    assert_eq!(rows(), "100000\n");
}

#[test]
fn bodies_are_decompressed_and_results_compressed() {
    let process = Process::start(&[]);
    let select = b"SELECT number, toString(number) FROM numbers(200000) FORMAT CSVWithNames";
    let plain = http(&process, "POST", "/", &[], select).body;
    assert_eq!(plain.iter().filter(|byte| **byte == b'\n').count(), 200_001);
    for encoding in ["lz4", "zstd", "gzip", "deflate"] {
        let reply = http(&process, "POST", "/?enable_http_compression=1", &[("Accept-Encoding", encoding)], select);
        assert_eq!(reply.header("content-encoding"), encoding);
        assert!(reply.body.len() < plain.len());
        let insert = "/?query=INSERT+INTO+FUNCTION+null('n+UInt64,s+String')+FORMAT+CSVWithNames";
        let back = http(&process, "POST", insert, &[("Content-Encoding", encoding)], &reply.body);
        assert_eq!(back.status, 200, "{encoding}: {}", back.text());
        assert!(back.header("x-clickhouse-summary").contains("\"written_rows\":\"200000\""));
    }
    let blocks = http(&process, "POST", "/?compress=1", &[], select).body;
    assert!(blocks.len() < plain.len());
    let insert = "/?decompress=1&query=INSERT+INTO+FUNCTION+null('n+UInt64,s+String')+FORMAT+CSVWithNames";
    assert_eq!(http(&process, "POST", insert, &[], &blocks).status, 200);
    // An error is compressed as the rows would have been.
    let refused = http(&process, "POST", "/?compress=1", &[], b"SELECT nothing_such");
    assert!(refused.status == 404 && refused.header("x-clickhouse-exception-code") == "47");
    let back = http(&process, "POST", "/?decompress=1", &[], &refused.body);
    assert!(back.text().contains("Unknown expression identifier `nothing_such`"), "{}", back.text());
    let mut broken = blocks;
    broken[50] ^= 1;
    assert_eq!(http(&process, "POST", insert, &[], &broken).header("x-clickhouse-exception-code"), "271");
}

#[test]
fn statements_run_at_once_and_wait_and_are_refused() {
    let process = Arc::new(Process::start(&["--connections", "8"]));
    let sleep = |process: Arc<Process>| move || post(&process, "", "SELECT sleep(1)").status;
    // All of them run beside the statement that checks, however slow the machine is.
    let slow = "SELECT sleepEachRow(1) FROM numbers(1000) SETTINGS max_block_size = 1";
    let long = |process: Arc<Process>| move || post(&process, "", slow);
    let threads: Vec<_> = (0..7).map(|_| std::thread::spawn(long(Arc::clone(&process)))).collect();
    let running = || post(&process, "", "SELECT count() FROM system.processes").text();
    support::until(|| running() == "8\n");
    post(&process, "", "KILL QUERY WHERE query LIKE '%sleepEachRow%' SYNC");
    threads.into_iter().for_each(|thread| drop(thread.join().unwrap()));
    // There are more statements than may run at once, so some wait.
    let threads: Vec<_> = (0..12).map(|_| std::thread::spawn(sleep(Arc::clone(&process)))).collect();
    assert!(threads.into_iter().all(|thread| thread.join().unwrap() == 200));

    let process = Arc::new(Process::start(&["--connections", "1", "--waiting", "1"]));
    let threads: Vec<_> = (0..6).map(|_| std::thread::spawn(sleep(Arc::clone(&process)))).collect();
    let statuses: Vec<u16> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(statuses.contains(&200) && statuses.contains(&503), "{statuses:?}");
    assert_eq!(post(&process, "", "SELECT 1").text(), "1\n");
}

/// An insert of the owner, which must succeed before a waiting request would be refused.
fn assert_owner_is_served(process: &Process, what: &str) {
    let began = Instant::now();
    let reply = post(process, "query=INSERT+INTO+ingest+FORMAT+CSV", "1\n");
    assert_eq!(reply.status, 200, "{what}: {}", reply.text());
    assert!(began.elapsed() < ENDS_WITHIN, "{what}: {:?}", began.elapsed());
}

#[test]
fn readers_take_no_thread_of_the_owner() {
    let process = Process::start(&[]);
    post(&process, "", "CREATE TABLE ingest (a UInt64) ENGINE = MergeTree ORDER BY a");
    let running = || post(&process, "", "SELECT count() FROM system.processes").text().trim().parse::<u32>().unwrap();

    let endless = "SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))";
    let path = "/?max_threads=1&max_execution_time=0";
    let clients: Vec<_> = (0..40).map(|_| support::open_reader(&process, path, endless, endless.len())).collect();
    support::until(|| running() > 4);
    assert_owner_is_served(&process, "endless statements");
    drop(clients);
    support::until(|| running() == 1);

    let clients: Vec<_> = (0..80).map(|_| support::open_reader(&process, "/", "SELECT", 100)).collect();
    std::thread::sleep(Duration::from_millis(300));
    assert_owner_is_served(&process, "unfinished bodies");
    support::until(|| read(&process, "POST", "/", &[], b"SELECT 1").text() == "1\n");
    drop(clients);

    let long = "SELECT number, toString(number) FROM numbers(100000000) FORMAT RowBinary";
    let clients: Vec<_> = (0..20).map(|_| support::open_reader(&process, "/", long, long.len())).collect();
    support::until(|| running() > 4);
    assert_owner_is_served(&process, "answers that nobody reads");
    // Afterwards they return what they held.
    support::until(|| read(&process, "POST", "/", &[], b"SELECT 1").text() == "1\n");
    drop(clients);
}

/// Statements that no limit of time and no `KILL` ends, from a view, which may call what a reader's
/// own text may not.
#[test]
fn statements_that_cannot_be_ended_take_the_threads_of_readers_only() {
    let process = Process::start(&[]);
    post(&process, "", "CREATE TABLE ingest (a UInt64) ENGINE = MergeTree ORDER BY a");
    post(&process, "", "CREATE DATABASE doseline");
    let longer = DEAF.replace("numbers(4)", "numbers(60)");
    post(&process, "", &format!("CREATE VIEW doseline.deaf AS {longer}"));
    let long = "SELECT count() FROM system.processes WHERE query LIKE '%doseline.deaf%' AND query NOT LIKE '%LIKE%' AND elapsed > ";
    let running = |seconds: u8| post(&process, "", &format!("{long}{seconds}")).text().trim().to_owned();
    let statement = "SELECT * FROM doseline.deaf";
    let path = "/?max_execution_time=1&query_id=deaf";
    // More than readers run at once: the others wait.
    let clients: Vec<_> = (0..8).map(|_| support::open_reader(&process, path, statement, statement.len())).collect();
    support::until(|| running(2) == "4");
    assert_eq!(post(&process, "", "KILL QUERY WHERE query_id = 'deaf' ASYNC").status, 200);
    for _ in 0..5 {
        assert_owner_is_served(&process, "statements that cannot be ended");
    }
    assert_eq!(read(&process, "POST", "/", &[], b"SELECT 1").status, 503);
    // The clients are gone, the statements are not, and others come.
    drop(clients);
    let others: Vec<_> = (0..8).map(|_| support::open_reader(&process, path, statement, statement.len())).collect();
    for _ in 0..5 {
        assert_owner_is_served(&process, "statements that cannot be ended and that nobody waits for");
    }
    assert_eq!(running(2), "4", "no more and no fewer");
    drop(others);
}

#[test]
fn a_reader_lowers_its_limits_and_does_not_raise_them() {
    let process = Process::start(&[]);
    let value = |params: &str, name: &str| {
        let statement = format!("SELECT getSetting('{name}')");
        read(&process, "POST", &format!("/?{params}"), &[], statement.as_bytes()).text().trim().to_owned()
    };
    assert_eq!(value("", "max_execution_time"), "60");
    assert_eq!(value("max_execution_time=5", "max_execution_time"), "5");
    assert_eq!(value("max_execution_time=0", "max_execution_time"), "60");
    assert_eq!(value("max_execution_time=3600&session_id=s", "max_execution_time"), "60");
    assert_eq!(value("session_id=s", "max_execution_time"), "60");
    assert_ne!(value("max_memory_usage=0", "max_memory_usage"), "0");
    let endless = b"SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))";
    let reply = read(&process, "POST", "/?max_execution_time=1", &[], endless);
    assert_eq!(reply.header("x-clickhouse-exception-code"), "159", "{}", reply.text());
}

#[test]
fn a_large_result_is_streamed_and_a_lost_client_cancels_it() {
    let process = Process::start(&[]);
    let before = process.resident_bytes();
    let mut client = support::open(
        &process,
        "/",
        "SELECT number, toString(number) FROM numbers(100000000) FORMAT RowBinaryWithNamesAndTypes",
    );
    let mut first = [0; 4096];
    std::io::Read::read_exact(&mut client, &mut first).unwrap();
    std::thread::sleep(Duration::from_millis(300)); // a client that does not read
    assert!(process.resident_bytes() < before + (300 << 20), "{} -> {}", before, process.resident_bytes());
    drop(client);
    let running = || post(&process, "", "SELECT count() FROM system.processes").text();
    support::until(|| running() == "1\n");
    // A statement that has not sent anything yet is killed.
    let client =
        support::open(&process, "/", "SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))");
    support::until(|| running() == "2\n");
    drop(client);
    support::until(|| running() == "1\n");
}

#[test]
fn a_statement_is_killed_by_its_clients_name() {
    let process = Arc::new(Process::start(&[]));
    let slow = b"SELECT sum(sipHash64(number)) FROM numbers(1000000000000)";
    let count = "SELECT countIf(query LIKE 'SELECT sum(sipHash64%') FROM system.processes";
    type Send = fn(&Process, &str, &str, &[(&str, &str)], &[u8]) -> Reply;
    for (send, how) in [(http as Send, "SYNC"), (http, "ASYNC"), (read, "SYNC"), (read, "")] {
        let ask = |id: &'static str| {
            let process = Arc::clone(&process);
            std::thread::spawn(move || send(&process, "POST", &format!("/?query_id={id}"), &[], slow))
        };
        let (mine, others) = (ask("mine"), ask("others"));
        let running = || post(&process, "", count).text();
        support::until(|| running() == "2\n");
        let killed = send(&process, "POST", "/", &[], format!("KILL QUERY WHERE query_id = 'mine' {how}").as_bytes());
        assert_eq!(killed.status, 200, "{}", killed.text());
        let reply = mine.join().unwrap();
        assert_eq!(reply.header("x-clickhouse-exception-code"), "394", "{}", reply.text());
        support::until(|| running() == "1\n");
        assert_eq!(post(&process, "", "KILL QUERY WHERE query_id IN ('others')").status, 200);
        assert_eq!(others.join().unwrap().header("x-clickhouse-exception-code"), "394");
        support::until(|| running() == "0\n");
    }
    // No reader can kill a statement of the owner.
    let owners = Arc::clone(&process);
    let owners = std::thread::spawn(move || http(&owners, "POST", "/?query_id=owners", &[], slow));
    let running = || post(&process, "", count).text();
    support::until(|| running() == "1\n");
    assert_eq!(read(&process, "POST", "/", &[], b"KILL QUERY WHERE query_id = 'owners'").status, 200);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(running(), "1\n");
    assert_eq!(post(&process, "", "KILL QUERY WHERE query_id = 'owners'").status, 200);
    owners.join().unwrap();
}

#[test]
fn sessions_of_readers_make_room_for_another() {
    let process = Process::start(&[]);
    for number in 0..300 {
        let path = format!("/?session_timeout=3600&session_id=r{number}");
        let reply = read(&process, "POST", &path, &[], b"SELECT 1");
        assert_eq!(reply.status, 200, "{number}: {}", reply.text());
    }
    let gone = read(&process, "POST", "/?session_id=r0&session_check=1", &[], b"SELECT 1");
    assert_eq!(gone.header("x-clickhouse-exception-code"), "372");
    assert_eq!(read(&process, "POST", "/?session_id=r299&session_check=1", &[], b"SELECT 1").status, 200);
}

#[test]
fn native_is_written_for_the_version_of_its_client() {
    let process = Process::start(&[]);
    let columns = "number, toString(number), toLowCardinality(toString(number % 3)), [number], map('k', number), \
                   tuple(1, 'x'), if(number = 1, NULL, toLowCardinality('n')), toDecimal64(1, 2), NULL, \
                   [[toLowCardinality('x')], []], CAST((1, 2), 'Point'), now64()";
    let select = format!("SELECT {columns} FROM numbers(100000) SETTINGS max_block_size = 1000 FORMAT Native");
    let native =
        |version: &str| http(&process, "POST", &format!("/?client_protocol_version={version}"), &[], select.as_bytes());
    let plain = native("0").body;
    let old = native("54000");
    let new = native("54460");
    assert_eq!((old.status, new.status), (200, 200));
    let blocks = (old.body.len() - plain.len()) / 8;
    assert!(blocks >= 1 && old.body.len() == plain.len() + 8 * blocks, "{blocks}");
    assert_eq!(new.body.len(), old.body.len() + 12 * blocks);
    let whole = "SHOW SETTINGS LIKE 'max_threads' FORMAT Native";
    assert_eq!(http(&process, "POST", "/?client_protocol_version=54460", &[], whole.as_bytes()).body[..2], [1, 0]);
    let refused =
        http(&process, "POST", "/?client_protocol_version=54460&default_format=Native", &[], b"SELECT sumState(1)");
    assert_eq!(refused.header("x-clickhouse-exception-code"), "48", "{}", refused.text());
    assert_eq!(native("x").header("x-clickhouse-exception-code"), "36");
}

#[test]
fn data_survives_stop_and_kill() {
    let mut process = Process::start(&[]);
    post(&process, "", "CREATE DATABASE d");
    post(&process, "", "CREATE TABLE d.t (a UInt64) ENGINE = MergeTree ORDER BY a SETTINGS fsync_after_insert = 1");
    post(&process, "", "INSERT INTO d.t VALUES (1), (2)");
    let began = Instant::now();
    assert!(process.terminate().success());
    assert!(began.elapsed() < ENDS_WITHIN, "{:?}", began.elapsed());
    process.restart();
    assert_eq!(post(&process, "", "SELECT sum(a) FROM d.t").text(), "3\n");
    post(&process, "", "INSERT INTO d.t VALUES (3)");
    process.kill();
    process.restart();
    assert_eq!(post(&process, "", "SELECT sum(a) FROM d.t").text(), "6\n");

    // Long statements do not delay the end.
    let url = process.url.clone();
    let running = std::thread::spawn(move || {
        support::post_to(&url, "", "SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))")
    });
    support::until(|| post(&process, "", "SELECT count() FROM system.processes").text() == "2\n");
    let began = Instant::now();
    assert!(process.terminate().success());
    assert!(began.elapsed() < ENDS_WITHIN, "{:?}", began.elapsed());
    drop(running.join());
}

/// One call of a function that runs for some seconds. Meanwhile the engine does not check for a
/// kill.
const DEAF: &str = "SELECT editDistance(repeat('a', 65000), materialize(repeat('b', 65000))) FROM numbers(4)";

#[test]
fn a_statement_that_cannot_be_killed_does_not_crash_the_end() {
    let mut process = Process::start(&[]);
    let client = support::open(&process, "/", DEAF);
    support::until(|| post(&process, "", "SELECT count() FROM system.processes").text() == "2\n");
    std::thread::sleep(Duration::from_millis(200));
    let status = process.terminate();
    assert_eq!(status.code(), Some(1), "{status:?}");
    drop(client);
    process.restart();
    assert_eq!(post(&process, "", "SELECT 1").text(), "1\n");
}

#[test]
fn what_a_full_disk_leaves_of_a_table_keeps_no_other_from_starting() {
    let mut process = Process::start(&[]);
    post(&process, "", "CREATE DATABASE d");
    for table in ["kept", "cut"] {
        post(&process, "", &format!("CREATE TABLE d.{table} (a UInt64) ENGINE = MergeTree ORDER BY a"));
    }
    post(&process, "", "INSERT INTO d.kept VALUES (7)");
    let path = post(&process, "", "SELECT metadata_path FROM system.tables WHERE name = 'cut'").text();
    assert!(process.terminate().success());
    let engine = process.data_dir().join("engine");
    let definition = [engine.join(path.trim()), path.trim().into()].into_iter().find(|path| path.is_file()).unwrap();
    std::fs::write(&definition, "").unwrap();
    process.restart();
    assert_eq!(post(&process, "", "SELECT a FROM d.kept").text(), "7\n");
    assert_eq!(post(&process, "", "SHOW TABLES FROM d").text(), "kept\n");
    assert_eq!(std::fs::read_dir(process.data_dir().join("empty-definitions")).unwrap().count(), 1);
    assert_eq!(post(&process, "", "CREATE TABLE d.cut (a UInt64) ENGINE = MergeTree ORDER BY a").status, 200);
}

/// Connections that send nothing. A machine with few allowed files could not serve all of them.
fn silent_connections(url: &str, count: usize) -> Vec<std::net::TcpStream> {
    let connect = |_| std::net::TcpStream::connect(url.trim_start_matches("http://")).unwrap();
    (0..count).map(connect).collect()
}

#[test]
fn silent_connections_take_no_file_of_the_engine() {
    let process = Process::start_with_files(1_024);
    post(&process, "", "CREATE TABLE ingest (a UInt64) ENGINE = MergeTree ORDER BY a");
    let silent = silent_connections(&process.url, 1_100);
    for _ in 0..5 {
        assert_owner_is_served(&process, "silent connections");
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap().count();
    assert!(open < 512, "{open} files are open");
    drop(silent);
}

#[test]
fn a_data_directory_is_locked() {
    let process = Process::start(&[]);
    let second = process.second();
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("is in use by process") && said.contains(&process.pid().to_string()), "{said}");
    assert!(said.contains(&process.data_dir().display().to_string()), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_and_stops_within_a_process() {
    let folder = tempfile::tempdir().unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let missing = Options::new(folder.path(), listen, "/nosuch/libchdb.so", PASSWORD);
    assert!(matches!(start(missing, CancellationToken::new()).await, Err(Error::Library { .. })));
    for round in 0..3_u64 {
        let shutdown = CancellationToken::new();
        let options = Options::new(folder.path(), listen, library(), PASSWORD);
        let server = start(options.clone(), shutdown.clone()).await.unwrap();
        assert!(matches!(start(options, CancellationToken::new()).await, Err(Error::AlreadyRunning)));
        let client = Client::default().with_url(server.url()).with_user(OWNER).with_password(PASSWORD);
        client.query("CREATE TABLE IF NOT EXISTS t (a UInt64) ENGINE = MergeTree ORDER BY a").execute().await.unwrap();
        assert_eq!(count(&client, "t").await, round);
        client.query("INSERT INTO t VALUES (1)").execute().await.unwrap();
        shutdown.cancel();
        server.join().await.unwrap();
    }
    assert!(free_bytes(folder.path()).unwrap() > 0);
}

fn readable() -> Process {
    let process = Process::start(&[]);
    for statement in [
        "CREATE DATABASE doseline",
        "CREATE TABLE doseline.t (a UInt64, s String) ENGINE = MergeTree ORDER BY a",
        "INSERT INTO doseline.t VALUES (1, 'x'), (2, 'y')",
        "CREATE VIEW doseline.v AS SELECT a + 1 AS b FROM doseline.t",
        "CREATE TABLE secret (a UInt8) ENGINE = Memory",
        "CREATE TABLE doseline.unit_secret (key String) ENGINE = Memory",
        "INSERT INTO doseline.unit_secret VALUES ('root:')",
        "CREATE VIEW doseline.units DEFINER = CURRENT_USER SQL SECURITY DEFINER AS \
         SELECT length(key) AS n FROM doseline.unit_secret",
        "CREATE VIEW doseline.invoked SQL SECURITY INVOKER AS SELECT key FROM doseline.unit_secret",
    ] {
        assert_eq!(post(&process, "", statement).status, 200, "{statement}");
    }
    process
}

/// What a reader must not be able to do. With all rights except `SOURCES`, the engine would answer
/// 59 of these and run `id` for two more. It refuses the others, or lacks what they need; a newer
/// engine may have it.
const ATTACKS: &[&str] = &[
    // Commands.
    "CREATE DICTIONARY doseline.d (a UInt64, s String) PRIMARY KEY a \
     SOURCE(EXECUTABLE(COMMAND 'id' FORMAT TSV)) LAYOUT(FLAT()) LIFETIME(0)",
    "SELECT dictGet('doseline.d', 's', 1)",
    "SELECT * FROM executable('id', TSV, 'a String')",
    "SELECT * FROM dictionary('doseline.d')",
    "CREATE FUNCTION f AS x -> x",
    // Files, however the function is written.
    "SELECT file('/etc/passwd')",
    "SELECT FILE('/etc/passwd')",
    // A text with the structure of a table holds expressions that no syntax tree shows.
    "SELECT b FROM values('a String, b String ALIAS file(\\'/etc/passwd\\')', ('x'))",
    "SELECT * FROM null('a String, b String ALIAS file(\\'/etc/passwd\\')')",
    "SELECT * FROM format(Values, 'a String, b String ALIAS file(\\'/etc/passwd\\')', '(1)')",
    "SELECT * FROM generateRandom('a String, b String ALIAS file(\\'/etc/passwd\\')') LIMIT 1",
    // Each level takes one level of the stack.
    "SELECT JSONMergePatch(repeat('[', 200000), '{}')",
    // No time limit ends these.
    "SELECT levenshteinDistance(repeat('a', 60000), repeat('b', 60000))",
    "SELECT damerauLevenshteinDistance('a', 'b')",
    "SELECT arrayFold((acc, x) -> sipHash64(acc), range(100000000), toUInt64(0))",
    "SELECT kolmogorovSmirnovTest('two-sided', 'exact')(toFloat64(number), number % 2) FROM numbers(1000000)",
    "SELECT seriesDecomposeSTL(arrayMap(x -> toFloat64(x % 7), range(1000000)), 1000)",
    "SELECT h3PolygonToCells([(-179., -89.), (-179., 89.), (179., 89.), (179., -89.)], 7)",
    "SELECT sparseGrams(repeat('abcdefghijklm', 1000000))",
    "SELECT `file`('/etc/passwd')",
    "SELECT \u{201c}file\u{201d}('/etc/passwd')",
    "SELECT /* */ file /* */ ('/etc/passwd')",
    "WITH x AS (SELECT file('/etc/passwd') AS y) SELECT y FROM x",
    "WITH p -> file(p) AS f SELECT f('/etc/passwd')",
    "SELECT arrayMap(p -> file(p), ['/etc/passwd'])",
    "SELECT * APPLY file FROM (SELECT '/etc/passwd' AS p)",
    "SELECT * APPLY (p -> file(p)) FROM (SELECT '/etc/passwd' AS p)",
    "SELECT * REPLACE (file(p) AS p) FROM (SELECT '/etc/passwd' AS p)",
    "SELECT file({p:String})",
    "SELECT 1 WHERE file('/etc/passwd') LIKE '%root%'",
    "SELECT 1 FROM numbers(1) ORDER BY file('/etc/passwd')",
    "SELECT 1 FROM numbers(1) LIMIT length(file('/etc/passwd'))",
    "SELECT sum(number) OVER (PARTITION BY file('/etc/passwd')) FROM numbers(1)",
    "SELECT sum(number) OVER w FROM numbers(1) WINDOW w AS (ORDER BY file('/etc/passwd'))",
    "SELECT a FROM doseline.t ARRAY JOIN [file('/etc/passwd')] AS f",
    "SELECT 1 UNION ALL SELECT length(file('/etc/passwd'))",
    "SELECT * FROM view(SELECT file('/etc/passwd'))",
    "EXPLAIN SYNTAX SELECT file('/etc/passwd')",
    "EXPLAIN QUERY TREE SELECT file('/etc/passwd')",
    "DESCRIBE (SELECT file('/etc/passwd'))",
    "SHOW TABLES FROM doseline WHERE file('/etc/passwd') LIKE '%root%'",
    "SHOW COLUMNS FROM t FROM doseline WHERE file('/etc/passwd') LIKE '%root%'",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "DESCRIBE file('/etc/passwd', 'LineAsString')",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM filesystem('/etc')",
    "SELECT 1 INTO OUTFILE '/tmp/doseline-attack'",
    "SELECT \u{2018}'\u{2019} INTO OUTFILE '/tmp/doseline-attack' -- '",
    "INSERT INTO doseline.t FROM INFILE '/etc/passwd' FORMAT LineAsString",
    "SELECT catboostEvaluate('/etc/passwd', 1)",
    "SELECT showCertificate()",
    "SELECT addressToLine(1)",
    "SELECT getOSKernelVersion(), hostName(), filesystemAvailable()",
    "SELECT sleep(3)",
    // Other servers.
    "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
    "SELECT * FROM s3('http://127.0.0.1:1/b/k', 'CSV')",
    "SELECT * FROM remote('127.0.0.1:1', 'system', 'one')",
    "SELECT * FROM cluster('default', 'system', 'one')",
    "SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')",
    "SELECT * FROM sqlite('/tmp/x.db', 't')",
    "SELECT * FROM eval('SELECT 1')",
    "SELECT hasColumnInTable('127.0.0.1:1', 'system', 'one', 'dummy')",
    "SELECT aiGenerate('x')",
    "CREATE NAMED COLLECTION c AS url = 'http://127.0.0.1:1/'",
    // Tables.
    "CREATE TABLE doseline.f (s String) ENGINE = File(LineAsString, '/etc/passwd')",
    "CREATE TABLE doseline.f (s String) ENGINE = URL('http://127.0.0.1:1/', CSV)",
    "CREATE TABLE doseline.f (s String) ENGINE = Kafka('127.0.0.1:1', 't', 'g', 'CSV')",
    "CREATE TABLE doseline.f (s String) ENGINE = SQLite('/tmp/x.db', 't')",
    "CREATE TABLE doseline.f (a UInt8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE f (a UInt8)",
    "CREATE VIEW doseline.w AS SELECT 1",
    "CREATE DATABASE e",
    "ATTACH TABLE doseline.f",
    "DROP TABLE doseline.t",
    "TRUNCATE TABLE doseline.t",
    "RENAME TABLE doseline.t TO doseline.u",
    "ALTER TABLE doseline.t DELETE WHERE 1",
    "DELETE FROM doseline.t WHERE 1",
    "OPTIMIZE TABLE doseline.t FINAL",
    "INSERT INTO doseline.t VALUES (3, 'z')",
    "INSERT INTO doseline.t SELECT 3, 'z'",
    "INSERT INTO FUNCTION file('/tmp/doseline-attack', 'CSV') SELECT 1",
    "BACKUP TABLE doseline.t TO File('/tmp/doseline-attack')",
    "SELECT * FROM secret",
    "SELECT * FROM default.secret",
    "SELECT * FROM doseline.unit_secret",
    "SELECT length(key) FROM doseline.unit_secret",
    "SELECT * FROM doseline.invoked",
    "SELECT 1 WHERE 'root:' IN doseline.unit_secret",
    // The engine, and the statements of other clients.
    "SYSTEM STOP MERGES",
    "SYSTEM SHUTDOWN",
    "KILL QUERY WHERE 1",
    "SET ROLE owner",
    "SET ROLE NONE",
    "SET max_threads = 1",
    "SELECT 1 SETTINGS log_comment = 'x'",
    "EXECUTE AS default SELECT 1",
    "GRANT ALL ON *.* TO default",
    "CREATE USER u",
    "CREATE WORKLOAD w",
    "SELECT * FROM system.processes",
    "KILL QUERY WHERE query_id = 'x' OR 1",
    // Paths of this machine.
    "SELECT * FROM system.tables",
    "SELECT t.* FROM system.tables AS t",
    "SELECT t FROM system.tables AS t",
    "SELECT data_paths FROM system.tables",
    "SELECT x.data_paths AS p FROM system.tables AS x",
    "SELECT {c:Identifier} FROM system.tables",
    "SELECT COLUMNS('path') FROM system.parts",
    "SELECT name, COLUMNS(metadata_path) FROM system.databases",
    "SELECT any(path) FROM system.parts_columns",
    "SELECT p FROM (SELECT *, 1 AS p FROM system.parts)",
    "SELECT name FROM system.tables WHERE startsWith(metadata_path, '/r')",
    "SELECT max(length(source_part_paths)) FROM system.merges",
    "SELECT name FROM system.databases ORDER BY data_path",
    "SELECT * FROM `system`.`processes`",
    "SELECT * FROM {t:Identifier}",
    "SELECT 1 IN system.users",
    "SELECT * FROM merge('system', 'processes')",
    "SELECT * FROM system.server_settings",
    "SELECT * FROM system.stack_trace",
    "USE system",
    "SHOW PROCESSLIST",
    "CHECK TABLE doseline.t",
    // Two statements, also where this server's scanner and the engine's lexer see different ends.
    "SELECT 1; DROP TABLE doseline.t",
    "SELECT \u{2018}'\u{2019}; SET ROLE owner; DROP TABLE doseline.t -- '",
];

#[test]
fn a_reader_reaches_nothing_but_what_it_may_read() {
    let process = readable();
    let parameters = "param_p=/etc/passwd&param_t=system.processes&param_c=data_paths";
    let refused = |reply: &Reply, what: &str| {
        let text = reply.text();
        assert_ne!(reply.status, 200, "{what} was answered: {text}");
        assert!(text.starts_with("Code: ") && text.contains("DB::Exception"), "{what}: {text}");
        assert!(!text.contains("root:"), "{what}: {text}");
    };
    for attack in ATTACKS {
        let encoded: String = form_encoded(attack);
        refused(&read(&process, "POST", &format!("/?{parameters}"), &[], attack.as_bytes()), attack);
        refused(&read(&process, "GET", &format!("/?{parameters}&query={encoded}"), &[], b""), attack);
        let session = format!("/?{parameters}&session_id=s");
        refused(&read(&process, "POST", &session, &[], attack.as_bytes()), attack);
    }
    for (parameters, statement) in [
        ("format_schema=/etc/passwd:x", "SELECT 1 FORMAT Protobuf"),
        ("format_template_resultset=/etc/passwd", "SELECT 1 FORMAT Template"),
        ("readonly=0", "SELECT 1"),
        ("log_comment=doseline-0", "SELECT 1"),
        ("dialect=prql", "from t"),
        ("profile=default", "SELECT 1"),
        ("allow_ddl=1", "SELECT 1"),
        ("database=system", "SELECT * FROM processes"),
        ("database=default", "SELECT * FROM secret"),
        ("role=owner", "SELECT 1"),
    ] {
        refused(&read(&process, "POST", &format!("/?{parameters}"), &[], statement.as_bytes()), parameters);
    }
    assert_eq!(read(&process, "POST", "/?session_id=s", &[], b"SELECT sum(a) FROM doseline.t").text(), "3\n");
    assert!(!std::path::Path::new("/tmp/doseline-attack").exists());
    // A session of the owner is separate from a reader's session of the same name.
    post(&process, "session_id=mine", "CREATE TEMPORARY TABLE x (a UInt8)");
    refused(&read(&process, "POST", "/?session_id=mine", &[], b"SELECT * FROM x"), "the owner's session");
    let said = read(&process, "POST", "/", &[], b"SELECT file('/etc/passwd')").text();
    assert!(said.starts_with("Code: 497. DB::Exception: ") && said.contains("ACCESS_DENIED"), "{said}");
    assert!(said.contains("function file"), "{said}");
}

/// The owner does not need these rights either.
#[test]
fn the_owner_calls_no_program_and_opens_no_file() {
    let process = readable();
    for attack in ATTACKS.iter().filter(|attack| {
        attack.starts_with("CREATE DICTIONARY")
            || attack.starts_with("CREATE FUNCTION")
            || attack.starts_with("CREATE NAMED")
            || [
                "executable(",
                "FROM file(",
                "url(",
                "remote(",
                "mysql(",
                "ENGINE = File",
                "ENGINE = URL",
                "ENGINE = SQLite",
            ]
            .iter()
            .any(|name| attack.contains(name))
    }) {
        let reply = post(&process, "", attack);
        assert_ne!(reply.status, 200, "{attack}: {}", reply.text());
    }
}

#[test]
fn a_reader_reads_as_from_a_server() {
    let process = readable();
    let ask = |params: &str, body: &str| {
        let reply = read(&process, "POST", &format!("/?{params}"), &[], body.as_bytes());
        assert_eq!(reply.status, 200, "{body}: {}", reply.text());
        reply.text()
    };
    for (params, statement, answer) in [
        ("", "SELECT 1", "1\n"),
        ("", "SELECT sum(a), COUNT(*), any(s) FROM doseline.t", "3\t2\tx\n"),
        ("", "SELECT b FROM doseline.v ORDER BY b", "2\n3\n"),
        ("", "SELECT n FROM doseline.units", "5\n"),
        ("database=doseline", "SELECT b FROM v ORDER BY b LIMIT 1", "2\n"),
        ("", "WITH x AS (SELECT a FROM doseline.t) SELECT max(a) FROM x", "2\n"),
        ("", "SELECT t.s FROM doseline.t AS t JOIN doseline.v AS v ON v.b = t.a", "y\n"),
        ("", "SELECT arrayMap(x -> x * 2, [1, 2])", "[2,4]\n"),
        ("", "SELECT quantileTDigestIf(0.5)(a, a > 1) FROM doseline.t", "2\n"),
        ("", "SELECT uniqMerge(u) FROM (SELECT uniqState(a) AS u FROM doseline.t)", "2\n"),
        ("", "SELECT countDistinct(a), count(DISTINCT s) FROM doseline.t", "2\t2\n"),
        ("", "SELECT row_number() OVER (ORDER BY a) FROM doseline.t", "1\n2\n"),
        ("", "SELECT toStartOfHour(toDateTime('2026-01-01 10:20:30', 'UTC'))", "2026-01-01 10:00:00\n"),
        ("", "SELECT a, sum(a) FROM doseline.t GROUP BY a WITH TOTALS ORDER BY a", "1\t1\n2\t2\n\n0\t3\n"),
        ("", "SELECT CASE WHEN a > 1 THEN 'big' ELSE 'small' END FROM doseline.t ORDER BY a", "small\nbig\n"),
        ("", "SELECT * EXCEPT (s) FROM doseline.t WHERE a IN (SELECT b FROM doseline.v)", "2\n"),
        ("", "SELECT * FROM numbers(2) UNION ALL SELECT number FROM system.numbers LIMIT 1 OFFSET 1", ""),
        ("param_x=2&param_t=doseline.t", "SELECT s FROM doseline.t WHERE a = {x:UInt64}", "y\n"),
        ("param_t=t", "SELECT count() FROM doseline.{t:Identifier}", "2\n"),
        ("", "EXISTS TABLE doseline.t", "1\n"),
        ("", "DESCRIBE TABLE doseline.t", "a\tUInt64\t\t\t\t\t\ns\tString\t\t\t\t\t\n"),
        ("", "SHOW TABLES FROM doseline", "invoked\nt\nunits\nv\n"),
        ("", "SHOW TABLES FROM doseline LIKE 'v'", "v\n"),
        ("", "SELECT name FROM system.tables WHERE database = 'doseline' ORDER BY name", "invoked\nt\nunits\nv\n"),
        ("", "SELECT count(*) FROM system.tables WHERE database = 'doseline' AND name = 't'", "1\n"),
        (
            "",
            "SELECT t.name, t.total_rows FROM system.tables AS t WHERE name = 't' AND database = 'doseline'",
            "t\t2\n",
        ),
        ("", "SELECT name FROM system.columns WHERE table = 't' AND database = 'doseline'", "a\ns\n"),
        (
            "",
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'doseline' ORDER BY 1",
            "invoked\nt\nunits\nv\n",
        ),
        ("max_threads=1&max_result_rows=5", "SELECT getSetting('max_threads')", "1\n"),
        ("readonly=1", "SELECT 1", "1\n"),
        (
            "output_format_json_quote_64bit_integers=0",
            "SELECT a FROM doseline.t LIMIT 1 FORMAT JSONEachRow",
            "{\"a\":1}\n",
        ),
        ("session_id=r", "USE doseline", ""),
        ("session_id=r", "SELECT count() FROM t", "2\n"),
        ("", "SELECT version() != '', timezone() != '', currentDatabase(), currentUser()", "1\t1\tdefault\tdefault\n"),
        ("", "SELECT 1;", "1\n"),
    ] {
        let said = ask(params, statement);
        assert!(answer.is_empty() || said == answer, "{statement}: {said}");
    }
    for statement in [
        "SHOW DATABASES",
        "SHOW CREATE TABLE doseline.t",
        "SHOW COLUMNS FROM t FROM doseline",
        "SHOW FUNCTIONS LIKE 'sum'",
        "EXPLAIN SELECT a FROM doseline.t",
        "EXPLAIN PIPELINE SELECT a FROM doseline.t",
        "EXPLAIN ESTIMATE SELECT a FROM doseline.t",
        "SELECT * FROM system.settings",
        "SELECT * FROM system.functions",
        "SELECT * FROM doseline.t FORMAT JSON",
        "SELECT * FROM doseline.t FORMAT ArrowStream",
        "SELECT * FROM doseline.t FORMAT Parquet",
        "SELECT * FROM doseline.t FORMAT Vertical",
    ] {
        ask("", statement);
    }
    let reply = read(&process, "GET", "/?query=SELECT+count()+FROM+doseline.t", &[], b"");
    assert_eq!(reply.text(), "2\n");
    // Errors of the engine stay unchanged.
    for (statement, code) in [("SELEC 1", "62"), ("SELECT nosuch", "47"), ("SELECT * FROM doseline.nosuch", "60")] {
        let reply = read(&process, "POST", "/", &[], statement.as_bytes());
        assert_eq!(reply.header("x-clickhouse-exception-code"), code, "{statement}: {}", reply.text());
    }
}

#[test]
fn the_door_refuses_other_hosts_and_other_sites() {
    let process = Process::start(&[]);
    let port = process.url.rsplit_once(':').unwrap().1.to_owned();
    let status = |headers: &[(&str, &str)]| {
        let reply = read(&process, "GET", "/?query=SELECT+1", headers, b"");
        assert_eq!(reply.header("x-content-type-options"), "nosniff");
        assert_eq!(reply.header("cross-origin-resource-policy"), "same-origin");
        assert!(reply.header("content-security-policy").contains("frame-ancestors 'none'"));
        reply.status
    };
    let own = format!("localhost:{port}");
    assert_eq!(status(&[("Host", &own)]), 200);
    assert_eq!(status(&[("Host", &format!("rebound.example:{port}"))]), 421);
    let rebound = format!("rebound.example:{port}");
    assert_eq!(status(&[("Host", &rebound), ("Origin", &format!("http://{rebound}"))]), 421);
    assert_eq!(status(&[("Sec-Fetch-Site", "cross-site")]), 403);
    assert_eq!(status(&[("Sec-Fetch-Site", "same-site")]), 403);
    assert_eq!(status(&[("Origin", "http://elsewhere.example")]), 403);
    assert_eq!(status(&[("Origin", "null")]), 403);
    assert_eq!(status(&[("Sec-Fetch-Site", "none")]), 200);
    // Every path is checked for its host.
    for path in ["/ping", "/", "/nosuch"] {
        assert_eq!(read(&process, "GET", path, &[("Host", "rebound.example")], b"").status, 421);
    }
}

fn form_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}
