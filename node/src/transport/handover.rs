//! Value: whether a request has left. A channel keeps a request while it connects, and while too many are under way; until HTTP/2 takes its
//! bytes nothing of it can have reached the peer. Whoever gives a call up before has the proof that it was not sent.
//!
//! ```text
//!   Waiting ── HTTP/2 asks for the bytes ──► Taken      from here on the peer may have it
//!      └────── the caller gives up ────────► Abandoned  whoever asks now gets an error instead of the bytes
//! ```
//!
//! INVARIANT: of the two only one happens: one atomic decides. Error texts and codes prove nothing and are not looked at.

use http_body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, Service, http};

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const ABANDONED: u8 = 2;

/// One request's way out. Put a clone into the request's extensions.
#[derive(Clone, Default)]
pub struct Handover(Arc<AtomicU8>);

impl Handover {
    /// HTTP/2 wants the bytes; `false`: it must not have them any more.
    fn take(&self) -> bool {
        self.0.fetch_max(TAKEN, Ordering::SeqCst) != ABANDONED
    }

    /// Gives up. `true`: nothing was sent, nor will it be.
    pub fn abandon(&self) -> bool {
        let before =
            self.0.compare_exchange(WAITING, ABANDONED, Ordering::SeqCst, Ordering::SeqCst);
        matches!(before, Ok(WAITING) | Err(ABANDONED))
    }

    /// Whether the bytes are on their way.
    pub fn is_taken(&self) -> bool {
        self.0.load(Ordering::SeqCst) == TAKEN
    }
}

/// A channel that tells each request's [`Handover`] when it leaves.
#[derive(Clone)]
pub struct Watched<S>(pub S);

impl<S: Service<http::Request<Body>>> Service<http::Request<Body>> for Watched<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> S::Future {
        match request.extensions_mut().remove::<Handover>() {
            Some(handover) => {
                self.0.call(request.map(|inner| Body::new(WatchedBody { inner, handover })))
            }
            None => self.0.call(request),
        }
    }
}

struct WatchedBody {
    inner: Body,
    handover: Handover,
}

impl HttpBody for WatchedBody {
    type Data = bytes::Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, tonic::Status>>> {
        if self.handover.take() {
            Pin::new(&mut self.inner).poll_frame(context)
        } else {
            Poll::Ready(Some(Err(tonic::Status::cancelled("the caller has given up"))))
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_either_taken_or_abandoned() {
        let taken = Handover::default();
        assert!(!taken.is_taken() && taken.take() && taken.is_taken());
        assert!(!taken.abandon() && taken.take());
        let abandoned = Handover::default();
        assert!(abandoned.abandon() && !abandoned.take());
        assert!(abandoned.abandon() && !abandoned.is_taken());
    }
}
