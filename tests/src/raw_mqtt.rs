//! An MQTT client that sends any bytes.

use std::{
    io::{Error, ErrorKind, Read, Result, Write},
    net::TcpStream,
    path::Path,
    time::Duration,
};

use openssl::ssl::{SslConnector, SslFiletype, SslMethod};

const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// TCP, or TLS over it.
trait Stream: Read + Write + Send {}

impl<S: Read + Write + Send> Stream for S {}

/// How a client proves who it is: its certificate with the ending `.pem`, beside its key with the
/// ending `.key`.
#[derive(Clone, Copy)]
pub struct Identity<'a> {
    /// File of the authority that signs the broker's certificate.
    pub authority: &'a Path,
    /// None for a client without a certificate.
    pub certificate: Option<&'a Path>,
}

/// A last will: topic and payload. The broker retains it.
pub type Will<'a> = (&'a str, &'a [u8]);

/// One connection with QoS 1.
pub struct RawMqtt {
    stream: Box<dyn Stream>,
    /// 4 for MQTT 3.1.1, 5 for MQTT 5.
    version: u8,
    next_id: u16,
}

impl RawMqtt {
    /// Connects with a session that is not kept, and waits until the broker accepts.
    ///
    /// # Errors
    /// The broker is away, or refuses.
    pub fn connect(address: &str, client_id: &str, version: u8) -> Result<Self> {
        Self::over(Box::new(tcp(address)?), client_id, version, None)
    }

    /// As [`Self::connect`], over TLS to a broker whose certificate names `localhost`.
    ///
    /// # Errors
    /// As [`Self::connect`]; also if one of the two refuses the other's certificate.
    pub fn connect_tls(
        address: &str,
        identity: Identity<'_>,
        client_id: &str,
        version: u8,
        will: Option<Will<'_>>,
    ) -> Result<Self> {
        let mut connector = SslConnector::builder(SslMethod::tls())?;
        connector.set_ca_file(identity.authority)?;
        if let Some(certificate) = identity.certificate {
            connector.set_certificate_chain_file(certificate)?;
            connector.set_private_key_file(certificate.with_extension("key"), SslFiletype::PEM)?;
        }
        let stream = connector.build().connect("localhost", tcp(address)?).map_err(Error::other)?;
        Self::over(Box::new(stream), client_id, version, will)
    }

    fn over(stream: Box<dyn Stream>, client_id: &str, version: u8, will: Option<Will<'_>>) -> Result<Self> {
        let mut client = Self { stream, version, next_id: 0 };
        let mut body = text(b"MQTT");
        // Clean start; a will with QoS 1, retained.
        let flags = if will.is_some() { 0b0010_1110 } else { 0b10 };
        body.extend([version, flags, 0, 60]);
        client.properties(&mut body);
        body.extend(text(client_id.as_bytes()));
        if let Some((topic, payload)) = will {
            client.properties(&mut body);
            body.extend(text(topic.as_bytes()));
            body.extend(text(payload));
        }
        client.send(0x10, &body)?;
        match client.receive()? {
            (0x20, answer) if answer.get(1) == Some(&0) => Ok(client),
            answer => Err(Error::other(format!("CONNECT was answered with {answer:?}"))),
        }
    }

    /// Publishes. Returns whether the broker accepted it; a broker that closes the connection did
    /// not.
    pub fn publish(&mut self, topic: &[u8], payload: &[u8], retain: bool) -> bool {
        self.next_id += 1;
        let id = self.next_id.to_be_bytes();
        let mut body = text(topic);
        body.extend(id);
        self.properties(&mut body);
        body.extend(payload);
        // The broker may refuse before it has read everything.
        let _ = self.send(0x32 | u8::from(retain), &body);
        loop {
            match self.receive() {
                // A reason of 0x80 or above is a refusal.
                Ok((0x40, answer)) if answer.starts_with(&id) => {
                    return answer.get(2).is_none_or(|reason| *reason < 0x80);
                }
                Ok((0xe0, _)) | Err(_) => return false,
                Ok(_) => {}
            }
        }
    }

    /// Subscribes. Returns whether the broker answered at all.
    pub fn subscribe(&mut self, filter: &[u8]) -> bool {
        self.ask_for(filter).is_ok() && self.receive().is_ok_and(|(kind, _)| kind == 0x90)
    }

    /// Subscribes. Returns whether the broker granted it.
    ///
    /// # Errors
    /// The broker closed the connection, or is silent.
    pub fn is_granted(&mut self, filter: &str) -> Result<bool> {
        self.ask_for(filter.as_bytes())?;
        loop {
            let (kind, answer) = self.receive()?;
            if kind == 0x90 {
                // A reason of 0x80 or above is a refusal.
                return Ok(answer.last().is_some_and(|reason| *reason < 0x80));
            }
        }
    }

    fn ask_for(&mut self, filter: &[u8]) -> Result<()> {
        let mut body = vec![0xff, 0xff];
        self.properties(&mut body);
        body.extend(text(filter));
        body.push(1);
        self.send(0x82, &body)
    }

    /// The topic and payload of the next message; it is acknowledged.
    ///
    /// # Errors
    /// The broker closed the connection, or is silent.
    pub fn message(&mut self) -> Result<(String, Vec<u8>)> {
        loop {
            let (kind, body) = self.receive()?;
            if kind & 0xf0 == 0x30 {
                return self.taken(kind, &body);
            }
        }
    }

    /// All messages that the broker has sent before it answers a ping. They are acknowledged.
    ///
    /// # Errors
    /// The broker closed the connection, or is silent.
    pub fn messages(&mut self) -> Result<Vec<(String, Vec<u8>)>> {
        self.send(0xc0, &[])?;
        let mut messages = Vec::new();
        loop {
            match self.receive()? {
                (0xd0, _) => return Ok(messages),
                (kind, body) if kind & 0xf0 == 0x30 => messages.push(self.taken(kind, &body)?),
                _ => {}
            }
        }
    }

    /// Acknowledges a PUBLISH and reads its topic and payload.
    fn taken(&mut self, kind: u8, body: &[u8]) -> Result<(String, Vec<u8>)> {
        let length = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8_lossy(&body[2..2 + length]).into_owned();
        let mut rest = &body[2 + length..];
        if kind & 0b110 != 0 {
            self.send(0x40, &rest[..2])?;
            rest = &rest[2..];
        }
        if self.version == 5 {
            let properties = usize::from(rest[0]);
            assert!(properties < 128, "a message with few properties");
            rest = &rest[1 + properties..];
        }
        Ok((topic, rest.to_vec()))
    }

    /// Whether the broker still answers.
    pub fn is_open(&mut self) -> bool {
        if self.send(0xc0, &[]).is_err() {
            return false;
        }
        loop {
            match self.receive() {
                Ok((0xd0, _)) => return true,
                Ok((0xe0, _)) | Err(_) => return false,
                Ok(_) => {}
            }
        }
    }

    fn properties(&self, body: &mut Vec<u8>) {
        if self.version == 5 {
            body.push(0);
        }
    }

    fn send(&mut self, kind: u8, body: &[u8]) -> Result<()> {
        let mut packet = vec![kind];
        let mut rest = body.len();
        loop {
            let more = rest >= 128;
            packet.push((rest % 128) as u8 | u8::from(more) << 7);
            rest /= 128;
            if !more {
                break;
            }
        }
        packet.extend(body);
        self.stream.write_all(&packet)
    }

    /// The next packet: its first byte and its body.
    ///
    /// # Errors
    /// The broker closed the connection, or is silent.
    pub fn receive(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        let (kind, mut length, mut shift) = (byte[0], 0usize, 0);
        loop {
            self.stream.read_exact(&mut byte)?;
            length |= usize::from(byte[0] & 127) << shift;
            shift += 7;
            if byte[0] < 128 {
                break;
            }
            if shift > 21 {
                return Err(ErrorKind::InvalidData.into());
            }
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Ok((kind, body))
    }
}

fn tcp(address: &str) -> Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    Ok(stream)
}

fn text(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("64 KiB at most");
    [&length.to_be_bytes()[..], bytes].concat()
}
