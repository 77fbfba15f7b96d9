//! Driver, and seam: how an address becomes a connection. In production that is TCP; tests dial links in memory, so that the real
//! transport runs over networks that break, fall silent and fill up.

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tonic::codegen::{Service, http::Uri};

/// A peer that has not taken a connection by then is not there.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// For so long after a failed try the next ones fail as it did: a channel tries anew for every call that waits for a connection, one after
/// the other, and the last of many calls to a dark host would wait for as many tries.
const FAILURE_KEPT: Duration = Duration::from_millis(100);

/// A connection: bytes in order, both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Makes connections.
pub trait Dial: Send + Sync + 'static {
    /// Connects to an address (`host:port`). May take for ever: the caller sets the limit ([`CONNECT_TIMEOUT`]).
    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>>;
}

/// Over TCP.
pub struct Tcp;

impl Dial for Tcp {
    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>> {
        Box::pin(async move {
            let socket = TcpStream::connect(address).await?;
            // Without it small messages wait 40 ms for an acknowledgement.
            socket.set_nodelay(true)?;
            Ok(Box::new(socket) as Box<dyn Duplex>)
        })
    }
}

/// A way to connect, as a channel wants it.
#[derive(Clone)]
pub(super) struct Connector {
    dial: Arc<dyn Dial>,
    failed: Arc<Mutex<Option<(Instant, io::ErrorKind)>>>,
}

impl Connector {
    pub(super) fn new(dial: Arc<dyn Dial>) -> Connector {
        Connector { dial, failed: Arc::default() }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Duplex>>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        let failed = self.failed.clone();
        if let Some((at, kind)) = *failed.lock()
            && at.elapsed() < FAILURE_KEPT
        {
            return Box::pin(async move { Err(kind.into()) });
        }
        let address = address.authority().map_or_else(String::new, ToString::to_string);
        let dialled = self.dial.dial(address);
        Box::pin(async move {
            let connected = tokio::time::timeout(CONNECT_TIMEOUT, dialled).await;
            let connected = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            *failed.lock() = connected.as_ref().err().map(|error| (Instant::now(), error.kind()));
            connected.map(TokioIo::new)
        })
    }
}
