//! Value: a network in memory, on tokio's virtual time. Links are pipes ([`crate::pipe`]) that break or fall silent; an address may be listening,
//! refusing, or dark, as a machine without power is.

use futures::future::BoxFuture;
use hyper_util::rt::TokioIo;
use node::transport::dial::{Dial, Duplex};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::Stream;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codegen::{Service, http::Uri};
use txn::runtime::Random;

use crate::pipe::{End, Pipe, Reader, Writer};

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

/// One end of a connection. Dropped, it has left, as a process does.
pub(crate) struct Side {
    reader: Reader,
    writer: Writer,
    /// Whether it is held by anybody.
    held: Arc<AtomicBool>,
}

impl Drop for Side {
    fn drop(&mut self) {
        self.held.store(false, Ordering::Relaxed);
    }
}

impl AsyncRead for Side {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(context, buffer)
    }
}

impl AsyncWrite for Side {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(context)
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
        let ((inward, to_server), (from_server, outward)) = (there.halves(), back.halves());
        let theirs = Side { reader: inward, writer: outward, held: server.clone() };
        let ours = Side { reader: from_server, writer: to_server, held: dialler.clone() };
        if accept.send(Ok(theirs)).is_err() {
            return refused();
        }
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
