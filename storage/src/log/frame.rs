//! Value: what a segment file looks like: two header slots, then frames.
//!
//! ```text
//!   0      slot A      magic | format | crc | number | previous | oldest | first sequence
//!   512    slot B
//!   4096   frame       magic | length | crc | format | segment | sequence | synced | oldest | payload | zeros to 16
//!          frame ..
//! ```
//!
//! A file is recycled by writing a header with a new number into the *other* slot: however that write is torn, the
//! file is either still the old segment, whole, or the new one. A frame is valid only under its segment's number, so
//! what an earlier life of the file left behind is never taken for a frame of this one.
//!
//! Frames and headers carry claims for recovery, true of what is durable when they are written:
//! - `synced`: every frame up to this sequence is durable. Damage at or below it is corruption, never a torn tail.
//! - `oldest`: segments below this number are not needed any more; this one and all above are.
//! - a header's `first`: every frame below it is durable.
//! - a header's `previous`: the number of the segment that holds them; zero when there is none.

use crate::StorageError;
use crate::log::file::{LogFile, read_exact};

/// Where frames begin; the block before it is the headers'.
pub(crate) const FRAMES_AT: u64 = 4096;
/// Frames begin at multiples of this.
pub(crate) const ALIGN: u64 = 16;
pub(crate) const FRAME_HEADER_BYTES: usize = 48;
/// Largest payload; a batch over it is refused.
pub(crate) const PAYLOAD_BYTES_MAX: usize = 1 << 30;

const SLOT_BYTES: usize = 512;
const SEGMENT_HEADER_BYTES: usize = 44;
const SEGMENT_MAGIC: u32 = u32::from_be_bytes(*b"MsLg");
const FRAME_MAGIC: u32 = u32::from_be_bytes(*b"MfLg");
const FORMAT: u32 = 1;

/// Which of the two header places.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Slot {
    A,
    B,
}

impl Slot {
    pub(crate) fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }

    pub(crate) fn offset(self) -> u64 {
        match self {
            Slot::A => 0,
            Slot::B => SLOT_BYTES as u64,
        }
    }
}

/// Identity of a segment. Numbers ascend and are never used twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SegmentHeader {
    pub(crate) number: u64,
    pub(crate) previous: u64,
    pub(crate) oldest: u64,
    pub(crate) first: u64,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        out[0..4].copy_from_slice(&SEGMENT_MAGIC.to_be_bytes());
        out[4..8].copy_from_slice(&FORMAT.to_be_bytes());
        for (field, place) in
            [self.number, self.previous, self.oldest, self.first].iter().zip([12, 20, 28, 36])
        {
            out[place..place + 8].copy_from_slice(&field.to_be_bytes());
        }
        let crc = checksum(&out);
        out[8..12].copy_from_slice(&crc.to_be_bytes());
        out
    }

    /// The header in a slot; `None` when there is none, or a torn one. Errors: `Foreign` for a later format.
    fn decode(bytes: &[u8]) -> Result<Option<SegmentHeader>, StorageError> {
        let bytes = &bytes[..SEGMENT_HEADER_BYTES];
        if u32_at(bytes, 0) != SEGMENT_MAGIC || u32_at(bytes, 8) != checksum(bytes) {
            return Ok(None);
        }
        if u32_at(bytes, 4) != FORMAT {
            let text = format!("log format {} is not known to this version", u32_at(bytes, 4));
            return Err(StorageError::Foreign(text));
        }
        Ok(Some(SegmentHeader {
            number: u64_at(bytes, 12),
            previous: u64_at(bytes, 20),
            oldest: u64_at(bytes, 28),
            first: u64_at(bytes, 36),
        }))
    }
}

/// The header that counts, with its slot: the one with the greater number.
pub(crate) fn read_header(
    file: &dyn LogFile,
) -> Result<Option<(Slot, SegmentHeader)>, StorageError> {
    if file.bytes()? < FRAMES_AT {
        return Ok(None);
    }
    let block = read_exact(file, 0, 2 * SLOT_BYTES)?;
    let a = SegmentHeader::decode(&block[..SLOT_BYTES])?.map(|header| (Slot::A, header));
    let b = SegmentHeader::decode(&block[SLOT_BYTES..])?.map(|header| (Slot::B, header));
    Ok([a, b].into_iter().flatten().max_by_key(|(_, header)| header.number))
}

/// What a frame says about itself and about the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct FrameHeader {
    pub(crate) segment: u64,
    pub(crate) sequence: u64,
    pub(crate) synced: u64,
    pub(crate) oldest: u64,
}

/// A whole frame, padding included. `frame` holds [`FRAME_HEADER_BYTES`] of anything and the payload.
pub(crate) fn seal(frame: &mut Vec<u8>, header: &FrameHeader) {
    let payload_bytes = frame.len() - FRAME_HEADER_BYTES;
    assert!(payload_bytes <= PAYLOAD_BYTES_MAX, "payload of {payload_bytes} bytes over the limit");
    frame[0..4].copy_from_slice(&FRAME_MAGIC.to_be_bytes());
    frame[4..8].copy_from_slice(&(payload_bytes as u32).to_be_bytes());
    frame[12..16].copy_from_slice(&FORMAT.to_be_bytes());
    for (field, place) in
        [header.segment, header.sequence, header.synced, header.oldest].iter().zip([16, 24, 32, 40])
    {
        frame[place..place + 8].copy_from_slice(&field.to_be_bytes());
    }
    let crc = checksum(frame);
    frame[8..12].copy_from_slice(&crc.to_be_bytes());
    frame.resize(frame.len().next_multiple_of(ALIGN as usize), 0);
}

/// A frame found in a file: its header, and the payload.
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// Bytes it takes in the file.
    pub(crate) fn bytes(&self) -> u64 {
        ((FRAME_HEADER_BYTES + self.payload.len()) as u64).next_multiple_of(ALIGN)
    }
}

/// The valid frame at `offset`, of whatever segment; `None` when there is none.
pub(crate) fn read_frame(
    file: &dyn LogFile,
    offset: u64,
    file_bytes: u64,
) -> Result<Option<Frame>, StorageError> {
    if offset + FRAME_HEADER_BYTES as u64 > file_bytes {
        return Ok(None);
    }
    let head = read_exact(file, offset, FRAME_HEADER_BYTES)?;
    let length = u32_at(&head, 4) as usize;
    let end = offset + FRAME_HEADER_BYTES as u64 + length as u64;
    if u32_at(&head, 0) != FRAME_MAGIC || length > PAYLOAD_BYTES_MAX || end > file_bytes {
        return Ok(None);
    }
    let payload = read_exact(file, offset + FRAME_HEADER_BYTES as u64, length)?;
    if u32_at(&head, 8) != crc32c::crc32c_append(checksum(&head), &payload) {
        return Ok(None);
    }
    if u32_at(&head, 12) != FORMAT {
        let text = format!("log format {} is not known to this version", u32_at(&head, 12));
        return Err(StorageError::Foreign(text));
    }
    let header = FrameHeader {
        segment: u64_at(&head, 16),
        sequence: u64_at(&head, 24),
        synced: u64_at(&head, 32),
        oldest: u64_at(&head, 40),
    };
    Ok(Some(Frame { header, payload }))
}

/// Of which segment a frame could begin here, if any: the cheap test before [`read_frame`].
pub(crate) fn segment_hinted(head: &[u8]) -> Option<u64> {
    (head.len() >= 24 && u32_at(head, 0) == FRAME_MAGIC).then(|| u64_at(head, 16))
}

/// CRC32C of everything but the place where it stands itself (bytes 8 to 12), in frames and segment headers alike.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..8]), &bytes[12..])
}

fn u32_at(bytes: &[u8], place: usize) -> u32 {
    u32::from_be_bytes(bytes[place..place + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], place: usize) -> u64 {
    u64::from_be_bytes(bytes[place..place + 8].try_into().expect("eight bytes"))
}
