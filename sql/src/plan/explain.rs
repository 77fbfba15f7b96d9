//! Value: plans in words, as EXPLAIN shows them.

use super::{JoinKind, JoinMethod, Plan, SetOperator, access};

/// One line per operator, inputs indented.
pub(crate) fn explain(plan: &Plan) -> Vec<String> {
    let mut lines = Vec::new();
    write(plan, 0, &mut lines);
    lines
}

fn write(plan: &Plan, depth: usize, lines: &mut Vec<String>) {
    // Projections are not shown: PostgreSQL does not, either.
    if let Plan::Project { input, .. } = plan
        && !matches!(input.as_ref(), Plan::Values(_))
    {
        return write(input, depth, lines);
    }
    let indent = if depth == 0 {
        String::new()
    } else {
        format!("{}->  ", "      ".repeat(depth - 1) + "  ")
    };
    lines.push(format!("{indent}{}", headline(plan)));
    if let Plan::Scan(scan) = plan {
        let detail = "      ".repeat(depth) + "  ";
        if let Some(lock) = scan.lock {
            lines.push(format!("{detail}Lock: {lock:?}"));
        }
        if scan.filter.is_some() && scan.access.is_full() {
            lines.push(format!("{detail}Filter: yes"));
        }
    }
    for (input, _) in plan.inputs() {
        write(input, depth + 1, lines);
    }
}

fn headline(plan: &Plan) -> String {
    match plan {
        Plan::Values(rows) if rows.len() == 1 => "Result".to_string(),
        Plan::Values(_) => "Values Scan".to_string(),
        Plan::Scan(scan) => {
            let mut text = access::describe(&scan.table, &scan.access);
            if scan.backward {
                text.push_str(" (backward)");
            }
            text
        }
        Plan::Virtual(scan) => format!("Catalog Scan on {}", scan.table.name),
        Plan::Function(_) => "Function Scan".to_string(),
        Plan::Filter { .. } => "Filter".to_string(),
        Plan::Project { .. } => "Result".to_string(),
        Plan::ProjectSet { .. } => "ProjectSet".to_string(),
        Plan::Join(join) => {
            let kind = match join.kind {
                JoinKind::Inner => "",
                JoinKind::Left => " Left",
                JoinKind::Right => " Right",
                JoinKind::Full => " Full",
            };
            match (&join.method, join.lateral) {
                (_, true) => format!("Nested Loop{kind} (lookup)"),
                (JoinMethod::Loop, false) => format!("Nested Loop{kind}"),
                (JoinMethod::Hash(..), false) => format!("Hash{kind} Join"),
            }
        }
        Plan::Aggregate { keys, .. } if keys.is_empty() => "Aggregate".to_string(),
        Plan::Aggregate { .. } => "HashAggregate".to_string(),
        Plan::Window { .. } => "WindowAgg".to_string(),
        Plan::Distinct { .. } => "Unique".to_string(),
        Plan::Sort { .. } => "Sort".to_string(),
        Plan::Limit { .. } => "Limit".to_string(),
        Plan::SetOperation { operator, all, .. } => {
            let word = match operator {
                SetOperator::Union => "Union",
                SetOperator::Except => "Except",
                SetOperator::Intersect => "Intersect",
            };
            if *all { format!("{word} All") } else { word.to_string() }
        }
        Plan::With { .. } => "With".to_string(),
        Plan::Common(_) => "CTE Scan".to_string(),
        Plan::Insert(insert) => format!("Insert on {}", insert.target.table.name),
        Plan::Update(update) => format!("Update on {}", update.target.table.name),
        Plan::Delete(delete) => format!("Delete on {}", delete.target.table.name),
    }
}
