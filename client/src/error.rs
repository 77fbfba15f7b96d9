//! Errors, by what the caller must do.

/// An error that the server reported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} (SQLSTATE {code})")]
pub struct SqlError {
    /// SQLSTATE.
    pub code: String,
    /// Primary message.
    pub message: String,
    /// Detail, may be empty.
    pub detail: String,
    /// Hint, may be empty.
    pub hint: String,
    /// 1-based character in the statement; 0: none.
    pub position: u32,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No address answers. Nothing was sent.
    #[error("no node answers: {0}")]
    Unreachable(String),
    /// The connection was lost after the statement was sent: it may or may not have taken effect.
    #[error("the connection was lost, the statement may or may not have taken effect: {0}")]
    Ambiguous(String),
    /// The server refused the statement.
    #[error(transparent)]
    Sql(#[from] SqlError),
    /// The server did not follow the protocol.
    #[error("protocol: {0}")]
    Protocol(String),
}

impl Error {
    /// Whether the transaction had no effect and may be run again as it is (SQLSTATE 40001, 40P01).
    pub fn is_retryable(&self) -> bool {
        matches!(self, Error::Sql(error) if error.code == "40001" || error.code == "40P01")
    }

    /// Whether the server says that it, or a range, does not serve now (SQLSTATE 57P.., 58...): the same may be asked in a while.
    pub fn is_unavailable(&self) -> bool {
        let Error::Sql(error) = self else { return false };
        error.code.starts_with("57P") || error.code.starts_with("58")
    }

    /// After 40003: the id by which any node can be asked what became of the transaction ([`crate::Session::outcome`]).
    pub fn transaction_id(&self) -> Option<&str> {
        let Error::Sql(error) = self else { return None };
        let (_, rest) = error.hint.split_once("SHOW TRANSACTION STATUS '")?;
        let (id, _) = rest.split_once('\'')?;
        (error.code == "40003").then_some(id)
    }

    /// Whether it is unknown if the statement took effect (lost connection, SQLSTATE 40003).
    pub fn is_ambiguous(&self) -> bool {
        match self {
            Error::Ambiguous(_) => true,
            Error::Sql(error) => error.code == "40003",
            Error::Unreachable(_) | Error::Protocol(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str, hint: &str) -> Error {
        let (message, detail) = (String::new(), String::new());
        let (code, hint) = (code.to_string(), hint.to_string());
        Error::Sql(SqlError { code, message, detail, hint, position: 0 })
    }

    #[test]
    fn what_comes_and_goes_is_unavailable_and_what_stays_is_not() {
        for (code, expected) in
            [("58000", true), ("57P01", true), ("57014", false), ("42P01", false)]
        {
            assert_eq!(refused(code, "").is_unavailable(), expected, "{code}");
        }
        // Nobody is there to come back.
        assert!(!Error::Unreachable(String::new()).is_unavailable());
    }

    #[test]
    fn the_id_is_in_the_hint_of_40003() {
        let hint = "Ask any node before you repeat it: SHOW TRANSACTION STATUS 'v-0a-1-6b' (if it was not committed by then, it never will be).";
        assert_eq!(refused("40003", hint).transaction_id(), Some("v-0a-1-6b"));
        assert_eq!(refused("40001", hint).transaction_id(), None);
        assert_eq!(refused("40003", "Read what it would have written.").transaction_id(), None);
        assert_eq!(Error::Ambiguous(hint.to_string()).transaction_id(), None);
    }
}
