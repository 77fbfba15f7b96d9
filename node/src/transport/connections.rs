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
use crate::transport::dial::{Connector, Dial, Tcp};
use crate::transport::handover::Watched;

/// No message between nodes is longer.
pub const FRAME_BYTES_MAX: usize = 64 << 20;
/// HTTP/2 windows, of both sides: bandwidth times delay of a long fat network.
pub const STREAM_WINDOW_BYTES: u32 = 16 << 20;
/// Of all streams of a connection.
pub const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;
/// Whoever has been silent for so long is asked whether it is there, by both sides ..
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// .. and is gone if it does not answer within this.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// A client for a peer.
pub type Client = InternalClient<Watched<Channel>>;

/// Why a message of so many bytes cannot be sent, if it cannot.
pub fn too_long(what: &str, bytes: usize) -> Option<String> {
    (bytes > FRAME_BYTES_MAX).then(|| {
        format!("{what} has {bytes} bytes, which is above the limit of {FRAME_BYTES_MAX} bytes")
    })
}

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
    dial: Arc<dyn Dial>,
    channels: Mutex<BTreeMap<(NodeId, Class), (String, Channel)>>,
}

impl Connections {
    /// None yet; they will be made by `dial`.
    pub fn new(shared: Arc<Shared>, dial: Arc<dyn Dial>) -> Connections {
        Connections { shared, dial, channels: Mutex::default() }
    }

    /// A client for a peer; `None` if its address is not known or not an address.
    pub fn client(&self, to: NodeId, class: Class) -> Option<Client> {
        let address = self.shared.directory.read().get(to)?.rpc_addr.clone();
        let mut channels = self.channels.lock();
        if let Some((known, channel)) = channels.get(&(to, class))
            && *known == address
        {
            return Some(limited(channel.clone()));
        }
        let channel = channel(&address, self.dial.clone())?;
        channels.insert((to, class), (address, channel.clone()));
        Some(limited(channel))
    }
}

/// A client for an address that is not (yet) a known node's.
pub fn client_for_address(address: &str) -> Option<Client> {
    Some(limited(channel(address, Arc::new(Tcp))?))
}

fn limited(channel: Channel) -> Client {
    InternalClient::new(Watched(channel))
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX)
}

/// Connects when it is first needed, and again when its connection has broken.
fn channel(address: &str, dial: Arc<dyn Dial>) -> Option<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
    let endpoint = endpoint
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    Some(endpoint.connect_with_connector_lazy(Connector::new(dial)))
}
