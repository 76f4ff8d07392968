//! The tables of `docs/configuration.md`, made from the sections' keys. This test compares them:
//! `UPDATE_REFERENCE=1 cargo test --release --workspace --bins -- reference` writes the document.

use std::{env, fs, path::Path};

use dashboard::access::oidc;
use serde_json::Value;
use service::{
    kafka::Sasl,
    settings::Section,
    tls::{ServerTls, Tls},
};
use telemetry::{device_time, plausibility::Ranges};

use super::{Config, with_sections};

const COMMAND: &str = "UPDATE_REFERENCE=1 cargo test --release --workspace --bins -- reference";

/// Replaces what stands between the two marks of a table.
fn replace(document: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name}: generated, begin -->"), format!("<!-- {name}: generated, end -->"));
    let parts = document.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let (before, after) = parts.unwrap_or_else(|| panic!("docs/configuration.md lacks the marks {begin} and {end}"));
    format!("{before}{begin}\n{table}{end}{after}")
}

/// The keys of one section, with its defaults where it has any.
fn rows<S: Section>(section: &str, defaults: Option<&Value>) -> String {
    let row = |key: service::settings::Key| {
        let default = defaults.map(|defaults| match &defaults[key.name] {
            Value::Null => "none".to_owned(),
            Value::String(text) => format!("`{text}`"),
            list @ Value::Array(_) => format!("`{list}`"),
            other => other.to_string(),
        });
        let default = default.map(|default| format!(" {default} |")).unwrap_or_default();
        assert!(!key.about.is_empty() && !key.about.ends_with('.'), "{section}.{}: {:?}", key.name, key.about);
        let bounds = key.bounds.unwrap_or_default().replace('|', "\\|");
        format!("| `{section}.{}` |{default} {bounds} | {} |\n", key.name, key.about).replace("|  |", "| |")
    };
    S::keys().into_iter().map(row).collect()
}

fn keys() -> String {
    let config = Config::default();
    let defaults = serde_json::to_value(&config).unwrap();
    let mut table = "| key | default | bounds | what it sets |\n|---|---|---|---|\n".to_owned();
    macro_rules! all {
        ($($name:ident: $type:ty),*) => { $(table += &rows::<$type>(stringify!($name), Some(&defaults[stringify!($name)]));)* };
    }
    with_sections!(all);
    for (name, range, about) in device_time::KEYS {
        let default = &defaults["device_time"][name];
        table += &format!("| `device_time.{name}` | {default} | {} to {} | {about} |\n", range.start(), range.end());
    }
    table
}

fn ranges() -> String {
    let widest = Ranges::default();
    let mut table = "| key | unit | widest range | what it bounds |\n|---|---|---|---|\n".to_owned();
    for ((name, unit, about), (_, range)) in Ranges::KEYS.iter().zip(widest.named()) {
        table += &format!("| `{name}` | {unit} | `[{}, {}]` | {} |\n", range.0, range.1, about.trim());
    }
    table
}

fn absent<S: Section>(section: &str) -> String {
    format!("| key | bounds | what it sets |\n|---|---|---|\n{}", rows::<S>(section, None))
}

fn with_its_defaults(section: &str) -> String {
    let defaults = serde_json::to_value(oidc::Settings::default()).unwrap();
    let rows = rows::<oidc::Settings>(section, Some(&defaults)).replace("| `` |", "| |");
    format!("| key | default | bounds | what it sets |\n|---|---|---|---|\n{rows}")
}

#[test]
fn the_reference_is_made_from_the_sections() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let found = fs::read_to_string(&path).unwrap();
    let tables = [
        ("keys", keys()),
        ("tls", absent::<Tls>("mqtt.tls") + &rows::<ServerTls>("serve.tls", None)),
        ("oidc", with_its_defaults("serve.oidc")),
        ("sasl", absent::<Sasl>("kafka.sasl")),
        ("ranges", ranges()),
    ];
    let expected = tables.iter().fold(found.clone(), |document, (name, table)| replace(&document, name, table));
    if env::var_os("UPDATE_REFERENCE").is_some() {
        return fs::write(&path, expected).unwrap();
    }
    let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    assert!(
        found == expected,
        "docs/configuration.md is out of date: {COMMAND} writes it; first difference: {differs:#?}"
    );
}
