//! Calls of the KV API: an end within their limits, the truth about whether they were sent, and nothing left behind.

use node::transport::connections::{KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT};
use node::transport::dial::CONNECT_TIMEOUT;
use node::transport::peers::CALL_TIMEOUT;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use txn::api::{KvError, Reply};

use super::faults::{Course, Silence};
use super::network::{Link, Weather};
use super::world::{Node, Scene, Thinking, address, end, play};

const SEEDS: u64 = 48;
const CALLERS: u64 = 4;
/// What the scheduler and the desks add.
const SLACK: Duration = Duration::from_millis(100);

/// Two round trips, and more.
const PROMPT: Duration = Duration::from_millis(300);

/// What a caller was told.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Told {
    Answered,
    NotSent,
    MaybeSent,
}

fn told(answer: &Result<Reply, KvError>) -> Told {
    match answer {
        Ok(_) => Told::Answered,
        Err(KvError::Unreachable { sent: false, .. }) => Told::NotSent,
        Err(KvError::Unreachable { sent: true, .. }) => Told::MaybeSent,
        Err(other) => panic!("nobody refused: {other}"),
    }
}

#[test]
fn a_call_ends_in_time_and_is_not_said_to_be_unsent_if_it_was_carried_out() {
    let course = Course::default();
    let mut counts: BTreeMap<(Told, u32), usize> = BTreeMap::new();
    for seed in 0..SEEDS {
        for outcome in play(seed, Weather::VARIABLE, |scene| call(scene, &course, seed)) {
            *counts.entry(outcome).or_default() += 1;
        }
    }
    // Each kind of outcome has to have been seen: also what may have been sent, and was carried out, and was not.
    let of = |told, executed| counts.get(&(told, executed)).copied().unwrap_or(0);
    assert!(of(Told::Answered, 1) > 100 * SEEDS as usize, "{counts:?} {course:?}");
    assert!(of(Told::NotSent, 0) > SEEDS as usize, "{counts:?} {course:?}");
    assert!(of(Told::MaybeSent, 0) > SEEDS as usize, "{counts:?} {course:?}");
    assert!(of(Told::MaybeSent, 1) > SEEDS as usize, "{counts:?} {course:?}");
    let seen: usize = counts.values().sum();
    let explained: usize =
        [(Told::Answered, 1), (Told::NotSent, 0), (Told::MaybeSent, 0), (Told::MaybeSent, 1)]
            .map(|(told, executed)| of(told, executed))
            .iter()
            .sum();
    assert_eq!(seen, explained, "{counts:?}");
}

async fn call(scene: Arc<Scene>, course: &Course, seed: u64) -> Vec<(Told, u32)> {
    let (one, two) = scene.pair().await;
    *two.desk.thinking.lock() = Thinking::Below(300);
    let outcomes: Arc<Mutex<BTreeMap<u64, Told>>> = Arc::default();
    let callers: Vec<JoinHandle<()>> = (0..CALLERS)
        .map(|caller| {
            let (scene, one, to, outcomes) = (scene.clone(), one.clone(), two.id, outcomes.clone());
            tokio::runtime::Handle::current().spawn(async move {
                for count in 0.. {
                    let number = caller << 32 | count;
                    // Given up in doubt, unless it is told otherwise.
                    outcomes.lock().insert(number, Told::MaybeSent);
                    let begun = Instant::now();
                    let answer = one.ask(to, number).await;
                    let took = begun.elapsed();
                    assert!(took <= CALL_TIMEOUT + SLACK, "seed {seed}: {answer:?} after {took:?}");
                    outcomes.lock().insert(number, told(&answer));
                    scene.pause_below(300).await;
                }
            })
        })
        .collect();
    course.run(&scene, &two, Silence::DeliversLate, Duration::from_secs(30)).await;
    end(callers).await;
    // What is under way may still be carried out; nobody waits for it.
    sleep(CALL_TIMEOUT + Duration::from_secs(12)).await;
    assert_eq!(two.desk.waiting(), 0, "seed {seed}: somebody is still waited for");
    let executed = two.desk.executed.lock().clone();
    let outcomes = outcomes.lock().clone();
    outcomes
        .into_iter()
        .map(|(number, told)| (told, executed.get(&number).copied().unwrap_or(0)))
        .collect()
}

#[test]
fn calls_to_a_dark_host_end_soon_and_were_not_sent() {
    for seed in 0..8 {
        play(seed, Weather::VARIABLE, |scene| async move {
            let (one, two) = scene.pair().await;
            let _dark = scene.network.darken(&address(2));
            let calls = many_calls(&one, &two, 40);
            scene.pause_below(1000).await;
            let more = many_calls(&one, &two, 40);
            for (answer, took) in [calls.join().await, more.join().await].concat() {
                assert_eq!(told(&answer), Told::NotSent, "after {took:?}");
                assert!(took <= CONNECT_TIMEOUT + SLACK, "after {took:?}");
            }
        });
    }
}

#[test]
fn calls_to_a_host_that_refuses_end_at_once_and_were_not_sent() {
    play(1, Weather::VARIABLE, |scene| async move {
        let (one, two) = scene.pair().await;
        two.stop().await;
        for (answer, took) in many_calls(&one, &two, 40).join().await {
            assert_eq!((told(&answer), took < PROMPT), (Told::NotSent, true), "after {took:?}");
        }
    });
}

#[test]
fn a_call_that_a_starting_node_refuses_was_not_begun() {
    play(2, Weather::VARIABLE, |scene| async move {
        let (one, two) = (Node::new(&scene, 1).await, Node::new(&scene, 2).await);
        two.listen(Default::default(), Default::default());
        for (answer, took) in many_calls(&one, &two, 10).join().await {
            assert_eq!((told(&answer), took < PROMPT), (Told::NotSent, true), "after {took:?}");
        }
    });
}

/// Calls that are under way together.
struct Calls(Vec<JoinHandle<(Result<Reply, KvError>, Duration)>>);

impl Calls {
    async fn join(self) -> Vec<(Result<Reply, KvError>, Duration)> {
        let mut ends = Vec::new();
        for call in self.0 {
            ends.push(call.await.expect("it does not panic"));
        }
        ends
    }
}

fn many_calls(one: &Arc<Node>, two: &Arc<Node>, count: u64) -> Calls {
    let call = |number| {
        let (one, to) = (one.clone(), two.id);
        tokio::runtime::Handle::current().spawn(async move {
            let begun = Instant::now();
            (one.ask(to, number).await, begun.elapsed())
        })
    };
    Calls((0..count).map(call).collect())
}

#[test]
fn a_peer_that_falls_silent_is_noticed_by_both_sides_and_reached_anew() {
    for seed in 0..16 {
        play(seed, Weather::VARIABLE, |scene| async move {
            let (one, two) = scene.pair().await;
            *two.desk.thinking.lock() = Thinking::Exactly(Duration::from_secs(5));
            let begun = many_calls(&one, &two, 3);
            sleep(Duration::from_millis(200 + scene.below(1000))).await;
            let links = scene.network.open_links(&address(2));
            links.iter().for_each(Link::silence);
            // What was under way: the peer may have carried it out, and has.
            for (answer, took) in begun.join().await {
                assert_eq!(told(&answer), Told::MaybeSent);
                assert!(took <= CALL_TIMEOUT + SLACK, "after {took:?}");
            }
            sleep(KEEP_ALIVE_INTERVAL + KEEP_ALIVE_TIMEOUT).await;
            assert_eq!(two.desk.executed.lock().len(), 3);
            for link in &links {
                assert!(!link.has_dialler(), "the caller's side has not noticed");
                assert!(!link.has_server(), "the peer's side has not noticed");
            }
            assert_eq!(two.desk.waiting(), 0);
            *two.desk.thinking.lock() = Thinking::Exactly(Duration::ZERO);
            let again = timeout(CONNECT_TIMEOUT, one.ask(two.id, 9)).await.expect("a new link");
            assert_eq!(told(&again), Told::Answered);
        });
    }
}

#[test]
fn a_call_that_its_caller_drops_is_dropped_at_the_server_and_nobody_waits_for_it() {
    for seed in 0..16 {
        play(seed, Weather::VARIABLE, |scene| async move {
            let (one, two) = scene.pair().await;
            *two.desk.thinking.lock() = Thinking::ForEver;
            let Calls(calls) = many_calls(&one, &two, 50);
            sleep(Duration::from_secs(1)).await;
            assert_eq!(two.desk.waiting(), 50);
            let kept = scene.below(50) as usize;
            for (place, call) in calls.iter().enumerate() {
                if place != kept {
                    call.abort();
                }
            }
            sleep(Duration::from_secs(1)).await;
            assert_eq!((two.desk.waiting(), calls[kept].is_finished()), (1, false));
            let withdrawn = two.desk.withdrawn.load(Ordering::Relaxed);
            assert_eq!(withdrawn, 49, "the shard hears of each: it may wait there for a lock");
            let links = scene.network.open_links(&address(2));
            assert_eq!(links.len(), 1, "the connection has not suffered");
        });
    }
}

#[test]
fn calls_that_are_given_up_together_on_a_stuck_link_disturb_no_other() {
    for seed in 0..8 {
        play(seed, Weather::FAIR, |scene| async move {
            let (one, two) = scene.pair().await;
            *two.desk.thinking.lock() = Thinking::Exactly(Duration::from_secs(4));
            let bystander = many_calls(&one, &two, 1);
            sleep(Duration::from_millis(100)).await;
            let [link] = &scene.network.open_links(&address(2))[..] else { panic!("one link") };
            link.silence();
            let Calls(given_up) = many_calls(&one, &two, 300);
            sleep(Duration::from_millis(500 + scene.below(500))).await;
            given_up.iter().for_each(JoinHandle::abort);
            sleep(Duration::from_millis(scene.below(500))).await;
            link.resume();
            for (answer, took) in bystander.join().await {
                assert_eq!(told(&answer), Told::Answered, "seed {seed}, after {took:?}");
            }
            assert_eq!(scene.network.links(&address(2)).len(), 1);
        });
    }
}
