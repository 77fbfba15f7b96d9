//! Value: results as psql prints them, aligned or expanded.

use crate::backend::Answer;

/// How rows are laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Layout {
    /// A table.
    Aligned,
    /// One line per value (`\x`).
    Expanded,
}

/// The text of one answer, with a line end.
pub(crate) fn answer(answer: &Answer, layout: Layout) -> String {
    if answer.columns.is_empty() && answer.rows.is_empty() {
        return if answer.tag.is_empty() { String::new() } else { format!("{}\n", answer.tag) };
    }
    match layout {
        Layout::Aligned => aligned(answer),
        Layout::Expanded => expanded(answer),
    }
}

fn shown(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or("")
}

fn width(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

fn aligned(answer: &Answer) -> String {
    let widths: Vec<usize> = (0..answer.columns.len())
        .map(|place| {
            let values = answer.rows.iter().map(|row| width(shown(&row[place])));
            values.chain([width(&answer.columns[place])]).max().unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    let heads: Vec<String> = answer
        .columns
        .iter()
        .zip(&widths)
        .map(|(name, width)| format!(" {name:^width$} "))
        .collect();
    out += heads.join("|").trim_end_matches('\n');
    out.push('\n');
    let rules: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    out += &rules.join("+");
    out.push('\n');
    for row in &answer.rows {
        aligned_row(answer, row, &widths, &mut out);
    }
    out += &match answer.rows.len() {
        1 => "(1 row)\n\n".to_string(),
        count => format!("({count} rows)\n\n"),
    };
    out
}

/// A value of several lines continues below, marked with `+` at the end of each line but its last.
fn aligned_row(answer: &Answer, row: &[Option<String>], widths: &[usize], out: &mut String) {
    let cells: Vec<Vec<&str>> =
        row.iter().map(|value| shown(value).split('\n').collect()).collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(1);
    for line in 0..height {
        let parts: Vec<String> = cells
            .iter()
            .enumerate()
            .map(|(place, lines)| {
                let text = lines.get(line).copied().unwrap_or("");
                let mark = if line + 1 < lines.len() { '+' } else { ' ' };
                let width = widths[place];
                let numeric = answer.numeric.get(place).copied().unwrap_or(false);
                if numeric {
                    format!(" {text:>width$}{mark}")
                } else {
                    format!(" {text:<width$}{mark}")
                }
            })
            .collect();
        out.push_str(parts.join("|").trim_end());
        out.push('\n');
    }
}

fn expanded(answer: &Answer) -> String {
    let name_width = answer.columns.iter().map(|name| width(name)).max().unwrap_or(0);
    let mut out = String::new();
    for (number, row) in answer.rows.iter().enumerate() {
        let head = format!("-[ RECORD {} ]", number + 1);
        out += &format!("{head:-<width$}\n", width = name_width + 12);
        for (name, value) in answer.columns.iter().zip(row) {
            out += &format!("{name:<name_width$} | {}\n", shown(value));
        }
    }
    if answer.rows.is_empty() {
        out += "(0 rows)\n";
    }
    out.push('\n');
    out
}

/// An error as psql shows it, with the line and a caret when its position is known.
pub(crate) fn error(sql: &str, error: &client::Error) -> String {
    let client::Error::Sql(told) = error else { return format!("ERROR:  {error}\n") };
    let mut out = format!("ERROR:  {} (SQLSTATE {})\n", told.message, told.code);
    if let Some((number, line, column)) = line_of(sql, told.position) {
        let label = format!("LINE {number}: ");
        out += &format!("{label}{line}\n{}^\n", " ".repeat(label.chars().count() + column));
    }
    if !told.detail.is_empty() {
        out += &format!("DETAIL:  {}\n", told.detail);
    }
    if !told.hint.is_empty() {
        out += &format!("HINT:  {}\n", told.hint);
    }
    out
}

/// The line (from 1), its text, and the column (from 0) of a 1-based character position.
fn line_of(sql: &str, position: u32) -> Option<(usize, &str, usize)> {
    let mut left = usize::try_from(position).ok()?.checked_sub(1)?;
    for (number, line) in sql.split('\n').enumerate() {
        let length = line.chars().count();
        if left <= length {
            return Some((number + 1, line, left));
        }
        left -= length + 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Answer {
        Answer {
            columns: vec!["id".into(), "name".into()],
            numeric: vec![true, false],
            rows: vec![vec![Some("1".into()), Some("ann".into())], vec![Some("10".into()), None]],
            tag: "SELECT 2".into(),
            notices: Vec::new(),
        }
    }

    #[test]
    fn a_table_looks_as_in_psql() {
        let text = " id | name \n----+------\n  1 | ann\n 10 |\n(2 rows)\n\n";
        assert_eq!(answer(&sample(), Layout::Aligned), text);
    }

    #[test]
    fn expanded_has_one_line_per_value() {
        let text = answer(&sample(), Layout::Expanded);
        assert!(text.starts_with("-[ RECORD 1 ]---\nid   | 1\nname | ann\n"), "{text}");
    }

    #[test]
    fn an_error_points_at_its_place() {
        let told = client::SqlError {
            code: "42601".into(),
            message: "syntax error at or near \"FORM\"".into(),
            detail: String::new(),
            hint: String::new(),
            position: 10,
        };
        let text = error("SELECT *\nFORM t", &client::Error::Sql(told));
        assert!(text.ends_with("LINE 2: FORM t\n        ^\n"), "{text}");
    }
}
