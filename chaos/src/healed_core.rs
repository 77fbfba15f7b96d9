//! Driver: a healed core. After the faults one node stays away, dead or cut off; the others are healed, and are a quorum of every range. They
//! must serve and converge without it, while clients go on. Then all is healed.

use replication::range::NodeId;
use std::time::Duration;

use crate::episode::{LIVENESS, first, serve};
use crate::world::World;
use crate::world::chance::{Chance, Purpose};
use crate::world::fault::{Fault, Power};

/// Between two writes through a gateway that has refused one.
const AGAIN: Duration = Duration::from_millis(500);

/// Heals all but one node, and demands what a quorum owes.
pub(crate) fn heal_core(world: &mut World) -> Result<(), String> {
    let nodes = world.access().nodes();
    if nodes.len() < 3 {
        return Ok(());
    }
    let mut chance = Chance::new(world.layout().seed, Purpose::Core);
    let (away, dead) = (chance.pick(&nodes), chance.permille(500));
    world.apply(Fault::HealCore(away));
    if dead {
        world.leave_down(away);
        world.apply(Fault::Crash(away, Power::Lost));
    }
    let core: Vec<NodeId> = nodes.into_iter().filter(|node| *node != away).collect();
    let without = |why: &str, world: &World| {
        format!("without {away} the healed core {why} within {LIVENESS:?}\n{}", world.describe())
    };
    let mut why = String::new();
    let led = world.run_until(LIVENESS, |world| note(&mut why, world.check_led(&core)));
    first(world.violations())?;
    if !led {
        return Err(without(&format!("does not lead every range: {why}"), world));
    }
    for node in &core {
        let served = world.run_until(LIVENESS, |world| {
            let served = serve(world, *node).is_some_and(|served| served.is_ok());
            if !served {
                world.run(AGAIN);
            }
            served
        });
        if !served {
            return Err(without(&format!("serves no write through {node}"), world));
        }
    }
    let reached = world.reached_of(&core);
    let caught_up =
        world.run_until(LIVENESS, |world| note(&mut why, world.check_caught_up(&core, &reached)));
    first(world.violations())?;
    if !caught_up {
        return Err(without(&format!("does not converge: {why}"), world));
    }
    world.count("healed cores that sufficed");
    Ok(())
}

/// Whether it is so; why not.
fn note(why: &mut String, checked: Result<(), String>) -> bool {
    match checked {
        Ok(()) => true,
        Err(reason) => {
            *why = reason;
            false
        }
    }
}
