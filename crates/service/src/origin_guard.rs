//! The guard of an HTTP port. It refuses requests that the page of another site makes a browser on
//! this machine send, and it forbids browsers to give an answer to such a page.
//!
//! - `Host` must name this port. In an attack by DNS rebinding, the DNS name of the page points at
//!   this machine. Page and port are then one site for the browser; only the name in `Host`
//!   differs.
//! - `Sec-Fetch-Site`, which browsers add and no page can change, must be `same-origin` or `none`
//!   (typed by a person). A page of another site may send the browser to one path at most, as an
//!   OpenID provider does after a log-in; what answers there has to recognise the browser itself.
//! - `Origin`, which a form sends, must be this port: scheme, host and port.
//!
//! Programs such as `curl` and Prometheus send neither of the last two.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};

/// The default policy of an answer: it may load nothing, and no page may show it in a frame.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
const FORWARDED_SCHEME: HeaderName = HeaderName::from_static("x-forwarded-proto");
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The guard of one port.
#[derive(Clone, Debug)]
pub struct OriginGuard {
    address: SocketAddr,
    names: Arc<[String]>,
    is_tls: bool,
    /// A path to which the page of another site may send a browser.
    landing: Option<&'static str>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// 421 for another `Host`, 403 for the page of another site.
    pub status: StatusCode,
    /// The text of the answer.
    pub text: &'static str,
}

const HOST: Refusal = Refusal {
    status: StatusCode::MISDIRECTED_REQUEST,
    text: "The Host of this request is not an address of this port; http.names lists the names it may be called by",
};
const SITE: Refusal = Refusal { status: StatusCode::FORBIDDEN, text: "Requests of pages of other sites are refused" };

impl OriginGuard {
    /// The guard of a listener. `names` are host names by which it may be called, with any port,
    /// such as those of a proxy or a container.
    pub fn new(address: SocketAddr, names: &[String]) -> Self {
        Self {
            address,
            names: names.iter().map(|name| name.to_ascii_lowercase()).collect(),
            is_tls: false,
            landing: None,
        }
    }

    /// Whether the port itself speaks HTTPS. Its pages have that scheme then, and no other.
    #[must_use]
    pub fn over_tls(self, is_tls: bool) -> Self {
        Self { is_tls, ..self }
    }

    /// Whether there is a path to which the page of another site may send a browser.
    #[must_use]
    pub fn landing_at(self, landing: Option<&'static str>) -> Self {
        Self { landing, ..self }
    }

    /// Decides whether a request may enter.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn admit(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(header::HOST).iter().map(HeaderValue::to_str);
        let host = hosts.next().and_then(Result::ok).filter(|_| hosts.next().is_none()).ok_or(HOST)?;
        if !self.is_own(host) || uri.authority().is_some_and(|authority| authority.as_str() != host) {
            return Err(HOST);
        }
        let is_own_site = |site: &HeaderValue| site == "same-origin" || site == "none";
        let is_own_origin = |origin: &HeaderValue| {
            let page = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
            page.is_some_and(|(scheme, page)| page.eq_ignore_ascii_case(host) && self.serves(scheme, host, headers))
        };
        // A whole page that the browser goes to. Its sender does not see the answer.
        let lands = self.landing == Some(uri.path())
            && headers.get(SEC_FETCH_MODE).is_some_and(|mode| mode == "navigate")
            && headers.get(SEC_FETCH_DEST).is_some_and(|dest| dest == "document");
        if (lands || headers.get_all(SEC_FETCH_SITE).iter().all(is_own_site))
            && headers.get_all(header::ORIGIN).iter().all(is_own_origin)
        {
            return Ok(());
        }
        Err(SITE)
    }

    /// Whether pages of a host that names this port have this scheme. In front of a configured name
    /// of a port that speaks `http`, there may be a proxy that speaks `https`, and that may say so
    /// in a header.
    fn serves(&self, scheme: &str, host: &str, headers: &HeaderMap) -> bool {
        if self.is_tls {
            return scheme == "https";
        }
        if !self.is_name(&host.to_ascii_lowercase()) {
            return scheme == "http";
        }
        match headers.get(FORWARDED_SCHEME) {
            Some(forwarded) => forwarded == scheme,
            None => scheme == "http" || scheme == "https",
        }
    }

    /// Whether a host, in lower case, is one of the names, with any port unless the name has one.
    fn is_name(&self, host: &str) -> bool {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        self.names.iter().any(|own| own == name || own == host)
    }

    /// Whether a `Host` names this port: by one of the names, or by the port on the loopback
    /// interface or on the bound address. If every address is bound, any IP address will do: an
    /// attack by DNS rebinding needs a DNS name in the URL.
    fn is_own(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        if self.is_name(&host) {
            return true;
        }
        if host.parse::<IpAddr>().is_ok() || !host.contains(':') || host.ends_with(']') {
            let usual = if self.is_tls { 443 } else { 80 };
            return self.address.port() == usual && self.is_own(&format!("{host}:{usual}"));
        }
        if let Some(port) = host.strip_prefix("localhost:") {
            return port.parse() == Ok(self.address.port());
        }
        let bound = self.address.ip();
        host.parse::<SocketAddr>().is_ok_and(|host| {
            host.port() == self.address.port()
                && (host.ip().is_loopback() || host.ip() == bound || bound.is_unspecified())
        })
    }

    /// Puts the guard in front of a router.
    pub(crate) fn protect(self, router: Router) -> Router {
        router.layer(middleware::from_fn(move |request: Request, next: Next| {
            let admitted = self.admit(request.uri(), request.headers());
            async move {
                let mut response: Response = match admitted {
                    Ok(()) => next.run(request).await,
                    Err(Refusal { status, text }) => (status, format!("{text}\n")).into_response(),
                };
                shield(response.headers_mut());
                response
            }
        }))
    }
}

/// Adds the headers that every answer has for browsers. A content policy that is set already stays.
pub fn shield(headers: &mut HeaderMap) {
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(POLICY));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(address: &str, names: &[&str], headers: &[(&str, &str)]) -> u16 {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let guard = OriginGuard::new(address.parse().unwrap(), &names);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        guard.admit(&Uri::from_static("/"), &map).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn a_host_must_name_this_port() {
        let check = |address: &str, names: &[&str], host: &str, status: u16| {
            assert_eq!(admit(address, names, &[("host", host)]), status, "{host} at {address}");
        };
        for host in ["127.0.0.1:8123", "127.9.9.9:8123", "localhost:8123", "LocalHost:8123", "[::1]:8123"] {
            check("127.0.0.1:8123", &[], host, 200);
        }
        for host in [
            "rebound.example:8123",
            "localhost.rebound.example:8123",
            "127.0.0.1.rebound.example:8123",
            "localhost",
            "localhost:8124",
            "127.0.0.1",
            "127.0.0.1:80",
            "192.0.2.1:8123",
            "[::2]:8123",
            "::1",
            "2130706433:8123",
            "user@localhost:8123",
            "",
            ":8123",
        ] {
            check("127.0.0.1:8123", &[], host, 421);
        }
        check("192.0.2.1:9600", &[], "192.0.2.1:9600", 200);
        check("192.0.2.1:9600", &[], "192.0.2.2:9600", 421);
        check("0.0.0.0:9600", &[], "192.0.2.2:9600", 200);
        check("0.0.0.0:9600", &[], "rebound.example:9600", 421);
        check("0.0.0.0:9600", &["Fleet.example"], "fleet.example", 200);
        check("0.0.0.0:9600", &["fleet.example"], "fleet.example:443", 200);
        check("0.0.0.0:9600", &["fleet.example"], "not-fleet.example", 421);
        check("127.0.0.1:80", &[], "localhost", 200);
        check("127.0.0.1:80", &[], "[::1]", 200);
        assert_eq!(admit("127.0.0.1:1", &[], &[]), 421);
        assert_eq!(admit("127.0.0.1:1", &[], &[("host", "localhost:1"), ("host", "evil:1")]), 421);
        let uri = Uri::from_static("http://rebound.example:1/");
        let host = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("localhost:1"))]);
        assert!(OriginGuard::new("127.0.0.1:1".parse().unwrap(), &[]).admit(&uri, &host).is_err());
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let check = |name: &str, value: &str, status: u16| {
            let headers = [("host", "localhost:8123"), (name, value)];
            assert_eq!(admit("127.0.0.1:8123", &[], &headers), status, "{name}: {value}");
        };
        check("sec-fetch-site", "same-origin", 200);
        check("sec-fetch-site", "none", 200);
        for site in ["cross-site", "same-site", "", "anything"] {
            check("sec-fetch-site", site, 403);
        }
        check("origin", "http://localhost:8123", 200);
        for origin in [
            "http://elsewhere.example",
            "null",
            "http://127.0.0.1:8123",
            "http://localhost:9600",
            "https://localhost:8123",
            "chrome-extension://localhost:8123",
            "",
        ] {
            check("origin", origin, 403);
        }
        // Before a name there may be a proxy with TLS.
        let proxied = |origin: &str, scheme: Option<&str>, status: u16| {
            let forwarded = scheme.map(|scheme| ("x-forwarded-proto", scheme));
            let headers: Vec<_> =
                [("host", "fleet.example"), ("origin", origin)].into_iter().chain(forwarded).collect();
            assert_eq!(admit("127.0.0.1:9600", &["fleet.example"], &headers), status, "{origin} {scheme:?}");
        };
        proxied("https://fleet.example", None, 200);
        proxied("https://fleet.example", Some("https"), 200);
        proxied("http://fleet.example", Some("https"), 403);
        proxied("https://fleet.example:8443", None, 403);
        proxied("ftp://fleet.example", None, 403);
    }

    #[test]
    fn pages_of_a_port_with_tls_have_its_scheme() {
        let check = |address: &str, headers: &[(HeaderName, &str)], admitted: bool| {
            let guard = OriginGuard::new(address.parse().unwrap(), &["fleet.example".to_owned()]).over_tls(true);
            let map = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
            let map = HeaderMap::from_iter(map);
            assert_eq!(guard.admit(&Uri::from_static("/"), &map).is_ok(), admitted, "{headers:?} at {address}");
        };
        for host in ["fleet.example", "127.0.0.1:9600"] {
            check("127.0.0.1:9600", &[(header::HOST, host), (header::ORIGIN, &format!("https://{host}"))], true);
            let plain = format!("http://{host}");
            check("127.0.0.1:9600", &[(header::HOST, host), (header::ORIGIN, &plain)], false);
            let forwarded = [(header::HOST, host), (header::ORIGIN, &plain), (FORWARDED_SCHEME, "http")];
            check("127.0.0.1:9600", &forwarded, false);
        }
        check("127.0.0.1:443", &[(header::HOST, "localhost")], true);
        check("127.0.0.1:80", &[(header::HOST, "localhost")], false);
    }

    #[test]
    fn another_site_sends_a_browser_to_one_path_at_most() {
        let check = |path: &'static str, pairs: &[(&str, &str)], admitted: bool| {
            let guard = OriginGuard::new("127.0.0.1:9600".parse().unwrap(), &[]);
            let host = [("host", "localhost:9600"), ("sec-fetch-site", "cross-site")];
            let map =
                HeaderMap::from_iter(host.iter().chain(pairs).map(|(name, value)| {
                    (HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap())
                }));
            let uri = Uri::from_static(path);
            assert!(guard.admit(&uri, &map).is_err(), "a port without such a path");
            let landing = guard.landing_at(Some("/callback"));
            assert_eq!(landing.admit(&uri, &map).is_ok(), admitted, "{path} {pairs:?}");
        };
        let whole = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        check("/callback?code=1", &whole, true);
        check("/callback/", &whole, false);
        check("/", &whole, false);
        check("/callback", &[], false);
        check("/callback", &[("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "script")], false);
        check("/callback", &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")], false);
        check("/callback", &[whole[0], whole[1], ("origin", "https://elsewhere.example")], false);
    }

    #[test]
    fn every_answer_is_shielded() {
        let mut headers = HeaderMap::new();
        shield(&mut headers);
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["cross-origin-resource-policy"], "same-origin");
        assert!(headers["content-security-policy"].to_str().unwrap().contains("frame-ancestors 'none'"));
    }
}
