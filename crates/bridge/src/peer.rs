//! A broker that does what a test says, byte by byte.

use std::time::Duration;

use bytes::BytesMut;
use rumqttc::v5::mqttbytes::{
    Error as CodecError, QoS,
    v5::{
        ConnAck, ConnAckProperties, Connect, ConnectReturnCode, Disconnect, DisconnectReasonCode, Packet, Publish,
        SubAck, SubscribeReasonCode,
    },
};
use telemetry::topic::SUBSCRIPTIONS;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::options::{Mqtt, Options};

pub const WITHIN: Duration = Duration::from_secs(20);

/// Where a bridge connects to, and the options that lead it there.
pub async fn listen() -> (TcpListener, Options) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut options = Options::default();
    options.mqtt.host = "127.0.0.1".to_owned();
    options.mqtt.port = listener.local_addr().unwrap().port();
    (listener, options)
}

/// The broker's side of one network connection.
pub struct Peer {
    pub stream: TcpStream,
    buffer: BytesMut,
}

impl Peer {
    /// Accepts a connection; what its CONNECT said.
    pub async fn connect(
        listener: &TcpListener,
        session_present: bool,
        properties: Option<ConnAckProperties>,
    ) -> (Self, Connect) {
        let (stream, _) = tokio::time::timeout(WITHIN, listener.accept()).await.unwrap().unwrap();
        let mut peer = Self { stream, buffer: BytesMut::new() };
        let Packet::Connect(connect, ..) = peer.read().await else { panic!("no CONNECT") };
        let connack = ConnAck { session_present, code: ConnectReturnCode::Success, properties };
        peer.write(&[Packet::ConnAck(connack)]).await;
        (peer, connect)
    }

    /// Accepts a bridge that connects and subscribes.
    pub async fn accept(listener: &TcpListener, session_present: bool) -> Self {
        let (mut peer, connect) = Self::connect(listener, session_present, None).await;
        let (asked, defaults) = (connect.properties.unwrap(), Mqtt::default());
        assert!(!connect.clean_start);
        assert_eq!(Duration::from_secs(connect.keep_alive.into()), defaults.keep_alive);
        assert_eq!(Duration::from_secs(asked.session_expiry_interval.unwrap().into()), defaults.session_expiry);
        assert_eq!((asked.receive_maximum, asked.max_packet_size), (Some(4_000), Some(defaults.packet_bytes_max)));
        let Packet::Subscribe(subscribe) = peer.read().await else { panic!("no SUBSCRIBE") };
        let filters: Vec<_> = subscribe.filters.iter().map(|filter| filter.path.as_str()).collect();
        assert_eq!(filters, SUBSCRIPTIONS);
        let return_codes = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce); 3];
        peer.write(&[Packet::SubAck(SubAck { pkid: subscribe.pkid, return_codes, properties: None })]).await;
        peer
    }

    pub async fn read(&mut self) -> Packet {
        loop {
            // The short form of DISCONNECT, which the client library writes and does not read.
            if self.buffer.starts_with(&[0xe0, 0]) {
                return Packet::Disconnect(Disconnect::new(DisconnectReasonCode::NormalDisconnection));
            }
            match Packet::read(&mut self.buffer, None) {
                Ok(packet) => return packet,
                Err(CodecError::InsufficientBytes(_)) => {}
                Err(error) => panic!("{error}"),
            }
            let read = tokio::time::timeout(WITHIN, self.stream.read_buf(&mut self.buffer)).await;
            assert!(read.unwrap().unwrap() > 0, "the bridge closed the connection");
        }
    }

    pub async fn write(&mut self, packets: &[Packet]) {
        self.stream.write_all(&encoded(packets)).await.unwrap();
    }

    /// The acknowledgements up to DISCONNECT.
    pub async fn acknowledgements(&mut self) -> Vec<u16> {
        let mut acknowledged = Vec::new();
        loop {
            match self.read().await {
                Packet::PubAck(ack) => acknowledged.push(ack.pkid),
                Packet::Disconnect(_) => return acknowledged,
                Packet::PingReq(_) => {}
                packet => panic!("unexpected {packet:?}"),
            }
        }
    }
}

/// A message of a device.
pub fn publish(pkid: u16, payload: &str) -> Packet {
    let topic = "doseline/v1/acme/berlin/d1/report";
    let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload.to_owned(), None);
    publish.pkid = pkid;
    Packet::Publish(publish)
}

pub fn encoded(packets: &[Packet]) -> BytesMut {
    let mut bytes = BytesMut::new();
    for packet in packets {
        packet.write(&mut bytes, None).unwrap();
    }
    bytes
}
