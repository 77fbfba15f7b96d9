//! Value: what happened in a world, in words and with true times, for people. Kept only if somebody wants to read it: nothing else asks for it.

use std::fmt;

/// One thing that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Told {
    /// True time, nanoseconds since the world began.
    pub at: u64,
    /// What.
    pub what: String,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.at / 1000;
        write!(f, "{:>5}.{:06} s  {}", micros / 1_000_000, micros % 1_000_000, self.what)
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Story(Option<Vec<Told>>);

impl Story {
    /// From now on everything is kept.
    pub(super) fn keep(&mut self) {
        self.0.get_or_insert_default();
    }

    /// Something happened.
    pub(super) fn tell(&mut self, at: u64, what: impl FnOnce() -> String) {
        if let Some(told) = &mut self.0 {
            told.push(Told { at, what: what() });
        }
    }

    /// All of it so far, in order; nothing is kept any more.
    pub(super) fn take(&mut self) -> Vec<Told> {
        self.0.take().unwrap_or_default()
    }
}
