//! The page in a browser: what it shows is compared with what ClickHouse says.

use std::{path::Path, time::Duration};

use dashboard::{Dashboard, access::Auth};
use harness::{ClickHouse, Doseline, Ready, Scratch, clients, poll};
use monitor::Monitor;
use tokio_util::sync::CancellationToken;
use warehouse::{Warehouse, migrate};

const READY_WITHIN: Duration = Duration::from_secs(60);
const PAST_WITHIN: Duration = Duration::from_secs(120);
/// Open alerts above low severity that the stories of the demo raise.
const STORIES: u64 = 6;

fn up(data_dir: &Path) -> (Doseline, Ready) {
    let data_dir = data_dir.to_str().expect("UTF-8 path");
    let any_port = ["--mqtt-port", "0", "--kafka-port", "0", "--clickhouse-port", "0", "--http-port", "0"];
    let arguments: Vec<_> = ["up", "--data-dir", data_dir, "--simulate", "25"].into_iter().chain(any_port).collect();
    let mut doseline = Doseline::start(&arguments);
    let ready = doseline.wait_until_ready(READY_WITHIN);
    (doseline, ready)
}

/// Runs a script of `tests/page`, and gives what it prints if it fails.
fn look(script: &str, page: &str, clickhouse: &str) -> Result<(), String> {
    let ended = clients::page(script, page, clickhouse).output().map_err(|error| format!("start node: {error}"))?;
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    println!("{said}");
    if ended.status.success() { Ok(()) } else { Err(format!("{said}{}", String::from_utf8_lossy(&ended.stderr))) }
}

/// A demo whose past has arrived and whose stories have raised their alerts.
fn demo(scratch: &Scratch) -> (Doseline, Ready) {
    let (mut doseline, ready) = up(scratch.path());
    doseline.wait_for_line("four weeks of the past have arrived", PAST_WITHIN);
    poll(PAST_WITHIN, "the alerts of the stories", || {
        let sql = "SELECT count() FROM doseline.open_alerts WHERE holds AND severity != 'low'";
        let found = ready.query(sql).trim().parse::<u64>().map_err(|error| error.to_string())?;
        if found >= STORIES { Ok(()) } else { Err(format!("{found} alerts")) }
    });
    (doseline, ready)
}

#[test]
fn the_page_shows_the_demo_and_its_stories() {
    let scratch = Scratch::new("page-demo");
    let (mut doseline, ready) = demo(&scratch);
    let scripts = ["every_page.mjs", "stories.mjs"];
    let failed: Vec<_> =
        scripts.iter().filter_map(|script| look(script, &ready.dashboard, &ready.clickhouse).err()).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    doseline.kill();
}

#[test]
#[ignore = "writes docs/images: cargo test --release --package tests --test page -- --ignored"]
fn pictures_for_the_documents() {
    let scratch = Scratch::new("page-pictures");
    let (mut doseline, ready) = demo(&scratch);
    let mut script = clients::page("screenshots.mjs", &ready.dashboard, &ready.clickhouse);
    let ended = script.env("IMAGES", harness::locate::checkout("docs/images")).status().expect("node starts");
    assert!(ended.success());
    doseline.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_of_ten_thousand_devices_is_usable() {
    let clickhouse = ClickHouse::start();
    let warehouse = Warehouse::new(clickhouse.warehouse_options()).expect("a valid address");
    migrate::migrate(&warehouse, migrate::Options::default()).await.expect("migrate");
    harness::ten_thousand_devices(&clickhouse);
    let mut monitor = Monitor::bind(monitor::Options::default(), warehouse.clone()).await.expect("no address to bind");
    monitor.pass(monitor::now_us()).await.expect("a pass");
    for (name, kind, model, count) in [("inj-", "INJECTOR", "pen", 9_375), ("ster-", "STERILIZER", "b", 625)] {
        clickhouse.query(&format!(
            "INSERT INTO doseline.devices (tenant, device, site, kind, model, origin, valid_from, recorded_at) SELECT 'acme', \
             concat('{name}', toString(number)), 'paris', '{kind}', '{model}', 'IMPORTED', toDateTime64('2026-01-01', 6, 'UTC'), \
             now64(6) FROM numbers({count})"
        ));
    }
    let options = dashboard::Options {
        listen: "127.0.0.1:0".parse().expect("an address"),
        names: Vec::new(),
        auth: Auth::None,
        tls: None,
        behind_proxy: false,
        requests_per_min: 10_000,
        faults: Default::default(),
        writer: dashboard::write::orders().0,
    };
    let dashboard = Dashboard::bind(options, warehouse).await.expect("the address is free");
    let (page, shutdown) = (format!("http://{}", dashboard.address()), CancellationToken::new());
    let served = tokio::spawn(dashboard.run(shutdown.clone()));
    let seen = tokio::task::block_in_place(|| look("large_fleet.mjs", &page, &clickhouse.url()));
    shutdown.cancel();
    served.await.expect("no panic").expect("it served");
    seen.unwrap_or_else(|said| panic!("{said}"));
}
