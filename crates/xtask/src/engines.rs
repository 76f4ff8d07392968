//! The engines: ClickHouse as a library from npm, Apache Kafka from Maven Central, Python clients
//! from PyPI, other Kafka clients, an OpenID provider, ClickHouse's JDBC driver.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::cache::{self, Lock};
use crate::progress::Amount;
use crate::steps::{Step, Steps};
use crate::{command, system};

const CHDB_VERSION: &str = "26.7.3-stable.1";
/// Size of its package, MB.
const CHDB_MB: u64 = 180;
const KAFKA_VERSION: &str = "4.1.0";
const MAVEN_COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

/// One build of libchdb: its system, its package and its hash.
struct Chdb {
    os: &'static str,
    architecture: &'static str,
    package: &'static str,
    pin: &'static str,
}

/// Platforms with a published package of this version. A further platform needs a line here and a
/// file of pins.
const CHDB: &[Chdb] = &[Chdb {
    os: "linux",
    architecture: "x86_64",
    package: "@chdb/lib-linux-x64-gnu",
    pin: include_str!("../pins/chdb-26.7.3-stable.1-linux-x64.sha256"),
}];

const KAFKA_POM: &str = include_str!("../pins/kafka-4.1.0.pom.xml");
const JDBC_POM: &str = include_str!("../pins/clickhouse-jdbc-0.9.0.pom.xml");
const JDBC_PIN: &str = include_str!("../pins/clickhouse-jdbc-0.9.0.sha256");
const KAFKA_PIN: &str = include_str!("../pins/kafka-4.1.0.sha256");

/// `cargo xtask engines`: fetches everything that the tests need and a checkout does not contain.
pub fn command() -> Result<()> {
    let mut steps = Steps::new(2);
    steps.run("system packages", |step| system::install(step, system::FOR_TESTS))?;
    steps.run("engines", fetch_all)
}

/// Fetches every engine and tool of the tests.
pub fn fetch_all(step: &mut Step) -> Result<()> {
    let lock = cache::lock(step)?;
    fetch_chdb(step, &lock)?;
    fetch_kafka(step, &lock)?;
    fetch_python(step, &lock)?;
    fetch_kafka_clients(step, &lock)?;
    fetch_browser_driver(step, &lock)?;
    fetch_openid_provider(step, &lock)?;
    fetch_jdbc(step, &lock)?;
    crate::tools::fetch_cargo_deny(step, &lock)?;
    Ok(())
}

/// The embedded ClickHouse of `doseline up`. Returns the path of the library.
///
/// `DOSELINE_LIBCHDB` names an existing one.
pub fn fetch_chdb(step: &mut Step, lock: &Lock) -> Result<PathBuf> {
    if let Some(library) = std::env::var_os("DOSELINE_LIBCHDB").map(PathBuf::from) {
        if !library.is_file() {
            bail!("DOSELINE_LIBCHDB names {}, which is no file: correct or unset it", library.display());
        }
        return Ok(library);
    }
    let (os, architecture) = (std::env::consts::OS, std::env::consts::ARCH);
    let Some(chdb) = CHDB.iter().find(|chdb| chdb.os == os && chdb.architecture == architecture) else {
        bail!(
            "no embedded ClickHouse {CHDB_VERSION} is pinned for {os} {architecture}: set DOSELINE_LIBCHDB to a libchdb \
             of that version, or run the services edition against a ClickHouse server"
        );
    };
    let folder = cache::place(lock, &format!("chdb-{CHDB_VERSION}"), |staging| {
        let package = format!("{}@{CHDB_VERSION}", chdb.package);
        // A separate cache, so that an interrupted download leaves nothing in the user's cache.
        let npm_cache = staging.join("npm-cache");
        cache::fetching(step, &format!("{package} from npm"), Some((staging, CHDB_MB)), || {
            command::read(
                Command::new("npm")
                    .args(["pack", &package, "--loglevel=error", "--no-update-notifier"])
                    // Its default waits of up to a minute look like a hang.
                    .args(["--fetch-retries=3", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=10000"])
                    .arg("--cache")
                    .arg(&npm_cache)
                    .current_dir(staging),
            )
        })?;
        cache::remove(&npm_cache)?;
        let archive = only_file(staging)?;
        step.watch("unpack and check libchdb.so", Amount::default, || {
            command::read(
                Command::new("tar")
                    .args(["-xzf"])
                    .arg(&archive)
                    .args(["--strip-components=1", "package/libchdb.so"])
                    .current_dir(staging),
            )?;
            fs::remove_file(&archive).with_context(|| format!("delete {}", archive.display()))?;
            cache::verify(staging, chdb.pin)
        })
    })?;
    Ok(folder.join("libchdb.so"))
}

fn fetch_kafka(step: &mut Step, lock: &Lock) -> Result<()> {
    let what = format!("Apache Kafka {KAFKA_VERSION} from Maven Central (45 MB)");
    fetch_from_maven(step, lock, (&format!("kafka-{KAFKA_VERSION}-tools"), &what), KAFKA_POM, KAFKA_PIN)
}

/// ClickHouse's JDBC driver, whose version `tests/src/clients.rs` names, too.
fn fetch_jdbc(step: &mut Step, lock: &Lock) -> Result<()> {
    let names = ("clickhouse-jdbc-0.9.0", "ClickHouse's JDBC driver from Maven Central (11 MB)");
    fetch_from_maven(step, lock, names, JDBC_POM, JDBC_PIN)
}

/// The libraries that a POM names, into `libs`.
fn fetch_from_maven(step: &mut Step, lock: &Lock, (place, what): (&str, &str), pom: &str, pin: &str) -> Result<()> {
    cache::place(lock, place, |staging| {
        let path = staging.join("pom.xml");
        cache::write(&path, pom)?;
        let libs = staging.join("libs");
        cache::fetching(step, what, None, || {
            command::read(
                Command::new("mvn")
                    .args(["-B", "-q", "-f"])
                    .arg(&path)
                    .args([MAVEN_COPY, "-DincludeScope=runtime"])
                    .arg(format!("-DoutputDirectory={}", libs.display())),
            )
        })?;
        cache::verify(&libs, pin)
    })?;
    Ok(())
}

/// A virtual environment with the clients of `tests/python/requirements.txt`.
///
/// It has its final name from the start, because its programs contain their own path. A marker,
/// written last, says that it is complete and for which requirements.
fn fetch_python(step: &mut Step, _lock: &Lock) -> Result<()> {
    let requirements = command::checkout()?.join("tests/python/requirements.txt");
    let text = fs::read_to_string(&requirements).with_context(|| format!("read {}", requirements.display()))?;
    let digest = cache::sha256_text(&text);
    let folder = cache::engines()?.join("python");
    let marker = folder.join("requirements.sha256");
    if fs::read_to_string(&marker).is_ok_and(|found| found == digest) {
        return Ok(());
    }
    cache::remove(&folder)?;
    cache::fetching(step, "Python clients from PyPI (15 MB)", None, || {
        command::read(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        command::read(
            Command::new(folder.join("bin/python"))
                .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"])
                .args(["--require-hashes", "--only-binary", ":all:", "--requirement"])
                .arg(&requirements),
        )
    })?;
    cache::write(&marker, &digest)
}

/// The OpenID provider of `tests/oidc`, in the version that its files pin: change the number where
/// those change, here and in `tests/src/openid.rs`.
fn fetch_openid_provider(step: &mut Step, lock: &Lock) -> Result<()> {
    let folder = command::checkout()?.join("tests/oidc");
    cache::place(lock, "oidc-provider-1", |staging| {
        for file in ["package.json", "package-lock.json"] {
            fs::copy(folder.join(file), staging.join(file)).with_context(|| format!("copy {file}"))?;
        }
        let npm_cache = staging.join("npm-cache");
        cache::fetching(step, "oidc-provider from npm", None, || {
            command::read(
                Command::new("npm")
                    .args(["ci", "--ignore-scripts", "--no-audit", "--loglevel=error", "--no-update-notifier"])
                    .arg("--cache")
                    .arg(&npm_cache)
                    .current_dir(staging),
            )
        })?;
        cache::remove(&npm_cache)
    })?;
    Ok(())
}

/// The Kafka clients of `tests/clients`, in the versions that its files pin: change the number
/// where those change, here and in `tests/src/clients.rs`. Those in Go need a Go of the machine,
/// and are left out where there is none.
fn fetch_kafka_clients(step: &mut Step, lock: &Lock) -> Result<()> {
    let clients = command::checkout()?.join("tests/clients");
    let python = cache::engines()?.join("python/bin/python");
    cache::place(lock, "kafka-clients-1", |staging| {
        npm_ci(step, "kafkajs", &clients, staging)?;
        cache::fetching(step, "kafka-python from PyPI", None, || {
            command::read(
                Command::new(&python)
                    .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"])
                    .args(["--require-hashes", "--only-binary", ":all:", "--no-compile", "--target"])
                    .arg(staging.join("python"))
                    .arg("--requirement")
                    .arg(clients.join("requirements.txt")),
            )
        })?;
        if Command::new("go").arg("version").output().is_ok() {
            cache::fetching(step, "kafka-go and clickhouse-go from the module proxy", None, || {
                command::read(Command::new("go").args(["mod", "download"]).current_dir(&clients))
            })?;
        }
        Ok(())
    })?;
    Ok(())
}

/// The driver of the browser and the accessibility checks of `tests/page`, in the versions that its
/// files pin: change the number where those change, here and in `tests/src/clients.rs`.
fn fetch_browser_driver(step: &mut Step, lock: &Lock) -> Result<()> {
    let page = command::checkout()?.join("tests/page");
    cache::place(lock, "page-1", |staging| npm_ci(step, "playwright-core and axe-core", &page, staging))?;
    Ok(())
}

/// Installs the packages that a folder of the checkout pins.
fn npm_ci(step: &mut Step, what: &str, pins: &Path, staging: &Path) -> Result<()> {
    for file in ["package.json", "package-lock.json"] {
        fs::copy(pins.join(file), staging.join(file)).with_context(|| format!("copy {file}"))?;
    }
    let npm_cache = staging.join("npm-cache");
    cache::fetching(step, &format!("{what} from npm"), None, || {
        command::read(
            Command::new("npm")
                .args(["ci", "--ignore-scripts", "--no-audit", "--loglevel=error", "--no-update-notifier"])
                .arg("--cache")
                .arg(&npm_cache)
                .current_dir(staging),
        )
    })?;
    cache::remove(&npm_cache)
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        files.push(entry?.path());
    }
    match files.as_slice() {
        [file] => Ok(file.clone()),
        _ => bail!("expected one archive, found {files:?}"),
    }
}
