//! After 40003 the driver finds out what became of its commit, from any node that answers. The nodes are scripts.

use client::{Error, Options, Outcome, Session};
use proto::sql::session_reply::Reply;
use proto::sql::session_request::Request as Ask;
use proto::sql::sql_server::{Sql, SqlServer};
use proto::sql::{
    Complete, Opened, Ready, Row, RowBatch, SessionReply, SessionRequest, SqlError, Value,
};
use std::sync::{Arc, Mutex};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

const ID: &str = "v-0a-1-6b";

/// What a node says to a statement.
#[derive(Clone, Copy)]
enum Says {
    /// COMMIT: 40003, as often as this is still to be said. Status: this.
    Unknown { commits: u32, status: &'static str },
    /// Ends the stream at a question for a status.
    Nothing,
}

struct Node {
    says: Mutex<Says>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Node {
    fn answer(&self, sql: &str) -> Option<Vec<Reply>> {
        let complete = |tag: &str| vec![Reply::Complete(Complete { tag: tag.to_string() })];
        self.heard.lock().expect("unpoisoned").push(sql.to_string());
        let mut says = self.says.lock().expect("unpoisoned");
        match (&mut *says, sql) {
            (Says::Unknown { commits, .. }, "COMMIT") if *commits > 0 => {
                *commits -= 1;
                let hint = format!(
                    "Ask any node before you repeat it: SHOW TRANSACTION STATUS '{ID}' (..)."
                );
                let code = "40003".to_string();
                Some(vec![Reply::Error(SqlError { code, hint, ..SqlError::default() })])
            }
            (Says::Unknown { status, .. }, sql) if sql.starts_with("SHOW") => {
                let value = Value { text: Some((*status).to_string()) };
                let rows =
                    RowBatch { columns: Vec::new(), rows: vec![Row { values: vec![value] }] };
                Some([vec![Reply::Rows(rows)], complete("SHOW")].concat())
            }
            (Says::Nothing, sql) if sql.starts_with("SHOW") => None,
            _ => Some(complete(sql)),
        }
    }
}

struct Served(Arc<Node>);

#[tonic::async_trait]
impl Sql for Served {
    type SessionStream = ReceiverStream<Result<SessionReply, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (node, mut asked) = (self.0.clone(), request.into_inner());
        let (sender, replies) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut block = false;
            while let Ok(Some(SessionRequest { request: Some(ask) })) = asked.message().await {
                let replies = match ask {
                    Ask::Open(_) => {
                        vec![Reply::Opened(Opened { node: 1, region: "eu".to_string() })]
                    }
                    Ask::Query(query) => {
                        let Some(mut replies) = node.answer(&query.sql) else { return };
                        block = query.sql == "BEGIN" || block && query.sql != "COMMIT";
                        let status = if block { "T" } else { "I" }.to_string();
                        replies.push(Reply::Ready(Ready { status, notices: Vec::new() }));
                        replies
                    }
                };
                for reply in replies {
                    let reply = SessionReply { reply: Some(reply) };
                    if sender.send(Ok(reply)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(replies)))
    }
}

/// Nodes on free ports of the loopback; their addresses, and what they were asked.
async fn nodes(scripts: &[Says]) -> (Vec<String>, Arc<Mutex<Vec<String>>>) {
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let mut addresses = Vec::new();
    for says in scripts {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        addresses.push(listener.local_addr().expect("bound").to_string());
        let node = Arc::new(Node { says: Mutex::new(*says), heard: heard.clone() });
        let server = Server::builder().add_service(SqlServer::new(Served(node)));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    }
    (addresses, heard)
}

async fn transfer(addresses: &[String]) -> (Result<u32, Error>, u32) {
    let mut session = Session::connect(addresses, Options::default()).await.expect("connects");
    let mut runs = 0;
    let outcome = session
        .transaction(async |txn| {
            runs += 1;
            txn.query("UPDATE", &[]).await?;
            Ok(7)
        })
        .await;
    (outcome, runs)
}

#[tokio::test]
async fn a_commit_that_happened_is_reported_and_not_repeated() {
    let (addresses, heard) = nodes(&[Says::Unknown { commits: 1, status: "committed" }]).await;
    assert_eq!(transfer(&addresses).await, (Ok(7), 1));
    let ask = format!("SHOW TRANSACTION STATUS '{ID}'");
    assert_eq!(*heard.lock().expect("unpoisoned"), ["BEGIN", "UPDATE", "COMMIT", &ask]);
}

#[tokio::test]
async fn a_commit_that_did_not_happen_is_run_again() {
    let (addresses, _) = nodes(&[Says::Unknown { commits: 1, status: "aborted" }]).await;
    assert_eq!(transfer(&addresses).await, (Ok(7), 2));
}

#[tokio::test]
async fn nobody_knows_is_told_and_nothing_is_repeated() {
    let (addresses, _) = nodes(&[Says::Unknown { commits: 1, status: "?" }, Says::Nothing]).await;
    let (outcome, runs) = transfer(&addresses).await;
    assert!(outcome.as_ref().is_err_and(Error::is_ambiguous), "{outcome:?}");
    assert_eq!(runs, 1);
}

#[tokio::test]
async fn another_node_is_asked_when_the_first_is_silent() {
    let told = Says::Unknown { commits: 0, status: "committed" };
    let (addresses, _) = nodes(&[Says::Nothing, told]).await;
    let mut session = Session::connect(&addresses, Options::default()).await.expect("connects");
    assert_eq!(session.outcome(ID).await, Ok(Outcome::Committed));
    let refused = session.outcome("' OR 1 = 1").await;
    assert!(matches!(refused, Err(Error::Protocol(_))), "{refused:?}");
}
