//! Driver: one lazily connected gRPC channel per peer and class of traffic, so that a snapshot never delays a heartbeat by more
//! than the network itself does.

use parking_lot::Mutex;
use proto::internal::internal_client::InternalClient;
use replication::range::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};

use crate::shared::Shared;

/// No message between nodes is longer.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
/// HTTP/2 windows: bandwidth times delay of a long fat network.
const STREAM_WINDOW_BYTES: u32 = 16 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// What travels over a channel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// Raft, promises, snapshots.
    Stores,
    /// The KV API.
    Kv,
    /// Gossip and orders.
    Control,
}

/// The channels of this node.
pub struct Connections {
    shared: Arc<Shared>,
    channels: Mutex<BTreeMap<(NodeId, Class), (String, Channel)>>,
}

impl Connections {
    /// None yet.
    pub fn new(shared: Arc<Shared>) -> Connections {
        Connections { shared, channels: Mutex::default() }
    }

    /// A client for a peer; `None` if its address is not known or not an address.
    pub fn client(&self, to: NodeId, class: Class) -> Option<InternalClient<Channel>> {
        let address = self.shared.directory.read().get(to)?.rpc_addr.clone();
        let mut channels = self.channels.lock();
        if let Some((known, channel)) = channels.get(&(to, class))
            && *known == address
        {
            return Some(limited(channel.clone()));
        }
        let channel = endpoint(&address)?.connect_lazy();
        channels.insert((to, class), (address, channel.clone()));
        Some(limited(channel))
    }
}

/// A client for an address that is not (yet) a known node's.
pub fn client_for_address(address: &str) -> Option<InternalClient<Channel>> {
    Some(limited(endpoint(address)?.connect_lazy()))
}

fn limited(channel: Channel) -> InternalClient<Channel> {
    InternalClient::new(channel)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX)
}

fn endpoint(address: &str) -> Option<Endpoint> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
    Some(
        endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true),
    )
}
