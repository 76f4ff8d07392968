//! The users of `deploy/clickhouse/users.d` on the engine, with the passwords of
//! `deploy/first-start.sh`.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, process::Command};

use harness::{ClickHouse, Scratch};

fn first_start(folder: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/first-start.sh");
    let owner = folder.metadata().expect("the folder").uid().to_string();
    let status = Command::new("sh").arg(script).arg(folder).arg(owner).status();
    assert!(status.expect("start sh").success());
}

#[test]
fn the_only_user_of_a_file_is_the_administrator() {
    let mut clickhouse = ClickHouse::start();
    assert!(clickhouse.stop().success());
    let secrets = Scratch::new("first-start");
    first_start(secrets.path());
    let admin = secrets.join("clickhouse/admin.xml").display().to_string();
    let users = include_str!("../../../deploy/clickhouse/users.d/doseline.xml");
    let users = users.replace("/run/doseline/admin.xml", &admin);
    // The embedded engine runs every statement as this user.
    assert!(users.contains("<default remove=\"remove\"/>"));
    let users = users.replace("<default remove=\"remove\"/>", "");
    let folder = clickhouse.data_dir().join("users.d");
    fs::create_dir(&folder).expect("a folder beside users.xml");
    fs::write(folder.join("doseline.xml"), users).expect("the users");
    clickhouse.start_again();
    let found = clickhouse.query("SELECT name, toString(auth_type) FROM system.users WHERE name != 'default'");
    assert_eq!(found, "doseline_admin\t[\\'sha256_password\\']");
    let grants = clickhouse.query("SHOW GRANTS FOR doseline_admin");
    assert!(grants.contains("WITH GRANT OPTION"), "{grants}");
}

#[test]
fn a_second_start_makes_only_what_is_missing_and_each_service_sees_its_own_password() {
    let secrets = Scratch::new("first-start");
    let read = |name: &str| fs::read_to_string(secrets.join(name)).expect("first-start.sh wrote it");
    first_start(secrets.path());
    let users = ["admin", "migrate", "load", "monitor", "serve", "bridge", "operate", "dashboards"];
    let passwords = users.map(|user| read(&format!("all/doseline_{user}")));
    for (user, password) in users.iter().zip(&passwords) {
        assert_eq!(password.len(), 48, "{user}");
        assert_eq!(passwords.iter().filter(|other| *other == password).count(), 1, "{user} has a password of its own");
        assert_eq!(read(&format!("{user}/clickhouse_password")), *password);
        let mode = |name: String| fs::metadata(secrets.join(&name)).expect("a file").mode() & 0o077;
        assert_eq!(mode(format!("all/doseline_{user}")) | mode(format!("{user}/clickhouse_password")), 0);
        assert_eq!(fs::read_dir(secrets.join(user)).expect("a folder").count(), 1);
    }
    let hash = read("clickhouse/admin.xml");
    fs::remove_file(secrets.join("all/doseline_serve")).expect("remove a password");
    first_start(secrets.path());
    assert_eq!(read("clickhouse/admin.xml"), hash);
    assert_eq!(read("all/doseline_load"), passwords[2]);
    assert_ne!(read("all/doseline_serve"), passwords[4]);
}
