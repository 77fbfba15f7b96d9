//! Value: what there is to say about settings besides their values: `pg_settings`, `current_setting`, `version`.
//!
//! Values are the session's ([`Facts::settings`], keys in lower case). A name that is not described here is shown all the same,
//! among the customized options.

use crate::exec::Facts;

/// A wish of `set_config`, granted by the session after the statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Change {
    /// Which setting.
    pub name: String,
    /// Its new value; `None`: its default.
    pub value: Option<String>,
    /// For this transaction only.
    pub local: bool,
}

/// A setting, as `pg_settings` describes it. Empty: NULL.
pub(super) struct Setting {
    pub name: &'static str,
    pub boot: &'static str,
    pub unit: &'static str,
    pub category: &'static str,
    pub context: &'static str,
    pub vartype: &'static str,
    pub min: &'static str,
    pub max: &'static str,
    /// Values that there are, separated by commas.
    pub options: &'static str,
    pub description: &'static str,
}

const STATEMENTS: &str = "Client Connection Defaults / Statement Behavior";
const LOCALE: &str = "Client Connection Defaults / Locale and Formatting";
const PRESET: &str = "Preset Options";
const COMPATIBILITY: &str = "Version and Platform Compatibility / Previous PostgreSQL Versions";
const PLANNER: &str = "Query Tuning / Planner Method Configuration";

#[rustfmt::skip]
const KNOWN: &[Setting] = &[
    Setting { name: "application_name", boot: "", unit: "", category: "Reporting and Logging / What to Log", context: "user", vartype: "string", min: "", max: "", options: "", description: "Sets the application name to be reported in statistics and logs." },
    Setting { name: "array_nulls", boot: "on", unit: "", category: COMPATIBILITY, context: "user", vartype: "bool", min: "", max: "", options: "", description: "Enable input of NULL elements in arrays." },
    Setting { name: "backslash_quote", boot: "safe_encoding", unit: "", category: COMPATIBILITY, context: "user", vartype: "enum", min: "", max: "", options: "safe_encoding,on,off", description: "Sets whether \"\\'\" is allowed in string literals." },
    Setting { name: "block_size", boot: "8192", unit: "", category: PRESET, context: "internal", vartype: "integer", min: "8192", max: "8192", options: "", description: "Shows the size of a disk block." },
    Setting { name: "bytea_output", boot: "hex", unit: "", category: STATEMENTS, context: "user", vartype: "enum", min: "", max: "", options: "escape,hex", description: "Sets the output format for bytea." },
    Setting { name: "check_function_bodies", boot: "on", unit: "", category: STATEMENTS, context: "user", vartype: "bool", min: "", max: "", options: "", description: "Check routine bodies during CREATE FUNCTION and CREATE PROCEDURE." },
    Setting { name: "client_encoding", boot: "UTF8", unit: "", category: LOCALE, context: "user", vartype: "string", min: "", max: "", options: "", description: "Sets the client's character set encoding." },
    Setting { name: "client_min_messages", boot: "notice", unit: "", category: STATEMENTS, context: "user", vartype: "enum", min: "", max: "", options: "debug5,debug4,debug3,debug2,debug1,log,notice,warning,error", description: "Sets the message levels that are sent to the client." },
    Setting { name: "DateStyle", boot: "ISO, MDY", unit: "", category: LOCALE, context: "user", vartype: "string", min: "", max: "", options: "", description: "Sets the display format for date and time values." },
    Setting { name: "default_table_access_method", boot: "heap", unit: "", category: STATEMENTS, context: "user", vartype: "string", min: "", max: "", options: "", description: "Sets the default table access method for new tables." },
    Setting { name: "default_tablespace", boot: "", unit: "", category: STATEMENTS, context: "user", vartype: "string", min: "", max: "", options: "", description: "Sets the default tablespace to create tables and indexes in." },
    Setting { name: "default_transaction_deferrable", boot: "off", unit: "", category: STATEMENTS, context: "user", vartype: "bool", min: "", max: "", options: "", description: "Sets the default deferrable status of new transactions." },
    Setting { name: "default_transaction_isolation", boot: "serializable", unit: "", category: STATEMENTS, context: "user", vartype: "enum", min: "", max: "", options: "strict serializable,serializable,snapshot,repeatable read,read committed,read uncommitted", description: "Sets the transaction isolation level of each new transaction." },
    Setting { name: "default_transaction_read_only", boot: "off", unit: "", category: STATEMENTS, context: "user", vartype: "bool", min: "", max: "", options: "", description: "Sets the default read-only status of new transactions." },
    Setting { name: "enable_hashjoin", boot: "on", unit: "", category: PLANNER, context: "user", vartype: "bool", min: "", max: "", options: "", description: "Enables the planner's use of hash join plans." },
    Setting { name: "enable_indexscan", boot: "on", unit: "", category: PLANNER, context: "user", vartype: "bool", min: "", max: "", options: "", description: "Enables the planner's use of index-scan plans." },
    Setting { name: "enable_mergejoin", boot: "on", unit: "", category: PLANNER, context: "user", vartype: "bool", min: "", max: "", options: "", description: "Enables the planner's use of merge join plans." },
    Setting { name: "enable_nestloop", boot: "on", unit: "", category: PLANNER, context: "user", vartype: "bool", min: "", max: "", options: "", description: "Enables the planner's use of nested-loop join plans." },
    Setting { name: "enable_seqscan", boot: "on", unit: "", category: PLANNER, context: "user", vartype: "bool", min: "", max: "", options: "", description: "Enables the planner's use of sequential-scan plans." },
    Setting { name: "escape_string_warning", boot: "on", unit: "", category: COMPATIBILITY, context: "user", vartype: "bool", min: "", max: "", options: "", description: "Warn about backslash escapes in ordinary string literals." },
    Setting { name: "extra_float_digits", boot: "1", unit: "", category: LOCALE, context: "user", vartype: "integer", min: "-15", max: "3", options: "", description: "Sets the number of digits displayed for floating-point values." },
    Setting { name: "idle_in_transaction_session_timeout", boot: "0", unit: "ms", category: STATEMENTS, context: "user", vartype: "integer", min: "0", max: "2147483647", options: "", description: "Sets the maximum allowed idle time between queries, when in a transaction." },
    Setting { name: "idle_session_timeout", boot: "0", unit: "ms", category: STATEMENTS, context: "user", vartype: "integer", min: "0", max: "2147483647", options: "", description: "Sets the maximum allowed idle time between queries, when not in a transaction." },
    Setting { name: "in_hot_standby", boot: "off", unit: "", category: PRESET, context: "internal", vartype: "bool", min: "", max: "", options: "", description: "Shows whether hot standby is currently active." },
    Setting { name: "integer_datetimes", boot: "on", unit: "", category: PRESET, context: "internal", vartype: "bool", min: "", max: "", options: "", description: "Shows whether datetimes are integer based." },
    Setting { name: "IntervalStyle", boot: "postgres", unit: "", category: LOCALE, context: "user", vartype: "enum", min: "", max: "", options: "postgres,postgres_verbose,sql_standard,iso_8601", description: "Sets the display format for interval values." },
    Setting { name: "jit", boot: "off", unit: "", category: "Query Tuning / Other Planner Options", context: "user", vartype: "bool", min: "", max: "", options: "", description: "Allow JIT compilation." },
    Setting { name: "lc_collate", boot: "C", unit: "", category: PRESET, context: "internal", vartype: "string", min: "", max: "", options: "", description: "Shows the collation order locale." },
    Setting { name: "lc_ctype", boot: "C.UTF-8", unit: "", category: PRESET, context: "internal", vartype: "string", min: "", max: "", options: "", description: "Shows the character classification and case conversion locale." },
    Setting { name: "lc_messages", boot: "C", unit: "", category: LOCALE, context: "superuser", vartype: "string", min: "", max: "", options: "", description: "Sets the language in which messages are displayed." },
    Setting { name: "lc_monetary", boot: "C", unit: "", category: LOCALE, context: "user", vartype: "string", min: "", max: "", options: "", description: "Sets the locale for formatting monetary amounts." },
    Setting { name: "lc_numeric", boot: "C", unit: "", category: LOCALE, context: "user", vartype: "string", min: "", max: "", options: "", description: "Sets the locale for formatting numbers." },
    Setting { name: "lc_time", boot: "C", unit: "", category: LOCALE, context: "user", vartype: "string", min: "", max: "", options: "", description: "Sets the locale for formatting date and time values." },
    Setting { name: "lock_timeout", boot: "0", unit: "ms", category: STATEMENTS, context: "user", vartype: "integer", min: "0", max: "2147483647", options: "", description: "Sets the maximum allowed duration of any wait for a lock." },
    Setting { name: "maintenance_work_mem", boot: "65536", unit: "kB", category: "Resource Usage / Memory", context: "user", vartype: "integer", min: "1024", max: "2147483647", options: "", description: "Sets the maximum memory to be used for maintenance operations." },
    Setting { name: "max_connections", boot: "1000", unit: "", category: "Connections and Authentication / Connection Settings", context: "postmaster", vartype: "integer", min: "", max: "", options: "", description: "Sets the maximum number of concurrent connections." },
    Setting { name: "max_identifier_length", boot: "63", unit: "", category: PRESET, context: "internal", vartype: "integer", min: "63", max: "63", options: "", description: "Shows the maximum identifier length." },
    Setting { name: "max_index_keys", boot: "32", unit: "", category: PRESET, context: "internal", vartype: "integer", min: "32", max: "32", options: "", description: "Shows the maximum number of index keys." },
    Setting { name: "password_encryption", boot: "scram-sha-256", unit: "", category: "Connections and Authentication / Authentication", context: "user", vartype: "enum", min: "", max: "", options: "md5,scram-sha-256", description: "Chooses the algorithm for encrypting passwords." },
    Setting { name: "read_policy", boot: "strong", unit: "", category: STATEMENTS, context: "user", vartype: "enum", min: "", max: "", options: "strong", description: "Sets whether reads are strong or may be bounded stale." },
    Setting { name: "row_security", boot: "on", unit: "", category: STATEMENTS, context: "user", vartype: "bool", min: "", max: "", options: "", description: "Enable row security." },
    Setting { name: "search_path", boot: "\"$user\", public", unit: "", category: STATEMENTS, context: "user", vartype: "string", min: "", max: "", options: "", description: "Sets the schema search order for names that are not schema-qualified." },
    Setting { name: "server_encoding", boot: "UTF8", unit: "", category: PRESET, context: "internal", vartype: "string", min: "", max: "", options: "", description: "Shows the server (database) character set encoding." },
    Setting { name: "server_version", boot: "", unit: "", category: PRESET, context: "internal", vartype: "string", min: "", max: "", options: "", description: "Shows the server version." },
    Setting { name: "server_version_num", boot: "", unit: "", category: PRESET, context: "internal", vartype: "integer", min: "", max: "", options: "", description: "Shows the server version as an integer." },
    Setting { name: "session_replication_role", boot: "origin", unit: "", category: STATEMENTS, context: "superuser", vartype: "enum", min: "", max: "", options: "origin,replica,local", description: "Sets the session's behavior for triggers and rewrite rules." },
    Setting { name: "ssl", boot: "off", unit: "", category: "Connections and Authentication / SSL", context: "sighup", vartype: "bool", min: "", max: "", options: "", description: "Enables SSL connections." },
    Setting { name: "standard_conforming_strings", boot: "on", unit: "", category: COMPATIBILITY, context: "user", vartype: "bool", min: "", max: "", options: "", description: "Causes '...' strings to treat backslashes literally." },
    Setting { name: "statement_timeout", boot: "0", unit: "ms", category: STATEMENTS, context: "user", vartype: "integer", min: "0", max: "2147483647", options: "", description: "Sets the maximum allowed duration of any statement." },
    Setting { name: "synchronous_commit", boot: "on", unit: "", category: "Write-Ahead Log / Settings", context: "user", vartype: "enum", min: "", max: "", options: "local,remote_write,remote_apply,on,off", description: "Sets the current transaction's synchronization level." },
    Setting { name: "TimeZone", boot: "UTC", unit: "", category: LOCALE, context: "user", vartype: "string", min: "", max: "", options: "", description: "Sets the time zone for displaying and interpreting time stamps." },
    Setting { name: "transaction_deferrable", boot: "off", unit: "", category: STATEMENTS, context: "user", vartype: "bool", min: "", max: "", options: "", description: "Whether to defer a read-only serializable transaction until it can be executed with no possible serialization failures." },
    Setting { name: "transaction_isolation", boot: "serializable", unit: "", category: STATEMENTS, context: "user", vartype: "enum", min: "", max: "", options: "strict serializable,serializable,snapshot,repeatable read,read committed,read uncommitted", description: "Sets the current transaction's isolation level." },
    Setting { name: "transaction_read_only", boot: "off", unit: "", category: STATEMENTS, context: "user", vartype: "bool", min: "", max: "", options: "", description: "Sets the current transaction's read-only status." },
    Setting { name: "wal_level", boot: "replica", unit: "", category: "Write-Ahead Log / Settings", context: "postmaster", vartype: "enum", min: "", max: "", options: "minimal,replica,logical", description: "Sets the level of information written to the WAL." },
    Setting { name: "work_mem", boot: "4096", unit: "kB", category: "Resource Usage / Memory", context: "user", vartype: "integer", min: "64", max: "2147483647", options: "", description: "Sets the maximum memory to be used for query workspaces." },
    Setting { name: "xmloption", boot: "content", unit: "", category: STATEMENTS, context: "user", vartype: "enum", min: "", max: "", options: "content,document", description: "Sets whether XML data in implicit parsing and serialization operations is to be considered as documents or content fragments." },
];

/// What a setting that is not described is shown as.
const CUSTOM: Setting = Setting {
    name: "",
    boot: "",
    unit: "",
    category: "Customized Options",
    context: "user",
    vartype: "string",
    min: "",
    max: "",
    options: "",
    description: "",
};

/// A setting's value.
pub(super) fn current(facts: &Facts, name: &str) -> Option<String> {
    // What this statement has set so far, it sees.
    let drawn = facts.sequence_values.lock();
    let change =
        drawn.setting_changes.iter().rfind(|change| change.name.eq_ignore_ascii_case(name));
    if let Some(Change { value: Some(value), .. }) = change {
        return Some(value.clone());
    }
    drop(drawn);
    facts.setting(&name.to_lowercase()).map(str::to_string)
}

/// A setting's value where nothing was set.
pub(super) fn default_of(name: &str) -> Option<&'static str> {
    KNOWN.iter().find(|setting| setting.name.eq_ignore_ascii_case(name)).map(|setting| setting.boot)
}

/// All settings by name: description, spelling, value.
pub(super) fn all(facts: &Facts) -> Vec<(&'static Setting, String, String)> {
    let mut all: Vec<_> = facts
        .settings
        .iter()
        .map(|(key, value)| {
            let known = KNOWN.iter().find(|setting| setting.name.eq_ignore_ascii_case(key));
            match known {
                Some(setting) => (setting, setting.name.to_string(), value.clone()),
                None => (&CUSTOM, key.clone(), value.clone()),
            }
        })
        .collect();
    all.sort_by_key(|(_, name, _)| name.to_lowercase());
    all
}

/// `version()`. Clients look for `PostgreSQL` and a number.
pub(super) fn version(facts: &Facts) -> String {
    let server = facts.setting("server_version").unwrap_or_default();
    let (number, product) = server.split_once(' ').unwrap_or((server, ""));
    let product = product.trim_start_matches('(').trim_end_matches(')');
    format!(
        "PostgreSQL {number} compatible {product} on {}-{}",
        std::env::consts::ARCH,
        std::env::consts::OS
    )
}
