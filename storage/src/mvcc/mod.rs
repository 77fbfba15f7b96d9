//! Versions and intents: what a key was, is, and may become. Values and total functions over a [`crate::Reader`] and
//! a [`crate::WriteBatch`]; nothing here does I/O of its own, waits, or decides about a transaction.
//!
//! ```text
//!   Versions   encode_bytes(key) | BE(!ts)         ->  version     newest first under each key
//!   Locks      key                                 ->  intent      at most one per key: the provisional value(s) of an
//!                                                                  open transaction; never in Versions until it commits
//!   Records    encode_bytes(anchor) | BE(txn id)   ->  opaque      transaction records, beside the anchor key
//!   Changes    copy prefix (7) | BE(ts) | key      ->  nothing     committed changes of a copy, in commit order
//! ```
//!
//! A reader at `at` sees the newest version at or below `at`. A tombstone is a version like any other, and is
//! reported as such: the caller tells "deleted" from "never there" when it must. A version also remembers the clock
//! time at which it was *written*: a transaction's commit timestamp may have been pushed above the clock, and a
//! reader's uncertainty is judged by when the write happened, not by the timestamp it got (killer H07).
//!
//! INVARIANT: at most one version per key and timestamp; an entry in Changes exists iff its version was put and is
//! not collected. INVARIANT: [`gc`] changes no read at or above its threshold.
//!
//! Rooms: [`layout`] raw keys and spans; [`value`] what is stored; [`read`] single keys; [`scan()`](scan::scan)
//! spans; [`write`](mod@write) changes; [`changes`] the feed of a copy; [`gc`](mod@gc) the end.

pub mod changes;
pub mod gc;
pub mod layout;
pub mod read;
pub mod scan;
pub mod value;
pub mod write;

pub use changes::{changes, gc_changes};
pub use gc::{Collected, gc};
pub use layout::{
    RawSpan, locks_span, parse_version_key, raw_spans, record_key, record_span, versions_span,
};
pub use read::{changed_in, get, get_intent, intents, newest, newest_in};
pub use scan::{Scan, ScanItem, scan};
pub use value::{Intent, Sequence, TxnId, Version};
pub use write::{put_intent, put_version, remove_intent, remove_span, remove_version};

#[cfg(test)]
mod tests;
