//! Checks that the ports of `doseline up` are free, before anything is started.

use std::{
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use crate::hint::fault;

/// The flag of the port that a system service may already use.
pub const MQTT: &str = "--mqtt-port";
/// How long a port may stay in use. The engines of a killed process end a moment after that
/// process.
const PATIENCE: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Checks that every port can be used; port 0 stands for any free port. Afterwards no port is
/// bound.
///
/// # Errors
/// Names every flag whose port is in use, is not allowed, or is the port of another flag too.
pub async fn check(flags: &[(&'static str, SocketAddr)]) -> anyhow::Result<()> {
    let fixed: Vec<_> = flags.iter().copied().filter(|(_, address)| address.port() != 0).collect();
    for (index, (flag, address)) in fixed.iter().enumerate() {
        if let Some((other, _)) = fixed[..index].iter().find(|(_, other)| other.port() == address.port()) {
            let text = format!("{other} and {flag} are both {}", address.port());
            return Err(fault(text, "give each its own port; 0 takes any free one"));
        }
    }
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut unusable = unusable(&fixed);
    while !unusable.is_empty() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
        unusable = self::unusable(&fixed);
    }
    if unusable.is_empty() {
        return Ok(());
    }
    let said: Vec<String> = unusable.iter().map(|(flag, text)| format!("{flag}: {text}")).collect();
    let example = unusable[0].0;
    let mut remedy = format!("stop what listens there, or choose another port; {example} 0 takes any free one");
    if unusable.iter().any(|(flag, _)| *flag == MQTT) {
        remedy +=
            ". The package mosquitto may have started a broker of its own: systemctl disable --now mosquitto ends it";
    }
    Err(fault(format!("nothing was started: {}", said.join(", ")), remedy))
}

/// The flags whose port cannot be used, with the reason.
fn unusable(flags: &[(&'static str, SocketAddr)]) -> Vec<(&'static str, String)> {
    let why = |(flag, address): &(&'static str, SocketAddr)| {
        let error = TcpListener::bind(address).err()?;
        let text = match error.kind() {
            ErrorKind::AddrInUse => format!("port {} is taken", address.port()),
            ErrorKind::PermissionDenied => format!("port {} may be used by root only", address.port()),
            _ => format!("cannot listen on {address} ({error})"),
        };
        Some((*flag, text))
    };
    flags.iter().filter_map(why).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hint::Explanation;

    fn local(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[tokio::test]
    async fn all_taken_ports_are_named_at_once() {
        let taken = [TcpListener::bind(local(0)).unwrap(), TcpListener::bind(local(0)).unwrap()];
        let [first, second] = taken.each_ref().map(|listener| listener.local_addr().unwrap().port());
        let flags = [("--a", local(first)), ("--b", local(0)), ("--c", local(second))];
        let told = Explanation::of(&check(&flags).await.unwrap_err());
        let expected = format!("nothing was started: --a: port {first} is taken, --c: port {second} is taken");
        assert_eq!(told.error, expected);
        assert_eq!(
            told.hint.as_deref(),
            Some("stop what listens there, or choose another port; --a 0 takes any free one")
        );
    }

    #[tokio::test]
    async fn free_ports_are_free_afterwards_and_two_flags_need_two() {
        let port = TcpListener::bind(local(0)).unwrap().local_addr().unwrap().port();
        check(&[("--a", local(port)), ("--b", local(0)), ("--c", local(0))]).await.unwrap();
        TcpListener::bind(local(port)).unwrap();
        let told = Explanation::of(&check(&[("--a", local(port)), ("--b", local(port))]).await.unwrap_err());
        assert_eq!(told.error, format!("--a and --b are both {port}"));
    }

    #[tokio::test]
    async fn a_port_that_becomes_free_at_once_is_waited_for() {
        let taken = TcpListener::bind(local(0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let freed = async {
            tokio::time::sleep(LOOK_EVERY).await;
            drop(taken);
        };
        let flags = [("--a", local(port))];
        let (checked, ()) = tokio::join!(check(&flags), freed);
        checked.unwrap();
    }
}
