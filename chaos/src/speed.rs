//! Driver: the shape in which speed is measured, so that figures of one year can be compared with those of another: [`NODES`] nodes,
//! [`RANGES`] ranges, [`TRANSACTIONS`] transactions over registers that end well, [`TIME`] of virtual time or more. All else is as in any seed: the
//! same faults, every invariant, the same checks.

use std::time::Duration;

use crate::episode::{
    BOOT, CLIENTS, Options, Plan, Report, SAFETY, begin, layout_of, load, plan_for, power_on,
    report, settle,
};
use crate::workload::{Kind, Workload, item_key};
use crate::world::{Damage, Layout, World};
use std::sync::Arc;

const NODES: u32 = 5;
const RANGES: usize = 4;
const TRANSACTIONS: usize = 200;
const TIME: Duration = Duration::from_secs(30);
/// Registers lie in two ranges; here two more begin.
const MORE: [(u32, u64); 2] = [(110, 1), (110, 5)];

/// Runs a seed of this shape; what its options say of the workload does not count.
pub(crate) fn run(options: Options) -> Report {
    let options = Options { workload: Kind::Register, ..options };
    let drawn = layout_of(options);
    // What rots is replaced, as in any seed; more than that is not lost.
    let spares = drawn.spares.min(1);
    let layout = Layout { nodes: NODES, spares, damage: Damage::Promised, ..drawn };
    coverage::take();
    coverage::switch_off();
    let plan = plan_for(&layout);
    let (mut world, plan) = power_on(layout, plan);
    let workload = options.workload.make();
    let verdict = play(&mut world, &workload, plan);
    report(&mut world, &workload, options, verdict)
}

fn play(world: &mut World, workload: &Arc<dyn Workload>, plan: Plan) -> Result<(), String> {
    begin(world, workload)?;
    let access = world.access().clone();
    let split = async move {
        for (table, item) in MORE {
            access.split(item_key(table, item)).await;
        }
    };
    let split = world.block_on(BOOT, split).is_some();
    if !split || !world.run_until(BOOT, |world| world.led_ranges().len() == RANGES) {
        return Err(format!("there are no {RANGES} ranges\n{}", world.describe()));
    }
    let left = load(world, workload, plan, CLIENTS);
    let begun = world.now();
    if world.run_until(SAFETY, |_| workload.ledger().counts().0 >= TRANSACTIONS) {
        world.access().stop();
    }
    world.run(SAFETY.saturating_sub(Duration::from_nanos(world.now() - begun)));
    let settled = settle(world, workload, &left, TRANSACTIONS);
    world.run(TIME.saturating_sub(Duration::from_nanos(world.now())));
    settled
}
