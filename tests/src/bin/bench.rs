//! The program of `cargo xtask bench`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use harness::bench::{self, Options, Report};

#[derive(Parser)]
#[command(
    name = "cargo xtask bench",
    about = "Measure CPU, memory and latency of doseline with real engines, and of its peers on the same data",
    after_help = "Progress goes to stderr, the figures to stdout as Markdown. Exit code 1: data did not arrive as sent, and \
those figures are left out.\n\n\
Examples:\n  cargo xtask bench --json bench.json\n  \
cargo xtask bench --only bridge,loader\n  \
cargo xtask bench --quick                    (does it work; the figures mean nothing)\n  \
cargo xtask bench --only peers --peer mine='./my-loader'    (what it is told: docs/benchmarks.md)"
)]
struct Arguments {
    /// Only these scenarios, separated by commas
    #[arg(long, value_name = "NAME[,NAME..]", value_delimiter = ',')]
    only: Vec<String>,
    /// Little data: shows that everything works
    #[arg(long)]
    quick: bool,
    /// Another loader for the comparison, as a shell command; may be given several times
    #[arg(long = "peer", value_name = "NAME=COMMAND", value_parser = peer)]
    peers: Vec<(String, String)>,
    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// List the scenarios
    #[arg(long)]
    list: bool,
}

fn peer(text: &str) -> Result<(String, String), String> {
    let (name, command) = text.split_once('=').ok_or("write NAME=COMMAND")?;
    Ok((name.to_owned(), command.to_owned()))
}

fn main() -> ExitCode {
    let Arguments { only, quick, peers, json, list } = Arguments::parse();
    if list {
        for (name, what) in bench::names() {
            println!("{name:10} {what}");
        }
        return ExitCode::SUCCESS;
    }
    if let Err(error) = bench::check_names(&only) {
        eprintln!("bench: --only: {error}");
        return ExitCode::from(2);
    }
    // Written after each scenario, so that a late failure does not lose an hour's figures.
    let write = |report: &Report| {
        let Some(path) = &json else { return Ok(()) };
        std::fs::write(path, format!("{:#}\n", report.json()))
            .map_err(|error| format!("write {}: {error}", path.display()))
    };
    let mut written = Ok(());
    let report = bench::run(&Options { only, quick, peers }, |report| written = write(report));
    print!("{report}");
    if let Err(error) = written {
        eprintln!("bench: {error}");
        return ExitCode::FAILURE;
    }
    if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
