//! Driver: accepts PostgreSQL clients, up to a limit, until told to stop.

use bytes::BytesMut;
use futures::future::{Either, select};
use socket2::{SockRef, TcpKeepalive};
use sql::{Engine, SessionParams, SqlError, SqlState};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};
use txn::runtime::Runtime;

use super::cancel::Cancels;
use super::connection::Connection;
use super::reply::Replies;
use super::startup::{Opening, StartupError, read_opening};
use super::{CONNECTIONS_MAX, STARTUP_TIMEOUT};

/// A silent client is asked whether it is there after this long, then this often, this many times.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TRIES: u32 = 3;

/// What every connection needs.
pub struct PgServer {
    engine: Arc<Engine>,
    runtime: Runtime,
    cancels: Cancels,
    connections: AtomicUsize,
    last_process: AtomicI32,
}

impl PgServer {
    /// Sessions come from this engine.
    pub fn new(engine: Arc<Engine>, runtime: Runtime) -> Arc<PgServer> {
        Arc::new(PgServer {
            engine,
            runtime,
            cancels: Cancels::default(),
            connections: AtomicUsize::new(0),
            last_process: AtomicI32::new(0),
        })
    }

    /// Connections now.
    pub fn connection_count(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Accepts until `stop`, then waits for the connections to end (they are cancelled by `stop` too).
    pub async fn run(self: Arc<PgServer>, listener: TcpListener, stop: CancellationToken) {
        let tracker = TaskTracker::new();
        loop {
            let accepted =
                match select(Box::pin(listener.accept()), Box::pin(stop.cancelled())).await {
                    Either::Left((accepted, _)) => accepted,
                    Either::Right(_) => break,
                };
            match accepted {
                Ok((socket, from)) => {
                    let server = self.clone();
                    let stop = stop.clone();
                    tracker.spawn(async move { server.connection(socket, from, stop).await });
                }
                // Out of file descriptors or the like: the next accept would fail at once as well.
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    let pause = self.runtime.time.monotonic().plus(Duration::from_millis(100));
                    self.runtime.time.sleep_until(pause).await;
                }
            }
        }
        tracker.close();
        tracker.wait().await;
    }

    async fn connection(
        self: Arc<PgServer>,
        socket: TcpStream,
        from: SocketAddr,
        stop: CancellationToken,
    ) {
        let count = self.connections.fetch_add(1, Ordering::Relaxed) + 1;
        let _counted = Counted(&self.connections);
        let serve = async {
            socket.set_nodelay(true).map_err(|error| error.to_string())?;
            // A client whose machine is gone holds locks: it is noticed within half a minute.
            let alive = TcpKeepalive::new().with_time(KEEP_ALIVE_AFTER);
            let alive = alive.with_interval(KEEP_ALIVE_INTERVAL).with_retries(KEEP_ALIVE_TRIES);
            SockRef::from(&socket).set_tcp_keepalive(&alive).map_err(|error| error.to_string())?;
            self.serve(socket.into_split(), count).await
        };
        let serve = Box::pin(serve);
        match select(serve, Box::pin(stop.cancelled())).await {
            Either::Left((Err(error), _)) => debug!(%from, %error, "a connection ended"),
            Either::Left((Ok(()), _)) => debug!(%from, "a connection ended"),
            Either::Right(_) => info!(%from, "a connection was closed: the node stops"),
        }
    }

    /// Serves one client over the two halves of its socket; `count`: connections with this one.
    ///
    /// # Errors
    /// Why it ended, other than by the client's leaving. The client was told if it could be.
    pub async fn serve<R, W>(&self, socket: (R, W), count: usize) -> Result<(), String>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let (mut input, mut output) = socket;
        let mut buffer = BytesMut::new();
        let limit =
            self.runtime.time.sleep_until(self.runtime.time.monotonic().plus(STARTUP_TIMEOUT));
        let opening = Box::pin(read_opening(&mut input, &mut output, &mut buffer));
        let opening = match select(opening, limit).await {
            Either::Left((opening, _)) => opening,
            Either::Right(_) => return Err("startup took too long".to_string()),
        };
        match opening {
            Ok(Opening::Cancel { process, secret }) => {
                self.cancels.cancel(process, secret);
                Ok(())
            }
            Ok(Opening::Session { .. }) if count > CONNECTIONS_MAX => {
                let error = SqlError::new(
                    SqlState::TOO_MANY_CONNECTIONS,
                    "sorry, too many clients already".to_string(),
                );
                refuse(&mut output, &error).await
            }
            Ok(Opening::Session { minor, parameters }) => {
                self.session((input, output), buffer, minor, parameters).await
            }
            Err(StartupError::Socket(error)) => Err(error.to_string()),
            Err(error @ StartupError::Malformed(_)) => {
                refuse(&mut output, &SqlError::new(SqlState::PROTOCOL_VIOLATION, error.to_string()))
                    .await
            }
            Err(error @ StartupError::Version(..)) => {
                refuse(
                    &mut output,
                    &SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, error.to_string()),
                )
                .await
            }
        }
    }

    async fn session<R, W>(
        &self,
        (input, mut output): (R, W),
        buffer: BytesMut,
        minor: u16,
        parameters: BTreeMap<String, String>,
    ) -> Result<(), String>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let process = self.last_process.fetch_add(1, Ordering::Relaxed).wrapping_add(1) & i32::MAX;
        let secret = (self.runtime.random.next_u64() >> 33) as i32;
        let session =
            match self.engine.session(SessionParams::from_startup(parameters, process, secret)) {
                Ok(session) => session,
                Err(error) => return refuse(&mut output, &error).await,
            };
        let mut replies = Replies::default();
        if minor > 0 {
            replies.negotiate_down();
        }
        replies.authenticated();
        for (name, value) in session.startup_parameters() {
            replies.parameter(&name, &value);
        }
        replies.key_data(process, secret);
        self.cancels.add(process, secret, session.cancel_handle());
        let _registered = Registered(&self.cancels, process);
        let ended = Connection::new((input, output), buffer, session, replies).run().await;
        ended.map_err(|error| error.to_string())
    }
}

/// A connection that counts, however it ends: also when its task panics, or is dropped because the node stops.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that can be cancelled.
struct Registered<'a>(&'a Cancels, i32);

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.0.remove(self.1);
    }
}

async fn refuse(output: &mut (impl AsyncWrite + Unpin), error: &SqlError) -> Result<(), String> {
    let mut replies = Replies::default();
    replies.fatal(error);
    output.write_all(&replies.buffer).await.map_err(|error| error.to_string())?;
    output.shutdown().await.map_err(|error| error.to_string())?;
    Err(error.message.clone())
}
