//! Value: the relations of `pg_catalog` about what is around relations: schemas, roles, databases, access methods, collations,
//! languages, tablespaces, settings, sessions.

use super::cell::{ACLS, NULL, TEXTS, texts};
use super::{VirtualTable, settings, table};
use crate::catalog::{
    DatabaseDescriptor, FIRST_ROLE, INFORMATION_SCHEMA, PG_CATALOG, RoleDescriptor,
};
use crate::exec::Facts;
use crate::types::Type::{Bool, Char, Int4, Name, Oid, RegProc, Text, TimestampTz, Xid};

pub(super) static TABLES: &[&VirtualTable] = &[
    &PG_NAMESPACE,
    &PG_AUTHID,
    &PG_ROLES,
    &PG_USER,
    &PG_DATABASE,
    &PG_AM,
    &PG_COLLATION,
    &PG_LANGUAGE,
    &PG_TABLESPACE,
    &PG_SETTINGS,
];

/// Schemas: OID, name.
pub(super) fn schemas(facts: &Facts) -> Vec<(u32, String)> {
    let mut all = vec![
        (PG_CATALOG, "pg_catalog".to_string()),
        (INFORMATION_SCHEMA, "information_schema".to_string()),
    ];
    let users = facts.catalog.schemas().filter(|schema| schema.database == facts.database);
    all.extend(users.map(|schema| (schema.id, schema.name.clone())));
    all
}

table! {
    PG_NAMESPACE = 2615, PG_CATALOG "pg_namespace" Table;
    each |facts, _only| schemas(facts);
    row |(schema, name): (u32, String)| {
        oid Oid = schema;
        nspname Name = name;
        nspowner Oid = FIRST_ROLE;
        nspacl ACLS = NULL;
    }
}

table! {
    PG_AUTHID = 1260, PG_CATALOG "pg_authid" Table;
    each |facts, _only| facts.catalog.roles();
    row |role: &RoleDescriptor| {
        oid Oid = role.id;
        rolname Name = &role.name;
        rolsuper Bool = role.superuser;
        rolinherit Bool = true;
        rolcreaterole Bool = role.superuser;
        rolcreatedb Bool = role.superuser;
        rolcanlogin Bool = role.login;
        rolreplication Bool = role.superuser;
        rolbypassrls Bool = role.superuser;
        rolconnlimit Int4 = -1;
        rolpassword Text = NULL;
        rolvaliduntil TimestampTz = NULL;
    }
}

table! {
    PG_ROLES = 12000, PG_CATALOG "pg_roles" View;
    each |facts, _only| facts.catalog.roles();
    row |role: &RoleDescriptor| {
        rolname Name = &role.name;
        rolsuper Bool = role.superuser;
        rolinherit Bool = true;
        rolcreaterole Bool = role.superuser;
        rolcreatedb Bool = role.superuser;
        rolcanlogin Bool = role.login;
        rolreplication Bool = role.superuser;
        rolconnlimit Int4 = -1;
        rolpassword Text = "********";
        rolvaliduntil TimestampTz = NULL;
        rolbypassrls Bool = role.superuser;
        rolconfig TEXTS = NULL;
        oid Oid = role.id;
    }
}

table! {
    PG_USER = 12014, PG_CATALOG "pg_user" View;
    each |facts, _only| facts.catalog.roles().filter(|role| role.login);
    row |role: &RoleDescriptor| {
        usename Name = &role.name;
        usesysid Oid = role.id;
        usecreatedb Bool = role.superuser;
        usesuper Bool = role.superuser;
        userepl Bool = role.superuser;
        usebypassrls Bool = role.superuser;
        passwd Text = "********";
        valuntil TimestampTz = NULL;
        useconfig TEXTS = NULL;
    }
}

table! {
    PG_DATABASE = 1262, PG_CATALOG "pg_database" Table;
    each |facts, _only| facts.catalog.databases();
    row |database: &DatabaseDescriptor| {
        oid Oid = database.id;
        datname Name = &database.name;
        datdba Oid = FIRST_ROLE;
        encoding Int4 = 6;
        datlocprovider Char = 'c';
        datistemplate Bool = false;
        datallowconn Bool = true;
        datconnlimit Int4 = -1;
        datfrozenxid Xid = 0;
        datminmxid Xid = 0;
        dattablespace Oid = 1663;
        datcollate Text = "C";
        datctype Text = "C.UTF-8";
        daticulocale Text = NULL;
        datcollversion Text = NULL;
        datacl ACLS = NULL;
    }
}

table! {
    PG_AM = 2601, PG_CATALOG "pg_am" Table;
    each |_facts, _only| [(2, "heap", 't'), (403, "btree", 'i')];
    row |(method, name, kind): (u32, &str, char)| {
        oid Oid = method;
        amname Name = name;
        amhandler RegProc = 0;
        amtype Char = kind;
    }
}

table! {
    PG_COLLATION = 3456, PG_CATALOG "pg_collation" Table;
    each |_facts, _only| [(100, "default", 'd', None), (950, "C", 'c', Some("C")), (951, "POSIX", 'c', Some("POSIX"))];
    row |(collation, name, provider, locale): (u32, &str, char, Option<&str>)| {
        oid Oid = collation;
        collname Name = name;
        collnamespace Oid = PG_CATALOG;
        collowner Oid = FIRST_ROLE;
        collprovider Char = provider;
        collisdeterministic Bool = true;
        collencoding Int4 = -1;
        collcollate Text = locale;
        collctype Text = locale;
        colliculocale Text = NULL;
        collversion Text = NULL;
    }
}

table! {
    PG_LANGUAGE = 2612, PG_CATALOG "pg_language" Table;
    each |_facts, _only| [(12, "internal")];
    row |(language, name): (u32, &str)| {
        oid Oid = language;
        lanname Name = name;
        lanowner Oid = FIRST_ROLE;
        lanispl Bool = false;
        lanpltrusted Bool = false;
        lanplcallfoid Oid = 0;
        laninline Oid = 0;
        lanvalidator Oid = 0;
        lanacl ACLS = NULL;
    }
}

table! {
    PG_TABLESPACE = 1213, PG_CATALOG "pg_tablespace" Table;
    each |_facts, _only| [(1663, "pg_default"), (1664, "pg_global")];
    row |(space, name): (u32, &str)| {
        oid Oid = space;
        spcname Name = name;
        spcowner Oid = FIRST_ROLE;
        spcacl ACLS = NULL;
        spcoptions TEXTS = NULL;
    }
}

fn unless_empty(text: &'static str) -> Option<&'static str> {
    (!text.is_empty()).then_some(text)
}

table! {
    PG_SETTINGS = 12104, PG_CATALOG "pg_settings" View;
    each |facts, _only| settings::all(facts);
    row |(setting, spelling, value): (&settings::Setting, String, String)| {
        name Text = spelling;
        setting Text = &value;
        unit Text = unless_empty(setting.unit);
        category Text = setting.category;
        short_desc Text = setting.description;
        extra_desc Text = NULL;
        context Text = setting.context;
        vartype Text = setting.vartype;
        source Text = if value == setting.boot { "default" } else { "session" };
        min_val Text = unless_empty(setting.min);
        max_val Text = unless_empty(setting.max);
        enumvals TEXTS = unless_empty(setting.options).map(|options| texts(options.split(',')));
        boot_val Text = setting.boot;
        reset_val Text = setting.boot;
        sourcefile Text = NULL;
        sourceline Int4 = NULL;
        pending_restart Bool = false;
    }
}
