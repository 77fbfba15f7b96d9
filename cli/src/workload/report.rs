//! Value: counts and latencies of a workload, and the longest time without a success.

use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

use super::load::Until;

/// Between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// What became of an operation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Kind {
    /// Acknowledged.
    Ok,
    /// Had no effect and was run again (40001, 40P01).
    Retry,
    /// Nobody knows (40003, lost connection).
    Ambiguous,
    /// Refused.
    Failed,
}

struct Counts {
    kinds: BTreeMap<Kind, u64>,
    latencies_us: Histogram<u64>,
    first: Instant,
    last_ok: Instant,
    longest_gap: Duration,
    errors: BTreeMap<String, u64>,
    codes: BTreeMap<String, u64>,
}

/// Shared by all clients of a workload.
pub(crate) struct Report {
    counts: Mutex<Counts>,
}

/// Different error texts that are remembered.
const ERRORS_MAX: usize = 20;

impl Report {
    /// Nothing yet.
    pub(crate) fn new() -> Arc<Report> {
        let now = Instant::now();
        let counts = Counts {
            kinds: BTreeMap::new(),
            latencies_us: Histogram::new_with_bounds(1, 600_000_000, 3)
                .expect("the bounds are in order"),
            first: now,
            last_ok: now,
            longest_gap: Duration::ZERO,
            errors: BTreeMap::new(),
            codes: BTreeMap::new(),
        };
        Arc::new(Report { counts: Mutex::new(counts) })
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().expect("nobody panics while holding the counts")
    }

    /// An acknowledged operation.
    pub(crate) fn ok(&self, took: Duration) {
        let mut counts = self.lock();
        *counts.kinds.entry(Kind::Ok).or_default() += 1;
        counts.latencies_us.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        let now = Instant::now();
        counts.longest_gap = counts.longest_gap.max(now - counts.last_ok);
        counts.last_ok = now;
    }

    /// Another one.
    pub(crate) fn count(&self, kind: Kind) {
        *self.lock().kinds.entry(kind).or_default() += 1;
    }

    /// How many of a kind.
    pub(crate) fn total(&self, kind: Kind) -> u64 {
        self.lock().kinds.get(&kind).copied().unwrap_or(0)
    }

    /// The longest time without an acknowledgement.
    pub(crate) fn longest_gap(&self) -> Duration {
        self.lock().longest_gap
    }

    /// Remembers an error's text.
    pub(crate) fn note(&self, error: &client::Error) {
        let mut counts = self.lock();
        let code = match error {
            client::Error::Sql(error) => error.code.clone(),
            client::Error::Unreachable(_)
            | client::Error::Ambiguous(_)
            | client::Error::Protocol(_) => "a lost connection".to_string(),
        };
        *counts.codes.entry(code).or_default() += 1;
        let whole = error.to_string();
        // What is tried again names keys and times: no two are alike.
        let text = match whole.split_once(": ") {
            Some((what, _)) if error.is_retryable() => what.to_string(),
            _ => whole,
        };
        if counts.errors.len() < ERRORS_MAX || counts.errors.contains_key(&text) {
            *counts.errors.entry(text).or_default() += 1;
        }
    }

    /// Errors that clients were told, by SQLSTATE.
    pub(crate) fn codes(&self) -> BTreeMap<String, u64> {
        self.lock().codes.clone()
    }

    /// Errors that clients were told, by text; the first [`ERRORS_MAX`] different ones.
    pub(crate) fn errors(&self) -> BTreeMap<String, u64> {
        self.lock().errors.clone()
    }

    /// Acknowledged operations per second, until the last of them.
    pub(crate) fn per_second(&self) -> f64 {
        let counts = self.lock();
        let seconds = (counts.last_ok - counts.first).as_secs_f64().max(0.001);
        counts.kinds.get(&Kind::Ok).copied().unwrap_or(0) as f64 / seconds
    }

    /// A quantile (0 to 1) of what acknowledged operations took, in milliseconds.
    pub(crate) fn latency_ms(&self, quantile: f64) -> f64 {
        self.lock().latencies_us.value_at_quantile(quantile) as f64 / 1000.0
    }

    /// A line per second until it is over.
    pub(crate) async fn progress(&self, until: &Until) {
        let mut before = 0;
        while !until.is_over() {
            #[allow(clippy::disallowed_methods)]
            tokio::time::sleep(PROGRESS_INTERVAL).await;
            let ok = self.total(Kind::Ok);
            eprintln!(
                "{:>6} ok/s   retries {:<6} ambiguous {:<4} failed {}",
                ok - before,
                self.total(Kind::Retry),
                self.total(Kind::Ambiguous),
                self.total(Kind::Failed)
            );
            before = ok;
        }
    }

    /// The summary.
    pub(crate) fn text(&self) -> String {
        let counts = self.lock();
        let kind = |kind: Kind| counts.kinds.get(&kind).copied().unwrap_or(0);
        let millis =
            |quantile: f64| counts.latencies_us.value_at_quantile(quantile) as f64 / 1000.0;
        let seconds = (counts.last_ok - counts.first).as_secs_f64().max(0.001);
        let mut text = format!(
            "acknowledged {}  ({:.0}/s)   retried {}   ambiguous {}   failed {}\n\
             latency ms   p50 {:.2}   p95 {:.2}   p99 {:.2}   max {:.2}\n\
             longest time without an acknowledgement: {:.2} s\n",
            kind(Kind::Ok),
            kind(Kind::Ok) as f64 / seconds,
            kind(Kind::Retry),
            kind(Kind::Ambiguous),
            kind(Kind::Failed),
            millis(0.50),
            millis(0.95),
            millis(0.99),
            counts.latencies_us.max() as f64 / 1000.0,
            counts.longest_gap.as_secs_f64(),
        );
        for (error, times) in &counts.errors {
            text += &format!("{times:>6} x {error}\n");
        }
        text
    }
}
