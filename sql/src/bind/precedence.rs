//! Value: what binds tighter. `sqlparser` groups the operands of unary operators in its own way; PostgreSQL (manual, 4.1.6) has
//!
//! ```text
//!   unary + -        tightest
//!   ^
//!   * / %
//!   + -
//!   all others       || -> & ~ @ |/ ..., before one operand (~, @) or between two
//!   < > = <= >= <>
//! ```
//!
//! Parentheses stay in the tree ([`Expr::Nested`]), so a chain of operators is the sequence of its words: it is read once more,
//! by two stacks (Dijkstra's shunting yard), and made anew if its groups come out differently.
//!
//! What is no operator of one or two operands (LIKE, BETWEEN, IN, IS, NOT, AND, OR) is weaker than most of them and stays as it is
//! grouped by the parser. Honest limit: in `a ~ b LIKE c` PostgreSQL groups to the left.
//!
//! INVARIANT: the words and their order stay; a mended tree needs no mending. Chains are long: nothing here recurses along them.

use sqlparser::ast::{BinaryOperator, Expr, UnaryOperator};

/// How tight; larger is tighter. All operators between two operands group to the left.
type Strength = u8;

const SIGN: Strength = 5;
const POWER: Strength = 4;
const PRODUCT: Strength = 3;
const SUM: Strength = 2;
const OTHER: Strength = 1;
const COMPARISON: Strength = 0;

/// A word of a chain: the node whose operator it is, or an operand.
#[derive(Clone, Copy)]
enum Word<'a> {
    Operand(&'a Expr),
    Prefix(&'a Expr, Strength),
    Infix(&'a Expr, Strength),
}

/// The expression as PostgreSQL groups it; `None` if it is grouped so already.
pub(super) fn mended(ast: &Expr) -> Option<Expr> {
    let is_link = |node: &Expr| !matches!(word(node), Word::Operand(_));
    let (left, right) = operands(ast);
    if !is_link(ast) || !(left.is_some_and(is_link) || is_link(right)) {
        return None;
    }
    let regrouped = regrouped(&words(ast));
    let written = operators_last(ast);
    let same = written.iter().zip(&regrouped).all(|(a, b)| std::ptr::eq(*a, *b));
    if same { None } else { Some(tree(&regrouped)) }
}

/// A node's operator, if it is of a chain.
fn word(node: &Expr) -> Word<'_> {
    let strength = match node {
        Expr::UnaryOp { op, .. } => prefix(*op),
        Expr::BinaryOp { op, .. } => infix(op),
        _ => None,
    };
    match (node, strength) {
        (Expr::UnaryOp { .. }, Some(strength)) => Word::Prefix(node, strength),
        (_, Some(strength)) => Word::Infix(node, strength),
        (_, None) => Word::Operand(node),
    }
}

fn prefix(op: UnaryOperator) -> Option<Strength> {
    match op {
        UnaryOperator::Plus | UnaryOperator::Minus => Some(SIGN),
        UnaryOperator::BitwiseNot
        | UnaryOperator::PGAbs
        | UnaryOperator::PGSquareRoot
        | UnaryOperator::PGCubeRoot => Some(OTHER),
        _ => None,
    }
}

fn infix(op: &BinaryOperator) -> Option<Strength> {
    use BinaryOperator as B;
    match op {
        B::And | B::Or | B::Xor | B::Overlaps => None,
        B::Eq | B::NotEq | B::Lt | B::LtEq | B::Gt | B::GtEq => Some(COMPARISON),
        B::PGExp => Some(POWER),
        B::Multiply | B::Divide | B::Modulo => Some(PRODUCT),
        B::Plus | B::Minus => Some(SUM),
        _ => Some(OTHER),
    }
}

fn operands(node: &Expr) -> (Option<&Expr>, &Expr) {
    match node {
        Expr::BinaryOp { left, right, .. } => (Some(left), right),
        Expr::UnaryOp { expr, .. } => (None, expr),
        other => (None, other),
    }
}

/// The words in the order in which they were written.
fn words(ast: &Expr) -> Vec<Word<'_>> {
    enum Step<'a> {
        Open(&'a Expr),
        Say(Word<'a>),
    }
    let mut words = Vec::new();
    let mut steps = vec![Step::Open(ast)];
    while let Some(step) = steps.pop() {
        let node = match step {
            Step::Say(word) => {
                words.push(word);
                continue;
            }
            Step::Open(node) => node,
        };
        let word = word(node);
        match (word, operands(node)) {
            (Word::Operand(_), _) => words.push(word),
            (_, (left, right)) => {
                steps.extend([Step::Open(right), Step::Say(word)]);
                steps.extend(left.map(Step::Open));
            }
        }
    }
    words
}

/// The nodes of the tree as it is, each after its operands.
fn operators_last(ast: &Expr) -> Vec<&Expr> {
    let mut nodes = Vec::new();
    let mut rest = vec![ast];
    while let Some(node) = rest.pop() {
        nodes.push(node);
        if !matches!(word(node), Word::Operand(_)) {
            let (left, right) = operands(node);
            rest.extend(left);
            rest.push(right);
        }
    }
    nodes.reverse();
    nodes
}

/// The nodes in PostgreSQL's groups, each after its operands.
fn regrouped<'a>(words: &[Word<'a>]) -> Vec<&'a Expr> {
    let mut nodes = Vec::with_capacity(words.len());
    let mut waiting: Vec<(&Expr, Strength)> = Vec::new();
    for word in words {
        match *word {
            Word::Operand(node) => nodes.push(node),
            Word::Prefix(node, strength) => waiting.push((node, strength)),
            Word::Infix(node, strength) => {
                while let Some((tighter, _)) = waiting.pop_if(|(_, waiting)| *waiting >= strength) {
                    nodes.push(tighter);
                }
                waiting.push((node, strength));
            }
        }
    }
    nodes.extend(waiting.into_iter().rev().map(|(node, _)| node));
    nodes
}

/// The tree of nodes that follow their operands.
fn tree(nodes: &[&Expr]) -> Expr {
    let mut made: Vec<Expr> = Vec::new();
    for node in nodes {
        let mut operand = || Box::new(made.pop().expect("operands come before their operator"));
        let expr = match (word(node), *node) {
            (Word::Prefix(..), Expr::UnaryOp { op, .. }) => {
                Expr::UnaryOp { op: *op, expr: operand() }
            }
            (Word::Infix(..), Expr::BinaryOp { op, .. }) => {
                let (right, left) = (operand(), operand());
                Expr::BinaryOp { left, op: op.clone(), right }
            }
            (_, operand) => operand.clone(),
        };
        made.push(expr);
    }
    made.pop().expect("an expression has an operand")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every group in parentheses.
    fn groups(expr: &Expr) -> String {
        let mended = mended(expr);
        let expr = mended.as_ref().unwrap_or(expr);
        assert!(super::mended(expr).is_none(), "mended twice: {expr}");
        match expr {
            Expr::UnaryOp { op, expr } => format!("({op}{})", groups(expr)),
            Expr::BinaryOp { left, op, right } => {
                format!("({} {op} {})", groups(left), groups(right))
            }
            Expr::Nested(inner) => groups(inner),
            other => other.to_string(),
        }
    }

    fn grouped(text: &str) -> String {
        groups(&crate::bind::parse_expression(text).expect("parses"))
    }

    #[test]
    fn operators_group_as_in_postgres() {
        for (text, expected) in [
            ("-2 ^ 2", "((-2) ^ 2)"),
            ("2 * -2 ^ 2", "(2 * ((-2) ^ 2))"),
            ("2 ^ -2 ^ 2", "((2 ^ (-2)) ^ 2)"),
            ("2 - -2 ^ 2 - 1", "((2 - ((-2) ^ 2)) - 1)"),
            ("-(2 ^ 2)", "(-(2 ^ 2))"),
            ("~ 1 + 1", "(~(1 + 1))"),
            ("@ -3 + 1", "(@((-3) + 1))"),
            ("2 * ~ 1 + 1", "(2 * (~(1 + 1)))"),
            ("~ 1 & 3", "((~1) & 3)"),
            ("|/ 4 * 4 = 4", "((|/(4 * 4)) = 4)"),
            ("1 = ~ 1 + 1", "(1 = (~(1 + 1)))"),
            ("a ~ 'x' || 'y'", "((a ~ 'x') || 'y')"),
            ("a = b ~ 'x'", "(a = (b ~ 'x'))"),
            ("- a + b * c", "((-a) + (b * c))"),
            ("NOT ~ 1 + 1 = 2", "(NOT((~(1 + 1)) = 2))"),
        ] {
            assert_eq!(grouped(text), expected, "{text}");
        }
    }

    /// The dumb twin climbs: an operand, and all that follows it and is at least as tight as `least`.
    fn twin(words: &mut &[(bool, &'static str)], least: Strength) -> String {
        let strength = |word: &(bool, &str)| match word {
            (true, "-") => SIGN,
            (false, "^") => POWER,
            (false, "*") => PRODUCT,
            (false, "+" | "-") => SUM,
            (false, "=") => COMPARISON,
            _ => OTHER,
        };
        let (first, rest) = words.split_first().expect("an operand");
        *words = rest;
        let mut group = match first {
            (true, prefix) => format!("({prefix}{})", twin(words, strength(first) + 1)),
            (false, operand) => (*operand).to_string(),
        };
        while let Some((infix, rest)) = words.split_first()
            && strength(infix) >= least
        {
            *words = rest;
            group = format!("({group} {} {})", infix.1, twin(words, strength(infix) + 1));
        }
        group
    }

    proptest! {
        #[test]
        fn groups_are_those_of_the_dumb_twin(
            terms in prop::collection::vec(
                (prop::collection::vec(prop::sample::select(vec!["-", "~", "@"]), 0..3),
                 prop::sample::select(vec!["^", "*", "+", "-", "||", "&", "="])),
                1..6,
            )
        ) {
            let mut words: Vec<(bool, &'static str)> = Vec::new();
            for (prefixes, infix) in &terms {
                if !words.is_empty() {
                    words.push((false, *infix));
                }
                words.extend(prefixes.iter().map(|word| (true, *word)));
                words.push((false, "1"));
            }
            let text: Vec<&str> = words.iter().map(|(_, word)| *word).collect();
            prop_assert_eq!(grouped(&text.join(" ")), twin(&mut words.as_slice(), COMPARISON));
        }
    }
}
