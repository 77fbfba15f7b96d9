//! Value: majorities, alone and joint.
//!
//! A majority of `n` voters is `n / 2 + 1` of them. In a joint configuration (thesis 4.3) both majorities are needed, so
//! what is agreed on is the lesser of what each majority agrees on, and a vote is won only in both.
//!
//! INVARIANT: any two majorities of one voter set have a member in common; hence so have any two quorums of one membership,
//! and quorums of neighbouring memberships ([`Membership::check_step`]). Checked against counting of subsets in `tests/`.

use super::{Membership, ReplicaId};
use std::collections::BTreeSet;

/// How a vote stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tally {
    /// A quorum has granted.
    Won,
    /// A quorum can no longer grant.
    Lost,
    /// Neither yet.
    Open,
}

/// The greatest value that a majority of `voters` has reached, given what each has. `None` for no voters.
pub fn majority_reached<T: Ord>(
    voters: &BTreeSet<ReplicaId>,
    value_of: impl Fn(ReplicaId) -> T,
) -> Option<T> {
    let mut values: Vec<T> = voters.iter().map(|voter| value_of(*voter)).collect();
    values.sort_unstable_by(|a, b| b.cmp(a));
    let majority = values.len() / 2;
    values.into_iter().nth(majority)
}

/// How the vote stands among `voters`; no voters win nothing.
pub fn majority_tally(
    voters: &BTreeSet<ReplicaId>,
    vote_of: impl Fn(ReplicaId) -> Option<bool>,
) -> Tally {
    let majority = voters.len() / 2 + 1;
    let granted = voters.iter().filter(|voter| vote_of(**voter) == Some(true)).count();
    let refused = voters.iter().filter(|voter| vote_of(**voter) == Some(false)).count();
    if granted >= majority {
        Tally::Won
    } else if refused + majority > voters.len() {
        Tally::Lost
    } else {
        Tally::Open
    }
}

impl Membership {
    /// The greatest value that a quorum has reached. `None` without voters.
    pub fn reached<T: Ord>(&self, value_of: impl Fn(ReplicaId) -> T) -> Option<T> {
        let incoming = majority_reached(&self.voters, &value_of)?;
        match majority_reached(&self.outgoing, &value_of) {
            Some(outgoing) => Some(incoming.min(outgoing)),
            None => Some(incoming),
        }
    }

    /// How a vote stands.
    pub fn tally(&self, vote_of: impl Fn(ReplicaId) -> Option<bool>) -> Tally {
        let incoming = majority_tally(&self.voters, &vote_of);
        if !self.is_joint() {
            return incoming;
        }
        match (incoming, majority_tally(&self.outgoing, &vote_of)) {
            (Tally::Won, Tally::Won) => Tally::Won,
            (Tally::Lost, _) | (_, Tally::Lost) => Tally::Lost,
            (Tally::Open, _) | (_, Tally::Open) => Tally::Open,
        }
    }
}
