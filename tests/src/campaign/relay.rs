//! A relay for TCP connections, which can cut and delay them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::ports::free_listener;

/// Passes bytes both ways between clients and one port.
pub struct Relay {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    delay_ms: AtomicU64,
    streams: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// Listens, for a server on this port.
    pub fn start(upstream: u16) -> Self {
        let listener = free_listener();
        let port = listener.local_addr().expect("it is bound").port();
        let shared: Arc<Shared> = Arc::default();
        let own = Arc::clone(&shared);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // The server is not there: the client's connection closes.
                let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)) else { continue };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                pass(&own, &client, &server);
                pass(&own, &server, &client);
                let mut streams = service::lock(&own.streams);
                streams.retain(|stream| stream.peer_addr().is_ok());
                streams.extend([client, server]);
            }
        });
        Self { port, shared }
    }

    /// TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts every connection. New ones are accepted.
    pub fn cut(&self) {
        let mut streams = service::lock(&self.shared.streams);
        for stream in streams.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Delays each piece by this time; zero ends the delay.
    pub fn delay(&self, delay: Duration) {
        let ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        self.shared.delay_ms.store(ms, Ordering::Relaxed);
    }
}

fn pass(shared: &Arc<Shared>, from: &TcpStream, to: &TcpStream) {
    let (Ok(mut from), Ok(mut to)) = (from.try_clone(), to.try_clone()) else { return };
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            match shared.delay_ms.load(Ordering::Relaxed) {
                0 => {}
                ms => thread::sleep(Duration::from_millis(ms)),
            }
            if to.write_all(&bytes[..count]).is_err() {
                break;
            }
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}
