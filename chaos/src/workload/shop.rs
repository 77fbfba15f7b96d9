//! Driver: a shop in SQL text: strong tables with indexes, an available table, both in one transaction; INSERT .. ON CONFLICT, UPDATE and
//! DELETE by key, by index and by range; and, while all that goes on, indexes and columns that come and go.
//!
//! Invariants: *whoever looks, every index says what its table says, and no tag is there twice; in the end the sold count of every
//! shelf, in every region's copy, is the number of orders from that shelf, and every acknowledged order is there exactly once.* And of what
//! comes and goes: *a unique index that is there has no two rows of one value, a column that was added has its default in every row, a foreign
//! key that is there has its row, and a table that was just made holds what was put into it since.*

use clock::TimeSource;
use futures::FutureExt;
use parking_lot::Mutex;
use sql::types::Datum;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::copies::Copies;
use super::drive::{Call, Deed, NOBODY, Turn};
use super::persist_on;
use super::sql_client::{Client, Failed, integer, persevere};
use crate::check::RealTime;
use crate::check::file::{Operation, show_looks};
use crate::check::index::{self, Compared, Look};
use crate::history::{Ended, History, Ledger};
use crate::world::access::{Gateway, SharedAccess};
use crate::world::chance::Chance;

const ITEMS: u64 = 12;
const OWNERS: u64 = 4;
const SHELVES: u64 = 3;
const BINS: u64 = 4;
/// How long a client thinks within a transaction, at most.
const THINKS_MAX: Duration = Duration::from_millis(1500);
/// How long a new table is left alone before it is looked at once more.
const SCRATCH_RESTS: Duration = Duration::from_millis(300);

/// At the end.
const LAST_LOOK: Op = Op::Look { thinks: Duration::ZERO };

/// What a client does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Op {
    /// Inserts or overwrites an item.
    Put { item: u64, owner: u64, price: u64 },
    /// Gives all items of one owner to another: through the index.
    Give { from: u64, to: u64 },
    /// Gives two items to an owner, each with a statement of its own, in one transaction, and thinks in between: the schema may change
    /// meanwhile.
    GiveTwo { first: u64, second: u64, owner: u64, thinks: Duration },
    /// Raises prices of a range of items: over the key, and into the index over prices.
    Raise { low: u64, high: u64, by: u64 },
    /// Removes an item.
    Remove { item: u64 },
    /// Removes an owner's cheap items.
    Clear { owner: u64, below: u64 },
    /// Sells one from a shelf: a strong row and an available counter, together.
    Sell { order: u64, shelf: u64 },
    /// Takes a tag for an item, which nobody else may have.
    Tag { item: u64, tag: u64 },
    /// Gives an item a code, which nobody else may have while there is an index over codes.
    Code { item: u64, code: u64 },
    /// Puts a lot into a bin, which must be there while there is a foreign key.
    Fill { lot: u64, bin: u64 },
    /// Makes a bin.
    Bin { bin: u64 },
    /// Removes a bin.
    NoBin { bin: u64 },
    /// Drops a table that only this client uses, makes it again and puts marks into it.
    Scratch { client: u32, mark: u64 },
    /// An index or a column comes or goes.
    Change(Change),
    /// Compares indexes with their tables, and thinks in between.
    Look { thinks: Duration },
}

/// A change of the schema.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// An ordinary index goes, and comes again.
    Index,
    /// It goes.
    NoIndex,
    /// A unique index comes, if there are no two rows of one value.
    Unique,
    /// It goes.
    NotUnique,
    /// A foreign key goes, and comes again.
    Key,
    /// A column with a default comes.
    Column,
    /// It goes.
    NoColumn,
}

impl Change {
    const ALL: [Change; 11] = [
        Change::Index,
        Change::Index,
        Change::Index,
        Change::NoIndex,
        Change::Unique,
        Change::Unique,
        Change::NotUnique,
        Change::Key,
        Change::Key,
        Change::Column,
        Change::NoColumn,
    ];

    fn text(self) -> &'static str {
        match self {
            Change::Index => {
                "DROP INDEX IF EXISTS items_by_owner; \
                 CREATE INDEX IF NOT EXISTS items_by_owner ON items (owner)"
            }
            Change::NoIndex => "DROP INDEX IF EXISTS items_by_owner",
            Change::Unique => "CREATE UNIQUE INDEX IF NOT EXISTS items_by_code ON items (code)",
            Change::NotUnique => "DROP INDEX IF EXISTS items_by_code",
            // What has lost its bin meanwhile would keep the key from coming.
            Change::Key => {
                "ALTER TABLE lots DROP CONSTRAINT IF EXISTS lots_have_bins; \
                 DELETE FROM lots WHERE bin NOT IN (SELECT id FROM bins); \
                 ALTER TABLE lots ADD CONSTRAINT lots_have_bins FOREIGN KEY (bin) REFERENCES bins (id)"
            }
            Change::Column => {
                "ALTER TABLE items ADD COLUMN IF NOT EXISTS shade INT NOT NULL DEFAULT 7"
            }
            Change::NoColumn => "ALTER TABLE items DROP COLUMN IF EXISTS shade",
        }
    }
}

/// The indexes that a look is at.
const INDEXES: [&str; 3] = ["items_by_owner", "items_by_price", "items_by_tag"];

/// What they said, and their table.
type Looked = index::Seen<i64, i64>;

/// How often each shelf was sold from, as a node shows it.
type Sold = BTreeMap<u64, u64>;

/// See the module.
pub struct Shop {
    history: History<Op, ()>,
    /// What indexes said, and their tables.
    looks: History<Look, Looked>,
    /// What an index said that its table did not.
    broken: Mutex<Option<String>>,
    /// Orders with their shelf, at the end.
    orders: Mutex<Vec<(u64, u64)>>,
    sold: Copies<Sold>,
}

impl Default for Shop {
    fn default() -> Shop {
        Shop {
            history: History::default(),
            looks: History::default(),
            broken: Mutex::default(),
            orders: Mutex::default(),
            sold: Copies::new(|gateway| shelves(gateway).boxed()),
        }
    }
}

impl Deed for Shop {
    type Task = Op;
    /// Of a look what was seen, of all else nothing.
    type Answer = Looked;
    type Error = Failed;

    fn name(&self) -> &'static str {
        "shop"
    }

    fn invariant(&self) -> &'static str {
        "in SQL: every index says what its table says, and a strong row and an available counter change together"
    }

    async fn prepare(&self, access: &SharedAccess) -> Result<(), String> {
        let open = |gateway| async move { open(&gateway).await }.boxed();
        persist_on(access, "the shop cannot be opened", open).await?;
        // Every gateway knows the tables, and every copy its rows, before anything fails.
        self.sold.wait_until(access, |shelves| shelves.len() == SHELVES as usize).await
    }

    fn draw(&self, mut turn: Turn<'_>) -> Op {
        draw(turn.client, turn.fresh(20), turn.chance)
    }

    async fn run(self: Arc<Self>, gateway: Gateway, op: Op) -> Result<Looked, Failed> {
        let rest = gateway.runtime.time.clone();
        let result = persevere(&gateway, |client| {
            let (shop, rest) = (self.clone(), rest.clone());
            async move {
                match op {
                    Op::Scratch { client: number, mark } => {
                        scratch(client, &*rest, (number, mark), &shop).await?;
                    }
                    Op::GiveTwo { first, second, owner, thinks } => {
                        give_two(client, (first, second), owner, pause(&*rest, thinks)).await?;
                    }
                    Op::Look { thinks } => {
                        let seen = look(client, &shop, pause(&*rest, thinks)).await?;
                        look_at_rules(client, &shop).await?;
                        return Ok(seen);
                    }
                    _ => run_once(client, op).await?,
                }
                Ok(Looked::new())
            }
            .boxed()
        })
        .await;
        match (op, result) {
            // Nobody else may have the tag: an answer like another.
            (
                Op::Tag { .. } | Op::Code { .. } | Op::Change(Change::Unique),
                Err(Failed::Certain(why)),
            ) if why.starts_with("23505") => Ok(Looked::new()),
            // Nor may the bin be missing.
            (
                Op::Fill { .. } | Op::NoBin { .. } | Op::Change(Change::Key),
                Err(Failed::Certain(why)),
            ) if why.starts_with("23503") => Ok(Looked::new()),
            (_, result) => result,
        }
    }

    fn note(&self, call: Call, op: Op, ended: Ended<Looked>) {
        let done = ended.clone().map(drop);
        self.history.push(call.client, call.asked, call.heard, op, done);
        if matches!(op, Op::Look { .. }) {
            self.note_look(call, ended);
        }
    }

    async fn finish(self: Arc<Self>, access: &SharedAccess) -> Result<(), String> {
        let shop = self.clone();
        let look = move |gateway: Gateway| shop.clone().run(gateway, LAST_LOOK).boxed();
        let asked = access.now();
        let seen = persist_on(access, "the tables cannot be read", look).await?;
        self.note_look(Call { client: NOBODY, asked, heard: access.now() }, Ended::Ok(seen));
        let shop = self.clone();
        let look = move |gateway: Gateway| {
            let shop = shop.clone();
            async move {
                persevere(&gateway, |client| look_at_changes(client, shop.clone()).boxed()).await
            }
            .boxed()
        };
        persist_on(access, "what comes and goes cannot be read", look).await?;
        let read = |gateway| async move { read_orders(&gateway).await }.boxed();
        let orders = persist_on(access, "the orders cannot be read", read).await?;
        *self.orders.lock() = orders;
        self.sold.converge(access).await
    }

    fn operations(&self) -> Vec<Operation> {
        show_looks(&self.looks.records())
    }

    fn check(&self, _real_time: RealTime) -> Result<(), String> {
        if let Some(what) = &*self.broken.lock() {
            return Err(what.clone());
        }
        let last = self.orders.lock();
        let orders: BTreeMap<u64, u64> = last.iter().copied().collect();
        if orders.len() != last.len() {
            return Err(format!("an order is there twice: {last:?}"));
        }
        for record in self.history.records() {
            let Op::Sell { order, shelf } = record.op else { continue };
            match (&record.ended, orders.get(&order)) {
                (Ended::Ok(()), None) => return Err(format!("lost: {record:?}")),
                (Ended::Fail, Some(_)) => {
                    return Err(format!("there though it was said to have failed: {record:?}"));
                }
                (_, Some(found)) if *found != shelf => {
                    return Err(format!("there with shelf {found}: {record:?}"));
                }
                (Ended::Ok(()) | Ended::Fail | Ended::Unknown, _) => {}
            }
        }
        let mut expected: BTreeMap<u64, u64> = (0..SHELVES).map(|shelf| (shelf, 0)).collect();
        for shelf in orders.values() {
            *expected.entry(*shelf).or_default() += 1;
        }
        match self.sold.last().iter().find(|(_, sold)| **sold != expected) {
            None => Ok(()),
            Some((node, sold)) => Err(format!(
                "half of a transaction: {node} counts {sold:?} sold, there are orders {expected:?}"
            )),
        }
    }

    fn ledger(&self) -> &dyn Ledger {
        &self.history
    }
}

fn draw(client: u32, fresh: u64, chance: &mut Chance) -> Op {
    let (item, owner) = (chance.below(ITEMS), chance.below(OWNERS));
    match chance.below(32) {
        0..=3 => Op::Put { item, owner, price: chance.below(50) },
        5..=6 => Op::Give { from: owner, to: chance.below(OWNERS) },
        7..=8 => Op::Raise { low: item, high: item + 3, by: chance.between(1, 9) },
        9 => Op::Remove { item },
        10 => Op::Clear { owner, below: chance.below(40) },
        11..=14 => Op::Sell { order: fresh, shelf: chance.below(SHELVES) },
        15..=16 => Op::Tag { item, tag: chance.below(ITEMS / 2) },
        17..=19 => Op::Code { item, code: chance.below(ITEMS) },
        20..=21 => Op::Fill { lot: fresh, bin: chance.below(BINS) },
        22 => Op::Bin { bin: chance.below(BINS) },
        23 => Op::NoBin { bin: chance.below(BINS) },
        24..=25 => Op::Change(chance.pick(&Change::ALL)),
        26 if chance.permille(500) => Op::Scratch { client, mark: fresh },
        4 | 27 => {
            let (second, thinks) = (chance.below(ITEMS), thinks(chance));
            Op::GiveTwo { first: item, second, owner, thinks }
        }
        _ => Op::Look { thinks: thinks(chance) },
    }
}

/// Mostly not at all, sometimes for longer than a change of the schema takes.
fn thinks(chance: &mut Chance) -> Duration {
    match chance.permille(400) {
        true => chance.duration(Duration::ZERO, THINKS_MAX),
        false => Duration::ZERO,
    }
}

fn pause(time: &dyn TimeSource, duration: Duration) -> impl Future<Output = ()> {
    time.sleep_until(time.monotonic().plus(duration))
}

async fn open(gateway: &Gateway) -> Result<(), Failed> {
    let mut client = Client::connect(gateway)?;
    for text in [
        "CREATE TABLE IF NOT EXISTS items (id INT PRIMARY KEY, owner INT NOT NULL, price INT NOT NULL, tag INT, code INT)",
        "CREATE INDEX IF NOT EXISTS items_by_owner ON items (owner)",
        "CREATE INDEX IF NOT EXISTS items_by_price ON items (price DESC)",
        "CREATE UNIQUE INDEX IF NOT EXISTS items_by_tag ON items (tag)",
        "CREATE TABLE IF NOT EXISTS orders (id BIGINT PRIMARY KEY, shelf INT NOT NULL)",
        "CREATE TABLE IF NOT EXISTS shelves (id INT PRIMARY KEY, sold COUNTER NOT NULL DEFAULT 0) WITH (consistency = 'available')",
        "INSERT INTO shelves (id) VALUES (0), (1), (2) ON CONFLICT (id) DO NOTHING",
        "CREATE TABLE IF NOT EXISTS bins (id INT PRIMARY KEY)",
        "CREATE TABLE IF NOT EXISTS lots (id BIGINT PRIMARY KEY, bin INT NOT NULL CONSTRAINT lots_have_bins REFERENCES bins (id))",
    ] {
        client.run(text).await?;
    }
    client.close().await;
    Ok(())
}

async fn run_once(client: &mut Client, op: Op) -> Result<(), Failed> {
    let text = match op {
        Op::Put { item, owner, price } => format!(
            "INSERT INTO items (id, owner, price) VALUES ({item}, {owner}, {price}) \
             ON CONFLICT (id) DO UPDATE SET owner = excluded.owner, price = items.price + 1"
        ),
        Op::Give { from, to } => format!("UPDATE items SET owner = {to} WHERE owner = {from}"),
        Op::Raise { low, high, by } => {
            format!("UPDATE items SET price = price + {by} WHERE id >= {low} AND id < {high}")
        }
        Op::Remove { item } => format!("DELETE FROM items WHERE id = {item}"),
        Op::Clear { owner, below } => {
            format!("DELETE FROM items WHERE owner = {owner} AND price < {below}")
        }
        Op::Tag { item, tag } => format!("UPDATE items SET tag = {tag} WHERE id = {item}"),
        Op::Sell { order, shelf } => {
            client.run("BEGIN").await?;
            client.run(&format!("INSERT INTO orders VALUES ({order}, {shelf})")).await?;
            client.run(&format!("UPDATE shelves SET sold = sold + 1 WHERE id = {shelf}")).await?;
            "COMMIT".to_string()
        }
        Op::Code { item, code } => format!("UPDATE items SET code = {code} WHERE id = {item}"),
        Op::Fill { lot, bin } => format!("INSERT INTO lots VALUES ({lot}, {bin})"),
        Op::Bin { bin } => format!("INSERT INTO bins VALUES ({bin}) ON CONFLICT (id) DO NOTHING"),
        Op::NoBin { bin } => format!("DELETE FROM bins WHERE id = {bin}"),
        Op::Change(change) => {
            for text in change.text().split(';') {
                client.run(text).await?;
            }
            return Ok(());
        }
        // These are more than a statement.
        Op::Look { .. } | Op::GiveTwo { .. } | Op::Scratch { .. } => return Ok(()),
    };
    client.run(&text).await.map(|_| ())
}

async fn give_two(
    client: &mut Client,
    (first, second): (u64, u64),
    owner: u64,
    pause: impl Future<Output = ()>,
) -> Result<(), Failed> {
    client.run("BEGIN").await?;
    client.run(&format!("UPDATE items SET owner = {owner} WHERE id = {first}")).await?;
    pause.await;
    client.run(&format!("UPDATE items SET owner = {owner} WHERE id = {second}")).await?;
    client.run("COMMIT").await.map(|_| ())
}

/// Reads the table and each index in one transaction, and notes any difference: it is judged only once the transaction has ended well.
async fn look(
    client: &mut Client,
    shop: &Arc<Shop>,
    pause: impl Future<Output = ()>,
) -> Result<Looked, Failed> {
    client.run("BEGIN").await?;
    let table = client.run("SELECT id, owner, price, tag FROM items ORDER BY id").await?;
    pause.await;
    let column = |place: usize| -> Result<Vec<(i64, i64)>, Failed> {
        let with = table.iter().filter(|row| row[place] != Datum::Null);
        with.map(|row| Ok((integer(&row[0])?, integer(&row[place])?))).collect()
    };
    let (owners, prices, tags) = (column(1)?, column(2)?, column(3)?);
    let mut by_owner = Vec::new();
    for owner in 0..OWNERS {
        let rows =
            client.run(&format!("SELECT id, owner FROM items WHERE owner = {owner}")).await?;
        by_owner.extend(pairs(&rows)?);
    }
    let mut by_price = Vec::new();
    for price in prices.iter().map(|(_, price)| *price).collect::<BTreeSet<i64>>() {
        let rows =
            client.run(&format!("SELECT id, price FROM items WHERE price = {price}")).await?;
        by_price.extend(pairs(&rows)?);
    }
    let (mut by_tag, mut twice) = (Vec::new(), None);
    for tag in 0..ITEMS / 2 {
        let rows = client.run(&format!("SELECT id, tag FROM items WHERE tag = {tag}")).await?;
        if rows.len() > 1 {
            twice = Some(format!("tag {tag} is there {} times", rows.len()));
        }
        by_tag.extend(pairs(&rows)?);
    }
    client.run("COMMIT").await?;
    twice.into_iter().for_each(|what| shop.note(what));
    let both = [(owners, by_owner), (prices, by_price), (tags, by_tag)];
    let seen: Looked = both.map(|(table, index)| Compared { table, index }).into();
    for (name, Compared { table, index }) in INDEXES.iter().zip(&seen) {
        if let Err(what) = index::check(name, table, index) {
            shop.note(what);
        }
    }
    Ok(seen)
}

/// A table that has just been made holds what was put into it, and keeps it.
async fn scratch(
    client: &mut Client,
    time: &dyn TimeSource,
    (number, mark): (u32, u64),
    shop: &Shop,
) -> Result<(), Failed> {
    client.run(&format!("DROP TABLE IF EXISTS scratch_{number}")).await?;
    client.run(&format!("CREATE TABLE scratch_{number} (id INT PRIMARY KEY, mark BIGINT)")).await?;
    // As many as the mark says: what another life of the table held would show.
    let count = mark % 4 + 1;
    let rows: Vec<String> = (0..count).map(|id| format!("({id}, {mark})")).collect();
    client.run(&format!("INSERT INTO scratch_{number} VALUES {}", rows.join(", "))).await?;
    let expected: Vec<(i64, i64)> = (0..count).map(|id| (id as i64, mark as i64)).collect();
    for _ in 0..2 {
        let rows =
            client.run(&format!("SELECT id, mark FROM scratch_{number} ORDER BY id")).await?;
        let found = pairs(&rows)?;
        if found != expected {
            shop.note(format!("a new table was given {expected:?} and has {found:?}"));
        }
        pause(time, SCRATCH_RESTS).await;
    }
    Ok(())
}

/// What a rule forbids is not there while the rule is: neither two rows of one code, nor a lot without its bin. A rule that has the same
/// number before and after was there all the time: whoever reads under another schema than the ranges know is refused.
async fn look_at_rules(client: &mut Client, shop: &Shop) -> Result<(), Failed> {
    let unique = "SELECT i.indexrelid::bigint, 0 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid \
                  WHERE c.relname = 'items_by_code' AND i.indisvalid";
    let key = "SELECT oid::bigint, 0 FROM pg_constraint WHERE conname = 'lots_have_bins'";
    let orphans = "SELECT lots.id, lots.bin FROM lots LEFT JOIN bins ON bins.id = lots.bin \
                   WHERE bins.id IS NULL ORDER BY lots.id";
    let codes = "SELECT id, code FROM items WHERE code IS NOT NULL ORDER BY id";
    for (rule, forbidden) in [(unique, codes), (key, orphans)] {
        let before = pairs(&client.run(rule).await?)?;
        let found = pairs(&client.run(forbidden).await?)?;
        let broken = match rule == unique {
            true => {
                let values: BTreeSet<i64> = found.iter().map(|(_, code)| *code).collect();
                values.len() < found.len()
            }
            false => !found.is_empty(),
        };
        if broken && !before.is_empty() && before == pairs(&client.run(rule).await?)? {
            shop.note(format!("while there was {before:?} of \"{rule}\": {found:?}"));
        }
    }
    Ok(())
}

/// Looks at what comes and goes, when nothing does any more: the unique index, if it is there, and the column.
async fn look_at_changes(client: &mut Client, shop: Arc<Shop>) -> Result<(), Failed> {
    look_at_rules(client, &shop).await?;
    let table = client.run("SELECT id, code FROM items ORDER BY id").await?;
    let with: Vec<Vec<Datum>> = table.into_iter().filter(|row| row[1] != Datum::Null).collect();
    let table = pairs(&with)?;
    let codes: BTreeSet<i64> = table.iter().map(|(_, code)| *code).collect();
    let mut by_code = Vec::new();
    for code in codes {
        let rows = client.run(&format!("SELECT id, code FROM items WHERE code = {code}")).await?;
        by_code.extend(pairs(&rows)?);
    }
    if let Err(what) = index::check("items_by_code", &table, &by_code) {
        shop.note(what);
    }
    match client.run("SELECT id, shade FROM items").await {
        Ok(rows) => {
            let shades = pairs(&rows)?;
            if let Some(row) = shades.iter().find(|(_, shade)| *shade != 7) {
                shop.note(format!("a column was added with its default 7, and there is {row:?}"));
            }
        }
        // It is not there.
        Err(Failed::Certain(why)) if why.starts_with("42703") => {}
        Err(failed) => return Err(failed),
    }
    Ok(())
}

impl Shop {
    fn note_look(&self, Call { client, asked, heard }: Call, ended: Ended<Looked>) {
        self.looks.push(client, asked, heard, INDEXES.map(String::from).into(), ended);
    }

    fn note(&self, what: String) {
        self.broken.lock().get_or_insert(what);
    }
}

fn pairs(rows: &[Vec<Datum>]) -> Result<Vec<(i64, i64)>, Failed> {
    rows.iter().map(|row| Ok((integer(&row[0])?, integer(&row[1])?))).collect()
}

async fn read_orders(gateway: &Gateway) -> Result<Vec<(u64, u64)>, Failed> {
    let mut client = Client::connect(gateway)?;
    let rows = client.run("SELECT id, shelf FROM orders ORDER BY id").await;
    client.close().await;
    let orders = pairs(&rows?)?;
    Ok(orders.into_iter().map(|(id, shelf)| (id as u64, shelf as u64)).collect())
}

async fn shelves(gateway: Gateway) -> Result<Sold, Failed> {
    let mut client = Client::connect(&gateway)?;
    let rows = client.run("SELECT id, sold FROM shelves ORDER BY id").await;
    client.close().await;
    let shelves = pairs(&rows?)?;
    Ok(shelves.into_iter().map(|(id, sold)| (id as u64, sold as u64)).collect())
}
