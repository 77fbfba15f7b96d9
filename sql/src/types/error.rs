//! What a value operation answers when it cannot: a value. A message in PostgreSQL's words and the five-letter code
//! that drivers act on. Only the constants used by values are named here; any code can be made with [`SqlState::new`].

use std::fmt;

/// A SQLSTATE: five ASCII letters or digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// 0A000
    pub const FEATURE_NOT_SUPPORTED: SqlState = SqlState::new("0A000");
    /// 22000
    pub const DATA_EXCEPTION: SqlState = SqlState::new("22000");
    /// 22001
    pub const STRING_DATA_RIGHT_TRUNCATION: SqlState = SqlState::new("22001");
    /// 22003
    pub const NUMERIC_VALUE_OUT_OF_RANGE: SqlState = SqlState::new("22003");
    /// 22004
    pub const NULL_VALUE_NOT_ALLOWED: SqlState = SqlState::new("22004");
    /// 22007
    pub const INVALID_DATETIME_FORMAT: SqlState = SqlState::new("22007");
    /// 22008
    pub const DATETIME_FIELD_OVERFLOW: SqlState = SqlState::new("22008");
    /// 22009
    pub const INVALID_TIME_ZONE_DISPLACEMENT: SqlState = SqlState::new("22009");
    /// 2200D
    pub const INVALID_ESCAPE_OCTET: SqlState = SqlState::new("2200D");
    /// 22011
    pub const SUBSTRING_ERROR: SqlState = SqlState::new("22011");
    /// 22012
    pub const DIVISION_BY_ZERO: SqlState = SqlState::new("22012");
    /// 22015
    pub const INTERVAL_FIELD_OVERFLOW: SqlState = SqlState::new("22015");
    /// 2201B
    pub const INVALID_REGULAR_EXPRESSION: SqlState = SqlState::new("2201B");
    /// 2201E
    pub const INVALID_ARGUMENT_FOR_LOG: SqlState = SqlState::new("2201E");
    /// 2201F
    pub const INVALID_ARGUMENT_FOR_POWER: SqlState = SqlState::new("2201F");
    /// 22019
    pub const INVALID_ESCAPE_CHARACTER: SqlState = SqlState::new("22019");
    /// 22021
    pub const CHARACTER_NOT_IN_REPERTOIRE: SqlState = SqlState::new("22021");
    /// 22023
    pub const INVALID_PARAMETER_VALUE: SqlState = SqlState::new("22023");
    /// 22025
    pub const INVALID_ESCAPE_SEQUENCE: SqlState = SqlState::new("22025");
    /// 2202E
    pub const ARRAY_SUBSCRIPT_ERROR: SqlState = SqlState::new("2202E");
    /// 22P02
    pub const INVALID_TEXT_REPRESENTATION: SqlState = SqlState::new("22P02");
    /// 22P03
    pub const INVALID_BINARY_REPRESENTATION: SqlState = SqlState::new("22P03");
    /// 22P05
    pub const UNTRANSLATABLE_CHARACTER: SqlState = SqlState::new("22P05");
    /// 3F000
    pub const INVALID_SCHEMA_NAME: SqlState = SqlState::new("3F000");
    /// 42601
    pub const SYNTAX_ERROR: SqlState = SqlState::new("42601");
    /// 42602
    pub const INVALID_NAME: SqlState = SqlState::new("42602");
    /// 42704
    pub const UNDEFINED_OBJECT: SqlState = SqlState::new("42704");
    /// 42725
    pub const AMBIGUOUS_FUNCTION: SqlState = SqlState::new("42725");
    /// 42804
    pub const DATATYPE_MISMATCH: SqlState = SqlState::new("42804");
    /// 42846
    pub const CANNOT_COERCE: SqlState = SqlState::new("42846");
    /// 42883
    pub const UNDEFINED_FUNCTION: SqlState = SqlState::new("42883");
    /// 42P01
    pub const UNDEFINED_TABLE: SqlState = SqlState::new("42P01");
    /// 54000
    pub const PROGRAM_LIMIT_EXCEEDED: SqlState = SqlState::new("54000");
    /// 54001
    pub const STATEMENT_TOO_COMPLEX: SqlState = SqlState::new("54001");
    /// XX001
    pub const DATA_CORRUPTED: SqlState = SqlState::new("XX001");
    /// XX000
    pub const INTERNAL_ERROR: SqlState = SqlState::new("XX000");

    /// The state written as `code`. Panics unless `code` is five ASCII bytes: a programmer error.
    pub const fn new(code: &str) -> SqlState {
        assert!(code.len() == 5 && code.is_ascii(), "a SQLSTATE has five ASCII letters");
        let bytes = code.as_bytes();
        SqlState([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]])
    }

    /// The five letters.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("the constructor admits ASCII only")
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a value could not be read, converted or computed. The statement is wrong, not the database: report it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct TypeError {
    /// What drivers act on.
    pub code: SqlState,
    /// The sentence that PostgreSQL would say.
    pub message: String,
    /// PostgreSQL's DETAIL line, where it has one.
    pub detail: Option<String>,
    /// PostgreSQL's HINT line, where it has one.
    pub hint: Option<String>,
}

impl TypeError {
    /// An error without detail or hint.
    pub fn new(code: SqlState, message: impl Into<String>) -> TypeError {
        TypeError { code, message: message.into(), detail: None, hint: None }
    }

    /// The same error with a DETAIL line.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> TypeError {
        self.detail = Some(detail.into());
        self
    }

    /// The same error with a HINT line.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> TypeError {
        self.hint = Some(hint.into());
        self
    }

    /// 22P02 `invalid input syntax for type T: "text"`.
    pub fn syntax(type_name: &str, text: &str) -> TypeError {
        TypeError::new(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!("invalid input syntax for type {type_name}: \"{text}\""),
        )
    }

    /// 22003 `T out of range`.
    pub fn out_of_range(type_name: &str) -> TypeError {
        TypeError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, format!("{type_name} out of range"))
    }

    /// 22012.
    pub fn division_by_zero() -> TypeError {
        TypeError::new(SqlState::DIVISION_BY_ZERO, "division by zero")
    }

    /// 0A000.
    pub fn unsupported(message: impl Into<String>) -> TypeError {
        TypeError::new(SqlState::FEATURE_NOT_SUPPORTED, message)
    }

    /// 22P03: a binary parameter that is not what its type demands.
    pub fn binary(what: &str) -> TypeError {
        TypeError::new(SqlState::INVALID_BINARY_REPRESENTATION, what)
    }

    /// 22023.
    pub fn parameter(message: impl Into<String>) -> TypeError {
        TypeError::new(SqlState::INVALID_PARAMETER_VALUE, message)
    }
}
