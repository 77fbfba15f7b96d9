//! Driver: a PostgreSQL client that may vanish between any two bytes.

use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use txn::runtime::Random;

use crate::pipe::{Reader, Writer};

/// What the server may send after the startup.
const TAGS: &[u8] = b"RKSZTDCEIN12n3tsGcd";

/// The client has left, or the server has hung up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gone;

/// What came between two ReadyForQuery.
#[derive(Default, Debug)]
pub(crate) struct Cycle {
    /// Of CommandComplete.
    pub(crate) tags: Vec<String>,
    /// SQLSTATEs.
    pub(crate) errors: Vec<String>,
    pub(crate) rows: usize,
    /// `I`, `T` or `E`.
    pub(crate) status: u8,
    /// Process and secret, from BackendKeyData.
    pub(crate) key: Option<[u8; 8]>,
}

pub(crate) struct Wire {
    /// Which connection.
    pub(crate) number: u64,
    reader: Reader,
    writer: Writer,
    random: Arc<dyn Random>,
    received: Vec<u8>,
    /// Sends and receptions until the client vanishes.
    fuse: Option<u32>,
}

impl Wire {
    pub(crate) fn new(
        number: u64,
        (reader, writer): (Reader, Writer),
        random: &Arc<dyn Random>,
    ) -> Wire {
        let fuse = random.next_u64();
        let fuse = (fuse.is_multiple_of(2)).then_some((fuse >> 8) as u32 % 60);
        Wire { number, reader, writer, random: random.clone(), received: Vec::new(), fuse }
    }

    /// From now on the client does not vanish.
    pub(crate) fn stay(&mut self) {
        self.fuse = None;
    }

    fn burn(&mut self) -> Result<(), Gone> {
        match &mut self.fuse {
            Some(0) => Err(Gone),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Sends all of it, or a part when the client vanishes now.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
        let vanishes = self.burn().is_err();
        let count = match vanishes {
            true => self.random.next_u64() as usize % bytes.len(),
            false => bytes.len(),
        };
        let sent = self.writer.write_all(&bytes[..count]).await;
        if vanishes { Err(Gone) } else { sent.map_err(|_| Gone) }
    }

    /// Reads until the server is ready.
    ///
    /// # Panics
    /// If what the server sends is not the protocol.
    pub(crate) async fn cycle(&mut self) -> Result<Cycle, Gone> {
        let mut cycle = Cycle::default();
        loop {
            let (tag, body) = self.frame().await?;
            assert!(TAGS.contains(&tag), "an unknown message {:?}", char::from(tag));
            match tag {
                b'C' => cycle.tags.push(text(&body)),
                b'D' => cycle.rows += 1,
                b'E' => cycle.errors.push(field(&body, b'C')),
                b'K' => cycle.key = Some(body.try_into().expect("eight bytes")),
                b'Z' => {
                    assert!(b"ITE".contains(&body[0]) && body.len() == 1, "{body:?}");
                    cycle.status = body[0];
                    return Ok(cycle);
                }
                _ => {}
            }
        }
    }

    async fn frame(&mut self) -> Result<(u8, Vec<u8>), Gone> {
        loop {
            if let [tag, a, b, c, d, ..] = *self.received {
                let whole = 1 + u32::from_be_bytes([a, b, c, d]) as usize;
                assert!((5..1 << 20).contains(&whole), "a message of {whole} bytes");
                if self.received.len() >= whole {
                    let body = self.received[5..whole].to_vec();
                    self.received.drain(..whole);
                    return Ok((tag, body));
                }
            }
            self.burn()?;
            match self.reader.read_buf(&mut self.received).await {
                Ok(count) if count > 0 => {}
                _ => return Err(Gone),
            }
        }
    }
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn field(body: &[u8], name: u8) -> String {
    let mut fields = body.split(|byte| *byte == 0);
    fields
        .find(|field| field.first() == Some(&name))
        .map_or(String::new(), |field| text(&field[1..]))
}

/// A message: tag, length, contents.
pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &(body.len() as u32 + 4).to_be_bytes(), body].concat()
}

pub(crate) fn query(text: &str) -> Vec<u8> {
    message(b'Q', &[text.as_bytes(), b"\0"].concat())
}

/// Parse, Bind of one text parameter, Execute, Sync.
pub(crate) fn extended(statement: &str, parameter: &str) -> Vec<u8> {
    let bind = [
        &b"\0\0\0\0\0\x01"[..],
        &(parameter.len() as u32).to_be_bytes(),
        parameter.as_bytes(),
        &[0, 0],
    ];
    [
        message(b'P', &[&[0][..], statement.as_bytes(), &[0, 0, 0]].concat()),
        message(b'B', &bind.concat()),
        message(b'E', &[0, 0, 0, 0, 0]),
        message(b'S', &[]),
    ]
    .concat()
}

/// The startup of a session of root's.
pub(crate) fn startup() -> Vec<u8> {
    untyped(196_608, b"user\0root\0database\0meridian\0\0")
}

/// The request to cancel what a session does.
pub(crate) fn cancel(key: [u8; 8]) -> Vec<u8> {
    untyped(80_877_102, &key)
}

fn untyped(code: u32, body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32 + 8).to_be_bytes(), &code.to_be_bytes(), body].concat()
}
