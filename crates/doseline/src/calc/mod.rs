//! `doseline calc`: every formula of `analysis` on numbers that the user gives, so that the
//! mathematics can be validated.
//!
//! Input is JSON on standard input, or flags. Output is one line of JSON. Wrong input ends with
//! exit code 2 and one line with the fault. No configuration is read.

mod accuracy;
mod drift;
mod input;
mod sterility;
#[cfg(test)]
mod tests;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

/// Exit code of wrong usage.
const WRONG_USAGE: u8 = 2;

#[derive(Args)]
#[command(arg_required_else_help = true, after_help = HELP)]
pub struct Arguments {
    #[command(subcommand)]
    formula: Formula,
}

const HELP: &str = "\
Examples:
  doseline calc tolerance-factor --n 30 --coverage 0.95 --confidence 0.95
  echo '{\"x\":[9.8,10.1,10.0,9.9]}' | doseline calc moments
  doseline calc threshold --chart cusum --arl 10000
  doseline calc gs1 '(01)51022222233336(17)150707(10)A213B1'

Numbers that cannot be given are null. Bad input: exit code 2 and one line on standard error.
docs/analysis.md has each formula with its source.";

#[derive(Subcommand)]
enum Formula {
    /// Two-sided normal tolerance factor k
    ToleranceFactor(accuracy::ToleranceFactor),
    /// Accuracy verdict on independent values, from n, mean and standard deviation
    Verdict(accuracy::Verdict),
    /// Accuracy verdict on shots that come in sessions; stdin {"sessions":[[measured,..],..]},
    /// whole numbers (nl or um)
    ClusteredVerdict(accuracy::ClusteredVerdict),
    /// Sample size, or confidence of n values, for the interval from the smallest to the largest
    /// value
    Nonparametric(accuracy::Nonparametric),
    /// Wilson interval of a share
    Wilson(accuracy::Wilson),
    /// Count, mean and standard deviation; stdin {"x":[..]}
    Moments,
    /// Trumpet curve over windows of shots; stdin {"error_pct":[..]}
    Trumpet(accuracy::Trumpet),
    /// Tabular CUSUM, both sides, in units of sigma; stdin {"x":[..]}
    Cusum(drift::Cusum),
    /// EWMA with time-varying limits; stdin {"x":[..]}
    Ewma(drift::Ewma),
    /// Shewhart chart; stdin {"x":[..]}
    Shewhart(drift::Shewhart),
    /// Western Electric rules that each value breaks; stdin {"x":[..]}
    WesternElectric(drift::WesternElectric),
    /// Average run length of a two-sided chart
    Arl(drift::Arl),
    /// The limit with this average run length in control
    Threshold(drift::Threshold),
    /// Thresholds of all charts from a budget of false alarms
    Budget(drift::Budget),
    /// Standardised session means; stdin {"error_pct":[..],"shots":[..]}
    Standardise(drift::Standardise),
    /// Straight line with standard errors, and Fieller's interval of its crossing; stdin
    /// {"t":[..],"y":[..]}
    Regression(drift::Regression),
    /// When a drifting device is out of tolerance; stdin {"t_days":[..],"error_pct":[..]}
    Forecast(drift::Forecast),
    /// Lethality (F0, A0); stdin {"t_s":[..],"temperature_c":[..]}
    Lethality(sterility::Lethality),
    /// Longest time inside a temperature band; stdin {"t_s":[..],"temperature_c":[..]}, perhaps
    /// with "pressure_kpa"
    HoldTime(sterility::HoldTime),
    /// Temperature of saturated steam
    Saturation(sterility::Saturation),
    /// Parts of a GS1 element string
    Gs1(sterility::Gs1),
}

/// The fault in the input, in one line.
type Fault = String;

pub fn run(arguments: Arguments) -> ExitCode {
    match arguments.formula.answer(&mut std::io::stdin()) {
        Ok(answer) => {
            println!("{answer}");
            ExitCode::SUCCESS
        }
        Err(fault) => {
            eprintln!("error: {}", one_line(&fault));
            ExitCode::from(WRONG_USAGE)
        }
    }
}

/// Reports wrong flags of any sub-command: those of `calc` in one line, the others as clap does.
pub fn usage(error: &clap::Error) -> ExitCode {
    let calc = std::env::args().nth(1).is_some_and(|first| first == "calc");
    if calc && error.use_stderr() && error.kind() != clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let text = error.to_string();
        let first_paragraph = text.split("\n\n").next().unwrap_or(&text);
        eprintln!("error: {}", one_line(first_paragraph.trim_start_matches("error: ")));
        return ExitCode::from(WRONG_USAGE);
    }
    error.exit()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Formula {
    fn answer(&self, stdin: &mut dyn std::io::Read) -> Result<Value, Fault> {
        match self {
            Self::ToleranceFactor(flags) => flags.answer(),
            Self::Verdict(flags) => flags.answer(),
            Self::ClusteredVerdict(flags) => flags.answer(stdin),
            Self::Nonparametric(flags) => flags.answer(),
            Self::Wilson(flags) => flags.answer(),
            Self::Moments => accuracy::moments(stdin),
            Self::Trumpet(flags) => flags.answer(stdin),
            Self::Cusum(flags) => flags.answer(stdin),
            Self::Ewma(flags) => flags.answer(stdin),
            Self::Shewhart(flags) => flags.answer(stdin),
            Self::WesternElectric(flags) => flags.answer(stdin),
            Self::Arl(flags) => flags.answer(),
            Self::Threshold(flags) => flags.answer(),
            Self::Budget(flags) => flags.answer(),
            Self::Standardise(flags) => flags.answer(stdin),
            Self::Regression(flags) => flags.answer(stdin),
            Self::Forecast(flags) => flags.answer(stdin),
            Self::Lethality(flags) => flags.answer(stdin),
            Self::HoldTime(flags) => flags.answer(stdin),
            Self::Saturation(flags) => flags.answer(),
            Self::Gs1(flags) => flags.answer(),
        }
    }
}

/// A fault that the mathematics reports is a fault of the input.
fn fault(error: impl std::fmt::Display) -> Fault {
    error.to_string()
}
