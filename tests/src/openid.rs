//! An OpenID provider (`oidc-provider` from npm), and a browser that signs in there.

use std::{collections::HashMap, fs, os::unix::fs::symlink, process::Command, time::Duration};

use nix::sys::signal::Signal;

use crate::{Process, Scratch, locate, poll};

const WITHIN: Duration = Duration::from_secs(60);
/// Most pages between the begin of a log-in and its end. A log-in has six.
const PAGES_MAX: usize = 20;

/// A provider on 127.0.0.1, whose accounts `tests/oidc/provider.mjs` describes.
pub struct OpenId {
    process: Process,
    port: u16,
    rotations: usize,
    // Deleted last.
    _scratch: Scratch,
}

impl OpenId {
    /// Starts it, with one client called `doseline`, its secret, and the addresses to which it may
    /// send browsers back.
    pub fn start(port: u16, callbacks: &[String], secret: &str) -> Self {
        let scratch = Scratch::new("openid");
        fs::copy(locate::checkout("tests/oidc/provider.mjs"), scratch.join("provider.mjs")).expect("copy the script");
        let modules = locate::engine("oidc-provider-1").join("node_modules");
        symlink(modules, scratch.join("node_modules")).expect("link the modules");
        let mut command = Command::new("node");
        command.arg(scratch.join("provider.mjs")).arg(port.to_string()).arg(callbacks.join(",")).arg(secret);
        let process = Process::start("the OpenID provider", command, &scratch.join("log"), None);
        let mut provider = Self { process, port, rotations: 0, _scratch: scratch };
        provider.wait_for("ready", 1);
        provider
    }

    /// Its name, and the address of its parts.
    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Signs with new keys from now on, and publishes no others.
    pub fn rotate_keys(&mut self) {
        self.process.signal(Signal::SIGHUP);
        self.rotations += 1;
        self.wait_for("new keys", self.rotations);
    }

    fn wait_for(&mut self, line: &str, times: usize) {
        poll(WITHIN, "the OpenID provider", || {
            self.process.alive()?;
            let found = self.process.log().lines().filter(|found| *found == line).count();
            if found == times { Ok(()) } else { Err(format!("{found} times {line:?}")) }
        });
    }

    /// Signs in as a new browser would, from the address to which a client sent it. Returns the
    /// address to which the provider sends the browser back. Without an account, the person
    /// declines.
    pub fn sign_in(&self, begin: &str, account: Option<&str>) -> String {
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(WITHIN))
            .build()
            .new_agent();
        let (mut cookies, mut url, mut form) = (HashMap::new(), begin.to_owned(), None::<String>);
        for _ in 0..PAGES_MAX {
            if !url.starts_with(&self.issuer()) {
                return url;
            }
            let jar: Vec<_> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let answer = match form.take() {
                None => agent.get(&url).header("cookie", jar.join("; ")).call(),
                Some(form) => agent
                    .post(&url)
                    .header("cookie", jar.join("; "))
                    .header("content-type", "application/x-www-form-urlencoded")
                    .send(form),
            };
            let mut answer = answer.expect("an answer of the provider");
            for set in answer.headers().get_all("set-cookie") {
                let pair = set.to_str().expect("a cookie").split(';').next().expect("a pair");
                let (name, value) = pair.split_once('=').expect("a pair");
                cookies.insert(name.to_owned(), value.to_owned());
            }
            if let Some(location) = answer.headers().get("location") {
                url = self.absolute(location.to_str().expect("an address"));
                continue;
            }
            let status = answer.status();
            let page = answer.body_mut().read_to_string().expect("a page");
            assert!(status.is_success(), "the provider answered {status}: {page}");
            let Some(account) = account else {
                url = self.absolute(between(&page, "href=\"", "/abort\"")) + "/abort";
                continue;
            };
            url = self.absolute(between(&page, "action=\"", "\""));
            let prompt = between(&page, "name=\"prompt\" value=\"", "\"");
            form = Some(format!("prompt={prompt}&login={account}&password=any"));
        }
        panic!("the provider sends the browser in circles; last to {url}");
    }

    fn absolute(&self, address: &str) -> String {
        if address.starts_with('/') { format!("{}{address}", self.issuer()) } else { address.to_owned() }
    }
}

#[track_caller]
fn between<'a>(page: &'a str, before: &str, after: &str) -> &'a str {
    let mut found = page.split(before).skip(1).filter_map(|rest| rest.split_once(after)).map(|(found, _)| found);
    found.find(|found| !found.contains('"')).unwrap_or_else(|| panic!("{before}: {page}"))
}
