//! Driver: one connection of the shell or a workload, over either protocol, with the same answers.

use client::{Error, Options, SqlError};
use futures::future::{Either, select};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use tokio_postgres::{NoTls, SimpleQueryMessage};

use crate::url::{Protocol, Url};

/// The result of one statement.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Column names; empty for statements without rows.
    pub(crate) columns: Vec<String>,
    /// Whether a column's values are numbers (printed to the right).
    pub(crate) numeric: Vec<bool>,
    /// Rows; `None` is NULL.
    pub(crate) rows: Vec<Vec<Option<String>>>,
    /// Command tag.
    pub(crate) tag: String,
    /// Notices raised meanwhile.
    pub(crate) notices: Vec<String>,
}

/// A connection.
pub(crate) enum Backend {
    /// Over gRPC; fails over by itself.
    Grpc(Box<client::Session>),
    /// Over PostgreSQL's protocol.
    Postgres {
        /// The connection.
        client: tokio_postgres::Client,
        /// Where to connect again.
        url: Url,
        /// Notices that have come.
        notices: Arc<Mutex<Vec<String>>>,
    },
}

/// OIDs of PostgreSQL's number types.
const NUMERIC_OIDS: [u32; 7] = [20, 21, 23, 26, 700, 701, 1700];

impl Backend {
    /// Connects to the first host that answers.
    pub(crate) async fn connect(url: &Url, application: &str) -> Result<Backend, Error> {
        match url.protocol {
            Protocol::Grpc => {
                let options = Options {
                    user: url.user.clone(),
                    database: url.database.clone(),
                    application_name: application.to_string(),
                };
                Ok(Backend::Grpc(Box::new(client::Session::connect(&url.hosts, options).await?)))
            }
            Protocol::Postgres => {
                let (client, notices) = connect_postgres(url, application).await?;
                Ok(Backend::Postgres { client, url: url.clone(), notices })
            }
        }
    }

    /// Where we are, for the prompt: region or host.
    pub(crate) fn place(&self) -> String {
        match self {
            Backend::Grpc(session) => session.node().1.to_string(),
            Backend::Postgres { url, .. } => url.hosts.first().cloned().unwrap_or_default(),
        }
    }

    /// Runs statements. After a lost connection the next call connects again.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<Vec<Answer>, Error> {
        match self {
            Backend::Grpc(session) => {
                let results = session.query(sql, &[]).await?;
                Ok(results.into_iter().map(from_grpc).collect())
            }
            Backend::Postgres { client, url, notices } => {
                if client.is_closed() {
                    (*client, *notices) = connect_postgres(url, "meridian sql").await?;
                }
                let messages = client.simple_query(sql).await.map_err(from_postgres_error)?;
                let mut answers = from_postgres(messages);
                if let Some(last) = answers.last_mut() {
                    last.notices = std::mem::take(
                        &mut *notices.lock().expect("nobody panics while holding notices"),
                    );
                }
                Ok(answers)
            }
        }
    }
}

impl Backend {
    /// The same, until `interrupt`: then the statement is cancelled. Over gRPC that costs the stream, and a block that was open on it.
    pub(crate) async fn query_until(
        &mut self,
        sql: &str,
        interrupt: impl Future<Output = ()>,
    ) -> Result<Vec<Answer>, Error> {
        let token = match self {
            Backend::Postgres { client, .. } => Some(client.cancel_token()),
            Backend::Grpc(_) => None,
        };
        let query = match select(Box::pin(self.query(sql)), pin!(interrupt)).await {
            Either::Left((answers, _)) => return answers,
            Either::Right(((), query)) => query,
        };
        match token {
            Some(token) => {
                token.cancel_query(NoTls).await.map_err(from_postgres_error)?;
                query.await
            }
            None => Err(Error::Sql(SqlError {
                code: "57014".to_string(),
                message: "canceling statement due to user request".to_string(),
                detail: String::new(),
                hint: "A transaction block that was open is rolled back.".to_string(),
                position: 0,
            })),
        }
    }
}

async fn connect_postgres(
    url: &Url,
    application: &str,
) -> Result<(tokio_postgres::Client, Arc<Mutex<Vec<String>>>), Error> {
    let mut config = tokio_postgres::Config::new();
    config.user(&url.user).dbname(&url.database).application_name(application);
    config.connect_timeout(std::time::Duration::from_secs(3));
    for host in &url.hosts {
        let (name, port) = host.rsplit_once(':').unwrap_or((host, "15432"));
        config.host(name).port(port.parse().unwrap_or(15432));
    }
    let (client, mut connection) =
        config.connect(NoTls).await.map_err(|error| match error.as_db_error() {
            Some(_) => from_postgres_error(error),
            None => Error::Unreachable(error.to_string()),
        })?;
    let notices: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = notices.clone();
    #[allow(clippy::disallowed_methods)]
    tokio::spawn(async move {
        loop {
            match std::future::poll_fn(|context| connection.poll_message(context)).await {
                Some(Ok(tokio_postgres::AsyncMessage::Notice(notice))) => {
                    let text = format!("{}:  {}", notice.severity(), notice.message());
                    heard.lock().expect("nobody panics while holding notices").push(text);
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            }
        }
    });
    Ok((client, notices))
}

fn from_grpc(result: client::QueryResult) -> Answer {
    Answer {
        numeric: result
            .columns
            .iter()
            .map(|column| NUMERIC_OIDS.contains(&column.type_oid))
            .collect(),
        columns: result.columns.into_iter().map(|column| column.name).collect(),
        rows: result.rows,
        tag: result.tag,
        notices: result.notices,
    }
}

fn from_postgres(messages: Vec<SimpleQueryMessage>) -> Vec<Answer> {
    let mut answers = Vec::new();
    let mut building = Answer::default();
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                building.columns = columns.iter().map(|column| column.name().to_string()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                building.rows.push(
                    (0..row.len()).map(|place| row.get(place).map(ToString::to_string)).collect(),
                );
            }
            SimpleQueryMessage::CommandComplete(count) => {
                // This driver hides the tag; the count is all it tells.
                building.tag = if building.columns.is_empty() {
                    format!("OK {count}")
                } else {
                    format!("SELECT {count}")
                };
                building.numeric = looks_numeric(&building);
                answers.push(std::mem::take(&mut building));
            }
            _ => {}
        }
    }
    answers
}

/// The simple protocol through this driver does not tell types: a column of nothing but numbers is one.
fn looks_numeric(answer: &Answer) -> Vec<bool> {
    let column = |place: usize| {
        let mut values = answer.rows.iter().filter_map(|row| row[place].as_deref()).peekable();
        values.peek().is_some() && values.all(|value| value.parse::<f64>().is_ok())
    };
    (0..answer.columns.len()).map(column).collect()
}

fn from_postgres_error(error: tokio_postgres::Error) -> Error {
    let Some(told) = error.as_db_error() else {
        return Error::Ambiguous(error.to_string());
    };
    let position = match told.position() {
        Some(tokio_postgres::error::ErrorPosition::Original(position)) => *position,
        _ => 0,
    };
    Error::Sql(SqlError {
        code: told.code().code().to_string(),
        message: told.message().to_string(),
        detail: told.detail().unwrap_or_default().to_string(),
        hint: told.hint().unwrap_or_default().to_string(),
        position,
    })
}
