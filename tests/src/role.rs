//! A sub-command of doseline that serves HTTP.

use std::time::Duration;

use crate::{Doseline, Process, Signal, free_port, poll, usage};

/// Largest answer that is read, bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 28;

/// `bridge`, `load`, `monitor` or `serve`, with its own HTTP port.
pub(crate) struct Role {
    pub doseline: Doseline,
    name: String,
    address: String,
    agent: ureq::Agent,
}

impl Role {
    /// Starts it on a configuration, with further settings from the environment. `answer_within`
    /// bounds the wait for its answers.
    pub fn start(name: &str, configuration: &str, environment: &[(&str, &str)], answer_within: Duration) -> Self {
        let address = format!("127.0.0.1:{}", free_port());
        let variable = format!("DOSELINE__{}__HTTP", name.to_uppercase());
        let environment: Vec<_> = environment.iter().copied().chain([(variable.as_str(), address.as_str())]).collect();
        let doseline = Doseline::start_with(&[name, "--config", configuration], &environment);
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(answer_within))
            .build()
            .new_agent();
        Self { doseline, name: name.to_owned(), address, agent }
    }

    /// Waits until its `/readyz` succeeds.
    pub fn wait_until_ready(&mut self, within: Duration) {
        poll(within, &format!("{} to be ready", self.name), || {
            self.doseline.process().alive().unwrap_or_else(|ended| panic!("{ended}"));
            match self.get("/readyz") {
                Ok((true, _)) => Ok(()),
                Ok((false, obstacles)) => Err(obstacles),
                Err(error) => Err(error.to_string()),
            }
        });
    }

    /// The answer to GET: whether its status is a success, and its text.
    pub fn get(&self, path: &str) -> Result<(bool, String), ureq::Error> {
        let mut answer = self.agent.get(format!("http://{}{path}", self.address)).call()?;
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?;
        Ok((answer.status().is_success(), text))
    }

    /// Sum of a metric over its labels.
    pub fn metric(&self, name: &str) -> Result<f64, ureq::Error> {
        let (_, text) = self.get("/metrics")?;
        let value = |line: &str| {
            let (sample, value) = line.rsplit_once(' ')?;
            (sample.split('{').next()? == name).then(|| value.parse::<f64>().ok())?
        };
        Ok(text.lines().filter_map(value).sum())
    }

    /// Its process, for signals.
    pub fn process(&mut self) -> &mut Process {
        self.doseline.process()
    }

    /// Its process id.
    pub fn id(&mut self) -> u32 {
        self.process().id()
    }

    /// Sends a signal to its process group.
    pub fn signal(&mut self, signal: Signal) {
        self.process().signal(signal);
    }

    /// CPU time so far, s.
    pub fn cpu_s(&mut self) -> f64 {
        usage::cpu_s(self.id())
    }

    /// Greatest resident memory so far, MiB.
    pub fn rss_peak_mib(&mut self) -> f64 {
        usage::rss_peak_mib(self.id())
    }

    /// Stops it with SIGTERM, and waits for its end.
    pub fn stop(&mut self) {
        let (status, _) = self.doseline.stop(Duration::from_secs(60));
        assert!(status.success(), "it ended with {status}");
    }

    /// Kills it with SIGKILL.
    pub fn kill(&mut self) {
        self.doseline.kill();
    }
}
