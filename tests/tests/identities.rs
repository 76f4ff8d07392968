//! Who may do what on MQTT: the broker with the files of `deploy/mosquitto`, over TLS, with
//! certificates that `doseline certs` made. Every forbidden thing is tried and refused, every
//! allowed one works.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use certs::{Kind, Store, Subject};
use harness::{Certificates, Deployed, Doseline, Finished, RawMqtt, Scratch, Stack, free_port, poll};

const WITHIN: Duration = Duration::from_secs(60);
/// MQTT 3.1.1 and MQTT 5.
const VERSIONS: [u8; 2] = [4, 5];
const D1: &str = "doseline/v1/acme/berlin-1/D-1";
const SUBSCRIPTIONS: [&str; 3] =
    ["doseline/v1/+/+/+/report", "doseline/v1/+/+/+/report/json", "doseline/v1/+/+/+/status"];

/// A broker, and devices that differ in one part of their name each.
struct Site {
    certificates: Certificates,
    broker: Deployed,
    d1: PathBuf,
    d2: PathBuf,
    // Deleted last.
    _scratch: Scratch,
}

impl Site {
    fn start() -> Self {
        let scratch = Scratch::new("identities");
        let certificates = Certificates::new(scratch.join("certs"));
        let d1 = certificates.device("acme/berlin-1/D-1");
        let d2 = certificates.device("acme/berlin-1/D-2");
        let broker = Deployed::start(&certificates);
        Self { certificates, broker, d1, d2, _scratch: scratch }
    }

    /// A connection of the bridge that has subscribed to everything that devices send.
    fn bridge(&self) -> RawMqtt {
        let mut bridge = self.broker.bridge("doseline-bridge-1-0");
        for filter in SUBSCRIPTIONS {
            assert!(bridge.is_granted(filter).expect("an answer"), "{filter}");
        }
        bridge
    }

    fn now() -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970");
        i64::try_from(now.as_secs()).expect("a time before the year 292277026596")
    }
}

/// What arrives at the bridge until `marker`, which is not among it.
fn until(bridge: &mut RawMqtt, marker: &[u8]) -> Vec<String> {
    let mut topics = Vec::new();
    loop {
        let (topic, payload) = bridge.message().expect("a message");
        if payload == marker {
            return topics;
        }
        topics.push(topic);
    }
}

#[test]
fn a_device_publishes_under_its_own_name_and_nowhere_else() {
    let site = Site::start();
    let mut bridge = site.bridge();
    for version in VERSIONS {
        let mut device = site.broker.device(&site.d1, version);
        for topic in [
            // Another device, site and tenant.
            "doseline/v1/acme/berlin-1/D-2/report",
            "doseline/v1/acme/berlin-1/D-2/report/json",
            "doseline/v1/acme/berlin-1/D-2/status",
            "doseline/v1/acme/berlin-2/D-1/report",
            "doseline/v1/beta/berlin-1/D-1/report",
            "doseline/v1/beta/berlin-1/D-1/status",
            // Receipts, its own and those of others.
            "doseline/v1/acme/berlin-1/D-1/receipt",
            "doseline/v1/acme/berlin-1/D-2/receipt",
            // Topics beside the contract.
            "doseline/v1/acme/berlin-1/D-1",
            "doseline/v1/acme/berlin-1/D-1/report/x",
            "doseline/v1/acme/berlin-1/D-1/x/report",
            "doseline/v2/acme/berlin-1/D-1/report",
            "other",
            "$SYS/broker/x",
        ] {
            let accepted = device.publish(topic.as_bytes(), b"forbidden", false);
            // MQTT 3.1.1 has no way to say no: the broker acknowledges and drops.
            assert!(version == 4 || !accepted, "{topic} with MQTT 5");
        }
        for own in ["report", "report/json", "status"] {
            assert!(device.publish(format!("{D1}/{own}").as_bytes(), b"own", false), "{own}");
        }
        assert!(device.publish(format!("{D1}/report").as_bytes(), b"end", false));
        let arrived = until(&mut bridge, b"end");
        assert_eq!(arrived, [format!("{D1}/report"), format!("{D1}/report/json"), format!("{D1}/status")]);
        // A topic with a wildcard ends the connection.
        assert!(!device.publish(b"doseline/v1/acme/berlin-1/+/report", b"forbidden", false));
        assert!(!device.is_open());
    }
}

#[test]
fn a_device_subscribes_to_its_own_receipts_and_to_nothing_else() {
    let site = Site::start();
    let mut bridge = site.bridge();
    for version in VERSIONS {
        let mut device = site.broker.device(&site.d1, version);
        for filter in [
            "#",
            "+/#",
            "$SYS/#",
            "$SYS/broker/version",
            "doseline/#",
            "doseline/v1/+/+/+/report",
            "doseline/v1/+/+/+/receipt",
            "doseline/v1/acme/+/D-1/receipt",
            "doseline/v1/acme/berlin-1/D-1/#",
            "doseline/v1/acme/berlin-1/D-1/+",
            "doseline/v1/acme/berlin-1/D-1/report",
            "doseline/v1/acme/berlin-1/D-2/receipt",
            "doseline/v1/acme/berlin-2/D-1/receipt",
            "doseline/v1/beta/berlin-1/D-1/receipt/json",
            "$share/doseline/doseline/v1/+/+/+/report",
            "$share/doseline/#",
            "$share/doseline/doseline/v1/acme/berlin-1/D-1/receipt",
        ] {
            assert!(!device.is_granted(filter).expect("an answer"), "{filter} with MQTT {version}");
        }
        for own in ["receipt", "receipt/json"] {
            let own = format!("{D1}/{own}");
            assert!(device.is_granted(&own).expect("an answer"), "{own}");
            assert!(bridge.publish(own.as_bytes(), b"stored", false));
            assert_eq!(device.message().expect("a receipt"), (own, b"stored".to_vec()));
        }
    }
}

/// A member of the bridge's share group would take its part of the reports.
#[test]
fn the_bridge_shares_its_subscription_with_nobody_else() {
    let site = Site::start();
    let file = fs::read_to_string(site.certificates.file("bridge/share-group.env")).expect("read the share group");
    let group = file.trim().strip_prefix("DOSELINE__BRIDGE__SHARE_GROUP=doseline-").expect("a variable");
    assert!(group.len() == 32 && group.bytes().all(|byte| byte.is_ascii_hexdigit()), "{group}");
    let shared = format!("$share/doseline-{group}/{}", SUBSCRIPTIONS[0]);
    let mut bridges = ["doseline-bridge-1-0", "doseline-bridge-1-1"].map(|id| site.broker.bridge(id));
    for bridge in &mut bridges {
        assert!(bridge.is_granted(&shared).expect("an answer"));
        for filter in ["#", "doseline/v1/+/+/+/receipt", "$share/doseline/#", "doseline/v1/#"] {
            assert!(!bridge.is_granted(filter).expect("an answer"), "{filter}");
        }
        assert!(!bridge.publish(b"doseline/v1/acme/berlin-1/D-1/report", b"forged", false));
    }
    let mut device = site.broker.device(&site.d1, 5);
    assert!(!device.is_granted(&shared).expect("an answer"));
    for _ in 0..20 {
        assert!(device.publish(format!("{D1}/report").as_bytes(), b"own", false));
    }
    let mut arrived = 0;
    poll(WITHIN, "every report at one of the two", || {
        arrived += bridges.iter_mut().map(|bridge| bridge.messages().expect("messages").len()).sum::<usize>();
        if arrived == 20 { Ok(()) } else { Err(arrived) }
    });
}

#[test]
fn a_last_will_is_held_to_the_same_topics() {
    let site = Site::start();
    let mut bridge = site.bridge();
    let own = "doseline/v1/acme/berlin-1/D-2/status";
    for topic in [
        "doseline/v1/acme/berlin-1/D-1/status",
        "doseline/v1/acme/berlin-1/D-1/report",
        "doseline/v1/beta/berlin-1/D-2/status",
        "doseline/v1/acme/berlin-1/D-2/receipt",
        own,
    ] {
        for version in VERSIONS {
            let port = site.broker.devices_port;
            // The connection breaks without DISCONNECT, so the broker publishes the will.
            let will = Some((topic, &b"will"[..]));
            drop(site.broker.connect(port, Some(&site.d2), "any", version, will).expect("connect"));
        }
    }
    // Wills come in the order of the connections, and the marker comes after its own.
    for _ in VERSIONS {
        assert_eq!(bridge.message().expect("a will"), (own.to_owned(), b"will".to_vec()));
    }
    let mut device = site.broker.device(&site.d1, 5);
    assert!(device.publish(format!("{D1}/report").as_bytes(), b"end", false));
    assert_eq!(until(&mut bridge, b"end"), [""; 0]);
}

#[test]
fn nobody_takes_over_a_client_id() {
    let site = Site::start();
    let mut bridge = site.bridge();
    let mut device = site.broker.device(&site.d1, 5);
    let ids = ["doseline-bridge-1-0", "doseline-bridge-1", "doseline-bridge", "acme/berlin-1/D-1", ""];
    for id in ids {
        for version in VERSIONS {
            let port = site.broker.devices_port;
            let mut thief = site.broker.connect(port, Some(&site.d2), id, version, None).expect("connect");
            assert!(thief.is_open());
            assert!(bridge.is_open() && device.is_open(), "{id:?} with MQTT {version}");
        }
    }
    // With its own certificate a device ends its own earlier connection, whatever the ids are.
    let mut again = site.broker.connect(site.broker.devices_port, Some(&site.d1), "other", 5, None).expect("connect");
    assert!(again.is_open() && !device.is_open());
}

#[test]
fn a_certificate_is_accepted_only_where_it_belongs() {
    let site = Site::start();
    let Site { certificates, broker, .. } = &site;
    let mut bridge = site.bridge();
    certificates.make(&["role", "monitor"]);
    let elsewhere = Certificates::new(site._scratch.join("foreign"));
    let foreign = elsewhere.device("acme/berlin-1/D-1");
    let (role, broker_pem) = (certificates.file("roles/monitor.pem"), certificates.file("broker/broker.pem"));
    let (bridge_pem, foreign_bridge) = (certificates.file("bridge/bridge.pem"), elsewhere.file("bridge/bridge.pem"));
    // A certificate that was made 20 days ago for 10 days.
    let store = Store::new(certificates.dir());
    let subject = Subject::device(Kind::Device, "acme/berlin-1/D-9").expect("a name");
    let expired = store.issue(&subject, None, certificates.passphrase(), Site::now() - 20 * 86_400, 10);
    let expired = expired.expect("make an expired certificate").certificate;
    let check = |what: &str, port: u16, certificate: Option<&Path>| {
        for version in VERSIONS {
            let connected = broker.connect(port, certificate, "doseline-bridge-1-0", version, None);
            assert!(connected.is_err(), "{what} with MQTT {version}");
        }
    };
    let (devices, services) = (broker.devices_port, broker.bridge_port);
    check("no certificate, as a device", devices, None);
    check("no certificate, as the bridge", services, None);
    check("the broker's certificate as a device", devices, Some(&broker_pem));
    check("the bridge's certificate as a device", devices, Some(&bridge_pem));
    check("a role's certificate as a device", devices, Some(&role));
    check("a device's certificate as the bridge", services, Some(&site.d1));
    check("the broker's certificate as the bridge", services, Some(&broker_pem));
    check("a role's certificate as the bridge", services, Some(&role));
    check("a foreign device", devices, Some(&foreign));
    check("a foreign bridge", services, Some(&foreign_bridge));
    check("an expired certificate", devices, Some(&expired));
    let plain = RawMqtt::connect(&format!("127.0.0.1:{devices}"), "any", 5);
    assert!(plain.is_err(), "without TLS");
    assert!(bridge.is_open());
    // A device that trusts its own authority only refuses a foreign broker.
    assert!(TcpStream::connect(("127.0.0.1", devices)).is_ok());
    let authority = elsewhere.file("devices/broker-ca.pem");
    let identity = harness::Identity { authority: &authority, certificate: Some(&site.d1) };
    assert!(RawMqtt::connect_tls(&format!("127.0.0.1:{devices}"), identity, "any", 5, None).is_err());
}

#[test]
fn a_revoked_device_is_out_at_once_and_nobody_else_notices() {
    let mut site = Site::start();
    let mut bridge = site.bridge();
    let (mut revoked, mut other) = (site.broker.device(&site.d1, 5), site.broker.device(&site.d2, 4));
    site.certificates.make(&["revoke", "acme/berlin-1/D-1"]);
    assert!(revoked.is_open(), "the broker has not read the list yet");
    site.broker.reload();
    poll(WITHIN, "the revoked device to be shut out", || {
        match site.broker.connect(site.broker.devices_port, Some(&site.d1), "any", 5, None) {
            Ok(_) => Err("it connects"),
            Err(_) => Ok(()),
        }
    });
    assert!(!revoked.is_open(), "its open connection has ended");
    assert!(other.is_open() && bridge.is_open());
    // The rules still hold after the files were read again.
    assert!(!other.is_granted("#").expect("an answer"));
    assert!(other.is_granted("doseline/v1/acme/berlin-1/D-2/receipt").expect("an answer"));
    // With a new certificate the device is back, and at the next reading of the files it stays able
    // to connect.
    site.certificates.make(&["renew", "acme/berlin-1/D-1"]);
    let mut renewed = site.broker.device(&site.d1, 5);
    assert!(renewed.publish(format!("{D1}/report").as_bytes(), b"end", false));
    assert_eq!(until(&mut bridge, b"end"), [""; 0]);
    site.broker.reload();
    let mut renewed = site.broker.device(&site.d1, 5);
    assert!(renewed.is_open() && other.is_open() && bridge.is_open());
}

/// The broker's certificate is renewed while devices are connected.
#[test]
fn a_renewed_certificate_of_the_broker_is_used_without_a_restart() {
    let mut site = Site::start();
    let mut device = site.broker.device(&site.d1, 5);
    let serial = |site: &Site| {
        let stream = TcpStream::connect(("127.0.0.1", site.broker.devices_port)).expect("connect");
        let mut connector = openssl::ssl::SslConnector::builder(openssl::ssl::SslMethod::tls()).expect("OpenSSL");
        connector.set_ca_file(site.certificates.file("devices/broker-ca.pem")).expect("the authority");
        connector.set_certificate_chain_file(&site.d1).expect("the certificate");
        let key = site.d1.with_extension("key");
        connector.set_private_key_file(key, openssl::ssl::SslFiletype::PEM).expect("the key");
        let stream = connector.build().connect("localhost", stream).expect("TLS");
        let certificate = stream.ssl().peer_certificate().expect("a certificate");
        let serial = certificate.serial_number().to_bn().expect("a number");
        serial.to_hex_str().expect("digits").to_lowercase()
    };
    let before = serial(&site);
    let said = site.certificates.make(&["renew", "broker"]);
    site.broker.reload();
    poll(WITHIN, "the new certificate", || match serial(&site) {
        now if now == before => Err("the old one"),
        now if said.contains(&now) => Ok(()),
        now => panic!("{now} is neither the old nor the new one: {said}"),
    });
    assert!(device.is_open());
}

/// A report is not retained, whatever its sender asks for, and still arrives. A status is retained.
#[test]
fn a_retained_report_arrives_and_is_not_retained() {
    let site = Site::start();
    let mut bridge = site.bridge();
    let mut device = site.broker.device(&site.d1, 5);
    for own in ["report", "report/json", "status"] {
        assert!(device.publish(format!("{D1}/{own}").as_bytes(), b"retained", true));
        assert_eq!(bridge.message().expect("a message"), (format!("{D1}/{own}"), b"retained".to_vec()));
    }
    let mut second = site.broker.bridge("doseline-bridge-2-0");
    for filter in SUBSCRIPTIONS {
        assert!(second.is_granted(filter).expect("an answer"));
    }
    assert!(device.publish(format!("{D1}/report").as_bytes(), b"end", false));
    assert_eq!(until(&mut second, b"end"), [format!("{D1}/status")]);
}

/// A configuration of the services for these engines.
fn configuration(scratch: &Scratch, certificates: &Certificates, broker: &Deployed, stack: &Stack) -> String {
    let file = |name: &str| certificates.file(&format!("bridge/{name}")).display().to_string();
    let settings = format!(
        "[mqtt]\nhost = \"127.0.0.1\"\nport = {}\n\n\
         [mqtt.tls]\nca = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\n\n\
         [kafka]\nbrokers = [\"{}\"]\npartitions = 4\nreplication = 1\nmin_insync_replicas = 1\n\n\
         [clickhouse]\nurl = \"{}\"\nusername = \"doseline\"\npassword = \"owner\"\nfsync = false\n\n\
         [bridge]\nhttp = \"127.0.0.1:{}\"\nconnections = 2\nshare_group = \"replaced\"\n\n\
         [load]\nhttp = \"127.0.0.1:{}\"\n",
        broker.bridge_port,
        file("broker-ca.pem"),
        file("bridge.pem"),
        file("bridge.key"),
        stack.kafka.bootstrap(),
        stack.clickhouse.url(),
        free_port(),
        free_port(),
    );
    let path = scratch.join("services.toml");
    fs::write(&path, settings).expect("write the configuration");
    path.into_os_string().into_string().expect("UTF-8 path")
}

/// The bridge, gateways with the rules that the registry gives, and the check of the broker's
/// rules, all over TLS with Kafka and ClickHouse.
#[test]
fn bridge_gateway_and_check_work_with_the_deployed_broker() {
    let scratch = Scratch::new("identities-path");
    let certificates = Certificates::new(scratch.join("certs"));
    let acl = scratch.join("acl");
    let deployed =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/mosquitto/acl")).expect("the ACL");
    fs::write(&acl, &deployed).expect("write the ACL");
    let mut broker = Deployed::start_with_acl(&certificates, &acl);
    let stack = Stack::start("");
    let config = configuration(&scratch, &certificates, &broker, &stack);
    let doseline = |arguments: &[&str], code: i32| {
        let ended = Doseline::run(&[arguments, &["--config", &config]].concat(), &[], WITHIN);
        let Finished { stdout, stderr, .. } = &ended;
        assert_eq!(ended.code, Some(code), "{arguments:?}\n{stdout}\n{stderr}");
        ended
    };

    let group = fs::read_to_string(certificates.file("bridge/share-group.env")).expect("read the share group");
    let (variable, group) = group.trim().split_once('=').expect("a variable");
    let mut bridge = Doseline::start_with(&["bridge", "--config", &config], &[(variable, group)]);
    let d1 = certificates.device("acme/berlin-1/D-1");
    let mut device = broker.device(&d1, 5);
    assert!(device.is_granted(&format!("{D1}/receipt/json")).expect("an answer"));
    let report = br#"{"bootId":"1","firstSeq":"1","events":[{"injection":{"deliveredNl":"20000"}}]}"#;
    let receipt = poll(WITHIN, "a receipt", || {
        bridge.process().alive().unwrap_or_else(|ended| panic!("{ended}"));
        // Until the bridge has subscribed, the broker drops what is published.
        assert!(device.publish(format!("{D1}/report/json").as_bytes(), report, false));
        std::thread::sleep(Duration::from_millis(100));
        device.messages().expect("messages").pop().ok_or("none")
    });
    assert_eq!(receipt.0, format!("{D1}/receipt/json"));
    let receipt = String::from_utf8_lossy(&receipt.1).into_owned();
    assert!(receipt.contains("RECEIPT_CODE_STORED"), "{receipt}");

    // The loader writes what people register.
    let mut load = Doseline::start_with(&["load", "--config", &config], &[]);
    // A gateway may do nothing for a device until the registry assigns the device to it.
    certificates.make(&["gateway", "acme/berlin-1/G-1"]);
    let gateway = certificates.file("devices/acme/berlin-1/G-1.pem");
    let mut gateway = broker.device(&gateway, 5);
    let d7 = "doseline/v1/acme/berlin-1/D-7";
    assert!(!gateway.publish(format!("{d7}/report/json").as_bytes(), report, false));
    assert!(!gateway.is_granted(&format!("{d7}/receipt/json")).expect("an answer"));
    let fleet = scratch.join("fleet.csv");
    let lines = "tenant,site,device,kind,gateway\nacme,berlin-1,G-1,GATEWAY,\nacme,berlin-1,D-7,INJECTOR,G-1\n\
                 acme,berlin-1,D-8,INJECTOR,G-9\n";
    fs::write(&fleet, lines).expect("write the fleet");
    doseline(&["devices", "import", fleet.to_str().expect("UTF-8 path"), "--by", "Ada"], 0);
    let written = doseline(&["devices", "acl"], 0);
    assert!(written.stderr.contains("acme/G-9 is not registered"), "{}", written.stderr);
    assert!(written.stdout.starts_with(&deployed), "{}", written.stdout);
    fs::write(&acl, &written.stdout).expect("write the ACL");
    broker.reload();
    poll(WITHIN, "the gateway's rules", || {
        match gateway.is_granted(&format!("{d7}/receipt/json")).expect("an answer") {
            true => Ok(()),
            false => Err("refused"),
        }
    });
    assert!(gateway.publish(format!("{d7}/report/json").as_bytes(), report, false));
    assert_eq!(gateway.message().expect("a receipt").0, format!("{d7}/receipt/json"));
    for other in ["doseline/v1/acme/berlin-1/D-8", D1] {
        assert!(!gateway.publish(format!("{other}/report/json").as_bytes(), report, false), "{other}");
        assert!(!gateway.is_granted(&format!("{other}/receipt/json")).expect("an answer"), "{other}");
    }
    let emqx = doseline(&["devices", "acl", "--format", "emqx"], 0).stdout;
    assert!(emqx.contains("{allow, {username, \"acme/berlin-1/G-1\"}, publish, "), "{emqx}");

    // The check tries what a device must not be able to do.
    certificates.device("acme/berlin-1/check");
    let file = certificates.file("devices/acme/berlin-1/check.pem").display().to_string();
    let check = |port: u16, code: i32| {
        let port = port.to_string();
        let device = ["--as", "acme/berlin-1/check", "--certificate", &file, "--device-port", &port];
        doseline(&[&["check", "--connect"][..], &device].concat(), code).stdout
    };
    let said = check(broker.devices_port, 0);
    assert!(said.contains("refuses acme/berlin-1/check all 26 things"), "{said}");
    let weak = scratch.join("weak");
    fs::write(&weak, format!("{deployed}\npattern write doseline/v1/acme/#\npattern read doseline/v1/%u/report\n"))
        .expect("write an ACL");
    let careless = Deployed::start_with_acl(&certificates, &weak);
    let said = check(careless.devices_port, 1);
    for passed in [
        "publish to doseline/v1/acme/berlin-1/doseline-check/report;",
        "publish to doseline/v1/acme/doseline-check/check/status;",
        "subscribe to doseline/v1/acme/berlin-1/check/report;",
    ] {
        assert!(said.contains(passed), "{passed} is not in {said}");
    }
    assert!(!said.contains("doseline/v1/doseline-check/"), "{said}");
    assert!(load.stop(WITHIN).0.success());
    assert!(bridge.stop(WITHIN).0.success());
}

/// A missing or wrong file must not leave every subscription open.
#[test]
fn the_broker_does_not_start_without_its_rules() {
    let scratch = Scratch::new("identities-rules");
    let certificates = Certificates::new(scratch.join("certs"));
    for (name, content) in [("missing", None), ("wrong", Some("user a\ntopic deny b\n"))] {
        let acl = scratch.join(name);
        if let Some(content) = content {
            fs::write(&acl, content).expect("write an ACL file");
        }
        let started = std::panic::catch_unwind(|| Deployed::start_with_acl(&certificates, &acl));
        let Err(panic) = started else { panic!("it started with a {name} file") };
        let said = panic.downcast_ref::<String>().expect("the log");
        assert!(said.contains("doseline: ") && said.contains(acl.to_str().expect("UTF-8")), "{said}");
    }
}

#[test]
fn the_command_names_what_is_wrong() {
    let scratch = Scratch::new("identities-command");
    let certificates = Certificates::new(scratch.join("certs"));
    certificates.device("acme/berlin-1/D-1");
    let check = |arguments: &[&str], code: i32, parts: &[&str]| {
        let finished = certificates.run(arguments);
        assert_eq!(finished.code, Some(code), "{arguments:?}: {}", finished.stderr);
        for part in parts {
            assert!(finished.stderr.contains(part), "{arguments:?}: {part:?} is not in {}", finished.stderr);
        }
    };
    check(&["init"], 1, &["has its authorities already", "nothing was changed"]);
    check(&["device", "D-1"], 1, &["\"D-1\" must be TENANT/SITE/DEVICE"]);
    check(&["device", "acme/+/D-1"], 1, &["must be TENANT/SITE/DEVICE"]);
    check(&["device", "doseline-bridge"], 1, &["must be TENANT/SITE/DEVICE"]);
    check(&["device", "acme/berlin-1/D-1"], 1, &["has a valid certificate", "certs renew acme/berlin-1/D-1"]);
    check(&["role", "bridge"], 1, &["reserved"]);
    check(&["role", "../broker/broker"], 1, &["must match"]);
    check(&["broker"], 2, &["--host"]);
    check(&["bridge"], 1, &["certs renew bridge"]);
    check(&["renew", "acme/berlin-1/D-7"], 1, &["has no certificate"]);
    check(&["revoke", "acme/berlin-1/D-1", "--serial", "00"], 1, &["no valid certificate", "00"]);
    check(&["device", "acme/berlin-1/D-5", "--csr", "/nowhere/x.csr"], 1, &["/nowhere/x.csr"]);
    check(&["list", "--passphrase-file", "/nowhere"], 0, &[]);
    check(&["device", "acme/b/D-1", "--passphrase-file", "/nowhere/passphrase"], 1, &["/nowhere/passphrase"]);
    let listed = certificates.make(&["list"]);
    for part in ["acme/berlin-1/D-1", "DEVICE", "VALID", "AUTHORITY", "bridge"] {
        assert!(listed.contains(part), "{part} is not in {listed}");
    }
    let json = certificates.make(&["list", "--json"]);
    assert_eq!(json.lines().count(), 6);
    assert!(json.contains(r#""kind":"DEVICE""#), "{json}");
}
