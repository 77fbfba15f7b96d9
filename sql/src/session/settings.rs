//! Value: a session's settings (GUCs). Names are known, values are checked where anything depends on them, and unknown names are
//! refused unless they have a dot, as in PostgreSQL.

use super::transaction::Mode;
use super::{Session, SessionParams};
use crate::engine::EngineSettings;
use crate::error::{SqlError, codes};
use crate::outcome::{Notice, Outcome};
use crate::types::{ByteaOutput, SqlState, TimeZone};
use sqlparser::ast;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A version of PostgreSQL whose clients and catalogs we aim at.
pub(crate) const SERVER_VERSION: &str = "15.18";
const SERVER_VERSION_NUM: &str = "150018";

/// Names with PostgreSQL's defaults, in their canonical spelling.
pub(crate) const KNOWN: &[(&str, &str)] = &[
    ("application_name", ""),
    ("array_nulls", "on"),
    ("backslash_quote", "safe_encoding"),
    ("bytea_output", "hex"),
    ("check_function_bodies", "on"),
    ("client_encoding", "UTF8"),
    ("client_min_messages", "notice"),
    ("DateStyle", "ISO, MDY"),
    ("default_table_access_method", "heap"),
    ("default_tablespace", ""),
    ("default_transaction_deferrable", "off"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_read_only", "off"),
    ("enable_hashjoin", "on"),
    ("enable_indexscan", "on"),
    ("enable_mergejoin", "on"),
    ("enable_nestloop", "on"),
    ("enable_seqscan", "on"),
    ("escape_string_warning", "on"),
    ("extra_float_digits", "1"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("IntervalStyle", "postgres"),
    ("jit", "off"),
    ("lc_collate", "C"),
    ("lc_ctype", "C.UTF-8"),
    ("lc_messages", "C"),
    ("lc_monetary", "C"),
    ("lc_numeric", "C"),
    ("lc_time", "C"),
    ("lock_timeout", "0"),
    ("maintenance_work_mem", "65536"),
    ("password_encryption", "scram-sha-256"),
    ("read_policy", "strong"),
    ("row_security", "on"),
    ("search_path", "\"$user\", public"),
    ("session_replication_role", "origin"),
    ("standard_conforming_strings", "on"),
    ("statement_memory_limit", "256MB"),
    ("statement_timeout", "0"),
    ("synchronous_commit", "on"),
    ("TimeZone", "UTC"),
    ("transaction_deferrable", "off"),
    ("transaction_isolation", "serializable"),
    ("transaction_lock_limit", "1000000"),
    ("transaction_read_only", "off"),
    ("transaction_rerun_limit", "10"),
    ("transaction_rerun_memory", "1MB"),
    ("transaction_savepoint_limit", "10000"),
    ("transaction_timeout", "0"),
    ("transaction_write_limit", "4GB"),
    ("work_mem", "4096"),
    ("xmloption", "content"),
];

/// Names that can be read only.
const READ_ONLY: &[(&str, &str)] = &[
    ("block_size", "8192"),
    ("default_gc_ttl", ""),
    ("held_span_limit", ""),
    ("in_hot_standby", "off"),
    ("integer_datetimes", "on"),
    ("is_superuser", "on"),
    ("lock_span_limit", ""),
    ("max_connections", "1000"),
    ("max_identifier_length", "63"),
    ("max_index_keys", "32"),
    ("refresh_span_limit", ""),
    ("server_encoding", "UTF8"),
    ("server_version", ""),
    ("server_version_num", SERVER_VERSION_NUM),
    ("session_authorization", ""),
    ("ssl", "off"),
    ("transaction_buffer_limit", ""),
    ("wal_level", "replica"),
];

/// Units of sizes, the largest first.
const UNITS: &[(&str, u64)] =
    &[("TB", 1 << 40), ("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10), ("B", 1), ("", 1)];
/// A lower limit of bytes could not be set back by a statement.
const LIMIT_BYTES_MIN: u64 = 1 << 10;
const LIMIT_COUNT_MAX: u64 = 100_000_000;
/// Times that one transaction is run again unseen.
const RERUNS_MAX: u64 = 1_000;

/// What clients are told, in this order.
const REPORTED: &[&str] = &[
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
];

/// Values by name, shared with whoever has to see them as they are now.
type Values = Arc<BTreeMap<String, String>>;

/// What was set, at one moment.
#[derive(Clone, Default)]
struct Level {
    /// By SET: stays if the transaction commits.
    session: Values,
    /// By SET LOCAL: hides the session's until the transaction ends.
    local: Values,
}

/// A session's settings.
pub(super) struct Settings {
    /// In force.
    values: Values,
    /// What they are made of.
    now: Level,
    /// As the session began.
    initial: Values,
    /// The session's as the transaction began: what a rollback returns to.
    begun: Values,
    /// The same of each open savepoint, the innermost last.
    levels: Vec<Level>,
    changed: BTreeSet<String>,
    zone: TimeZone,
    search_path: Arc<[String]>,
    /// No session may have more.
    statement_memory_max: u64,
}

impl Settings {
    pub(super) fn new(
        params: &SessionParams,
        engine: &EngineSettings,
        gateway: &txn::client::Settings,
    ) -> Result<Settings, SqlError> {
        let mut values = BTreeMap::new();
        for (name, value) in KNOWN.iter().chain(READ_ONLY) {
            values.insert(key_of(name), (*value).to_string());
        }
        values.insert("server_version".into(), format!("{SERVER_VERSION} ({})", engine.product));
        values.insert("session_authorization".into(), params.user.clone());
        for (name, bytes) in [
            ("held_span_limit", gateway.held_spans_bytes_max),
            ("lock_span_limit", gateway.lock_spans_bytes_max),
            ("refresh_span_limit", gateway.read_spans_bytes_max),
            ("transaction_buffer_limit", gateway.buffer_bytes_max),
            ("statement_memory_limit", engine.statement_memory_bytes_max),
        ] {
            values.insert(name.into(), bytes_text(bytes as u64));
        }
        values.insert("default_gc_ttl".into(), format!("{}s", engine.gc_ttl.as_secs()));
        let mut settings = Settings {
            now: Level { session: Arc::new(values.clone()), local: Values::default() },
            values: Arc::new(values),
            initial: Values::default(),
            begun: Values::default(),
            levels: Vec::new(),
            changed: BTreeSet::new(),
            zone: TimeZone::UTC,
            search_path: Arc::from([]),
            statement_memory_max: engine.statement_memory_bytes_max as u64,
        };
        settings.derive();
        settings.set("application_name", &params.application_name)?;
        if !params.client_encoding.is_empty() {
            // asyncpg quotes it.
            settings.set("client_encoding", params.client_encoding.trim_matches('\''))?;
        }
        for (name, value) in &params.options {
            settings.set(name, value)?;
        }
        settings.initial = settings.now.session.clone();
        settings.begun = settings.now.session.clone();
        settings.changed.clear();
        Ok(settings)
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(&key_of(name)).map(String::as_str)
    }

    pub(super) fn shared(&self) -> Values {
        self.values.clone()
    }

    pub(super) fn zone(&self) -> TimeZone {
        self.zone
    }

    pub(super) fn search_path(&self) -> Arc<[String]> {
        self.search_path.clone()
    }

    pub(super) fn bytea_output(&self) -> ByteaOutput {
        if self.get("bytea_output") == Some("escape") {
            ByteaOutput::Escape
        } else {
            ByteaOutput::Hex
        }
    }

    pub(super) fn extra_float_digits(&self) -> i32 {
        self.get("extra_float_digits").and_then(|digits| digits.parse().ok()).unwrap_or(1)
    }

    /// A limit of time; 0: none.
    pub(super) fn milliseconds(&self, name: &str) -> Option<Duration> {
        let ms: u64 = self.get(name)?.parse().ok()?;
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    /// A limit that is a number, or bytes.
    pub(super) fn number(&self, name: &str) -> u64 {
        self.get(name).and_then(bytes_of).unwrap_or(u64::MAX)
    }

    /// A value in its stored form, within what this node allows.
    fn allowed(&self, name: &str, key: &str, value: &str) -> Result<String, SqlError> {
        let value = checked(name, key, value)?;
        if key == "statement_memory_limit" && bytes_of(&value) > Some(self.statement_memory_max) {
            return Err(invalid(name, &value).with_hint(format!(
                "This node allows at most {}.",
                bytes_text(self.statement_memory_max)
            )));
        }
        Ok(value)
    }

    /// SET. Kept if the transaction commits.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), SqlError> {
        let key = key_of(name);
        let value = self.allowed(name, &key, value)?;
        self.set_session(key, Some(value));
        Ok(())
    }

    /// What was set locally before is over.
    fn set_session(&mut self, key: String, value: Option<String>) {
        let session = Arc::make_mut(&mut self.now.session);
        match value.clone() {
            Some(value) => session.insert(key.clone(), value),
            None => session.remove(&key),
        };
        if self.now.local.contains_key(&key) {
            Arc::make_mut(&mut self.now.local).remove(&key);
        }
        self.put(key, value);
    }

    /// SET LOCAL: until the transaction ends.
    pub(super) fn set_local_checked(&mut self, name: &str, value: &str) -> Result<(), SqlError> {
        let value = self.allowed(name, &key_of(name), value)?;
        self.set_local(name, value);
        Ok(())
    }

    pub(super) fn set_local(&mut self, name: &str, value: String) {
        let key = key_of(name);
        Arc::make_mut(&mut self.now.local).insert(key.clone(), value.clone());
        self.put(key, Some(value));
    }

    /// SAVEPOINT.
    pub(super) fn open_level(&mut self) {
        self.levels.push(self.now.clone());
    }

    /// RELEASE of the savepoint at this place among the open ones: what was set under it stays.
    pub(super) fn release_level(&mut self, place: usize) {
        self.levels.truncate(place);
    }

    /// ROLLBACK TO the savepoint at this place: it stays open.
    pub(super) fn back_to_level(&mut self, place: usize) {
        self.levels.truncate(place + 1);
        if let Some(level) = self.levels.get(place).cloned() {
            self.return_to(level);
        }
    }

    fn return_to(&mut self, level: Level) {
        let both = [(&self.now.session, &level.session), (&self.now.local, &level.local)];
        if both.iter().all(|(now, then)| Arc::ptr_eq(now, then)) {
            return;
        }
        let mut values = level.session.as_ref().clone();
        values.extend(level.local.iter().map(|(key, value)| (key.clone(), value.clone())));
        let is_changed = |key: &String| values.get(key) != self.values.get(key);
        self.changed.extend(REPORTED.iter().map(|name| key_of(name)).filter(is_changed));
        self.values = Arc::new(values);
        self.now = level;
        self.derive();
    }

    fn put(&mut self, key: String, value: Option<String>) {
        if REPORTED.iter().any(|name| key_of(name) == key)
            && self.values.get(&key) != value.as_ref()
        {
            self.changed.insert(key.clone());
        }
        let values = Arc::make_mut(&mut self.values);
        match value {
            Some(value) => values.insert(key, value),
            None => values.remove(&key),
        };
        self.derive();
    }

    fn derive(&mut self) {
        self.zone = self
            .get("timezone")
            .and_then(|zone| TimeZone::parse(zone).ok())
            .unwrap_or(TimeZone::UTC);
        self.search_path = path_of(self.get("search_path").unwrap_or_default()).into();
    }

    /// The transaction has ended: local values go; after a rollback, all values set in it.
    pub(super) fn end_transaction(&mut self, committed: bool) {
        self.levels.clear();
        let session = if committed { &self.now.session } else { &self.begun };
        // Where nothing is local there is nothing to take back, mostly.
        let local = match self.now.local.is_empty() {
            true => self.now.local.clone(),
            false => Values::default(),
        };
        self.return_to(Level { session: session.clone(), local });
        for (own, default) in [
            ("transaction_isolation", "default_transaction_isolation"),
            ("transaction_read_only", "default_transaction_read_only"),
            ("transaction_deferrable", "default_transaction_deferrable"),
        ] {
            let value = self.get(default).map(str::to_string);
            if self.get(own).map(str::to_string) != value {
                self.set_session(own.to_string(), value);
            }
        }
        self.begun = self.now.session.clone();
    }

    /// RESET; `local`: until the transaction ends.
    pub(super) fn reset(&mut self, name: &str, local: bool) -> Result<(), SqlError> {
        let key = key_of(name);
        if Mode::of_setting(&key).is_some() {
            return Err(SqlError::new(
                codes::CANT_CHANGE_RUNTIME_PARAM,
                format!("parameter \"{name}\" cannot be reset"),
            ));
        }
        match self.initial.get(&key).cloned() {
            Some(value) if local => self.set_local_checked(name, &value),
            Some(value) => self.set(name, &value),
            None if key.contains('.') && local => {
                self.set_local(name, String::new());
                Ok(())
            }
            None if key.contains('.') => {
                self.set_session(key, None);
                Ok(())
            }
            None => Err(unknown(name)),
        }
    }

    pub(super) fn reset_all(&mut self) {
        let initial = self.initial.clone();
        let resets = |key: &str| {
            KNOWN.iter().any(|(name, _)| key_of(name) == key) && Mode::of_setting(key).is_none()
        };
        for (key, value) in initial.iter().filter(|(key, _)| resets(key)) {
            self.set_session(key.clone(), Some(value.clone()));
        }
    }

    pub(super) fn reported(&self) -> Vec<(String, String)> {
        REPORTED
            .iter()
            .filter_map(|name| Some(((*name).to_string(), self.get(name)?.to_string())))
            .collect()
    }

    pub(super) fn take_changes(&mut self) -> Vec<(String, String)> {
        let changed = std::mem::take(&mut self.changed);
        let canonical = |key: &str| {
            REPORTED.iter().find(|name| key_of(name) == key).map(|name| (*name).to_string())
        };
        changed
            .into_iter()
            .filter_map(|key| Some((canonical(&key)?, self.get(&key)?.to_string())))
            .collect()
    }
}

fn key_of(name: &str) -> String {
    name.to_lowercase()
}

fn unknown(name: &str) -> SqlError {
    SqlError::new(
        SqlState::UNDEFINED_OBJECT,
        format!("unrecognized configuration parameter \"{name}\""),
    )
}

fn invalid(name: &str, value: &str) -> SqlError {
    SqlError::new(
        SqlState::INVALID_PARAMETER_VALUE,
        format!("invalid value for parameter \"{name}\": \"{value}\""),
    )
}

/// A value in its stored form.
fn checked(name: &str, key: &str, value: &str) -> Result<String, SqlError> {
    if READ_ONLY.iter().any(|(known, _)| *known == key) {
        return Err(SqlError::new(
            codes::CANT_CHANGE_RUNTIME_PARAM,
            format!("parameter \"{name}\" cannot be changed"),
        ));
    }
    let Some((canonical, default)) = KNOWN.iter().find(|(known, _)| key_of(known) == key) else {
        return if key.contains('.') { Ok(value.to_string()) } else { Err(unknown(name)) };
    };
    let lower = value.to_lowercase();
    match key {
        "timezone" => {
            match TimeZone::of_setting(value).map_err(|_| invalid(canonical, value))? {
                // An offset in hours is kept as it is shown, which says its direction.
                zone if value.trim().parse::<f64>().is_ok() => Ok(zone.to_string()),
                _ => Ok(value.to_string()),
            }
        }
        "client_encoding" => match lower.replace('-', "").as_str() {
            "utf8" | "unicode" => Ok("UTF8".into()),
            _ => Err(invalid(canonical, value).with_hint("Only UTF8 is spoken.")),
        },
        "datestyle" => {
            if lower
                .split(',')
                .next()
                .is_some_and(|style| matches!(style.trim(), "iso" | "default" | "mdy"))
            {
                Ok("ISO, MDY".into())
            } else {
                Err(invalid(canonical, value).with_hint("Only ISO, MDY is supported."))
            }
        }
        "intervalstyle" if lower != "postgres" => {
            Err(invalid(canonical, value).with_hint("Only postgres is supported."))
        }
        "standard_conforming_strings" if !truth(&lower).unwrap_or(false) => {
            Err(invalid(canonical, value).with_hint("Only on is supported."))
        }
        "statement_memory_limit" | "transaction_rerun_memory" | "transaction_write_limit" => {
            match bytes_of(&lower) {
                Some(bytes) if bytes >= LIMIT_BYTES_MIN => Ok(bytes_text(bytes)),
                _ => Err(invalid(canonical, value)
                    .with_hint("It is a size of 1kB or more, such as '64MB'.")),
            }
        }
        "transaction_rerun_limit" => match lower.parse::<u64>() {
            Ok(count) if count <= RERUNS_MAX => Ok(count.to_string()),
            _ => Err(invalid(canonical, value)
                .with_hint(format!("It is a number from 0 (never) to {RERUNS_MAX}."))),
        },
        "transaction_lock_limit" | "transaction_savepoint_limit" => match lower.parse::<u64>() {
            Ok(count) if (1..=LIMIT_COUNT_MAX).contains(&count) => Ok(count.to_string()),
            _ => Err(invalid(canonical, value)
                .with_hint(format!("It is a number from 1 to {LIMIT_COUNT_MAX}."))),
        },
        "statement_timeout"
        | "transaction_timeout"
        | "lock_timeout"
        | "idle_in_transaction_session_timeout"
        | "idle_session_timeout" => {
            milliseconds(&lower).map(|ms| ms.to_string()).ok_or_else(|| invalid(canonical, value))
        }
        "extra_float_digits" => match lower.parse::<i32>() {
            Ok(digits) if (-15..=3).contains(&digits) => Ok(digits.to_string()),
            _ => Err(invalid(canonical, value)),
        },
        "bytea_output" if !matches!(lower.as_str(), "hex" | "escape") => {
            Err(invalid(canonical, value))
        }
        "transaction_isolation" | "default_transaction_isolation" => match lower.as_str() {
            "strict serializable"
            | "serializable"
            | "snapshot"
            | "repeatable read"
            | "read committed"
            | "read uncommitted" => Ok(lower),
            _ => Err(invalid(canonical, value)),
        },
        "read_policy" if lower != "strong" => {
            Err(SqlError::unsupported("only read_policy = 'strong' is supported so far"))
        }
        _ if matches!(*default, "on" | "off") => match truth(&lower) {
            Some(true) => Ok("on".into()),
            Some(false) => Ok("off".into()),
            None => Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("parameter \"{canonical}\" requires a Boolean value"),
            )),
        },
        _ => Ok(value.to_string()),
    }
}

/// `64MB`, `65536` (bytes); in PostgreSQL's units.
fn bytes_of(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().ok()?;
    let unit = text[split..].trim().to_lowercase();
    let (_, factor) = UNITS.iter().find(|(name, _)| name.to_lowercase() == unit)?;
    number.checked_mul(*factor)
}

/// In the largest unit that divides it.
fn bytes_text(bytes: u64) -> String {
    let unit =
        UNITS.iter().find(|(name, factor)| !name.is_empty() && bytes.is_multiple_of(*factor));
    let (name, factor) = unit.filter(|_| bytes > 0).copied().unwrap_or(("B", 1));
    format!("{}{name}", bytes / factor)
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "on" | "true" | "t" | "yes" | "y" | "1" => Some(true),
        "off" | "false" | "f" | "no" | "n" | "0" => Some(false),
        _ => None,
    }
}

fn milliseconds(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..split].parse().ok()?;
    let unit: u64 = match text[split..].trim() {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit).filter(|ms| *ms <= i32::MAX as u64)
}

/// Names of a search path: separated by commas, quoted or in lower case.
fn path_of(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for part in text.split(',') {
        let part = part.trim();
        match part.strip_prefix('"').and_then(|part| part.strip_suffix('"')) {
            Some(quoted) => names.push(quoted.replace("\"\"", "\"")),
            None if part.is_empty() => {}
            None => names.push(part.to_lowercase()),
        }
    }
    names
}

/// `-c name=value --name=value` of the startup's `options`.
pub(super) fn command_line_options(text: &str) -> Vec<(String, String)> {
    let mut options = Vec::new();
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        let pair = match word.strip_prefix("--") {
            Some(pair) => Some(pair),
            None if word == "-c" => words.next(),
            None => word.strip_prefix("-c"),
        };
        if let Some((name, value)) = pair.and_then(|pair| pair.split_once('=')) {
            options.push((name.replace('-', "_"), value.to_string()));
        }
    }
    options
}

impl Session {
    /// SET.
    pub(super) fn run_set(&mut self, set: &ast::Set) -> Result<Outcome, SqlError> {
        let done = Ok(Outcome::Complete { tag: "SET".into() });
        match set {
            ast::Set::SingleAssignment { scope, variable, values, .. } => {
                let name: Vec<String> = variable
                    .0
                    .iter()
                    .filter_map(|part| part.as_ident())
                    .map(|ident| ident.value.clone())
                    .collect();
                let name = name.join(".");
                let local = matches!(scope, Some(ast::ContextModifier::Local));
                self.warn_of_local(local);
                let mut texts = Vec::new();
                for value in values {
                    texts.push(setting_text(value));
                }
                if let [only] = texts.as_slice()
                    && only.eq_ignore_ascii_case("default")
                {
                    self.settings.reset(&name, local)?;
                    return done;
                }
                self.change_setting(&name, &texts.join(", "), local)?;
                done
            }
            ast::Set::SetTimeZone { local, value } => {
                let interval = matches!(value, ast::Expr::Interval(_));
                let value = setting_text(value);
                let value = match interval {
                    true => TimeZone::of_interval(&value)?.to_string(),
                    false => value,
                };
                let zone = match value.to_lowercase().as_str() {
                    "default" | "local" => "UTC".to_string(),
                    _ => value,
                };
                self.warn_of_local(*local);
                self.change_setting("TimeZone", &zone, *local)?;
                done
            }
            ast::Set::SetNames { charset_name, .. } => {
                self.change_setting("client_encoding", &charset_name.value, false)?;
                done
            }
            ast::Set::SetNamesDefault {} => done,
            ast::Set::SetRole { role_name, .. } => match role_name {
                None => done,
                Some(name) if crate::parse::name(name) == *self.user => done,
                Some(_) => Err(SqlError::unsupported("SET ROLE to another role is not supported")),
            },
            other => Err(SqlError::unsupported(format!("SET {other} is not supported"))),
        }
    }

    /// A statement that is a whole transaction has nobody to set something for. In a string of statements or a pipeline, it has.
    fn warn_of_local(&mut self, local: bool) {
        if local && self.block == super::Block::None && !self.in_script {
            self.notice(Notice::warning(
                codes::NO_ACTIVE_TRANSACTION,
                "SET LOCAL can only be used in transaction blocks",
            ));
        }
    }

    pub(super) fn change_setting(
        &mut self,
        name: &str,
        value: &str,
        local: bool,
    ) -> Result<(), SqlError> {
        if let Some(mode) = Mode::of_setting(name)
            && self.block != super::Block::None
        {
            let value = self.settings.allowed(name, &key_of(name), value)?;
            return self.set_mode(mode, &value);
        }
        if local {
            self.settings.set_local_checked(name, value)
        } else {
            self.settings.set(name, value)
        }
    }

    /// RESET.
    pub(super) fn run_reset(&mut self, reset: &ast::ResetStatement) -> Result<Outcome, SqlError> {
        match &reset.reset {
            ast::Reset::ALL => self.settings.reset_all(),
            ast::Reset::ConfigurationParameter(name) => {
                let parts: Vec<String> = name
                    .0
                    .iter()
                    .filter_map(|part| part.as_ident())
                    .map(|ident| ident.value.clone())
                    .collect();
                self.settings.reset(&parts.join("."), false)?;
            }
            ast::Reset::SessionAuthorization => {}
        }
        Ok(Outcome::Complete { tag: "RESET".into() })
    }
}

fn setting_text(value: &ast::Expr) -> String {
    match value {
        ast::Expr::Value(value) => match &value.value {
            ast::Value::SingleQuotedString(text) => text.clone(),
            other => other.to_string(),
        },
        ast::Expr::Interval(interval) => setting_text(&interval.value),
        other => other.to_string(),
    }
}
