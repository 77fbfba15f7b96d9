//! Value: limits that the product's defaults put out of a simulation's reach. Each is legal; a smaller one costs pace, or an operation an
//! error that it is told.

use std::time::Duration;

use crate::world::Layout;
use crate::world::chance::Chance;

/// Draws them. What the seed's ordeal or raid has set (`crate::ordeal`, `crate::raid`) is not among them.
pub(super) fn suit(chance: &mut Chance, layout: &mut Layout) {
    let millis = Duration::from_millis;
    let client = &mut layout.client;
    client.run_attempts_max = chance.pick(&[3, 10, 50]);
    client.moves_max = chance.pick(&[1, 3, 100]);
    client.held_spans_bytes_max = chance.pick(&[64, 32 << 20]);
    let router = &mut layout.router;
    router.ranges_max = chance.pick(&[1, 2, 100_000]);
    router.pause_min = chance.pick(&[millis(1), millis(20), millis(200)]);
    router.pause_max = chance.pick(&[millis(200), millis(400), millis(1000)]);
    router.silent_min = chance.pick(&[millis(30), millis(250)]);
    router.silent_max = chance.pick(&[millis(250), millis(1000), millis(4000)]);
    router.unavailable_after = chance.pick(&[millis(1500), millis(4000), millis(10_000)]);
    layout.sql.restarts_max = chance.pick(&[0, 1, 20]);
    layout.sql.statement_memory_bytes_max = chance.pick(&[64 << 10, 256 << 20]);
    let raft = &mut layout.store.raft;
    raft.inflight_bytes_max = chance.pick(&[1, 2 << 10, 8 << 20]);
    raft.uncommitted_bytes_max = chance.pick(&[1, 2 << 10, 16 << 20]);
    raft.apply_bytes_max = chance.pick(&[1, 1 << 10, 4 << 20]);
    let server = &mut layout.server;
    server.parked_max = chance.pick(&[3, 20_000]);
    if raft.uncommitted_bytes_max == 1 {
        // With room for one command and three who wait hardly anything gets done, and such a run shows nothing.
        server.parked_max = 20_000;
    }
    server.leaderless_max = chance.pick(&[millis(100), millis(1000)]);
    server.latch_wait_max = chance.pick(&[millis(5000), millis(60_000)]);
}
