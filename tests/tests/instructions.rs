//! Guards against slower code. Valgrind's callgrind counts the instructions of each case of
//! `benches/micro`, and the test compares them with the bounds in `benches/micro/instructions.txt`.
//! Unlike times, instruction counts do not vary on a busy machine.
//!
//! `DOSELINE_INSTRUCTIONS=renew` writes the present counts as the new bounds.

#[path = "../benches/micro/cases.rs"]
mod cases;
#[path = "../benches/micro/inputs.rs"]
mod inputs;

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs, iter,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

const BOUNDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/micro/instructions.txt");
const RENEW: &str = "DOSELINE_INSTRUCTIONS=renew cargo test --release --workspace --test instructions";
/// The share by which a case may exceed its figure.
const ROOM: f64 = 0.05;
/// If a case improves by more than this share, its bound must be lowered.
const BETTER: f64 = 0.10;
/// Names the case for the process that valgrind runs.
const CASE: &str = "DOSELINE_INSTRUCTIONS_CASE";

/// The figures hold for an optimised build on x86-64. Other builds have none.
#[test]
#[cfg_attr(not(all(target_arch = "x86_64", target_os = "linux")), ignore = "bounds are those of x86-64")]
fn no_case_takes_more_instructions_than_its_bound() {
    let figures = all_instructions();
    if env::var("DOSELINE_INSTRUCTIONS").is_ok_and(|value| value == "renew") {
        fs::write(BOUNDS, table(&figures)).expect("write the bounds");
        return;
    }
    let text = fs::read_to_string(BOUNDS).expect("read the bounds");
    let complaints: Vec<_> = complaints(&figures, &stored(&text));
    assert!(
        complaints.is_empty(),
        "{}\nbenches/micro/instructions.txt: renew with\n  {RENEW}\n",
        complaints.join("\n")
    );
}

/// The part that valgrind runs: one case, twice to warm up and once to be counted.
#[test]
#[ignore = "runs under valgrind"]
fn count() {
    let mut case = cases::case(&env::var(CASE).expect("a case"));
    (case.run)();
    (case.run)();
    measured(&mut case);
}

/// Callgrind counts the instructions in this function.
#[inline(never)]
fn measured(case: &mut cases::Case) {
    (case.run)();
    std::hint::black_box(case);
}

/// The instructions of every case. Other processes do not change the counts, so one case runs on
/// each processor.
fn all_instructions() -> Vec<(&'static str, f64)> {
    let next = AtomicUsize::new(0);
    let left = || iter::from_fn(|| cases::NAMES.get(next.fetch_add(1, Ordering::Relaxed)));
    let worker = || left().map(|name| (*name, instructions(name))).collect::<Vec<_>>();
    let counted: BTreeMap<_, _> = thread::scope(|scope| {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("each case is counted")).collect()
    });
    cases::NAMES.iter().map(|name| (*name, counted[name])).collect()
}

/// Instructions for one unit of a case.
fn instructions(name: &str) -> f64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*instructions::measured*"])
        .arg(env::current_exe().expect("this program"))
        .args(["--exact", "count", "--ignored", "--nocapture", "--test-threads=1"])
        .env(CASE, name)
        .output()
        .expect("start valgrind; `cargo xtask test` installs it");
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected : ")?.1.trim().parse().ok());
    let collected: f64 = collected.filter(|_| output.status.success()).unwrap_or_else(|| panic!("{name}: {said}"));
    assert!(collected > 0.0, "{name}: nothing was counted\n{said}");
    collected / cases::case(name).events as f64
}

fn table(figures: &[(&str, f64)]) -> String {
    let mut table = format!(
        "# Instructions of one unit, counted by callgrind in the release profile on x86-64, and the most it may take.\n\
         # {RENEW}\n# {:<16} {:<10} {:>12} {:>12}\n",
        "case", "unit", "instructions", "bound"
    );
    for (name, figure) in figures {
        let (unit, bound) = (cases::case(name).unit, figure * (1.0 + ROOM));
        let _ = writeln!(table, "{name:<18} {unit:<10} {figure:>12.1} {bound:>12.1}");
    }
    table
}

/// Figure and bound by case.
fn stored(table: &str) -> BTreeMap<&str, (f64, f64)> {
    let line = |line| match str::split_whitespace(line).collect::<Vec<_>>()[..] {
        [name, _, figure, bound] => (name, (figure.parse().expect(line), bound.parse().expect(line))),
        _ => panic!("{BOUNDS}: not a case, a unit, a figure and a bound: {line}"),
    };
    table.lines().filter(|line| !line.starts_with('#')).map(line).collect()
}

/// A line for each case that a person must look at.
fn complaints(figures: &[(&str, f64)], stored: &BTreeMap<&str, (f64, f64)>) -> Vec<String> {
    let complaint = |(name, now): &(&str, f64)| match stored.get(name) {
        None => Some(format!("{name}: takes {now:.1} instructions and has no bound")),
        Some((was, bound)) if now > bound => {
            let more = 100.0 * (now / was - 1.0);
            Some(format!(
                "{name}: takes {now:.1} instructions, {more:.1} % more than {was:.1}; its bound is {bound:.1}"
            ))
        }
        Some((was, _)) if *now < was * (1.0 - BETTER) => {
            let less = 100.0 * (1.0 - now / was);
            Some(format!(
                "{name}: takes {now:.1} instructions, {less:.1} % less than {was:.1}: its bound has to follow"
            ))
        }
        Some(_) => None,
    };
    figures.iter().filter_map(complaint).collect()
}

#[test]
fn what_grows_shrinks_or_is_new_is_named() {
    let text = table(&[("topic", 100.0), ("ring", 100.0), ("head/1", 100.0)]);
    let stored = stored(&text);
    let named = |figures| complaints(figures, &stored).len();
    assert_eq!(named(&[("topic", 104.9), ("ring", 95.0), ("head/1", 100.0)]), 0);
    assert_eq!(named(&[("topic", 105.2), ("ring", 89.0), ("head/10", 1.0)]), 3);
    let complaint = complaints(&[("topic", 105.2)], &stored).join("");
    assert_eq!(complaint, "topic: takes 105.2 instructions, 5.2 % more than 100.0; its bound is 105.0");
}
