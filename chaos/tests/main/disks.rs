//! Faults of a node's disks beside those of the log's syncs: what the node does about each, and that the cluster goes on.

use bytes::Bytes;
use chaos::world::fault::{Fault, Power};
use chaos::world::{Layout, World};
use futures::FutureExt;
use replication::range::{NodeId, RangeId};
use std::time::Duration;
use storage::Key;
use storage::memory::Operation;
use txn::client::TxnOptions;

use crate::boot::layout;

const NODE: NodeId = NodeId(1);

fn booted() -> World {
    let mut world = World::new(Layout { flush_interval: Duration::from_millis(500), ..layout(3) });
    let spread = world.run_until(Duration::from_secs(60), |world| world.voters_of(RangeId(1)) == 3);
    assert!(spread, "{}", world.describe());
    world
}

/// Writes through the node until it works.
fn write(world: &mut World, node: NodeId, row: u32) {
    let access = world.access().clone();
    let written = world.run_until(Duration::from_secs(60), |world| {
        let access = access.clone();
        let write = world.block_on(Duration::from_secs(20), async move {
            let work = move |gateway: chaos::world::access::Gateway| {
                async move {
                    let run = gateway.db.run(TxnOptions::default(), |txn| {
                        async move { txn.put(Key::table(row), Bytes::from_static(b"x")) }.boxed()
                    });
                    run.await
                }
                .boxed()
            };
            access.on_node(node, work).await
        });
        matches!(write, Some(Ok(Ok(()))))
    });
    assert!(written, "{}", world.describe());
}

fn everybody_writes_and_agrees(world: &mut World) {
    for (node, row) in [(1, 201), (2, 202), (3, 203)] {
        write(world, NodeId(node), row);
    }
    let agrees = world.run_until(Duration::from_secs(60), |world| world.check_converged().is_ok());
    assert!(agrees, "{}", world.describe());
    assert_eq!(world.violations(), &[]);
}

/// A process stops that cannot read or write its state, and another one begins.
#[test]
fn a_state_that_cannot_be_read_or_written_stops_its_node() {
    for operation in [Operation::Read, Operation::Write] {
        let mut world = booted();
        world.apply(Fault::StateError(NODE, operation));
        for row in 100..105 {
            write(&mut world, NodeId(2), row);
            write(&mut world, NODE, row);
        }
        let stopped = world.tally().of("nodes stopped by their disk");
        assert!(stopped >= 1, "{operation:?}: {}", world.tally());
        everybody_writes_and_agrees(&mut world);
    }
}

/// As the node's flushing task: it tries again, and the node goes on. What was not flushed is in the log.
#[test]
fn a_failed_flush_costs_the_node_no_write() {
    let mut world = booted();
    world.apply(Fault::StateError(NODE, Operation::Flush));
    write(&mut world, NODE, 100);
    world.run(Duration::from_secs(3));
    let tally = world.tally();
    assert!(tally.of("state flushes failed") > 1, "not tried again: {tally}");
    assert_eq!(tally.of("nodes stopped by their disk"), 0, "{tally}");
    world.apply(Fault::Crash(NODE, Power::Lost));
    everybody_writes_and_agrees(&mut world);
}

/// A flush that hangs holds nobody up, and what it had begun is lost with the power.
#[test]
fn a_flush_that_hangs_is_waited_for() {
    let flushed = |world: &World| world.tally().of("state flushes");
    let mut world = booted();
    for node in [1, 2, 3] {
        world.apply(Fault::StallState(NodeId(node), Duration::from_secs(8)));
    }
    world.run(Duration::from_millis(100));
    let before = flushed(&world);
    write(&mut world, NODE, 100);
    world.run(Duration::from_secs(5));
    assert_eq!(flushed(&world), before, "all hang");
    world.apply(Fault::Crash(NODE, Power::Lost));
    world.run(Duration::from_secs(10));
    assert!(flushed(&world) > before);
    everybody_writes_and_agrees(&mut world);
}

/// A node whose state has no room ends, and does not serve before there is some.
#[test]
fn a_full_disk_of_the_state_keeps_its_node_away() {
    let mut world = booted();
    world.apply(Fault::FullState(NODE));
    for row in 100..105 {
        write(&mut world, NodeId(2), row);
    }
    world.run(Duration::from_secs(5));
    assert!(world.tally().of("nodes stopped by their disk") >= 1, "{}", world.tally());
    world.apply(Fault::RoomyState(NODE));
    everybody_writes_and_agrees(&mut world);
}

/// A quorum serves while one node stays away, and that one catches up when it is healed.
#[test]
fn all_but_one_node_are_healed() {
    let mut world = booted();
    world.apply(Fault::Cut(vec![NODE], vec![NodeId(2)]));
    world.apply(Fault::HealCore(NODE));
    // The planned end of a cut that the healing has ended already.
    world.apply(Fault::Join(vec![NODE], vec![NodeId(2)]));
    for node in [NodeId(2), NodeId(3)] {
        write(&mut world, node, 100);
    }
    assert!(world.network().is_cut(NODE, NodeId(2)) && world.network().is_cut(NodeId(2), NODE));
    assert!(!world.network().is_cut(NodeId(2), NodeId(3)));
    assert!(world.check_converged().is_err(), "one is away");
    world.apply(Fault::Heal);
    everybody_writes_and_agrees(&mut world);
}
