//! Sign-in with an OpenID provider: the authorization code flow with PKCE (OpenID Connect Core 1.0,
//! RFC 7636).
//!
//! The browser goes to the provider and comes back with a code. The code counts only in the browser
//! that began the attempt (a cookie and `state`), once, and within [`LASTS`]. The dashboard takes
//! the code to the provider itself and gets an ID token, which `id_token` checks. Claims of the
//! token say what the person may do. No token of the provider is kept.

use std::{collections::HashMap, error::Error as _, net::IpAddr, path::PathBuf, sync::Mutex, time::Duration};

use axum::{
    body::Bytes,
    http::{Request, StatusCode, Uri, header},
};
use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use http_body_util::{BodyExt as _, Limited};
use hyper_tls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use service::{
    lock,
    secret::Password,
    settings,
    settings::{NOT_EMPTY, Text},
};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{
    id_token::{self, Expected, Keys, texts},
    tokens::{Role, Token, Unfit, hash, is_same},
};

/// Where the provider sends browsers back to.
pub const CALLBACK: &str = "/oidc-callback";
/// Longest time between the begin of an attempt and its end.
pub const LASTS: Duration = Duration::from_secs(600);
/// Most attempts at once. Beyond it, the oldest is forgotten.
const ATTEMPTS_MAX: usize = 4_096;
/// How long addresses and keys of the provider are believed. A token that names another key has
/// them read again at once.
const KNOWN: Duration = Duration::from_secs(600);
/// Longest wait for an answer of the provider.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Longest answer of the provider, bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Longest log-in of a person, s: as long as the cookie.
const PERSON_S: u64 = 12 * 3_600;

const SAFE_URL: Text =
    Text { must: "be an https:// address, or an http:// address of the loopback interface", holds: is_safe };
const REDIRECT: Text = Text {
    must: "be the https:// address of the page, with /oidc-callback at its end",
    holds: |url| is_safe(url) && url.ends_with(CALLBACK),
};

settings! {
    /// Section `[serve.oidc]`.
    pub struct Settings {
        /// Address of the provider, exactly as its tokens name it (`iss`). The addresses of its
        /// parts are read from `.well-known/openid-configuration` below it
        issuer: String = String::new(), in SAFE_URL;
        /// Name of the dashboard at the provider
        client_id: String = String::new(), in NOT_EMPTY;
        /// File whose first line is the client's secret, read at each log-in. Without it the
        /// dashboard is a public client, which PKCE alone protects
        client_secret_file: Option<PathBuf> = None;
        /// Where the provider sends browsers back to, as registered there, such as
        /// `https://fleet.example/oidc-callback`
        redirect_url: String = String::new(), in REDIRECT;
        /// What the dashboard asks for, separated by blanks. The provider decides which claims come
        /// with it
        scopes: String = "openid".to_owned(), in NOT_EMPTY;
        /// Claim of the ID token with the role: a text or a list, in which exactly one of `viewer`,
        /// `operator`, `manufacturer` and `admin` stands
        role_claim: String = "doseline_role".to_owned(), in NOT_EMPTY;
        /// Claim with the tenants of a viewer or an operator: a text or a list
        tenants_claim: String = "doseline_tenants".to_owned(), in NOT_EMPTY;
        /// Claim with the name of a manufacturer, as in the registry: a text
        manufacturer_claim: String = "doseline_manufacturer".to_owned(), in NOT_EMPTY;
    }
}

/// Whether nobody on the way reads what is sent to an address.
fn is_safe(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return false };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    match uri.scheme_str() {
        Some("https") => !host.is_empty(),
        Some("http") => is_local,
        _ => false,
    }
}

/// Why nobody signs in.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    #[error(
        "This attempt to sign in is not known here, was used already, or began more than 10 minutes ago. Begin again"
    )]
    Attempt,
    #[error("The provider let nobody in: {0}")]
    Denied(String),
    #[error("The provider gives no answer that can be used: {0}")]
    Unreachable(String),
    #[error("The ID token of the provider is refused: {0}")]
    Token(#[from] id_token::Refused),
    #[error("The provider does not say what this person may do: {0}")]
    Claims(String),
}

impl Failed {
    /// The status of an answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Attempt => StatusCode::BAD_REQUEST,
            Self::Unreachable(_) => StatusCode::BAD_GATEWAY,
            Self::Denied(_) | Self::Token(_) | Self::Claims(_) => StatusCode::FORBIDDEN,
        }
    }
}

/// What a provider says about itself.
#[derive(Clone, Debug, Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    end_session_endpoint: Option<String>,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Vec<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

#[derive(Clone, Debug)]
struct Known {
    metadata: Metadata,
    keys: Keys,
    read: Instant,
}

#[derive(Debug)]
struct Attempt {
    state: String,
    nonce: String,
    verifier: String,
    began: Instant,
}

/// The dashboard as a client of a provider.
#[derive(Debug)]
pub struct Oidc {
    settings: Settings,
    client: Client<HttpsConnector<HttpConnector>, String>,
    known: Mutex<Option<Known>>,
    /// By the hash of what the cookie holds.
    attempts: Mutex<HashMap<[u8; 32], Attempt>>,
}

impl Oidc {
    /// Asks nothing yet: the provider may start later.
    pub fn new(settings: Settings) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        let connector = HttpsConnector::new_with_connector(connector);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Self { settings, client, known: Mutex::default(), attempts: Mutex::default() }
    }

    /// Begins an attempt: what the browser's cookie holds, and where the browser goes.
    ///
    /// # Errors
    /// [`Failed::Unreachable`].
    pub async fn begin(&self) -> Result<(String, String), Failed> {
        let Known { metadata, .. } = self.known().await?;
        let random = || format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>());
        let (value, state, nonce, verifier) = (random(), random(), random(), random());
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.settings.client_id)
            .append_pair("redirect_uri", &self.settings.redirect_url)
            .append_pair("scope", &self.settings.scopes)
            .append_pair("state", &state)
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .finish();
        let now = Instant::now();
        let mut attempts = lock(&self.attempts);
        attempts.retain(|_, attempt| now - attempt.began < LASTS);
        if attempts.len() >= ATTEMPTS_MAX
            && let Some(oldest) = attempts.iter().min_by_key(|(_, attempt)| attempt.began).map(|(key, _)| *key)
        {
            attempts.remove(&oldest);
        }
        attempts.insert(hash(&value), Attempt { state, nonce, verifier, began: now });
        Ok((value, with_query(&metadata.authorization_endpoint, &query)))
    }

    /// Ends an attempt with the query that the provider sent the browser back with, and what the
    /// browser's cookie holds. Returns what the person may do.
    ///
    /// # Errors
    /// Nobody signs in.
    pub async fn finish(&self, query: &str, cookie: Option<&str>, now_s: u64) -> Result<Token, Failed> {
        let parameters: HashMap<_, _> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let parameter = |name: &str| parameters.get(name).map(String::as_str);
        let attempt = cookie.and_then(|value| lock(&self.attempts).remove(&hash(value))).ok_or(Failed::Attempt)?;
        let state = parameter("state").unwrap_or_default();
        if attempt.began.elapsed() >= LASTS || !is_same(state.as_bytes(), attempt.state.as_bytes()) {
            return Err(Failed::Attempt);
        }
        let known = self.known().await?;
        let is_named = |issuer: &str| issuer == self.settings.issuer;
        if !parameter("iss").map_or(!known.metadata.authorization_response_iss_parameter_supported, is_named) {
            return Err(Failed::Attempt);
        }
        if let Some(error) = parameter("error") {
            return Err(Failed::Denied(plain(error)));
        }
        let token = self.redeem(&known.metadata, parameter("code").ok_or(Failed::Attempt)?, &attempt.verifier).await?;
        let Settings { issuer, client_id, .. } = &self.settings;
        let expected = Expected { issuer, client_id, nonce: &attempt.nonce, now_s };
        let claims = match id_token::check(&token, &known.keys, &expected) {
            // The provider may have changed its keys since they were read.
            Err(id_token::Refused::UnknownKey) => id_token::check(&token, &self.read().await?.keys, &expected)?,
            outcome => outcome?,
        };
        self.person(&claims, now_s)
    }

    /// Where a person signs out of the provider, if it has said so.
    pub fn end_of_session(&self) -> Option<String> {
        let end = lock(&self.known).as_ref()?.metadata.end_session_endpoint.clone()?;
        let query =
            form_urlencoded::Serializer::new(String::new()).append_pair("client_id", &self.settings.client_id).finish();
        Some(with_query(&end, &query))
    }

    /// Takes a code to the provider. Returns the ID token.
    async fn redeem(&self, metadata: &Metadata, code: &str, verifier: &str) -> Result<String, Failed> {
        #[derive(Deserialize)]
        struct Tokens {
            id_token: String,
        }
        let request = {
            let mut form = form_urlencoded::Serializer::new(String::new());
            form.append_pair("grant_type", "authorization_code")
                .append_pair("code", code)
                .append_pair("redirect_uri", &self.settings.redirect_url)
                .append_pair("code_verifier", verifier);
            let mut request = Request::post(&metadata.token_endpoint)
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header(header::ACCEPT, "application/json");
            let id = &self.settings.client_id;
            match Password::of(None, self.settings.client_secret_file.as_deref()) {
                None => drop(form.append_pair("client_id", id)),
                Some(file) => {
                    let unread = |error| Failed::Unreachable(format!("serve.oidc.client_secret_file: {error}"));
                    let secret = file.read().map_err(unread)?;
                    let methods = &metadata.token_endpoint_auth_methods_supported;
                    let takes = |name: &str| methods.iter().any(|method| method == name);
                    if takes("client_secret_post") && !takes("client_secret_basic") {
                        form.append_pair("client_id", id).append_pair("client_secret", secret.reveal());
                    } else {
                        let coded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                        let pair = STANDARD.encode(format!("{}:{}", coded(id), coded(secret.reveal())));
                        request = request.header(header::AUTHORIZATION, format!("Basic {pair}"));
                    }
                }
            }
            request.body(form.finish())
        };
        let tokens: Tokens = self.answer("the token", request).await?;
        Ok(tokens.id_token)
    }

    /// What is known of the provider, read at most [`KNOWN`] ago.
    async fn known(&self) -> Result<Known, Failed> {
        let known = lock(&self.known).clone().filter(|known| known.read.elapsed() < KNOWN);
        match known {
            Some(known) => Ok(known),
            None => self.read().await,
        }
    }

    async fn read(&self) -> Result<Known, Failed> {
        let issuer = &self.settings.issuer;
        let address = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
        let metadata: Metadata = self.answer("its configuration", Request::get(address).body(String::new())).await?;
        if metadata.issuer != *issuer {
            let text = format!("it calls itself {:?}, and serve.oidc.issuer is {issuer:?}", metadata.issuer);
            return Err(Failed::Unreachable(text));
        }
        let Metadata { authorization_endpoint, token_endpoint, jwks_uri, end_session_endpoint, .. } = &metadata;
        let used = [authorization_endpoint, token_endpoint, jwks_uri].into_iter().chain(end_session_endpoint);
        if let Some(unsafe_one) = used.into_iter().find(|url| !is_safe(url)) {
            return Err(Failed::Unreachable(format!("its configuration names {unsafe_one:?}, which has no TLS")));
        }
        let keys = self.answer("its keys", Request::get(jwks_uri).body(String::new())).await?;
        let known = Known { metadata, keys, read: Instant::now() };
        *lock(&self.known) = Some(known.clone());
        Ok(known)
    }

    /// The JSON that the provider answers with.
    async fn answer<T: DeserializeOwned>(
        &self,
        what: &str,
        request: axum::http::Result<Request<String>>,
    ) -> Result<T, Failed> {
        let failed = |text: String| Failed::Unreachable(format!("{what}: {text}"));
        let request = request.map_err(|error| failed(error.to_string()))?;
        let asked = tokio::time::timeout(ANSWER_WITHIN, self.send(request)).await;
        let (status, body) =
            asked.map_err(|_| failed(format!("no answer within {} s", ANSWER_WITHIN.as_secs())))?.map_err(failed)?;
        if !status.is_success() {
            let error = serde_json::from_slice::<Map<String, Value>>(&body).ok();
            let error = error.as_ref().and_then(|error| error.get("error")?.as_str()).map(plain);
            return Err(failed(format!("it answered {status} {}", error.unwrap_or_default())));
        }
        serde_json::from_slice(&body).map_err(|error| failed(format!("the answer is not as it should be: {error}")))
    }

    async fn send(&self, request: Request<String>) -> Result<(StatusCode, Bytes), String> {
        let response = self.client.request(request).await.map_err(|error| {
            let reason = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            format!("{error}{reason}")
        })?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
    }

    /// What a person may do by the claims of an ID token.
    fn person(&self, claims: &Map<String, Value>, now_s: u64) -> Result<Token, Failed> {
        let Settings { role_claim, tenants_claim, manufacturer_claim, .. } = &self.settings;
        let refused = |text: String| Err(Failed::Claims(text));
        let mut roles: Vec<Role> = texts(claims.get(role_claim)).into_iter().filter_map(Role::named).collect();
        roles.dedup();
        let [role] = roles[..] else {
            let found = if roles.is_empty() { "no role" } else { "several roles" };
            return refused(format!(
                "the claim {role_claim:?} has {found}; it needs one of viewer, operator, manufacturer and admin"
            ));
        };
        let (mut tenants, mut manufacturer) = (Vec::new(), String::new());
        match role {
            Role::Viewer | Role::Operator => {
                tenants = texts(claims.get(tenants_claim)).into_iter().map(str::to_owned).collect();
                if tenants.is_empty() {
                    return refused(format!("the claim {tenants_claim:?} has no tenant, which a {role} needs"));
                }
            }
            Role::Manufacturer => {
                let found = claims.get(manufacturer_claim).and_then(Value::as_str).unwrap_or_default();
                manufacturer = found.trim().to_owned();
                if manufacturer.is_empty() {
                    return refused(format!("the claim {manufacturer_claim:?} has no name of a manufacturer"));
                }
            }
            Role::Admin => {}
        }
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        Token::of_person(format!("oidc:{subject}"), role, tenants, manufacturer, now_s, now_s + PERSON_S)
            .map_err(|Unfit(text)| Failed::Claims(text))
    }
}

/// An error code of a provider, without what could be anything else.
fn plain(code: &str) -> String {
    code.chars().filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_').take(64).collect()
}

fn with_query(address: &str, query: &str) -> String {
    let separator = if address.contains('?') { '&' } else { '?' };
    format!("{address}{separator}{query}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use service::settings::Section as _;

    use super::*;

    fn settings() -> Settings {
        Settings {
            issuer: "https://id.example".to_owned(),
            client_id: "doseline".to_owned(),
            redirect_url: "https://fleet.example/oidc-callback".to_owned(),
            ..Settings::default()
        }
    }

    #[test]
    fn addresses_have_tls_or_stay_on_this_machine() {
        assert_eq!(settings().faults(), Vec::new());
        let faults = |change: &dyn Fn(&mut Settings)| {
            let mut settings = settings();
            change(&mut settings);
            settings.faults().into_iter().map(|(key, _)| key).collect::<Vec<_>>()
        };
        for issuer in ["", "http://id.example", "ftp://localhost", "id.example", "http://localhost.example"] {
            assert_eq!(faults(&|settings| settings.issuer = issuer.to_owned()), ["issuer"], "{issuer}");
        }
        for issuer in ["http://localhost:1", "http://127.0.0.1:1/realm", "http://[::1]:1", "https://id.example/realm"] {
            assert!(faults(&|settings| settings.issuer = issuer.to_owned()).is_empty(), "{issuer}");
        }
        for url in ["", "https://fleet.example/", "http://fleet.example/oidc-callback", "/oidc-callback"] {
            assert_eq!(faults(&|settings| settings.redirect_url = url.to_owned()), ["redirect_url"], "{url}");
        }
        assert_eq!(Settings::default().faults().len(), 3, "what has no default must be given");
    }

    #[test]
    fn claims_say_what_a_person_may_do() {
        let oidc = Oidc::new(settings());
        let person = |claims: Value| {
            let mut all = json!({ "sub": "u-1" });
            all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
            oidc.person(all.as_object().unwrap(), 100).map_err(|error| error.to_string())
        };
        let viewer = person(json!({ "doseline_role": "viewer", "doseline_tenants": "acme" })).unwrap();
        assert_eq!((viewer.id.as_str(), viewer.role), ("oidc:u-1", Role::Viewer));
        assert_eq!((viewer.tenants, viewer.expires_s), (vec!["acme".to_owned()], 100 + PERSON_S));
        let groups = json!({ "doseline_role": ["staff", "operator"], "doseline_tenants": ["a", "b"] });
        assert_eq!(person(groups).unwrap().tenants, ["a", "b"]);
        let maker =
            json!({ "doseline_role": "manufacturer", "doseline_manufacturer": "A maker", "doseline_tenants": "x" });
        let maker = person(maker).unwrap();
        assert_eq!((maker.manufacturer.as_str(), maker.tenants.len()), ("A maker", 0));
        assert_eq!(person(json!({ "doseline_role": "admin" })).unwrap().role, Role::Admin);
        for (claims, said) in [
            (json!({}), "\"doseline_role\" has no role"),
            (json!({ "doseline_role": "owner" }), "has no role; it needs one of viewer"),
            (json!({ "doseline_role": "Admin" }), "has no role"),
            (json!({ "doseline_role": 7 }), "has no role"),
            (json!({ "doseline_role": ["viewer", "admin"] }), "has several roles"),
            (json!({ "doseline_role": "viewer" }), "\"doseline_tenants\" has no tenant"),
            (json!({ "doseline_role": "operator", "doseline_tenants": [] }), "has no tenant"),
            (json!({ "doseline_role": "viewer", "doseline_tenants": ["it's"] }), "must match"),
            (json!({ "doseline_role": "viewer", "doseline_tenants": vec!["a"; 33] }), "at most 32"),
            (json!({ "doseline_role": "manufacturer" }), "\"doseline_manufacturer\" has no name"),
            (json!({ "doseline_role": "manufacturer", "doseline_manufacturer": ["a"] }), "has no name"),
        ] {
            let error = person(claims.clone()).unwrap_err();
            assert!(error.contains(said), "{claims}: {error}");
        }
    }
}
