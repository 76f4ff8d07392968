//! One network connection to the MQTT broker: it sends and receives packets, and says why it
//! cannot.
//!
//! rumqttc's codec reads and writes the packets. rumqttc's own event loop would write to the socket
//! after each packet, with one system call for every acknowledgement and every receipt. A [`Link`]
//! collects packets in a buffer and writes them together when nothing is left to read. Packets that
//! were not written when the connection ends are lost.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{SinkExt as _, StreamExt as _};
use rumqttc::{
    tokio_native_tls::{
        self,
        native_tls::{self, Certificate, TlsConnector},
    },
    v5::mqttbytes::{
        Error as CodecError,
        v5::{
            Codec, ConnAck, Connect, ConnectProperties, ConnectReturnCode, Disconnect, DisconnectReasonCode, Login,
            Packet, PingReq,
        },
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, Sleep, sleep, timeout},
};
use tokio_util::codec::Framed;

use service::tls::Tls;

use crate::options::Mqtt;

/// Waits before a lost connection is opened again, each with 50 % of jitter. The broker may drop
/// what devices publish until it knows the subscription again, so the first attempt comes within
/// 100 ms.
pub(crate) const RETRY_FIRST: Duration = Duration::from_millis(50);
pub(crate) const RETRY_MOST: Duration = Duration::from_secs(10);
/// TCP, TLS and CONNACK together.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Bytes read from the socket at once.
const READ_BYTES: usize = 64 * 1024;
/// TLS gives one record at a time.
const TLS_READ_BYTES: usize = 16 * 1024;
/// At this many unwritten bytes the link writes before it reads more.
const WRITE_BYTES: usize = 1024;

const SILENT: &str = "the broker does not answer";
const CLOSED: &str = "the broker closed the connection";

/// What one connection is for.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// Receives: keeps a session.
    Receive {
        index: u16,
    },
    Receipts,
}

/// TCP, or TLS over it.
trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// A connection that the broker has accepted.
pub(crate) struct Link {
    framed: Framed<Box<dyn Socket>, Codec>,
    /// Whether a packet was sent and may not be written yet.
    unwritten: bool,
    /// Why writing failed. Packets that were received before can still be read.
    broken: Option<String>,
    /// The unreadable packet that ended the connection.
    unreadable: Option<String>,
    client_id: String,
    keep_alive: Duration,
    /// Until the next PINGREQ.
    ping: Pin<Box<Sleep>>,
    /// The last PINGREQ has no answer yet.
    unanswered: bool,
}

impl Link {
    /// Connects; the broker's CONNACK says what it allows.
    ///
    /// # Errors
    /// As in all of this type: why it did not work, in one line for a person.
    pub async fn open(mqtt: &Mqtt, purpose: &Purpose) -> Result<(Self, ConnAck), String> {
        timeout(CONNECT_WITHIN, connect(mqtt, purpose)).await.unwrap_or_else(|_| Err(SILENT.to_owned()))
    }

    fn over(framed: Framed<Box<dyn Socket>, Codec>, client_id: String, keep_alive: Duration) -> Self {
        let ping = Box::pin(sleep(keep_alive));
        Self {
            framed,
            unwritten: false,
            broken: None,
            unreadable: None,
            client_id,
            keep_alive,
            ping,
            unanswered: false,
        }
    }

    /// Sends a packet together with others: the next [`Link::next`] that has to wait writes them,
    /// or [`Link::close`].
    pub fn send(&mut self, packet: Packet) -> Result<(), String> {
        self.unwritten = true;
        self.framed.start_send_unpin(packet).map_err(|error| reason(&error))
    }

    /// The next packet that is no answer to a ping. The future may be dropped while it waits; no
    /// packet is lost.
    pub async fn next(&mut self) -> Result<Packet, String> {
        loop {
            match poll_fn(|context| self.poll(context)).await? {
                Packet::PingResp(_) => self.unanswered = false,
                Packet::Disconnect(disconnect) => return Err(ended(&disconnect, &self.client_id)),
                packet => return Ok(packet),
            }
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Packet, String>> {
        if self.framed.write_buffer().len() >= WRITE_BYTES {
            self.write(context);
        }
        match self.framed.poll_next_unpin(context) {
            Poll::Ready(Some(Ok(packet))) => return Poll::Ready(Ok(packet)),
            Poll::Ready(Some(Err(error))) => {
                self.unreadable = unreadable(&error, self.framed.read_buffer());
                return Poll::Ready(Err(reason(&error)));
            }
            Poll::Ready(None) => return Poll::Ready(Err(CLOSED.to_owned())),
            Poll::Pending => {}
        }
        while self.ping_due(context) {
            if self.unanswered {
                return Poll::Ready(Err("the broker has gone silent".to_owned()));
            }
            self.ask();
        }
        self.write(context);
        self.broken.take().map_or(Poll::Pending, |reason| Poll::Ready(Err(reason)))
    }

    /// The unreadable packet, if the connection failed because of one.
    pub fn unreadable(&mut self) -> Option<String> {
        self.unreadable.take()
    }

    /// For the time in which nothing may be read: writes what was sent and keeps the connection
    /// alive. Never ends.
    pub async fn hold(&mut self) -> Infallible {
        poll_fn(|context| {
            // The broker's answers are not read here, so its silence means nothing.
            while self.ping_due(context) {
                self.ask();
            }
            self.write(context);
            Poll::Pending
        })
        .await
    }

    /// Whether it is time for a PINGREQ; the next is due one keep-alive later.
    fn ping_due(&mut self, context: &mut Context<'_>) -> bool {
        let due = self.ping.as_mut().poll(context).is_ready();
        if due {
            self.ping.as_mut().reset(Instant::now() + self.keep_alive);
        }
        due
    }

    fn ask(&mut self) {
        self.unanswered = true;
        if let Err(reason) = self.send(Packet::PingReq(PingReq)) {
            self.broken.get_or_insert(reason);
        }
    }

    /// Writes as much as the socket takes.
    fn write(&mut self, context: &mut Context<'_>) {
        if self.unwritten
            && self.broken.is_none()
            && let Poll::Ready(written) = self.framed.poll_flush_unpin(context)
        {
            self.unwritten = false;
            self.broken = written.err().map(|error| reason(&error));
        }
    }

    /// Writes what was sent, and leaves.
    pub async fn close(mut self) {
        // If this fails, the broker delivers again what was not acknowledged.
        if self.send(Packet::Disconnect(Disconnect::new(DisconnectReasonCode::NormalDisconnection))).is_ok() {
            let _ = self.framed.close().await;
        }
    }
}

async fn connect(mqtt: &Mqtt, purpose: &Purpose) -> Result<(Link, ConnAck), String> {
    let (role, clean_start) = match purpose {
        Purpose::Receive { index } => (index.to_string(), false),
        Purpose::Receipts => ("receipts".to_owned(), true),
    };
    let login = match &mqtt.username {
        Some(username) => {
            let password = mqtt.password.as_ref().map(|secret| secret.read()).transpose();
            let password = password.map_err(|error| format!("read the MQTT password: {error}"))?;
            let password = password.map(|password| password.reveal().to_owned()).unwrap_or_default();
            Some(Login { username: username.clone(), password })
        }
        None => None,
    };
    let mut properties = ConnectProperties::new();
    properties.max_packet_size = Some(mqtt.packet_bytes_max);
    if !clean_start {
        properties.receive_maximum = Some(mqtt.receive_maximum);
        properties.session_expiry_interval = Some(u32::try_from(mqtt.session_expiry.as_secs()).unwrap_or(u32::MAX));
    }
    let client_id = format!("{}-{role}", mqtt.client_id);
    let connect = Connect {
        keep_alive: u16::try_from(mqtt.keep_alive.as_secs()).unwrap_or(u16::MAX),
        client_id: client_id.clone(),
        clean_start,
        properties: Some(properties),
    };
    let codec = Codec { max_incoming_size: Some(mqtt.packet_bytes_max), max_outgoing_size: None };
    let read_bytes = if mqtt.tls.is_some() { TLS_READ_BYTES } else { READ_BYTES };
    let mut framed = Framed::with_capacity(socket(mqtt).await?, codec, read_bytes);
    framed.send(Packet::Connect(connect, None, login)).await.map_err(|error| reason(&error))?;
    let connack = match framed.next().await {
        Some(Ok(Packet::ConnAck(connack))) if connack.code == ConnectReturnCode::Success => connack,
        Some(Ok(Packet::ConnAck(connack))) => return Err(refused(connack.code)),
        Some(Ok(_)) => return Err("the broker did not answer with CONNACK; is it an MQTT 5 broker?".to_owned()),
        Some(Err(error)) => return Err(reason(&error)),
        None => return Err(CLOSED.to_owned()),
    };
    let allowed = connack.properties.as_ref();
    framed.codec_mut().max_outgoing_size = allowed.and_then(|allowed| allowed.max_packet_size);
    // 0 means that the broker does not watch the connection; the link still does.
    let keep_alive = allowed.and_then(|allowed| allowed.server_keep_alive).filter(|seconds| *seconds > 0);
    let keep_alive = keep_alive.map_or(mqtt.keep_alive, |seconds| Duration::from_secs(seconds.into()));
    Ok((Link::over(framed, client_id, keep_alive), connack))
}

async fn socket(mqtt: &Mqtt) -> Result<Box<dyn Socket>, String> {
    let host = bare(&mqtt.host);
    let tcp = TcpStream::connect((host, mqtt.port)).await.map_err(|error| unreachable(&error))?;
    // Receipts and acknowledgements are small; Nagle's algorithm would hold them back.
    tcp.set_nodelay(true).map_err(|error| unreachable(&error))?;
    let Some(tls) = &mqtt.tls else { return Ok(Box::new(tcp)) };
    let connector = tokio_native_tls::TlsConnector::from(connector(tls)?);
    let tls = connector.connect(host, tcp).await.map_err(|error| format!("TLS refused: {error}"))?;
    Ok(Box::new(tls))
}

/// A host as it is looked up: an IPv6 address may stand in brackets.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn connector(tls: &Tls) -> Result<TlsConnector, String> {
    let mut builder = TlsConnector::builder();
    let certificates = Certificate::stack_from_pem(&read(&tls.ca)?);
    let certificates = certificates.map_err(|error| format!("TLS authority {}: {error}", tls.ca.display()))?;
    // The authorities of the system are not trusted beside the given ones.
    builder.disable_built_in_roots(true);
    for certificate in certificates {
        builder.add_root_certificate(certificate);
    }
    if let Some((certificate, key)) = tls.identity() {
        let identity = native_tls::Identity::from_pkcs8(&read(certificate)?, &read(key)?).map_err(|error| {
            format!("TLS certificate {} with key {}: {error}", certificate.display(), key.display())
        })?;
        builder.identity(identity);
    }
    builder.build().map_err(|error| format!("set up TLS: {error}"))
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("read {}: {error}", path.display()))
}

/// Why reading or writing failed, in one line.
fn reason(error: &CodecError) -> String {
    match error {
        CodecError::Io(error) => unreachable(error),
        CodecError::OutgoingPacketTooLarge { pkt_size, max } => {
            format!("a packet of {pkt_size} bytes is more than the {max} that the broker takes")
        }
        other => format!("what the broker sent cannot be read: {other}"),
    }
}

/// Describes an unreadable packet by its topic and size, as far as they are known. A packet that is
/// too large is still in the buffer; a malformed one is not.
fn unreadable(error: &CodecError, buffer: &[u8]) -> Option<String> {
    match error {
        CodecError::Io(_) => None,
        CodecError::PayloadSizeLimitExceeded { pkt_size, max } => {
            let topic = topic(buffer).map(|topic| format!(" on topic {topic:?}")).unwrap_or_default();
            Some(format!("a packet of {pkt_size} bytes{topic}, which is more than the {max} that the bridge takes"))
        }
        other => Some(format!("a packet that is not MQTT 5: {other}")),
    }
}

/// The topic of a PUBLISH of which the beginning is there.
fn topic(packet: &[u8]) -> Option<String> {
    let (kind, rest) = packet.split_first()?;
    let length_bytes = rest.iter().take(4).position(|byte| *byte < 128)? + 1;
    let (length, rest) = rest.get(length_bytes..)?.split_first_chunk::<2>()?;
    let topic = rest.get(..u16::from_be_bytes(*length).into())?;
    (kind >> 4 == 3).then(|| String::from_utf8_lossy(topic).into_owned())
}

fn unreachable(error: &io::Error) -> String {
    format!("the broker is unreachable: {error}")
}

fn refused(code: ConnectReturnCode) -> String {
    match code {
        ConnectReturnCode::BadUserNamePassword => "wrong user name or password".to_owned(),
        ConnectReturnCode::NotAuthorized => "the broker refuses the user name, password or certificate".to_owned(),
        ConnectReturnCode::RefusedProtocolVersion | ConnectReturnCode::UnsupportedProtocolVersion => {
            "the broker does not speak MQTT 5".to_owned()
        }
        ConnectReturnCode::BadClientId | ConnectReturnCode::ClientIdentifierNotValid => {
            "the broker refuses the client id".to_owned()
        }
        other => format!("the broker refuses the connection: {other:?}"),
    }
}

/// Why the broker ended the connection.
fn ended(disconnect: &Disconnect, client_id: &str) -> String {
    if disconnect.reason_code == DisconnectReasonCode::SessionTakenOver {
        return format!(
            "another client uses the client id {client_id:?}; give each bridge a client id of its own \
             (bridge.client_id), and let nobody else use it (the broker's users and ACL)"
        );
    }
    let code = disconnect.reason_code;
    match disconnect.properties.as_ref().and_then(|properties| properties.reason_string.as_ref()) {
        Some(text) => format!("the broker ended the connection: {code:?}, {text}"),
        None => format!("the broker ended the connection: {code:?}"),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use rumqttc::v5::mqttbytes::{
        QoS,
        v5::{PubAck, Publish},
    };
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;
    use crate::peer::{encoded, publish};

    fn link(keep_alive: Duration) -> (Link, DuplexStream) {
        let (ours, theirs) = duplex(1 << 20);
        let codec = Codec { max_incoming_size: None, max_outgoing_size: None };
        (
            Link::over(Framed::with_capacity(Box::new(ours), codec, READ_BYTES), "bridge-0".to_owned(), keep_alive),
            theirs,
        )
    }

    fn publishes(ids: std::ops::RangeInclusive<u16>) -> Vec<u8> {
        let packets: Vec<_> = ids.map(|pkid| publish(pkid, "b")).collect();
        encoded(&packets).to_vec()
    }

    /// Nothing is written while there is something to read, up to [`WRITE_BYTES`]; then everything
    /// at once.
    #[tokio::test]
    async fn acknowledgements_are_written_together() {
        let (mut link, mut peer) = link(Duration::from_secs(30));
        peer.write_all(&publishes(1..=300)).await.unwrap();
        let mut written = 0;
        let mut arrived = vec![0; 4096];
        for pkid in 1..=300 {
            let Packet::Publish(publish) = link.next().await.unwrap() else { panic!("no PUBLISH") };
            assert_eq!(publish.pkid, pkid);
            link.send(Packet::PubAck(PubAck::new(pkid, None))).unwrap();
            if pkid == 256 {
                assert!(peer.read(&mut arrived).now_or_never().is_none());
            }
        }
        assert!(link.next().now_or_never().is_none());
        while written < 300 * 4 {
            written += peer.read(&mut arrived).await.unwrap();
        }
        assert_eq!(written, 300 * 4);
    }

    /// What came before the end is taken, whatever is written meanwhile.
    #[tokio::test]
    async fn what_arrived_is_taken_before_the_end_is_told() {
        let (mut link, mut peer) = link(Duration::from_secs(30));
        peer.write_all(&publishes(1..=600)).await.unwrap();
        drop(peer);
        for _ in 1..=600 {
            let Packet::Publish(publish) = link.next().await.unwrap() else { panic!("no PUBLISH") };
            link.send(Packet::PubAck(PubAck::new(publish.pkid, None))).unwrap();
        }
        link.next().await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_answers_no_ping_has_gone_silent() {
        let (mut link, mut peer) = link(Duration::from_secs(30));
        let began = Instant::now();
        assert_eq!(link.next().await.unwrap_err(), "the broker has gone silent");
        assert_eq!(began.elapsed().as_secs(), 60);
        let mut ping = [0; 2];
        peer.read_exact(&mut ping).await.unwrap();
        assert_eq!(ping, [0xc0, 0]);
        // One that does is asked again and again.
        let (mut link, mut peer) = self::link(Duration::from_secs(30));
        let answers = tokio::spawn(async move {
            for _ in 0..5 {
                peer.read_exact(&mut ping).await.unwrap();
                peer.write_all(&[0xd0, 0]).await.unwrap();
            }
        });
        let began = Instant::now();
        assert_eq!(link.next().await.unwrap_err(), CLOSED);
        assert_eq!(began.elapsed().as_secs(), 150);
        answers.await.unwrap();
    }

    /// Nothing is read while there is no room for it; what was sent goes out all the same, and a
    /// ping for each keep-alive.
    #[tokio::test(start_paused = true)]
    async fn what_was_sent_goes_out_while_nothing_may_be_read() {
        let (mut link, mut peer) = link(Duration::from_secs(30));
        link.send(Packet::PubAck(PubAck::new(7, None))).unwrap();
        timeout(Duration::from_secs(100), link.hold()).await.unwrap_err();
        let mut arrived = [0; 16];
        assert_eq!(peer.read(&mut arrived).await.unwrap(), 10);
        assert_eq!(arrived[..10], [0x40, 2, 0, 7, 0xc0, 0, 0xc0, 0, 0xc0, 0]);
        // One answer, unread for longer than the broker may be silent.
        peer.write_all(&[0xd0, 0]).await.unwrap();
        peer.write_all(&publishes(1..=1)).await.unwrap();
        timeout(Duration::from_secs(100), link.hold()).await.unwrap_err();
        assert!(matches!(link.next().await.unwrap(), Packet::Publish(_)));
    }

    /// Also where only the beginning has arrived.
    #[tokio::test]
    async fn what_cannot_be_read_is_described() {
        let (mut link, mut peer) = link(Duration::from_secs(30));
        link.framed.codec_mut().max_incoming_size = Some(1_000);
        let large = encoded(&[publish(1, &"x".repeat(2_000))]);
        peer.write_all(&large[..200]).await.unwrap();
        link.next().await.unwrap_err();
        let size = large.len() - 3;
        let topic = "doseline/v1/acme/berlin/d1/report";
        let said =
            format!("a packet of {size} bytes on topic {topic:?}, which is more than the 1000 that the bridge takes");
        assert_eq!(link.unreadable().unwrap(), said);
        let (mut link, mut peer) = self::link(Duration::from_secs(30));
        peer.write_all(&[0x30, 4, 0, 9, b'a', b'b']).await.unwrap();
        link.next().await.unwrap_err();
        assert!(link.unreadable().unwrap().starts_with("a packet that is not MQTT 5: "));
        let (mut link, peer) = self::link(Duration::from_secs(30));
        drop(peer);
        link.next().await.unwrap_err();
        assert_eq!(link.unreadable(), None);
    }

    #[test]
    fn an_ipv6_address_may_stand_in_brackets() {
        assert_eq!(["[::1]", "::1", "broker.example"].map(bare), ["::1", "::1", "broker.example"]);
    }

    /// What the broker would not take is refused before it is sent; the connection stays.
    #[tokio::test]
    async fn a_packet_that_is_too_large_for_the_broker_is_refused() {
        let (mut link, mut peer) = link(Duration::from_secs(30));
        link.framed.codec_mut().max_outgoing_size = Some(20);
        let mut publish = Publish::new("a", QoS::AtLeastOnce, "x".repeat(100), None);
        publish.pkid = 1;
        let error = link.send(Packet::Publish(publish)).unwrap_err();
        assert_eq!(error, "a packet of 108 bytes is more than the 20 that the broker takes");
        link.close().await;
        let mut arrived = Vec::new();
        peer.read_to_end(&mut arrived).await.unwrap();
        assert_eq!(arrived, [0xe0, 0]);
    }

    #[test]
    fn reasons_are_one_clear_line() {
        assert_eq!(refused(ConnectReturnCode::BadUserNamePassword), "wrong user name or password");
        let error = io::Error::new(io::ErrorKind::ConnectionRefused, "Connection refused");
        assert_eq!(reason(&CodecError::Io(error)), "the broker is unreachable: Connection refused");
        let taken_over = Disconnect::new(DisconnectReasonCode::SessionTakenOver);
        assert!(ended(&taken_over, "bridge-0").starts_with("another client uses the client id \"bridge-0\"; "));
    }

    #[test]
    fn unreadable_tls_files_are_named() {
        let tls = Tls { ca: "/nowhere/ca.pem".into(), certificate: None, key: None };
        assert!(connector(&tls).unwrap_err().starts_with("read /nowhere/ca.pem: "));
    }
}
