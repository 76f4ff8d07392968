//! Mosquitto with the files of `deploy/mosquitto`, and certificates that `doseline certs` made.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    Doseline, Finished, Process, RawMqtt, Scratch, free_port, locate, mosquitto, poll,
    raw_mqtt::{Identity, Will},
};

const WITHIN: Duration = Duration::from_secs(60);
const PASSPHRASE: &str = "the passphrase of tests";

/// A folder of `doseline certs`, with authorities and the certificates of broker and bridge.
pub struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// Makes them in `dir`, which must not exist. The broker is called `localhost` and `127.0.0.1`.
    pub fn new(dir: PathBuf) -> Self {
        let certificates = Self { dir };
        certificates.make(&["init"]);
        certificates.make(&["broker", "--host", "localhost", "--host", "127.0.0.1"]);
        certificates.make(&["bridge"]);
        certificates
    }

    /// Runs `doseline certs`, which must succeed.
    #[track_caller]
    pub fn make(&self, arguments: &[&str]) -> String {
        let Finished { code, stdout, stderr } = self.run(arguments);
        assert_eq!(code, Some(0), "certs {arguments:?}: {stderr}");
        stdout
    }

    /// Runs `doseline certs`.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Finished {
        let dir = self.dir.to_str().expect("UTF-8 path");
        let arguments = [&["certs", "--dir", dir], arguments].concat();
        Doseline::run(&arguments, &[("DOSELINE_CERTS_PASSPHRASE", PASSPHRASE)], WITHIN)
    }

    /// Makes the certificate of a device. Returns its file.
    pub fn device(&self, name: &str) -> PathBuf {
        self.make(&["device", name]);
        self.file(&format!("devices/{name}.pem"))
    }

    /// A file below the folder.
    pub fn file(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The passphrase of the authorities.
    pub fn passphrase(&self) -> &'static str {
        PASSPHRASE
    }
}

/// Mosquitto as the services edition runs it, on 127.0.0.1. Only paths and ports differ.
pub struct Deployed {
    /// Port for devices and gateways.
    pub devices_port: u16,
    /// Port for the bridge.
    pub bridge_port: u16,
    authority: PathBuf,
    bridge: PathBuf,
    process: Process,
    // Deleted after the process has ended.
    _scratch: Scratch,
}

impl Deployed {
    /// Starts the broker with the ACL file of `deploy/mosquitto`.
    pub fn start(certificates: &Certificates) -> Self {
        Self::start_with_acl(certificates, &locate::checkout("deploy/mosquitto/acl"))
    }

    /// Starts the broker with another ACL file.
    pub fn start_with_acl(certificates: &Certificates, acl: &Path) -> Self {
        let scratch = Scratch::new("mosquitto-deployed");
        let (devices_port, bridge_port) = (free_port(), free_port());
        let file = locate::checkout("deploy/mosquitto/mosquitto.conf");
        let mut configuration = fs::read_to_string(&file).expect("read mosquitto.conf");
        let mut replace = |from: &str, to: &str, times: usize| {
            assert_eq!(configuration.matches(from).count(), times, "{from} in {}", file.display());
            configuration = configuration.replace(from, to);
        };
        replace("\nlistener 8883\n", &format!("\nlistener {devices_port} 127.0.0.1\n"), 1);
        replace("\nlistener 8884\n", &format!("\nlistener {bridge_port} 127.0.0.1\n"), 1);
        replace("/mosquitto/data/", &format!("{}/", scratch.path().display()), 1);
        replace("/mosquitto/config/acl", &acl.display().to_string(), 2);
        replace("/mosquitto/tls/", &format!("{}/", certificates.file("broker").display()), 9);
        let plugin = locate::binary("libbroker_rules.so", "broker-rules");
        replace("/usr/lib/doseline/libbroker_rules.so", &plugin.display().to_string(), 1);
        // Started by root it would become another user, who may not read these folders.
        configuration.push_str("\nuser root\nlog_dest stderr\nlog_type all\n");
        let path = scratch.join("mosquitto.conf");
        fs::write(&path, configuration).expect("write mosquitto.conf");
        let mut command = Command::new(mosquitto::program());
        command.arg("-c").arg(&path);
        let mut process = Process::start("mosquitto", command, &scratch.join("mosquitto.log"), None);
        poll(WITHIN, "mosquitto to accept connections", || {
            process.alive().unwrap_or_else(|ended| panic!("{ended}"));
            TcpStream::connect(("127.0.0.1", bridge_port))
        });
        let (authority, bridge) = (certificates.file("bridge/broker-ca.pem"), certificates.file("bridge/bridge.pem"));
        Self { devices_port, bridge_port, authority, bridge, process, _scratch: scratch }
    }

    /// Lets it read its files again, and waits until it has.
    pub fn reload(&mut self) {
        let before = self.process.log().matches("Reloading config").count();
        self.process.signal(Signal::SIGHUP);
        poll(WITHIN, "mosquitto to read its files again", || {
            match self.process.log().matches("Reloading config").count() {
                now if now > before => Ok(()),
                _ => Err("not yet"),
            }
        });
    }

    /// Connects to a port, with a certificate or without.
    ///
    /// # Errors
    /// The broker refuses.
    pub fn connect(
        &self,
        port: u16,
        certificate: Option<&Path>,
        client_id: &str,
        version: u8,
        will: Option<Will<'_>>,
    ) -> std::io::Result<RawMqtt> {
        let identity = Identity { authority: &self.authority, certificate };
        RawMqtt::connect_tls(&format!("127.0.0.1:{port}"), identity, client_id, version, will)
    }

    /// Connects as a device.
    #[track_caller]
    pub fn device(&self, certificate: &Path, version: u8) -> RawMqtt {
        let connected = self.connect(self.devices_port, Some(certificate), "any", version, None);
        connected.unwrap_or_else(|error| panic!("{}: {error}\n{}", certificate.display(), self.process.log()))
    }

    /// Connects as the bridge.
    #[track_caller]
    pub fn bridge(&self, client_id: &str) -> RawMqtt {
        let connected = self.connect(self.bridge_port, Some(&self.bridge), client_id, 5, None);
        connected.unwrap_or_else(|error| panic!("bridge: {error}\n{}", self.process.log()))
    }

    /// Its log.
    pub fn log(&self) -> String {
        self.process.log()
    }
}
