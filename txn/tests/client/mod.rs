//! The coordinator and the router, on the deterministic doubles of `txn::testing`. No threads, no clocks, no sleeps.

mod basics;
mod contention;
mod faults;
mod history;
mod levels;
mod own_writes;
mod parallel;
mod routing;
mod serial;

use bytes::Bytes;
use std::sync::Arc;
use storage::Key;
use txn::client::{Db, Router, RouterSettings, Settings};
use txn::testing::{LocalKv, LocalPeers, World};

/// A world with a gateway straight on the keyspace.
struct Local {
    world: World,
    kv: LocalKv,
    db: Db,
}

fn local_with(world: World, settings: Settings) -> Local {
    let kv = LocalKv::new(world.runtime());
    let db = Db::new(world.runtime(), Arc::new(kv.clone()), settings);
    Local { world, kv, db }
}

fn local(seed: u64) -> Local {
    local_with(World::new(seed), Settings::default())
}

/// A world with a gateway whose router finds its way over three nodes.
struct Routed {
    world: World,
    kv: LocalKv,
    peers: LocalPeers,
    db: Db,
}

fn routed(seed: u64) -> Routed {
    routed_with(seed, Settings::default())
}

fn routed_with(seed: u64, settings: Settings) -> Routed {
    let world = World::new(seed);
    let kv = LocalKv::new(world.runtime());
    let peers = LocalPeers::new(world.runtime(), kv.clone(), 3);
    let router = Router::new(world.runtime(), Arc::new(peers.clone()), RouterSettings::default());
    let db = Db::new(world.runtime(), Arc::new(router), settings);
    Routed { world, kv, peers, db }
}

fn key(name: &str) -> Key {
    Key::new(name.as_bytes().to_vec())
}

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn number(value: Option<&Bytes>) -> i64 {
    value.map_or(0, |bytes| {
        std::str::from_utf8(bytes).expect("tests write text").parse().expect("tests write numbers")
    })
}
