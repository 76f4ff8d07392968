//! The port with a certificate. None of it needs ClickHouse.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use dashboard::{Dashboard, access::Auth, access::tokens::Role};
use harness::{Certificates, Doseline, Scratch, poll};
use openssl::{
    asn1::Asn1Time,
    bn::BigNum,
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    ssl::{SslConnector, SslMethod, SslVersion},
    symm::Cipher,
    x509::{X509, X509NameBuilder, extension::SubjectAlternativeName},
};
use service::tls::ServerTls;

use super::{Served, nowhere};

const OFTEN: u32 = 1_000_000;
const WITHIN: Duration = Duration::from_secs(60);
const DAY_S: i64 = 86_400;

/// A certificate that signs itself, for `127.0.0.1`, and its key.
fn pair(serial: u32, from_s: i64, to_s: i64) -> (X509, PKey<Private>) {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).expect("a curve");
    let key = PKey::from_ec_key(EcKey::generate(&group).expect("a key")).expect("a key");
    let mut name = X509NameBuilder::new().expect("a name");
    name.append_entry_by_text("CN", "test").expect("a name");
    let (name, now) = (name.build(), now_s());
    let mut builder = X509::builder().expect("a certificate");
    builder.set_version(2).expect("version 3");
    builder.set_serial_number(&BigNum::from_u32(serial).unwrap().to_asn1_integer().unwrap()).expect("a number");
    builder.set_subject_name(&name).expect("a subject");
    builder.set_issuer_name(&name).expect("an issuer");
    builder.set_pubkey(&key).expect("a key");
    builder.set_not_before(&Asn1Time::from_unix(now + from_s).expect("a time")).expect("a time");
    builder.set_not_after(&Asn1Time::from_unix(now + to_s).expect("a time")).expect("a time");
    let names = SubjectAlternativeName::new().ip("127.0.0.1").build(&builder.x509v3_context(None, None));
    builder.append_extension(names.expect("names")).expect("names");
    builder.sign(&key, MessageDigest::sha256()).expect("a signature");
    (builder.build(), key)
}

fn now_s() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_secs()).expect("a time")
}

/// Writes a pair into a folder.
fn write(folder: &Path, (certificate, key): &(X509, PKey<Private>)) -> ServerTls {
    let files = ServerTls { certificate: folder.join("page.pem"), key: folder.join("page.key") };
    fs::write(&files.certificate, certificate.to_pem().expect("PEM")).expect("write the certificate");
    fs::write(&files.key, key.private_key_to_pem_pkcs8().expect("PEM")).expect("write the key");
    files
}

/// The answer to a request over TLS from a client that trusts `authority`, and the serial number of
/// the certificate that the port showed.
fn ask(address: SocketAddr, authority: &Path, version: SslVersion, request: &str) -> Result<(String, String), String> {
    let mut connector = SslConnector::builder(SslMethod::tls()).expect("a connector");
    connector.set_ca_file(authority).expect("an authority");
    connector.set_min_proto_version(Some(version)).expect("a version");
    connector.set_max_proto_version(Some(version)).expect("a version");
    // Old versions are offered at all only at this level.
    connector.set_cipher_list("DEFAULT:@SECLEVEL=0").expect("ciphers");
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(WITHIN)).expect("a timeout");
    let mut stream = connector.build().connect("127.0.0.1", stream).map_err(|error| error.to_string())?;
    let shown = stream.ssl().peer_certificate().expect("a certificate");
    let serial = shown.serial_number().to_bn().expect("a number").to_dec_str().expect("a number").to_string();
    stream.write_all(request.as_bytes()).expect("send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    Ok((answer, serial))
}

fn get(address: SocketAddr, path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_and_cookies_travel_over_tls() {
    let scratch = Scratch::new("api-tls");
    let files = write(scratch.path(), &pair(1, -DAY_S, DAY_S));
    let served = Served::start_with(nowhere(), OFTEN, Some(files.clone())).await;
    let (token, _) = served.token(Role::Viewer, "acme", 3_600);
    let address = served.address;
    for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
        let bearer = format!("authorization: Bearer {token}\r\n");
        let (answer, _) = ask(address, &files.certificate, version, &get(address, "/api/v1/me", &bearer)).expect("TLS");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("acme"), "{answer}");
    }
    for version in [SslVersion::TLS1, SslVersion::TLS1_1] {
        let error = ask(address, &files.certificate, version, &get(address, "/livez", "")).expect_err("it is too old");
        assert!(error.contains("version") || error.contains("protocol"), "{error}");
    }
    let form = format!("token={token}");
    let log_in = |origin: &str| {
        let request = format!(
            "POST /login HTTP/1.1\r\nhost: {address}\r\norigin: {origin}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{form}",
            form.len()
        );
        ask(address, &files.certificate, SslVersion::TLS1_3, &request).expect("TLS").0
    };
    let answer = log_in(&format!("https://{address}"));
    let cookie = answer.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    assert!(cookie.starts_with("__Host-doseline=") && cookie.ends_with("; Secure"), "{cookie}");
    let headers = format!("cookie: {}\r\n", cookie.split(';').next().expect("a pair"));
    let (me, _) =
        ask(address, &files.certificate, SslVersion::TLS1_3, &get(address, "/api/v1/me", &headers)).expect("TLS");
    assert!(me.contains("\"signed_in\":true"), "{me}");
    // A page without TLS is not a page of this port.
    assert!(log_in(&format!("http://{address}")).starts_with("HTTP/1.1 403"));
}

#[tokio::test(flavor = "multi_thread")]
async fn http_on_a_port_with_tls_is_answered_and_closed() {
    let scratch = Scratch::new("api-tls-plain");
    let files = write(scratch.path(), &pair(1, -DAY_S, DAY_S));
    let served = Served::start_with(nowhere(), OFTEN, Some(files.clone())).await;
    let said = |bytes: &[u8]| {
        let mut stream = TcpStream::connect(served.address).expect("connect");
        stream.set_read_timeout(Some(WITHIN)).expect("a timeout");
        stream.write_all(bytes).expect("send");
        let mut answer = String::new();
        // A connection may be closed with a reset.
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    let answer = said(get(served.address, "/api/v1/me", "").as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    assert!(head.starts_with("HTTP/1.1 400") && body.contains("speaks HTTPS"), "{answer}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
    assert_eq!(said(b"\0\0\0"), "");
    // The first byte of a handshake, and no handshake after it.
    assert!(!said(&[22; 64]).contains("HTTP"));
    let (answer, _) =
        ask(served.address, &files.certificate, SslVersion::TLS1_3, &get(served.address, "/livez", "")).expect("TLS");
    assert!(answer.ends_with("ok\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let scratch = Scratch::new("api-tls-renewal");
    let files = write(scratch.path(), &pair(1, -DAY_S, DAY_S));
    let served = Served::start_with(nowhere(), OFTEN, Some(files.clone())).await;
    let trusted: PathBuf = scratch.join("trusted.pem");
    let shown = |trusted: &Path| {
        ask(served.address, trusted, SslVersion::TLS1_3, &get(served.address, "/livez", "")).map(|(_, serial)| serial)
    };
    fs::copy(&files.certificate, &trusted).expect("copy the certificate");
    assert_eq!(shown(&trusted).expect("TLS"), "1");
    let renewed = pair(2, -DAY_S, DAY_S);
    // Between the two files of a renewal, the old pair stays in use.
    fs::write(&files.certificate, renewed.0.to_pem().unwrap()).expect("write the certificate");
    assert_eq!(shown(&trusted).expect("TLS"), "1");
    fs::write(&files.key, renewed.1.private_key_to_pem_pkcs8().unwrap()).expect("write the key");
    fs::copy(&files.certificate, &trusted).expect("copy the certificate");
    assert_eq!(shown(&trusted).expect("TLS"), "2");
    // So it does while the new files cannot be used.
    for spoil in [
        &(|| fs::write(&files.certificate, "no certificate").expect("write")) as &dyn Fn(),
        &|| fs::remove_file(&files.certificate).expect("remove"),
        &|| drop(write(scratch.path(), &pair(3, -2 * DAY_S, -DAY_S))),
    ] {
        spoil();
        assert_eq!(shown(&trusted).expect("TLS"), "2");
    }
    let third = pair(4, -DAY_S, DAY_S);
    write(scratch.path(), &third);
    fs::copy(&files.certificate, &trusted).expect("copy the certificate");
    assert_eq!(shown(&trusted).expect("TLS"), "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_cannot_be_used_is_refused_with_the_reason() {
    let scratch = Scratch::new("api-tls-faults");
    let (good, other) = (pair(1, -DAY_S, DAY_S), pair(2, -DAY_S, DAY_S));
    let files = write(scratch.path(), &good);
    let tokens = scratch.join("tokens.json");
    let refused = async |said: &str| {
        let options = dashboard::Options {
            listen: "127.0.0.1:0".parse().expect("an address"),
            names: Vec::new(),
            auth: Auth::Tokens(tokens.clone()),
            tls: Some(files.clone()),
            behind_proxy: false,
            requests_per_min: 1,
            faults: Default::default(),
            writer: dashboard::write::orders().0,
        };
        let error = Dashboard::bind(options, nowhere()).await.expect_err(said).to_string();
        assert!(error.starts_with("serve.tls: ") && error.contains(said) && error.contains("; "), "{said}: {error}");
    };
    let passphrase = good.1.private_key_to_pem_pkcs8_passphrase(Cipher::aes_256_cbc(), b"secret").unwrap();
    for (key, said) in [
        (passphrase, "without a passphrase"),
        (b"no key".to_vec(), "there is no private key"),
        (good.0.to_pem().unwrap(), "there is no private key"),
        (other.1.private_key_to_pem_pkcs8().unwrap(), "is not the key of"),
    ] {
        write(scratch.path(), &good);
        fs::write(&files.key, key).expect("write the key");
        refused(said).await;
    }
    fs::remove_file(&files.key).expect("remove the key");
    refused("No such file").await;
    write(scratch.path(), &good);
    fs::write(&files.certificate, "").expect("write the certificate");
    refused("there is no certificate").await;
    write(scratch.path(), &pair(3, -2 * DAY_S, -DAY_S));
    refused("not now; renew it").await;
    write(scratch.path(), &pair(4, DAY_S, 2 * DAY_S));
    refused("not now").await;
}

/// The role as a process, with a certificate of `doseline certs` and a key in the form of that
/// command, and `doseline check` about the same configuration.
#[test]
fn the_role_serves_https_with_a_certificate_of_doseline_certs() {
    let scratch = Scratch::new("api-tls-role");
    let certificates = Certificates::new(scratch.join("certs"));
    certificates.make(&["role", "page", "--host", "127.0.0.1"]);
    let (certificate, key) = (certificates.file("roles/page.pem"), certificates.file("roles/page.key"));
    let file = scratch.join("doseline.toml");
    let address = format!("127.0.0.1:{}", harness::free_port());
    let text = format!(
        "[clickhouse]\nurl = \"http://127.0.0.1:1\"\n[serve]\nhttp = \"{address}\"\nauth = \"tokens\"\ntokens_file = \"{}\"\n\
         [serve.tls]\ncertificate = \"{}\"\nkey = \"{}\"\n",
        scratch.join("tokens.json").display(),
        certificate.display(),
        key.display(),
    );
    fs::write(&file, &text).expect("write the configuration");
    let path = file.to_str().expect("UTF-8 path");
    let checked = Doseline::run(&["check", "--config", path], &[], WITHIN);
    assert_eq!(checked.code, Some(0), "{}", checked.stderr);
    let mut serve = Doseline::start(&["serve", "--config", path]);
    let line = serve.wait_for_line("dashboard serves", WITHIN);
    assert!(line.contains(&format!("https://{address}")), "{line}");
    let address: SocketAddr = address.parse().expect("an address");
    poll(WITHIN, "an answer over TLS", || {
        let authority = certificates.file("roles/roles-ca.pem");
        let (answer, _) = ask(address, &authority, SslVersion::TLS1_3, &get(address, "/livez", ""))?;
        if answer.ends_with("ok\n") { Ok(()) } else { Err(answer) }
    });
    assert!(serve.stop(WITHIN).0.success());
    // A port that the network reaches needs a certificate, or a proxy that has one.
    fs::write(&file, text.split("[serve.tls]").next().expect("a part").replace("127.0.0.1:", "0.0.0.0:"))
        .expect("write the configuration");
    for command in ["check", "serve"] {
        let refused = Doseline::run(&[command, "--config", path], &[], WITHIN);
        assert!(refused.code != Some(0) && refused.stderr.contains("without TLS"), "{command}: {}", refused.stderr);
        assert!(refused.stderr.contains("behind_proxy"), "{command}: {}", refused.stderr);
    }
    fs::write(&file, text.replace("page.key", "page.pem")).expect("write the configuration");
    for command in ["check", "serve"] {
        let refused = Doseline::run(&[command, "--config", path], &[], WITHIN);
        let says = refused.stderr.contains("serve.tls: ") && refused.stderr.contains("there is no private key");
        assert!(refused.code != Some(0) && says, "{command}: {}", refused.stderr);
    }
}
