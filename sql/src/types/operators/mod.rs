//! Operators over values, as functions named by their symbols: tables for `registry.rs`.
//!
//! | room | operators |
//! |---|---|
//! | `number` | `+ - * / % ^ @ & \| # ~ << >>` |
//! | `text` | `\|\|`, `~~` (LIKE), `~~*` (ILIKE), `~` (regular expressions) |
//! | `time` | dates, times, instants and intervals |
//! | `collection` | jsonb and arrays |

mod collection;
mod number;
mod text;
mod time;

pub(super) use collection::TABLE as COLLECTION;
pub(super) use number::TABLE as NUMBER;
pub(super) use number::{absolute, overflow, sized, underflow};
pub(super) use text::TABLE as TEXT;
pub(super) use text::untyped_text;
pub(super) use time::TABLE as TIME;
pub(super) use time::{add_interval, add_interval_tz};
