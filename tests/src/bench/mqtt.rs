//! The part of MQTT 5 that a load needs: a publisher that keeps a rate, and a peer. The peer acts
//! as a broker for a bridge, and sends as fast as the bridge acknowledges.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::data::Sent;

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH_QOS_1: u8 = 0x32;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
const PINGREQ: u8 = 0xc0;
const PINGRESP: u8 = 0xd0;
const DISCONNECT: u8 = 0xe0;
/// Time between two sends of a publisher.
const BEAT: Duration = Duration::from_millis(2);
/// Property of CONNECT: the receive maximum.
const RECEIVE_MAXIMUM: u8 = 0x21;

/// A report as a PUBLISH packet with QoS 1. Its packet id, at `id_at`, is set when it is sent.
pub struct Publication {
    bytes: Vec<u8>,
    id_at: usize,
}

impl Publication {
    /// Encodes the packet.
    pub fn new(sent: &Sent) -> Self {
        let mut body = text(&sent.topic);
        let id_in_body = body.len();
        body.extend([0, 0, 0]);
        body.extend(&sent.payload);
        let bytes = packet(PUBLISH_QOS_1, &body);
        let id_at = bytes.len() - body.len() + id_in_body;
        Self { bytes, id_at }
    }

    /// Appends the packet to the bytes to send.
    fn put(&self, id: u16, buffer: &mut Vec<u8>) {
        let at = buffer.len() + self.id_at;
        buffer.extend_from_slice(&self.bytes);
        buffer[at..at + 2].copy_from_slice(&id.to_be_bytes());
    }
}

/// A number as a packet id, from 1 and never 0.
fn packet_id(number: u64) -> u16 {
    u16::try_from(number % 65_535 + 1).expect("below 65,536")
}

fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a short text");
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    let mut rest = body.len();
    loop {
        let digit = u8::try_from(rest % 128).expect("7 bits");
        rest /= 128;
        bytes.push(if rest > 0 { digit | 128 } else { digit });
        if rest == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

/// The packets that arrive on a connection.
struct Incoming {
    stream: TcpStream,
    buffer: Vec<u8>,
    chunk: Vec<u8>,
}

impl Incoming {
    fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new(), chunk: vec![0; 256 << 10] }
    }

    /// Waits for bytes and passes every whole packet to `handle`: its first byte and its body.
    /// Returns false at the end.
    fn read(&mut self, mut handle: impl FnMut(u8, &[u8])) -> bool {
        match self.stream.read(&mut self.chunk) {
            Ok(0) => return false,
            Ok(read) => self.buffer.extend_from_slice(&self.chunk[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
        let mut taken = 0;
        while let Some((head, length)) = frame(&self.buffer[taken..]) {
            let body = &self.buffer[taken + head..taken + head + length];
            handle(self.buffer[taken], body);
            taken += head + length;
        }
        self.buffer.drain(..taken);
        true
    }
}

/// Length of the head and of the body of the first packet, if it is complete.
fn frame(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for at in 1..5 {
        let digit = *bytes.get(at)?;
        length |= usize::from(digit & 127) << (7 * (at - 1));
        if digit < 128 {
            return (bytes.len() > at + length).then_some((at + 1, length));
        }
    }
    panic!("a packet's length has five digits")
}

/// A connection to a broker, which publishes and takes all receipts.
pub struct Publisher {
    stream: TcpStream,
    next: u64,
    acknowledged: Arc<AtomicU64>,
    receipts: Arc<AtomicU64>,
    reader: Option<JoinHandle<()>>,
}

impl Publisher {
    /// Connects, and waits until its subscription to receipts is granted.
    pub fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("connect to the broker");
        stream.set_nodelay(true).expect("set an option");
        let mut incoming = Incoming::new(stream.try_clone().expect("share a connection"));
        let mut publisher =
            Self { stream, next: 0, acknowledged: Arc::default(), receipts: Arc::default(), reader: None };
        // Version 5, clean start, no keep alive, no properties.
        let connect = [text("MQTT"), vec![5, 2, 0, 0, 0], text(&format!("bench-{port}"))].concat();
        publisher.send(&packet(CONNECT, &connect));
        // Packet id 65,535, no properties, QoS 0.
        let subscribe = [vec![0xff, 0xff, 0], text("doseline/v1/+/+/+/receipt"), vec![0]].concat();
        publisher.send(&packet(SUBSCRIBE, &subscribe));
        let mut granted = false;
        while !granted {
            let open = incoming.read(|kind, _| granted |= kind == SUBACK);
            assert!(open, "the broker refuses the publisher");
        }
        let (acknowledged, receipts) = (Arc::clone(&publisher.acknowledged), Arc::clone(&publisher.receipts));
        publisher.reader = Some(thread::spawn(move || {
            let count = |kind: u8, _: &[u8]| match kind & 0xf0 {
                PUBACK => drop(acknowledged.fetch_add(1, Ordering::Relaxed)),
                0x30 => drop(receipts.fetch_add(1, Ordering::Relaxed)),
                _ => {}
            };
            while incoming.read(count) {}
        }));
        publisher
    }

    /// Publishes at a rate, messages a second. `sent` gets each number right before it goes out.
    /// After a late beat, the publisher sends all due messages at once.
    pub fn publish(&mut self, publications: &[Publication], rate: u64, mut sent: impl FnMut(usize)) {
        let (began, mut buffer, mut at) = (Instant::now(), Vec::new(), 0);
        while at < publications.len() {
            let due = (began.elapsed().as_secs_f64() * rate as f64) as usize;
            while at < due.min(publications.len()) {
                sent(at);
                publications[at].put(packet_id(self.next % 65_534), &mut buffer);
                (self.next, at) = (self.next + 1, at + 1);
            }
            self.send(&buffer);
            buffer.clear();
            thread::sleep(BEAT);
        }
    }

    /// Number of messages that the broker has acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Number of receipts that have come.
    pub fn receipts(&self) -> u64 {
        self.receipts.load(Ordering::Relaxed)
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("send to the broker");
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// A substitute for a broker. Each connection that subscribes gets messages of its own, ahead of
/// its acknowledgements by its receive maximum, until all are sent.
pub struct Peer {
    port: u16,
    acknowledged: Arc<AtomicU64>,
}

impl Peer {
    /// Listens. It begins to send with the first subscription.
    pub fn start(publications: Arc<Vec<Publication>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("listen");
        let port = listener.local_addr().expect("an address").port();
        let (acknowledged, next): (Arc<AtomicU64>, Arc<AtomicU64>) = (Arc::default(), Arc::default());
        let counter = Arc::clone(&acknowledged);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (publications, next) = (Arc::clone(&publications), Arc::clone(&next));
                let acknowledged = Arc::clone(&counter);
                thread::spawn(move || Session { publications, next, acknowledged }.serve(stream));
            }
        });
        Self { port, acknowledged }
    }

    /// TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Number of messages that were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }
}

struct Session {
    publications: Arc<Vec<Publication>>,
    /// Number of the next message that is not sent yet.
    next: Arc<AtomicU64>,
    acknowledged: Arc<AtomicU64>,
}

impl Session {
    /// Answers until the connection ends. One thread: it writes only after it has read.
    fn serve(self, stream: TcpStream) {
        stream.set_nodelay(true).expect("set an option");
        let mut writer = stream.try_clone().expect("share a connection");
        let mut incoming = Incoming::new(stream);
        let (mut credit, mut receive_maximum, mut sent, mut open) = (0, 0, 0, true);
        let mut buffer = Vec::new();
        while open {
            let mut acknowledged = 0;
            let read = incoming.read(|kind, body| match kind & 0xf0 {
                CONNECT => {
                    receive_maximum = receive_maximum_of(body);
                    buffer.extend([CONNACK, 3, 0, 0, 0]);
                }
                0x80 => {
                    buffer.extend(suback(body));
                    credit = receive_maximum;
                }
                PUBACK => acknowledged += 1,
                0x30 => buffer.extend([PUBACK, 2, body[publish_id_at(body)], body[publish_id_at(body) + 1]]),
                PINGREQ => buffer.extend([PINGRESP, 0]),
                DISCONNECT => open = false,
                _ => {}
            });
            credit += acknowledged;
            self.acknowledged.fetch_add(acknowledged, Ordering::Relaxed);
            while credit > 0 {
                let number = self.next.fetch_add(1, Ordering::Relaxed) as usize;
                let Some(publication) = self.publications.get(number) else { break };
                publication.put(packet_id(sent), &mut buffer);
                (credit, sent) = (credit - 1, sent + 1);
            }
            open &= read && writer.write_all(&buffer).is_ok();
            buffer.clear();
        }
    }
}

/// Receive maximum of a CONNECT. The properties follow protocol name, version, flags and keep
/// alive; the bridge sends only properties of fixed length.
fn receive_maximum_of(body: &[u8]) -> u64 {
    let properties = &body[11..11 + usize::from(body[10])];
    let mut at = 0;
    while at < properties.len() {
        let length = match properties[at] {
            RECEIVE_MAXIMUM => return u64::from(u16::from_be_bytes([properties[at + 1], properties[at + 2]])),
            0x11 | 0x27 => 4,
            0x22 => 2,
            0x17 | 0x19 => 1,
            other => panic!("property {other:#x} of CONNECT is not known here"),
        };
        at += 1 + length;
    }
    u64::from(u16::MAX)
}

/// Grants QoS 1 to each filter.
fn suback(body: &[u8]) -> Vec<u8> {
    let mut answer = vec![body[0], body[1], 0];
    // After the id and the properties: the filters, each with one byte of options.
    let mut at = 3 + usize::from(body[2]);
    while at < body.len() {
        at += 3 + usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
        answer.push(1);
    }
    packet(SUBACK, &answer)
}

/// Position of the packet id in a PUBLISH with QoS 1: after the topic.
fn publish_id_at(body: &[u8]) -> usize {
    2 + usize::from(u16::from_be_bytes([body[0], body[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_all_lengths_are_taken_apart() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 100_000] {
            let bytes = packet(PUBACK, &vec![7; length]);
            let (head, found) = frame(&bytes).expect("a whole packet");
            assert_eq!((bytes.len(), found), (head + length, length));
            assert_eq!(frame(&bytes[..bytes.len() - 1]), None, "{length}");
        }
    }

    #[test]
    fn a_publication_carries_its_packet_id_behind_the_topic() {
        let sent = Sent { key: String::new(), topic: "a/b".to_owned(), received_at: 0, payload: vec![9; 300] };
        let mut buffer = vec![1, 2];
        Publication::new(&sent).put(0x1234, &mut buffer);
        let (head, length) = frame(&buffer[2..]).expect("a whole packet");
        let body = &buffer[2 + head..];
        assert_eq!((body.len(), &body[publish_id_at(body)..][..3]), (length, &[0x12, 0x34, 0][..]));
    }

    #[test]
    fn a_peer_sends_no_more_than_the_receive_maximum_ahead() {
        let sent = Sent { key: String::new(), topic: "a".to_owned(), received_at: 0, payload: vec![] };
        let peer = Peer::start(Arc::new((0..5).map(|_| Publication::new(&sent)).collect()));
        let mut stream = TcpStream::connect(("127.0.0.1", peer.port())).expect("connect");
        let mut incoming = Incoming::new(stream.try_clone().expect("share"));
        let connect = [text("MQTT"), vec![5, 2, 0, 0, 3, RECEIVE_MAXIMUM, 0, 2], text("x")].concat();
        let subscribe = [vec![0, 1, 0], text("a"), vec![1], text("b"), vec![1]].concat();
        stream.write_all(&[packet(CONNECT, &connect), packet(SUBSCRIBE, &subscribe)].concat()).expect("send");
        let mut kinds = Vec::new();
        while kinds.len() < 4 {
            assert!(incoming.read(|kind, _| kinds.push(kind)));
        }
        assert_eq!(kinds, [CONNACK, SUBACK, PUBLISH_QOS_1, PUBLISH_QOS_1]);
        stream.write_all(&[PUBACK, 2, 0, 1]).expect("send");
        while kinds.len() < 5 {
            assert!(incoming.read(|kind, _| kinds.push(kind)));
        }
        assert_eq!((kinds[4], peer.acknowledged()), (PUBLISH_QOS_1, 1));
    }
}
