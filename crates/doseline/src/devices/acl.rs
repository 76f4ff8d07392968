//! The rules of the MQTT broker, with what the registry says about gateways.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
};

use clap::ValueEnum;
use warehouse::registry::Device;

/// The rules for the bridge and for devices, which need no registry.
const BASE: &str = include_str!("../../../../deploy/mosquitto/acl");
/// User name of the bridge: the common name of its certificate.
const BRIDGE: &str = "doseline-bridge";
/// What a device publishes.
const SENT: [&str; 3] = ["report", "report/json", "status"];
/// What a device reads.
const RECEIPTS: [&str; 2] = ["receipt", "receipt/json"];

/// The broker for which the rules are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A whole file for acl_file
    Mosquitto,
    /// A whole acl.conf
    Emqx,
    /// The roles for the file of the File RBAC Extension
    Hivemq,
}

/// Gateways as `TENANT/SITE/GATEWAY`, with the devices for which each may publish.
pub type Gateways = BTreeMap<String, Vec<String>>;

/// The gateways of the registry. Also those that are named but not registered, as (gateway,
/// device): their site is unknown, and therefore their name.
pub fn gateways(devices: &[Device]) -> (Gateways, Vec<(String, String)>) {
    let name = |device: &Device| format!("{}/{}/{}", device.tenant, device.site, device.device);
    let known: HashMap<_, _> =
        devices.iter().map(|device| ((device.tenant.as_str(), device.device.as_str()), device)).collect();
    let (mut gateways, mut unknown) = (Gateways::new(), Vec::new());
    for device in devices.iter().filter(|device| !device.gateway.is_empty()) {
        match known.get(&(device.tenant.as_str(), device.gateway.as_str())) {
            Some(gateway) => gateways.entry(name(gateway)).or_default().push(name(device)),
            None => unknown.push((format!("{}/{}", device.tenant, device.gateway), name(device))),
        }
    }
    (gateways, unknown)
}

/// The rules as text.
pub fn text(format: Format, gateways: &Gateways) -> String {
    match format {
        Format::Mosquitto => mosquitto(gateways),
        Format::Emqx => emqx(gateways),
        Format::Hivemq => hivemq(gateways),
    }
}

fn topics<'a>(device: &'a str, ends: &'a [&str]) -> impl Iterator<Item = String> + 'a {
    ends.iter().map(move |end| format!("doseline/v1/{device}/{end}"))
}

fn mosquitto(gateways: &Gateways) -> String {
    let mut text = BASE.to_owned();
    for (gateway, devices) in gateways {
        let _ = write!(text, "\nuser {gateway}\n");
        for device in devices {
            topics(device, &SENT).for_each(|topic| text.push_str(&format!("topic write {topic}\n")));
            topics(device, &RECEIPTS).for_each(|topic| text.push_str(&format!("topic read {topic}\n")));
        }
    }
    text
}

/// Rules of EMQX 5. A filter is granted if it matches a rule; `eq` takes wildcards literally.
fn emqx(gateways: &Gateways) -> String {
    let list = |topics: Vec<String>| topics.iter().map(|topic| format!("\"{topic}\"")).collect::<Vec<_>>().join(", ");
    let exact =
        |topics: Vec<String>| topics.iter().map(|topic| format!("{{eq, \"{topic}\"}}")).collect::<Vec<_>>().join(", ");
    let every = |ends: &[&str]| topics("+/+/+", ends).collect::<Vec<_>>();
    let mut text = String::from(
        "%% Needs: mqtt.peer_cert_as_username = cn; for the devices' listener also mqtt.peer_cert_as_clientid = cn;\n\
         %% authorization.no_match = deny.\n",
    );
    let mut allow = |who: &str, what: &str, topics: String| {
        let _ = writeln!(text, "{{allow, {who}, {what}, [{topics}]}}.");
    };
    let user = |name: &str| format!("{{username, \"{name}\"}}");
    allow(&user(BRIDGE), "subscribe", exact(every(&SENT)));
    allow(&user(BRIDGE), "publish", list(every(&RECEIPTS)));
    for (gateway, devices) in gateways {
        let of = |ends: &[&str]| devices.iter().flat_map(|device| topics(device, ends)).collect::<Vec<_>>();
        allow(&user(gateway), "publish", list(of(&SENT)));
        allow(&user(gateway), "subscribe", exact(of(&RECEIPTS)));
    }
    let own = |ends: &[&str]| topics("${username}", ends).collect::<Vec<_>>();
    allow("all", "publish", list(own(&SENT)));
    allow("all", "subscribe", list(own(&RECEIPTS)));
    text.push_str("{deny, all}.\n");
    text
}

fn hivemq(gateways: &Gateways) -> String {
    let mut text = String::from("<roles>\n");
    let role = |text: &mut String, id: &str, rules: &[(String, &str, &str)]| {
        let _ = write!(text, "  <role>\n    <id>{id}</id>\n    <permissions>\n");
        for (topic, activity, shared) in rules {
            let _ = writeln!(
                text,
                "      <permission><topic>{topic}</topic><activity>{activity}</activity>\
                 <shared-subscription>{shared}</shared-subscription></permission>"
            );
        }
        text.push_str("    </permissions>\n  </role>\n");
    };
    let rules = |device: &str, sent: &'static str, receipts: &'static str, shared: &'static str| {
        let sent = topics(device, &SENT).map(move |topic| (topic, sent, shared)).collect::<Vec<_>>();
        let receipts = topics(device, &RECEIPTS).map(move |topic| (topic, receipts, shared)).collect::<Vec<_>>();
        [sent, receipts].concat()
    };
    role(&mut text, "bridge", &rules("+/+/+", "SUBSCRIBE", "PUBLISH", "ALL"));
    role(&mut text, "device", &rules("${{username}}", "PUBLISH", "SUBSCRIBE", "NOT_SHARED"));
    for (gateway, devices) in gateways {
        let rules: Vec<_> =
            devices.iter().flat_map(|device| rules(device, "PUBLISH", "SUBSCRIBE", "NOT_SHARED")).collect();
        role(&mut text, gateway, &rules);
    }
    text.push_str("</roles>\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(site: &str, name: &str, gateway: &str) -> Device {
        let text = str::to_owned;
        Device {
            tenant: text("acme"),
            device: text(name),
            site: text(site),
            kind: text("INJECTOR"),
            model: String::new(),
            manufacturer: String::new(),
            serial: String::new(),
            udi: String::new(),
            gateway: text(gateway),
            origin: text("IMPORTED"),
            valid_from: 0,
        }
    }

    fn assigned() -> Gateways {
        let devices =
            [device("b", "G-1", ""), device("b", "D-1", "G-1"), device("c", "D-2", "G-1"), device("b", "D-3", "G-9")];
        let (gateways, unknown) = gateways(&devices);
        assert_eq!(unknown, [("acme/G-9".to_owned(), "acme/b/D-3".to_owned())]);
        gateways
    }

    #[test]
    fn a_gateway_gets_the_devices_that_are_assigned_to_it() {
        let gateways = assigned();
        let expected = vec!["acme/b/D-1".to_owned(), "acme/c/D-2".to_owned()];
        assert_eq!(gateways, Gateways::from([("acme/b/G-1".to_owned(), expected)]));
        let text = text(Format::Mosquitto, &gateways);
        let own = text.strip_prefix(BASE).unwrap();
        assert_eq!(own.lines().filter(|line| line.starts_with("user ")).collect::<Vec<_>>(), ["user acme/b/G-1"]);
        for line in ["topic write doseline/v1/acme/b/D-1/report/json", "topic read doseline/v1/acme/c/D-2/receipt"] {
            assert!(own.lines().any(|own| own == line), "{line} is not in {own}");
        }
        assert!(!own.contains('+') && !own.contains('#') && !own.contains("D-3"), "{own}");
    }

    #[test]
    fn other_brokers_get_the_same_rules() {
        let emqx = text(Format::Emqx, &assigned());
        for line in [
            "{allow, {username, \"acme/b/G-1\"}, publish, [\"doseline/v1/acme/b/D-1/report\", ",
            "{allow, all, subscribe, [\"doseline/v1/${username}/receipt\", \"doseline/v1/${username}/receipt/json\"]}.",
            "{allow, {username, \"doseline-bridge\"}, subscribe, [{eq, \"doseline/v1/+/+/+/report\"}, ",
        ] {
            assert!(emqx.contains(line), "{line} is not in {emqx}");
        }
        assert!(emqx.ends_with("{deny, all}.\n"));
        let hivemq = text(Format::Hivemq, &assigned());
        for line in [
            "<id>acme/b/G-1</id>",
            "<topic>doseline/v1/${{username}}/report</topic><activity>PUBLISH</activity>",
            "<topic>doseline/v1/acme/c/D-2/receipt/json</topic><activity>SUBSCRIBE</activity>",
        ] {
            assert!(hivemq.contains(line), "{line} is not in {hivemq}");
        }
    }
}
