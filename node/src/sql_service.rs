//! Driver: SQL over gRPC. One stream is one session; the same [`sql::Session`] as behind PostgreSQL's protocol.
//!
//! While a statement runs, the stream is watched: a client that goes away, or drops its query, cancels it, so that nobody's locks outlive
//! him. A client that falls silent is found out by the connection's keep-alive ([`crate::transport::server`]).

use futures::future::{Either, select};
use futures::stream::BoxStream;
use proto::sql::session_reply::Reply;
use proto::sql::session_request::Request as Ask;
use proto::sql::sql_server::Sql;
use proto::sql::{
    ColumnInfo, Complete, Open, Opened, Query, Ready, Row, RowBatch, SessionReply, SessionRequest,
    Value,
};
use sql::{
    CancelHandle, Column, Engine, Next, Outcome, Session, SessionParams, SqlError, SqlState,
    TransactionStatus,
};
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

use crate::shared::Shared;

/// Rows sent at once.
const ROWS_PER_BATCH: usize = 256;
/// Bytes of values after which a batch of rows is sent, though it has fewer.
const BATCH_BYTES: usize = 1 << 20;
/// Replies that the client has not taken yet; then the session waits.
const REPLIES_MAX: usize = 16;
/// gRPC sessions have no process id of PostgreSQL's kind and cannot be cancelled from outside.
const NO_PROCESS: i32 = 0;

/// The service of a node.
pub struct SqlService {
    /// The node.
    pub shared: Arc<Shared>,
    /// Where sessions come from.
    pub engine: Arc<Engine>,
    /// Ends all sessions.
    pub stop: CancellationToken,
}

/// What listens from the first moment; sessions are refused until the node serves SQL.
#[derive(Clone, Default)]
pub struct SqlFront {
    service: Arc<OnceLock<SqlService>>,
}

impl SqlFront {
    /// From now on sessions are served.
    pub fn open(&self, service: SqlService) {
        let first = self.service.set(service).is_ok();
        assert!(first, "a node opens its SQL service once");
    }
}

type Replies = mpsc::Sender<Result<SessionReply, Status>>;

/// The client is gone: nobody to tell.
struct Gone;

type SessionStream = BoxStream<'static, Result<SessionReply, Status>>;

#[tonic::async_trait]
impl Sql for SqlFront {
    type SessionStream = SessionStream;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<SessionStream>, Status> {
        let service =
            self.service.get().ok_or_else(|| Status::unavailable("the node is starting"))?;
        service.session(request).await
    }
}

impl SqlService {
    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<SessionStream>, Status> {
        let mut asked = request.into_inner();
        let Some(SessionRequest { request: Some(Ask::Open(open)) }) = asked.message().await? else {
            return Err(Status::invalid_argument("a session begins with Open"));
        };
        let (replies, receiver) = mpsc::channel(REPLIES_MAX);
        let service = Serving {
            node: self.shared.node.0,
            region: self.shared.region_name.clone(),
            engine: self.engine.clone(),
            replies,
        };
        let stop = self.stop.clone();
        tokio::runtime::Handle::current().spawn(async move {
            let serve = Box::pin(service.serve(open, asked));
            match select(serve, Box::pin(stop.cancelled())).await {
                Either::Left((Ok(()) | Err(Gone), _)) => debug!("a gRPC session ended"),
                Either::Right(_) => debug!("a gRPC session was closed: the node stops"),
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

struct Serving {
    node: u32,
    region: String,
    engine: Arc<Engine>,
    replies: Replies,
}

/// What ended the wait for a request.
enum Heard {
    Request(Result<Option<SessionRequest>, Status>),
    TooIdle(Box<SqlError>),
}

impl Serving {
    /// Runs a part of a statement; if the client goes away meanwhile, it is cancelled, and still awaited, so that the session is left in order.
    async fn watched<T>(&self, cancel: &CancelHandle, work: impl Future<Output = T>) -> T {
        match select(pin!(work), pin!(self.replies.closed())).await {
            Either::Left((done, _)) => done,
            Either::Right(((), work)) => {
                cancel.client_gone();
                work.await
            }
        }
    }

    async fn hear(session: &Session, asked: &mut Streaming<SessionRequest>) -> Heard {
        match select(pin!(asked.message()), session.too_idle()).await {
            Either::Left((request, _)) => Heard::Request(request),
            Either::Right((error, _)) => Heard::TooIdle(Box::new(error)),
        }
    }

    async fn send(&self, reply: Reply) -> Result<(), Gone> {
        self.replies.send(Ok(SessionReply { reply: Some(reply) })).await.map_err(|_| Gone)
    }

    async fn serve(self, open: Open, mut asked: Streaming<SessionRequest>) -> Result<(), Gone> {
        let parameters = BTreeMap::from([
            ("user".to_string(), open.user),
            ("database".to_string(), open.database),
            ("application_name".to_string(), open.application_name),
        ]);
        let mut session =
            match self.engine.session(SessionParams::from_startup(parameters, NO_PROCESS, 0)) {
                Ok(session) => session,
                Err(error) => return self.send(Reply::Error(wire_error(&error))).await,
            };
        self.send(Reply::Opened(Opened { node: self.node, region: self.region.clone() })).await?;
        loop {
            let request = match Serving::hear(&session, &mut asked).await {
                Heard::Request(Ok(Some(request))) => request,
                Heard::TooIdle(error) => {
                    let _ = self.send(Reply::Error(wire_error(&error))).await;
                    break;
                }
                // Nothing more can be read from this stream; but the statement has not run, and its sender must know that.
                Heard::Request(Err(status)) if status.code() == tonic::Code::OutOfRange => {
                    let why = format!("the statement is too long: {}", status.message());
                    let error = SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, why);
                    let _ = self.send(Reply::Error(wire_error(&error))).await;
                    let _ = self.ready(&mut session).await;
                    break;
                }
                Heard::Request(Ok(None) | Err(_)) => break,
            };
            let Some(Ask::Query(query)) = request.request else { break };
            if let Err(Gone) = self.query(&mut session, query).await {
                break;
            }
        }
        session.terminate().await;
        Ok(())
    }

    async fn query(&self, session: &mut Session, query: Query) -> Result<(), Gone> {
        let done = if query.parameters.is_empty() {
            self.script(session, &query.sql).await?
        } else {
            self.with_parameters(session, query).await?
        };
        if let Err(error) = done {
            self.send(Reply::Error(wire_error(&error))).await?;
        }
        self.ready(session).await
    }

    async fn ready(&self, session: &mut Session) -> Result<(), Gone> {
        let notices =
            session.notices().into_iter().map(|notice| notice.message.to_string()).collect();
        let status = match session.status() {
            TransactionStatus::Idle => "I",
            TransactionStatus::InTransaction => "T",
            TransactionStatus::Failed => "E",
        };
        self.send(Reply::Ready(Ready { status: status.to_string(), notices })).await
    }

    async fn script(
        &self,
        session: &mut Session,
        text: &str,
    ) -> Result<Result<(), SqlError>, Gone> {
        let cancel = session.cancel_handle();
        let mut script = session.simple(text).await;
        while let Some(next) = self.watched(&cancel, script.next(session)).await {
            let done = match next {
                Ok(outcome) => self.outcome(session, outcome).await?,
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                script.fail(session, &error).await;
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    async fn with_parameters(
        &self,
        session: &mut Session,
        query: Query,
    ) -> Result<Result<(), SqlError>, Gone> {
        let values = query
            .parameters
            .into_iter()
            .map(|value| value.text.map(|text| text.into_bytes().into()))
            .collect();
        let cancel = session.cancel_handle();
        let run = async {
            session.parse("", &query.sql, &[]).await?;
            session.bind("", "", values, &[], &[]).await?;
            session.execute("", 0, Next::Sync).await
        };
        let executed = self.watched(&cancel, run).await;
        let done = match executed {
            Ok(outcome) => self.outcome(session, outcome).await?,
            Err(error) => Err(error),
        };
        if done.is_err() {
            session.fail();
        }
        let synced = self.watched(&cancel, session.sync()).await;
        Ok(done.and(synced))
    }

    async fn outcome(
        &self,
        session: &Session,
        outcome: Outcome,
    ) -> Result<Result<(), SqlError>, Gone> {
        let tag = match outcome {
            Outcome::Rows { columns, rows, tag, .. } => {
                self.rows(session, &columns, &rows).await?;
                tag.unwrap_or_default()
            }
            Outcome::Complete { tag } => tag,
            Outcome::Empty => String::new(),
            Outcome::CopyIn { .. } | Outcome::CopyOut { .. } => {
                let why = "COPY from stdin or to stdout needs a PostgreSQL connection".to_string();
                return Ok(Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, why)));
            }
        };
        self.send(Reply::Complete(Complete { tag })).await?;
        Ok(Ok(()))
    }

    async fn rows(
        &self,
        session: &Session,
        columns: &[Column],
        rows: &[sql::Row],
    ) -> Result<(), Gone> {
        let described = columns
            .iter()
            .map(|column| ColumnInfo { name: column.name.to_string(), type_oid: column.type_oid });
        self.send(Reply::Rows(RowBatch { columns: described.collect(), rows: Vec::new() })).await?;
        let mut batch = Batch::default();
        for row in rows {
            batch.add(wire_row(session, columns, row));
            if batch.rows.len() >= ROWS_PER_BATCH || batch.bytes >= BATCH_BYTES {
                self.send_rows(std::mem::take(&mut batch)).await?;
            }
        }
        if batch.rows.is_empty() { Ok(()) } else { self.send_rows(batch).await }
    }

    async fn send_rows(&self, batch: Batch) -> Result<(), Gone> {
        self.send(Reply::Rows(RowBatch { columns: Vec::new(), rows: batch.rows })).await
    }
}

/// Rows that are sent together.
#[derive(Default)]
struct Batch {
    rows: Vec<Row>,
    bytes: usize,
}

impl Batch {
    fn add(&mut self, row: Row) {
        let bytes = |value: &Value| value.text.as_ref().map_or(0, String::len);
        self.bytes += row.values.iter().map(bytes).sum::<usize>();
        self.rows.push(row);
    }
}

fn wire_row(session: &Session, columns: &[Column], row: &sql::Row) -> Row {
    let values = row.iter().zip(columns).map(|(datum, column)| {
        let mut text = bytes::BytesMut::new();
        let present = session.encode_datum(datum, column, 0, &mut text);
        Value { text: present.then(|| String::from_utf8_lossy(&text).into_owned()) }
    });
    Row { values: values.collect() }
}

fn wire_error(error: &SqlError) -> proto::sql::SqlError {
    proto::sql::SqlError {
        code: error.code.to_string(),
        message: error.message.to_string(),
        detail: error.detail.clone().unwrap_or_default(),
        hint: error.hint.clone().unwrap_or_default(),
        position: error.position.and_then(|position| u32::try_from(position).ok()).unwrap_or(0),
    }
}
