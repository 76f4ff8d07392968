use proptest::prelude::*;

use super::*;

fn incident(note: &str) -> commands::Command {
    let kind = Kind::AddIncident(AddIncident {
        incident_id: "INC-1".to_owned(),
        subject_kind: "ITEM".to_owned(),
        subject: "hp-1".to_owned(),
        note: note.to_owned(),
    });
    command(kind)
}

fn command(kind: Kind) -> commands::Command {
    commands::Command {
        tenant: "acme".to_owned(),
        author: "Dr. Ada".to_owned(),
        role: Role::Admin.into(),
        given_us: 1_790_000_000_000_000,
        idempotency_key: "k-1".to_owned(),
        kind: Some(kind),
    }
}

fn acknowledgement() -> AcknowledgeAlert {
    AcknowledgeAlert {
        alert_key: "sterility-2/acme/item/N1".to_owned(),
        attention: 3,
        note: "client\ninformed".to_owned(),
        alert_kind: "sterility-2".to_owned(),
        severity: "critical".to_owned(),
        holds: true,
        sessions: vec!["aa".to_owned()],
        evidence_rows: "[]".to_owned(),
    }
}

fn pen() -> commands::Device {
    commands::Device {
        device: "pen-1".to_owned(),
        site: "paris".to_owned(),
        kind: "INJECTOR".to_owned(),
        udi: "010950600013435210L7\u{1d}21S".to_owned(),
        valid_from_us: 1,
        ..commands::Device::default()
    }
}

fn register(devices: Vec<commands::Device>) -> commands::Command {
    command(Kind::RegisterDevices(RegisterDevices { devices }))
}

fn policy(tenant: &str, name: &str, value: &str) -> commands::Command {
    let kind = Kind::SetPolicy(SetPolicy { name: name.to_owned(), value: value.to_owned() });
    commands::Command { tenant: tenant.to_owned(), ..command(kind) }
}

#[test]
fn every_kind_says_what_the_audit_holds() {
    let check = |message: commands::Command, action: &str, subject: &str, content: &str| {
        let command = Command::decode(&message.encode_to_vec()).unwrap();
        assert_eq!((command.action(), command.subject().as_str()), (action, subject));
        assert_eq!(command.content(), content);
        assert_eq!(command.forbidden(), None);
        assert_eq!(Command::decode(&command.encode()), Ok(command));
    };
    check(
        command(Kind::AcknowledgeAlert(acknowledgement())),
        "acknowledge_alert",
        "sterility-2/acme/item/N1",
        r#"{"alert_key":"sterility-2/acme/item/N1","attention":3,"note":"client\ninformed"}"#,
    );
    check(
        incident("abscess"),
        "add_incident",
        "INC-1",
        r#"{"incident_id":"INC-1","note":"abscess","subject":"hp-1","subject_kind":"ITEM"}"#,
    );
    check(
        policy("", UNKNOWN_DEVICES, "keep"),
        "set_policy",
        UNKNOWN_DEVICES,
        r#"{"name":"unknown_devices","value":"keep"}"#,
    );
    let devices = Command::new(register(vec![pen(), pen()])).unwrap();
    assert_eq!(devices.subject(), "2 devices");
    assert!(devices.content().starts_with(r#"[{"device":"pen-1","gateway":"","kind":"INJECTOR","#));
    check(register(vec![pen()]), "register_devices", "pen-1", &Command::new(register(vec![pen()])).unwrap().content());
}

#[test]
fn bad_input_of_each_kind_gets_a_reason_that_names_the_field() {
    let check = |message: commands::Command, reason: Reason, detail: &str| {
        let reject = Command::new(message).unwrap_err();
        assert_eq!(reject.reason, reason, "{reject}");
        assert!(reject.detail.contains(detail), "{reject}");
    };
    let good = || incident("abscess");
    let long = "x".repeat(129);
    check(commands::Command { tenant: String::new(), ..good() }, Reason::BadId, "tenant: \"\" must match");
    check(commands::Command { tenant: "a/b".to_owned(), ..good() }, Reason::BadId, "tenant: \"a/b\"");
    check(commands::Command { author: " ".to_owned(), ..good() }, Reason::BadCommand, "author: \" \" must be");
    check(commands::Command { author: long.clone(), ..good() }, Reason::FieldTooLong, "author: 129 bytes");
    check(commands::Command { author: "a\nb".to_owned(), ..good() }, Reason::BadCommand, "control characters");
    check(commands::Command { idempotency_key: String::new(), ..good() }, Reason::BadCommand, "idempotency_key");
    check(commands::Command { given_us: 0, ..good() }, Reason::BadTime, "given_us: 0");
    check(commands::Command { given_us: UNIX_US_MAX, ..good() }, Reason::BadTime, "given_us");
    for role in [0, 9] {
        check(commands::Command { role, ..good() }, Reason::BadCommand, &format!("role: \"{role}\""));
    }
    check(commands::Command { kind: None, ..good() }, Reason::NoContent, "no kind");
    check(incident(""), Reason::BadCommand, "note");
    check(incident(&"x".repeat(NOTE_LEN_MAX + 1)), Reason::FieldTooLong, "note: 4097 bytes");

    let alert = |change: fn(&mut AcknowledgeAlert)| {
        let mut acknowledge = acknowledgement();
        change(&mut acknowledge);
        command(Kind::AcknowledgeAlert(acknowledge))
    };
    check(alert(|alert| alert.alert_key.clear()), Reason::BadCommand, "alert_key");
    check(
        alert(|alert| alert.severity = "bad".to_owned()),
        Reason::BadCommand,
        "severity: \"bad\" must be one of critical",
    );
    check(alert(|alert| alert.sessions = vec!["s".to_owned(); SESSIONS_MAX + 1]), Reason::TooManyElements, "sessions");
    check(alert(|alert| alert.evidence_rows = " ".repeat(EVIDENCE_LEN_MAX + 1)), Reason::FieldTooLong, "evidence_rows");

    let one = |change: fn(&mut commands::Device)| {
        let mut device = pen();
        change(&mut device);
        register(vec![device])
    };
    check(register(Vec::new()), Reason::NoContent, "devices");
    check(register(vec![pen(); DEVICES_MAX + 1]), Reason::TooManyElements, "devices: 1001");
    check(one(|device| device.device = "p n".to_owned()), Reason::BadId, "device: \"p n\"");
    check(one(|device| device.site.clear()), Reason::BadId, "site");
    check(one(|device| device.kind = "PEN".to_owned()), Reason::BadCommand, "kind: \"PEN\" must be one of INJECTOR");
    check(one(|device| device.serial = "\u{1d}".to_owned()), Reason::BadCommand, "serial");
    check(one(|device| device.gateway = "g/1".to_owned()), Reason::BadId, "gateway");
    check(one(|device| device.valid_from_us = -1), Reason::BadTime, "valid_from_us");

    check(policy("", "", "x"), Reason::BadCommand, "name");
    check(
        policy("acme", UNKNOWN_DEVICES, "drop"),
        Reason::BadCommand,
        "value: \"drop\" must be one of keep, quarantine",
    );
    let quoted = policy("acme", "'; DROP TABLE policies; --", "x");
    assert!(Command::new(quoted).is_ok(), "a quote is a letter like others");
}

#[test]
fn bytes_that_are_no_command_get_a_reason() {
    assert_eq!(Command::decode(b"").unwrap_err().reason, Reason::Empty);
    assert_eq!(Command::decode(b"\xff\xff").unwrap_err().reason, Reason::BadProtobuf);
    assert_eq!(Command::decode(&vec![0; COMMAND_BYTES_MAX + 1]).unwrap_err().reason, Reason::TooLarge);
    let group = b"\x0b\x0c";
    assert_eq!(Command::decode(group).unwrap_err().reason, Reason::BadProtobuf);
}

#[test]
fn lists_are_counted_before_they_are_decoded() {
    // 900,000 empty devices: 1.8 MB on the wire.
    let list: Vec<u8> = [0x0a, 0].repeat(900_000);
    let mut bytes = vec![0x92, 0x01];
    prost::encoding::encode_varint(list.len() as u64, &mut bytes);
    bytes.extend(list);
    let reject = Command::decode(&bytes).unwrap_err();
    assert_eq!(
        (reject.reason, reject.detail.as_str()),
        (Reason::TooManyElements, "devices: 900000, at most 1000 are allowed")
    );
    let numbers = |message: &commands::Command| {
        let bytes = message.encode_to_vec();
        let mut rest = bytes.as_slice();
        let mut numbers = Vec::new();
        while let Some((number, value)) = wire::field(&mut rest) {
            if let (wire::Value::Bytes(mut inner), true) = (value, number >= 16) {
                let mut last = 0;
                while let Some((inner, _)) = wire::field(&mut inner) {
                    last = inner;
                }
                numbers.extend([number, last]);
            }
        }
        numbers
    };
    let mut acknowledge = acknowledgement();
    acknowledge.evidence_rows.clear();
    assert_eq!(numbers(&command(Kind::AcknowledgeAlert(acknowledge))), [ACKNOWLEDGE_ALERT, SESSIONS]);
    assert_eq!(numbers(&register(vec![pen()])), [REGISTER_DEVICES, DEVICES]);
}

#[test]
fn a_role_may_do_what_it_is_for() {
    let forbidden = |message: commands::Command, role: Role| {
        Command::new(commands::Command { role: role.into(), ..message }).unwrap().forbidden()
    };
    assert_eq!(forbidden(incident("x"), Role::Operator), None);
    assert_eq!(forbidden(incident("x"), Role::Viewer), Some("the role VIEWER may not add incident".to_owned()));
    assert!(forbidden(register(vec![pen()]), Role::Operator).is_some());
    assert!(forbidden(policy("", "a", "b"), Role::Manufacturer).is_some());
    assert_eq!(forbidden(policy("", "a", "b"), Role::Admin), None);
}

#[test]
fn a_repetition_has_the_numbers_of_the_first() {
    let first = Command::new(incident("abscess")).unwrap();
    let later = commands::Command { author: "Bob".to_owned(), given_us: 7, ..incident("abscess") };
    let later = Command::new(later).unwrap();
    assert_eq!((first.key_number(), first.content_number()), (later.key_number(), later.content_number()));
    let other = Command::new(incident("fever")).unwrap();
    assert_eq!(first.key_number(), other.key_number());
    assert_ne!(first.content_number(), other.content_number());
    let key = commands::Command { idempotency_key: "k-2".to_owned(), ..incident("abscess") };
    assert_ne!(first.key_number(), Command::new(key).unwrap().key_number());
}

#[test]
fn the_key_of_a_record_tells_the_tenant() {
    for tenant in ["", "acme"] {
        assert_eq!(tenant_of(record_key(tenant)), tenant);
    }
    assert!(!is_id(record_key("")), "no tenant has this key");
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(command) = Command::decode(&bytes) {
            prop_assert_eq!(Command::decode(&command.encode()), Ok(command));
        }
    }

    #[test]
    fn a_changed_byte_breaks_nothing(place in 0usize..60, byte: u8) {
        let mut bytes = incident("abscess").encode_to_vec();
        let place = place % bytes.len();
        bytes[place] = byte;
        if let Ok(command) = Command::decode(&bytes) {
            prop_assert!((1..=SEQ_MAX).contains(&command.key_number()));
            prop_assert!((1..=SEQ_MAX).contains(&command.content_number()));
        }
    }
}
