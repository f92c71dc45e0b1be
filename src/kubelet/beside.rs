//! A further run beside a container: what `kubectl exec`, exec probes and exec hooks start.
//!
//! A guest is one instance of one program, so nothing can be started *in* it. A further run is another
//! instance with the container's env, volumes (the same ones, live) and address. Its memory is its own, but
//! both draw on the container's limits together. Which program it runs follows from the first word, ARGS\[0\]:
//!
//! - the name of the container's own program, or `self`: its image, with the other words as arguments;
//! - a tool of the built-in image `coracle.dev/toolbox:v1` ([`TOOLS`]), by its name or a path such as
//!   `/bin/ls`: that tool;
//! - anything else is not found: exit code 127, as a shell has it, with a text that says what there is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::running::Refused;
use super::setup::Setup;
use super::start::{KILLED, TRAPPED};
use crate::runtime::pipe::{self, Receiver, Sender};
use crate::runtime::stdio::{Output, Stdio};
use crate::runtime::{Container, Exit, Fuel};

#[cfg(test)]
mod tests;

/// The image of the tools; it is compiled when it is first needed.
const TOOLBOX: &str = "coracle.dev/toolbox:v1";
/// What the toolbox can do, sorted.
pub(crate) const TOOLS: &[&str] = &[
    "cat", "cp", "date", "echo", "env", "false", "find", "grep", "head", "hostname", "id", "ls", "mkdir",
    "mv", "printenv", "pwd", "rm", "sh", "sleep", "stat", "tail", "tar", "test", "touch", "true", "wc",
];
/// The one of them that others are typed at.
const SHELL: &str = "sh";
/// Where programs lie elsewhere.
const TOOL_DIRS: &[&str] = &["/bin", "/sbin", "/usr/bin", "/usr/local/bin", "/usr/sbin"];
/// Exit code of a command that is not there, as shells have it.
const NOT_FOUND: i32 = 127;

/// What a command line runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    /// The container's image.
    Own,
    /// A tool of the toolbox.
    Tool(&'static str),
}

/// What `word` names in a container whose own program is `own`.
fn program(own: &str, word: &str) -> Option<Program> {
    let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    if word.is_empty() {
        return None;
    }
    if word == "self" || word == own || word == base(own) {
        return Some(Program::Own);
    }
    let name = match word.rsplit_once('/') {
        None => word,
        Some((dir, name)) if TOOL_DIRS.contains(&dir) => name,
        Some(_) => return None,
    };
    TOOLS.iter().find(|tool| **tool == name).map(|tool| Program::Tool(tool))
}

/// What a further run is connected to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// It has input.
    pub stdin: bool,
    /// It writes output and errors to one stream.
    pub merged: bool,
    /// It is told that it speaks to a terminal, which has one stream of output.
    pub tty: bool,
}

/// A further run. Dropping it ends it, as does the end of the container's own run.
pub struct Beside {
    /// Dropping it is the end of the input. None if it has no input.
    pub stdin: Option<Sender>,
    pub stdout: Option<Receiver>,
    /// None if it writes both to one stream.
    pub stderr: Option<Receiver>,
    /// It is a shell, which somebody who types is not to end by mistake.
    pub is_shell: bool,
    /// None if it never began.
    run: Option<Ending>,
}

/// Ends a run when it is dropped.
struct Ending(Arc<Container>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.kill();
    }
}

impl Beside {
    /// The exit code, once it has ended, and what the host says to it: the program's own as far as WASI
    /// carries it, 134 for a trap with its text, 137 for what was killed or took too much memory, 127 for
    /// what is not there.
    pub async fn exited(&self) -> (i32, Option<String>) {
        let Some(Ending(container)) = &self.run else { return (NOT_FOUND, None) };
        match container.exited().await {
            Exit::Code(code) => (code, None),
            Exit::Trap(text) => (TRAPPED, Some(text)),
            Exit::OutOfMemory => (KILLED, Some("it took more memory than its limit".to_owned())),
            Exit::Killed => (KILLED, None),
        }
    }
}

/// Starts a further run beside the container that `setup` was made for: `command` with its name first.
/// Its output is not kept anywhere.
///
/// # Errors
/// If the toolbox cannot be made ready. A command that is not there is a run that ends with 127.
pub(crate) async fn start(setup: &Arc<Setup>, command: &[String], wanted: Wanted) -> Result<Beside, Refused> {
    let word = command.first().map_or("", String::as_str);
    let mut args = command.to_vec();
    let program = program(&setup.program, word);
    let image = match program {
        Some(Program::Own) if !setup.image.is_command() => {
            let text = format!(
                "exec: {word:?}: the container's image is a handler of HTTP requests and no command; there are the \
                 tools {}\n",
                TOOLS.join(" ")
            );
            return Ok(not_run(text, wanted));
        }
        Some(Program::Own) => {
            args[0].clone_from(&setup.program);
            setup.image.clone()
        }
        Some(Program::Tool(name)) => {
            name.clone_into(&mut args[0]);
            let image = setup.node.config.images.built_in(TOOLBOX).await;
            image.map_err(|failure| Refused(format!("cannot run {word:?}: {}", failure.message)))?
        }
        None => return Ok(not_found(setup, word, wanted)),
    };
    let (sender, input) = pipe::to_guest();
    let (output, stdout) = pipe::from_guest();
    let (errors, stderr) = if wanted.merged || wanted.tty {
        (output.clone(), None)
    } else {
        let (errors, stderr) = pipe::from_guest();
        (errors, Some(stderr))
    };
    let stdio = Stdio {
        stdin: wanted.stdin.then_some(input),
        stdout: Output::Pipe(output),
        stderr: Output::Pipe(errors),
        tty: wanted.tty,
    };
    let container =
        Arc::new(setup.node.config.runtime.start(setup.spec(image, args, stdio, Fuel::Off)).await);
    let (watched, over) = (container.clone(), setup.over.clone());
    tokio::spawn(async move {
        tokio::select! {
            _ = watched.exited() => {}
            () = over.cancelled() => watched.kill(),
        }
    });
    let stdin = wanted.stdin.then_some(sender);
    let is_shell = program == Some(Program::Tool(SHELL));
    Ok(Beside { stdin, stdout: Some(stdout), stderr, is_shell, run: Some(Ending(container)) })
}

fn not_found(setup: &Setup, word: &str, wanted: Wanted) -> Beside {
    let text = format!(
        "exec: {word:?}: executable file not found: there is the container's own program, {:?} or \"self\", \
         and the tools {}\n",
        setup.program,
        TOOLS.join(" ")
    );
    not_run(text, wanted)
}

/// A run that never began, and says why.
fn not_run(text: String, wanted: Wanted) -> Beside {
    let told = pipe::filled(text.into());
    let nothing = pipe::filled(Bytes::new());
    let (stdout, stderr) = if wanted.merged || wanted.tty { (told, None) } else { (nothing, Some(told)) };
    Beside { stdin: None, stdout: Some(stdout), stderr, is_shell: false, run: None }
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    pub(crate) code: i32,
    /// The beginning of its output, errors among it.
    pub(crate) output: Bytes,
}

/// Why a command did not come to an end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfinished {
    #[error("command timed out after {}s", .0.as_secs_f64())]
    Late(Duration),
    #[error("{0}")]
    NotStarted(#[source] Refused),
}

/// Runs `command` beside the container to its end, for at most `limit`, without input; keeps `bytes_max`
/// of what it writes. For probes and hooks.
pub(crate) async fn finish(
    setup: &Arc<Setup>,
    command: &[String],
    limit: Duration,
    bytes_max: usize,
) -> Result<Finished, Unfinished> {
    let run = async {
        let wanted = Wanted { merged: true, ..Wanted::default() };
        let mut run = start(setup, command, wanted).await.map_err(Unfinished::NotStarted)?;
        let mut output = Vec::new();
        let mut stdout = run.stdout.take();
        while let Some(stdout) = &mut stdout
            && let Some(bytes) = stdout.read().await
        {
            let room = bytes_max.saturating_sub(output.len());
            output.extend_from_slice(&bytes[..room.min(bytes.len())]);
        }
        let (code, text) = run.exited().await;
        if let Some(text) = text {
            let room = bytes_max.saturating_sub(output.len());
            output.extend_from_slice(&text.as_bytes()[..room.min(text.len())]);
        }
        Ok(Finished { code, output: output.into() })
    };
    let clock = setup.node.shared.clock;
    clock.timeout(limit, run).await.unwrap_or(Err(Unfinished::Late(limit)))
}
