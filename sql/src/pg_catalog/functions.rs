//! Value: functions over the session: who, where, when, with which settings. Those over the catalog are in `functions_catalog`.
//!
//! They have plain signatures; the binder takes the first that fits. Code gets converted arguments, and none that is NULL
//! if the function is strict. Functions that change something (`nextval`, `pg_sleep`) are the executor's; `set_config` only
//! notes its wish, which the session grants after the statement.

use super::names::{quote_ident, relation_named, schema_oid};
use super::{functions_catalog, relation, settings};
use crate::error::{SqlError, codes};
use crate::exec::Facts;
use crate::types::Type::{
    self, Any, Bool, Int4, Int8, Name, Numeric, RegClass, Text, TimestampTz, Void,
};
use crate::types::{Datum, SqlState};

/// The code of a function.
pub(crate) type Code = fn(&Facts, &[Datum]) -> Result<Datum, SqlError>;
pub(super) type Answer = Result<Datum, SqlError>;

/// A function over the session or the catalog.
pub(crate) struct SessionFunction {
    /// Its name.
    pub name: &'static str,
    /// How many of its arguments must be given.
    pub required: usize,
    /// Types of its arguments; `Any`: whatever it is.
    pub args: &'static [Type],
    /// Type of its result.
    pub result: Type,
    /// NULL in, NULL out, without a call.
    pub strict: bool,
    /// Another answer each time.
    pub volatile: bool,
    /// The code.
    pub code: Code,
}

/// A strict function that takes all its arguments and repeats itself within a statement.
pub(super) const fn stable(
    name: &'static str,
    args: &'static [Type],
    result: Type,
    code: Code,
) -> SessionFunction {
    SessionFunction {
        name,
        required: args.len(),
        args,
        result,
        strict: true,
        volatile: false,
        code,
    }
}

impl SessionFunction {
    /// The same, whose last arguments may be left out.
    pub(super) const fn with_optional(mut self, count: usize) -> SessionFunction {
        self.required -= count;
        self
    }

    const fn volatile(mut self) -> SessionFunction {
        self.volatile = true;
        self
    }

    /// The same, called with NULLs too.
    pub(super) const fn called_on_null(mut self) -> SessionFunction {
        self.strict = false;
        self
    }
}

/// Every function.
pub(crate) fn all() -> impl Iterator<Item = &'static SessionFunction> {
    TABLE.iter().chain(functions_catalog::TABLE)
}

/// The functions of a name.
pub(crate) fn named(name: &str) -> impl Iterator<Item = &'static SessionFunction> {
    all().filter(move |function| function.name == name)
}

const NAMES: Type = Type::Array(&Type::Name);

static TABLE: &[SessionFunction] = &[
    stable("current_user", &[], Name, user),
    stable("session_user", &[], Name, user),
    stable("current_role", &[], Name, user),
    stable("user", &[], Name, user),
    stable("current_database", &[], Name, database),
    stable("current_catalog", &[], Name, database),
    stable("current_schema", &[], Name, |facts, _| {
        let schema = facts.path().into_iter().next();
        Ok(schema
            .and_then(|oid| super::names::schema_name(facts, oid))
            .map_or(Datum::Null, Datum::text))
    }),
    stable("current_schemas", &[Bool], NAMES, |facts, args| {
        Ok(current_schemas(facts, args[0].is_true()))
    }),
    stable("version", &[], Text, |facts, _| Ok(Datum::text(settings::version(facts)))),
    stable("current_setting", &[Text, Bool], Text, current_setting).with_optional(1),
    stable("set_config", &[Text, Text, Bool], Text, set_config).called_on_null().volatile(),
    stable("gateway_region", &[], Text, |facts, _| {
        Ok(facts.cluster.region_name(facts.cluster.region()).map_or(Datum::Null, Datum::text))
    }),
    stable("pg_backend_pid", &[], Int4, |facts, _| Ok(Datum::Int4(facts.process_id))),
    stable("pg_is_in_recovery", &[], Bool, |_, _| Ok(Datum::Bool(false))),
    // There is no counter of transactions over all regions: their beginnings tell transactions apart well enough for tools
    // that compare snapshots of the catalog.
    stable("txid_current", &[], Int8, |facts, _| Ok(Datum::Int8(facts.transaction_us))),
    stable("pg_postmaster_start_time", &[], TimestampTz, |_, _| {
        Err(SqlError::unsupported("pg_postmaster_start_time is not supported")
            .with_detail("A cluster has no one start."))
    }),
    stable("pg_conf_load_time", &[], TimestampTz, |_, _| {
        Err(SqlError::unsupported("pg_conf_load_time is not supported")
            .with_detail("A cluster has no one configuration."))
    }),
    stable("pg_client_encoding", &[], Name, |_, _| Ok(Datum::text("UTF8"))),
    stable("getdatabaseencoding", &[], Name, |_, _| Ok(Datum::text("UTF8"))),
    stable("pg_encoding_to_char", &[Int4], Name, |_, args| {
        Ok(Datum::text(encoding_name(int(args, 0)?)))
    }),
    stable("pg_char_to_encoding", &[Text], Int4, |_, args| {
        Ok(Datum::Int4(encoding_number(text(args, 0)?)))
    }),
    stable("pg_size_pretty", &[Int8], Text, |_, args| Ok(Datum::text(size_pretty(int(args, 0)?)))),
    stable("pg_size_pretty", &[Numeric], Text, |_, args| {
        let bytes = args.first().and_then(Datum::as_f64).unwrap_or(0.0);
        Ok(Datum::text(size_pretty(bytes.round() as i64)))
    }),
    stable("currval", &[RegClass], Int8, current_value).volatile(),
    stable("lastval", &[], Int8, last_value).volatile(),
    stable("row_security_active", &[Any], Bool, |_, _| Ok(Datum::Bool(false))),
    // No session can hold an advisory lock, so there is none to let go.
    stable("pg_advisory_unlock_all", &[], Void, |_, _| Ok(Datum::text(""))),
    stable("pg_advisory_lock", &[Int8, Int4], Void, no_advisory_locks).with_optional(1),
    stable("pg_try_advisory_lock", &[Int8, Int4], Bool, no_advisory_locks).with_optional(1),
    stable("pg_advisory_xact_lock", &[Int8, Int4], Void, no_advisory_locks).with_optional(1),
    stable("pg_try_advisory_xact_lock", &[Int8, Int4], Bool, no_advisory_locks).with_optional(1),
    stable("pg_advisory_unlock", &[Int8, Int4], Bool, no_advisory_locks).with_optional(1),
    stable("has_table_privilege", &[Any, Any, Text], Bool, has_relation_privilege),
    stable("has_table_privilege", &[Any, Text], Bool, has_relation_privilege),
    stable("has_sequence_privilege", &[Any, Any, Text], Bool, has_relation_privilege),
    stable("has_sequence_privilege", &[Any, Text], Bool, has_relation_privilege),
    stable("has_any_column_privilege", &[Any, Any, Text], Bool, has_relation_privilege),
    stable("has_any_column_privilege", &[Any, Text], Bool, has_relation_privilege),
    stable("has_column_privilege", &[Any, Any, Any, Text], Bool, has_column_privilege),
    stable("has_column_privilege", &[Any, Any, Text], Bool, has_column_privilege),
    stable("has_schema_privilege", &[Any, Any, Text], Bool, has_schema_privilege),
    stable("has_schema_privilege", &[Any, Text], Bool, has_schema_privilege),
    stable("has_database_privilege", &[Any, Any, Text], Bool, has_database_privilege),
    stable("has_database_privilege", &[Any, Text], Bool, has_database_privilege),
    stable("has_function_privilege", &[Any, Any, Text], Bool, has_other_privilege),
    stable("has_function_privilege", &[Any, Text], Bool, has_other_privilege),
    stable("has_type_privilege", &[Any, Any, Text], Bool, has_other_privilege),
    stable("has_type_privilege", &[Any, Text], Bool, has_other_privilege),
    stable("has_language_privilege", &[Any, Any, Text], Bool, has_other_privilege),
    stable("has_language_privilege", &[Any, Text], Bool, has_other_privilege),
    stable("has_tablespace_privilege", &[Any, Any, Text], Bool, has_other_privilege),
    stable("has_tablespace_privilege", &[Any, Text], Bool, has_other_privilege),
    stable("pg_has_role", &[Any, Any, Text], Bool, has_role),
    stable("pg_has_role", &[Any, Text], Bool, has_role),
];

// --- arguments ---

fn mismatch() -> SqlError {
    SqlError::internal("a function was called with arguments of other types than it declares")
}

pub(super) fn text(args: &[Datum], at: usize) -> Result<&str, SqlError> {
    args.get(at).and_then(Datum::as_str).ok_or_else(mismatch)
}

pub(super) fn int(args: &[Datum], at: usize) -> Result<i64, SqlError> {
    args.get(at).and_then(Datum::as_i64).ok_or_else(mismatch)
}

pub(super) fn oid(args: &[Datum], at: usize) -> Result<u32, SqlError> {
    // -1 and the like name nothing, as 0 does.
    Ok(u32::try_from(int(args, at)?).unwrap_or(0))
}

// --- who and where ---

fn user(facts: &Facts, _: &[Datum]) -> Answer {
    Ok(Datum::Text(facts.user.clone()))
}

fn database(facts: &Facts, _: &[Datum]) -> Answer {
    Ok(Datum::Text(facts.database_name.clone()))
}

fn current_schemas(facts: &Facts, with_implicit: bool) -> Datum {
    let mut path = facts.path();
    if with_implicit && !path.contains(&crate::catalog::PG_CATALOG) {
        path.insert(0, crate::catalog::PG_CATALOG);
    }
    let names = path.into_iter().filter_map(|oid| super::names::schema_name(facts, oid));
    Datum::array(Type::Name, names.map(Datum::text).collect())
}

// --- settings ---

fn current_setting(facts: &Facts, args: &[Datum]) -> Answer {
    let name = text(args, 0)?;
    match settings::current(facts, name) {
        Some(value) => Ok(Datum::text(value)),
        None if args.get(1).is_some_and(Datum::is_true) => Ok(Datum::Null),
        None => Err(unrecognized(name)),
    }
}

fn unrecognized(name: &str) -> SqlError {
    SqlError::new(
        SqlState::UNDEFINED_OBJECT,
        format!("unrecognized configuration parameter \"{name}\""),
    )
}

fn set_config(facts: &Facts, args: &[Datum]) -> Answer {
    let [name, value, local] = args else { return Err(mismatch()) };
    let Some(name) = name.as_str() else {
        return Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, "SET requires parameter name"));
    };
    // Names with a dot are the user's own.
    if settings::current(facts, name).is_none() && !name.contains('.') {
        return Err(unrecognized(name));
    }
    let change = settings::Change {
        name: name.to_string(),
        value: value.as_str().map(str::to_string),
        local: local.is_true(),
    };
    facts.sequence_values.lock().setting_changes.push(change);
    Ok(match value {
        Datum::Null => settings::default_of(name).map_or(Datum::Null, Datum::text),
        value => value.clone(),
    })
}

fn encoding_name(number: i64) -> &'static str {
    match number {
        0 => "SQL_ASCII",
        6 => "UTF8",
        8 => "LATIN1",
        _ => "",
    }
}

fn encoding_number(name: &str) -> i32 {
    let squeezed: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    match squeezed.to_ascii_lowercase().as_str() {
        "sqlascii" => 0,
        "utf8" | "unicode" => 6,
        "latin1" | "iso88591" => 8,
        _ => -1,
    }
}

/// As PostgreSQL: the unit changes at ten times its size, halves are rounded away from zero.
fn size_pretty(bytes: i64) -> String {
    let mut size = i128::from(bytes);
    if size.abs() < 10 * 1024 {
        return format!("{size} bytes");
    }
    // Twice the size in the next unit, so that one bit is left to round by.
    size /= 512;
    for unit in ["kB", "MB", "GB", "TB"] {
        if size.abs() < 20 * 1024 - 1 {
            return format!("{} {unit}", half_rounded(size));
        }
        size /= 1024;
    }
    format!("{} PB", half_rounded(size))
}

fn half_rounded(twice: i128) -> i128 {
    (twice + twice.signum()) / 2
}

// --- sequences ---

fn current_value(facts: &Facts, args: &[Datum]) -> Answer {
    let sequence = oid(args, 0)?;
    let Some(value) = facts.sequence_values.lock().values.get(&sequence).copied() else {
        let Some(found) = facts.catalog.sequence(sequence) else {
            let name = super::names::relation_name(facts, sequence)
                .unwrap_or_else(|| sequence.to_string());
            return Err(SqlError::new(
                codes::WRONG_OBJECT_TYPE,
                format!("\"{name}\" is not a sequence"),
            ));
        };
        return Err(SqlError::new(
            codes::OBJECT_NOT_IN_STATE,
            format!("currval of sequence \"{}\" is not yet defined in this session", found.name),
        ));
    };
    Ok(Datum::Int8(value))
}

fn last_value(facts: &Facts, _: &[Datum]) -> Answer {
    let drawn = facts.sequence_values.lock();
    let value = drawn.last.and_then(|sequence| drawn.values.get(&sequence).copied());
    value.map(Datum::Int8).ok_or_else(|| {
        SqlError::new(codes::OBJECT_NOT_IN_STATE, "lastval is not yet defined in this session")
    })
}

fn no_advisory_locks(_: &Facts, _: &[Datum]) -> Answer {
    Err(SqlError::unsupported("advisory locks are not supported")
        .with_hint("Lock a row of a table for it: SELECT ... FOR UPDATE."))
}

// --- privileges: none are recorded, so everybody has those that make sense of what exists ---

const PRIVILEGES: &[&str] = &[
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "TRUNCATE",
    "REFERENCES",
    "TRIGGER",
    "USAGE",
    "CREATE",
    "CONNECT",
    "TEMPORARY",
    "TEMP",
    "EXECUTE",
    "MEMBER",
    "SET",
];

fn check_privilege(list: &str) -> Result<(), SqlError> {
    for word in list.split(',') {
        let upper = word.trim().to_uppercase();
        let plain =
            upper.trim_end_matches(" WITH GRANT OPTION").trim_end_matches(" WITH ADMIN OPTION");
        if !PRIVILEGES.contains(&plain) {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("unrecognized privilege type: \"{}\"", word.trim()),
            ));
        }
    }
    Ok(())
}

/// Checks the privilege (last) and the user (in front of the object, if given); answers the object's place.
fn object_place(facts: &Facts, args: &[Datum], after: usize) -> Result<usize, SqlError> {
    check_privilege(text(args, args.len() - 1)?)?;
    let place = args.len() - 2 - after;
    if place == 1 {
        check_role(facts, &args[0])?;
    }
    Ok(place)
}

fn check_role(facts: &Facts, role: &Datum) -> Result<bool, SqlError> {
    match role.as_str() {
        Some(name) if name == "public" || facts.catalog.role(name).is_some() => Ok(true),
        Some(name) => Err(SqlError::new(
            SqlState::UNDEFINED_OBJECT,
            format!("role \"{name}\" does not exist"),
        )),
        None => Ok(role
            .as_i64()
            .and_then(|oid| u32::try_from(oid).ok())
            .is_some_and(|oid| facts.catalog.role_by_id(oid).is_some())),
    }
}

fn relation_of(facts: &Facts, object: &Datum) -> Result<Option<u32>, SqlError> {
    match object.as_str() {
        Some(name) => relation_named(facts, name).map(Some),
        None => {
            let oid = object.as_i64().and_then(|oid| u32::try_from(oid).ok()).unwrap_or(0);
            Ok(relation::one(facts, oid).map(|found| found.oid()))
        }
    }
}

fn has_relation_privilege(facts: &Facts, args: &[Datum]) -> Answer {
    let place = object_place(facts, args, 0)?;
    Ok(relation_of(facts, &args[place])?.map_or(Datum::Null, |_| Datum::Bool(true)))
}

fn has_column_privilege(facts: &Facts, args: &[Datum]) -> Answer {
    let place = object_place(facts, args, 1)?;
    let Some(relation) = relation_of(facts, &args[place])? else { return Ok(Datum::Null) };
    match args[place + 1].as_str() {
        Some(column) => {
            super::names::attribute_named(facts, relation, column).map(|_| Datum::Bool(true))
        }
        None => {
            let number = int(args, place + 1)?;
            let found =
                relation::one(facts, relation).map(|found| found.attributes()).unwrap_or_default();
            let exists = found
                .iter()
                .any(|attribute| !attribute.dropped && i64::from(attribute.number) == number);
            Ok(if exists { Datum::Bool(true) } else { Datum::Null })
        }
    }
}

fn has_schema_privilege(facts: &Facts, args: &[Datum]) -> Answer {
    let place = object_place(facts, args, 0)?;
    match args[place].as_str() {
        Some(name) if schema_oid(facts, name).is_some() => Ok(Datum::Bool(true)),
        Some(name) => Err(SqlError::new(
            SqlState::INVALID_SCHEMA_NAME,
            format!("schema {} does not exist", quote_ident(name)),
        )),
        None => Ok(super::names::schema_name(facts, oid(args, place)?)
            .map_or(Datum::Null, |_| Datum::Bool(true))),
    }
}

fn has_database_privilege(facts: &Facts, args: &[Datum]) -> Answer {
    let place = object_place(facts, args, 0)?;
    match args[place].as_str() {
        Some(name) if facts.catalog.database(name).is_some() => Ok(Datum::Bool(true)),
        Some(name) => Err(SqlError::new(
            codes::INVALID_CATALOG_NAME,
            format!("database \"{name}\" does not exist"),
        )),
        None => {
            let oid = oid(args, place)?;
            let exists = facts.catalog.databases().any(|database| database.id == oid);
            Ok(if exists { Datum::Bool(true) } else { Datum::Null })
        }
    }
}

fn has_other_privilege(facts: &Facts, args: &[Datum]) -> Answer {
    object_place(facts, args, 0)?;
    Ok(Datum::Bool(true))
}

/// There is no membership: a role is itself, and a superuser is everybody.
fn has_role(facts: &Facts, args: &[Datum]) -> Answer {
    let place = object_place(facts, args, 0)?;
    check_role(facts, &args[place])?;
    let name_of = |role: &Datum| match role.as_str() {
        Some(name) => Some(name.to_string()),
        None => role
            .as_i64()
            .and_then(|oid| facts.catalog.role_by_id(u32::try_from(oid).ok()?))
            .map(|role| role.name.clone()),
    };
    let who = if place == 1 { name_of(&args[0]) } else { Some(facts.user.to_string()) };
    let is_superuser =
        who.as_ref().and_then(|who| facts.catalog.role(who)).is_some_and(|role| role.superuser);
    Ok(Datum::Bool(is_superuser || who.is_some() && who == name_of(&args[place])))
}

#[cfg(test)]
mod tests {
    use super::size_pretty;

    #[test]
    fn sizes_print_as_postgres_prints_them() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (10_239, "10239 bytes"),
            (10_240, "10 kB"),
            (10_485_247, "10239 kB"),
            (10_485_248, "10 MB"),
            (1_000_000_000, "954 MB"),
            (-10_240, "-10 kB"),
            (i64::MAX, "8192 PB"),
        ] {
            assert_eq!(size_pretty(bytes), text, "{bytes}");
        }
    }
}
