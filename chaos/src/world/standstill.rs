//! Value: whether time goes on. A machine that wakes itself for ever lets events happen and no time pass; a world that waited for it would never end.

use std::time::Duration;

use super::nanos;

/// In so short a time ...
const INSTANT: Duration = Duration::from_millis(1);
/// ... there are hundreds of events at most.
const EVENTS_MAX: u64 = 30_000;

/// The events of the present instant.
#[derive(Default)]
pub(super) struct Standstill {
    began: u64,
    events: u64,
}

impl Standstill {
    /// An event happens at this true time, nanoseconds. What is wrong, once.
    pub(super) fn note(&mut self, at: u64) -> Option<String> {
        if at.saturating_sub(self.began) > nanos(INSTANT) {
            (self.began, self.events) = (at, 0);
        }
        self.events += 1;
        (self.events == EVENTS_MAX)
            .then(|| format!("{EVENTS_MAX} events in {INSTANT:?}: somebody goes round in circles"))
    }

    /// From then on nothing is to happen any more.
    pub(super) fn has_come(&self) -> bool {
        self.events >= EVENTS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_comes_when_events_are_many_and_time_does_not_pass() {
        let mut still = Standstill::default();
        assert!((0..10 * EVENTS_MAX).all(|event| still.note(event * 1000).is_none()));
        assert!(!still.has_come());
        let told = (0..2 * EVENTS_MAX).filter(|_| still.note(u64::MAX).is_some()).count();
        assert_eq!(told, 1);
        assert!(still.has_come());
    }
}
