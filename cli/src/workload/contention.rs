//! Driver: what is left of throughput and fairness when everybody wants the same rows.
//!
//! Two measurements, each with its promise, and an exit code that says whether they held:
//!
//! | what | promise |
//! |---|---|
//! | a counter: one row, many clients, as single statements and as blocks | nobody starves, no error reaches a client, the row holds exactly what was acknowledged |
//! | the bank on few accounts, by more and more clients | throughput is never below half of what clients have who come one after the other; no error but 40001 and 40P01 reaches a client; no money is lost |
//!
//! Clients are spread over the hosts and stay there: each gateway has its share of them. Of the counter an error counts as one whatever
//! it asks for, also where the client could simply have tried again; the bank's clients take the same rows in different orders.

use clap::Args;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::time::Instant;

use super::bank::Bank;
use super::load::{Hosts, Load, Recorded, Run, Until, integers};
use super::report::{Kind, Report};
use super::{Client, Manner, after_error, set_up_statement};
use crate::url::{DEFAULT_URL, Url};

/// A client that has had less of its fair share than this was starved.
const SHARE_MIN: f64 = 0.5;
/// Everybody waits for everybody before: how long depends on how many there are, not on whether anything is wrong.
const ANSWER_WITHIN: Duration = Duration::from_secs(300);
/// With more clients the bank must keep so much of one client's throughput.
const RATIO_MIN: f64 = 0.5;
/// Rounds of waiting before increments are counted, so that connections, caches and plans are there.
const WARM_UP: u32 = 2;

/// One row, or few, that everybody wants.
#[derive(Args)]
pub(crate) struct ContentionArguments {
    /// Where to connect; clients are spread over the hosts and stay there.
    #[arg(long, default_value = DEFAULT_URL)]
    url: String,
    /// Clients of the counter.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=512))]
    clients: u32,
    /// Numbers of clients of the bank, comma-separated; they are compared with one client, at each gateway in turn. Empty: no bank.
    #[arg(long, value_delimiter = ',', default_value = "2,4,8,16,32,64", num_args = 0..)]
    bank_clients: Vec<u32>,
    /// Accounts of the bank: every transfer is between two of them.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=1_000))]
    accounts: u32,
    /// How long each measurement takes, in seconds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    duration: u64,
    /// Seed of the transfers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// How the counter is counted up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Statement,
    Block,
}

impl Way {
    const ALL: [Way; 2] = [Way::Statement, Way::Block];

    fn name(self) -> &'static str {
        match self {
            Way::Statement => "single UPDATE",
            Way::Block => "BEGIN..COMMIT",
        }
    }

    async fn count_up(self, client: &mut Client) -> Result<(), client::Error> {
        let update = "UPDATE contention_counter SET n = n + 1 WHERE id = 1";
        match self {
            Way::Statement => client.query(update).await.map(drop),
            Way::Block => {
                client.begin().await?;
                match client.query(update).await {
                    Ok(_) => client.commit().await,
                    Err(error) => {
                        client.roll_back().await;
                        Err(error)
                    }
                }
            }
        }
    }
}

/// What became of one client's increments.
#[derive(Clone, Copy, Default, Debug)]
struct Share {
    acknowledged: u64,
    /// Nobody knows.
    open: u64,
    /// The longest that one of them took.
    longest: Duration,
}

/// Measures both; prints a line per measurement. The error says which promise was broken.
pub(crate) async fn run(arguments: &ContentionArguments) -> Result<(), String> {
    if arguments.bank_clients.iter().any(|clients| !(1..=512).contains(clients)) {
        return Err("the bank has 1 to 512 clients".to_string());
    }
    let hosts = Hosts::new(Url::parse(&arguments.url)?, Manner::Stays).patient(ANSWER_WITHIN);
    let mut broken = Vec::new();
    println!(
        "one row, {} clients over {} gateways, {} s each",
        arguments.clients,
        hosts.count(),
        arguments.duration
    );
    println!(
        "{:<14} {:>8} {:>10} {:>8} {:>8} {:>13} {:>11} {:>7}  verdict",
        "way", "per s", "increments", "fewest", "most", "fewest / fair", "longest s", "errors"
    );
    for way in Way::ALL {
        let why = counter(arguments, &hosts, way).await?;
        broken.extend(why.into_iter().map(|why| format!("{}: {why}", way.name())));
    }
    if !arguments.bank_clients.is_empty() {
        println!("\nbank on {} accounts, {} s each", arguments.accounts, arguments.duration);
        println!(
            "{:<14} {:>8} {:>10} {:>8} {:>8} {:>13} {:>11} {:>7}  verdict",
            "clients", "per s", "to one", "p50 ms", "p99 ms", "", "longest s", "errors"
        );
    }
    let reference = match arguments.bank_clients.is_empty() {
        true => 0.0,
        false => one_by_one(arguments, &hosts).await?,
    };
    for clients in &arguments.bank_clients {
        let why = bank(arguments, &hosts, *clients, reference).await?;
        broken.extend(why.into_iter().map(|why| format!("bank, {clients} clients: {why}")));
    }
    if broken.is_empty() { Ok(()) } else { Err(format!("VIOLATED: {}", broken.join("; "))) }
}

/// Counts up for a while; what was broken.
async fn counter(
    arguments: &ContentionArguments,
    hosts: &Hosts,
    way: Way,
) -> Result<Vec<String>, String> {
    let mut admin = hosts.admin();
    for statement in [
        "DROP TABLE IF EXISTS contention_counter",
        "CREATE TABLE IF NOT EXISTS contention_counter (id int PRIMARY KEY, n bigint NOT NULL)",
        "INSERT INTO contention_counter VALUES (1, 0) ON CONFLICT (id) DO NOTHING",
    ] {
        set_up_statement(&mut admin, statement).await?;
    }
    let mut clients: Vec<Client> =
        (0..arguments.clients as usize).map(|place| hosts.client(place)).collect();
    let warmed = clients.iter_mut().map(|client| async move {
        for _ in 0..WARM_UP {
            set_up_statement(client, "SELECT n FROM contention_counter WHERE id = 1").await?;
        }
        Ok::<(), String>(())
    });
    futures::future::try_join_all(warmed).await?;
    let report = Report::new();
    let begun = Instant::now();
    let until = Until::new(Some(begun + Duration::from_secs(arguments.duration)));
    let work = clients.iter_mut().map(|client| count(client, way, &until, &report));
    let shares: Vec<Share> = futures::future::join_all(work).await;
    let took = begun.elapsed();
    let answers = hosts.read_at_last("SELECT n FROM contention_counter WHERE id = 1").await?;
    let shown = integers(answers.first().ok_or("the counter was not read")?)?;
    let shown = shown.first().and_then(|row| row.first()).copied().unwrap_or_default();
    let (broken, line) = judge(&shares, shown, took, &report);
    println!("{:<14} {line}  {}", way.name(), verdict(&broken));
    print!("{}", errors(&report));
    Ok(broken)
}

async fn count(client: &mut Client, way: Way, until: &Until, report: &Report) -> Share {
    let mut share = Share::default();
    while !until.is_over() {
        let asked = Instant::now();
        loop {
            match way.count_up(client).await {
                Ok(()) => {
                    share.acknowledged += 1;
                    report.ok(asked.elapsed());
                    break;
                }
                Err(error) => match after_error(report, &error).await {
                    Kind::Retry if !until.is_over() => {}
                    Kind::Ambiguous => {
                        share.open += 1;
                        break;
                    }
                    Kind::Ok | Kind::Retry | Kind::Failed => break,
                },
            }
        }
        share.longest = share.longest.max(asked.elapsed());
    }
    share
}

/// What was broken, and the line about it.
fn judge(shares: &[Share], shown: i64, took: Duration, report: &Report) -> (Vec<String>, String) {
    let of = |what: fn(&Share) -> u64| shares.iter().map(what);
    let acknowledged: u64 = of(|share| share.acknowledged).sum();
    let open: u64 = of(|share| share.open).sum();
    let fewest = of(|share| share.acknowledged).min().unwrap_or_default();
    let most = of(|share| share.acknowledged).max().unwrap_or_default();
    let longest = shares.iter().map(|share| share.longest).max().unwrap_or_default();
    let fair = acknowledged as f64 / shares.len().max(1) as f64;
    let mut broken = told(report, |_| false);
    // Of a handful of turns one more or less is chance.
    if ((fewest + 1) as f64) < fair * SHARE_MIN || acknowledged == 0 {
        broken.push(format!(
            "a client has had {fewest} of {acknowledged}, its fair share is {fair:.1}"
        ));
    }
    let known = i64::try_from(acknowledged).unwrap_or(i64::MAX);
    if shown < known || shown > known.saturating_add_unsigned(open) {
        broken.push(format!("the row says {shown}, acknowledged are {acknowledged}, open {open}"));
    }
    let line = format!(
        "{:>8.0} {acknowledged:>10} {fewest:>8} {most:>8} {:>13.2} {:>11.2} {:>7}",
        acknowledged as f64 / took.as_secs_f64().max(0.001),
        fewest as f64 / fair.max(f64::MIN_POSITIVE),
        longest.as_secs_f64(),
        report.codes().values().sum::<u64>(),
    );
    (broken, line)
}

/// What one client after the other would have: of each gateway alone, one client, and of these the harmonic mean, as clients come from all
/// of them equally often. A gateway that is far from the rows needs them for longer, and nobody else can have them meanwhile.
async fn one_by_one(arguments: &ContentionArguments, hosts: &Hosts) -> Result<f64, String> {
    let mut seconds_of_one = 0.0;
    for place in 0..hosts.count() {
        let (report, judged) = play(arguments, &hosts.only(place), 1).await?;
        judged?;
        let per_s = report.per_second();
        if report.total(Kind::Ok) == 0 {
            return Err(format!("nothing was acknowledged to one client of gateway {}", place + 1));
        }
        println!("{}", bank_line(&format!("1 at gateway {}", place + 1), &report, None));
        seconds_of_one += 1.0 / per_s;
    }
    Ok(hosts.count() as f64 / seconds_of_one)
}

/// The bank by so many clients; what was broken. `reference`: transactions per second of one client.
async fn bank(
    arguments: &ContentionArguments,
    hosts: &Hosts,
    clients: u32,
    reference: f64,
) -> Result<Vec<String>, String> {
    let (report, judged) = play(arguments, hosts, clients).await?;
    // Who takes the same accounts in another order can be told of a deadlock, and asked to try again.
    let mut broken = told(&report, |code| code == "40001" || code == "40P01");
    broken.extend(judged.err());
    let ratio = report.per_second() / reference.max(f64::MIN_POSITIVE);
    if ratio < RATIO_MIN || report.total(Kind::Ok) == 0 {
        broken.push(format!("{ratio:.2} of one client's throughput"));
    }
    let line = bank_line(&clients.to_string(), &report, Some(ratio));
    println!("{line}  {}", verdict(&broken));
    print!("{}", errors(&report));
    Ok(broken)
}

/// Runs the bank; what its books say.
async fn play(
    arguments: &ContentionArguments,
    hosts: &Hosts,
    clients: u32,
) -> Result<(Arc<Report>, Result<String, String>), String> {
    let bank = Recorded::new(Bank { accounts: arguments.accounts });
    bank.load.prepare(hosts).await?;
    let begun = Instant::now();
    let run = Run {
        hosts: hosts.clone(),
        clients,
        seed: arguments.seed,
        begun,
        until: Arc::new(Until::new(Some(begun + Duration::from_secs(arguments.duration)))),
        level: ::chaos::check::Level::KeyRealTime,
        report: Report::new(),
        held: AtomicBool::new(false),
    };
    let judged = run.play(&bank).await;
    Ok((run.report, judged.verdict))
}

fn bank_line(clients: &str, report: &Report, ratio: Option<f64>) -> String {
    format!(
        "{clients:<14} {:>8.1} {:>10} {:>8.1} {:>8.1} {:>13} {:>11.2} {:>7}",
        report.per_second(),
        ratio.map_or(String::new(), |ratio| format!("{ratio:.2}")),
        report.latency_ms(0.50),
        report.latency_ms(0.99),
        "",
        report.latency_ms(1.0) / 1000.0,
        report.codes().values().sum::<u64>(),
    )
}

fn verdict(broken: &[String]) -> String {
    if broken.is_empty() { "holds".to_string() } else { format!("BROKEN: {}", broken.join("; ")) }
}

/// Errors that reached a client and are not `expected`, as a broken promise.
fn told(report: &Report, expected: impl Fn(&str) -> bool) -> Vec<String> {
    let codes = report.codes();
    let codes: Vec<String> = codes
        .iter()
        .filter(|(code, _)| !expected(code))
        .map(|(code, times)| format!("{times} x {code}"))
        .collect();
    if codes.is_empty() {
        Vec::new()
    } else {
        vec![format!("clients were told {}", codes.join(", "))]
    }
}

/// A line for each.
fn errors(report: &Report) -> String {
    let lines: BTreeMap<String, u64> = report.errors();
    lines.iter().map(|(error, times)| format!("{times:>22} x {error}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(each: &[u64]) -> Vec<Share> {
        let share = |acknowledged| Share { acknowledged, ..Share::default() };
        each.iter().copied().map(share).collect()
    }

    fn broken(each: &[u64], shown: i64) -> usize {
        judge(&shares(each), shown, Duration::from_secs(1), &Report::new()).0.len()
    }

    #[test]
    fn a_client_is_starved_below_half_of_its_share() {
        assert_eq!(broken(&[100, 100, 100], 300), 0);
        assert_eq!(broken(&[60, 130, 110], 300), 0);
        assert_eq!(broken(&[40, 130, 130], 300), 1);
        assert_eq!(broken(&[1, 2, 3], 6), 0, "of a handful of turns");
        assert_eq!(broken(&[0, 0, 0], 0), 1, "nothing was tested");
    }

    #[test]
    fn the_row_holds_what_was_acknowledged_and_at_most_what_is_open_more() {
        assert_eq!(broken(&[10, 10], 19), 1);
        assert_eq!(broken(&[10, 10], 21), 1);
        let mut some = shares(&[10, 10]);
        some[0].open = 1;
        let count = |shown| judge(&some, shown, Duration::from_secs(1), &Report::new()).0.len();
        assert_eq!((count(20), count(21), count(22)), (0, 0, 1));
    }

    #[tokio::test]
    async fn an_error_that_reaches_a_client_breaks_the_promise_whatever_it_asks_for() {
        let report = Report::new();
        let refused = client::SqlError {
            code: "40001".to_string(),
            message: "could not serialize".to_string(),
            detail: String::new(),
            hint: String::new(),
            position: 0,
        };
        after_error(&report, &client::Error::Sql(refused)).await;
        let (broken, _) = judge(&shares(&[9]), 9, Duration::from_secs(1), &report);
        assert_eq!(broken, ["clients were told 1 x 40001"]);
    }
}
