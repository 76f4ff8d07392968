//! The generated rights suffice: each role and each command does its work with them on the engine.
//! They are put on the user under which the embedded engine runs statements.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use harness::{ClickHouse, Doseline, Stack, poll};
use warehouse::{
    grants::Subject,
    rights::{Service, WITHHELD},
};

const WITHIN: Duration = Duration::from_secs(120);
const STOPS_WITHIN: Duration = Duration::from_secs(60);
const DENIED: &str = "Not enough privileges";

/// Starts the engine again with the rights of a service.
fn restrict(clickhouse: &mut ClickHouse, service: Service) {
    assert!(clickhouse.stop().success());
    let folder = clickhouse.data_dir().join("users.d");
    fs::create_dir_all(&folder).expect("a folder beside users.xml");
    let rights = Subject::Service(service).rights("doseline").into_iter().map(|right| format!("GRANT {right}"));
    let withheld = WITHHELD.iter().filter(|(of, ..)| *of == service);
    let withheld = withheld.map(|(_, relation, column)| format!("REVOKE SELECT({column}) ON doseline.{relation}"));
    let queries: String = rights.chain(withheld).map(|grant| format!("<query>{grant}</query>")).collect();
    let xml =
        format!("<clickhouse><users><default><grants replace=\"1\">{queries}</grants></default></users></clickhouse>");
    fs::write(folder.join("grants.xml"), xml).expect("the rights");
    clickhouse.start_again();
}

fn stop(mut role: Doseline) {
    role.stop(STOPS_WITHIN);
    let log = role.stderr();
    assert!(!log.contains(DENIED), "{log}");
}

/// Uses what the dashboard does beside reading rows. No loader runs, so a command is not applied.
fn listen_and_write(serve: &Doseline) {
    let log = serve.stderr();
    let line = log.lines().find(|line| line.contains("dashboard serves")).unwrap_or_default();
    let address = line.split("http://").nth(1).and_then(|rest| rest.split(['"', ' ', '\n', '\u{1b}']).next());
    let address = address.expect("the address of the dashboard");
    let mut stream = TcpStream::connect(address).expect("the port is there");
    let head = format!("GET /api/v1/changes HTTP/1.1\r\nhost: {address}\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("send the request");
    let (mut heard, began) = (String::new(), Instant::now());
    while !heard.contains("event: beat") {
        let mut bytes = [0; 1_024];
        let read = stream.read(&mut bytes).expect("an event");
        heard += &String::from_utf8_lossy(&bytes[..read]);
        assert!(read > 0 && began.elapsed() < WITHIN, "{heard}");
    }
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    for (path, body, status) in [
        ("incidents", r#"{"tenant":"acme","kind":"LOT","subject":"L","note":"x","by":"Ada"}"#, 422),
        ("tenants/acme/quarantine/3-0-1/replay", r#"{"by":"Ada"}"#, 409),
        ("tenants/acme/alerts/k/acknowledge", r#"{"by":"Ada"}"#, 503),
    ] {
        let request = agent.post(format!("http://{address}/api/v1/{path}")).header("content-type", "application/json");
        let mut answer = request.send(body).expect("an answer");
        let said = answer.body_mut().read_to_string().expect("a body");
        assert_eq!(answer.status().as_u16(), status, "{path}: {said}\n{}", serve.stderr());
        assert!(status != 503 || said.contains("problem:late"), "{said}");
    }
    let log = serve.stderr();
    assert!(!log.contains("pages cannot be told"), "{log}");
}

#[test]
fn every_role_and_command_works_with_its_rights() {
    let more = "[bridge]\nunknown_devices = \"policy\"\n[load]\nbatch_age_ms = 100\n";
    let mut stack = Stack::start(more);
    // What the dashboard acknowledges and replays.
    for row in [
        "alerts (tenant, alert_key, severity, state, computed_at) VALUES ('acme', 'k', 'low', 'OPEN', now64(6))",
        "quarantine (reason, topic, source, payload, received_at, tenant, site, device, incarnation, kafka_partition, \
         kafka_offset, ingest_day) VALUES ('unknown_device', 'doseline/v1/acme/s/d/report', 'bridge', 'x', now64(6), \
         'acme', 's', 'd', 3, 0, 1, today())",
    ] {
        stack.clickhouse.query(&format!("INSERT INTO doseline.{row}"));
    }
    // Running `migrate` again changes nothing and looks at everything.
    restrict(&mut stack.clickhouse, Service::Migrate);
    let mut migrate = stack.doseline(&["migrate"]);
    assert!(migrate.process().wait(WITHIN).success(), "{}", migrate.stderr());

    restrict(&mut stack.clickhouse, Service::Bridge);
    let bridge = stack.role("bridge");
    let mut fleet =
        stack.doseline(&["simulate", "--devices", "3", "--rate", "5", "--duration", "8", "--data-dir", "boxes"]);
    let status = fleet.process().wait(WITHIN);
    assert!(status.success(), "{}", fleet.stderr());
    stop(bridge);

    restrict(&mut stack.clickhouse, Service::Load);
    let load = stack.role("load");
    poll(WITHIN, "injections", || match stack.clickhouse.try_query("SELECT count() FROM doseline.injections") {
        Ok(count) if count != "0" => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // A second look of the periodic tasks.
    stack.wait_until_committed();
    stop(load);

    restrict(&mut stack.clickhouse, Service::Monitor);
    for arguments in [&["monitor", "--once"][..], &["monitor", "--once", "--from-scratch"]] {
        let mut once = stack.doseline(arguments);
        assert!(once.process().wait(WITHIN).success(), "{}", once.stderr());
    }
    let monitor = stack.role("monitor");
    stop(monitor);

    for reader in [Service::Serve, Service::Dashboards] {
        restrict(&mut stack.clickhouse, reader);
        let serve = stack.role("serve");
        if reader == Service::Serve {
            listen_and_write(&serve);
        }
        stop(serve);
    }

    restrict(&mut stack.clickhouse, Service::Operate);
    let devices = "tenant,site,device,kind,model\nacme,berlin-1,D-0001,INJECTOR,mesogun-2\n";
    let file = stack.clickhouse.data_dir().join("fleet.csv");
    fs::write(&file, devices).expect("write the devices");
    let file = file.display().to_string();
    let commands: [&[&str]; 9] = [
        &["devices", "import", &file, "--by", "Ada"],
        &["audit", "list"],
        &["alerts", "list"],
        &["incident", "list"],
        &["quarantine", "list"],
        &["quarantine", "purge", "--help"],
        &["reconcile"],
        &["check", "--connect"],
        &["trace", "--item", "nothing"],
    ];
    for command in commands {
        let mut command = (stack.doseline(command), command);
        command.0.process().wait(WITHIN);
        let said = format!("{}{}", command.0.stdout(), command.0.stderr());
        assert!(!said.contains(DENIED), "{:?}: {said}", command.1);
    }
}
