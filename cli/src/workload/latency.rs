//! Driver: how long a statement takes, beside how long it must: measured / floor, for each gateway.
//!
//! The floor is arithmetic on round trips that the nodes themselves have measured (`SHOW CLOCKS`): with `g` the gateway, `L` the
//! leaseholder and `q` the round trip from `L` to the last voter of its nearest quorum,
//!
//! | statement | floor |
//! |---|---|
//! | strong read | RTT(g, L) |
//! | strong write | RTT(g, L) + q |
//! | update of a row that is not known at the gateway | 2 RTT(g, L) + q: it is read, then written |
//! | block of three inserts over three ranges | 4 RTT(g, L) + q: each insert finds out whether its row is there, then the commit |
//! | available read or write | 0: the region's own nodes |
//!
//! One statement at a time, nothing else is asked meanwhile: this is latency, not throughput. What a floor of zero leaves is the work itself.

use clap::Args;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

use super::load::Hosts;
use super::{Client, Manner, set_up_statement};
use crate::backend::Answer;
use crate::url::{DEFAULT_URL, Url};

/// Statements before those that count: connections, caches and plans are made.
const WARM_UP: u32 = 3;
/// Seeds of row keys per statement and gateway.
const KEYS_PER_KIND: u64 = 1_000_000;

/// Latency of single statements against their floor.
#[derive(Args)]
pub(crate) struct LatencyArguments {
    /// Where to connect; every host is measured as a gateway.
    #[arg(long, default_value = DEFAULT_URL)]
    url: String,
    /// Measurements of each statement.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    times: u32,
    /// Fail if a strong write's median is above so many times its floor (0: report only).
    #[arg(long, default_value_t = 0.0)]
    ratio_max: f64,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    StrongRead,
    StrongWrite,
    StrongUpdate,
    ThreeRanges,
    AvailableRead,
    AvailableWrite,
}

impl Kind {
    const ALL: [Kind; 6] = [
        Kind::StrongRead,
        Kind::StrongWrite,
        Kind::StrongUpdate,
        Kind::ThreeRanges,
        Kind::AvailableRead,
        Kind::AvailableWrite,
    ];

    fn name(self) -> &'static str {
        match self {
            Kind::StrongRead => "strong read",
            Kind::StrongWrite => "strong write, one range",
            Kind::StrongUpdate => "strong update, one range",
            Kind::ThreeRanges => "block over three ranges",
            Kind::AvailableRead => "available read",
            Kind::AvailableWrite => "available write",
        }
    }

    /// Round trips from the gateway to the leaseholder, and rounds of consensus.
    fn rounds(self) -> (u32, u32) {
        match self {
            Kind::StrongRead => (1, 0),
            Kind::StrongWrite => (1, 1),
            Kind::StrongUpdate => (2, 1),
            Kind::ThreeRanges => (4, 1),
            Kind::AvailableRead | Kind::AvailableWrite => (0, 0),
        }
    }

    fn sql(self, key: u64) -> String {
        match self {
            Kind::StrongRead => "SELECT v FROM latency_a WHERE k = 0".to_string(),
            Kind::StrongWrite => format!("INSERT INTO latency_a VALUES ({key}, 1)"),
            Kind::StrongUpdate => "UPDATE latency_a SET v = v + 1 WHERE k = 0".to_string(),
            Kind::ThreeRanges => format!(
                "BEGIN; INSERT INTO latency_a VALUES ({key}, 1); INSERT INTO latency_b VALUES ({key}, 1); \
                 INSERT INTO latency_c VALUES ({key}, 1); COMMIT"
            ),
            Kind::AvailableRead => "SELECT v FROM latency_available WHERE k = 0".to_string(),
            Kind::AvailableWrite => format!("INSERT INTO latency_available VALUES ({key}, 1)"),
        }
    }
}

/// A gateway and what it knows of the others.
struct Gateway {
    node: String,
    region: String,
    round_trips: BTreeMap<String, Duration>,
    client: Client,
}

/// Where a table's range is.
struct Place {
    leaseholder: String,
    voters: Vec<String>,
}

/// Measures; prints a line per statement and gateway. The error says which one is above `ratio_max`.
pub(crate) async fn run(arguments: &LatencyArguments) -> Result<(), String> {
    let hosts = Hosts::new(Url::parse(&arguments.url)?, Manner::Stays);
    let mut admin = hosts.admin();
    prepare(&mut admin).await?;
    let mut gateways = Vec::new();
    for host in 0..hosts.count() {
        gateways.push(Gateway::look(hosts.client_of(host)).await?);
    }
    let mut places = Vec::new();
    for table in ["latency_a", "latency_b", "latency_c"] {
        places.push(Place::of(&mut admin, table).await?);
    }
    let matrix: BTreeMap<String, BTreeMap<String, Duration>> =
        gateways.iter().map(|one| (one.node.clone(), one.round_trips.clone())).collect();
    let leaders: Vec<&str> = places.iter().map(|place| place.leaseholder.as_str()).collect();
    println!(
        "{} measurements each; leaseholders of the three ranges: {}",
        arguments.times,
        leaders.join(", ")
    );
    println!(
        "{:<28} {:<18} {:>9} {:>10} {:>9} {:>16}",
        "statement", "gateway", "floor ms", "median ms", "p95 ms", "measured / floor"
    );
    let mut above = Vec::new();
    for (number, gateway) in gateways.iter_mut().enumerate() {
        for (order, kind) in Kind::ALL.into_iter().enumerate() {
            let floor = floor(kind, &gateway.node, &places, &matrix);
            let first = KEYS_PER_KIND * (1 + (number * Kind::ALL.len() + order) as u64);
            let times = gateway.measure(kind, first, arguments.times).await?;
            let (median, p95) = (quantile(&times, 50), quantile(&times, 95));
            let ratio = floor
                .filter(|floor| !floor.is_zero())
                .map(|floor| median.as_secs_f64() / floor.as_secs_f64());
            println!(
                "{:<28} {:<18} {:>9} {:>10.2} {:>9.2} {:>16}",
                kind.name(),
                format!("{} {}", gateway.node, gateway.region),
                floor.map_or("unknown".to_string(), |floor| format!("{:.2}", ms(floor))),
                ms(median),
                ms(p95),
                ratio.map_or("-".to_string(), |ratio| format!("{ratio:.3}")),
            );
            let is_write = matches!(kind, Kind::StrongWrite | Kind::ThreeRanges);
            if let Some(ratio) = ratio.filter(|ratio| {
                is_write && arguments.ratio_max > 0.0 && *ratio > arguments.ratio_max
            }) {
                above.push(format!("{} at {}: {ratio:.3}", kind.name(), gateway.node));
            }
        }
    }
    if above.is_empty() {
        Ok(())
    } else {
        Err(format!("above {} times the floor: {}", arguments.ratio_max, above.join("; ")))
    }
}

async fn prepare(admin: &mut Client) -> Result<(), String> {
    for table in ["latency_a", "latency_b", "latency_c", "latency_available"] {
        let mode =
            if table == "latency_available" { " WITH (consistency = 'available')" } else { "" };
        set_up_statement(admin, &format!("DROP TABLE IF EXISTS {table}")).await?;
        set_up_statement(
            admin,
            &format!(
                "CREATE TABLE IF NOT EXISTS {table} (k bigint PRIMARY KEY, v bigint NOT NULL){mode}"
            ),
        )
        .await?;
        set_up_statement(
            admin,
            &format!("INSERT INTO {table} VALUES (0, 0) ON CONFLICT DO NOTHING"),
        )
        .await?;
    }
    Ok(())
}

impl Gateway {
    /// Who the host is, and how far the others are.
    async fn look(mut client: Client) -> Result<Gateway, String> {
        let answer = one(&mut client, "SHOW CLOCKS").await?;
        let (node, region, trip) = (
            column(&answer, "node")?,
            column(&answer, "region")?,
            column(&answer, "round_trip_us")?,
        );
        let (mut own, mut round_trips) = (None, BTreeMap::new());
        for row in &answer.rows {
            let name = row[node].clone().unwrap_or_default();
            let Some(micros) = row[trip].as_ref().and_then(|text| text.parse::<u64>().ok()) else {
                continue;
            };
            if micros == 0 {
                own = Some((name.clone(), row[region].clone().unwrap_or_default()));
            }
            round_trips.insert(name, Duration::from_micros(micros));
        }
        let (node, region) = own.ok_or("SHOW CLOCKS does not say which node this is")?;
        Ok(Gateway { node, region, round_trips, client })
    }

    async fn measure(
        &mut self,
        kind: Kind,
        first: u64,
        times: u32,
    ) -> Result<Vec<Duration>, String> {
        let mut measured = Vec::with_capacity(times as usize);
        for turn in 0..WARM_UP + times {
            let sql = kind.sql(first + u64::from(turn));
            let begun = Instant::now();
            let outcome = self.client.query(&sql).await;
            let took = begun.elapsed();
            outcome.map_err(|error| format!("{sql}: {error}"))?;
            if turn >= WARM_UP {
                measured.push(took);
            }
        }
        measured.sort_unstable();
        Ok(measured)
    }
}

impl Place {
    async fn of(admin: &mut Client, table: &str) -> Result<Place, String> {
        let answer = one(admin, &format!("SHOW RANGES FROM TABLE {table}")).await?;
        let (leaseholder, replicas) =
            (column(&answer, "leaseholder")?, column(&answer, "replicas")?);
        let row = answer.rows.first().ok_or_else(|| format!("{table} has no range"))?;
        let voters = row[replicas].clone().unwrap_or_default();
        Ok(Place {
            leaseholder: row[leaseholder]
                .clone()
                .ok_or_else(|| format!("{table} has no leaseholder"))?,
            voters: voters.split(", ").map(str::to_string).collect(),
        })
    }

    /// From the leaseholder to the last voter of its nearest quorum.
    fn quorum(&self, matrix: &BTreeMap<String, BTreeMap<String, Duration>>) -> Option<Duration> {
        let from = matrix.get(&self.leaseholder)?;
        let others = self.voters.iter().filter(|voter| **voter != self.leaseholder);
        let mut trips: Vec<Duration> =
            others.filter_map(|voter| from.get(voter).copied()).collect();
        trips.sort_unstable();
        // With itself a majority: of three voters one other, of five two.
        let needed = self.voters.len() / 2;
        if needed == 0 { Some(Duration::ZERO) } else { trips.get(needed - 1).copied() }
    }
}

/// `None`: a round trip in it was not measured (its node is not among the hosts).
fn floor(
    kind: Kind,
    gateway: &str,
    places: &[Place],
    matrix: &BTreeMap<String, BTreeMap<String, Duration>>,
) -> Option<Duration> {
    let (trips, rounds) = kind.rounds();
    let places = if kind == Kind::ThreeRanges { places } else { &places[..1] };
    let of = |place: &Place| {
        let to = matrix.get(gateway)?.get(&place.leaseholder)?;
        let quorum = if rounds > 0 { place.quorum(matrix)? } else { Duration::ZERO };
        Some(*to * trips + quorum * rounds)
    };
    let floors: Option<Vec<Duration>> = places.iter().map(of).collect();
    floors?.into_iter().max()
}

async fn one(client: &mut Client, sql: &str) -> Result<Answer, String> {
    let answers = client.query(sql).await.map_err(|error| format!("{sql}: {error}"))?;
    answers.into_iter().next().ok_or_else(|| format!("{sql}: no answer"))
}

fn column(answer: &Answer, name: &str) -> Result<usize, String> {
    let place = answer.columns.iter().position(|column| column == name);
    place.ok_or_else(|| format!("there is no column {name}: the cluster is of another version"))
}

/// Of sorted times.
fn quantile(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() - 1) * percent / 100]
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_way_to_the_leaseholder_and_its_nearest_quorum() {
        let trip = Duration::from_millis;
        let row = |a, b, c| {
            BTreeMap::from([
                ("n1".to_string(), trip(a)),
                ("n2".to_string(), trip(b)),
                ("n3".to_string(), trip(c)),
            ])
        };
        let matrix = BTreeMap::from([
            ("n1".to_string(), row(0, 80, 200)),
            ("n2".to_string(), row(80, 0, 120)),
            ("n3".to_string(), row(200, 120, 0)),
        ]);
        let place = |leaseholder: &str| Place {
            leaseholder: leaseholder.to_string(),
            voters: ["n1", "n2", "n3"].map(str::to_string).to_vec(),
        };
        let near = [place("n1"), place("n1"), place("n3")];
        let floor_of = |kind, gateway| floor(kind, gateway, &near, &matrix);
        assert_eq!(floor_of(Kind::StrongRead, "n1"), Some(trip(0)));
        assert_eq!(floor_of(Kind::StrongWrite, "n1"), Some(trip(80)));
        assert_eq!(floor_of(Kind::StrongWrite, "n3"), Some(trip(280)));
        assert_eq!(floor_of(Kind::StrongUpdate, "n2"), Some(trip(240)));
        assert_eq!(floor_of(Kind::ThreeRanges, "n1"), Some(trip(4 * 200 + 120)));
        assert_eq!(floor_of(Kind::AvailableWrite, "n2"), Some(trip(0)));
        assert_eq!(floor(Kind::StrongWrite, "n9", &near, &matrix), None);
    }

    #[test]
    fn quantiles_of_few() {
        let times: Vec<Duration> = (1..=20).map(Duration::from_millis).collect();
        assert_eq!(
            (quantile(&times, 50), quantile(&times, 95)),
            (Duration::from_millis(10), Duration::from_millis(19))
        );
        assert_eq!(quantile(&times[..1], 95), Duration::from_millis(1));
    }
}
