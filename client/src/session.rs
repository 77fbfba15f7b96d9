//! A session: one gRPC stream to one node, replaced by one to another node when it breaks.

use proto::sql::session_reply::Reply;
use proto::sql::session_request::Request;
use proto::sql::sql_client::SqlClient;
use proto::sql::{Open, Query, SessionReply, SessionRequest, Value};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::error::{Error, SqlError};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A node that has been silent for so long is asked whether it is there ..
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// .. and is gone if it does not answer within this.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Requests on their way; a session has one statement at a time.
const REQUESTS_MAX: usize = 4;
/// Times a transaction is run again before its last error is returned.
const TRANSACTION_TRIES_MAX: usize = 16;

/// A connection that is being made.
pub type Connecting =
    Pin<Box<dyn Future<Output = Result<Channel, tonic::transport::Error>> + Send>>;

/// Makes connections: of an address with the driver's settings. [`Session::connect`] uses TCP; through a proxy, or in a test, another way.
pub type Connect = Arc<dyn Fn(Endpoint) -> Connecting + Send + Sync>;

/// Who connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Role.
    pub user: String,
    /// Database.
    pub database: String,
    /// Shown to operators.
    pub application_name: String,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            user: "root".to_string(),
            database: "meridian".to_string(),
            application_name: String::new(),
        }
    }
}

/// A column of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// PostgreSQL's type OID.
    pub type_oid: u32,
}

/// The result of one statement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QueryResult {
    /// Columns; empty for statements without rows.
    pub columns: Vec<Column>,
    /// Rows, values in text form, `None` is NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// Command tag, as `INSERT 0 1`.
    pub tag: String,
    /// Notices raised meanwhile.
    pub notices: Vec<String>,
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was committed.
    Committed,
    /// It was not, and never will be.
    Aborted,
}

struct Stream {
    requests: mpsc::Sender<SessionRequest>,
    replies: Streaming<SessionReply>,
}

/// A session with one of several nodes.
pub struct Session {
    connect: Connect,
    addresses: Vec<String>,
    options: Options,
    /// The address in use, as a place in `addresses`.
    current: usize,
    stream: Option<Stream>,
    /// Which node answered, and its region.
    node: (u32, String),
    in_transaction: bool,
    /// Transaction blocks whose connection broke, as told to a caller who went on.
    blocks_lost: u64,
}

impl Session {
    /// Connects to the first address that answers, over TCP.
    ///
    /// # Errors
    /// None answers, or the first that does refuses.
    pub async fn connect<A: AsRef<str>>(
        addresses: &[A],
        options: Options,
    ) -> Result<Session, Error> {
        let tcp = |endpoint: Endpoint| -> Connecting {
            Box::pin(async move { endpoint.connect().await })
        };
        Session::connect_by(Arc::new(tcp), addresses, options).await
    }

    /// As [`Session::connect`], over connections that `connect` makes.
    pub async fn connect_by<A: AsRef<str>>(
        connect: Connect,
        addresses: &[A],
        options: Options,
    ) -> Result<Session, Error> {
        let addresses: Vec<String> =
            addresses.iter().map(|address| address.as_ref().to_string()).collect();
        let mut session = Session {
            connect,
            addresses,
            options,
            current: 0,
            stream: None,
            node: (0, String::new()),
            in_transaction: false,
            blocks_lost: 0,
        };
        session.ensure_connected().await?;
        Ok(session)
    }

    /// The node that serves the session, and its region.
    pub fn node(&self) -> (u32, &str) {
        (self.node.0, &self.node.1)
    }

    /// Whether a transaction block is open.
    pub fn in_transaction(&self) -> bool {
        self.in_transaction
    }

    /// Runs one or several statements; parameters (`$1`..) in text form, only with a single statement.
    pub async fn query(
        &mut self,
        sql: &str,
        parameters: &[&str],
    ) -> Result<Vec<QueryResult>, Error> {
        let parameters: Vec<Option<&str>> = parameters.iter().map(|value| Some(*value)).collect();
        self.query_nullable(sql, &parameters).await
    }

    /// As [`Session::query`], with parameters that may be NULL.
    pub async fn query_nullable(
        &mut self,
        sql: &str,
        parameters: &[Option<&str>],
    ) -> Result<Vec<QueryResult>, Error> {
        let query = Query {
            sql: sql.to_string(),
            parameters: parameters
                .iter()
                .map(|value| Value { text: value.map(ToString::to_string) })
                .collect(),
        };
        let mut request = SessionRequest { request: Some(Request::Query(query)) };
        // A node that has stopped meanwhile has ended its stream, and nothing can be sent on it any more: another node takes over.
        for _ in 0..=self.addresses.len() {
            if self.stream.is_none() && self.in_transaction {
                self.in_transaction = false;
                self.blocks_lost += 1;
                return Err(block_lost());
            }
            self.ensure_connected().await?;
            // Put back when the answer is whole: of a stream whose reader was dropped half way, or that broke, nothing more can be told.
            let Some(stream) = self.stream.take() else { break };
            match stream.requests.send(request).await {
                Ok(()) => return self.answer(stream).await,
                Err(mpsc::error::SendError(unsent)) => request = unsent,
            }
        }
        Err(Error::Unreachable("every node ends the stream at once".to_string()))
    }

    /// Runs `body` in a transaction and commits it; runs it again when the server asks for that. `body` must not commit.
    pub async fn transaction<T>(
        &mut self,
        mut body: impl AsyncFnMut(&mut Session) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut tries = 0;
        loop {
            tries += 1;
            let error = match self.try_transaction(&mut body).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let before_commit = matches!(error, Error::Unreachable(_));
            if tries >= TRANSACTION_TRIES_MAX || !(error.is_retryable() || before_commit) {
                return Err(error);
            }
        }
    }

    async fn try_transaction<T>(
        &mut self,
        body: &mut impl AsyncFnMut(&mut Session) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if self.in_transaction && self.stream.is_some() {
            return Err(Error::Protocol("a transaction block is open already".to_string()));
        }
        // A block whose caller was dropped has ended with its stream.
        self.in_transaction = false;
        // Before COMMIT a lost answer changes nothing for good: the server rolls back a transaction whose client is gone.
        let lost = |error: Error| match error {
            Error::Ambiguous(why) => Error::Unreachable(why),
            other => other,
        };
        self.query("BEGIN", &[]).await.map_err(lost)?;
        let lost_before = self.blocks_lost;
        match body(self).await {
            // It has heard of that, and gone on as if nothing were.
            Ok(_) if self.blocks_lost > lost_before || self.stream.is_none() => {
                self.in_transaction = false;
                Err(block_lost())
            }
            Ok(value) => match self.query("COMMIT", &[]).await {
                Ok(_) => Ok(value),
                Err(error) => self.after_commit(error).await.map(|()| value),
            },
            Err(error) => {
                if self.stream.is_some() && self.in_transaction {
                    let _ = self.query("ROLLBACK", &[]).await;
                }
                self.in_transaction = false;
                Err(lost(error))
            }
        }
    }

    /// COMMIT was answered with an error. `Ok`: it was committed all the same.
    async fn after_commit(&mut self, error: Error) -> Result<(), Error> {
        let Some(id) = error.transaction_id().map(str::to_string) else { return Err(error) };
        match self.outcome(&id).await {
            Ok(Outcome::Committed) => Ok(()),
            Ok(Outcome::Aborted) => Err(Error::Sql(SqlError {
                code: "40001".to_string(),
                message: "the commit did not happen".to_string(),
                detail: error.to_string(),
                hint: String::new(),
                position: 0,
            })),
            Err(_) => Err(error),
        }
    }

    /// What became of a transaction, by the id that error 40003 gives ([`Error::transaction_id`]). Asks each address once, the one in
    /// use first. Not inside a transaction block.
    ///
    /// # Errors
    /// Nobody who answers can tell; the last one's.
    pub async fn outcome(&mut self, id: &str) -> Result<Outcome, Error> {
        if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
            return Err(Error::Protocol(format!("{id:?} is not the id of a transaction")));
        }
        let ask = format!("SHOW TRANSACTION STATUS '{id}'");
        let mut last = Error::Unreachable("no address was given".to_string());
        for _ in 0..self.addresses.len() {
            last = match self.query(&ask, &[]).await {
                Ok(results) => match status_of(&results) {
                    Some(outcome) => return Ok(outcome),
                    None => Error::Protocol("no status of a transaction".to_string()),
                },
                Err(error) => error,
            };
            self.stream = None;
            self.current = (self.current + 1) % self.addresses.len();
        }
        Err(last)
    }

    async fn ensure_connected(&mut self) -> Result<(), Error> {
        if self.stream.is_some() {
            return Ok(());
        }
        let mut last = "no address was given".to_string();
        for _ in 0..self.addresses.len() {
            match self.open(self.current).await {
                Ok(stream) => {
                    self.stream = Some(stream);
                    self.in_transaction = false;
                    return Ok(());
                }
                Err(Error::Sql(refused)) => return Err(Error::Sql(refused)),
                Err(error) => last = format!("{}: {error}", self.addresses[self.current]),
            }
            self.current = (self.current + 1) % self.addresses.len();
        }
        Err(Error::Unreachable(last))
    }

    async fn open(&mut self, place: usize) -> Result<Stream, Error> {
        let unreachable = |error: &dyn std::fmt::Display| Error::Unreachable(error.to_string());
        let address = format!("http://{}", self.addresses[place]);
        let endpoint = Endpoint::from_shared(address).map_err(|error| unreachable(&error))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        let channel = (self.connect)(endpoint).await.map_err(|error| unreachable(&error))?;
        let (requests, receiver) = mpsc::channel(REQUESTS_MAX);
        let open = Open {
            user: self.options.user.clone(),
            database: self.options.database.clone(),
            application_name: self.options.application_name.clone(),
        };
        requests
            .try_send(SessionRequest { request: Some(Request::Open(open)) })
            .map_err(|error| unreachable(&error))?;
        let outgoing = tokio_stream::wrappers::ReceiverStream::new(receiver);
        // What a statement may return is the server's to limit; a row comes whole.
        let mut client = SqlClient::new(channel).max_decoding_message_size(usize::MAX);
        let mut replies =
            client.session(outgoing).await.map_err(|error| unreachable(&error))?.into_inner();
        match next(&mut replies).await.map_err(Error::Unreachable)? {
            Reply::Opened(opened) => {
                self.node = (opened.node, opened.region);
                Ok(Stream { requests, replies })
            }
            Reply::Error(error) => Err(Error::Sql(sql_error(error))),
            Reply::Rows(_) | Reply::Complete(_) | Reply::Ready(_) => {
                Err(Error::Protocol("no greeting".to_string()))
            }
        }
    }

    /// Reads the answer to one query to its end.
    async fn answer(&mut self, mut stream: Stream) -> Result<Vec<QueryResult>, Error> {
        let mut results = Vec::new();
        let mut building = QueryResult::default();
        let mut failed = None;
        loop {
            let reply = match (next(&mut stream.replies).await, failed.take()) {
                (Ok(reply), earlier) => {
                    failed = earlier;
                    reply
                }
                // Its last words: the node ends the session with an error.
                (Err(_), Some(error)) => return Err(Error::Sql(error)),
                (Err(why), None) => return Err(Error::Ambiguous(why)),
            };
            match reply {
                Reply::Rows(batch) => {
                    if !batch.columns.is_empty() {
                        building.columns = batch
                            .columns
                            .into_iter()
                            .map(|c| Column { name: c.name, type_oid: c.type_oid })
                            .collect();
                    }
                    let rows = batch
                        .rows
                        .into_iter()
                        .map(|row| row.values.into_iter().map(|value| value.text).collect());
                    building.rows.extend(rows);
                }
                Reply::Complete(complete) => {
                    building.tag = complete.tag;
                    results.push(std::mem::take(&mut building));
                }
                Reply::Error(error) => failed = Some(sql_error(error)),
                Reply::Ready(ready) => {
                    self.in_transaction = ready.status != "I";
                    self.stream = Some(stream);
                    if let Some(last) = results.last_mut() {
                        last.notices = ready.notices;
                    }
                    return match failed {
                        Some(error) => Err(Error::Sql(error)),
                        None => Ok(results),
                    };
                }
                Reply::Opened(_) => return Err(Error::Protocol("a second greeting".to_string())),
            }
        }
    }
}

fn block_lost() -> Error {
    let why = "the connection was lost inside a transaction block: what was not committed by then is rolled back";
    Error::Unreachable(why.to_string())
}

fn status_of(results: &[QueryResult]) -> Option<Outcome> {
    match results.first()?.rows.first()?.first()?.as_deref()? {
        "committed" => Some(Outcome::Committed),
        "aborted" => Some(Outcome::Aborted),
        _ => None,
    }
}

async fn next(replies: &mut Streaming<SessionReply>) -> Result<Reply, String> {
    match replies.message().await {
        Ok(Some(SessionReply { reply: Some(reply) })) => Ok(reply),
        Ok(Some(SessionReply { reply: None })) => Err("an empty reply".to_string()),
        Ok(None) => Err("the stream ended".to_string()),
        Err(status) => Err(status.message().to_string()),
    }
}

fn sql_error(error: proto::sql::SqlError) -> SqlError {
    SqlError {
        code: error.code,
        message: error.message,
        detail: error.detail,
        hint: error.hint,
        position: error.position,
    }
}
