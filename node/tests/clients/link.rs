//! Value: a connection in memory. Bytes arrive in pieces of any size, a full pipe makes its writer wait, and either side can leave as
//! a process does, break off, or fall silent as a machine does that lost its power.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use txn::runtime::Random;

/// What became of a pipe's other end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    There,
    /// It has left: what it sent arrives, then nothing more.
    Left,
    /// Reset: nothing arrives any more, and both sides hear of it.
    Broken,
}

struct State {
    bytes: VecDeque<u8>,
    capacity: usize,
    end: End,
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

/// One direction.
#[derive(Clone)]
struct Pipe(Arc<Mutex<State>>);

impl Pipe {
    fn new(random: &Arc<dyn Random>) -> Pipe {
        // As small as a socket's buffers may be: a client may send this much before it reads.
        let capacity = [4 << 10, 16 << 10, 64 << 10][random.next_u64() as usize % 3];
        Pipe(Arc::new(Mutex::new(State {
            bytes: VecDeque::new(),
            capacity,
            end: End::There,
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
}

/// The half that takes bytes out; gone: the other side's writes fail.
pub(crate) struct Reader(Pipe);
/// The half that puts bytes in; gone: the other side reads to the end.
pub(crate) struct Writer(Pipe);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.set(End::Broken);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.0.set(End::Left);
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.0.lock();
        if state.end == End::Broken {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let most = state.bytes.len().min(buffer.remaining());
        if most == 0 {
            if state.end == End::Left {
                return Poll::Ready(Ok(()));
            }
            state.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = state.piece(most);
        let bytes: Vec<u8> = state.bytes.drain(..count).collect();
        buffer.put_slice(&bytes);
        state.wake();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Writer {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.0.lock();
        if state.end == End::Broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let most = bytes.len().min(state.capacity - state.bytes.len());
        if most == 0 && !bytes.is_empty() {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let count = if most == 0 { 0 } else { state.piece(most) };
        state.bytes.extend(&bytes[..count]);
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

/// Cuts a link whose client fell silent, as the kernel's keep-alive does.
pub(crate) struct Cutter([Pipe; 2]);

impl Cutter {
    pub(crate) fn cut(&self) {
        self.0.iter().for_each(|pipe| pipe.set(End::Broken));
    }
}

/// Both ends of a new connection, and what cuts it.
pub(crate) fn link(random: &Arc<dyn Random>) -> ((Reader, Writer), (Reader, Writer), Cutter) {
    let (there, back) = (Pipe::new(random), Pipe::new(random));
    let cutter = Cutter([there.clone(), back.clone()]);
    ((Reader(back.clone()), Writer(there.clone())), (Reader(there), Writer(back)), cutter)
}
