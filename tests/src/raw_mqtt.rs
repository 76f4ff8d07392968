//! An MQTT client that sends any bytes.

use std::{
    io::{Error, ErrorKind, Read as _, Result, Write as _},
    net::TcpStream,
    time::Duration,
};

const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// One connection with QoS 1.
pub struct RawMqtt {
    stream: TcpStream,
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
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        stream.set_write_timeout(Some(ANSWER_WITHIN))?;
        let mut client = Self { stream, version, next_id: 0 };
        let mut body = text(b"MQTT");
        body.extend([version, 0b10, 0, 60]);
        client.properties(&mut body);
        body.extend(text(client_id.as_bytes()));
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
        let mut body = vec![0xff, 0xff];
        self.properties(&mut body);
        body.extend(text(filter));
        body.push(1);
        self.send(0x82, &body).is_ok() && self.receive().is_ok_and(|(kind, _)| kind == 0x90)
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

fn text(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("64 KiB at most");
    [&length.to_be_bytes()[..], bytes].concat()
}
