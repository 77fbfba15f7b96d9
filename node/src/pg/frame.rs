//! Value: whether what a client sends is a message at all. The codec trusts lengths and counts; so each frame is checked here, whole,
//! before the codec sees it.
//!
//! ```text
//!   a length that no message can have, an unknown type  -> Lost: where the next one begins is unknown, the connection ends (FATAL)
//!   a length over our limit, contents that do not fit   -> refused: an ERROR, and the connection goes on behind the frame
//! ```
//!
//! Codes and words are PostgreSQL's (`pqformat.c`). Nothing is allocated for a length that is only announced.

use sql::{SqlError, SqlState};

use super::FRAME_BYTES_MAX;

/// Beyond this not even a refused frame is read to its end; PostgreSQL's own limit.
const LENGTH_MAX: u32 = (1 << 30) - 1;

/// What stands at the beginning of the input.
#[derive(Debug, PartialEq, Eq)]
pub enum Front {
    /// Too little to tell.
    Incomplete,
    /// A frame of so many bytes, type and length included, which may not all be there yet.
    Frame(usize),
    /// A frame of so many bytes that is over the limit.
    TooLong(usize),
    /// Not the protocol.
    Lost(String),
}

/// Looks at the first five bytes.
pub fn front(input: &[u8]) -> Front {
    let (Some(tag), Some(length)) = (input.first(), input.get(1..5)) else {
        return Front::Incomplete;
    };
    if !b"QPBEDCSHXFdcfp".contains(tag) {
        return Front::Lost(format!("invalid frontend message type {tag}"));
    }
    let length = u32::from_be_bytes(length.try_into().expect("four bytes"));
    if !(4..=LENGTH_MAX).contains(&length) {
        return Front::Lost(format!("invalid message length {length}"));
    }
    let whole = length as usize + 1;
    if whole > FRAME_BYTES_MAX { Front::TooLong(whole) } else { Front::Frame(whole) }
}

/// What is said of a frame over the limit.
pub fn too_long(whole: usize) -> SqlError {
    let why =
        format!("a message of {whole} bytes is over the limit of {FRAME_BYTES_MAX} bytes (64 MiB)");
    SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, why)
        .with_hint("Send less at once: several statements, or COPY in pieces.")
}

/// Checks a whole frame against its type's layout.
pub fn check(frame: &[u8]) -> Result<(), SqlError> {
    let mut body = Body { rest: &frame[5..] };
    match frame[0] {
        b'Q' => body.text()?,
        b'P' => {
            body.text()?;
            body.text()?;
            let types = body.count()?;
            body.skip(types * 4)?;
        }
        b'B' => body.bind()?,
        b'E' => {
            body.text()?;
            body.skip(4)?;
        }
        b'D' | b'C' => {
            if !matches!(body.byte()?, b'S' | b'P') {
                return Err(violation("invalid DESCRIBE or CLOSE message subtype"));
            }
            body.text()?;
        }
        b'f' => body.text()?,
        b'F' => {
            let why = "function calls by message are not supported: use SELECT".to_string();
            return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, why));
        }
        // Data, which is the statement's affair; and a password, which is refused as what it is.
        b'd' | b'p' => return Ok(()),
        b'S' | b'H' | b'X' | b'c' => {}
        other => return Err(violation(&format!("invalid frontend message type {other}"))),
    }
    if body.rest.is_empty() { Ok(()) } else { Err(violation("invalid message format")) }
}

fn violation(why: &str) -> SqlError {
    SqlError::new(SqlState::PROTOCOL_VIOLATION, why.to_string())
}

/// What of a frame is still to be looked at.
struct Body<'a> {
    rest: &'a [u8],
}

impl Body<'_> {
    fn skip(&mut self, bytes: usize) -> Result<(), SqlError> {
        self.rest =
            self.rest.get(bytes..).ok_or_else(|| violation("insufficient data left in message"))?;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, SqlError> {
        let byte =
            *self.rest.first().ok_or_else(|| violation("insufficient data left in message"))?;
        self.skip(1)?;
        Ok(byte)
    }

    fn count(&mut self) -> Result<usize, SqlError> {
        Ok(usize::from(self.byte()?) << 8 | usize::from(self.byte()?))
    }

    /// A text that ends with a zero byte.
    fn text(&mut self) -> Result<(), SqlError> {
        let end = self.rest.iter().position(|byte| *byte == 0);
        let end = end.ok_or_else(|| violation("invalid string in message"))?;
        if let Err(error) = std::str::from_utf8(&self.rest[..end]) {
            let wrong = &self.rest[error.valid_up_to()..end];
            let wrong: Vec<String> = wrong
                .iter()
                .take(error.error_len().unwrap_or(wrong.len()))
                .map(|byte| format!("0x{byte:02x}"))
                .collect();
            return Err(SqlError::new(
                SqlState::CHARACTER_NOT_IN_REPERTOIRE,
                format!("invalid byte sequence for encoding \"UTF8\": {}", wrong.join(" ")),
            ));
        }
        self.skip(end + 1)
    }

    fn bind(&mut self) -> Result<(), SqlError> {
        self.text()?;
        self.text()?;
        let formats = self.count()?;
        self.skip(formats * 2)?;
        for _ in 0..self.count()? {
            let mut length = [0_u8; 4];
            for byte in &mut length {
                *byte = self.byte()?;
            }
            match i32::from_be_bytes(length) {
                -1 => {}
                length => {
                    let length = usize::try_from(length);
                    self.skip(length.map_err(|_| violation("insufficient data left in message"))?)?;
                }
            }
        }
        let formats = self.count()?;
        self.skip(formats * 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    #[test]
    fn whatever_is_cut_off_or_too_long_is_refused() {
        let whole: [(u8, &[u8]); 6] = [
            (b'Q', b"SELECT 1\0"),
            (b'P', b"name\0SELECT $1\0\0\x01\0\0\0\x17"),
            (b'B', b"portal\0name\0\0\x01\0\0\0\x02\0\0\0\x01a\xff\xff\xff\xff\0\x01\0\x01"),
            (b'E', b"portal\0\0\0\0\0"),
            (b'D', b"Sname\0"),
            (b'f', b"why\0"),
        ];
        for (tag, body) in whole {
            assert!(check(&frame(tag, body)).is_ok(), "{}", char::from(tag));
            let longer = [body, b"\0"].concat();
            assert!(check(&frame(tag, &longer)).is_err(), "{} and more", char::from(tag));
            for length in 0..body.len() {
                let cut = frame(tag, &body[..length]);
                assert!(check(&cut).is_err(), "{} cut to {length}", char::from(tag));
            }
        }
    }

    #[test]
    fn text_that_is_not_utf8_is_named() {
        let error = check(&frame(b'Q', b"SELECT '\xc3\x28'\0")).unwrap_err();
        assert_eq!(error.code.to_string(), "22021");
        assert_eq!(error.message, "invalid byte sequence for encoding \"UTF8\": 0xc3");
    }

    #[test]
    fn lengths_that_cannot_be_end_the_connection_and_long_ones_do_not() {
        assert_eq!(front(b"Q\0\0\0"), Front::Incomplete);
        assert_eq!(front(b"Q\0\0\0\x04"), Front::Frame(5));
        assert!(matches!(front(b"Q\0\0\0\x03"), Front::Lost(_)));
        assert!(matches!(front(b"Q\x7f\xff\xff\xff"), Front::Lost(_)));
        assert!(matches!(front(b"\xff\0\0\0\x04"), Front::Lost(_)));
        assert!(matches!(front(b"Q\x06\0\0\0"), Front::TooLong(_)));
    }
}
