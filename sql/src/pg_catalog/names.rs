//! Value: names of OIDs and OIDs of names: `regclass` and kin, `quote_ident`, what the search path makes visible.
//!
//! A name is shown with its schema only if it would mean something else, or nothing, without (PostgreSQL's
//! `generate_relation_name`). Reading splits at dots, folds what is not quoted to lower case, and follows the search path.

use super::procedure;
use super::relation::{self, Rel};
use crate::catalog::{INFORMATION_SCHEMA, PG_CATALOG, Relation};
use crate::error::{SqlError, codes};
use crate::exec::Facts;
use crate::types::{SqlState, Type, TypeError};

/// Words that must be quoted to be a name: PostgreSQL 15's keywords but for the unreserved ones.
const KEYWORDS: &str = "\
    all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both case \
    cast char character check coalesce collate collation column concurrently constraint create cross \
    current_catalog current_date current_role current_schema current_time current_timestamp current_user dec \
    decimal default deferrable desc distinct do else end except exists extract false fetch float for foreign \
    freeze from full grant greatest group grouping having ilike in initially inner inout int integer intersect \
    interval into is isnull join lateral leading least left like limit localtime localtimestamp national natural \
    nchar none normalize not notnull null nullif numeric offset on only or order out outer overlaps overlay \
    placing position precision primary real references returning right row select session_user setof similar \
    smallint some substring symmetric table tablesample then time timestamp to trailing treat trim true union \
    unique user using values varchar variadic verbose when where window with xmlattributes xmlconcat xmlelement \
    xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable";

/// The name under which a value of `regclass` or kin is shown; `None`: nothing has that OID, its number is shown.
pub(crate) fn name_of(facts: &Facts, ty: Type, oid: u32) -> Option<String> {
    match ty {
        Type::RegClass => relation_name(facts, oid),
        Type::RegType => Type::from_oid(oid).map(|ty| ty.name().into_owned()),
        Type::RegProc => procedure::by_oid(oid).map(|procedure| quote_ident(procedure.name)),
        Type::RegProcedure => procedure::by_oid(oid).map(procedure::Procedure::signature),
        Type::RegNamespace => schema_name(facts, oid).map(|name| quote_ident(&name)),
        Type::RegRole => facts.catalog.role_by_id(oid).map(|role| quote_ident(&role.name)),
        _ => None,
    }
}

/// The OID that a name means for `regclass` or kin. `None`: there is nothing of that name and the general message does;
/// an error: with PostgreSQL's code and message for that kind of object.
pub(crate) fn oid_of(facts: &Facts, ty: Type, name: &str) -> Result<Option<u32>, TypeError> {
    let missing = |code: SqlState, what: &str| {
        TypeError::new(code, format!("{what} \"{name}\" does not exist"))
    };
    let invalid = || TypeError::new(SqlState::INVALID_NAME, "invalid name syntax");
    match ty {
        Type::RegClass => match relation_oid(facts, &split(name)?) {
            Some(oid) => Ok(Some(oid)),
            None => Err(missing(SqlState::UNDEFINED_TABLE, "relation")),
        },
        Type::RegType => match type_named(name) {
            Some(ty) => Ok(Some(ty.oid())),
            None => Err(missing(SqlState::UNDEFINED_OBJECT, "type")),
        },
        Type::RegProc | Type::RegProcedure => procedure_oid(ty, name).map(Some),
        Type::RegNamespace => {
            let parts = split(name)?;
            let [only] = parts.as_slice() else { return Err(invalid()) };
            schema_oid(facts, only)
                .map(Some)
                .ok_or_else(|| missing(SqlState::INVALID_SCHEMA_NAME, "schema"))
        }
        Type::RegRole => {
            let parts = split(name)?;
            let [only] = parts.as_slice() else { return Err(invalid()) };
            let role = facts.catalog.role(only).map(|role| Some(role.id));
            role.ok_or_else(|| missing(SqlState::UNDEFINED_OBJECT, "role"))
        }
        _ => Ok(None),
    }
}

fn procedure_oid(ty: Type, name: &str) -> Result<u32, TypeError> {
    let missing = || {
        TypeError::new(SqlState::UNDEFINED_FUNCTION, format!("function \"{name}\" does not exist"))
    };
    let plain = match ty {
        Type::RegProcedure => name.split('(').next().unwrap_or(name),
        _ => name,
    };
    let parts = split(plain)?;
    let wanted = match parts.as_slice() {
        [only] => only,
        [schema, only] if schema == "pg_catalog" => only,
        _ => return Err(missing()),
    };
    let found: Vec<_> =
        procedure::all().iter().filter(|procedure| procedure.name == wanted.as_str()).collect();
    if ty == Type::RegProcedure {
        let squeezed: String = name.split_whitespace().collect();
        let unqualified = squeezed.strip_prefix("pg_catalog.").unwrap_or(&squeezed);
        let same = |procedure: &&&procedure::Procedure| {
            let signature: String = procedure.signature().split_whitespace().collect();
            signature == unqualified
        };
        return found.iter().find(same).map(|procedure| procedure.oid).ok_or_else(missing);
    }
    match found.as_slice() {
        [] => Err(missing()),
        [only] => Ok(only.oid),
        _ => Err(TypeError::new(
            SqlState::AMBIGUOUS_FUNCTION,
            format!("more than one function named \"{name}\""),
        )),
    }
}

/// A type by its name in SQL, its modifier ignored: `integer`, `pg_catalog.int4`, `varchar(10)[]`.
pub(crate) fn type_named(name: &str) -> Option<Type> {
    let mut rest = name.trim();
    rest = rest.strip_prefix("pg_catalog.").unwrap_or(rest);
    let mut is_array = false;
    while let Some(inner) = rest.strip_suffix(']') {
        rest = inner.trim_end_matches(|c: char| c.is_ascii_digit()).strip_suffix('[')?.trim_end();
        is_array = true;
    }
    // The modifier may stand in the middle: timestamp(3) with time zone.
    let without = match (rest.find('('), rest.find(')')) {
        (Some(open), Some(close)) if open < close => {
            format!("{}{}", rest[..open].trim_end(), &rest[close + 1..])
        }
        _ => rest.to_string(),
    };
    let scalar = match without.strip_prefix('"').and_then(|inner| inner.strip_suffix('"')) {
        Some(quoted) => Type::from_internal_name(quoted)?,
        None if without.eq_ignore_ascii_case("char") => Type::BpChar,
        None => Type::from_name(
            &without.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" "),
        )?,
    };
    if is_array && scalar.element().is_none() { scalar.array() } else { Some(scalar) }
}

/// The parts of a name as written: `public."My Table"`. 42602 if it is none.
pub(super) fn split(text: &str) -> Result<Vec<String>, TypeError> {
    let invalid = || TypeError::new(SqlState::INVALID_NAME, "invalid name syntax");
    let mut parts = Vec::new();
    let mut rest = text.trim();
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            Some(quoted) => split_quoted(quoted).ok_or_else(invalid)?,
            None => {
                let end = rest.find(|c: char| c == '.' || c.is_whitespace()).unwrap_or(rest.len());
                if rest[..end].contains('"') {
                    return Err(invalid());
                }
                (rest[..end].to_lowercase(), &rest[end..])
            }
        };
        if part.is_empty() {
            return Err(invalid());
        }
        parts.push(part);
        let after = after.trim_start();
        match after.strip_prefix('.') {
            Some(next) => rest = next.trim_start(),
            None if after.is_empty() => return Ok(parts),
            None => return Err(invalid()),
        }
    }
}

fn split_quoted(text: &str) -> Option<(String, &str)> {
    let mut part = String::new();
    let mut rest = text;
    loop {
        let end = rest.find('"')?;
        part.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                part.push('"');
                rest = next;
            }
            None => return Some((part, rest)),
        }
    }
}

/// A name as SQL must write it.
pub(crate) fn quote_ident(name: &str) -> String {
    let plain = |byte: u8| byte == b'_' || byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let starts = name.bytes().next().is_some_and(|byte| plain(byte) && !byte.is_ascii_digit());
    if starts && name.bytes().all(plain) && !KEYWORDS.split_whitespace().any(|word| word == name) {
        return name.to_string();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The OID of a relation by the parts of its name.
pub(super) fn relation_oid(facts: &Facts, parts: &[String]) -> Option<u32> {
    if let Some(table) = super::find(parts) {
        return Some(table.oid);
    }
    facts.find_relation(parts).map(|found| oid_of_relation(&found))
}

fn oid_of_relation(relation: &Relation) -> u32 {
    match relation {
        Relation::Table(table) => table.id,
        Relation::Sequence(sequence) => sequence.id,
        Relation::View(view) => view.id,
        Relation::Index(table, index) => table.index(*index).map_or(0, |index| index.oid),
    }
}

/// Whether a relation's name alone means it; `None`: there is no such relation.
pub(super) fn is_visible(facts: &Facts, oid: u32) -> Option<bool> {
    relation::one(facts, oid).map(|found| means(facts, &found))
}

fn means(facts: &Facts, found: &Rel<'_>) -> bool {
    relation_oid(facts, &[found.name().to_string()]) == Some(found.oid())
}

/// A relation's name, quoted, with its schema if it must be.
pub(super) fn relation_name(facts: &Facts, oid: u32) -> Option<String> {
    let found = relation::one(facts, oid)?;
    if means(facts, &found) {
        return Some(quote_ident(found.name()));
    }
    Some(qualified(facts, &found))
}

/// A relation's name, quoted, with its schema.
pub(super) fn qualified_name(facts: &Facts, oid: u32) -> Option<String> {
    relation::one(facts, oid).map(|found| qualified(facts, &found))
}

/// A relation's name as a text has it, with its schema; `None`: it names none, or has it already.
pub(crate) fn qualified_text(facts: &Facts, text: &str) -> Option<String> {
    let parts = split(text).ok().filter(|parts| parts.len() == 1)?;
    qualified_name(facts, relation_oid(facts, &parts)?)
}

/// The name of the schema in which a relation is found by its name alone.
pub(crate) fn schema_found(facts: &Facts, name: &str) -> Option<String> {
    let oid = oid_of_relation(&facts.find_relation(&[name.to_string()])?);
    schema_name(facts, relation::one(facts, oid)?.schema())
}

/// A stored default as it is shown: the sequence that it draws from has its schema only if it must.
pub(super) fn shown_default(facts: &Facts, text: &str) -> String {
    let drawn_from = || {
        let rest = text.strip_prefix("nextval('")?.strip_suffix(')')?;
        let (name, cast) = rest.rsplit_once('\'')?;
        let quoted = name.replace("''", "").contains('\'');
        if quoted || !["", "::regclass"].contains(&cast.to_lowercase().as_str()) {
            return None;
        }
        let parts = split(&name.replace("''", "'")).ok()?;
        relation_name(facts, relation_oid(facts, &parts)?)
    };
    drawn_from().map_or_else(
        || text.to_string(),
        |name| format!("nextval('{}'::regclass)", name.replace('\'', "''")),
    )
}

fn qualified(facts: &Facts, found: &Rel<'_>) -> String {
    let schema = schema_name(facts, found.schema()).unwrap_or_default();
    format!("{}.{}", quote_ident(&schema), quote_ident(found.name()))
}

/// A schema's name.
pub(super) fn schema_name(facts: &Facts, oid: u32) -> Option<String> {
    match oid {
        PG_CATALOG => Some("pg_catalog".to_string()),
        INFORMATION_SCHEMA => Some("information_schema".to_string()),
        _ => facts.catalog.schema_by_id(oid).map(|schema| schema.name.clone()),
    }
}

/// A schema's OID.
pub(super) fn schema_oid(facts: &Facts, name: &str) -> Option<u32> {
    match name {
        "pg_catalog" => Some(PG_CATALOG),
        "information_schema" => Some(INFORMATION_SCHEMA),
        _ => facts.catalog.schema(facts.database, name).map(|schema| schema.id),
    }
}

/// A role's name; PostgreSQL's words for one that does not exist.
pub(super) fn role_name(facts: &Facts, oid: u32) -> String {
    facts
        .catalog
        .role_by_id(oid)
        .map_or_else(|| format!("unknown (OID={oid})"), |role| role.name.clone())
}

/// The OID of the relation that a text names; 42P01 if none.
pub(super) fn relation_named(facts: &Facts, text: &str) -> Result<u32, SqlError> {
    relation_oid(facts, &split(text)?).ok_or_else(|| {
        SqlError::new(SqlState::UNDEFINED_TABLE, format!("relation \"{text}\" does not exist"))
    })
}

/// The attribute of a relation by name; 42703 if none.
pub(super) fn attribute_named(
    facts: &Facts,
    oid: u32,
    column: &str,
) -> Result<relation::Attribute, SqlError> {
    let found = relation::one(facts, oid);
    let attributes = found.as_ref().map(Rel::attributes).unwrap_or_default();
    attributes
        .into_iter()
        .find(|attribute| !attribute.dropped && attribute.name == column)
        .ok_or_else(|| {
            let relation = found.as_ref().map_or("?", |found| found.name());
            let message = format!("column \"{column}\" of relation \"{relation}\" does not exist");
            SqlError::new(codes::UNDEFINED_COLUMN, message)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_when_they_must_be() {
        for plain in ["a", "_a1", "name", "value"] {
            let shown = quote_ident(plain);
            assert_eq!(shown, plain);
        }
        for (name, quoted) in [
            ("A", "\"A\""),
            ("1a", "\"1a\""),
            ("select", "\"select\""),
            ("a\"b", "\"a\"\"b\""),
            ("", "\"\""),
        ] {
            assert_eq!(quote_ident(name), quoted);
        }
    }

    #[test]
    fn names_split_as_postgres_splits_them() {
        assert_eq!(split("Public.\"My.T\"\"x\"").expect("a name"), ["public", "My.T\"x"]);
        assert_eq!(split(" a . b ").expect("a name"), ["a", "b"]);
        for wrong in ["", "a.", ".a", "a b", "\"a", "a\"b\""] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn type_names_are_read_with_modifiers_and_brackets() {
        for (name, ty) in [
            ("integer", Type::Int4),
            ("pg_catalog.int8", Type::Int8),
            ("character varying(10)", Type::Varchar),
            ("timestamp(3) with time zone", Type::TimestampTz),
            ("INT[]", Type::Array(&Type::Int4)),
            ("_text", Type::Array(&Type::Text)),
            ("\"char\"", Type::Char),
            ("char", Type::BpChar),
        ] {
            assert_eq!(type_named(name), Some(ty), "{name}");
        }
        assert_eq!(type_named("nothing"), None);
    }
}
