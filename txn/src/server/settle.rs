//! Value: evaluation of `Settle`: what became of a one-phase commit whose answer was lost.
//!
//! Such a commit leaves no record. But the version that it wrote at its lowest key, the *witness*, names it; and if no version
//! does, a record "aborted" beside that key makes sure that none ever will: a copy of the commit that comes later finds it. So the
//! question has an answer, and always the same one (killers T01, T04). The version comes first: whoever took the transaction for
//! dead because of a lock may have left such a record, too, when it had committed already.
//!
//! The answer is lost only with the version: when it was overwritten and collected. Then nobody can tell, and it says so.

use clock::Timestamp;
use coverage::Mark;
use storage::mvcc::{TxnId, Version, layout};
use storage::{Direction, Key, Span};

use super::PlantedBug;
use super::evaluate::{Effects, Moment, Stop, record_point};
use super::record::Record;
use crate::api::{KvError, Mutation, Response, TxnStatus};

/// The key whose version names a one-phase commit.
pub fn witness(mutations: &[Mutation]) -> Option<&Key> {
    mutations.iter().map(|mutation| &mutation.key).min()
}

/// Evaluates `Settle`.
pub(super) fn settle(
    moment: &Moment<'_>,
    effects: &mut Effects,
    txn: TxnId,
    started: Timestamp,
    key: &Key,
) -> Result<Response, Stop> {
    moment.wait_for_writes(&Span::point(key), Timestamp::MAX)?;
    let raw = layout::versions_span(&Span::point(key));
    for item in moment.reader.scan(raw.space, &raw.start, &raw.end, Direction::Forward) {
        let (raw_key, value) = item?;
        if Version::decode(value)?.by == Some(txn) {
            coverage::reached(Mark::LostCommitFound);
            return Ok(Response::Committed(layout::parse_version_key(&raw_key)?.1));
        }
    }
    let threshold = moment.state.gc_threshold;
    if threshold >= started {
        return Err(KvError::BelowGc { threshold }.into());
    }
    match Record::read(moment.reader, key, txn)?.map(|record| record.status) {
        Some(TxnStatus::Aborted) => return Ok(Response::Aborted),
        Some(TxnStatus::Committed(ts)) => return Ok(Response::Committed(ts)),
        Some(TxnStatus::Pending | TxnStatus::Staging(_)) | None => {}
    }
    coverage::reached(Mark::LostCommitPrevented);
    if !moment.has(PlantedBug::LostCommitNotPrevented) {
        effects.touch(&record_point(key, txn).start)?;
        let now = moment.now.clock.timestamp();
        let aborted = Record::bare(TxnStatus::Aborted, now, started);
        aborted.put(&mut effects.batch, key, txn);
        effects.write_ts = Timestamp::MIN;
    }
    Ok(Response::Aborted)
}
