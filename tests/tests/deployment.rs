//! The files of `deploy` for Kubernetes and systemd, checked by their own tools as far as a machine
//! has them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use harness::{Doseline, Scratch};

const WITHIN: Duration = Duration::from_secs(60);
/// The version of Kubernetes that the objects are made for.
const KUBERNETES: &str = "1.30.0";
const ROLES: [&str; 4] = ["bridge", "load", "monitor", "serve"];

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(deploy(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Runs a tool, unless the machine has none.
fn tool(name: &str, arguments: &[&str], folder: &Path) -> Option<Output> {
    match Command::new(name).args(arguments).current_dir(folder).output() {
        Ok(output) => Some(output),
        Err(_) => {
            println!("SKIPPED {name}: it is not on the path; deploy/README.md says how to get it");
            None
        }
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The objects that the chart makes of its values and these changes.
fn template(changes: &[&str]) -> Option<Output> {
    let sets = changes.iter().flat_map(|change| ["--set", change]);
    let arguments: Vec<_> = ["template", "clinic", ".", "--kube-version", KUBERNETES].into_iter().chain(sets).collect();
    tool("helm", &arguments, &deploy("helm/doseline"))
}

/// The configuration in the objects, with its files in `folder`.
fn configuration(objects: &str, folder: &Path) -> String {
    let text = objects.split("  doseline.toml: |\n").nth(1).expect("a configuration");
    let lines = text.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
    let lines: Vec<_> = lines.map(|line| line.strip_prefix("    ").unwrap_or_default()).collect();
    lines.join("\n").replace("/etc/doseline-tls", folder.to_str().expect("UTF-8"))
}

#[test]
fn the_chart_makes_valid_configurations_and_refuses_values_that_cannot_be() {
    let chart = deploy("helm/doseline");
    let Some(lint) = tool("helm", &["lint", "--strict", "--kube-version", KUBERNETES, "."], &chart) else { return };
    assert!(lint.status.success(), "{}", said(&lint));
    let scratch = Scratch::new("chart");
    for file in ["broker-ca.pem", "bridge.pem", "bridge.key", "kafka-ca.pem"] {
        fs::write(scratch.join(file), "").expect("write a file");
    }
    let other = [
        "load.autoscaling.enabled=true",
        "kafka.tlsSecret=kafka-tls",
        "kafka.sasl.mechanism=SCRAM-SHA-512",
        "kafka.sasl.passwordsSecret=kafka-passwords",
        "mqtt.tlsSecret=",
        "bridge.replicas=1",
        "bridge.shareGroupSecret=",
        "monitor.webhook=http://alertmanager:9093/api/v2/alerts",
        "serve.names={doseline.example.org}",
        "networkPolicy.metricsFrom=null",
    ];
    for changes in [&[][..], &other[..]] {
        let made = template(changes).expect("helm was there");
        assert!(made.status.success(), "{}", said(&made));
        let objects = String::from_utf8(made.stdout).expect("UTF-8");
        fs::write(scratch.join("doseline.toml"), configuration(&objects, scratch.path())).expect("write it");
        let path = scratch.join("doseline.toml");
        let checked = Doseline::run(&["check", "--config", path.to_str().expect("UTF-8")], &[], WITHIN);
        assert_eq!(checked.code, Some(0), "{}\n{objects}", checked.stderr);
        for role in ROLES {
            // Each role sees its own password, and is probed on its own port.
            assert!(objects.contains(&format!("args: [{role}, --config, /etc/doseline/doseline.toml]")), "{role}");
            assert!(objects.contains(&format!("items: [{{ key: doseline_{role}, path: clickhouse_password }}]")));
        }
        assert_eq!(objects.matches("readOnlyRootFilesystem: true").count(), ROLES.len() + 2, "migrate, and the tokens");
        assert_eq!(objects.contains("kind: HorizontalPodAutoscaler"), !changes.is_empty());
    }
    for (change, complaint) in [
        ("mqtt.port=0", "mqtt.port"),
        ("clickhouse.url=ftp://clickhouse", "clickhouse.url"),
        ("clickhouse.passwordsSecret=", "clickhouse.passwordsSecret"),
        ("kafka.retentionDays=3", "kafka.retentionDays"),
        ("load.autoscaling.maxReplicas=13", "more loaders than kafka.partitions have no work"),
        ("bridge.shareGroupSecret=", "several bridges without a share group each receive everything"),
        ("kafka.sasl.mechanism=PLAIN", "name the Secret with the passwords of Kafka"),
        ("typo=1", "typo"),
    ] {
        let refused = template(&[change]).expect("helm was there");
        assert!(!refused.status.success() && said(&refused).contains(complaint), "{change}: {}", said(&refused));
    }
}

#[test]
fn units_are_valid_and_give_each_role_its_own_password() {
    let scratch = Scratch::new("units");
    let binary = harness_binary();
    let unit = |name: &str| read(&format!("systemd/{name}")).replace("/usr/bin/doseline", &binary);
    let mut files = Vec::new();
    for role in ROLES {
        files.push(format!("doseline@{role}.service"));
        fs::write(scratch.join(files.last().expect("one")), unit("doseline@.service")).expect("write a unit");
    }
    for name in ["doseline-migrate.service", "doseline.target"] {
        fs::write(scratch.join(name), unit(name)).expect("write a unit");
        files.push(name.to_owned());
    }
    let role = read("systemd/doseline@.service");
    for line in [
        "Environment=DOSELINE__CLICKHOUSE__USERNAME=doseline_%i",
        "LoadCredential=clickhouse_password:/etc/doseline/passwords/doseline_%i",
        "RestartPreventExitStatus=64",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "MemoryDenyWriteExecute=yes",
    ] {
        assert!(role.lines().any(|found| found == line), "{line}");
    }
    let paths: Vec<_> = files.iter().map(|file| format!("./{file}")).collect();
    let arguments: Vec<_> = ["verify"].into_iter().chain(paths.iter().map(String::as_str)).collect();
    let Some(verified) = tool("systemd-analyze", &arguments, scratch.path()) else { return };
    // It warns about what it does not know and still succeeds.
    assert!(verified.status.success() && said(&verified).is_empty(), "{}", said(&verified));
}

#[test]
fn compose_mounts_files_that_exist() {
    let text = read("compose.yaml");
    let mounted: Vec<_> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- ")?.split_once(':'))
        .map(|(source, _)| source)
        .filter(|source| source.starts_with('.'))
        .collect();
    assert!(mounted.len() > 10, "{mounted:?}");
    // The secrets are made by make-secrets.sh.
    for source in mounted.into_iter().filter(|source| !source.starts_with("./secrets/")) {
        assert!(deploy(source).exists(), "{source}");
    }
}

/// The binary of this build, which the units must find.
fn harness_binary() -> String {
    let test = std::env::current_exe().expect("know the path of this test");
    test.ancestors().nth(2).expect("target/PROFILE/deps/this-test").join("doseline").display().to_string()
}
