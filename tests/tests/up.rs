//! `doseline up`: everything on one machine, as a user sees it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::Command,
    time::Duration,
};

use harness::{Doseline, RawMqtt, Ready, Scratch, Signal, poll, tree_cpu_s, tree_switches};

const READY_WITHIN: Duration = Duration::from_secs(60);
/// How long Ctrl-C may take to end `up`, as promised to the user.
const STOP_WITHIN: Duration = Duration::from_secs(5);

fn up(data_dir: &Path, more: &[&str]) -> Doseline {
    Doseline::start(&arguments(data_dir, more))
}

fn arguments<'a>(data_dir: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let data_dir = data_dir.to_str().expect("UTF-8 path");
    let any_port = ["--mqtt-port", "0", "--kafka-port", "0", "--clickhouse-port", "0", "--http-port", "0"];
    ["up", "--data-dir", data_dir].into_iter().chain(any_port).chain(more.iter().copied()).collect()
}

fn number(ready: &Ready, sql: &str) -> u64 {
    let text = ready.query(sql);
    text.trim().parse().unwrap_or_else(|_| panic!("{sql} gave {text:?}"))
}

fn injections(ready: &Ready) -> u64 {
    number(ready, "SELECT count() FROM doseline.injections")
}

/// What must hold whenever nothing is in flight: each event is stored once, in its base table and
/// in every aggregate.
fn assert_exactly_once(ready: &Ready) {
    let stored = injections(ready);
    let identities = "SELECT uniqExact(tenant, device, boot_id, seq) FROM doseline.injections";
    assert_eq!(number(ready, identities), stored, "an injection stands twice");
    for table in ["accuracy_minute", "accuracy_session"] {
        assert_eq!(number(ready, &format!("SELECT sum(injections) FROM doseline.{table}")), stored, "{table}");
    }
}

fn wait_for_more(ready: &Ready, than: u64, within: Duration) -> u64 {
    poll(within, &format!("more than {than} injections"), || match injections(ready) {
        count if count > than => Ok(count),
        count => Err(format!("{count} injections")),
    })
}

/// After the devices have resent everything, no simulated event may be missing, except those of the
/// planted gap.
fn wait_for_no_gap(ready: &Ready) {
    let gaps =
        "SELECT * FROM doseline.delivery_gaps WHERE NOT (device = 'inj-0003' AND last_missing - first_missing = 6)";
    poll(Duration::from_secs(90), "no gap", || match ready.query(gaps).trim() {
        "" => Ok(()),
        gaps => Err(gaps.to_owned()),
    });
}

#[test]
fn injections_arrive_within_seconds_and_outlive_stop_and_start() {
    let scratch = Scratch::new("up");
    let mut doseline = up(scratch.path(), &["--simulate", "25"]);
    let ready = doseline.wait_until_ready(READY_WITHIN);
    wait_for_more(&ready, 0, Duration::from_secs(5));
    wait_for_more(&ready, 100, Duration::from_secs(60));
    let lines = doseline.stdout();
    assert_eq!(lines.lines().count(), 1, "stdout holds the ready line alone: {lines}");
    let said = doseline.stderr();
    for welcome in [format!("page: {}", ready.dashboard), "try next: ".to_owned(), "stop: Ctrl-C".to_owned()] {
        assert_eq!(said.lines().filter(|line| line.starts_with(&welcome)).count(), 1, "{welcome} in {said}");
    }
    let (status, took) = doseline.stop(Duration::from_secs(20));
    assert!(status.success() && took < STOP_WITHIN, "{status} after {took:?}");

    let mut quiet = up(scratch.path(), &[]);
    let ready = quiet.wait_until_ready(READY_WITHIN);
    let kept = injections(&ready);
    assert!(kept > 100);
    assert_exactly_once(&ready);
    assert_eq!(quiet.stop(Duration::from_secs(20)).0.code(), Some(0));

    let mut again = up(scratch.path(), &["--simulate", "25"]);
    let ready = again.wait_until_ready(READY_WITHIN);
    wait_for_more(&ready, kept, Duration::from_secs(30));
    wait_for_no_gap(&ready);
    again.process().signal(Signal::SIGINT);
    assert!(again.process().wait(STOP_WITHIN).success(), "Ctrl-C ends it in time");
}

#[test]
fn a_kill_loses_and_doubles_nothing() {
    let scratch = Scratch::new("up-kill");
    for round in 0..3 {
        let mut doseline = up(scratch.path(), &["--simulate", "25"]);
        let ready = doseline.wait_until_ready(READY_WITHIN);
        let before = injections(&ready);
        wait_for_more(&ready, before + 50 + round * 13, Duration::from_secs(90));
        doseline.kill();
    }
    assert_nothing_is_lost_or_doubled(scratch.path());
}

/// After kills: starts once more with the fleet, and then without it.
fn assert_nothing_is_lost_or_doubled(data_dir: &Path) {
    let mut doseline = up(data_dir, &["--simulate", "25"]);
    let ready = doseline.wait_until_ready(READY_WITHIN);
    // The devices have restarted and have sent what they still held.
    wait_for_more(&ready, injections(&ready), Duration::from_secs(90));
    wait_for_no_gap(&ready);
    assert!(doseline.stop(Duration::from_secs(20)).0.success());
    let mut quiet = up(data_dir, &[]);
    let ready = quiet.wait_until_ready(READY_WITHIN);
    assert_exactly_once(&ready);
    let lost = "SELECT countIf(state = 'LOST') FROM doseline.delivery_gaps";
    assert_eq!(number(&ready, lost), 0);
    quiet.kill();
}

/// Each start is killed later than the one before, until a start gets ready before its kill.
#[test]
fn a_start_may_be_killed_at_any_moment() {
    let scratch = Scratch::new("up-start");
    let mut lives = Duration::from_millis(50);
    loop {
        let mut doseline = up(scratch.path(), &["--simulate", "25"]);
        std::thread::sleep(lives);
        let (ended, is_ready) = (doseline.process().exit_status(), !doseline.stdout().is_empty());
        assert_eq!(ended, None, "after {lives:?}: {}", doseline.stderr());
        doseline.kill();
        if is_ready {
            break;
        }
        lives = lives.mul_f64(1.25);
    }
    assert_nothing_is_lost_or_doubled(scratch.path());
}

/// The engine starts on a thread of its own, which a stop cannot interrupt.
#[test]
fn a_start_may_be_stopped_at_any_moment() {
    let scratch = Scratch::new("up-start-stop");
    let mut lives = Duration::from_millis(60);
    loop {
        let mut doseline = up(scratch.path(), &[]);
        std::thread::sleep(lives);
        let is_ready = !doseline.stdout().is_empty();
        let (status, took) = doseline.stop(Duration::from_secs(20));
        // On a busy machine the signal may arrive before the program has begun to work.
        let has_begun = !doseline.stderr().is_empty();
        let is_well = status.success() || (!has_begun && status.signal() == Some(15));
        assert!(is_well && took < STOP_WITHIN, "{status} after {lives:?} and {took:?}: {}", doseline.stderr());
        if is_ready {
            return;
        }
        lives = lives.mul_f64(1.2);
    }
}

#[test]
fn a_data_directory_has_one_process() {
    let scratch = Scratch::new("up-twice");
    let mut first = up(scratch.path(), &[]);
    first.wait_until_ready(READY_WITHIN);
    let mut second = up(scratch.path(), &[]);
    assert_eq!(second.process().wait(Duration::from_secs(10)).code(), Some(1));
    let said = second.stderr();
    let named =
        said.contains(&scratch.path().display().to_string()) && said.contains(&first.process().id().to_string());
    assert!(named && said.contains("--data-dir"), "{said}");
    first.kill();
}

#[test]
fn a_role_that_fails_ends_the_whole_with_exit_code_1() {
    let scratch = Scratch::new("up-role");
    let mut doseline = up(scratch.path(), &["--simulate", "5"]);
    let ready = doseline.wait_until_ready(READY_WITHIN);
    wait_for_more(&ready, 0, Duration::from_secs(30));
    // The schema of a table that only the loader uses is changed. The loader must then stop,
    // because it must not guess.
    ready.change(scratch.path(), "DROP TABLE doseline.accuracy_minute SYNC");
    ready.change(scratch.path(), "CREATE TABLE doseline.accuracy_minute (x UInt8) ENGINE = MergeTree ORDER BY x");
    assert_eq!(doseline.process().wait(Duration::from_secs(30)).code(), Some(1));
    let said = doseline.stderr();
    assert!(said.lines().any(|line| line.starts_with("error: load failed: ")), "{said}");
}

#[test]
fn a_disk_that_fills_up_stops_it_cleanly() {
    let scratch = Scratch::new("up-disk");
    let disk = scratch.path().to_str().expect("UTF-8 path");
    // A disk of its own in a mount namespace of its own. This needs no special rights.
    let mount = "mount -t tmpfs -o size=420m tmpfs \"$0\" && exec \"$@\"";
    let data_dir = scratch.join("data");
    let mut doseline = Doseline::start_under(
        "unshare",
        &["--map-root-user", "--mount", "sh", "-c", mount, disk],
        &arguments(&data_dir, &["--simulate", "5"]),
    );
    let ready = doseline.wait_until_ready(READY_WITHIN);
    wait_for_more(&ready, 0, Duration::from_secs(30));
    let seen_by_it = format!("/proc/{}/root{disk}/ballast", doseline.process().id());
    std::fs::write(seen_by_it, vec![1; 250 << 20]).expect("fill the disk");
    assert_eq!(doseline.process().wait(Duration::from_secs(20)).code(), Some(1));
    let said = doseline.stderr();
    assert!(said.contains("MiB are free in") && said.contains("nothing is lost"), "{said}");
}

#[test]
fn a_full_disk_is_named_before_anything_is_opened() {
    let scratch = Scratch::new("up-full");
    let disk = scratch.path().to_str().expect("UTF-8 path");
    let mount =
        "mount -t tmpfs -o size=100m tmpfs \"$0\" && \"$@\"; code=$?; test -z \"$(ls \"$0\")\" || exit 3; exit $code";
    let data_dir = scratch.join("data");
    let mut doseline = Doseline::start_under(
        "unshare",
        &["--map-root-user", "--mount", "sh", "-c", mount, disk],
        &arguments(&data_dir, &[]),
    );
    assert_eq!(doseline.process().wait(Duration::from_secs(10)).code(), Some(1));
    let said = doseline.stderr();
    assert!(said.contains("MiB are needed to start") && said.contains("--data-dir"), "{said}");
}

#[test]
fn a_port_in_use_is_named_with_its_flag() {
    let scratch = Scratch::new("up-port");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port().to_string();
    let flags = ["--mqtt-port", "--kafka-port", "--clickhouse-port", "--http-port"];
    for flag in flags {
        let data_dir = scratch.join(flag);
        let mut arguments = vec!["up", "--data-dir", data_dir.to_str().expect("UTF-8 path")];
        for other in flags {
            arguments.extend([other, if other == flag { &port } else { "0" }]);
        }
        let ended = Doseline::run(&arguments, &[], READY_WITHIN);
        assert_eq!(ended.code, Some(1), "{flag}: {}", ended.stderr);
        assert!(ended.stderr.contains(flag) && ended.stderr.contains(&port), "{flag}: {}", ended.stderr);
        assert!(ended.stdout.is_empty(), "not ready, and says so: {}", ended.stdout);
        assert_nothing_was_started(&data_dir);
    }
}

/// The data directory holds nothing except the lock.
fn assert_nothing_was_started(data_dir: &Path) {
    let entries = std::fs::read_dir(data_dir).expect("the data directory").flatten();
    let names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    assert_eq!(names, ["doseline.lock"]);
}

#[test]
fn all_ports_in_use_are_named_at_once_and_before_anything_starts() {
    let scratch = Scratch::new("up-ports");
    let data_dir = scratch.join("data");
    let taken: [_; 4] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let ports = taken.each_ref().map(|listener| listener.local_addr().expect("its address").port().to_string());
    let flags = ["--mqtt-port", "--kafka-port", "--clickhouse-port", "--http-port"];
    let mut arguments = vec!["up", "--data-dir", data_dir.to_str().expect("UTF-8 path")];
    flags.iter().zip(&ports).for_each(|(flag, port)| arguments.extend([*flag, port.as_str()]));
    let ended = Doseline::run(&arguments, &[], READY_WITHIN);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    for (flag, port) in flags.iter().zip(&ports) {
        assert!(ended.stderr.contains(&format!("{flag}: port {port} is taken")), "{}", ended.stderr);
    }
    assert!(ended.stderr.lines().any(|line| line.starts_with("hint: ")), "{}", ended.stderr);
    assert_nothing_was_started(&data_dir);

    // With JSON logs, a program that collects logs gets one log line instead.
    let ended = Doseline::run(&arguments, &[("DOSELINE__LOG__FORMAT", "json")], READY_WITHIN);
    let lines =
        ended.stderr.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("a JSON log line"));
    let errors: Vec<_> = lines.filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(errors.len(), 1, "{}", ended.stderr);
    let fields = &errors[0]["fields"];
    let text = |name: &str| fields[name].as_str().expect("a text").to_owned();
    assert!(text("message").contains("is taken") && text("hint").contains("choose another port"), "{fields}");

    drop(taken);
    let [.., "--http-port", port] = arguments[..] else { panic!("{arguments:?}") };
    let twice = ["up", "--data-dir", arguments[2], "--mqtt-port", port, "--http-port", port];
    let ended = Doseline::run(&twice, &[], READY_WITHIN);
    assert!(ended.code == Some(1) && ended.stderr.contains("--mqtt-port and --http-port are both"), "{}", ended.stderr);
    assert_nothing_was_started(&data_dir);
}

#[test]
fn a_data_directory_that_cannot_be_used_is_an_error_with_a_hint() {
    let scratch = Scratch::new("up-directory");
    let file = scratch.join("file");
    std::fs::write(&file, "").expect("write");
    // Not even root can create a folder in /sys.
    for (data_dir, said) in [(file.as_path(), "is a file"), (Path::new("/sys/doseline"), "create --data-dir")] {
        let ended = Doseline::run(&arguments(data_dir, &[]), &[], READY_WITHIN);
        let errors: Vec<_> = ended.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        let hints: Vec<_> = ended.stderr.lines().filter(|line| line.starts_with("hint: ")).collect();
        assert_eq!((ended.code, errors.len(), hints.len()), (Some(1), 1, 1), "{}", ended.stderr);
        assert!(errors[0].contains(said) && hints[0].contains("--data-dir"), "{}", ended.stderr);
    }
}

/// What a browser shows at an address.
fn browse(profile: &Path, more: &[&str], url: &str) -> String {
    let page = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--virtual-time-budget=4000",
            "--dump-dom",
        ])
        .args(more)
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(url)
        .output()
        .expect("chromium runs");
    String::from_utf8_lossy(&page.stdout).into_owned()
}

/// A foreign site that returns this page for every path.
fn foreign_site(page: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let _ = stream.read(&mut [0; 4096]);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length:";
            let _ = write!(stream, "{head} {}\r\n\r\n{page}", page.len());
        }
    });
    address
}

#[test]
fn a_page_of_another_site_reads_and_does_nothing() {
    let scratch = Scratch::new("up-foreign");
    let mut doseline = up(&scratch.join("data"), &[]);
    let ready = doseline.wait_until_ready(READY_WITHIN);
    let script = format!("{}/?query=SELECT+'document.title=\"stolen\"'+FORMAT+TSVRaw", ready.clickhouse);
    let tags = [script, format!("{}/api/fleet", ready.dashboard), format!("{}/login.css", ready.dashboard)].map(|url| {
        let url = url.replace('"', "&quot;");
        format!(
            "<script src=\"{url}\" onload=\"document.body.append('LOADED')\" onerror=\"document.body.append('REFUSED')\"></script>"
        )
    });
    let site = foreign_site(format!("<title>foreign</title><body>{}", tags.concat()));
    let page = browse(&scratch.join("script"), &[], &format!("http://{site}/"));
    assert!(page.matches("append('LOADED')").count() == 3, "{page}");
    assert!(!page.contains("<title>stolen") && page.matches("REFUSED").count() == 6, "{page}");

    for (number, port) in [&ready.clickhouse, &ready.dashboard].into_iter().enumerate() {
        let form = format!(
            "<body onload='document.forms[0].submit()'><form method=post enctype=text/plain action=\"{port}/\">\
             <textarea name=\"SELECT 'sto' || 'len' --\"></textarea></form>"
        );
        let site = foreign_site(form);
        let page = browse(&scratch.join(&format!("form-{number}")), &[], &format!("http://{site}/"));
        assert!(page.contains("pages of other sites are refused"), "{page}");
        // A DNS name that was pointed at this machine. Page and port then are the same site, and
        // only the name differs.
        let own = port.rsplit_once(':').expect("a port").1;
        let url = format!("http://rebound.example:{own}/?query=SELECT+'sto'||'len'");
        let rules = ["--host-resolver-rules=MAP rebound.example 127.0.0.1"];
        let page = browse(&scratch.join(&format!("rebound-{number}")), &rules, &url);
        assert!(page.contains("is not an address of this port"), "{page}");
    }
}

/// A report with one injection.
fn report(device: &str) -> (String, &'static [u8]) {
    let topic = format!("doseline/v1/acme/berlin/{device}/report/json");
    (topic, br#"{"bootId":"5","firstSeq":"1","events":[{"injection":{}}]}"#)
}

fn mqtt(ready: &Ready, version: u8) -> RawMqtt {
    RawMqtt::connect(&ready.mqtt, &format!("test-{version}"), version).expect("the broker serves")
}

fn stored(ready: &Ready, device: &str) {
    let sql = format!("SELECT count() FROM doseline.injections WHERE device = '{device}'");
    poll(Duration::from_secs(60), &sql, || match number(ready, &sql) {
        1 => Ok(()),
        count => Err(count),
    });
}

#[test]
fn no_client_of_the_broker_ends_it() {
    let scratch = Scratch::new("up-hostile");
    let mut doseline = up(scratch.path(), &[]);
    let ready = doseline.wait_until_ready(READY_WITHIN);
    let deep = "a/".repeat(16_000);
    let deep_report = format!("doseline/v1/{deep}report");
    // Each of them holds a connection and never sends a CONNECT.
    let silent: Vec<_> =
        (0..200).map(|_| std::net::TcpStream::connect(&ready.mqtt).expect("the broker accepts")).collect();
    for version in [4, 5] {
        mqtt(&ready, version).subscribe(deep.as_bytes());
        mqtt(&ready, version).subscribe(format!("{deep}#").as_bytes());
        mqtt(&ready, version).subscribe(format!("$share/g/{deep}+").as_bytes());
        for topic in [deep.as_bytes(), deep_report.as_bytes(), b"a/#", b"a/+/b", b"a\0b", b"\xff\xfe", b"", b"$SYS/x"] {
            for retain in [true, false] {
                mqtt(&ready, version).publish(topic, b"x", retain);
            }
        }
        for device in ["d\0", "+", "#", "\u{fffe}"] {
            let (topic, payload) = report(device);
            mqtt(&ready, version).publish(topic.as_bytes(), payload, true);
        }
    }
    let (topic, payload) = report("good");
    assert!(mqtt(&ready, 5).publish(topic.as_bytes(), payload, false));
    stored(&ready, "good");
    drop(silent);
    let said = doseline.stderr();
    assert!(!said.contains("mqtt broker died"), "{said}");
    assert!(doseline.stop(Duration::from_secs(20)).0.success());
}

#[test]
fn a_message_of_any_size_arrives_or_is_refused_and_the_next_report_arrives() {
    let scratch = Scratch::new("up-sizes");
    let mut doseline = up(scratch.path(), &[]);
    let ready = doseline.wait_until_ready(READY_WITHIN);
    let limits = [256 << 10, 1 << 20, 2 << 20, bridge::BROKER_PACKET_BYTES_MAX as usize];
    let (mut taken, mut refused) = (0, 0);
    for (version, limit) in [4, 5].into_iter().flat_map(|version| limits.map(|limit| (version, limit))) {
        for size in [limit - 60, limit - 1, limit, limit + 1] {
            let (topic, _) = report("large");
            match mqtt(&ready, version).publish(topic.as_bytes(), &vec![b' '; size], false) {
                true => taken += 1,
                false => refused += 1,
            }
            let next = format!("next-{version}-{size}");
            let (topic, payload) = report(&next);
            assert!(mqtt(&ready, version).publish(topic.as_bytes(), payload, false), "behind {size} bytes");
            stored(&ready, &next);
        }
    }
    assert!(taken > 16 && refused > 8, "{taken} taken, {refused} refused");
    let sql = "SELECT count() FROM doseline.quarantine WHERE device = 'large'";
    poll(Duration::from_secs(60), sql, || match number(&ready, sql) {
        count if count == taken => Ok(()),
        count => Err(format!("{count} of {taken}")),
    });
    assert!(doseline.stop(Duration::from_secs(20)).0.success());
}

#[test]
fn a_monitor_that_fails_is_told_of_and_begins_again_while_reports_are_stored() {
    let scratch = Scratch::new("up-monitor");
    let mut doseline = up(scratch.path(), &["--simulate", "5"]);
    let ready = doseline.wait_until_ready(READY_WITHIN);
    let health = || {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut answer = agent.get(format!("{}/readyz", ready.dashboard)).call().expect("the dashboard answers");
        (answer.status().as_u16(), answer.body_mut().read_to_string().expect("text"))
    };
    // Only the monitor reads this table, so only the monitor notices the wrong schema.
    ready.change(scratch.path(), "RENAME TABLE doseline.drift TO doseline.drift_kept");
    ready.change(scratch.path(), "CREATE TABLE doseline.drift (x UInt8) ENGINE = MergeTree ORDER BY x");
    let told = poll(Duration::from_secs(60), "a failure", || match health() {
        (503, text) if text.contains("monitor: ") => Ok(text),
        other => Err(format!("{other:?}")),
    });
    assert!(told.contains("clickhouse: "), "{told}");
    wait_for_more(&ready, injections(&ready), Duration::from_secs(60));
    ready.change(scratch.path(), "DROP TABLE doseline.drift SYNC");
    ready.change(scratch.path(), "RENAME TABLE doseline.drift_kept TO doseline.drift");
    poll(Duration::from_secs(120), "health again", || match health() {
        (200, _) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    assert!(doseline.stderr().contains("role failed and will be restarted; ingest continues"));
    assert!(doseline.stop(Duration::from_secs(20)).0.success());
}

/// Four statements of readers run at once; one inside a single long call of a function ends when
/// that returns.
#[test]
fn reports_are_stored_while_statements_of_readers_cannot_be_ended() {
    let scratch = Scratch::new("up-deaf");
    let mut doseline = up(scratch.path(), &[]);
    let ready = doseline.wait_until_ready(READY_WITHIN);
    // A reader's own statement may not call this.
    let call = "editDistance(repeat('a', 65000), materialize(repeat('b', 65000)))";
    ready.change(scratch.path(), &format!("CREATE VIEW doseline.deaf AS SELECT {call} FROM numbers(20)"));
    let address = ready.clickhouse.trim_start_matches("http://");
    let statement = "SELECT * FROM doseline.deaf";
    let request = format!(
        "POST /?max_execution_time=1 HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\r\n{statement}",
        statement.len()
    );
    let readers: Vec<_> = (0..6)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(address).expect("the port is open");
            stream.write_all(request.as_bytes()).expect("send");
            stream
        })
        .collect();
    let running =
        "SELECT throwIf(countIf(query = 'SELECT * FROM doseline.deaf' AND elapsed > 2) < 4) FROM system.processes";
    poll(Duration::from_secs(60), "four statements past their limit", || {
        ready.try_change(scratch.path(), running).map_err(|refused| refused.to_string())
    });
    for device in ["deaf-1", "deaf-2", "deaf-3"] {
        let (topic, payload) = report(device);
        assert!(mqtt(&ready, 5).publish(topic.as_bytes(), payload, false));
        let stored = format!("SELECT throwIf(count() != 1) FROM doseline.injections WHERE device = '{device}'");
        poll(Duration::from_secs(30), &stored, || {
            ready.try_change(scratch.path(), &stored).map_err(|refused| refused.to_string())
        });
    }
    ready.change(scratch.path(), running);
    drop(readers);
    doseline.kill();
}

/// Ports on which a process listens on the loopback interface.
fn listening(process: u32) -> Vec<u16> {
    let files = std::fs::read_dir(format!("/proc/{process}/fd")).expect("its files").flatten();
    let sockets: Vec<String> = files
        .filter_map(|file| Some(std::fs::read_link(file.path()).ok()?.to_str()?.to_owned()))
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string(format!("/proc/{process}/net/tcp")).expect("its connections");
    let listening = table.lines().filter_map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        let (local, state, inode) = (words.get(1)?, words.get(3)?, words.get(9)?);
        let port = local.rsplit_once(':')?.1;
        let own = *state == "0A" && sockets.iter().any(|socket| socket == inode);
        own.then(|| u16::from_str_radix(port, 16).expect("a port"))
    });
    listening.collect()
}

#[test]
fn every_http_port_has_the_same_door() {
    let scratch = Scratch::new("up-doors");
    let mut doseline = up(scratch.path(), &[]);
    let ready = doseline.wait_until_ready(READY_WITHIN);
    let kafka = ready.kafka.rsplit_once(':').expect("a port").1.to_owned();
    let ports = listening(doseline.process().id());
    let http: Vec<_> = ports.iter().filter(|port| port.to_string() != kafka).collect();
    // ClickHouse, dashboard, bridge, loader, monitor.
    assert_eq!(http.len(), 5, "{ports:?}");
    for port in http {
        let status = |header: &str, value: &str| {
            let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
            let request = agent.get(format!("http://127.0.0.1:{port}/livez")).header(header, value);
            let answer = request.call().expect("an answer");
            for (name, expected) in [
                ("x-content-type-options", "nosniff"),
                ("cross-origin-resource-policy", "same-origin"),
                ("content-security-policy", "frame-ancestors 'none'"),
            ] {
                let found = answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
                assert!(found.contains(expected), "{port}: {name}: {found}");
            }
            answer.status().as_u16()
        };
        assert_eq!(status("Host", &format!("rebound.example:{port}")), 421);
        assert_eq!(status("Sec-Fetch-Site", "cross-site"), 403);
        assert_eq!(status("Origin", "http://elsewhere.example"), 403);
        assert_ne!(status("Sec-Fetch-Site", "same-origin"), 403);
    }
    assert!(doseline.stop(Duration::from_secs(20)).0.success());
}

/// Containers and services often may open 1,024 files.
#[test]
fn silent_connections_on_every_port_stop_nothing_where_few_files_may_be_open() {
    let scratch = Scratch::new("up-silent");
    let limited = ["-c", "ulimit -n 1024 && exec \"$0\" \"$@\""];
    let mut doseline = Doseline::start_under("sh", &limited, &arguments(scratch.path(), &[]));
    let ready = doseline.wait_until_ready(READY_WITHIN);
    let process = doseline.process().id();
    let mqtt_port: u16 = ready.mqtt.rsplit_once(':').expect("a port").1.parse().expect("a number");
    let ports: Vec<_> = listening(process).into_iter().chain([mqtt_port]).collect();
    assert_eq!(ports.len(), 7, "{ports:?}");
    let connect = |port| std::net::TcpStream::connect(("127.0.0.1", port)).expect("the port is open");
    let silent: Vec<_> = ports.iter().flat_map(|port| std::iter::repeat_n(*port, 300)).map(connect).collect();
    for device in ["silent-1", "silent-2", "silent-3"] {
        let (topic, payload) = report(device);
        assert!(mqtt(&ready, 5).publish(topic.as_bytes(), payload, false));
        stored(&ready, device);
    }
    let open = std::fs::read_dir(format!("/proc/{process}/fd")).expect("its files").count();
    assert!(open < 900, "{open} files are open");
    drop(silent);
    assert!(doseline.stop(Duration::from_secs(20)).0.success());
}

/// Without the offsets of the group, only what is in ClickHouse tells that records are missing.
#[test]
fn a_kafka_log_that_lost_records_takes_no_new_ones_under_their_offsets() {
    let scratch = Scratch::new("up-behind");
    let mut doseline = up(scratch.path(), &[]);
    let ready = doseline.wait_until_ready(READY_WITHIN);
    for device in ["kept", "lost"] {
        let (topic, payload) = report(device);
        assert!(mqtt(&ready, 5).publish(topic.as_bytes(), payload, false));
        stored(&ready, device);
    }
    // The position is what is committed, a moment after the rows are there.
    let position = "SELECT max(batch_end) FROM doseline.loader_commits WHERE kind = 'commit'";
    poll(Duration::from_secs(60), position, || match number(&ready, position) {
        2 => Ok(()),
        position => Err(position),
    });
    doseline.kill();
    let kafka = scratch.join("kafka");
    let segment = kafka.join("topics/doseline.reports.v1/0/00000000000000000000.log");
    let content = std::fs::read(&segment).expect("the log");
    std::fs::write(&segment, &content[..content.len() - 1]).expect("cut it");
    let _ = std::fs::remove_file(kafka.join("offsets.json"));

    let ended = Doseline::run(&arguments(scratch.path(), &[]), &[], READY_WITHIN);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let said = ended.stderr.lines().find(|line| line.starts_with("error: ")).expect("an error");
    assert!(said.contains("ends before offset 1, and the loader has already read up to 2"), "{said}");
    let remedy = said.rsplit_once("to go on without these records: touch ").expect("a remedy").1;
    std::fs::write(remedy, "").expect("follow it");

    let mut doseline = up(scratch.path(), &[]);
    let ready = doseline.wait_until_ready(READY_WITHIN);
    let (topic, payload) = report("next");
    assert!(mqtt(&ready, 5).publish(topic.as_bytes(), payload, false));
    for device in ["kept", "lost", "next"] {
        stored(&ready, device);
    }
    assert!(doseline.stop(Duration::from_secs(20)).0.success());
}

/// Without devices, `up` costs next to nothing. The bounds are about three times what it takes on a
/// quiet machine of two processors, so that they hold on a busy one.
#[test]
fn silence_costs_little() {
    const SILENCE: Duration = Duration::from_secs(30);
    const CPU_S_MOST: f64 = 1.5;
    const SWITCHES_MOST: u64 = 24_000;
    let scratch = Scratch::new("silence");
    let mut doseline = up(scratch.path(), &[]);
    doseline.wait_until_ready(READY_WITHIN);
    // The start writes tables, merges them, and judges everything once.
    std::thread::sleep(Duration::from_secs(20));
    let process = doseline.process().id();
    let (cpu, switches) = (tree_cpu_s(process), tree_switches(process));
    std::thread::sleep(SILENCE);
    let (cpu, switches) = (tree_cpu_s(process) - cpu, tree_switches(process).saturating_sub(switches));
    println!("{SILENCE:?} of silence: {cpu:.2} CPU-s, {switches} switches");
    assert!(cpu < CPU_S_MOST && switches < SWITCHES_MOST, "{cpu:.2} CPU-s, {switches} switches in {SILENCE:?}");
    doseline.stop(Duration::from_secs(20));
}
