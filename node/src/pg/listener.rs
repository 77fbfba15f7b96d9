//! Driver: accepts PostgreSQL clients, up to a limit, until told to stop.

use bytes::BytesMut;
use futures::future::{Either, select};
use sql::{Engine, SessionParams, SqlError, SqlState};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use tokio::io::AsyncWriteExt;
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
                    let pause =
                        self.runtime.time.monotonic().plus(std::time::Duration::from_millis(100));
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
        let serve = Box::pin(self.clone().serve(socket, count));
        match select(serve, Box::pin(stop.cancelled())).await {
            Either::Left((Err(error), _)) => debug!(%from, %error, "a connection ended"),
            Either::Left((Ok(()), _)) => debug!(%from, "a connection ended"),
            Either::Right(_) => info!(%from, "a connection was closed: the node stops"),
        }
    }

    async fn serve(self: Arc<PgServer>, mut socket: TcpStream, count: usize) -> Result<(), String> {
        socket.set_nodelay(true).map_err(|error| error.to_string())?;
        let mut buffer = BytesMut::new();
        let limit =
            self.runtime.time.sleep_until(self.runtime.time.monotonic().plus(STARTUP_TIMEOUT));
        let opening = match select(Box::pin(read_opening(&mut socket, &mut buffer)), limit).await {
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
                refuse(&mut socket, &error).await
            }
            Ok(Opening::Session { minor, parameters }) => {
                self.session(socket, buffer, minor, parameters).await
            }
            Err(StartupError::Socket(error)) => Err(error.to_string()),
            Err(error @ StartupError::Malformed(_)) => {
                refuse(&mut socket, &SqlError::new(SqlState::PROTOCOL_VIOLATION, error.to_string()))
                    .await
            }
            Err(error @ StartupError::Version(..)) => {
                refuse(
                    &mut socket,
                    &SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, error.to_string()),
                )
                .await
            }
        }
    }

    async fn session(
        &self,
        mut socket: TcpStream,
        buffer: BytesMut,
        minor: u16,
        parameters: BTreeMap<String, String>,
    ) -> Result<(), String> {
        let process = self.last_process.fetch_add(1, Ordering::Relaxed).wrapping_add(1) & i32::MAX;
        let secret = (self.runtime.random.next_u64() >> 33) as i32;
        let session =
            match self.engine.session(SessionParams::from_startup(parameters, process, secret)) {
                Ok(session) => session,
                Err(error) => return refuse(&mut socket, &error).await,
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
        let ended = Connection::new(socket, buffer, session, replies).run().await;
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

async fn refuse(socket: &mut TcpStream, error: &SqlError) -> Result<(), String> {
    let mut replies = Replies::default();
    replies.fatal(error);
    socket.write_all(&replies.buffer).await.map_err(|error| error.to_string())?;
    socket.shutdown().await.map_err(|error| error.to_string())?;
    Err(error.message.clone())
}
