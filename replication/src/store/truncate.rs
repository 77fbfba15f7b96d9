//! Machine: what the log need not keep. A flush makes state durable up to a mark; below it the log is kept only for followers that
//! lag, and for those at most `log_bytes_max` (then they get a snapshot, killer R23).

use clock::Now;
use coverage::{Mark, Rare, rare};
use storage::log::{LogGroup, LogOp};

use super::FlushMark;
use super::core::Store;
use super::replica::Replica;
use crate::raft::{LogIndex, Term};

/// Fewer entries than this are not worth a log record of their own.
const TRUNCATE_ENTRIES_MIN: u64 = 64;

impl Store {
    /// To be taken before `Engine::flush` is called, and given back with [`Store::flushed`] when that has returned.
    pub fn flush_mark(&self) -> FlushMark {
        let applied = self.replicas.values().filter_map(|replica| {
            let state = replica.state.as_ref()?;
            Some((replica.range, (replica.id, state.applied.0, state.applied.1)))
        });
        FlushMark { applied: applied.collect() }
    }

    /// A flush that began after `mark` was taken has returned without error.
    pub fn flushed(&mut self, _now: Now, mark: FlushMark) {
        for (range, (id, index, term)) in mark.applied {
            let Some(mut replica) = self.replicas.remove(&range) else { continue };
            if replica.id == id && index > replica.flushed.0 {
                replica.flushed = (index, term);
                self.truncate(&mut replica);
            }
            self.replicas.insert(range, replica);
        }
    }

    fn truncate(&mut self, replica: &mut Replica) {
        let begin = replica.tail.truncated().0;
        let mut upto = replica.flushed.0;
        let over = replica.tail.bytes() > self.config.log_bytes_max;
        let early = rare(Rare::LogTruncatedEarly);
        if over {
            coverage::reached(Mark::LogOverLimit);
        } else if !early {
            upto = upto.min(self.needed_from(replica));
        }
        let worth = over || early || upto.get().saturating_sub(begin.get()) >= TRUNCATE_ENTRIES_MIN;
        if upto <= begin || !worth {
            return;
        }
        let Some(term) = self.term_at(replica, upto) else { return };
        coverage::reached(Mark::LogTruncated);
        replica.tail.truncate((upto, term));
        replica.raft.truncated(upto, term);
        let group = LogGroup(replica.range.0);
        self.out.write.ops.push(LogOp::Truncate { group, index: upto, term });
    }

    /// The last entry that every peer has, as far as we know. A follower knows little: it keeps half of what it may.
    fn needed_from(&self, replica: &Replica) -> LogIndex {
        if replica.is_leader() {
            let progress = replica.raft.progress();
            let behind = progress.iter().map(|follower| follower.match_index).min();
            return behind.unwrap_or(replica.flushed.0);
        }
        if replica.tail.bytes() > self.config.log_bytes_max / 2 {
            replica.flushed.0
        } else {
            LogIndex::ZERO
        }
    }

    fn term_at(&self, replica: &Replica, index: LogIndex) -> Option<Term> {
        use super::tail::TailView;
        use crate::raft::GroupLog;
        let group = LogGroup(replica.range.0);
        TailView { group, tail: &replica.tail, log: &*self.log }.term(index)
    }
}
