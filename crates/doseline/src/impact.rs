//! `doseline impact`: lists the injections that a failed calibration puts in doubt.

use std::{fmt::Write as _, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use warehouse::accuracy::Affected;

use crate::{
    config::Config,
    hint::fault,
    options,
    running::Beside,
    table::{self, number, printable_lines, show, text},
};

#[derive(Args)]
#[command(after_help = "\
A device that was found out of tolerance may have been so since its last calibration: every injection between the two is
listed, by session. The injections themselves are in the view calibration_impact.

Examples:
  doseline impact --calibration cal-2026-0117
  doseline impact --calibration cal-2026-0117 --json | jq -r .session_id")]
pub struct Arguments {
    /// The calibration that found the device out of tolerance
    #[arg(long, value_name = "ID")]
    calibration: String,
    /// Only this tenant
    #[arg(long, value_name = "TENANT", default_value = "")]
    tenant: String,
    /// One JSON object for each line, one for each session; times are us since 1970
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub beside: Beside,
}

pub async fn run(arguments: Arguments, config: Config) -> anyhow::Result<ExitCode> {
    let Arguments { calibration, tenant, json, .. } = arguments;
    let warehouse = options::warehouse_with_long_timeout(&config)?;
    if !warehouse.calibration_is_known(&calibration, &tenant).await.context("look up the calibration")? {
        let remedy = "see SELECT DISTINCT calibration_id FROM calibrations";
        return Err(fault(format!("nothing is known of calibration {calibration:?}"), remedy));
    }
    let affected = warehouse.affected(&calibration, &tenant).await.context("read calibration_impact")?;
    if !json {
        show(&printable_lines(&summary(&calibration, &affected)))?;
    }
    let nothing = format!("no injection between {calibration} and the calibration before it");
    let columns = [
        text("TENANT"),
        text("DEVICE"),
        text("CHANNEL"),
        text("FIRST INJECTION"),
        number("INJECTIONS"),
        text("SITE"),
        text("VISIT"),
    ];
    table::list(&affected, json, &nothing, columns, |visit| {
        let Affected { tenant, device, channel, first_at, injections, site, session_id, .. } = visit.clone();
        let session = if session_id.is_empty() { "(outside a session)".to_owned() } else { session_id };
        [tenant, device, channel.to_lowercase(), monitor::stamp(first_at), injections.to_string(), site, session]
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A line for each device and channel.
fn summary(calibration: &str, affected: &[Affected]) -> String {
    let mut text = String::new();
    let subject = |visit: &Affected| (visit.tenant.clone(), visit.device.clone(), visit.channel.clone());
    for visits in affected.chunk_by(|left, right| subject(left) == subject(right)) {
        let first = &visits[0];
        let found = match first.as_found_error_pct {
            Some(error) => format!("found {error:+.2} % off"),
            None => "as-found error not reported".to_owned(),
        };
        let since = if first.since == 0 { "ever".to_owned() } else { monitor::stamp(first.since) };
        let injections: u64 = visits.iter().map(|visit| visit.injections).sum();
        let _ = writeln!(
            text,
            "{}/{} {} {found} on {} by {calibration}; last calibrated before: {since}; {injections} injections in {} sessions",
            first.tenant,
            first.device,
            first.channel.to_lowercase(),
            monitor::stamp(first.performed_at),
            visits.len(),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sessions_of_a_device_are_summed() {
        let visit = |session: &str, injections| Affected {
            tenant: "acme".to_owned(),
            device: "pen-1".to_owned(),
            channel: "DOSE".to_owned(),
            session_id: session.to_owned(),
            as_found_error_pct: Some(7.5),
            injections,
            ..Affected::default()
        };
        let text = summary("c2", &[visit("a", 3), visit("", 2)]);
        assert!(text.starts_with("acme/pen-1 dose found +7.50 % off on 1970-01-01"), "{text}");
        assert!(text.ends_with("5 injections in 2 sessions\n"), "{text}");
    }
}
