//! Driver: SIGINT and SIGTERM while a script runs. The first one ends the script: everything is healed, clients end, what they saw is
//! judged. The second one ends the waiting for that.

use futures::future::{Either, select};
use std::fmt;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::sync::watch;

/// Who asked for the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// What `kill` sends.
    Terminate,
}

impl Signal {
    /// As shells tell the end by a signal: 128 and its number.
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Signal::Interrupt => 130,
            Signal::Terminate => 143,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Signal::Interrupt => "SIGINT",
            Signal::Terminate => "SIGTERM",
        })
    }
}

/// What was heard.
#[derive(Default)]
struct Heard {
    first: Option<Signal>,
    count: usize,
}

/// See the module.
#[derive(Clone)]
pub(super) struct Interrupt {
    heard: watch::Receiver<Heard>,
    stop: Arc<AtomicBool>,
}

impl Interrupt {
    /// Listens from now on to the end of the process; `again` is called for the second signal.
    pub(super) fn listen(again: fn(Signal)) -> Result<Interrupt, String> {
        let failed = |error: std::io::Error| format!("signals cannot be listened to: {error}");
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build().map_err(failed)?;
        let (told, heard) = watch::channel(Heard::default());
        let stop = Arc::new(AtomicBool::new(false));
        let entered = runtime.enter();
        let interrupts = signal(SignalKind::interrupt()).map_err(failed)?;
        let terminates = signal(SignalKind::terminate()).map_err(failed)?;
        drop(entered);
        let flag = stop.clone();
        #[allow(clippy::disallowed_methods)] // It must hear while the script computes.
        std::thread::spawn(move || {
            runtime.block_on(hear(interrupts, terminates, &told, &flag, again));
        });
        Ok(Interrupt { heard, stop })
    }

    /// The first signal, if there was one.
    pub(super) fn signal(&self) -> Option<Signal> {
        self.heard.borrow().first
    }

    /// Whether to go on.
    pub(super) fn flow(&self) -> ControlFlow<()> {
        if self.signal().is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Set with the first signal.
    pub(super) fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    /// Works until the first signal; `None`: it came before the work was done.
    pub(super) async fn unless<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.unless_heard(1, work).await
    }

    /// The same until the second one.
    pub(super) async fn unless_again<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.unless_heard(2, work).await
    }

    async fn unless_heard<T>(&self, count: usize, work: impl Future<Output = T>) -> Option<T> {
        let mut heard = self.heard.clone();
        let told = heard.wait_for(|heard| heard.count >= count);
        match select(pin!(work), pin!(told)).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(_) => None,
        }
    }
}

async fn hear(
    mut interrupts: Signals,
    mut terminates: Signals,
    told: &watch::Sender<Heard>,
    stop: &AtomicBool,
    again: fn(Signal),
) {
    loop {
        let heard = match select(pin!(interrupts.recv()), pin!(terminates.recv())).await {
            Either::Left(_) => Signal::Interrupt,
            Either::Right(_) => Signal::Terminate,
        };
        stop.store(true, Ordering::SeqCst);
        told.send_modify(|so_far| {
            so_far.first.get_or_insert(heard);
            so_far.count += 1;
        });
        if told.borrow().count == 2 {
            again(heard);
        }
    }
}
