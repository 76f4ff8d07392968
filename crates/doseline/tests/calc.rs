//! `doseline calc`, as a person runs it: exit codes, one line of output, and no configuration.

#![allow(clippy::unwrap_used, reason = "a failed expectation is how a test fails")]

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

fn calc(arguments: &[&str], stdin: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doseline"));
    // A configuration that cannot be read must not matter.
    command.arg("calc").args(arguments).env("DOSELINE_CONFIG", "/nowhere/at/all.toml");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A formula without input closes the pipe without reading it.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn answers_in_one_line() {
    let output = calc(&["saturation", "--kpa", "205"], "");
    assert_eq!(output.status.code(), Some(0));
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!((answer["celsius"].as_f64().unwrap() - 121.131).abs() < 1e-3);
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 1);
    let output = calc(&["moments"], r#"{"x":[1,2,3]}"#);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "{\"mean\":2.0,\"n\":3,\"sd\":1.0}\n");
}

#[test]
fn wrong_input_is_told_in_one_line() {
    for (arguments, stdin, message) in [
        (vec!["moments"], r#"{"x":[]}"#, "error: x is empty; at least 1 value is needed\n"),
        (vec!["tolerance-factor", "--n", "1"], "", "error: n is 1; it must be at least 2\n"),
        (
            vec!["tolerance-factor", "--n", "x"],
            "",
            "error: invalid value 'x' for '--n <N>': invalid digit found in string\n",
        ),
        (vec!["tolerance-factor"], "", "error: the following required arguments were not provided: --n <N>\n"),
        (vec!["guess"], "", "error: unrecognized subcommand 'guess'\n"),
    ] {
        let output = calc(&arguments, stdin);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), message, "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn help_is_no_fault() {
    let output = calc(&["cusum", "--help"], "");
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("--sigma"));
}
