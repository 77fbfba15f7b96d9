//! Driver: the assertion `converged` on real nodes, as far as it can be seen from outside: every node takes a write, every range is led
//! (and, of processes of ours, has its replicas where they should be, each with a vote), and the copies of available tables are equal.
//!
//! Copies that are written all the time are never equal at one moment. So the clients of available tables rest while they are compared; a
//! row written through each node proves that what was written there arrives everywhere.

use ::chaos::check::convergence::check_copies;
use ::chaos::script::NodeId;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

use super::live::{Live, Loading, TRY_PAUSE, sleep};
use crate::backend::Answer;
use crate::processes::is_ready;
use crate::workload::load::Hold;

/// One look at one copy.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// Shows the rows that were written through each node.
const MARKS: &str = "SELECT id FROM chaos_copies ORDER BY id";

/// The rows of an answer.
type Rows = Vec<Vec<Option<String>>>;

impl Live {
    /// See the module.
    pub(super) async fn converges(
        &self,
        within: Duration,
        loadings: &[Loading],
    ) -> Result<(), String> {
        let begun = Instant::now();
        let left = || within.saturating_sub(begun.elapsed());
        for node in self.nodes.keys() {
            self.until_it_writes(*node, left()).await?;
        }
        self.all_led(left()).await?;
        self.all_placed(left()).await?;
        self.copies_become_equal(left(), loadings).await
    }

    /// Every range has a leaseholder.
    async fn all_led(&self, within: Duration) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            let ranges = self.anywhere("SHOW RANGES").await?;
            let place =
                |answer: &Answer| answer.columns.iter().position(|name| name == "leaseholder");
            let leaderless = ranges.iter().any(|answer| {
                place(answer).is_none_or(|place| {
                    answer.rows.iter().any(|row| row[place].as_deref().unwrap_or("").is_empty())
                })
            });
            if !leaderless {
                return Ok(());
            }
            if begun.elapsed() > within {
                return Err(format!("a range has no leaseholder after {within:?}"));
            }
            sleep(TRY_PAUSE).await;
        }
    }

    /// Every node of ours says that the ranges it leads have all their replicas, each with a vote.
    async fn all_placed(&self, within: Duration) -> Result<(), String> {
        let Some(processes) = &self.processes else { return Ok(()) };
        let begun = Instant::now();
        let among = Some(processes.members.len());
        let unsettled = || processes.members.iter().find(|member| !is_ready(member.http, among));
        while let Some(member) = unsettled() {
            if begun.elapsed() > within {
                return Err(format!(
                    "a range led by {} has a replica too few, too many, or without a vote after {within:?}",
                    member.name()
                ));
            }
            sleep(TRY_PAUSE).await;
        }
        Ok(())
    }

    /// What was written through each node arrives everywhere; then workloads' copies, at rest, become equal.
    async fn copies_become_equal(
        &self,
        within: Duration,
        loadings: &[Loading],
    ) -> Result<(), String> {
        let begun = Instant::now();
        let mut marks = BTreeMap::new();
        loop {
            let looked = match self.mark(&mut marks).await {
                Ok(()) => self.compare(&[MARKS], &marks).await,
                Err(why) => Err(why),
            };
            let Err(why) = looked else { break };
            pause_within(begun, within, &why).await?;
        }
        let available: Vec<&Loading> =
            loadings.iter().filter(|loading| loading.load.copy().is_some()).collect();
        let _rest: Vec<Hold<'_>> = available.iter().map(|loading| loading.run.hold()).collect();
        let queries: Vec<&str> =
            available.iter().filter_map(|loading| loading.load.copy()).collect();
        while let Err(why) = self.compare(&queries, &marks).await {
            pause_within(begun, within, &why).await?;
        }
        Ok(())
    }

    /// Writes a row through each node that has none among `marks`.
    async fn mark(&self, marks: &mut BTreeMap<NodeId, String>) -> Result<(), String> {
        for node in
            self.nodes.keys().filter(|node| !marks.contains_key(*node)).copied().collect::<Vec<_>>()
        {
            // Another one for each try: nobody knows what became of the one before.
            let id = self.marks.fetch_add(1, Ordering::Relaxed);
            self.look(node, &format!("INSERT INTO chaos_copies VALUES ({id})")).await?;
            marks.insert(node, id.to_string());
        }
        Ok(())
    }

    /// Every node shows the same, and the marks.
    async fn compare(
        &self,
        queries: &[&str],
        marks: &BTreeMap<NodeId, String>,
    ) -> Result<(), String> {
        for query in queries {
            let mut copies: BTreeMap<NodeId, Rows> = BTreeMap::new();
            for node in self.nodes.keys() {
                let answers = self.look(*node, query).await?;
                let rows = answers.into_iter().next().unwrap_or_default().rows;
                let shows = |id: &String| rows.iter().any(|row| row[0].as_ref() == Some(id));
                let lacks = marks.iter().find(|(_, id)| *query == MARKS && !shows(id));
                if let Some((from, _)) = lacks {
                    return Err(format!("what was written through {from} is not at {node}"));
                }
                copies.insert(*node, rows);
            }
            check_copies(&copies).map_err(|why| format!("{query}: {why}"))?;
        }
        Ok(())
    }

    async fn look(&self, node: NodeId, sql: &str) -> Result<Vec<Answer>, String> {
        let answer = tokio::time::timeout(LOOK_WITHIN, self.ask_own(node, sql)).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {LOOK_WITHIN:?}")));
        answer.map_err(|why| format!("{node}: {why}"))
    }
}

/// A pause, if there is time for another look.
async fn pause_within(begun: Instant, within: Duration, why: &str) -> Result<(), String> {
    if begun.elapsed() > within {
        return Err(format!("copies are not equal after {within:?}: {why}"));
    }
    sleep(TRY_PAUSE).await;
    Ok(())
}
