//! Value: which function is meant. Over values, `types::registry` follows PostgreSQL's rules; functions over the session and the
//! catalog have plain signatures, of which the first that fits is taken.

use crate::error::SqlError;
use crate::pg_catalog::functions::{self as session, SessionFunction};
use crate::plan::{Callee, Code};
use crate::types::registry::{self, OnNull, ResolveError, Resolved, Volatility};
use crate::types::{CastContext, SqlState, Type, castable};
use std::sync::Arc;

pub(crate) use crate::types::Aggregate;

/// A function with the types that its arguments become.
pub(crate) struct Match {
    /// One per argument.
    pub args: Vec<Type>,
    /// Type of its result.
    pub result: Type,
    /// The code.
    pub callee: Callee,
}

/// An operator over values; 42725 or `None` if none is meant.
pub(crate) fn operator(symbol: &str, given: &[Type]) -> Result<Option<Match>, SqlError> {
    found(registry::resolve(symbol, given))
}

/// A function over values, the session or the catalog.
pub(crate) fn function(name: &str, given: &[Type]) -> Result<Option<Match>, SqlError> {
    let fits = |function: &&SessionFunction| {
        (function.required..=function.args.len()).contains(&given.len())
            && given.iter().zip(function.args).all(|(from, to)| {
                *from == Type::Unknown
                    || *to == Type::Any
                    || castable(*from, *to, CastContext::Implicit)
            })
    };
    // A literal may be a name or a number: PostgreSQL prefers strings.
    let mut candidates: Vec<&SessionFunction> = session::named(name).filter(fits).collect();
    candidates.sort_by_key(|function| {
        given
            .iter()
            .zip(function.args)
            .filter(|(from, to)| from != to && !(**from == Type::Unknown && to.category() == 'S'))
            .count()
    });
    if let Some(function) = candidates.first() {
        let args = given.iter().zip(function.args).map(|(from, to)| match (*to, *from) {
            (Type::Any, Type::Unknown) => Type::Text,
            (Type::Any, from) => from,
            (to, _) => to,
        });
        let callee = Callee {
            name: Arc::from(name),
            strict: function.strict,
            volatile: function.volatile,
            code: Code::Session(function.code),
        };
        return Ok(Some(Match { args: args.collect(), result: function.result, callee }));
    }
    found(registry::resolve(name, given))
}

/// Whether there is a function of that name.
pub(crate) fn exists(name: &str) -> bool {
    session::named(name).next().is_some() || registry::exists(name)
}

fn found(resolved: Result<Resolved, ResolveError>) -> Result<Option<Match>, SqlError> {
    match resolved {
        Ok(Resolved { function, args, result }) => {
            let callee = Callee {
                name: Arc::from(function.name),
                strict: function.on_null == OnNull::Null,
                volatile: function.volatility == Volatility::Volatile,
                code: Code::Value(function.code, function.volatility == Volatility::Immutable),
            };
            Ok(Some(Match { args, result, callee }))
        }
        Err(ResolveError::Missing) => Ok(None),
        Err(ResolveError::Ambiguous) => {
            Err(SqlError::new(SqlState::AMBIGUOUS_FUNCTION, "is not unique"))
        }
    }
}
