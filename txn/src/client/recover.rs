//! Driver: a staged transaction is in the way, and its coordinator may be gone. Its writes are looked for at their ranges; what is found is
//! the record's to judge (`server::push`, `server::stage`).

use coverage::Mark;

use crate::api::{Found, KvError, Missing, Request, Response, Sought, Staged, TxnId};
use crate::client::Db;
use crate::client::wait::send_plain;

/// Looks for the writes that `staged` names. `None`: not all are there, and none was prevented.
///
/// # Errors
/// As any request's; nothing is known then, though some writes may have been prevented.
pub(super) async fn look_for_writes(
    db: &Db,
    txn: TxnId,
    staged: Staged,
    missing: Missing,
) -> Result<Option<Sought>, KvError> {
    let Staged { at, writes, .. } = staged;
    let reply = send_plain(db, None, Request::QueryWrites { txn, at, writes, missing }).await?;
    let found = match (reply.responses.first(), missing) {
        (Some(Response::Writes { all: true }), _) => {
            coverage::reached(Mark::StagedWritesFound);
            Found::All
        }
        (Some(Response::Writes { all: false }), Missing::Prevent) => Found::Prevented,
        (Some(Response::Writes { all: false }), Missing::Tell) => return Ok(None),
        _ => {
            return Err(KvError::Invalid(
                "a range answered something else than QueryWrites".into(),
            ));
        }
    };
    Ok(Some(Sought { at, found }))
}
