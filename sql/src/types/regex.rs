//! Regular expressions as `~` knows them: a value. POSIX advanced expressions, without back references.
//!
//! The pattern becomes a small program that a set of threads runs in step over the text (Thompson, Pike): time is
//! pattern * text, never exponential, whatever a client sends. Captures are those of the leftmost match, alternatives and
//! repetitions in their written order of preference.
//!
//! Honest limits: back references, look-ahead and `***` directors are refused with 0A000; among matches of one start PostgreSQL
//! prefers the longest, we the first alternative: this shows only in what `substring` and `regexp_replace` cut out of `a|ab`.

use super::error::{SqlState, TypeError};
use super::like::Case;

/// Largest number of repetitions in braces, as in PostgreSQL.
const REPEAT_MAX: u32 = 255;
/// Longest program; beyond it 2201B.
const PROGRAM_MAX: usize = 50_000;
/// Deepest nesting of groups.
const DEPTH_MAX: usize = 200;

#[derive(Clone, Debug)]
enum Node {
    Empty,
    Char(char),
    Any,
    Set { ranges: Vec<(char, char)>, negated: bool },
    Start,
    End,
    WordStart,
    WordEnd,
    WordBorder,
    NotWordBorder,
    Group(Box<Node>, Option<usize>),
    Concat(Vec<Node>),
    Alternate(Vec<Node>),
    Repeat { node: Box<Node>, min: u32, max: Option<u32>, greedy: bool },
}

#[derive(Clone, Debug)]
enum Step {
    Char(char),
    Any,
    Set {
        ranges: Vec<(char, char)>,
        negated: bool,
    },
    Assert(Border),
    /// Tries the first, then the second.
    Split(usize, usize),
    Jump(usize),
    Save(usize),
    Match,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Border {
    Start,
    End,
    WordStart,
    WordEnd,
    Word,
    NotWord,
}

/// A compiled expression.
#[derive(Clone, Debug)]
pub struct Regex {
    program: Vec<Step>,
    group_count: usize,
    case: Case,
}

/// Byte positions of a match and its groups: `[0]` is the whole.
pub type Captures = Vec<Option<(usize, usize)>>;

fn invalid(why: &str) -> TypeError {
    TypeError::new(
        SqlState::INVALID_REGULAR_EXPRESSION,
        format!("invalid regular expression: {why}"),
    )
}

impl Regex {
    /// Compiles a pattern. 2201B if it is none, 0A000 for what is not supported.
    pub fn new(pattern: &str, case: Case) -> Result<Regex, TypeError> {
        let mut pattern = pattern;
        let mut case = case;
        // Embedded options: `(?i)` and `(?c)`.
        if let Some(rest) = pattern.strip_prefix("(?")
            && let Some((letters, rest)) = rest.split_once(')')
            && letters.chars().all(|c| c.is_ascii_lowercase())
        {
            for letter in letters.chars() {
                match letter {
                    'i' => case = Case::Ignored,
                    'c' => case = Case::Sensitive,
                    's' | 't' => {}
                    _ => {
                        return Err(TypeError::unsupported(
                            "this embedded regular expression option is not supported",
                        ));
                    }
                }
            }
            pattern = rest;
        }
        let mut parser = Parser { chars: pattern.chars().collect(), at: 0, groups: 0, depth: 0 };
        let node = parser.alternatives()?;
        if parser.at < parser.chars.len() {
            return Err(invalid("parentheses () not balanced"));
        }
        let mut program = vec![Step::Save(0)];
        compile(&node, &mut program)?;
        program.extend([Step::Save(1), Step::Match]);
        Ok(Regex { program, group_count: parser.groups + 1, case })
    }

    /// Groups, the whole match included.
    pub fn group_count(&self) -> usize {
        self.group_count
    }

    /// True if it matches somewhere.
    pub fn is_match(&self, text: &str) -> bool {
        self.find(text, 0).is_some()
    }

    /// The leftmost match at or behind a byte position.
    pub fn find(&self, text: &str, from: usize) -> Option<Captures> {
        let chars: Vec<(usize, char)> = text.char_indices().collect();
        let first = chars.iter().position(|(at, _)| *at >= from).unwrap_or(chars.len());
        let saved = self.run(&chars, text.len(), first)?;
        let groups = saved.chunks(2).map(|pair| Some((pair[0]?, pair[1]?)));
        Some(groups.take(self.group_count).collect())
    }

    fn run(&self, chars: &[(usize, char)], end: usize, first: usize) -> Option<Vec<Option<usize>>> {
        let offset = |index: usize| chars.get(index).map_or(end, |(at, _)| *at);
        let mut current = Threads::new(self.program.len());
        let mut next = Threads::new(self.program.len());
        let mut found: Option<Vec<Option<usize>>> = None;
        for index in first..=chars.len() {
            if found.is_none() {
                let saved = vec![None; self.group_count * 2];
                self.follow(&mut current, 0, saved, chars, index, offset(index));
            }
            if current.list.is_empty() && found.is_some() {
                break;
            }
            next.clear();
            let here = chars.get(index).map(|(_, c)| *c);
            for (step, saved) in std::mem::take(&mut current.list) {
                let advances = match &self.program[step] {
                    Step::Match => {
                        // Threads behind this one are less preferred.
                        found = Some(saved);
                        break;
                    }
                    Step::Char(c) => here.is_some_and(|h| self.same(h, *c)),
                    Step::Any => here.is_some(),
                    Step::Set { ranges, negated } => {
                        here.is_some_and(|h| self.in_set(h, ranges) != *negated)
                    }
                    Step::Assert(_) | Step::Split(..) | Step::Jump(_) | Step::Save(_) => false,
                };
                if advances {
                    self.follow(&mut next, step + 1, saved, chars, index + 1, offset(index + 1));
                }
            }
            std::mem::swap(&mut current, &mut next);
        }
        found
    }

    fn same(&self, a: char, b: char) -> bool {
        a == b || self.case == Case::Ignored && a.to_lowercase().eq(b.to_lowercase())
    }

    fn in_set(&self, c: char, ranges: &[(char, char)]) -> bool {
        let inside = |c: char| ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
        let other_case = || c.to_lowercase().any(inside) || c.to_uppercase().any(inside);
        inside(c) || self.case == Case::Ignored && other_case()
    }

    /// Adds every step that reads a character and is reachable from `step` without reading one.
    fn follow(
        &self,
        threads: &mut Threads,
        step: usize,
        saved: Vec<Option<usize>>,
        chars: &[(usize, char)],
        index: usize,
        offset: usize,
    ) {
        let mut stack = vec![(step, saved)];
        while let Some((step, mut saved)) = stack.pop() {
            if std::mem::replace(&mut threads.seen[step], true) {
                continue;
            }
            match &self.program[step] {
                Step::Jump(to) => stack.push((*to, saved)),
                Step::Split(first, second) => {
                    stack.push((*second, saved.clone()));
                    stack.push((*first, saved));
                }
                Step::Save(slot) => {
                    saved[*slot] = Some(offset);
                    stack.push((step + 1, saved));
                }
                Step::Assert(border) => {
                    if holds(*border, chars, index) {
                        stack.push((step + 1, saved));
                    }
                }
                Step::Char(_) | Step::Any | Step::Set { .. } | Step::Match => {
                    threads.list.push((step, saved));
                }
            }
        }
    }
}

struct Threads {
    list: Vec<(usize, Vec<Option<usize>>)>,
    seen: Vec<bool>,
}

impl Threads {
    fn new(steps: usize) -> Threads {
        Threads { list: Vec::new(), seen: vec![false; steps] }
    }

    fn clear(&mut self) {
        self.list.clear();
        self.seen.fill(false);
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn holds(border: Border, chars: &[(usize, char)], index: usize) -> bool {
    let before = index > 0 && is_word(chars[index - 1].1);
    let after = chars.get(index).is_some_and(|(_, c)| is_word(*c));
    match border {
        Border::Start => index == 0,
        Border::End => index == chars.len(),
        Border::WordStart => !before && after,
        Border::WordEnd => before && !after,
        Border::Word => before != after,
        Border::NotWord => before == after,
    }
}

fn compile(node: &Node, program: &mut Vec<Step>) -> Result<(), TypeError> {
    if program.len() > PROGRAM_MAX {
        return Err(invalid("regular expression is too complex"));
    }
    match node {
        Node::Empty => {}
        Node::Char(c) => program.push(Step::Char(*c)),
        Node::Any => program.push(Step::Any),
        Node::Set { ranges, negated } => {
            program.push(Step::Set { ranges: ranges.clone(), negated: *negated });
        }
        Node::Start => program.push(Step::Assert(Border::Start)),
        Node::End => program.push(Step::Assert(Border::End)),
        Node::WordStart => program.push(Step::Assert(Border::WordStart)),
        Node::WordEnd => program.push(Step::Assert(Border::WordEnd)),
        Node::WordBorder => program.push(Step::Assert(Border::Word)),
        Node::NotWordBorder => program.push(Step::Assert(Border::NotWord)),
        Node::Group(inner, None) => compile(inner, program)?,
        Node::Group(inner, Some(group)) => {
            program.push(Step::Save(group * 2));
            compile(inner, program)?;
            program.push(Step::Save(group * 2 + 1));
        }
        Node::Concat(nodes) => {
            for node in nodes {
                compile(node, program)?;
            }
        }
        Node::Alternate(nodes) => {
            let mut jumps = Vec::new();
            for (index, node) in nodes.iter().enumerate() {
                if index + 1 == nodes.len() {
                    compile(node, program)?;
                    break;
                }
                let split = program.len();
                program.push(Step::Jump(0));
                compile(node, program)?;
                jumps.push(program.len());
                program.push(Step::Jump(0));
                program[split] = Step::Split(split + 1, program.len());
            }
            let end = program.len();
            for jump in jumps {
                program[jump] = Step::Jump(end);
            }
        }
        Node::Repeat { node, min, max, greedy } => {
            for _ in 0..*min {
                compile(node, program)?;
            }
            let prefer = |inside: usize, outside: usize| match greedy {
                true => Step::Split(inside, outside),
                false => Step::Split(outside, inside),
            };
            match max {
                None => {
                    let split = program.len();
                    program.push(Step::Jump(0));
                    compile(node, program)?;
                    program.push(Step::Jump(split));
                    program[split] = prefer(split + 1, program.len());
                }
                Some(max) => {
                    let mut splits = Vec::new();
                    for _ in *min..*max {
                        splits.push(program.len());
                        program.push(Step::Jump(0));
                        compile(node, program)?;
                    }
                    let end = program.len();
                    for split in splits {
                        program[split] = prefer(split + 1, end);
                    }
                }
            }
        }
    }
    Ok(())
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    groups: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += 1;
        Some(c)
    }

    fn eat(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        self.at += usize::from(found);
        found
    }

    fn alternatives(&mut self) -> Result<Node, TypeError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(invalid("regular expression is too complex"));
        }
        let mut nodes = vec![self.concat()?];
        while self.eat('|') {
            nodes.push(self.concat()?);
        }
        self.depth -= 1;
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::Alternate(nodes) })
    }

    fn concat(&mut self) -> Result<Node, TypeError> {
        let mut nodes = Vec::new();
        while !matches!(self.peek(), None | Some('|' | ')')) {
            let atom = self.atom()?;
            nodes.push(self.quantified(atom)?);
        }
        Ok(match nodes.len() {
            0 => Node::Empty,
            1 => nodes.remove(0),
            _ => Node::Concat(nodes),
        })
    }

    fn quantified(&mut self, atom: Node) -> Result<Node, TypeError> {
        let (min, max) = match self.peek() {
            Some('*') => (0, None),
            Some('+') => (1, None),
            Some('?') => (0, Some(1)),
            Some('{') if self.chars.get(self.at + 1).is_some_and(char::is_ascii_digit) => {
                self.at += 1;
                let bounds = self.bounds()?;
                self.at -= 1;
                bounds
            }
            _ => return Ok(atom),
        };
        self.at += 1;
        let greedy = !self.eat('?');
        if matches!(self.peek(), Some('*' | '+' | '?')) {
            return Err(invalid("quantifier operand invalid"));
        }
        Ok(Node::Repeat { node: Box::new(atom), min, max, greedy })
    }

    /// `m}`, `m,}`, `m,n}`
    fn bounds(&mut self) -> Result<(u32, Option<u32>), TypeError> {
        let min = self.number()?;
        let max = match self.next() {
            Some('}') => Some(min),
            Some(',') if self.eat('}') => None,
            Some(',') => {
                let max = self.number()?;
                if !self.eat('}') {
                    return Err(invalid("braces {} not balanced"));
                }
                Some(max)
            }
            _ => return Err(invalid("braces {} not balanced")),
        };
        if min > REPEAT_MAX || max.is_some_and(|max| max > REPEAT_MAX || max < min) {
            return Err(invalid("invalid repetition count(s)"));
        }
        Ok((min, max))
    }

    fn number(&mut self) -> Result<u32, TypeError> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_digit()) {
            self.at += 1;
        }
        let text: String = self.chars[start..self.at].iter().collect();
        text.parse().map_err(|_| invalid("invalid repetition count(s)"))
    }

    fn atom(&mut self) -> Result<Node, TypeError> {
        let Some(c) = self.next() else { return Ok(Node::Empty) };
        Ok(match c {
            '.' => Node::Any,
            '^' => Node::Start,
            '$' => Node::End,
            '[' => return self.set(),
            '(' => return self.group(),
            '*' | '+' | '?' => return Err(invalid("quantifier operand invalid")),
            '\\' => return self.escape(),
            c => Node::Char(c),
        })
    }

    fn group(&mut self) -> Result<Node, TypeError> {
        let number = if self.eat('?') {
            if !self.eat(':') {
                return Err(TypeError::unsupported(
                    "look-around in regular expressions is not supported",
                ));
            }
            None
        } else {
            self.groups += 1;
            Some(self.groups)
        };
        let inner = self.alternatives()?;
        if !self.eat(')') {
            return Err(invalid("parentheses () not balanced"));
        }
        Ok(Node::Group(Box::new(inner), number))
    }

    fn escape(&mut self) -> Result<Node, TypeError> {
        let Some(c) = self.next() else { return Err(invalid("invalid escape \\ sequence")) };
        Ok(match c {
            'A' => Node::Start,
            'Z' => Node::End,
            'm' => Node::WordStart,
            'M' => Node::WordEnd,
            'y' => Node::WordBorder,
            'Y' => Node::NotWordBorder,
            '1'..='9' => {
                return Err(TypeError::unsupported(
                    "back references in regular expressions are not supported",
                ));
            }
            _ => match class(c) {
                Some((ranges, negated)) => Node::Set { ranges, negated },
                None => Node::Char(self.literal(c)?),
            },
        })
    }

    fn literal(&mut self, c: char) -> Result<char, TypeError> {
        Ok(match c {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'f' => '\u{c}',
            'v' => '\u{b}',
            'a' => '\u{7}',
            'e' => '\u{1b}',
            '0' => '\0',
            'u' | 'x' => {
                let digits: String = self.chars[self.at..]
                    .iter()
                    .take(if c == 'u' { 4 } else { 2 })
                    .take_while(|c| c.is_ascii_hexdigit())
                    .collect();
                self.at += digits.len();
                let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                code.ok_or_else(|| invalid("invalid escape \\ sequence"))?
            }
            c if c.is_ascii_alphanumeric() => return Err(invalid("invalid escape \\ sequence")),
            c => c,
        })
    }

    /// What stands between brackets.
    fn set(&mut self) -> Result<Node, TypeError> {
        let negated = self.eat('^');
        let mut ranges = Vec::new();
        let mut first = true;
        loop {
            let Some(c) = self.next() else { return Err(invalid("brackets [] not balanced")) };
            let low = match c {
                ']' if !first => break,
                '[' if matches!(self.peek(), Some(':' | '.' | '=')) => {
                    self.named_class(&mut ranges)?;
                    first = false;
                    continue;
                }
                '\\' => {
                    let escaped = self.next().ok_or_else(|| invalid("brackets [] not balanced"))?;
                    match class(escaped) {
                        Some((class, false)) => {
                            ranges.extend(class);
                            first = false;
                            continue;
                        }
                        Some((_, true)) => return Err(invalid("invalid escape \\ sequence")),
                        None => self.literal(escaped)?,
                    }
                }
                c => c,
            };
            first = false;
            let is_range = self.peek() == Some('-')
                && self.chars.get(self.at + 1).is_some_and(|after| *after != ']');
            if !is_range {
                ranges.push((low, low));
                continue;
            }
            self.at += 1;
            let high = match self.next() {
                Some('\\') => {
                    let escaped = self.next().ok_or_else(|| invalid("brackets [] not balanced"))?;
                    self.literal(escaped)?
                }
                Some(c) => c,
                None => return Err(invalid("brackets [] not balanced")),
            };
            if high < low {
                return Err(invalid("invalid character range"));
            }
            ranges.push((low, high));
        }
        Ok(Node::Set { ranges, negated })
    }

    /// `:alpha:]`, after its bracket.
    fn named_class(&mut self, ranges: &mut Vec<(char, char)>) -> Result<(), TypeError> {
        let rest: String = self.chars[self.at..].iter().take(12).collect();
        let name = rest.strip_prefix(':').and_then(|rest| rest.split_once(":]"));
        let Some((name, _)) = name else { return Err(invalid("invalid character class")) };
        self.at += name.chars().count() + 3;
        ranges.extend(match name {
            "alpha" => letters(),
            "alnum" => [letters(), vec![('0', '9')]].concat(),
            "digit" => vec![('0', '9')],
            "upper" => vec![('A', 'Z')],
            "lower" => vec![('a', 'z')],
            "space" => space(),
            "blank" => vec![(' ', ' '), ('\t', '\t')],
            "punct" => vec![('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
            "xdigit" => vec![('0', '9'), ('a', 'f'), ('A', 'F')],
            "print" => vec![(' ', '~')],
            "graph" => vec![('!', '~')],
            "cntrl" => vec![('\0', '\u{1f}'), ('\u{7f}', '\u{7f}')],
            "word" => word(),
            _ => return Err(invalid("invalid character class")),
        });
        Ok(())
    }
}

fn letters() -> Vec<(char, char)> {
    // Beyond ASCII every character counts as a letter.
    vec![('a', 'z'), ('A', 'Z'), ('\u{aa}', '\u{10ffff}')]
}

fn word() -> Vec<(char, char)> {
    [letters(), vec![('0', '9'), ('_', '_')]].concat()
}

fn space() -> Vec<(char, char)> {
    vec![(' ', ' '), ('\t', '\r')]
}

/// `\d` and kin: the characters, and whether they are meant not to be.
fn class(c: char) -> Option<(Vec<(char, char)>, bool)> {
    Some(match c {
        'd' => (vec![('0', '9')], false),
        'D' => (vec![('0', '9')], true),
        's' => (space(), false),
        'S' => (space(), true),
        'w' => (word(), false),
        'W' => (word(), true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pattern: &str, text: &str) -> Option<String> {
        let regex = Regex::new(pattern, Case::Sensitive).expect(pattern);
        regex.find(text, 0).map(|groups| {
            let (start, end) = groups[0].expect("the whole");
            text[start..end].to_string()
        })
    }

    #[test]
    fn patterns_of_tools_match() {
        assert_eq!(found("^(accounts)$", "accounts").as_deref(), Some("accounts"));
        assert_eq!(found("^(accounts)$", "accounts2"), None);
        assert_eq!(found("^(pg_.*)$", "pg_class").as_deref(), Some("pg_class"));
        assert_eq!(found("[[:digit:]]+", "ab123c").as_deref(), Some("123"));
        assert_eq!(found(r"\d{2,3}", "1 12345").as_deref(), Some("123"));
        assert_eq!(found("a.*?c", "abcabc").as_deref(), Some("abc"));
        assert_eq!(found("(a|b)*c", "ababc").as_deref(), Some("ababc"));
        assert_eq!(found("[^]a]", "]ab").as_deref(), Some("b"));
        assert_eq!(found(r"\mfoo\M", "a foo b").as_deref(), Some("foo"));
        assert_eq!(found("(?i)ABC", "xabc").as_deref(), Some("abc"));
        assert_eq!(found("", "x").as_deref(), Some(""));
        assert_eq!(found("(a*)*b", &"a".repeat(2000)), None);
    }

    #[test]
    fn broken_patterns_are_refused() {
        for pattern in ["(", ")", "[a", "*a", "a**", "[b-a]", "a{3,2}", "\\", "[[:foo:]]"] {
            assert_eq!(
                Regex::new(pattern, Case::Sensitive).expect_err(pattern).code.to_string(),
                "2201B"
            );
        }
        assert_eq!(
            Regex::new(r"(a)\1", Case::Sensitive).expect_err("refused").code.to_string(),
            "0A000"
        );
    }
}
