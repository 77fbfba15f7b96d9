//! PostgreSQL's protocol byte by byte, for what no client would send.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A connection without any manners.
pub(crate) struct Wire(TcpStream);

/// What came back: the errors as `CODE message`, tags and rows left out, and whether the server still talks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// ReadyForQuery, after these errors.
    Ready(Vec<String>),
    /// The server closed the connection, after these errors.
    Closed(Vec<String>),
}

impl Wire {
    /// Connects, and says nothing.
    pub(crate) fn open(port: u16) -> Wire {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
        Wire(stream)
    }

    /// A session of root's.
    pub(crate) fn session(port: u16) -> Wire {
        let mut wire = Wire::open(port);
        wire.send(&startup());
        assert_eq!(wire.answer(), Answer::Ready(Vec::new()));
        wire
    }

    /// Sends bytes. A server that hangs up meanwhile is seen by reading.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// A simple query.
    pub(crate) fn query(&mut self, text: &str) -> Answer {
        self.send(&frame(b'Q', &[text.as_bytes(), b"\0"].concat()));
        self.answer()
    }

    /// One byte, as the answer to an SSLRequest is.
    pub(crate) fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.0.read_exact(&mut byte).unwrap();
        byte[0]
    }

    /// Reads until the server is ready or gone.
    pub(crate) fn answer(&mut self) -> Answer {
        let mut errors = Vec::new();
        loop {
            let mut head = [0; 5];
            if self.0.read_exact(&mut head).is_err() {
                return Answer::Closed(errors);
            }
            let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
            let mut body = vec![0; length - 4];
            if self.0.read_exact(&mut body).is_err() {
                return Answer::Closed(errors);
            }
            match head[0] {
                b'E' => errors.push(error_text(&body)),
                b'Z' => return Answer::Ready(errors),
                _ => {}
            }
        }
    }

    /// Reads until the server hangs up or sends nothing for a second; what it sent.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        self.0.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut bytes = Vec::new();
        let _ = self.0.read_to_end(&mut bytes);
        bytes
    }
}

impl Answer {
    /// The only error, from a server that still talks.
    pub(crate) fn error(self) -> String {
        match self {
            Answer::Ready(errors) if errors.len() == 1 => errors.into_iter().next().unwrap(),
            other => panic!("not one error and ready: {other:?}"),
        }
    }

    /// The error with which the server hung up.
    pub(crate) fn last_words(self) -> String {
        match self {
            Answer::Closed(errors) if errors.len() == 1 => errors.into_iter().next().unwrap(),
            other => panic!("not one error and closed: {other:?}"),
        }
    }
}

/// A message.
pub(crate) fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// The first message of a session.
pub(crate) fn startup() -> Vec<u8> {
    let body = b"\0\x03\0\0user\0root\0database\0meridian\0\0";
    [&u32::try_from(body.len() + 4).unwrap().to_be_bytes()[..], body].concat()
}

fn error_text(body: &[u8]) -> String {
    let field = |tag: u8| {
        let found = body.split(|byte| *byte == 0).find(|field| field.first() == Some(&tag));
        found.map(|field| String::from_utf8_lossy(&field[1..]).into_owned()).unwrap_or_default()
    };
    format!("{} {}", field(b'C'), field(b'M'))
}
