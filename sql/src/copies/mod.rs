//! Available tables: a copy of the table in every region, each an ordinary table there, and streams that merge them.
//!
//! | room | what |
//! |---|---|
//! | `state` | value: the state of one row, and how two of them merge |
//! | `apply` | driver: one origin transaction becomes one destination transaction |
//! | `stream` | driver: the loop body that moves changes from one copy to another |
//! | `planted` | value: mistakes of merging, made on purpose |
//!
//! INVARIANT: a copy's state depends only on the set of changes that have reached it, not on their order or number.

mod apply;
mod planted;
mod state;
pub(crate) mod stream;

pub(crate) use apply::Conflict;
pub(crate) use state::RowState;
