//! Section `[monitor]` of the configuration.

use std::net::SocketAddr;

use service::{settings, settings::HTTP_URL};

settings! {
    /// Section `[monitor]`.
    pub struct Monitor {
        /// Address of `/livez`, `/readyz` and `/metrics`
        http: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 9_603));
        /// Pause between two passes, ms. A shorter pause sees data earlier and asks ClickHouse more
        /// often. After a pass that took more than a fiftieth of it, the pause is 50 times as long
        /// as the pass, but at most five times this. While nothing is written, the monitor makes
        /// one pass a minute
        interval_ms: u32 = 2_000, in 100..=60_000;
        /// How long the monitor waits for a sterilizer's data after a use, and after the use has
        /// arrived, before their absence is a breach, s. A longer wait raises fewer alerts that
        /// later data take back, and raises them later
        late_s: u32 = 5, in ..=604_800;
        /// Time without a finished pass at which `/readyz` fails, s
        stalled_s: u32 = 120, in 10..;
        /// Whether alerts go to Kafka, topic `doseline.alerts.v1`
        kafka: bool = true;
        /// Address of Alertmanager's API, such as `http://alertmanager:9093/api/v2/alerts`. Without
        /// one, alerts go to no webhook
        webhook: Option<String> = None, in HTTP_URL;
        /// Pause between two repetitions of the alerts that fire, s. An alert that was not repeated
        /// for four pauses is over for Alertmanager
        webhook_repeat_s: u32 = 60, in 5..=3_600;
        /// Share of a device's injections that must keep the tolerance, with 95 % confidence. With
        /// a larger share, more devices fail
        coverage: f64 = 0.95, in 0.9..=0.999;
        /// Sessions below which no device fails. With fewer, the monitor judges sooner and on less
        sessions_min: u64 = 10, in 2..=1_000;
        /// Alarm budget of a device's charts: false alarms in a year. A larger budget finds drift
        /// sooner, with more false alarms. The limits of the charts are solved from it:
        /// [analysis](analysis.md#drift)
        false_alarms_per_device_year: f64 = 0.2, in 0.01..=10.0;
        /// Sessions of a device in a day, over which the alarm budget is split
        sessions_per_day: f64 = 5.0, in 0.1..=100.0;
        /// Set-point bands of a channel, over which the alarm budget is split: as many as the model
        /// with the most bands has (the number of its edges, and one more)
        bands: u32 = 3, in 1..=20;
        /// An alert is raised if a device is expected to leave its tolerance within this time, days
        forecast_days: u32 = 30, in 1..=365;
        /// Largest difference of a syringe's mass balance, percent of what left the syringe
        mass_balance_pct: u32 = 5, in 1..=100;
        /// A device is silent after this many opening days of its site without a message
        silent_days: u32 = 7, in 1..=365;
        /// A battery is low below this charge, percent
        battery_pct: u32 = 20, in 1..=100;
    }
}
