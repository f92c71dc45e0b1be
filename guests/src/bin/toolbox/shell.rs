//! `sh`: a small part of a POSIX shell, over the tools of this program.
//!
//! Lists (`;`, `&&`, `||`, new lines), pipes, `!`, `< > >> 2> 2>&1`, quotes, `$NAME`, `${NAME:-else}`, `$?`,
//! `$(…)`, globs, assignments, `if`, `for`, `while`, `{ … }`, `( … )`. One program runs at a time, so the
//! two sides of a pipe run one after the other. What is not there says so instead of doing another thing.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};

use crate::{Failure, Io, Outcome, about, files, terminal, text};

mod parse;

use parse::{Command, List, Part, Redirect, Simple, Word};

/// Turns of a loop, so that a slip of the pen ends.
const TURNS_MAX: usize = 10_000_000;

/// What running a list came to.
enum Flow {
    Code(i32),
    Exit(i32),
    Break,
    Continue,
}

#[derive(Default)]
struct Shell {
    /// `$0`, `$1`, …
    arguments: Vec<String>,
    last: i32,
    exit_on_error: bool,
}

pub fn sh(words: &[String], io: &mut Io) -> Outcome {
    let mut shell = Shell::default();
    let mut words = words.iter();
    let mut script = None;
    let mut interactive = false;
    while let Some(word) = words.next() {
        match word.as_str() {
            "-c" | "-ec" | "-ce" | "-lc" => {
                shell.exit_on_error = word.contains('e');
                script = Some(words.next().ok_or("-c needs a script")?.clone());
                break;
            }
            "-e" => shell.exit_on_error = true,
            "-l" | "-s" => {}
            "-i" => interactive = true,
            option if option.starts_with('-') => return Err(format!("unknown option {option:?}").into()),
            path => {
                shell.arguments.push(path.to_owned());
                script = Some(std::fs::read_to_string(path).map_err(|error| about(path, &error))?);
                break;
            }
        }
    }
    shell.arguments.extend(words.cloned());
    if shell.arguments.is_empty() {
        shell.arguments.push("sh".to_owned());
    }
    if let Some(script) = script {
        return Ok(shell.script(&script, io)?);
    }
    if interactive || terminal::is_one() {
        return shell.converse(io);
    }
    let mut script = String::new();
    io.input.read_to_string(&mut script)?;
    Ok(shell.script(&script, io)?)
}

impl Shell {
    fn script(&mut self, script: &str, io: &mut Io) -> Result<i32, Failure> {
        let list = parse::list(script).map_err(|why| Failure(format!("syntax error: {why}")))?;
        Ok(match self.list(&list, io)? {
            Flow::Code(code) | Flow::Exit(code) => code,
            Flow::Break | Flow::Continue => self.last,
        })
    }

    /// Line by line with somebody who types.
    fn converse(&mut self, io: &mut Io) -> Outcome {
        loop {
            io.out.flush()?;
            let here = std::env::current_dir().map_or(String::new(), |here| here.display().to_string());
            write!(io.err, "{here} $ ")?;
            io.err.flush()?;
            let mut line = Vec::new();
            if io.input.read_until(b'\n', &mut line)? == 0 {
                writeln!(io.err)?;
                return Ok(self.last);
            }
            match parse::list(String::from_utf8_lossy(&line).trim_end_matches('\n')) {
                Ok(list) => match self.list(&list, io) {
                    Ok(Flow::Exit(code)) => return Ok(code),
                    Ok(_) => {}
                    Err(Failure(why)) => writeln!(io.err, "sh: {why}")?,
                },
                Err(why) => writeln!(io.err, "sh: syntax error: {why}")?,
            }
        }
    }

    fn list(&mut self, list: &List, io: &mut Io) -> Result<Flow, Failure> {
        let mut code = 0;
        for (number, (joint, pipeline)) in list.0.iter().enumerate() {
            let skip = match joint {
                parse::Joint::Then => false,
                parse::Joint::And => code != 0,
                parse::Joint::Or => code == 0,
            };
            if skip {
                continue;
            }
            match self.pipeline(pipeline, io)? {
                Flow::Code(found) => code = found,
                other => return Ok(other),
            }
            self.last = code;
            let decides = list.0.get(number + 1).is_some_and(|(joint, _)| *joint != parse::Joint::Then);
            if self.exit_on_error && code != 0 && !decides && !pipeline.negated {
                return Ok(Flow::Exit(code));
            }
        }
        Ok(Flow::Code(code))
    }

    fn pipeline(&mut self, pipeline: &parse::Pipeline, io: &mut Io) -> Result<Flow, Failure> {
        let (last, first) = pipeline.commands.split_last().ok_or("an empty pipeline")?;
        let mut passed: Option<Vec<u8>> = None;
        for command in first {
            let mut out = Vec::new();
            let input = passed.take();
            let mut held;
            let input: &mut dyn BufRead = match &input {
                Some(bytes) => {
                    held = &bytes[..];
                    &mut held
                }
                None => io.input,
            };
            // An `exit` ends its own side of the pipe only.
            self.command(command, &mut Io { input, out: &mut out, err: io.err })?;
            passed = Some(out);
        }
        let flow = match &passed {
            Some(bytes) => {
                let mut held = &bytes[..];
                self.command(last, &mut Io { input: &mut held, out: io.out, err: io.err })?
            }
            None => self.command(last, io)?,
        };
        Ok(match flow {
            Flow::Code(code) if pipeline.negated => Flow::Code(i32::from(code == 0)),
            Flow::Exit(code) if !first.is_empty() => Flow::Code(code),
            flow => flow,
        })
    }

    fn command(&mut self, command: &Command, io: &mut Io) -> Result<Flow, Failure> {
        match command {
            Command::Simple(simple) => self.simple(simple, io),
            Command::Group(list, redirects) => {
                self.redirected(redirects, io, |shell, io| shell.list(list, io))
            }
            Command::Subshell(list, redirects) => {
                let here = std::env::current_dir().ok();
                let variables: Vec<_> = std::env::vars().collect();
                let flow = self.redirected(redirects, io, |shell, io| shell.list(list, io))?;
                if let Some(here) = here {
                    std::env::set_current_dir(here).ok();
                }
                for (name, _) in std::env::vars() {
                    // SAFETY: a WASI 0.1 guest has one thread.
                    unsafe { std::env::remove_var(name) };
                }
                for (name, value) in variables {
                    text::set_var(&name, &value);
                }
                Ok(match flow {
                    Flow::Exit(code) => Flow::Code(code),
                    flow => flow,
                })
            }
            Command::If(branches, otherwise) => {
                for (condition, body) in branches {
                    match self.condition(condition, io)? {
                        Flow::Code(0) => return self.list(body, io),
                        Flow::Code(_) => {}
                        other => return Ok(other),
                    }
                }
                otherwise.as_ref().map_or(Ok(Flow::Code(0)), |body| self.list(body, io))
            }
            Command::While(condition, until, body) => {
                let mut code = 0;
                for _ in 0..TURNS_MAX {
                    match self.condition(condition, io)? {
                        Flow::Code(found) if (found == 0) != *until => {}
                        Flow::Code(_) => return Ok(Flow::Code(code)),
                        other => return Ok(other),
                    }
                    match self.list(body, io)? {
                        Flow::Code(found) => code = found,
                        Flow::Continue => {}
                        Flow::Break => return Ok(Flow::Code(code)),
                        Flow::Exit(code) => return Ok(Flow::Exit(code)),
                    }
                }
                Err("a loop of ten million turns is taken for endless".into())
            }
            Command::For(name, words, body) => {
                let mut code = 0;
                let values = match words {
                    Some(words) => self.words(words, io)?,
                    None => self.arguments[1..].to_vec(),
                };
                for value in values {
                    text::set_var(name, &value);
                    match self.list(body, io)? {
                        Flow::Code(found) => code = found,
                        Flow::Continue => {}
                        Flow::Break => break,
                        Flow::Exit(code) => return Ok(Flow::Exit(code)),
                    }
                }
                Ok(Flow::Code(code))
            }
        }
    }

    /// A list whose failure decides and ends nothing.
    fn condition(&mut self, list: &List, io: &mut Io) -> Result<Flow, Failure> {
        let exits = std::mem::take(&mut self.exit_on_error);
        let flow = self.list(list, io);
        self.exit_on_error = exits;
        flow
    }

    fn simple(&mut self, simple: &Simple, io: &mut Io) -> Result<Flow, Failure> {
        let words = self.words(&simple.words, io)?;
        let mut before = Vec::new();
        for (name, value) in &simple.assignments {
            let value = self.text(value, io)?;
            before.push((name.clone(), std::env::var(name).ok()));
            text::set_var(name, &value);
        }
        if words.is_empty() {
            return self.redirected(&simple.redirects, io, |_, _| Ok(Flow::Code(0)));
        }
        let flow = self.redirected(&simple.redirects, io, |shell, io| shell.call(&words, io));
        for (name, value) in before {
            match value {
                Some(value) => text::set_var(&name, &value),
                // SAFETY: a WASI 0.1 guest has one thread.
                None => unsafe { std::env::remove_var(name) },
            }
        }
        flow
    }

    fn call(&mut self, words: &[String], io: &mut Io) -> Result<Flow, Failure> {
        let arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        let code = |code| Ok(Flow::Code(code));
        let number = |text: &str| text.parse().map_err(|_| Failure(format!("{text}: not a number")));
        match arguments.as_slice() {
            [":", ..] => code(0),
            ["cd", rest @ ..] => {
                let home = std::env::var("HOME").unwrap_or_else(|_| "/".to_owned());
                let to = rest.first().copied().unwrap_or(&home);
                let entered = match files::look(to, true) {
                    Ok(kind) if kind.is_dir() => std::env::set_current_dir(to),
                    Ok(_) => Err(io::Error::other("Not a directory")),
                    Err(error) => Err(error),
                };
                if let Err(error) = entered {
                    writeln!(io.err, "sh: cd: {}", about(to, &error).0)?;
                    return code(1);
                }
                code(0)
            }
            ["exit"] => Ok(Flow::Exit(self.last)),
            ["exit", value] => Ok(Flow::Exit(number(value)?)),
            ["break"] => Ok(Flow::Break),
            ["continue"] => Ok(Flow::Continue),
            ["export" | "readonly" | "local", rest @ ..] => {
                for word in rest {
                    if let Some((name, value)) = word.split_once('=') {
                        text::set_var(name, value);
                    }
                }
                code(0)
            }
            ["unset", rest @ ..] => {
                for name in rest.iter().filter(|name| !name.starts_with('-')) {
                    // SAFETY: a WASI 0.1 guest has one thread.
                    unsafe { std::env::remove_var(name) };
                }
                code(0)
            }
            ["set", options @ ..] => {
                for option in options {
                    match *option {
                        "-e" | "-eu" | "-ex" | "-eux" => self.exit_on_error = true,
                        "+e" => self.exit_on_error = false,
                        "-u" | "-x" | "+x" | "-o" | "pipefail" => {}
                        other => return Err(format!("set {other}: not there").into()),
                    }
                }
                code(0)
            }
            ["read", names @ ..] => {
                let mut line = String::new();
                let count = io.input.read_line(&mut line)?;
                let mut values = line.trim_end_matches('\n').split_whitespace();
                let names: Vec<&&str> = names.iter().filter(|name| !name.starts_with('-')).collect();
                for (place, name) in names.iter().enumerate() {
                    let value = if place + 1 == names.len() {
                        values.by_ref().collect::<Vec<_>>().join(" ")
                    } else {
                        values.next().unwrap_or_default().to_owned()
                    };
                    text::set_var(name, &value);
                }
                code(i32::from(count == 0))
            }
            ["exec", ..] => {
                let flow = self.call(&words[1..], io)?;
                Ok(match flow {
                    Flow::Code(code) => Flow::Exit(code),
                    flow => flow,
                })
            }
            ["command" | "type" | "which", rest @ ..] => {
                let known: Vec<&&str> = rest.iter().filter(|word| !word.starts_with('-')).collect();
                let mut missing = 0;
                for word in known {
                    if crate::TOOLS.iter().any(|(name, _)| name == word) {
                        writeln!(io.out, "{word}")?;
                    } else {
                        missing = 1;
                    }
                }
                code(missing)
            }
            [] => code(0),
            [name, ..] => match crate::run(words, io) {
                Some(found) => code(found),
                None => {
                    io.out.flush()?;
                    writeln!(io.err, "sh: {name}: not found")?;
                    code(127)
                }
            },
        }
    }

    /// Runs with streams led elsewhere.
    fn redirected(
        &mut self,
        redirects: &[Redirect],
        io: &mut Io,
        run: impl FnOnce(&mut Self, &mut Io) -> Result<Flow, Failure>,
    ) -> Result<Flow, Failure> {
        let (mut input, mut output, mut errors) = (None, None, None);
        let (mut errors_to_output, mut output_to_errors) = (false, false);
        for redirect in redirects {
            match redirect {
                Redirect::ErrorsToOutput => errors_to_output = true,
                Redirect::OutputToErrors => output_to_errors = true,
                Redirect::From(word) => {
                    let path = self.text(word, io)?;
                    match open_input(&path) {
                        Ok(file) => input = Some(file),
                        Err(error) => return self.cannot(&path, &error, io),
                    }
                }
                Redirect::To { stream, append, word } => {
                    let path = self.text(word, io)?;
                    let file: io::Result<Box<dyn Write>> = if path == "/dev/null" {
                        Ok(Box::new(io::sink()))
                    } else {
                        let mut options = OpenOptions::new();
                        options.create(true).append(*append).write(true).truncate(!append);
                        options.open(&path).map(|file| Box::new(io::BufWriter::new(file)) as _)
                    };
                    match file {
                        Ok(file) if *stream == 2 => errors = Some(file),
                        Ok(file) => output = Some(file),
                        Err(error) => return self.cannot(&path, &error, io),
                    }
                }
            }
        }
        // Both at once cannot be written at once; what is an error comes after what is not.
        let mut joined = Vec::new();
        let flow = {
            let input: &mut dyn BufRead = match &mut input {
                Some(file) => file,
                None => io.input,
            };
            let joins = errors_to_output || output_to_errors;
            if joins {
                let mut both = Shared::default();
                let mut other = both.clone();
                let flow = run(self, &mut Io { input, out: &mut both, err: &mut other });
                joined = both.0.take();
                flow
            } else {
                let out: &mut dyn Write = match &mut output {
                    Some(file) => file,
                    None => io.out,
                };
                let err: &mut dyn Write = match &mut errors {
                    Some(file) => file,
                    None => io.err,
                };
                run(self, &mut Io { input, out, err })
            }
        };
        if !joined.is_empty() {
            match (&mut output, &mut errors) {
                (Some(file), _) if errors_to_output => file.write_all(&joined)?,
                (_, Some(file)) if output_to_errors => file.write_all(&joined)?,
                _ if errors_to_output => io.out.write_all(&joined)?,
                _ => io.err.write_all(&joined)?,
            }
        }
        for mut file in [output, errors].into_iter().flatten() {
            file.flush()?;
        }
        flow
    }

    fn cannot(&mut self, path: &str, error: &io::Error, io: &mut Io) -> Result<Flow, Failure> {
        writeln!(io.err, "sh: cannot open {}", about(path, error).0)?;
        Ok(Flow::Code(1))
    }

    /// Words as a command sees them: expanded, split where no quotes are, globs replaced.
    fn words(&mut self, words: &[Word], io: &mut Io) -> Result<Vec<String>, Failure> {
        let mut found = Vec::new();
        for word in words {
            // Each field with whether a glob may be in it.
            let mut fields: Vec<(String, bool)> = Vec::new();
            let mut open = false;
            for part in &word.0 {
                let (text, quoted) = self.part(part, io)?;
                match (part, quoted) {
                    (Part::Literal(_), false) | (_, true) => {
                        if !open {
                            fields.push((String::new(), false));
                            open = true;
                        }
                        if let Some((last, globs)) = fields.last_mut() {
                            last.push_str(&text);
                            *globs |= !quoted && text.contains(['*', '?']);
                        }
                    }
                    (_, false) => {
                        for (place, piece) in text.split([' ', '\t', '\n']).enumerate() {
                            if place > 0 {
                                open = false;
                            }
                            if !piece.is_empty() {
                                if !open {
                                    fields.push((String::new(), false));
                                    open = true;
                                }
                                if let Some((last, _)) = fields.last_mut() {
                                    last.push_str(piece);
                                }
                            }
                        }
                    }
                }
            }
            for (field, globs) in fields {
                match globs.then(|| expand_glob(&field)).filter(|paths| !paths.is_empty()) {
                    Some(paths) => found.extend(paths),
                    None => found.push(field),
                }
            }
        }
        Ok(found)
    }

    /// A word as one text.
    fn text(&mut self, word: &Word, io: &mut Io) -> Result<String, Failure> {
        let mut text = String::new();
        for part in &word.0 {
            text.push_str(&self.part(part, io)?.0);
        }
        Ok(text)
    }

    /// A part's text, and whether it stands in quotes.
    fn part(&mut self, part: &Part, io: &mut Io) -> Result<(String, bool), Failure> {
        Ok(match part {
            Part::Literal(text) => (text.clone(), false),
            Part::Quoted(text) => (text.clone(), true),
            Part::Variable { name, otherwise, quoted } => {
                let value = match name.as_str() {
                    "?" => Some(self.last.to_string()),
                    "#" => Some((self.arguments.len() - 1).to_string()),
                    "$" => Some("1".to_owned()),
                    "@" | "*" => Some(self.arguments[1..].join(" ")),
                    name if name.chars().all(|c| c.is_ascii_digit()) => {
                        name.parse::<usize>().ok().and_then(|place| self.arguments.get(place).cloned())
                    }
                    name => std::env::var(name).ok(),
                };
                let text = match (value.filter(|value| !value.is_empty()), otherwise) {
                    (Some(value), _) => value,
                    (None, Some(word)) => self.text(word, io)?,
                    (None, None) => String::new(),
                };
                (text, *quoted)
            }
            Part::Substitution { list, quoted } => {
                let mut out = Vec::new();
                let flow = self.list(list, &mut Io { input: io.input, out: &mut out, err: io.err })?;
                if let Flow::Code(code) | Flow::Exit(code) = flow {
                    self.last = code;
                }
                let text = String::from_utf8_lossy(&out);
                (text.trim_end_matches('\n').to_owned(), *quoted)
            }
        })
    }
}

/// Two streams into one.
#[derive(Clone, Default)]
struct Shared(std::rc::Rc<std::cell::RefCell<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn open_input(path: &str) -> io::Result<BufReader<Box<dyn Read>>> {
    let source: Box<dyn Read> =
        if path == "/dev/null" { Box::new(io::empty()) } else { Box::new(File::open(path)?) };
    Ok(BufReader::new(source))
}

/// The paths that a glob in the last parts of `pattern` finds, sorted.
fn expand_glob(pattern: &str) -> Vec<String> {
    let mut found = vec![if pattern.starts_with('/') { "/".to_owned() } else { String::new() }];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        let mut next = Vec::new();
        for base in &found {
            let join = |name: &str| if base.is_empty() { name.to_owned() } else { files::join(base, name) };
            if part.contains(['*', '?']) {
                let names = files::names(if base.is_empty() { "." } else { base }).unwrap_or_default();
                let hidden = part.starts_with('.');
                let fits = |name: &&String| (hidden || !name.starts_with('.')) && glob_fits(part, name);
                next.extend(names.iter().filter(fits).map(|name| join(name)));
            } else if files::look(&join(part), false).is_ok() {
                next.push(join(part));
            }
        }
        found = next;
    }
    found
}

/// Whether `name` fits a pattern with `*` and `?`.
pub fn glob_fits(pattern: &str, name: &str) -> bool {
    fn fits(pattern: &[char], name: &[char]) -> bool {
        match pattern {
            [] => name.is_empty(),
            ['*', rest @ ..] => (0..=name.len()).any(|skip| fits(rest, &name[skip..])),
            [one, rest @ ..] => match name.split_first() {
                Some((c, left)) => (*one == '?' || one == c) && fits(rest, left),
                None => false,
            },
        }
    }
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    fits(&pattern, &name)
}
