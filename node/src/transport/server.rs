//! Driver: what the gRPC services run on: connections that come in, until the node stops.
//!
//! A stop in good order takes no new connections and no new calls, ends the streams, and lets what has begun come to its end, for
//! [`DRAIN_TIMEOUT`] at the most: a peer that has fallen silent takes no answer.
//!
//! INVARIANT: when [`serve`] has returned, no connection is left. (The server's own tasks would outlive it: connections that nobody cuts
//! go on answering for a node that has stopped.)

use clock::TimeSource;
use futures::future::{Either, select};
use proto::internal::internal_server::InternalServer;
use proto::sql::sql_server::SqlServer;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_stream::{Stream, StreamExt};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, Server};
use tracing::{error, warn};

use crate::sql_service::SqlFront;
use crate::transport::connections::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX, KEEP_ALIVE_INTERVAL, KEEP_ALIVE_TIMEOUT,
    STREAM_WINDOW_BYTES,
};
use crate::transport::inbound::Front;

/// What has begun when the node stops may take so long to end. Calls take less, unless their range has no quorum.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Calls that were given up before we have looked at them. A link that was stuck for a while delivers all of them at once, and the
/// protocol's own limit of 20, meant for floods, would close the connection with every other call on it.
const ABANDONED_MAX: usize = 4096;

/// Serves what comes in until `stop`, then ends in good order.
pub async fn serve<IO>(
    incoming: impl Stream<Item = io::Result<IO>>,
    front: Front,
    sql_front: SqlFront,
    stop: CancellationToken,
    time: &dyn TimeSource,
) where
    IO: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let internal = InternalServer::new(front)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX);
    // Statements as long as over PostgreSQL's protocol.
    let sql = SqlServer::new(sql_front).max_decoding_message_size(FRAME_BYTES_MAX);
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .http2_max_pending_accept_reset_streams(Some(ABANDONED_MAX))
        .add_service(internal)
        .add_service(sql);
    let cut = CancellationToken::new();
    let incoming = incoming.map(|accepted| accepted.map(|io| Accepted::new(io, &cut)));
    let served = server.serve_with_incoming_shutdown(incoming, stop.clone().cancelled_owned());
    let limit = async {
        stop.cancelled().await;
        time.sleep_until(time.monotonic().plus(DRAIN_TIMEOUT)).await;
    };
    let served = match select(Box::pin(served), Box::pin(limit)).await {
        Either::Left((served, _)) => served,
        Either::Right(((), rest)) => {
            warn!("calls of other nodes or clients had not ended in time and were cut off");
            cut.cancel();
            rest.await
        }
    };
    if let Err(error) = served {
        error!(%error, "the RPC server ended");
    }
    cut.cancel();
}

/// A connection that can be cut off.
struct Accepted<IO> {
    io: IO,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<IO> Accepted<IO> {
    fn new(io: IO, cut: &CancellationToken) -> Accepted<IO> {
        Accepted { io, cut: Box::pin(cut.clone().cancelled_owned()) }
    }
}

impl<IO> Connected for Accepted<IO> {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl<IO> Accepted<IO> {
    /// What came of a poll, or that the connection is cut. Only one that waits needs to be woken: for bytes to read, or, with a peer that
    /// takes none, for room to write (HTTP/2 reads nothing then).
    fn or_cut<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_pending() && self.cut.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        polled
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Accepted<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        self.or_cut(context, polled)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Accepted<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(context, bytes);
        self.or_cut(context, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(context);
        self.or_cut(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(context);
        self.or_cut(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.or_cut(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
