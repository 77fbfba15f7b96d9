//! Driver: runs futures in one thread. Which of several ready tasks goes next is drawn from the seed.
//!
//! A task belongs to a process (and dies with it, and stands still while it is paused) or to the outside world (clients).

use futures::future::BoxFuture;
use parking_lot::Mutex;
use replication::range::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use txn::runtime::Spawn;

use super::chance::Chance;

/// Whose task.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Owner {
    /// Somebody outside of the cluster.
    World,
    /// One process.
    Process {
        /// On this machine.
        node: NodeId,
        /// This start of it.
        incarnation: u64,
    },
}

/// What the world says of an owner now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// Its tasks run.
    Running,
    /// They stand still.
    Paused,
    /// They are dropped.
    Gone,
}

#[derive(Default)]
struct Shared {
    ready: Mutex<Vec<u64>>,
    spawned: Mutex<Vec<(Owner, BoxFuture<'static, ()>)>>,
}

struct TaskWaker {
    id: u64,
    queued: AtomicBool,
    shared: Arc<Shared>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.shared.ready.lock().push(self.id);
        }
    }
}

struct Task {
    owner: Owner,
    waker: Arc<TaskWaker>,
    future: BoxFuture<'static, ()>,
}

/// All tasks of a world.
#[derive(Default)]
pub struct Executor {
    shared: Arc<Shared>,
    tasks: BTreeMap<u64, Task>,
    last: u64,
    /// Ready, but of paused owners.
    held: Vec<u64>,
}

/// Starts tasks of one owner.
#[derive(Clone)]
pub struct Spawner {
    owner: Owner,
    shared: Arc<Shared>,
}

impl Spawn for Spawner {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.shared.spawned.lock().push((self.owner, task));
    }
}

impl Executor {
    /// For an owner's new tasks.
    pub fn spawner(&self, owner: Owner) -> Spawner {
        Spawner { owner, shared: self.shared.clone() }
    }

    /// Runs tasks until none is ready; how many polls that took. `life` says how each owner is; `polled` hears whose task has just
    /// been polled.
    pub fn run(
        &mut self,
        chance: &mut Chance,
        life: &dyn Fn(Owner) -> Life,
        polled: &mut dyn FnMut(Owner),
    ) -> u64 {
        let mut polls = 0;
        loop {
            self.take_spawned(life);
            let Some(id) = self.next_ready(chance) else { return polls };
            let Some(task) = self.tasks.get_mut(&id) else { continue };
            match life(task.owner) {
                Life::Running => {}
                Life::Paused => {
                    self.held.push(id);
                    continue;
                }
                Life::Gone => {
                    drop(self.tasks.remove(&id));
                    continue;
                }
            }
            task.waker.queued.store(false, Ordering::Relaxed);
            let waker = Waker::from(task.waker.clone());
            polls += 1;
            let owner = task.owner;
            if let Poll::Ready(()) = task.future.as_mut().poll(&mut Context::from_waker(&waker)) {
                drop(self.tasks.remove(&id));
            }
            polled(owner);
        }
    }

    /// Drops every task of owners that are gone.
    pub fn bury(&mut self, life: &dyn Fn(Owner) -> Life) {
        // A dropped task may spawn others (of the same dead owner), so look again.
        loop {
            self.take_spawned(life);
            let dead: Vec<u64> = self
                .tasks
                .iter()
                .filter(|(_, task)| life(task.owner) == Life::Gone)
                .map(|(id, _)| *id)
                .collect();
            if dead.is_empty() {
                return;
            }
            for id in dead {
                drop(self.tasks.remove(&id));
            }
        }
    }

    /// Somebody was resumed: what was held may run.
    pub fn unhold(&mut self) {
        self.shared.ready.lock().append(&mut self.held);
    }

    /// Drops every task, and what they spawn as they are dropped.
    pub fn clear(&mut self) {
        loop {
            let tasks = std::mem::take(&mut self.tasks);
            let spawned = std::mem::take(&mut *self.shared.spawned.lock());
            if tasks.is_empty() && spawned.is_empty() {
                return;
            }
        }
    }

    /// How many tasks there are.
    pub fn task_count(&self) -> usize {
        self.tasks.len()
    }

    fn next_ready(&self, chance: &mut Chance) -> Option<u64> {
        let mut ready = self.shared.ready.lock();
        if ready.is_empty() {
            return None;
        }
        let index = if ready.len() == 1 { 0 } else { chance.index(ready.len()) };
        Some(ready.swap_remove(index))
    }

    fn take_spawned(&mut self, life: &dyn Fn(Owner) -> Life) {
        loop {
            let spawned = std::mem::take(&mut *self.shared.spawned.lock());
            if spawned.is_empty() {
                return;
            }
            for (owner, future) in spawned {
                if life(owner) == Life::Gone {
                    drop(future);
                    continue;
                }
                self.last += 1;
                let id = self.last;
                let queued = AtomicBool::new(true);
                let waker = Arc::new(TaskWaker { id, queued, shared: self.shared.clone() });
                self.tasks.insert(id, Task { owner, waker, future });
                self.shared.ready.lock().push(id);
            }
        }
    }
}
