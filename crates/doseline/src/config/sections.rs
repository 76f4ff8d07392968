//! Sections of the configuration that belong to no role, or to more than one.

use std::{net::SocketAddr, path::PathBuf};

use dashboard::access::oidc;
use serde::{Deserialize, Serialize};
use service::{
    secret::{Password, Secret},
    settings,
    settings::HTTP_URL,
    tls::ServerTls,
};

settings! {
    /// Section `[log]`.
    pub struct Log {
        /// Form of the log: `text` for people, `json` for collectors
        format: LogFormat = LogFormat::Text;
        /// Levels by target, such as `info,bridge=debug`. More detail costs CPU time
        filter: String = "info".to_owned();
    }
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line for each message.
    Text,
    /// One JSON object for each message.
    Json,
}

settings! {
    /// Section `[clickhouse]`.
    pub struct ClickHouse {
        /// Address of ClickHouse's HTTP interface
        url: String = "http://localhost:8123".to_owned(), in HTTP_URL;
        /// User name
        username: String = "default".to_owned();
        /// Password; better given in `password_file` or in `DOSELINE__CLICKHOUSE__PASSWORD`
        password: Option<Secret> = None;
        /// File whose first line is the password. It is read for each request, so a new password
        /// needs no restart
        password_file: Option<PathBuf> = None;
        /// Whether `migrate` makes ClickHouse sync each insert to disk. Inserts then survive a
        /// power loss and take longer
        fsync: bool = true;
    }
}

impl ClickHouse {
    /// The password, or the file that it stands in.
    pub fn password(&self) -> Option<Password> {
        Password::of(self.password.as_ref(), self.password_file.as_deref())
    }
}

settings! {
    /// Section `[serve]`.
    pub struct Serve {
        /// Address of the dashboard
        http: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 9_600));
        /// Who may ask. `none`: everybody who reaches the port, so `serve.http` must be an address
        /// of the loopback interface. `tokens`: holders of a token of `serve.tokens_file`. `oidc`:
        /// persons whom an OpenID provider knows (`serve.oidc`), and holders of a token if
        /// `serve.tokens_file` is given: [interface](api.md#who-asks)
        auth: ServeAuth = ServeAuth::None;
        /// File of the tokens, which `doseline token` writes and only its owner may read. A change
        /// counts at once
        tokens_file: Option<PathBuf> = None;
        /// The OpenID provider: see [OpenID Connect](#openid-connect)
        oidc: Option<oidc::Settings> = None;
        /// Certificate and key of the port: see [TLS](#tls). Without it the port speaks HTTP
        tls: Option<ServerTls> = None;
        /// Whether a proxy with TLS stands before the port. Outside of the loopback interface, a
        /// port without `serve.tls` needs it: tokens and medical data would otherwise cross the
        /// network unencrypted
        behind_proxy: bool = false;
        /// Requests of one token, per minute; as many may come at once. Beyond it, the answer is
        /// 429
        requests_per_min: u32 = 1_200, in 1..=1_000_000;
    }
}

/// Who may ask the dashboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServeAuth {
    /// Everybody who reaches the port.
    None,
    /// Holders of a token.
    Tokens,
    /// Persons whom an OpenID provider knows.
    Oidc,
}

impl Serve {
    /// Settings that contradict each other, as (key, what is wrong and what would be right).
    pub fn conflicts(&self) -> Option<(&'static str, String)> {
        let (key, text) = match self.auth {
            ServeAuth::Tokens if self.tokens_file.is_none() => (
                "tokens_file",
                "name the file in which `doseline token` keeps the tokens; serve.auth = \"tokens\" needs it",
            ),
            ServeAuth::Oidc if self.oidc.is_none() => {
                ("oidc", "name issuer, client_id and redirect_url in [serve.oidc]; serve.auth = \"oidc\" needs them")
            }
            _ => return None,
        };
        Some((key, text.to_owned()))
    }

    /// What is wrong if the network could read what the port answers.
    pub fn exposure(&self) -> Option<(&'static str, String)> {
        let address = self.http;
        if address.ip().is_loopback() {
            return None;
        }
        if self.auth == ServeAuth::None {
            let text = format!(
                "\"none\" lets everybody who reaches {address} read medical data; set \"tokens\" and serve.tokens_file, or an \
                 address of the loopback interface in serve.http"
            );
            return Some(("auth", text));
        }
        (self.tls.is_none() && !self.behind_proxy).then(|| {
            let text = format!(
                "at {address} tokens and medical data would be sent without TLS; set serve.tls.certificate and \
                 serve.tls.key, or true here if a proxy with TLS stands before this port"
            );
            ("behind_proxy", text)
        })
    }
}

settings! {
    /// Section `[http]`: every HTTP port.
    pub struct Http {
        /// Host names by which every HTTP port may be called besides its address and `localhost`,
        /// such as those of a proxy or a container. A request for another name is refused (421)
        names: Vec<String> = Vec::new();
    }
}

settings! {
    /// Section `[quarantine]`.
    pub struct Quarantine {
        /// Rows in quarantine. The loader warns at 80 % and reports an error at 100 %; nothing is
        /// deleted by itself: [quarantine](quarantine.md)
        rows_max: u64 = 1_000_000, in 1..;
        /// Payloads in quarantine, MiB, with the same alarms
        mib_max: u32 = 1_024, in 1..;
        /// Age of the oldest row in quarantine, days, with the same alarms. `quarantine purge`
        /// refuses younger rows. At least `kafka.retention_days`
        age_days_max: u32 = 90, in 1..;
    }
}
