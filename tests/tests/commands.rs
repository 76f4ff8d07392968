//! The sub-commands as a person meets them: help, wrong usage, wrong configuration, engines that are not there.

use std::{fs, time::Duration};

use harness::{ClickHouse, Doseline, Kafka, Mosquitto, Scratch, free_port};

const SOON: Duration = Duration::from_secs(30);

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> harness::Finished {
    Doseline::run(arguments, environment, SOON)
}

#[test]
fn every_sub_command_explains_itself_with_an_example() {
    let help = run(&["--help"], &[]);
    assert_eq!(help.code, Some(0));
    const COMMANDS: [&str; 17] = [
        "up",
        "bridge",
        "load",
        "monitor",
        "serve",
        "simulate",
        "migrate",
        "check",
        "reconcile",
        "rebuild",
        "quarantine",
        "calc",
        "devices",
        "alerts",
        "trace",
        "impact",
        "incident",
    ];
    for command in COMMANDS {
        assert!(help.stdout.contains(command), "--help lacks {command}");
        let arguments = match command {
            "devices" => vec!["devices", "import", "--help"],
            "quarantine" => vec!["quarantine", "replay", "--help"],
            "alerts" => vec!["alerts", "ack", "--help"],
            "incident" => vec!["incident", "add", "--help"],
            command => vec![command, "--help"],
        };
        let own = run(&arguments, &[]);
        assert_eq!(own.code, Some(0), "{command}");
        assert!(
            own.stdout.contains("Example") && own.stdout.contains(&format!("doseline {command}")),
            "{}",
            own.stdout
        );
    }
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in [
        &["upp"][..],
        &["up", "--simulate", "many"],
        &["simulate", "--scenario", "flood"],
        &["devices"],
        &["trace"],
        &["alerts", "ack", "k"],
        &["impact"],
        &[],
    ] {
        let ended = run(arguments, &[]);
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
        assert!(!ended.stderr.is_empty());
    }
    assert!(
        run(&["simulate", "--scenario", "flood"], &[]).stderr.contains("dose-drift"),
        "names the scenarios there are"
    );
}

#[test]
fn a_broken_configuration_names_file_key_value_and_remedy_and_ends_with_64() {
    let scratch = Scratch::new("check");
    let path = scratch.join("broken.toml");
    let text = "[kafka]\nbrokers = [\"kafka\"]\nretention_days = 1\n[load]\nbatch_age_ms = 1\n";
    fs::write(&path, text).expect("write the configuration");
    let file = path.to_str().expect("UTF-8 path");
    for command in ["check", "bridge", "load", "serve", "migrate"] {
        let ended = run(&[command, "--config", file], &[]);
        assert_eq!(ended.code, Some(64), "{command}: {}", ended.stderr);
        for part in [
            file,
            "kafka.brokers",
            "\"kafka\" must be host:port",
            "kafka.retention_days",
            "at least 7",
            "load.batch_age_ms",
        ] {
            assert!(ended.stderr.contains(part), "{command} does not say {part}: {}", ended.stderr);
        }
    }
    let ended = run(&["check"], &[("DOSELINE__MQTT__PORT", "high")]);
    assert_eq!(ended.code, Some(64));
    assert!(ended.stderr.contains("environment") && ended.stderr.contains("mqtt.port"), "{}", ended.stderr);
    assert_eq!(run(&["check"], &[]).code, Some(0), "the defaults are valid");
}

#[test]
fn engines_that_are_not_there_get_one_clear_line_each() {
    let (mqtt, kafka, clickhouse) = (free_port().to_string(), free_port(), free_port());
    let (brokers, url) = (format!("[\"127.0.0.1:{kafka}\"]"), format!("http://127.0.0.1:{clickhouse}"));
    let environment = [
        ("DOSELINE__MQTT__HOST", "127.0.0.1"),
        ("DOSELINE__MQTT__PORT", &*mqtt),
        ("DOSELINE__KAFKA__BROKERS", &*brokers),
        ("DOSELINE__CLICKHOUSE__URL", &*url),
        ("DOSELINE__BRIDGE__HTTP", "127.0.0.1:0"),
        ("DOSELINE__LOAD__HTTP", "127.0.0.1:0"),
    ];
    let checked = run(&["check", "--connect"], &environment);
    assert_eq!(checked.code, Some(1), "{}", checked.stderr);
    for (engine, address) in [("mqtt", &mqtt), ("kafka", &kafka.to_string()), ("clickhouse", &clickhouse.to_string())] {
        let line = checked.stdout.lines().find(|line| line.starts_with(engine)).expect("a line for the engine");
        assert!(line.contains(address) && line.contains("FAILED"), "{line}");
    }
    assert!(!checked.stderr.contains("backtrace") && !checked.stderr.contains("panicked"), "{}", checked.stderr);

    // The services go on trying, and end when they are told to.
    for role in ["bridge", "load"] {
        let mut service = Doseline::start_with(&[role], &environment);
        service.wait_for_line("WARN", SOON);
        let (status, took) = service.stop(SOON);
        assert!(
            status.success() && took < Duration::from_secs(6),
            "{role}: {status} after {took:?}\n{}",
            service.stderr()
        );
    }
}

#[test]
fn a_wrong_password_and_a_missing_table_are_said_and_then_healed() {
    let scratch = Scratch::new("passwords");
    let passwords = scratch.join("passwords");
    let made = std::process::Command::new("mosquitto_passwd")
        .args(["-c", "-b"])
        .arg(&passwords)
        .args(["bridge", "right"])
        .status();
    assert!(made.expect("mosquitto_passwd runs").success());
    let mosquitto =
        Mosquitto::start_with(&["allow_anonymous false", &format!("password_file {}", passwords.display())]);
    let (kafka, clickhouse) = (Kafka::start(), ClickHouse::start());
    let (port, brokers) = (mosquitto.port().to_string(), format!("[\"{}\"]", kafka.bootstrap()));
    let environment = |password: &'static str| {
        [
            ("DOSELINE__MQTT__HOST", "127.0.0.1".to_owned()),
            ("DOSELINE__MQTT__PORT", port.clone()),
            ("DOSELINE__MQTT__USERNAME", "bridge".to_owned()),
            ("DOSELINE__MQTT__PASSWORD", password.to_owned()),
            ("DOSELINE__KAFKA__BROKERS", brokers.clone()),
            ("DOSELINE__KAFKA__REPLICATION", "1".to_owned()),
            ("DOSELINE__KAFKA__MIN_INSYNC_REPLICAS", "1".to_owned()),
            ("DOSELINE__CLICKHOUSE__URL", clickhouse.url().to_owned()),
            ("DOSELINE__BRIDGE__HTTP", "127.0.0.1:0".to_owned()),
            ("DOSELINE__LOAD__HTTP", "127.0.0.1:0".to_owned()),
        ]
    };
    fn borrowed<'a>(owned: &'a [(&'static str, String)]) -> Vec<(&'static str, &'a str)> {
        owned.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }
    let (right, wrong) = (environment("right"), environment("wrong"));

    let checked = run(&["check", "--connect"], &borrowed(&wrong));
    let line = |engine: &str| checked.stdout.lines().find(|line| line.starts_with(engine)).expect("a line").to_owned();
    assert!(line("mqtt").contains("password"), "{}", line("mqtt"));
    assert!(
        line("kafka").contains("does not exist") && line("kafka").contains("doseline migrate"),
        "{}",
        line("kafka")
    );
    assert!(line("clickhouse").contains("doseline migrate"), "{}", line("clickhouse"));
    assert!(!checked.stdout.contains("wrong\"") && !checked.stderr.contains("DOSELINE__MQTT__PASSWORD"));

    let mut bridge = Doseline::start_with(&["bridge"], &borrowed(&wrong));
    let mut load = Doseline::start_with(&["load"], &borrowed(&right));
    load.wait_for_line("doseline migrate", SOON);
    let migrated = run(&["migrate"], &borrowed(&right));
    assert_eq!(migrated.code, Some(0), "{}", migrated.stderr);
    assert_eq!(run(&["migrate"], &borrowed(&right)).code, Some(0), "a second time changes nothing");
    load.wait_for_line("owned", SOON);
    bridge.wait_for_line("password", SOON);
    assert!(bridge.stop(SOON).0.success() && load.stop(SOON).0.success());

    let checked = run(&["check", "--connect"], &borrowed(&right));
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);

    let fleet = scratch.join("fleet.csv");
    let file = fleet.to_str().expect("UTF-8 path");
    fs::write(&fleet, "tenant,site,device,kind\nacme,berlin-1,D-1,INJECTOR\nacme,berlin-1,D 2,INJECTOR\n")
        .expect("write");
    let refused = run(&["devices", "import", file], &borrowed(&right));
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("line 3") && refused.stderr.contains("device"), "{}", refused.stderr);
    fs::write(&fleet, "tenant,site,device,kind\nacme,berlin-1,D-1,INJECTOR\n").expect("write");
    let imported = run(&["devices", "import", file], &borrowed(&right));
    assert!(imported.stdout.contains("1 lines read, 1 rows added"), "{} {}", imported.stdout, imported.stderr);
    assert!(run(&["devices", "import", file], &borrowed(&right)).stdout.contains("0 rows added"));
    assert_eq!(clickhouse.number("SELECT count() FROM doseline.devices"), 1);
}
