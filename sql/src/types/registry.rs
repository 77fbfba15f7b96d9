//! The catalog of built-in functions and operators over values, and which of them a call means: a value.
//!
//! An operator is a function whose name is its symbol (`+`, `||`, `~~` for LIKE) and that has one or two arguments. Comparison
//! operators are not here: they are [`Datum::compare`] after both sides have one type. Functions over the session and the
//! catalog belong to the binder.
//!
//! [`resolve`] follows the manual's 10.2 and 10.3: exact match, then most exact arguments, then preferred types, then what unknown
//! literals may be. Pseudo-types bind to one element type for the whole signature, as `anycompatible` does.
//!
//! The code of a function trusts that its arguments have been converted to the resolved types; if they were not it answers
//! XX000, it never panics. Strict functions are not called with a NULL: [`Function::call`] sees to it.

use super::cast::{CastContext, castable};
use super::context::EvalContext;
use super::datum::Datum;
use super::error::{SqlState, TypeError};
use super::ty::Type;
use super::{
    functions_array, functions_json, functions_math, functions_text, functions_time, operators,
};

/// The code of a function.
pub type Code = fn(&dyn EvalContext, &[Datum]) -> Result<Datum, TypeError>;

/// How far a result may be trusted to repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Volatility {
    /// The same for the same arguments, always.
    Immutable,
    /// The same within one statement.
    Stable,
    /// Never known.
    Volatile,
}

/// What a function does with a NULL argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnNull {
    /// NULL without a call: strict.
    Null,
    /// It is called.
    Called,
}

/// One built-in function or operator.
#[derive(Clone, Copy)]
pub struct Function {
    /// Name or symbol.
    pub name: &'static str,
    /// Its arguments, without those that repeat.
    pub args: &'static [Type],
    /// The type of further arguments, if it takes any number of them.
    pub variadic: Option<Type>,
    /// Its result, perhaps a pseudo-type.
    pub result: Type,
    /// Strictness.
    pub on_null: OnNull,
    /// Volatility.
    pub volatility: Volatility,
    /// The code.
    pub code: Code,
}

impl std::fmt::Debug for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{:?}", self.name, self.args)
    }
}

/// A strict, immutable function.
pub(super) const fn pure(
    name: &'static str,
    args: &'static [Type],
    result: Type,
    code: Code,
) -> Function {
    Function {
        name,
        args,
        variadic: None,
        result,
        on_null: OnNull::Null,
        volatility: Volatility::Immutable,
        code,
    }
}

impl Function {
    /// The same, called with NULLs too.
    pub(super) const fn called_on_null(mut self) -> Function {
        self.on_null = OnNull::Called;
        self
    }

    /// The same, taking any number of further arguments of a type.
    pub(super) const fn with_variadic(mut self, ty: Type) -> Function {
        self.variadic = Some(ty);
        self
    }

    /// The same with another volatility.
    pub(super) const fn with_volatility(mut self, volatility: Volatility) -> Function {
        self.volatility = volatility;
        self
    }

    /// Calls it, or answers NULL at once if it is strict and an argument is NULL.
    pub fn call(&self, context: &dyn EvalContext, args: &[Datum]) -> Result<Datum, TypeError> {
        if self.on_null == OnNull::Null && args.iter().any(Datum::is_null) {
            return Ok(Datum::Null);
        }
        (self.code)(context, args)
    }

    fn param(&self, index: usize) -> Type {
        let variadic = self.variadic.unwrap_or(Type::Any);
        self.args.get(index).copied().unwrap_or(variadic)
    }

    fn takes(&self, count: usize) -> bool {
        count == self.args.len() || (self.variadic.is_some() && count > self.args.len())
    }
}

const TABLES: [&[Function]; 9] = [
    operators::NUMBER,
    operators::TEXT,
    operators::TIME,
    operators::COLLECTION,
    functions_math::TABLE,
    functions_text::TABLE,
    functions_time::TABLE,
    functions_array::TABLE,
    functions_json::TABLE,
];

/// Every function and operator.
pub fn functions() -> impl Iterator<Item = &'static Function> {
    TABLES.iter().flat_map(|table| table.iter())
}

/// All overloads of a name or symbol.
pub fn candidates(name: &str) -> Vec<&'static Function> {
    functions().filter(|function| function.name == name).collect()
}

/// True if there is a function or operator of that name.
pub fn exists(name: &str) -> bool {
    functions().any(|function| function.name == name)
}

/// What a call means.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The overload.
    pub function: &'static Function,
    /// The types that the arguments must be converted to.
    pub args: Vec<Type>,
    /// The type of the result.
    pub result: Type,
}

/// Why a call means nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResolveError {
    /// 42883: nothing takes these arguments.
    Missing,
    /// 42725: more than one would.
    Ambiguous,
}

/// The overload that a call by this name with arguments of these types means. `Unknown` is an untyped literal or parameter.
pub fn resolve(name: &str, args: &[Type]) -> Result<Resolved, ResolveError> {
    let args: Vec<Type> = args.iter().map(|ty| ty.base()).collect();
    let named: Vec<Resolved> =
        candidates(name).into_iter().filter_map(|function| bind(function, &args)).collect();
    if named.is_empty() {
        return Err(ResolveError::Missing);
    }
    choose(named, &args)
}

/// The signature with its pseudo-types bound to the arguments; `None` if an argument does not fit.
fn bind(function: &'static Function, args: &[Type]) -> Option<Resolved> {
    if !function.takes(args.len()) {
        return None;
    }
    let mut element: Option<Type> = None;
    for (index, arg) in args.iter().enumerate().filter(|(_, arg)| **arg != Type::Unknown) {
        let found = match function.param(index) {
            Type::AnyArray => arg.element()?,
            Type::AnyNonArray if arg.element().is_some() => return None,
            Type::AnyElement => *arg,
            _ => continue,
        };
        element = Some(match element {
            None => found,
            Some(known) if castable(found, known, CastContext::Implicit) => known,
            Some(known) if castable(known, found, CastContext::Implicit) => found,
            Some(_) => return None,
        });
    }
    let is_polymorphic = |ty: Type| matches!(ty, Type::AnyArray | Type::AnyElement);
    let needs = (0..args.len()).any(|index| is_polymorphic(function.param(index)));
    if needs && element.is_none() && args.len() > 1 {
        element = Some(Type::Text);
    }
    let concrete = |ty: Type, arg: Option<Type>| match ty {
        Type::AnyArray => match (element, arg) {
            // The vectors of the catalogs pass as they are.
            (Some(element), Some(arg)) if arg.element() == Some(element) => Some(arg),
            (Some(element), _) => element.array(),
            (None, _) => Type::Text.array(),
        },
        Type::AnyElement => Some(element.unwrap_or(Type::Text)),
        Type::Any | Type::AnyNonArray => {
            Some(arg.filter(|arg| *arg != Type::Unknown).unwrap_or(Type::Text))
        }
        ty => Some(ty),
    };
    let mut types = Vec::with_capacity(args.len());
    for (index, arg) in args.iter().enumerate() {
        let wanted = concrete(function.param(index), Some(*arg))?;
        if !castable(*arg, wanted, CastContext::Implicit) {
            return None;
        }
        types.push(wanted);
    }
    Some(Resolved { function, args: types, result: concrete(function.result, None)? })
}

fn choose(mut found: Vec<Resolved>, args: &[Type]) -> Result<Resolved, ResolveError> {
    let known = |index: usize| args[index] != Type::Unknown;
    // A binary operator with one literal: the literal is first taken for the other side's type.
    if let ([Type::Unknown, other] | [other, Type::Unknown], true) =
        (args, found.iter().all(|c| is_symbol(c.function.name)))
        && let Some(exact) = found.iter().find(|c| c.args.iter().all(|ty| ty == other))
    {
        return Ok(exact.clone());
    }
    keep_best(&mut found, |c| count(c, |index, ty| known(index) && ty == args[index]));
    let declared = |c: &Resolved, index: usize| c.function.param(index);
    keep_best(&mut found, |c| {
        count(c, |index, ty| {
            known(index)
                && (ty == args[index]
                    || ty.is_preferred() && ty.category() == args[index].category())
        })
    });
    if found.len() > 1 {
        for index in (0..args.len()).filter(|index| !known(*index)) {
            let is_string = |c: &Resolved| declared(c, index).category() == 'S';
            if found.iter().any(is_string) {
                found.retain(is_string);
            }
            keep_best(&mut found, |c| usize::from(c.args[index].is_preferred()));
        }
    }
    if found.len() > 1 {
        // Untyped arguments are taken for the type that all typed ones share.
        let mut typed = args.iter().filter(|ty| **ty != Type::Unknown);
        if let Some(first) = typed.next()
            && typed.all(|ty| ty == first)
        {
            let same: Vec<Resolved> =
                found.iter().filter(|c| c.args.iter().all(|ty| ty == first)).cloned().collect();
            if same.len() == 1 {
                found = same;
            }
        }
    }
    // A generic signature gives way to one that names its types.
    keep_best(&mut found, |c| {
        count(c, |index, _| {
            !matches!(
                declared(c, index),
                Type::Any | Type::AnyElement | Type::AnyNonArray | Type::AnyArray
            )
        })
    });
    match found.len() {
        1 => Ok(found.remove(0)),
        _ => Err(ResolveError::Ambiguous),
    }
}

fn is_symbol(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

fn count(candidate: &Resolved, test: impl Fn(usize, Type) -> bool) -> usize {
    candidate.args.iter().enumerate().filter(|(index, ty)| test(*index, **ty)).count()
}

fn keep_best(found: &mut Vec<Resolved>, score: impl Fn(&Resolved) -> usize) {
    let best = found.iter().map(&score).max().unwrap_or(0);
    found.retain(|candidate| score(candidate) == best);
}

/// Access to arguments whose types the resolution has settled. XX000 if a caller broke that.
pub(super) mod arg {
    use super::{Datum, SqlState, TypeError};
    use crate::types::datum::ArrayValue;
    use crate::types::interval::Interval;
    use crate::types::json::Json;
    use crate::types::numeric::Numeric;
    use std::sync::Arc;

    pub(in crate::types) fn mismatch() -> TypeError {
        TypeError::new(
            SqlState::INTERNAL_ERROR,
            "a function was called with arguments of other types than it declares",
        )
    }

    pub(in crate::types) fn any(args: &[Datum], index: usize) -> Result<&Datum, TypeError> {
        args.get(index).ok_or_else(mismatch)
    }

    pub(in crate::types) fn text(args: &[Datum], index: usize) -> Result<&str, TypeError> {
        match any(args, index)? {
            // As the implicit cast from char(n) to text.
            Datum::BpChar(text) => Ok(text.trim_end_matches(' ')),
            other => other.as_str().ok_or_else(mismatch),
        }
    }

    pub(in crate::types) fn int(args: &[Datum], index: usize) -> Result<i64, TypeError> {
        any(args, index)?.as_i64().ok_or_else(mismatch)
    }

    pub(in crate::types) fn float(args: &[Datum], index: usize) -> Result<f64, TypeError> {
        any(args, index)?.as_f64().ok_or_else(mismatch)
    }

    pub(in crate::types) fn numeric(args: &[Datum], index: usize) -> Result<Numeric, TypeError> {
        any(args, index)?.as_numeric().ok_or_else(mismatch)
    }

    pub(in crate::types) fn bytes(args: &[Datum], index: usize) -> Result<&[u8], TypeError> {
        match any(args, index)? {
            Datum::Bytea(bytes) => Ok(bytes),
            _ => Err(mismatch()),
        }
    }

    pub(in crate::types) fn date(args: &[Datum], index: usize) -> Result<i32, TypeError> {
        match any(args, index)? {
            Datum::Date(days) => Ok(*days),
            _ => Err(mismatch()),
        }
    }

    /// Microseconds of a time, timestamp or instant.
    pub(in crate::types) fn us(args: &[Datum], index: usize) -> Result<i64, TypeError> {
        match any(args, index)? {
            Datum::Time(us) | Datum::Timestamp(us) | Datum::TimestampTz(us) => Ok(*us),
            _ => Err(mismatch()),
        }
    }

    pub(in crate::types) fn interval(args: &[Datum], index: usize) -> Result<Interval, TypeError> {
        match any(args, index)? {
            Datum::Interval(interval) => Ok(*interval),
            _ => Err(mismatch()),
        }
    }

    pub(in crate::types) fn array(args: &[Datum], index: usize) -> Result<&ArrayValue, TypeError> {
        any(args, index)?.as_array().ok_or_else(mismatch)
    }

    /// A `jsonb`, or a `json` read as one.
    pub(in crate::types) fn json(args: &[Datum], index: usize) -> Result<Arc<Json>, TypeError> {
        match any(args, index)? {
            Datum::Jsonb(json) => Ok(Arc::clone(json)),
            Datum::Text(text) => Json::parse(text).map(Arc::new),
            _ => Err(mismatch()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(name: &str, args: &[Type]) -> Result<String, ResolveError> {
        resolve(name, args).map(|found| {
            let args: Vec<String> = found.args.iter().map(|ty| ty.name().to_string()).collect();
            format!("({}) {}", args.join(", "), found.result)
        })
    }

    #[test]
    fn calls_mean_what_they_mean_in_postgres() {
        use Type::*;
        assert_eq!(result("+", &[Int4, Int8]).as_deref(), Ok("(integer, bigint) bigint"));
        assert_eq!(result("+", &[Int4, Unknown]).as_deref(), Ok("(integer, integer) integer"));
        assert_eq!(result("+", &[Int4, Numeric]).as_deref(), Ok("(numeric, numeric) numeric"));
        assert_eq!(
            result("+", &[Numeric, Float8]).as_deref(),
            Ok("(double precision, double precision) double precision")
        );
        assert_eq!(result("||", &[Text, Int4]).as_deref(), Ok("(text, integer) text"));
        assert_eq!(result("||", &[Unknown, Unknown]).as_deref(), Ok("(text, text) text"));
        assert_eq!(
            result("||", &[Array(&Int4), Int4]).as_deref(),
            Ok("(integer[], integer) integer[]")
        );
        assert_eq!(result("abs", &[Unknown]).as_deref(), Ok("(double precision) double precision"));
        assert_eq!(result("length", &[Varchar]).as_deref(), Ok("(text) integer"));
        assert_eq!(result("lower", &[Unknown]).as_deref(), Ok("(text) text"));
        assert_eq!(result("sqrt", &[Int4]).as_deref(), Ok("(double precision) double precision"));
        assert_eq!(result("round", &[Numeric, Int4]).as_deref(), Ok("(numeric, integer) numeric"));
        assert_eq!(
            result("-", &[Timestamp, Timestamp]).as_deref(),
            Ok("(timestamp without time zone, timestamp without time zone) interval")
        );
        assert_eq!(result("-", &[Counter, Int4]).as_deref(), Ok("(bigint, integer) bigint"));
        assert_eq!(result("~~", &[Name, Unknown]).as_deref(), Ok("(text, text) boolean"));
        assert_eq!(result("lower", &[Int4]), Err(ResolveError::Missing));
        assert_eq!(result("+", &[Text, Int4]), Err(ResolveError::Missing));
        assert_eq!(
            result("array_length", &[Int2Vector, Int4]).as_deref(),
            Ok("(int2vector, integer) integer")
        );
    }
}
