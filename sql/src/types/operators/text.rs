//! Operators over text: `||`, LIKE and regular expressions: a value. `~~` is LIKE, `~~*` ILIKE, `~` a POSIX match, `!` its negation.

use crate::types::datum::Datum;
use crate::types::error::TypeError;
use crate::types::like::{Case, like};
use crate::types::regex::Regex;
use crate::types::registry::{Function, Volatility, arg, pure};
use crate::types::text;
use crate::types::ty::Type::{AnyNonArray, Bool, BpChar, Bytea, Text};

type Answer = Result<Datum, TypeError>;

/// The operators of this room.
pub(in crate::types) const TABLE: &[Function] = &[
    pure("||", &[Text, Text], Text, |_, a| {
        Ok(Datum::text([arg::text(a, 0)?, arg::text(a, 1)?].concat()))
    }),
    pure("||", &[Text, AnyNonArray], Text, |c, a| {
        Ok(Datum::text([arg::text(a, 0)?, &as_text(arg::any(a, 1)?, c)].concat()))
    })
    .with_volatility(Volatility::Stable),
    pure("||", &[AnyNonArray, Text], Text, |c, a| {
        Ok(Datum::text([&as_text(arg::any(a, 0)?, c), arg::text(a, 1)?].concat()))
    })
    .with_volatility(Volatility::Stable),
    pure("||", &[Bytea, Bytea], Bytea, |_, a| {
        Ok(Datum::bytea([arg::bytes(a, 0)?, arg::bytes(a, 1)?].concat()))
    }),
    pure("~~", &[Text, Text], Bool, |_, a| matches_like(a, Case::Sensitive, true)),
    pure("!~~", &[Text, Text], Bool, |_, a| matches_like(a, Case::Sensitive, false)),
    pure("~~*", &[Text, Text], Bool, |_, a| matches_like(a, Case::Ignored, true)),
    pure("!~~*", &[Text, Text], Bool, |_, a| matches_like(a, Case::Ignored, false)),
    pure("~~", &[BpChar, Text], Bool, |_, a| matches_like(a, Case::Sensitive, true)),
    pure("!~~", &[BpChar, Text], Bool, |_, a| matches_like(a, Case::Sensitive, false)),
    pure("~~*", &[BpChar, Text], Bool, |_, a| matches_like(a, Case::Ignored, true)),
    pure("!~~*", &[BpChar, Text], Bool, |_, a| matches_like(a, Case::Ignored, false)),
    pure("~", &[Text, Text], Bool, |_, a| matches_regex(a, Case::Sensitive, true)),
    pure("!~", &[Text, Text], Bool, |_, a| matches_regex(a, Case::Sensitive, false)),
    pure("~*", &[Text, Text], Bool, |_, a| matches_regex(a, Case::Ignored, true)),
    pure("!~*", &[Text, Text], Bool, |_, a| matches_regex(a, Case::Ignored, false)),
    pure("^@", &[Text, Text], Bool, |_, a| {
        Ok(Datum::Bool(arg::text(a, 0)?.starts_with(arg::text(a, 1)?)))
    }),
];

/// The text of a value whose declared type is not at hand: its variant decides. OIDs print as numbers.
pub(in crate::types) fn untyped_text(
    value: &Datum,
    context: &dyn crate::types::EvalContext,
) -> String {
    text::to_string(value, crate::types::Type::Any, context)
}

/// What `||` takes a value for: its cast to text, which is not always how it prints.
fn as_text(value: &Datum, context: &dyn crate::types::EvalContext) -> String {
    match value {
        Datum::Bool(value) => value.to_string(),
        Datum::BpChar(value) => value.trim_end_matches(' ').to_string(),
        other => untyped_text(other, context),
    }
}

/// `char(n)` is matched with its blanks, although they mean nothing elsewhere.
fn matches_like(args: &[Datum], case: Case, wanted: bool) -> Answer {
    let value = args.first().and_then(Datum::as_str).ok_or_else(arg::mismatch)?;
    Ok(Datum::Bool(like(value, arg::text(args, 1)?, case)? == wanted))
}

fn matches_regex(args: &[Datum], case: Case, wanted: bool) -> Answer {
    let regex = Regex::new(arg::text(args, 1)?, case)?;
    Ok(Datum::Bool(regex.is_match(arg::text(args, 0)?) == wanted))
}
