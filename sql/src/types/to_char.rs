//! `to_char`: timestamps and numbers by a pattern: a value.
//!
//! Honest limits: of PostgreSQL's patterns the common ones. Timestamps: `YYYY YYY YY Y IYYY CC Q MM MONTH MON DD DDD D ID DAY DY
//! WW IW HH HH12 HH24 MI SS MS US AM PM A.M. P.M. TZ OF J`, each with `FM`, letters' case followed, text in quotes. Numbers: `9 0 . ,
//! D G S MI PL SG PR $ L FM`. Others (`RN`, `TH`, `V`, `EEEE`) are refused with 0A000 where they are letters that we know.

use super::datetime as dt;
use super::error::TypeError;
use super::numeric::{Class, Numeric};
use super::zone::TimeZone;

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
/// Longest first, so that `MONTH` is not read as `MON`.
const PATTERNS: [&str; 35] = [
    "MONTH", "HH24", "HH12", "YYYY", "IYYY", "A.M.", "P.M.", "MON", "DAY", "DDD", "YYY", "HH",
    "MI", "SS", "MS", "US", "AM", "PM", "MM", "DD", "DY", "ID", "WW", "IW", "YY", "CC", "TZ", "OF",
    "Q", "J", "D", "Y", "W", "FM", "TH",
];

/// A timestamp, or an instant in a zone, by a pattern.
pub fn timestamp(us: i64, pattern: &str, zone: Option<TimeZone>) -> Result<String, TypeError> {
    if matches!(us, dt::TIMESTAMP_INFINITY | dt::TIMESTAMP_NEGATIVE_INFINITY) {
        return Ok(String::new());
    }
    let local = zone.map_or(us, |zone| zone.to_local(us).unwrap_or(us));
    let mut out = String::new();
    let mut fill = true;
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            let body = &rest[1..];
            let end = body.find('"').unwrap_or(body.len());
            out.push_str(&body[..end]);
            rest = body.get(end + 1..).unwrap_or("");
            continue;
        }
        let upper =
            |p: &&&str| rest.get(..p.len()).is_some_and(|head| head.eq_ignore_ascii_case(p));
        let Some(found) = PATTERNS.iter().find(upper) else {
            out.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        let written = &rest[..found.len()];
        rest = &rest[found.len()..];
        match *found {
            "FM" => {
                fill = false;
                continue;
            }
            "TH" => return Err(TypeError::unsupported("to_char pattern TH is not supported")),
            found => out.push_str(&field(found, written, local, us, zone, fill)),
        }
        fill = true;
    }
    Ok(out)
}

fn field(
    pattern: &str,
    written: &str,
    local: i64,
    us: i64,
    zone: Option<TimeZone>,
    fill: bool,
) -> String {
    let at = dt::datetime_from(local);
    let days = local.div_euclid(dt::US_PER_DAY);
    let year = if at.year > 0 { at.year } else { 1 - at.year };
    let (hour, seconds) = (at.us / 3_600_000_000, at.us / dt::US_PER_SECOND);
    let number = |value: i64, width: usize| match fill {
        true => format!("{value:0width$}"),
        false => value.to_string(),
    };
    let name = |name: &str, width: usize| {
        let cased = match written {
            w if w.chars().nth(1).is_some_and(char::is_lowercase)
                && w.starts_with(char::is_uppercase) =>
            {
                name.to_string()
            }
            w if w.starts_with(char::is_lowercase) => name.to_lowercase(),
            _ => name.to_uppercase(),
        };
        if fill { format!("{cased:width$}") } else { cased }
    };
    let half = |am: &str, pm: &str| {
        let text = if hour < 12 { am } else { pm };
        if written.starts_with(char::is_lowercase) { text.to_lowercase() } else { text.to_string() }
    };
    let doy = days - dt::days_from_civil(at.year, 1, 1) + 1;
    match pattern {
        "YYYY" => number(year, 4),
        "YYY" => number(year % 1000, 3),
        "YY" => number(year % 100, 2),
        "Y" => number(year % 10, 1),
        "IYYY" => number(dt::iso_week(days).0, 4),
        "CC" => number((year + 99) / 100, 2),
        "Q" => ((at.month - 1) / 3 + 1).to_string(),
        "MM" => number(at.month, 2),
        "MONTH" => name(MONTHS[at.month as usize - 1], 9),
        "MON" => name(&MONTHS[at.month as usize - 1][..3], 0),
        "DD" => number(at.day, 2),
        "DDD" => number(doy, 3),
        "D" => (dt::weekday(days) + 1).to_string(),
        "ID" => ((dt::weekday(days) + 6) % 7 + 1).to_string(),
        "DAY" => name(DAYS[dt::weekday(days) as usize], 9),
        "DY" => name(&DAYS[dt::weekday(days) as usize][..3], 0),
        "W" => ((at.day - 1) / 7 + 1).to_string(),
        "WW" => number((doy - 1) / 7 + 1, 2),
        "IW" => number(dt::iso_week(days).1, 2),
        "HH" | "HH12" => number((hour + 11) % 12 + 1, 2),
        "HH24" => number(hour, 2),
        "MI" => number(seconds / 60 % 60, 2),
        "SS" => number(seconds % 60, 2),
        "MS" => number(at.us / 1000 % 1000, 3),
        "US" => number(at.us % dt::US_PER_SECOND, 6),
        "AM" | "PM" => half("AM", "PM"),
        "A.M." | "P.M." => half("A.M.", "P.M."),
        "J" => (days + 2_451_545).to_string(),
        "TZ" => {
            let abbreviation = zone.map_or(String::new(), |zone| zone.abbreviation_at(us));
            if written == "tz" { abbreviation.to_lowercase() } else { abbreviation }
        }
        "OF" => zone.map_or("+00".to_string(), |zone| dt::format_offset(zone.offset_at(us))),
        _ => String::new(),
    }
}

/// A number by a pattern such as `FM999,990.00`. Digits that do not fit show as `#`, as in PostgreSQL.
pub fn number(value: &Numeric, pattern: &str) -> Result<String, TypeError> {
    let upper = pattern.to_ascii_uppercase();
    let fill = !upper.contains("FM");
    let mut body = upper.replace("FM", "");
    if ["RN", "TH", "V", "EEEE"].iter().any(|word| body.contains(word)) {
        return Err(TypeError::unsupported(format!(
            "to_char pattern \"{pattern}\" is not supported"
        )));
    }
    let places = body.split_once(['.', 'D']).map_or("", |(_, fraction)| fraction);
    let shown = value.round(places.chars().filter(|c| matches!(c, '9' | '0')).count() as i32)?;
    let negative = shown.signum() == Some(-1);
    let (before, after) = signs(&mut body, negative);
    let (whole_pattern, fraction_pattern) = body.split_once(['.', 'D']).unwrap_or((&body, ""));
    let is_digit = |c: &char| matches!(c, '9' | '0');
    let whole_places = whole_pattern.chars().filter(is_digit).count();
    let fraction_places = fraction_pattern.chars().filter(is_digit).count();
    let finite = value.class() == Class::Finite;
    let rounded = value.abs().round(fraction_places as i32)?.to_string();
    let (whole, fraction) = rounded.split_once('.').unwrap_or((&rounded, ""));
    let whole = if whole == "0" { "" } else { whole };
    let overflow = !finite || whole.len() > whole_places;
    let first_zero = whole_pattern.chars().filter(is_digit).position(|c| c == '0');
    // Places from the left that stay empty: no digit and no zero of the pattern.
    let empty =
        (whole_places - whole.len().min(whole_places)).min(first_zero.unwrap_or(whole_places));
    let mut digits = format!("{whole:0>whole_places$}").chars().collect::<Vec<_>>().into_iter();
    let mut place = 0;
    let mut text = String::new();
    for c in whole_pattern.chars() {
        match c {
            '9' | '0' => {
                let digit = digits.next().unwrap_or('0');
                match place < empty {
                    _ if overflow => text.push('#'),
                    true if fill => text.push(' '),
                    true => {}
                    false => text.push(digit),
                }
                place += 1;
            }
            ',' | 'G' if place > empty || overflow => text.push(','),
            ',' | 'G' if fill => text.push(' '),
            ',' | 'G' => {}
            'L' => text.push(' '),
            other => text.push(other),
        }
    }
    // A number below one whose pattern asks for no digit before the point still shows one place when nothing else would.
    if whole_places > 0 && empty == whole_places && fraction_places == 0 && !overflow {
        if fill {
            text.pop();
        }
        text.push('0');
    }
    if body.contains(['.', 'D']) {
        if !fill && text.is_empty() && shown.is_zero() {
            text.push('0');
        }
        text.push('.');
        let mut decimals: String = fraction_pattern
            .chars()
            .filter(is_digit)
            .zip(fraction.chars().chain(std::iter::repeat('0')))
            .map(|(_, digit)| if overflow { '#' } else { digit })
            .collect();
        if !fill && !overflow {
            let keep = fraction_pattern.rfind('0').map_or(0, |at| at + 1);
            while decimals.len() > keep && decimals.ends_with('0') {
                decimals.pop();
            }
        }
        text.push_str(&decimals);
    }
    Ok(place_sign(&text, &before, &after, fill))
}

/// Takes the sign's pattern out of the body: what stands before and behind the digits. `before` of one blank floats.
fn signs(body: &mut String, negative: bool) -> (String, String) {
    let sign = if negative { "-" } else { "+" };
    let minus = if negative { "-" } else { " " };
    let rules: [(&str, bool, &str); 7] = [
        ("SG", true, sign),
        ("PL", true, if negative { " " } else { "+" }),
        ("S", true, sign),
        ("MI", true, minus),
        ("SG", false, sign),
        ("S", false, sign),
        ("MI", false, minus),
    ];
    if let Some(rest) = body.strip_suffix("PR") {
        let brackets = if negative { ("<", ">") } else { (" ", " ") };
        *body = rest.to_string();
        return (brackets.0.to_string(), brackets.1.to_string());
    }
    for (word, leading, shown) in rules {
        let rest = if leading { body.strip_prefix(word) } else { body.strip_suffix(word) };
        if let Some(rest) = rest.map(str::to_string) {
            *body = rest;
            return match leading {
                true => (shown.to_string(), String::new()),
                false => (String::new(), shown.to_string()),
            };
        }
    }
    (minus.to_string(), String::new())
}

fn place_sign(text: &str, before: &str, after: &str, fill: bool) -> String {
    // The sign stands directly before the first digit, behind the blanks.
    let blanks = text.len() - text.trim_start_matches(' ').len();
    let out = format!("{}{before}{}{after}", &text[..blanks], &text[blanks..]);
    if fill { out } else { out.trim_matches(' ').to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_their_pattern() {
        let show = |value: &str, pattern: &str| {
            number(&Numeric::parse(value).expect("a numeric"), pattern).expect("a pattern")
        };
        assert_eq!(show("1234.5", "9,999.99"), " 1,234.50");
        assert_eq!(show("-12", "999"), " -12");
        assert_eq!(show("12", "FM999"), "12");
        assert_eq!(show("485", "09999"), " 00485");
        assert_eq!(show("0.1", "FM9.99"), ".1");
        assert_eq!(show("0.1", "FM0.00"), "0.10");
        assert_eq!(show("12345", "999"), " ###");
        assert_eq!(show("-485", "999MI"), "485-");
        assert_eq!(show("485", "S999"), "+485");
        assert_eq!(show("-5", "9PR"), "<5>");
        assert_eq!(show("1234567", "FM9,999,999"), "1,234,567");
    }

    #[test]
    fn timestamps_follow_their_pattern() {
        let us =
            dt::timestamp_from(&dt::DateTime { year: 2021, month: 3, day: 4, us: 47_109_012_345 })
                .expect("in range");
        let show = |pattern: &str| timestamp(us, pattern, None).expect("a pattern");
        assert_eq!(show("YYYY-MM-DD HH24:MI:SS.US"), "2021-03-04 13:05:09.012345");
        assert_eq!(show("Dy, DD Mon YYYY HH12:MI:SS am"), "Thu, 04 Mar 2021 01:05:09 pm");
        assert_eq!(show("FMMonth FMDD, \"year\" YYYY"), "March 4, year 2021");
        assert_eq!(show("DAY|Q|DDD|IW"), "THURSDAY |1|063|09");
    }
}
