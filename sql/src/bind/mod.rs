//! Value: names and types. From a statement's syntax tree and a catalog snapshot to a plan whose expressions are slots.
//!
//! Rooms: `scope` what names mean; `expression`, `call`, `comparison`, `array`, `subquery` expressions; `precedence` what binds tighter; `clauses` what is refused; `coerce` conversions that nobody wrote; `overload` which
//! function is meant; `query`, `from`, `group` SELECT; `modify` INSERT, UPDATE, DELETE; `datatype` type names.
//!
//! Literals in quotes and parameters without a type are of type `unknown` until their surroundings say what they are, as in
//! PostgreSQL (manual, chapter 10). A parameter keeps the first type it is given.
//!
//! INVARIANT: the slots of an expression refer to the columns of the scope it was bound in, and a query that is bound inside of an
//! expression sees that scope as its outer row number 1.

mod array;
mod call;
mod clauses;
mod coerce;
mod comparison;
mod datatype;
mod expression;
mod from;
mod group;
mod modify;
mod overload;
mod precedence;
mod query;
mod scope;
mod set_function;
mod subquery;

pub(crate) use coerce::coerce_assignment;
pub(crate) use datatype::{data_type, serial};
pub(crate) use modify::target_for;
pub(crate) use overload::Aggregate;
pub(crate) use scope::{Scope, ScopeColumn};

use crate::catalog::{Catalog, Relation, TableDescriptor};
use crate::error::{SqlError, codes};
use crate::exec::Facts;
use crate::outcome::Column;
use crate::parse::Positions;
use crate::plan::{AggregateCall, Expr, Plan, Planned, SetCall, Verb, WindowCall};
use crate::types::{Datum, SqlState, Type};
use sqlparser::ast;
use sqlparser::tokenizer::{Location, Span as TextSpan};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Levels of expressions within each other.
const DEPTH_MAX: usize = 250;
/// Things that the FROM clauses of a statement name, its views' included. Each is a level of the plan, which is walked by recursion.
const FROM_ITEMS_MAX: usize = 250;
/// Columns of a result, as in PostgreSQL.
const TARGETS_MAX: usize = 1664;
/// Highest `$n`.
const PARAMS_MAX: usize = 65_535;

/// An expression with its type.
#[derive(Clone, Debug)]
pub(crate) struct Typed {
    /// The expression.
    pub expr: Expr,
    /// Its type; `Unknown` for what the surroundings decide.
    pub ty: Type,
    /// Its type modifier.
    pub typmod: i32,
    /// The column it is, if it is nothing but a column: (table OID, attnum).
    pub origin: Option<(u32, i16)>,
    /// Where it was written.
    pub position: Option<usize>,
}

impl Typed {
    pub(crate) fn new(expr: Expr, ty: Type) -> Typed {
        Typed { expr, ty, typmod: -1, origin: None, position: None }
    }

    pub(crate) fn boolean(expr: Expr) -> Typed {
        Typed::new(expr, Type::Bool)
    }

    pub(crate) fn null() -> Typed {
        Typed::new(Expr::Const(Datum::Null), Type::Unknown)
    }

    fn at(mut self, position: Option<usize>) -> Typed {
        self.position = self.position.or(position);
        self
    }
}

/// What a query gives.
pub(crate) struct Bound {
    /// Its rows.
    pub plan: Plan,
    /// Its columns.
    pub columns: Vec<OutputColumn>,
}

/// A column of a query.
#[derive(Clone, Debug)]
pub(crate) struct OutputColumn {
    pub name: Arc<str>,
    pub ty: Type,
    pub typmod: i32,
    pub origin: Option<(u32, i16)>,
}

/// A WITH query that can be seen.
#[derive(Clone)]
struct CommonName {
    name: String,
    id: usize,
    columns: Vec<OutputColumn>,
}

/// Aggregates and window functions of one query level, collected while its expressions are bound.
#[derive(Default)]
struct Level {
    aggregates: Vec<AggregateCall>,
    windows: Vec<WindowCall>,
    sets: Vec<(SetCall, Option<usize>)>,
    /// Whether aggregates may appear in what is being bound now; otherwise: where not.
    forbidden: Option<&'static str>,
    /// Inside an aggregate's arguments.
    inside: bool,
    /// Why functions that give rows may not appear in what is being bound now.
    sets_forbidden: bool,
}

/// Binds one statement.
pub(crate) struct Binder<'a> {
    pub(crate) facts: &'a Facts,
    positions: &'a Positions,
    params: Vec<Option<Type>>,
    scopes: Vec<Scope>,
    levels: Vec<Level>,
    commons: Vec<CommonName>,
    next_deferred: usize,
    next_common: usize,
    depth: usize,
    from_items: usize,
    /// Whether nothing is around what is being bound: there alone a WITH may change rows.
    is_outermost: bool,
    /// Where the statement's own text names relations without a schema.
    unqualified: BTreeSet<Location>,
    /// Stored expressions (defaults, checks) are bound in the middle of statements: their positions mean nothing.
    foreign: bool,
}

impl<'a> Binder<'a> {
    /// `params`: types that the client has given; `Unknown`: not.
    pub(crate) fn new(facts: &'a Facts, positions: &'a Positions, params: &[Type]) -> Binder<'a> {
        Binder {
            facts,
            positions,
            params: params.iter().map(|ty| (*ty != Type::Unknown).then_some(*ty)).collect(),
            scopes: Vec::new(),
            levels: Vec::new(),
            commons: Vec::new(),
            next_deferred: 0,
            next_common: 0,
            depth: 0,
            from_items: 0,
            is_outermost: true,
            unqualified: BTreeSet::new(),
            foreign: false,
        }
    }

    /// How many deferred values have been bound.
    pub(crate) fn deferred_count(&self) -> usize {
        self.next_deferred
    }

    /// Binds and optimises a statement that has a plan: SELECT, VALUES, INSERT, UPDATE, DELETE.
    pub(crate) fn statement(mut self, statement: &ast::Statement) -> Result<Planned, SqlError> {
        let (verb, bound) = match statement {
            // What follows a WITH may change rows.
            ast::Statement::Query(query) => {
                let verb = match query.body.as_ref() {
                    ast::SetExpr::Insert(_) => Verb::Insert,
                    ast::SetExpr::Update(_) => Verb::Update,
                    ast::SetExpr::Delete(_) => Verb::Delete,
                    _ => Verb::Select,
                };
                (verb, self.query(query)?)
            }
            ast::Statement::Insert(insert) => (Verb::Insert, self.insert(insert)?),
            ast::Statement::Update(update) => (Verb::Update, self.update(update)?),
            ast::Statement::Delete(delete) => (Verb::Delete, self.delete(delete)?),
            other => {
                return Err(SqlError::unsupported(format!(
                    "{} is not supported here",
                    first_word(other)
                )));
            }
        };
        self.finish(verb, bound)
    }

    /// A query that is to be stored, and where its text names relations without a schema.
    pub(crate) fn select_to_store(
        mut self,
        query: &ast::Query,
    ) -> Result<(Planned, BTreeSet<Location>), SqlError> {
        let bound = self.query(query)?;
        let unqualified = std::mem::take(&mut self.unqualified);
        Ok((self.finish(Verb::Select, bound)?, unqualified))
    }

    fn finish(mut self, verb: Verb, bound: Bound) -> Result<Planned, SqlError> {
        let returns_rows = verb == Verb::Select || !bound.columns.is_empty();
        let bound = if verb == Verb::Select { self.settle_unknown(bound)? } else { bound };
        let columns: Vec<Column> = bound
            .columns
            .iter()
            .map(|column| {
                let (table_oid, attnum) = column.origin.unwrap_or((0, 0));
                Column {
                    typmod: column.typmod,
                    table_oid,
                    attnum,
                    ..Column::new(column.name.clone(), column.ty)
                }
            })
            .collect();
        let plan = crate::plan::optimise::optimise(bound.plan);
        Ok(Planned {
            reads_what_it_wrote: plan.reads_what_it_wrote(),
            plan,
            columns: returns_rows.then(|| columns.into()),
            verb,
            params: self.params.into_iter().map(|ty| ty.unwrap_or(Type::Text)).collect(),
            deferred_count: self.next_deferred,
            edition: self.facts.catalog.edition(),
            search_path: self.facts.search_path.clone(),
        })
    }

    /// Output columns of unknown type are text.
    fn settle_unknown(&mut self, mut bound: Bound) -> Result<Bound, SqlError> {
        if bound.columns.iter().all(|column| column.ty != Type::Unknown) {
            return Ok(bound);
        }
        let mut exprs = Vec::new();
        for (slot, column) in bound.columns.iter_mut().enumerate() {
            let typed = Typed::new(Expr::Slot(slot), column.ty);
            let typed = if column.ty == Type::Unknown {
                self.coerce_unknown_slot(typed, Type::Text)
            } else {
                typed
            };
            column.ty = typed.ty;
            exprs.push(typed.expr);
        }
        self.settle_params();
        Ok(Bound {
            plan: Plan::Project { input: Box::new(bound.plan), exprs },
            columns: bound.columns,
        })
    }

    fn settle_params(&mut self) {
        for ty in &mut self.params {
            ty.get_or_insert(Type::Text);
        }
    }

    fn coerce_unknown_slot(&mut self, typed: Typed, ty: Type) -> Typed {
        // An unknown value is text underneath.
        Typed { ty, ..typed }
    }

    // --- helpers shared by the rooms ---

    fn position(&self, span: TextSpan) -> Option<usize> {
        if self.foreign { None } else { self.positions.at(span.start) }
    }

    fn catalog(&self) -> &'a Catalog {
        &self.facts.catalog
    }

    fn deferred_id(&mut self) -> usize {
        let id = self.next_deferred;
        self.next_deferred += 1;
        id
    }

    fn deeper<T>(
        &mut self,
        f: impl FnOnce(&mut Binder<'a>) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        if self.depth >= DEPTH_MAX {
            return Err(SqlError::new(
                SqlState::STATEMENT_TOO_COMPLEX,
                "stack depth limit exceeded",
            )
            .with_detail(format!("An expression may nest {DEPTH_MAX} levels deep.")));
        }
        self.depth += 1;
        let result = f(self);
        self.depth -= 1;
        result
    }

    /// Binds `f`'s expressions over a scope of their own.
    fn in_scope<T>(
        &mut self,
        scope: Scope,
        f: impl FnOnce(&mut Binder<'a>) -> Result<T, SqlError>,
    ) -> Result<T, SqlError> {
        self.scopes.push(scope);
        let result = f(self);
        self.scopes.pop();
        result
    }

    /// Binds a stored SQL expression (a default, a check) over a scope.
    pub(crate) fn stored_expression(
        &mut self,
        text: &str,
        scope: Scope,
    ) -> Result<Typed, SqlError> {
        let ast = parse_expression(text)?;
        let foreign = std::mem::replace(&mut self.foreign, true);
        self.levels.push(Level { forbidden: Some("a stored expression"), ..Level::default() });
        let result = self.in_scope(scope, |binder| binder.expression(&ast));
        self.levels.pop();
        self.foreign = foreign;
        result
    }

    /// A relation by name, with the database's search path.
    pub(crate) fn relation(&self, name: &ast::ObjectName) -> Result<Relation, SqlError> {
        let parts = name_parts(name)?;
        self.facts.find_relation(&parts).ok_or_else(|| {
            SqlError::new(
                SqlState::UNDEFINED_TABLE,
                format!("relation \"{}\" does not exist", parts.join(".")),
            )
            .at(self.position(name_span(name)))
        })
    }

    /// A table that can be written.
    pub(crate) fn writable_table(
        &self,
        name: &ast::ObjectName,
    ) -> Result<Arc<TableDescriptor>, SqlError> {
        let parts = name_parts(name)?;
        let wrong = |what: &str| {
            Err(SqlError::new(
                codes::WRONG_OBJECT_TYPE,
                format!("cannot change {what} \"{}\"", parts.last().expect("a name has a part")),
            ))
        };
        match self.relation(name) {
            Ok(Relation::Table(table)) => Ok(table),
            Ok(Relation::View(_)) => wrong("view"),
            Ok(Relation::Sequence(_)) => wrong("sequence"),
            Ok(Relation::Index(..)) => wrong("index"),
            Err(error) => {
                if parts.len() <= 2 && crate::pg_catalog::find(&parts).is_some() {
                    return Err(SqlError::new(
                        codes::INSUFFICIENT_PRIVILEGE,
                        format!("permission denied: \"{}\" is a system catalog", parts.join(".")),
                    ));
                }
                Err(error)
            }
        }
    }
}

/// Parses a stored SQL expression.
pub(crate) fn parse_expression(text: &str) -> Result<ast::Expr, SqlError> {
    let parsed = crate::parse::parse(&format!("SELECT {text}"))?;
    let not_ours = || SqlError::internal(format!("stored expression cannot be read: {text}"));
    let [only] = parsed.as_slice() else { return Err(not_ours()) };
    let crate::parse::Statement::Sql(statement) = only.statement.as_ref() else {
        return Err(not_ours());
    };
    let ast::Statement::Query(query) = statement.as_ref() else { return Err(not_ours()) };
    let ast::SetExpr::Select(select) = query.body.as_ref() else { return Err(not_ours()) };
    match select.projection.as_slice() {
        [ast::SelectItem::UnnamedExpr(expr)] => Ok(expr.clone()),
        _ => Err(not_ours()),
    }
}

/// Parts of a name, as the catalog knows them.
pub(crate) fn name_parts(name: &ast::ObjectName) -> Result<Vec<String>, SqlError> {
    let parts: Vec<String> =
        name.0.iter().filter_map(|part| part.as_ident()).map(crate::parse::name).collect();
    if parts.len() != name.0.len() || parts.is_empty() || parts.len() > 3 {
        return Err(SqlError::new(
            SqlState::SYNTAX_ERROR,
            format!("improper qualified name: {name}"),
        ));
    }
    Ok(parts)
}

fn name_span(name: &ast::ObjectName) -> TextSpan {
    name.0.first().and_then(|part| part.as_ident()).map_or_else(TextSpan::empty, |ident| ident.span)
}

fn first_word(statement: &ast::Statement) -> String {
    statement.to_string().split_whitespace().next().unwrap_or("statement").to_uppercase()
}

/// A mode in words.
pub(crate) fn mode_name(mode: crate::catalog::TableMode) -> &'static str {
    match mode {
        crate::catalog::TableMode::Strong => "strong",
        crate::catalog::TableMode::Available => "available",
    }
}

/// A parameter of EXECUTE, an expression without columns, converted to a type; with the number of its deferred values.
///
/// # Errors
/// 0A000: it has a subquery. What that reads would be read once, before the statement, and kept though the statement is run again.
pub(crate) fn constant(
    facts: &Facts,
    positions: &Positions,
    ast: &ast::Expr,
    ty: Type,
) -> Result<(Expr, usize), SqlError> {
    let mut binder = Binder::new(facts, positions, &[]);
    binder.levels.push(Level { forbidden: Some("EXECUTE parameters"), ..Level::default() });
    let typed = binder.in_scope(Scope::default(), |binder| binder.expression(ast))?;
    if typed.expr.any(&|expr| expr.plan().is_some()) {
        return Err(SqlError::unsupported("cannot use subquery in EXECUTE parameter"));
    }
    let (from, position) = (typed.ty, typed.position);
    match binder.try_coerce(typed, ty, -1, crate::types::CastContext::Assignment)? {
        Some(typed) => Ok((typed.expr, binder.next_deferred)),
        None => Err(SqlError::new(
            SqlState::DATATYPE_MISMATCH,
            format!("value of type {from} cannot be given for type {ty}"),
        )
        .at(position)),
    }
}
