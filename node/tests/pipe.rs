//! Value: one direction of a connection in memory. Bytes arrive late and in pieces of any size, a full pipe makes its writer wait; it ends as when
//! a process leaves, breaks off (both sides hear of it), or falls silent (nobody does: what is written fills it and stays there).

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};
use txn::runtime::Random;

/// What became of a pipe's other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    There,
    /// It has left: what it sent arrives, then nothing more.
    Left,
    /// Reset: nothing arrives any more, and both sides hear of it.
    Broken,
}

struct State {
    /// With when they arrive; `None`: at once, without a timer.
    pieces: VecDeque<(Option<Instant>, VecDeque<u8>)>,
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

impl State {
    fn wake(&mut self) {
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }

    /// Some part of `most`, at least one.
    fn piece(&self, most: usize) -> usize {
        let random = self.random.next_u64();
        // Often everything at once, as on a quiet network.
        if random.is_multiple_of(3) { most } else { 1 + (random >> 8) as usize % most }
    }
}

/// One direction, as the network sees it.
#[derive(Clone)]
pub(crate) struct Pipe(Arc<Mutex<State>>);

impl Pipe {
    /// `capacity`: bytes that are under way at most. A latency needs tokio's time; without one there is no timer.
    pub(crate) fn new(random: &Arc<dyn Random>, latency: Duration, capacity: usize) -> Pipe {
        Pipe(Arc::new(Mutex::new(State {
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

    /// Its two halves.
    pub(crate) fn halves(&self) -> (Reader, Writer) {
        (Reader { pipe: self.clone(), arrival: None }, Writer(self.clone()))
    }

    pub(crate) fn set(&self, end: End) {
        let mut state = self.0.lock();
        if state.end != End::Broken {
            state.end = end;
        }
        state.wake();
    }

    pub(crate) fn set_silent(&self, silent: bool) {
        let mut state = self.0.lock();
        state.silent = silent;
        state.wake();
    }
}

/// The half that takes bytes out; gone: the other side's writes fail.
pub(crate) struct Reader {
    pipe: Pipe,
    arrival: Option<Pin<Box<Sleep>>>,
}

/// The half that puts bytes in; gone: the other side reads to the end.
pub(crate) struct Writer(Pipe);

impl Drop for Reader {
    fn drop(&mut self) {
        self.pipe.set(End::Broken);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.set(End::Left);
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let arrives_at = {
            let mut state = self.pipe.0.lock();
            state.reader = Some(context.waker().clone());
            if state.silent {
                return Poll::Pending;
            }
            if state.end == End::Broken {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            match state.pieces.front() {
                Some((Some(at), _)) if *at > Instant::now() => *at,
                Some((_, piece)) => {
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

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.0.lock();
        if state.end == End::Broken && !state.silent {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let most = bytes.len().min(state.capacity - state.bytes);
        if most == 0 {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = state.piece(most);
        let arrives_at = (!state.latency.is_zero()).then(|| Instant::now() + state.latency);
        state.pieces.push_back((arrives_at, bytes[..count].iter().copied().collect()));
        state.bytes += count;
        state.wake();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.set(End::Left);
        Poll::Ready(Ok(()))
    }
}
