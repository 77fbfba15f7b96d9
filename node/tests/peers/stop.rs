//! A node that stops in good order: ends its streams, finishes what it has begun, waits for nobody who is gone.

use node::transport::server::DRAIN_TIMEOUT;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use txn::api::KvError;

use super::network::{Link, Weather};
use super::world::{Thinking, address, play};

const SLACK: Duration = Duration::from_millis(200);

#[test]
fn a_node_that_stops_ends_its_streams_and_finishes_what_it_has_begun() {
    for seed in 0..24 {
        play(seed, Weather::VARIABLE, |scene| async move {
            let (one, two) = scene.pair().await;
            *two.desk.thinking.lock() = Thinking::Exactly(Duration::from_secs(1));
            one.tell(two.id, 1, 0);
            let asked: Vec<_> = (0..10)
                .map(|number| {
                    let (one, to) = (one.clone(), two.id);
                    tokio::runtime::Handle::current()
                        .spawn(async move { one.ask(to, number).await })
                })
                .collect();
            sleep(Duration::from_millis(300 + scene.below(500))).await;
            assert_eq!((two.desk.heard(), two.desk.waiting()), (vec![1], 10));
            let took = two.stop().await;
            assert!(took < DRAIN_TIMEOUT, "seed {seed}: an open stream was waited for: {took:?}");
            sleep(SLACK).await;
            for call in asked {
                let answer = call.await.expect("it does not panic");
                assert!(answer.is_ok(), "seed {seed}: {answer:?} to what was begun before");
            }
            for link in scene.network.links(&address(2)) {
                assert!(!link.has_server(), "seed {seed}: a connection outlived the node");
            }
            // Nobody takes it for a node that is there.
            let refused = one.ask(two.id, 99).await;
            assert!(
                matches!(refused, Err(KvError::Unreachable { sent: false, .. })),
                "seed {seed}: {refused:?}"
            );
            one.tell(two.id, 2, 0);
            sleep(Duration::from_secs(1)).await;
            assert_eq!(two.desk.heard(), [1]);
            // It comes back, and so do the messages.
            two.serve(Default::default());
            one.tell(two.id, 3, 0);
            sleep(Duration::from_secs(1)).await;
            assert_eq!(two.desk.heard(), [1, 3]);
        });
    }
}

#[test]
fn a_node_that_stops_waits_no_longer_than_its_limit_for_calls_and_for_peers_that_are_gone() {
    for seed in 0..24 {
        play(seed, Weather::VARIABLE, |scene| async move {
            let (one, two) = scene.pair().await;
            *two.desk.thinking.lock() = Thinking::ForEver;
            one.tell(two.id, 1, 0);
            let (caller, to) = (one.clone(), two.id);
            let begun = Instant::now();
            let asked = tokio::runtime::Handle::current()
                .spawn(async move { (caller.ask(to, 1).await, begun.elapsed()) });
            sleep(Duration::from_millis(300 + scene.below(500))).await;
            let silent = scene.below(2) == 0;
            if silent {
                scene.network.open_links(&address(2)).iter().for_each(Link::silence);
            }
            let took = two.stop().await;
            assert!(took <= DRAIN_TIMEOUT + SLACK, "seed {seed}: it took {took:?}");
            sleep(SLACK).await;
            assert_eq!(two.desk.waiting(), 0, "seed {seed}: a call outlived the node");
            for link in scene.network.links(&address(2)) {
                assert!(!link.has_server(), "seed {seed}: a connection outlived the node");
            }
            let (answer, _) = asked.await.expect("it does not panic");
            assert!(
                matches!(answer, Err(KvError::Unreachable { sent: true, .. })),
                "seed {seed}: {answer:?}"
            );
        });
    }
}

#[test]
fn a_node_that_stops_is_not_held_up_by_who_has_only_connected() {
    play(1, Weather::FAIR, |scene| async move {
        let (_, two) = scene.pair().await;
        let _mute = scene.network.clone().dial_side(address(2)).await.expect("it listens");
        sleep(Duration::from_millis(100)).await;
        let took = two.stop().await;
        assert!(took <= DRAIN_TIMEOUT + SLACK, "{took:?}");
        sleep(SLACK).await;
        let [link] = &scene.network.links(&address(2))[..] else { panic!("one link") };
        assert!(!link.has_server());
    });
}

#[test]
fn a_node_that_stops_does_not_wait_for_who_takes_no_more_bytes() {
    for seed in 0..8 {
        play(seed, Weather::FAIR, |scene| async move {
            let (one, two) = scene.pair().await;
            two.desk.answer_bytes.store(8 << 20, Ordering::Relaxed);
            *two.desk.thinking.lock() = Thinking::Exactly(Duration::from_millis(300));
            let (caller, to) = (one.clone(), two.id);
            let asked =
                tokio::runtime::Handle::current().spawn(async move { caller.ask(to, 1).await });
            sleep(Duration::from_millis(200)).await;
            scene.network.open_links(&address(2)).iter().for_each(Link::silence);
            // The answer is written by then, as far as there was room.
            sleep(Duration::from_millis(300 + scene.below(500))).await;
            let took = two.stop().await;
            assert!(took <= DRAIN_TIMEOUT + SLACK, "seed {seed}: it took {took:?}");
            let answer = asked.await.expect("it does not panic");
            let lost = matches!(answer, Err(KvError::Unreachable { sent: true, .. }));
            assert!(lost, "seed {seed}: {answer:?}");
        });
    }
}
