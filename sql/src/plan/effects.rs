//! Value: whether a statement could see its own effects.
//!
//! A statement's queries see the rows as they were before it (PostgreSQL's manual, 7.8.4). That costs nothing where everything is
//! read before anything is written, as in most; the others keep the rows as they were at hand while they run
//! ([`txn::client::Txn::begin_effects`]).

use super::{Expr, Plan, Reach, Target};
use std::collections::BTreeSet;

impl Plan {
    /// Whether anything in it is an INSERT, UPDATE or DELETE.
    pub(crate) fn changes_rows(&self) -> bool {
        matches!(self, Plan::Insert(_) | Plan::Update(_) | Plan::Delete(_))
            || self.inputs().into_iter().any(|(input, _)| input.changes_rows())
    }

    /// Whether it reads a table after it has changed it.
    pub(crate) fn reads_what_it_wrote(&self) -> bool {
        Course::default().meets_own_effects(self)
    }
}

/// What has been changed on the way through a plan, in the order in which it runs.
#[derive(Default)]
struct Course {
    tables: BTreeSet<u32>,
}

impl Course {
    fn meets_own_effects(&mut self, plan: &Plan) -> bool {
        if plan.inputs().into_iter().any(|(input, _)| self.meets_own_effects(input)) {
            return true;
        }
        match plan {
            Plan::Scan(scan) if self.tables.contains(&scan.table.id) => return true,
            Plan::Insert(insert) => {
                self.change(&insert.target, insert.conflict.as_ref().map(|c| &c.reach));
            }
            Plan::Update(update) => self.change(&update.target, Some(&update.reach)),
            Plan::Delete(delete) => self.change(&delete.target, Some(&delete.reach)),
            _ => {}
        }
        let mut queries = Vec::new();
        plan.own_exprs().into_iter().for_each(|expr| collect_queries(expr, &mut queries));
        queries.into_iter().any(|query| self.meets_own_effects(&query))
    }

    /// A change of a row may change those that reference it.
    fn change(&mut self, target: &Target, reach: Option<&Reach>) {
        self.tables.insert(target.table.id);
        self.tables.extend(reach.into_iter().flat_map(|reach| reach.keys()));
    }
}

fn collect_queries(expr: &Expr, queries: &mut Vec<std::sync::Arc<Plan>>) {
    queries.extend(expr.plan().cloned());
    expr.children().into_iter().for_each(|child| collect_queries(child, queries));
}
