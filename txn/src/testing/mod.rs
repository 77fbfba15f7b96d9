//! Test doubles: a deterministic [`World`] (one thread, virtual time, one seed), [`LocalKv`], a serial twin of the range servers, and
//! [`LocalPeers`], nodes around it that lose messages and move ranges.
//! For tests of this crate and of those above it; never part of a node.
//!
//! ```
//! use std::sync::Arc;
//! use txn::client::{Db, Settings, TxnOptions};
//! use txn::testing::{LocalKv, World};
//!
//! let world = World::new(1);
//! let db = Db::new(world.runtime(), Arc::new(LocalKv::new(world.runtime())), Settings::default());
//! world.block_on(async {
//!     let mut txn = db.begin(TxnOptions::default());
//!     txn.put("k".into(), "v".into()).expect("it is open");
//!     txn.commit().await.expect("nobody is in the way");
//! });
//! ```

mod keyspace;
mod local;
mod peers;
mod world;

pub use local::LocalKv;
pub use peers::{Fate, LocalPeers};
pub use world::World;
