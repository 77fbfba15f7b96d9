//! Driver: what happens to a node's links and to the node while others talk to it. One seed, one course.

use node::sql_service::SqlFront;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::{Instant, sleep};

use super::network::Link;
use super::world::{Node, Scene, address};

/// What may become of bytes that were under way when a link fell silent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Silence {
    /// They arrive when it ends, also if a side has left.
    DeliversLate,
    /// They arrive if both sides are still there.
    DeliversInTime,
}

/// How often what happened.
#[derive(Default, Debug)]
pub(crate) struct Course {
    pub(crate) resets: AtomicUsize,
    pub(crate) silences: AtomicUsize,
    pub(crate) darknesses: AtomicUsize,
    pub(crate) stops: AtomicUsize,
}

impl Course {
    /// Disturbs the way to `node` for so long. In the end it listens again; links that fell silent may stay so.
    pub(crate) async fn run(
        &self,
        scene: &Arc<Scene>,
        node: &Arc<Node>,
        silence: Silence,
        duration: Duration,
    ) {
        let (end, at) = (Instant::now() + duration, address(node.id.0));
        while Instant::now() < end {
            scene.pause_below(3000).await;
            match scene.below(5) {
                0 | 1 => {
                    let links = scene.network.open_links(&at);
                    let some = links.iter().filter(|_| scene.below(2) == 0);
                    some.for_each(Link::reset);
                    self.resets.fetch_add(1, Ordering::Relaxed);
                }
                2 => {
                    let links = scene.network.open_links(&at);
                    links.iter().for_each(Link::silence);
                    self.silences.fetch_add(1, Ordering::Relaxed);
                    if scene.below(3) > 0 {
                        let (scene, after) =
                            (scene.clone(), Duration::from_millis(scene.below(12_000)));
                        let resumed = async move {
                            sleep(after).await;
                            links.iter().for_each(|link| resume(link, silence));
                            drop(scene);
                        };
                        tokio::runtime::Handle::current().spawn(resumed);
                    }
                }
                3 => {
                    let darkened = scene.network.darken(&at);
                    // As a machine that loses power: what was connected is silent.
                    scene.network.open_links(&at).iter().for_each(Link::silence);
                    self.darknesses.fetch_add(1, Ordering::Relaxed);
                    scene.pause_below(3000).await;
                    darkened.lighten();
                }
                _ => {
                    self.stops.fetch_add(1, Ordering::Relaxed);
                    node.stop().await;
                    scene.pause_below(1000).await;
                    node.serve(SqlFront::default());
                }
            }
        }
    }
}

fn resume(link: &Link, silence: Silence) {
    let whole = link.has_dialler() && link.has_server();
    match silence {
        Silence::DeliversInTime if !whole => link.reset(),
        Silence::DeliversInTime | Silence::DeliversLate => link.resume(),
    }
}
