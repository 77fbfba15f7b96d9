//! Driver: CREATE TABLE, and the pieces of a table that ALTER TABLE adds later.

use super::options::TableOptions;
use super::{Session, free_name, job, kept, stored};
use crate::bind::{Binder, Scope, data_type};
use crate::catalog::{
    COLUMNS_MAX, CheckDescriptor, ColumnDescriptor, Draft, Entry, ForeignKeyAction,
    ForeignKeyDescriptor, INDEX_COLUMNS_MAX, Identity, IndexColumn, IndexDescriptor, IndexKind,
    IndexState, ROWID, SequenceDescriptor, TableDescriptor, TableMode,
};
use crate::error::{SqlError, codes};
use crate::exec::Facts;
use crate::outcome::Notice;
use crate::parse::Positions;
use crate::pg_catalog::names::quote_ident;
use crate::rows::can_be_key;
use crate::types::{SqlState, Type};
use clock::Timestamp;
use replication::range::RegionId;
use sqlparser::ast::{self, ColumnOption, TableConstraint};
use storage::Key;

/// A table that is being put together.
pub(super) struct Builder<'d> {
    pub(super) draft: &'d mut Draft,
    pub(super) facts: &'d Facts,
    pub(super) table: TableDescriptor,
    /// Names of indexes given so far.
    names: Vec<String>,
}

impl Session {
    pub(super) async fn create_table(
        &mut self,
        create: &ast::CreateTable,
    ) -> Result<&'static str, SqlError> {
        refuse_unsupported(create)?;
        let skipped = |name: &str| Notice {
            code: codes::DUPLICATE_TABLE,
            ..Notice::note(format!("relation \"{name}\" already exists, skipping"))
        };
        if create.if_not_exists && self.is_there(&create.name).await? {
            let name = crate::bind::name_parts(&create.name)?.pop().expect("a name has a part");
            self.notice(skipped(&name));
            return Ok("CREATE TABLE");
        }
        let mut draft = self.draft().await?;
        let (schema, name) = self.creation_name(&create.name, draft.catalog())?;
        if draft.catalog().relation(schema, &name).is_some() {
            if create.if_not_exists {
                self.notice(skipped(&name));
                return Ok("CREATE TABLE");
            }
            return Err(SqlError::new(
                codes::DUPLICATE_TABLE,
                format!("relation \"{name}\" already exists"),
            ));
        }
        let mut facts = self.facts_now().as_ref().clone();
        facts.catalog = std::sync::Arc::new(draft.catalog().clone());
        let options = TableOptions::of_create(&create.table_options)?;
        let owner =
            facts.catalog.role(&self.user).map_or(crate::catalog::FIRST_ROLE, |role| role.id);
        let id = draft.allocate_table(self.engine.settings.planted)?;
        let mut table = TableDescriptor {
            id,
            schema,
            name,
            owner,
            version: 1,
            since: Timestamp::MIN,
            mode: TableMode::Strong,
            columns: Vec::new(),
            indexes: Vec::new(),
            checks: Vec::new(),
            foreign_keys: Vec::new(),
            next_index: 1,
            options: Vec::new(),
            gc_ttl_ms: None,
        };
        options.apply(&mut table);
        let mut builder = Builder { draft: &mut draft, facts: &facts, table, names: Vec::new() };
        builder.build(create)?;
        let table = builder.table;
        check_expressions(&facts, &table)?;
        let (engine, cancel) = (self.engine.clone(), self.cancel.clone());
        let active = self.begin_if_none();
        for referenced in job::newly_referenced(&table, &[]) {
            if !active.told.contains(&referenced) {
                let told = job::announce(&engine, &mut active.txn, &mut draft, referenced);
                let told = cancel.unless_canceled(told).await;
                active.note_announced(&draft);
                told?;
                active.told.insert(referenced);
            }
        }
        active.told.insert(table.id);
        active.made.insert(table.id);
        let (splits, copies) = (self.range_starts(&table), self.copies(&table));
        draft.put(Entry::Table(table));
        self.write_draft(draft)?;
        self.engine.cluster.split(splits).await.map_err(|why| {
            SqlError::new(
                codes::SYSTEM_ERROR,
                format!("the new table could not be given its ranges: {why}"),
            )
        })?;
        self.copies_arrive(copies).await;
        Ok("CREATE TABLE")
    }

    /// A table that answers in local time does so once its copies are where they live. A region that cannot be reached now gets its
    /// copy later: that is no reason to have no table.
    async fn copies_arrive(&mut self, copies: Vec<(RegionId, Key)>) {
        if copies.is_empty() {
            return;
        }
        let cluster = self.engine.cluster.clone();
        for (region, _) in cluster.settle(copies).await {
            let name = cluster.region_name(region).unwrap_or_default();
            self.notice(Notice {
                hint: Some("SHOW RANGES tells when it is there.".to_string()),
                ..Notice::note(format!("the copy of region {name} is not there yet; until then it cannot be used when {name} is cut off"))
            });
        }
    }

    /// The regions' copies of an available table, by first key.
    fn copies(&self, table: &TableDescriptor) -> Vec<(RegionId, Key)> {
        let regions = match table.mode {
            TableMode::Strong => Vec::new(),
            TableMode::Available => self.engine.cluster.regions(),
        };
        let copy = |(region, _): &(RegionId, String)| (*region, Key::copy(region.0, table.id));
        regions.iter().map(copy).collect()
    }

    /// Where the table's ranges begin, and where the next table's does.
    fn range_starts(&self, table: &TableDescriptor) -> Vec<Key> {
        let prefixes = match table.mode {
            TableMode::Strong => vec![Key::table(table.id)],
            TableMode::Available => {
                self.copies(table).into_iter().map(|(_, prefix)| prefix).collect()
            }
        };
        prefixes.into_iter().flat_map(|prefix| [prefix.clone(), prefix.prefix_end()]).collect()
    }
}

fn refuse_unsupported(create: &ast::CreateTable) -> Result<(), SqlError> {
    let unsupported = [
        ("CREATE TEMPORARY TABLE", create.temporary),
        ("CREATE TABLE AS", create.query.is_some()),
        ("CREATE TABLE (LIKE)", create.like.is_some()),
        ("PARTITION BY", create.partition_by.is_some() || create.partition_of.is_some()),
        ("INHERITS", create.inherits.is_some()),
        ("CREATE EXTERNAL TABLE", create.external),
    ];
    match unsupported.iter().find(|(_, there)| *there) {
        Some((what, _)) => Err(SqlError::unsupported(format!("{what} is not supported"))),
        None => Ok(()),
    }
}

/// Defaults and checks are bound once, so that a mistake is found now.
pub(super) fn check_expressions(facts: &Facts, table: &TableDescriptor) -> Result<(), SqlError> {
    let positions = Positions::new("");
    for (place, column) in table.columns.iter().enumerate() {
        // Sequences of serial columns are created with the table: their names are not known yet.
        if column.default.as_deref().is_some_and(|default| !default.starts_with("nextval(")) {
            Binder::new(facts, &positions, &[]).default_of(table, place)?;
        }
    }
    for check in &table.checks {
        let mut binder = Binder::new(facts, &positions, &[]);
        let typed =
            binder.stored_expression(&check.expression, Scope::table(table, &table.name))?;
        if typed.ty != Type::Bool {
            return Err(SqlError::new(
                SqlState::DATATYPE_MISMATCH,
                format!("argument of CHECK must be type boolean, not type {}", typed.ty),
            ));
        }
    }
    Ok(())
}

impl<'d> Builder<'d> {
    /// For a table that is there.
    pub(super) fn of(
        draft: &'d mut Draft,
        facts: &'d Facts,
        table: TableDescriptor,
    ) -> Builder<'d> {
        Builder { draft, facts, table, names: Vec::new() }
    }

    fn build(&mut self, create: &ast::CreateTable) -> Result<(), SqlError> {
        if create.columns.len() > COLUMNS_MAX {
            return Err(SqlError::new(
                codes::TOO_MANY_COLUMNS,
                format!("tables can have at most {COLUMNS_MAX} columns"),
            ));
        }
        for column in &create.columns {
            self.add_column(column)?;
        }
        self.add_primary_key(create)?;
        for column in &create.columns {
            let name = crate::parse::name(&column.name);
            for option in &column.options {
                let constraint = option.name.as_ref().map(crate::parse::name);
                self.column_constraint(&name, constraint, &option.option)?;
            }
        }
        for constraint in &create.constraints {
            self.add_constraint(constraint)?;
        }
        self.check_mode()
    }

    /// Adds a column, without its constraints.
    pub(super) fn add_column(&mut self, definition: &ast::ColumnDef) -> Result<usize, SqlError> {
        let name = crate::parse::name(&definition.name);
        if self.table.find(&name).is_some() {
            return Err(SqlError::new(
                codes::DUPLICATE_COLUMN,
                format!("column \"{name}\" specified more than once"),
            ));
        }
        let place = self.table.columns.len();
        let serial = crate::bind::serial(&definition.data_type);
        let (ty, typmod) = match serial {
            Some(ty) => (ty, -1),
            None => data_type(&definition.data_type)?,
        };
        if matches!(ty, Type::Record | Type::Void | Type::Unknown | Type::Any)
            || ty.category() == 'P'
        {
            return Err(SqlError::new(
                codes::INVALID_TABLE_DEFINITION,
                format!("column \"{name}\" has pseudo-type {ty}"),
            ));
        }
        if ty == Type::Counter && self.table.mode == TableMode::Strong {
            return Err(SqlError::unsupported(
                "type COUNTER is for tables WITH (consistency = 'available')",
            )
            .with_detail(
                "A strong table needs no merging: increments of a bigint are never lost there.",
            ));
        }
        let mut column = ColumnDescriptor {
            id: u32::try_from(place + 1).expect("at most 1600 columns"),
            name,
            ty,
            typmod,
            not_null: serial.is_some() || ty == Type::Counter,
            default: None,
            missing: None,
            identity: None,
            dropped: false,
            hidden: false,
        };
        let mut needs_sequence = serial.is_some();
        for option in &definition.options {
            match &option.option {
                ColumnOption::NotNull | ColumnOption::PrimaryKey(_) => column.not_null = true,
                ColumnOption::Default(expr) => {
                    column.default = Some(stored::text(self.facts, expr))
                }
                ColumnOption::Generated {
                    generated_as,
                    generation_expr: None,
                    sequence_options,
                    ..
                } => {
                    column.identity = Some(match generated_as {
                        ast::GeneratedAs::Always => Identity::Always,
                        ast::GeneratedAs::ByDefault => Identity::ByDefault,
                        ast::GeneratedAs::ExpStored => {
                            return Err(SqlError::unsupported(
                                "generated columns are not supported",
                            ));
                        }
                    });
                    if sequence_options.as_ref().is_some_and(|options| !options.is_empty()) {
                        return Err(SqlError::unsupported(
                            "options of identity columns are not supported",
                        ));
                    }
                    column.not_null = true;
                    needs_sequence = true;
                }
                ColumnOption::Null
                | ColumnOption::Unique(_)
                | ColumnOption::ForeignKey(_)
                | ColumnOption::Check(_)
                | ColumnOption::Collation(_) => {}
                other => {
                    return Err(SqlError::unsupported(format!(
                        "column option {other} is not supported"
                    )));
                }
            }
        }
        if needs_sequence {
            column.default = Some(self.add_sequence(&column, place)?);
        }
        self.table.columns.push(column);
        Ok(place)
    }

    fn add_sequence(
        &mut self,
        column: &ColumnDescriptor,
        place: usize,
    ) -> Result<String, SqlError> {
        if self.table.mode == TableMode::Available {
            return Err(SqlError::unsupported(format!(
                "column \"{}\" of an available table cannot draw from a sequence",
                column.name
            ))
            .with_detail(
                "A sequence lives in one place; a region that is cut off from it could not insert.",
            )
            .with_hint("Use uuid with DEFAULT gen_random_uuid()."));
        }
        let wanted = format!("{}_{}_seq", self.table.name, column.name);
        let name = free_name(self.draft.catalog(), self.table.schema, &wanted, &self.names);
        let id = self.draft.allocate()?;
        let max = match column.ty {
            Type::Int2 => i64::from(i16::MAX),
            Type::Int4 => i64::from(i32::MAX),
            _ => i64::MAX,
        };
        self.names.push(name.clone());
        self.draft.put(Entry::Sequence(SequenceDescriptor {
            id,
            schema: self.table.schema,
            name: name.clone(),
            owner: self.table.owner,
            start: 1,
            increment: 1,
            min: 1,
            max,
            cycle: false,
            owned_by: Some((self.table.id, place)),
            restarted_as: None,
        }));
        let schema = self
            .draft
            .catalog()
            .schema_by_id(self.table.schema)
            .ok_or_else(|| SqlError::internal("a table's schema is missing"))?;
        let path = format!("{}.{}", quote_ident(&schema.name), quote_ident(&name));
        Ok(format!("nextval('{}'::regclass)", path.replace('\'', "''")))
    }

    /// The primary key as written, or a hidden row id.
    fn add_primary_key(&mut self, create: &ast::CreateTable) -> Result<(), SqlError> {
        let mut found = Vec::new();
        for column in &create.columns {
            for option in &column.options {
                if let ColumnOption::PrimaryKey(_) = option.option {
                    let place = self.place(&crate::parse::name(&column.name))?;
                    found
                        .push((option.name.as_ref().map(crate::parse::name), vec![(place, false)]));
                }
            }
        }
        for constraint in &create.constraints {
            if let TableConstraint::PrimaryKey(key) = constraint {
                found.push((
                    key.name.as_ref().map(crate::parse::name),
                    self.index_columns(&key.columns)?,
                ));
            }
        }
        if found.len() > 1 {
            return Err(SqlError::new(
                codes::INVALID_TABLE_DEFINITION,
                format!("multiple primary keys for table \"{}\" are not allowed", self.table.name),
            ));
        }
        match found.pop() {
            Some((name, columns)) => {
                for (place, _) in &columns {
                    self.table.columns[*place].not_null = true;
                }
                self.add_index(name, columns, IndexKind::Primary, IndexState::Public, true)
            }
            None => {
                let place = self.table.columns.len();
                self.table.columns.push(ColumnDescriptor {
                    id: u32::try_from(place + 1).expect("at most 1600 columns"),
                    name: ROWID.to_string(),
                    ty: Type::Uuid,
                    typmod: -1,
                    not_null: true,
                    default: None,
                    missing: None,
                    identity: None,
                    dropped: false,
                    hidden: true,
                });
                self.add_index(
                    None,
                    vec![(place, false)],
                    IndexKind::Primary,
                    IndexState::Public,
                    false,
                )
            }
        }
    }

    fn place(&self, name: &str) -> Result<usize, SqlError> {
        self.table.find(name).filter(|place| !self.table.columns[*place].hidden).ok_or_else(|| {
            SqlError::new(
                codes::UNDEFINED_COLUMN,
                format!("column \"{name}\" named in key does not exist"),
            )
        })
    }

    /// Columns of an index as written.
    pub(super) fn index_columns(
        &self,
        columns: &[ast::IndexColumn],
    ) -> Result<Vec<(usize, bool)>, SqlError> {
        let mut result = Vec::new();
        for column in columns {
            let ast::Expr::Identifier(ident) = &column.column.expr else {
                return Err(SqlError::unsupported("indexes on expressions are not supported"));
            };
            let descending = matches!(column.column.options.sort, Some(ast::OrderBySort::Desc));
            if column.column.options.nulls_first.is_some_and(|first| first != descending) {
                return Err(SqlError::unsupported(
                    "NULLS FIRST and NULLS LAST are supported in their default places only",
                ));
            }
            result.push((self.place(&crate::parse::name(ident))?, descending));
        }
        Ok(result)
    }

    /// Adds an index descriptor.
    pub(super) fn add_index(
        &mut self,
        name: Option<String>,
        columns: Vec<(usize, bool)>,
        kind: IndexKind,
        state: IndexState,
        constraint: bool,
    ) -> Result<(), SqlError> {
        if columns.len() > INDEX_COLUMNS_MAX {
            return Err(SqlError::new(
                codes::TOO_MANY_COLUMNS,
                format!("cannot use more than {INDEX_COLUMNS_MAX} columns in an index"),
            ));
        }
        for (place, _) in &columns {
            let column = &self.table.columns[*place];
            if !can_be_key(column.ty) {
                return Err(SqlError::unsupported(format!(
                    "column \"{}\" of type {} cannot be part of a key",
                    column.name, column.ty
                )));
            }
        }
        if kind == IndexKind::Unique && self.table.mode == TableMode::Available {
            return Err(SqlError::unsupported("UNIQUE is not possible on an available table, but for its primary key")
                .with_detail("Two regions that cannot reach each other could both insert the value, and neither could know.")
                .with_hint("Make the column part of the primary key, or use a strong table."));
        }
        let names = self.table.column_names(columns.iter().map(|(place, _)| *place)).join("_");
        let wanted = match kind {
            IndexKind::Primary => format!("{}_pkey", self.table.name),
            IndexKind::Unique if constraint => format!("{}_{names}_key", self.table.name),
            IndexKind::Unique | IndexKind::Plain => format!("{}_{names}_idx", self.table.name),
        };
        let name = match name {
            Some(name) => {
                if self.draft.catalog().relation(self.table.schema, &name).is_some()
                    || self.names.contains(&name)
                {
                    return Err(SqlError::new(
                        codes::DUPLICATE_TABLE,
                        format!("relation \"{name}\" already exists"),
                    ));
                }
                name
            }
            None => free_name(self.draft.catalog(), self.table.schema, &wanted, &self.names),
        };
        self.names.push(name.clone());
        let index = IndexDescriptor {
            id: self.table.next_index,
            oid: self.draft.allocate()?,
            name,
            columns: columns
                .into_iter()
                .map(|(column, descending)| IndexColumn { column, descending })
                .collect(),
            kind,
            state,
            constraint: constraint.then(|| self.draft.allocate()).transpose()?,
        };
        self.table.next_index += 1;
        self.table.indexes.push(index);
        Ok(())
    }

    /// A column's own constraints, but the primary key.
    pub(super) fn column_constraint(
        &mut self,
        column: &str,
        name: Option<String>,
        option: &ColumnOption,
    ) -> Result<(), SqlError> {
        let place = self.place(column)?;
        kept::column(option)?;
        match option {
            ColumnOption::Unique(_) => self.add_index(
                name,
                vec![(place, false)],
                IndexKind::Unique,
                IndexState::Public,
                true,
            ),
            ColumnOption::Check(check) => self.add_check(name, Some(column), &check.expr),
            ColumnOption::ForeignKey(key) => self.add_foreign_key(name, vec![place], key),
            _ => Ok(()),
        }
    }

    /// A table's constraints, but the primary key.
    pub(super) fn add_constraint(&mut self, constraint: &TableConstraint) -> Result<(), SqlError> {
        kept::table(constraint)?;
        match constraint {
            TableConstraint::PrimaryKey(_) => Ok(()),
            TableConstraint::Unique(unique) => {
                let columns = self.index_columns(&unique.columns)?;
                self.add_index(
                    unique.name.as_ref().map(crate::parse::name),
                    columns,
                    IndexKind::Unique,
                    IndexState::Public,
                    true,
                )
            }
            TableConstraint::Check(check) => {
                self.add_check(check.name.as_ref().map(crate::parse::name), None, &check.expr)
            }
            TableConstraint::ForeignKey(key) => {
                let mut places = Vec::new();
                for column in &key.columns {
                    places.push(self.place(&crate::parse::name(column))?);
                }
                self.add_foreign_key(key.name.as_ref().map(crate::parse::name), places, key)
            }
            other => Err(SqlError::unsupported(format!("constraint {other} is not supported"))),
        }
    }

    fn add_check(
        &mut self,
        name: Option<String>,
        column: Option<&str>,
        expr: &ast::Expr,
    ) -> Result<(), SqlError> {
        let base = match column {
            Some(column) => format!("{}_{column}_check", self.table.name),
            None => format!("{}_check", self.table.name),
        };
        let name = self.constraint_name(name, &base)?;
        let oid = self.draft.allocate()?;
        let expression = stored::text(self.facts, expr);
        self.table.checks.push(CheckDescriptor { oid, name, expression });
        Ok(())
    }

    /// The name that was given, unless a check or a foreign key of the table has it; or one like `base`.
    fn constraint_name(&self, given: Option<String>, base: &str) -> Result<String, SqlError> {
        let checks = self.table.checks.iter().map(|check| &check.name);
        let keys = self.table.foreign_keys.iter().map(|key| &key.name);
        let taken: Vec<&String> = checks.chain(keys).collect();
        match given {
            Some(name) if taken.contains(&&name) => Err(SqlError::new(
                codes::DUPLICATE_OBJECT,
                format!(
                    "constraint \"{name}\" for relation \"{}\" already exists",
                    self.table.name
                ),
            )),
            Some(name) => Ok(name),
            None => Ok((0..)
                .map(|n| if n == 0 { base.to_string() } else { format!("{base}{n}") })
                .find(|name| !taken.contains(&name))
                .expect("numbers do not end")),
        }
    }

    fn add_foreign_key(
        &mut self,
        name: Option<String>,
        columns: Vec<usize>,
        key: &ast::ForeignKeyConstraint,
    ) -> Result<(), SqlError> {
        let parts = crate::bind::name_parts(&key.foreign_table)?;
        let own = parts.last().is_some_and(|name| *name == self.table.name) && parts.len() == 1;
        let parent = if own {
            self.table.clone()
        } else {
            let mut facts = self.facts.clone();
            facts.catalog = std::sync::Arc::new(self.draft.catalog().clone());
            match facts.find_relation(&parts) {
                Some(crate::catalog::Relation::Table(table)) => table.as_ref().clone(),
                _ => {
                    return Err(SqlError::new(
                        SqlState::UNDEFINED_TABLE,
                        format!("relation \"{}\" does not exist", parts.join(".")),
                    ));
                }
            }
        };
        if parent.mode != self.table.mode || self.table.mode == TableMode::Available {
            return Err(SqlError::unsupported("a foreign key is possible between strong tables only")
                .with_detail("A region that is cut off could delete the referenced row, or insert a referencing one, unseen by the others."));
        }
        let referenced = if key.referred_columns.is_empty() {
            if parent.has_hidden_key() {
                return Err(SqlError::new(
                    SqlState::UNDEFINED_OBJECT,
                    format!("there is no primary key for referenced table \"{}\"", parent.name),
                ));
            }
            parent.primary().columns.iter().map(|column| column.column).collect()
        } else {
            let mut places = Vec::new();
            for column in &key.referred_columns {
                let name = crate::parse::name(column);
                places.push(parent.find(&name).ok_or_else(|| {
                    SqlError::new(
                        codes::UNDEFINED_COLUMN,
                        format!(
                            "column \"{name}\" referenced in foreign key constraint does not exist"
                        ),
                    )
                })?);
            }
            places
        };
        if referenced.len() != columns.len() {
            return Err(SqlError::new(
                codes::INVALID_FOREIGN_KEY,
                "number of referencing and referenced columns for foreign key disagree",
            ));
        }
        // One that is still being filled may turn out not to be unique.
        let same_set = |index: &IndexDescriptor| {
            index.kind != IndexKind::Plain
                && index.state == IndexState::Public
                && index.columns.len() == referenced.len()
                && index.columns.iter().all(|column| referenced.contains(&column.column))
        };
        let Some(index) = parent.indexes.iter().find(|index| same_set(index)).map(|index| index.id)
        else {
            return Err(SqlError::new(
                codes::INVALID_FOREIGN_KEY,
                format!(
                    "there is no unique constraint matching given keys for referenced table \"{}\"",
                    parent.name
                ),
            ));
        };
        for (own, other) in columns.iter().zip(&referenced) {
            let (a, b) = (&self.table.columns[*own], &parent.columns[*other]);
            let integer = |ty| matches!(ty, Type::Int2 | Type::Int4 | Type::Int8);
            let string = |ty| matches!(ty, Type::Text | Type::Varchar | Type::Name);
            if a.ty != b.ty && !(integer(a.ty) && integer(b.ty)) && !(string(a.ty) && string(b.ty))
            {
                return Err(SqlError::new(
                    SqlState::DATATYPE_MISMATCH,
                    format!(
                        "foreign key constraint on column \"{}\" cannot be implemented",
                        a.name
                    ),
                )
                .with_detail(format!(
                    "Key columns \"{}\" and \"{}\" are of incompatible types: {} and {}.",
                    a.name, b.name, a.ty, b.ty
                )));
            }
        }
        let names = self.table.column_names(columns.iter().copied()).join("_");
        let name = self.constraint_name(name, &format!("{}_{names}_fkey", self.table.name))?;
        let oid = self.draft.allocate()?;
        self.table.foreign_keys.push(ForeignKeyDescriptor {
            oid,
            name,
            columns,
            table: parent.id,
            referenced,
            index,
            on_delete: action(key.on_delete)?,
            on_update: action(key.on_update)?,
        });
        Ok(())
    }

    /// What an available table cannot hold.
    fn check_mode(&self) -> Result<(), SqlError> {
        if self.table.mode == TableMode::Available && self.table.has_hidden_key() {
            return Err(SqlError::unsupported("an available table needs a primary key")
                .with_detail("Rows of different regions are merged by it."));
        }
        Ok(())
    }
}

fn action(action: Option<ast::ReferentialAction>) -> Result<ForeignKeyAction, SqlError> {
    match action {
        None | Some(ast::ReferentialAction::Restrict | ast::ReferentialAction::NoAction) => {
            Ok(ForeignKeyAction::Restrict)
        }
        Some(ast::ReferentialAction::Cascade) => Ok(ForeignKeyAction::Cascade),
        Some(ast::ReferentialAction::SetNull) => Ok(ForeignKeyAction::SetNull),
        Some(ast::ReferentialAction::SetDefault) => {
            Err(SqlError::unsupported("SET DEFAULT of foreign keys is not supported"))
        }
    }
}
