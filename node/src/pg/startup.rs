//! Driver: from an accepted socket to an authenticated client, or a refusal it can read.

use bytes::{Buf, BytesMut};
use pgwire::messages::cancel::CancelRequest;
use pgwire::messages::startup::{SecretKey, Startup};
use pgwire::messages::{DecodeContext, Message, ProtocolVersion};
use std::collections::BTreeMap;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::STARTUP_BYTES_MAX;

const SSL_REQUEST: i32 = 80_877_103;
const GSS_REQUEST: i32 = 80_877_104;
const CANCEL_REQUEST: i32 = 80_877_102;
const PROTOCOL_3: i32 = 3 << 16;

/// What the client wants.
pub enum Opening {
    /// A session.
    Session {
        /// Minor protocol version asked for; anything but 0 is negotiated down.
        minor: u16,
        /// Startup parameters.
        parameters: BTreeMap<String, String>,
    },
    /// To cancel another connection's statement.
    Cancel {
        /// Process id.
        process: i32,
        /// Secret.
        secret: i32,
    },
}

/// Why there will be no session.
#[derive(Debug, thiserror::Error)]
pub enum StartupError {
    /// The socket broke; nobody is there to be told.
    #[error("socket: {0}")]
    Socket(#[from] std::io::Error),
    /// Not the protocol; to be told with 08P01.
    #[error("{0}")]
    Malformed(String),
    /// A protocol version that we do not speak; to be told with 0A000.
    #[error("unsupported frontend protocol {0}.{1}: server supports 3.0")]
    Version(u16, u16),
}

/// Reads the opening messages. Encryption is refused with `N`, then the client goes on in the clear or leaves.
pub async fn read_opening(
    input: &mut (impl AsyncRead + Unpin),
    output: &mut (impl AsyncWrite + Unpin),
    buffer: &mut BytesMut,
) -> Result<Opening, StartupError> {
    loop {
        let frame = read_frame(input, buffer).await?;
        let code = i32::from_be_bytes(
            frame[4..8].try_into().expect("a startup frame has at least 8 bytes"),
        );
        match code {
            SSL_REQUEST | GSS_REQUEST => output.write_all(b"N").await?,
            CANCEL_REQUEST => return read_cancel(frame),
            _ if code >> 16 == PROTOCOL_3 >> 16 => return read_session(frame),
            _ => return Err(StartupError::Version((code >> 16) as u16, (code & 0xffff) as u16)),
        }
    }
}

/// One untyped frame, length first. Nothing is allocated for a length that is over the limit.
async fn read_frame(
    input: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> Result<BytesMut, StartupError> {
    loop {
        if buffer.len() >= 4 {
            let length = i32::from_be_bytes(buffer[..4].try_into().expect("four bytes"));
            let length = usize::try_from(length).unwrap_or(0);
            if !(8..=STARTUP_BYTES_MAX).contains(&length) {
                return Err(StartupError::Malformed(
                    "invalid length of startup packet".to_string(),
                ));
            }
            if buffer.len() >= length {
                return Ok(buffer.split_to(length));
            }
        }
        if input.read_buf(buffer).await? == 0 {
            return Err(StartupError::Socket(std::io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

fn read_cancel(mut frame: BytesMut) -> Result<Opening, StartupError> {
    let context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
    match CancelRequest::decode(&mut frame, &context) {
        Ok(Some(CancelRequest { pid, secret_key: SecretKey::I32(secret), .. })) => {
            Ok(Opening::Cancel { process: pid, secret })
        }
        _ => Err(StartupError::Malformed("invalid cancel request".to_string())),
    }
}

fn read_session(mut frame: BytesMut) -> Result<Opening, StartupError> {
    let minor = u16::from_be_bytes([frame[6], frame[7]]);
    frame[6..8].copy_from_slice(&[0, 0]);
    let context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
    match Startup::decode(&mut frame, &context) {
        Ok(Some(startup)) if !frame.has_remaining() => {
            Ok(Opening::Session { minor, parameters: startup.parameters })
        }
        _ => Err(StartupError::Malformed(
            "invalid startup packet layout: expected terminator as last byte".to_string(),
        )),
    }
}
