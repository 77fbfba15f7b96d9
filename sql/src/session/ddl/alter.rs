//! Driver: ALTER TABLE, CREATE INDEX.

use super::create::{Builder, check_expressions};
use super::options::TableOptions;
use super::{Session, job, kept, stored};
use crate::bind::{Binder, Scope};
use crate::catalog::{
    Entry, ForeignKeyDescriptor, IndexKind, IndexState, Relation, TableDescriptor,
};
use crate::engine::PlantedBug;
use crate::error::{SqlError, codes};
use crate::exec::{Exec, Facts};
use crate::outcome::Notice;
use crate::parse::Positions;
use crate::plan::Expr;
use crate::rows::Place;
use crate::types::{Datum, SqlState, text};
use sqlparser::ast::{self, AlterColumnOperation, AlterTableOperation as Op, TableConstraint};
use std::collections::BTreeSet;
use std::sync::Arc;
use txn::client::Txn;

impl Session {
    /// CREATE INDEX.
    pub(super) async fn create_index(
        &mut self,
        create: &ast::CreateIndex,
    ) -> Result<&'static str, SqlError> {
        if create.predicate.is_some() {
            return Err(SqlError::unsupported("partial indexes are not supported"));
        }
        if !create.include.is_empty() {
            return Err(SqlError::unsupported("INCLUDE is not supported"));
        }
        kept::nulls(create.nulls_distinct != Some(false))?;
        let table = self.table_named(&create.table_name).await?;
        let name = create
            .name
            .as_ref()
            .and_then(|name| name.0.last())
            .and_then(|part| part.as_ident())
            .map(crate::parse::name);
        if let Some(name) = &name
            && create.if_not_exists
            && self.catalog().relation(table.schema, name).is_some()
        {
            self.notice(Notice::note(format!("relation \"{name}\" already exists, skipping")));
            return Ok("CREATE INDEX");
        }
        let kind = if create.unique { IndexKind::Unique } else { IndexKind::Plain };
        self.add_index_to(&table, name, &create.columns, kind, false).await?;
        Ok("CREATE INDEX")
    }

    /// Adds an index to a table that has rows, or may have.
    async fn add_index_to(
        &mut self,
        table: &Arc<TableDescriptor>,
        name: Option<String>,
        columns: &[ast::IndexColumn],
        kind: IndexKind,
        constraint: bool,
    ) -> Result<(), SqlError> {
        let facts = self.facts_now();
        let place = Place { region: self.engine.cluster.region().0 };
        if self.is_own(table) {
            let mut draft = self.draft().await?;
            let mut builder = Builder::of(&mut draft, &facts, table.as_ref().clone());
            let columns = builder.index_columns(columns)?;
            builder.add_index(name, columns, kind, IndexState::Public, constraint)?;
            let changed = builder.table;
            let index = changed.indexes.last().expect("added above").clone();
            let active = self.begin_if_none();
            fill_own(&mut active.txn, &changed, &index, place).await?;
            draft.put(Entry::Table(changed));
            self.write_draft(draft)?;
            return Ok(());
        }
        self.ready_for_job(table, &[])?;
        let job = self.job();
        let columns = columns.to_vec();
        let lies = job.engine.has(PlantedBug::UniqueOnAvailable);
        let asked = if lies { IndexKind::Plain } else { kind };
        let added = job::change(&job, table.id, &mut |_, draft, table| {
            let (facts, columns, name) = (facts.clone(), columns.clone(), name.clone());
            Box::pin(async move {
                let mut builder = Builder::of(draft, &facts, table);
                let columns = builder.index_columns(&columns)?;
                builder.add_index(name, columns, asked, IndexState::WriteOnly, constraint)?;
                let added = builder.table.indexes.last_mut().expect("added above");
                added.kind = kind;
                Ok(builder.table)
            })
        })
        .await?;
        let index = added.indexes.last().expect("added above").id;
        job::complete(&job, &added, index).await
    }

    /// ALTER TABLE.
    pub(super) async fn alter_table(
        &mut self,
        alter: &ast::AlterTable,
    ) -> Result<&'static str, SqlError> {
        let table = match self.table_named(&alter.name).await {
            Err(error) if alter.if_exists && error.code == SqlState::UNDEFINED_TABLE => {
                self.notice(Notice::note(format!(
                    "relation \"{}\" does not exist, skipping",
                    alter.name
                )));
                return Ok("ALTER TABLE");
            }
            other => other?,
        };
        let mut actions = Vec::new();
        // A column that is there now may be gone when it is its turn.
        let goes = |action: &Op| matches!(action, Op::DropColumn { .. } | Op::RenameColumn { .. });
        let stays = !alter.operations.iter().any(goes);
        for operation in &alter.operations {
            match operation {
                Op::OwnerTo { .. }
                | Op::SetLogged
                | Op::SetUnlogged
                | Op::ValidateConstraint { .. }
                | Op::ReplicaIdentity { .. } => {}
                Op::AddColumn { if_not_exists: true, column_def, .. }
                    if stays && table.find(&crate::parse::name(&column_def.name)).is_some() =>
                {
                    let name = crate::parse::name(&column_def.name);
                    self.notice(Notice::note(format!(
                        "column \"{name}\" of relation \"{}\" already exists, skipping",
                        table.name
                    )));
                }
                action => actions.push(action.clone()),
            }
        }
        if self.is_own(&table) {
            self.alter_own(table, &actions).await?;
            return Ok("ALTER TABLE");
        }
        match actions.as_slice() {
            [] => {}
            [Op::AddConstraint { constraint: TableConstraint::Unique(unique), .. }] => {
                self.add_unique(&table, unique).await?;
            }
            several if several.iter().any(is_unique) => {
                return Err(SqlError::unsupported(
                    "ALTER TABLE that adds a UNIQUE constraint and does something else is not supported",
                )
                .with_detail("An index is filled by many transactions: all of it could not be done or undone together.")
                .with_hint("Use an ALTER TABLE of its own for each UNIQUE constraint."));
            }
            together => self.alter_descriptor(&table, together).await?,
        }
        Ok("ALTER TABLE")
    }

    async fn add_unique(
        &mut self,
        table: &Arc<TableDescriptor>,
        unique: &ast::UniqueConstraint,
    ) -> Result<(), SqlError> {
        kept::unique(unique)?;
        let name = unique.name.as_ref().map(crate::parse::name);
        self.add_index_to(table, name, &unique.columns, IndexKind::Unique, true).await
    }

    /// Of a table that only this transaction knows: one after the other, kept or rolled back with it.
    async fn alter_own(
        &mut self,
        mut table: Arc<TableDescriptor>,
        actions: &[Op],
    ) -> Result<(), SqlError> {
        let place = Place { region: self.engine.cluster.region().0 };
        for action in actions {
            if let Op::AddConstraint { constraint: TableConstraint::Unique(unique), .. } = action {
                self.add_unique(&table, unique).await?;
            } else {
                let (engine, cancel) = (self.engine.clone(), self.cancel.clone());
                let mut draft = self.draft().await?;
                let facts = self.facts_now();
                let active = self.begin_ddl();
                let (told, version) = (&active.told, table.version);
                let (facts, engine, canceled) = (&facts, &engine, &cancel);
                let context = Context { facts, place, engine, cancel: canceled, told, version };
                let before = table.as_ref().clone();
                let work = apply(&context, &mut active.txn, &mut draft, before, action);
                let changed = cancel.unless_canceled(work).await;
                active.note_announced(&draft);
                let changed = changed?;
                active.told.extend(changed.foreign_keys.iter().map(|key| key.table));
                draft.put(Entry::Table(changed));
                self.write_draft(draft)?;
            }
            if let Some(changed) = self.catalog().table(table.id) {
                table = changed.clone();
            }
        }
        Ok(())
    }

    /// Actions that are one change of the descriptor together, with what must be checked or rewritten: all or none.
    async fn alter_descriptor(
        &mut self,
        table: &Arc<TableDescriptor>,
        actions: &[Op],
    ) -> Result<(), SqlError> {
        let facts = self.facts_now();
        let place = Place { region: self.engine.cluster.region().0 };
        self.ready_for_job(table, &looked_at(&facts, table, actions))?;
        let job = self.job();
        let (engine, cancel) = (job.engine.clone(), job.cancel.clone());
        job::change(&job, table.id, &mut |txn, draft, mut table| {
            let (facts, actions, engine, cancel) =
                (facts.clone(), actions.to_vec(), engine.clone(), cancel.clone());
            Box::pin(async move {
                let (mut told, version) = (BTreeSet::new(), table.version + 1);
                let (facts, engine, cancel) = (&facts, &engine, &cancel);
                for action in &actions {
                    let known = table.foreign_keys.clone();
                    let context = Context { facts, place, engine, cancel, told: &told, version };
                    table = apply(&context, txn, draft, table, action).await?;
                    told.extend(job::newly_referenced(&table, &known));
                    // The next one finds the catalog with what this one has done.
                    draft.put(Entry::Table(TableDescriptor { version, ..table.clone() }));
                }
                Ok(table)
            })
        })
        .await?;
        Ok(())
    }
}

fn is_unique(action: &Op) -> bool {
    matches!(action, Op::AddConstraint { constraint: TableConstraint::Unique(_), .. })
}

/// The tables that rows are looked up in, besides the one that is changed: the referenced ones, if its rows are checked.
fn looked_at(facts: &Facts, table: &TableDescriptor, actions: &[Op]) -> Vec<Arc<TableDescriptor>> {
    let mut named = Vec::new();
    let mut checks = false;
    for action in actions {
        match action {
            Op::AddConstraint { constraint: TableConstraint::ForeignKey(key), .. } => {
                checks = true;
                named.push(&key.foreign_table);
            }
            Op::AddConstraint { constraint: TableConstraint::Check(_), .. }
            | Op::AlterColumn { op: AlterColumnOperation::SetNotNull, .. } => checks = true,
            Op::AddColumn { column_def, .. } => {
                for option in &column_def.options {
                    match &option.option {
                        ast::ColumnOption::ForeignKey(key) => {
                            checks = true;
                            named.push(&key.foreign_table);
                        }
                        ast::ColumnOption::Check(_) => checks = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    let new = named.into_iter().filter_map(|name| {
        match facts.find_relation(&crate::bind::name_parts(name).ok()?)? {
            Relation::Table(table) => Some(table),
            Relation::View(_) | Relation::Sequence(_) | Relation::Index(..) => None,
        }
    });
    let keys = table.foreign_keys.iter().filter(|_| checks);
    let known = keys.filter_map(|key| facts.catalog.table(key.table).cloned());
    new.chain(known).collect()
}

/// Surroundings of a change.
struct Context<'c> {
    facts: &'c Arc<Facts>,
    place: Place,
    engine: &'c Arc<crate::engine::Engine>,
    cancel: &'c crate::outcome::CancelHandle,
    /// Tables that need not be told that they are referenced.
    told: &'c BTreeSet<u32>,
    /// Of the table's schema, as it will be.
    version: u64,
}

/// Tells the tables that a changed one references now and did not before. The surroundings with them as they are then.
async fn announce_keys(
    context: &Context<'_>,
    txn: &mut Txn,
    draft: &mut crate::catalog::Draft,
    known: &[ForeignKeyDescriptor],
    table: &TableDescriptor,
) -> Result<Facts, SqlError> {
    // It may reference itself.
    draft.put(Entry::Table(TableDescriptor { version: context.version, ..table.clone() }));
    for referenced in job::newly_referenced(table, known) {
        if !context.told.contains(&referenced) {
            job::announce(context.engine, txn, draft, referenced).await?;
        }
    }
    let catalog = Arc::new(draft.catalog().clone());
    Ok(Facts { catalog, ..context.facts.as_ref().clone() })
}

/// Fills an index of a table that only this transaction knows.
async fn fill_own(
    txn: &mut Txn,
    table: &TableDescriptor,
    index: &crate::catalog::IndexDescriptor,
    place: Place,
) -> Result<(), SqlError> {
    let mut entries = Vec::new();
    job::each_row(txn, table, place, |row| {
        entries.push(crate::rows::index_entry(table, place, index, &row));
        Ok(())
    })
    .await?;
    let mut seen = std::collections::BTreeSet::new();
    for (key, value, unique) in entries {
        if unique && !seen.insert(key.clone()) {
            return Err(SqlError::new(
                codes::UNIQUE_VIOLATION,
                format!("could not create unique index \"{}\"", index.name),
            )
            .on_table(&table.name)
            .on_constraint(&index.name));
        }
        txn.put(key, value)?;
    }
    Ok(())
}

/// The table after an operation; checks and rewrites its rows.
async fn apply(
    context: &Context<'_>,
    txn: &mut Txn,
    draft: &mut crate::catalog::Draft,
    table: TableDescriptor,
    operation: &Op,
) -> Result<TableDescriptor, SqlError> {
    let mut facts = context.facts.as_ref().clone();
    facts.catalog = Arc::new(draft.catalog().clone());
    let column_of = |table: &TableDescriptor, name: &ast::Ident| {
        let name = crate::parse::name(name);
        table.find(&name).filter(|place| !table.columns[*place].hidden).ok_or_else(|| {
            SqlError::new(
                codes::UNDEFINED_COLUMN,
                format!("column \"{name}\" of relation \"{}\" does not exist", table.name),
            )
        })
    };
    match operation {
        Op::AddColumn { if_not_exists: true, column_def, .. }
            if table.find(&crate::parse::name(&column_def.name)).is_some() =>
        {
            Ok(table)
        }
        Op::AddColumn { column_def, .. } => {
            add_column(context, &facts, txn, draft, table, column_def).await
        }
        Op::DropColumn { column_names, if_exists, .. } => {
            let mut table = table;
            for name in column_names {
                match column_of(&table, name) {
                    Ok(place) => drop_column(&facts, draft, &mut table, place)?,
                    Err(_) if *if_exists => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(table)
        }
        Op::RenameColumn { old_column_name, new_column_name } => {
            let mut table = table;
            let place = column_of(&table, old_column_name)?;
            let name = crate::parse::name(new_column_name);
            if table.find(&name).is_some() {
                return Err(SqlError::new(
                    codes::DUPLICATE_COLUMN,
                    format!("column \"{name}\" of relation \"{}\" already exists", table.name),
                ));
            }
            if !table.checks.is_empty() {
                return Err(SqlError::unsupported(
                    "a column of a table with CHECK constraints cannot be renamed",
                ));
            }
            table.columns[place].name = name;
            Ok(table)
        }
        Op::RenameTable {
            table_name: ast::RenameTableNameKind::To(name) | ast::RenameTableNameKind::As(name),
        } => {
            let name = crate::bind::name_parts(name)?.pop().expect("a name has a part");
            if draft.catalog().relation(table.schema, &name).is_some() {
                return Err(SqlError::new(
                    codes::DUPLICATE_TABLE,
                    format!("relation \"{name}\" already exists"),
                ));
            }
            Ok(TableDescriptor { name, ..table })
        }
        Op::AlterColumn { column_name, op } => {
            let place = column_of(&table, column_name)?;
            alter_column(context, &facts, txn, table, place, op).await
        }
        Op::AddConstraint { constraint: constraint @ TableConstraint::PrimaryKey(key), .. } => {
            kept::table(constraint)?;
            if !table.has_hidden_key() {
                return Err(SqlError::new(
                    codes::INVALID_TABLE_DEFINITION,
                    format!("multiple primary keys for table \"{}\" are not allowed", table.name),
                ));
            }
            let before = table.clone();
            let mut builder = Builder::of(draft, &facts, table);
            let columns = builder.index_columns(&key.columns)?;
            for (place, _) in &columns {
                builder.table.columns[*place].not_null = true;
            }
            builder.add_index(
                key.name.as_ref().map(crate::parse::name),
                columns,
                IndexKind::Primary,
                IndexState::Public,
                true,
            )?;
            let mut after = builder.table;
            let primary = after.indexes.pop().expect("added above");
            after.indexes[0] = primary;
            for column in after.columns.iter_mut().filter(|column| column.hidden) {
                column.dropped = true;
                column.not_null = false;
            }
            job::rewrite(txn, &before, &after, context.place).await?;
            Ok(after)
        }
        Op::AddConstraint { constraint, not_valid } => {
            let known = table.foreign_keys.clone();
            let mut builder = Builder::of(draft, &facts, table);
            builder.add_constraint(constraint)?;
            let table = builder.table;
            check_expressions(&facts, &table)?;
            let facts = announce_keys(context, txn, draft, &known, &table).await?;
            if !not_valid {
                check_rows(context, &facts, txn, &table).await?;
            }
            Ok(table)
        }
        Op::SetOptionsParens { options } => {
            let options = TableOptions::read(options)?;
            if options.mode.is_some_and(|mode| mode != table.mode) {
                return Err(unsupported(operation));
            }
            let mut table = table;
            options.apply(&mut table);
            Ok(table)
        }
        Op::DropConstraint { if_exists, name, .. } => {
            drop_constraint(draft, table, &crate::parse::name(name), *if_exists)
        }
        other => Err(unsupported(other)),
    }
}

fn unsupported(operation: &Op) -> SqlError {
    let text = operation.to_string();
    let error = SqlError::unsupported(format!("ALTER TABLE {text} is not supported"));
    if !text.contains("consistency") {
        return error;
    }
    error
        .with_detail("A table keeps the consistency that it was created with: what has been promised for its rows cannot be changed under them.")
        .with_hint("Create another table and copy the rows: INSERT INTO .. SELECT.")
}

async fn add_column(
    context: &Context<'_>,
    facts: &Facts,
    txn: &mut Txn,
    draft: &mut crate::catalog::Draft,
    table: TableDescriptor,
    definition: &ast::ColumnDef,
) -> Result<TableDescriptor, SqlError> {
    let (known, checks_before) = (table.foreign_keys.clone(), table.checks.len());
    let mut builder = Builder::of(draft, facts, table);
    let place = builder.add_column(definition)?;
    let name = crate::parse::name(&definition.name);
    let keys = |option: &&ast::ColumnOptionDef| {
        matches!(option.option, ast::ColumnOption::PrimaryKey(_) | ast::ColumnOption::Unique(_))
    };
    if definition.options.iter().find(keys).is_some() {
        return Err(SqlError::unsupported(
            "ADD COLUMN with PRIMARY KEY or UNIQUE is not supported",
        )
        .with_hint("Add the column, then the constraint."));
    }
    for option in &definition.options {
        builder.column_constraint(
            &name,
            option.name.as_ref().map(crate::parse::name),
            &option.option,
        )?;
    }
    let mut table = builder.table;
    check_expressions(facts, &table)?;
    let facts = &announce_keys(context, txn, draft, &known, &table).await?;
    let mut empty = true;
    let before = TableDescriptor { columns: table.columns[..place].to_vec(), ..table.clone() };
    // A row that a stream has not brought here yet is there as well.
    for place in job::places(context.engine, &before) {
        let found = |_| {
            empty = false;
            Ok(())
        };
        job::each_row(txn, &before, place, found).await?;
    }
    if empty {
        return Ok(table);
    }
    if let Some(default) = table.columns[place].default.clone() {
        let positions = Positions::new("");
        let expr = Binder::new(facts, &positions, &[]).default_of(&table, place)?;
        if !expr.is_constant() {
            return Err(SqlError::unsupported(format!(
                "a column with DEFAULT {default} cannot be added to a table that has rows"
            ))
            .with_detail("Every row would need a value of its own.")
            .with_hint("Add the column without the default, fill it, then set the default."));
        }
        let value = evaluate(context, facts, txn, &expr).await?;
        if context.engine.has(PlantedBug::DefaultForNewRowsOnly) {
            return Ok(table);
        }
        let column = &mut table.columns[place];
        column.missing = (!value.is_null()).then(|| text::to_string(&value, column.ty, facts));
    }
    if table.columns[place].not_null
        && table.columns[place].missing.is_none()
        && table.columns[place].ty != crate::types::Type::Counter
    {
        return Err(SqlError::new(
            codes::NOT_NULL_VIOLATION,
            format!("column \"{name}\" of relation \"{}\" contains null values", table.name),
        )
        .on_table(&table.name)
        .on_column(&name));
    }
    if table.checks.len() > checks_before || table.foreign_keys.len() > known.len() {
        // The rows that are there have the column's default from now on.
        check_rows(context, facts, txn, &table).await?;
    }
    Ok(table)
}

async fn evaluate(
    context: &Context<'_>,
    facts: &Facts,
    txn: &mut Txn,
    expr: &Expr,
) -> Result<Datum, SqlError> {
    let engine = context.engine;
    let memory = engine.settings.statement_memory_bytes_max;
    let mut exec = Exec::new(txn, facts, &[], context.cancel, &engine.sequences, 0, memory);
    exec.value(expr, &[]).await
}

fn drop_column(
    facts: &Facts,
    draft: &mut crate::catalog::Draft,
    table: &mut TableDescriptor,
    place: usize,
) -> Result<(), SqlError> {
    let name = table.columns[place].name.clone();
    if table.primary().columns.iter().any(|column| column.column == place) {
        return Err(SqlError::unsupported(format!(
            "column \"{name}\" is part of the primary key and cannot be dropped"
        )));
    }
    let referenced =
        draft.catalog().referencing(table.id).any(|(_, key)| key.referenced.contains(&place));
    if referenced {
        return Err(SqlError::new(
            codes::DEPENDENT_OBJECTS,
            format!(
                "cannot drop column {name} of table {} because other objects depend on it",
                table.name
            ),
        ));
    }
    table.indexes.retain(|index| index.columns.iter().all(|column| column.column != place));
    table.foreign_keys.retain(|key| !key.columns.contains(&place));
    let owned: Vec<u32> = draft
        .catalog()
        .sequences()
        .filter(|sequence| sequence.owned_by == Some((table.id, place)))
        .map(|sequence| sequence.id)
        .collect();
    owned.into_iter().for_each(|id| draft.remove(id));
    let before = table.clone();
    let column = &mut table.columns[place];
    column.dropped = true;
    column.not_null = false;
    column.default = None;
    column.name = format!("........pg.dropped.{}........", column.id);
    // A check that names it falls with it, as in PostgreSQL: also one whose value does not hang on it.
    let positions = Positions::new("");
    let bound = |table: &TableDescriptor, text: &str| {
        let mut binder = Binder::new(facts, &positions, &[]);
        binder.stored_expression(text, Scope::table(table, &before.name))
    };
    let names_it = |text: &str| {
        bound(&before, text).is_ok_and(|typed| typed.expr.slots().contains(&place))
            || bound(table, text).is_err()
    };
    let falls: Vec<bool> = table.checks.iter().map(|check| names_it(&check.expression)).collect();
    let mut falls = falls.into_iter();
    table.checks.retain(|_| !falls.next().expect("one for each check"));
    Ok(())
}

async fn alter_column(
    context: &Context<'_>,
    facts: &Facts,
    txn: &mut Txn,
    mut table: TableDescriptor,
    place: usize,
    operation: &AlterColumnOperation,
) -> Result<TableDescriptor, SqlError> {
    match operation {
        AlterColumnOperation::SetDefault { value } => {
            table.columns[place].default = Some(stored::text(facts, value));
            check_expressions(facts, &table)?;
        }
        AlterColumnOperation::DropDefault => table.columns[place].default = None,
        AlterColumnOperation::DropNotNull => {
            if table.primary().columns.iter().any(|column| column.column == place) {
                return Err(SqlError::new(
                    codes::INVALID_TABLE_DEFINITION,
                    format!("column \"{}\" is in a primary key", table.columns[place].name),
                ));
            }
            table.columns[place].not_null = false;
        }
        AlterColumnOperation::SetNotNull => {
            table.columns[place].not_null = true;
            check_rows(context, facts, txn, &table).await?;
        }
        AlterColumnOperation::SetDataType { data_type, using: None, .. } => {
            let (ty, typmod) = crate::bind::data_type(data_type)?;
            let column = &mut table.columns[place];
            if !crate::types::widens((column.ty, column.typmod), (ty, typmod)) {
                let (from, to) = (column.ty.format(column.typmod), ty.format(typmod));
                return Err(SqlError::unsupported(format!("changing column \"{}\" from {from} to {to} is not supported", column.name))
                    .with_detail("So far a type can only be widened in place: varchar(n) to a longer one or to text, numeric(p,s) to more digits before the point."));
            }
            column.ty = ty;
            column.typmod = typmod;
        }
        other => {
            return Err(SqlError::unsupported(format!("ALTER COLUMN {other} is not supported")));
        }
    }
    Ok(table)
}

fn drop_constraint(
    draft: &mut crate::catalog::Draft,
    mut table: TableDescriptor,
    name: &str,
    if_exists: bool,
) -> Result<TableDescriptor, SqlError> {
    let before = (table.checks.len(), table.foreign_keys.len(), table.indexes.len());
    if table.primary().name == name && !table.has_hidden_key() {
        return Err(SqlError::unsupported("a primary key cannot be dropped"));
    }
    let index = table
        .indexes
        .iter()
        .find(|index| index.name == name && index.constraint.is_some())
        .cloned();
    if let Some(index) = &index
        && draft.catalog().referencing(table.id).any(|(_, key)| key.index == index.id)
    {
        return Err(SqlError::new(
            codes::DEPENDENT_OBJECTS,
            format!(
                "cannot drop constraint {name} on table {} because other objects depend on it",
                table.name
            ),
        ));
    }
    table.checks.retain(|check| check.name != name);
    table.foreign_keys.retain(|key| key.name != name);
    table.indexes.retain(|one| index.as_ref().is_none_or(|index| one.id != index.id));
    if before == (table.checks.len(), table.foreign_keys.len(), table.indexes.len()) && !if_exists {
        return Err(SqlError::new(
            SqlState::UNDEFINED_OBJECT,
            format!("constraint \"{name}\" of relation \"{}\" does not exist", table.name),
        ));
    }
    Ok(table)
}

/// Checks every row against NOT NULL, CHECK and foreign keys.
async fn check_rows(
    context: &Context<'_>,
    facts: &Facts,
    txn: &mut Txn,
    table: &TableDescriptor,
) -> Result<(), SqlError> {
    let shared = Arc::new(table.clone());
    let positions = Positions::new("");
    let mut binder = Binder::new(facts, &positions, &[]);
    let target = crate::bind::target_for(&mut binder, &shared)?;
    let mut rows = Vec::new();
    for place in job::places(context.engine, table) {
        let take = |row| {
            rows.push(row);
            Ok(())
        };
        job::each_row(txn, table, place, take).await?;
    }
    let engine = context.engine;
    let memory = engine.settings.statement_memory_bytes_max;
    let mut exec = Exec::new(txn, facts, &[], context.cancel, &engine.sequences, 64, memory);
    for row in rows {
        for (column, value) in table.columns.iter().zip(&row) {
            if column.not_null && !column.dropped && value.is_null() {
                return Err(SqlError::new(
                    codes::NOT_NULL_VIOLATION,
                    format!(
                        "column \"{}\" of relation \"{}\" contains null values",
                        column.name, table.name
                    ),
                )
                .on_table(&table.name)
                .on_column(&column.name));
            }
        }
        for (name, check) in &target.checks {
            if exec.value(check, &row).await? == Datum::Bool(false) {
                return Err(SqlError::new(
                    codes::CHECK_VIOLATION,
                    format!(
                        "check constraint \"{name}\" of relation \"{}\" is violated by some row",
                        table.name
                    ),
                )
                .on_table(&table.name)
                .on_constraint(name));
            }
        }
        exec.check_parents(&target, &row, None).await?;
    }
    Ok(())
}
