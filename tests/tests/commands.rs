//! The sub-commands, as a person uses them: help, wrong usage, wrong configuration, missing
//! engines.

use std::{fs, path::Path, time::Duration};

use harness::{ClickHouse, Doseline, Kafka, Mosquitto, Scratch, free_port};

const SOON: Duration = Duration::from_secs(30);

fn run(arguments: &[&str], environment: &[(&str, &str)]) -> harness::Finished {
    Doseline::run(arguments, environment, SOON)
}

#[test]
fn every_sub_command_explains_itself_with_an_example() {
    let help = run(&["--help"], &[]);
    assert_eq!(help.code, Some(0));
    const COMMANDS: [&str; 20] = [
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
        "give-up",
        "quarantine",
        "calc",
        "devices",
        "alerts",
        "trace",
        "impact",
        "incident",
        "token",
        "audit",
    ];
    for command in COMMANDS {
        assert!(help.stdout.contains(command), "--help lacks {command}");
        let arguments = match command {
            "devices" => vec!["devices", "import", "--help"],
            "quarantine" => vec!["quarantine", "replay", "--help"],
            "alerts" => vec!["alerts", "ack", "--help"],
            "incident" => vec!["incident", "add", "--help"],
            "token" => vec!["token", "create", "--help"],
            "audit" => vec!["audit", "list", "--help"],
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
fn every_list_offers_json_and_finds_a_running_up() {
    for arguments in [
        &["alerts", "list", "--help"][..],
        &["quarantine", "list", "--help"],
        &["devices", "list", "--help"],
        &["incident", "list", "--help"],
        &["audit", "list", "--help"],
        &["check", "--help"],
        &["impact", "--help"],
        &["trace", "--help"],
        &["reconcile", "--help"],
        &["rebuild", "--help"],
        &["give-up", "--help"],
    ] {
        let help = run(arguments, &[]).stdout;
        assert!(help.contains("--json") && help.contains("--data-dir") && help.contains("Example"), "{help}");
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
        &["audit"],
        &["audit", "list", "--since", "yesterday"],
        &["give-up", "--topic", "doseline.reports.v1", "--partition", "0"],
        &["give-up", "--topic", "doseline.reports.v1", "--partition", "-1", "--offset", "1"],
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
        let lines: Vec<_> = ended.stderr.lines().collect();
        assert_eq!(lines.len(), 4, "a line for each fault and a hint: {}", ended.stderr);
        assert!(lines[..3].iter().all(|line| line.starts_with(&format!("error: {file}: "))), "{}", ended.stderr);
        assert!(lines[3].starts_with("hint: "), "{}", ended.stderr);
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
    let absent = run(&["alerts", "list", "--config", "absent.toml"], &[]);
    assert_eq!(absent.code, Some(64));
    assert!(
        absent.stderr.starts_with("error: absent.toml: no such file\nhint: name an existing file"),
        "{}",
        absent.stderr
    );
    fs::write(&path, "[mqtt\nport = 1").expect("write the configuration");
    let torn = run(&["check", "--config", file], &[]);
    let lines: Vec<_> = torn.stderr.lines().collect();
    assert!(torn.code == Some(64) && lines.len() == 2 && lines[0].starts_with("error: "), "{}", torn.stderr);
    let filter = run(&["check"], &[("DOSELINE__LOG__FILTER", "a=b=c")]);
    assert!(
        filter.code == Some(64) && filter.stderr.starts_with("error: configuration: log.filter: "),
        "{}",
        filter.stderr
    );
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
    let json = run(&["check", "--connect", "--json"], &environment).stdout;
    let engines = json.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    assert!(engines.filter(|engine| engine["ok"] == false).count() == 3, "{json}");
    for (engine, address) in [("mqtt", &mqtt), ("kafka", &kafka.to_string()), ("clickhouse", &clickhouse.to_string())] {
        let line = checked.stdout.lines().find(|line| line.starts_with(engine)).expect("a line for the engine");
        assert!(line.contains(address) && line.contains("FAILED"), "{line}");
    }
    assert!(!checked.stderr.contains("backtrace") && !checked.stderr.contains("panicked"), "{}", checked.stderr);

    // The services keep trying, and end when they are told to.
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
            ("DOSELINE__CLICKHOUSE__USERNAME", "doseline".to_owned()),
            ("DOSELINE__CLICKHOUSE__PASSWORD", harness::PASSWORD.to_owned()),
            ("DOSELINE__BRIDGE__HTTP", "127.0.0.1:0".to_owned()),
            ("DOSELINE__LOAD__HTTP", "127.0.0.1:0".to_owned()),
            ("DOSELINE__MONITOR__HTTP", "127.0.0.1:0".to_owned()),
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
    // The state between two migrations: the tables of later migrations do not exist yet.
    assert_eq!(run(&["migrate"], &borrowed(&right)).code, Some(0));
    clickhouse.query("DELETE FROM doseline.schema_migrations WHERE version >= 13");
    clickhouse.query("DROP TABLE doseline.drift SYNC");
    let mut load = Doseline::start_with(&["load"], &borrowed(&right));
    let mut monitor = Doseline::start_with(&["monitor"], &borrowed(&right));
    for role in [&mut load, &mut monitor] {
        role.wait_for_line("the first absent one is 0013_calibration; run `doseline migrate`", SOON);
    }
    let migrated = run(&["migrate"], &borrowed(&right));
    assert_eq!(migrated.code, Some(0), "{}", migrated.stderr);
    assert_eq!(run(&["migrate"], &borrowed(&right)).code, Some(0), "a second time changes nothing");
    load.wait_for_line("owned", SOON);
    bridge.wait_for_line("password", SOON);
    for mut role in [bridge, monitor] {
        assert!(role.stop(SOON).0.success());
    }

    let checked = run(&["check", "--connect"], &borrowed(&right));
    assert_eq!(checked.code, Some(0), "{}", checked.stdout);

    let fleet = scratch.join("fleet.csv");
    let file = fleet.to_str().expect("UTF-8 path");
    fs::write(&fleet, "tenant,site,device,kind\nacme,berlin-1,D-1,INJECTOR\nacme,berlin-1,D 2,INJECTOR\n")
        .expect("write");
    let refused = run(&["devices", "import", file, "--by", "Ada"], &borrowed(&right));
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("line 3") && refused.stderr.contains("device"), "{}", refused.stderr);
    fs::write(&fleet, "tenant,site,device,kind\nacme,berlin-1,D-1,INJECTOR\n").expect("write");
    let imported = run(&["devices", "import", file, "--by", "Ada"], &borrowed(&right));
    assert!(imported.stdout.contains("1 lines read, 1 rows added"), "{} {}", imported.stdout, imported.stderr);
    assert!(run(&["devices", "import", file, "--by", "Ada"], &borrowed(&right)).stdout.contains("0 rows added"));
    assert_eq!(clickhouse.number("SELECT count() FROM doseline.devices"), 1);
    let audited = run(&["audit", "list", "--tenant", "acme", "--json"], &borrowed(&right)).stdout;
    let entry: serde_json::Value = serde_json::from_str(&audited).expect("one JSON object on one line");
    assert_eq!((entry["action"].as_str(), entry["subject"].as_str()), (Some("register_devices"), Some("D-1")));
    assert_eq!((entry["role"].as_str(), entry["outcome"].as_str()), (Some("ADMIN"), Some("APPLIED")));
    assert!(load.stop(SOON).0.success());

    // Without a loader the command is in Kafka, and the person is told so.
    let waiting = run(&["devices", "unknown", "keep", "--by", "Ada"], &borrowed(&right));
    let lines: Vec<_> = waiting.stderr.lines().collect();
    assert!(waiting.code == Some(1) && lines.len() == 2, "{}", waiting.stderr);
    assert!(lines[0].contains("1 commands are in kafka topic doseline.commands.v1"), "{}", waiting.stderr);
    assert!(lines[1].contains("do not give them again"), "{}", waiting.stderr);
}

/// Runs a sub-command in a folder, with variables `NAME=VALUE`.
fn run_in(folder: &Path, variables: &[&str], arguments: &[&str]) -> harness::Finished {
    let folder = folder.to_str().expect("UTF-8 path");
    let mut doseline = Doseline::start_under("env", &[&["-C", folder], variables].concat(), arguments);
    let status = doseline.process().wait(SOON);
    harness::Finished { code: status.code(), stdout: doseline.stdout(), stderr: doseline.stderr() }
}

fn up(data_dir: &str) -> Doseline {
    let any_port = ["--mqtt-port", "0", "--kafka-port", "0", "--clickhouse-port", "0", "--http-port", "0"];
    Doseline::start(&["up", "--data-dir", data_dir].into_iter().chain(any_port).collect::<Vec<_>>())
}

#[test]
fn sub_commands_find_a_running_up_without_any_configuration() {
    let scratch = Scratch::new("beside");
    let data_dir = scratch.join("doseline-data");
    let named = data_dir.to_str().expect("UTF-8 path");
    let done = |arguments: &[&str]| {
        let ended = run_in(scratch.path(), &[], arguments);
        assert_eq!(ended.code, Some(0), "{arguments:?}\n{}\n{}", ended.stdout, ended.stderr);
        ended
    };
    let mut first = up(named);
    let ready = first.wait_until_ready(Duration::from_secs(60));

    let checked = done(&["check", "--connect"]).stdout;
    for (engine, address) in [("mqtt", &ready.mqtt), ("kafka", &ready.kafka), ("clickhouse", &ready.clickhouse)] {
        let line = checked.lines().find(|line| line.starts_with(engine)).expect("a line for the engine");
        assert!(line.contains(address.as_str()) && line.contains("  ok  "), "{checked}");
    }
    fs::write(scratch.join("fleet.csv"), "tenant,site,device,kind\nacme,berlin-1,D-1,INJECTOR\n").expect("write");
    let unaudited = done(&["audit", "list"]);
    assert_eq!((unaudited.stdout.as_str(), unaudited.stderr.as_str()), ("", "nothing is in the audit\n"));
    done(&["devices", "import", "fleet.csv", "--by", "Ada"]);
    let audited = done(&["audit", "list", "--since", "2026-01-01"]).stdout;
    let entry = audited.lines().nth(1).expect("a line below the header");
    assert!(
        audited.starts_with("TIME ") && entry.contains("  acme    Ada     ADMIN  register_devices  D-1 "),
        "{audited}"
    );
    let listed = done(&["devices", "list"]).stdout;
    assert!(listed.starts_with("TENANT  SITE      DEVICE  KIND "), "{listed}");
    assert!(listed.lines().any(|line| line.starts_with("acme    berlin-1  D-1     INJECTOR  IMPORTED ")), "{listed}");
    let listed = done(&["devices", "list", "--json", "--tenant", "acme"]).stdout;
    let device: serde_json::Value = serde_json::from_str(&listed).expect("one JSON object on one line");
    assert_eq!((device["device"].as_str(), device["origin"].as_str()), (Some("D-1"), Some("IMPORTED")));
    for (list, nothing) in [
        (["alerts", "list"], "no alert is open\n"),
        (["incident", "list"], "no incident is recorded\n"),
        (["quarantine", "list"], "nothing is in quarantine\n"),
    ] {
        assert_eq!(done(&list).stderr, nothing);
    }
    done(&["migrate"]);
    done(&["monitor", "--once"]);
    let sent = done(&["simulate", "--devices", "2", "--rate", "0", "--duration", "5", "--data-dir", "outboxes"]).stdout;
    assert!(sent.starts_with("made ") && sent.trim_end().ends_with("without receipt 0"), "{sent}");
    assert!(done(&["reconcile"]).stdout.ends_with("no difference\n"));
    let outboxes = run_in(scratch.path(), &[], &["simulate", "--data-dir", "doseline-data"]);
    assert!(
        outboxes.code == Some(1) && outboxes.stderr.contains("hint: name it with --up-data-dir"),
        "{}",
        outboxes.stderr
    );
    for arguments in [&["trace", "--item", "N9"][..], &["impact", "--calibration", "c"]] {
        let absent = run_in(scratch.path(), &[], arguments);
        let lines: Vec<_> = absent.stderr.lines().collect();
        let looks =
            lines.len() == 2 && lines[0].starts_with("error: nothing is known of ") && lines[1].starts_with("hint: ");
        assert!(absent.code == Some(1) && looks, "{}", absent.stderr);
    }

    precedence(scratch.path(), named);
    first.kill();
    let gone = run_in(scratch.path(), &[], &["alerts", "list"]);
    let said = format!("error: no running doseline in {named} (process ");
    assert!(gone.code == Some(1) && gone.stderr.starts_with(&said), "{}", gone.stderr);
    let hint = gone.stderr.lines().nth(1).expect("a hint");
    assert!(hint.contains("`doseline up`") && hint.contains("--config FILE"), "{hint}");

    let mut second = up(named);
    second.wait_until_ready(Duration::from_secs(60));
    done(&["check", "--connect"]);
    assert!(second.stop(SOON).0.success());
    assert!(!data_dir.join("running.json").exists(), "a clean end leaves nothing behind");
}

/// A configuration is sufficient, but a named data directory overrides it.
fn precedence(folder: &Path, data_dir: &str) {
    let url = format!("DOSELINE__CLICKHOUSE__URL=http://127.0.0.1:{}", free_port());
    let away = run_in(folder, &[&url], &["alerts", "list"]);
    let lines: Vec<_> = away.stderr.lines().collect();
    assert!(lines[0].contains("cannot be reached") && lines[1].contains("clickhouse.url"), "{}", away.stderr);
    assert_eq!(run_in(folder, &[&url], &["alerts", "list", "--data-dir", data_dir]).code, Some(0));
    let text = format!("[clickhouse]\nurl = \"http://127.0.0.1:{}\"\n", free_port());
    fs::write(folder.join("mine.toml"), text).expect("write");
    let away = run_in(folder, &[], &["alerts", "list", "--config", "mine.toml"]);
    assert!(away.code == Some(1) && away.stderr.contains("cannot be reached"), "{}", away.stderr);
    let both = ["alerts", "list", "--config", "mine.toml", "--data-dir", data_dir];
    assert_eq!(run_in(folder, &[], &both).code, Some(0));
    let elsewhere = run_in(folder, &[], &["alerts", "list", "--data-dir", "elsewhere"]);
    let said = format!("error: no running doseline in {}\n", folder.join("elsewhere").display());
    assert!(elsewhere.code == Some(1) && elsewhere.stderr.starts_with(&said), "{}", elsewhere.stderr);
}

#[test]
fn tokens_are_created_listed_and_revoked() {
    let scratch = Scratch::new("token");
    let path = scratch.join("tokens.json");
    let file = path.to_str().expect("UTF-8 path");
    let token = |arguments: &[&str]| run(&[&["token", "--file", file], arguments].concat(), &[]);
    let made = token(&["create", "--role", "viewer", "--tenant", "acme", "--note", "for \u{1b}[31mGrafana"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let text = made.stdout.trim();
    let id = text.strip_prefix("dsl_").and_then(|text| text.split_once('_')).expect("a token").0;
    assert!(made.stderr.contains(id) && !made.stderr.contains(text), "{}", made.stderr);
    let secret = text.rsplit_once('_').expect("a token").1;
    assert!(secret.len() == 64 && !fs::read_to_string(&path).expect("the file").contains(secret));
    let listed = token(&["list"]);
    assert!(listed.stdout.contains(id) && listed.stdout.contains("acme") && listed.stdout.contains("valid"));
    assert!(!listed.stdout.contains(secret) && !listed.stdout.contains('\u{1b}'), "{}", listed.stdout);
    let json: serde_json::Value = serde_json::from_str(token(&["list", "--json"]).stdout.trim()).expect("JSON");
    assert_eq!((&json["id"], &json["hash"]), (&id.into(), &serde_json::Value::Null));
    for (wrong, said) in [
        (&["create", "--role", "viewer"][..], "--tenant NAME"),
        (&["create", "--role", "admin", "--tenant", "acme"], "leave out --tenant"),
        (&["create", "--role", "manufacturer"], "--manufacturer NAME"),
        (&["create", "--role", "viewer", "--tenant", "it's"], "must match"),
        (&["revoke", "0"], "doseline token list"),
    ] {
        let ended = token(wrong);
        assert_eq!(ended.code, Some(1), "{wrong:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{wrong:?}: {}", ended.stderr);
    }
    assert_eq!(token(&["create", "--role", "owner", "--tenant", "acme"]).code, Some(2));
    assert_eq!(token(&["create", "--role", "admin", "--days", "0"]).code, Some(2));
    assert_eq!(token(&["revoke", id]).stdout, format!("revoked {id}\n"));
    assert_eq!(token(&["list"]).stderr, "there is no token\n");
    let nowhere = run(&["token", "list"], &[]);
    assert!(nowhere.code == Some(1) && nowhere.stderr.contains("--file FILE"), "{}", nowhere.stderr);
    let by_setting = [("DOSELINE__SERVE__TOKENS_FILE", file)];
    assert_eq!(run(&["token", "list"], &by_setting).code, Some(0));
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("change the mode");
    let open = token(&["list"]);
    assert!(open.code == Some(1) && open.stderr.contains("hint: run `chmod 600"), "{}", open.stderr);
}

#[test]
fn a_dashboard_on_the_network_needs_tokens() {
    let open = [("DOSELINE__SERVE__HTTP", "0.0.0.0:0")];
    let ended = run(&["serve"], &open);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("error: serve.auth = \"none\" lets everybody who reaches 0.0.0.0:0"),
        "{}",
        ended.stderr
    );
    assert!(ended.stderr.contains("hint: set serve.auth = \"tokens\""), "{}", ended.stderr);
    let checked = run(&["check"], &open);
    assert!(checked.code == Some(64) && checked.stderr.contains("serve.auth"), "{}", checked.stderr);
    let without = run(&["serve"], &[("DOSELINE__SERVE__AUTH", "tokens")]);
    assert!(without.code == Some(64) && without.stderr.contains("serve.tokens_file"), "{}", without.stderr);
}
