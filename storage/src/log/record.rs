//! Value: what a frame's payload says: the batch's ops, *resolved*, and rewrites of old entries.
//!
//! Resolved means that a record does the same on replay from any retained suffix of the log, though the replaying
//! index may lack entries whose rewrite comes later. So what `Truncate` does to entries behind its index is decided
//! when it is appended.
//!
//! ```text
//!   append    1 | group | first index | count | (term, data) ..
//!   state     2 | group | state
//!   truncate  3 | group | index | term           entries behind the index stay
//!   reset     4 | group | index | term           no entry stays
//!   remove    5 | group
//!   rewrite   6 | group | index | term | 0 / 1, state? | count | (index, term, data) ..     truncation, state, some entries
//! ```

use bytes::Bytes;

use crate::StorageError;
use crate::log::{Entry, LogGroup, LogIndex, Term};
use crate::varint::{self, Input};

const APPEND: u8 = 1;
const STATE: u8 = 2;
const TRUNCATE: u8 = 3;
const RESET: u8 = 4;
const REMOVE: u8 = 5;
const REWRITE: u8 = 6;
/// Most bytes that a record or an entry takes besides its data and state.
pub(crate) const OVERHEAD_BYTES: usize = 64;

/// An entry and where its data begins in the payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Placed {
    pub(crate) entry: Entry,
    pub(crate) at: usize,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Record {
    Append { group: LogGroup, entries: Vec<Placed> },
    State { group: LogGroup, state: Bytes },
    Truncate { group: LogGroup, index: LogIndex, term: Term },
    Reset { group: LogGroup, index: LogIndex, term: Term },
    Remove { group: LogGroup },
    Rewrite(Rewrite),
}

/// A group's truncation and state as they are, and entries at new places. Changes what is where, never what is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rewrite {
    pub(crate) group: LogGroup,
    pub(crate) truncated: (LogIndex, Term),
    pub(crate) state: Option<Bytes>,
    pub(crate) entries: Vec<Placed>,
}

impl Record {
    /// Appends the record to the payload, and notes where its entries' data went, relative to `start`.
    pub(crate) fn encode(&mut self, out: &mut Vec<u8>, start: usize) {
        match self {
            Record::Append { group, entries } => {
                begin(out, APPEND, *group);
                let first = entries.first().expect("an append has entries").entry.index;
                varint::put(out, first.get());
                varint::put(out, entries.len() as u64);
                for placed in entries {
                    encode_entry(out, placed, start);
                }
            }
            Record::State { group, state } => {
                begin(out, STATE, *group);
                varint::put_bytes(out, state);
            }
            Record::Truncate { group, index, term } => {
                begin(out, TRUNCATE, *group);
                encode_position(out, (*index, *term));
            }
            Record::Reset { group, index, term } => {
                begin(out, RESET, *group);
                encode_position(out, (*index, *term));
            }
            Record::Remove { group } => begin(out, REMOVE, *group),
            Record::Rewrite(rewrite) => {
                begin(out, REWRITE, rewrite.group);
                encode_position(out, rewrite.truncated);
                out.push(u8::from(rewrite.state.is_some()));
                if let Some(state) = &rewrite.state {
                    varint::put_bytes(out, state);
                }
                varint::put(out, rewrite.entries.len() as u64);
                for placed in &mut rewrite.entries {
                    varint::put(out, placed.entry.index.get());
                    encode_entry(out, placed, start);
                }
            }
        }
    }
}

/// The records of a payload. Errors: `Corrupt`.
pub(crate) fn decode(payload: Bytes) -> Result<Vec<Record>, StorageError> {
    let total = payload.len();
    let mut input = Input::new(payload, "log frame");
    let mut records = Vec::new();
    while input.left() > 0 {
        records.push(decode_record(&mut input, total)?);
    }
    Ok(records)
}

fn begin(out: &mut Vec<u8>, kind: u8, group: LogGroup) {
    out.push(kind);
    varint::put(out, group.0);
}

fn encode_position(out: &mut Vec<u8>, (index, term): (LogIndex, Term)) {
    varint::put(out, index.get());
    varint::put(out, term.get());
}

fn encode_entry(out: &mut Vec<u8>, placed: &mut Placed, start: usize) {
    varint::put(out, placed.entry.term.get());
    varint::put(out, placed.entry.data.len() as u64);
    placed.at = out.len() - start;
    out.extend_from_slice(&placed.entry.data);
}

fn decode_record(input: &mut Input, total: usize) -> Result<Record, StorageError> {
    let kind = input.byte()?;
    let group = LogGroup(input.varint()?);
    match kind {
        APPEND => {
            let first = input.varint()?;
            let count = input.count(2)?;
            let mut entries = Vec::with_capacity(count);
            for place in 0..count as u64 {
                let index = first.checked_add(place).ok_or_else(|| input.corrupt("index"))?;
                entries.push(decode_entry(input, LogIndex::new(index), total)?);
            }
            if entries.is_empty() {
                return Err(input.corrupt("append without entries"));
            }
            Ok(Record::Append { group, entries })
        }
        STATE => Ok(Record::State { group, state: input.bytes()? }),
        TRUNCATE => {
            let (index, term) = decode_position(input)?;
            Ok(Record::Truncate { group, index, term })
        }
        RESET => {
            let (index, term) = decode_position(input)?;
            Ok(Record::Reset { group, index, term })
        }
        REMOVE => Ok(Record::Remove { group }),
        REWRITE => decode_rewrite(input, group, total),
        _ => Err(input.corrupt("unknown kind of record")),
    }
}

fn decode_rewrite(
    input: &mut Input,
    group: LogGroup,
    total: usize,
) -> Result<Record, StorageError> {
    let truncated = decode_position(input)?;
    let state = match input.byte()? {
        0 => None,
        1 => Some(input.bytes()?),
        _ => return Err(input.corrupt("unknown kind of state")),
    };
    let count = input.count(3)?;
    let mut entries = Vec::with_capacity(count);
    for _ in 0..count {
        let index = LogIndex::new(input.varint()?);
        entries.push(decode_entry(input, index, total)?);
    }
    Ok(Record::Rewrite(Rewrite { group, truncated, state, entries }))
}

fn decode_position(input: &mut Input) -> Result<(LogIndex, Term), StorageError> {
    Ok((LogIndex::new(input.varint()?), Term::new(input.varint()?)))
}

fn decode_entry(input: &mut Input, index: LogIndex, total: usize) -> Result<Placed, StorageError> {
    let term = Term::new(input.varint()?);
    let data = input.bytes()?;
    let at = total - input.left() - data.len();
    Ok(Placed { entry: Entry { term, index, data }, at })
}
