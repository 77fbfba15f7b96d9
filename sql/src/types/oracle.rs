//! Tests against PostgreSQL 15: `tests/data/types.golden` holds what it answered; every line must be answered the same here.
//!
//! Known differences stand in [`DIFFERENCES`] with their reason; a line there that agrees after all fails the test too.

use super::{Datum, FixedContext, Type, TypeError, resolve, text};

const GOLDEN: &str = include_str!("../../tests/data/types.golden");

/// Lines that PostgreSQL answers otherwise, and why that is accepted.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "text|float8|1e23|",
        "PostgreSQL avoids digits exactly between two floats; ours read back the same",
    ),
    ("call|upper|text|aé|", "the oracle ran with ctype C; ours is that of Unicode"),
    ("call|lower|text|AÉ|", "the oracle ran with ctype C; ours is that of Unicode"),
    (
        r"call|~~|text|a|text|a\\|",
        "a pattern that ends with its escape is refused whatever the text",
    ),
];

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => out.push(match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some('p') => '|',
                other => other.expect("an escape is followed by its letter"),
            }),
            (c, false) => out.push(c),
        }
    }
    out
}

/// `numeric(4,2)[]` as type and typmod.
fn ty(name: &str) -> (Type, i32) {
    let (base, array) = name.strip_suffix("[]").map_or((name, false), |base| (base, true));
    let (base, modifiers) = base.split_once('(').unwrap_or((base, ""));
    let scalar = Type::from_name(if base == "char" { "character" } else { base }).expect(name);
    let modifiers: Vec<i32> = modifiers
        .trim_end_matches(')')
        .split(',')
        .filter(|m| !m.is_empty())
        .map(|m| m.parse().expect("a modifier"))
        .collect();
    let typmod = scalar.typmod(&modifiers).expect("valid modifiers");
    (if array { scalar.array().expect("an array") } else { scalar }, typmod)
}

fn answer(parts: &[String]) -> Result<Option<String>, TypeError> {
    let context = FixedContext::default();
    let show = |value: Datum, ty: Type| match (value, ty) {
        (Datum::Null, _) => None,
        (Datum::Bool(value), _) if parts[0] == "call" => Some(value.to_string()),
        (value, ty) => Some(text::to_string(&value, ty, &context)),
    };
    match parts {
        [kind, name, input] if kind == "text" => {
            let (ty, typmod) = ty(name);
            Ok(show(text::parse(input, ty, typmod, &context)?, ty))
        }
        [_, name, args @ ..] => {
            let types: Vec<Type> = args.chunks(2).map(|pair| ty(&pair[0]).0).collect();
            let found = resolve(name, &types).unwrap_or_else(|e| panic!("{name}{types:?}: {e:?}"));
            let mut values = Vec::new();
            for ((pair, from), to) in args.chunks(2).zip(&types).zip(&found.args) {
                let value = text::parse(&pair[1], *from, -1, &context)?;
                let context = &context;
                values.push(super::cast(
                    &value,
                    *from,
                    *to,
                    -1,
                    super::CastContext::Implicit,
                    context,
                )?);
            }
            Ok(show(found.function.call(&context, &values)?, found.result))
        }
        _ => panic!("a golden line has a kind and a name"),
    }
}

#[test]
fn values_and_functions_answer_as_postgres() {
    let mut wrong = Vec::new();
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
        let mut parts: Vec<String> = line.split('|').map(unescape).collect();
        let expected = parts.pop().expect("a line has an answer");
        let got = match answer(&parts) {
            Ok(Some(text)) => format!("={text}"),
            Ok(None) => "NULL".to_string(),
            Err(error) => format!("!{}", error.code),
        };
        let excused = DIFFERENCES.iter().any(|(known, _)| line.starts_with(known));
        if (got == expected) == excused {
            wrong.push(format!("{line}\n    here: {got}"));
        }
    }
    assert!(wrong.is_empty(), "{} lines differ:\n{}", wrong.len(), wrong.join("\n"));
}
