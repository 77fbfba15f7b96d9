//! SQL values with PostgreSQL's semantics: values only, no I/O, no clock, no catalog.
//!
//! Everything that a statement computes with is a [`Datum`] whose [`Type`] the plan knows. This module says how values read and
//! print, compare, convert, compute, and lie on disk; PostgreSQL 15 is the oracle for all of it but the bytes on disk.
//!
//! ```text
//!   ty.rs, datum.rs            what a value is
//!   numeric, interval, json, datetime, zone, float      one type each
//!   text.rs, array_text.rs, datetime_in.rs, to_char    to and from text
//!   binary.rs                  to and from the wire
//!   key.rs, value.rs           to and from disk: ordered keys, compact rows
//!   cast.rs                    conversions, and who may ask for them
//!   registry.rs                functions and operators by name, overloads resolved; operators/, functions_*.rs
//!   aggregate.rs               accumulators
//! ```
//!
//! Time, randomness, zone and the names of OIDs come through [`EvalContext`]. Errors are [`TypeError`]s with SQLSTATEs.

pub mod aggregate;
mod array_text;
mod bignum;
pub mod binary;
pub mod cast;
pub mod context;
pub mod datetime;
pub mod datetime_in;
pub mod datum;
pub mod error;
pub mod float;
pub mod functions_array;
pub mod functions_json;
mod functions_math;
pub mod functions_text;
mod functions_time;
pub mod interval;
pub mod json;
pub mod key;
pub mod like;
pub mod numeric;
mod numeric_math;
mod operators;
#[cfg(test)]
mod oracle;
pub mod regex;
pub mod registry;
pub mod text;
pub mod to_char;
pub mod ty;
pub mod value;
pub mod zone;

pub use aggregate::{Accumulator, Aggregate, is_aggregate, resolve_aggregate};
pub use cast::{CastContext, cast, castable, widens};
pub use context::{ByteaOutput, EvalContext, FixedContext};
pub use datum::{ArrayValue, Datum, Dim, RecordValue};
pub use error::{SqlState, TypeError};
pub use functions_json::makes_json;
pub use interval::Interval;
pub use json::Json;
pub use key::{Direction, key_decode, key_encode};
pub use numeric::Numeric;
pub use registry::{Function, ResolveError, Resolved, Volatility, resolve};
pub use ty::{NO_TYPMOD, Type};
pub use value::{row_decode, row_encode, value_decode, value_encode};
pub use zone::TimeZone;
