//! The program of `cargo xtask soak`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use harness::campaign::{self, Options};

#[derive(Parser)]
#[command(
    name = "cargo xtask soak",
    about = "Kill, stop, cut and fill everything while a simulated fleet sends; then compare all of it with the truth",
    after_help = "Progress goes to stderr, the table to stdout. Exit code 1: something was lost, doubled or unequal.\n\n\
Examples:\n  cargo xtask soak --minutes 60 --seed 1 --json soak.json\n  \
cargo xtask soak --seed 7                                 (each fault as often as in continuous integration)\n  \
cargo xtask soak --minutes 5 --faults engine-rename,disk-full\n  \
cargo xtask soak --list"
)]
struct Arguments {
    /// How long faults are injected, min; without it each fault strikes as often as in continuous
    /// integration
    #[arg(long, value_name = "M", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: Option<u64>,
    /// Decides which fault comes when and where it strikes: the same seed replays them; without it
    /// a random one
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Only these faults, separated by commas
    #[arg(long, value_name = "NAME[,NAME..]", value_delimiter = ',')]
    faults: Vec<String>,
    /// Events a second
    #[arg(long, value_name = "R", default_value_t = 2_900, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    rate: u32,
    /// Simulated devices
    #[arg(long, value_name = "N", default_value_t = 140, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    devices: u32,
    /// Partitions of each topic
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(i32).range(2..=64))]
    partitions: i32,
    /// Write the result to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// List the faults
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for (name, what, ci) in campaign::names() {
            println!("{name:18} {what} ({ci} in continuous integration)");
        }
        return ExitCode::SUCCESS;
    }
    if let Err(error) = campaign::check_names(&arguments.faults) {
        eprintln!("soak: --faults: {error}");
        return ExitCode::from(2);
    }
    let options = Options {
        seed: arguments.seed.unwrap_or_else(|| u64::from(std::process::id())),
        minutes: arguments.minutes,
        faults: arguments.faults,
        rate: arguments.rate,
        devices: arguments.devices,
        partitions: arguments.partitions,
    };
    let report = campaign::run(&options);
    print!("{report}");
    if let Some(path) = arguments.json {
        let text = format!("{:#}\n", report.json());
        if let Err(error) = std::fs::write(&path, text) {
            eprintln!("soak: write {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    }
    if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
