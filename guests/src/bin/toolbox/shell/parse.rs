//! From the text of a script to what it says.

/// Pipelines one after the other, each with how it hangs on the one before.
#[derive(Debug, Default, PartialEq)]
pub struct List(pub Vec<(Joint, Pipeline)>);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Joint {
    Then,
    And,
    Or,
}

#[derive(Debug, PartialEq)]
pub struct Pipeline {
    pub negated: bool,
    pub commands: Vec<Command>,
}

#[derive(Debug, PartialEq)]
pub enum Command {
    Simple(Simple),
    Group(List, Vec<Redirect>),
    Subshell(List, Vec<Redirect>),
    If(Vec<(List, List)>, Option<List>),
    /// With whether it is an `until`.
    While(List, bool, List),
    For(String, Option<Vec<Word>>, List),
}

#[derive(Debug, Default, PartialEq)]
pub struct Simple {
    pub assignments: Vec<(String, Word)>,
    pub words: Vec<Word>,
    pub redirects: Vec<Redirect>,
}

#[derive(Debug, PartialEq)]
pub enum Redirect {
    From(Word),
    To { stream: u8, append: bool, word: Word },
    ErrorsToOutput,
    OutputToErrors,
}

#[derive(Debug, Default, PartialEq)]
pub struct Word(pub Vec<Part>);

#[derive(Debug, PartialEq)]
pub enum Part {
    Literal(String),
    Quoted(String),
    Variable { name: String, otherwise: Option<Word>, quoted: bool },
    Substitution { list: List, quoted: bool },
}

/// Nesting that a script may have: each level takes of the guest's stack.
const DEPTH_MAX: usize = 50;

/// Reads a whole script.
pub fn list(script: &str) -> Result<List, String> {
    let mut reader = Reader { chars: script.chars().collect(), at: 0, depth: 0 };
    let list = reader.list(&[])?;
    match reader.peek() {
        None => Ok(list),
        Some(c) => Err(format!("unexpected {c:?}")),
    }
}

struct Reader {
    chars: Vec<char>,
    at: usize,
    depth: usize,
}

impl Reader {
    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn looks_at(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(place, c)| self.chars.get(self.at + place) == Some(&c))
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.looks_at(text);
        if found {
            self.at += text.chars().count();
        }
        found
    }

    /// Skips blanks, comments and escaped line ends; and line ends, if asked.
    fn blanks(&mut self, lines: bool) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\r') => self.at += 1,
                Some('\n') if lines => self.at += 1,
                Some('\\') if self.looks_at("\\\n") => self.at += 2,
                Some('#') => {
                    while self.peek().is_some_and(|c| c != '\n') {
                        self.at += 1;
                    }
                }
                _ => return,
            }
        }
    }

    /// The plain word that comes next, if it is one; for `then`, `done` and their like.
    fn keyword(&self) -> String {
        let rest = self.chars[self.at..].iter();
        rest.take_while(|c| !c.is_whitespace() && !";&|()<>#\"'$`\\".contains(**c)).collect()
    }

    fn take_keyword(&mut self, word: &str) -> bool {
        self.blanks(true);
        let found = self.keyword() == word;
        if found {
            self.at += word.chars().count();
        }
        found
    }

    fn expect(&mut self, word: &str) -> Result<(), String> {
        if self.take_keyword(word) { Ok(()) } else { Err(format!("{word} is missing")) }
    }

    /// Pipelines up to the end, a `)` or one of the words `ends`.
    fn list(&mut self, ends: &[&str]) -> Result<List, String> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err("it is nested too deeply".to_owned());
        }
        let mut found = List::default();
        let mut joint = Joint::Then;
        loop {
            self.blanks(true);
            let at_end = matches!(self.peek(), None | Some(')')) || ends.contains(&self.keyword().as_str());
            if at_end {
                if joint != Joint::Then {
                    return Err("something is missing after && or ||".to_owned());
                }
                self.depth -= 1;
                return Ok(found);
            }
            let pipeline = self.pipeline()?;
            found.0.push((joint, pipeline));
            self.blanks(false);
            joint = if self.take("&&") {
                Joint::And
            } else if self.take("||") {
                Joint::Or
            } else if self.looks_at(";;") {
                return Err("case is not there".to_owned());
            } else if self.take(";") || self.take("\n") {
                Joint::Then
            } else if self.looks_at("&") {
                return Err("nothing runs in the background here (&)".to_owned());
            } else {
                match self.peek() {
                    None | Some(')') => Joint::Then,
                    Some(c) => return Err(format!("unexpected {c:?}")),
                }
            };
        }
    }

    fn pipeline(&mut self) -> Result<Pipeline, String> {
        let negated = self.take_keyword("!");
        let mut commands = Vec::new();
        loop {
            self.blanks(!commands.is_empty());
            commands.push(self.command()?);
            self.blanks(false);
            if self.looks_at("||") || !self.take("|") {
                return Ok(Pipeline { negated, commands });
            }
        }
    }

    fn command(&mut self) -> Result<Command, String> {
        if self.take("(") {
            let list = self.list(&[])?;
            if !self.take(")") {
                return Err(") is missing".to_owned());
            }
            return Ok(Command::Subshell(list, self.redirects()?));
        }
        match self.keyword().as_str() {
            "{" => {
                self.at += 1;
                let list = self.list(&["}"])?;
                self.expect("}")?;
                Ok(Command::Group(list, self.redirects()?))
            }
            "if" => {
                let mut branches = Vec::new();
                let mut word = "if";
                while self.take_keyword(word) {
                    let condition = self.list(&["then"])?;
                    self.expect("then")?;
                    branches.push((condition, self.list(&["elif", "else", "fi"])?));
                    word = "elif";
                }
                let otherwise = if self.take_keyword("else") { Some(self.list(&["fi"])?) } else { None };
                self.expect("fi")?;
                Ok(Command::If(branches, otherwise))
            }
            word @ ("while" | "until") => {
                self.at += 5;
                let condition = self.list(&["do"])?;
                Ok(Command::While(condition, word == "until", self.body()?))
            }
            "for" => {
                self.at += 3;
                self.blanks(false);
                let name = self.keyword();
                self.at += name.chars().count();
                let mut words = None;
                if self.take_keyword("in") {
                    let mut found = Vec::new();
                    loop {
                        self.blanks(false);
                        match self.peek() {
                            None | Some(';' | '\n') => break,
                            Some(_) => found.push(self.word()?),
                        }
                    }
                    words = Some(found);
                }
                self.blanks(false);
                self.take(";");
                Ok(Command::For(name, words, self.body()?))
            }
            word @ ("case" | "function" | "select") => Err(format!("{word} is not there")),
            _ => self.simple(),
        }
    }

    fn body(&mut self) -> Result<List, String> {
        self.expect("do")?;
        let body = self.list(&["done"])?;
        self.expect("done")?;
        Ok(body)
    }

    fn redirects(&mut self) -> Result<Vec<Redirect>, String> {
        let mut found = Vec::new();
        loop {
            self.blanks(false);
            match self.redirect()? {
                Some(redirect) => found.push(redirect),
                None => return Ok(found),
            }
        }
    }

    fn redirect(&mut self) -> Result<Option<Redirect>, String> {
        if self.looks_at("<<") {
            return Err("here documents (<<) are not there".to_owned());
        }
        if self.take("2>&1") {
            return Ok(Some(Redirect::ErrorsToOutput));
        }
        if self.take("1>&2") || self.take(">&2") {
            return Ok(Some(Redirect::OutputToErrors));
        }
        for (mark, stream, append) in [
            ("2>>", 2, true),
            ("2>", 2, false),
            ("1>>", 1, true),
            ("1>", 1, false),
            (">>", 1, true),
            (">", 1, false),
        ] {
            if self.take(mark) {
                self.blanks(false);
                let word = self.word()?;
                return Ok(Some(Redirect::To { stream, append, word }));
            }
        }
        if self.take("<") {
            self.blanks(false);
            return Ok(Some(Redirect::From(self.word()?)));
        }
        Ok(None)
    }

    fn simple(&mut self) -> Result<Command, String> {
        let mut simple = Simple::default();
        loop {
            self.blanks(false);
            if let Some(redirect) = self.redirect()? {
                simple.redirects.push(redirect);
                continue;
            }
            match self.peek() {
                None | Some(';' | '\n' | '&' | '|' | ')') => break,
                Some('(') => return Err("functions are not there".to_owned()),
                Some(_) => {}
            }
            if simple.words.is_empty()
                && let Some(name) = self.assigned()
            {
                self.at += name.chars().count() + 1;
                let word = match self.peek() {
                    Some(c) if !c.is_whitespace() && !";&|)".contains(c) => self.word()?,
                    _ => Word::default(),
                };
                simple.assignments.push((name, word));
                continue;
            }
            simple.words.push(self.word()?);
        }
        if simple == Simple::default() {
            return Err("a command is missing".to_owned());
        }
        Ok(Command::Simple(simple))
    }

    /// The name that an assignment starting here gives a value to.
    fn assigned(&self) -> Option<String> {
        let rest = &self.chars[self.at..];
        let end = rest.iter().position(|c| !(c.is_ascii_alphanumeric() || *c == '_'))?;
        (rest[end] == '=' && end > 0 && !rest[0].is_ascii_digit()).then(|| rest[..end].iter().collect())
    }

    fn word(&mut self) -> Result<Word, String> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let before = self.at;
        while let Some(c) = self.peek() {
            match c {
                c if c.is_whitespace() || ";&|()<>".contains(c) => break,
                '\\' => {
                    self.at += 1;
                    let next = self.peek().ok_or("nothing follows the last backslash")?;
                    self.at += 1;
                    if next != '\n' {
                        flush(&mut plain, &mut parts);
                        parts.push(Part::Quoted(next.to_string()));
                    }
                }
                '\'' => {
                    self.at += 1;
                    let mut text = String::new();
                    loop {
                        let c = self.peek().ok_or("a ' is not closed")?;
                        self.at += 1;
                        if c == '\'' {
                            break;
                        }
                        text.push(c);
                    }
                    flush(&mut plain, &mut parts);
                    parts.push(Part::Quoted(text));
                }
                '"' => {
                    flush(&mut plain, &mut parts);
                    self.quoted(&mut parts)?;
                }
                '$' => match self.dollar(false)? {
                    Some(part) => {
                        flush(&mut plain, &mut parts);
                        parts.push(part);
                    }
                    None => plain.push('$'),
                },
                '`' => return Err("write $(…) instead of `…`".to_owned()),
                c => {
                    plain.push(c);
                    self.at += 1;
                }
            }
        }
        flush(&mut plain, &mut parts);
        if self.at == before {
            return Err(match self.peek() {
                Some(c) => format!("unexpected {c:?}"),
                None => "a word is missing".to_owned(),
            });
        }
        Ok(Word(parts))
    }

    /// What stands between double quotes.
    fn quoted(&mut self, parts: &mut Vec<Part>) -> Result<(), String> {
        self.at += 1;
        let mut text = String::new();
        let first = parts.len();
        loop {
            let c = self.peek().ok_or("a \" is not closed")?;
            match c {
                '"' => {
                    self.at += 1;
                    if !text.is_empty() || parts.len() == first {
                        parts.push(Part::Quoted(text));
                    }
                    return Ok(());
                }
                '\\' if self.chars.get(self.at + 1).is_some_and(|c| "\"\\$`\n".contains(*c)) => {
                    let next = self.chars[self.at + 1];
                    if next != '\n' {
                        text.push(next);
                    }
                    self.at += 2;
                }
                '$' => match self.dollar(true)? {
                    Some(part) => {
                        if !text.is_empty() {
                            parts.push(Part::Quoted(std::mem::take(&mut text)));
                        }
                        parts.push(part);
                    }
                    None => text.push('$'),
                },
                c => {
                    text.push(c);
                    self.at += 1;
                }
            }
        }
    }

    /// What a `$` begins; `None` if it stands for itself.
    fn dollar(&mut self, quoted: bool) -> Result<Option<Part>, String> {
        self.at += 1;
        if self.looks_at("((") {
            return Err("arithmetic is not there".to_owned());
        }
        if self.take("(") {
            let list = self.list(&[])?;
            if !self.take(")") {
                return Err("a $( is not closed".to_owned());
            }
            return Ok(Some(Part::Substitution { list, quoted }));
        }
        if self.take("{") {
            let name = self.name();
            let otherwise = if self.take(":-") || self.take("-") {
                let start = self.at;
                while self.peek().ok_or("a ${ is not closed")? != '}' {
                    self.at += 1;
                }
                let inner = self.chars[start..self.at].to_vec();
                let mut reader = Reader { chars: inner, at: 0, depth: self.depth };
                let mut parts = Vec::new();
                while reader.peek().is_some() {
                    if reader.peek().is_some_and(char::is_whitespace) {
                        parts.push(Part::Quoted(reader.chars[reader.at].to_string()));
                        reader.at += 1;
                    } else {
                        parts.extend(reader.word()?.0);
                    }
                }
                Some(Word(parts))
            } else {
                None
            };
            if name.is_empty() || !self.take("}") {
                return Err("of ${…} there are ${NAME} and ${NAME:-else}".to_owned());
            }
            return Ok(Some(Part::Variable { name, otherwise, quoted }));
        }
        let name = self.name();
        Ok((!name.is_empty()).then_some(Part::Variable { name, otherwise: None, quoted }))
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        if let Some(c) = self.peek().filter(|c| "?#@*$".contains(*c) || c.is_ascii_digit()) {
            self.at += 1;
            return c.to_string();
        }
        while let Some(c) = self.peek().filter(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
            self.at += 1;
        }
        name
    }
}

fn flush(plain: &mut String, parts: &mut Vec<Part>) {
    if !plain.is_empty() {
        parts.push(Part::Literal(std::mem::take(plain)));
    }
}
