//! Driver for Meridian over gRPC: connects to one of several addresses, runs statements and transactions, fails over.
//!
//! ```no_run
//! # async fn example() -> Result<(), client::Error> {
//! let mut session = client::Session::connect(&["127.0.0.1:17432", "127.0.0.1:17433"], Default::default()).await?;
//! let results = session.query("SELECT id, balance FROM accounts WHERE id = $1", &["7"]).await?;
//! println!("{} rows", results[0].rows.len());
//! session.transaction(async |txn| {
//!     txn.query("UPDATE accounts SET balance = balance - 1 WHERE id = $1", &["7"]).await?;
//!     Ok(())
//! }).await?;
//! # Ok(()) }
//! ```
//!
//! # What a lost connection means
//!
//! A statement whose answer was lost may or may not have taken effect: [`Error::Ambiguous`]. It is never repeated behind the
//! caller's back, except inside [`Session::transaction`] before COMMIT was sent, where repeating is safe because nothing was committed.
//!
//! If the server itself does not know (SQLSTATE 40003), it gives an id to ask with. [`Session::transaction`] asks by itself, any node that
//! answers: what was committed is reported as such, what was not is run again; the asking makes sure that it never will be.
//! Elsewhere [`Error::transaction_id`] and [`Session::outcome`] do that.
//!
//! Imports `proto` only.

mod error;
mod session;

pub use error::{Error, SqlError};
pub use session::{Column, Connect, Connecting, Options, Outcome, QueryResult, Session};
