//! Value: plans. A tree of operators over rows; each operator's output columns are positions, and no rewriting ever changes
//! them, so that expressions above stay true.
//!
//! ```text
//!   bind ──► logical tree (scans read everything, joins are nested loops, filters on top)
//!        ──► optimise: filters move down, scans get an access path and a limit, joins a method
//! ```

pub(crate) mod access;
mod effects;
pub(crate) mod explain;
pub(crate) mod expr;
pub(crate) mod optimise;

pub(crate) use access::{Access, KeyPart, Limit as Edge};
pub(crate) use expr::{
    Callee, Cast, Code, Comparison, Deferred, DeferredKind, Expr, Extreme, Placeholder, Quantified,
    Test,
};

use crate::catalog::{Edition, TableDescriptor};
use crate::outcome::Column;
use crate::pg_catalog::VirtualTable;
use crate::types::Type;
use std::sync::Arc;
use txn::api::Lock;
use txn::client::OnLock;

/// An operator with its inputs.
#[derive(Clone, Debug)]
pub(crate) enum Plan {
    /// Rows of expressions. One row without columns is what SELECT without FROM reads.
    Values(Vec<Vec<Expr>>),
    /// A table.
    Scan(Box<Scan>),
    /// A table of the system catalogs.
    Virtual(VirtualScan),
    /// A function that gives rows.
    Function(FunctionScan),
    /// Rows for which the predicate is true.
    Filter {
        /// Input.
        input: Box<Plan>,
        /// Condition.
        predicate: Expr,
    },
    /// Computed columns.
    Project {
        /// Input.
        input: Box<Plan>,
        /// Output columns.
        exprs: Vec<Expr>,
    },
    /// Functions that give rows, in lock-step for each input row: appends a column for each.
    ProjectSet {
        /// Input.
        input: Box<Plan>,
        /// The calls; of rows of several columns the field taken (`(f(x)).n`), or all as a record.
        calls: Vec<(SetCall, Option<usize>)>,
    },
    /// A join. Output: left columns, right columns.
    Join(Box<Join>),
    /// Groups. Output: group keys, aggregates.
    Aggregate {
        /// Input.
        input: Box<Plan>,
        /// Keys; none: one group, even without rows, unless `grouped`.
        keys: Vec<Expr>,
        /// GROUP BY was written.
        grouped: bool,
        /// Aggregates.
        aggregates: Vec<AggregateCall>,
    },
    /// Window functions: appends columns to the input.
    Window {
        /// Input.
        input: Box<Plan>,
        /// Functions.
        windows: Vec<WindowCall>,
    },
    /// Rows that differ in the keys (all columns if none); the first of each.
    Distinct {
        /// Input.
        input: Box<Plan>,
        /// Keys.
        keys: Option<Vec<Expr>>,
    },
    /// Order.
    Sort {
        /// Input.
        input: Box<Plan>,
        /// By.
        keys: Vec<SortKey>,
    },
    /// LIMIT and OFFSET.
    Limit {
        /// Input.
        input: Box<Plan>,
        /// At most; NULL: all.
        limit: Option<Expr>,
        /// Leaving out.
        offset: Option<Expr>,
    },
    /// UNION, EXCEPT, INTERSECT.
    SetOperation {
        /// Which.
        operator: SetOperator,
        /// ALL.
        all: bool,
        /// Left.
        left: Box<Plan>,
        /// Right.
        right: Box<Plan>,
    },
    /// WITH.
    With {
        /// Each computed at most once, in order.
        tables: Vec<(usize, Arc<CommonTable>)>,
        /// What reads them.
        input: Box<Plan>,
    },
    /// Rows of a WITH query.
    Common(usize),
    /// INSERT.
    Insert(Box<Insert>),
    /// UPDATE.
    Update(Box<Update>),
    /// DELETE.
    Delete(Box<Delete>),
}

/// A WITH query.
#[derive(Clone, Debug)]
pub(crate) struct CommonTable {
    /// Its rows, or its non-recursive term.
    pub plan: Plan,
    /// Its recursive term, which reads `Common(id)` as the rows of the last round; and whether it is UNION ALL.
    pub recursive: Option<(Plan, bool)>,
}

/// Reading a table.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    /// Which. Output: all its columns, by place.
    pub table: Arc<TableDescriptor>,
    /// By which way.
    pub access: Access,
    /// Rows to leave out.
    pub filter: Option<Expr>,
    /// Lock to take.
    pub lock: Option<Lock>,
    /// About others' locks.
    pub on_lock: OnLock,
    /// Largest keys first.
    pub backward: bool,
    /// How many rows will be asked for at most.
    pub limit: Option<Expr>,
}

/// Reading a table of the system catalogs.
#[derive(Clone, Debug)]
pub(crate) struct VirtualScan {
    /// Which.
    pub table: &'static VirtualTable,
    /// `column = value` that the rows must satisfy anyway.
    pub equals: Option<(usize, Expr)>,
}

/// A function that gives rows, in FROM.
#[derive(Clone, Debug)]
pub(crate) struct FunctionScan {
    /// In lock-step; the shorter ones are filled up with NULL.
    pub functions: Vec<SetCall>,
    /// A last column that counts from 1.
    pub ordinality: bool,
}

/// A call that gives rows.
#[derive(Clone, Debug)]
pub(crate) struct SetCall {
    /// Which.
    pub function: SetFunction,
    /// With.
    pub args: Vec<Expr>,
    /// Columns that it gives.
    pub width: usize,
}

/// Functions that give rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SetFunction {
    /// `generate_series` over integers.
    SeriesInt(Type),
    /// `generate_series(timestamp, timestamp, interval)`: addition and comparison.
    SeriesStep(Callee),
    /// `unnest(array)`.
    Unnest,
    /// `generate_subscripts(array, dimension)`.
    Subscripts,
    /// `information_schema._pg_expandarray(array)`: value, position.
    ExpandArray,
    /// A scalar function in FROM: one row.
    Scalar,
}

/// A join.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    /// Left input.
    pub left: Plan,
    /// Right input. If `lateral`, its `Outer { level: 1 }` is the left row.
    pub right: Plan,
    /// Which rows without partner are kept.
    pub kind: JoinKind,
    /// Condition over left ++ right columns.
    pub on: Option<Expr>,
    /// Columns of the left input.
    pub left_width: usize,
    /// Columns of the right input.
    pub right_width: usize,
    /// Whether the right side is run for each left row.
    pub lateral: bool,
    /// How.
    pub method: JoinMethod,
}

/// How partners are found.
#[derive(Clone, Debug)]
pub(crate) enum JoinMethod {
    /// Every pair is tested.
    Loop,
    /// Equal keys: the right side in a table by its keys. (left keys over left, right keys over right)
    Hash(Vec<Expr>, Vec<Expr>),
}

/// Which rows without partner are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
}

impl JoinKind {
    /// Whether left rows without partner are kept.
    pub(crate) fn keeps_left(self) -> bool {
        matches!(self, JoinKind::Left | JoinKind::Full)
    }

    /// Whether right rows without partner are kept.
    pub(crate) fn keeps_right(self) -> bool {
        matches!(self, JoinKind::Right | JoinKind::Full)
    }
}

/// An aggregate.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AggregateCall {
    /// Which.
    pub function: crate::bind::Aggregate,
    /// Over; none: `count(*)`.
    pub args: Vec<Expr>,
    /// Equal arguments once.
    pub distinct: bool,
    /// Rows that count.
    pub filter: Option<Expr>,
    /// In this order.
    pub order: Vec<SortKey>,
}

/// A window function.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WindowCall {
    /// Which.
    pub function: WindowFunction,
    /// Its arguments.
    pub args: Vec<Expr>,
    /// Rows that belong together.
    pub partition: Vec<Expr>,
    /// In this order.
    pub order: Vec<SortKey>,
}

/// Window functions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum WindowFunction {
    /// `row_number()`
    RowNumber,
    /// `rank()`
    Rank,
    /// `dense_rank()`
    DenseRank,
    /// `lag(value)`, `lead(value)`: by how many rows, forward.
    Shift(bool),
    /// `first_value(value)`
    First,
    /// An aggregate, over the partition (without order) or up to the row's last peer.
    Aggregate(crate::bind::Aggregate),
}

/// A key of an order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SortKey {
    /// By.
    pub expr: Expr,
    /// Largest first.
    pub descending: bool,
    /// NULL before all values.
    pub nulls_first: bool,
}

/// UNION, EXCEPT, INTERSECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetOperator {
    Union,
    Except,
    Intersect,
}

/// A table that is written, with what must hold of its rows.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Which.
    pub table: Arc<TableDescriptor>,
    /// CHECK constraints over a row: name, condition.
    pub checks: Vec<(String, Expr)>,
    /// What this table's foreign keys reference.
    pub parents: Vec<(crate::catalog::ForeignKeyDescriptor, Arc<TableDescriptor>)>,
    /// Who references this table.
    pub children: Vec<(crate::catalog::ForeignKeyDescriptor, Arc<TableDescriptor>)>,
}

/// Tables whose rows may be changed or deleted because others were: those that foreign keys which cascade lead to, by id, however far.
pub(crate) type Reach = Arc<std::collections::BTreeMap<u32, Target>>;

/// INSERT.
#[derive(Clone, Debug)]
pub(crate) struct Insert {
    /// Into.
    pub target: Target,
    /// Whole rows of the table, defaults filled in.
    pub source: Plan,
    /// ON CONFLICT.
    pub conflict: Option<Conflict>,
    /// RETURNING, over the new row.
    pub returning: Option<Vec<Expr>>,
}

/// ON CONFLICT.
#[derive(Clone, Debug)]
pub(crate) struct Conflict {
    /// The unique index it is about; `None`: any.
    pub index: Option<u32>,
    /// DO UPDATE: (column, value over existing ++ excluded row); `None`: DO NOTHING.
    pub update: Option<Vec<(usize, Expr)>>,
    /// WHERE of DO UPDATE.
    pub filter: Option<Expr>,
    /// What DO UPDATE may change beside its table.
    pub reach: Reach,
}

/// UPDATE.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    /// Of.
    pub target: Target,
    /// What it may change beside its table.
    pub reach: Reach,
    /// Rows: the table's columns first, then those of FROM.
    pub source: Plan,
    /// (column, value over a source row).
    pub assignments: Vec<(usize, Expr)>,
    /// RETURNING, over the source row with the new columns in front.
    pub returning: Option<Vec<Expr>>,
}

/// DELETE.
#[derive(Clone, Debug)]
pub(crate) struct Delete {
    /// From.
    pub target: Target,
    /// What it may change beside its table.
    pub reach: Reach,
    /// Rows: the table's columns first, then those of USING.
    pub source: Plan,
    /// RETURNING, over the source row.
    pub returning: Option<Vec<Expr>>,
}

/// A planned statement.
#[derive(Debug)]
pub(crate) struct Planned {
    /// What to run.
    pub plan: Plan,
    /// What the rows look like; `None`: there are none.
    pub columns: Option<Arc<[Column]>>,
    /// What kind of statement it is.
    pub verb: Verb,
    /// Types of its parameters.
    pub params: Vec<Type>,
    /// How many deferred values it has.
    pub deferred_count: usize,
    /// The catalog it was planned with.
    pub edition: Edition,
    /// Where its names were looked for.
    pub search_path: Arc<[String]>,
    /// Whether it reads a table after it has changed it ([`Plan::reads_what_it_wrote`]).
    pub reads_what_it_wrote: bool,
}

/// Kind of statement, as its tag says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Select,
    Insert,
    Update,
    Delete,
}

impl Verb {
    /// As errors name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Verb::Select => "SELECT",
            Verb::Insert => "INSERT",
            Verb::Update => "UPDATE",
            Verb::Delete => "DELETE",
        }
    }

    /// CommandComplete's tag.
    pub(crate) fn tag(self, count: u64) -> String {
        match self {
            Verb::Select => format!("SELECT {count}"),
            Verb::Insert => format!("INSERT 0 {count}"),
            Verb::Update => format!("UPDATE {count}"),
            Verb::Delete => format!("DELETE {count}"),
        }
    }
}

impl Plan {
    /// One row without columns.
    pub(crate) fn unit() -> Plan {
        Plan::Values(vec![Vec::new()])
    }

    /// No rows.
    pub(crate) fn nothing() -> Plan {
        Plan::Values(Vec::new())
    }

    /// The table that the statement changes.
    pub(crate) fn writes_to(&self) -> Option<&TableDescriptor> {
        match self {
            Plan::Insert(insert) => Some(&insert.target.table),
            Plan::Update(update) => Some(&update.target.table),
            Plan::Delete(delete) => Some(&delete.target.table),
            Plan::With { input, .. } => input.writes_to(),
            _ => None,
        }
    }

    /// Calls `f` with every expression of the tree and the number of lateral joins it is right of.
    pub(crate) fn for_exprs(&self, f: &mut dyn FnMut(&Expr, usize), lateral: usize) {
        // One walk serves both: the tree is cloned for neither.
        walk(
            self,
            &mut |plan, lateral| plan.own_exprs().into_iter().for_each(|expr| f(expr, lateral)),
            lateral,
        );
    }

    /// The same, to be changed.
    pub(crate) fn for_exprs_mut(&mut self, f: &mut dyn FnMut(&mut Expr, usize), lateral: usize) {
        for expr in self.own_exprs_mut() {
            f(expr, lateral);
        }
        for (input, inner) in self.inputs_mut() {
            input.for_exprs_mut(f, lateral + inner);
        }
    }

    /// Inputs, with 1 for the right side of a lateral join.
    pub(crate) fn inputs(&self) -> Vec<(&Plan, usize)> {
        match self {
            Plan::Values(_)
            | Plan::Scan(_)
            | Plan::Virtual(_)
            | Plan::Function(_)
            | Plan::Common(_) => Vec::new(),
            Plan::Filter { input, .. }
            | Plan::Project { input, .. }
            | Plan::ProjectSet { input, .. }
            | Plan::Aggregate { input, .. }
            | Plan::Window { input, .. }
            | Plan::Distinct { input, .. }
            | Plan::Sort { input, .. }
            | Plan::Limit { input, .. } => vec![(input, 0)],
            Plan::Join(join) => vec![(&join.left, 0), (&join.right, usize::from(join.lateral))],
            Plan::SetOperation { left, right, .. } => vec![(left, 0), (right, 0)],
            Plan::With { tables, input } => {
                let mut all: Vec<(&Plan, usize)> = Vec::new();
                for (_, table) in tables {
                    all.push((&table.plan, 0));
                    all.extend(table.recursive.as_ref().map(|(step, _)| (step, 0)));
                }
                all.push((input, 0));
                all
            }
            Plan::Insert(insert) => vec![(&insert.source, 0)],
            Plan::Update(update) => vec![(&update.source, 0)],
            Plan::Delete(delete) => vec![(&delete.source, 0)],
        }
    }

    fn inputs_mut(&mut self) -> Vec<(&mut Plan, usize)> {
        match self {
            Plan::Values(_)
            | Plan::Scan(_)
            | Plan::Virtual(_)
            | Plan::Function(_)
            | Plan::Common(_) => Vec::new(),
            Plan::Filter { input, .. }
            | Plan::Project { input, .. }
            | Plan::ProjectSet { input, .. }
            | Plan::Aggregate { input, .. }
            | Plan::Window { input, .. }
            | Plan::Distinct { input, .. }
            | Plan::Sort { input, .. }
            | Plan::Limit { input, .. } => vec![(input, 0)],
            Plan::Join(join) => {
                vec![(&mut join.left, 0), (&mut join.right, usize::from(join.lateral))]
            }
            Plan::SetOperation { left, right, .. } => vec![(left, 0), (right, 0)],
            Plan::With { tables, input } => {
                let mut all: Vec<(&mut Plan, usize)> = Vec::new();
                for (_, table) in tables {
                    let table = Arc::make_mut(table);
                    all.push((&mut table.plan, 0));
                    all.extend(table.recursive.as_mut().map(|(step, _)| (step, 0)));
                }
                all.push((input, 0));
                all
            }
            Plan::Insert(insert) => vec![(&mut insert.source, 0)],
            Plan::Update(update) => vec![(&mut update.source, 0)],
            Plan::Delete(delete) => vec![(&mut delete.source, 0)],
        }
    }

    fn own_exprs(&self) -> Vec<&Expr> {
        match self {
            Plan::Values(rows) => rows.iter().flatten().collect(),
            Plan::Scan(scan) => {
                scan.access.exprs().into_iter().chain(&scan.filter).chain(&scan.limit).collect()
            }
            Plan::Virtual(scan) => scan.equals.iter().map(|(_, expr)| expr).collect(),
            Plan::Function(scan) => scan.functions.iter().flat_map(|call| &call.args).collect(),
            Plan::Filter { predicate, .. } => vec![predicate],
            Plan::Project { exprs, .. } => exprs.iter().collect(),
            Plan::ProjectSet { calls, .. } => {
                calls.iter().flat_map(|(call, _)| &call.args).collect()
            }
            Plan::Join(join) => {
                let mut exprs: Vec<&Expr> = join.on.iter().collect();
                if let JoinMethod::Hash(left, right) = &join.method {
                    exprs.extend(left.iter().chain(right));
                }
                exprs
            }
            Plan::Aggregate { keys, aggregates, .. } => {
                keys.iter().chain(aggregates.iter().flat_map(AggregateCall::exprs)).collect()
            }
            Plan::Window { windows, .. } => windows.iter().flat_map(WindowCall::exprs).collect(),
            Plan::Distinct { keys, .. } => keys.iter().flatten().collect(),
            Plan::Sort { keys, .. } => keys.iter().map(|key| &key.expr).collect(),
            Plan::Limit { limit, offset, .. } => limit.iter().chain(offset).collect(),
            Plan::SetOperation { .. } | Plan::With { .. } | Plan::Common(_) => Vec::new(),
            Plan::Insert(insert) => {
                let conflict = insert
                    .conflict
                    .iter()
                    .flat_map(|c| c.update.iter().flatten().map(|(_, e)| e).chain(&c.filter));
                conflict.chain(insert.returning.iter().flatten()).collect()
            }
            Plan::Update(update) => update
                .assignments
                .iter()
                .map(|(_, e)| e)
                .chain(update.returning.iter().flatten())
                .collect(),
            Plan::Delete(delete) => delete.returning.iter().flatten().collect(),
        }
    }

    fn own_exprs_mut(&mut self) -> Vec<&mut Expr> {
        match self {
            Plan::Values(rows) => rows.iter_mut().flatten().collect(),
            Plan::Scan(scan) => scan
                .access
                .exprs_mut()
                .into_iter()
                .chain(&mut scan.filter)
                .chain(&mut scan.limit)
                .collect(),
            Plan::Virtual(scan) => scan.equals.iter_mut().map(|(_, expr)| expr).collect(),
            Plan::Function(scan) => {
                scan.functions.iter_mut().flat_map(|call| &mut call.args).collect()
            }
            Plan::Filter { predicate, .. } => vec![predicate],
            Plan::Project { exprs, .. } => exprs.iter_mut().collect(),
            Plan::ProjectSet { calls, .. } => {
                calls.iter_mut().flat_map(|(call, _)| &mut call.args).collect()
            }
            Plan::Join(join) => {
                let mut exprs: Vec<&mut Expr> = join.on.iter_mut().collect();
                if let JoinMethod::Hash(left, right) = &mut join.method {
                    exprs.extend(left.iter_mut().chain(right));
                }
                exprs
            }
            Plan::Aggregate { keys, aggregates, .. } => keys
                .iter_mut()
                .chain(aggregates.iter_mut().flat_map(AggregateCall::exprs_mut))
                .collect(),
            Plan::Window { windows, .. } => {
                windows.iter_mut().flat_map(WindowCall::exprs_mut).collect()
            }
            Plan::Distinct { keys, .. } => keys.iter_mut().flatten().collect(),
            Plan::Sort { keys, .. } => keys.iter_mut().map(|key| &mut key.expr).collect(),
            Plan::Limit { limit, offset, .. } => limit.iter_mut().chain(offset).collect(),
            Plan::SetOperation { .. } | Plan::With { .. } | Plan::Common(_) => Vec::new(),
            Plan::Insert(insert) => {
                let conflict = insert.conflict.iter_mut().flat_map(|c| {
                    c.update.iter_mut().flatten().map(|(_, e)| e).chain(&mut c.filter)
                });
                conflict.chain(insert.returning.iter_mut().flatten()).collect()
            }
            Plan::Update(update) => update
                .assignments
                .iter_mut()
                .map(|(_, e)| e)
                .chain(update.returning.iter_mut().flatten())
                .collect(),
            Plan::Delete(delete) => delete.returning.iter_mut().flatten().collect(),
        }
    }
}

fn walk<'a>(plan: &'a Plan, f: &mut dyn FnMut(&'a Plan, usize), lateral: usize) {
    f(plan, lateral);
    for (input, inner) in plan.inputs() {
        walk(input, f, lateral + inner);
    }
}

impl AggregateCall {
    pub(crate) fn exprs(&self) -> Vec<&Expr> {
        self.args.iter().chain(&self.filter).chain(self.order.iter().map(|key| &key.expr)).collect()
    }

    pub(crate) fn exprs_mut(&mut self) -> Vec<&mut Expr> {
        self.args
            .iter_mut()
            .chain(&mut self.filter)
            .chain(self.order.iter_mut().map(|key| &mut key.expr))
            .collect()
    }
}

impl WindowCall {
    pub(crate) fn exprs(&self) -> Vec<&Expr> {
        self.args
            .iter()
            .chain(&self.partition)
            .chain(self.order.iter().map(|key| &key.expr))
            .collect()
    }

    pub(crate) fn exprs_mut(&mut self) -> Vec<&mut Expr> {
        self.args
            .iter_mut()
            .chain(&mut self.partition)
            .chain(self.order.iter_mut().map(|key| &mut key.expr))
            .collect()
    }
}
