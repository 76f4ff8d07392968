//! The wire contract may only grow. The code in `src/generated` must be what `/proto` compiles to.
//!
//! `proto/doseline.telemetry.v1.json` is the contract of devices as it was last published,
//! `proto/doseline.commands.v1.json` that of commands. After a change of
//! `/proto`, `UPDATE_CONTRACT=1 cargo test --release --workspace --test contract` generates the
//! code again. A second run of this command, built with that code, publishes the addition.

#![allow(clippy::unwrap_used, reason = "a failed expectation is how a test fails")]

use std::{collections::BTreeMap, env, fmt::Write as _, fs, path::PathBuf};

use prost::Message as _;
use prost_reflect::DescriptorPool;
use telemetry::DESCRIPTOR_SET;

/// What is generated from `/proto`, by file name.
///
/// The generated code is checked in, because the compiler of `/proto` and its dependencies would
/// take a tenth of a first build.
fn generated() -> BTreeMap<&'static str, Vec<u8>> {
    let mut descriptors = compile("telemetry/v1/telemetry.proto");
    let folder = tempfile::tempdir().unwrap();
    for file in [descriptors.clone(), compile("commands/v1/commands.proto")] {
        prost_build::Config::new().out_dir(folder.path()).compile_fds(file).unwrap();
    }
    let pool = DescriptorPool::from_file_descriptor_set(descriptors.clone()).unwrap();
    // the comments are in the code already
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    let code = |name: &'static str| (name, fs::read(folder.path().join(name)).unwrap());
    BTreeMap::from([
        code("doseline.telemetry.v1.rs"),
        code("doseline.commands.v1.rs"),
        ("numbers.rs", numbers(&pool).into_bytes()),
        ("descriptors.binpb", descriptors.encode_to_vec()),
    ])
}

fn compile(file: &str) -> prost_reflect::prost_types::FileDescriptorSet {
    let proto = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    protox::compile([proto.join("doseline").join(file)], [&proto]).unwrap()
}

/// A module for each message: a constant for each field number, and which numbers are known.
fn numbers(pool: &DescriptorPool) -> String {
    let mut code = "// Field numbers of the messages in /proto.\n".to_owned();
    for message in pool.all_messages() {
        let words = message.name().chars().enumerate().map(|(at, char)| {
            let separator = if at > 0 && char.is_uppercase() { "_" } else { "" };
            format!("{separator}{}", char.to_lowercase())
        });
        writeln!(code, "\npub mod {} {{", words.collect::<String>()).unwrap();
        for field in message.fields() {
            writeln!(code, "    pub const {}: u32 = {};", field.name().to_uppercase(), field.number()).unwrap();
        }
        let known: Vec<_> = message.fields().map(|field| field.number().to_string()).collect();
        writeln!(code, "    pub const fn is_known(number: u32) -> bool {{").unwrap();
        writeln!(code, "        matches!(number, {})\n    }}\n}}", known.join(" | ")).unwrap();
    }
    code
}

#[test]
fn the_generated_code_is_that_of_the_messages() {
    for (name, expected) in generated() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/generated").join(name);
        if env::var_os("UPDATE_CONTRACT").is_some() {
            fs::write(&path, expected).unwrap();
        } else {
            let found = fs::read(&path).unwrap();
            assert!(found == expected, "{} is not what /proto compiles to: UPDATE_CONTRACT=1 mends it", path.display());
        }
    }
}

/// Every message field and enum value: its path, and what must not change.
type Contract = BTreeMap<String, String>;

fn compiled() -> Contract {
    contract(&DescriptorPool::decode(DESCRIPTOR_SET).unwrap())
}

fn contract(pool: &DescriptorPool) -> Contract {
    let mut contract = Contract::new();
    for message in pool.all_messages() {
        contract.insert(message.full_name().to_owned(), "message".to_owned());
        for field in message.fields() {
            let oneof = field.containing_oneof().map_or(String::new(), |oneof| format!(" in {}", oneof.name()));
            let text = format!(
                "{} = {} {:?} {:?} json {}{oneof}",
                field.name(),
                field.number(),
                field.kind(),
                field.cardinality(),
                field.json_name()
            );
            contract.insert(format!("{}.{}", message.full_name(), field.name()), text);
        }
    }
    for kind in pool.all_enums() {
        contract.insert(kind.full_name().to_owned(), "enum".to_owned());
        for value in kind.values() {
            contract.insert(format!("{}.{}", kind.full_name(), value.name()), format!("= {}", value.number()));
        }
    }
    contract
}

/// The parts of `published` that are missing or different in `compiled`.
fn broken(published: &Contract, compiled: &Contract) -> Vec<String> {
    published
        .iter()
        .filter(|(path, text)| compiled.get(*path) != Some(text))
        .map(|(path, text)| format!("{path}: was `{text}`, is `{}`", compiled.get(path).map_or("gone", String::as_str)))
        .collect()
}

#[test]
fn fields_may_be_added_and_nothing_else() {
    let commands = DescriptorPool::from_file_descriptor_set(compile("commands/v1/commands.proto")).unwrap();
    only_grows("doseline.telemetry.v1.json", &compiled());
    only_grows("doseline.commands.v1.json", &contract(&commands));
}

fn only_grows(published: &str, compiled: &Contract) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../proto").join(published);
    let published: Contract = serde_json::from_slice(&fs::read(&path).unwrap_or_else(|_| b"{}".to_vec())).unwrap();
    let broken = broken(&published, compiled);
    assert!(broken.is_empty(), "the wire contract was broken:\n{}", broken.join("\n"));
    if env::var_os("UPDATE_CONTRACT").is_some() {
        fs::write(&path, serde_json::to_string_pretty(compiled).unwrap() + "\n").unwrap();
    } else {
        assert_eq!(published.len(), compiled.len(), "the contract grew: publish it with UPDATE_CONTRACT=1");
    }
}

#[test]
fn a_removed_a_renumbered_and_a_renamed_field_are_found() {
    let published = compiled();
    let field = "doseline.telemetry.v1.Injection.target_nl";
    let mut removed = published.clone();
    removed.remove(field).unwrap();
    assert_eq!(broken(&published, &removed).len(), 1);
    let mut renumbered = published.clone();
    renumbered.insert(field.to_owned(), published[field].replace("= 6", "= 66"));
    assert_eq!(broken(&published, &renumbered).len(), 1);
    let mut grown = published.clone();
    grown.insert("doseline.telemetry.v1.Injection.novelty".to_owned(), "novelty = 20".to_owned());
    assert!(broken(&published, &grown).is_empty());
}
