//! Streams of store messages: in order, once, opened anew; bounded; counted.

use node::shard::Outbox;
use node::transport::connections::{
    Class, FRAME_BYTES_MAX, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT,
};
use node::transport::dial::CONNECT_TIMEOUT;
use node::transport::outbound::{Backlog, QUEUE_BYTES_MAX, RECONNECT_PAUSE};
use proto::internal::KvRequest;
use proto::internal::internal_client::InternalClient;
use replication::range::NodeId;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use storage::Key;
use tokio::time::{sleep, timeout};
use tonic::transport::Endpoint;
use txn::api::{KvError, Peers, Request};

use super::faults::{Course, Silence};
use super::network::{Link, Stranger, Weather};
use super::world::{Node, Scene, Thinking, address, end, numbered, play, question};

const SEEDS: u64 = 40;
/// After so long a stream that broke, in whatever way, is open again, if the peer can be reached.
fn noticed_after() -> Duration {
    KEEP_ALIVE_INTERVAL + KEEP_ALIVE_TIMEOUT + CONNECT_TIMEOUT + 2 * RECONNECT_PAUSE
}

fn backlog(node: &Node, to: NodeId) -> Backlog {
    node.outbound.backlogs().get(&to).copied().unwrap_or_default()
}

#[test]
fn store_messages_arrive_in_order_and_once_and_a_broken_stream_is_opened_anew() {
    let course = Course::default();
    let (mut sent, mut heard) = (0, 0);
    for seed in 0..SEEDS {
        let (told, came) = play(seed, Weather::VARIABLE, |scene| converse(scene, &course, seed));
        sent += told;
        heard += came;
    }
    // A run in which nothing broke proves nothing, nor one in which nothing came through.
    assert!(course.resets.load(Ordering::Relaxed) > SEEDS as usize, "{course:?}");
    assert!(course.silences.load(Ordering::Relaxed) > SEEDS as usize / 2, "{course:?}");
    assert!(course.darknesses.load(Ordering::Relaxed) > SEEDS as usize / 2, "{course:?}");
    assert!(course.stops.load(Ordering::Relaxed) > SEEDS as usize / 2, "{course:?}");
    assert!(heard > sent / 3 && heard < sent, "{heard} of {sent} messages came");
}

async fn converse(scene: Arc<Scene>, course: &Course, seed: u64) -> (u64, u64) {
    let (one, two) = scene.pair().await;
    let (teller, told_to, random) = (one.clone(), two.id, scene.clone());
    let telling = tokio::runtime::Handle::current().spawn(async move {
        let mut number = 0;
        loop {
            number += 1;
            let bytes = if random.below(8) == 0 { random.below(100_000) as usize } else { 0 };
            teller.tell(told_to, number, bytes);
            random.pause_below(60).await;
        }
    });
    course.run(&scene, &two, Silence::DeliversInTime, Duration::from_secs(20)).await;
    end([telling]).await;
    sleep(noticed_after()).await;
    // Whatever state the stream was in, it is open again, or will be by the next message.
    const LAST: std::ops::Range<u64> = 1_000_000..1_000_020;
    for number in LAST {
        one.tell(two.id, number, 0);
    }
    sleep(Duration::from_secs(1)).await;
    let heard = two.desk.heard();
    let pair = heard.windows(2).find(|pair| pair[0] >= pair[1]);
    assert_eq!(pair, None, "seed {seed}: out of order, or twice");
    let last: Vec<u64> = heard.iter().copied().filter(|number| LAST.contains(number)).collect();
    assert_eq!(last, LAST.collect::<Vec<_>>(), "seed {seed}: the stream was not opened anew");
    let sent = heard.iter().copied().filter(|number| *number < LAST.start).max().unwrap_or(0);
    (sent, heard.len() as u64 - last.len() as u64)
}

#[test]
fn a_stream_that_broke_while_nothing_was_sent_loses_nothing() {
    play(1, Weather::FAIR, |scene| async move {
        let (one, two) = scene.pair().await;
        for number in 1..20 {
            one.tell(two.id, number, 0);
            sleep(Duration::from_secs(1)).await;
            assert_eq!(two.desk.heard(), (1..=number).collect::<Vec<_>>());
            scene.network.open_links(&address(2)).iter().for_each(Link::reset);
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(backlog(&one, two.id), Backlog::default());
    });
}

#[test]
fn a_silent_peer_holds_no_more_than_its_queue_and_what_is_dropped_is_counted() {
    const BYTES: usize = 256 << 10;
    const COUNT: u64 = 600;
    play(2, Weather::FAIR, |scene| async move {
        let (one, two) = scene.pair().await;
        one.tell(two.id, 1, 0);
        sleep(Duration::from_millis(100)).await;
        let links = scene.network.open_links(&address(2));
        links.iter().for_each(Link::silence);
        for number in 2..COUNT {
            one.tell(two.id, number, BYTES);
            assert!(backlog(&one, two.id).waiting_bytes <= QUEUE_BYTES_MAX);
            if number % 10 == 0 {
                sleep(Duration::from_millis(1)).await;
            }
        }
        let held = backlog(&one, two.id);
        let waiting = held.waiting_bytes / BYTES;
        assert!(waiting > QUEUE_BYTES_MAX / BYTES - 4, "{held:?}");
        // The rest is with HTTP/2, which takes no more than it may buffer, and in the link.
        let under_way = COUNT as usize - 2 - waiting - held.dropped_count as usize;
        assert!(under_way * BYTES <= 3 << 20, "{under_way} batches are under way");
        // What is small still finds room: it is what keeps leases.
        one.tell(two.id, COUNT, 0);
        assert_eq!(backlog(&one, two.id).dropped_count, held.dropped_count);

        sleep(noticed_after()).await;
        one.tell(two.id, COUNT + 1, 0);
        sleep(Duration::from_millis(100)).await;
        assert_eq!(two.desk.heard(), [1, COUNT + 1]);
        let after = backlog(&one, two.id);
        assert_eq!(after.waiting_bytes, 0);
        assert_eq!(after.dropped_count as usize, COUNT as usize - 1 - under_way, "{after:?}");
    });
}

#[test]
fn a_store_message_longer_than_a_frame_is_dropped_alone() {
    play(3, Weather::FAIR, |scene| async move {
        let (one, two) = scene.pair().await;
        one.tell(two.id, 1, 0);
        one.tell(two.id, 2, FRAME_BYTES_MAX);
        one.tell(two.id, 3, 0);
        sleep(Duration::from_millis(100)).await;
        assert_eq!(two.desk.heard(), [1, 3]);
        assert_eq!(backlog(&one, two.id).dropped_count, 1);
        assert_eq!(scene.network.links(&address(2)).len(), 1, "the stream did not break");
    });
}

#[test]
fn messages_that_leave_together_are_cut_into_frames() {
    play(4, Weather::FAIR, |scene| async move {
        let (one, two) = scene.pair().await;
        let messages = (1..=80).map(|number| numbered(number, 1 << 20)).collect();
        one.outbound.send(two.id, messages);
        sleep(Duration::from_secs(5)).await;
        // As many as the queue has room for, in order; more than one frame could carry, had it been one.
        let heard = two.desk.heard();
        assert_eq!(heard, (1..=heard.len() as u64).collect::<Vec<_>>());
        assert!(heard.len() > 60, "{} came", heard.len());
        assert_eq!(backlog(&one, two.id).dropped_count as usize + heard.len(), 80);
    });
}

#[test]
fn control_and_store_messages_pass_while_calls_fill_their_connection() {
    for seed in 0..8 {
        play(seed, Weather::FAIR, |scene| async move {
            let (one, two) = scene.pair().await;
            *two.desk.thinking.lock() = Thinking::ForEver;
            let (first, to) = (one.clone(), two.id);
            let tokio = tokio::runtime::Handle::current();
            tokio.spawn(async move { first.ask(to, 1).await });
            sleep(Duration::from_millis(50)).await;
            // The connection of the calls is the only one yet; its reader stops reading.
            let [calls] = &scene.network.open_links(&address(2))[..] else { panic!("one link") };
            calls.silence();
            for number in 0..60 {
                let (caller, to) = (one.clone(), two.id);
                let mut batch = question(number);
                batch.requests.push(Request::Get { key: Key::new(vec![7; 1 << 20]), lock: None });
                tokio.spawn(async move { caller.peers.send(to, batch).await });
            }
            sleep(Duration::from_millis(50)).await;
            let mut client = one.connections.client(two.id, Class::Control).expect("known");
            one.tell(two.id, 1, 0);
            let gossip = timeout(Duration::from_millis(50), client.gossip(one.control.gossip()));
            let heard = gossip.await.expect("it is not held up").expect("it is answered");
            assert_eq!(heard.into_inner().from, two.id.0);
            sleep(Duration::from_millis(50)).await;
            assert_eq!(two.desk.heard(), [1]);
            assert!(two.control.heard_of().contains_key(&one.id));
        });
    }
}

#[test]
fn frames_beyond_the_limit_are_refused_with_an_error_that_names_it() {
    play(5, Weather::FAIR, |scene| async move {
        let (one, two) = scene.pair().await;
        let limit = FRAME_BYTES_MAX.to_string();
        // What a node asks ..
        let key = Key::new(vec![7; FRAME_BYTES_MAX]);
        let mut batch = question(1);
        batch.requests = vec![Request::Get { key, lock: None }];
        let refused = one.peers.send(two.id, batch).await;
        assert!(
            matches!(&refused, Err(KvError::Invalid(why)) if why.contains(&limit)),
            "{:?}",
            refused.err().map(|error| error.to_string())
        );
        assert!(two.desk.executed.lock().is_empty());
        // .. what it answers ..
        two.desk.answer_bytes.store(FRAME_BYTES_MAX, Ordering::Relaxed);
        let refused = one.ask(two.id, 2).await;
        assert!(
            matches!(&refused, Err(KvError::Invalid(why)) if why.contains(&limit)),
            "{:?}",
            refused.err().map(|error| error.to_string())
        );
        two.desk.answer_bytes.store(0, Ordering::Relaxed);
        assert!(one.ask(two.id, 3).await.is_ok());
        // .. and what somebody sends who keeps to no limit.
        let channel = Endpoint::from_static("http://n2:1")
            .connect_with_connector_lazy(Stranger(scene.network.clone()));
        let mut stranger = InternalClient::new(channel);
        let batch = bytes::Bytes::from(vec![7; FRAME_BYTES_MAX + 1]);
        let request = KvRequest { batch, ..Default::default() };
        let status = stranger.kv(request).await.expect_err("it is too long");
        assert_eq!(status.code(), tonic::Code::OutOfRange, "{status}");
        assert!(status.message().contains(&limit), "{status}");
        let executed: BTreeSet<u64> = two.desk.executed.lock().keys().copied().collect();
        assert_eq!(executed, BTreeSet::from([2, 3]));
    });
}
