//! Value: SQL text that is stored (defaults, checks, views), with the schemas of the relations that it names. Whoever reads it later
//! may have another search path, and means what its author meant.

use crate::exec::Facts;
use crate::pg_catalog::names;
use sqlparser::ast::{self, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Value};
use sqlparser::tokenizer::Location;
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// Functions whose first argument is a relation's name.
const NAMING: [&str; 3] = ["nextval", "currval", "setval"];

/// An expression.
pub(super) fn text(facts: &Facts, expr: &Expr) -> String {
    let mut expr = expr.clone();
    qualify_literals(facts, &mut expr);
    expr.to_string()
}

/// A query. `unqualified`: where it names relations by their names alone.
pub(super) fn query(facts: &Facts, query: &ast::Query, unqualified: &BTreeSet<Location>) -> String {
    let mut query = query.clone();
    let _ = ast::visit_relations_mut(&mut query, |name| {
        if let [ast::ObjectNamePart::Identifier(only)] = name.0.as_slice()
            && unqualified.contains(&only.span.start)
            && let Some(schema) = names::schema_found(facts, &crate::parse::name(only))
        {
            let quote = (names::quote_ident(&schema) != schema).then_some('"');
            let schema = ast::Ident { quote_style: quote, ..ast::Ident::new(schema) };
            name.0.insert(0, ast::ObjectNamePart::Identifier(schema));
        }
        ControlFlow::<()>::Continue(())
    });
    qualify_literals(facts, &mut query);
    query.to_string()
}

/// `nextval('s')` and `'s'::regclass`, which look the name up when they are run.
fn qualify_literals(facts: &Facts, node: &mut impl ast::VisitMut) {
    let _ = ast::visit_expressions_mut(node, |expr| {
        match expr {
            Expr::Cast { expr, data_type: ast::DataType::Regclass, .. } => qualify(facts, expr),
            Expr::Function(ast::Function { name, args: FunctionArguments::List(list), .. })
                if NAMING.contains(&name.to_string().to_lowercase().as_str()) =>
            {
                if let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(first))) =
                    list.args.first_mut()
                {
                    qualify(facts, first);
                }
            }
            _ => {}
        }
        ControlFlow::<()>::Continue(())
    });
}

fn qualify(facts: &Facts, literal: &mut Expr) {
    if let Expr::Value(value) = literal
        && let Value::SingleQuotedString(text) = &mut value.value
        && let Some(qualified) = names::qualified_text(facts, text)
    {
        *text = qualified;
    }
}
