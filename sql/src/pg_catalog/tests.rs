//! The shape of every relation, and names that clients rely on, over an empty catalog. What rows say about users' relations is tested
//! through SQL, by scripts.

use super::*;
use crate::catalog::{Catalog, FIRST_USER_OID};
use crate::testing::Alone;
use crate::types::{ByteaOutput, SqlState, TimeZone};
use std::collections::BTreeSet;
use std::sync::Arc;

fn gateways() -> Arc<crate::gateways::Gateways> {
    let runtime = txn::testing::World::new(1).runtime();
    let kv = Arc::new(txn::testing::LocalKv::new(runtime.clone()));
    let db = txn::client::Db::new(runtime, kv, txn::client::Settings::default());
    crate::gateways::Gateways::new(db, Arc::new(Alone))
}

fn facts() -> Facts {
    let settings =
        [("server_version", "15.18 (Meridian 0.1)"), ("extra_float_digits", "1"), ("my.own", "x")];
    Facts {
        catalog: Arc::new(Catalog::default()),
        database: 5,
        database_name: Arc::from("meridian"),
        user: Arc::from("root"),
        search_path: Arc::from(["public".to_string()]),
        settings: Arc::new(
            settings
                .into_iter()
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
        ),
        transaction_us: 0,
        statement_us: 0,
        zone: TimeZone::UTC,
        bytea_output: ByteaOutput::Hex,
        extra_float_digits: 1,
        process_id: 7,
        runtime: txn::testing::World::new(1).runtime(),
        cluster: Arc::new(Alone),
        gateways: gateways(),
        sequence_values: Arc::default(),
    }
}

fn fits(ty: Type, value: &Datum) -> bool {
    match value {
        Datum::Null => true,
        Datum::Bool(_) => ty == Type::Bool,
        Datum::Int2(_) => ty == Type::Int2,
        Datum::Int4(_) => ty == Type::Int4,
        Datum::Int8(_) => ty == Type::Int8,
        Datum::Float4(_) => ty == Type::Float4,
        Datum::Oid(_) => ty == Type::Xid || ty.is_oid_like(),
        Datum::Text(_) => ty.is_string() || matches!(ty, Type::Char | Type::PgNodeTree),
        Datum::Array(array) => ty.element() == Some(array.element_type()),
        _ => false,
    }
}

#[test]
fn every_relation_keeps_its_shape() {
    let facts = facts();
    for table in tables() {
        for row in table.build_where(&facts, None) {
            assert_eq!(row.len(), table.columns.len(), "{table:?}");
            for ((column, ty), value) in table.columns.iter().zip(&row) {
                assert!(fits(*ty, value), "{table:?}.{column} is {ty}, not {value:?}");
            }
        }
    }
}

#[test]
fn a_known_value_gives_the_rows_that_filtering_gives() {
    let facts = facts();
    for table in tables() {
        let all = table.build_where(&facts, None);
        let Some(row) = all.get(all.len() / 2) else { continue };
        for (column, value) in row.iter().enumerate().filter(|(_, value)| !value.is_null()) {
            let filtered: Vec<_> =
                all.iter().filter(|row| row[column] == *value).cloned().collect();
            let narrowed = table.build_where(&facts, Some((column, value)));
            assert_eq!(narrowed, filtered, "{table:?}.{}", table.columns[column].0);
        }
    }
}

#[test]
fn oids_are_unique_in_their_relations_and_below_the_users() {
    let facts = facts();
    for table in tables().filter(|table| table.columns[0].0 == "oid") {
        let mut seen = BTreeSet::new();
        for row in table.build_where(&facts, None) {
            let Datum::Oid(oid) = row[0] else { panic!("{table:?} has no OID") };
            assert!(oid > 0 && oid < FIRST_USER_OID, "{table:?} {oid}");
            assert!(seen.insert(oid), "{table:?} has {oid} twice");
        }
    }
}

#[test]
fn relations_are_found_by_name_and_by_oid() {
    let parts = |name: &str| names::split(name).expect("a name");
    for table in tables() {
        let name = format!("{}.{}", table.schema_name(), table.name);
        assert_eq!(find(&parts(&name)).map(|found| found.oid), Some(table.oid), "{name}");
        assert_eq!(find_by_oid(table.oid).map(|found| found.name), Some(table.name), "{name}");
    }
    assert!(find(&parts("pg_class")).is_some());
    assert!(find(&parts("tables")).is_none(), "information_schema is not on the search path");
}

fn call(name: &str, args: &[Datum]) -> Result<Datum, SqlError> {
    let function = functions::named(name)
        .find(|function| (function.required..=function.args.len()).contains(&args.len()));
    (function.expect("the function exists").code)(&facts(), args)
}

#[test]
fn functions_answer_as_postgres_does() {
    let text = |name: &str, args: &[Datum]| {
        call(name, args).expect("an answer").as_str().map(str::to_string)
    };
    let some = |text: &str| Some(text.to_string());
    assert_eq!(text("format_type", &[Datum::Oid(23), Datum::Null]), some("integer"));
    assert_eq!(
        text("format_type", &[Datum::Oid(1043), Datum::Int4(14)]),
        some("character varying(10)")
    );
    assert_eq!(text("format_type", &[Datum::Oid(0), Datum::Null]), some("-"));
    assert_eq!(text("format_type", &[Datum::Oid(4_000_000), Datum::Null]), some("???"));
    assert_eq!(text("pg_get_userbyid", &[Datum::Oid(77)]), some("unknown (OID=77)"));
    assert_eq!(text("pg_encoding_to_char", &[Datum::Int4(6)]), some("UTF8"));
    assert_eq!(
        call("pg_table_is_visible", &[Datum::Oid(1259)]).expect("an answer"),
        Datum::Bool(true)
    );
    assert_eq!(
        call("pg_table_is_visible", &[Datum::Oid(13_425)]).expect("an answer"),
        Datum::Bool(false)
    );
    assert!(call("pg_table_is_visible", &[Datum::Oid(99_999)]).expect("an answer").is_null());
    assert!(
        text("version", &[])
            .expect("a version")
            .starts_with("PostgreSQL 15.18 compatible Meridian 0.1 on ")
    );
    let missing =
        call("current_setting", &[Datum::text("nothing")]).expect_err("there is no such setting");
    assert_eq!(missing.code, SqlState::UNDEFINED_OBJECT);
    assert!(
        call("current_setting", &[Datum::text("nothing"), Datum::Bool(true)])
            .expect("an answer")
            .is_null()
    );
}

#[test]
fn names_of_oids_are_read_back() {
    let facts = facts();
    for (ty, name, oid) in [
        (Type::RegClass, "pg_class", 1259),
        (Type::RegClass, "information_schema.tables", 13_425),
        (Type::RegType, "character varying", 1043),
        (Type::RegType, "integer[]", 1007),
        (Type::RegNamespace, "pg_catalog", 11),
        (Type::RegProc, "array_in", 750),
    ] {
        assert_eq!(names::oid_of(&facts, ty, name).expect("exists"), Some(oid), "{name}");
        assert_eq!(names::name_of(&facts, ty, oid).as_deref(), Some(name));
    }
    let missing =
        names::oid_of(&facts, Type::RegClass, "nothing").expect_err("there is no such relation");
    assert_eq!(missing.code, SqlState::UNDEFINED_TABLE);
}

#[test]
fn set_config_leaves_its_wish_to_the_session() {
    let facts = facts();
    let function = functions::named("set_config").next().expect("the function exists");
    let args = [Datum::text("my.own"), Datum::text("y"), Datum::Bool(false)];
    assert_eq!((function.code)(&facts, &args).expect("an answer"), Datum::text("y"));
    let wish = settings::Change { name: "my.own".into(), value: Some("y".into()), local: false };
    assert_eq!(facts.sequence_values.lock().setting_changes, [wish]);
    let unknown = [Datum::text("nothing"), Datum::text("y"), Datum::Bool(false)];
    assert!((function.code)(&facts, &unknown).is_err());
}
