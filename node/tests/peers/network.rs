//! Value: a network in memory, on tokio's virtual time. Bytes arrive late and in pieces of any size, a full link makes its writer wait; a
//! link breaks (both sides hear of it), or falls silent (nobody does: what is written fills the link and stays there); an
//! address may be listening, refusing, or dark, as a machine without power is.

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use node::transport::dial::{Dial, Duplex};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_stream::Stream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codegen::{Service, http::Uri};
use txn::runtime::Random;

/// What becomes of new links.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// One way.
    pub(crate) latency_ms_max: u64,
    /// Bytes under way, per direction; one of these.
    pub(crate) capacities: [usize; 3],
}

impl Weather {
    /// As various as networks are.
    pub(crate) const VARIABLE: Weather =
        Weather { latency_ms_max: 40, capacities: [16 << 10, 64 << 10, 1 << 20] };
    /// Every link is fast and takes 1 MiB.
    pub(crate) const FAIR: Weather = Weather { latency_ms_max: 1, capacities: [1 << 20; 3] };
}

/// What became of a pipe's other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    There,
    /// It has left: what it sent arrives, then nothing more.
    Left,
    /// Reset: nothing arrives any more, and both sides hear of it.
    Broken,
}

struct PipeState {
    pieces: VecDeque<(Instant, VecDeque<u8>)>,
    bytes: usize,
    capacity: usize,
    latency: Duration,
    end: End,
    /// Nothing arrives, not even the news of its end.
    silent: bool,
    random: Arc<dyn Random>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl PipeState {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    /// Some part of `most`, at least one.
    fn piece(&self, most: usize) -> usize {
        let random = self.random.next_u64();
        // Often everything at once, as on a quiet network.
        if random.is_multiple_of(2) { most } else { 1 + (random >> 8) as usize % most }
    }
}

/// One direction.
#[derive(Clone)]
struct Pipe(Arc<Mutex<PipeState>>);

impl Pipe {
    fn new(random: &Arc<dyn Random>, latency: Duration, capacity: usize) -> Pipe {
        Pipe(Arc::new(Mutex::new(PipeState {
            pieces: VecDeque::new(),
            bytes: 0,
            capacity,
            latency,
            end: End::There,
            silent: false,
            random: random.clone(),
            reader: None,
            writer: None,
        })))
    }

    fn set(&self, end: End) {
        let mut state = self.0.lock();
        if state.end != End::Broken {
            state.end = end;
        }
        state.wake();
    }

    fn set_silent(&self, silent: bool) {
        let mut state = self.0.lock();
        state.silent = silent;
        state.wake();
    }
}

/// One end of a connection. Dropped, it has left, as a process does.
pub(crate) struct Side {
    inward: Pipe,
    outward: Pipe,
    arrival: Option<Pin<Box<Sleep>>>,
    /// Whether it is held by anybody.
    held: Arc<AtomicBool>,
}

impl Drop for Side {
    fn drop(&mut self) {
        self.held.store(false, Ordering::Relaxed);
        self.inward.set(End::Broken);
        self.outward.set(End::Left);
    }
}

impl AsyncRead for Side {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let arrives_at = {
            let mut state = self.inward.0.lock();
            state.reader = Some(context.waker().clone());
            if state.silent {
                return Poll::Pending;
            }
            if state.end == End::Broken {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            match state.pieces.front() {
                Some((at, piece)) if *at <= Instant::now() => {
                    let count = state.piece(piece.len().min(buffer.remaining()));
                    let (_, piece) = state.pieces.front_mut().expect("seen above");
                    let bytes: Vec<u8> = piece.drain(..count).collect();
                    if piece.is_empty() {
                        state.pieces.pop_front();
                    }
                    state.bytes -= count;
                    buffer.put_slice(&bytes);
                    state.wake();
                    return Poll::Ready(Ok(()));
                }
                Some((at, _)) => *at,
                None if state.end == End::Left => return Poll::Ready(Ok(())),
                None => return Poll::Pending,
            }
        };
        let arrival = self.arrival.get_or_insert_with(|| Box::pin(sleep_until(arrives_at)));
        arrival.as_mut().reset(arrives_at);
        // Woken then; whatever else happens wakes as well.
        if arrival.as_mut().poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl AsyncWrite for Side {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.outward.0.lock();
        if state.end == End::Broken && !state.silent {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let most = bytes.len().min(state.capacity - state.bytes);
        if most == 0 {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = state.piece(most);
        let arrives_at = Instant::now() + state.latency;
        state.pieces.push_back((arrives_at, bytes[..count].iter().copied().collect()));
        state.bytes += count;
        state.wake();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outward.set(End::Left);
        Poll::Ready(Ok(()))
    }
}

/// A connection as the network sees it.
#[derive(Clone)]
pub(crate) struct Link {
    there: Pipe,
    back: Pipe,
    dialler: Arc<AtomicBool>,
    server: Arc<AtomicBool>,
}

impl Link {
    /// Broken off; both sides hear of it, even of a silent one.
    pub(crate) fn reset(&self) {
        for pipe in [&self.there, &self.back] {
            pipe.set(End::Broken);
            pipe.set_silent(false);
        }
    }

    /// From now on nothing arrives, either way, and nobody is told.
    pub(crate) fn silence(&self) {
        self.there.set_silent(true);
        self.back.set_silent(true);
    }

    /// What was under way arrives after all.
    pub(crate) fn resume(&self) {
        self.there.set_silent(false);
        self.back.set_silent(false);
    }

    /// Whether the side that dialled has not left.
    pub(crate) fn has_dialler(&self) -> bool {
        self.dialler.load(Ordering::Relaxed)
    }

    /// Whether the side that accepted has not left.
    pub(crate) fn has_server(&self) -> bool {
        self.server.load(Ordering::Relaxed)
    }
}

#[derive(Clone)]
enum Host {
    Listening(mpsc::UnboundedSender<io::Result<Side>>),
    /// Nobody answers, nobody refuses.
    Dark,
}

struct State {
    weather: Weather,
    hosts: BTreeMap<String, Host>,
    links: BTreeMap<String, Vec<Link>>,
}

/// All hosts, and the links that were made to each.
#[derive(Clone)]
pub(crate) struct Network {
    random: Arc<dyn Random>,
    state: Arc<Mutex<State>>,
}

impl Network {
    pub(crate) fn new(random: Arc<dyn Random>, weather: Weather) -> Network {
        let (hosts, links) = (BTreeMap::new(), BTreeMap::new());
        Network { random, state: Arc::new(Mutex::new(State { weather, hosts, links })) }
    }

    /// Connections to an address, until what this returns is dropped.
    pub(crate) fn listen(
        &self,
        address: &str,
    ) -> impl Stream<Item = io::Result<Side>> + Send + use<> {
        let (accept, accepted) = mpsc::unbounded_channel();
        self.state.lock().hosts.insert(address.to_string(), Host::Listening(accept));
        UnboundedReceiverStream::new(accepted)
    }

    /// From now on whoever dials the address waits. What gives back the former state is returned.
    pub(crate) fn darken(&self, address: &str) -> Darkened {
        let before = self.state.lock().hosts.insert(address.to_string(), Host::Dark);
        Darkened { network: self.clone(), address: address.to_string(), before }
    }

    /// All links that were ever made to an address, oldest first.
    pub(crate) fn links(&self, address: &str) -> Vec<Link> {
        self.state.lock().links.get(address).cloned().unwrap_or_default()
    }

    /// The links to an address that both sides still hold.
    pub(crate) fn open_links(&self, address: &str) -> Vec<Link> {
        let mut links = self.links(address);
        links.retain(|link| link.has_dialler() && link.has_server());
        links
    }

    fn connect(&self, address: &str) -> io::Result<(Side, Duration)> {
        let mut state = self.state.lock();
        let refused = || Err(io::ErrorKind::ConnectionRefused.into());
        let Some(Host::Listening(accept)) = state.hosts.get(address).cloned() else {
            return refused();
        };
        let latency = Duration::from_millis(self.below(state.weather.latency_ms_max + 1));
        let capacity = state.weather.capacities[self.below(3) as usize];
        let there = Pipe::new(&self.random, latency, capacity);
        let back = Pipe::new(&self.random, latency, capacity);
        let [dialler, server] = [true, true].map(|held| Arc::new(AtomicBool::new(held)));
        let side = |inward: &Pipe, outward: &Pipe, held: &Arc<AtomicBool>| Side {
            inward: inward.clone(),
            outward: outward.clone(),
            arrival: None,
            held: held.clone(),
        };
        if accept.send(Ok(side(&there, &back, &server))).is_err() {
            return refused();
        }
        let ours = side(&back, &there, &dialler);
        state.links.entry(address.to_string()).or_default().push(Link {
            there,
            back,
            dialler,
            server,
        });
        Ok((ours, latency))
    }

    fn below(&self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    /// Dials, as [`Dial`] does.
    pub(crate) async fn dial_side(self, address: String) -> io::Result<Side> {
        let is_dark = matches!(self.state.lock().hosts.get(&address), Some(Host::Dark));
        if is_dark {
            return std::future::pending().await;
        }
        let (side, latency) = self.connect(&address)?;
        // There and back.
        sleep(latency * 2).await;
        Ok(side)
    }
}

/// A dark host.
pub(crate) struct Darkened {
    network: Network,
    address: String,
    before: Option<Host>,
}

impl Darkened {
    /// It is as it was before.
    pub(crate) fn lighten(self) {
        let mut state = self.network.state.lock();
        match self.before {
            Some(host) => state.hosts.insert(self.address, host),
            None => state.hosts.remove(&self.address),
        };
    }
}

impl Dial for Network {
    fn dial(&self, address: String) -> BoxFuture<'static, io::Result<Box<dyn Duplex>>> {
        let dialled = self.clone().dial_side(address);
        Box::pin(async move { Ok(Box::new(dialled.await?) as Box<dyn Duplex>) })
    }
}

/// Makes connections as somebody who is no node does.
#[derive(Clone)]
pub(crate) struct Stranger(pub(crate) Network);

impl Service<Uri> for Stranger {
    type Response = TokioIo<Side>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<Side>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        let address = address.authority().expect("an address").to_string();
        let dialled = self.0.clone().dial_side(address);
        Box::pin(async move { dialled.await.map(TokioIo::new) })
    }
}
