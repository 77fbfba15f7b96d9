//! Driver: PostgreSQL's protocol 3.0 in front of [`sql::Session`]. The codec is the `pgwire` crate's; the loop is ours.
//!
//! ```text
//!   listener ── startup (SSL refused, cancel, limits) ── connection loop ── sql::Session
//!                                                         one flush per Sync, Flush, simple query or full buffer
//! ```
//!
//! Before authentication a frame may be at most [`STARTUP_BYTES_MAX`] long and must come within [`STARTUP_TIMEOUT`].
//! Passwords are not checked yet (docs/limits.md): a role must exist and be allowed to log in.

pub mod cancel;
pub mod connection;
pub mod frame;
pub mod listener;
pub mod reply;
pub mod startup;

use std::time::Duration;

/// Longest frame before authentication, as in PostgreSQL.
pub const STARTUP_BYTES_MAX: usize = 10_000;
/// A client that has not finished its startup by then is disconnected.
pub const STARTUP_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest frame afterwards; a longer one is refused, and the connection goes on.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
/// Connections beyond are refused with 53300.
pub const CONNECTIONS_MAX: usize = 1000;
