//! Text and bytea functions: a value. Names and results as in PostgreSQL's manual 9.4 and 9.5. Positions count characters from 1.

use super::context::EvalContext;
use super::datum::Datum;
use super::error::{SqlState, TypeError};
use super::like::{Case, like, with_escape};
use super::operators::untyped_text;
use super::regex::Regex;
use super::registry::{Function, Volatility, arg, pure};
use super::text;
use super::to_char;
use super::ty::Type::{
    self, Any, Bool, BpChar, Bytea, Float8, Int4, Int8, Text, Timestamp, TimestampTz,
};

type Answer = Result<Datum, TypeError>;
const N: Type = Type::Numeric;

/// Longest text that a function may build, in bytes.
const RESULT_BYTES_MAX: usize = 256 << 20;

macro_rules! map {
    ($name:literal, $code:expr) => {
        pure($name, &[Text], Text, |_, a| {
            let code: fn(&str) -> String = $code;
            Ok(Datum::text(code(arg::text(a, 0)?)))
        })
    };
}

const fn stable(function: Function) -> Function {
    function.with_volatility(Volatility::Stable)
}

pub(super) const TABLE: &[Function] = &[
    pure("length", &[Text], Int4, |_, a| Ok(count(arg::text(a, 0)?.chars().count()))),
    pure("length", &[BpChar], Int4, |_, a| Ok(count(arg::text(a, 0)?.chars().count()))),
    pure("length", &[Bytea], Int4, |_, a| Ok(count(arg::bytes(a, 0)?.len()))),
    pure("char_length", &[Text], Int4, |_, a| Ok(count(arg::text(a, 0)?.chars().count()))),
    pure("character_length", &[Text], Int4, |_, a| Ok(count(arg::text(a, 0)?.chars().count()))),
    pure("octet_length", &[Text], Int4, |_, a| Ok(count(arg::text(a, 0)?.len()))),
    pure("octet_length", &[BpChar], Int4, |_, a| {
        Ok(count(arg::any(a, 0)?.as_str().map_or(0, str::len)))
    }),
    pure("octet_length", &[Bytea], Int4, |_, a| Ok(count(arg::bytes(a, 0)?.len()))),
    pure("bit_length", &[Text], Int4, |_, a| Ok(count(arg::text(a, 0)?.len() * 8))),
    map!("upper", str::to_uppercase),
    map!("lower", str::to_lowercase),
    map!("initcap", initcap),
    map!("reverse", |text| text.chars().rev().collect()),
    map!("md5", |text| md5_text(text.as_bytes())),
    pure("md5", &[Bytea], Text, |_, a| Ok(Datum::text(md5_text(arg::bytes(a, 0)?)))),
    map!("quote_ident", quote_ident),
    map!("quote_literal", quote_literal),
    stable(pure("quote_literal", &[Type::AnyElement], Text, |c, a| {
        Ok(Datum::text(quote_literal(&untyped_text(&a[0], c))))
    })),
    stable(pure("quote_nullable", &[Type::AnyElement], Text, |c, a| match &a[0] {
        Datum::Null => Ok(Datum::text("NULL")),
        value => Ok(Datum::text(quote_literal(&untyped_text(value, c)))),
    }))
    .called_on_null(),
    map!("btrim", |text| text.trim_matches(' ').to_string()),
    map!("ltrim", |text| text.trim_start_matches(' ').to_string()),
    map!("rtrim", |text| text.trim_end_matches(' ').to_string()),
    pure("btrim", &[Text, Text], Text, |_, a| {
        let set = arg::text(a, 1)?;
        Ok(Datum::text(arg::text(a, 0)?.trim_matches(|c| set.contains(c))))
    }),
    pure("ltrim", &[Text, Text], Text, |_, a| {
        let set = arg::text(a, 1)?;
        Ok(Datum::text(arg::text(a, 0)?.trim_start_matches(|c| set.contains(c))))
    }),
    pure("rtrim", &[Text, Text], Text, |_, a| {
        let set = arg::text(a, 1)?;
        Ok(Datum::text(arg::text(a, 0)?.trim_end_matches(|c| set.contains(c))))
    }),
    pure("substr", &[Text, Int4], Text, |_, a| substring(a, None)),
    pure("substr", &[Text, Int4, Int4], Text, |_, a| substring(a, Some(arg::int(a, 2)?))),
    pure("substring", &[Text, Int4], Text, |_, a| substring(a, None)),
    pure("substring", &[Text, Int4, Int4], Text, |_, a| substring(a, Some(arg::int(a, 2)?))),
    pure("substring", &[Text, Text], Text, |_, a| substring_regex(a)),
    pure("substring", &[Bytea, Int4, Int4], Bytea, |_, a| {
        let (skip, take) = span(arg::int(a, 1)?, Some(arg::int(a, 2)?))?;
        Ok(Datum::bytea(
            arg::bytes(a, 0)?.iter().skip(skip).take(take).copied().collect::<Vec<u8>>(),
        ))
    }),
    pure("replace", &[Text, Text, Text], Text, |_, a| {
        let (text, from) = (arg::text(a, 0)?, arg::text(a, 1)?);
        Ok(Datum::text(if from.is_empty() {
            text.to_string()
        } else {
            text.replace(from, arg::text(a, 2)?)
        }))
    }),
    pure("translate", &[Text, Text, Text], Text, |_, a| translate(a)),
    pure("strpos", &[Text, Text], Int4, |_, a| position(arg::text(a, 0)?, arg::text(a, 1)?)),
    pure("position", &[Text, Text], Int4, |_, a| position(arg::text(a, 0)?, arg::text(a, 1)?)),
    pure("starts_with", &[Text, Text], Bool, |_, a| {
        Ok(Datum::Bool(arg::text(a, 0)?.starts_with(arg::text(a, 1)?)))
    }),
    pure("left", &[Text, Int4], Text, |_, a| left(arg::text(a, 0)?, arg::int(a, 1)?)),
    pure("right", &[Text, Int4], Text, |_, a| right(arg::text(a, 0)?, arg::int(a, 1)?)),
    pure("lpad", &[Text, Int4], Text, |_, a| pad(a, " ", Side::Left)),
    pure("lpad", &[Text, Int4, Text], Text, |_, a| pad(a, arg::text(a, 2)?, Side::Left)),
    pure("rpad", &[Text, Int4], Text, |_, a| pad(a, " ", Side::Right)),
    pure("rpad", &[Text, Int4, Text], Text, |_, a| pad(a, arg::text(a, 2)?, Side::Right)),
    pure("repeat", &[Text, Int4], Text, |_, a| {
        let (text, times) = (arg::text(a, 0)?, arg::int(a, 1)?.max(0) as usize);
        bounded(text.len().saturating_mul(times))?;
        Ok(Datum::text(text.repeat(times)))
    }),
    pure("split_part", &[Text, Text, Int4], Text, |_, a| split_part(a)),
    stable(pure("concat", &[], Text, |c, a| {
        Ok(Datum::text(a.iter().map(|value| untyped_text(value, c)).collect::<String>()))
    }))
    .with_variadic(Any)
    .called_on_null(),
    stable(pure("concat_ws", &[Text], Text, |c, a| match &a[0] {
        Datum::Null => Ok(Datum::Null),
        separator => {
            let parts = a[1..].iter().filter(|value| !value.is_null());
            let parts: Vec<String> = parts.map(|value| untyped_text(value, c)).collect();
            Ok(Datum::text(parts.join(separator.as_str().ok_or_else(arg::mismatch)?)))
        }
    }))
    .with_variadic(Any)
    .called_on_null(),
    stable(pure("format", &[Text], Text, format)).with_variadic(Any).called_on_null(),
    pure("ascii", &[Text], Int4, |_, a| {
        Ok(Datum::Int4(arg::text(a, 0)?.chars().next().map_or(0, |c| u32::from(c) as i32)))
    }),
    pure("chr", &[Int4], Text, |_, a| chr(arg::int(a, 0)?)),
    pure("to_hex", &[Int4], Text, |_, a| Ok(Datum::text(format!("{:x}", arg::int(a, 0)? as i32)))),
    pure("to_hex", &[Int8], Text, |_, a| Ok(Datum::text(format!("{:x}", arg::int(a, 0)?)))),
    pure("encode", &[Bytea, Text], Text, |_, a| encode(arg::bytes(a, 0)?, arg::text(a, 1)?)),
    pure("decode", &[Text, Text], Bytea, |_, a| decode(arg::text(a, 0)?, arg::text(a, 1)?)),
    pure("like_escape", &[Text, Text], Text, |_, a| {
        with_escape(arg::text(a, 0)?, arg::text(a, 1)?).map(Datum::text)
    }),
    pure("like", &[Text, Text], Bool, |_, a| {
        like(arg::text(a, 0)?, arg::text(a, 1)?, Case::Sensitive).map(Datum::Bool)
    }),
    pure("regexp_replace", &[Text, Text, Text], Text, |_, a| regexp_replace(a, "")),
    pure("regexp_replace", &[Text, Text, Text, Text], Text, |_, a| {
        regexp_replace(a, arg::text(a, 3)?)
    }),
    pure("regexp_match", &[Text, Text], Type::Array(&Text), |_, a| regexp_match(a, "")),
    pure("regexp_match", &[Text, Text, Text], Type::Array(&Text), |_, a| {
        regexp_match(a, arg::text(a, 2)?)
    }),
    pure("to_char", &[Timestamp, Text], Text, |_, a| {
        to_char::timestamp(arg::us(a, 0)?, arg::text(a, 1)?, None).map(text_or_null)
    }),
    stable(pure("to_char", &[TimestampTz, Text], Text, |c, a| {
        to_char::timestamp(arg::us(a, 0)?, arg::text(a, 1)?, Some(c.time_zone())).map(text_or_null)
    })),
    pure("to_char", &[Int4, Text], Text, |_, a| number_text(a)),
    pure("to_char", &[Int8, Text], Text, |_, a| number_text(a)),
    pure("to_char", &[N, Text], Text, |_, a| number_text(a)),
    pure("to_char", &[Float8, Text], Text, |_, a| {
        let number = super::numeric::Numeric::from_f64(arg::float(a, 0)?);
        to_char::number(&number, arg::text(a, 1)?).map(Datum::text)
    }),
];

/// `to_char` of an infinity, or by an empty pattern, is NULL.
fn text_or_null(text: String) -> Datum {
    if text.is_empty() { Datum::Null } else { Datum::text(text) }
}

fn number_text(args: &[Datum]) -> Answer {
    to_char::number(&arg::numeric(args, 0)?, arg::text(args, 1)?).map(Datum::text)
}

fn count(value: usize) -> Datum {
    Datum::Int4(i32::try_from(value).unwrap_or(i32::MAX))
}

fn bounded(bytes: usize) -> Result<(), TypeError> {
    if bytes > RESULT_BYTES_MAX {
        return Err(TypeError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "requested length too large"));
    }
    Ok(())
}

fn initcap(text: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match inside {
            true => out.extend(c.to_lowercase()),
            false => out.extend(c.to_uppercase()),
        }
        inside = c.is_alphanumeric();
    }
    out
}

/// An identifier, quoted if it needs it.
pub fn quote_ident(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain && !RESERVED.contains(&name) {
        return name.to_string();
    }
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Words that PostgreSQL's grammar does not take as a name without quotes.
const RESERVED: &[&str] = &[
    "all",
    "analyse",
    "analyze",
    "and",
    "any",
    "array",
    "as",
    "asc",
    "asymmetric",
    "authorization",
    "between",
    "bigint",
    "binary",
    "bit",
    "boolean",
    "both",
    "case",
    "cast",
    "char",
    "character",
    "check",
    "coalesce",
    "collate",
    "collation",
    "column",
    "concurrently",
    "constraint",
    "create",
    "cross",
    "current_catalog",
    "current_date",
    "current_role",
    "current_schema",
    "current_time",
    "current_timestamp",
    "current_user",
    "dec",
    "decimal",
    "default",
    "deferrable",
    "desc",
    "distinct",
    "do",
    "else",
    "end",
    "except",
    "exists",
    "extract",
    "false",
    "fetch",
    "float",
    "for",
    "foreign",
    "freeze",
    "from",
    "full",
    "grant",
    "greatest",
    "group",
    "grouping",
    "having",
    "ilike",
    "in",
    "initially",
    "inner",
    "inout",
    "int",
    "integer",
    "intersect",
    "interval",
    "into",
    "is",
    "isnull",
    "join",
    "lateral",
    "leading",
    "least",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "national",
    "natural",
    "nchar",
    "none",
    "normalize",
    "not",
    "notnull",
    "null",
    "nullif",
    "numeric",
    "offset",
    "on",
    "only",
    "or",
    "order",
    "out",
    "outer",
    "overlaps",
    "overlay",
    "placing",
    "position",
    "precision",
    "primary",
    "real",
    "references",
    "returning",
    "right",
    "row",
    "select",
    "session_user",
    "setof",
    "similar",
    "smallint",
    "some",
    "substring",
    "symmetric",
    "table",
    "tablesample",
    "then",
    "time",
    "timestamp",
    "to",
    "trailing",
    "treat",
    "trim",
    "true",
    "union",
    "unique",
    "user",
    "using",
    "values",
    "varchar",
    "variadic",
    "verbose",
    "when",
    "where",
    "window",
    "with",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlexists",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
];

/// A literal in quotes; with backslashes in the `E''` form.
pub fn quote_literal(text: &str) -> String {
    let escape = if text.contains('\\') { " E" } else { "" };
    let body = text.replace('\\', "\\\\").replace('\'', "''");
    format!("{escape}'{body}'").trim_start().to_string()
}

/// Characters to skip and to take, for a start counted from 1 that may lie before the text. 22011 for a negative length.
fn span(start: i64, length: Option<i64>) -> Result<(usize, usize), TypeError> {
    let Some(length) = length else { return Ok(((start - 1).max(0) as usize, usize::MAX)) };
    if length < 0 {
        return Err(TypeError::new(
            SqlState::SUBSTRING_ERROR,
            "negative substring length not allowed",
        ));
    }
    let end = start.saturating_add(length).max(1);
    let first = start.max(1);
    Ok(((first - 1) as usize, (end - first).max(0) as usize))
}

fn substring(args: &[Datum], length: Option<i64>) -> Answer {
    let (skip, take) = span(arg::int(args, 1)?, length)?;
    Ok(Datum::text(arg::text(args, 0)?.chars().skip(skip).take(take).collect::<String>()))
}

/// The first group of the first match, or all of it if there is no group.
fn substring_regex(args: &[Datum]) -> Answer {
    let text = arg::text(args, 0)?;
    let found = Regex::new(arg::text(args, 1)?, Case::Sensitive)?.find(text, 0);
    let Some(groups) = found else { return Ok(Datum::Null) };
    let wanted = groups.get(1).copied().unwrap_or(groups[0]);
    Ok(wanted.map_or(Datum::Null, |(start, end)| Datum::text(&text[start..end])))
}

fn regex_of(pattern: &str, flags: &str) -> Result<Regex, TypeError> {
    let case = if flags.contains('i') { Case::Ignored } else { Case::Sensitive };
    if let Some(flag) = flags.chars().find(|flag| !"gic".contains(*flag)) {
        return Err(TypeError::parameter(format!("invalid regular expression option: \"{flag}\"")));
    }
    Regex::new(pattern, case)
}

fn regexp_replace(args: &[Datum], flags: &str) -> Answer {
    let (text, with) = (arg::text(args, 0)?, arg::text(args, 2)?);
    let regex = regex_of(arg::text(args, 1)?, flags)?;
    let mut out = String::new();
    let (mut copied, mut from) = (0, 0);
    while let Some(groups) = regex.find(text, from) {
        let (start, end) = groups[0].ok_or_else(arg::mismatch)?;
        out.push_str(&text[copied..start]);
        substitute(&mut out, with, text, &groups);
        copied = end;
        bounded(out.len())?;
        if !flags.contains('g') || start >= text.len() {
            break;
        }
        // An empty match moves on by one character.
        from = if end > start {
            end
        } else {
            end + text[end..].chars().next().map_or(1, char::len_utf8)
        };
    }
    out.push_str(&text[copied..]);
    Ok(Datum::text(out))
}

fn substitute(out: &mut String, with: &str, text: &str, groups: &super::regex::Captures) {
    let mut chars = with.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        let group = match chars.next() {
            Some('&') => Some(0),
            Some(digit @ '1'..='9') => digit.to_digit(10).map(|digit| digit as usize),
            Some(other) => {
                if other != '\\' {
                    out.push('\\');
                }
                out.push(other);
                None
            }
            None => {
                out.push('\\');
                None
            }
        };
        if let Some(Some((start, end))) = group.and_then(|group| groups.get(group)) {
            out.push_str(&text[*start..*end]);
        }
    }
}

fn regexp_match(args: &[Datum], flags: &str) -> Answer {
    let text = arg::text(args, 0)?;
    let Some(groups) = regex_of(arg::text(args, 1)?, flags)?.find(text, 0) else {
        return Ok(Datum::Null);
    };
    let wanted = if groups.len() > 1 { &groups[1..] } else { &groups[..] };
    let part = |group: &Option<(usize, usize)>| {
        group.map_or(Datum::Null, |(start, end)| Datum::text(&text[start..end]))
    };
    Ok(Datum::array(Text, wanted.iter().map(part).collect()))
}

fn translate(args: &[Datum]) -> Answer {
    let from: Vec<char> = arg::text(args, 1)?.chars().collect();
    let to: Vec<char> = arg::text(args, 2)?.chars().collect();
    let change = |c: char| match from.iter().position(|f| *f == c) {
        Some(at) => to.get(at).copied(),
        None => Some(c),
    };
    Ok(Datum::text(arg::text(args, 0)?.chars().filter_map(change).collect::<String>()))
}

fn position(text: &str, part: &str) -> Answer {
    Ok(text.find(part).map_or(Datum::Int4(0), |at| count(text[..at].chars().count() + 1)))
}

/// A negative count means all but so many.
fn left(text: &str, wanted: i64) -> Answer {
    let length = text.chars().count() as i64;
    let take = if wanted < 0 { length + wanted } else { wanted };
    Ok(Datum::text(text.chars().take(take.max(0) as usize).collect::<String>()))
}

fn right(text: &str, wanted: i64) -> Answer {
    let length = text.chars().count() as i64;
    let skip = if wanted < 0 { -wanted } else { length - wanted };
    Ok(Datum::text(text.chars().skip(skip.max(0) as usize).collect::<String>()))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

fn pad(args: &[Datum], fill: &str, side: Side) -> Answer {
    let (text, wanted) = (arg::text(args, 0)?, arg::int(args, 1)?.max(0) as usize);
    let length = text.chars().count();
    bounded(wanted.saturating_mul(4))?;
    if wanted <= length || fill.is_empty() {
        return Ok(Datum::text(text.chars().take(wanted).collect::<String>()));
    }
    let filling: String = fill.chars().cycle().take(wanted - length).collect();
    Ok(Datum::text(match side {
        Side::Left => filling + text,
        Side::Right => text.to_string() + &filling,
    }))
}

fn split_part(args: &[Datum]) -> Answer {
    let (text, delimiter) = (arg::text(args, 0)?, arg::text(args, 1)?);
    let parts: Vec<&str> =
        if delimiter.is_empty() { vec![text] } else { text.split(delimiter).collect() };
    let index = match arg::int(args, 2)? {
        0 => return Err(TypeError::parameter("field position must not be zero")),
        position @ 1.. => position - 1,
        position => parts.len() as i64 + position,
    };
    let found = usize::try_from(index).ok().and_then(|index| parts.get(index));
    Ok(Datum::text(found.copied().unwrap_or("")))
}

fn chr(code: i64) -> Answer {
    match u32::try_from(code).ok().and_then(char::from_u32) {
        Some('\0') => {
            Err(TypeError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, "null character not permitted"))
        }
        Some(c) => Ok(Datum::text(c.to_string())),
        None => Err(TypeError::new(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            "requested character not valid for encoding: UTF8",
        )),
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn unknown_encoding(name: &str) -> TypeError {
    TypeError::parameter(format!("unrecognized encoding: \"{name}\""))
}

fn encode(bytes: &[u8], form: &str) -> Answer {
    let mut out = String::new();
    match form.to_ascii_lowercase().as_str() {
        "hex" => text::write_hex(&mut out, bytes),
        "escape" => {
            for byte in bytes {
                match byte {
                    b'\\' => out.push_str("\\\\"),
                    0 | 0x80.. => out.push_str(&format!("\\{byte:03o}")),
                    byte => out.push(char::from(*byte)),
                }
            }
        }
        "base64" => {
            for (index, chunk) in bytes.chunks(3).enumerate() {
                // Lines of 76 characters, as MIME wants.
                if index > 0 && index % 19 == 0 {
                    out.push('\n');
                }
                let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
                let group = at(0) << 16 | at(1) << 8 | at(2);
                for digit in 0..4 {
                    let value = (group >> (18 - 6 * digit)) & 63;
                    out.push(if digit > chunk.len() {
                        '='
                    } else {
                        char::from(BASE64[value as usize])
                    });
                }
            }
        }
        _ => return Err(unknown_encoding(form)),
    }
    Ok(Datum::text(out))
}

fn decode(input: &str, form: &str) -> Answer {
    match form.to_ascii_lowercase().as_str() {
        "hex" => text::parse_hex(input).map(Datum::bytea),
        "escape" => text::parse_bytea_escape(input).map(Datum::bytea),
        "base64" => {
            let mut out = Vec::new();
            let (mut group, mut bits, mut padding) = (0u32, 0, 0);
            for byte in input.bytes().filter(|byte| !byte.is_ascii_whitespace()) {
                if byte == b'=' {
                    padding += 1;
                    continue;
                }
                let value = BASE64.iter().position(|b| *b == byte).filter(|_| padding == 0);
                let value = value.ok_or_else(|| {
                    TypeError::parameter(format!(
                        "invalid symbol \"{}\" found while decoding base64 sequence",
                        char::from(byte)
                    ))
                })?;
                group = group << 6 | value as u32;
                bits += 6;
                if bits >= 8 {
                    bits -= 8;
                    out.push((group >> bits) as u8);
                }
            }
            if (bits, padding) != (0, 0) && (bits, padding) != (2, 1) && (bits, padding) != (4, 2) {
                return Err(TypeError::parameter("invalid base64 end sequence"));
            }
            Ok(Datum::bytea(out))
        }
        _ => Err(unknown_encoding(form)),
    }
}

/// `format(text, ...)`: `%s`, `%I`, `%L`, `%%`, with `n$` and widths.
fn format(context: &dyn EvalContext, args: &[Datum]) -> Answer {
    let Some(pattern) = args[0].as_str() else { return Ok(Datum::Null) };
    let few = || TypeError::parameter("too few arguments for format()");
    let mut out = String::new();
    let mut next = 1;
    let mut rest = pattern;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let number = |text: &mut &str| {
            let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
            let value = text[..digits].parse::<usize>().ok();
            *text = &text[digits..];
            value
        };
        let mut width = number(&mut rest);
        if let Some(after) = rest.strip_prefix('$') {
            next = width.take().filter(|n| *n > 0).ok_or_else(|| {
                TypeError::parameter(
                    "format specifies argument 0, but arguments are numbered from 1",
                )
            })?;
            rest = after;
        }
        let left_aligned = rest.starts_with('-');
        rest = rest.strip_prefix('-').unwrap_or(rest);
        width = width.or_else(|| number(&mut rest));
        let kind = rest.chars().next().ok_or_else(|| {
            TypeError::parameter("unterminated format() type specifier")
                .with_hint("For a single \"%\" use \"%%\".")
        })?;
        rest = &rest[kind.len_utf8()..];
        let value = args.get(next).ok_or_else(few)?;
        next += 1;
        let text = match (kind, value) {
            ('s', Datum::Null) => String::new(),
            ('s', value) => untyped_text(value, context),
            ('I', Datum::Null) => {
                return Err(TypeError::new(
                    SqlState::NULL_VALUE_NOT_ALLOWED,
                    "null values cannot be formatted as an SQL identifier",
                ));
            }
            ('I', value) => quote_ident(&untyped_text(value, context)),
            ('L', Datum::Null) => "NULL".to_string(),
            ('L', value) => quote_literal(&untyped_text(value, context)),
            (other, _) => {
                return Err(TypeError::parameter(format!(
                    "unrecognized format() type specifier \"{other}\""
                ))
                .with_hint("For a single \"%\" use \"%%\"."));
            }
        };
        let width = width.unwrap_or(0);
        bounded(width)?;
        let padding = " ".repeat(width.saturating_sub(text.chars().count()));
        match left_aligned {
            true => out.extend([text, padding]),
            false => out.extend([padding, text]),
        }
    }
    out.push_str(rest);
    Ok(Datum::text(out))
}

fn md5_text(bytes: &[u8]) -> String {
    let mut out = String::new();
    text::write_hex(&mut out, &md5(bytes));
    out
}

/// RFC 1321. Not for anything that must be secret.
pub fn md5(bytes: &[u8]) -> [u8; 16] {
    const SHIFTS: [[u32; 4]; 4] =
        [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
    let mut message = bytes.to_vec();
    message.push(0x80);
    while message.len() % 64 != 56 {
        message.push(0);
    }
    message.extend(((bytes.len() as u64).wrapping_mul(8)).to_le_bytes());
    let mut state: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    for block in message.chunks_exact(64) {
        let words: Vec<u32> = block
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            .collect();
        let [mut a, mut b, mut c, mut d] = state;
        for step in 0..64usize {
            let (mix, word) = match step / 16 {
                0 => (b & c | !b & d, step),
                1 => (d & b | !d & c, (5 * step + 1) % 16),
                2 => (b ^ c ^ d, (3 * step + 5) % 16),
                _ => (c ^ (b | !d), 7 * step % 16),
            };
            let constant = (((step + 1) as f64).sin().abs() * 4_294_967_296.0) as u32;
            let sum = a.wrapping_add(mix).wrapping_add(constant).wrapping_add(words[word]);
            let rotated = sum.rotate_left(SHIFTS[step / 16][step % 4]);
            (a, d, c, b) = (d, c, b, b.wrapping_add(rotated));
        }
        for (total, part) in state.iter_mut().zip([a, b, c, d]) {
            *total = total.wrapping_add(part);
        }
    }
    let mut out = [0; 16];
    for (slot, word) in out.chunks_exact_mut(4).zip(state) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::FixedContext;
    use crate::types::registry::resolve;

    fn call(name: &str, args: &[Datum]) -> String {
        let types: Vec<Type> = args.iter().map(crate::types::functions_array::type_of).collect();
        let found = resolve(name, &types).expect(name);
        let value = found.function.call(&FixedContext::default(), args);
        value.map_or_else(
            |error| error.code.to_string(),
            |v| text::to_string(&v, found.result, &FixedContext::default()),
        )
    }

    #[test]
    fn text_functions_answer_as_postgres() {
        let t = |s: &str| Datum::text(s);
        let i = Datum::Int4;
        assert_eq!(call("md5", &[t("hello")]), "5d41402abc4b2a76b9719d911017c592");
        assert_eq!(call("substr", &[t("hello"), i(-1), i(4)]), "he");
        assert_eq!(call("substr", &[t("hello"), i(2), i(-1)]), "22011");
        assert_eq!(call("lpad", &[t("hi"), i(5), t("xy")]), "xyxhi");
        assert_eq!(call("split_part", &[t("a,b,c"), t(","), i(-1)]), "c");
        assert_eq!(call("initcap", &[t("hi THOMAS-x")]), "Hi Thomas-X");
        assert_eq!(call("left", &[t("abcde"), i(-2)]), "abc");
        assert_eq!(call("right", &[t("abcde"), i(-2)]), "cde");
        assert_eq!(call("quote_ident", &[t("Foo bar")]), "\"Foo bar\"");
        assert_eq!(call("quote_literal", &[t("O'Re\\il")]), "E'O''Re\\\\il'");
        assert_eq!(
            call(
                "format",
                &[t("%s %I %L %%|%5s|%-5s|%2$s"), t("a"), t("B c"), Datum::Null, i(1), i(2)]
            ),
            "a \"B c\" NULL %|    1|2    |B c"
        );
        assert_eq!(call("encode", &[Datum::bytea(b"abcd"), t("base64")]), "YWJjZA==");
        assert_eq!(call("decode", &[t("YWJjZA=="), t("base64")]), "\\x61626364");
        assert_eq!(
            call("regexp_replace", &[t("foobarbaz"), t("b(..)"), t("X\\1Y"), t("g")]),
            "fooXarYXazY"
        );
        assert_eq!(call("concat_ws", &[t(","), i(1), Datum::Null, t("x")]), "1,x");
        assert_eq!(call("strpos", &[t("höhle"), t("le")]), "4");
        assert_eq!(call("to_hex", &[i(-1)]), "ffffffff");
    }
}
