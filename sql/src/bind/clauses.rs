//! Value: clauses that the parser reads and that nothing here does. What is not done is refused (0A000), never passed over: an
//! answer that leaves a clause out is a wrong answer.

use crate::error::{SqlError, codes};
use crate::types::SqlState;
use sqlparser::ast::{self, SetExpr, TableFactor};

/// The first clause that is there is refused.
fn refuse(clauses: &[(&str, bool)]) -> Result<(), SqlError> {
    match clauses.iter().find(|(_, there)| *there) {
        Some((clause, _)) => Err(SqlError::unsupported(format!("{clause} is not supported"))),
        None => Ok(()),
    }
}

/// Of a query.
pub(super) fn refuse_in_query(query: &ast::Query) -> Result<(), SqlError> {
    let limit_by = match &query.limit_clause {
        Some(ast::LimitClause::LimitOffset { limit_by, .. }) => !limit_by.is_empty(),
        Some(ast::LimitClause::OffsetCommaLimit { .. }) | None => false,
    };
    let interpolate = query.order_by.as_ref().is_some_and(|order| order.interpolate.is_some());
    refuse(&[
        ("FOR XML or FOR JSON", query.for_clause.is_some()),
        ("SETTINGS", query.settings.is_some()),
        ("FORMAT", query.format_clause.is_some()),
        ("|>", !query.pipe_operators.is_empty()),
        ("LIMIT BY", limit_by),
        ("INTERPOLATE", interpolate),
    ])?;
    query.locks.iter().try_for_each(|lock| refuse_in_lock(query, lock))
}

/// `FOR UPDATE OF t`: all tables are locked. Of one table that is the same; of several it locks more than was asked, which only
/// NOWAIT and SKIP LOCKED would show.
fn refuse_in_lock(query: &ast::Query, lock: &ast::LockClause) -> Result<(), SqlError> {
    let Some(of) = &lock.of else { return Ok(()) };
    let from: &[ast::TableWithJoins] = match query.body.as_ref() {
        SetExpr::Select(select) => &select.from,
        _ => &[],
    };
    let named = |factor: &TableFactor| match factor {
        TableFactor::Table { name, alias, .. } => match alias {
            Some(alias) => Some(crate::parse::name(&alias.name)),
            None => super::name_parts(name).ok().and_then(|parts| parts.last().cloned()),
        },
        TableFactor::Derived { alias, .. } => {
            alias.as_ref().map(|alias| crate::parse::name(&alias.name))
        }
        _ => None,
    };
    let tables: Vec<Option<String>> = from
        .iter()
        .flat_map(|item| {
            std::iter::once(&item.relation).chain(item.joins.iter().map(|join| &join.relation))
        })
        .map(named)
        .collect();
    let wanted = super::name_parts(of)?.last().cloned();
    if !tables.contains(&wanted) {
        return Err(SqlError::new(
            SqlState::UNDEFINED_TABLE,
            format!("relation \"{of}\" in FOR {} clause not found in FROM clause", lock.lock_type),
        ));
    }
    refuse(&[(
        "OF with NOWAIT or SKIP LOCKED in a query of several tables",
        tables.len() > 1 && lock.nonblock.is_some(),
    )])
}

/// Of a SELECT.
pub(super) fn refuse_in_select(select: &ast::Select) -> Result<(), SqlError> {
    refuse(&[
        ("TOP", select.top.is_some()),
        ("SELECT INTO", select.into.is_some()),
        ("LATERAL VIEW", !select.lateral_views.is_empty()),
        ("PREWHERE", select.prewhere.is_some()),
        ("CONNECT BY", !select.connect_by.is_empty()),
        ("CLUSTER BY", !select.cluster_by.is_empty()),
        ("DISTRIBUTE BY", !select.distribute_by.is_empty()),
        ("SORT BY", !select.sort_by.is_empty()),
        ("QUALIFY", select.qualify.is_some()),
        ("WINDOW", !select.named_window.is_empty()),
        ("EXCLUDE", select.exclude.is_some()),
        ("SELECT AS", select.value_table_mode.is_some()),
        ("a modifier of SELECT", select.select_modifiers.is_some()),
    ])?;
    select.projection.iter().try_for_each(|item| match item {
        ast::SelectItem::Wildcard(options) | ast::SelectItem::QualifiedWildcard(_, options) => {
            refuse(&[
                ("EXCLUDE", options.opt_exclude.is_some()),
                ("EXCEPT", options.opt_except.is_some()),
                ("ILIKE after *", options.opt_ilike.is_some()),
                ("REPLACE", options.opt_replace.is_some()),
                ("RENAME", options.opt_rename.is_some()),
            ])
        }
        _ => Ok(()),
    })
}

/// Of something in FROM, or of a table that is changed.
pub(super) fn refuse_in_factor(factor: &TableFactor) -> Result<(), SqlError> {
    match factor {
        TableFactor::Table {
            with_hints,
            version,
            partitions,
            json_path,
            sample,
            index_hints,
            args,
            with_ordinality,
            ..
        } => refuse(&[
            ("TABLESAMPLE", sample.is_some()),
            ("WITH hints", !with_hints.is_empty()),
            ("a version of a table", version.is_some()),
            ("PARTITION", !partitions.is_empty()),
            ("a path into a table", json_path.is_some()),
            ("a hint of indexes", !index_hints.is_empty()),
            ("WITH ORDINALITY of a table", *with_ordinality && args.is_none()),
        ]),
        TableFactor::Derived { sample, .. } => refuse(&[("TABLESAMPLE", sample.is_some())]),
        TableFactor::UNNEST { with_offset, .. } => refuse(&[("WITH OFFSET", *with_offset)]),
        // The others are read whole, or refused, where they are bound.
        _ => Ok(()),
    }
}

/// Of an INSERT.
pub(super) fn refuse_in_insert(insert: &ast::Insert) -> Result<(), SqlError> {
    refuse(&[
        ("INSERT OR", insert.or.is_some()),
        ("INSERT IGNORE", insert.ignore),
        ("INSERT OVERWRITE", insert.overwrite),
        ("REPLACE INTO", insert.replace_into),
        ("INSERT ... SET", !insert.assignments.is_empty()),
        ("PARTITION", insert.partitioned.is_some() || !insert.after_columns.is_empty()),
        ("OUTPUT", insert.output.is_some()),
        ("an alias of the new row", insert.insert_alias.is_some()),
        ("SETTINGS", insert.settings.is_some()),
        ("FORMAT", insert.format_clause.is_some()),
        ("INSERT ALL", insert.multi_table_insert_type.is_some()),
    ])
}

/// Of an UPDATE.
pub(super) fn refuse_in_update(update: &ast::Update) -> Result<(), SqlError> {
    refuse(&[("OUTPUT", update.output.is_some()), ("UPDATE OR", update.or.is_some())])
}

/// Of a call. Those of aggregates are read where they are bound.
pub(super) fn refuse_in_call(call: &ast::Function, aggregate: bool) -> Result<(), SqlError> {
    let (distinct, clauses) = match &call.args {
        ast::FunctionArguments::List(list) => (
            matches!(list.duplicate_treatment, Some(ast::DuplicateTreatment::Distinct)),
            !list.clauses.is_empty(),
        ),
        ast::FunctionArguments::None | ast::FunctionArguments::Subquery(_) => (false, false),
    };
    let window = call.over.is_some();
    let for_aggregates = [
        ("DISTINCT", distinct),
        ("ORDER BY", clauses),
        ("FILTER", call.filter.is_some() && !window),
    ];
    if !aggregate && let Some((clause, _)) = for_aggregates.iter().find(|(_, there)| *there) {
        return Err(SqlError::new(
            codes::WRONG_OBJECT_TYPE,
            format!("{clause} specified, but {} is not an aggregate function", call.name),
        ));
    }
    refuse(&[
        ("WITHIN GROUP", !call.within_group.is_empty()),
        ("IGNORE NULLS or RESPECT NULLS", call.null_treatment.is_some()),
        ("parameters of a call", !matches!(call.parameters, ast::FunctionArguments::None)),
        ("DISTINCT in a window function", distinct && window),
        ("ORDER BY in the arguments of a window function", clauses && window),
    ])
}

/// Text is compared byte by byte: collations that do so are all the same, others are refused.
pub(super) fn refuse_collation(name: &ast::ObjectName) -> Result<(), SqlError> {
    let parts = super::name_parts(name)?;
    let own = parts.last().map_or("", String::as_str);
    if matches!(own, "C" | "POSIX" | "C.UTF-8" | "C.utf8" | "default" | "ucs_basic") {
        return Ok(());
    }
    let message = format!("collation \"{own}\" for encoding \"UTF8\" does not exist");
    Err(SqlError::new(SqlState::UNDEFINED_OBJECT, message)
        .with_hint("Text is sorted by its code points: COLLATE \"C\"."))
}
