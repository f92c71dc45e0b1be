//! Label and field selectors: their texts, and what they match (BEHAVIOURS 6.4, 6.5).
//!
//! The grammar and the wording of its errors are those of apimachinery's `pkg/labels` and
//! `pkg/fields`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as MetaSelector;

use super::validation::{label_value, qualified_name};

/// What labels must be like. The default matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    rule: Rule,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
}

impl LabelSelector {
    /// Reads `a=b,c!=d,e in (f,g),!h`; an empty text matches everything.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self { requirements: Parser::new(text).parse()?, nothing: false })
    }

    /// A selector of an object's spec: `{}` matches everything, `None` nothing.
    pub fn from_meta(selector: Option<&MetaSelector>) -> Result<Self, String> {
        let Some(selector) = selector else { return Ok(Self { requirements: Vec::new(), nothing: true }) };
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key, Rule::In(vec![value.clone()]))?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let values = expression.values.clone().unwrap_or_default();
            let rule = match expression.operator.as_str() {
                "In" => Rule::In(values),
                "NotIn" => Rule::NotIn(values),
                "Exists" => Rule::Exists,
                "DoesNotExist" => Rule::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            requirements.push(Requirement::new(&expression.key, rule)?);
        }
        Ok(Self { requirements, nothing: false })
    }

    #[must_use]
    pub fn matches(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        !self.nothing
            && self.requirements.iter().all(|one| {
                let value = labels.and_then(|labels| labels.get(&one.key));
                match &one.rule {
                    Rule::In(values) => value.is_some_and(|value| values.contains(value)),
                    Rule::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                    Rule::Exists => value.is_some(),
                    Rule::DoesNotExist => value.is_none(),
                    Rule::GreaterThan(bound) => number(value).is_some_and(|value| value > *bound),
                    Rule::LessThan(bound) => number(value).is_some_and(|value| value < *bound),
                }
            })
    }

    #[must_use]
    pub fn matches_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }
}

fn number(value: Option<&String>) -> Option<i64> {
    value?.parse().ok()
}

impl Requirement {
    fn new(key: &str, rule: Rule) -> Result<Self, String> {
        if let Some(why) = qualified_name(key).into_iter().next() {
            return Err(format!("key: Invalid value: {key:?}: {why}"));
        }
        match &rule {
            Rule::In(values) | Rule::NotIn(values) => {
                if values.is_empty() {
                    return Err(
                        "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty"
                            .into(),
                    );
                }
                for (i, value) in values.iter().enumerate() {
                    if let Some(why) = label_value(value).into_iter().next() {
                        return Err(format!("values[{i}][{key}]: Invalid value: {value:?}: {why}"));
                    }
                }
            }
            Rule::Exists | Rule::DoesNotExist | Rule::GreaterThan(_) | Rule::LessThan(_) => {}
        }
        Ok(Self { key: key.to_owned(), rule })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    /// `=`, `==`, `!=`, `!`, `(`, `)`, `,`, `>`, `<`
    Symbol(&'a str),
    End,
}

impl Token<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Word(text) | Self::Symbol(text) => text,
            Self::End => "",
        }
    }
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Self {
        let special = |c: char| matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<');
        let mut tokens = Vec::new();
        let mut rest = text.trim_start();
        while let Some(first) = rest.chars().next() {
            let length = if special(first) {
                match (first, rest.as_bytes().get(1)) {
                    ('=' | '!', Some(b'=')) => 2,
                    _ => 1,
                }
            } else {
                rest.find(|c: char| special(c) || c.is_whitespace()).unwrap_or(rest.len())
            };
            let (token, after) = rest.split_at(length);
            tokens.push(if special(first) { Token::Symbol(token) } else { Token::Word(token) });
            rest = after.trim_start();
        }
        Self { tokens, at: 0 }
    }

    fn peek(&self) -> Token<'a> {
        self.tokens.get(self.at).copied().unwrap_or(Token::End)
    }

    fn take(&mut self) -> Token<'a> {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn parse(mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                Token::End => return Ok(requirements),
                Token::Word(_) | Token::Symbol("!") => {}
                Token::Symbol(found) => {
                    return Err(format!("found '{found}', expected: !, identifier, or 'end of string'"));
                }
            }
            let one = self.requirement().map_err(|why| format!("unable to parse requirement: {why}"))?;
            requirements.push(one);
            match self.take() {
                Token::End => return Ok(requirements),
                Token::Symbol(",") => match self.peek() {
                    Token::Word(_) | Token::Symbol("!") => {}
                    other => {
                        return Err(format!("found '{}', expected: identifier after ','", other.text()));
                    }
                },
                other => return Err(format!("found '{}', expected: ',' or 'end of string'", other.text())),
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let absent = self.peek() == Token::Symbol("!");
        if absent {
            self.take();
        }
        let key = match self.take() {
            Token::Word(word) if word != "in" && word != "notin" => word,
            other => return Err(format!("found '{}', expected: identifier", other.text())),
        };
        if absent {
            return Requirement::new(key, Rule::DoesNotExist);
        }
        let rule = match self.peek() {
            Token::End | Token::Symbol(",") => return Requirement::new(key, Rule::Exists),
            Token::Word("in") => Rule::In(self.values()?),
            Token::Word("notin") => Rule::NotIn(self.values()?),
            Token::Symbol("=" | "==") => Rule::In(vec![self.value()?]),
            Token::Symbol("!=") => Rule::NotIn(vec![self.value()?]),
            Token::Symbol(">") => Rule::GreaterThan(self.bound(key)?),
            Token::Symbol("<") => Rule::LessThan(self.bound(key)?),
            other => {
                return Err(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", other.text()));
            }
        };
        Requirement::new(key, rule)
    }

    /// The value after the operator that stands here; nothing means the empty one.
    fn value(&mut self) -> Result<String, String> {
        self.take();
        match self.peek() {
            Token::End | Token::Symbol(",") => Ok(String::new()),
            Token::Word(word) => {
                self.take();
                Ok(word.to_owned())
            }
            Token::Symbol(other) => Err(format!("found '{other}', expected: identifier")),
        }
    }

    fn bound(&mut self, key: &str) -> Result<i64, String> {
        let value = self.value()?;
        value.parse().map_err(|_| {
            format!(
                "values[0][{key}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
            )
        })
    }

    fn values(&mut self) -> Result<Vec<String>, String> {
        self.take();
        match self.take() {
            Token::Symbol("(") => {}
            other => return Err(format!("found '{}' expected: '('", other.text())),
        }
        let mut values = Vec::new();
        let mut value = None;
        loop {
            match self.take() {
                Token::Word(word) if value.is_none() => value = Some(word.to_owned()),
                Token::Symbol(",") => values.push(value.take().unwrap_or_default()),
                Token::Symbol(")") => {
                    if value.is_some() || !values.is_empty() {
                        values.push(value.unwrap_or_default());
                    }
                    return Ok(values);
                }
                other => return Err(format!("found '{}', expected: ',' or ')'", other.text())),
            }
        }
    }
}

/// What fields must be like: equal or unequal to texts. The default matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<Term>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: String,
    value: String,
    equal: bool,
}

impl FieldSelector {
    /// Reads `a=b,c!=d`; `\`, `,` and `=` in values are escaped by `\`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        for part in split_unescaped(text) {
            if part.is_empty() {
                continue;
            }
            let wrong = || format!("invalid selector: '{text}'; can't understand '{part}'");
            let at = part.find('=').ok_or_else(wrong)?;
            let (field, equal) = match part[..at].strip_suffix('!') {
                Some(field) => (field, false),
                None => (&part[..at], true),
            };
            let value = &part[at + 1..];
            let value = if equal { value.strip_prefix('=').unwrap_or(value) } else { value };
            let value = unescape(value).ok_or_else(|| format!("invalid field selector value: {value:?}"))?;
            terms.push(Term { field: field.to_owned(), value, equal });
        }
        Ok(Self(terms))
    }

    /// Only objects with just this value.
    #[must_use]
    pub fn and_equal(mut self, field: &str, value: &str) -> Self {
        self.0.push(Term { field: field.to_owned(), value: value.to_owned(), equal: true });
        self
    }

    /// The fields that are asked about.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|term| term.field.as_str())
    }

    /// The only value of `field` that can match, if there is one.
    #[must_use]
    pub fn required(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|term| term.equal && term.field == field).map(|term| term.value.as_str())
    }

    /// Whether the values that `value` gives for fields match; a missing one is empty.
    pub fn matches<'a>(&self, value: impl Fn(&str) -> Option<Cow<'a, str>>) -> bool {
        self.0.iter().all(|term| (value(&term.field).unwrap_or_default() == term.value) == term.equal)
    }

    #[must_use]
    pub fn matches_everything(&self) -> bool {
        self.0.is_empty()
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn unescape(text: &str) -> Option<String> {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                c @ ('\\' | ',' | '=') => plain.push(c),
                _ => return None,
            },
            ',' | '=' => return None,
            c => plain.push(c),
        }
    }
    Some(plain)
}

#[cfg(test)]
mod tests;
