//! Driver: one client's connection after its startup. Reads messages, lets the session work, writes replies.
//!
//! Replies gather in one buffer that is flushed when the client must see it: at Sync, Flush, the end of a simple query, before waiting for
//! COPY data, and when the buffer is full. While a statement runs, the socket is watched: a client that goes away cancels it.
//!
//! A frame is checked ([`super::frame`]) before it is decoded: the codec panics on contents that do not fit.
//!
//! INVARIANT: after an error in the extended protocol everything up to the next Sync is read and ignored.

use bytes::{Buf, Bytes, BytesMut};
use futures::future::{Either, select};
use pgwire::error::PgWireError;
use pgwire::messages::extendedquery::{Bind, Close, Describe, Execute, Parse};
use pgwire::messages::{DecodeContext, PgWireFrontendMessage, ProtocolVersion};
use sql::{CancelHandle, Next, Outcome, Session, SqlError, SqlState};
use std::pin::pin;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frame::{self, Front};
use super::reply::Replies;

/// Replies are flushed beyond this.
const FLUSH_BYTES: usize = 64 << 10;
/// Input is read at least this much at a time.
const READ_BYTES: usize = 16 << 10;
/// Pipelined input that is read while a statement runs; beyond it the socket waits.
const READ_AHEAD_MAX: usize = 1 << 20;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The client is gone.
    #[error("the client closed the connection")]
    Closed,
    /// The socket broke.
    #[error("socket: {0}")]
    Socket(#[from] std::io::Error),
    /// Not the protocol. The client was told.
    #[error("protocol violation: {0}")]
    Protocol(String),
    /// A message of this type that cannot be taken; the next one can.
    #[error("refused: {}", .1.message)]
    Refused(u8, Box<SqlError>),
}

impl From<PgWireError> for ConnectionError {
    fn from(error: PgWireError) -> ConnectionError {
        ConnectionError::Protocol(error.to_string())
    }
}

/// The socket's reading side, with what has arrived.
struct Input<R> {
    socket: R,
    buffer: BytesMut,
    context: DecodeContext,
}

impl<R: AsyncRead + Unpin> Input<R> {
    /// The next whole message.
    async fn next(&mut self) -> Result<PgWireFrontendMessage, ConnectionError> {
        loop {
            match frame::front(&self.buffer) {
                Front::Frame(whole) if self.buffer.len() >= whole => {
                    let mut frame = self.buffer.split_to(whole);
                    frame::check(&frame)
                        .map_err(|error| ConnectionError::Refused(frame[0], Box::new(error)))?;
                    return PgWireFrontendMessage::decode(&mut frame, &self.context)?.ok_or_else(
                        || ConnectionError::Protocol("a message is not whole".to_string()),
                    );
                }
                Front::Incomplete | Front::Frame(_) => self.fill().await?,
                Front::TooLong(whole) => {
                    let tag = self.buffer[0];
                    self.pass_over(whole).await?;
                    return Err(ConnectionError::Refused(tag, Box::new(frame::too_long(whole))));
                }
                Front::Lost(why) => return Err(ConnectionError::Protocol(why)),
            }
        }
    }

    /// Reads so many bytes and forgets them.
    async fn pass_over(&mut self, bytes: usize) -> Result<(), ConnectionError> {
        let mut left = bytes;
        loop {
            let here = left.min(self.buffer.len());
            self.buffer.advance(here);
            left -= here;
            if left == 0 {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    /// What follows the message just read, as far as it has arrived. Clients send Execute and Sync together.
    fn following(&self) -> Next {
        match self.buffer.first() {
            Some(b'S') => Next::Sync,
            Some(_) | None => Next::Unknown,
        }
    }

    async fn fill(&mut self) -> Result<(), ConnectionError> {
        self.buffer.reserve(READ_BYTES);
        if self.socket.read_buf(&mut self.buffer).await? == 0 {
            return Err(ConnectionError::Closed);
        }
        Ok(())
    }

    /// Reads ahead until the client is gone; never returns otherwise.
    async fn watch(&mut self) {
        loop {
            if self.buffer.len() >= READ_AHEAD_MAX {
                return std::future::pending().await;
            }
            if self.fill().await.is_err() {
                return;
            }
        }
    }
}

/// Runs a statement while watching for a client that goes away: then it is cancelled, and still awaited, so that the session
/// is left in order.
async fn watched<T>(
    input: &mut Input<impl AsyncRead + Unpin>,
    cancel: &CancelHandle,
    work: impl Future<Output = T>,
) -> T {
    let work = pin!(work);
    let watch = pin!(input.watch());
    match select(work, watch).await {
        Either::Left((done, _)) => done,
        Either::Right(((), work)) => {
            cancel.client_gone();
            work.await
        }
    }
}

/// A connection with its session, over the two halves of a socket.
pub struct Connection<R, W> {
    input: Input<R>,
    output: W,
    replies: Replies,
    session: Session,
    cancel: CancelHandle,
    /// After an error in the extended protocol.
    skipping: bool,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Connection<R, W> {
    /// `replies` holds what the startup has to say and is flushed first; `buffer` what the client has sent already.
    pub fn new(
        (socket, output): (R, W),
        buffer: BytesMut,
        session: Session,
        replies: Replies,
    ) -> Connection<R, W> {
        let mut context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
        context.awaiting_frontend_ssl = false;
        context.awaiting_frontend_startup = false;
        let cancel = session.cancel_handle();
        let input = Input { socket, buffer, context };
        Connection { input, output, replies, session, cancel, skipping: false }
    }

    /// Serves the client until it leaves.
    pub async fn run(mut self) -> Result<(), ConnectionError> {
        let ended = self.serve().await;
        if let Err(ConnectionError::Protocol(why)) = &ended {
            self.replies.fatal(&SqlError::new(SqlState::PROTOCOL_VIOLATION, why.clone()));
            let _ = self.flush().await;
        }
        self.session.terminate().await;
        match ended {
            Err(ConnectionError::Closed) | Ok(()) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn serve(&mut self) -> Result<(), ConnectionError> {
        self.replies.ready(self.session.status());
        self.flush().await?;
        loop {
            let arrived = {
                let next = pin!(self.input.next());
                match select(next, self.session.too_idle()).await {
                    Either::Left((arrived, _)) => Ok(arrived),
                    Either::Right((error, _)) => Err(error),
                }
            };
            let arrived = match arrived {
                Ok(arrived) => arrived,
                Err(error) => {
                    self.replies.fatal(&error);
                    return self.flush().await;
                }
            };
            let message = match arrived {
                Err(ConnectionError::Refused(tag, error)) => {
                    self.refuse_message(tag, &error).await?;
                    continue;
                }
                other => other?,
            };
            if let PgWireFrontendMessage::Terminate(_) = message {
                return Ok(());
            }
            if self.skipping && !matches!(message, PgWireFrontendMessage::Sync(_)) {
                continue;
            }
            self.handle(message).await?;
            if self.replies.buffer.len() >= FLUSH_BYTES {
                self.flush().await?;
            }
        }
    }

    async fn flush(&mut self) -> Result<(), ConnectionError> {
        self.output.write_all(&self.replies.buffer).await?;
        self.replies.buffer.clear();
        Ok(())
    }

    async fn handle(&mut self, message: PgWireFrontendMessage) -> Result<(), ConnectionError> {
        match message {
            PgWireFrontendMessage::Query(query) => self.simple(&query.query).await,
            PgWireFrontendMessage::Sync(_) => self.sync().await,
            PgWireFrontendMessage::Flush(_) => self.flush().await,
            PgWireFrontendMessage::Parse(parse) => self.parse(parse).await,
            PgWireFrontendMessage::Bind(bind) => self.bind(bind).await,
            PgWireFrontendMessage::Describe(describe) => self.describe(&describe),
            PgWireFrontendMessage::Execute(execute) => self.execute(execute).await,
            PgWireFrontendMessage::Close(close) => {
                self.close(&close);
                Ok(())
            }
            // Left over from a COPY that has failed already: the protocol says to ignore them.
            PgWireFrontendMessage::CopyData(_)
            | PgWireFrontendMessage::CopyDone(_)
            | PgWireFrontendMessage::CopyFail(_) => Ok(()),
            PgWireFrontendMessage::Terminate(_) => Ok(()),
            PgWireFrontendMessage::SslNegotiation(_)
            | PgWireFrontendMessage::Startup(_)
            | PgWireFrontendMessage::CancelRequest(_)
            | PgWireFrontendMessage::PasswordMessageFamily(_)
            | PgWireFrontendMessage::PortalSuspended(_) => {
                Err(ConnectionError::Protocol("a message that is not expected here".to_string()))
            }
        }
    }

    async fn simple(&mut self, text: &str) -> Result<(), ConnectionError> {
        let mut script = self.session.simple(text).await;
        loop {
            let next = watched(&mut self.input, &self.cancel, script.next(&mut self.session)).await;
            self.notices();
            match next {
                None => break,
                Some(Ok(outcome)) => {
                    if let Err(error) = self.outcome(outcome, Describing::WithRows).await? {
                        script.fail(&mut self.session, &error).await;
                        self.replies.error(&error);
                        break;
                    }
                }
                Some(Err(error)) => {
                    self.replies.error(&error);
                    break;
                }
            }
        }
        self.end_of_cycle().await
    }

    async fn sync(&mut self) -> Result<(), ConnectionError> {
        self.skipping = false;
        if let Err(error) = watched(&mut self.input, &self.cancel, self.session.sync()).await {
            self.notices();
            self.replies.error(&error);
        }
        self.end_of_cycle().await
    }

    async fn end_of_cycle(&mut self) -> Result<(), ConnectionError> {
        self.notices();
        for (name, value) in self.session.parameter_changes() {
            self.replies.parameter(&name, &value);
        }
        self.replies.ready(self.session.status());
        self.flush().await
    }

    fn notices(&mut self) {
        for notice in self.session.notices() {
            self.replies.notice(&notice);
        }
    }

    /// An error in the extended protocol: told, then everything up to Sync is skipped.
    fn refuse(&mut self, error: &SqlError) {
        self.notices();
        self.session.fail();
        self.replies.error(error);
        self.skipping = true;
    }

    /// A message that could not be taken: answered as if the statement had failed that it was part of.
    async fn refuse_message(&mut self, tag: u8, error: &SqlError) -> Result<(), ConnectionError> {
        match tag {
            b'Q' | b'F' if !self.skipping => {
                self.session.fail();
                self.replies.error(error);
                self.end_of_cycle().await
            }
            b'S' => {
                self.session.fail();
                self.replies.error(error);
                self.sync().await
            }
            // Left over from a COPY that has failed already.
            b'd' | b'c' | b'f' => Ok(()),
            _ if self.skipping => Ok(()),
            _ => {
                self.refuse(error);
                Ok(())
            }
        }
    }

    async fn parse(&mut self, parse: Parse) -> Result<(), ConnectionError> {
        let name = parse.name.unwrap_or_default();
        let work = self.session.parse(&name, &parse.query, &parse.type_oids);
        match watched(&mut self.input, &self.cancel, work).await {
            Ok(()) => self.replies.parsed(),
            Err(error) => self.refuse(&error),
        }
        Ok(())
    }

    async fn bind(&mut self, bind: Bind) -> Result<(), ConnectionError> {
        let portal = bind.portal_name.unwrap_or_default();
        let statement = bind.statement_name.unwrap_or_default();
        let work = self.session.bind(
            &portal,
            &statement,
            bind.parameters,
            &bind.parameter_format_codes,
            &bind.result_column_format_codes,
        );
        match watched(&mut self.input, &self.cancel, work).await {
            Ok(()) => self.replies.bound(),
            Err(error) => self.refuse(&error),
        }
        Ok(())
    }

    fn describe(&mut self, describe: &Describe) -> Result<(), ConnectionError> {
        let name = describe.name.as_deref().unwrap_or_default();
        let (columns, formats) = if describe.target_type == b'S' {
            match self.session.describe_statement(name) {
                Ok((parameters, columns)) => {
                    self.replies.parameters(&parameters)?;
                    (columns, Vec::new())
                }
                Err(error) => {
                    self.refuse(&error);
                    return Ok(());
                }
            }
        } else {
            match self.session.describe_portal(name) {
                Ok(described) => described,
                Err(error) => {
                    self.refuse(&error);
                    return Ok(());
                }
            }
        };
        match columns {
            Some(columns) => self.replies.columns(&columns, &formats)?,
            None => self.replies.no_data(),
        }
        Ok(())
    }

    async fn execute(&mut self, execute: Execute) -> Result<(), ConnectionError> {
        let name = execute.name.unwrap_or_default();
        let rows_max = usize::try_from(execute.max_rows).unwrap_or(0);
        let work = self.session.execute(&name, rows_max, self.input.following());
        let done = watched(&mut self.input, &self.cancel, work).await;
        self.notices();
        match done {
            Ok(outcome) => {
                if let Err(error) = self.outcome(outcome, Describing::RowsOnly).await? {
                    self.refuse(&error);
                }
            }
            Err(error) => self.refuse(&error),
        }
        Ok(())
    }

    fn close(&mut self, close: &Close) {
        let name = close.name.as_deref().unwrap_or_default();
        if close.target_type == b'S' {
            self.session.close_statement(name);
        } else {
            self.session.close_portal(name);
        }
        self.replies.closed();
    }

    /// Writes an outcome. The inner error is the statement's (a COPY that failed on the way).
    async fn outcome(
        &mut self,
        outcome: Outcome,
        describing: Describing,
    ) -> Result<Result<(), SqlError>, ConnectionError> {
        match outcome {
            Outcome::Rows { columns, rows, formats, tag, suspended } => {
                if matches!(describing, Describing::WithRows) {
                    self.replies.columns(&columns, &formats)?;
                }
                for row in &rows {
                    self.replies.row(row, &columns, &formats, &self.session);
                    if self.replies.buffer.len() >= FLUSH_BYTES {
                        self.flush().await?;
                    }
                }
                if suspended {
                    self.replies.suspended();
                } else {
                    self.replies.complete(tag.as_deref().unwrap_or_default());
                }
            }
            Outcome::Complete { tag } => self.replies.complete(&tag),
            Outcome::Empty => self.replies.empty_query(),
            Outcome::CopyIn { columns, format } => return self.copy_in(columns, format).await,
            Outcome::CopyOut { columns, format, chunks, tag } => {
                self.replies.copy_out(format, columns);
                for chunk in chunks {
                    self.replies.copy_data(chunk)?;
                    if self.replies.buffer.len() >= FLUSH_BYTES {
                        self.flush().await?;
                    }
                }
                self.replies.copy_done();
                self.replies.complete(&tag);
            }
        }
        Ok(Ok(()))
    }

    /// Takes the client's data until it says done. After an error the rest is drained, so that the stream stays in step.
    async fn copy_in(
        &mut self,
        columns: usize,
        format: i8,
    ) -> Result<Result<(), SqlError>, ConnectionError> {
        self.replies.copy_in(format, columns);
        self.flush().await?;
        let mut failed: Option<SqlError> = None;
        loop {
            let message = match self.input.next().await {
                Err(ConnectionError::Refused(b'd', error)) => {
                    failed.get_or_insert(*error);
                    continue;
                }
                Err(ConnectionError::Refused(_, error)) => {
                    return Err(ConnectionError::Protocol(error.message.to_string()));
                }
                other => other?,
            };
            match message {
                PgWireFrontendMessage::CopyData(data) if failed.is_none() => {
                    failed = self.copy_piece(data.data).await.err();
                }
                PgWireFrontendMessage::CopyData(_)
                | PgWireFrontendMessage::Flush(_)
                | PgWireFrontendMessage::Sync(_) => {}
                PgWireFrontendMessage::CopyDone(_) => break,
                PgWireFrontendMessage::CopyFail(fail) => {
                    let error = self.session.copy_fail(&fail.message).await;
                    failed.get_or_insert(error);
                    break;
                }
                PgWireFrontendMessage::Terminate(_) => return Err(ConnectionError::Closed),
                _ => {
                    return Err(ConnectionError::Protocol(
                        "unexpected message during COPY from stdin".to_string(),
                    ));
                }
            }
        }
        if let Some(error) = failed {
            return Ok(Err(error));
        }
        match watched(&mut self.input, &self.cancel, self.session.copy_done()).await {
            Ok(Outcome::Complete { tag }) => {
                self.replies.complete(&tag);
                Ok(Ok(()))
            }
            Ok(_) => Err(ConnectionError::Protocol("COPY ended with rows".to_string())),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn copy_piece(&mut self, data: Bytes) -> Result<(), SqlError> {
        self.session.copy_data(data).await
    }
}

/// Whether a result's rows are preceded by their description.
#[derive(Clone, Copy)]
enum Describing {
    /// Simple protocol.
    WithRows,
    /// Extended protocol: Describe does it.
    RowsOnly,
}
