//! Developer and set-up commands: `cargo xtask up` runs doseline on this machine, `cargo xtask
//! test` proves it.
//!
//! Each command first installs what is missing, so that a fresh machine needs nothing but the Rust
//! toolchain.
//!
//! Absent: anything that a user of doseline needs at run time (the `doseline` binary has that), and
//! any download by address. Engines are fetched by package name with their registry's own client.
//!
//! Invariants: everything fetched is checked against the hashes in `pins/`, then put into the cache
//! folder by one rename. A folder under its final name is therefore complete. Progress goes to
//! stderr.

mod cache;
mod command;
mod compile;
mod engines;
mod fuzz;
mod harness;
mod progress;
mod prose;
mod steps;
mod suite;
mod system;
mod tally;
mod targets;
mod tools;
mod unused;
mod up;
mod web;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use steps::Steps;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Set up, run and test doseline from a checkout",
    after_help = "Fetched engines and tools are kept in ${XDG_CACHE_HOME:-~/.cache}/doseline."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build doseline and run all of it on this machine, with embedded engines
    #[command(
        after_help = "Examples:\n  cargo xtask up\n  cargo xtask up -- --simulate 25\n  cargo xtask up -- --http-port 0 --data-dir /tmp/trial"
    )]
    Up {
        /// Arguments for `doseline up`
        #[arg(last = true, value_name = "ARGS")]
        arguments: Vec<String>,
    },
    /// Check formatting, lints, documents, dependencies and run every test
    #[command(
        after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --fast                (what starts no engine: to be run after each change)\n  cargo xtask test --filter mosquitto    (only tests so named, no checks)\n\nThe run ends with the slowest tests and the time of each step. The last line reads `N passed, N failed`, with `, N skipped` where tests are ignored."
    )]
    Test {
        /// Run formatting, clippy, and the tests that start no engine, and install nothing that
        /// only engines need
        #[arg(long)]
        fast: bool,
        /// Run only the tests whose name contains this, and none of the checks
        #[arg(long, value_name = "NAME")]
        filter: Option<String>,
    },
    /// Check documents and comments: width, phrases, links
    #[command(after_help = "Example:\n  cargo xtask language    (a part of `cargo xtask test`, within a second)")]
    Language,
    /// Build the web page that doseline embeds, if one of its files has changed
    #[command(
        after_help = "The page is in crates/dashboard/web. `up`, `test`, `soak` and `bench` build it too.\n\nExample:\n  cargo xtask web && cargo build --release"
    )]
    Web,
    /// Kill, stop, cut and fill everything while a simulated fleet sends, and compare all of it
    /// with the truth
    #[command(
        after_help = "Examples:\n  cargo xtask soak --minutes 60 --seed 1 --json soak.json\n  cargo xtask soak --minutes 5 --faults engine-rename,disk-full\n  cargo xtask soak --help    (all options, from the campaign itself)",
        disable_help_flag = true
    )]
    Soak {
        /// Arguments for the campaign
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        arguments: Vec<String>,
    },
    /// Measure CPU, memory and latency with real engines, and of peers on the same data
    #[command(
        after_help = "Examples:\n  cargo xtask bench --json bench.json\n  cargo xtask bench --only bridge,loader\n  cargo xtask bench --help    (all options, from the benchmark itself)",
        disable_help_flag = true
    )]
    Bench {
        /// Arguments for the benchmark
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGS")]
        arguments: Vec<String>,
    },
    /// Search for inputs from outside that break a property: topics, reports, receipts, requests
    #[command(
        after_help = "Examples:\n  cargo xtask fuzz                               (all targets, a minute each)\n  cargo xtask fuzz kafka --seconds 600\n  cargo xtask fuzz report --seconds 600 --keep   (what it finds goes into tests/fuzz/corpus)\n  cargo xtask fuzz report --input FILE           (one input again)\n\nInputs, failures and logs are in target/fuzz. `cargo xtask test` runs the inputs of tests/fuzz/corpus."
    )]
    Fuzz {
        /// One target; without it, all run one after the other
        #[arg(value_parser = fuzz::TARGETS)]
        target: Option<String>,
        /// How long each target runs, s
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
        /// Run this one input and nothing else
        #[arg(long, value_name = "FILE", requires = "target", conflicts_with_all = ["seconds", "keep"])]
        input: Option<PathBuf>,
        /// Add inputs that reach new branches to tests/fuzz/corpus, to be committed
        #[arg(long)]
        keep: bool,
    },
    /// Fetch the engines and tools the tests need, and nothing else
    #[command(after_help = "Example:\n  cargo xtask engines    (then work without a network)")]
    Engines,
    /// Delete everything fetched; builds kept in the cache folder stay
    #[command(after_help = "Example:\n  cargo xtask clean-cache && cargo xtask engines")]
    CleanCache,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Up { arguments } => up::run(&arguments),
        Command::Test { fast, filter } => suite::run(fast, filter.as_deref()),
        Command::Language => prose::check(),
        Command::Web => web::command(),
        Command::Soak { arguments } => harness::soak(&arguments),
        Command::Bench { arguments } => harness::bench(&arguments),
        Command::Fuzz { target, seconds, input, keep } => fuzz::run(&fuzz::Options { target, seconds, input, keep }),
        Command::Engines => engines::command(),
        Command::CleanCache => Steps::new(1).run("cache", cache::clean),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
