//! Every formula from its flags and its JSON, and every kind of bad input.

use clap::Parser;
use serde_json::{Value, json};

use super::Arguments;

#[derive(Parser)]
#[command(no_binary_name = true)]
struct Calc {
    #[command(flatten)]
    arguments: Arguments,
}

fn calc(line: &[&str], stdin: &str) -> Result<Value, String> {
    let calc = Calc::try_parse_from(line).map_err(|error| error.to_string())?;
    calc.arguments.formula.answer(&mut stdin.as_bytes())
}

/// Runs a command line, split at spaces.
fn words(line: &str, stdin: &str) -> Result<Value, String> {
    calc(&line.split_whitespace().collect::<Vec<_>>(), stdin)
}

/// Compares an answer with the expected one: numbers to 4 digits or to 1e-9, everything else
/// exactly.
#[track_caller]
fn check(line: &str, stdin: &str, expected: Value) {
    let answer = words(line, stdin).unwrap_or_else(|fault| panic!("{line}: {fault}"));
    for (key, expected) in expected.as_object().unwrap() {
        assert!(same(&answer[key], expected), "{line}: {key} of {answer} instead of {expected}");
    }
}

fn same(ours: &Value, expected: &Value) -> bool {
    match (ours, expected) {
        (Value::Number(ours), Value::Number(expected)) => {
            let (ours, expected) = (ours.as_f64().unwrap(), expected.as_f64().unwrap());
            (ours - expected).abs() <= 1e-4 * expected.abs() + 1e-9
        }
        (Value::Array(ours), Value::Array(expected)) => {
            ours.len() == expected.len() && ours.iter().zip(expected).all(|(ours, expected)| same(ours, expected))
        }
        (Value::Object(ours), Value::Object(expected)) => {
            expected.iter().all(|(key, expected)| ours.get(key).is_some_and(|ours| same(ours, expected)))
        }
        _ => ours == expected,
    }
}

#[test]
fn accuracy() {
    check("tolerance-factor --n 30 --coverage 0.95 --confidence 0.95", "", json!({ "k": 2.5549 }));
    check(
        "verdict --n 60 --mean 20.12 --sd 0.28 --set 20 --dose-resolution 1 --coverage 0.975 --confidence 0.95",
        "",
        json!({ "interval": [19.3724, 20.8676], "limits": [19, 21], "pass": true }),
    );
    check(
        "verdict --n 60 --mean 10.05 --sd 0.4 --set 10 --dose-resolution 1 --coverage 0.975",
        "",
        json!({ "interval": [8.982, 11.118], "limits": [9, 11], "pass": false }),
    );
    check(
        "clustered-verdict --set 100 --dose-resolution 10",
        r#"{"sessions":[[98,101,100,99],[104,106,102,100]]}"#,
        json!({ "sessions": 2, "n": 8, "mean": 101.25, "pass": false, "limits": [90, 110] }),
    );
    check("nonparametric --coverage 0.95 --confidence 0.95 --n 93", "", json!({ "n": 93, "confidence_of_n": 0.95 }));
    check("wilson --inside 81 --n 263", "", json!({ "interval": [0.25529, 0.36621] }));
    check("moments", r#"{"x":[9.8,10.1,10.0,9.9]}"#, json!({ "n": 4, "mean": 9.95, "sd": 0.129099 }));
    check("moments", r#"{"x":[3]}"#, json!({ "n": 1, "mean": 3, "sd": null }));
    check(
        "trumpet --windows 1,2,5",
        r#"{"error_pct":[1,-1,4]}"#,
        json!({ "windows": [{ "shots": 1, "min": -1, "max": 4 }, { "shots": 2, "min": 0, "max": 1.5 },
                            { "shots": 5, "min": null, "max": null }] }),
    );
}

#[test]
fn charts() {
    check(
        "cusum --target -1 --sigma 2 --k 0.5 --h 4",
        r#"{"x":[-1,3,-1,3,3,3]}"#,
        json!({ "upper": [0, 1.5, 1, 2.5, 4, 5.5], "lower": [0, 0, 0, 0, 0, 0], "first_alarm": 6, "onset": 1 }),
    );
    check(
        "cusum --target 0 --k 0.5 --h 4 --fir",
        r#"{"x":[0,0]}"#,
        json!({ "upper": [1.5, 1], "first_alarm": null, "onset": null }),
    );
    check(
        "ewma --target 10 --sigma 2 --lambda 0.1 --limit 2.814",
        r#"{"x":[10,12,40]}"#,
        json!({ "z": [10, 10.2, 13.18], "ucl": [10.5628, 10.75717, 10.883811], "lcl": [9.4372, 9.24283, 9.116189],
                "first_alarm": 3 }),
    );
    check("shewhart --target 0", r#"{"x":[0,-4]}"#, json!({ "first_alarm": 2, "alarms": [2] }));
    check("western-electric --target 5 --sigma 2", r#"{"x":[9.2,9.2,12]}"#, json!({ "rules": [[], [2], [1, 2]] }));
}

#[test]
fn run_lengths_and_thresholds() {
    check("arl --chart cusum --k 0.5 --h 5 --shift 0", "", json!({ "arl": 465.44 }));
    check("arl --chart cusum --k 0.5 --h 5 --shift 1 --fir", "", json!({ "arl": 6.34685 }));
    check("arl --chart ewma --lambda 0.5 --limit 3.071 --shift -0.5", "", json!({ "arl": 88.7954 }));
    check("arl --chart shewhart --limit 3", "", json!({ "arl": 370.398 }));
    check("threshold --chart cusum --arl 10000", "", json!({ "h": 8.0535 }));
    check("threshold --chart ewma --arl 10000 --lambda 0.1", "", json!({ "limit": 3.7492 }));
    let budget = words("budget --false-alarms 0.1 --points-per-day 5 --channels 2", "").unwrap();
    let alone = words(&format!("threshold --chart cusum --arl {}", budget["cusum"]["arl"]), "").unwrap();
    assert!(same(&budget["cusum"]["h"], &alone["h"]), "{budget} {alone}");
}

#[test]
fn lines() {
    check(
        "regression --limit 5 --confidence 0.95",
        r#"{"t":[0,1,2,3,4],"y":[0.1,0.9,2.1,2.9,4.1]}"#,
        json!({ "slope": 1.0, "intercept": 0.02, "se_slope": 0.04, "se_intercept": 0.0979796,
                "residual_sd": 0.1264911, "crossing": 4.98, "crossing_interval": [4.602908, 5.455264],
                "g": 0.01620474 }),
    );
    check(
        "regression --limit 5",
        r#"{"t":[0,1,2],"y":[0,1,0]}"#,
        json!({ "slope": 0, "crossing": null, "crossing_interval": null, "g": null }),
    );
    check("forecast", r#"{"t_days":[0,1],"error_pct":[0,1]}"#, json!({ "state": "too-short" }));
    check(
        "standardise --centre as-left --as-left 1 --between 2",
        r#"{"error_pct":[3,-1],"shots":[30,30]}"#,
        json!({ "z": [1, -1] }),
    );
}

#[test]
fn sterility() {
    check(
        "lethality --t-ref 121.1",
        r#"{"t_s":[0,90,180],"temperature_c":[134,134,134]}"#,
        json!({ "trapezoid_min": 58.4953, "conservative_min": 58.4953 }),
    );
    let samples = r#"{"t_s":[0,10,190,200],"temperature_c":[132,136,136,132]}"#;
    check("hold-time --low 134 --high 137", samples, json!({ "hold_s": 190, "total_s": 190, "verdict": "passed" }));
    check("hold-time --low 134 --high 137 --required 191", samples, json!({ "verdict": "failed" }));
    check("hold-time --low 134 --high 137 --max-gap 60", samples, json!({ "hold_s": 5, "verdict": "indeterminate" }));
    check("hold-time --low 140 --high 141", samples, json!({ "hold_s": 0, "verdict": "failed" }));
    check("saturation --kpa 205", "", json!({ "celsius": 121.131 }));
    check(
        "gs1 (01)51022222233336(11)141231(17)150707(10)A213B1(21)1234",
        "",
        json!({ "gtin": "51022222233336", "expiry": "2015-07-07", "production_date": "2014-12-31", "lot": "A213B1",
                "serial": "1234", "check_digit_valid": true, "pi": "(11)141231(17)150707(10)A213B1(21)1234" }),
    );
}

#[test]
fn bad_input_says_what_is_wrong() {
    let moments = r#"{"x":[1]}"#;
    let cases = [
        ("tolerance-factor --n 1", "", "n is 1; it must be at least 2"),
        ("tolerance-factor --n 5 --coverage 1", "", "coverage is 1; it must be between 0 and 1, both excluded"),
        ("tolerance-factor --n 5 --confidence nan", "", "confidence is NaN"),
        ("tolerance-factor --n -5", "", "invalid value"),
        ("tolerance-factor --coverage 0.9", "", "--n <N>"),
        ("verdict --n 9 --mean 1 --sd -1 --set 1 --dose-resolution 1", "", "sd is -1; it must be"),
        ("verdict --n 9 --mean inf --sd 1 --set 1 --dose-resolution 1", "", "mean is inf"),
        ("verdict --n 9 --mean 1 --sd 1 --set -1 --dose-resolution 1", "", "set is -1"),
        ("moments", "", "standard input is empty"),
        ("moments", "hello", "standard input: expected value"),
        ("moments", "[1]", "standard input: "),
        ("moments", r#"{"x":[]}"#, "x is empty"),
        ("moments", r#"{"x":[1],"y":[2]}"#, "unknown field `y`"),
        ("moments", r#"{"x":[1,"2"]}"#, "invalid type: string"),
        ("moments", r#"{"x":[1e999]}"#, "number out of range"),
        ("moments", r#"{"x":[NaN]}"#, "standard input: expected value"),
        ("moments", r#"{"x":[1]} {}"#, "trailing characters"),
        ("moments", r#"{"y":[1]}"#, "unknown field `y`"),
        ("trumpet --windows 0", r#"{"error_pct":[1]}"#, "window is 0"),
        ("trumpet --windows 1,x", r#"{"error_pct":[1]}"#, "invalid value 'x'"),
        ("trumpet --windows 1", r#"{"error_pct":[]}"#, "error_pct is empty"),
        ("cusum --target 0 --sigma 0 --k 0.5 --h 4", moments, "sigma is 0"),
        ("cusum --target nan --sigma 1 --k 0.5 --h 4", moments, "target is NaN"),
        ("cusum --target 0 --k 0.5 --h 0", moments, "h is 0"),
        ("cusum --target 0 --k -1 --h 4", moments, "k is -1"),
        ("ewma --target 0 --lambda 0 --limit 3", moments, "lambda is 0"),
        ("ewma --target 0 --lambda 0.1 --limit inf", moments, "limit is inf"),
        ("arl --chart cusum --k 0.5", "", "--h is missing for this chart"),
        ("arl --chart cusum --k 0.5 --h 5 --limit 3", "", "--limit is not for the CUSUM"),
        ("arl --chart ewma --k 0.5 --h 5", "", "--k is not for the EWMA"),
        ("arl --chart fish", "", "invalid value 'fish'"),
        ("arl --chart cusum --k 0.5 --h 90", "", "the run length is beyond"),
        ("threshold --chart cusum --arl 0.5", "", "arl is 0.5"),
        ("threshold --chart shewhart --arl nan", "", "arl is NaN"),
        ("regression", r#"{"t":[1,2,3],"y":[1,2]}"#, "t has 3 values and y has 2; they must be as many"),
        ("regression", r#"{"t":[1,2],"y":[1,2]}"#, "t has 2 values; at least 3 are needed"),
        ("regression", r#"{"t":[1,1,1],"y":[1,2,3]}"#, "spread of t is 0"),
        ("regression --limit nan", r#"{"t":[1,2,3],"y":[1,2,4]}"#, "limit is NaN"),
        ("regression --confidence 1", r#"{"t":[1,2,3],"y":[1,2,4]}"#, "confidence is 1"),
        ("lethality --t-ref 121", r#"{"t_s":[0,0],"temperature_c":[1,1]}"#, "t_s[1] is 0; it must be later"),
        ("lethality --t-ref 121", r#"{"t_s":[0],"temperature_c":[1]}"#, "t_s has 1 values; at least 2"),
        ("lethality --t-ref 121 --z 0", r#"{"t_s":[0,1],"temperature_c":[1,1]}"#, "z is 0"),
        ("hold-time --low 2 --high 1", r#"{"t_s":[0,1],"temperature_c":[1,1]}"#, "low is 2; it must be at most high"),
        ("hold-time --low 1 --high 2", r#"{"t_s":[1,0],"temperature_c":[1,1]}"#, "t_s[1] is 0; it must be later"),
        ("hold-time --low 1 --high 2 --max-gap 0", r#"{"t_s":[0,1],"temperature_c":[1,1]}"#, "largest gap is 0"),
        ("hold-time --low 1 --high 2", r#"{"t_s":[],"temperature_c":[]}"#, "t_s has 0 values"),
        ("saturation --kpa -3", "", "kpa is -3"),
        ("saturation --kpa 1e9", "", "kpa is 1000000000; it must be between"),
        ("gs1 (01)51022222233337", "", "wrong check digit 7, the digits before it need 6"),
        ("gs1 (05)1", "", "unknown application identifier"),
        ("wilson --inside 3 --n 2", "", "inside is 3"),
        ("nonparametric --coverage 0", "", "coverage is 0"),
        ("budget --false-alarms 0 --points-per-day 5", "", "false alarms is 0"),
        ("clustered-verdict --set 1 --dose-resolution 1", r#"{"sessions":[[1.5]]}"#, "invalid type: floating point"),
        ("clustered-verdict --set 1 --dose-resolution 1", r#"{"sessions":[[1]]}"#, "sessions has 1 values"),
        ("standardise --between 0", r#"{"error_pct":[1],"shots":[1]}"#, "sigma is 0"),
        ("standardise --between 1", r#"{"error_pct":[1],"shots":[0]}"#, "shots is 0"),
        ("standardise --between 1 --centre as-left", r#"{"error_pct":[1],"shots":[1]}"#, "--as-left"),
    ];
    for (line, stdin, expected) in cases {
        match words(line, stdin) {
            Ok(answer) => panic!("{line} {stdin}: answers {answer} instead of {expected:?}"),
            Err(fault) => assert!(fault.contains(expected), "{line} {stdin}: {fault:?} instead of {expected:?}"),
        }
    }
}
