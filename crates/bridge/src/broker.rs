//! How to reach the MQTT broker, and why it could not be reached.

use std::io;

use rumqttc::{
    NetworkOptions, TlsConfiguration, Transport,
    tokio_native_tls::native_tls::{self, Certificate, TlsConnector},
    v5::{
        AsyncClient, ConnectionError, EventLoop, MqttOptions, StateError,
        mqttbytes::{
            Error as CodecError,
            v5::{ConnectReturnCode, DisconnectReasonCode},
        },
    },
};

use crate::options::{Mqtt, Tls};

/// Most requests that wait in a client: no more acknowledgements can be due than there are packet ids, so that handing
/// one over never fails for want of room.
const REQUESTS_MAX: usize = u16::MAX as usize + 16;

/// What one connection is for.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// Receives: keeps a session, acknowledges by hand.
    Receive { index: u16 },
    /// Sends receipts; `window` may be unacknowledged.
    Receipts { window: u16 },
}

/// A client and its event loop for one network connection; both are thrown away together with it.
pub(crate) fn client(mqtt: &Mqtt, purpose: &Purpose) -> Result<(AsyncClient, EventLoop), String> {
    let id = match purpose {
        Purpose::Receive { index } => format!("{}-{index}", mqtt.client_id),
        Purpose::Receipts { .. } => format!("{}-receipts", mqtt.client_id),
    };
    let mut options = MqttOptions::new(id, &mqtt.host, mqtt.port);
    options.set_keep_alive(mqtt.keep_alive);
    options.set_max_packet_size(Some(mqtt.packet_bytes_max));
    if let Some(username) = &mqtt.username {
        let password = mqtt.password.as_ref().map(|secret| secret.read()).transpose();
        let password = password.map_err(|error| format!("read the MQTT password: {error}"))?;
        options.set_credentials(username, password.unwrap_or_default());
    }
    if let Some(tls) = &mqtt.tls {
        let connector = connector(tls)?;
        options.set_transport(Transport::tls_with_config(TlsConfiguration::NativeConnector(connector)));
    }
    let mut network = NetworkOptions::new();
    // Receipts and acknowledgements are small; Nagle's algorithm would hold them back.
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    match purpose {
        Purpose::Receive { .. } => {
            options.set_clean_start(false);
            options.set_manual_acks(true);
            options.set_receive_maximum(Some(mqtt.receive_maximum));
            options.set_session_expiry_interval(Some(u32::try_from(mqtt.session_expiry.as_secs()).unwrap_or(u32::MAX)));
            options.set_outgoing_inflight_upper_limit(16);
        }
        Purpose::Receipts { window } => {
            options.set_clean_start(true);
            options.set_outgoing_inflight_upper_limit(*window);
        }
    }
    Ok(AsyncClient::new(options, REQUESTS_MAX))
}

fn connector(tls: &Tls) -> Result<TlsConnector, String> {
    let mut builder = TlsConnector::builder();
    if let Some(path) = &tls.ca {
        let pem = read(path)?;
        let certificates = Certificate::stack_from_pem(&pem);
        let certificates = certificates.map_err(|error| format!("TLS authority {}: {error}", path.display()))?;
        // Only the given authority is trusted, not the system's as well.
        builder.disable_built_in_roots(true);
        for certificate in certificates {
            builder.add_root_certificate(certificate);
        }
    }
    if let Some(identity) = &tls.identity {
        let (cert, key) = (read(&identity.cert)?, read(&identity.key)?);
        let identity = native_tls::Identity::from_pkcs8(&cert, &key).map_err(|error| {
            format!("TLS certificate {} with key {}: {error}", identity.cert.display(), identity.key.display())
        })?;
        builder.identity(identity);
    }
    builder.build().map_err(|error| format!("set up TLS: {error}"))
}

fn read(path: &std::path::Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("read {}: {error}", path.display()))
}

/// Why a connection failed, in one line for a person.
pub(crate) fn reason(error: &ConnectionError) -> String {
    match error {
        ConnectionError::Io(error) => unreachable(error),
        ConnectionError::Timeout(_) => "the broker does not answer".to_owned(),
        ConnectionError::ConnectionRefused(code) => refused(*code),
        ConnectionError::Tls(error) => format!("TLS refused: {error}"),
        ConnectionError::NotConnAck(_) => "the broker did not answer with CONNACK; is it an MQTT 5 broker?".to_owned(),
        ConnectionError::MqttState(error) => state(error),
        other => other.to_string(),
    }
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

fn state(error: &StateError) -> String {
    match error {
        StateError::Io(error) => unreachable(error),
        StateError::ConnectionAborted => "the broker closed the connection".to_owned(),
        StateError::AwaitPingResp => "the broker has gone silent".to_owned(),
        StateError::ServerDisconnect { reason_code: DisconnectReasonCode::SessionTakenOver, .. } => {
            "another client took over the client id; each bridge needs its own".to_owned()
        }
        StateError::ServerDisconnect { reason_code, reason_string } => match reason_string {
            Some(text) => format!("the broker ended the connection: {reason_code:?}, {text}"),
            None => format!("the broker ended the connection: {reason_code:?}"),
        },
        StateError::Deserialization(CodecError::Io(error)) => unreachable(error),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_one_clear_line() {
        let refused = |code| reason(&ConnectionError::ConnectionRefused(code));
        assert_eq!(refused(ConnectReturnCode::BadUserNamePassword), "wrong user name or password");
        let error = io::Error::new(io::ErrorKind::ConnectionRefused, "Connection refused");
        assert_eq!(reason(&ConnectionError::Io(error)), "the broker is unreachable: Connection refused");
        let taken =
            StateError::ServerDisconnect { reason_code: DisconnectReasonCode::SessionTakenOver, reason_string: None };
        assert!(reason(&ConnectionError::MqttState(taken)).contains("took over"));
    }

    #[test]
    fn unreadable_tls_files_are_named() {
        let tls = Tls { ca: Some("/nowhere/ca.pem".into()), identity: None };
        let mqtt = Mqtt { tls: Some(tls), ..Mqtt::default() };
        let error = client(&mqtt, &Purpose::Receive { index: 0 }).err().unwrap();
        assert!(error.starts_with("read /nowhere/ca.pem: "), "{error}");
    }
}
