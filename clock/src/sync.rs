//! Seam: the atomics that [`crate::Hlc`] is built on. The real ones, or loom's, which try every
//! interleaving.
//!
//! Only this crate is ever built with `--cfg loom`; the crates above it do not compile that way.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
