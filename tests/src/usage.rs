//! Resources that a process has used, from the kernel.

use std::fs;
use std::process::Command;

/// Fields of `/proc/PID/stat` after the name, from the third on: user and system time of the
/// process and of its ended children.
const TIMES: usize = 11;
const PARENT: usize = 1;
const GROUP: usize = 2;
/// Ticks a second: fixed in Linux's interface.
const TICKS: f64 = 100.0;
const KIB_OF_MIB: f64 = 1024.0;

/// CPU time of a process with all its threads, s, in steps of 10 ms.
pub fn cpu_s(process: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("the process is there");
    ticks(&stat, 2) / TICKS
}

/// CPU time of a process group and of the ended children of its members, s.
pub fn group_cpu_s(group: u32) -> f64 {
    let processes = fs::read_dir("/proc").expect("a list of processes").flatten();
    let stats = processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
    let group = group.to_string();
    stats.filter(|stat| fields(stat).nth(GROUP) == Some(group.as_str())).map(|stat| ticks(&stat, 4)).sum::<f64>()
        / TICKS
}

/// A process and the processes that it and they started.
fn tree(root: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("a list of processes").flatten();
    let parents: Vec<(u32, u32)> = processes
        .filter_map(|process| {
            let id = process.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(process.path().join("stat")).ok()?;
            Some((id, fields(&stat).nth(PARENT)?.parse().ok()?))
        })
        .collect();
    let mut found = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(id, _)| *id));
        at += 1;
    }
    found
}

/// CPU time of a process and of those that it and they started, s. Ended ones count as far as their
/// parents waited for them.
pub fn tree_cpu_s(root: u32) -> f64 {
    let stats = tree(root).into_iter().filter_map(|process| fs::read_to_string(format!("/proc/{process}/stat")).ok());
    stats.map(|stat| ticks(&stat, 4)).sum::<f64>() / TICKS
}

/// How often the threads of a process, and of those that it and they started, gave up the processor
/// to wait.
pub fn tree_switches(root: u32) -> u64 {
    tree(root).into_iter().map(switches).sum()
}

fn ticks(stat: &str, times: usize) -> f64 {
    fields(stat).skip(TIMES).take(times).filter_map(|ticks| ticks.parse::<f64>().ok()).sum()
}

fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_whitespace()
}

/// Resident memory of a process, KiB; `None` if it is gone.
pub fn rss_kib(process: u32) -> Option<f64> {
    memory_kib(process, "VmRSS:")
}

/// Greatest resident memory of a process, MiB.
pub fn rss_peak_mib(process: u32) -> f64 {
    memory_kib(process, "VmHWM:").expect("the process is there") / KIB_OF_MIB
}

fn memory_kib(process: u32, field: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    value(&status, field)?.trim_end_matches("kB").trim().parse().ok()
}

/// The value of a field in a `status` file.
fn value<'s>(status: &'s str, field: &str) -> Option<&'s str> {
    status.lines().find_map(|line| line.strip_prefix(field)).map(str::trim)
}

/// How often the current threads of a process have given up the processor to wait.
pub fn switches(process: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).expect("the process is there").flatten();
    let statuses = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    statuses.filter_map(|status| value(&status, "voluntary_ctxt_switches:")?.parse::<u64>().ok()).sum()
}

/// TCP payload that a process sent to and received from a port, over its current connections;
/// `None` if the system lacks `ss`.
pub fn wire(process: u32, port: u16) -> Option<(f64, f64)> {
    let output = Command::new("ss").args(["-HtinpO", &format!("dport = :{port}")]).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let of_process = format!("pid={process},");
    let sum = |name: &str| {
        let lines = said.lines().filter(|line| line.contains(&of_process));
        let bytes = lines.filter_map(|line| line.split_whitespace().find_map(|word| word.strip_prefix(name)));
        bytes.filter_map(|bytes| bytes.parse::<f64>().ok()).sum()
    };
    Some((sum("bytes_sent:"), sum("bytes_received:")))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn work_shows_as_cpu_time() {
        let before = cpu_s(std::process::id());
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(100) {
            std::hint::black_box(began);
        }
        assert!(cpu_s(std::process::id()) > before);
        assert!(rss_peak_mib(std::process::id()) > 1.0);
    }

    #[test]
    fn bytes_on_the_wire_are_those_of_the_port() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let port = listener.local_addr().expect("an address").port();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connect");
        let (mut other, _) = listener.accept().expect("accept");
        std::io::Write::write_all(&mut stream, &[0; 1_000]).expect("send");
        std::io::Read::read_exact(&mut other, &mut [0; 1_000]).expect("receive");
        if let Some((sent, received)) = wire(std::process::id(), port) {
            assert_eq!((sent, received), (1_000.0, 0.0));
        }
    }
}
