//! The engine as a process of its own, and raw HTTP.

use arrow_array::types::Int32Type;
use arrow_array::{DictionaryArray, RecordBatch, UInt64Array};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Path of the library, which must exist.
pub fn library() -> PathBuf {
    let path = std::env::var_os("DOSELINE_LIBCHDB").map_or_else(
        || {
            let home = PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
            let cache = std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home.join(".cache"), PathBuf::from);
            cache.join("doseline/engines/chdb-26.7.3-stable.1/libchdb.so")
        },
        PathBuf::from,
    );
    assert!(path.is_file(), "{} is missing: set DOSELINE_LIBCHDB, or run `cargo xtask test`", path.display());
    path
}

/// The owner's password.
pub const PASSWORD: &str = "se:cret";

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Owner,
    Reader,
}

/// The engine as a process with a data directory of its own.
pub struct Process {
    pub url: String,
    arguments: Vec<String>,
    folder: tempfile::TempDir,
    child: Child,
}

impl Process {
    pub fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>();
        let (child, url) = spawn(command(folder.path(), &arguments));
        Self { url, arguments, folder, child }
    }

    /// Starts it with a limit on the number of open files.
    pub fn start_with_files(files: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let engine = command(folder.path(), &[]);
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {files} && exec \"$0\" \"$@\""));
        command.arg(engine.get_program()).args(engine.get_args());
        command.env("DOSELINE_CLICKHOUSE_PASSWORD", PASSWORD).env("NO_COLOR", "1");
        let (child, url) = spawn(command);
        Self { url, arguments: Vec::new(), folder, child }
    }

    pub fn restart(&mut self) {
        (self.child, self.url) = spawn(command(self.folder.path(), &self.arguments));
    }

    pub fn terminate(&mut self) -> ExitStatus {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), rustix::process::Signal::TERM)
            .unwrap();
        self.child.wait().unwrap()
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Tries to start another engine on the same data.
    pub fn second(&self) -> Output {
        command(self.folder.path(), &[]).output().unwrap()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().canonicalize().unwrap()
    }

    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(data_dir: &Path, arguments: &[String]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doseline-clickhouse"));
    command.arg("--data-dir").arg(data_dir).arg("--library").arg(library()).args(arguments);
    command.env("DOSELINE_CLICKHOUSE_PASSWORD", PASSWORD).env("NO_COLOR", "1");
    command
}

fn spawn(mut command: Command) -> (Child, String) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let url = line.trim().strip_prefix("ready ").unwrap_or_else(|| panic!("not ready but {line:?}"));
    (child, url.to_owned())
}

pub struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
    headers: String,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> String {
        let found = self.headers.lines().find_map(|line| line.split_once(": ").filter(|(found, _)| found == &name));
        found.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    }
}

/// Sends a request as the owner.
pub fn http(process: &Process, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    send(&process.url, Who::Owner, method, path, headers, body)
}

/// Sends a request without a password. A `Host` among the headers replaces the port's own address.
pub fn read(process: &Process, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    send(&process.url, Who::Reader, method, path, headers, body)
}

pub fn post(process: &Process, params: &str, body: &str) -> Reply {
    post_to(&process.url, params, body)
}

pub fn post_to(url: &str, params: &str, body: &str) -> Reply {
    send(url, Who::Owner, "POST", &format!("/?{params}"), &[], body.as_bytes())
}

fn send(url: &str, who: Who, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let own = url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(own).unwrap();
    let host = headers.iter().find(|(name, _)| *name == "Host").map_or(own, |(_, host)| host);
    let others = headers.iter().filter(|(name, _)| *name != "Host");
    let headers: String = others.map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let owner = if who == Who::Owner { owner() } else { String::new() };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{owner}{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A server that has already answered may have stopped reading.
    let _ = stream.write_all(body);
    let mut reply = Vec::new();
    let _ = stream.read_to_end(&mut reply);
    let end = reply.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_else(|| panic!("no reply to {path}"));
    let headers = String::from_utf8_lossy(&reply[..end]).into_owned();
    let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
    let body = reply.split_off(end + 4);
    let body = if headers.contains("transfer-encoding: chunked") { unchunk(&body) } else { body };
    Reply { status, body, headers }
}

/// The headers that identify the owner.
fn owner() -> String {
    format!("X-ClickHouse-User: doseline\r\nX-ClickHouse-Key: {PASSWORD}\r\n")
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(line) = body.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&body[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        out.extend_from_slice(&body[line + 2..line + 2 + size]);
        body = &body[line + size + 4..];
    }
    out
}

/// Sends a request and does not read the reply.
pub fn open(process: &Process, path: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(process.url.trim_start_matches("http://")).unwrap();
    let (host, owner) = (process.url.trim_start_matches("http://"), owner());
    let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{owner}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Sends a reader's request and does not read the reply. Its body may be shorter than `said`.
pub fn open_reader(process: &Process, path: &str, body: &str, said: usize) -> TcpStream {
    let host = process.url.trim_start_matches("http://");
    let mut stream = TcpStream::connect(host).unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {said}\r\n\r\n{body}");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// Sends a body that is shorter than `said`, and closes the connection.
pub fn break_off(process: &Process, path: &str, body: &[u8], said: usize) {
    let mut stream = TcpStream::connect(process.url.trim_start_matches("http://")).unwrap();
    let (host, owner) = (process.url.trim_start_matches("http://"), owner());
    let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{owner}Content-Length: {said}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
}

/// Waits until a condition holds, at most 120 s.
pub fn until(holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < deadline, "did not come true in 120 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// An Arrow stream of `batches` batches with `rows` rows: `a`, a number, and `s`, one of 50 names.
pub fn arrow_batch(rows: u64, batches: usize) -> Vec<u8> {
    let names: Vec<String> = (0..rows).map(|row| format!("device-{}", row % 50)).collect();
    let names: DictionaryArray<Int32Type> = names.iter().map(String::as_str).collect();
    let numbers = UInt64Array::from_iter_values(0..rows);
    let columns: [(&str, arrow_array::ArrayRef); 2] = [("a", Arc::new(numbers)), ("s", Arc::new(names))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut writer = arrow_ipc::writer::StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    for _ in 0..batches {
        writer.write(&batch).unwrap();
    }
    writer.into_inner().unwrap()
}
