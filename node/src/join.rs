//! Driver: how a node comes to belong to a cluster.
//!
//! A node whose data directory belongs to no cluster asks every address of `--join`:
//!
//! - One of them belongs to a cluster: it admits us (a transaction gives us a node id and, if our region is new, a region id).
//! - All of them answer that they do not belong to one either: the node with the smallest address founds the cluster, the
//!   others keep asking. A node founds only after *all* have answered, so that a wiped disk never founds a second cluster beside a
//!   living one (killer R21).
//! - There is no `--join`, or only ourselves in it: we found at once.
//!
//! Asking twice (a lost answer) gives the same node id: admission is keyed by the data directory's random instance.

use bytes::Bytes;
use clock::TimeSource;
use futures::future::join_all;
use proto::internal::{JoinReply, JoinRequest, NodeEntry};
use replication::range::{NodeId, RegionId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use storage::Key;
use tracing::{info, warn};
use txn::client::{Db, Txn, TxnError, TxnOptions};

use crate::identity::{FORMAT, Membership};
use crate::shared::Shared;
use crate::transport::connections::client_for_address;

/// Pause between rounds of asking.
const ASK_PAUSE: Duration = Duration::from_millis(300);

/// What a round of asking came to.
pub enum Verdict {
    /// Admitted.
    Member(Membership, Vec<NodeEntry>),
    /// Everybody is new, and we have the smallest address.
    Found,
}

/// Whether addresses to join can be ones. The error is for people.
pub fn check_addresses(join: &[String]) -> Result<(), String> {
    let is_address = |address: &str| {
        let Some((host, port)) = address.rsplit_once(':') else { return false };
        let is_host = !host.is_empty()
            && (host.starts_with('[') == host.ends_with(']'))
            && !host.contains(|c: char| c.is_whitespace() || "/@?#".contains(c));
        is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    match join.iter().find(|address| !is_address(address)) {
        None => Ok(()),
        Some(wrong) => Err(format!(
            "--join: `{wrong}` is not an address: expected HOST:PORT,HOST:PORT (RPC addresses of nodes)"
        )),
    }
}

/// Asks until there is a verdict. `own` is our advertised RPC address.
pub async fn ask(request: JoinRequest, join: &[String], time: &dyn TimeSource) -> Verdict {
    let own = request.rpc_addr.clone();
    let others: BTreeSet<&String> = join.iter().filter(|address| **address != own).collect();
    if others.is_empty() {
        return Verdict::Found;
    }
    let mut told = false;
    loop {
        let answers =
            join_all(others.iter().map(|address| ask_one(address, request.clone()))).await;
        let mut new_ones = 0;
        for (address, answer) in others.iter().zip(answers) {
            match answer {
                Ok(reply) if reply.initialised => match member(&reply) {
                    Some(membership) => return Verdict::Member(membership, reply.nodes),
                    None => warn!(%address, "an answer to our request to join makes no sense"),
                },
                Ok(_) => new_ones += 1,
                Err(why) if !told => {
                    info!(%address, why, "waiting for a node to answer our request to join")
                }
                Err(_) => {}
            }
        }
        told = true;
        let smallest = others.iter().all(|address| own < **address);
        if new_ones == others.len() && smallest {
            return Verdict::Found;
        }
        time.sleep_until(time.monotonic().plus(ASK_PAUSE)).await;
    }
}

async fn ask_one(address: &str, request: JoinRequest) -> Result<JoinReply, String> {
    let mut client =
        client_for_address(address).ok_or_else(|| format!("{address} is not an address"))?;
    let reply = client.join(request).await.map_err(|status| status.message().to_string())?;
    Ok(reply.into_inner())
}

fn member(reply: &JoinReply) -> Option<Membership> {
    Some(Membership {
        cluster: u128::from_be_bytes(reply.cluster.as_ref().try_into().ok()?),
        node: NodeId(reply.node),
        region: RegionId(u16::try_from(reply.region_id).ok()?),
    })
}

/// The answer of a node that does not belong to a cluster itself.
pub fn newcomer_reply(rpc_addr: &str) -> JoinReply {
    JoinReply { initialised: false, rpc_addr: rpc_addr.to_string(), ..JoinReply::default() }
}

/// Key of an id counter: the next free one, as decimal text.
pub fn counter_key(name: &str) -> Key {
    Key::system("ids", name.as_bytes())
}

/// Key of a region's id, as decimal text.
pub fn region_key(name: &str) -> Key {
    Key::system("regions", name.as_bytes())
}

/// Key of the node id that an instance was given, as `node region` in decimal text.
pub fn instance_key(instance: &[u8]) -> Key {
    Key::system("instances", instance)
}

/// Admits new nodes, on any node of the cluster.
pub struct Admission {
    shared: Arc<Shared>,
    db: Db,
}

impl Admission {
    /// With the database that keeps the ids.
    pub fn new(shared: Arc<Shared>, db: Db) -> Admission {
        Admission { shared, db }
    }

    /// Gives the asking node its ids. The error is for people.
    pub async fn admit(&self, request: JoinRequest) -> Result<JoinReply, String> {
        if request.format != FORMAT {
            return Err(format!(
                "your data format is {}, this cluster's is {FORMAT}",
                request.format
            ));
        }
        if request.region.is_empty() || request.instance.len() != 16 {
            return Err("a request to join needs a region and an instance".to_string());
        }
        let region = request.region.clone();
        let instance = request.instance.clone();
        let given = self
            .db
            .run(TxnOptions::default(), move |txn| {
                let (region, instance) = (region.clone(), instance.clone());
                Box::pin(async move { give_ids(txn, &region, &instance).await })
            })
            .await;
        let (node, region_id) =
            given.map_err(|error| format!("no ids can be given now: {error}"))?;
        info!(node = %node, region = request.region, address = request.rpc_addr, "a node was admitted");
        let nodes = self.shared.directory.read().entries().cloned().collect();
        Ok(JoinReply {
            initialised: true,
            rpc_addr: String::new(),
            cluster: Bytes::copy_from_slice(&self.shared.cluster.to_be_bytes()),
            node: node.0,
            region_id: u32::from(region_id.0),
            nodes,
        })
    }
}

async fn give_ids(
    txn: &mut Txn,
    region: &str,
    instance: &[u8],
) -> Result<(NodeId, RegionId), TxnError> {
    if let Some(known) = read_text(txn, &instance_key(instance)).await?
        && let Some((node, region)) = known.split_once(' ')
        && let (Ok(node), Ok(region)) = (node.parse(), region.parse())
    {
        return Ok((NodeId(node), RegionId(region)));
    }
    let region_id = match read_number(txn, &region_key(region)).await? {
        Some(known) => known,
        None => {
            let fresh = take_number(txn, "region").await?;
            txn.put(region_key(region), text(fresh))?;
            fresh
        }
    };
    let node = take_number(txn, "node").await?;
    txn.put(instance_key(instance), Bytes::from(format!("{node} {region_id}")))?;
    let node =
        u32::try_from(node).map_err(|_| TxnError::Invalid("no node ids are left".to_string()))?;
    let region_id = u16::try_from(region_id)
        .map_err(|_| TxnError::Invalid("no region ids are left".to_string()))?;
    Ok((NodeId(node), RegionId(region_id)))
}

/// The counter's value, which is thereby taken.
async fn take_number(txn: &mut Txn, counter: &str) -> Result<u64, TxnError> {
    let key = counter_key(counter);
    let value = read_number(txn, &key).await?.unwrap_or(1);
    txn.put(key, text(value + 1))?;
    Ok(value)
}

async fn read_number(txn: &mut Txn, key: &Key) -> Result<Option<u64>, TxnError> {
    let Some(found) = read_text(txn, key).await? else { return Ok(None) };
    found.parse().map(Some).map_err(|_| TxnError::Invalid(format!("{key} holds no number")))
}

async fn read_text(txn: &mut Txn, key: &Key) -> Result<Option<String>, TxnError> {
    let value = txn.get(key, Some(txn::api::Lock::Exclusive)).await?;
    Ok(value.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
}

/// A number as these records hold it.
pub fn text(number: u64) -> Bytes {
    Bytes::from(number.to_string())
}
