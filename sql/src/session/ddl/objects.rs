//! Driver: schemas, databases, roles, sequences, views.

use super::{Session, stored};
use crate::bind::Binder;
use crate::catalog::{
    Catalog, DatabaseDescriptor, Entry, FIRST_DATABASE, FIRST_ROLE, RoleDescriptor,
    SchemaDescriptor, SequenceDescriptor, TableDescriptor, ViewDescriptor,
};
use crate::error::{SqlError, codes};
use crate::outcome::Notice;
use crate::parse::Parsed;
use crate::types::SqlState;
use sqlparser::ast::{self, SequenceOptions};
use std::sync::Arc;

impl Session {
    pub(super) async fn create_schema(
        &mut self,
        name: &ast::SchemaName,
        if_not_exists: bool,
    ) -> Result<&'static str, SqlError> {
        let name = match name {
            ast::SchemaName::Simple(name) | ast::SchemaName::NamedAuthorization(name, _) => {
                crate::bind::name_parts(name)?.pop().expect("a name has a part")
            }
            ast::SchemaName::UnnamedAuthorization(role) => crate::parse::name(role),
        };
        let database = self.database;
        let is_there = |catalog: &Catalog| {
            catalog.schema(database, &name).is_some()
                || name.starts_with("pg_")
                || name == "information_schema"
        };
        let skipped = || Notice::note(format!("schema \"{name}\" already exists, skipping"));
        if if_not_exists && self.holds_now(|facts| is_there(&facts.catalog)).await? {
            self.notice(skipped());
            return Ok("CREATE SCHEMA");
        }
        let mut draft = self.draft().await?;
        if is_there(draft.catalog()) {
            if if_not_exists {
                self.notice(skipped());
                return Ok("CREATE SCHEMA");
            }
            return Err(SqlError::new(
                codes::DUPLICATE_SCHEMA,
                format!("schema \"{name}\" already exists"),
            ));
        }
        let id = draft.allocate()?;
        draft.put(Entry::Schema(SchemaDescriptor { id, database: self.database, name }));
        self.write_draft(draft)?;
        Ok("CREATE SCHEMA")
    }

    pub(super) async fn drop_schemas(
        &mut self,
        names: &[ast::ObjectName],
        if_exists: bool,
        cascade: bool,
    ) -> Result<(), SqlError> {
        let mut draft = self.draft().await?;
        let mut dropped: Vec<Arc<TableDescriptor>> = Vec::new();
        for name in names {
            let name = crate::bind::name_parts(name)?.pop().expect("a name has a part");
            let Some(id) = draft.catalog().schema(self.database, &name).map(|schema| schema.id)
            else {
                if if_exists {
                    self.notice(Notice::note(format!(
                        "schema \"{name}\" does not exist, skipping"
                    )));
                    continue;
                }
                return Err(SqlError::new(
                    SqlState::INVALID_SCHEMA_NAME,
                    format!("schema \"{name}\" does not exist"),
                ));
            };
            let tables: Vec<_> =
                draft.catalog().tables().filter(|table| table.schema == id).cloned().collect();
            let mut others: Vec<u32> = draft
                .catalog()
                .views()
                .filter(|view| view.schema == id)
                .map(|view| view.id)
                .collect();
            others.extend(
                draft
                    .catalog()
                    .sequences()
                    .filter(|sequence| sequence.schema == id)
                    .map(|sequence| sequence.id),
            );
            if !cascade && (!tables.is_empty() || !others.is_empty()) {
                return Err(SqlError::new(
                    codes::DEPENDENT_OBJECTS,
                    format!("cannot drop schema {name} because other objects depend on it"),
                )
                .with_hint("Use DROP ... CASCADE to drop the dependent objects too."));
            }
            let ids: Vec<u32> = tables.iter().map(|table| table.id).collect();
            for table in tables {
                super::drop::drop_table(&mut draft, &table, &ids, true)?;
                dropped.push(table);
            }
            others.into_iter().for_each(|id| draft.remove(id));
            draft.remove(id);
        }
        self.write_draft(draft)?;
        self.begin_if_none().dropped.extend(dropped);
        Ok(())
    }

    pub(super) async fn create_database(
        &mut self,
        name: &ast::ObjectName,
        if_not_exists: bool,
    ) -> Result<&'static str, SqlError> {
        let name = crate::bind::name_parts(name)?.pop().expect("a name has a part");
        let is_there = |catalog: &Catalog| catalog.database(&name).is_some();
        let skipped = || Notice::note(format!("database \"{name}\" already exists, skipping"));
        if if_not_exists && self.holds_now(|facts| is_there(&facts.catalog)).await? {
            self.notice(skipped());
            return Ok("CREATE DATABASE");
        }
        let mut draft = self.draft().await?;
        if is_there(draft.catalog()) {
            if if_not_exists {
                self.notice(skipped());
                return Ok("CREATE DATABASE");
            }
            return Err(SqlError::new(
                codes::DUPLICATE_DATABASE,
                format!("database \"{name}\" already exists"),
            ));
        }
        let id = draft.allocate()?;
        let schema = draft.allocate()?;
        draft.put(Entry::Database(DatabaseDescriptor { id, name }));
        draft.put(Entry::Schema(SchemaDescriptor {
            id: schema,
            database: id,
            name: "public".into(),
        }));
        self.write_draft(draft)?;
        Ok("CREATE DATABASE")
    }

    pub(super) async fn drop_databases(
        &mut self,
        names: &[ast::ObjectName],
        if_exists: bool,
    ) -> Result<(), SqlError> {
        let mut draft = self.draft().await?;
        let mut dropped = Vec::new();
        for name in names {
            let name = crate::bind::name_parts(name)?.pop().expect("a name has a part");
            let Some(id) = draft.catalog().database(&name).map(|database| database.id) else {
                if if_exists {
                    self.notice(Notice::note(format!(
                        "database \"{name}\" does not exist, skipping"
                    )));
                    continue;
                }
                return Err(SqlError::new(
                    codes::INVALID_CATALOG_NAME,
                    format!("database \"{name}\" does not exist"),
                ));
            };
            if id == self.database || id == FIRST_DATABASE {
                return Err(SqlError::new(
                    codes::OBJECT_NOT_IN_STATE,
                    "cannot drop the currently open database",
                ));
            }
            let schemas: Vec<u32> = draft
                .catalog()
                .schemas()
                .filter(|schema| schema.database == id)
                .map(|schema| schema.id)
                .collect();
            let tables: Vec<_> = draft
                .catalog()
                .tables()
                .filter(|table| schemas.contains(&table.schema))
                .cloned()
                .collect();
            let ids: Vec<u32> = tables.iter().map(|table| table.id).collect();
            let mut others: Vec<u32> = draft
                .catalog()
                .views()
                .filter(|view| schemas.contains(&view.schema))
                .map(|view| view.id)
                .collect();
            others.extend(
                draft
                    .catalog()
                    .sequences()
                    .filter(|one| schemas.contains(&one.schema))
                    .map(|one| one.id),
            );
            for table in tables {
                super::drop::drop_table(&mut draft, &table, &ids, true)?;
                dropped.push(table);
            }
            others.into_iter().chain(schemas).chain([id]).for_each(|id| draft.remove(id));
        }
        self.write_draft(draft)?;
        self.begin_if_none().dropped.extend(dropped);
        Ok(())
    }

    pub(super) async fn create_role(
        &mut self,
        create: &ast::CreateRole,
    ) -> Result<&'static str, SqlError> {
        let mut draft = self.draft().await?;
        if create.password.is_some() {
            self.notice(Notice::warning(
                SqlState::FEATURE_NOT_SUPPORTED,
                "passwords are not checked yet: the role can log in without",
            ));
        }
        for name in &create.names {
            let name = crate::bind::name_parts(name)?.pop().expect("a name has a part");
            if draft.catalog().role(&name).is_some() {
                if create.if_not_exists {
                    continue;
                }
                return Err(SqlError::new(
                    codes::DUPLICATE_OBJECT,
                    format!("role \"{name}\" already exists"),
                ));
            }
            let id = draft.allocate()?;
            let login = create.login.unwrap_or(true);
            draft.put(Entry::Role(RoleDescriptor {
                id,
                name,
                superuser: create.superuser.unwrap_or(false),
                login,
            }));
        }
        self.write_draft(draft)?;
        Ok("CREATE ROLE")
    }

    pub(super) async fn drop_roles(
        &mut self,
        names: &[ast::ObjectName],
        if_exists: bool,
    ) -> Result<(), SqlError> {
        let mut draft = self.draft().await?;
        for name in names {
            let name = crate::bind::name_parts(name)?.pop().expect("a name has a part");
            match draft.catalog().role(&name).map(|role| role.id) {
                Some(id) if id == FIRST_ROLE || name == *self.user => {
                    return Err(SqlError::new(
                        codes::OBJECT_NOT_IN_STATE,
                        "current user cannot be dropped",
                    ));
                }
                Some(id) if draft.catalog().tables().any(|table| table.owner == id) => {
                    return Err(SqlError::new(
                        codes::DEPENDENT_OBJECTS,
                        format!(
                            "role \"{name}\" cannot be dropped because some objects depend on it"
                        ),
                    ));
                }
                Some(id) => draft.remove(id),
                None if if_exists => {
                    self.notice(Notice::note(format!("role \"{name}\" does not exist, skipping")))
                }
                None => {
                    return Err(SqlError::new(
                        SqlState::UNDEFINED_OBJECT,
                        format!("role \"{name}\" does not exist"),
                    ));
                }
            }
        }
        self.write_draft(draft)?;
        Ok(())
    }

    pub(super) async fn create_sequence(
        &mut self,
        name: &ast::ObjectName,
        if_not_exists: bool,
        options: &[SequenceOptions],
    ) -> Result<&'static str, SqlError> {
        let skipped =
            |name: &str| Notice::note(format!("relation \"{name}\" already exists, skipping"));
        if if_not_exists && self.is_there(name).await? {
            let name = crate::bind::name_parts(name)?.pop().expect("a name has a part");
            self.notice(skipped(&name));
            return Ok("CREATE SEQUENCE");
        }
        let mut draft = self.draft().await?;
        let (schema, name) = self.creation_name(name, draft.catalog())?;
        if draft.catalog().relation(schema, &name).is_some() {
            if if_not_exists {
                self.notice(skipped(&name));
                return Ok("CREATE SEQUENCE");
            }
            return Err(SqlError::new(
                codes::DUPLICATE_TABLE,
                format!("relation \"{name}\" already exists"),
            ));
        }
        let owner = draft.catalog().role(&self.user).map_or(FIRST_ROLE, |role| role.id);
        let id = draft.allocate()?;
        draft.put(Entry::Sequence(sequence_of(id, schema, name, owner, options)?));
        self.write_draft(draft)?;
        Ok("CREATE SEQUENCE")
    }

    pub(super) async fn create_view(
        &mut self,
        create: &ast::CreateView,
        parsed: &Parsed,
    ) -> Result<&'static str, SqlError> {
        if create.materialized || create.temporary {
            return Err(SqlError::unsupported(
                "materialized and temporary views are not supported",
            ));
        }
        let or_nothing = create.if_not_exists && !create.or_replace;
        if or_nothing && self.is_there(&create.name).await? {
            return Ok("CREATE VIEW");
        }
        let facts = self.facts_now();
        let binder = Binder::new(&facts, &parsed.positions, &[]);
        let (planned, unqualified) = binder.select_to_store(&create.query)?;
        let query = stored::query(&facts, &create.query, &unqualified);
        if planned.plan.changes_rows() {
            return Err(SqlError::unsupported(
                "views must not contain data-modifying statements in WITH",
            ));
        }
        if !planned.params.is_empty() {
            return Err(SqlError::new(codes::UNDEFINED_PARAMETER, "a view cannot have parameters"));
        }
        let mut draft = self.draft().await?;
        let (schema, name) = self.creation_name(&create.name, draft.catalog())?;
        let existing = draft.catalog().relation(schema, &name);
        let id = match existing {
            Some(crate::catalog::Relation::View(view)) if create.or_replace => view.id,
            Some(_) if create.if_not_exists => return Ok("CREATE VIEW"),
            Some(_) => {
                return Err(SqlError::new(
                    codes::DUPLICATE_TABLE,
                    format!("relation \"{name}\" already exists"),
                ));
            }
            None => draft.allocate()?,
        };
        let owner = draft.catalog().role(&self.user).map_or(FIRST_ROLE, |role| role.id);
        let aliases: Vec<String> =
            create.columns.iter().map(|column| crate::parse::name(&column.name)).collect();
        let columns = planned.columns.as_ref().map(|columns| columns.to_vec()).unwrap_or_default();
        let columns = columns.iter().enumerate().map(|(at, column)| {
            let name = aliases.get(at).cloned().unwrap_or_else(|| column.name.to_string());
            (name, column.ty.internal_name().into_owned())
        });
        let view = ViewDescriptor { id, schema, name, owner, columns: columns.collect(), query };
        draft.put(Entry::View(view));
        self.write_draft(draft)?;
        Ok("CREATE VIEW")
    }
}

fn sequence_of(
    id: u32,
    schema: u32,
    name: String,
    owner: u32,
    options: &[SequenceOptions],
) -> Result<SequenceDescriptor, SqlError> {
    let number = |expr: &ast::Expr| {
        expr.to_string().replace(' ', "").parse::<i64>().map_err(|_| {
            SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("invalid sequence option: {expr}"),
            )
        })
    };
    let (mut increment, mut min, mut max, mut start, mut cycle) = (1, None, None, None, false);
    for option in options {
        match option {
            SequenceOptions::IncrementBy(expr, _) => increment = number(expr)?,
            SequenceOptions::MinValue(value) => min = value.as_ref().map(number).transpose()?,
            SequenceOptions::MaxValue(value) => max = value.as_ref().map(number).transpose()?,
            SequenceOptions::StartWith(expr, _) => start = Some(number(expr)?),
            SequenceOptions::Cycle(no) => cycle = !no,
            SequenceOptions::Cache(_) => {}
        }
    }
    if increment == 0 {
        return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, "INCREMENT must not be zero"));
    }
    let min = min.unwrap_or(if increment > 0 { 1 } else { i64::MIN });
    let max = max.unwrap_or(if increment > 0 { i64::MAX } else { -1 });
    if min >= max {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("MINVALUE ({min}) must be less than MAXVALUE ({max})"),
        ));
    }
    let start = start.unwrap_or(if increment > 0 { min } else { max });
    if !(min..=max).contains(&start) {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("START value ({start}) is out of bounds"),
        ));
    }
    Ok(SequenceDescriptor {
        id,
        schema,
        name,
        owner,
        start,
        increment,
        min,
        max,
        cycle,
        owned_by: None,
        restarted_as: None,
    })
}
