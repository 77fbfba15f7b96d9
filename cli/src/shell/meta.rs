//! Value: backslash commands, as in psql where psql has them.

/// What a line that begins with a backslash asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Meta {
    /// `\q`
    Quit,
    /// `\?`
    Help,
    /// `\timing`
    Timing,
    /// `\x`
    Expanded,
    /// `\i FILE`
    Include(String),
    /// `\conninfo`
    Connection,
    /// A listing, done by this statement.
    Query(String),
    /// Anything else.
    Unknown(String),
}

/// For `\?`.
pub(crate) const HELP: &str = "\
  \\d [TABLE]   tables, or one table's columns and indexes
  \\dt \\di      tables, indexes
  \\l \\du \\dn   databases, roles, schemas
  \\x \\timing   expanded rows, time of each statement (on or off)
  \\i FILE      run the statements of a file
  \\conninfo    where we are connected
  \\q           leave
  Meridian:    SHOW NODES;  SHOW RANGES;  SHOW CLOCKS;  SHOW STALENESS;  SHOW CONTENTION;  SHOW CHAOS;
";

const TABLES: &str = "SELECT n.nspname AS \"Schema\", c.relname AS \"Name\", 'table' AS \"Type\", pg_get_userbyid(c.relowner) AS \"Owner\" \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind = 'r' AND n.nspname <> 'pg_catalog' AND n.nspname <> 'information_schema' ORDER BY 1, 2";
const INDEXES: &str = "SELECT schemaname AS \"Schema\", indexname AS \"Name\", tablename AS \"Table\" FROM pg_indexes \
     WHERE schemaname <> 'pg_catalog' ORDER BY 1, 2";
const DATABASES: &str = "SELECT datname AS \"Name\" FROM pg_database ORDER BY 1";
const ROLES: &str = "SELECT rolname AS \"Role\", rolsuper AS \"Superuser\", rolcanlogin AS \"Can log in\" FROM pg_roles ORDER BY 1";
const SCHEMAS: &str =
    "SELECT nspname AS \"Name\" FROM pg_namespace WHERE nspname NOT LIKE 'pg_%' ORDER BY 1";

/// Reads a line that begins with a backslash.
pub(crate) fn parse(line: &str) -> Meta {
    let mut words = line.trim().trim_end_matches(';').split_whitespace();
    let command = words.next().unwrap_or("");
    let argument = words.next();
    match (command, argument) {
        ("\\q" | "\\quit", _) => Meta::Quit,
        ("\\?" | "\\h" | "\\help", _) => Meta::Help,
        ("\\timing", _) => Meta::Timing,
        ("\\x", _) => Meta::Expanded,
        ("\\i", Some(file)) => Meta::Include(file.to_string()),
        ("\\conninfo", _) => Meta::Connection,
        ("\\d" | "\\dt" | "\\d+" | "\\dt+", None) => Meta::Query(TABLES.to_string()),
        ("\\di", None) => Meta::Query(INDEXES.to_string()),
        ("\\l", None) => Meta::Query(DATABASES.to_string()),
        ("\\du", None) => Meta::Query(ROLES.to_string()),
        ("\\dn", None) => Meta::Query(SCHEMAS.to_string()),
        ("\\d" | "\\d+", Some(table)) => Meta::Query(describe(table)),
        _ => Meta::Unknown(command.to_string()),
    }
}

fn describe(table: &str) -> String {
    let name = table.replace('\'', "''");
    format!(
        "SELECT a.attname AS \"Column\", format_type(a.atttypid, a.atttypmod) AS \"Type\", \
         CASE WHEN a.attnotnull THEN 'not null' ELSE '' END AS \"Nullable\", \
         coalesce(pg_get_expr(d.adbin, d.adrelid), '') AS \"Default\" \
         FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
         LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum \
         WHERE c.relname = '{name}' AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum; \
         SELECT indexname AS \"Index\", indexdef AS \"Definition\" FROM pg_indexes WHERE tablename = '{name}' ORDER BY 1"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_as_psql_reads_them() {
        assert_eq!(parse("\\q"), Meta::Quit);
        assert_eq!(parse("\\i a.sql"), Meta::Include("a.sql".into()));
        assert_eq!(parse("\\nonsense"), Meta::Unknown("\\nonsense".into()));
        assert!(matches!(parse("\\d o'brien"), Meta::Query(sql) if sql.contains("o''brien")));
    }
}
