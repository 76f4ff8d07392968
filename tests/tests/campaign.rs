//! Every fault of the reliability table under load, as often as continuous integration asks for.
//! Nothing is lost or stored twice, aggregates are the sums of their rows, and no offset goes back.
//! A run prints the command that replays it.

use harness::campaign::{self, Options};

#[test]
fn nothing_is_lost_and_nothing_doubled_whatever_fails() {
    let seed = std::env::var("DOSELINE_CAMPAIGN_SEED").ok().map_or_else(
        || u64::from(std::process::id()),
        |seed| seed.parse().expect("DOSELINE_CAMPAIGN_SEED is a number"),
    );
    let options = Options { seed, minutes: None, faults: Vec::new(), rate: 300, devices: 60, partitions: 4 };
    let report = campaign::run(&options);
    println!("{report}");
    for (name, _, wanted) in campaign::names() {
        let times = report.rows.iter().find(|row| row.name == name).map_or(0, |row| row.times);
        assert!(times >= wanted, "{name} struck {times} times, not {wanted}");
    }
    assert!(report.made > 10_000, "{} events are no load", report.made);
    assert!(report.is_clean(), "{:?}\nreplay: {}", report.total.examples, options.command());
}
