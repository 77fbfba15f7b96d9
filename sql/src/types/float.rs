//! Floats as text, exactly as PostgreSQL 15 prints and reads them: a value.
//!
//! Printing gives the shortest digits that read back as the same float (`extra_float_digits` > 0, the default): plain
//! notation for exponents -4 to 14 (`real`: -4 to 5), else `1e+20` with at least two digits of exponent.

use super::error::{SqlState, TypeError};

/// Appends the shortest text of a `double precision`.
pub fn write_f64(out: &mut String, value: f64) {
    if write_special(out, value) {
        return;
    }
    write_shortest(out, &format!("{value:e}"), 15);
}

/// Appends the shortest text of a `real`.
pub fn write_f32(out: &mut String, value: f32) {
    if write_special(out, f64::from(value)) {
        return;
    }
    write_shortest(out, &format!("{value:e}"), 6);
}

/// Appends the value rounded to significant digits, as C's `%.*g`: `extra_float_digits` <= 0.
pub fn write_rounded(out: &mut String, value: f64, digits: usize) {
    if write_special(out, value) {
        return;
    }
    let digits = digits.max(1);
    let text = format!("{value:.precision$e}", precision = digits - 1);
    let (mantissa, exponent) = text.split_once('e').expect("the format has an exponent");
    let mantissa = match mantissa.contains('.') {
        true => mantissa.trim_end_matches('0').trim_end_matches('.'),
        false => mantissa,
    };
    write_shortest(out, &format!("{mantissa}e{exponent}"), digits as i32);
}

fn write_special(out: &mut String, value: f64) -> bool {
    let word = match value {
        v if v.is_nan() => "NaN",
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => return false,
    };
    out.push_str(word);
    true
}

/// `scientific` is `[-]d[.ddd]e[-]x`; exponents from -4 to below `plain_below` are written without `e`.
fn write_shortest(out: &mut String, scientific: &str, plain_below: i32) {
    let (mantissa, exponent) = scientific.split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("an exponent is a small integer");
    if !(-4..plain_below).contains(&exponent) {
        out.push_str(mantissa);
        let sign = if exponent < 0 { '-' } else { '+' };
        out.push_str(&format!("e{sign}{:02}", exponent.abs()));
        return;
    }
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa),
    };
    let digits = mantissa.replace('.', "");
    out.push_str(sign);
    if exponent < 0 {
        out.push_str("0.");
        out.extend(std::iter::repeat_n('0', (-exponent - 1) as usize));
        out.push_str(&digits);
        return;
    }
    let whole = exponent as usize + 1;
    match digits.len() > whole {
        true => {
            out.push_str(&digits[..whole]);
            out.push('.');
            out.push_str(&digits[whole..]);
        }
        false => {
            out.push_str(&digits);
            out.extend(std::iter::repeat_n('0', whole - digits.len()));
        }
    }
}

/// Reads a `double precision`. 22P02 if it is none, 22003 beyond its range.
pub fn parse_f64(text: &str) -> Result<f64, TypeError> {
    let (digits, value) = parse::<f64>(text, "double precision")?;
    let vanished = value == 0.0 && has_non_zero_digit(&digits);
    if vanished || (value.is_infinite() && has_non_zero_digit(&digits)) {
        return Err(range(text, "double precision"));
    }
    Ok(value)
}

/// Reads a `real`. 22P02 if it is none, 22003 beyond its range.
pub fn parse_f32(text: &str) -> Result<f32, TypeError> {
    let (digits, value) = parse::<f32>(text, "real")?;
    let vanished = value == 0.0 && has_non_zero_digit(&digits);
    if vanished || (value.is_infinite() && has_non_zero_digit(&digits)) {
        return Err(range(text, "real"));
    }
    Ok(value)
}

fn range(text: &str, name: &str) -> TypeError {
    TypeError::new(
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        format!("\"{text}\" is out of range for type {name}"),
    )
}

/// The mantissa's text (empty for words) and the value.
fn parse<F: std::str::FromStr>(text: &str, name: &str) -> Result<(String, F), TypeError> {
    let wrong = || TypeError::syntax(name, text);
    let trimmed = text.trim_matches(super::text::is_space);
    let lower = trimmed.to_ascii_lowercase();
    let unsigned = lower.strip_prefix(['+', '-']).unwrap_or(&lower);
    let is_word = matches!(unsigned, "nan" | "inf" | "infinity");
    let plain =
        unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'+' | b'-'));
    if !is_word && (!plain || unsigned.is_empty()) {
        return Err(wrong());
    }
    let value = lower.parse().map_err(|_| wrong())?;
    let mantissa = unsigned.split('e').next().unwrap_or("");
    Ok((if is_word { String::new() } else { mantissa.to_string() }, value))
}

fn has_non_zero_digit(mantissa: &str) -> bool {
    mantissa.bytes().any(|b| (b'1'..=b'9').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn show(value: f64) -> String {
        let mut out = String::new();
        write_f64(&mut out, value);
        out
    }

    fn show4(value: f32) -> String {
        let mut out = String::new();
        write_f32(&mut out, value);
        out
    }

    #[test]
    fn known_texts() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (1e14, "100000000000000"),
            (1e15, "1e+15"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-1.25e-7, "-1.25e-07"),
            (1e300, "1e+300"),
            (0.1 + 0.2, "0.30000000000000004"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(show(value), text);
        }
        assert_eq!(show4(1e6), "1e+06");
        assert_eq!(show4(123_456.0), "123456");
        assert_eq!(show4(0.1), "0.1");
    }

    #[test]
    fn errors_have_postgres_codes() {
        let code = |text: &str| parse_f64(text).expect_err(text).code.to_string();
        for text in ["", "abc", "1e", "0x10", "1 2", "--1", "1_000"] {
            assert_eq!(code(text), "22P02", "{text}");
        }
        assert_eq!(code("1e400"), "22003");
        assert_eq!(code("1e-400"), "22003");
        assert_eq!(parse_f64(" -Infinity ").expect("a float"), f64::NEG_INFINITY);
        assert_eq!(parse_f32("1e40").expect_err("range").code.to_string(), "22003");
    }

    proptest! {
        #[test]
        fn text_round_trips(value: f64, small: f32) {
            prop_assert_eq!(parse_f64(&show(value)).unwrap(), value);
            prop_assert_eq!(parse_f32(&show4(small)).unwrap(), small);
        }
    }
}
