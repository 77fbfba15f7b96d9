//! Quorums and configuration changes against a dumb twin that tries all subsets.

use proptest::prelude::*;
use replication::raft::quorum::Tally;
use replication::raft::{Membership, ReplicaId};
use std::collections::BTreeSet;

type Set = BTreeSet<ReplicaId>;

fn set(ids: &[u64]) -> Set {
    ids.iter().map(|id| ReplicaId(*id)).collect()
}

fn subsets(of: &Set) -> Vec<Set> {
    let members: Vec<ReplicaId> = of.iter().copied().collect();
    (0..1_u32 << members.len())
        .map(|bits| {
            members
                .iter()
                .enumerate()
                .filter(|(n, _)| bits & (1 << n) != 0)
                .map(|(_, id)| *id)
                .collect()
        })
        .collect()
}

fn has_majority(of: &Set, present: &Set) -> bool {
    of.intersection(present).count() * 2 > of.len()
}

/// The twin: a quorum has a majority of the incoming voters, and of the outgoing ones if there are any.
fn is_quorum(membership: &Membership, present: &Set) -> bool {
    has_majority(&membership.voters, present)
        && (membership.outgoing.is_empty() || has_majority(&membership.outgoing, present))
}

fn quorums(membership: &Membership) -> Vec<Set> {
    let all = membership.all_voters();
    subsets(&all).into_iter().filter(|present| is_quorum(membership, present)).collect()
}

fn some_set(least: usize) -> impl Strategy<Value = Set> {
    proptest::collection::btree_set((1..=6_u64).prop_map(ReplicaId), least..=5)
}

fn some_membership() -> impl Strategy<Value = Membership> {
    (some_set(1), prop_oneof![Just(Set::new()), some_set(1)], some_set(0)).prop_map(
        |(voters, outgoing, learners)| {
            let learners = learners
                .into_iter()
                .filter(|id| !voters.contains(id) && !outgoing.contains(id))
                .collect();
            Membership { voters, outgoing, learners }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_a_quorum_has_reached_is_what_the_twin_finds(
        membership in some_membership(),
        values in proptest::collection::vec(0..6_u64, 7),
    ) {
        let value = |id: ReplicaId| values[usize::try_from(id.0).unwrap()];
        let twin = quorums(&membership)
            .iter()
            .map(|quorum| quorum.iter().map(|id| value(*id)).min().unwrap())
            .max();
        prop_assert_eq!(membership.reached(value), twin);
    }

    #[test]
    fn a_vote_is_won_or_lost_as_the_twin_says(
        membership in some_membership(),
        votes in proptest::collection::vec(proptest::option::of(any::<bool>()), 7),
    ) {
        let vote = |id: ReplicaId| votes[usize::try_from(id.0).unwrap()];
        let all = membership.all_voters();
        let granted: Set = all.iter().copied().filter(|id| vote(*id) == Some(true)).collect();
        let may_grant: Set = all.iter().copied().filter(|id| vote(*id) != Some(false)).collect();
        let twin = if is_quorum(&membership, &granted) {
            Tally::Won
        } else if is_quorum(&membership, &may_grant) {
            Tally::Open
        } else {
            Tally::Lost
        };
        prop_assert_eq!(membership.tally(vote), twin);
    }

    #[test]
    fn quorums_one_legal_step_apart_have_a_member_in_common(
        from in some_membership(),
        to in some_membership(),
        step in 0..4,
    ) {
        // Random pairs are rarely legal: three in four are made so.
        let mut to = to;
        match step {
            0 if from.is_joint() => {
                to.voters = from.voters.clone();
                to.outgoing.clear();
            }
            0 => to.outgoing = from.voters.clone(),
            1 => {
                let extra = to.voters.first().copied();
                to = from.clone();
                to.voters.extend(extra);
            }
            2 => {
                to = from.clone();
                to.voters.pop_first();
            }
            _ => {}
        }
        to.learners = to.learners.iter().copied().filter(|id| !to.is_voter(*id)).collect();
        if from.check_step(&to).is_ok() {
            prop_assert!(!to.voters.is_empty());
            for a in quorums(&from) {
                for b in quorums(&to) {
                    prop_assert!(a.intersection(&b).next().is_some(), "{:?} and {:?}", a, b);
                }
            }
        }
    }
}

#[test]
fn legal_and_illegal_steps() {
    let of = |voters: &[u64], outgoing: &[u64], learners: &[u64]| Membership {
        voters: set(voters),
        outgoing: set(outgoing),
        learners: set(learners),
    };
    let three = of(&[1, 2, 3], &[], &[]);
    let joint = of(&[3, 4, 5], &[1, 2, 3], &[]);
    let table = [
        (&three, of(&[1, 2, 3], &[], &[4]), true, "a learner comes"),
        (&three, of(&[1, 2, 3, 4], &[], &[]), true, "one voter more"),
        (&three, of(&[1, 2], &[], &[3]), true, "one voter becomes a learner"),
        (&three, of(&[1, 2, 4], &[], &[]), false, "a voter replaced in one simple step"),
        (&three, of(&[1, 2, 3, 4, 5], &[], &[]), false, "two voters more at once"),
        (&three, of(&[], &[], &[1]), false, "nobody left"),
        (&three, of(&[], &[1, 2, 3], &[]), false, "nobody left, jointly"),
        (&three, of(&[1, 2, 3], &[], &[3]), false, "voter and learner at once"),
        (&three, of(&[3, 4, 5], &[1, 2, 3], &[]), true, "into a joint one"),
        (&three, of(&[3, 4, 5], &[1, 2], &[]), false, "into a joint one that forgets a voter"),
        (&three, of(&[3, 4, 5], &[1, 2, 3], &[1]), false, "outgoing and learner at once"),
        (&joint, of(&[3, 4, 5], &[], &[]), true, "out of it"),
        (&joint, of(&[3, 4, 5], &[], &[1]), true, "out of it, one stays as a learner"),
        (&joint, of(&[1, 2, 3], &[], &[]), false, "back out of it"),
        (&joint, of(&[3, 4, 5], &[1, 2, 3], &[6]), false, "joint to joint"),
        (&joint, of(&[3, 4], &[], &[]), false, "out of it to other voters"),
    ];
    for (from, to, legal, why) in table {
        assert_eq!(from.check_step(&to).is_ok(), legal, "{why}");
    }
}
