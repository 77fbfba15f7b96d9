//! Models: protocols as small as they can be said, and every order of their steps up to a stated bound (`stateright`).
//!
//! A model is not the code: it says what the code's comments claim, and finds out whether that is enough. Each has switches that leave out one
//! of its rules; a rule without which nothing goes wrong would be superstition, and a model that finds nothing without it would be blind.

mod lease_moves;
mod parallel_commit;

use stateright::{Checker, HasDiscoveries, Model};
use std::collections::BTreeSet;

/// Explores everything. Answers how many states there are.
fn holds<M>(model: M) -> usize
where
    M: Model + Send + Sync + 'static,
    M::State: Send + Sync + std::hash::Hash + std::fmt::Debug + Clone + PartialEq,
    M::Action: std::fmt::Debug + Clone + PartialEq + Send + Sync,
{
    let checker = model.checker().threads(THREADS).spawn_bfs().join();
    checker.assert_properties();
    checker.unique_state_count()
}

/// Whether some order of steps breaks a law.
fn breaks<M>(model: M, law: &'static str) -> bool
where
    M: Model + Send + Sync + 'static,
    M::State: Send + Sync + std::hash::Hash + std::fmt::Debug + Clone + PartialEq,
    M::Action: std::fmt::Debug + Clone + PartialEq + Send + Sync,
{
    let found = HasDiscoveries::AnyOf(BTreeSet::from([law]));
    let checker = model.checker().threads(THREADS).finish_when(found).spawn_bfs().join();
    checker.discovery(law).is_some()
}

const THREADS: usize = 2;
