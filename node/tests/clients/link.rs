//! Value: a client's connection in memory, and what cuts it.

use std::sync::Arc;
use std::time::Duration;
use txn::runtime::Random;

use crate::pipe::{End, Pipe, Reader, Writer};

/// Cuts a link whose client fell silent, as the kernel's keep-alive does.
pub(crate) struct Cutter([Pipe; 2]);

impl Cutter {
    pub(crate) fn cut(&self) {
        self.0.iter().for_each(|pipe| pipe.set(End::Broken));
    }
}

/// Both ends of a new connection, and what cuts it.
pub(crate) fn link(random: &Arc<dyn Random>) -> ((Reader, Writer), (Reader, Writer), Cutter) {
    // As small as a socket's buffers may be: a client may send this much before it reads.
    let capacity = || [4 << 10, 16 << 10, 64 << 10][random.next_u64() as usize % 3];
    let pipe = || Pipe::new(random, Duration::ZERO, capacity());
    let (there, back) = (pipe(), pipe());
    let ((from_client, to_server), (from_server, to_client)) = (there.halves(), back.halves());
    ((from_server, to_server), (from_client, to_client), Cutter([there, back]))
}
