//! Value: which statement a cancel request means. A request carries the process id and the secret that the connection was given at
//! its start; a wrong secret is ignored in silence, as the protocol wants.

use parking_lot::Mutex;
use sql::CancelHandle;
use std::collections::BTreeMap;

/// The connections of a node that can be cancelled.
#[derive(Default)]
pub struct Cancels {
    sessions: Mutex<BTreeMap<i32, (i32, CancelHandle)>>,
}

impl Cancels {
    /// Registers a connection.
    pub fn add(&self, process: i32, secret: i32, handle: CancelHandle) {
        self.sessions.lock().insert(process, (secret, handle));
    }

    /// Forgets it.
    pub fn remove(&self, process: i32) {
        self.sessions.lock().remove(&process);
    }

    /// Cancels what the connection is doing, if the secret is right.
    pub fn cancel(&self, process: i32, secret: i32) {
        let sessions = self.sessions.lock();
        if let Some((known, handle)) = sessions.get(&process)
            && *known == secret
        {
            handle.cancel();
        }
    }
}
