//! Driver: what the sessions of a node share. The catalog snapshot, the node's share of sequences, the gateway to transactions.

use crate::catalog::{self, Catalog, Numbers};
use crate::cluster::Cluster;
use crate::error::{Recovery, SqlError, codes};
use crate::exec::Sequences;
use crate::gateways::Gateways;
use crate::session::{Session, SessionParams};
use bytes::Bytes;
use coverage::Mark;
use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use replication::range::RegionId;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;
use txn::client::{Db, Txn, TxnOptions};

/// Times that internal work is tried when others are in its way.
const ATTEMPTS_MAX: u32 = 30;
/// First pause between them; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Limits of a node's statements.
#[derive(Clone, Debug)]
pub struct EngineSettings {
    /// Rows that one statement may hold in memory, bytes.
    pub statement_memory_bytes_max: usize,
    /// Times that a transaction is run again before its client is told.
    pub restarts_max: u32,
    /// How long the history of tables is kept that do not say so themselves, and of the catalog.
    pub gc_ttl: Duration,
    /// What is said to be the version of the product.
    pub product: String,
    /// Chaos only: a known mistake made on purpose, so that a harness can show that it would notice.
    pub planted: Option<PlantedBug>,
}

/// A mistake that has broken real systems, brought back on purpose. Never set outside of chaos and tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlantedBug {
    /// Q01: a schema change does not wait for those who write under the old schema.
    FenceSkipped,
    /// Q03: a unique index is filled with rows that are not.
    DuplicatesIndexed,
    /// Q08: the last row of a page does not get into the index.
    PageEndMissed,
    /// A08: of two states of a row the one that arrives later stays, whichever it is.
    LaterArrivalWins,
    /// A01: a write is dated by its gateway's wall clock alone, whatever it replaces.
    WritesDatedByClock,
    /// A02: of writes in the same tenth of a second each copy keeps the one that it has.
    TiesKeptLocally,
    /// A03: a copy forgets a deleted row at once.
    TombstonesForgotten,
    /// A05: what a region has counted is added as often as it arrives.
    CountsAdded,
    /// A06: of two writes of a row a copy keeps its own last column, and takes the others from the winner.
    CellsMixed,
    /// T15: a node that takes values of a sequence writes down the first of them only.
    SequenceBlocksOverlap,
    /// T05: a transaction is run again unseen though its client has seen other answers.
    RerunThoughSeen,
    /// Q02: a page of rows is read in one transaction, and its index entries written in a later one.
    EntriesDatedLater,
    /// Q04: an index stays though it could not be filled.
    FailedIndexStays,
    /// Q06: rows from before a column was added do not get its default.
    DefaultForNewRowsOnly,
    /// Q07: a schema change begins with the catalog as its node knows it, not as it is.
    CatalogFromMemory,
    /// Q09: whoever has planned under an old schema says that he knows the newest.
    SchemaNotNamed,
    /// Q09: an index is read at whatever moment the transaction is, even if it was not filled then.
    IndexReadBefore,
    /// Q09: what was planned under a former schema is committed as if it had been under the one that the transaction has met since.
    SchemasMixed,
    /// Q10: a table that becomes referenced is not told: who knows nothing of the key deletes rows of it.
    ParentNotTold,
    /// Q10: whether a referenced row is there is looked up outside of the transaction.
    ParentsReadApart,
    /// Q12: a new table gets the number of one that was dropped.
    TableNumbersReused,
    /// A09: a stream applies what it has pulled in no order, a row at a time.
    StreamUnordered,
    /// A10: before a transaction writes to an available table, what it has written to strong ones is committed.
    ModesCommitApart,
    /// A12: a unique index on an available table is accepted.
    UniqueOnAvailable,
}

impl Default for EngineSettings {
    fn default() -> EngineSettings {
        EngineSettings {
            statement_memory_bytes_max: 256 << 20,
            restarts_max: 20,
            gc_ttl: Duration::from_secs(4 * 3600),
            product: concat!("Meridian ", env!("CARGO_PKG_VERSION")).to_string(),
            planted: None,
        }
    }
}

/// Says that work may borrow from `'env`, which outlives every one of its runs.
pub(crate) type Within<'a, 'env> = PhantomData<&'a &'env ()>;

/// One per node.
pub struct Engine {
    pub(crate) db: Db,
    pub(crate) cluster: Arc<dyn Cluster>,
    pub(crate) gateways: Arc<Gateways>,
    pub(crate) settings: EngineSettings,
    pub(crate) sequences: Sequences,
    /// OIDs of what is made here.
    pub(crate) numbers: Arc<Numbers>,
    catalog: RwLock<Arc<Catalog>>,
    /// By table and region of the copy: held by the stream that writes into it.
    copy_turns: Mutex<BTreeMap<(u32, RegionId), Turn>>,
}

/// Whose turn it is.
pub(crate) type Turn = Arc<futures::lock::Mutex<()>>;

impl Engine {
    /// Over a gateway. Knows no catalog until [`Engine::refresh_catalog`].
    pub fn new(db: Db, cluster: Arc<dyn Cluster>, settings: EngineSettings) -> Arc<Engine> {
        Arc::new(Engine {
            sequences: Sequences::new(db.clone(), settings.planted),
            numbers: Arc::new(Numbers::new(db.clone())),
            gateways: Gateways::new(db.clone(), cluster.clone()),
            db,
            cluster,
            settings,
            catalog: RwLock::new(Arc::new(Catalog::default())),
            copy_turns: Mutex::default(),
        })
    }

    /// Writes the first catalog of a cluster unless there is one, and reads it.
    ///
    /// # Errors
    /// The system ranges cannot be reached (58000), or hold something else (XX001).
    pub async fn bootstrap(&self) -> Result<(), SqlError> {
        self.run("bootstrap", |txn, _| Box::pin(catalog::bootstrap(txn, &self.numbers))).await?;
        self.refresh_catalog().await
    }

    /// The catalog as this node knows it.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.read().clone()
    }

    /// Reads the catalog again. Sessions see it from their next statement on.
    ///
    /// # Errors
    /// The system ranges cannot be reached: the old snapshot stays.
    pub async fn refresh_catalog(&self) -> Result<(), SqlError> {
        let fresh = self.run("read catalog", |txn, _| Box::pin(catalog::load(txn))).await?;
        self.publish(Arc::new(fresh));
        Ok(())
    }

    /// Takes a newer snapshot, of which the commit has been answered to whoever calls this.
    pub(crate) fn publish(&self, fresh: Arc<Catalog>) {
        // An answered commit is not ahead of this clock, nor is anything that was read by then.
        let now = self.db.runtime().hlc.now().timestamp();
        let mut current = self.catalog.write();
        if fresh.version() > current.version() {
            coverage::reached(Mark::CatalogRefreshed);
            *current = Arc::new(Arc::unwrap_or_clone(fresh).dated(&current, now));
        }
    }

    /// The answer to a question that another node's engine has put through [`Cluster::ask`]; `None`: it is none.
    pub async fn answer(&self, question: Bytes) -> Option<Bytes> {
        self.gateways.answer(question).await
    }

    /// To be held while a stream writes into the copy of `table` in `region`.
    pub(crate) fn copy_turn(&self, table: u32, region: RegionId) -> Turn {
        self.copy_turns.lock().entry((table, region)).or_default().clone()
    }

    /// Whether that mistake is planted.
    pub(crate) fn has(&self, bug: PlantedBug) -> bool {
        self.settings.planted == Some(bug)
    }

    /// A session for a client that has been let in.
    ///
    /// # Errors
    /// 3D000: no such database. 28000: no such role, or one that may not log in. 22023: a bad option.
    pub fn session(self: &Arc<Self>, params: SessionParams) -> Result<Session, SqlError> {
        let catalog = self.catalog();
        let role = catalog.role(&params.user).filter(|role| role.login);
        if role.is_none() {
            return Err(SqlError::new(
                codes::INVALID_AUTHORIZATION,
                format!("role \"{}\" does not exist", params.user),
            ));
        }
        let Some(database) = catalog.database(&params.database).map(|database| database.id) else {
            return Err(SqlError::new(
                codes::INVALID_CATALOG_NAME,
                format!("database \"{}\" does not exist", params.database),
            ));
        };
        Session::new(self.clone(), params, database)
    }

    /// Runs internal work in a transaction of its own, again while that may help.
    pub(crate) async fn run<'env, T, F>(&self, label: &str, mut work: F) -> Result<T, SqlError>
    where
        F: for<'a> FnMut(&'a mut Txn, Within<'a, 'env>) -> BoxFuture<'a, Result<T, SqlError>>
            + Send
            + 'env,
    {
        let mut txn = self.db.begin(TxnOptions::labelled(label));
        let mut pause = PAUSE_MIN;
        for _ in 1..ATTEMPTS_MAX {
            let result = match work(&mut txn, PhantomData).await {
                Ok(value) => txn.commit().await.map(|_| value).map_err(SqlError::from),
                Err(error) => Err(error),
            };
            match result {
                Err(error) if error.recovery == Recovery::Restart && txn.can_restart() => {
                    coverage::reached(Mark::SystemWorkRunAgain);
                    self.pause(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                    txn.restart();
                }
                Err(error) => {
                    txn.rollback().await;
                    return Err(error);
                }
                Ok(value) => return Ok(value),
            }
        }
        txn.rollback().await;
        Err(SqlError::new(
            codes::SERIALIZATION_FAILURE,
            format!("{label}: others were in the way too often"),
        ))
    }

    /// Sleeps.
    pub(crate) async fn pause(&self, duration: Duration) {
        let time = &self.db.runtime().time;
        time.sleep_until(time.monotonic().plus(duration)).await;
    }
}
