//! A few small tools in one program, for a look into a pod: `kubectl exec POD -- ls /data`.
//!
//! The first word of the command line says which: `ls`, or `toolbox ls`. They know the options that
//! people and `kubectl cp` use most, and say so where they do not know one.

use std::io::{self, BufRead, BufReader, Write};

mod archive;
mod files;
mod shell;
mod terminal;
mod text;

/// What a tool reads and writes.
pub struct Io<'a> {
    pub input: &'a mut dyn BufRead,
    pub out: &'a mut dyn Write,
    pub err: &'a mut dyn Write,
}

/// A tool's exit code, or why it failed, which is printed after its name.
pub type Outcome = Result<i32, Failure>;

pub struct Failure(pub String);

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(words(&error))
    }
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Failure {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// An error without the number that Rust adds.
pub fn words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// `path: why`
pub fn about(path: &str, error: &io::Error) -> Failure {
    Failure(format!("{path}: {}", words(error)))
}

type Tool = fn(&[String], &mut Io) -> Outcome;

/// Every tool; [`shell`] asks here too.
pub const TOOLS: &[(&str, Tool)] = &[
    ("cat", text::cat),
    ("cp", files::cp),
    ("date", text::date),
    ("echo", text::echo),
    ("env", text::env),
    ("false", |_, _| Ok(1)),
    ("find", files::find),
    ("grep", text::grep),
    ("head", text::head),
    ("hostname", text::hostname),
    ("id", text::id),
    ("ls", files::ls),
    ("mkdir", files::mkdir),
    ("mv", files::mv),
    ("printenv", text::printenv),
    ("pwd", files::pwd),
    ("rm", files::rm),
    ("sh", shell::sh),
    ("sleep", text::sleep),
    ("stat", files::stat),
    ("tail", text::tail),
    ("tar", archive::tar),
    ("test", files::test),
    ("touch", files::touch),
    ("true", |_, _| Ok(0)),
    ("wc", text::wc),
];

/// Runs the tool `words` names; `None` if there is none.
pub fn run(words: &[String], io: &mut Io) -> Option<i32> {
    let name = words.first()?.rsplit('/').next()?;
    let name = if name == "[" { "test" } else { name };
    let (name, tool) = TOOLS.iter().find(|(tool, _)| *tool == name)?;
    let code = match tool(&words[1..], io) {
        Ok(code) => code,
        Err(Failure(why)) => {
            // What was written comes before what is said about it.
            io.out.flush().ok();
            writeln!(io.err, "{name}: {why}").ok();
            if *name == "test" { 2 } else { 1 }
        }
    };
    // Whoever listens hears each command when it has spoken.
    io.out.flush().ok();
    Some(code)
}

fn main() {
    let mut words: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    // WASI guests start in `/`, whatever the container's working directory.
    if let Ok(directory) = std::env::var("PWD") {
        std::env::set_current_dir(directory).ok();
    }
    let known = |words: &[String]| {
        let name = words.first().map_or("", |word| word.rsplit('/').next().unwrap_or_default());
        TOOLS.iter().any(|(tool, _)| *tool == name)
    };
    if !known(&words) && !words.is_empty() {
        words.remove(0);
    }
    let on_terminal = terminal::is_one();
    let mut input = BufReader::with_capacity(32 << 10, io::stdin());
    let mut err = terminal::Output::new(io::stderr(), on_terminal);
    let mut out = terminal::Output::new(io::BufWriter::with_capacity(32 << 10, io::stdout()), on_terminal);
    let mut io = Io { input: &mut input, out: &mut out, err: &mut err };
    let code = run(&words, &mut io).unwrap_or_else(|| {
        let names: Vec<&str> = TOOLS.iter().map(|(name, _)| *name).collect();
        writeln!(io.err, "toolbox: there are {}", names.join(" ")).ok();
        127
    });
    io.out.flush().ok();
    std::process::exit(code);
}
