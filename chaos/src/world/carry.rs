//! Driver: what travels between nodes: packets leave, stray, and arrive at whatever process is there by then.

use clock::{RoundTrip, WallTime};
use replication::range::NodeId;
use replication::store::MessageBatch;
use std::time::Duration;
use txn::runtime::HlcSource;
use txn::wire;

use super::executor::Owner;
use super::machine::{Input, Waiter};
use super::port::{Answered, Call, Outgoing, Packet};
use super::*;

/// Of 1000 messages so many are very late while the network disorders them.
const VERY_LATE_PERMILLE: u32 = 15;
/// That is, up to this: longer than a restart takes.
const VERY_LATE_MAX: Duration = Duration::from_secs(12);
/// How soon a caller learns that nobody listens.
const REFUSAL: Duration = Duration::from_millis(2);
/// How soon a caller learns of a cut that it is lucky to learn of.
const CUT_NOTICE: Duration = Duration::from_millis(300);

impl World {
    /// A call of a gateway leaves its process, or stays in it.
    pub(super) fn carry_out_call(&mut self, node: NodeId, outgoing: Outgoing) {
        let Some(process) =
            self.machines.get_mut(&node).and_then(|machine| machine.process.as_mut())
        else {
            return;
        };
        match outgoing {
            Outgoing::Local(id, batch, reply) => {
                process.inbox.push_back(Input::Request(batch, Waiter::Local(id, reply)))
            }
            Outgoing::LocalWithdrawal(id) => {
                process.inbox.push_back(Input::Withdrawal(node, process.incarnation, id))
            }
            Outgoing::LocalLookup(key, reply) => drop(reply.send(process.shard.lookup(&key))),
            Outgoing::Remote(to, packet) => self.send(node, to, packet),
        }
    }

    /// Puts a packet on its way.
    pub(super) fn send(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        self.tally.count("messages sent");
        let now = self.truth.now();
        let link = (from, to, packet.bytes());
        let mut arrivals =
            self.network.arrivals(link, now, &mut self.chances.network, &mut self.tally);
        let once = arrivals.len() > 1 || self.network.is_disordered(from, to);
        let once = once && !self.layout.has(WorldBug::CallsDoubled) && packet.happens_once();
        if once {
            // Such a call goes over a stream, which does not double it. Its receiver may take it up long after its caller has given it up.
            arrivals.truncate(1);
        }
        if arrivals.is_empty()
            && let Packet::Request(call) | Packet::Lookup(call) = &packet
            && self.chances.network.permille(700)
        {
            let refused = Event::Refused { node: from, incarnation: call.incarnation, id: call.id };
            self.push_after(CUT_NOTICE, refused);
        }
        let strays = match &packet {
            Packet::Request(_) if self.network.calls_stray(from, to) => {
                let may_double = self.layout.has(WorldBug::CallsDoubled) || !packet.happens_once();
                let link = (from, to);
                self.network.stray(link, may_double, &mut self.chances.network, &mut self.tally)
            }
            _ => vec![Duration::ZERO],
        };
        // So late that the receiver may be another incarnation.
        let may_be_very_late = self.network.is_disordered(from, to);
        let arrivals = arrivals
            .iter()
            .flat_map(|at| strays.iter().map(|late| at.saturating_add(nanos(*late))));
        for at in arrivals.collect::<Vec<u64>>() {
            let very_late = may_be_very_late && self.chances.network.permille(VERY_LATE_PERMILLE);
            let more = if very_late {
                self.tally.count("messages very late");
                self.chances.network.between(0, nanos(VERY_LATE_MAX))
            } else {
                0
            };
            self.push(at + more, Event::Arrive { from, to, packet: packet.clone() });
        }
    }

    /// A packet is there, if nothing has been cut meanwhile.
    pub(super) fn arrive(&mut self, from: NodeId, to: NodeId, packet: Packet) {
        if self.network.is_cut(from, to) {
            self.tally.count("messages cut off");
            return;
        }
        self.trace.number(u64::from(from.0) << 32 | u64::from(to.0));
        let Some(process) = self.machines.get_mut(&to).and_then(|machine| machine.process.as_mut())
        else {
            if let Packet::Request(call) | Packet::Lookup(call) = packet {
                self.push_after(
                    REFUSAL,
                    Event::Refused { node: from, incarnation: call.incarnation, id: call.id },
                );
            }
            return;
        };
        match packet {
            Packet::Store(bytes) => {
                self.trace.bytes(&bytes);
                let batch = MessageBatch::decode(bytes).expect("what was encoded can be decoded");
                assert_eq!(
                    (batch.cluster, batch.from, batch.to),
                    (CLUSTER, from, to),
                    "a batch comes as it was sent"
                );
                if process.clock.observe(batch.clock).is_err() {
                    self.tally.count("messages refused by clock");
                    return;
                }
                process.inbox.push_back(Input::Messages(from, batch.messages));
                self.check_carried(to, batch.clock);
                self.turn(to);
            }
            Packet::Request(call) => {
                self.trace.bytes(&call.body);
                let carried = clock::ClockTimestamp::from_raw(call.clock);
                if process.clock.observe(carried).is_err() {
                    self.tally.count("messages refused by clock");
                    return;
                }
                let batch =
                    wire::decode(call.body.clone()).expect("what was encoded can be decoded");
                let waiter = Waiter::Remote(from, Call { body: bytes::Bytes::new(), ..call });
                process.inbox.push_back(Input::Request(batch, waiter));
                self.check_carried(to, carried);
                self.turn(to);
            }
            Packet::Withdrawal(call) => {
                process.inbox.push_back(Input::Withdrawal(from, call.incarnation, call.id));
                self.turn(to);
            }
            Packet::Lookup(call) => {
                let key = wire::decode(call.body.clone()).expect("what was encoded can be decoded");
                let body = wire::encode(&process.shard.lookup(&key));
                let clock = process.clock.now().raw();
                self.send(to, from, Packet::Answer(Call { clock, body, ..call }));
            }
            Packet::Answer(call) => {
                self.trace.bytes(&call.body);
                if process.incarnation == call.incarnation {
                    process.port.answered(call.id, Answered::With(call.clock, call.body));
                } else {
                    self.tally.count("messages of a dead incarnation");
                }
            }
            Packet::Catalog(_) => {
                if let Some(engine) = process.engine.clone() {
                    let owner = Owner::Process { node: to, incarnation: process.incarnation };
                    let refreshed = async move {
                        if let Err(error) = engine.refresh_catalog().await {
                            tracing::debug!(error = error.message, "the catalog could not be read");
                        }
                    };
                    txn::runtime::Spawn::spawn(&self.executor.spawner(owner), Box::pin(refreshed));
                }
            }
            Packet::Ping { incarnation, sent } => {
                let wall_us = process.clock.wall().micros();
                let bound_us =
                    u64::try_from(process.clock.own_bound().as_micros()).unwrap_or(u64::MAX);
                self.send(to, from, Packet::Pong { incarnation, sent, wall_us, bound_us });
            }
            Packet::Pong { incarnation, sent, wall_us, bound_us } => {
                if process.incarnation == incarnation {
                    let trip = RoundTrip {
                        sent: clock::Monotonic::from_nanos(sent),
                        received: clock::TimeSource::monotonic(&process.clock.time),
                        remote: WallTime::from_micros(wall_us),
                        advertised: Duration::from_micros(bound_us),
                    };
                    process.clock.measured(from, trip);
                    self.note_trip(to, from, trip.received.since(trip.sent));
                }
            }
        }
    }
}
