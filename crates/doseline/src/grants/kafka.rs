//! The least rights of each role in Kafka, and the script that gives them.
//!
//! A principal is the user of SASL; its name is that of the role's user in ClickHouse.

use std::fmt::Write as _;

use telemetry::kafka::{ALERTS_TOPIC, COMMANDS_TOPIC, QUARANTINE_TOPIC, REPORTS_TOPIC, STATUS_TOPIC};
use warehouse::rights::Service;

/// Groups that readers only name: they neither join them nor commit.
const NAMED_GROUPS: [&str; 2] = ["doseline-probe", "doseline-reread"];

/// What a rule is about.
enum Resources {
    Topics(&'static [&'static str]),
    Groups(Vec<String>),
    /// All groups whose names begin so.
    GroupsFrom(String),
}

/// What a principal may do. Kafka lets whoever may read, write or alter describe as well.
struct Rule {
    service: Service,
    resources: Resources,
    operations: &'static [&'static str],
}

/// What the bridge writes.
const BRIDGED: &[&str] = &[REPORTS_TOPIC, STATUS_TOPIC, QUARANTINE_TOPIC];
const ALL: &[&str] = &[REPORTS_TOPIC, STATUS_TOPIC, QUARANTINE_TOPIC, ALERTS_TOPIC, COMMANDS_TOPIC];
/// What the loader reads.
const LOADED: &[&str] = &[REPORTS_TOPIC, STATUS_TOPIC, QUARANTINE_TOPIC, COMMANDS_TOPIC];
/// Where `quarantine replay` puts records, and what people write: by command or in the page.
const OPERATED: &[&str] = &[REPORTS_TOPIC, STATUS_TOPIC, COMMANDS_TOPIC];

/// The rules, for loaders in this consumer group.
fn rules(group: &str) -> Vec<Rule> {
    use Resources::{Groups, GroupsFrom, Topics};
    let named = || Groups(NAMED_GROUPS.map(str::to_owned).to_vec());
    let requests = || GroupsFrom(format!("{group}-give-up-"));
    let rules: Vec<(Service, Resources, &'static [&'static str])> = vec![
        (Service::Migrate, Topics(ALL), &["Create", "DescribeConfigs"]),
        // `rebuild` reads a closed day again.
        (Service::Migrate, Topics(LOADED), &["Read"]),
        (Service::Migrate, named(), &["Describe"]),
        (Service::Bridge, Topics(BRIDGED), &["Write"]),
        (Service::Load, Topics(LOADED), &["Read", "DescribeConfigs"]),
        // A loader copies what it refuses.
        (Service::Load, Topics(&[QUARANTINE_TOPIC]), &["Write"]),
        (Service::Load, Groups(vec![group.to_owned()]), &["Read"]),
        (Service::Load, named(), &["Describe"]),
        // `give-up` leaves its request there, for the loader.
        (Service::Load, requests(), &["Read"]),
        (Service::Monitor, Topics(&[ALERTS_TOPIC]), &["Write"]),
        (Service::Serve, Topics(OPERATED), &["Write"]),
        // `reconcile`, and `check --connect`.
        (Service::Operate, Topics(LOADED), &["Read", "DescribeConfigs"]),
        (Service::Operate, Topics(OPERATED), &["Write"]),
        (Service::Operate, Groups(vec![group.to_owned()]), &["Describe"]),
        (Service::Operate, named(), &["Describe"]),
        (Service::Operate, requests(), &["Read"]),
    ];
    rules.into_iter().map(|(service, resources, operations)| Rule { service, resources, operations }).collect()
}

/// Arguments of `kafka-acls.sh --add` for each rule.
fn arguments(group: &str) -> Vec<String> {
    let argument = |rule: &Rule| {
        let resources = match &rule.resources {
            Resources::Topics(names) => names.iter().map(|name| format!(" --topic {name}")).collect::<String>(),
            Resources::Groups(names) => names.iter().map(|name| format!(" --group {name}")).collect(),
            Resources::GroupsFrom(name) => format!(" --group {name} --resource-pattern-type prefixed"),
        };
        let operations: String = rule.operations.iter().map(|operation| format!(" --operation {operation}")).collect();
        format!("--allow-principal User:{}{operations}{resources}", rule.service.user())
    };
    rules(group).iter().map(argument).collect()
}

/// A shell script that adds every rule. Adding a rule that is there changes nothing.
pub fn script(group: &str) -> String {
    let mut script = "\
#!/bin/sh
# The least rights of doseline's roles in Kafka, written by `doseline grants --kafka`. It can be run
# again at any time. The cluster must refuse whom no rule names: authorizer.class.name =
# org.apache.kafka.metadata.authorizer.StandardAuthorizer, allow.everyone.if.no.acl.found = false.
#
#   BOOTSTRAP=kafka-1:9092 COMMAND_CONFIG=admin.properties sh acls.sh
set -eu
: \"${BOOTSTRAP:?HOST:PORT of a broker}\" \"${COMMAND_CONFIG:?properties of a user that may alter rules}\"
allow() { \"${KAFKA_ACLS:-kafka-acls.sh}\" --bootstrap-server \"$BOOTSTRAP\" --command-config \"$COMMAND_CONFIG\" --add \"$@\"; }
"
    .to_owned();
    for argument in arguments(group) {
        let _ = writeln!(script, "allow {argument}");
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The deployed script is the one that the program writes.
    #[test]
    fn the_script_in_deploy_is_up_to_date() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/kafka/acls.sh");
        let expected = script("doseline-load");
        if std::env::var_os("UPDATE_REFERENCE").is_some() {
            std::fs::write(&path, &expected).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap();
        assert_eq!(
            found, expected,
            "write it anew with `doseline grants --kafka`, or UPDATE_REFERENCE=1 and this test"
        );
    }

    #[test]
    fn nobody_may_do_everything_or_delete() {
        for rule in rules("g") {
            for operation in rule.operations {
                assert!(
                    !["All", "Delete", "Alter", "AlterConfigs", "ClusterAction"].contains(operation),
                    "{operation}"
                );
            }
        }
        assert!(
            !arguments("g").iter().any(|argument| argument.contains("--topic *") || argument.contains("--cluster"))
        );
    }
}
