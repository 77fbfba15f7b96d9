//! The words of the scripts: requests in, answers out. Timestamps are microseconds (`5s` too), `+1`
//! their logical part.

use bytes::Bytes;
use clock::Timestamp;
use replication::range::{NodeId, RangeDescriptor, RangeId};
use std::collections::BTreeMap;
use std::time::Duration;
use storage::mvcc::{Sequence, TxnId};
use storage::{Direction, Key, Span};
use txn::api::{
    Advice, Batch, Expect, Footing, Found, KvError, Lock, Missing, Mutation, PushKind, Reply,
    Request, Response, Row, Skipped, Sought, TxnMeta, TxnStatus, Wait,
};

pub(super) type Txns = BTreeMap<String, TxnMeta>;

pub(super) fn micros(text: &str) -> u64 {
    match text.strip_suffix('s') {
        Some(seconds) => seconds.parse::<u64>().expect("seconds") * 1_000_000,
        None => text.parse().expect("microseconds"),
    }
}

pub(super) fn ts(text: &str) -> Timestamp {
    match text.split_once('+') {
        _ if text == "max" => Timestamp::MAX,
        Some((micro, logical)) => Timestamp::new(micros(micro), logical.parse().expect("logical")),
        None => Timestamp::new(micros(text), 0),
    }
}

pub(super) fn show_ts(ts: Timestamp) -> String {
    match ts.logical() {
        _ if ts == Timestamp::MAX => "max".into(),
        0 => ts.micros().to_string(),
        logical => format!("{}+{logical}", ts.micros()),
    }
}

pub(super) fn key(text: &str) -> Key {
    match text.strip_prefix("copy/") {
        // `copy/x`: row x of table 7's copy in region 1.
        Some(rest) => Key::new([Key::copy(1, 7).as_bytes(), rest.as_bytes()].concat()),
        None => Key::new(text.as_bytes().to_vec()),
    }
}

pub(super) fn show_key(key: &Key) -> String {
    match key.as_bytes().strip_prefix(Key::copy(1, 7).as_bytes()) {
        Some(rest) => format!("copy/{}", rest.escape_ascii()),
        None if *key == Key::MAX => "max".into(),
        None => key.as_bytes().escape_ascii().to_string().replace("\\x00", "'"),
    }
}

pub(super) fn span(text: &str) -> Span {
    match text.split_once("..") {
        Some((start, end)) => {
            Span::new(key(start), if end.is_empty() { Key::MAX } else { key(end) })
        }
        None => Span::point(&key(text)),
    }
}

pub(super) fn show_span(span: &Span) -> String {
    if span.is_point() {
        show_key(&span.start)
    } else {
        format!("{}..{}", show_key(&span.start), show_key(&span.end))
    }
}

fn spans(text: &str) -> Vec<Span> {
    text.split(',').filter(|part| !part.is_empty()).map(span).collect()
}

pub(super) fn txn(name: &str, args: &[&str], number: u128) -> TxnMeta {
    let get = |field: &str| args.iter().find_map(|arg| arg.strip_prefix(field));
    let _ = name;
    TxnMeta {
        id: TxnId::new(number),
        anchor: key(get("anchor=").unwrap_or("k")),
        started: ts(get("started=").unwrap_or("100")),
        priority: get("priority=").map_or(1, |text| text.parse().expect("priority")),
        stage: 0,
    }
}

/// `k=v`, `k=v@3`, `k-` deletes, `k!=v` only if absent.
fn mutation(text: &str) -> Mutation {
    let (text, sequence) = match text.split_once('@') {
        Some((text, sequence)) => (text, sequence.parse().expect("sequence")),
        None => (text, 1),
    };
    let sequence = Sequence::new(sequence);
    let value = |text: &str| Some(Bytes::copy_from_slice(text.as_bytes()));
    if let Some(deleted) = text.strip_suffix('-') {
        return Mutation { key: key(deleted), value: None, expect: Expect::Anything, sequence };
    }
    if let Some((name, text)) = text.split_once("!=") {
        return Mutation { key: key(name), value: value(text), expect: Expect::Absent, sequence };
    }
    let (name, text) = text.split_once('=').expect("key=value");
    Mutation { key: key(name), value: value(text), expect: Expect::Anything, sequence }
}

/// `verb arg .. option=value ..`, requests separated by `;`.
pub(super) fn batch(txns: &Txns, who: &str, words: &[&str]) -> Batch {
    let option =
        |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let read_at = option("at").map_or(Timestamp::MIN, ts);
    let pair = |text: &str, by: char| -> (String, String) {
        let (a, b) = text.split_once(by).expect("a pair");
        (a.into(), b.into())
    };
    let list = |name: &str| option(name).into_iter().flat_map(|text| text.split(','));
    let sequence = |text: &str| Sequence::new(text.parse().expect("sequence"));
    Batch {
        range: option("range").map(|text| (RangeId(text.parse().expect("range")), 1)),
        read_at,
        uncertainty_limit: option("until").map_or(read_at, ts),
        footing: match option("footing") {
            Some("free") => Footing::Free,
            _ => Footing::Fixed,
        },
        txn: (who != "-").then(|| TxnMeta {
            stage: stage(option("stage")),
            ..txns.get(who).expect("a declared transaction").clone()
        }),
        schema: list("schema")
            .map(|text| pair(text, ':'))
            .map(|(t, v)| (t.parse().unwrap(), v.parse().unwrap()))
            .collect(),
        pushed: list("pushed")
            .map(|text| pair(text, ':'))
            .map(|(t, at)| (txns[&t].id, ts(&at)))
            .collect(),
        ignored: list("ignored")
            .map(|text| pair(text, '-'))
            .map(|(a, b)| (sequence(&a), sequence(&b)))
            .collect(),
        wait: match option("wait") {
            Some("nowait") => Wait::Error,
            Some("skip") => Wait::Skip,
            Some(slice) => Wait::Queue(Duration::from_micros(micros(slice))),
            None => Wait::Queue(Duration::from_millis(100)),
        },
        asks_era: false,
        requests: words.split(|word| *word == ";").map(|words| request(txns, who, words)).collect(),
    }
}

fn stage(text: Option<&str>) -> u32 {
    text.map_or(0, |text| text.parse().expect("a stage"))
}

/// `a@b`.
fn pair(text: &str) -> (&str, &str) {
    text.split_once('@').expect("a pair")
}

/// `k@3`: a named write.
fn write(text: &str) -> (Key, Sequence) {
    let (name, sequence) = pair(text);
    (key(name), Sequence::new(sequence.parse().expect("sequence")))
}

const OPTIONS: [&str; 24] = [
    "stage",
    "from",
    "footing",
    "found",
    "staged",
    "range",
    "at",
    "until",
    "schema",
    "pushed",
    "ignored",
    "wait",
    "limit",
    "bytes",
    "since",
    "reads",
    "deadline",
    "commit",
    "intents",
    "spans",
    "active",
    "dependents",
    "version",
    "after",
];

fn request(txns: &Txns, who: &str, words: &[&str]) -> Request {
    let option =
        |name: &str| words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let is_option =
        |word: &str| word.split_once('=').is_some_and(|(name, _)| OPTIONS.contains(&name));
    let args: Vec<&str> = words.iter().copied().filter(|word| !is_option(word)).collect();
    let lock = args.last().and_then(|word| match *word {
        "exclusive" => Some(Lock::Exclusive),
        "shared" => Some(Lock::Shared),
        _ => None,
    });
    let number = |name: &str| option(name).map_or(0, |text| text.parse::<u64>().expect("a number"));
    let deadline = option("deadline").map_or(Timestamp::MAX, ts);
    match args[0] {
        "get" => Request::Get { key: key(args[1]), lock },
        "scan" => Request::Scan {
            span: span(args[1]),
            direction: if args.contains(&"reverse") {
                Direction::Reverse
            } else {
                Direction::Forward
            },
            limit: number("limit"),
            bytes_max: number("bytes"),
            lock,
        },
        "refresh" => {
            Request::Refresh { span: span(args[1]), since: ts(option("since").expect("since=")) }
        }
        "write" => {
            Request::Write { mutations: args[1..].iter().map(|text| mutation(text)).collect() }
        }
        "onephase" => Request::CommitOnePhase {
            mutations: args[1..]
                .iter()
                .filter(|word| **word != "elsewhere")
                .map(|text| mutation(text))
                .collect(),
            reads: option("reads").map_or_else(Vec::new, spans),
            reads_elsewhere: args.contains(&"elsewhere"),
            deadline,
        },
        "end" => Request::EndTxn {
            commit_ts: option("commit").map(ts),
            intents: option("intents").map_or_else(Vec::new, spans),
            deadline,
        },
        "resolve" => Request::Resolve {
            txn: txns[args[1]].id,
            commit_ts: option("commit").map(ts),
            ignored: Vec::new(),
            spans: option("spans").map_or_else(Vec::new, spans),
        },
        "unlock" => Request::Unlock {
            spans: option("spans").map_or_else(Vec::new, spans),
            since: stage(option("from")),
            upto: stage(option("stage")),
        },
        "push" => Request::Push {
            pushee: txns[args[1]].clone(),
            active: option("active").map_or(txns[args[1]].started, ts),
            kind: match args[2] {
                "abort" => PushKind::Abort,
                "force" => PushKind::Force,
                above => PushKind::Timestamp(ts(above.strip_prefix("above:").expect("above:ts"))),
            },
            dependents: option("dependents")
                .into_iter()
                .flat_map(|text| text.split(','))
                .map(|t| txns[t].id)
                .collect(),
            sought: option("found").map(|text| {
                let (found, at) = pair(text);
                let found = if found == "all" { Found::All } else { Found::Prevented };
                Sought { at: ts(at), found }
            }),
        },
        "stage" => Request::Stage {
            intents: args[1..].iter().map(|text| span(pair(text).0)).collect(),
            writes: args[1..].iter().map(|text| write(text)).collect(),
            deadline,
        },
        "writes" => Request::QueryWrites {
            txn: txns[args[1]].id,
            at: ts(option("staged").expect("staged=")),
            writes: args[2..]
                .iter()
                .filter(|word| **word != "prevent")
                .map(|text| write(text))
                .collect(),
            missing: if args.contains(&"prevent") { Missing::Prevent } else { Missing::Tell },
        },
        "heartbeat" => Request::Heartbeat,
        "query" => {
            Request::QueryTxn { txn: txns[args[1]].id, anchor: txns[args[1]].anchor.clone() }
        }
        "forget" => {
            Request::ForgetTxn { txn: txns[args[1]].id, anchor: txns[args[1]].anchor.clone() }
        }
        "changes" => Request::Changes {
            span: span(args[1]),
            after: option("after").map_or(Timestamp::MIN, ts),
            bytes_max: number("bytes"),
        },
        "fence" => Request::Fence { span: span(args[1]), table: 7, version: number("version") },
        "split" => {
            Request::Split { at: key(args[1]), right: RangeId(args[2].parse().expect("range")) }
        }
        "transfer" => Request::TransferLease { to: NodeId(args[1].parse().expect("node")) },
        "gc" => Request::Gc { span: span(args[1]), threshold: ts(args[2]) },
        other => panic!("{who}: unknown request {other}"),
    }
}

pub(super) fn show(txns: &Txns, result: &Result<Reply, KvError>) -> String {
    match result {
        Ok(reply) => {
            let responses = reply.responses.iter().map(|response| show_response(txns, response));
            let skipped = reply.skipped.iter().map(|skipped| {
                let Skipped { key, holder, active } = skipped;
                let (key, holder) = (show_key(key), name(txns, holder.id));
                format!("skipped {key} of {holder} active {}", show_ts(*active))
            });
            responses.chain(skipped).collect::<Vec<_>>().join("; ")
        }
        Err(error) => show_error(txns, error),
    }
}

fn name(txns: &Txns, id: TxnId) -> String {
    txns.iter()
        .find(|(_, txn)| txn.id == id)
        .map_or_else(|| id.to_string(), |(name, _)| name.clone())
}

fn text(value: &Option<Bytes>) -> String {
    value.as_ref().map_or_else(|| "deleted".into(), |value| value.escape_ascii().to_string())
}

fn row(row: &Row) -> String {
    format!("{}={}@{}", show_key(&row.key), row.value.escape_ascii(), show_ts(row.ts))
}

fn show_status(status: &TxnStatus) -> String {
    match status {
        TxnStatus::Pending => "pending".into(),
        TxnStatus::Committed(ts) => format!("committed at {}", show_ts(*ts)),
        TxnStatus::Aborted => "aborted".into(),
        TxnStatus::Staging(staged) => {
            let one =
                |(key, sequence): &(Key, Sequence)| format!("{}@{}", show_key(key), sequence.get());
            let writes: Vec<String> = staged.writes.iter().map(one).collect();
            format!("staged at {} [{}]", show_ts(staged.at), writes.join(" "))
        }
    }
}

fn show_response(txns: &Txns, response: &Response) -> String {
    let names = |ids: &[TxnId]| ids.iter().map(|id| name(txns, *id)).collect::<Vec<_>>().join(",");
    match response {
        Response::Get(found) => found.as_ref().map_or_else(|| "nothing".into(), row),
        Response::Scan { rows, resume } => {
            let rest = resume
                .as_ref()
                .map_or_else(String::new, |rest| format!(" rest {}", show_span(rest)));
            format!("[{}]{rest}", rows.iter().map(row).collect::<Vec<_>>().join(" "))
        }
        Response::Done => "done".into(),
        Response::Written(ts) => format!("written at {}", show_ts(*ts)),
        Response::Committed(ts) => format!("committed at {}", show_ts(*ts)),
        Response::Aborted => "aborted".into(),
        Response::Staged(ts) => format!("staged at {}", show_ts(*ts)),
        Response::Writes { all: true } => "all laid".into(),
        Response::Writes { all: false } => "not all laid".into(),
        Response::Pushed { status, intents, advice, .. } => {
            let spans = intents.iter().map(show_span).collect::<Vec<_>>().join(",");
            let spans = if spans.is_empty() { spans } else { format!(" intents {spans}") };
            format!(
                "{}{spans}{}",
                show_status(status),
                match advice {
                    Advice::Wait => "",
                    Advice::Pass => " moved",
                    Advice::GiveUp => " deadlock: give up",
                    Advice::Recover => " recover",
                }
            )
        }
        Response::Alive(status) => format!("record {}", show_status(status)),
        Response::Txn { status, waiters } => {
            format!("{} waiters [{}]", show_status(status), names(waiters))
        }
        Response::Changes { changes, upto } => {
            let one = |c: &txn::api::Change| {
                format!("{}={}@{}", show_key(&c.key), text(&c.value), show_ts(c.ts))
            };
            format!(
                "[{}] upto {}",
                changes.iter().map(one).collect::<Vec<_>>().join(" "),
                show_ts(*upto)
            )
        }
        Response::Split { left, right } => {
            let show = |half: &RangeDescriptor| format!("{} {}", half.id, show_span(&half.span));
            let left = left.as_ref().map_or("gone".to_string(), show);
            format!("{left} | {}", show(right))
        }
        Response::Gc { more } => format!("collected, more: {more}"),
    }
}

fn show_error(txns: &Txns, error: &KvError) -> String {
    match error {
        KvError::Uncertain { key, ts } => {
            format!("uncertain {} at {}", show_key(key), show_ts(*ts))
        }
        KvError::NewerVersion { key, ts } => {
            format!("newer version of {} at {}", show_key(key), show_ts(*ts))
        }
        KvError::NeedsRefresh { ts } => format!("needs refresh to {}", show_ts(*ts)),
        KvError::RefreshFailed { key, ts, by: None } => {
            format!("refresh failed at {} at {}", show_key(key), show_ts(*ts))
        }
        KvError::RefreshFailed { key, ts, by: Some(by) } => {
            let (key, ts) = (show_key(key), show_ts(*ts));
            format!("refresh failed at {key} at {ts} by {}", name(txns, *by))
        }
        KvError::Blocked { key, holder, active, intent } => format!(
            "blocked at {} by {}'s {} active {}",
            show_key(key),
            name(txns, holder.id),
            if *intent { "intent" } else { "lock" },
            show_ts(*active)
        ),
        KvError::Deadlock { key, holder } => {
            format!("deadlock at {} with {}", show_key(key), name(txns, *holder))
        }
        KvError::Exists { key, value } => {
            format!("exists {}={}", show_key(key), value.escape_ascii())
        }
        KvError::TooManyLocks { limit, .. } => format!("too many locks: {limit}"),
        KvError::BelowGc { threshold } => {
            format!("history at or below {} is gone", show_ts(*threshold))
        }
        KvError::RangeMismatch { range, known } => {
            let known: Vec<String> =
                known.iter().map(|d| format!("{} {}", d.id, show_span(&d.span))).collect();
            format!("outside {range}; known [{}]", known.join(", "))
        }
        KvError::NotLeaseholder { range, hint } => {
            format!(
                "{range} not led here{}",
                hint.map_or_else(String::new, |node| format!(", try {node}"))
            )
        }
        other => other.to_string(),
    }
}
