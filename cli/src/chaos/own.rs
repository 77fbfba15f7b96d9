//! Driver: the database that a script's tables are in. It is the script's own, so that nothing of anybody else's is touched, and it goes
//! when the script ends.

use std::time::Duration;
use tokio::time::Instant;

use super::live::{Live, TRY_PAUSE, sleep};

/// Its name.
pub(super) const DATABASE: &str = "meridian_chaos";
/// Every node has heard of it, or has removed it, by then.
const KNOWN_WITHIN: Duration = Duration::from_secs(60);

impl Live {
    /// Makes it, and waits until every node lets clients in. The error: among others, that there is one already.
    pub(super) async fn make_own(&self) -> Result<(), String> {
        let made = self.anywhere(&format!("CREATE DATABASE {DATABASE}")).await;
        made.map_err(|why| {
            if !why.contains("already exists") {
                return why;
            }
            format!(
                "database {DATABASE} is there already: another script runs, or one was killed before it could remove it (then: DROP DATABASE {DATABASE})"
            )
        })?;
        let prepared = self.prepare_own().await;
        if prepared.is_err() {
            self.remove_own().await?;
        }
        prepared
    }

    async fn prepare_own(&self) -> Result<(), String> {
        let begun = Instant::now();
        for node in self.nodes.keys() {
            while let Err(why) = self.ask_own(*node, "SELECT 1").await {
                if begun.elapsed() > KNOWN_WITHIN {
                    return Err(format!("{node} lets nobody into {DATABASE}: {why}"));
                }
                sleep(TRY_PAUSE).await;
            }
        }
        let first = *self.nodes.keys().next().ok_or("there is no node")?;
        for table in [
            "chaos_probe (id int PRIMARY KEY, n bigint)",
            "chaos_copies (id bigint PRIMARY KEY) WITH (consistency = 'available')",
        ] {
            self.ask_own(first, &format!("CREATE TABLE {table}")).await?;
        }
        Ok(())
    }

    /// Removes it with everything in it.
    pub(super) async fn remove_own(&self) -> Result<(), String> {
        let begun = Instant::now();
        while let Err(why) = self.anywhere(&format!("DROP DATABASE IF EXISTS {DATABASE}")).await {
            if begun.elapsed() > KNOWN_WITHIN {
                return Err(format!("the script's database could not be removed: {why}"));
            }
            sleep(TRY_PAUSE).await;
        }
        Ok(())
    }
}
